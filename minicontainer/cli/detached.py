"""The commands for containers that run by themselves: docker's, in their plain forms."""

from __future__ import annotations

import argparse

from minicontainer.cli.commands import (
    _each,
    _ended,
    _engine,
    _environment,
    _held_signals,
    _keys,
    _let_interrupt,
    _require_terminal,
)
from minicontainer.cli.rights import is_name, user_of
from minicontainer.engine.errors import EngineError
from minicontainer.engine.rights import Rights
from minicontainer.engine.store import Config
from minicontainer.linux import Namespace, signal


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
        only=None if arguments.namespaces is None else _namespaces(arguments.namespaces),
    )
    if detached:
        running.wait()  # it is just the one that bore the program
        return 0
    from minicontainer.runtime.attach import accompany

    accompany(running, interrupts)
    return running.wait()


def _namespaces(text: str) -> list[Namespace]:
    """``pid,net``, or lxc-attach's ``PID|NETWORK``."""
    found = []
    for word in text.replace("|", ",").lower().split(","):
        try:
            found.append(Namespace.named({"mount": "mnt", "network": "net", "utsname": "uts"}.get(word, word)))
        except KeyError:
            names = ", ".join(kind.proc_name for kind in Namespace)
            raise EngineError(f'--namespaces "{word}": there is no such namespace; there are {names}') from None
    return found


def debug(arguments: argparse.Namespace) -> int:
    """``minicontainer debug``: a container that is gone when its command has ended; its exit status is ours."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    _require_terminal(arguments)
    other = engine.store.find(arguments.container)
    if (status := engine.state(other).status) != "running":
        raise EngineError(f'container "{other.name}" does not run (it is {status}): there is nothing to look at', 1)
    result = engine.run(
        arguments.image,
        arguments.args or ["sh"],
        stdio=(0 if arguments.interactive else None, 1, 2),
        interrupts=interrupts,
        env=(*(["TERM=xterm"] if arguments.tty else []), *_environment(arguments)),
        terminal=arguments.tty,
        debugs=other.id,
        reaper=False,
        rights=Rights(added=("SYS_PTRACE",)),
    )
    return result.status


def attach(arguments: argparse.Namespace) -> int:
    """``minicontainer attach``: stay with a container; its exit status is ours."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    config = engine.store.find(arguments.container)
    leave = _keys(arguments.detach_keys)
    return _ended(engine.attach(config, None if arguments.no_stdin else 0, interrupts, leave))


def console(arguments: argparse.Namespace) -> int:
    """``minicontainer console``: stay at a terminal of a container, with LXC's keys."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    config = engine.store.find(arguments.container)
    if not config.terminal:
        raise EngineError(f'container "{config.name}" has no terminal: make it with -t, or see exec -it', 1)
    if arguments.tty != 0:
        raise EngineError(f'container "{config.name}" has one terminal, its console, which is -t 0', 1)
    return _ended(engine.attach(config, 0, interrupts, _keys(arguments.escape, "ctrl-a,q")))


def logs(arguments: argparse.Namespace) -> int:
    """``minicontainer logs``."""
    _let_interrupt()
    engine = _engine(arguments)
    tail = None if arguments.tail == "all" else _count(arguments.tail)
    times = {}
    if arguments.since is not None or arguments.until is not None:
        from minicontainer.cli.moments import moment

        times = {name: moment(getattr(arguments, name), f"logs --{name}") for name in ("since", "until")}
    config = engine.store.find(arguments.container)
    engine.logs(config, follow=arguments.follow, tail=tail, timestamps=arguments.timestamps, **times)
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """``minicontainer stop``: prints what was stopped."""
    engine = _engine(arguments)
    return _each(arguments, lambda config: engine.stop(config, arguments.time))


def restart(arguments: argparse.Namespace) -> int:
    """``minicontainer restart``: prints what was started again."""
    engine = _engine(arguments)

    def again(config: Config) -> None:
        engine.stop(config, arguments.time)
        engine.start_detached(engine.store.find(config.id))
        engine.store.tell(config, "restart")

    return _each(arguments, again)


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
