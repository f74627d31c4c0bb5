"""Mounts: mount(2), umount2(2), pivot_root(2), and the calls that hold a mount by file descriptor instead of by path.

A path can be redirected by a symbolic link while we use it; a file descriptor cannot. Where the tree below may belong
to somebody who means harm (every image does), `target_in` opens the place first, below the root, and mounts onto that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from minicontainer.linux.syscalls import call

# mount(2)
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

# umount2(2)
MNT_FORCE = 0x1
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

# open_tree(2), move_mount(2), mount_setattr(2)
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

# openat2(2)
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

Path = str | os.PathLike[str]


def mount(
    source: Path | None, target: Path, fstype: str | None = None, flags: int = 0, data: str | None = None
) -> None:
    """Attach a file system (or, with MS_BIND, a directory or file) at `target`, or change what is mounted there."""
    call("mount", source, target, fstype, flags, data)


def umount2(target: Path, flags: int = 0) -> None:
    """Detach what is mounted on `target`;

    with MNT_DETACH at once for every look-up, in earnest when no longer in use.
    """
    call("umount2", target, flags)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """Make the mount `new_root` the root of this mount namespace and hang the old root at `put_old`."""
    call("pivot_root", new_root, put_old)


def open_tree(path: Path, flags: int = 0, dirfd: int = AT_FDCWD) -> int:
    """A file descriptor of the mount at `path`; with OPEN_TREE_CLONE of a detached copy of it (a bind mount to be)."""
    return call("open_tree", dirfd, path, flags | os.O_CLOEXEC)


def move_mount(from_fd: int, to_path: Path, to_dirfd: int = AT_FDCWD) -> None:
    """Attach the mount behind `from_fd` (from open_tree) at `to_path`, following links there as mount(2) does.

    An empty path means `to_dirfd` itself.
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | (MOVE_MOUNT_T_SYMLINKS if os.fspath(to_path) else MOVE_MOUNT_T_EMPTY_PATH)
    call("move_mount", from_fd, "", to_dirfd, to_path, flags)


class MountAttr(ctypes.Structure):
    """``struct mount_attr`` of mount_setattr(2)."""

    _fields_ = [(field, ctypes.c_uint64) for field in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def mount_setattr(dirfd: int, path: Path, flags: int, attr: MountAttr) -> None:
    """Set attributes of a mount (with AT_RECURSIVE of every mount below it too) in one step, Linux 5.12."""
    call("mount_setattr", dirfd, path, flags, attr, ctypes.sizeof(attr))


class OpenHow(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = [(field, ctypes.c_uint64) for field in ("flags", "mode", "resolve")]


def openat2(dirfd: int, path: Path, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """open(2) below `dirfd` with rules for the way there: RESOLVE_IN_ROOT treats `dirfd` as "/" for ".." and links."""
    how = OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    return call("openat2", dirfd, path, how, ctypes.sizeof(how))


@contextlib.contextmanager
def target_in(root: Path, path: str, *, directory: bool = True) -> Iterator[str]:
    """A safe mount target: the place `path` inside the tree `root`, made when missing, as a ``/proc/self/fd/N`` path.

    Links in the tree are followed as the container will follow them, with `root` as "/": none leads out (openat2(2),
    RESOLVE_IN_ROOT; the lesson of CVE-2021-30465). `directory=False` makes an empty file to bind a file onto.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        there = _reach(top, os.path.normpath(f"/{path}").strip("/"), directory)
    finally:
        os.close(top)
    try:
        yield f"/proc/self/fd/{there}"
    finally:
        os.close(there)


def _reach(top: int, path: str, directory: bool) -> int:
    """Open `path` below `top`, after making what is missing of it: first the directory that it is in."""
    if not path:
        return os.dup(top)  # to look up "." we would need search permission, which a container's root may lack out here
    while True:
        try:
            return openat2(top, path, os.O_PATH, resolve=RESOLVE_IN_ROOT)
        except BlockingIOError:
            continue  # EAGAIN: something on this machine was renamed or mounted while ".." was followed; openat2(2)
        except FileNotFoundError:
            above, _, name = path.rpartition("/")
            break
    parent = _reach(top, above, True)
    try:
        if not directory:
            return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent)
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)
