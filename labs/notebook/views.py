"""The magics that look, in the notebook and in a cell apart: %nsdiff, %pstree, %mounts, %cgroup, %packets.

Each names processes alike: a number, ``self``, ``sandbox`` (in a cell apart: what is around it), or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from labs.notebook import seen
from labs.notebook.shown import Table
from minicontainer.linux import Namespace


class Unclear(Exception):
    """A magic that cannot be carried out as it was given; the text says what to do."""


class Before:
    """How this process was when the notebook was loaded, or the cell apart began; and what is around a cell."""

    def __init__(self) -> None:
        self.links = seen.links()
        self.mounts = seen.mounts()
        self.sandbox: dict[Namespace, str] | None = None


before: Before | None = None
"""Set by whoever provides the magics, at the beginning."""


def nsdiff(line: str) -> None:
    """%nsdiff [PROCESS [PROCESS]]: the namespaces of two processes, kind by kind; ≠ where they are not the same.

    Without a process: this one as it was at the beginning (of the cell apart, of the notebook) and now. With one: this
    one and that.
    """
    first, second = _two(line, "at the beginning", "now")
    rows = []
    mine, yours = _links(first), _links(second)
    for kind in mine:
        same = mine[kind] == yours[kind]
        rows.append(
            ("" if same else "≠", kind.proc_name, mine[kind], "the same" if same else yours[kind], kind.isolates)
        )
    count = sum(1 for row in rows if row[0])
    Table(
        f"namespaces: {_named(first)} and {_named(second)}",
        ("", "kind", _named(first), _named(second), "what it wraps"),
        rows,
        f"{count} of {len(rows)} are different" if count else f"all {len(rows)} are the same",
    ).show()


def pstree(line: str) -> None:
    """%pstree [PROCESS]: a process and its descendants, with the number that each has in each PID namespace."""
    pid = _pid(line.strip() or "self")
    try:
        top = seen.relative(pid)
    except OSError as error:
        raise Unclear(f"process {pid}: {error.strerror}") from None
    rows: list[tuple[str, ...]] = []

    def visit(process: seen.Relative, depth: int) -> None:
        numbers = [str(number) for number in process.inside]
        state = "zombie: has ended, and nobody has waited for it" if process.state == "Z" else process.state
        shown = f"{'   ' * (depth - 1)}└─ {process.name}" if depth else process.name
        rows.append((shown, numbers[0], " ".join(numbers[1:]) or "–", state))
        for below in process.below:
            visit(below, depth + 1)

    visit(top, 0)
    Table(
        f"processes from {pid} down",
        ("process", "number here", "numbers further inside", "state"),
        rows,
        "read from NSpid and State in /proc/PID/status; S sleeps, R runs, T is stopped",
    ).show()


def mounts(line: str) -> None:
    """%mounts [PROCESS [PROCESS]]: what is mounted where; of two processes, what is different: + and -.

    Without a process: what has changed since the beginning (of the cell apart, of the notebook).
    """
    words = line.split()
    if len(words) == 1:
        known = _mounts(words[0])
        rows = [(mount.point, mount.fstype, mount.source, mount.options, mount.propagation) for mount in known]
        Table(f"mounts of {_named(words[0])}", ("on", "type", "source", "options", "spreads"), rows).show()
        return
    first, second = _two(line, "at the beginning", "now")
    old, new = _mounts(first), _mounts(second)
    rows = [("-", mount.point, mount.fstype, mount.source, mount.propagation) for mount in old if mount not in new]
    rows += [("+", mount.point, mount.fstype, mount.source, mount.propagation) for mount in new if mount not in old]
    rows.sort(key=lambda row: (row[1], row[0] == "+"))
    both = len(new) - sum(1 for row in rows if row[0] == "+")
    Table(
        f"mounts: {_named(first)} and {_named(second)}",
        ("", "on", "type", "source", "spreads"),
        rows,
        f"{both} mounts are the same in both, and not listed" if rows else f"no difference: {both} mounts in both",
    ).show()


SHOWN = (
    *("memory.max", "memory.current", "memory.limit_in_bytes", "memory.usage_in_bytes", "pids.max", "pids.current"),
    *("cpu.max", "cpu.weight", "cpu.shares", "cpu.cfs_quota_us", "cpuset.cpus", "cpuset.cpus.effective", "io.max"),
    *("freezer.state", "cgroup.freeze", "cgroup.controllers"),
)
"""The files of a group that %cgroup shows, of either version."""


def cgroup(line: str) -> None:
    """%cgroup [PROCESS]: the control groups of a process, and what stands in their most important files."""
    word = line.strip() or "self"
    rows = []
    try:
        groups = seen.groups(_number(word))
    except OSError as error:
        raise Unclear(f"process {word}: {error.strerror}") from None
    for group in groups:
        version = f"v1 {group.controllers}" if group.controllers else "v2"
        where = "" if group.directory else "its files are not in sight"
        rows.append((version, group.path, where))
        for name in SHOWN if group.directory else ():
            try:
                value = Path(f"{group.directory}/{name}").read_text().strip()
            except OSError:
                continue
            rows.append(("", f"  {name}", value))
    Table(f"control groups of {_named(word)}", ("hierarchy", "group and file", "value"), rows).show()


listen: Callable[[], Callable[[], list[tuple[str, ...]]]] | None = None
"""In a cell apart: listens on the devices of the network namespace that it is in; returns who tells what was heard."""

packets_heard: Callable[[], list[tuple[str, ...]]] | None = None
"""In a cell apart: the one who tells it, since the cell began or listened anew."""


def packets(line: str) -> None:
    """%packets KIND [mine]: follow one packet (out, in, loopback, beside). In a cell apart: what was heard so far.

    %packets listen, in a cell apart that has gone to another network namespace: listen there from now on.
    """
    global packets_heard
    if listen and line.strip() == "listen":
        packets_heard = listen()
        return
    if packets_heard:
        rows = packets_heard()
        Table(
            "packets on the devices of this network namespace",
            ("when", "device", "", "protocol", "from", "to", "bytes"),
            rows,
            "heard with a packet(7) socket; in ms since it was opened"
            if rows
            else "none was heard in the network namespace that the cell began in; in another one: %packets listen",
        ).show()
        return
    from labs.notebook import pictures
    from labs.notebook.network import KINDS

    kind, *rest = line.split() or [""]
    if kind not in KINDS or rest not in ([], ["mine"]):
        ways = "; ".join(f"%packets {name}: {text}" for name, text in KINDS.items())
        raise Unclear(f"which packet? {ways}. With the word mine behind it: by your own functions")
    pictures.journey(kind, mine=bool(rest))


VIEWS: dict[str, Callable[[str], None]] = {
    "nsdiff": nsdiff,
    "pstree": pstree,
    "mounts": mounts,
    "cgroup": cgroup,
    "packets": packets,
}


def _two(line: str, *beginning: str) -> tuple[str, str]:
    words = line.split()
    if len(words) > 2:
        raise Unclear("two processes at most: each a number, self, or sandbox")
    if not words:
        return beginning[0], beginning[1]
    return ("self", words[0]) if len(words) == 1 else (words[0], words[1])


def _links(word: str) -> dict[Namespace, str]:
    if word == "at the beginning" and before:
        return before.links
    if word == "sandbox":
        if not before or before.sandbox is None:
            raise Unclear("there is no sandbox here: this is the notebook itself")
        return before.sandbox
    try:
        return seen.links(_number(word))
    except PermissionError:
        raise Unclear(f"process {word} is another user's: the kernel shows its namespaces only to root") from None
    except OSError as error:
        raise Unclear(f"process {word}: {error.strerror}") from None


def _mounts(word: str) -> list[seen.Mount]:
    if word == "at the beginning" and before:
        return before.mounts
    try:
        return seen.mounts(_number(word))
    except OSError as error:
        raise Unclear(f"process {word}: {error.strerror}") from None


def _number(word: str) -> str:
    if word in ("self", "now", "at the beginning"):
        return "self"
    if not word.isdecimal():
        raise Unclear(f'"{word}" is no process: a number, self, or {{container.pid}}')
    return word


def _pid(word: str) -> int:
    number = _number(word)
    return os.getpid() if number == "self" else int(number)


def _named(word: str) -> str:
    return {"self": "this process", "sandbox": "the sandbox"}.get(word, f"process {word}" if word.isdecimal() else word)
