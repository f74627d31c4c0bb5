"""Step 5, the PID namespace: process numbers that begin at 1, and what it means to be number 1.

pid_namespaces(7). The first process of the namespace is its init. The kernel makes it the parent of every orphan in
there, protects it from signals that it has no handler for, and kills all the others when it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from minicontainer.linux import CLONE_INTO_CGROUP, Namespace, clone3, flags, signal

FORWARDED = {
    number
    for number in signal.valid_signals()
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD)  # the first two cannot be caught
    and number not in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)  # our own mistakes
}


def spawn_init(
    main: Callable[[], int], namespaces: Collection[Namespace] = (Namespace.PID,), cgroup: int | None = None
) -> int:
    """Start `main` as process 1 of a new PID namespace and return its pid as the caller sees it.

    What `main` returns is the exit status of the new process. `namespaces` are those to be born into: PID, and USER
    where the container has users of its own (the kernel makes that one first, so that it owns the others). The caller
    stays where it is and can start another; after unshare(CLONE_NEWPID) it could not: all its children would go to the
    same namespace, and none could be born after that one's init had died.

    `cgroup`, a file descriptor of a group's v2 directory, is where it is born (Linux 5.7); else in the caller's.

    Only from a process with a single thread (see `clone3`). Raises OSError: EPERM, ENOSPC, EINVAL (not in this kernel).
    """
    pid = clone3(flags(namespaces)) if cgroup is None else clone3(flags(namespaces) | CLONE_INTO_CGROUP, cgroup)
    if pid == 0:
        status = 125
        try:
            status = main()
        finally:
            os._exit(status)  # never back into the caller's code, which now exists twice
    return pid


def reap(child: int) -> int:
    """Do the duty of process 1 until `child` has ended: bury the dead, pass signals on. Returns the child's exit
    status.

    An orphan becomes a child of init; when it ends, it stays a zombie until init waits for it, and a pid is lost.
    Nothing can hit init by surprise: signals are blocked and taken one at a time, so none is missed between two looks.

    The status is the shell's: 128 + n when signal n killed the child.
    """
    expected = FORWARDED | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, expected)
    while True:
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        received = signal.sigwait(expected)
        if received != signal.SIGCHLD:
            os.kill(child, received)  # it has not been waited for, so the number is still its own


def _ended() -> list[tuple[int, int]]:
    """Every child that has ended by now, waited for: one SIGCHLD can stand for many deaths."""
    dead = []
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            dead.append(found)
    except ChildProcessError:
        pass  # no children at all
    return dead
