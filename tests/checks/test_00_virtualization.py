"""Lab 00, two kinds of virtualization: whether `measuring.time_start` and `measuring.memory_of` measure what they say.

What they are given to measure is a program of ours, whose delay and size nobody can know beforehand. What they return is
compared with what the kernel says of it, and with our own clock.
"""

from __future__ import annotations

import os
import secrets
import time

from labs.grading.checks import Wrong, check, deadline
from labs.grading.classroom import interpreter
from labs.grading.observed import Observed
from labs.grading.subject import Performed, Subject

MEBI = 1 << 20
SOON = deadline() / 2
"""Seconds. What is waited for takes some milliseconds; only a wrong answer makes us wait for all of this."""
SANDBOX = 1
"""Of the line NSpid: the first is our own number for a process, the next the sandbox's."""
TICK = 20
"""Milliseconds by which the date of a file may be wrong: the kernel keeps it by its coarse clock."""
CLOSE = 0.2
"""By what part a figure may differ from ours: other processes share the pages of libraries, and they come and go."""

_CHAIN = """\
import os, sys, time
interpreter, code, depth = sys.argv[1:]
memory = b"x" * ((24 + os.urandom(1)[0] % 24) << 20)
if int(depth) > 1:
    os.posix_spawn(interpreter, [interpreter, "-I", "-S", "-B", "-c", code, interpreter, code, str(int(depth) - 1)], {})
while True:
    time.sleep(600)
"""
"""A process that takes some memory, nobody knows how much, with a child that does, and so on."""

_FAMILY = """\
import os, sys, time
memory = b"x" * ((40 + os.urandom(1)[0] % 24) << 20)
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        break
while True:
    time.sleep(600)
"""
"""A process that takes some memory, and has children that use the same."""


# time_start


@check("It starts the program, and leaves it running", exercise="measuring.time_start", points=2)
def test_it_runs_on(subject: Subject) -> None:
    """posix_spawn(3), subprocess.Popen; ps --ppid"""
    seconds = str(600 + secrets.randbelow(100000))
    process, returned, _ = _timed(subject, f"echo kernel 1.2.3; exec {Subject.BUSYBOX} sleep {seconds}")
    running: list[Observed] = []

    def all_have_begun() -> bool:
        """Who executes another program at this moment has no command line yet."""
        commands = {child: child.command for child in process.children()}
        running[:] = [child for child, words in commands.items() if any(seconds in word for word in words)]
        return all(any(words) for words in commands.values())

    subject.until(all_have_begun)
    numbers = [int(child.status("NSpid").split()[SANDBOX]) for child in running]
    subject.saw(f"the program's processes: {numbers or 'none'}; returned: {returned}")
    if not running:
        raise Wrong(
            "the program that was to be started does not run any more: it was ended, and what has ended can be asked for "
            "its memory no longer. Whoever starts the measurement ends it"
        )
    if len(running) > 1:
        raise Wrong(f"the program was started {len(running)} times: each start costs, and one was asked for")
    if returned.get("pid") != numbers[0]:
        raise Wrong(f'the program is process {numbers[0]}, and "pid" was returned as {returned.get("pid")}')


@check("The clock runs until the program is ready", exercise="measuring.time_start", points=2)
def test_until_ready(subject: Subject) -> None:
    """clock_gettime(2): CLOCK_MONOTONIC; what is to be timed ends with the line "kernel ..." """
    delay, place = 400 + secrets.randbelow(500), subject.scratch()
    script = (
        f": >{place}/begun; echo booting; {Subject.BUSYBOX} usleep {delay * 1000}; : >{place}/said; echo kernel 1.2.3; "
    )
    _, returned, most = _timed(subject, f"{script} exec {Subject.BUSYBOX} sleep 600")
    found, took = returned.get("milliseconds"), _between(subject, f"{place}/begun", f"{place}/said")
    subject.saw(
        f"by the kernel's clock the program took {took} ms to be ready; all was over after {most} ms; returned: {found} ms"
    )
    if took < delay - TICK:
        raise Wrong(
            f"the program takes {delay} ms, and its marks were made within {took} ms: it was not run as it was given"
        )
    if not isinstance(found, int) or isinstance(found, bool):
        raise Wrong(f'"milliseconds" was to be a whole number, and is {found!r}')
    if found < took - TICK:
        raise Wrong(
            f"the program takes {took} ms until it says that it is ready, and {found} ms were returned: the clock was "
            f"stopped before (a program that was started is not one that is ready), or it does not count while one waits, or "
            f"not in milliseconds"
        )
    if found > most + 1:
        raise Wrong(
            f"all of it, the call included, was over after {most} ms, and {found} were returned: in which unit?"
        )


