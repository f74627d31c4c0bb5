"""Lab 09, memory: what the kernel says of `memory.limit_memory` and `memory.count_oom_kills`."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import select
import signal

from labs.grading.checks import Wrong, check, deadline
from labs.grading.observed_group import ObservedGroup
from labs.grading.subject import Performed, Subject
from minicontainer.linux.cgroups import read, write

SLEEP = ["sleep", "600"]
SOON = deadline() / 2
"""Seconds. What is waited for takes some milliseconds; only a wrong answer makes us wait for all of this."""
MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")

LIMIT = "memory.limit_in_bytes", "memory.max"
"""The file by its name on v1, and on v2."""
TOTAL = "memory.memsw.limit_in_bytes", "memory.swap.max"
"""On v1 memory and swap together, on v2 swap alone."""
EVENTS = "memory.oom_control", "memory.events"
LESS_BINDING = "memory.soft_limit_in_bytes", "memory.high"
"""What sounds like a limit, and kills nobody."""


# limit_memory


@check("The kernel holds the limit that was asked for", exercise="memory.limit_memory", points=2)
def test_limit(subject: Subject) -> None:
    """cgroup-v1/memory.rst: memory.limit_in_bytes; cgroup-v2.rst: memory.max; both in bytes, in whole pages"""
    group = subject.group("memory")
    wanted = 24 * MIB + secrets.randbelow(2000) * PAGE + secrets.randbelow(PAGE)
    subject.perform("memory.limit_memory", group, wanted)
    found, holds = group.number("memory", *LIMIT), wanted // PAGE * PAGE
    subject.saw(f"asked for {wanted} bytes, in whole pages {holds}; {_file(group, LIMIT)} says {_said(found)}")
    if found != holds:
        raise Wrong(_why_not(group, wanted))


@check("Over the limit the kernel kills, and the neighbour lives", exercise="memory.limit_memory", points=2)
def test_killed(subject: Subject) -> None:
    """cgroup-v1/memory.rst, "OOM Control"; the line oom_kill of memory.oom_control (v1), memory.events (v2)"""
    names = subject.name("large"), subject.name("small")
    neighbour = subject.start(SLEEP, limits={"memory": 80 * MIB}, group=names[0])
    greedy = [
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        f"bs={64 * MIB}",
        "count=1",
    ]  # a buffer of that size, all written to
    victim = subject.start(greedy, limits={"memory": 32 * MIB}, group=names[1])
    group, others = subject.observed_group(names[1]), subject.observed_group(names[0])
    _must_be_killed_at_its_limit(group)
    if not victim.ended(SOON):
        raise Wrong(
            f"a container with a limit of 32 MiB takes 64 MiB and neither gets them nor is killed; "
            f"{_file(group, LIMIT)} says {_said(group.number('memory', *LIMIT))}"
        )
    status, killed = victim.exit_status(), _killed(group)
    subject.saw(
        f"limit 32 MiB, a program that takes 64: exit status {status}, oom_kill {killed}; its neighbour, limit 80 MiB: "
        f"{'alive' if neighbour.alive else 'dead'}, oom_kill {_killed(others)}"
    )
    if status == 0:
        raise Wrong(f"with a limit of 32 MiB the program took 64 MiB, and got them. {_why_not(group, 32 * MIB)}")
    if status != 128 + signal.SIGKILL or not killed:
        raise Wrong(
            f"the program ended with status {status}, and the kernel has counted {killed} killed for want of memory in "
            f"its group: whatever ended it, it was not this group's limit. {_why_not(group, 32 * MIB)}"
        )
    ending = _take(others, 64 * MIB)
    subject.saw(f"64 MiB taken beside the neighbour: {_told(ending)}")
    if ending or not neighbour.alive or _killed(others):
        raise Wrong(
            f"there were 80 MiB for the neighbour to itself, and they cannot be had: both have met one limit, that of a "
            f"group above them. {_why_not(others, 80 * MIB)}"
        )


@check("It cannot swap either, unless that was asked for", exercise="memory.limit_memory", points=1)
def test_no_swap(subject: Subject) -> None:
    """cgroup-v1/memory.rst: memory.memsw.limit_in_bytes is memory+swap; cgroup-v2.rst: memory.swap.max is swap alone"""
    group = subject.group("memory")
    subject.perform("memory.limit_memory", group, 32 * MIB)
    limit = _must_be_about(group, 32 * MIB)
    if not _swap_is_accounted(group):
        subject.saw(f"{_file(group, TOTAL)} is not there: this kernel does not account swap, so nothing is to be done")
        return
    total = group.number("memory", *TOTAL)
    subject.saw(f"{_file(group, LIMIT)} says {_said(limit)}, {_file(group, TOTAL)} says {_said(total)}")
    if _swap(group, total, limit) != 0:
        raise Wrong(
            f"{_file(group, TOTAL)} says {_said(total)}: at its limit of memory the group goes on in swap, slowly, and "
            f"takes that from everybody. Without a `total`, memory and swap together are as much as memory alone"
        )


@check("Memory and swap together have the total that was asked for", exercise="memory.limit_memory", points=0.5)
def test_total(subject: Subject) -> None:
    """cgroup-v1/memory.rst: memory.memsw.limit_in_bytes is memory+swap; cgroup-v2.rst: memory.swap.max is swap alone"""
    group = subject.group("memory")
    process = subject.perform("memory.limit_memory", group, 32 * MIB, 48 * MIB)
    limit = _must_be_about(group, 32 * MIB)
    if not _swap_is_accounted(group):
        subject.saw(f"{_file(group, TOTAL)} is not there: this kernel does not account swap, so nothing is to be done")
        return
    found = group.number("memory", *TOTAL)
    subject.saw(f"32 MiB, with swap 48 MiB: {_file(group, TOTAL)} says {_said(found)}")
    if not _about(_swap(group, found, limit), 16 * MIB):
        raise Wrong(
            f"with 32 MiB of memory and a total of 48 MiB, {_file(group, TOTAL)} says {_said(found)}: `total` is memory "
            f"and swap together. So is the file on v1; on v2 it is what may be swapped, which is 16 MiB here"
        )
    process.then("memory.limit_memory", group, 32 * MIB, -1)
    lifted = group.number("memory", *TOTAL)
    subject.saw(f"32 MiB, with swap -1: {_file(group, TOTAL)} says {_said(lifted)}")
    if lifted != -1:
        raise Wrong(f"a total of -1 is none, and {_file(group, TOTAL)} says {_said(lifted)}")


@check("It can be lowered, raised and lifted later", exercise="memory.limit_memory", points=1)
def test_change(subject: Subject) -> None:
    """cgroup-v1/memory.rst: the limit of memory+swap is never below that of memory; at no moment"""
    group = subject.group("memory")
    process: Performed | None = None
    told = list[str]()
    for limit in (64 * MIB, 32 * MIB, 96 * MIB, -1):
        try:
            if process is None:
                process = subject.perform("memory.limit_memory", group, limit)
            else:
                process.then("memory.limit_memory", group, limit)
        except Wrong as error:
            if told and "EINVAL" in str(error):
                subject.saw(f"{_file(group, LIMIT)} has said {', '.join(told)}")
                raise Wrong(
                    f"after {told[-1]}, {limit} was refused: {error}. On v1 memory may at no moment be allowed more "
                    f"than memory and swap together: on the way up the total is raised first, on the way down last"
                ) from None
            raise
        found = group.number("memory", *LIMIT)
        told.append(_said(found))
        if not _about(found, limit):
            subject.saw(f"{_file(group, LIMIT)} has said {', '.join(told)}")
            if limit == -1:
                raise Wrong(f"-1 is no limit, and {_file(group, LIMIT)} says {_said(found)}")
            raise Wrong(f"the limit was to become {limit}. {_why_not(group, limit)}")
    subject.saw(f"asked for 64, 32, 96 MiB and none; {_file(group, LIMIT)} said {', '.join(told)}")


@check("A group below it may have a larger number, and dies at the smaller", exercise="memory.limit_memory", points=1)
def test_below(subject: Subject) -> None:
    """cgroup-v2.rst, "Top-down Constraint" and "Limits": each limit above a process binds it"""
    above = subject.group("memory")
    below = subject.group("memory", below=above)
    limit = "memory.limit_memory"
    subject.perform([(limit, [above, 16 * MIB]), (limit, [below, 48 * MIB])])
    numbers = [group.number("memory", *LIMIT) for group in (above, below)]
    subject.saw(f"{_file(above, LIMIT)}: above {_said(numbers[0])}, below {_said(numbers[1])}")
    if _about(numbers[0], 48 * MIB):
        raise Wrong(
            f"{_file(above, LIMIT)} of the group above says {_said(numbers[0])}, which was meant for the group below: it "
            f"was written one directory too high"
        )
    if not _about(numbers[0], 16 * MIB):
        raise Wrong(f"the group above was to have 16 MiB. {_why_not(above, 16 * MIB)}")
    if not _about(numbers[1], 48 * MIB):
        raise Wrong(
            f"the group below was to have 48 MiB. {_why_not(below, 48 * MIB)}. (A number may be larger than that of "
            f"the group above: it is written as it is, and the kernel minds both)"
        )
    _must_be_killed_at_its_limit(above)
    _must_be_killed_at_its_limit(below)
    ending = _take(below, 32 * MIB)
    subject.saw(f"a process in the group below that takes 32 MiB: {_told(ending)}, oom_kill {_killed(below)}")
    if ending != 128 + signal.SIGKILL or not _killed(below):
        raise Wrong("a process in the group below took 32 MiB, and the 16 MiB of the group above did not stop it")


# count_oom_kills


@check("It returns what the kernel has counted", exercise="memory.count_oom_kills", points=2)
def test_count(subject: Subject) -> None:
    """cgroup-v1/memory.rst, memory.oom_control; cgroup-v2.rst, memory.events: a name and a number on each line"""
    group = subject.group("memory")
    process = subject.perform("memory.count_oom_kills", group)
    before = process.returned
    _hold(group, 8 * MIB)
    for _ in range(2 + secrets.randbelow(3)):
        _must_have_died(_take(group, 24 * MIB))
    process.then("memory.count_oom_kills", group)
    after, killed = process.returned, _killed(group)
    subject.saw(f"count_oom_kills returned {before}, then {killed} processes were killed, then it returned {after}")
    if before != 0 or type(before) is not int:
        raise Wrong(f"nobody was killed in a new group, and count_oom_kills() returned {before!r}: {_which(group)}")
    if after != killed or type(after) is not int:
        raise Wrong(
            f"the kernel has killed {killed} processes of the group, and count_oom_kills() returned {after!r}: "
            f"{_which(group)}"
        )


@check("Each group has its own count", exercise="memory.count_oom_kills", points=0.5)
def test_own_count(subject: Subject) -> None:
    """memory.oom_control (v1), memory.events (v2) lie in the group's own directory; /proc/vmstat counts for all"""
    groups = [subject.group("memory"), subject.group("memory")]
    _hold(groups[0], 8 * MIB)
    _must_have_died(_take(groups[0], 24 * MIB))
    returned = [subject.perform("memory.count_oom_kills", group).returned for group in groups]
    killed = [_killed(group) for group in groups]
    subject.saw(f"killed in two groups: {killed[0]} and {killed[1]}; count_oom_kills returned {returned}")
    if returned != killed:
        raise Wrong(
            f"in one group the kernel has killed {killed[0]}, in the other {killed[1]}, and count_oom_kills() returned "
            f"{returned[0]!r} and {returned[1]!r}: {_which(groups[0])}"
        )


