"""Control groups: processes held together, so that they can be counted, limited, frozen and killed as one.

cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ in the kernel's tree. A group is a directory: mkdir
makes it, writing a pid into its ``cgroup.procs`` moves a process there, a limit is a file, rmdir removes it. On v2 that
is one directory, in which a controller works once ``cgroup.subtree_control`` above it says so; on v1 one in the tree of
each controller. All our groups lie below one of ours, ``minicontainer``; the host's own groups are never touched.

What a group does to the processes in it is told in `memory`, `cpu`, `freezer`, `pids`, `io`, `devices`, `packets`,
`events` and `scarce`, a file for each family of controllers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence

from minicontainer.linux import in_user_namespace, mount, signal, umount2
from minicontainer.linux.cgroups import (
    BUILT_IN,
    SUCCESSOR,
    Hierarchy,
    hierarchies,
    hierarchy_of,
    living_groups,
    missing,
    mountable,
    read,
    write,
)
from minicontainer.record import Record

PARENT = "minicontainer"
MOUNTS = "/run/minicontainer/cgroup"
"""Where we mount a v1 controller that is in no tree, such as net_cls: in a place of ours, never over the host's."""

PATIENCE = 10
"""Seconds for what was killed to be gone: in uninterruptible sleep, it cannot be killed, only waited for."""

DELEGATED = ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks")
"""What a group's user must own to make groups below it; its limits, which they must not lift, are not among it."""


ATTEMPTS = 100
"""So often a group is begun again that others take away while it is made."""


class Group(Record):
    """One control group: ``version, directory = group["memory"]``."""

    name: str
    """Its path below PARENT; with "/" in front, from the top of each tree: an OCI configuration's cgroupsPath."""
    places: Mapping[str, tuple[int, str]]
    """Controller, by its v1 name → (1 or 2, its directory). On v2 every controller has the same directory."""

    def __getitem__(self, controller: str) -> tuple[int, str]:
        if controller not in self.places:
            raise LimitUnavailable(
                errno.ENODEV, f"the {controller} controller cannot be used here: {missing(controller)}"
            )
        return self.places[controller]

    def __contains__(self, controller: str) -> bool:
        return controller in self.places

    @property
    def directories(self) -> list[str]:
        """Every directory of the group, each once."""
        return list(dict.fromkeys(directory for _, directory in self.places.values()))

    def part(self, version: int) -> Group:
        """What it is in the trees of this version."""
        return Group(self.name, {one: place for one, place in self.places.items() if place[0] == version})

    @property
    def unified(self) -> str | None:
        """Its directory in the v2 tree, if it has one."""
        return next((directory for version, directory in self.places.values() if version == 2), None)


class LimitUnavailable(OSError):
    """A group or a limit that cannot be had; the text says which file refused which value, and what would work."""


def create_group(name: str, needed: Sequence[str], also: Sequence[str] = ()) -> Group:
    """Make the control group `name`, with these controllers (v1 names), in each tree that has one of them.

    Without one of `needed` there is no group; those of `also` are taken where they are. A v1 controller that is needed
    and in no tree is mounted, in MOUNTS. Raises LimitUnavailable; nothing is left behind then.
    """
    trees, places = hierarchies(named=True), dict[str, tuple[int, str]]()
    try:
        for controller in needed:
            if not _may_mount() or hierarchy_of(controller, trees) is not None:
                continue
            if together := mountable(controller):
                trees.append(Hierarchy(1, f"{MOUNTS}/{','.join(together)}", together))
        for tree in trees:
            mine = [one for one in (*needed, *also) if one not in places and tree.has(one)]
            if not mine:
                continue
            try:
                directory = (_make_in_mount_of_ours if _is_ours(tree) else _make)(tree, mine, name)
            except OSError as error:
                if not set(mine) & set(needed):
                    continue
                raise LimitUnavailable(error.errno, error.strerror or str(error)) from None
            places |= dict.fromkeys(mine, (tree.version, directory))
        group = Group(name, places)
        for controller in needed:
            group[controller]  # raises, where no tree has it
        return group
    except BaseException:
        remove_group(Group(name, places))
        raise


