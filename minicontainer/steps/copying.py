"""A tree of files copied from one directory into another, by file descriptors: what "tmpcopyup" fills a tmpfs with.

openat(2), xattr(7), symlink(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

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
    about = os.fstat(source)
    os.chown(target, about.st_uid, about.st_gid)
    _copy_xattrs(source, target)
    os.chmod(target, stat.S_IMODE(about.st_mode))
    os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def _copy_directory(source: int, target: int, path: str, top: int, known: Known) -> None:
    """One directory, which is at `path` below the directory `top` that is being filled."""
    device = os.fstat(source).st_dev
    for name in os.listdir(source):
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(name, dir_fd=source, follow_symlinks=False)
            if first := known.get((about.st_dev, about.st_ino)):
                os.link(first, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
                continue
            if not stat.S_ISDIR(about.st_mode):
                _copy_file(source, target, name, about)
                if about.st_nlink > 1:
                    known[about.st_dev, about.st_ino] = f"{path}{name}"
            else:
                os.mkdir(name, 0o700, dir_fd=target)
                if about.st_dev == device:
                    with _opened(name, source, os.O_DIRECTORY) as inner, _opened(name, target, os.O_DIRECTORY) as new:
                        _copy_directory(inner, new, f"{path}{name}/", top, known)
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
                while os.sendfile(new, old, None, 1 << 30):
                    pass


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
    for name in os.listxattr(source, follow_symlinks=follow):
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA):
                raise


@contextlib.contextmanager
def _opened(name: str, directory: int, flags: int) -> Iterator[int]:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)
