"""Step 10, processors: the compressible resource. Whoever gets less of it is slower, and nothing dies.

Documentation/scheduler/sched-bwc.rst; cgroup-v1/cpusets.rst; cgroup-v2.rst, "CPU" and "Cpuset". Three ways to divide
it: by *shares*, which count only while others want the same processor; by a *quota*, which counts always; and by
*pinning*, which says on which processors at all.
"""

from __future__ import annotations

import contextlib
import errno
import os

from minicontainer.linux.cgroups import read
from minicontainer.steps.group import Group, LimitUnavailable, control

PERIOD = 100_000
"""µs in which a quota is counted, unless somebody says otherwise: 100 ms, the kernel's own default."""


def share_cpu(group: Group, shares: int) -> None:
    """Let the group have processor time in proportion to its `shares`; 1024 is what everybody has.

    It binds only between groups that compete for a processor: alone, a group has it all. v2 counts in weights of
    which everybody has 100, and the kernel takes a weight of 100 for 1024 shares, in proportion: so do we.
    Raises LimitUnavailable: EINVAL (fewer than 2 or more than 262144).
    """
    version, directory = group["cpu"]
    if not 2 <= shares <= 262_144:
        raise LimitUnavailable(errno.EINVAL, f"it cannot have {shares} CPU shares: give it 2 to 262144")
    if version == 2:
        control(f"{directory}/cpu.weight", min(max(round(shares * 100 / 1024), 1), 10_000))
    else:
        control(f"{directory}/cpu.shares", shares)


def throttle(group: Group, quota: int, period: int = PERIOD, burst: int = 0) -> None:
    """Give the group `quota` µs of processor time in every `period` µs; over it, it waits for the next period.

    50,000 of 100,000 are half a processor, 200,000 are two. Of a quota that was not used up, `burst` µs may be saved
    for later periods (Linux 5.14). `quota` -1 lifts it. Raises LimitUnavailable: EINVAL (a quota below 1 ms, a period
    over 1 s, a burst over the quota; on v1, more than the group above has).
    """
    version, directory = group["cpu"]
    ranges = "a quota is at least 1000 µs, a period 1000 to 1000000 µs, a burst at most the quota"
    bursting = "cpu.max.burst" if version == 2 else "cpu.cfs_burst_us"
    if burst or os.path.exists(f"{directory}/{bursting}"):
        control(f"{directory}/{bursting}", 0)  # a quota below a burst of before would be refused
    if version == 2:
        control(f"{directory}/cpu.max", f"{'max' if quota < 0 else quota} {period}", ranges)
    else:
        ranges += "; and v1 gives no group more than the one above it has"
        control(f"{directory}/cpu.cfs_quota_us", -1)  # old quota with new period would be a third limit, and refused
        control(f"{directory}/cpu.cfs_period_us", period, ranges)
        control(f"{directory}/cpu.cfs_quota_us", quota, ranges)
    if burst:
        control(f"{directory}/{bursting}", burst, ranges)


def yield_cpu(group: Group, idle: bool = True) -> None:
    """Let the group have only the processor time that nobody else wants: SCHED_IDLE for a whole group (Linux 5.15)."""
    _, directory = group["cpu"]
    if idle and os.path.exists(f"{directory}/cpu.idle") and read(f"{directory}/cpu.idle") == "0":
        share_cpu(group, 1024)  # the kernel forgets them in any case
    control(f"{directory}/cpu.idle", int(idle))


def pin(group: Group, cpus: str | None = None, memory_nodes: str | None = None) -> None:
    """Let the group run on these processors only, and take memory of these NUMA nodes only: lists such as ``0-2,7``.

    What every process in it may use is cut down at once: sched_getaffinity(2). Raises LimitUnavailable: EINVAL, ERANGE,
    EACCES (what the group above does not have).
    """
    version, directory = group["cpuset"]
    for file, value, effective, what in (
        ("cpuset.cpus", cpus, "cpuset.cpus.effective" if version == 2 else "cpuset.effective_cpus", "processors"),
        ("cpuset.mems", memory_nodes, "cpuset.mems.effective" if version == 2 else "cpuset.effective_mems", "nodes"),
    ):
        if value is not None:
            there = ""
            with contextlib.suppress(OSError):
                there = read(f"{os.path.dirname(directory)}/{effective}")
            advice = f"choose among the {what} {there}"
            if there and not _listed(value) <= _listed(there):
                # v2 takes any list, and goes on with what there is of it: not what was asked for.
                raise LimitUnavailable(errno.EINVAL, f'{directory}/{file} cannot be "{value}"; {advice}')
            control(f"{directory}/{file}", value, advice)


def _listed(text: str) -> set[int]:
    """The numbers of a list such as ``0-2,7``. Raises LimitUnavailable."""
    numbers = set[int]()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numerals = (first, last) if dash else (first,)
        if not all(numeral.isascii() and numeral.isdecimal() and len(numeral) < 6 for numeral in numerals):
            raise LimitUnavailable(errno.EINVAL, f'cannot understand "{text}": write numbers, such as 0 or 0-2,7')
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers
