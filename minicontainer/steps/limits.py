"""Control groups: how much memory, how many processors and how many processes a container may use.

cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ in the kernel's tree. A group is a directory: mkdir
makes it, writing a pid into its ``cgroup.procs`` moves a process there, a limit is a file. All our groups lie below
one of ours, ``minicontainer``, in each tree; the host's own groups are never touched.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Sequence

from minicontainer.linux.cgroups import Hierarchy, hierarchies, hierarchy_of
from minicontainer.record import Record

PARENT = "minicontainer"
PERIOD = 100_000  # µs: the window in which cpu.max and cpu.cfs_quota_us are counted


class Limits(Record):
    """What to hold a container to; None leaves a resource alone."""

    memory: int | None = None
    """Bytes, swap included: over it, the kernel kills (OOM)."""
    cpus: float | None = None
    """How many processors' time: 0.5 is half of one. Over it, the group waits."""
    pids: int | None = None
    """Processes and threads: beyond it, fork(2) fails with EAGAIN."""

    def files(self) -> dict[str, dict[str, dict[int, str]]]:
        """controller → file → {cgroup version: value}, in the order in which the files are to be written."""
        wanted: dict[str, dict[str, dict[int, str]]] = {}
        if self.memory is not None:
            wanted["memory"] = {
                "memory.limit_in_bytes": {1: str(self.memory)},
                "memory.memsw.limit_in_bytes": {1: str(self.memory)},
                "memory.max": {2: str(self.memory)},
                "memory.swap.max": {2: "0"},
            }
        if self.cpus is not None:
            quota = str(int(self.cpus * PERIOD))
            wanted["cpu"] = {
                "cpu.cfs_period_us": {1: str(PERIOD)},
                "cpu.cfs_quota_us": {1: quota},
                "cpu.max": {2: f"{quota} {PERIOD}"},
            }
        if self.pids is not None:
            wanted["pids"] = {"pids.max": {1: str(self.pids), 2: str(self.pids)}}
        return wanted


class LimitUnavailable(OSError):
    """A limit that cannot be set here; the text says which, and why."""


def create_group(name: str, limits: Limits) -> list[str]:
    """Make the control group `name`, limited, in each tree that it takes, and return its directories.

    Raises LimitUnavailable; nothing is left behind then.
    """
    trees, made = hierarchies(), list[str]()
    try:
        for controller, files in limits.files().items():
            hierarchy = hierarchy_of(controller, trees)
            if hierarchy is None:
                raise LimitUnavailable(f"no mounted cgroup tree has the {controller} controller (see /proc/cgroups)")
            directory = _make(hierarchy, controller, name)
            if directory not in made:
                made.append(directory)
            for file, values in files.items():
                if hierarchy.version in values:
                    _write(f"{directory}/{file}", values[hierarchy.version])
    except BaseException:
        remove_group(made)
        raise
    return made


def enter_group(directories: Sequence[str], pid: int) -> None:
    """Put the process `pid`, and with it every process that it starts from now on, into the group."""
    for directory in directories:
        _write(f"{directory}/cgroup.procs", str(pid))


def remove_group(directories: Sequence[str]) -> None:
    """Kill what is still in the group, and remove it. Groups that are gone already are no error.

    A process leaves its group some moments after its death was seen by its parent; rmdir(2) says EBUSY until then.
    """
    for directory in directories:
        deadline = time.monotonic() + 10  # s; a process in uninterruptible sleep cannot be killed, only waited for
        while True:
            with contextlib.suppress(FileNotFoundError):
                try:
                    os.rmdir(directory)
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    for pidfd in _kill(directory):
                        select.select([pidfd], [], [], 1)
                        os.close(pidfd)
                    with os.scandir(directory) as entries:  # groups that were made inside
                        remove_group([entry.path for entry in entries if entry.is_dir()])
                    continue
            break
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(directory))  # ours too, and not needed when it is empty; EBUSY: it is not


def remove_empty_parents() -> None:
    """Remove what `remove_group` would have, where somebody was killed before there was a group to remove."""
    for hierarchy in hierarchies():
        with contextlib.suppress(OSError):
            os.rmdir(f"{hierarchy.mountpoint}/{PARENT}")


def groups_named(name: str) -> list[str]:
    """The directories of the group `name` that are there: for whoever did not make it, or does not know any more."""
    places = (f"{hierarchy.mountpoint}/{PARENT}/{name}" for hierarchy in hierarchies())
    return [place for place in places if os.path.isdir(place)]


def _make(hierarchy: Hierarchy, controller: str, name: str) -> str:
    parent = f"{hierarchy.mountpoint}/{PARENT}"
    try:
        if hierarchy.version == 2:
            _write(f"{hierarchy.mountpoint}/cgroup.subtree_control", f"+{controller}")
        while True:
            _ensure(parent)
            with contextlib.suppress(FileNotFoundError):  # somebody has just removed the last group, and the parent
                if hierarchy.version == 2:
                    _write(f"{parent}/cgroup.subtree_control", f"+{controller}")
                _ensure(f"{parent}/{name}")
                break
    except OSError as error:
        if isinstance(error, LimitUnavailable):
            raise
        raise LimitUnavailable(error.errno, f"mkdir({parent}/{name}): {error.strerror}") from None
    return f"{parent}/{name}"


def _ensure(directory: str) -> None:
    """mkdir(2), where it is not there. Not os.makedirs, which looks again after EEXIST, and may find it gone."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory)


def _kill(directory: str) -> list[int]:
    """SIGKILL to everything in the group; returns pidfds, which become readable as the processes end."""
    pidfds = []
    with open(f"{directory}/cgroup.procs") as procs:
        for pid in map(int, procs.read().split()):
            with contextlib.suppress(ProcessLookupError):
                pidfds.append(os.pidfd_open(pid))
                signal.pidfd_send_signal(pidfds[-1], signal.SIGKILL)
    return pidfds


def _write(file: str, value: str) -> None:
    try:
        with open(file, "w") as target:
            target.write(value)
    except FileNotFoundError:
        if not file.endswith((".memsw.limit_in_bytes", ".swap.max")):  # absent where the kernel does not account swap
            raise LimitUnavailable(2, f"{file} is not there: this kernel does not have that limit") from None
    except OSError as error:
        raise LimitUnavailable(error.errno, f'write({file}, "{value}"): {error.strerror}') from None