def enter_group(group: Group, pid: int = 0) -> None:
    """Put the process `pid` (0: the caller), and with it every process that it starts from now on, into the group.

    To move another process, the kernel first waits until nobody forks: an RCU grace period, some 10 ms. Who moves its
    only thread itself, as v1 can with ``tasks``, is spared that. (v2 has CLONE_INTO_CGROUP.)

    Raises LimitUnavailable: EACCES (v2: not ours to move), ENOSPC (v1: a cpuset without processors), EAGAIN (pids).
    """
    for version, directory in dict.fromkeys(group.places.values()):
        control(f"{directory}/{'tasks' if version == 1 and pid == 0 else 'cgroup.procs'}", pid)


def delegate_group(group: Group, uid: int, gid: int) -> None:
    """Let this user, root of a user namespace say, make and fill groups below this one, and not lift its limits.

    Documentation/admin-guide/cgroup-v2.rst, "Delegation". Raises OSError: EPERM (needs CAP_CHOWN).
    """
    for directory in group.directories:
        for file in DELEGATED:
            with contextlib.suppress(FileNotFoundError):  # each version has some of them
                os.chown(f"{directory}/{file}", uid, gid)


def remove_group(group: Group) -> None:
    """Kill what is still in the group, and remove it, in every tree. What is gone already is no error.

    A process leaves its group some moments after its death was seen by its parent; rmdir(2) says EBUSY until then.
    """
    version, freezer = group.places.get("freezer", (0, ""))
    # On v1, what is frozen does not even die before it is thawed: that tree goes first.
    for directory in sorted(group.directories, key=lambda directory: version == 1 and directory != freezer):
        _remove(directory)
        _remove_empty(os.path.dirname(directory))


def find_group(name: str) -> Group:
    """The group `name` as it is on disk now, in whichever trees: for whoever did not make it, or forgot how."""
    return find_groups([name])[name]


def find_groups(names: Sequence[str]) -> dict[str, Group]:
    """Likewise several, by name. Directories are listed, and not asked for one by one: there may be hundreds."""
    places: dict[str, dict[str, tuple[int, str]]] = {name: {} for name in names}
    for tree in hierarchies(named=True):
        top, controllers, listed = f"{tree.home()}/{PARENT}", tree.usable(), dict[str, set[str]]()
        for name, found in places.items():
            directory = f"{tree.mountpoint}{name}" if name[:1] == "/" else f"{top}/{name}" if name else top
            above, _, last = directory.rpartition("/")
            if above not in listed:
                listed[above] = _directories(above)
            if last in listed[above]:
                place = (tree.version, directory)
                for controller in controllers:
                    found.setdefault(controller, place)
    return {name: Group(name, found) for name, found in places.items()}


def list_groups() -> list[str]:
    """The names of all groups of ours, in any tree, each after the one above it; "" is PARENT itself."""
    found = set[str]()
    for tree in hierarchies(named=True):
        top = f"{tree.home()}/{PARENT}"
        found |= {directory.removeprefix(top).lstrip("/") for directory in _walk(top)}
    return sorted(found)


def remove_empty_groups(name: str = "") -> None:
    """Remove the group `name` and those above it where they hold nothing, and mounts of ours that nobody uses.

    `remove_group` does it for its own; this is for those whose maker was killed half-way. Only for groups that hold
    others: one that is made for a container is empty too, until the container is in it. Mounts are root's affair: an
    ordinary user would wait for a lock of root's, and then for directories that he may not make again.
    """
    for tree in hierarchies(named=True):
        directory = f"{tree.home()}/{PARENT}"
        for part in [*reversed([*itertools.accumulate(filter(None, name.split("/")), "{}/{}".format)]), ""]:
            with contextlib.suppress(OSError):
                os.rmdir(f"{directory}/{part}")
    if _may_mount() and os.path.isdir(MOUNTS):
        for controllers in os.listdir(MOUNTS):
            _unmount(f"{MOUNTS}/{controllers}")


