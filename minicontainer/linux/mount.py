"""Mounts: mount(2), umount2(2), pivot_root(2), and the calls that hold a mount by file descriptor instead of by path.

A path can be redirected by a symbolic link while we use it; a file descriptor cannot. Where the tree below may belong
to somebody who means harm (every image does), `target_in` opens the place first, below the root, and mounts onto that.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator

from minicontainer.linux.syscalls import call

# mount(2)
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_I_VERSION = 0x800000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

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
MOUNT_ATTR__ATIME = 0x70  # the bits of the three that follow: one choice of three, not three flags
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# fsopen(2), fsconfig(2), fsmount(2), fspick(2)
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSPICK_CLOEXEC = 0x1
FSPICK_EMPTY_PATH = 0x8
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7

# statfs(2)
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994

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


def mount_attributes(flags: int, cleared: int = 0) -> tuple[int, int]:
    """What MS_* to be set and to be cleared are as MOUNT_ATTR_*, for mount_setattr(2): (attr_set, attr_clr).

    Those of a file system (MS_SYNCHRONOUS…) are no attributes of a mount, and left out. Access times are one choice of
    three: whoever changes it has to clear the whole field first, and a cleared choice is the default, relatime.
    """
    attr_set = attr_clr = 0
    for flag, attribute in _ATTRIBUTES:
        attr_set |= attribute if flags & flag else 0
        attr_clr |= attribute if cleared & flag else 0
    if (flags | cleared) & (MS_NOATIME | MS_RELATIME | MS_STRICTATIME):
        attr_clr |= MOUNT_ATTR__ATIME
        attr_set |= (
            MOUNT_ATTR_STRICTATIME if flags & MS_STRICTATIME else MOUNT_ATTR_NOATIME if flags & MS_NOATIME else 0
        )
    return attr_set, attr_clr


_ATTRIBUTES = (
    (MS_RDONLY, MOUNT_ATTR_RDONLY),
    (MS_NOSUID, MOUNT_ATTR_NOSUID),
    (MS_NODEV, MOUNT_ATTR_NODEV),
    (MS_NOEXEC, MOUNT_ATTR_NOEXEC),
    (MS_NODIRATIME, MOUNT_ATTR_NODIRATIME),
    (MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
)


def mount_setattr(dirfd: int, path: Path, flags: int, attr: MountAttr) -> None:
    """Set attributes of a mount (with AT_RECURSIVE of every mount below it too) in one step, Linux 5.12."""
    call("mount_setattr", dirfd, path, flags, attr, ctypes.sizeof(attr))


def fsopen(fstype: str) -> int:
    """Begin a new mount: a file descriptor on which a file system of this type is configured. Linux 5.2.

    Raises OSError: ENODEV (this kernel has no such file system), EPERM.
    """
    return call("fsopen", fstype, FSOPEN_CLOEXEC)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set one option of the file system behind `fd` (FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING: at most 255 bytes), or
    make it (FSCONFIG_CMD_CREATE), or let the options take effect on one that there is (FSCONFIG_CMD_RECONFIGURE).

    Here alone the kernel says in words what it does not like; the words are in the OSError's text.
    """
    try:
        call("fsconfig", fd, command, key, value, 0)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{_words(fd)}") from None


def _words(fd: int) -> str:
    """What the kernel has to say about the last fsconfig(2), behind a colon; nothing where it says nothing."""
    said = list[str]()
    with contextlib.suppress(OSError):  # ENODATA: that was all
        while len(said) < 8:
            said.append(os.read(fd, 1024).decode(errors="replace").strip().removeprefix("e "))
    return "".join(f": {line}" for line in said)


def fsmount(fd: int, attributes: int = 0) -> int:
    """A mount of the file system that was made on `fd`, with these MOUNT_ATTR_*: a file descriptor, no place yet."""
    return call("fsmount", fd, FSMOUNT_CLOEXEC, attributes)


