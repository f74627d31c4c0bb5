"""The commands for containers that run by themselves: docker's, in their plain forms."""

from __future__ import annotations

import argparse
import json
import time

from minicontainer.cli.commands import _each, _engine, _environment, _held_signals, _let_interrupt, _require_terminal
from minicontainer.cli.rights import is_name, user_of
from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config, State
from minicontainer.linux import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
    leave = _keys(arguments.detach_keys, "ctrl-p,ctrl-q")
    status = engine.attach(config, None if arguments.no_stdin else 0, interrupts, leave)
    return 0 if status is None else status


def console(arguments: argparse.Namespace) -> int:
    """``minicontainer console``: stay at a terminal of a container, with LXC's keys."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    config = engine.store.find(arguments.container)
    if not config.terminal:
        raise EngineError(f'container "{config.name}" has no terminal: make it with -t, or see exec -it', 1)
    if arguments.tty != 0:
        raise EngineError(f'container "{config.name}" has one terminal, its console, which is -t 0', 1)
    status = engine.attach(config, 0, interrupts, _keys(arguments.escape, "ctrl-a,q"))
    return 0 if status is None else status


def _keys(said: str | None, usual: str) -> bytes:
    """Those that leave: as the command line says, the environment, or as usual."""
    import os

    from minicontainer.runtime.keys import read_keys

    try:
        return read_keys(os.environ.get("MINICONTAINER_DETACH_KEYS", usual) if said is None else said)
    except ValueError as error:
        raise EngineError(str(error)) from None


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


def inspect(arguments: argparse.Namespace) -> int:
    """``minicontainer inspect``: all that is known of containers, as JSON."""
    _let_interrupt()
    engine = _engine(arguments)
    configs = [engine.store.find(name) for name in arguments.containers]
    shown = [
        _shown(config, engine.state(config), engine.paused(config))
        | {"NetworkSettings": engine.network_settings(config)}
        for config in configs
    ]
    print(json.dumps(shown, indent=2))
    return 0


def _shown(config: Config, state: State, paused: bool) -> dict[str, Any]:
    """Docker's words where they say the same, and every field of ours under "Config"."""
    running = state.status == "running"
    return {
        "Id": config.id,
        "Name": config.name,
        "Created": _date(config.created),
        "Image": config.image,
        "ImageId": config.image_id,
        "Args": config.args,
        "State": {
            "Status": "paused" if running and paused else state.status,
            "Running": running,
            "Paused": running and paused,
            "Pid": state.pid or 0 if running else 0,
            "ExitCode": state.exit_code,
            "OOMKilled": state.oom_killed,
            "Detached": state.detached,
            "StartedAt": _date(state.began),
            "FinishedAt": _date(state.finished),
        },
        "Config": json.loads(config.to_json()),
    }


def _date(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{seconds % 1 * 1e6:06.0f}Z"


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
