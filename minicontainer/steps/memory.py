"""Step 9, memory: the incompressible resource. There is no "a little later" for a page that is not there.

Documentation/admin-guide/cgroup-v1/memory.rst; cgroup-v2.rst, "Memory". A group at its limit first gives back what can
be read again from files; then, what swap will take; and when that is not enough, the kernel kills one of its processes
(OOM, out of memory). An ancestor's limit binds as well as the group's own: the smaller of them is met first.
"""

from __future__ import annotations

import errno
import os

from minicontainer.linux.cgroups import fields, read, write
from minicontainer.steps.group import Group, LimitUnavailable, control

UNLIMITED = -1


def limit_memory(group: Group, limit: int, total: int | None = None) -> None:
    """Hold the group to `limit` bytes of memory, and to `total` bytes of memory and swap together.

    `total` None is `limit`: no swap at all. UNLIMITED lifts either. Raises LimitUnavailable: EBUSY, when more than that
    is in use, and nothing of it can be given back.
    """
    version, directory = group["memory"]
    total = limit if total is None else total
    for value in (limit, total):
        _refuse_overflow(f"{directory}/{'memory.max' if version == 2 else 'memory.limit_in_bytes'}", value)
    in_use = "the group uses more than that, and cannot give it back: choose a higher limit, or stop something in it"
    if version == 2:
        _give_back(directory, limit, in_use)
        control(f"{directory}/memory.max", "max" if limit == UNLIMITED else limit)
        if os.path.exists(f"{directory}/memory.swap.max"):  # absent where the kernel does not account swap
            control(f"{directory}/memory.swap.max", "max" if total == UNLIMITED else total - limit)
        return
    files = [(f"{directory}/memory.limit_in_bytes", limit), (f"{directory}/memory.memsw.limit_in_bytes", total)]
    if not os.path.exists(files[1][0]):
        del files[1]
    elif limit == UNLIMITED or limit > int(read(files[1][0])):
        files.reverse()  # at no moment may the limit of both together be the smaller one: on the way up it goes first
    before = read(files[0][0])
    control(*files[0], in_use)
    try:
        for file, value in files[1:]:
            control(file, value, in_use)
    except LimitUnavailable:
        write(files[0][0], before)  # with swap, the one can be kept where both together cannot
        raise


def protect_memory(
    group: Group,
    reservation: int | None = None,
    low: int | None = None,
    minimum: int | None = None,
    high: int | None = None,
) -> None:
    """Say from whom the kernel takes pages when they run short, in bytes; None leaves a value as it is.

    `reservation`: what the group is pushed back to when the host is short of memory (v1: memory.soft_limit_in_bytes;
    v2 has it the other way round, as `low`). Only v2 has the others. `low`: below it, pages are taken elsewhere first.
    `minimum`: below it, they are never taken. `high`: above it, the group is slowed down and made to give back, and is
    not killed. Raises LimitUnavailable.
    """
    version, directory = group["memory"]
    if version == 2:
        wanted = {"memory.low": reservation if low is None else low, "memory.min": minimum, "memory.high": high}
    else:
        for name, value in (("low", low), ("min", minimum), ("high", high)):
            if value is not None:
                raise LimitUnavailable(
                    errno.ENODEV, f"memory.{name} exists on cgroup v2 only, and {directory} is v1; there is "
                    f"--memory-reservation"
                )  # fmt: skip
        wanted = {"memory.soft_limit_in_bytes": reservation}
    for file, value in wanted.items():
        if value is not None:
            _refuse_overflow(f"{directory}/{file}", value)
            control(f"{directory}/{file}", "max" if version == 2 and value == UNLIMITED else value)


def disable_oom_killer(group: Group) -> None:
    """Let processes at the limit wait for memory instead of being killed. Only v1 has that; they may wait for ever."""
    version, directory = group["memory"]
    if version == 2:
        raise LimitUnavailable(errno.ENODEV, "cgroup v2 cannot switch the OOM killer off; there is --memory-high")
    control(f"{directory}/memory.oom_control", 1)


def count_oom_kills(group: Group) -> int:
    """How many processes of the group the kernel has killed for want of memory."""
    version, directory = group["memory"]
    return fields(f"{directory}/{'memory.events' if version == 2 else 'memory.oom_control'}").get("oom_kill", 0)


def _refuse_overflow(file: str, value: int) -> None:
    """The kernel reads 64 bits, and takes what is above for what is left of it: 2**70 is 0."""
    if value >= 1 << 63:
        raise LimitUnavailable(
            errno.EINVAL, f'write({file}, "{value}"): EINVAL (not tried); it is no number of 63 bits'
        )


def _give_back(directory: str, limit: int, in_use: str) -> None:
    """Do what v1 does by itself: v2 takes a limit below what is in use at its word, and kills until it is kept.

    memory.reclaim (Linux 5.19) takes pages back without killing anybody; EAGAIN says that there were not enough.
    """
    excess = int(read(f"{directory}/memory.current")) - limit
    if limit == UNLIMITED or excess <= 0:
        return
    try:
        write(f"{directory}/memory.reclaim", excess)
    except OSError:
        if int(read(f"{directory}/memory.current")) > limit:
            raise LimitUnavailable(
                errno.EBUSY, f'write({directory}/memory.max, "{limit}"): EBUSY (not tried); {in_use}'
            ) from None
