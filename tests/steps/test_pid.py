"""`steps/pid.py`: what process 1 owes to the others, in real PID namespaces."""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer.linux import Namespace
from minicontainer.steps import pid
from tests.command import needs_root, wait_until

pytestmark = needs_root

ALL = signal.valid_signals()


def init(main: Callable[[], int], namespaces: tuple[Namespace, ...] = (Namespace.PID,)) -> int:
    """Start `main` as process 1, with its signals held from its first moment, as the runtime does."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    try:
        return pid.spawn_init(main, namespaces)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def ended(child: int) -> int:
    """The exit status of a child, which must end within the deadline."""
    pidfd = os.pidfd_open(child)
    try:
        assert select.select([pidfd], [], [], 30)[0], "process 1 does not end"
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def child_that(act: Callable[[], object], held: bool = False) -> int:
    """A child of process 1; its signals are not held any more, as a program finds them."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if not held:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)
            status = int(act() or 0)  # type: ignore[call-overload]
        finally:
            os._exit(status)
    return child


def test_it_is_number_1_and_its_status_is_what_main_returns() -> None:
    assert ended(init(lambda: os.getpid() + 10)) == 11


def test_a_main_that_raises_ends_and_never_comes_back() -> None:
    def main() -> int:
        os.close(2)  # Python would tell on standard error, and that is right
        raise RuntimeError

    before = os.getpid()
    assert ended(init(main)) == 125
    assert os.getpid() == before


def test_the_caller_can_start_another() -> None:
    children = [init(lambda: os.getpid()) for _ in range(3)]
    assert [ended(child) for child in children] == [1, 1, 1]
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")


def test_the_namespace_is_new() -> None:
    read, write = os.pipe()
    child = init(lambda: len(os.read(read, 1)))
    try:
        assert Namespace.PID.link(child) != Namespace.PID.link()
        assert Namespace.UTS.link(child) == Namespace.UTS.link()
        assert f"NSpid:\t{child}\t1\n" in Path(f"/proc/{child}/status").read_text()
    finally:
        os.write(write, b"x")
        os.close(read)
        os.close(write)
    assert ended(child) == 1


@pytest.mark.parametrize("status", [0, 1, 2, 125, 126, 127, 128, 137, 254, 255])
def test_the_status_of_the_child_is_returned(status: int) -> None:
    assert ended(init(lambda: pid.reap(child_that(lambda: status)))) == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGUSR1])
def test_killed_by_a_signal_is_128_and_its_number(number: signal.Signals) -> None:
    def dies() -> None:
        import faulthandler
        import resource

        faulthandler.disable()  # pytest's, which would tell of a crash that is none
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), number)

    assert ended(init(lambda: pid.reap(child_that(dies)))) == 128 + number


def test_orphans_are_buried() -> None:
    """A hundred grandchildren lose their parent and end; when the child looks, none of them is left as a zombie."""

    def main() -> int:
        from minicontainer.linux import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

        unshare(CLONE_NEWNS)
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc")
        return pid.reap(child_that(breeder))

    def breeder() -> int:
        for _ in range(100):
            if os.fork() == 0:
                if os.fork() == 0:
                    os._exit(0)  # the grandchild, whose parent does not wait for it
                os._exit(0)
            os.wait()
        me = {"1", str(os.getpid())}
        wait_until(lambda: {name for name in os.listdir("/proc") if name.isdecimal()} == me, "the orphans are buried")
        return 7

    assert ended(init(main)) == 7


@pytest.mark.parametrize("number", sorted(pid.FORWARDED - {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}))
def test_signals_are_passed_on(number: int) -> None:
    """Each one by itself; those that stop are not for a process group without a parent."""
    ready, tell = os.pipe()

    def child() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
        os.write(tell, b"x")
        return 64 + (signal.sigtimedwait([number], 20) is not None)

    process = init(lambda: pid.reap(child_that(child, held=True)))
    os.read(ready, 1)
    os.kill(process, number)
    try:
        assert ended(process) == 65
    finally:
        os.close(ready)
        os.close(tell)


def test_a_signal_that_came_before_reap_is_not_lost() -> None:
    ready, tell = os.pipe()
    go, word = os.pipe()

    def main() -> int:
        child = child_that(lambda: signal.sigwait([signal.SIGUSR1]), held=True)
        os.write(tell, b"x")
        os.read(go, 1)  # the signal arrives here, while nobody looks
        return pid.reap(child)

    process = init(main)
    os.read(ready, 1)
    os.kill(process, signal.SIGUSR1)
    os.write(word, b"x")
    try:
        assert ended(process) == signal.SIGUSR1
    finally:
        for fd in (ready, tell, go, word):
            os.close(fd)


def test_a_child_that_ended_before_reap_is_not_missed() -> None:
    def main() -> int:
        child = child_that(lambda: 9)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it is dead, and not waited for
        return pid.reap(child)

    assert ended(init(main)) == 9


def test_it_ends_all_the_others_with_it() -> None:
    """The kernel does: the pipe closes only when the last process that holds it has ended."""
    read, write = os.pipe()

    def main() -> int:
        for _ in range(5):
            child_that(lambda: signal.pause())
        return pid.reap(child_that(lambda: 3))

    process = init(main)
    os.close(write)
    try:
        assert ended(process) == 3
        assert select.select([read], [], [], 30)[0] and os.read(read, 1) == b""
    finally:
        os.close(read)


def test_no_privilege_is_told_with_the_call() -> None:
    read, write = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            os.setresuid(61234, 61234, 61234)
            pid.spawn_init(lambda: 0)
        except OSError as error:
            os.write(write, f"{error.errno} {error.strerror}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == f"{errno.EPERM} clone3(&cloneargs, 88): EPERM (Operation not permitted)"
    os.waitpid(helper, 0)
