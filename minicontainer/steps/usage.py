"""What a group uses, as the kernel's own files have it: the numbers behind docker stats and lxc-info.

On v1 they are spread over the trees, each with its own units; on v2 they lie side by side. Whatever there is no
controller for is None.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from minicontainer.linux.cgroups import read
from minicontainer.record import Record
from minicontainer.steps.group import Group


class Usage(Record):
    """One look at a group."""

    memory: int | None = None
    """Bytes, page cache included."""
    memory_limit: int | None = None
    """Bytes; None where there is no limit."""
    cpu: int | None = None
    """Processor time that was used up, µs."""
    throttled: int | None = None
    """Periods in which a quota was used up: nr_throttled."""
    pids: int | None = None
    """Processes and threads."""
    pids_limit: int | None = None
    read: int | None = None
    """Bytes read from block devices."""
    written: int | None = None
    """Bytes written to them."""
    pressure: Mapping[str, float] = {}
    """For "cpu", "memory" and "io" the share of the last 10 s, in per cent, in which somebody in the group had to wait
    for it: PSI, Documentation/accounting/psi.rst. Only in a v2 tree."""


def measure_group(group: Group) -> Usage:
    """Read what the group uses now. A group that is gone has an empty Usage."""
    memory = group.places.get("memory", (0, ""))
    pids = group.places.get("pids", (0, ""))
    one = memory[0] != 2
    limit = _number(f"{memory[1]}/{'memory.limit_in_bytes' if one else 'memory.max'}") if memory[0] else None
    cpu, throttled = _cpu(group)
    read_bytes, written = _io(group)
    return Usage(
        memory=_number(f"{memory[1]}/{'memory.usage_in_bytes' if one else 'memory.current'}") if memory[0] else None,
        memory_limit=limit if limit is not None and limit < 1 << 60 else None,  # v1: none is nearly 2**63
        cpu=cpu,
        throttled=throttled,
        pids=_number(f"{pids[1]}/pids.current") if pids[0] else None,
        pids_limit=_number(f"{pids[1]}/pids.max") if pids[0] else None,
        read=read_bytes,
        written=written,
        pressure=_pressure(group.unified) if group.unified else {},
    )


SET = (
    ("memory", "memory.limit_in_bytes memory.memsw.limit_in_bytes memory.soft_limit_in_bytes",
     "memory.max memory.swap.max memory.high memory.low memory.min"),
    ("cpu", "cpu.shares cpu.cfs_quota_us cpu.cfs_burst_us cpu.idle", "cpu.weight cpu.max cpu.max.burst cpu.idle"),
    ("cpuset", "cpuset.cpus cpuset.mems", "cpuset.cpus cpuset.mems"),
    ("pids", "pids.max", "pids.max"),
    ("blkio", "blkio.throttle.read_bps_device blkio.throttle.write_bps_device blkio.throttle.read_iops_device "
     "blkio.throttle.write_iops_device blkio.bfq.weight", "io.max io.bfq.weight"),
    ("net_cls", "net_cls.classid", ""),
    ("freezer", "freezer.state", "cgroup.freeze"),
)  # fmt: skip
"""Controller, its limits on v1, and on v2."""

UNSET = {
    "memory.low": "0", "memory.min": "0",
    "cpu.shares": "1024", "cpu.weight": "100", "cpu.cfs_quota_us": "-1", "cpu.max": "max 100000", "cpu.idle": "0",
    "cpu.cfs_burst_us": "0", "cpu.max.burst": "0",
    "blkio.bfq.weight": "100", "io.bfq.weight": "default 100", "net_cls.classid": "0",
    "freezer.state": "THAWED", "cgroup.freeze": "0",
}  # fmt: skip
"""What these files say in a new group; all others "max", or v1 for memory a number near 2**63."""


def limits_of(group: Group) -> dict[str, str]:
    """Every limit that is set, by the name of its file: ``{"memory.max": "67108864", "pids.max": "20"}``."""
    found = {}
    for controller, first, second in SET:
        version, directory = group.places.get(controller, (0, ""))
        for file in (first if version == 1 else second if version == 2 else "").split():
            value = ", ".join(_lines(f"{directory}/{file}"))
            above = f"{os.path.dirname(directory)}/{file}{'.effective' if version == 2 else ''}"
            inherited = controller == "cpuset" and _lines(above) == [value]
            unset = value in ("", "max", UNSET.get(file)) or (value.isdecimal() and int(value) >= 1 << 60)
            if not unset and not inherited:
                found[file] = value
    return found


def _cpu(group: Group) -> tuple[int | None, int | None]:
    version, directory = group.places.get("cpuacct", (0, ""))
    statistics = _table(f"{group.places['cpu'][1]}/cpu.stat") if "cpu" in group else {}
    throttled = statistics.get("nr_throttled")
    if version == 1:
        nanoseconds = _number(f"{directory}/cpuacct.usage")
        return None if nanoseconds is None else nanoseconds // 1000, throttled
    return (statistics or _table(f"{directory}/cpu.stat") if version else {}).get("usage_usec"), throttled


def _io(group: Group) -> tuple[int | None, int | None]:
    """Bytes read and written, over all devices."""
    version, directory = group.places.get("blkio", (0, ""))
    if not version:
        return None, None
    totals = {"read": 0, "write": 0}
    if version == 2:
        for line in _lines(f"{directory}/io.stat"):  # 8:0 rbytes=90430464 wbytes=299008000 rios=…
            for word in line.split()[1:]:
                key, _, value = word.partition("=")
                name = {"rbytes": "read", "wbytes": "write"}.get(key)
                if name:
                    totals[name] += int(value)
    else:
        for line in _lines(f"{directory}/blkio.throttle.io_service_bytes"):  # 8:0 Read 4096
            words = line.split()
            if len(words) == 3 and words[1].lower() in totals:
                totals[words[1].lower()] += int(words[2])
    return totals["read"], totals["write"]


def _pressure(directory: str) -> dict[str, float]:
    shares = {}
    for resource in ("cpu", "memory", "io"):
        lines = _lines(f"{directory}/{resource}.pressure")  # some avg10=0.12 avg60=0.05 avg300=0.01 total=81213
        if lines and lines[0].startswith("some "):
            shares[resource] = float(lines[0].split(maxsplit=2)[1].partition("=")[2])
    return shares


def _number(file: str) -> int | None:
    try:
        text = read(file)
    except OSError:
        return None  # gone
    return int(text) if text.isdecimal() else None  # "max"


def _table(file: str) -> dict[str, int]:
    return {words[0]: int(words[1]) for line in _lines(file) if len(words := line.split()) == 2}


def _lines(file: str) -> list[str]:
    """The lines of a file; none when it is not there, or cannot be read: EOPNOTSUPP is PSI that is switched off."""
    try:
        return read(file).splitlines()
    except OSError:
        return []