def control(file: str, value: object, advice: str = "") -> None:
    """Write a control file. Raises LimitUnavailable, which says what was refused and, with `advice`, what would work.

    FileNotFoundError says that the whole group is not there.
    """
    try:
        before = read(file) if _journal else ""
        write(file, value)
        if _journal:
            _journal[-1].append((file, str(value), before))
    except OSError as error:
        told = error.strerror or str(error)
        if error.errno == errno.ENOENT:
            if not os.path.isdir(os.path.dirname(file)):
                raise  # the group itself has gone
            told = f"{file} is not there: this kernel does not have that limit"
        elif error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
            told += "; it takes root, or a group that was delegated to you (systemd-run --user --scope -p Delegate=yes)"
        elif error.errno == errno.EROFS:
            told += "; that tree is mounted read-only"
        elif advice:
            told += f"; {advice}"
        raise LimitUnavailable(error.errno, told) from None


def _directories(directory: str) -> set[str]:
    """The names of the groups in a group; and "", the group itself, if it is there."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return {"", *(entry.name for entry in entries if entry.is_dir())}
    return set()


@contextlib.contextmanager
def all_or_nothing() -> Iterator[None]:
    """What is written to control files in this block is taken back, the last first, if the block fails.

    Each write was allowed with those before it in force, so each is taken back as it was made: a limit of memory, say,
    that could be raised only after that of memory and swap together goes down before it.
    """
    _journal.append([])
    try:
        yield
    except BaseException:
        for file, written, before in reversed(_journal.pop()):
            with contextlib.suppress(OSError):
                write(file, _to_take_back(file, written, before))
        raise
    else:
        _journal.pop()


_journal: list[list[tuple[str, str, str]]] = []
"""For each `all_or_nothing` that is under way: the file, what was written, and what it had said before."""


def _to_take_back(file: str, written: str, before: str) -> str:
    """What makes a file say again what it said: in those with a line for each disk or device, only that line.

    A line that was not there is lifted: ``8:0 1048576`` by ``8:0 0``, ``8:0 rbps=1048576`` by ``8:0 rbps=max``.
    """
    key, _, rest = written.partition(" ")
    for line in before.splitlines():
        if line.startswith(f"{key} "):
            return line
    if ":" in key:
        return f"{key} " + (" ".join(f"{word.partition('=')[0]}=max" for word in rest.split()) if "=" in rest else "0")
    directory, _, name = file.rpartition("/")
    if not before and name.startswith("cpuset."):  # v2 lets nobody empty it again who has processes
        return read(f"{os.path.dirname(directory)}/{name}.effective")
    return before or "\n"  # a file with one value; an empty one is emptied by an empty line


def _make(tree: Hierarchy, controllers: Sequence[str], name: str) -> str:
    """The group's directory in one tree, with the directories above it down from the caller's home in the tree."""
    home, *parts = _way(tree, name)
    wanted = [f"+{SUCCESSOR.get(one, one)}" for one in controllers if one not in BUILT_IN and tree.version == 2]
    switches = " ".join(wanted)
    for attempt in range(ATTEMPTS):
        directory = home
        try:
            for part in parts:
                if switches:
                    _switch_on(directory, switches)
                directory = f"{directory}/{part}"
                _mkdir(directory)
                if tree.version == 1 and "cpuset" in tree.controllers:
                    _inherit_cpuset(directory)
            return directory
        except OSError as error:
            # Somebody has just removed the last group in there, and with it the one above: begin again. ENODEV: while
            # we wrote to it. ENOENT: or has made it anew already, and has not switched on there what we need.
            gone = error.errno in (errno.ENOENT, errno.ENODEV) and os.path.isdir(home)
            if not gone or attempt == ATTEMPTS - 1:
                _remove_empty(directory)
                raise
    raise AssertionError("not reached")


def _way(tree: Hierarchy, name: str) -> list[str]:
    """Where the way to the group begins in a tree, and the names along it: from the caller's home, or from the top."""
    if name.startswith("/"):
        return [tree.mountpoint, *filter(None, name.split("/"))]
    return [tree.home(), PARENT, *filter(None, name.split("/"))]


