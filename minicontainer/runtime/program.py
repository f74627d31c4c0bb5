"""The program itself: its files, its signals, its terminal, and execve(2), in place of init or as init's child.

Here every namespace is the container's. What is left of the caller are open files and the signal mask.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence

from minicontainer.linux import CLOSE_RANGE_CLOEXEC, close_range, in_user_namespace, signal
from minicontainer.linux.stub import arguments, elf, sealed
from minicontainer.runtime import terminal
from minicontainer.runtime.channel import Channel, Gate, path_of
from minicontainer.runtime.errors import ProgramError
from minicontainer.runtime.spec import Process
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.runtime.keeping import Keeper

SIGNALS = frozenset(map(int, signal.valid_signals()))
_RESETTABLE = SIGNALS - {signal.SIGKILL, signal.SIGSTOP}
"""The signals whose disposition is put back to the default: Python ignores SIGPIPE, its children should not."""

Stdio = tuple[int | None, int | None, int | None]
"""The file descriptors that become 0, 1 and 2 of the program; None is the container's own /dev/null."""


def arrange(
    process: Process,
    console: terminal.Console | None,
    stdio: Stdio,
    lines: Sequence[Channel | Gate | Keeper],
    steps: Steps,
) -> int | None:
    """Make the program's files 0, 1, 2 and those to be preserved 3, 4, …; all others close as it starts.

    `lines` are in use until then, and move out of the way. A preserved number that is not open is left out. Returns
    what `spawn` and `become` are to execute the program with: made now, before there are limits and filters.
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
                os.fchown(number, process.user.uid, -1 if os.isatty(number) else process.user.gid)
    _hide(steps)
    return _stand_in(process)


_NULL = os.makedev(1, 3)
_NOBODY = 65534
"""The owner of a file whose owner the user namespace does not map."""
_LONGEST = 1000  # characters of a path in an error


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


def spawn(process: Process, console: terminal.Console | None, line: Channel | Gate, stub: int | None) -> int:
    """Start the program as a child; returns its pid. Raises ProgramError.

    posix_spawn(3) and not fork(2), because the child borrows init's memory until it executes: nothing is copied, and
    of all the time between here and the program's first instruction, copying an interpreter is the longest.
    """
    # The first terminal that a session's leader opens controls the session: ^C will reach the program.
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.ttyname(0), os.O_RDWR, 0)] if console else []
    return _execute(
        process,
        line,
        stub,
        lambda path, args, environment: os.posix_spawn(
            path,
            args,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_RESETTABLE,
        ),
    )


def become(process: Process, console: terminal.Console | None, line: Channel | Gate, stub: int | None) -> None:
    """Execute the program in init's own place, so that it is process 1. Does not return. Raises ProgramError."""
    if console:
        terminal.control(0)
    for number in _RESETTABLE:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _execute(process, line, stub, os.execve)


def keep_nothing(above: int = 3) -> None:
    """Init holds no file of the caller's open while it reaps; those below `above` it may have reasons for."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    close_range(above)


# The program, by way of the stub


def _execute(
    process: Process,
    line: Channel | Gate,
    stub: int | None,
    execute: Callable[[str, list[str | bytes], dict[str, str]], int],
) -> int:
    """Have the stub executed, which executes the program; or without one, the program. Raises ProgramError.

    What goes wrong in the stub is told over the line: by then nobody is left to raise anything.
    """
    environment = dict(item.partition("=")[::2] for item in process.env)
    found = _first_found(process.args[0], environment.get("PATH", ""))
    if stub is not None and (place := path_of(stub)):
        message = line.framed("error", {"errno": "0000", "program": found[:_LONGEST]})
        os.set_inheritable(line.fileno(), True)
        try:
            return execute(place, arguments(line.fileno(), message, found, process.args), environment)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM):  # what makes the program too big an image can choose
                raise ProgramError.of_execve(found, error.errno or 0) from None
        os.set_inheritable(line.fileno(), False)  # somebody's rule is that nothing in memory is executed
    try:
        return execute(found, list(process.args), environment)
    except OSError as error:
        raise ProgramError.of_execve(found, error.errno or 0) from None


def _first_found(name: str, path: str) -> str:
    """Where the container's own PATH has the program. Raises ProgramError."""
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    existing = name and [candidate for candidate in candidates if os.path.lexists(candidate)]
    if not existing:
        where = "the container" if "/" in name else f"the container's PATH ({path})"
        raise ProgramError.not_found(name, where)
    executable = (file for file in existing if os.access(file, os.X_OK) and not os.path.isdir(file))
    return next(executable, existing[0])


def _stand_in(process: Process) -> int | None:
    """The stub, an open file: minicontainer/linux/stub.py says what for. None, where it would do harm, or cannot be.

    It would take from a program what the next execve(2) is to give it: a label that a security module has noted, or,
    where new privileges are forbidden, capabilities of its file, which it gets only if who executes it has them. Then
    that one is not root, and the interpreter not his to write to.
    """
    sets = process.capabilities
    if sets and process.user.uid and process.no_new_privileges and sets.permitted and not sets.ambient:
        with contextlib.suppress(OSError):
            interpreter = os.stat("/proc/self/exe")
            if interpreter.st_uid != process.user.uid and not interpreter.st_mode & 0o022:
                return None
    if (process.apparmor_profile or process.selinux_label) and _label_waits():
        return None
    try:
        return sealed(elf(os.uname().machine), "minicontainer")
    except (OSError, KeyError):  # vm.memfd_noexec=2; a machine whose code nobody has written
        return None


def _label_waits() -> bool:
    """Whether the next execve(2) gives us another label: proc_pid_attr(5)."""
    for name in ("apparmor/exec", "exec"):
        with contextlib.suppress(OSError), open(f"/proc/self/attr/{name}", "rb", buffering=0) as label:
            if (label.read() or b"").strip(b"\0\n"):
                return True
    return False


def _hide(steps: Steps) -> None:
    """Let nobody in the container look into init, as long as it has files of the host's open and is one itself.

    /proc/1/exe is the host's Python interpreter: who can open it might write to it (CVE-2019-5736), and who can open
    /proc/1/fd has what we have (CVE-2016-9962). The program's own execve(2) undoes it. A root with CAP_SYS_PTRACE may
    look all the same. In a user namespace whose root is not the host's, the caller wants to look at init and may be
    nobody special; there the interpreter is not root's file.
    """
    with contextlib.suppress(OSError):  # a container without a /proc
        if in_user_namespace() and not _is_hosts_root():
            return
    steps.hide_process()


def _is_hosts_root() -> bool:
    """Whether user 0 of the namespace above is somebody in ours, and the interpreter somebody's."""
    with open("/proc/self/uid_map", "rb", buffering=0) as maps:  # as text it would take an import of the host's
        outside = [int(line.split()[1]) for line in maps]
    return 0 in outside and os.stat("/proc/self/exe").st_uid != _NOBODY
