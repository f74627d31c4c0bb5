"""The mechanisms, one file each, in course order. Every change of isolation state is made here.

`Steps` is what the runtime is given: a function for each mechanism, ours unless somebody, a student perhaps, brings
another. The runtime never imports a step by name, so whoever has written them all runs an engine of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from minicontainer.record import Record
from minicontainer.steps import (
    cgroup,
    chroot,
    cpu,
    devices,
    events,
    freezer,
    group,
    io,
    ipc,
    keyring,
    layers,
    memory,
    mount,
    network,
    packets,
    pid,
    pids,
    scarce,
    time,
    usage,
    user,
    uts,
    volume,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Steps(Record):
    """One field for each step function; the defaults are the reference."""

    build_root: Callable[..., None] = chroot.build_root
    enter_chroot: Callable[..., None] = chroot.enter_chroot
    break_out: Callable[..., None] = chroot.break_out
    make_private: Callable[..., None] = mount.make_private
    pivot: Callable[..., None] = mount.pivot
    mount_proc_and_dev: Callable[..., None] = mount.mount_proc_and_dev
    set_names: Callable[..., None] = uts.set_names
    private_queues: Callable[..., None] = ipc.private_queues
    spawn_init: Callable[..., int] = pid.spawn_init
    reap: Callable[..., int] = pid.reap
    write_maps: Callable[..., None] = user.write_maps
    become_root: Callable[..., None] = user.become_root
    bring_up_loopback: Callable[..., None] = network.bring_up_loopback
    join: Callable[..., None] = network.join
    hide_cgroup_path: Callable[..., None] = cgroup.hide_cgroup_path
    mount_cgroups: Callable[..., None] = cgroup.mount_cgroups
    offset_clocks: Callable[..., None] = time.offset_clocks
    leave_keys: Callable[..., None] = keyring.leave_keys
    create_group: Callable[..., group.Group] = group.create_group
    enter_group: Callable[..., None] = group.enter_group
    delegate_group: Callable[..., None] = group.delegate_group
    remove_group: Callable[..., None] = group.remove_group
    limit_memory: Callable[..., None] = memory.limit_memory
    protect_memory: Callable[..., None] = memory.protect_memory
    disable_oom_killer: Callable[..., None] = memory.disable_oom_killer
    count_oom_kills: Callable[..., int] = memory.count_oom_kills
    share_cpu: Callable[..., None] = cpu.share_cpu
    throttle: Callable[..., None] = cpu.throttle
    yield_cpu: Callable[..., None] = cpu.yield_cpu
    pin: Callable[..., None] = cpu.pin
    freeze: Callable[..., None] = freezer.freeze
    thaw: Callable[..., None] = freezer.thaw
    is_frozen: Callable[..., bool] = freezer.is_frozen
    allow_devices: Callable[..., None] = devices.allow_devices
    limit_io: Callable[..., None] = io.limit_io
    weigh_io: Callable[..., None] = io.weigh_io
    limit_pids: Callable[..., None] = pids.limit_pids
    tag_packets: Callable[..., None] = packets.tag_packets
    prioritize_packets: Callable[..., None] = packets.prioritize_packets
    count_events: Callable[..., list[int]] = events.count_events
    events_counted: Callable[..., int] = events.events_counted
    limit_huge_pages: Callable[..., None] = scarce.limit_huge_pages
    limit_rdma: Callable[..., None] = scarce.limit_rdma
    limit_misc: Callable[..., None] = scarce.limit_misc
    set_control: Callable[..., None] = scarce.set_control
    measure_group: Callable[..., usage.Usage] = usage.measure_group
    stack: Callable[..., None] = layers.stack
    take: Callable[..., int] = volume.take
    bind: Callable[..., None] = volume.bind
    attach: Callable[..., None] = volume.attach

    @classmethod
    def names(cls) -> dict[str, str]:
        """Every step as students know it, ``uts.set_names``, and its field here, ``set_names``."""
        return {f"{_module(getattr(cls, field))}.{field}": field for field in cls.__match_args__}

    def with_functions(self, functions: dict[str, Callable[..., Any]]) -> Steps:
        """These steps with others in their places, by name:

        ``{"uts.set_names": mine}``. Raises KeyError (no such step).
        """
        named: dict[str, Any] = {self.names()[name]: function for name, function in functions.items()}
        return self.replace(**named)


def _module(function: object) -> str:
    return str(getattr(function, "__module__", "")).rpartition(".")[2]
