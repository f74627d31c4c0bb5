"""Lab 05, the PID namespace: numbers, states and exit codes of processes as the kernel has them.

Orphans are made to order, killed from outside at a moment that the check chooses, and then looked for: a zombie has
ended, and is still in the process table, because nobody has waited for it.
"""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

from labs.grading.checks import Wrong, check, deadline
from labs.grading.observed import Observed
from labs.grading.subject import Performed, Subject
from minicontainer.linux import Namespace

SLEEP = ["sleep", "600"]
SOON = deadline() / 2
"""Seconds. What is waited for takes a millisecond; only a wrong answer makes us wait for all of this."""

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


# spawn_init


@check("It is process 1 of a new PID namespace", exercise="pid.spawn_init", points=1.5)
def test_process_1(subject: Subject) -> None:
    """pid_namespaces(7); the line NSpid of /proc/PID/status: a number for each nested namespace, the innermost last"""
    process = subject.perform("pid.spawn_init", {"returns": 0})
    child = _born(process)
    numbers, ours = child["NSpid"].split(), process.status("NSpid").split()
    subject.saw(f"NSpid of the caller: {' '.join(ours)}; of the new process: {' '.join(numbers)}")
    if len(numbers) == len(ours):
        raise Wrong(
            f"the new process is number {numbers[-1]} in the PID namespace of its parent: no new one was made. A "
            f"process never changes its own PID namespace, it is born into one: CLONE_NEWPID must be among the flags "
            f"of its clone3()"
        )
    if numbers[-1] != "1":
        raise Wrong(
            f"the new process is number {numbers[-1]} in its namespace, and not 1: somebody else was born there first"
        )


@check("The caller stays where it is", exercise="pid.spawn_init", points=1)
def test_caller_stays(subject: Subject) -> None:
    """unshare(2), CLONE_NEWPID; /proc/PID/ns/pid_for_children says where the next child will be born"""
    process = subject.perform("pid.spawn_init", {"returns": 0})
    _born(process, subject)
    here, children = process.namespace("pid"), process.namespace("pid_for_children")
    subject.saw(f"the caller is in {here}, its next child will be in {children}")
    if children != here:
        raise Wrong(
            f"the caller's next children will be born in another PID namespace, {children}: that was "
            f"unshare(CLONE_NEWPID), which changes the caller for good, and once that namespace's process 1 has "
            f"ended every fork() of it fails. clone3() gives the flags to the one child only"
        )


@check("What main returns is its exit status", exercise="pid.spawn_init", points=1)
def test_status_of_main(subject: Subject) -> None:
    """_exit(2), wait(2); field 52 of /proc/PID/stat of a process that nobody has waited for"""
    wanted = 1 + secrets.randbelow(60)
    child = _born(subject.perform("pid.spawn_init", {"returns": wanted}), subject)
    code = os.waitstatus_to_exitcode(int(child["exit_code"]))
    subject.saw(f"main returned {wanted}; the exit status of the process is {code}")
    if code == 70:
        raise Wrong(
            "the child came back out of spawn_init(): after clone3() there are two processes that run the same code. "
            "The child has to end, with os._exit(), when main has returned, or it goes on with what its parent is to do"
        )
    if code != wanted:
        raise Wrong(
            f"main returned {wanted}, and the process ended with {code}: its result must be handed to os._exit()"
        )


@check("It is born into the other namespaces that were asked for", exercise="pid.spawn_init", points=0.5)
def test_other_namespaces(subject: Subject) -> None:
    """clone(2): the flags of several namespaces are or-ed; user_namespaces(7): the user namespace is made first"""
    everything = [kind for kind in Namespace if kind.supported]
    try:
        container = subject.start(SLEEP, namespaces=everything)
    except Wrong as error:
        if "pid.spawn_init" in str(error):
            raise
        raise Wrong(
            f"a container with users of its own could not be started ({error}): spawn_init was called with PID and "
            f"USER, and its process 1 must be born into both"
        ) from None
    inside, outside = container.namespace("user"), subject.sandbox.namespace("user")
    subject.saw(f"asked for PID and USER: the new process is in {inside}, outside is {outside}")
    if inside == outside:
        raise Wrong("the new process is in the user namespace of its parent, although `namespaces` had USER in it")


