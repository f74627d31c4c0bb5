"""Step 11, perf_event: what happens in one group, counted by the kernel while it happens.

perf_event_open(2), PERF_FLAG_PID_CGROUP. A controller without a single file of its own: the group is named by a file
descriptor of its directory. On v2 every group is ready for it, on v1 those in the tree of perf_event.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from minicontainer.linux.cgroups import read
from minicontainer.linux.events import (
    PERF_COUNT_HW_CPU_CYCLES,
    PERF_COUNT_HW_INSTRUCTIONS,
    PERF_COUNT_SW_CONTEXT_SWITCHES,
    PERF_COUNT_SW_CPU_CLOCK,
    PERF_COUNT_SW_CPU_MIGRATIONS,
    PERF_COUNT_SW_PAGE_FAULTS,
    PERF_FLAG_PID_CGROUP,
    PERF_TYPE_HARDWARE,
    PERF_TYPE_SOFTWARE,
    perf_event_open,
)
from minicontainer.steps.group import Group, LimitUnavailable

EVENTS = {
    "cpu-clock": (PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK),  # ns
    "context-switches": (PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CONTEXT_SWITCHES),
    "cpu-migrations": (PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_MIGRATIONS),
    "page-faults": (PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS),
    "cycles": (PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES),
    "instructions": (PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS),
}
"""By the names that perf(1) has for them."""


def count_events(group: Group, event: str) -> list[int]:
    """Count an event of EVENTS in the group from now on; returns a file descriptor for each processor.

    The count is the sum of what is read from them (`events_counted`); closing them ends it. Raises LimitUnavailable:
    EACCES (it takes root, or CAP_PERFMON), ENOENT (this machine has no such event).
    """
    _, directory = group["perf_event"]
    counters = list[int]()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for cpu in _online():
            counters.append(perf_event_open(EVENTS[event], fd, cpu, PERF_FLAG_PID_CGROUP))
    except OSError as error:
        for counter in counters:
            os.close(counter)
        hardware = EVENTS[event][0] == PERF_TYPE_HARDWARE
        advice = "this machine's processor counts none for us; cpu-clock is counted by the kernel itself" if hardware \
            else "it takes root, or CAP_PERFMON; see /proc/sys/kernel/perf_event_paranoid"  # fmt: skip
        raise LimitUnavailable(error.errno, f"{event} of {directory}: {error.strerror}; {advice}") from None
    finally:
        os.close(fd)
    return counters


def events_counted(counters: Sequence[int]) -> int:
    """How often it has happened on all processors together, since `count_events`."""
    return sum(int.from_bytes(os.read(counter, 8), "little") for counter in counters)


def _online() -> list[int]:
    """The processors that are switched on: each has a line in /proc/stat."""
    words = [line.split()[0] for line in read("/proc/stat").splitlines() if line.startswith("cpu")]
    return [int(word.removeprefix("cpu")) for word in words if word != "cpu"]
