"""Where the control groups are, and how their files are read and written: cgroups(7).

Three worlds are real. **v1**: a tree for each controller. **v2**: one tree for all. **Hybrid**: v1 trees, and a v2 tree
beside them without those controllers. Nothing here assumes one of them. The kernel is asked:

- /proc/self/mountinfo has every tree that is mounted,
- ``cgroup.controllers`` in a v2 tree has what it governs there,
- /proc/self/cgroup says where in each tree the caller is,
- /proc/cgroups has what the kernel knows of v1, mounted or not.
"""

from __future__ import annotations

import os
from errno import errorcode

from minicontainer.record import Record

CONTROLLERS = (
    "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "io", "memory", "misc", "net_cls",
    "net_prio", "perf_event", "pids", "rdma",
)  # fmt: skip

MOUNTINFO, OWN_GROUPS, KNOWN = "/proc/self/mountinfo", "/proc/self/cgroup", "/proc/cgroups"

BUILT_IN = ("cpuacct", "devices", "freezer", "perf_event")
"""Controllers of v1 that every v2 group has without asking: cpu.stat, a BPF program, cgroup.freeze, a group's fd."""

SYSTEMD = "name=systemd"
"""A tree of v1 without a controller, in which systemd keeps its services apart; here it goes for one."""

SUCCESSOR = {"blkio": "io"}
"""Name on v1 → name on v2, where they differ."""


class Hierarchy(Record):
    """One mounted tree of control groups."""

    __slots__ = ("_home",)  # not a field: what home() has found; it is asked once for every container

    version: int
    """1 or 2."""
    mountpoint: str
    controllers: tuple[str, ...]
    """By their names in this version; on v2 those that reach `home`, the built-in ones not among them."""
    own: str = "/"
    """The group that the caller is in, as a path below `mountpoint`."""

    def has(self, controller: str) -> bool:
        """Whether `controller`, by its v1 name, can be used in this tree."""
        if self.version == 1:
            return controller in self.controllers
        return controller in BUILT_IN or SUCCESSOR.get(controller, controller) in self.controllers

    def usable(self) -> tuple[str, ...]:
        """Every controller that it has, by its v1 name."""
        return self.controllers if self.version == 1 else tuple(filter(self.has, CONTROLLERS))

    def home(self) -> str:
        """The directory in which the caller may make groups: the highest from the top to its own that it may write.

        For root that is the top of the tree; for an ordinary user, the top of what was delegated to them, and the top
        of the tree if nothing was (making a group there will say so).
        """
        home: str | None = getattr(self, "_home", None)
        if home is None:
            home = self._highest()
            object.__setattr__(self, "_home", home)
        return home

    def _highest(self) -> str:
        place = self.mountpoint
        for name in ["", *filter(None, self.own.split("/"))]:
            place = f"{place}/{name}" if name else place
            if os.access(place, os.W_OK) and os.access(f"{place}/cgroup.procs", os.W_OK):
                return place
        return self.mountpoint


def hierarchies(not_below: str = "", named: bool = False) -> list[Hierarchy]:
    """Every tree of control groups that is mounted here, each once; those of v1 first.

    `not_below`: copies of them that were mounted below this directory, a container's root, do not count. `named`: also
    the tree SYSTEMD, which governs nothing.
    """
    own, known = _own_groups(), (*CONTROLLERS, SYSTEMD) if named else CONTROLLERS
    found: dict[tuple[str, ...], Hierarchy] = {}
    for line in _lines(MOUNTINFO):
        before, _, after = line.partition(" - ")
        if not after.startswith("cgroup"):
            continue
        fstype, _, options = after.split()[:3]
        top, mountpoint = map(_unescaped, before.split(" ")[3:5])
        if not_below and mountpoint.startswith(f"{not_below}/"):
            continue
        controllers = tuple(name for name in options.split(",") if name in known)
        if fstype == "cgroup2":
            tree = Hierarchy(2, mountpoint, (), _below(top, own.get("", "/")))
            found.setdefault(("v2",), tree.replace(controllers=_available(tree.home())))
        elif controllers:
            group = _below(top, own.get(controllers[0], "/"))
            found.setdefault(controllers, Hierarchy(1, mountpoint, controllers, group))
    return sorted(found.values(), key=lambda tree: tree.version)


