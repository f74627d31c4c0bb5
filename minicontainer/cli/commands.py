"""Each command of the command line: from its options to a call of the engine, and what is printed."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from minicontainer.cli import HANDLED
from minicontainer.engine.engine import Engine
from minicontainer.engine.errors import EngineError
from minicontainer.linux import signalfd
from minicontainer.runtime.spec import DEFAULT_PATH
from minicontainer.steps.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(arguments: argparse.Namespace) -> int:
    """``minicontainer run``: create, start, stay, and (--rm) remove."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    stdin = 0 if arguments.interactive else None
    _require_terminal(arguments)
    result = engine.run(
        arguments.image,
        arguments.args,
        stdio=(stdin, 1, 2),
        interrupts=interrupts,
        remove=arguments.rm,
        **_options(arguments),
    )
    return result.status


def create(arguments: argparse.Namespace) -> int:
    """``minicontainer create``: prints the id."""
    _let_interrupt()
    print(_engine(arguments).create(arguments.image, arguments.args, **_options(arguments)).id)
    return 0


def start(arguments: argparse.Namespace) -> int:
    """``minicontainer start``: stays with the container; its exit status is ours."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    config = engine.store.find(arguments.container)
    running = engine.start(config, (0 if arguments.interactive else None, 1, 2), interrupts)
    return engine.attend(config, running, interrupts)


def wait(arguments: argparse.Namespace) -> int:
    """``minicontainer wait``: prints the exit status."""
    _let_interrupt()
    engine = _engine(arguments)
    print(engine.wait(engine.store.find(arguments.container)))
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """``minicontainer rm``: prints what was removed; goes on after one that could not be."""
    engine, code = _engine(arguments), 0
    for name in arguments.containers:
        try:
            engine.remove(engine.store.find(name), force=arguments.force)
            print(name)
        except EngineError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 1
    return code


def ps(arguments: argparse.Namespace) -> int:
    """``minicontainer ps``: a line for each container."""
    _let_interrupt()
    rows: list[tuple[str, ...]] = [("CONTAINER", "NAME", "IMAGE", "STATUS", "COMMAND")]
    for config, state in _engine(arguments).containers():
        if arguments.all or state.status in ("running", "starting"):
            ended = f"exited ({state.exit_code if state.exit_code is not None else 'unknown'})"
            status = ended if state.status == "exited" else state.status
            rows.append((config.id, config.name, config.image, status, _printable(" ".join(config.args))))
    if arguments.quiet:
        rows = [row[:1] for row in rows[1:]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def check(arguments: argparse.Namespace) -> int:
    """``minicontainer check``: 0 when everything that is needed is there."""
    _let_interrupt()
    from minicontainer.engine.host import examine, report

    findings = examine(arguments.root)
    print(report(findings, as_json=arguments.json))
    return 0 if all(finding.works for finding in findings if finding.required) else 1


def repair(arguments: argparse.Namespace) -> int:
    """``minicontainer system repair``: a line for each thing that was put right."""
    for line in _engine(arguments).repair():
        print(line)
    return 0


def _engine(arguments: argparse.Namespace) -> Engine:
    return Engine(arguments.root, arguments.steps)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of the engine's Config that the command line speaks of."""
    from minicontainer.cli.arguments import SHAREABLE

    shared = [name for option, name in SHAREABLE.items() if getattr(arguments, option) == "host"]
    if arguments.network == "host":
        shared.append("net")
    environment = [f"PATH={DEFAULT_PATH}", "HOME=/root", *(["TERM=xterm"] if arguments.tty else [])]
    return {
        "name": arguments.name,
        "hostname": arguments.hostname,
        "domainname": arguments.domainname,
        "terminal": arguments.tty,
        "env": (
            *environment,
            *(item if "=" in item else f"{item}={os.environ.get(item, '')}" for item in arguments.env),
        ),
        "cwd": arguments.workdir,
        "rootfs": arguments.rootfs,
        "shared": tuple(shared),
        "volumes": tuple(map(_volume, arguments.volume)),
        "limits": Limits(_size(arguments.memory), arguments.cpus, arguments.pids_limit),
        "reaper": not arguments.no_init,
    }


def _volume(text: str) -> tuple[str, str, bool]:
    source, _, rest = text.partition(":")
    destination, _, mode = rest.partition(":")
    if not source or not destination.startswith("/") or mode not in ("", "ro", "rw"):
        raise EngineError(f'cannot understand the volume "{text}": write SOURCE:/DESTINATION or SOURCE:/DESTINATION:ro')
    return os.path.abspath(source), destination, mode == "ro"


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    factor = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:].lower())
    digits = text[:-1] if factor else text
    if not digits.isdecimal() or not digits.isascii():
        raise EngineError(f'cannot understand the size "{text}": write a number of bytes, or 64k, 64m, 2g')
    return int(digits) * (factor or 1)


def _held_signals() -> int:
    """Where the signals that would end us can be read. They are held back from the first line of main(), so that ^C
    cannot hit between two steps of a clean-up: it waits until somebody looks."""
    return signalfd(HANDLED)


def _let_interrupt() -> None:
    """Let ^C end this command wherever it is: nothing of it is left behind."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _printable(text: str) -> str:
    """One line, and nothing that a terminal would take for an order."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _require_terminal(arguments: argparse.Namespace) -> None:
    if arguments.tty and arguments.interactive and not os.isatty(0):
        raise EngineError("-it needs a terminal, and standard input is none; leave out -t")
