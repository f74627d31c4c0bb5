"""What containers do now: ``info``, ``top``."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

from minicontainer.cli import formats
from minicontainer.cli.commands import STATISTICS, _bytes, _engine, _let_interrupt, _printable, _row
from minicontainer.engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.arguments import Parser
    from minicontainer.engine.engine import Engine
    from minicontainer.engine.resources import Statistics


# info


def info_options(parser: Parser) -> None:
    """Of ``info``."""
    formats.add_options(parser)
    parser.add_argument("container", nargs="?", metavar="CONTAINER", help="of this one (of the engine and the host)")


def info(arguments: argparse.Namespace) -> int:
    """``minicontainer info``: lxc-info's lines of a container, or docker's of the engine."""
    _let_interrupt()
    engine = _engine(arguments)
    facts = _of_container(engine, arguments.container) if arguments.container else _of_engine(engine)
    if arguments.json or arguments.format:
        formats.show_objects(arguments, [facts])
        return 0
    lines = [(name, value) for name, several in facts.items() for value in _each(several)]
    width = max(len(name) for name, _ in lines) + 1
    for name, value in lines:
        print(f"{f'{name}:':<{width}} {value}")
    return 0


def _each(value: object) -> list[object]:
    return value if isinstance(value, list) else ["-" if value in (None, "") else value]


def _of_container(engine: Engine, name: str) -> dict[str, Any]:
    """In the words of lxc-info(1)."""
    config = engine.store.find(name)
    row = next((row for row in engine.listed([f"id={config.id}"], all=True)), None)
    if row is None:
        raise EngineError(f'container "{config.name}" has just ended, and is gone', 1)
    facts: dict[str, Any] = {"Name": config.name, "State": row.status.upper(), "Image": config.image}
    if row.status not in ("running", "paused"):
        return facts | {"ExitCode": row.state.exit_code}
    endpoints = engine.endpoints(config) if os.path.exists(engine.store.networked(config.id)) else []
    facts["PID"] = row.state.pid
    facts["IP"] = [address for one in endpoints for address in one.addresses]
    for one in engine.statistics([config]):
        use = one.usage
        facts["CPU use"] = "-" if use.cpu is None else f"{use.cpu / 1e6:.2f} seconds"
        facts["BlkIO use"] = f"{_bytes(use.read)} read, {_bytes(use.written)} written"
        facts["Memory use"] = _bytes(use.memory)
        facts["Processes"] = use.pids
        facts["RX bytes"], facts["TX bytes"] = _bytes(one.received), _bytes(one.sent)
    facts["Link"] = [f"{one.interface} on {one.network}" for one in endpoints]
    return facts


def _of_engine(engine: Engine) -> dict[str, Any]:
    import platform

    from minicontainer import __version__
    from minicontainer.linux.cgroups import hierarchies

    rows = engine.listed(all=True)
    count = {status: sum(row.status == status for row in rows) for status in ("running", "paused", "exited", "created")}
    versions = sorted({one.version for one in hierarchies()})
    machine = os.uname()
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        system = ""
    where = os.statvfs(engine.store.root if os.path.isdir(engine.store.root) else "/")
    return {
        "Engine": f"minicontainer {__version__}",
        "Containers": len(rows),
        "Running": count["running"],
        "Paused": count["paused"],
        "Stopped": count["exited"] + count["created"],
        "Images": len(engine.images().all()),
        "Root": engine.store.root,
        "Storage": "overlay",
        "Free": _bytes(where.f_bavail * where.f_frsize),
        "Cgroup version": "hybrid" if len(versions) > 1 else str(*versions),
        "Rootless": "yes" if os.geteuid() else "no",
        "Kernel": machine.release,
        "System": system,
        "Architecture": machine.machine,
        "Processors": os.sysconf("SC_NPROCESSORS_ONLN"),
        "Memory": _bytes(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")),
        "Name": machine.nodename,
    }


# top

PROCESSES = {
    "Pid": "PID", "Inside": "INSIDE", "Uid": "UID", "State": "STATE", "Time": "TIME", "Memory": "MEMORY",
    "Command": "COMMAND",
}  # fmt: skip
"""Field → heading."""

KEYS: dict[str, Callable[[Statistics], Any]] = {
    "name": lambda one: one.name,
    "cpu": lambda one: -(one.cpu_percent or 0),
    "memory": lambda one: -(one.usage.memory or 0),
    "pids": lambda one: -(one.usage.pids or 0),
    "io": lambda one: -((one.usage.read or 0) + (one.usage.written or 0)),
    "net": lambda one: -((one.received or 0) + (one.sent or 0)),
}
"""What containers are sorted by; the most first, except names. On a terminal the first letter is the key to press."""


def top_options(parser: Parser) -> None:
    """Of ``top``."""
    add = parser.add_argument
    add("-b", "--batch", action="store_true", help="do not clear the screen, take no keys: for files and pipes")
    add("-n", "--count", type=int, metavar="N", help="so many looks (until it is stopped; of a pipe, one)")
    add("-d", "--delay", type=float, default=3.0, metavar="S", help="seconds between two looks (3)")
    add("-s", "--sort", choices=tuple(KEYS), default="name", help="by what (name)")
    add("-r", "--reverse", action="store_true", help="the other way round")
    formats.add_options(parser)
    add("container", nargs="?", metavar="CONTAINER", help="its processes, in place of all containers")
    parser.epilog = f"On a terminal: {', '.join(name[0] for name in KEYS)} sort, r reverses, q ends."


def top(arguments: argparse.Namespace) -> int:
    """``minicontainer top``: the processes of one container, or all containers as they come and go."""
    _let_interrupt()
    if arguments.delay < 0 or not arguments.delay < 1e6:
        raise EngineError(f"top --delay {arguments.delay:g}: give a number of seconds, such as 0.5")
    if arguments.count is not None and arguments.count < 1:
        raise EngineError(f"top --count {arguments.count}: at least one look")
    engine = _engine(arguments)
    return _processes(engine, arguments) if arguments.container else _live(engine, arguments)


def _processes(engine: Engine, arguments: argparse.Namespace) -> int:
    rows = [
        {"Pid": one.pid, "Inside": one.inside, "Uid": one.uid, "State": one.state, "Time": f"{one.seconds:.2f}",
         "Memory": _bytes(one.memory), "Command": _printable(one.command)}
        for one in engine.processes(engine.store.find(arguments.container))
    ]  # fmt: skip
    formats.show_list(arguments, PROCESSES, rows)
    return 0


def _live(engine: Engine, arguments: argparse.Namespace) -> int:
    """A look every so often, and at each key; sorted anew each time."""
    screen = os.isatty(1) and not (arguments.batch or arguments.json or arguments.format)
    looks = arguments.count or (None if screen or arguments.batch else 1)
    key, reverse, before, then = arguments.sort, arguments.reverse, None, time.monotonic()
    with _keys(screen) as keys:
        while True:
            found = engine.statistics(None, before, (now := time.monotonic()) - then)
            before, then = {one.id: one for one in found}, now
            found.sort(key=KEYS[key], reverse=reverse)
            if screen:
                print("\x1b[H\x1b[2J", end="")  # ECMA-48: the cursor home, the screen empty
            rows = [dict(zip(STATISTICS, _row(one), strict=True)) | {"ID": one.id} for one in found]
            formats.show_list(arguments, STATISTICS, rows)
            sys.stdout.flush()
            if looks is not None and (looks := looks - 1) == 0:
                return 0
            if not select.select(keys, [], [], arguments.delay)[0]:
                continue
            pressed = os.read(0, 1).decode(errors="replace")
            if pressed in ("q", "Q", ""):
                return 0
            reverse ^= pressed == "r"
            key = next((name for name in KEYS if name[0] == pressed), key)


@contextlib.contextmanager
def _keys(wanted: bool) -> Iterator[list[int]]:
    """Where keys can be read one by one and unseen, if there is a terminal for it: termios(3), not canonical."""
    if not wanted or not os.isatty(0):
        yield []
        return
    import termios

    before = termios.tcgetattr(0)
    after = termios.tcgetattr(0)
    after[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(0, termios.TCSADRAIN, after)
    try:
        yield [0]
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
