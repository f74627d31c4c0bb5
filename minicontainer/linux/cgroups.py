"""Where the control groups are: cgroups(7). Reads only; what is written there is written in
`minicontainer.steps.limits`.

Three worlds are real. **v1**: a tree for each controller. **v2**: one tree for all. **Hybrid**: v1 trees, and a v2 tree
beside them without those controllers. The kernel says which: /proc/self/mountinfo has every tree that is mounted, and
``cgroup.controllers`` at the top of a v2 tree has what it governs.
"""

from __future__ import annotations

from minicontainer.record import Record

CONTROLLERS = (
    "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "io", "memory", "misc", "net_cls",
    "net_prio", "perf_event", "pids", "rdma",
)  # fmt: skip


class Hierarchy(Record):
    """One mounted tree of control groups."""

    version: int
    """1 or 2."""
    mountpoint: str
    controllers: tuple[str, ...]


def hierarchies() -> list[Hierarchy]:
    """Every tree of control groups that is mounted here, each once."""
    found: dict[tuple[str, ...], Hierarchy] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as mountinfo:
        for line in mountinfo:
            before, _, after = line.partition(" - ")
            mountpoint = _unescaped(before.split(" ")[4])
            fstype, _, options = after.split()[:3]
            if fstype == "cgroup":
                controllers = tuple(name for name in options.split(",") if name in CONTROLLERS)
                if controllers:
                    found.setdefault(controllers, Hierarchy(1, mountpoint, controllers))
            elif fstype == "cgroup2":
                found.setdefault(("v2",), Hierarchy(2, mountpoint, _available(mountpoint)))
    return list(found.values())


def hierarchy_of(controller: str, among: list[Hierarchy] | None = None) -> Hierarchy | None:
    """The tree in which `controller` can be used, or None. A controller is in one tree at a time."""
    for hierarchy in hierarchies() if among is None else among:
        if controller in hierarchy.controllers:
            return hierarchy
    return None


def _unescaped(path: str) -> str:
    """The path that mountinfo writes so: blank, tab, newline and (the last) backslash are three octal digits there."""
    for character in " \t\n\\":
        path = path.replace(f"\\{ord(character):03o}", character)
    return path


def _available(mountpoint: str) -> tuple[str, ...]:
    try:
        with open(f"{mountpoint}/cgroup.controllers") as controllers:
            return tuple(controllers.read().split())
    except OSError:
        return ()
