"""An act in a process of its own, with mounts of its own: the host sees nothing of it, and gets its result."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from minicontainer.linux import AT_FDCWD, CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_REC, mount, unshare
from tests.command import DEADLINE

Result = TypeVar("Result")
Maps = Sequence[tuple[int, int, int]]

RENAME_EXCHANGE = 2
"""renameat2(2)"""

ROOT_AT_100000 = ((0, 100000, 65536),)
"""Root inside is somebody else outside."""


def apart(act: Callable[[], Result], maps: Maps = ()) -> Result:
    """What `act` returns, in a forked child with a private mount namespace; with `maps` as root of a user namespace.

    What it raises fails the test, with the trace from over there. The child is killed when it takes too long.
    """
    answer, theirs = os.pipe()
    ask, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        code, result = 1, b""
        try:
            signal.alarm(0)
            if maps:
                unshare(CLONE_NEWUSER)
                os.write(theirs, b"?")
                os.read(ask, 1)
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            unshare(CLONE_NEWNS)
            mount(None, "/", None, MS_REC | MS_PRIVATE)
            code, result = 0, pickle.dumps(act())
        except BaseException:
            result = pickle.dumps(traceback.format_exc())
        finally:
            while result:
                result = result[os.write(theirs, result) :]
            os._exit(code)
    os.close(theirs)
    os.close(ask)
    try:
        if maps:
            assert _read(answer, 1) == b"?"
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{name}").write_text("\n".join(" ".join(map(str, line)) for line in maps))
            os.write(go, b"!")
        data = b""
        while more := _read(answer, 1 << 16):
            data += more
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(answer)
        os.close(go)
        status = os.waitpid(pid, 0)[1]
    result = pickle.loads(data) if data else f"nothing was said; status {status}"
    assert status == 0, result
    return result  # type: ignore[no-any-return]


def errno_of(act: Callable[[], object]) -> int | None:
    """With what it fails; None: it does not."""
    try:
        act()
    except OSError as error:
        return error.errno
    return None


def _read(fd: int, count: int) -> bytes:
    assert select.select([fd], [], [], DEADLINE)[0], f"nothing for {DEADLINE} s"
    return os.read(fd, count)


@contextlib.contextmanager
def swapping(one: str | Path, other: str | Path) -> Iterator[None]:
    """Somebody who shares the files, not the mounts, and exchanges two names over and over.

    The time between two exchanges changes, or he could fall into step with whoever looks, who would then always see
    the same of the two.
    """
    ready, started = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            unshare(CLONE_NEWNS)
            rename, names = ctypes.CDLL(None).renameat2, (os.fsencode(one), os.fsencode(other))
            pause = 1
            while rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
                if pause == 1:
                    os.write(started, b"!")
                pause = pause * 75 % 65537  # every number below, each once, before it begins again
                for _ in range(pause % 97):
                    pass
        os._exit(1)
    try:
        assert _read(ready, 1) == b"!"
        yield
    finally:
        os.close(ready)
        os.close(started)
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status), "the attacker gave up before the end"


class Mount(NamedTuple):
    """A line of /proc/PID/mountinfo, proc_pid_mountinfo(5)."""

    root: str
    point: str
    options: list[str]
    propagation: dict[str, str]
    """"shared" → the number of the peer group, "master" → of the one that it listens to; "unbindable"."""
    fstype: str
    source: str
    super_options: list[str]


def mounts(pid: int | str = "self") -> list[Mount]:
    """Every mount that a process sees, as the kernel tells it."""
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, root, point, options, *optional = left.split(" ")
        spread = {word.partition(":")[0]: word.partition(":")[2] for word in optional if word}
        fstype, source, super_options = right.split(" ")
        found.append(Mount(root, point, options.split(","), spread, fstype, source, super_options.split(",")))
    return found


def mount_at(path: str | Path) -> Mount:
    """The mount at a path: the topmost, where several lie on one another."""
    return [one for one in mounts() if one.point == str(path)][-1]


def below(path: str | Path) -> list[str]:
    """Where something is mounted at a path and below it."""
    return [one.point for one in mounts() if f"{one.point}/".startswith(f"{path}/")]


def tmpfs(path: Path, *options: str) -> Path:
    """A tmpfs at a path, which is made."""
    path.mkdir(parents=True, exist_ok=True)
    mount("test", path, "tmpfs", 0, ",".join(options))
    return path