def fspick(dirfd: int, path: Path = "") -> int:
    """A file descriptor on which the file system mounted at `path` (an empty one: `dirfd` itself) is reconfigured."""
    return call("fspick", dirfd, path, FSPICK_CLOEXEC | (0 if os.fspath(path) else FSPICK_EMPTY_PATH))


def fstatfs(fd: int) -> int:
    """The type of the file system that `fd` is on, as a magic number: PROC_SUPER_MAGIC… (`f_type` of statfs(2))."""
    answer = ctypes.create_string_buffer(256)  # struct statfs has 120 bytes, and f_type, a long, is the first of them
    call("fstatfs", fd, answer)
    return int.from_bytes(answer.raw[:8], "little")


class OpenHow(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = [(field, ctypes.c_uint64) for field in ("flags", "mode", "resolve")]


def openat2(dirfd: int, path: Path, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """open(2) below `dirfd` with rules for the way there: RESOLVE_IN_ROOT treats `dirfd` as "/" for ".." and links."""
    how = OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    return call("openat2", dirfd, path, how, ctypes.sizeof(how))


@contextlib.contextmanager
def place_in(root: Path, path: str, *, directory: bool = True, links: bool = True) -> Iterator[int]:
    """A safe mount target: the place `path` inside the tree `root`, made when missing, as a file descriptor (O_PATH).

    Links in the tree are followed as the container will follow them, with `root` as "/": none leads out (openat2(2),
    RESOLVE_IN_ROOT; the lesson of CVE-2021-30465). `directory=False` makes an empty file to bind a file onto;
    `links=False` follows none.

    Raises OSError: ELOOP (a link where there may be none, or too many), ENOTDIR, EROFS.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        there = _reach(top, os.path.normpath(f"/{path}").strip("/"), directory, 0 if links else RESOLVE_NO_SYMLINKS)
    finally:
        os.close(top)
    try:
        yield there
    finally:
        os.close(there)


@contextlib.contextmanager
def target_in(root: Path, path: str, *, directory: bool = True, links: bool = True) -> Iterator[str]:
    """The same as a path, for calls that know no file descriptors: ``/proc/self/fd/N``."""
    with place_in(root, path, directory=directory, links=links) as there:
        yield f"/proc/self/fd/{there}"


def open_in(top: int, path: str, flags: int = os.O_PATH, resolve: int = 0) -> int:
    """open(2) with the directory `top` as "/", however often something else on this machine is renamed meanwhile."""
    while True:
        try:
            return openat2(top, path, flags, resolve=resolve | RESOLVE_IN_ROOT)
        except BlockingIOError:
            continue  # EAGAIN: something on this machine was renamed or mounted while ".." was followed; openat2(2)


def _reach(top: int, path: str, directory: bool, resolve: int, links: int = 40) -> int:
    """Open `path` below `top`, after making what is missing of it: first the directory that it is in."""
    if not path:
        return os.dup(top)  # to look up "." we would need search permission, which a container's root may lack out here
    with contextlib.suppress(FileNotFoundError):
        return open_in(top, path, resolve=resolve)

    above, _, name = path.rpartition("/")
    parent = _reach(top, above, True, resolve, links)
    try:
        if name in ("", ".", ".."):
            return open_in(top, path, resolve=resolve)
        if not directory:
            return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent)
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    except FileExistsError:  # a link to what is not there yet: that is what has to be made
        if resolve or not links:
            raise OSError(errno.ELOOP, f'"{path}": {os.strerror(errno.ELOOP)}') from None
        return _reach(top, _led(parent, above, name), directory, resolve, links - 1)
    finally:
        os.close(parent)


def _led(parent: int, above: str, name: str) -> str:
    """Where the link `name` in the directory `above` leads, as a path below the same top; itself, if it is no link."""
    try:
        link = os.readlink(name, dir_fd=parent)
    except OSError:
        return f"{above}/{name}"  # no link (any more): somebody made it in this moment
    return link.strip("/") if link.startswith("/") else f"{above}/{link}"
