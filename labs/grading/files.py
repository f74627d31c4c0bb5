"""The files that a process of the sandbox sees, looked at from outside, where each of them may be a trap.

A link that leads out, a pipe that nobody writes, a device, a tree without end. So everything is opened below
the process's root directory with that directory as "/" for every link (openat2(2), RESOLVE_IN_ROOT), only
regular files are read, never with waiting, and up to a limit.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from labs.grading.checks import Wrong
from minicontainer.linux import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

MOST = 10_000
"""Entries of a tree."""
DEEPEST = 32
"""Directories below one another."""


@contextlib.contextmanager
def place(root: int, path: str, follow: bool = True) -> Iterator[int]:
    """An O_PATH file descriptor of what is at `path` below `root`. Raises OSError: ENOENT, ENOTDIR, ELOOP."""
    flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
    fd = openat2(root, path, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    try:
        yield fd
    finally:
        os.close(fd)


def opened(root: int, path: str) -> int:
    """A file descriptor for reading the file or directory at `path`. Raises as `place`; EINVAL: neither of them."""
    with place(root, path) as fd:
        if not (stat.S_ISREG(mode := os.fstat(fd).st_mode) or stat.S_ISDIR(mode)):
            raise OSError(22, f"{path} is neither a file nor a directory")
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def read(root: int, path: str, limit: int) -> bytes:
    """The first `limit` bytes of a file."""
    with open(opened(root, path), "rb") as file:
        return file.read(limit)


def listed(root: int, path: str) -> list[str]:
    """The names in a directory, at most MOST, sorted."""
    fd = opened(root, path)
    try:
        return sorted(entry.name for entry in _entries(fd, MOST))
    finally:
        os.close(fd)


def tree(root: int, path: str) -> dict[str, os.stat_result]:
    """All that lies below a directory, by relative path; no link is followed, no mount entered. Raises Wrong."""
    found: dict[str, os.stat_result] = {}
    fd = opened(root, path)
    try:
        _walk(fd, "", DEEPEST, found)
    finally:
        os.close(fd)
    return found


def _walk(directory: int, prefix: str, depth: int, found: dict[str, os.stat_result]) -> None:
    device = os.fstat(directory).st_dev
    for entry in _entries(directory, MOST - len(found)):
        status = found[prefix + entry.name] = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
            if depth == 0:
                raise Wrong(f"directories lie below one another more than {DEEPEST} times")
            below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                _walk(below, f"{prefix}{entry.name}/", depth - 1, found)
            finally:
                os.close(below)


def _entries(directory: int, limit: int) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            if number >= limit:
                raise Wrong(f"there are more than {MOST} files and directories")
            yield entry
