"""What a process of the sandbox is shown of the host by its cgroup and its time namespace, read from within them.

A child of the examiner goes there to read: what `/proc/PID/cgroup` says depends on who reads it, and so do clocks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labs.grading.observed import Observed
from labs.grading.observed_network import visiting
from minicontainer.linux import CLONE_NEWCGROUP, CLONE_NEWTIME, CLONE_NEWUSER, setns

CLOCKS = {"monotonic": time.CLOCK_MONOTONIC, "boottime": time.CLOCK_BOOTTIME, "realtime": time.CLOCK_REALTIME}


def group_paths(process: Observed) -> dict[str, str]:
    """Its control group in every tree, by the tree's controllers ("" is v2's), as it would read that itself."""

    def look() -> list[str]:
        with open(f"/proc/{process.pid}/cgroup") as file:
            return file.read().splitlines()

    lines = [line.split(":", 2) for line in _inside(process, CLONE_NEWCGROUP, look)]
    return {controllers: path for _, controllers, path in lines}


@dataclass(frozen=True)
class Reading:
    """A clock, in nanoseconds, in the namespace of a process; and out here, before and after that."""

    before: int
    inside: int
    after: int

    def is_ahead_by(self, nanoseconds: int) -> bool:
        """Whether the clock inside is so much ahead of ours: whatever time goes by meanwhile, this is exact."""
        return self.before <= self.inside - nanoseconds <= self.after


def clocks(process: Observed) -> dict[str, Reading]:
    """The clocks of the time namespace that a process is in itself, beside our own."""

    def look() -> list[int]:
        return [time.clock_gettime_ns(clock) for clock in CLOCKS.values()]

    before = look()
    inside = _inside(process, CLONE_NEWTIME, look)
    after = look()
    return {name: Reading(*three) for name, *three in zip(CLOCKS, before, inside, after, strict=True)}


def clock_offsets(process: Observed) -> dict[str, tuple[int, int]]:
    """Seconds and nanoseconds by which the kernel moves the clocks of its children: /proc/PID/timens_offsets."""
    with open(f"/proc/{process.pid}/timens_offsets") as file:
        fields = [line.split() for line in file]
    return {name: (int(seconds), int(nanoseconds)) for name, seconds, nanoseconds in fields}


def _inside(process: Observed, kind: int, look: Any) -> Any:
    def act(_: object) -> Sequence[Any]:
        setns(process.pidfd, kind | (0 if os.geteuid() == 0 else CLONE_NEWUSER))
        told: Sequence[Any] = look()
        return told

    return visiting(act)