@check("The kernel is the one that the program has named", exercise="measuring.time_start", points=2)
def test_kernel(subject: Subject) -> None:
    """uname(2), asked by whoever runs on that kernel: a virtual machine's is not yours"""
    release = f"{secrets.randbelow(90) + 10}.{secrets.randbelow(20)}.0-{subject.name('guest')}"
    lines = r"printf 'SeaBIOS (version 1.16)\r\nBooting from ROM..\r\n[    0.00] my kernel is not yet up\r\n"
    lines += rf"kernel {release}\r\nwelcome\r\n'"
    place = subject.scratch()
    _, returned, _ = _timed(subject, f": >{place}/begun; : >{place}/said; {lines}; exec {Subject.BUSYBOX} sleep 600")
    _between(subject, f"{place}/begun", f"{place}/said")
    found = returned.get("kernel")
    subject.saw(f"the program said, after other lines, kernel {release}; returned: {found!r}")
    if found == release:
        return
    if found == subject.sandbox.read("/proc/sys/kernel/osrelease").decode().strip():
        raise Wrong(
            f'"kernel" was returned as {found}, and that is the kernel under the one who measures. A container has it too, '
            f"but a virtual machine has another: it has to be asked in there, and this program has said {release}"
        )
    if isinstance(found, str) and found.strip() == release:
        raise Wrong(f'"kernel" was to be {release!r} and is {found!r}: the end of the line does not belong to it')
    raise Wrong(
        f'"kernel" was to be what follows "kernel " in the line that begins with it, {release}, and is {found!r}: a machine '
        f"writes other lines before that"
    )


# memory_of


@check("Every process of it is counted", exercise="measuring.memory_of", points=2)
def test_every_process(subject: Subject) -> None:
    """proc_pid_smaps(5): smaps_rollup; /proc/PID/task/TID/children"""
    measurer, top = _program(subject, _CHAIN, str(interpreter()), _CHAIN, "3")
    sizes = _grown(subject, top, 3, 24 * MEBI)
    found = _returned(measurer, top)
    subject.saw(f"three processes, each the child of the one before, take {_mebi(*sizes)} MiB; returned: {found}")
    right = sum(sizes)
    if _close(found, right):
        return
    if _close(found * 1024, right):
        raise Wrong(f"{found} was returned and {right} bytes are taken: what /proc says in kB are units of 1024 bytes")
    for name, part in (
        ("itself alone", sizes[:1]),
        ("itself and its children, not theirs", sizes[:2]),
        ("not itself", sizes[1:]),
    ):
        if _close(found, sum(part), 0.1):
            raise Wrong(
                f"{found} bytes were returned, and all processes together take {right}: that is the process {name}. "
                f"A container is a tree of processes, and so is what starts it"
            )
    raise Wrong(f"{found} bytes were returned, and the three processes take {right}: {', '.join(map(str, sizes))}")