# What the kernel says of a group


def _file(group: ObservedGroup, names: tuple[str, str]) -> str:
    return names[group.version("memory") - 1]


def _said(number: int) -> str:
    return "that there is no limit" if number == -1 else f"{number / MIB:g} MiB" if number % MIB == 0 else str(number)


def _about(found: int, wanted: int) -> bool:
    """Whether a limit is the one that was asked for, give or take what one unit or another makes of it.

    That it is so to the byte is the business of one check.
    """
    return found == wanted if wanted <= 0 else 0.9 * wanted < found < 1.1 * wanted


def _must_be_about(group: ObservedGroup, wanted: int) -> int:
    found = group.number("memory", *LIMIT)
    if not _about(found, wanted):
        raise Wrong(_why_not(group, wanted))
    return found


def _why_not(group: ObservedGroup, wanted: int) -> str:
    """What became of a limit that is not the one that was asked for."""
    found, file = group.number("memory", *LIMIT), _file(group, LIMIT)
    says = f"{file} says {group.read('memory', *LIMIT)}, not {wanted // PAGE * PAGE}"
    if found == -1:
        if _about(group.number("memory", *LESS_BINDING), wanted):
            return (
                f"{says}: the value went to another file, {_file(group, LESS_BINDING)}. That is where the kernel pushes "
                f"a group back to, and no bound: it kills nobody"
            )
        if _about(_number_above(group), wanted):
            return f"{says}, and the group above it has that limit: it was written one directory too high"
        return f"{says}: the group has no limit. The value went to another file, or another group, or to none"
    if _about(found, wanted):
        return (
            f"{says}: the number has been through another unit. Bytes are asked for, and bytes are what the file takes "
            f"(an M behind a number is 1048576 for the kernel)"
        )
    for factor, unit in ((1024, "KiB"), (MIB, "MiB"), (PAGE, "pages")):
        if found in (wanted * factor, wanted // factor) or found // PAGE == wanted // factor // PAGE:
            return f"{says}: bytes were taken for {unit}, or the other way round"
    return f"{says}: the group has another limit than it was to have"


def _number_above(group: ObservedGroup) -> int:
    text = read(f"{os.path.dirname(group.directory('memory'))}/{_file(group, LIMIT)}")
    return -1 if text == "max" else int(text)


def _swap_is_accounted(group: ObservedGroup) -> bool:
    return os.path.exists(f"{group.directory('memory')}/{_file(group, TOTAL)}")


def _swap(group: ObservedGroup, total: int, limit: int) -> int:
    """How much of a group may be swapped, by what the file says; -1: all."""
    return total if total == -1 or group.version("memory") == 2 else total - limit


def _killed(group: ObservedGroup) -> int:
    return group.field("memory", "oom_kill", *EVENTS)


def _which(group: ObservedGroup) -> str:
    lines = ", ".join(group.read("memory", *EVENTS).splitlines())
    return f"{_file(group, EVENTS)} of a group has the lines {lines}; the one that is meant begins with oom_kill and a blank"


def _must_be_killed_at_its_limit(group: ObservedGroup) -> None:
    """Raise Wrong where whoever meets the limit would wait for ever instead, and we for them."""
    if group.version("memory") == 1 and group.field("memory", "oom_kill_disable", *EVENTS):
        raise Wrong(
            "memory.oom_control says oom_kill_disable 1: at the limit nobody is killed, everybody waits for memory, and "
            "for ever, since nobody who waits gives any back. Memory cannot be had a little later"
        )


# What is done in it, by us: no word of the submission's is needed


def _hold(group: ObservedGroup, limit: int) -> None:
    """Limit a group ourselves, without swap: what is counted must not depend on who limits."""
    directory = group.directory("memory")
    with contextlib.suppress(FileNotFoundError):
        write(f"{directory}/{_file(group, LIMIT)}", limit)
        write(f"{directory}/{_file(group, TOTAL)}", limit if group.version("memory") == 1 else 0)


def _take(group: ObservedGroup, size: int) -> int:
    """How a process ends, in the words of a shell, that enters the group and takes so many bytes: a child of ours."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            write(f"{group.directory('memory')}/cgroup.procs", 0)
            mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
            status = 0
        finally:
            os._exit(status)
    pidfd = os.pidfd_open(child)
    try:
        if not select.select([pidfd], [], [], SOON)[0]:  # it waits for memory
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(child, 0)
            return -1
    finally:
        os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def _told(ending: int) -> str:
    return {-1: "it waits for ever", 0: "it got them", 137: "killed (137)"}.get(ending, f"exit status {ending}")


def _must_have_died(ending: int) -> None:
    if ending != 128 + signal.SIGKILL:
        raise Wrong(
            f"a process over a limit that we have set ourselves was not killed ({_told(ending)}): it was lifted"
        )