def _mkdir(directory: str) -> None:
    try:
        os.mkdir(directory)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, error.errno)
        advice = {
            errno.EACCES: "it takes root, or a group that was delegated to you",
            errno.EROFS: "that tree is mounted read-only",
        }.get(error.errno or 0, "")
        told = f'mkdir("{directory}"): {name} ({error.strerror})' + (f"; {advice}" if advice else "")
        raise LimitUnavailable(error.errno, told) from None


def _inherit_cpuset(directory: str) -> None:
    """v1 begins every cpuset empty, and lets no process enter an empty one: take over what the group above has."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(FileNotFoundError):
            if not read(f"{directory}/{file}"):
                control(f"{directory}/{file}", read(f"{os.path.dirname(directory)}/{file}"))


def _switch_on(directory: str, controllers: str) -> None:
    """Let these controllers, ``+memory +pids``, work in the groups below a v2 group."""
    advice = (
        f"v2 lets a group have either processes or groups with controllers; move the processes of {directory} into a "
        f"group below it"
    )
    try:
        control(f"{directory}/cgroup.subtree_control", controllers, advice)
    except LimitUnavailable as error:
        if error.errno == errno.ENODEV:  # the group is just being removed
            raise FileNotFoundError(errno.ENOENT, error.strerror) from None
        raise


def _remove(directory: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        with contextlib.suppress(FileNotFoundError):  # it goes while we look
            if _empty(directory):
                deadline = time.monotonic() + PATIENCE
            else:  # the dead have not left it yet, and nobody tells when; they may need this processor for it
                select.select([], [], [], 0.0005)


def _empty(directory: str) -> int:
    """Kill what is in the group, and remove the groups that were made inside; returns how many.

    Down and up by one step at a time: somebody may have put groups into groups, deeper than a path can be long, or than
    Python lets a function call itself.
    """
    step = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    here, way, removed = os.open(directory, step), list[str](), 0
    deadline, arrived = time.monotonic() + PATIENCE, True
    try:
        while time.monotonic() < deadline:
            place = f"/proc/self/fd/{here}"
            if arrived:
                for pidfd in _kill(place):
                    select.select([pidfd], [], [], 1)
                    os.close(pidfd)
            with os.scandir(place) as entries:
                inner = next((entry.name for entry in entries if entry.is_dir(follow_symlinks=False)), None)
            if inner is None and not way:
                break
            there = os.open(inner or "..", step, dir_fd=here)
            os.close(here)
            here, arrived = there, inner is not None
            if inner is not None:
                way.append(inner)
                continue
            with contextlib.suppress(OSError):  # EBUSY: the dead have not left it yet; we shall come by again
                os.rmdir(way.pop(), dir_fd=here)
                deadline, removed = time.monotonic() + PATIENCE, removed + 1
    finally:
        os.close(here)
    return removed


def _walk(top: str) -> list[str]:
    """The directory `top`, if it is there, and all groups below it, each after the one above it.

    Not os.walk(): up to Python 3.11 that calls itself, once for each of the groups that are inside one another.
    """
    found = [top] if os.path.isdir(top) else []
    for directory in found:  # it grows meanwhile
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found


def _kill(directory: str) -> list[int]:
    """SIGKILL to everything in the group; returns pidfds, which become readable as the processes end."""
    pidfds = list[int]()
    # v2, Linux 5.14: all at once, those of groups below too, and no fork slips through
    with contextlib.suppress(OSError):
        write(f"{directory}/cgroup.kill", 1)
    try:
        pids = read(f"{directory}/cgroup.procs").split()
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # v2: a threaded group; the one above it has its processes
            raise
        pids = []
    for pid in map(int, pids):
        with contextlib.suppress(ProcessLookupError):
            pidfds.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(pidfds[-1], signal.SIGKILL)
    with contextlib.suppress(FileNotFoundError):  # on v1, what is frozen does not even die, and so it is with all below
        write(f"{directory}/freezer.state", "THAWED")
    return pidfds


def _remove_empty(directory: str) -> None:
    """Remove a group of ours that holds nothing any more, and those above it, up to PARENT."""
    if f"/{PARENT}/" not in f"{directory}/":
        return  # somebody chose the place: what lies above is not ours
    with contextlib.suppress(OSError):  # EBUSY: it does hold something
        while os.path.basename(directory) != PARENT:
            os.rmdir(directory)
            directory = os.path.dirname(directory)
        os.rmdir(directory)
        if os.path.dirname(directory).startswith(f"{MOUNTS}/"):
            _unmount(os.path.dirname(directory))


def _may_mount() -> bool:
    return os.geteuid() == 0 and not in_user_namespace()


def _is_ours(tree: Hierarchy) -> bool:
    return tree.mountpoint.startswith(f"{MOUNTS}/")


def _make_in_mount_of_ours(tree: Hierarchy, controllers: Sequence[str], name: str) -> str:
    """As `_make`, in a tree that is mounted for it, unless it is mounted already."""
    with _mounts_locked():
        os.makedirs(tree.mountpoint, exist_ok=True)
        try:
            if not os.path.ismount(tree.mountpoint):
                mount("cgroup", tree.mountpoint, "cgroup", 0, ",".join(tree.controllers))
            return _make(tree, controllers, name)
        except OSError:
            if not os.path.isdir(f"{tree.mountpoint}/{PARENT}"):
                _take_down(tree.mountpoint)
            raise


def _unmount(mountpoint: str) -> None:
    with _mounts_locked():
        if not os.path.isdir(f"{mountpoint}/{PARENT}"):
            _take_down(mountpoint)


def _take_down(mountpoint: str) -> None:
    """umount2(2), once the kernel has let go of the last group, which takes some 60 ms after rmdir(2) (RCU).

    With a group still in it, even a dead one, the tree would outlive its mount, out of everybody's sight, and its
    controller would be lost to other trees. There is no event for it, so we look again.
    """
    deadline = time.monotonic() + 1  # s
    while os.path.ismount(mountpoint) and living_groups(os.path.basename(mountpoint)) > 1:
        if time.monotonic() > deadline:
            break  # somebody else's groups, who has mounted the same tree
        select.select([], [], [], 0.005)
    with contextlib.suppress(OSError):  # EINVAL: it never was one; EBUSY: somebody looks around in there
        umount2(mountpoint)
    for directory in (mountpoint, MOUNTS, os.path.dirname(MOUNTS)):  # with the lock held: see _lock_mounts
        with contextlib.suppress(OSError):
            os.rmdir(directory)


@contextlib.contextmanager
def _mounts_locked() -> Iterator[None]:
    """One at a time: a directory must not be made where a mount has just been taken away."""
    while (fd := _lock_mounts()) < 0:
        pass
    try:
        yield
    finally:
        os.close(fd)


def _lock_mounts() -> int:
    """The lock, or -1: while we waited, its directory was removed, and perhaps made again; begin again."""
    fd = -1
    # Whoever takes the last mount down removes the directory and the one above it: between two calls of ours, too.
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        os.makedirs(MOUNTS, exist_ok=True)
        fd = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(fd), os.stat(MOUNTS)):
            return fd
    if fd >= 0:
        os.close(fd)
    return -1