def hierarchy_of(controller: str, among: list[Hierarchy] | None = None) -> Hierarchy | None:
    """The tree in which `controller`, by its v1 name, can be used, or None. A controller is in one tree at a time."""
    for tree in hierarchies() if among is None else among:
        if tree.has(controller):
            return tree
    return None


def mountable(controller: str) -> tuple[str, ...]:
    """The v1 controllers to mount together in order to have this one, which is in no tree here; () where none can be.

    The kernel must know it and have it switched on. Where a tree of it is alive, but mounted out of our sight, that
    tree is what is mounted again, with the other controllers in it: /proc/self/cgroup has them side by side.
    """
    if not any(name == controller and enabled == "1" for name, _, _, enabled in _known()):
        return ()
    return next((together for together in _alive() if controller in together), (controller,))


def living_groups(controllers: str) -> int:
    """How many groups the v1 tree with these controllers ("net_cls", "cpu,cpuacct") has, its top among them.

    One that was removed counts until nothing in the kernel points to it any more.
    """
    return next((int(groups) for name, _, groups, _ in _known() if name == controllers.partition(",")[0]), 0)


def missing(controller: str) -> str:
    """Why `controller` is in no tree, and what to do about it, in half a sentence."""
    for name, _, _, enabled in _known():
        if name == controller and enabled == "0":
            return "it is switched off: take cgroup_disable= from the kernel's command line"
        if name == controller:
            return "it is in no mounted tree, and mounting one takes root"
    return "this kernel was built without it, or a v2 tree that is not mounted here has it"


def read(file: str) -> str:
    """All of a control file, without the last newline. Raises OSError.

    Three system calls, where open() makes nine: statistics are read from hundreds of such files. The kernel fills a
    page with as many lines as there is room for, and in these files none is half a page long: so less than that is
    the end.
    """
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 1 << 16)
        more = text
        while len(more) >= 2048:
            more = os.read(fd, 1 << 16)
            text += more
    finally:
        os.close(fd)
    return text.decode(errors="surrogateescape").removesuffix("\n")


def write(file: str, value: object) -> None:
    """Set a control file. The kernel takes or refuses the whole of one write(2).

    Raises OSError, whose text is the call: ``write(…/memory.max, "5"): EBUSY (Device or resource busy)``.
    """
    text = str(value)
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        name = errorcode.get(error.errno or 0, error.errno)
        raise OSError(error.errno, f'write({file}, "{text}"): {name} ({error.strerror})') from None


def fields(file: str) -> dict[str, int]:
    """A flat keyed file, such as memory.events: a name and a number on each line."""
    return {name: int(value) for name, value in (line.split() for line in read(file).splitlines())}


def _own_groups() -> dict[str, str]:
    """Controller → the caller's group in its tree; "" is the v2 tree."""
    return {controller: path for controllers, path in _alive().items() for controller in controllers}


def _alive() -> dict[tuple[str, ...], str]:
    """The controllers of each tree that the kernel has, mounted or not → the caller's group in it; ("",) is v2."""
    lines = [line.split(":", 2) for line in _lines(OWN_GROUPS)]
    return {tuple(controllers.split(",")): path for _, controllers, path in lines}


def _below(top: str, path: str) -> str:
    """`path` as seen below a mount that shows only the part of its tree at `top`; "/" where that does not hold it."""
    if top in ("/", path):
        return path if top == "/" and not path.startswith("/..") else "/"
    return path.removeprefix(top) if path.startswith(f"{top}/") else "/"


def _lines(file: str) -> list[str]:
    """The lines of a file of /proc, which may be as long as they like."""
    fd, text = os.open(file, os.O_RDONLY | os.O_CLOEXEC), b""
    try:
        while more := os.read(fd, 1 << 15):
            text += more
    finally:
        os.close(fd)
    return text.decode(errors="surrogateescape").removesuffix("\n").split("\n")


def _unescaped(path: str) -> str:
    """The path that mountinfo writes so: blank, tab, newline and (the last) backslash are three octal digits there."""
    if "\\" in path:
        for character in " \t\n\\":
            path = path.replace(f"\\{ord(character):03o}", character)
    return path


def _available(directory: str) -> tuple[str, ...]:
    try:
        return tuple(read(f"{directory}/cgroup.controllers").split())
    except OSError:
        return ()


def _known() -> list[list[str]]:
    """The lines of /proc/cgroups: controller, hierarchy, groups, enabled."""
    try:
        with open(KNOWN, encoding="utf-8") as file:
            return [line.split() for line in file if not line.startswith("#")]
    except OSError:
        return []
