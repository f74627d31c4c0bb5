"""Trees of files copied from one directory into another, by file descriptors: what "tmpcopyup" fills a tmpfs with, and
what a snapshot is made of where nothing can be shared.

openat(2), xattr(7), symlink(7), ioctl_ficlone(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence

from minicontainer.linux import in_user_namespace

FICLONE = 0x40049409
"""ioctl_ficlone(2): share the blocks of another file, until one of the two is written to. Btrfs, XFS, bcachefs."""

OVERLAY = ("trusted.overlay.", "user.overlay.")
"""How the marks of overlayfs begin: outside and inside of a user namespace."""

_OF_THE_ORIGINAL = {f"{prefix}{name}" for prefix in OVERLAY for name in ("origin", "impure", "uuid", "nlink")}
"""Marks by which overlayfs knows where a file was copied up from: not true of a copy of ours."""

Known = dict[tuple[int, int], str]
"""Files with more names than one, by device and inode: where the first of them was copied to."""


def copy_tree(source: int, target: int) -> None:
    """Copy all that is in the open directory `source` into the open, empty directory `target`, which is ours alone.

    Kept are modes, owners, times of modification, extended attributes, symbolic and hard links, pipes, sockets and
    devices. No link is followed, so nothing outside of `source` is read. What is mounted in there stays out; its place
    is made. A name that vanishes meanwhile is passed over.

    Raises OSError: ENOSPC; EINVAL (an owner who has no id here); EPERM (a device, in a user namespace).
    """
    _copy_directory(source, target, "", target, {})
    imitate(source, target)


def imitate(source: int, target: int) -> None:
    """Give the open directory `target` the owner, extended attributes, mode and times of the open directory `source`.

    Raises OSError: EPERM, EINVAL (an owner who has no id here).
    """
    about = os.fstat(source)
    os.chown(target, about.st_uid, about.st_gid)
    _copy_xattrs(source, target)
    os.chmod(target, stat.S_IMODE(about.st_mode))
    os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def merge(layers: Sequence[str], target: str, below: Sequence[str] = ()) -> None:
    """Make `target`, a new layer that shows above those in `below` what `layers`, the topmost first, show there.

    A name is the topmost layer's that has it. Directories of one name are merged, down to one that is opaque, or to
    something that is no directory: that hides what is under it, and where `below` has something to be hidden, the new
    layer hides it. Only there: a whiteout in a directory that lies over no other would be listed.
    overlayfs.rst, "whiteouts and opaque directories".

    Raises OSError: EOPNOTSUPP (a directory that overlayfs renamed in place, its mount option redirect_dir), ENOSPC.
    """
    os.mkdir(target, 0o700)
    with contextlib.ExitStack() as stack:
        over, under = (
            [stack.enter_context(_opened(one, None, os.O_DIRECTORY)) for one in some] for some in (layers, below)
        )
        new = stack.enter_context(_opened(target, None, os.O_DIRECTORY))
        _merge_directory(over, under, new, "", new, {})
        imitate(over[0], new)


def _merge_directory(over: Sequence[int], under: Sequence[int], target: int, path: str, top: int, known: Known) -> None:
    """One directory, of which `over` are what the merged layers have, and `under` what is visible of it below them."""
    done = set[str]()
    for level, directory in enumerate(over):
        for name in set(os.listdir(directory)) - done:
            done.add(name)
            about = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(about.st_mode):
                if under or not _is_whiteout(about):
                    _copy_name(directory, target, name, about, path, top, known)
                continue
            with contextlib.ExitStack() as stack:
                visible, hides = _visible(name, over[level:], stack)
                hidden, _ = _visible(name, under, stack)
                os.mkdir(name, 0o700, dir_fd=target)
                new = stack.enter_context(_opened(name, target, os.O_DIRECTORY))
                _merge_directory(visible, [] if hides else hidden, new, f"{path}{name}/", top, known)
                imitate(visible[0], new)
                if hides:
                    os.setxattr(new, f"{OVERLAY[in_user_namespace()]}opaque", b"y")


def _visible(name: str, layers: Sequence[int], stack: contextlib.ExitStack) -> tuple[list[int], bool]:
    """The directories of this name in one directory of several layers, and whether they hide what is under these."""
    found = list[int]()
    for layer in layers:
        try:
            found.append(stack.enter_context(_opened(name, layer, os.O_DIRECTORY)))
        except FileNotFoundError:
            continue
        except NotADirectoryError:  # a whiteout, or another file
            return found, True
        if _is_opaque(found[-1]):
            return found, True
    return found, False


def _is_whiteout(about: os.stat_result) -> bool:
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    """Whether this directory of a layer hides those of its name below it."""
    names = os.listxattr(directory)
    if redirected := {f"{prefix}redirect" for prefix in OVERLAY} & set(names):
        raise OSError(errno.EOPNOTSUPP, f"a directory was renamed in place by overlayfs ({redirected.pop()})")
    return any(f"{prefix}opaque" in names and os.getxattr(directory, f"{prefix}opaque") == b"y" for prefix in OVERLAY)


def _copy_directory(source: int, target: int, path: str, top: int, known: Known) -> None:
    """One directory, which is at `path` below the directory `top` that is being filled."""
    device = os.fstat(source).st_dev
    for name in os.listdir(source):
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(name, dir_fd=source, follow_symlinks=False)
            if not stat.S_ISDIR(about.st_mode):
                _copy_name(source, target, name, about, path, top, known)
                continue
            os.mkdir(name, 0o700, dir_fd=target)
            if about.st_dev == device:
                with _opened(name, source, os.O_DIRECTORY) as inner, _opened(name, target, os.O_DIRECTORY) as new:
                    _copy_directory(inner, new, f"{path}{name}/", top, known)
            _copy_attributes(source, target, name, about)


def _copy_name(source: int, target: int, name: str, about: os.stat_result, path: str, top: int, known: Known) -> None:
    """Whatever is no directory: another name of what was copied before, or a file with its attributes."""
    if first := known.get((about.st_dev, about.st_ino)):
        os.link(first, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
        return
    _copy_file(source, target, name, about)
    if about.st_nlink > 1:
        known[about.st_dev, about.st_ino] = f"{path}{name}"
    _copy_attributes(source, target, name, about)


def _copy_file(source: int, target: int, name: str, about: os.stat_result) -> None:
    """Whatever is no directory, without its attributes."""
    if stat.S_ISLNK(about.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif not stat.S_ISREG(about.st_mode):
        os.mknod(name, about.st_mode, about.st_rdev, dir_fd=target)
    else:
        with _opened(name, source, os.O_NONBLOCK) as old:
            if not stat.S_ISREG(os.fstat(old).st_mode):
                raise OSError(errno.ESTALE, f"{name} was a file when it was looked at, and is none now")
            with _opened(name, target, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as new:
                _copy_content(old, new)


def _copy_content(old: int, new: int) -> None:
    """Shared where the file system can (reflink), else copied; holes stay holes."""
    try:
        fcntl.ioctl(new, FICLONE, old)
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ETXTBSY):
            raise
    begin, size = 0, os.fstat(old).st_size
    while begin < size:
        try:
            begin = os.lseek(old, begin, os.SEEK_DATA)
            end = os.lseek(old, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which says: nothing but a hole is left
                raise
            break
        os.lseek(new, begin, os.SEEK_SET)
        while begin < end:
            sent = os.sendfile(new, old, begin, end - begin)
            if not sent:
                break  # it has become shorter
            begin += sent
    os.ftruncate(new, max(size, os.fstat(new).st_size))


def _copy_attributes(source: int, target: int, name: str, about: os.stat_result) -> None:
    """Owner, extended attributes, mode, times: in this order, for each may undo those after it."""
    os.chown(name, about.st_uid, about.st_gid, dir_fd=target, follow_symlinks=False)
    _copy_xattrs(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}")
    if not stat.S_ISLNK(about.st_mode):
        os.chmod(name, stat.S_IMODE(about.st_mode), dir_fd=target)
    os.utime(name, ns=(about.st_atime_ns, about.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_xattrs(source: int | str, target: int | str) -> None:
    """All that the target's file system can keep and we may set."""
    follow = isinstance(source, int)
    for name in set(os.listxattr(source, follow_symlinks=follow)) - _OF_THE_ORIGINAL:
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA):
                raise


@contextlib.contextmanager
def _opened(name: str, directory: int | None, flags: int) -> Iterator[int]:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)
