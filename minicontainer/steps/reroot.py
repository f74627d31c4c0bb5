"""Another root under the feet of processes that run: how a container goes on when its upper layer is a snapshot now.

pivot_root(2) does not only exchange two mounts. Whatever process of the mount namespace has the old root as its "/" or
is in it gets the new one, which was made so that one program can set up the root of a system for all the others. What
is *below* the old root stays with whoever holds it: a working directory, an open file. So this is for a container that
stands still, of which nobody holds such; and for the files that are open for writing the kernel itself is asked.

pivot_root(2), mount_setattr(2), move_mount(2).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from minicontainer.linux import (
    AT_EMPTY_PATH,
    CLONE_NEWNS,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    MountAttr,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    pivot_root,
    setns,
    umount2,
)


def seal_root(pid: int) -> None:
    """Make the root that process `pid` has read-only, for whoever still holds something of it.

    The caller needs CAP_SYS_ADMIN over the mount namespace of that process, and one thread only.
    Raises OSError: EBUSY (a file in it is open for writing), EPERM, ESRCH.
    """
    _set_root(pid, MountAttr(attr_set=MOUNT_ATTR_RDONLY))


def unseal_root(pid: int) -> None:
    """Take that back. Raises OSError."""
    _set_root(pid, MountAttr(attr_clr=MOUNT_ATTR_RDONLY))


def replace_root(pid: int, new: int, old: int) -> None:
    """Let the mount `new`, which has no place yet, take the place of the root that process `pid` has.

    All that is mounted below comes along, as it is: moved, not copied. `old` is the number of that root (the first of a
    line in mountinfo), so that one that was killed in here can be done again: what is done already, is not repeated;
    `new` is not looked at, once it or its like is in place.

    The processes must stand still. Raises OSError: EPERM, EINVAL (the root is shared), ENOENT, ESRCH.
    """
    with contextlib.ExitStack() as stack:  # still in our own mounts: in the others there is another /proc
        numbers = stack.enter_context(_opened("/proc/self/fdinfo", os.O_RDONLY))
        root = stack.enter_context(_opened(f"/proc/{pid}/root"))
        places = _mounted_on(pid, old)
        stack.enter_context(_among_mounts_of(pid))
        top = stack.enter_context(_opened("/"))
        if _number(root, numbers) == old:
            if _number(top, numbers) != old:  # a new one that was attached, when somebody was killed
                umount2("/", MNT_DETACH)
            _pivot(new, root)
            top, root = root, new
        elif _number(top, numbers) != old:
            return
        for place in places:
            _move(top, root, place)
        os.fchdir(root)
        umount2(".", MNT_DETACH)  # not it, but what lies on it


def _pivot(new: int, root: int) -> None:
    """From here on `new` is the root, and the old one lies over it: under it would be out of reach."""
    os.fchdir(root)
    os.chroot(".")
    move_mount(new, "", root)
    os.fchdir(new)
    pivot_root(".", ".")


def _move(top: int, root: int, place: str) -> None:
    """Move what is mounted at a place below `top` to the same place below `root`, which shows the same files."""
    mount = open_tree(place, 0, top)
    target = openat2(root, place, os.O_PATH, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    move_mount(mount, "", target)
    os.close(mount)
    os.close(target)


def _mounted_on(pid: int, mount: int) -> list[str]:
    """Where something is mounted directly on this mount, as paths without a slash in front. proc_pid_mountinfo(5)."""
    with open(f"/proc/{pid}/mountinfo", "rb") as lines:
        found = [line.split()[:5] for line in lines]
    paths = [point for _, parent, _, _, point in found if int(parent) == mount and point != b"/"]
    return [os.fsdecode(_unescaped(path)).lstrip("/") for path in paths]


def _unescaped(path: bytes) -> bytes:
    """A path as it is: in mountinfo, blanks and the like are written as backslash and three digits."""
    first, *rest = path.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def _set_root(pid: int, attributes: MountAttr) -> None:
    with _opened(f"/proc/{pid}/root") as root, _among_mounts_of(pid):
        mount_setattr(root, "", AT_EMPTY_PATH, attributes)


def _number(fd: int, numbers: int) -> int:
    """The number of the mount that a file descriptor is on, by /proc/self/fdinfo; proc_pid_fdinfo(5), "mnt_id"."""
    with open(os.open(str(fd), os.O_RDONLY | os.O_CLOEXEC, dir_fd=numbers), "rb") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(b"mnt_id:"))


@contextlib.contextmanager
def _among_mounts_of(pid: int) -> Iterator[None]:
    """Be in the mount namespace of a process for a while; its "/" is ours, too, and our working directory."""
    with _opened("/proc/self/ns/mnt", os.O_RDONLY) as ours, _opened(f"/proc/{pid}/ns/mnt", os.O_RDONLY) as theirs:
        setns(theirs, CLONE_NEWNS)
        try:
            yield
        finally:
            setns(ours, CLONE_NEWNS)


@contextlib.contextmanager
def _opened(path: str, flags: int = os.O_PATH) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
