"""Small files by their names, whole or not at all; files that grow at their end and go at their front; renameat2(2),
for what Python's `os` has no word for."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from minicontainer.linux.mount import AT_FDCWD, Path
from minicontainer.linux.syscalls import call

RENAME_EXCHANGE = 0x2
FALLOC_FL_KEEP_SIZE = 0x1
FALLOC_FL_PUNCH_HOLE = 0x2
_BLOCK = 4096


def read(file: str) -> str:
    """All of a small file, without the comforts of open(): four system calls instead of nine. Raises OSError.

    Not much room at once: a buffer of a megabyte is a mapping of its own, which costs thrice what the file does.
    """
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while more := os.read(fd, 1 << 15):
            text += more
        return text.decode()
    finally:
        os.close(fd)


def write(file: str, content: str | bytes) -> None:
    """Write a file from its beginning, made with mode 0644. Raises OSError; there may be a part of it then."""
    data = content.encode() if isinstance(content, str) else content
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def replace(file: str, content: str | bytes) -> None:
    """Write a file, whole or not at all: a reader sees the old or the new. One writer at a time. Raises OSError."""
    write(f"{file}.new", content)
    put_in_place(f"{file}.new", file)


def append(fd: int, data: bytes, piece: int = 0, pieces: int = 1) -> None:
    """Write to the end of a file that is open with O_APPEND; where it is cut into pieces, forget all but the last ones.

    The bytes of such a file have the same numbers for ever, and so have its pieces, each of `piece` bytes: the first of
    those that count is forgotten as the next one is begun, by a hole in its place, which takes no room on the disk. So
    nobody who writes or reads ever has to change from one file to another, whoever they are, and however many.
    `piece` 0: nothing is forgotten. Raises OSError: ENOSPC; a part of it may have been written then.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    if piece:
        end = os.lseek(fd, 0, os.SEEK_CUR)  # that of ours, whoever else writes
        if (end - len(data)) // piece < end // piece and (gone := (end // piece - pieces + 1) * piece) >= _BLOCK:
            punch_hole(fd, 0, gone)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Let the whole blocks of that part of a file take no room any more, and read as zeros: fallocate(2).

    Only whole ones: so they go in their order, and what is left begins with a block. Raises OSError: EOPNOTSUPP (a
    file system that cannot: NFS before 4.2).
    """
    call("fallocate", fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length & -_BLOCK)


@contextlib.contextmanager
def locked(file: str, how: int) -> Iterator[None]:
    """Hold the lock of a file, made if it is not there, as flock(2) has it. Raises OSError: EWOULDBLOCK (LOCK_NB)."""
    fd = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def exchange(one: Path, other: Path) -> None:
    """Let two files change their names, in one step: nobody ever finds one of the names missing.

    Raises OSError: ENOENT, EINVAL (this file system cannot).
    """
    call("renameat2", AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)


def sync_file_system(path: Path) -> None:
    """Wait until everything on the file system that `path` is on is on its disk: syncfs(2).

    One call for a whole tree, where fsync(2) would be one for each file. Raises OSError: EIO, ENOSPC, EDQUOT.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        call("syncfs", fd)
    finally:
        os.close(fd)


def put_in_place(finished: Path, name: Path) -> None:
    """What rename(2) does: whoever opens `name` finds what was there, or what is finished, and nothing in between.

    Where there is something to be replaced, without rename(2): ext4 takes that for the wish to have the new file on the
    disk at once ("auto_da_alloc" in its documentation), and who removes it again soon has to wait for the disk.
    """
    try:
        exchange(finished, name)
    except OSError:  # there is none yet; or a file system that cannot
        os.rename(finished, name)
    else:
        os.unlink(finished)
