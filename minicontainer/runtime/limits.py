"""What a container is to be held to: OCI's linux.resources, and which step sees to which of its wishes.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#control-groups
"""

from __future__ import annotations

from collections.abc import Sequence

from minicontainer.record import Record
from minicontainer.steps import Steps
from minicontainer.steps.devices import EVERY_CONTAINER, Rule
from minicontainer.steps.group import Group

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
        return [controller for controller, values in wishes.items() if any(value is not None for value in values)]


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
    if (limits.cpus, limits.cpu_quota, limits.cpu_period) != (None, None, None):
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
        steps.allow_devices(group, [*EVERY_CONTAINER, *limits.devices])
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
