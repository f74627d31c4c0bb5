"""System V shared memory and POSIX message queues, as far as it takes to see whose they are.

shmget(2), shmop(2), shmctl(2), mq_open(3) and its kin, sysvipc(7), mq_overview(7). Nothing of this is in Python's
library. Each call is about the objects of the calling process's IPC namespace.
"""

from __future__ import annotations

import ctypes
import os

from minicontainer.linux.syscalls import call

IPC_PRIVATE, IPC_CREAT, IPC_EXCL, IPC_RMID = 0, 0o1000, 0o2000, 0
SHM_RDONLY = 0o10000

_DEPTH, _SIZE = 4, 256  # messages, and bytes of each: small, since queues count against RLIMIT_MSGQUEUE


def shmget(key: int, size: int = 0, flags: int = 0) -> int:
    """The id of the segment with this key; with IPC_CREAT, one is made that has `size` bytes if there is none.

    Raises OSError: ENOENT (nobody has made it), EEXIST (IPC_EXCL), EACCES, EINVAL.
    """
    return call("shmget", key, size, (flags | 0o600) if flags & IPC_CREAT else flags)


def shmat(shmid: int, flags: int = 0) -> int:
    """Map a segment into this process's memory; returns the address. Raises OSError: EINVAL (no such id), EACCES."""
    return call("shmat", shmid, 0, flags)


def shmdt(address: int) -> None:
    """Take it out again. Raises OSError: EINVAL."""
    call("shmdt", address)


def shmrm(shmid: int) -> None:
    """Remove a segment: shmctl(IPC_RMID). It lasts until the last process has let go of it. Raises OSError: EPERM."""
    call("shmctl", shmid, IPC_RMID, 0)


def memory(address: int, size: int) -> memoryview:
    """The bytes at an address that shmat() returned, to be read and written."""
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def mq_open(name: str, flags: int = os.O_RDONLY | os.O_NONBLOCK) -> int:
    """A file descriptor of the queue /`name`; with O_CREAT, it is made. Raises OSError: ENOENT, EEXIST, EMFILE."""
    attributes = (ctypes.c_long * 8)(0, _DEPTH, _SIZE)
    return call("mq_open", name.removeprefix("/"), flags | os.O_CLOEXEC, 0o600, ctypes.addressof(attributes))


def mq_unlink(name: str) -> None:
    """Remove a queue. Raises OSError: ENOENT, EACCES."""
    call("mq_unlink", name.removeprefix("/"))


def mq_send(queue: int, message: bytes) -> None:
    """Put a message, of at most 256 bytes, into a queue. Raises OSError: EAGAIN (it is full), EMSGSIZE."""
    call("mq_timedsend", queue, ctypes.create_string_buffer(message), len(message), 0, 0)


def mq_receive(queue: int) -> bytes:
    """Take the oldest message out of a queue. Raises OSError: EAGAIN (it is empty)."""
    buffer = ctypes.create_string_buffer(_SIZE)
    length = call("mq_timedreceive", queue, buffer, _SIZE, 0, 0)
    return buffer.raw[:length]
