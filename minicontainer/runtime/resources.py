"""The limits of a container that runs, changed; and what it uses, told in the form that runc gave it.

Both forms are runc's, `update` and `events`: containerd, and with it docker stats, reads them.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator, Mapping

from minicontainer.linux.cgroups import fields, read
from minicontainer.runtime import limits
from minicontainer.runtime.containers import Containers
from minicontainer.runtime.errors import Refusal
from minicontainer.runtime.expect import Value
from minicontainer.steps.group import Group, all_or_nothing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OPTIONS = {
    "memory": ("memory", "limit"),
    "memory-swap": ("memory", "swap"),
    "memory-reservation": ("memory", "reservation"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-idle": ("cpu", "idle"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "blkio-weight": ("blockIO", "weight"),
    "pids-limit": ("pids", "limit"),
}
"""Option of `update` → member of linux.resources."""

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def of_options(options: Mapping[str, list[str]]) -> dict[str, Any]:
    """linux.resources as the options of `update` have it. Raises Refusal: no number."""
    resources: dict[str, Any] = {}
    for option, (part, member) in _OPTIONS.items():
        if option in options:
            text = options[option][-1]
            value: object = text if member in ("cpus", "mems") else _number(option, text)
            resources.setdefault(part, {})[member] = value
    return resources


def update(containers: Containers, container_id: str, resources: dict[str, Any]) -> None:
    """Change what `resources`, a linux.resources, speaks of: all of it, or nothing. Raises Refusal, BundleError."""
    known = containers.known(container_id)
    if containers.status(known) not in ("created", "running", "paused"):
        raise Refusal(f"cannot update container {container_id}: container not running")
    document = containers.document(known)
    linux = document.get("linux") or {}
    before = linux.get("resources") or {}
    memory = resources.get("memory")
    if isinstance(memory, dict) and memory.get("limit") == -1 and "swap" not in memory:
        resources = {**resources, "memory": {**memory, "swap": -1}}  # no limit of both together is below none of one
    after = {**before, **{part: _laid_over(before.get(part), value) for part, value in resources.items()}}
    wanted = _changed(*(limits.read_resources(Value(one, "resources"))[0] for one in (before, after)))
    group = containers.group(known)
    for controller in wanted.needed():
        if controller not in group:
            raise Refusal(f"container {container_id} has no {controller} controller, so nothing of it can be changed")
    with all_or_nothing():
        limits.apply(wanted, group, containers.steps)
        containers.remember(known, {**document, "linux": {**linux, "resources": after}})


def _laid_over(before: object, after: object) -> object:
    """A part of linux.resources with what is said anew; lists are taken as they are."""
    return {**before, **after} if isinstance(before, dict) and isinstance(after, dict) else after


_TOGETHER = (("memory", "memory_swap"), ("cpu_quota", "cpu_period", "cpu_burst"))
"""Limits that mean something only beside one another."""


def _changed(before: limits.Limits, after: limits.Limits) -> limits.Limits:
    """What is to be written: the rest is in force already, and may not be written twice."""
    names = {name for name, value in after.asdict().items() if value != getattr(before, name)}
    for group in _TOGETHER:
        if names & {*group}:
            names |= {*group}
    return limits.Limits(**{name: getattr(after, name) for name in names})


def events(
    containers: Containers, container_id: str, *, once: bool = False, interval: str = "5s"
) -> Iterator[dict[str, Any]]:
    """What the container uses, now, and (unless `once`) again and again until it has ended; and each OOM kill."""
    seconds, before = _seconds(interval), -1
    while True:
        try:
            known = containers.known(container_id)
        except Refusal:
            if once or before < 0:
                raise
            return  # it was deleted meanwhile
        group, ended = containers.group(known), containers.status(known) == "stopped"
        killed = before
        with contextlib.suppress(OSError):  # its group may be gone
            killed = containers.steps.count_oom_kills(group) if "memory" in group else 0
        if 0 <= before < killed:
            yield {"type": "oom", "id": container_id}
        before = max(killed, 0)
        if ended:
            if once:
                raise Refusal(f"container {container_id} is not running")
            return
        yield {"type": "stats", "id": container_id, "data": statistics(group)}
        if once:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(known.pid)
            select.select([pidfd], [], [], seconds)
            os.close(pidfd)


def statistics(group: Group) -> dict[str, Any]:
    """One look, in runc's form; what there is no controller for is left out."""
    data: dict[str, Any] = {}
    version, place = group.places.get("cpuacct", (0, ""))
    if version == 1:
        stat, ticks = fields(f"{place}/cpuacct.stat"), 10**9 // os.sysconf("SC_CLK_TCK")
        usage: dict[str, Any] = {
            "total": int(read(f"{place}/cpuacct.usage")),
            "percpu": [*map(int, read(f"{place}/cpuacct.usage_percpu").split())],
            "kernel": stat["system"] * ticks,
            "user": stat["user"] * ticks,
        }
        data["cpu"] = {"usage": usage, "throttling": _throttling(group)}
    elif version == 2:
        stat = fields(f"{place}/cpu.stat")
        parts = {"total": "usage_usec", "kernel": "system_usec", "user": "user_usec"}
        usage = {part: stat[name] * 1000 for part, name in parts.items()}
        data["cpu"] = {"usage": usage, "throttling": _throttling(group)}
    version, place = group.places.get("memory", (0, ""))
    if version == 1:
        raw = fields(f"{place}/memory.stat")
        data["memory"] = {
            "cache": raw.get("cache", 0),
            "usage": _memory(place, "memory"),
            "swap": _memory(place, "memory.memsw") if os.path.exists(f"{place}/memory.memsw.limit_in_bytes") else {},
            "kernel": _memory(place, "memory.kmem"),
            "raw": raw,
        }
    elif version == 2:
        raw = fields(f"{place}/memory.stat")
        limit = read(f"{place}/memory.max")
        used = {"usage": int(read(f"{place}/memory.current")), "limit": int(limit) if limit != "max" else (1 << 64) - 1}
        data["memory"] = {"cache": raw.get("file", 0), "usage": {**used, "max": 0, "failcnt": 0}, "raw": raw}
    version, place = group.places.get("pids", (0, ""))
    if version:
        most = read(f"{place}/pids.max")
        data["pids"] = {"current": int(read(f"{place}/pids.current")), "limit": 0 if most == "max" else int(most)}
    return data


