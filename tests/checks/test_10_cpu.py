"""Lab 10, processors: what the kernel says of `cpu.share_cpu`, `cpu.throttle`, `cpu.pin`, and of the freezer.

No figure here depends on how fast the machine is, or how busy: shares are compared among groups on one processor, a
quota is held against the kernel's own periods, and where something is to stand still, a neighbour is the clock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from labs.grading.checks import Wrong, check, deadline
from labs.grading.observed import Observed
from labs.grading.observed_group import ObservedGroup
from labs.grading.subject import Performed, Subject
from minicontainer.linux.cgroups import write

SLEEP = ["sleep", "600"]
BUSY = ["sh", "-c", "while :; do :; done"]
SOON = deadline() / 2
"""Seconds. What is waited for takes some milliseconds; only a wrong answer makes us wait for all of this."""
AWHILE = deadline() / 50
"""Seconds that we look at something before we change it: for as long a group cannot come to a stop, for instance."""

SHARES = "cpu.shares", "cpu.weight"
"""The file by its name on v1, and on v2."""


# share_cpu


@check("The kernel has the shares in the ratio 1:2:1", exercise="cpu.share_cpu", points=1)
def test_shares(subject: Subject) -> None:
    """sched-design-CFS.rst, section 7: cpu.shares, 1024 unless set; cgroup-v2.rst: cpu.weight, 100 unless set"""
    one = 512 * (1 + secrets.randbelow(4))
    groups = [subject.group("cpu") for _ in range(4)]
    wanted = [one, 2 * one, one, 1024]
    subject.perform([("cpu.share_cpu", [group, shares]) for group, shares in zip(groups, wanted, strict=True)])
    version, file = groups[0].version("cpu"), SHARES[groups[0].version("cpu") - 1]
    found = [group.number("cpu", *SHARES) for group in groups]
    subject.saw(
        f"asked for {_row(wanted)}; {file} says {_row(found)}; in a group that nobody asked for {_usual(version)}"
    )
    holds = wanted if version == 1 else [round(shares * 100 / 1024) for shares in wanted]
    if found == holds:
        return
    if found == [_usual(version)] * 4:
        raise Wrong(
            f"{file} says {_row(found)}: it is as in a new group, so the value went to another file, or to none"
        )
    if len(set(found[:3])) == 2 and 1.9 < found[1] / found[0] < 2.1:
        raise Wrong(
            f"{file} says {_row(found)}: the ratio is right among the three, but 1024 shares are what everybody has, "
            f"which is {_usual(version)} here. Against other groups these count for {found[3] / _usual(version):g} of that"
        )
    raise Wrong(f"{file} says {_row(found)} for {_row(wanted)} shares: it was to be {_row(holds)}")


@check("On one processor, three busy groups get 1:2:1 of it", exercise="cpu.share_cpu", points=1.5)
def test_measured(subject: Subject) -> None:
    """cgroup-v2.rst, "Weights"; what a group has used: cpuacct.usage (v1), usage_usec in cpu.stat (v2)"""
    shares = [1024, 2048, 1024]
    with _on_one_processor(subject):
        groups = [_busy(subject, {"cpu_shares": each})[1] for each in shares]
    for attempt in (1, 2):  # somebody who stops and starts beside us may disturb one measurement
        used = _shared(subject, groups, 0.7 * attempt)
        total = sum(used) or 1
        subject.saw(
            f"{total / 1e6:.2f} s of one processor were shared as {' : '.join(f'{4 * each / total:.2f}' for each in used)}"
        )
        if any(_throttled_periods(group) for group in groups):
            raise Wrong(
                f"they were made to wait, though the processor was free: nr_throttled says "
                f"{_row([_throttled_periods(group) for group in groups])}. That is a quota, which bounds always; shares "
                f"bind only while others want the same processor"
            )
        if all(abs(each / total - part / 4) < 0.25 * part / 4 for each, part in zip(used, (1, 2, 1), strict=True)):
            return
    raise Wrong(
        f"three containers with {_row(shares)} shares were busy on one processor, and it was not shared 1:2:1; "
        f"{SHARES[groups[0].version('cpu') - 1]} says {_row([group.number('cpu', *SHARES) for group in groups])}"
    )


def _busy(subject: Subject, limits: dict[str, object], also: Sequence[str] = ()) -> tuple[Performed, ObservedGroup]:
    """A container with a program that never rests, and its group."""
    name = subject.name("busy")
    container = subject.start(BUSY, limits=limits, group=name, controllers=["cpu", "cpuacct", *also])
    return container, subject.observed_group(name)


@contextlib.contextmanager
def _on_one_processor(subject: Subject) -> Iterator[None]:
    """Whatever is started meanwhile in the sandbox runs on one and the same processor, for all its life.

    To move it there later would not do: older kernels (6.1) hold it against a group for seconds that it has run on a
    processor on which it had little to do.
    """
    pid, processors = subject.sandbox.pid, _processors(subject)
    os.sched_setaffinity(pid, {secrets.choice(sorted(processors))})
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(pid, processors)


def _shared(subject: Subject, groups: Sequence[ObservedGroup], seconds: float) -> list[int]:
    """What each of them uses, in µs, while all together use so many seconds of a processor."""
    before = [_used(group) for group in groups]
    subject.until(lambda: sum(map(_used, groups)) - sum(before) > seconds * 1e6)
    return [_used(group) - old for group, old in zip(groups, before, strict=True)]


def _used(group: ObservedGroup) -> int:
    """Processor time that the group has used, in µs."""
    if group.version("cpuacct") == 1:
        return group.number("cpuacct", "cpuacct.usage") // 1000
    return group.field("cpuacct", "usage_usec", "cpu.stat")


def _row(numbers: Sequence[object]) -> str:
    return ", ".join(map(str, numbers))


def _usual(version: int) -> int:
    return 1024 if version == 1 else 100


# throttle


@check("The kernel has the quota and the period", exercise="cpu.throttle", points=1)
def test_quota(subject: Subject) -> None:
    """sched-bwc.rst: cpu.cfs_quota_us and cpu.cfs_period_us; cgroup-v2.rst: cpu.max; in µs"""
    group = subject.group("cpu")
    period = 40_000 + secrets.randbelow(20_000)
    quota = period // 2 + secrets.randbelow(2000)
    _throttled(subject, None, group, quota, period)
    found = _quota(group)
    subject.saw(f"asked for {quota} µs of every {period}; {_quota_files(group)} {found[0]} of every {found[1]}")
    if found != (quota, period):
        raise Wrong(_why_not(group, quota, period))


@check("It can be changed and lifted later", exercise="cpu.throttle", points=0.5)
def test_change(subject: Subject) -> None:
    """sched-bwc.rst, "Hierarchical considerations": no group of v1 is given more than the one above, at no moment"""
    group = subject.group("cpu")
    process: Performed | None = None
    for quota, period in ((60_000, 100_000), (6_000, 10_000), (60_000, 100_000), (-1, 100_000)):
        process = _throttled(subject, process, group, quota, period)
        found = _quota(group)
        subject.saw(f"asked for {quota} of {period}: {_quota_files(group)} {found[0]} of {found[1]}")
        if quota == -1 and found[0] != -1:
            raise Wrong(f"a quota of -1 is none, and the kernel still has {found[0]} µs of every {found[1]}")
        if quota != -1 and abs(found[0] / found[1] - quota / period) > 0.01:
            raise Wrong(_why_not(group, quota, period))


@check("Who has used up the quota waits, and does not die", exercise="cpu.throttle", points=1)
def test_throttled(subject: Subject) -> None:
    """sched-bwc.rst, "Statistics": nr_periods, nr_throttled in cpu.stat"""
    quota, period = 5_000, 50_000
    try:
        container, group = _busy(subject, {"cpu_quota": quota, "cpu_period": period})
    except Wrong as error:
        raise _explained(error, quota, period) from None
    program = container.program
    begun, before, throttled = time.monotonic(), _used(group), _throttled_periods(group)
    patience = SOON if _quota(group)[0] != -1 else AWHILE
    waited = subject.until(lambda: _throttled_periods(group) >= throttled + 5, patience)
    used, seconds = _used(group) - before, time.monotonic() - begun
    subject.saw(
        f"{quota} µs of every {period}: in {seconds:.2f} s a busy container used {used / 1e6:.3f} s of a processor; "
        f"nr_throttled {_throttled_periods(group)}; the program is {'alive' if program.alive else 'dead'}"
    )
    if not program.alive:
        raise Wrong("the program has ended: over its quota a group waits for the next period, and nobody is killed")
    if not waited:
        raise Wrong(
            f"nr_throttled has not grown: a container that is always busy was never made to wait. "
            f"{_why_not(group, quota, period)}"
        )
    if used > 1.25 * seconds * 1e6 * quota / period + 3 * quota:  # at both ends, a period that we have seen a part of
        raise Wrong(
            f"with {quota} µs of every {period} it used {used} µs in {seconds:.2f} s, and "
            f"{seconds * 1e6 * quota / period:.0f} were its quota. {_why_not(group, quota, period)}"
        )


def _throttled(subject: Subject, process: Performed | None, group: ObservedGroup, quota: int, period: int) -> Performed:
    """Have throttle() called, in this process or a new one. Raises Wrong, with more to it than what the kernel says."""
    try:
        if process is None:
            return subject.perform("cpu.throttle", group, quota, period)
        process.then("cpu.throttle", group, quota, period)
        return process
    except Wrong as error:
        raise _explained(error, quota, period) from None


def _explained(error: Wrong, quota: int, period: int) -> Wrong:
    """What the kernel refused, with the reasons that it has; any other Wrong as it is."""
    if "EINVAL" not in str(error):
        return error
    return Wrong(
        f"asked for {quota} µs of every {period}, and the kernel refused what was written: {error}. Both are µs; a quota "
        f"is at least 1000, a period 1000 to 1000000; and on v1 quota/period may at no moment be more than the group "
        f"above has, which is one processor: not between two writes either"
    )


def _quota(group: ObservedGroup) -> tuple[int, int]:
    """Quota (-1: none) and period, µs."""
    if group.version("cpu") == 1:
        return group.number("cpu", "cpu.cfs_quota_us"), group.number("cpu", "cpu.cfs_period_us")
    quota, period = group.read("cpu", "cpu.max").split()
    return -1 if quota == "max" else int(quota), int(period)


def _quota_files(group: ObservedGroup) -> str:
    return "cpu.cfs_quota_us and cpu.cfs_period_us say" if group.version("cpu") == 1 else "cpu.max says"


def _throttled_periods(group: ObservedGroup) -> int:
    return group.field("cpu", "nr_throttled", "cpu.stat")


def _why_not(group: ObservedGroup, quota: int, period: int) -> str:
    """What became of a quota that is not the one that was asked for."""
    found = _quota(group)
    says = f"{_quota_files(group)} {found[0]} of every {found[1]} µs, not {quota} of every {period}"
    if found[0] == -1:
        shares = group.number("cpu", *SHARES)
        if shares != _usual(group.version("cpu")):
            return (
                f"{says}: there is no quota. {SHARES[group.version('cpu') - 1]} was set instead, to {shares}: shares "
                f"count only while others want the same processor"
            )
        return f"{says}: there is no quota. The value went to another file, another group, or to none"
    if found == (quota, 100_000):
        return f"{says}: the period was left at what every group has. A quota alone says nothing"
    if found == (period, quota):
        return f"{says}: the two are in each other's place"
    if abs(found[0] / found[1] - quota / period) < 0.001:
        return (
            f"{says}: the part of a processor is right, but in longer or shorter turns: for as long a container may "
            f"stand still"
        )
    for factor, unit in ((1000, "ms"), (1000, "ns")):
        if found[0] in (quota * factor, quota // factor):
            return f"{says}: the files are in µs, and that was written in {unit}"
    return says


# pin


@check("The processes in the group may use these processors only", exercise="cpu.pin", points=1)
def test_pin(subject: Subject) -> None:
    """cgroup-v1/cpusets.rst; cgroup-v2.rst, "Cpuset"; Cpus_allowed_list in /proc/PID/status, sched_getaffinity(2)"""
    processors = _processors(subject)
    chosen = max(processors)
    name = subject.name("pinned")
    try:
        container = subject.start(SLEEP, limits={"cpuset_cpus": str(chosen)}, group=name)
    except Wrong as error:
        raise _no_such_processors(error) from None
    group = subject.observed_group(name)
    allowed = [_allowed(process) for process in (container, container.program)]
    file = group.read("cpuset", "cpuset.cpus")
    subject.saw(
        f'asked for processor {chosen} of {_list(processors)}; cpuset.cpus says "{file}"; process 1 may use '
        f"{_list(allowed[0])}, the program {_list(allowed[1])}"
    )
    if _numbers(file) != {chosen}:
        raise Wrong(_why_not_pinned(file, chosen, allowed[1]))
    if any(each != {chosen} for each in allowed):
        raise Wrong(f"cpuset.cpus says {file}, and the container may use the processors {_list(allowed[1])}")


@check("Who is in the group already is pinned at once, and cannot undo it", exercise="cpu.pin", points=1)
def test_pin_running(subject: Subject) -> None:
    """cpuset(7); sched_setaffinity(2): EINVAL, where none of the processors is in the group's cpuset"""
    processors = _processors(subject)
    chosen = max(processors)
    name = subject.name("pinned")
    container = subject.start(SLEEP, group=name, controllers=["cpuset"])
    group = subject.observed_group(name)
    program = container.program
    before = _allowed(program)
    try:
        subject.perform("cpu.pin", group, str(chosen))
    except Wrong as error:
        raise _no_such_processors(error) from None
    after, file = _allowed(program), group.read("cpuset", "cpuset.cpus")
    subject.saw(
        f'a program that may use {_list(before)} is pinned to {chosen}: now it may use {_list(after)}; cpuset.cpus "{file}"'
    )
    if after != {chosen} or _numbers(file) != {chosen}:
        raise Wrong(_why_not_pinned(file, chosen, after))
    if others := processors - {chosen}:
        if _lets(group, lambda: os.sched_setaffinity(0, others)):
            raise Wrong(
                f"a process in the group has given itself the processors {_list(others)}: it is not the group that is "
                f"pinned"
            )
        subject.saw(f"a process in the group that asks for {_list(others)} is refused: EINVAL")


