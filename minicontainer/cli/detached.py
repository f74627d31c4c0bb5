"""The commands for containers that run by themselves: docker's, in their plain forms."""

from __future__ import annotations

import argparse

from minicontainer.cli.commands import _each, _engine, _environment, _held_signals, _let_interrupt, _require_terminal
from minicontainer.cli.rights import is_name, user_of
from minicontainer.engine.errors import EngineError
from minicontainer.linux import signal


def execute(arguments: argparse.Namespace) -> int:
    """``minicontainer exec``: another program in a container; its exit status is ours."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    if not arguments.detach:
        _require_terminal(arguments)
    config = engine.store.find(arguments.container)
    detached = arguments.detach
    running = engine.exec(
        config,
        arguments.args,
        (None, None, None) if detached else (0 if arguments.interactive else None, 1, 2),
        env=_environment(arguments),
        cwd=arguments.workdir,
        user=None if arguments.user is None else arguments.user if is_name(arguments.user) else user_of(arguments.user),
        terminal=arguments.tty and not detached,
        alone=detached,
    )
    if detached:
        running.wait()  # it is just the one that bore the program
        return 0
    from minicontainer.runtime.attach import accompany

    accompany(running, interrupts)
    return running.wait()


def attach(arguments: argparse.Namespace) -> int:
    """``minicontainer attach``: stay with a container; its exit status is ours."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    config = engine.store.find(arguments.container)
    status = engine.attach(config, None if arguments.no_stdin else 0, interrupts)
    return 0 if status is None else status


def logs(arguments: argparse.Namespace) -> int:
    """``minicontainer logs``."""
    _let_interrupt()
    engine = _engine(arguments)
    tail = None if arguments.tail == "all" else _count(arguments.tail)
    config = engine.store.find(arguments.container)
    engine.logs(config, follow=arguments.follow, tail=tail, timestamps=arguments.timestamps)
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """``minicontainer stop``: prints what was stopped."""
    engine = _engine(arguments)
    return _each(arguments, lambda config: engine.stop(config, arguments.time))


def kill(arguments: argparse.Namespace) -> int:
    """``minicontainer kill``."""
    engine, number = _engine(arguments), _signal(arguments.signal)
    return _each(arguments, lambda config: engine.send(config, number))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise EngineError(f'--tail {text}: write a number of lines, or "all"')
    return int(text)


def _signal(text: str) -> int:
    """``TERM``, ``SIGTERM`` or 15."""
    if text.isascii() and text.isdecimal():
        number = int(text)
    else:
        number = int(getattr(signal, f"SIG{text.upper().removeprefix('SIG')}", 0))
    if number not in signal.valid_signals():
        raise EngineError(f'there is no signal "{text}": write it as in TERM or 15; see signal(7)')
    return number
