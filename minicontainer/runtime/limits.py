"""What a container is to be held to: OCI's linux.resources, and which step sees to which of its wishes.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#control-groups
"""

from __future__ import annotations

from collections.abc import Sequence

from minicontainer.record import Record
from minicontainer.steps import Steps
from minicontainer.steps.devices import EVERY_CONTAINER, Rule
from minicontainer.steps.group import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.runtime.expect import Value

EVERYDAY = ("memory", "cpu", "cpuacct", "pids", "cpuset", "blkio", "freezer", "devices", "perf_event")
"""The controllers that a container's group has if it can: for statistics, pause, and limits that come later. On a
hybrid host the last puts it into the v2 tree too, which has what v1 has not: pressure, and `cgroup.kill`."""


class Limits(Record):
    """None, or nothing, leaves a resource alone."""

    memory: int | None = None
    """Bytes: over it, the kernel kills (OOM). -1 lifts it."""
    cpus: float | None = None
    """How many processors' time: 0.5 is half of one. Over it, the group waits."""
    pids: int | None = None
    """Processes and threads: beyond it, fork(2) fails with EAGAIN."""
    memory_swap: int | None = None
    """Bytes of memory and swap together; as much as `memory` unless given: no swap."""
    memory_reservation: int | None = None
    """Bytes that the container is pushed back to when the host runs short."""
    memory_low: int | None = None
    memory_min: int | None = None
    memory_high: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    """Against 1024, which everybody has; counts where there is competition for a processor."""
    cpu_quota: int | None = None
    """µs of every `cpu_period`; what `cpus` is a shorter word for."""
    cpu_period: int | None = None
    """µs."""
    cpu_burst: int | None = None
    """µs of unused quota that may be saved."""
    cpu_idle: bool | None = None
    """Only the time that nobody else wants."""
    cpuset_cpus: str | None = None
    """Processors, such as ``0-2,7``."""
    cpuset_mems: str | None = None
    """NUMA nodes."""
    blkio_weight: int | None = None
    """10 to 1000."""
    io_rates: Sequence[tuple[str, str, int]] = ()
    """(device as major:minor, one of `steps.io.RATES`, how much a second)."""
    devices: Sequence[Rule] | None = None
    """Devices that may be used beside EVERY_CONTAINER; None: all there are. Without any, it is a precaution, taken
    where it can be."""
    huge_pages: Sequence[tuple[str, int]] = ()
    """(size such as 2MB, bytes)."""
    rdma: Sequence[tuple[str, int, int]] = ()
    """(device, handles, objects)."""
    misc: Sequence[tuple[str, int]] = ()
    """(resource, how much)."""
    net_class: int | None = None
    net_priorities: Sequence[tuple[str, int]] = ()
    """(network device, priority)."""
    unified: Sequence[tuple[str, str]] = ()
    """(file of cgroup v2, value), as they are."""
    files: Sequence[tuple[str, str, str, str]] = ()
    """(controller, file of v1, file of v2, value) of what has no name above; "" where a version has no such file."""

    def needed(self) -> list[str]:
        """The controllers (v1 names) without which these wishes cannot be granted."""
        wishes = {
            "memory": (
                self.memory, self.memory_swap, self.memory_reservation, self.memory_low, self.memory_min,
                self.memory_high, self.oom_kill_disable or None,
            ),
            "cpu": (
                self.cpus, self.cpu_shares, self.cpu_quota, self.cpu_period, self.cpu_burst, self.cpu_idle,
            ),
            "pids": (self.pids,),
            "cpuset": (self.cpuset_cpus, self.cpuset_mems),
            "blkio": (self.blkio_weight, self.io_rates or None),
            "devices": (self.devices or None,),
            "hugetlb": (self.huge_pages or None,),
            "rdma": (self.rdma or None,),
            "misc": (self.misc or None,),
            "net_cls": (self.net_class,),
            "net_prio": (self.net_priorities or None,),
        }  # fmt: skip
        named = [controller for controller, values in wishes.items() if any(value is not None for value in values)]
        # A file of v2 begins with the name of its controller, and io is the one that has another name in v1.
        first = [file.partition(".")[0] for file, _ in self.unified]
        by_file = [controller for controller, *_ in self.files] + ["blkio" if name == "io" else name for name in first]
        return [*dict.fromkeys(named + [controller for controller in by_file if controller in wishes])]


