"""The IPC namespaces of the sandbox, tried from outside: a segment and a queue of ours, and who comes upon them.

A child of the examiner enters the namespace of a process and asks there for what was made elsewhere, by its key or its
name. No code of the submission has a part in that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from labs.grading.checks import Wrong
from labs.grading.observed import Observed
from labs.grading.observed_network import visiting
from minicontainer.linux import CLONE_NEWIPC, CLONE_NEWUSER, setns
from minicontainer.linux.ipc import (
    IPC_CREAT,
    IPC_EXCL,
    memory,
    mq_open,
    mq_receive,
    mq_send,
    mq_unlink,
    shmat,
    shmdt,
    shmget,
    shmrm,
)

SIZE = 4096
NOBODY = (
    "has its IPC namespace in a user namespace of its own, in which nobody has an id, so it can make nothing there: "
    "unshare() was given CLONE_NEWUSER"
)


@dataclass(frozen=True)
class Left:
    """What the examiner has left in an IPC namespace: a segment and a queue, with the same words in both."""

    key: int
    queue: str
    words: str


@contextlib.contextmanager
def left_in(process: Observed) -> Iterator[Left]:
    """A segment and a queue in the IPC namespace of a process, while the block lasts; nobody can know their names."""
    left = Left(secrets.randbelow(1 << 30) + 1, f"left-{secrets.token_hex(6)}", secrets.token_hex(16))

    def make() -> None:
        address = shmat(shmget(left.key, SIZE, IPC_CREAT | IPC_EXCL))
        memory(address, SIZE)[: len(left.words)] = left.words.encode()
        shmdt(address)
        mq_send(mq_open(left.queue, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK), left.words.encode())

    def remove() -> None:
        with contextlib.suppress(OSError):
            shmrm(shmget(left.key))
        with contextlib.suppress(OSError):
            mq_unlink(left.queue)

    _in(process, make)
    try:
        yield left
    finally:
        if process.alive:
            _in(process, remove)


def segment(process: Observed, left: Left) -> str | None:
    """What stands in the segment with this key in the IPC namespace of a process; None: it has none."""

    def look() -> str | None:
        try:
            address = shmat(shmget(left.key))
        except OSError as error:
            _see_that_it_is_absent(error)
            return None
        text = bytes(memory(address, SIZE)[: len(left.words)])
        shmdt(address)
        return text.decode(errors="replace")

    found: str | None = _in(process, look)
    return found


def queue(process: Observed, left: Left) -> str | None:
    """The message that waits in the queue of this name in the IPC namespace of a process, "" if none does; None: it
    has no such queue. What was waiting, waits again."""

    def look() -> str | None:
        try:
            queue = mq_open(left.queue, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            _see_that_it_is_absent(error)
            return None
        try:
            message = mq_receive(queue)
        except BlockingIOError:
            return ""
        mq_send(queue, message)
        return message.decode(errors="replace")

    found: str | None = _in(process, look)
    return found


def segments(process: Observed) -> int:
    """How many segments of shared memory there are in the IPC namespace of a process."""

    def look() -> int:
        with open("/proc/sysvipc/shm") as lines:  # of the namespace of whoever opens it
            return len(lines.readlines()) - 1

    return int(_in(process, look))


def _see_that_it_is_absent(error: OSError) -> None:
    if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EIDRM, errno.EACCES):
        raise error


def _in(process: Observed, act: Callable[[], Any]) -> Any:
    """What `act` returns, done by root of the sandbox in the IPC namespace of a process.

    Root of the host has no id in there, and could make no queue. Raises Wrong: nor has anybody else; it is full.
    """

    def there(_: object) -> Any:
        setns(process.pidfd, CLONE_NEWIPC | CLONE_NEWUSER)
        try:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except OSError:
            return [NOBODY, None]
        try:
            return ["", act()]
        except OSError as error:  # its limits are reached, say: a submission has filled it
            return [f"has an IPC namespace in which others cannot make or find anything: {error.strerror}", None]

    wrong, told = visiting(there)
    if wrong:
        raise Wrong(f"{process} {wrong}")
    return told
