"""Processes: their birth into namespaces, moving between namespaces, handles on them, their signals.

clone(2), unshare(2), setns(2), pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2), prctl(2), close_range(2),
signalfd(2).
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable

from minicontainer.linux import signal
from minicontainer.linux.syscalls import call

CLONE_PARENT = 0x8000
CLONE_INTO_CGROUP = 0x200000000

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36

CLOSE_RANGE_CLOEXEC = 4

KEYCTL_JOIN_SESSION_KEYRING = 1

TIOCSCTTY = 0x540E


class CloneArgs(ctypes.Structure):
    """``struct clone_args`` of clone(2): eleven 64-bit numbers, those that we do not use left 0."""

    _fields_ = [
        (field, ctypes.c_uint64)
        for field in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
            "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


def clone3(flags: int, cgroup: int = 0) -> int:
    """Make a child process as fork(2) does, born into the new namespaces that `flags` asks for.

    Returns the child's pid in the parent and 0 in the child. `cgroup` is a file descriptor of a cgroup v2 directory,
    for CLONE_INTO_CGROUP. With CLONE_PARENT the child is the caller's sibling. The child shares no memory with the
    parent. Python's own fork hooks do not run: **call it only where this process has a single thread**, or the child
    waits for ever for a lock that a lost thread held.

    Raises OSError: EPERM (a namespace needs CAP_SYS_ADMIN, or user namespaces are closed), ENOSPC (the limit in
    /proc/sys/user/max_*_namespaces), EINVAL (the kernel does not have such a namespace).
    """
    signalled = 0 if flags & CLONE_PARENT else signal.SIGCHLD  # a sibling tells of its end as the caller itself does
    arguments = CloneArgs(flags=flags, exit_signal=signalled)
    if flags & CLONE_INTO_CGROUP:
        arguments.cgroup = cgroup
    return call("clone3", arguments, ctypes.sizeof(CloneArgs))


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` names for new ones.

    With CLONE_NEWPID, only later children are in the new one.
    """
    call("unshare", flags)


def setns(fd: int, flags: int = 0) -> None:
    """Join a namespace: `fd` is one of the files of /proc/PID/ns, or a pidfd (Linux 5.8) with `flags` naming which."""
    call("setns", fd, flags)


def pidfd_open(pid: int) -> int:
    """A file descriptor that is this very process, whoever gets its number later; readable (poll) once it has ended."""
    return os.pidfd_open(pid)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process behind `pidfd`. Raises ProcessLookupError when it has ended and was reaped."""
    signal.pidfd_send_signal(pidfd, number)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A file descriptor of ours, close-on-exec, for what another process has open as `fd` (Linux 5.6).

    Raises OSError: EPERM (it takes the right to trace that process), EBADF, ESRCH.
    """
    return call("pidfd_getfd", pidfd, fd, 0)


def prctl(option: int, argument: int = 0) -> int:
    """Ask or change an attribute of the calling process: PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS…"""
    return call("prctl", option, argument, 0, 0, 0)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close every file descriptor from `first` to `last`; with CLOSE_RANGE_CLOEXEC only at the next execve(2)."""
    call("close_range", first, last, flags)


def close_all_but(kept: Iterable[int | None]) -> None:
    """Close every file descriptor that is not among these; None is no file."""
    first = 0
    for fd in sorted({fd for fd in kept if fd is not None}):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def signalfd(numbers: Iterable[int]) -> int:
    """A file descriptor on which these signals, which must be blocked, can be read:

    128 bytes each, the number first.
    """
    mask = sum(1 << (number - 1) for number in numbers)
    return call("signalfd4", -1, ctypes.create_string_buffer(mask.to_bytes(8, "little"), 8), 8, os.O_CLOEXEC)


def set_title(title: str) -> None:
    """Let ps(1) show `title` for the calling process, and /proc/PID/environ nothing.

    Both files show memory of the process itself, as it was laid out at execve(2), and a fork of it shows it again: the
    caller's environment, with whatever secrets are in there, to everybody in a container. Where it lies is in
    /proc/PID/stat, fields 48 to 51. What Python and the C library have copied of it (os.environ) stays.
    """
    arguments, arguments_end, environment, environment_end = map(int, _stat("self")[45:49])
    ctypes.memset(environment, 0, environment_end - environment)
    ctypes.memset(arguments, 0, arguments_end - arguments)
    shown = title.encode()[: arguments_end - arguments - 1]
    ctypes.memmove(arguments, shown, len(shown))


def in_user_namespace() -> bool:
    """Whether "root" here is somebody else outside: the first user namespace has a known number, PROC_USER_INIT_INO."""
    return os.readlink("/proc/self/ns/user") != "user:[4026531837]"


def join_session_keyring(name: str | None = None) -> int:
    """Leave the session keyring for a new, empty one (or one with this name, if there is one); returns its number.

    keyctl(2), KEYCTL_JOIN_SESSION_KEYRING; session-keyring(7).
    """
    return call("keyctl", KEYCTL_JOIN_SESSION_KEYRING, name)


def thread_count() -> int:
    """How many threads this process has: every one the kernel knows, not only Python's."""
    return len(os.listdir("/proc/self/task"))


def is_single_threaded(patience: float = 0.1) -> bool:
    """Whether this process has one thread, as fork, unshare and setns want it.

    A thread that Python has joined may still be on its way out of the kernel: it is given `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while thread_count() > 1:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def birth_of(pid: int) -> int | None:
    """When a process was born, in clock ticks since boot (proc(5), field 22 of /proc/PID/stat);

    None when it has ended.
    """
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in b"ZX" else int(fields[19])


def _stat(pid: int | str) -> list[bytes]:
    """/proc/PID/stat from field 3 on; before it is a name, which may have blanks and brackets in it."""
    file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 4096).rpartition(b")")[2].split()
    finally:
        os.close(file)
