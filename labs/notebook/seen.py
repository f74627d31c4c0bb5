"""What /proc says of a process: its namespaces, relatives, mounts and control groups. Read, and nothing else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minicontainer.linux import Namespace


class Running(Protocol):
    """A container that runs: whatever knows the pid of its process 1."""

    @property
    def pid(self) -> int: ...


def links(process: int | str = "self") -> dict[Namespace, str]:
    """The namespaces that a process is in, by kind: "uts:[4026531838]".

    Raises FileNotFoundError (no such process), PermissionError (another user's).
    """
    return {kind: kind.link(process) for kind in Namespace if kind.supported}


# Relatives


@dataclass
class Relative:
    """A process of a container: its number here, all of its numbers, its name, the letter of its state."""

    outside: int
    inside: list[int]
    name: str
    state: str
    namespace: str
    below: list[Relative] = field(default_factory=list)


def family(container: Running | int) -> list[Relative]:
    """Process 1 of a container and all that descend from it."""
    found = [relative(container if isinstance(container, int) else container.pid)]
    for process in found:
        found += process.below
    return found


def relative(pid: int) -> Relative:
    """A process, with those that descend from it. Raises FileNotFoundError: there is none of this number."""
    told = status(pid)
    try:
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        namespace = "?"  # a zombie is in no namespace any more
    found = Relative(pid, [int(number) for number in told["NSpid"].split()], told["Name"], told["State"][0], namespace)
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            try:
                below = relative(int(child))
            except (FileNotFoundError, ProcessLookupError):  # before we opened the file, after it
                continue  # gone in this very moment
            found.below.append(below)
    return found


def status(pid: int | str) -> dict[str, str]:
    """The lines of /proc/PID/status by their names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# Mounts


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo, without its numbers."""

    point: str
    fstype: str
    source: str
    root: str
    """Which directory of the file system is shown."""
    options: str
    propagation: str
    """One of private, shared:N, master:N; or the latter two."""


def mounts(process: int | str = "self") -> list[Mount]:
    """What is mounted where, as a process sees it, in the kernel's order."""
    found = []
    for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, (fstype, source, *_) = before.split(), after.split()
        spread = " ".join(fields[6:]) or "private"
        point, fstype, source, root = (_unescaped(text) for text in (fields[4], fstype, source, fields[3]))
        found.append(Mount(point, fstype, source, root, fields[5], spread))
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


# Control groups


@dataclass(frozen=True)
class Group:
    """A control group that a process is in: its path, its controllers ("" in version 2), its directory if in sight."""

    path: str
    controllers: str
    directory: str | None


def groups(process: int | str = "self") -> list[Group]:
    """The control groups of a process, one for each hierarchy, as /proc/PID/cgroup has them."""
    tops = {}
    for mount in mounts("self"):
        if mount.fstype in ("cgroup", "cgroup2"):
            tops[mount.fstype, mount.point.rpartition("/")[2]] = mount
    found = []
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        kind = "cgroup" if controllers else "cgroup2"
        name = controllers.removeprefix("name=")
        top = next(
            (mount for (fstype, last), mount in tops.items() if fstype == kind and (not controllers or last == name)),
            None,
        )
        directory = None
        if top:
            below = path.removeprefix(top.root) if top.root != "/" else path
            directory = os.path.normpath(f"{top.point}/{below}")
            directory = directory if os.path.isdir(directory) else None
        found.append(Group(path, controllers, directory))
    return found