@check("Nodes of memory too, and None leaves a list as it is", exercise="cpu.pin", points=0.5)
def test_nodes(subject: Subject) -> None:
    """cgroup-v1/cpusets.rst, cgroup-v2.rst, "Cpuset": cpuset.mems, a list of NUMA nodes"""
    group = subject.group("cpuset")
    for file in ("cpuset.cpus", "cpuset.mems"):
        write(f"{group.directory('cpuset')}/{file}", "\n")  # so that what is there afterwards has been written
    node = str(max(_numbers(subject.sandbox.status("Mems_allowed_list"))))
    process = subject.perform("cpu.pin", group, None, node)
    first = [group.read("cpuset", file) for file in ("cpuset.cpus", "cpuset.mems")]
    chosen = str(max(_processors(subject)))
    process.then("cpu.pin", group, chosen)
    then = [group.read("cpuset", file) for file in ("cpuset.cpus", "cpuset.mems")]
    subject.saw(f'cpuset.cpus and .mems were empty; after pin(group, None, "{node}"): "{first[0]}" and "{first[1]}"')
    subject.saw(f'after pin(group, "{chosen}"): "{then[0]}" and "{then[1]}"')
    if first[1] != node:
        raise Wrong(f'the group was to take memory of node {node} only, and cpuset.mems says "{first[1]}"')
    if first[0]:
        raise Wrong(
            f'no processors were given, and cpuset.cpus, which was empty, says "{first[0]}": None leaves it alone'
        )
    if then[1] != node:
        raise Wrong(f'no nodes were given, and cpuset.mems, which said {node}, says "{then[1]}": None leaves it alone')


