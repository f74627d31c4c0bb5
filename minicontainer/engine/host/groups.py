"""Control groups: which of the three worlds this is, and what they can limit here."""

from __future__ import annotations

import errno
import os

from minicontainer.engine.host.finding import Finding
from minicontainer.engine.host.kernel import Kernel, build_with, named
from minicontainer.engine.host.probing import attempt
from minicontainer.linux import CLONE_INTO_CGROUP, clone3, in_user_namespace
from minicontainer.linux.cgroups import Hierarchy, hierarchies, hierarchy_of, missing, mountable

OPTIONS = {
    "blkio": ("BLK_CGROUP",), "cpu": ("CGROUP_SCHED", "FAIR_GROUP_SCHED"), "cpuacct": ("CGROUP_CPUACCT",),
    "cpuset": ("CPUSETS",), "devices": ("CGROUP_DEVICE",), "freezer": ("CGROUP_FREEZER",),
    "hugetlb": ("CGROUP_HUGETLB",), "memory": ("MEMCG",), "misc": ("CGROUP_MISC",),
    "net_cls": ("CGROUP_NET_CLASSID",), "net_prio": ("CGROUP_NET_PRIO",),
    "perf_event": ("CGROUP_PERF",), "pids": ("CGROUP_PIDS",), "rdma": ("CGROUP_RDMA",),
}  # fmt: skip
"""The kernel's options for each controller."""

KNOBS = (
    # what              controller  v1 file                            v2 file            kernel options
    ("processor quotas", "cpu",     "cpu.cfs_quota_us",                "cpu.max",         ("CFS_BANDWIDTH",)),
    ("rates of disks",   "blkio",   "blkio.throttle.read_bps_device",  "io.max",          ("BLK_DEV_THROTTLING",)),
    ("limit of swap",    "memory",  "memory.memsw.limit_in_bytes",     "memory.swap.max", ("SWAP",)),
)  # fmt: skip


def of_groups(kernel: Kernel) -> list[Finding]:
    """The world, each controller, and what depends on more than a controller."""
    trees = hierarchies()
    return [
        _world(trees),
        *(_controller(kernel, name, trees) for name in OPTIONS),
        *(_knob(kernel, trees, *knob) for knob in KNOBS),
        _device_rules(trees),
        _pressure(),
        _birth(trees),
    ]


def _world(trees: list[Hierarchy]) -> Finding:
    versions = frozenset(tree.version for tree in trees)
    second = next((tree.controllers for tree in trees if tree.version == 2), ())
    world = {frozenset(): "none is mounted", frozenset({1}): "v1", frozenset({2}): "v2"}.get(versions)
    world = world or f"hybrid: v1, and a v2 tree with {', '.join(second) or 'no controllers'}"
    mend = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    found = any(map(_ours, trees))
    if trees and not found:
        world += "; this user may make no groups in it"
        mend = "run as root, or have groups delegated to you: systemd-run --user --scope -p Delegate=yes"
    return Finding("control groups", found, world, mend, options=named(("CGROUPS",)))


def _controller(kernel: Kernel, name: str, trees: list[Hierarchy]) -> Finding:
    feature, tree, options = f"{name} controller", hierarchy_of(name, trees), named(OPTIONS[name])
    if tree is not None:
        works, shows = _ours(tree), f"v{tree.version}, {tree.home()}"
        shows += "" if works else ": this user may make no groups in it"
        return Finding(feature, works, shows, "as for control groups, above", options=options)
    if mountable(name) and os.geteuid() == 0 and not in_user_namespace():
        return Finding(feature, True, "v1, in no tree yet: mounted when it is needed", options=options)
    off = kernel.lacking(OPTIONS[name])
    shows = f"{named(off)[0]} not set" if off else missing(name)
    return Finding(feature, False, shows, build_with(off) if off else _mend(name), options=options)


def _mend(controller: str) -> str:
    why = missing(controller)
    if "command line" in why:
        return f"boot without cgroup_disable={controller}"
    if "takes root" in why:
        return "run as root"
    return build_with(OPTIONS[controller])


def _knob(
    kernel: Kernel, trees: list[Hierarchy], feature: str, controller: str, v1: str, v2: str, options: tuple[str, ...]
) -> Finding:
    """Whether a controller's groups have a file. The top of a tree may be without: then a group below tells."""
    tree = hierarchy_of(controller, trees)
    if tree is None:
        return Finding(
            feature, False, f"there is no {controller} controller", _mend(controller), options=named(options)
        )
    file = v1 if tree.version == 1 else v2
    if place := _somewhere(tree, file):
        return Finding(feature, True, f"v{tree.version}, {place}/{file}", options=named(options))
    if kernel.source and not kernel.lacking(options):
        return Finding(feature, True, f"v{tree.version}, set: {', '.join(options)}", options=named(options))
    return Finding(feature, False, f"no group has a file {file}", build_with(options), options=named(options))


def _somewhere(tree: Hierarchy, file: str) -> str | None:
    home = tree.home()
    places = [home, tree.mountpoint + tree.own.rstrip("/")]
    try:
        with os.scandir(home) as entries:
            places += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)][:8]
    except OSError:
        pass
    return next((place for place in places if os.path.exists(f"{place}/{file}")), None)


def _device_rules(trees: list[Hierarchy]) -> Finding:
    """Lists on v1; on v2 a BPF program, and a smallest one is given to the kernel, and attached to nothing."""
    feature, tree = "device rules", hierarchy_of("devices", trees)
    options = named(("CGROUP_DEVICE", "CGROUP_BPF"))
    if tree is not None and tree.version == 1:
        return Finding(feature, True, "v1: lists", options=options)
    if tree is None:
        return Finding(
            feature, False, "there is no tree for them", "mount -t cgroup2 cgroup2 /sys/fs/cgroup", False, options
        )
    error, said = attempt(_load_device_program)
    mend = "run as root, outside of any user namespace, on a kernel that is built with CONFIG_CGROUP_BPF"
    return Finding(feature, error == 0, "v2: BPF programs" if error == 0 else said, mend, options=options)


def _load_device_program() -> None:
    from minicontainer.linux.bpf import BPF_PROG_TYPE_CGROUP_DEVICE, leave, move, prog_load

    prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, [move(0, 1), leave()])


def _pressure() -> Finding:
    works = os.path.exists("/proc/pressure/cpu")
    shows = "/proc/pressure" if works else "there is no /proc/pressure"
    return Finding("pressure (PSI)", works, shows, "boot with psi=1, a kernel with CONFIG_PSI", options=named(("PSI",)))


def _birth(trees: list[Hierarchy]) -> Finding:
    """CLONE_INTO_CGROUP, tried with the group that we are in: nobody moves."""
    feature = "birth into a group"
    tree = next((tree for tree in trees if tree.version == 2), None)
    if tree is None:
        return Finding(feature, False, "there is no v2 tree", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")

    def give_birth() -> None:
        group = os.open(tree.mountpoint + tree.own, os.O_PATH | os.O_DIRECTORY)
        pid = clone3(CLONE_INTO_CGROUP, group)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    error, said = attempt(give_birth)
    shows = "clone3 with CLONE_INTO_CGROUP, v2" if error == 0 else said
    mend = "run Linux 5.7 or newer; without it, processes enter by themselves"
    if error in (errno.EACCES, errno.EPERM):
        mend = "as for control groups, above"
    return Finding(feature, error == 0, shows, mend)


def _ours(tree: Hierarchy) -> bool:
    """Whether this user may make groups in a tree."""
    return os.access(tree.home(), os.W_OK) and os.access(f"{tree.home()}/cgroup.procs", os.W_OK)
