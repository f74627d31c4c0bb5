"""Resources of containers that exist: limits that change while they run, what they use, the tree of their groups."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config
from minicontainer.linux.cgroups import BUILT_IN, SUCCESSOR, read
from minicontainer.record import Record
from minicontainer.runtime import limits
from minicontainer.runtime.limits import Limits
from minicontainer.steps import Steps
from minicontainer.steps.group import Group, LimitUnavailable, all_or_nothing, find_groups, list_groups
from minicontainer.steps.usage import Usage, limits_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEAST_MEMORY = 6 << 20
"""Bytes in which a container can start: its process 1 is a Python."""

MOST_MEMORY = 1 << 60
"""Bytes; the kernel takes what is near to 2**63 for no limit."""

_KEYED = {"io_rates": 2, "huge_pages": 1, "rdma": 1, "misc": 1, "net_priorities": 1, "unified": 1, "files": 3}
"""Limits with an entry for each device, or the like; so many words at its beginning say of which."""


class Statistics(Record):
    """What one container uses, at one moment."""

    id: str
    name: str
    usage: Usage
    cpu_percent: float | None = None
    """Of one processor: 100 is one whole processor, since the container was started or since the look before."""
    memory_percent: float | None = None
    """Of its limit; without one, of the host's memory."""
    frozen: bool = False
    received: int | None = None
    """Bytes that came in over its networks since it was started; None where there are none whose host we are."""
    sent: int | None = None


class Node(Record):
    """A control group of ours, in the tree of all of them."""

    name: str
    """Path below our own parent group."""
    container: str
    """The name of the container whose it is, if it is one's."""
    directories: Sequence[str]
    limits: Mapping[str, str]
    """File → value, of the limits that are set."""
    usage: Usage


def check(wanted: Limits) -> None:
    """Refuse what no kernel would take, in words of the command line. Raises EngineError."""
    if wanted.cpus is not None and not 0.01 <= wanted.cpus <= 10_000:  # below 1 ms of every 100 is not counted
        raise EngineError(f"it cannot have {wanted.cpus} processors: give a number of at least 0.01, such as 0.5")
    if wanted.cpu_idle and wanted.cpu_shares is not None:
        raise EngineError("--cpu-idle is to have what nobody else wants, and no share: leave out --cpu-shares")
    there = os.sysconf("SC_NPROCESSORS_ONLN")
    if wanted.cpus is not None and wanted.cpus > there:
        raise EngineError(f"it cannot have {wanted.cpus:g} processors: this host has {there}")
    if wanted.cpus is not None and wanted.cpu_quota is not None:
        raise EngineError("--cpus and --cpu-quota are two words for one limit: give one of them")
    if wanted.cpu_quota is not None and wanted.cpu_quota < -1:  # v1 would take it for -1
        raise EngineError(f"it cannot have {wanted.cpu_quota} µs of processor time: -1 is no limit")
    if wanted.cpu_period is not None and not 1000 <= wanted.cpu_period <= 1_000_000:
        raise EngineError(f"a period of {wanted.cpu_period} µs cannot be: give it 1000 to 1000000, 1 ms to 1 s")
    if wanted.cpu_burst is not None and wanted.cpu_burst < 0:
        raise EngineError(f"it cannot save {wanted.cpu_burst} µs of its quota: give it 0 or more")
    if wanted.cpu_burst and wanted.cpus is None and wanted.cpu_quota in (None, -1):
        raise EngineError("--cpu-burst saves what is left of a quota: give --cpus or --cpu-quota too")
    for name in ("memory", "memory_swap", "memory_reservation", "memory_low", "memory_min", "memory_high"):
        if (getattr(wanted, name) or 0) > MOST_MEMORY:  # the kernel would count from 0 again, at 2**64
            raise EngineError(f"--{name.replace('_', '-')} {getattr(wanted, name)} is more than any machine has")
    if wanted.memory is not None and wanted.memory != -1 and wanted.memory < LEAST_MEMORY:
        raise EngineError(f"{wanted.memory} bytes of memory are too few to start in: give it at least 6m")
    if wanted.memory_swap is not None and wanted.memory_swap != -1:
        if wanted.memory is None:
            raise EngineError("--memory-swap is memory and swap together: give --memory too")
        if wanted.memory_swap < wanted.memory or wanted.memory == -1:
            raise EngineError("--memory-swap is memory and swap together: it cannot be less than --memory")
    if wanted.pids is not None and wanted.pids != -1 and wanted.pids < 2:
        raise EngineError(f"it cannot have {wanted.pids} processes: process 1 and the command are 2")


