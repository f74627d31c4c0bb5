"""System V shared memory and POSIX message queues, in an IPC namespace of a child's own: the host's are not touched."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minicontainer.linux import CLONE_NEWIPC, unshare
from minicontainer.linux.ipc import (
    IPC_CREAT,
    IPC_EXCL,
    SHM_RDONLY,
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
from tests.command import needs_root
from tests.steps.apart import apart

pytestmark = needs_root


def test_a_segment_is_found_by_its_key_until_it_is_removed() -> None:
    def child() -> None:
        unshare(CLONE_NEWIPC)
        shmid = shmget(0xBEEF, 4096, IPC_CREAT | IPC_EXCL)
        memory(shmat(shmid), 4096)[:5] = b"hello"
        assert shmget(0xBEEF) == shmid
        again = shmat(shmid, SHM_RDONLY)
        assert bytes(memory(again, 4096)[:5]) == b"hello"
        row = Path("/proc/sysvipc/shm").read_text().splitlines()[1].split()
        assert (int(row[0]), int(row[3]), int(row[6])) == (0xBEEF, 4096, 2)
        shmdt(again)
        with pytest.raises(FileExistsError):
            shmget(0xBEEF, 4096, IPC_CREAT | IPC_EXCL)
        shmrm(shmid)
        with pytest.raises(FileNotFoundError):
            shmget(0xBEEF)

    apart(child)


def test_messages_come_in_their_order_and_a_queue_has_a_bottom() -> None:
    def child() -> None:
        unshare(CLONE_NEWIPC)
        queue = mq_open("/letters", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK)
        mq_send(queue, b"first")
        mq_send(queue, b"second \0 with a zero")
        assert [mq_receive(queue), mq_receive(queue)] == [b"first", b"second \0 with a zero"]
        with pytest.raises(BlockingIOError):
            mq_receive(queue)
        for _ in range(4):
            mq_send(queue, b"x" * 256)
        with pytest.raises(BlockingIOError):
            mq_send(queue, b"one too many")
        with pytest.raises(OSError) as told:
            mq_send(queue, b"x" * 257)
        assert told.value.errno == errno.EMSGSIZE
        mq_unlink("/letters")
        with pytest.raises(FileNotFoundError):
            mq_open("letters")

    apart(child)
