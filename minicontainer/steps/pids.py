"""Step 11, the pids controller: how many processes and threads there may be.

Documentation/admin-guide/cgroup-v1/pids.rst; cgroup-v2.rst, "PID". Process numbers are a resource of the whole machine
that a few lines of shell use up: the fork bomb.
"""

from __future__ import annotations

from minicontainer.steps.group import Group, control


def limit_pids(group: Group, most: int) -> None:
    """Let the group have at most so many processes and threads: beyond it fork(2) fails with EAGAIN. -1 lifts it.

    It binds births only: moving a process in may go over it. Raises LimitUnavailable: EINVAL (negative, or too many).
    """
    _, directory = group["pids"]
    control(f"{directory}/pids.max", "max" if most == -1 else most, "give it a number of processes, or -1 for no limit")
