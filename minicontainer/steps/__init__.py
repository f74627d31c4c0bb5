"""The mechanisms, one file each, in course order. Every change of isolation state is made here.

`Steps` is what the runtime is given: a function for each mechanism, ours unless somebody, a student perhaps, brings
another. The runtime never imports a step by name, so whoever has written them all runs an engine of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from minicontainer.steps.group import Group
    from minicontainer.steps.usage import Usage


EXERCISE = "<exercise "
"""How the file name of code begins that was read out of a notebook: ``<exercise uts.set_names>``."""

_HERE = os.path.dirname(__file__)


def step_of(code: CodeType) -> str | None:
    """The step that a function is, by its code: ``uts.set_names``, ours or somebody's; None: it is none."""
    file = code.co_filename
    if file.startswith(EXERCISE):
        return file.removeprefix(EXERCISE).rstrip(">")
    if os.path.dirname(file) == _HERE:
        return f"{os.path.basename(file).removesuffix('.py')}.{code.co_name}"
    return None


class _Ours:
    """A step function of ours, imported when it is first asked for: there are many, and no container needs them all."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __set_name__(self, owner: type[Steps], name: str) -> None:
        self.name = name

    def __get__(self, steps: Steps | None, owner: type[Steps]) -> Callable[..., Any]:
        module = __import__(f"minicontainer.steps.{self.module}", fromlist=[self.name])
        function: Callable[..., Any] = getattr(module, self.name)
        setattr(owner, self.name, staticmethod(function))  # the next time it is found without us
        return function


def _ours(module: str) -> Any:
    return _Ours(module)


class Steps(Record):
    """One field for each step function; the defaults are the reference."""

    time_start: Callable[..., dict[str, int | str]] = _ours("measuring")
    memory_of: Callable[..., int] = _ours("measuring")
    build_root: Callable[..., None] = _ours("chroot")
    enter_chroot: Callable[..., None] = _ours("chroot")
    break_out: Callable[..., None] = _ours("chroot")
    make_private: Callable[..., None] = _ours("mount")
    pivot: Callable[..., None] = _ours("mount")
    mount_proc_and_dev: Callable[..., None] = _ours("mount")
    set_names: Callable[..., None] = _ours("uts")
    private_queues: Callable[..., None] = _ours("ipc")
    spawn_init: Callable[..., int] = _ours("pid")
    reap: Callable[..., int] = _ours("pid")
    write_maps: Callable[..., None] = _ours("user")
    become_root: Callable[..., None] = _ours("user")
    bring_up_loopback: Callable[..., None] = _ours("network")
    join: Callable[..., None] = _ours("network")
    create_bridge: Callable[..., None] = _ours("bridge")
    remove_bridge: Callable[..., None] = _ours("bridge")
    connect: Callable[..., str] = _ours("bridge")
    disconnect: Callable[..., None] = _ours("bridge")
    connect_directly: Callable[..., None] = _ours("bridge")
    disconnect_directly: Callable[..., None] = _ours("bridge")
    attach_nic: Callable[..., list[str]] = _ours("bridge")
    hand_over_device: Callable[..., None] = _ours("bridge")
    detach_nic: Callable[..., None] = _ours("bridge")
    restore_nic: Callable[..., None] = _ours("bridge")
    isolate: Callable[..., None] = _ours("nat")
    masquerade: Callable[..., None] = _ours("nat")
    publish: Callable[..., None] = _ours("nat")
    unpublish: Callable[..., None] = _ours("nat")
    withdraw: Callable[..., None] = _ours("nat")
    obstacles: Callable[..., list[str]] = _ours("nat")
    hide_cgroup_path: Callable[..., None] = _ours("cgroup")
    mount_cgroups: Callable[..., None] = _ours("cgroup")
    offset_clocks: Callable[..., None] = _ours("time")
    leave_keys: Callable[..., None] = _ours("keyring")
    create_group: Callable[..., Group] = _ours("group")
    enter_group: Callable[..., None] = _ours("group")
    delegate_group: Callable[..., None] = _ours("group")
    remove_group: Callable[..., None] = _ours("group")
    limit_memory: Callable[..., None] = _ours("memory")
    protect_memory: Callable[..., None] = _ours("memory")
    disable_oom_killer: Callable[..., None] = _ours("memory")
    count_oom_kills: Callable[..., int] = _ours("memory")
    share_cpu: Callable[..., None] = _ours("cpu")
    throttle: Callable[..., None] = _ours("cpu")
    yield_cpu: Callable[..., None] = _ours("cpu")
    pin: Callable[..., None] = _ours("cpu")
    freeze: Callable[..., None] = _ours("freezer")
    thaw: Callable[..., None] = _ours("freezer")
    is_frozen: Callable[..., bool] = _ours("freezer")
    allow_devices: Callable[..., None] = _ours("devices")
    limit_io: Callable[..., None] = _ours("io")
    weigh_io: Callable[..., None] = _ours("io")
    limit_pids: Callable[..., None] = _ours("pids")
    tag_packets: Callable[..., None] = _ours("packets")
    prioritize_packets: Callable[..., None] = _ours("packets")
    count_events: Callable[..., list[int]] = _ours("events")
    events_counted: Callable[..., int] = _ours("events")
    limit_huge_pages: Callable[..., None] = _ours("scarce")
    limit_rdma: Callable[..., None] = _ours("scarce")
    limit_misc: Callable[..., None] = _ours("scarce")
    set_file: Callable[..., None] = _ours("scarce")
    set_control: Callable[..., None] = _ours("scarce")
    measure_group: Callable[..., Usage] = _ours("usage")
    stack: Callable[..., None] = _ours("overlay")
    stack_mapped: Callable[..., int] = _ours("overlay")
    unstack: Callable[..., None] = _ours("overlay")
    apply_layer: Callable[..., Any] = _ours("layers")
    pack_layer: Callable[..., None] = _ours("layers")
    resolve: Callable[..., list[dict[str, Any]]] = _ours("layout")
    pick_up: Callable[..., int] = _ours("volume")
    bind: Callable[..., None] = _ours("volume")
    attach: Callable[..., None] = _ours("volume")
    make: Callable[..., int] = _ours("volume")
    settle: Callable[..., None] = _ours("volume")
    place: Callable[..., None] = _ours("volume")
    map_ids: Callable[..., None] = _ours("volume")
    copy_tree: Callable[..., None] = _ours("copying")
    imitate: Callable[..., None] = _ours("copying")
    merge: Callable[..., None] = _ours("copying")
    changes: Callable[..., Any] = _ours("changes")
    take: Callable[..., None] = _ours("snapshot")
    restore: Callable[..., None] = _ours("snapshot")
    clone: Callable[..., None] = _ours("snapshot")
    seal_root: Callable[..., None] = _ours("reroot")
    unseal_root: Callable[..., None] = _ours("reroot")
    replace_root: Callable[..., None] = _ours("reroot")
    remount: Callable[..., None] = _ours("volume")
    disarm: Callable[..., None] = _ours("volume")
    unmount: Callable[..., None] = _ours("volume")
    protect_root: Callable[..., None] = _ours("volume")
    spread_root: Callable[..., None] = _ours("volume")
    move_root: Callable[..., None] = _ours("mount")
    furnish_dev: Callable[..., None] = _ours("mount")
    show_console: Callable[..., None] = _ours("mount")
    bring_nodes: Callable[..., list[int]] = _ours("nodes")
    make_nodes: Callable[..., None] = _ours("nodes")
    mask_paths: Callable[..., None] = _ours("masks")
    protect_paths: Callable[..., None] = _ours("masks")
    spawn_joined: Callable[..., int] = _ours("joining")
    filter_syscalls: Callable[..., int | None] = _ours("seccomp")
    limit_bounding: Callable[..., None] = _ours("capabilities")
    keep_capabilities: Callable[..., None] = _ours("capabilities")
    set_capabilities: Callable[..., None] = _ours("capabilities")
    drop_capabilities: Callable[..., None] = _ours("capabilities")
    hide_process: Callable[..., None] = _ours("capabilities")
    forbid_new_privileges: Callable[..., None] = _ours("capabilities")
    become_user: Callable[..., None] = _ours("identity")
    restrict_paths: Callable[..., int] = _ours("landlock")
    set_rlimits: Callable[..., None] = _ours("tuning")
    set_oom_score: Callable[..., None] = _ours("tuning")
    schedule: Callable[..., None] = _ours("tuning")
    set_io_priority: Callable[..., None] = _ours("tuning")
    set_memory_policy: Callable[..., None] = _ours("tuning")
    set_affinity: Callable[..., None] = _ours("tuning")
    set_personality: Callable[..., None] = _ours("tuning")
    set_sysctls: Callable[..., None] = _ours("sysctls")
    label_exec: Callable[..., None] = _ours("labels")
    create: Callable[..., None] = _ours("lifecycle")
    start: Callable[..., None] = _ours("lifecycle")
    state: Callable[..., dict[str, Any]] = _ours("lifecycle")
    kill: Callable[..., None] = _ours("lifecycle")
    delete: Callable[..., None] = _ours("lifecycle")

    def __init__(self, **others: Callable[..., Any]) -> None:
        unknown = others.keys() - set(self.__match_args__)
        if unknown:
            raise TypeError(f"there is no step {', '.join(sorted(unknown))}")
        self.__dict__.update(others)  # the fields that are not in here are the class's: ours

    def is_ours(self, field: str) -> bool:
        """Whether the step in this field, ``set_names``, is the reference: nobody has brought another."""
        return field not in self.__dict__

    @classmethod
    def names(cls) -> dict[str, str]:
        """Every step as students know it, ``uts.set_names``, and its field here, ``set_names``."""
        return {f"{_MODULES[field]}.{field}": field for field in cls.__match_args__}

    def with_functions(self, functions: dict[str, Callable[..., Any]]) -> Steps:
        """These steps with others in their places, by name:

        ``{"uts.set_names": mine}``. Raises KeyError (no such step).
        """
        named: dict[str, Any] = {self.names()[name]: function for name, function in functions.items()}
        return self.replace(**named)


_MODULES: dict[str, str] = {name: field.module for name, field in vars(Steps).items() if isinstance(field, _Ours)}
"""The file of each step, by its field."""