def _throttling(group: Group) -> dict[str, int]:
    if "cpu" not in group:
        return {}
    stat = fields(f"{group['cpu'][1]}/cpu.stat")
    nanoseconds = stat.get("throttled_time", stat.get("throttled_usec", 0) * 1000)
    return {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": nanoseconds,
    }


def _memory(place: str, prefix: str) -> dict[str, int]:
    names = {"usage": "usage_in_bytes", "limit": "limit_in_bytes", "max": "max_usage_in_bytes", "failcnt": "failcnt"}
    found = {}
    for name, file in names.items():
        try:
            found[name] = int(read(f"{place}/{prefix}.{file}"))
        except OSError:
            continue
    return found


def _number(option: str, text: str) -> int:
    """Bytes may have a unit: 50M, 2g. Raises Refusal."""
    digits = text.lower().removesuffix("b").rstrip("kmg") if option.startswith("memory") else text
    unit = text.lower().removesuffix("b")[len(digits) :] if option.startswith("memory") else ""
    try:
        return int(digits) * _UNITS[unit]
    except (ValueError, KeyError):
        raise Refusal(f"--{option} {text}: it is no number") from None


def _seconds(text: str) -> float:
    """``5s``, ``100ms``, ``1m``; Go's durations, of one part. Raises Refusal."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        if text.endswith(unit):
            try:
                if (number := float(text.removesuffix(unit))) > 0:
                    return number * factor
            except ValueError:
                pass
            break
    raise Refusal(f"--interval {text}: write it as in 5s")