@check("What is shared is counted once", exercise="measuring.memory_of", points=2)
def test_shared(subject: Subject) -> None:
    """proc_pid_smaps(5): Pss, the proportional share; fork(2): copy-on-write"""
    measurer, top = _program(subject, _FAMILY, "3")
    sizes = _grown(subject, top, 4, 10 * MEBI)
    found = _returned(measurer, top)
    resident = sum(int(one.status("VmRSS").split()[0]) * 1024 for one in [top, *top.children()])
    subject.saw(f"four processes that share almost all take {_mebi(sum(sizes))} MiB together; returned: {found}")
    right = sum(sizes)
    if _close(found, right) or _close(found * 1024, right):  # the unit is the other check's affair
        return
    if _close(found, resident) or _close(found * 1024, resident):
        raise Wrong(
            f"{found} bytes were returned, and {right} are taken: the pages that four processes share since fork(2) "
            f"were counted four times. RSS is what a process can see without a page fault; Pss divides by those "
            f"who share it"
        )
    if found > resident:
        raise Wrong(
            f"{found} bytes were returned, and {right} are taken: addresses that are reserved (VmSize) are no memory"
        )
    raise Wrong(f"{found} bytes were returned, and the four processes take {right} together")


# What the checks are made of


def _timed(subject: Subject, script: str) -> tuple[Performed, dict[str, object], int]:
    """Have a shell script started and timed; the one who did it, what it returned, and the milliseconds it had."""
    begun = time.monotonic_ns()
    process = subject.perform("measuring.time_start", [Subject.BUSYBOX, "sh", "-c", script])
    most = (time.monotonic_ns() - begun) // 1_000_000
    if not isinstance(process.returned, dict):
        raise Wrong(
            'time_start() was to return {"pid": …, "kernel": …, "milliseconds": …}, whole numbers and a text, and returned '
            f"{'something else' if process.returned is None else repr(process.returned)}"
        )
    return process, process.returned, most


def _between(subject: Subject, first: str, second: str) -> int:
    """The milliseconds between the births of two files that a program makes: the kernel dates them, and nobody else can.

    Raises Wrong: they are not there, so the program has not been run.
    """
    try:
        subject.until(lambda: os.path.basename(second) in subject.sandbox.listdir(os.path.dirname(second)), SOON)
        dates = [subject.sandbox.stat(path).st_ctime_ns for path in (first, second)]
    except FileNotFoundError:
        raise Wrong("the program that was to be timed was not run, or not as far as to its line") from None
    return (dates[1] - dates[0]) // 1_000_000


def _program(subject: Subject, code: str, *words: str) -> tuple[Performed, Observed]:
    """Someone who is to measure, and a program of ours that it has started."""
    python = str(interpreter())
    process = subject.perform("os.posix_spawn", python, [python, "-I", "-S", "-B", "-c", code, *words], {})
    children = process.children()
    if len(children) != 1:
        raise Wrong("os.posix_spawn was replaced: there is nothing to measure")
    return process, children[0]


def _grown(subject: Subject, top: Observed, many: int, least: int) -> list[int]:
    """The bytes that each process of the tree takes, the top one first, once so many have so much, and are asleep."""

    def tree() -> list[Observed]:
        found = [top]
        for process in found:
            found += process.children()
        return found

    def settled() -> bool:
        found = tree()
        return len(found) == many and all(_pss(one) >= least and one.state == "S" for one in found)

    if not subject.until(settled):
        raise Wrong("the processes that were to be measured are not there")
    return list(map(_pss, tree()))


def _pss(process: Observed) -> int:
    """The kernel's word for how much memory it takes, shared pages by their part: in bytes."""
    with open(f"/proc/{process.pid}/smaps_rollup") as file:
        found = sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    if not process.alive:
        raise Wrong("a process that was to be measured has ended")
    return found * 1024


def _returned(measurer: Performed, top: Observed) -> int:
    measurer.then("measuring.memory_of", int(top.status("NSpid").split()[SANDBOX]))
    if not isinstance(measurer.returned, int) or isinstance(measurer.returned, bool):
        raise Wrong(f"memory_of() was to return a whole number of bytes, and returned {measurer.returned!r}")
    return measurer.returned


def _close(found: int, right: int, part: float = CLOSE) -> bool:
    return abs(found - right) <= part * right


def _mebi(*sizes: int) -> str:
    return ", ".join(f"{size / MEBI:.1f}" for size in sizes)
