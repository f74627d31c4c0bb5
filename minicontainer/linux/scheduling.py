"""What a process gets of the machine, when, and how the machine looks to it.

sched_setattr(2), ioprio_set(2), set_mempolicy(2), prlimit(2), personality(2); include/uapi/linux/{sched,ioprio,
mempolicy,resource,personality}.h.
"""

from __future__ import annotations

import ctypes

from minicontainer.linux.syscalls import call

SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_ISO, SCHED_IDLE, SCHED_DEADLINE = range(7)
"""Policies; ISO has a number and no more."""

SCHED_FLAG_RESET_ON_FORK = 0x01
SCHED_FLAG_RECLAIM = 0x02
SCHED_FLAG_DL_OVERRUN = 0x04
SCHED_FLAG_KEEP_POLICY = 0x08
SCHED_FLAG_KEEP_PARAMS = 0x10
SCHED_FLAG_UTIL_CLAMP_MIN = 0x20
SCHED_FLAG_UTIL_CLAMP_MAX = 0x40

IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_NONE, IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE = range(4)
IOPRIO_CLASS_SHIFT = 13

MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED_MANY, MPOL_WEIGHTED_INTERLEAVE = (
    range(7)
)
MPOL_F_NUMA_BALANCING = 1 << 13
MPOL_F_RELATIVE_NODES = 1 << 14
MPOL_F_STATIC_NODES = 1 << 15

RLIMITS = (
    "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
).split()  # in the order of their numbers, on x86_64 and aarch64: RLIMIT_CPU is 0
RLIM_INFINITY = (1 << 64) - 1

PER_LINUX = 0x00
PER_LINUX32 = 0x08
ASK = 0xFFFFFFFF
"""As a persona: change nothing, and say which it is."""


class SchedAttr(ctypes.Structure):
    """``struct sched_attr`` of sched_setattr(2), as since Linux 5.3; times in ns."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
        ("sched_util_min", ctypes.c_uint32),
        ("sched_util_max", ctypes.c_uint32),
    ]


class Rlimit64(ctypes.Structure):
    """``struct rlimit64`` of prlimit(2)."""

    _fields_ = [("rlim_cur", ctypes.c_uint64), ("rlim_max", ctypes.c_uint64)]


def sched_setattr(pid: int, attr: SchedAttr) -> None:
    """Set the scheduling policy of a thread, and what belongs to it; 0 is the caller.

    Raises OSError: EPERM, EINVAL, EBUSY (SCHED_DEADLINE: more than there is time for), EOPNOTSUPP (UTIL_CLAMP).
    """
    attr.size = ctypes.sizeof(attr)
    call("sched_setattr", pid, attr, 0)


def ioprio_set(which: int, who: int, ioprio: int) -> None:
    """Set an I/O priority: class << IOPRIO_CLASS_SHIFT | level. Raises OSError: EPERM (class RT), EINVAL, ESRCH."""
    call("ioprio_set", which, who, ioprio)


def ioprio_get(which: int, who: int) -> int:
    """An I/O priority, as `ioprio_set` takes it."""
    return call("ioprio_get", which, who)


def set_mempolicy(mode: int, nodes: int = 0) -> None:
    """From which NUMA nodes, a bit mask, the calling thread gets memory; `mode` with its flags or-ed.

    Raises OSError: EINVAL (a node that is not there or not ours, a mode with too many or too few), ENOSYS (no NUMA).
    """
    size = (nodes.bit_length() + 63) // 64 * 8  # bytes; the kernel reads whole longs
    mask = ctypes.create_string_buffer(nodes.to_bytes(size, "little"), size) if size else None
    call("set_mempolicy", mode, mask, size * 8 + 1 if size else 0)  # the kernel reads one bit fewer than it is told


def prlimit(pid: int, resource: int, limit: tuple[int, int] | None = None) -> tuple[int, int]:
    """The (soft, hard) limit of a process before it is set to `limit`, if that is given; 0 is the caller.

    Raises OSError: EPERM (raising a hard limit takes CAP_SYS_RESOURCE; another user's process), EINVAL, ESRCH.
    """
    before = Rlimit64()
    call("prlimit64", pid, resource, Rlimit64(*limit) if limit is not None else None, before)
    return before.rlim_cur, before.rlim_max


def personality(persona: int) -> int:
    """Set the execution domain of the caller; returns the one before. Raises OSError: EINVAL (not on this machine)."""
    return call("personality", persona)