def apply(limits: Limits, group: Group, steps: Steps) -> None:
    """Let the steps write what is wished for. Raises LimitUnavailable; what was written until then stays."""
    if limits.memory is not None or limits.memory_swap is not None:
        memory = -1 if limits.memory is None else limits.memory
        steps.limit_memory(group, memory, limits.memory_swap)
    guards = limits.memory_reservation, limits.memory_low, limits.memory_min, limits.memory_high
    if any(value is not None for value in guards):
        steps.protect_memory(group, *guards)
    if limits.oom_kill_disable:
        steps.disable_oom_killer(group)

    if limits.cpu_idle is not None:  # before its shares: a group that is idle is refused any
        steps.yield_cpu(group, limits.cpu_idle)
    if limits.cpu_shares is not None:
        steps.share_cpu(group, limits.cpu_shares)
    if (limits.cpus, limits.cpu_quota, limits.cpu_period, limits.cpu_burst or None) != (None,) * 4:
        from minicontainer.steps.cpu import PERIOD

        quota, period = limits.cpu_quota, limits.cpu_period or PERIOD
        if limits.cpus is not None:
            quota = int(limits.cpus * period)
        steps.throttle(group, -1 if quota is None else quota, period, limits.cpu_burst or 0)
    if limits.cpuset_cpus is not None or limits.cpuset_mems is not None:
        steps.pin(group, limits.cpuset_cpus, limits.cpuset_mems)

    if limits.pids is not None:
        steps.limit_pids(group, limits.pids)
    if limits.blkio_weight is not None:
        steps.weigh_io(group, limits.blkio_weight)
    for device, name, rate in limits.io_rates:
        steps.limit_io(group, device, **{name: rate})
    if limits.devices or (limits.devices is not None and "devices" in group):
        steps.allow_devices(group, [*limits.devices, *MKNOD, *EVERY_CONTAINER])
    for size, most in limits.huge_pages:
        steps.limit_huge_pages(group, size, most)
    for device, handles, objects in limits.rdma:
        steps.limit_rdma(group, device, handles, objects)
    for resource, most in limits.misc:
        steps.limit_misc(group, resource, most)
    if limits.net_class is not None:
        steps.tag_packets(group, limits.net_class)
    for interface, priority in limits.net_priorities:
        steps.prioritize_packets(group, interface, priority)
    for file, value in limits.unified:
        steps.set_control(group, file, value)
    for controller, first, second, value in limits.files:
        steps.set_file(group, controller, first, second, value)


# From the specification's words

INT64_MOST = (1 << 63) - 1
MOST_RDMA = (1 << 31) - 1
"""What the kernel takes for no limit; rdma.rst."""