def laid_over(before: Limits, changes: Limits) -> Limits:
    """`before`, with what `changes` says in the place of what it said."""
    said = {name: value for name, value in changes.asdict().items() if value != getattr(Limits, name)}
    for one, other in (("cpus", "cpu_quota"), ("cpu_quota", "cpus"), ("cpu_idle", "cpu_shares")):
        if one in said:
            said.setdefault(other, None)  # one thing in two ways: the later word counts
    if "cpu_shares" in said:
        said.setdefault("cpu_idle", None if before.cpu_idle is None else False)
    if "memory" in said:
        said.setdefault("memory_swap", None)
    for name in _KEYED.keys() & said.keys():
        said[name] = _entries(name, before, changes)
    return before.replace(**said)


def change(group: Group, after: Limits, steps: Steps) -> None:
    """Set the limits of a running container to `after`; all, or none. Raises OSError.

    Devices stay: on v1 they could only be changed by refusing all of them for a moment.
    """
    for controller in after.needed():
        if not _is_under(group, controller):
            raise LimitUnavailable(
                errno.ENODEV, f"it was started without the {controller} controller, and cannot be put under it while "
                f"it runs: let it end, and update it for its next start"
            )  # fmt: skip
    with all_or_nothing():
        limits.apply(after.replace(devices=None), group, steps)


def _entries(name: str, before: Limits, changes: Limits) -> tuple[Any, ...]:
    """The entries of both; of the same device, that of `changes`."""
    both = (*getattr(before, name), *getattr(changes, name))
    return tuple({entry[: _KEYED[name]]: tuple(entry) for entry in both}.values())


def _is_under(group: Group, controller: str) -> bool:
    """Whether the group has this controller; in a v2 tree, some have it and others have not."""
    version, directory = group.places.get(controller, (0, ""))
    if version != 2 or controller in BUILT_IN:
        return bool(version)
    return SUCCESSOR.get(controller, controller) in read(f"{directory}/cgroup.controllers").split()


def split(pool: int, ratio: str, how_many: int) -> list[int]:
    """The parts of a pool, in bytes, for `how_many` containers: ``1:2:1`` of 400 MiB is 100, 200 and 100.

    The kernel has no such knob: memory is not lent and given back like processor time, so each part is a maximum of
    its own, and what one does not use is not the others'. Raises EngineError.
    """
    parts = ratio.split(":")
    if not all(part.isascii() and part.isdecimal() and 0 < int(part) <= 10_000 for part in parts):
        raise EngineError(f'cannot understand the shares "{ratio}": write whole numbers, such as 1:2:1')
    if len(parts) != how_many:
        raise EngineError(f'"{ratio}" has {len(parts)} shares, for {how_many} containers: give one to each')
    page = os.sysconf("SC_PAGE_SIZE")
    total = sum(map(int, parts))
    shares = [pool * int(part) // total // page * page for part in parts]
    if min(shares) < LEAST_MEMORY:
        raise EngineError(f'{pool} bytes are too few to be split "{ratio}": each container wants at least 6m')
    return shares


def look(config: Config, born: int | None, group: Group, steps: Steps, before: Statistics | None = None,
         seconds: float = 0, traffic: tuple[int, int] | None = None) -> Statistics:  # fmt: skip
    """What a container uses now. `born`: clock ticks since boot. `before`: the look `seconds` ago, for the rates."""
    usage = steps.measure_group(group)
    since, used = _uptime() - (born or 0) / os.sysconf("SC_CLK_TCK"), usage.cpu
    if before is not None and before.usage.cpu is not None and used is not None:
        since, used = seconds, used - before.usage.cpu
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Statistics(
        id=config.id,
        name=config.name,
        usage=usage,
        cpu_percent=None if used is None or since <= 0 else used / since / 10_000,
        memory_percent=None if usage.memory is None else 100 * usage.memory / min(usage.memory_limit or host, host),
        frozen="freezer" in group and bool(steps.is_frozen(group)),
        received=traffic[0] if traffic else None,
        sent=traffic[1] if traffic else None,
    )


def tree(containers: Mapping[str, str], steps: Steps) -> list[Node]:
    """Every group of ours, each after the one above it; `containers`: a group's name → its container's."""
    return [
        Node(name, containers.get(name, ""), group.directories, limits_of(group), steps.measure_group(group))
        for name, group in find_groups(list_groups()).items()
    ]


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
