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
    ipc,
    keyring,
    layers,
    limits,
    mount,
    network,
    pid,
    time,
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
    offset_clocks: Callable[..., None] = time.offset_clocks
    leave_keys: Callable[..., None] = keyring.leave_keys
    create_group: Callable[..., list[str]] = limits.create_group
    enter_group: Callable[..., None] = limits.enter_group
    remove_group: Callable[..., None] = limits.remove_group
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
