"""What a process gets of the machine beside its control group, and how the machine looks to it.

OCI runtime specification, config.md, "rlimits", "oomScoreAdj", "scheduler", "ioPriority", "execCPUAffinity", and
config-linux.md, "Memory policy", "Personality", by whose names things are called here. Each is of the calling thread,
and whatever it starts inherits it; what is done here to process 1 before it starts anything, the container has.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from minicontainer.linux import scheduling
from minicontainer.linux.procfs import open_proc, write_in_proc
from minicontainer.linux.scheduling import (
    IOPRIO_CLASS_SHIFT,
    IOPRIO_WHO_PROCESS,
    PER_LINUX,
    PER_LINUX32,
    RLIM_INFINITY,
    RLIMITS,
    SchedAttr,
    ioprio_set,
    personality,
    prlimit,
    sched_setattr,
    set_mempolicy,
)

MOST_PROCESSORS = 8192
"""No kernel is built for more."""
MOST_NODES = 1024


def set_rlimits(limits: Sequence[tuple[str, int, int]], pid: int = 0) -> None:
    """Set resource limits of a process, 0 is the caller: (``RLIMIT_NOFILE``…, soft, hard); 2**64 - 1 is no limit.

    getrlimit(2). Raises ValueError (no such resource, a soft limit above the hard one), OSError: EPERM (raising a hard
    limit takes CAP_SYS_RESOURCE in the *first* user namespace, and RLIMIT_NOFILE ends at fs.nr_open even so).
    """
    for name, soft, hard in limits:
        bare = name.removeprefix("RLIMIT_")
        if bare not in RLIMITS:
            raise ValueError(f"{name} is no resource; setrlimit(2) has RLIMIT_{', RLIMIT_'.join(RLIMITS)}")
        if soft > hard:
            raise ValueError(f"{name}: the soft limit, {_limit(soft)}, is above the hard one, {_limit(hard)}")
        number = RLIMITS.index(bare)
        try:
            prlimit(pid, number, (soft, hard))
        except PermissionError as error:
            _, ceiling = prlimit(pid, number)
            text = f"{name} cannot be {_limit(soft)}, {_limit(hard)}: the hard limit in force is {_limit(ceiling)}"
            raise PermissionError(error.errno, f"{text}, and raising it takes CAP_SYS_RESOURCE") from None


def set_oom_score(score: int, pid: int | None = None, proc: str | int = "/proc") -> None:
    """How likely the kernel is to kill this process when memory runs out: -1000 (never) to 1000 (first); None is self.

    proc_pid_oom_score_adj(5). `pid` is a number of the PID namespace that `proc` shows. Raises OSError: EACCES (going
    below what it was takes CAP_SYS_RESOURCE), EINVAL (out of range), EPERM (`proc` is no proc file system).
    """
    root = open_proc(proc)
    try:
        write_in_proc(root, f"{pid or 'self'}/oom_score_adj", str(score))
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise
        raise PermissionError(error.errno, f"{error.strerror}; going lower takes CAP_SYS_RESOURCE") from None
    finally:
        os.close(root)


def schedule(
    policy: str,
    nice: int = 0,
    priority: int = 0,
    flags: Sequence[str] = (),
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
) -> None:
    """Choose the scheduling policy of the calling thread: ``SCHED_OTHER``, ``SCHED_FIFO``…; sched(7).

    `nice` is for SCHED_OTHER and SCHED_BATCH, -20 (first) to 19; `priority` for SCHED_FIFO and SCHED_RR, 1 to 99
    (first); `runtime` in every `period` and before `deadline`, in ns, for SCHED_DEADLINE. `flags` are named
    ``SCHED_FLAG_RESET_ON_FORK``… A thread of SCHED_DEADLINE without that one cannot fork(2): EAGAIN.

    Raises ValueError (no such policy or flag), OSError: EPERM, EINVAL (values that this policy does not take), EBUSY.
    """
    number = _named("SCHED_", policy, "policy")
    bits = sum({_named("SCHED_FLAG_", flag, "flag") for flag in flags})
    attr = SchedAttr(
        sched_policy=number,
        sched_flags=bits,
        sched_nice=nice,
        sched_priority=priority,
        sched_runtime=runtime,
        sched_deadline=deadline,
        sched_period=period,
    )
    try:
        sched_setattr(0, attr)
    except OSError as error:
        why = {
            errno.EPERM: "it takes CAP_SYS_NICE, and a control group with time for it (v1: cpu.rt_runtime_us)",
            errno.EBUSY: "there is not that much time left on these processors",
            errno.EINVAL: "these values do not go with this policy",
        }.get(error.errno or 0, "")
        text = f"{policy}, nice {nice}, priority {priority}: {error.strerror}"
        raise OSError(error.errno, f"{text}; {why}" if why else text) from None


def set_io_priority(kind: str, priority: int) -> None:
    """The class and level, 0 (first) to 7, of the calling thread's I/O: ``IOPRIO_CLASS_RT``, ``_BE`` or ``_IDLE``.

    ioprio_set(2). Heard by the schedulers bfq and mq-deadline. Raises ValueError, OSError: EPERM (class RT takes
    CAP_SYS_NICE or CAP_SYS_ADMIN).
    """
    if not 0 <= priority <= 7:
        raise ValueError(f"the I/O priority {priority} is not from 0 to 7")
    ioprio_set(IOPRIO_WHO_PROCESS, 0, _named("IOPRIO_CLASS_", kind, "I/O class") << IOPRIO_CLASS_SHIFT | priority)


def set_memory_policy(mode: str, nodes: str = "", flags: Sequence[str] = ()) -> None:
    """From which NUMA nodes, a list such as ``0-2,7``, the calling thread gets memory: ``MPOL_BIND``…; numa(7).

    Raises ValueError (no such mode or flag, no list), OSError: EINVAL (a node that is not there; a mode that takes
    none, or some), ENOSYS (a kernel without NUMA).
    """
    number = _named("MPOL_", mode, "memory policy") | sum({_named("MPOL_F_", flag, "flag") for flag in flags})
    mask = sum(1 << node for node in _numbers(nodes, MOST_NODES)) if nodes else 0
    try:
        set_mempolicy(number, mask)
    except OSError as error:
        raise OSError(error.errno, f'{mode} of the nodes "{nodes}": {error.strerror}') from None


def set_affinity(cpus: str, pid: int = 0) -> None:
    """The processors that a process may use, a list such as ``0-2,7``; 0 is the caller. sched_setaffinity(2).

    The kernel takes those of them that there are, and that the process's cpuset allows. Raises ValueError (no list),
    OSError: EINVAL (none of them is), EPERM (another user's process), ESRCH.
    """
    wanted = _numbers(cpus, MOST_PROCESSORS)
    try:
        os.sched_setaffinity(pid, wanted)
    except OSError as error:
        text = f'the processors "{cpus}": {error.strerror}'
        if error.errno == errno.EINVAL:
            text += f"; there are {', '.join(map(str, sorted(os.sched_getaffinity(pid))))}"
        raise OSError(error.errno, text) from None


def set_personality(domain: str, flags: Sequence[str] = ()) -> None:
    """What uname(2) calls the machine: ``LINUX``, or ``LINUX32`` for what a 32-bit program expects, such as i686.

    personality(2). The specification knows no flags yet; some of the kernel's, ADDR_NO_RANDOMIZE above all, would undo
    a protection. Raises ValueError, OSError: EINVAL (this machine cannot run 32-bit programs).
    """
    domains = {"LINUX": PER_LINUX, "LINUX32": PER_LINUX32}
    if domain not in domains:
        raise ValueError(f'"{domain}" is no execution domain; choose among {", ".join(domains)}')
    if flags:
        raise ValueError(f"there are no flags of a personality, such as {', '.join(flags)}, in the specification")
    personality(domains[domain])


def _named(prefix: str, name: str, what: str) -> int:
    """The number of a constant by its name, one that begins with `prefix`."""
    number = getattr(scheduling, name, None) if name.startswith(prefix) else None
    if not isinstance(number, int):
        raise ValueError(f'"{name}" is no {what} that is known here; write it as {prefix}…')
    return number


def _numbers(text: str, most: int) -> set[int]:
    """The numbers of a list such as ``0-2,7``, each below `most`."""
    numbers = set[int]()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        for numeral in (first, last) if dash else (first,):
            if not (numeral.isascii() and numeral.isdecimal()) or len(numeral) > 5 or int(numeral) >= most:
                raise ValueError(f'cannot understand "{text}": write numbers below {most}, such as 0 or 0-2,7')
        numbers |= {*range(int(first), int(last or first) + 1)}
    if not numbers:
        raise ValueError(f'the list "{text}" is empty')
    return numbers


def _limit(value: int) -> str:
    return "unlimited" if value >= RLIM_INFINITY else str(value)