def read_resources(resources: Value) -> tuple[Limits, Sequence[str]]:
    """The limits that `linux.resources` asks for, and what of it does nothing any more, a line each.

    Where Go writes a zero for what was not given, zero is not given: a memory of 0 bytes would kill whatever comes. -1
    is no limit. What the specification does not want to be limited, such as swap when only memory is given, is not.
    Without rules for devices, there are those that every container has. Raises BundleError.
    """
    said = list[str]()
    wishes: dict[str, Any] = {"devices": _devices(resources)}
    files = list[tuple[str, str, str, str]]()

    if memory := resources.get("memory"):
        limit, swap = (memory.integer(name, -1, INT64_MOST) or None for name in ("limit", "swap"))
        if swap is not None and swap != -1 and (limit is None or not 0 < limit <= swap):
            memory["swap"].refuse(f"{swap} is for memory and swap together, and takes a limit that is not above it")
        if limit is not None or swap is not None:
            wishes |= {"memory": limit, "memory_swap": -1 if swap is None else swap}
        wishes["memory_reservation"] = memory.integer("reservation", -1, INT64_MOST) or None
        wishes["oom_kill_disable"] = memory.flag("disableOOMKiller")
        if (swappiness := memory.integer("swappiness", 0, 100)) is not None:
            files.append(("memory", "memory.swappiness", "", str(swappiness)))
        if (tcp := memory.integer("kernelTCP", -1, INT64_MOST)) is not None:
            files.append(("memory", "memory.kmem.tcp.limit_in_bytes", "", str(tcp)))
        if memory.integer("kernel", -1, INT64_MOST) is not None:
            said.append(memory["kernel"].told("the kernel has no such limit any more"))
        memory.flag("useHierarchy"), memory.flag("checkBeforeUpdate")  # as it is anyway

    if cpu := resources.get("cpu"):
        wishes["cpu_shares"] = cpu.integer("shares", 0, 262_144) or None
        wishes["cpu_quota"] = quota = cpu.integer("quota", -1, INT64_MOST) or None
        wishes["cpu_period"] = cpu.integer("period", 0, 1_000_000) or None
        wishes["cpu_burst"] = burst = cpu.integer("burst", 0, INT64_MOST)
        if burst and quota is not None and 0 < quota < burst:
            cpu["burst"].refuse(f"{burst} is more than the quota, {quota}")
        idle = cpu.integer("idle", 0, 1)
        wishes["cpu_idle"] = None if idle is None else bool(idle)
        if idle:
            wishes["cpu_shares"] = None  # an idle group has no share, and the kernel refuses it any
        for name, field in (("cpus", "cpuset_cpus"), ("mems", "cpuset_mems")):
            wishes[field] = (cpu[name].as_numbers() or None) if cpu.get(name) else None
        for name, least, file in (
            ("realtimePeriod", 0, "cpu.rt_period_us"),
            ("realtimeRuntime", -1, "cpu.rt_runtime_us"),
        ):
            if value := cpu.integer(name, least, INT64_MOST):
                files.append(("cpu", file, "", str(value)))

    if pids := resources.get("pids"):
        wishes["pids"] = pids.integer("limit", -1, INT64_MOST)

    if block := resources.get("blockIO"):
        wishes["blkio_weight"] = _weight(block, "weight")
        if leaf := _weight(block, "leafWeight"):
            files.append(("blkio", "blkio.leaf_weight", "", str(leaf)))
        for item in block.items("weightDevice"):
            weight, leaf = _weight(item, "weight"), _weight(item, "leafWeight")
            if not weight and not leaf:
                item.refuse("has neither a weight nor a leafWeight")
            if weight:
                files.append(("blkio", "blkio.bfq.weight_device", "io.bfq.weight", f"{_numbers(item)} {weight}"))
            if leaf:
                files.append(("blkio", "blkio.leaf_weight_device", "", f"{_numbers(item)} {leaf}"))
        wishes["io_rates"] = tuple(
            (_numbers(item), rate, item["rate"].as_integer(0, (1 << 64) - 1))
            for name, rate in (
                ("throttleReadBpsDevice", "read_bps"),
                ("throttleWriteBpsDevice", "write_bps"),
                ("throttleReadIOPSDevice", "read_iops"),
                ("throttleWriteIOPSDevice", "write_iops"),
            )
            for item in block.items(name)
        )

    wishes["huge_pages"] = tuple(
        (_page_size(item), item["limit"].as_integer(0, (1 << 64) - 1)) for item in resources.items("hugepageLimits")
    )
    if network := resources.get("network"):
        wishes["net_class"] = network.integer("classID", 0, (1 << 32) - 1) or None
        wishes["net_priorities"] = tuple(
            (item["name"].as_text(), item["priority"].as_integer(0, (1 << 32) - 1))
            for item in network.items("priorities")
        )
    wishes["rdma"] = tuple((device, *_handles(device, item)) for device, item in resources.members("rdma"))
    wishes["unified"] = tuple((_file(file, item), item.as_text()) for file, item in resources.members("unified"))
    return Limits(files=tuple(files), **wishes), tuple(said)