def _born(process: Observed, subject: Subject | None = None) -> dict[str, str]:
    """The one child of a process, which has ended or will at once: its /proc/PID/status, and its exit code."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if not children:
        if not os.path.exists(f"/proc/{process.pid}/ns/pid_for_children"):  # made, and without a process 1 so far
            raise Wrong(
                "unshare(CLONE_NEWPID) was called, and nobody was born after it: the caller stays where it is, with its "
                "old number. Process 1 of the new namespace is its next child, and there is none"
            )
        raise Wrong(
            "the caller has no child: either none was made, or spawn_init() waited for it; whoever called it will "
            "want to do that"
        )
    if subject is not None:
        subject.until(lambda: _fields(children[0])[0] == "Z", SOON)
    status = Path(f"/proc/{children[0]}/status").read_text().splitlines()
    told = {name: value.strip() for name, _, value in (line.partition(":") for line in status)}
    return {**told, "exit_code": _fields(children[0])[-1]}


def _fields(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


# reap


@check("It waits for orphans too", exercise="pid.reap", points=1.5)
def test_orphans(subject: Subject) -> None:
    """wait(2): -1 is any child; State: Z (zombie) in /proc/PID/status"""
    container, program, orphans = _with_orphans(subject, 2)
    for orphan in orphans:
        orphan.signal(signal.SIGKILL)
        orphan.ended()
        reaped = subject.until(lambda orphan=orphan: orphan.gone, SOON)  # type: ignore[misc]
        subject.saw(
            f"orphan {orphan.pid}, killed: {'gone' if reaped else 'State: Z (zombie), its parent is process 1'}"
        )
        if not reaped:
            raise Wrong(
                f"process {orphan.pid} has ended and stays a zombie: it was an orphan, so process 1 is its parent, "
                f"and nobody else can wait for it. Wait for any child, not for `child` alone"
            )
    _must_have_outlived_them(container, program)


@check("One SIGCHLD can stand for many deaths", exercise="pid.reap", points=1)
def test_many_at_once(subject: Subject) -> None:
    """signal(7): a standard signal that is pending already is not queued again; waitpid(2), WNOHANG"""
    container, program, orphans = _with_orphans(subject, 5)
    container.signal(signal.SIGSTOP)
    subject.until(lambda: container.state == "T", SOON)
    for orphan in orphans:
        orphan.signal(signal.SIGKILL)
        orphan.ended()
    container.signal(signal.SIGCONT)
    subject.until(lambda: all(orphan.gone for orphan in orphans), SOON)
    left = sum(not orphan.gone for orphan in orphans)
    subject.saw(f"{len(orphans)} orphans ended while process 1 was stopped; afterwards {left} of them are zombies")
    if left:
        raise Wrong(
            f"{len(orphans)} orphans ended at about the same time, and {left} of them stay zombies: one SIGCHLD was "
            f"pending for all. After each, wait until there is no more to wait for (os.WNOHANG)"
        )
    _must_have_outlived_them(container, program)


@check("Signals reach the program", exercise="pid.reap", points=1.5)
def test_signals(subject: Subject) -> None:
    """sigwait(3), kill(2); SigBlk, ShdPnd (bit n-1 is signal n) in /proc/PID/status"""
    container = subject.start(SLEEP)
    program = container.program
    program.signal(signal.SIGSTOP)  # so that what arrives stays pending, to be seen, and ends nothing
    subject.until(lambda: program.state == "T", SOON)
    arrived: list[str] = []
    for number in PASSED_ON:
        container.signal(number)
        if not subject.until(lambda: not container.alive or _pending(program, number), SOON):  # noqa: B023
            kept = _pending(container, number)
            subject.saw(
                f"at the program: {', '.join(arrived) or 'none'}; {number.name} is "
                f"{'pending at process 1' if kept else 'lost'}"
            )
            raise Wrong(
                f"{number.name} was sent to process 1 and did not reach the program"
                + (
                    ": it is blocked there, and pending for ever. Take it with signal.sigwait() and send it on with "
                    "os.kill()"
                    if kept
                    else ": it was taken and not sent on. Whoever signals a container's process 1 means the program"
                )
            )
        if not container.alive:
            raise Wrong(
                f"process 1 ended when {number.name} was sent to it: the signal is meant for the program, pass it on"
            )
        arrived.append(number.name)
    subject.saw(f"sent to process 1, and pending at the stopped program: {', '.join(arrived)}")


@check("It returns the program's exit status", exercise="pid.reap", points=1)
def test_exit_status(subject: Subject) -> None:
    """wait(2), WIFSIGNALED; sh(1): 128 + n for a program that signal n ended"""
    container = subject.start(["sh", "-c", "trap 'exit 42' USR1; while :; do sleep 0.02; done"])
    program = container.program
    subject.until(lambda: _has(program.status("SigCgt"), signal.SIGUSR1), SOON)
    program.signal(signal.SIGUSR1)
    exited = _status(container)
    container = subject.start(SLEEP)
    container.program.signal(signal.SIGKILL)
    killed = _status(container)
    subject.saw(f"a program that called exit(42): {exited}; one that SIGKILL (9) ended: {killed}")
    if exited != 42:
        raise Wrong(
            f"the program called exit(42), and reap() made {exited} of it: what waitpid() returns is a wait status, "
            f"in which the exit code is the upper byte. os.waitstatus_to_exitcode() takes it apart"
        )
    if killed != 137:
        raise Wrong(
            f"signal 9 ended the program, and reap() made {killed} of it, where a shell says 128 + 9 = 137: "
            f"os.waitstatus_to_exitcode() returns -n for signal n"
        )


@check("It ends when the program ends, whoever else lives", exercise="pid.reap", points=1)
def test_ends_with_the_program(subject: Subject) -> None:
    """pid_namespaces(7): when process 1 ends, the kernel kills every other process of the namespace"""
    container, program, orphans = _with_orphans(subject, 1)
    program.signal(signal.SIGKILL)
    ended = container.ended(SOON)
    subject.saw(f"the program ended; process 1 {'ended' if ended else 'goes on'}; an orphan is {_life(orphans[0])}")
    if not ended:
        raise Wrong(
            "the program has ended, and process 1 goes on, because another child still lives: a container is as old "
            "as its program. When `child` has ended return; the kernel will kill the rest"
        )
    if not orphans[0].ended(SOON):
        raise Wrong(
            "process 1 has ended, and a process of the container lives on: was it process 1 of a PID namespace?"
        )


def _with_orphans(subject: Subject, count: int) -> tuple[Performed, Observed, list[Observed]]:
    """A container, its program, and orphans that this has made: process 1 has inherited them."""
    container = subject.start(["sh", "-c", "(sleep 600 &); " * count + "exec sleep 600"])
    if container.namespace("pid") == subject.sandbox.namespace("pid"):
        raise Wrong(
            "the container is in the PID namespace of its caller: nobody in there is process 1, and inherits orphans"
        )
    if not subject.until(lambda: len(container.children()) == count + 1, SOON):
        raise Wrong(
            f"of {count} orphans in the container, process 1 has inherited {len(container.children()) - 1}: the "
            f"kernel gives orphans to process 1 of their PID namespace"
        )
    program = container.program
    return container, program, [child for child in container.children() if child.pid != program.pid]


def _must_have_outlived_them(container: Performed, program: Observed) -> None:
    """Raise Wrong where process 1 ended because an orphan did. Its exit status tells whose end it took for its own.

    SIGKILL has ended the orphans, and SIGTERM now ends the program. To look whether process 1 is alive would be to
    guess how long it takes to die.
    """
    program.signal(signal.SIGTERM)
    if _status(container) in (128 + signal.SIGKILL, 256 - signal.SIGKILL, int(signal.SIGKILL)):
        raise Wrong(
            "process 1 ended when an orphan did, and with it the whole container: wait() returns whichever child has "
            "ended. Only the end of `child` is the end of reap()"
        )


def _status(container: Performed) -> int:
    if not container.ended(SOON):
        raise Wrong("the program has ended, and process 1 goes on: nobody has waited for `child`")
    return container.exit_status()


def _pending(process: Observed, number: int) -> bool:
    return _has(process.status("ShdPnd"), number) or _has(process.status("SigPnd"), number)


def _has(mask: str, number: int) -> bool:
    """Whether a signal is in a mask of /proc/PID/status."""
    return bool(int(mask, 16) >> (number - 1) & 1)


def _life(process: Observed) -> str:
    return "alive" if process.alive else "dead"
