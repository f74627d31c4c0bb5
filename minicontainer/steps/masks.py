"""Paths that a container can see and must not: covered (masked), or read-only.

/proc and /sys are not namespaced all through. /proc/kcore is the memory of the host, /proc/sys/kernel/core_pattern a
program that the host's kernel starts as root: for the first a cover, for the second no writing. OCI runtime
specification, config-linux.md, "Masked Paths" and "Readonly Paths".

Both run inside, after `pivot` and last of all mounts, and both hold what they have looked at by file descriptor from
the check to the mount: whoever can change the path in between (with a volume that two containers share) has changed
nothing. CVE-2025-31133 was a /dev/null that had become a link to /proc/sys/kernel/core_pattern: "masked" with it, the
host's file was there for writing. CVE-2025-52881 was a /proc that had become something else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from minicontainer.linux import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    OPEN_TREE_CLONE,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    MountAttr,
    fstatfs,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
)
from minicontainer.steps.volume import make

NULL_DEVICE = os.makedev(1, 3)
"""null(4): its number, on every Linux."""


def mask_paths(paths: Sequence[str], null_fd: int | None = None) -> None:
    """Cover these paths: a directory with an empty one, anything else with the null device. What is missing is fine.

    `null_fd` is a mount of the null device (from `volume.pick_up`), for a container that has no /dev/null of its own.
    All directories are covered with the same tmpfs, which is empty and read-only, however many they are.

    Raises OSError: EPERM (/dev/null is not the null device; a path below /proc is not on a proc), ENOENT.
    """
    with _null_device(null_fd) as null, _empty_directory() as empty:
        for place in _found(paths):
            is_directory = stat.S_ISDIR(os.fstat(place).st_mode)
            _cover(place, empty if is_directory else null)


def protect_paths(paths: Sequence[str]) -> None:
    """Make these paths read-only, with everything that is mounted below. What is missing is fine. Before `mask_paths`.

    Each is mounted once more on itself, and that mount is read-only; what it was before (nosuid, noexec…) it stays.

    Raises OSError: EPERM (a path below /proc is not on a proc).
    """
    for place in _found(paths):
        again = open_tree("", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE, place)
        try:
            mount_setattr(again, "", AT_EMPTY_PATH | AT_RECURSIVE, MountAttr(attr_set=MOUNT_ATTR_RDONLY))
            move_mount(again, "", place)
        finally:
            os.close(again)


@contextlib.contextmanager
def _null_device(given: int | None) -> Iterator[int]:
    """The null device, held open; looked at after it was opened: what its name says later does not matter."""
    null = os.dup(given) if given is not None else os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        about = os.fstat(null)
        if not stat.S_ISCHR(about.st_mode) or about.st_rdev != NULL_DEVICE:
            raise OSError(errno.EPERM, "/dev/null is not the null device: nothing can be masked with it")
        yield null
    finally:
        os.close(null)


@contextlib.contextmanager
def _empty_directory() -> Iterator[int]:
    """A mount of an empty tmpfs: one inode, its root, and nobody can make another."""
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    empty = make("tmpfs", "tmpfs", flags, "nr_blocks=1,nr_inodes=1,mode=555")
    try:
        yield empty
    finally:
        os.close(empty)


def _found(paths: Sequence[str]) -> Iterator[int]:
    """What there is at these paths, one after the other, held open (O_PATH) for as long as it is looked at.

    Passed over: where there is nothing, or nothing that this container could reach; what was named before.
    """
    wanted = dict.fromkeys(os.path.normpath(f"/{path.lstrip('/')}") for path in paths)
    proc = -1
    try:
        for path in wanted:
            try:
                if f"{path}/".startswith("/proc/"):
                    proc = proc if proc >= 0 else _open(AT_FDCWD, "/proc", RESOLVE_NO_SYMLINKS)
                    place = _open_in_proc(proc, path)
                else:
                    place = _open(AT_FDCWD, path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    continue
                raise
            try:
                yield place
            finally:
                os.close(place)
    finally:
        if proc >= 0:
            os.close(proc)


def _open_in_proc(proc: int, path: str) -> int:
    """Below /proc, and on a proc: what else may have been put there, a mask on it would hide nothing."""
    place = _open(proc, path.removeprefix("/proc").lstrip("/") or ".", RESOLVE_BENEATH)
    if fstatfs(place) != PROC_SUPER_MAGIC:
        os.close(place)
        raise OSError(errno.EPERM, f"{path} is not on a proc file system: something has been put in its place")
    return place


def _open(directory: int, path: str, resolve: int = 0) -> int:
    return openat2(directory, path, os.O_PATH, resolve=resolve | RESOLVE_NO_MAGICLINKS)


def _cover(place: int, cover: int) -> None:
    """Mount a copy of `cover` on `place`."""
    try:
        copy = open_tree("", OPEN_TREE_CLONE | AT_EMPTY_PATH, cover)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        copy = os.dup(cover)  # before Linux 6.15, what has no place cannot be copied: it gets its place now
    try:
        move_mount(copy, "", place)
    finally:
        os.close(copy)
