"""Shared memory and message queues in a lesson: made, read, and drawn by whom they are there for.

    share(0xBEEF, "a secret")        a segment of System V shared memory, under a key
    look_up(0xBEEF)                  what stands in it; None: here there is none with this key
    post("letters", "hello")         a POSIX message queue, and a message in it
    fetch("letters")                 the oldest message; None: here there is no such queue
    with neighbour(unshare, CLONE_NEWIPC) as other: …    a process that has called this and keeps still

Names and keys are looked up in the IPC namespace of whoever asks. What `seen` tells was asked for in the namespace of a
process, by a program of our own that went there. `labs.notebook.sides` draws it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicontainer.linux import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_PRIVATE,
    MS_REC,
    mount,
    pidfd_open,
    setns,
    unshare,
)
from minicontainer.linux.ipc import (
    IPC_CREAT,
    IPC_EXCL,
    SHM_RDONLY,
    memory,
    mq_open,
    mq_receive,
    mq_send,
    shmat,
    shmdt,
    shmget,
)

SIZE = 4096


def share(key: int, text: str, *, keep: bool = False) -> int:
    """Make a segment under this key, and write a text into it; with `keep`, it stays mapped in this process.

    Returns its id. Raises OSError: EEXIST (somebody has made it already).
    """
    shmid = shmget(key, SIZE, IPC_CREAT | IPC_EXCL)
    address = shmat(shmid)
    memory(address, SIZE)[: len(text.encode())] = text.encode()
    if not keep:
        shmdt(address)
    return shmid


def look_up(key: int) -> str | None:
    """What stands in the segment with this key; None: in our IPC namespace there is none."""
    try:
        address = shmat(shmget(key), SHM_RDONLY)
    except FileNotFoundError:
        return None
    text = bytes(memory(address, SIZE)).partition(b"\0")[0].decode(errors="replace")
    shmdt(address)
    return text


def post(name: str, text: str) -> None:
    """Put a message into the queue of this name, which is made if there is none. Raises OSError: EAGAIN (full)."""
    queue = mq_open(name, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK)
    mq_send(queue, text.encode())
    os.close(queue)


def fetch(name: str) -> str | None:
    """Take the oldest message out of the queue of this name; None: in our IPC namespace there is no such queue."""
    try:
        queue = mq_open(name)
    except FileNotFoundError:
        return None
    try:
        return mq_receive(queue).decode(errors="replace")
    except BlockingIOError:
        return "(empty)"
    finally:
        os.close(queue)


def show_queues(directory: str) -> None:
    """Mount the file system of message queues there: of the IPC namespace that the caller is in *now*."""
    os.makedirs(directory, exist_ok=True)
    mount("mqueue", directory, "mqueue")


@contextlib.contextmanager
def neighbour(act: Callable[..., object] = int, *args: Any) -> Iterator[int]:
    """The pid of a child of ours that has called `act` with these arguments and keeps still, while the block lasts.

    Raises RuntimeError: that failed, and how.
    """
    answer, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        try:
            act(*args)
            os.write(told, b"\0")
        except BaseException as error:
            os.write(told, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        os.close(told)
        signal.pause()
        os._exit(0)
    os.close(told)
    said = os.read(answer, 1000)
    os.close(answer)
    try:
        if said != b"\0":
            raise RuntimeError(said.decode(errors="replace") or "the process has ended")
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@dataclass(frozen=True)
class Seen:
    """What there is in the IPC namespace of a process, and what the process has at hand."""

    namespace: str
    segments: list[dict[str, int]]
    """The key, id, size in bytes of each, and how many processes have it mapped: /proc/sysvipc/shm."""
    queues: list[str]
    mapped: list[int]
    """The keys of the segments that the process has in its memory: /proc/PID/maps."""
    listed: list[str] | None
    """The queues that its own /dev/mqueue lists; None: it has none."""


def seen(pid: int) -> Seen:
    """Ask for it in the IPC namespace of a process. Raises RuntimeError: that cannot be entered, and why."""
    done = subprocess.run(
        [sys.executable, "-m", "labs.notebook.ipc", str(pid)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    return Seen(**json.loads(done.stdout))


def _tell(pid: int) -> Seen:
    """In a process of our own, which may leave its namespaces."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    mapped = sorted({int(key, 16) for key in re.findall(r"/SYSV([0-9a-f]{8})", maps)})
    namespace = os.readlink(f"/proc/{pid}/ns/ipc")
    listed, mounts = None, Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    if any(" - mqueue " in line and " /dev/mqueue " in line for line in mounts):
        with contextlib.suppress(OSError):
            listed = sorted(os.listdir(f"/proc/{pid}/root/dev/mqueue"))
    foreign = os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    setns(pidfd_open(pid), CLONE_NEWIPC | (CLONE_NEWUSER if foreign else 0))
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    named = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    segments = [
        {
            "key": int(row["key"]) & 0xFFFFFFFF,
            "id": int(row["shmid"]),
            "size": int(row["size"]),
            "mapped": int(row["nattch"]),
        }
        for row in named
    ]
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("mqueue", "/mnt", "mqueue")
    return Seen(namespace, segments, sorted(os.listdir("/mnt")), mapped, listed)


if __name__ == "__main__":
    from dataclasses import asdict

    print(json.dumps(asdict(_tell(int(sys.argv[1])))))
