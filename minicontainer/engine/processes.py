"""The processes of a container, as the host's /proc has them: no tool of the container's own is needed, or believed.

A process is the container's if it is in the PID namespace of its process 1, or was born of one that is. What `exec`
has started is in there too, though its parent is outside.
"""

from __future__ import annotations

import contextlib
import os

from minicontainer.linux import files
from minicontainer.record import Record

TICKS = os.sysconf("SC_CLK_TCK")
"""In which /proc/PID/stat counts processor time, a second."""


class Process(Record):
    """One of them, at one moment."""

    pid: int
    """The host's number,"""
    inside: int
    """and the container's: the last of NSpid in proc_pid_status(5)."""
    parent: int
    uid: int
    """The host's."""
    state: str
    """R, S, D, T, Z…: proc_pid_stat(5)."""
    seconds: float
    """Of processor time."""
    memory: int
    """Resident, bytes."""
    command: str


def processes_of(init: int) -> list[Process]:
    """Those of the container whose process 1 is `init`, in the order of their numbers; none, if it has ended."""
    try:
        namespace = os.readlink(f"/proc/{init}/ns/pid")
    except OSError:
        return []
    parents, inside = dict[int, int](), set[int]()
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parents[int(entry)] = int(_stat(int(entry))[1])
                if os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                    inside.add(int(entry))
    if namespace == _own():
        inside = {init}  # it shares the host's
    while more := {pid for pid, parent in parents.items() if parent in inside} - inside:
        inside |= more
    found = []
    for pid in sorted(inside):
        with contextlib.suppress(OSError, IndexError, ValueError, KeyError):  # it ends while we look
            found.append(_look(pid))
    return found


def _own() -> str:
    return os.readlink("/proc/self/ns/pid")


def _stat(pid: int) -> list[str]:
    """The fields from the state on: the name before may have blanks and parentheses in it."""
    return files.read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _look(pid: int) -> Process:
    stat = _stat(pid)
    status = dict(line.split(":", 1) for line in files.read(f"/proc/{pid}/status").splitlines() if ":" in line)
    command = files.read(f"/proc/{pid}/cmdline").replace("\0", " ").strip() or f"[{status['Name'].strip()}]"
    return Process(
        pid=pid,
        inside=int(status["NSpid"].split()[-1]),
        parent=int(stat[1]),
        uid=int(status["Uid"].split()[0]),
        state=stat[0],
        seconds=(int(stat[11]) + int(stat[12])) / TICKS,
        memory=int(status.get("VmRSS", "0 kB").split()[0]) * 1024,
        command=command,
    )