MKNOD: Sequence[Rule] = (("c", None, None, "m"), ("b", None, None, "m"))
"""As with runc, any device file may be made, which is not yet to use it: else `linux.devices` could not be made."""


def _devices(resources: Value) -> Sequence[Rule] | None:
    """What is allowed when all rules have been followed, one after the other, from nothing on; None is everything.

    A rule that takes away is followed where something of the kind was allowed as a whole. One device of many that an
    earlier rule allows would take a list of exceptions, which no step has.
    """
    allowed: list[Rule] | None = []
    for item in resources.items("devices"):
        allow, letters = item["allow"].as_flag(), item.text("access") or "rwm"
        kind = item["type"].as_choice("a", "b", "c") if item.text("type") else "a"
        major, minor = (_any(item.integer(name, -1, (1 << 32) - 1)) for name in ("major", "minor"))
        if "a" in letters and not allow:
            letters = (
                "rwm"  # not of the specification, but runc lets it pass; as the kernel's own "a", it is everything
            )
        if not set(letters) <= set("rwm"):
            item["access"].refuse("is made of other letters than r, w and m")
        access = "".join(letter for letter in "rwm" if letter in letters)
        if (kind, major, minor, access) == ("a", None, None, "rwm"):
            allowed = None if allow else []
            continue
        # "a" with anything else: v1 would take that for everything.
        rules = [(one, major, minor, access) for one in ("c", "b") if kind in (one, "a")]
        if allow:
            allowed = None if allowed is None else allowed + [rule for rule in rules if rule not in allowed]
        elif allowed is not None and (left := _without(allowed, rules)) is not None:
            allowed = left
        else:
            item.refuse("takes some of what a rule before it allows as a whole; allow just what is wanted instead")
    return None if allowed is None else tuple(allowed)


def _without(allowed: Sequence[Rule], denied: Sequence[Rule]) -> list[Rule] | None:
    """What is left; None: something of an allowed range is denied, and the rest of that range is no rule."""
    left = list[Rule]()
    for kind, major, minor, access in allowed:
        for other, first, second, letters in denied:
            if kind != other or not set(access) & set(letters):
                continue
            if first in (None, major) and second in (None, minor):
                access = "".join(letter for letter in access if letter not in letters)
            elif (None in (first, major) or first == major) and (None in (second, minor) or second == minor):
                return None
        if access:
            left.append((kind, major, minor, access))
    return left


def _any(number: int | None) -> int | None:
    return None if number == -1 else number


def _numbers(item: Value) -> str:
    return ":".join(str(item[name].as_integer(0, (1 << 32) - 1)) for name in ("major", "minor"))


def _weight(owner: Value, name: str) -> int | None:
    weight = owner.integer(name, 0, (1 << 16) - 1) or None
    if weight and not 10 <= weight <= 1000:
        owner[name].refuse(f"{weight} is not between 10 and 1000")
    return weight


def _page_size(item: Value) -> str:
    size = item["pageSize"].as_text()
    number = size[:-2]
    if size[-2:] not in ("KB", "MB", "GB") or not number.isascii() or not number.isdecimal() or number[0] == "0":
        item["pageSize"].refuse("is no size such as 64KB, 2MB or 1GB")
    return size


def _handles(device: str, item: Value) -> tuple[int, int]:
    handles, objects = (item.integer(name, 0, (1 << 32) - 1) for name in ("hcaHandles", "hcaObjects"))
    if handles is None and objects is None:
        item.refuse("has neither hcaHandles nor hcaObjects")
    if len(device.split()) != 1 or "\0" in device:
        item.refuse("is no name of a device")
    first, second = (MOST_RDMA if number is None else min(number, MOST_RDMA) for number in (handles, objects))
    return first, second


def _file(name: str, item: Value) -> str:
    controller, dot, rest = name.partition(".")
    if not controller or not dot or not rest or "/" in name or "\0" in name or not name.isprintable():
        item.refuse("is no file of cgroup v2, such as memory.high")
    return name
