"""What a container is to be: the parts of the OCI runtime specification's config.json that we know, under its names.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md, config-linux.md. A default leaves a thing as it
is; `runtime.bundle` makes these of a config.json, the engine of what its user wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minicontainer.linux import Namespace
from minicontainer.record import Record
from minicontainer.runtime.limits import Limits
from minicontainer.steps.user import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION = "1.2.0"
"""Of the specification that we keep to; memoryPolicy and netDevices are of 1.3."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
"""What is the host's memory, keys, hardware or timing, and is shown in every container's /proc and /sys."""

READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What every container's /proc shows of the host, and root could write to."""


MANAGED = "managed"
"""The `data` of a mount of control groups in which process 1 is to make groups of its own: see `steps.cgroup`."""


class Directory(Record):
    """A root file system that lies ready in a directory, and is used as it is."""

    path: str


class Overlay(Record):
    """A root file system of read-only layers, the topmost first, with a writable one on top, shown at `merged`."""

    lowers: Sequence[str]
    upper: str
    work: str
    merged: str
    mapped: bool = False
    """Whether owners of files are shown through the maps of the container's user namespace, and kept on disk as they
    would be without one."""


class Scratch(Record):
    """An empty root file system in memory, gone with the container; mounted, in its view only, at `path`."""

    path: str
    size: int
    """Bytes."""


class Mount(Record):
    """Something mounted in the container. Type "bind" takes `source` from the host; "cgroup" is the trees of control
    groups, as the container may see them; anything else is a file system."""

    destination: str
    type: str = "bind"
    source: str = ""
    readonly: bool = False
    data: str | None = None
    """The file system's own options, as in mount(8)'s -o: ``size=16m``."""
    options: Sequence[str] | None = None
    """Every option of a config.json, the file system's own and "ro" among them: `mount_options.parse_options` knows
    what they mean. None: there are just `readonly` and `data`, and the flags that suit the type."""
    uid_mappings: Sequence[IdMap] = ()
    """(first id in the source, first id that is seen, how many), where owners are to be shown through a map."""
    gid_mappings: Sequence[IdMap] = ()


class User(Record):
    """Who the program is, by numbers of the container's user namespace."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    """None: the caller's."""
    additional_gids: Sequence[int] = ()


class CapabilitySets(Record):
    """The five sets of a process, by names such as ``CAP_CHOWN``; capabilities(7)."""

    bounding: Sequence[str] = ()
    effective: Sequence[str] = ()
    inheritable: Sequence[str] = ()
    permitted: Sequence[str] = ()
    ambient: Sequence[str] = ()


class Scheduler(Record):
    """sched_setattr(2)."""

    policy: str
    """``SCHED_OTHER``…"""
    nice: int = 0
    priority: int = 0
    flags: Sequence[str] = ()
    """``SCHED_FLAG_RESET_ON_FORK``…"""
    runtime: int = 0
    """ns, as the next two: for SCHED_DEADLINE."""
    deadline: int = 0
    period: int = 0


class MemoryPolicy(Record):
    """set_mempolicy(2)."""

    mode: str
    """``MPOL_BIND``…"""
    nodes: str = ""
    """NUMA nodes, such as ``0-2,7``."""
    flags: Sequence[str] = ()
    """``MPOL_F_STATIC_NODES``…"""


class Device(Record):
    """A device file that is to be in the container."""

    path: str
    type: str
    """"c", "b", "u" (as "c"), or "p": a FIFO, without numbers."""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    """Permissions; None: rw for everybody."""
    uid: int | None = None
    gid: int | None = None


class Hook(Record):
    """A program that is run at some moment of a container's life."""

    path: str
    args: Sequence[str] = ()
    """With the program's own name as the first, as in execve(2)."""
    env: Sequence[str] = ()
    """``NAME=value``; all that it gets."""
    timeout: int | None = None
    """Seconds."""


class Hooks(Record):
    """The moments that there are: config.md, "POSIX-platform Hooks"."""

    prestart: Sequence[Hook] = ()
    create_runtime: Sequence[Hook] = ()
    create_container: Sequence[Hook] = ()
    start_container: Sequence[Hook] = ()
    poststart: Sequence[Hook] = ()
    poststop: Sequence[Hook] = ()


