"""The program itself: its files, its signals, its terminal, and execve(2), in place of init or as init's child.

Here every namespace is the container's. What is left of the caller are open files and the signal mask.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable, Sequence

from minicontainer.linux import CLOSE_RANGE_CLOEXEC, PR_SET_DUMPABLE, close_range, in_user_namespace, prctl
from minicontainer.runtime import terminal
from minicontainer.runtime.channel import Channel, Gate
from minicontainer.runtime.errors import ProgramError
from minicontainer.runtime.spec import Process

SIGNALS = frozenset(map(int, signal.valid_signals()))
_RESETTABLE = SIGNALS - {signal.SIGKILL, signal.SIGSTOP}
"""The signals whose disposition is put back to the default: Python ignores SIGPIPE, its children should not."""

Stdio = tuple[int | None, int | None, int | None]
"""The file descriptors that become 0, 1 and 2 of the program; None is the container's own /dev/null."""


def arrange(process: Process, console: terminal.Console | None, stdio: Stdio, lines: Sequence[Channel | Gate]) -> None:
    """Make the program's files 0, 1, 2 and those to be preserved 3, 4, …; all others close as it starts.

    `lines` are in use until then, and move out of the way. A preserved number that is not open is left out.
    """
    wanted: list[int | None] = [console.slave] * 3 if console else [_own_null(fd) for fd in stdio]
    wanted += [fd if _is_open(fd) else None for fd in process.preserve_fds]
    above = max(len(wanted), *(fd for fd in wanted if fd is not None)) + 1  # else one is overwritten before it is moved
    for line in lines:
        line.move(above)
    moved = [None if fd is None else fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in wanted]
    close_range(3, above - 1)
    for number, fd in enumerate(moved):
        if fd is not None:
            os.dup2(fd, number)
    close_range(len(wanted), flags=CLOSE_RANGE_CLOEXEC)
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):  # a socket, say, or a user namespace to which the file does not belong
            if os.fstat(number).st_uid != process.user.uid and os.fstat(number).st_rdev != _NULL:
                os.fchown(number, process.user.uid, -1)


_NULL = os.makedev(1, 3)


def _own_null(fd: int | None) -> int:
    """`fd`; but the container's own /dev/null in place of the host's: that is a file of the host's, to be held open."""
    status = None if fd is None else os.fstat(fd)
    if status is None or (stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL):
        with contextlib.suppress(FileNotFoundError):  # a container without a /dev
            return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    return os.open(os.devnull, os.O_RDWR) if fd is None else fd


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def spawn(process: Process, console: terminal.Console | None) -> int:
    """Start the program as a child; returns its pid.

    posix_spawn(3) and not fork(2), because the child borrows init's memory until it executes: nothing is copied, and
    of all the time between here and the program's first instruction, copying an interpreter is the longest.
    """
    _hide()
    # The first terminal that a session's leader opens controls the session: ^C will reach the program.
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.ttyname(0), os.O_RDWR, 0)] if console else []
    return _first_found(
        process,
        lambda path, environment: os.posix_spawn(
            path,
            list(process.args),
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_RESETTABLE,
        ),
    )


def become(process: Process, console: terminal.Console | None) -> None:
    """Execute the program in init's own place, so that it is process 1. Does not return."""
    if console:
        terminal.control(0)
    for number in _RESETTABLE:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _first_found(process, lambda path, environment: os.execve(path, list(process.args), environment))


def keep_nothing() -> None:
    """Init holds no file of the caller's open while it reaps."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    close_range(3)


def _first_found(process: Process, execute: Callable[[str, dict[str, str]], int]) -> int:
    """`execute` the program where the container's own PATH has it. Raises ProgramError."""
    environment = dict(item.partition("=")[::2] for item in process.env)
    name, path = process.args[0], environment.get("PATH", "")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    existing = name and [candidate for candidate in candidates if os.path.lexists(candidate)]
    if not existing:
        where = "" if "/" in name else f"'s PATH ({path})"
        raise ProgramError(errno.ENOENT, f"{name}: not found in the container{where}")
    executable = (file for file in existing if os.access(file, os.X_OK) and not os.path.isdir(file))
    found = next(executable, existing[0])
    try:
        return execute(found, environment)
    except OSError as error:
        number, reason = error.errno or 0, error.strerror
        if number == errno.ENOENT:  # it is there: what is missing is what it needs to be executed
            reason = "its interpreter, after #! or the dynamic loader, is not in the image"
        raise ProgramError(errno.EACCES if number == errno.ENOENT else number, f"execve({found}): {reason}") from None


def _hide() -> None:
    """Let nobody in the container look into init, before there is anybody.

    /proc/1/exe is the host's Python interpreter: who can open it might write to it (CVE-2019-5736). A root with
    CAP_SYS_PTRACE still can; in a user namespace it is not root's file anyway, and the caller wants to look at init.
    """
    if not in_user_namespace():
        prctl(PR_SET_DUMPABLE, 0)
