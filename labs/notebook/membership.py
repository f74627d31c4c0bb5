"""Who is in which namespace, and who listens where: for lab 07 and 08, read in /proc, from outside.

members({"this notebook": os.getpid(), "the container": container.pid})
listeners({"the first": first.pid, "the second": second.pid})
with entered(container, ["sleep", "60"]) as pid: ...      # what `minicontainer exec` starts
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from labs.notebook.pictures import INK, MONO, OWN, SHARED, Picture, _box, _canvas, _figure, _shortened
from labs.notebook.session import Session, lab_root, session, until
from minicontainer.engine.engine import Container
from minicontainer.linux import Namespace

LISTEN = "0A"
"""The state of a socket in /proc/net/tcp: TCP_LISTEN of include/net/tcp_states.h."""
COLOURS = (SHARED, OWN, "#e69f00", "#009e73", "#cc79a7")


def memberships(processes: Mapping[str, int]) -> dict[str, list[str]]:
    """For each kind of namespace the link of every process, in their order, such as ``net:[4026531840]``."""
    return {kind.proc_name: [kind.link(pid) for pid in processes.values()] for kind in Namespace if kind.supported}


@Picture
def members(processes: Mapping[str, int]) -> Figure:
    """Which namespaces processes are in: the same letter in a row says that it is the same namespace."""
    found = memberships(processes)
    width = 17.0 / len(processes)
    axes = _canvas(9.6, 0.56 * len(found) + 1.5, (0, 24), (-len(found) - 0.9, 1.1))
    for column, name in enumerate(processes):
        axes.text(6.6 + width * (column + 0.5), 0.5, name, ha="center", weight="bold", color=INK, size=9)
    for row, kind in enumerate(Namespace.named(name) for name in found):
        y, links = -row - 0.5, found[kind.proc_name]
        axes.text(0, y, kind.proc_name, va="center", family=MONO, weight="bold", color=INK)
        axes.text(
            2.0, y, _shortened(kind) if len(kind.isolates) > 22 else kind.isolates, va="center", size=7.5, color=INK
        )
        known = list(dict.fromkeys(links))
        for column, link in enumerate(links):
            which = known.index(link)
            x = 6.6 + width * column
            _box(axes, x + 0.2, y, width - 0.4, COLOURS[which % len(COLOURS)])
            text = f"{'ABCDEFGH'[which]}   {link.partition(':')[2]}"
            axes.text(x + width / 2, y, text, ha="center", va="center", family=MONO, size=9, color=INK)
    axes.text(
        0, -len(found) - 0.55, "read from /proc/PID/ns: A, B, … are different namespaces", size=8, color="#555555"
    )
    return _figure(axes)


def listening(pid: int) -> list[str]:
    """The TCP sockets that listen in the network namespace of a process: ``0.0.0.0:8080``, ``[::]:8080``."""
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN:
                digits, _, port = fields[1].partition(":")
                words = [int(digits[place : place + 8], 16) for place in range(0, len(digits), 8)]
                address = socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
                found.append(
                    f"[{address}]:{int(port, 16)}" if family == socket.AF_INET6 else f"{address}:{int(port, 16)}"
                )
    return sorted(found)


@Picture
def listeners(processes: Mapping[str, int]) -> Figure:
    """Which TCP ports are taken in the network namespaces of processes; who shares one stands in the same frame."""
    frames: dict[str, list[tuple[str, int]]] = {}
    for name, pid in processes.items():
        frames.setdefault(Namespace.NETWORK.link(pid), []).append((name, pid))
    ports = {link: listening(those[0][1]) or ["nobody listens"] for link, those in frames.items()}
    tallest = max(len(lines) for lines in ports.values())
    axes = _canvas(9.6, 0.45 * tallest + 1.9, (0, 24), (-tallest - 1.3, 2.2))
    width = 24 / len(frames)
    for number, (link, those) in enumerate(frames.items()):
        x = width * number
        _box(axes, x + 0.3, 0.6 - tallest / 2, width - 0.6, "#ffffff", height=tallest + 2.5)
        axes.text(
            x + width / 2, 1.25, " and ".join(name for name, _ in those), ha="center", weight="bold", size=9, color=INK
        )
        axes.text(x + width / 2, 0.75, link, ha="center", va="center", family=MONO, size=8, color=INK)
        for row, line in enumerate(ports[link]):
            taken = line != "nobody listens"
            _box(axes, x + 1.0, -row - 0.3, width - 2.0, OWN if taken else SHARED, dashed=not taken)
            axes.text(x + width / 2, -row - 0.3, line, ha="center", va="center", family=MONO, size=9, color=INK)
    axes.text(
        0.3,
        -tallest - 1.15,
        "read from /proc/PID/net/tcp and tcp6, a frame for each network namespace",
        size=8,
        color="#555555",
    )
    return _figure(axes)


@contextlib.contextmanager
def entered(container: Container, args: Sequence[str], mine: bool = False) -> Iterator[int]:
    """The pid of a program that ``minicontainer exec`` has started in a container, while the block lasts.

    With `mine`, the command is given this session's exercises: your `join` takes it there.
    """
    with _steps(session if mine else None) as steps:
        command = [
            sys.executable,
            "-m",
            "minicontainer",
            "--root",
            str(lab_root()),
            *steps,
            "exec",
            container.name,
            *args,
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            found: list[int] = []

            def is_over() -> bool:
                found[:] = _programs(process.pid, args)
                return bool(found) or process.poll() is not None

            until(is_over, 20)
            if not found:
                assert process.stderr is not None
                raise RuntimeError(f"nothing was started: {process.stderr.read().strip() or 'it has ended'}")
            yield found[0]
        finally:
            process.terminate()
            process.communicate()


def _programs(pid: int, args: Sequence[str]) -> list[int]:
    """The children of a process that execute this command by now."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path(f"/proc/{child}/cmdline").read_text().rstrip("\0").split("\0") == list(args):
                found.append(int(child))
    return found


@contextlib.contextmanager
def _steps(mine: Session | None) -> Iterator[list[str]]:
    if mine is None:
        yield []
        return
    place = lab_root() / "sessions" / f"{os.getpid()}-exec.ipynb"
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield ["--steps", str(mine.write(place))]
    finally:
        place.unlink(missing_ok=True)