class Process(Record):
    """The program, and what it finds when it starts."""

    args: Sequence[str]
    """Empty only where a config.json has no `process` at all: it can be created, and not started."""
    env: Sequence[str] = (f"PATH={DEFAULT_PATH}", "HOME=/root")
    """``NAME=value``."""
    cwd: str = "/"
    terminal: bool = False
    """A terminal of its own, allocated inside; its master comes back from the start."""
    console_size: tuple[int, int] | None = None
    """Rows and columns of that terminal."""
    preserve_fds: Sequence[int] = ()
    """File descriptors of the caller that the program gets as 3, 4, …"""
    user: User = User()
    capabilities: CapabilitySets | None = None
    """None: those that it finds."""
    rlimits: Sequence[tuple[str, int, int]] = ()
    """(``RLIMIT_NOFILE``…, soft, hard); 2**64 - 1 is no limit. setrlimit(2)."""
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    """-1000 (never) to 1000 (first), when the kernel looks for whom to kill; proc(5)."""
    scheduler: Scheduler | None = None
    io_priority: tuple[str, int] | None = None
    """(``IOPRIO_CLASS_BE``…, 0 to 7, 0 before the others); ioprio_set(2)."""
    exec_cpu_affinity: tuple[str, str] = ("", "")
    """Of a program that joins the container later: the processors of whoever starts it, until it is in the control
    group; and its own from then on. Lists such as ``0-2,7``; "" leaves them."""
    apparmor_profile: str | None = None
    selinux_label: str | None = None


_NONE: Mapping[str, str] = {}


class Spec(Record):
    """One container."""

    id: str
    root: Directory | Overlay | Scratch
    process: Process
    hostname: str
    """"" leaves it as the namespace has it."""
    domainname: str | None = None
    namespaces: frozenset[Namespace] = frozenset(Namespace) - {Namespace.USER}
    """Those that are new; the others stay the caller's. PID and MOUNT are nearly always among them."""
    uid_mappings: Sequence[IdMap] = ()
    gid_mappings: Sequence[IdMap] = ()
    mounts: Sequence[Mount] = ()
    limits: Limits = Limits()
    group: str | None = None
    """The name of its control group, which may have groups of ours above it: ``web/1f3a``; None is `id`."""
    controllers: Sequence[str] = ()
    """Controllers (v1 names) that its group has if it can, beside those that `limits` need."""
    clock_offsets: tuple[int, int] = (0, 0)
    """Seconds by which the monotonic and the boot-time clock are ahead of the host's."""
    reaper: bool = True
    """Process 1 is ours: it reaps, and passes signals on. Otherwise it is the program itself."""
    die_with_parent: bool = True
    """The container does not outlive the process that started it, however that one ends."""
    root_readonly: bool = False
    joined: Sequence[tuple[Namespace, str]] = ()
    """(kind, path) of namespaces that are there already; none of them is in `namespaces`."""
    clock_nanoseconds: tuple[int, int] = (0, 0)
    """What is to be added to `clock_offsets`."""
    cgroups_path: str | None = None
    """As config.json has it: below the mount point of the trees if it begins with /, else where the runtime likes."""
    devices: Sequence[Device] = ()
    """Beside those of `steps.mount`."""
    net_devices: Sequence[tuple[str, str]] = ()
    """(name out here, name in there) of network devices that are moved into the container."""
    sysctl: Sequence[tuple[str, str]] = ()
    """(file below /proc/sys, value), each of a namespace that the container does not share with the host."""
    seccomp: Mapping[str, Any] | None = None
    """The filter as config.json has it; of the types that the specification says, but names may be any."""
    filter: tuple[bytes, int] | None = None
    """The same ready-made, in place of `seccomp`: the program and the flags to load it with."""
    landlock: Sequence[tuple[str, str]] = ()
    """What its programs may reach, and how, where that is to be said: path, words of `steps.landlock.RIGHTS`."""
    rootfs_propagation: str | None = None
    """shared, slave, private, unbindable, or one of them with an r."""
    masked_paths: Sequence[str] = ()
    readonly_paths: Sequence[str] = ()
    mount_label: str | None = None
    personality: str | None = None
    """LINUX or LINUX32."""
    memory_policy: MemoryPolicy | None = None
    intel_rdt: Mapping[str, Any] | None = None
    hooks: Hooks = Hooks()
    annotations: Mapping[str, str] = _NONE
    bundle: str = ""
    """The directory that config.json is in."""
    oci_version: str = OCI_VERSION
    warnings: Sequence[str] = ()
    """What is not as it should be in config.json, and will do: a line each, to be logged."""
    default_filesystems: bool = True
    """A /proc and a /dev of our making are mounted before `mounts`; otherwise those say all there is."""
    makes_cwd: bool = False
    """The program's working directory is made if it is not there. (Where a config.json says all, it always is.)"""
    no_pivot: bool = False
    """chroot(2) in place of pivot_root(2), for a host that runs from its initramfs."""
    new_keyring: bool = True

    def state(self, status: str, pid: int) -> dict[str, Any]:
        """The container's state, as hooks read it: runtime.md, "State"."""
        state = {"ociVersion": OCI_VERSION, "id": self.id, "status": status, "pid": pid, "bundle": self.bundle}
        return {**state, "annotations": dict(self.annotations)} if self.annotations else state
