"""Trying a thing out where it can do no harm: in a forked child with a time limit.

Whether something works is best told by doing it. The child has namespaces of its own for that, so what it mounts and
which devices it makes nobody else sees, and all is gone with it. A kernel that hangs, or a filter that kills whoever
makes a call, costs one answer. It isolates no container: that is the steps' part, and here not one of them is needed.
"""

from __future__ import annotations

import contextlib
import os
import signal

from minicontainer.linux import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_PRIVATE,
    MS_REC,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    mount,
    prctl,
    unshare,
)
from minicontainer.linux.capabilities import capget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LONGEST = 2.0
"""Seconds for one probe; most take one thousandth of that."""

NO_ANSWER = -1
"""Instead of an errno: the child was killed, took too long, or failed in a way that is no system call's."""

_END = b"\0"

ORDINARY = 65534
"""The user id of nobody, whom every distribution has."""


def attempt(act: Callable[[], object], seconds: float = LONGEST) -> tuple[int, str]:
    """Do something in a child; returns (0, what `act` returned) or (errno, what it raised), both as text.

    The errno is NO_ANSWER where there is none. Never raises what `act` raises, never waits longer than `seconds` (and
    one second more for the child to die).
    """
    answer, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_probe(act, theirs)
    os.close(theirs)
    with contextlib.suppress(OSError):  # it has done so itself, and is perhaps gone
        os.setpgid(pid, pid)
    try:
        said = _read_all(answer, seconds)
    finally:
        os.close(answer)
        status = _end(pid)
    if said is None:
        return NO_ANSWER, f"no answer within {seconds:g} s" + ("" if status is not None else ": it hangs in the kernel")
    if not said and status is not None and os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        why = ": a seccomp filter kills whoever tries" if name == "SIGSYS" else ""
        return NO_ANSWER, f"the process that tried was killed by {name}{why}"
    number, _, text = said.partition("\n")
    return int(number or NO_ANSWER), text or ("" if number else "the process that tried ended without a word")


def isolate(flags: int) -> None:
    """In a probe: leave for new namespaces. Who lacks the right to does so as root of a new user namespace."""
    if "SYS_ADMIN" in capget():
        unshare(flags & ~CLONE_NEWUSER)
        if flags & CLONE_NEWUSER:
            be_root_of_a_new_user_namespace()
    else:
        be_root_of_a_new_user_namespace(flags)
    if flags & CLONE_NEWNS:
        mount(None, "/", None, MS_REC | MS_PRIVATE)


def be_root_of_a_new_user_namespace(flags: int = 0) -> None:
    """In a probe: root inside is who the caller was, and there is nobody else. `flags`: what else is to be new."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        file = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(file, text.encode())
        os.close(file)


def become_ordinary() -> None:
    """In a probe: be an ordinary user from now on, where the caller is root and there is one."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(ORDINARY, ORDINARY, ORDINARY)
        os.setresuid(ORDINARY, ORDINARY, ORDINARY)
    except OSError:
        return  # a user namespace without such an id: whoever we are is as ordinary as it gets
    prctl(PR_SET_DUMPABLE, 1)  # or /proc/self/uid_map would be root's


def _be_probe(act: Callable[[], object], answer: int) -> NoReturn:
    said = f"{NO_ANSWER}\n"
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)  # so that what it starts ends with it
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        result = act()
        said = f"0\n{'' if result is None else result}"
    except OSError as error:
        where = f": {error.filename}" if isinstance(error.filename, str) else ""
        said = f"{error.errno or NO_ANSWER}\n{error.strerror or error}{where}"
    except BaseException as error:
        said += f"{type(error).__name__}: {error}"
    finally:
        with contextlib.suppress(OSError):
            os.write(answer, said.encode(errors="replace")[:4000] + _END)
        os._exit(0)


def _read_all(fd: int, seconds: float) -> str | None:
    """What comes until the end, or the other end is closed; None when that takes too long."""
    import select
    import time

    deadline, data = time.monotonic() + seconds, b""
    while True:
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        more = os.read(fd, 4096)
        data += more
        if not more or data.endswith(_END):
            return data.removesuffix(_END).decode(errors="replace")


def _end(pid: int) -> int | None:
    """Kill what is left of the child, and all that it has started; its wait status, None where it does not die.

    Before it is waited for, its number is nobody else's, nor is that of its process group.
    """
    import time

    deadline = time.monotonic() + 1
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)
    while True:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # the caller ignores SIGCHLD: nobody learns how it ended
            return 0
        if ended:
            return status
        if time.monotonic() > deadline:
            return None
        _wait_for(pid, deadline - time.monotonic())


def _wait_for(pid: int, seconds: float) -> None:
    import select
    import time

    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, or a filter: then without
        time.sleep(0.001)
        return
    try:
        select.select([pidfd], [], [], max(0.0, seconds))
    finally:
        os.close(pidfd)
