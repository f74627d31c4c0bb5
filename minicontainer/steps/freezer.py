"""Step 10, the freezer: a group that stops where it is, without a signal that its processes could see or refuse.

Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst; cgroup-v2.rst, "cgroup.freeze". Freezing is not done when the
write(2) returns: every process must first come to a place where it can stop.
"""

from __future__ import annotations

import errno
import os
import select
import time

from minicontainer.linux.cgroups import fields, read
from minicontainer.steps.group import Group, LimitUnavailable, control

PATIENCE = 10
"""Seconds in which everything in a group must have stopped."""


def freeze(group: Group) -> None:
    """Stop every process of the group, and return when all have stopped.

    Raises LimitUnavailable: a process in uninterruptible sleep has not stopped in time; the group is thawed again.
    """
    version, directory = group["freezer"]
    if version == 2:
        control(f"{directory}/cgroup.freeze", 1)
    else:
        control(f"{directory}/freezer.state", "FROZEN")
    try:
        _wait(version, directory, frozen=True)
    except BaseException:
        thaw(group)
        raise


def thaw(group: Group) -> None:
    """Let the group go on where it was."""
    version, directory = group["freezer"]
    if version == 2:
        control(f"{directory}/cgroup.freeze", 0)
    else:
        control(f"{directory}/freezer.state", "THAWED")
    _wait(version, directory, frozen=False)


def is_frozen(group: Group) -> bool:
    """Whether the whole group stands still. One that has been removed since it was found does not."""
    version, directory = group["freezer"]
    try:
        if version == 2:
            return fields(f"{directory}/cgroup.events")["frozen"] == 1
        return read(f"{directory}/freezer.state") == "FROZEN"
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):  # not there; opened, and gone before it was read
            return False
        raise


def _wait(version: int, directory: str, frozen: bool) -> None:
    """v2 tells (poll(2) on cgroup.events); v1 has FREEZING in between, and no way to be told: we look again."""
    deadline = time.monotonic() + PATIENCE
    if version == 2:
        events = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while b"frozen %d" % frozen not in os.pread(events, 4096, 0):
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000) and time.monotonic() >= deadline:
                    raise _not_in_time(directory, frozen)
        finally:
            os.close(events)
        return
    pause = 0.0002  # s
    while (read(f"{directory}/freezer.state") == "FROZEN") != frozen:
        if time.monotonic() >= deadline:
            raise _not_in_time(directory, frozen)
        select.select([], [], [], pause)
        pause = min(2 * pause, 0.02)


def _not_in_time(directory: str, frozen: bool) -> LimitUnavailable:
    what = "frozen" if frozen else "thawed"
    return LimitUnavailable(
        errno.ETIMEDOUT, f"{directory} was not {what} within {PATIENCE} s: a process in it waits for a device (state D "
        f"in ps), or the group above it is frozen"
    )  # fmt: skip