def _processors(subject: Subject) -> set[int]:
    """Those that the sandbox may use."""
    return os.sched_getaffinity(subject.sandbox.pid)


def _allowed(process: Observed) -> set[int]:
    """The processors that a process may use."""
    return _numbers(process.status("Cpus_allowed_list"))


def _numbers(text: str) -> set[int]:
    """The numbers of a list of the kernel's, such as 0-2,7."""
    found = set[int]()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _list(numbers: set[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _no_such_processors(error: Wrong) -> Wrong:
    """What the kernel refused, with the reason; any other Wrong as it is."""
    if not any(name in str(error) for name in ("EINVAL", "EACCES", "ERANGE")):
        return error
    return Wrong(
        f"{error}. The file is a list of processors, such as 0-2,7, counted from 0; none that the group above does not have"
    )


def _why_not_pinned(file: str, chosen: int, allowed: set[int]) -> str:
    if allowed == {chosen}:
        return (
            f'the program may use processor {chosen} only, but cpuset.cpus says "{file}": that was sched_setaffinity(2) '
            f"on some process, which it hands on to its children and which each of them can undo; not the group"
        )
    if _numbers(file) == {1 << chosen}:
        return f'cpuset.cpus says "{file}": that is a mask, in which processor {chosen} is bit {chosen}; the file is a list'
    if file and _numbers(file) == set(range(chosen)):
        return f'cpuset.cpus says "{file}": "{chosen}" was taken for how many; it is a list of which, counted from 0'
    return (
        f'it was to run on processor {chosen} only; cpuset.cpus says "{file}", and the program may use {_list(allowed)}'
    )


def _lets(group: ObservedGroup, act: Callable[[], object]) -> bool:
    """Whether the kernel lets a process of ours in the group do that; EINVAL is a no."""
    try:
        return group.lets("cpuset", act)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise


# freeze


@check("A frozen group stands still, and its neighbour goes on", exercise="freezer.freeze", points=1)
def test_freeze(subject: Subject) -> None:
    """cgroup-v1/freezer-subsystem.rst: freezer.state; cgroup-v2.rst: cgroup.freeze, and frozen in cgroup.events"""
    container, group = _busy(subject, {}, ["freezer"])
    _, neighbour = _busy(subject, {})
    subject.perform("freezer.freeze", group)
    _must_freeze(subject, group, container)
    ran, others = _used(group), _used(neighbour)
    moved = subject.until(lambda: _used(neighbour) - others > 30_000)
    ran = _used(group) - ran
    subject.saw(
        f"{_freezer(group)}; while its neighbour used {(_used(neighbour) - others) / 1000:.0f} ms of a processor, the "
        f"frozen container used {ran / 1000:.1f}"
    )
    if not moved:
        raise Wrong("the neighbour has stopped as well: it is in another group, and nobody has frozen that")
    if ran > 2000:
        raise Wrong(f"the kernel says that the group is frozen, and it has used {ran} µs of a processor since")
    if not container.alive:
        raise Wrong("the container has ended: who is frozen stands where it was")


@check("When freeze() returns, everything has stopped", exercise="freezer.freeze", points=0.5)
def test_freeze_waits(subject: Subject) -> None:
    """freezer-subsystem.rst: FREEZING, and FROZEN only when all have stopped; cgroup-v2.rst: frozen in cgroup.events"""
    # A process freezes when it next runs. So this one is kept from running: it gets 1 ms of every second, which is used
    # up. As soon as the kernel has the order to freeze, it is kept so for another while, and then let run.
    container, group = _busy(subject, {}, ["freezer"])
    directory = group.directory("cpu")
    if group.version("cpu") == 1:
        write(f"{directory}/cpu.cfs_period_us", 1_000_000)
        write(f"{directory}/cpu.cfs_quota_us", 1_000)
    else:
        write(f"{directory}/cpu.max", "1000 1000000")
    subject.until(lambda: _rests(group))
    with _let_go_on(group):
        subject.perform("freezer.freeze", group)
        there = _freezer(group)
        frozen = _is_frozen(group)
    subject.saw(f"of a group that cannot stop at once, when freeze() has returned: {there}")
    if not frozen:
        _must_freeze(subject, group, container)
        raise Wrong(
            f"freeze() has returned, and the kernel said {there}: the group had the order to stop and had not stopped "
            f"yet. Whoever takes a snapshot now, takes one of something that moves. Wait until the kernel says that all "
            f"have stopped"
        )


@check("A thawed group goes on where it was", exercise="freezer.thaw", points=1)
def test_thaw(subject: Subject) -> None:
    """cgroup-v1/freezer-subsystem.rst: THAWED; cgroup-v2.rst: cgroup.freeze 0, and frozen 0 in cgroup.events"""
    container, group = _busy(subject, {}, ["freezer"])
    program, processes = container.program, group.processes("freezer")
    _order(group, frozen=True)
    if not subject.until(lambda: _is_frozen(group)):
        raise Wrong("a group that we have frozen ourselves does not freeze")
    ran = _used(group)
    subject.perform("freezer.thaw", group)
    thawed = not _ordered(group) and subject.until(lambda: not _is_frozen(group), SOON)
    subject.until(lambda: not program.alive or _used(group) - ran > 10_000, SOON if thawed else 0)
    moves = _used(group) - ran > 10_000
    same = group.processes("freezer") == processes and program.alive
    subject.saw(
        f"after thaw(): {_freezer(group)}; {(_used(group) - ran) / 1000:.0f} ms of a processor used since; the same "
        f"processes: {same}"
    )
    if not thawed:
        raise Wrong(
            f"the group is still frozen: {_freezer(group)}. A signal does not wake who is frozen, SIGCONT neither: it is "
            f"the group's file that says so"
        )
    if not same:
        raise Wrong("the processes are not those that were frozen: to thaw is to go on, not to begin again")
    if not moves:
        raise Wrong("the kernel says that the group is thawed, and it does nothing: something else stops its processes")


def _is_frozen(group: ObservedGroup) -> bool:
    if group.version("freezer") == 1:
        return group.read("freezer", "freezer.state") == "FROZEN"
    return group.field("freezer", "frozen", "cgroup.events") == 1


def _freezer(group: ObservedGroup) -> str:
    if group.version("freezer") == 1:
        return f"freezer.state {group.read('freezer', 'freezer.state')}"
    frozen = group.field("freezer", "frozen", "cgroup.events")
    return f"cgroup.freeze {group.read('freezer', 'cgroup.freeze')}, in cgroup.events frozen {frozen}"


def _ordered(group: ObservedGroup) -> bool:
    """Whether the kernel has the order to freeze it."""
    return group.read("freezer", "freezer.state", "cgroup.freeze") in ("FREEZING", "FROZEN", "1")


def _order(group: ObservedGroup, *, frozen: bool) -> None:
    """Freeze or thaw it ourselves."""
    if group.version("freezer") == 1:
        write(f"{group.directory('freezer')}/freezer.state", "FROZEN" if frozen else "THAWED")
    else:
        write(f"{group.directory('freezer')}/cgroup.freeze", int(frozen))


def _must_freeze(subject: Subject, group: ObservedGroup, container: Performed) -> None:
    """Raise Wrong where the group does not come to a stop, however long we wait."""
    if _ordered(group) and subject.until(lambda: _is_frozen(group), SOON):
        return
    program = container.program
    stopped = subject.until(lambda: program.state == "T", AWHILE)
    subject.saw(f"{_freezer(group)}; the program: State {program.state}")
    if stopped:
        raise Wrong(
            f"{_freezer(group)}, and the program is stopped by a signal (State T): SIGSTOP is seen by the parent of whom "
            f"it stops, SIGCONT ends it, and who forks meanwhile escapes. The freezer does without"
        )
    if _ordered(group):
        raise Wrong(f"{_freezer(group)}: the group does not come to a stop")
    raise Wrong(f"{_freezer(group)}: the kernel was not told to freeze this group")


def _rests(group: ObservedGroup) -> bool:
    """Whether the group has not run for a while: for several ticks of the clock by which processor time is counted."""
    used = _used(group)
    select.select([], [], [], 0.03)
    return _used(group) == used


@contextlib.contextmanager
def _let_go_on(group: ObservedGroup) -> Iterator[None]:
    """Give the group its processor back AWHILE after the order to freeze it, and at the end at the latest.

    A child of ours does that, since we are to wait for the submission meanwhile. It does not live longer than the block.
    """
    directory, one = group.directory("cpu"), group.version("cpu") == 1

    def lift() -> None:
        write(f"{directory}/{'cpu.cfs_quota_us' if one else 'cpu.max'}", -1 if one else "max")

    child = os.fork()
    if child == 0:
        try:
            end = time.monotonic() + deadline()
            while not _ordered(group) and time.monotonic() < end:
                select.select([], [], [], 0.0005)
            select.select([], [], [], AWHILE)
            lift()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            lift()
