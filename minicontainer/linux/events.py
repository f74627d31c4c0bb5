"""Counting what the kernel and the processor do: perf_event_open(2), include/uapi/linux/perf_event.h."""

from __future__ import annotations

import ctypes

from minicontainer.linux.syscalls import call

PERF_TYPE_HARDWARE = 0
PERF_TYPE_SOFTWARE = 1
PERF_COUNT_HW_CPU_CYCLES = 0
PERF_COUNT_HW_INSTRUCTIONS = 1
PERF_COUNT_SW_CPU_CLOCK = 0
PERF_COUNT_SW_TASK_CLOCK = 1
PERF_COUNT_SW_PAGE_FAULTS = 2
PERF_COUNT_SW_CONTEXT_SWITCHES = 3
PERF_COUNT_SW_CPU_MIGRATIONS = 4

PERF_FLAG_PID_CGROUP = 1 << 2
PERF_FLAG_FD_CLOEXEC = 1 << 3


class PerfEventAttr(ctypes.Structure):
    """``struct perf_event_attr``, as long as it was in Linux 2.6.32 (PERF_ATTR_SIZE_VER0): the rest is for sampling."""

    _fields_ = [
        ("type", ctypes.c_uint32), ("size", ctypes.c_uint32), ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64), ("sample_type", ctypes.c_uint64), ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64), ("wakeup_events", ctypes.c_uint32), ("bp_type", ctypes.c_uint32),
        ("bp_addr", ctypes.c_uint64),
    ]  # fmt: skip


def perf_event_open(event: tuple[int, int], pid: int, cpu: int, flags: int = 0, group_fd: int = -1) -> int:
    """A file descriptor that counts an event, (type, config), from now on; read(2) gives the count, 64 bits.

    With PERF_FLAG_PID_CGROUP, `pid` is a file descriptor of a group's directory, and `cpu` one processor: of a whole
    group, events are counted on each processor apart.

    Raises OSError: EACCES (needs CAP_PERFMON, or a low /proc/sys/kernel/perf_event_paranoid), ENOENT and EOPNOTSUPP (no
    such event on this machine: virtual ones often have no hardware events), EINVAL.
    """
    attributes = PerfEventAttr(type=event[0], size=ctypes.sizeof(PerfEventAttr), config=event[1])
    return call("perf_event_open", attributes, pid, cpu, group_fd, flags | PERF_FLAG_FD_CLOEXEC)
