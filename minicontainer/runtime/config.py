"""config.json, member by member: what each must be, what goes together, and the `Spec` that comes of it.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md, config-linux.md. The functions stand in the order
of these texts. Where they leave a choice, we refuse what runc and crun both refuse, take what either takes if it means
one thing only, and say in `Spec.warnings` what is outdated. Nothing here looks at the host, or changes anything.
"""

from __future__ import annotations

import itertools
import os

from minicontainer.linux import Namespace
from minicontainer.linux.capabilities import NAMES
from minicontainer.runtime.expect import INT32, INT64, UINT32, UINT64, Value, shown
from minicontainer.runtime.limits import EVERYDAY, read_resources
from minicontainer.runtime.spec import (
    OCI_VERSION,
    CapabilitySets,
    Device,
    Directory,
    Hook,
    Hooks,
    MemoryPolicy,
    Mount,
    Process,
    Scheduler,
    Spec,
    User,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.steps.user import IdMap

RLIMITS = "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()
"""setrlimit(2)."""
LANDLOCK = "org.minicontainer.landlock"
"""The annotation with rules for landlock(7)."""
PROPAGATIONS = ("shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable")
POLICIES = tuple(f"SCHED_{name}" for name in "OTHER FIFO RR BATCH ISO IDLE DEADLINE".split())
SCHEDULER_FLAGS = tuple(
    f"SCHED_FLAG_{name}"
    for name in "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX".split()
)
MEMORY_MODES = tuple(
    f"MPOL_{name}" for name in "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL".split()
)
MEMORY_FLAGS = tuple(f"MPOL_F_{name}" for name in "NUMA_BALANCING RELATIVE_NODES STATIC_NODES".split())
IPC_SYSCTLS = tuple(
    f"kernel/{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
"""sysctls of the IPC namespace; those below fs/mqueue are, too. ipc_namespaces(7)."""
MOST_MAPS = 340
"""Lines of a uid_map; user_namespaces(7)."""
LONGEST_NAME = 64
"""Bytes of a host name; sethostname(2)."""


def read_spec(config: Value, bundle: str, container_id: str) -> Spec:
    """What config.json, the only document of the bundle, says. Raises BundleError."""
    version, warnings = _version(config), list[str]()
    root = config["root"]
    path = root["path"].as_text() or root["path"].refuse('"" is no path')
    new, joined = _namespaces(config)
    kinds = new | {kind for kind, _ in joined}

    process = config.get("process")
    linux = config.get("linux") or Value({}, config.file, "linux")
    uids, gids = _mappings(linux, new, kinds)
    seconds, nanoseconds = _clocks(linux, new)
    limits, said = read_resources(linux.get("resources") or Value({}, config.file, "linux.resources"))
    return Spec(
        id=container_id,
        root=Directory(os.path.join(bundle, path)),
        process=read_process(process, warnings, version.startswith("1.0.")) if process else Process((), ()),
        hostname=_name(config, "hostname", kinds),
        domainname=_name(config, "domainname", kinds) or None,
        namespaces=new,
        uid_mappings=uids,
        gid_mappings=gids,
        mounts=[_mount(mount, bundle, kinds, warnings) for mount in config.items("mounts")],
        limits=limits,
        controllers=EVERYDAY,
        clock_offsets=seconds,
        reaper=False,
        die_with_parent=False,
        root_readonly=root.flag("readonly"),
        joined=joined,
        clock_nanoseconds=nanoseconds,
        cgroups_path=_cgroups_path(linux),
        devices=[_device(device) for device in linux.items("devices")],
        net_devices=_net_devices(linux, kinds),
        sysctl=_sysctl(linux, kinds, config.text("domainname")),
        seccomp=_seccomp(linux.get("seccomp")),
        rootfs_propagation=_choice(linux, "rootfsPropagation", PROPAGATIONS),
        masked_paths=_paths(linux, "maskedPaths", kinds),
        readonly_paths=_paths(linux, "readonlyPaths", kinds),
        mount_label=linux.text("mountLabel") or None,
        personality=_personality(linux.get("personality"), warnings),
        memory_policy=_memory_policy(linux.get("memoryPolicy")),
        intel_rdt=_intel_rdt(linux.get("intelRdt")),
        landlock=_landlock(config),
        hooks=_hooks(config.get("hooks")),
        annotations={name: value.as_text(nul=True) for name, value in config.members("annotations")},
        bundle=bundle,
        oci_version=version,
        warnings=(*warnings, *said),
    )


# config.md


def _version(config: Value) -> str:
    """Any 1.x: within a major version the specification promises compatibility; what is newer we do not know passes."""
    version = config["ociVersion"]
    parts = version.as_text().partition("+")[0].partition("-")[0].split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        version.refuse(f"{shown(version.value)} is no version such as {OCI_VERSION}")
    if parts[0] != "1":
        version.refuse(f"{shown(version.value)} is not 1.x, the versions of the specification that are known here")
    return version.as_text()


def _mount(mount: Value, bundle: str, kinds: frozenset[Namespace], warnings: list[str]) -> Mount:
    where, options = mount["destination"], mount.texts("options")
    destination, kind, source = where.as_text(), mount.text("type"), mount.text("source")
    if not destination:
        where.refuse('"" is no path')
    if not destination.startswith("/"):
        warnings.append(where.told(f"{shown(destination)} is not absolute, which is deprecated; it is taken from /"))
        destination = f"/{destination}"
    if kind == "bind" or "bind" in options or "rbind" in options:
        kind = "bind"
        source = os.path.join(bundle, source or mount["source"].as_text() or mount["source"].refuse('"" is no path'))
    elif not kind and not {"remount", *PROPAGATIONS}.intersection(options):
        mount.refuse("neither a type nor the option bind says what is to be mounted")

    uids, gids = (_id_maps(mount, name) for name in ("uidMappings", "gidMappings"))
    if bool(uids) != bool(gids):
        mount.refuse("uidMappings and gidMappings go together")
    if {"idmap", "ridmap"}.intersection(options) and not uids and Namespace.USER not in kinds:
        mount.refuse("the option idmap takes uidMappings and gidMappings, of the mount or of a user namespace")
    readonly = [option for option in options if option in ("ro", "rw")][-1:] == ["ro"]
    return Mount(destination, kind, source, readonly, None, options, uids, gids)


def read_process(process: Value, warnings: list[str], strict: bool = False) -> Process:
    """The object `process`, in a config.json or by itself. Raises BundleError."""
    args, env = process.texts("args"), process.items("env")
    if not args:
        process["args"].refuse("names no program")
    for item in env:
        if item.as_text().find("=") < 1:
            item.refuse(f"{shown(item.value)} is no NAME=value")
    terminal = process.flag("terminal")
    return Process(
        args=args,
        env=tuple([item.as_text() for item in env]),
        cwd=process["cwd"].as_path(),
        terminal=terminal,
        console_size=_console_size(process.get("consoleSize"), terminal),
        user=_user(process.get("user")),
        capabilities=_capabilities(process.get("capabilities"), warnings, strict),
        rlimits=_rlimits(process),
        no_new_privileges=process.flag("noNewPrivileges"),
        oom_score_adj=process.integer("oomScoreAdj", -1000, 1000),
        scheduler=_scheduler(process.get("scheduler")),
        io_priority=_io_priority(process.get("ioPriority")),
        exec_cpu_affinity=_affinity(process.get("execCPUAffinity")),
        apparmor_profile=process.text("apparmorProfile") or None,
        selinux_label=process.text("selinuxLabel") or None,
    )


def _console_size(size: Value | None, terminal: bool) -> tuple[int, int] | None:
    """Rows and columns; docker writes 0 × 0 where it does not know."""
    if size is None or not terminal:
        return None
    rows, columns = (size[name].as_integer(0, (1 << 16) - 1) for name in ("height", "width"))
    return (rows, columns) if rows and columns else None


def _user(user: Value | None) -> User:
    """Without a number, it is 0, as for runc and crun: whoever writes in Go leaves out no zero, and others often do."""
    if user is None:
        return User()
    return User(
        uid=user.integer("uid", *UINT32) or 0,
        gid=user.integer("gid", *UINT32) or 0,
        umask=user.integer("umask", 0, 0o777),
        additional_gids=tuple([item.as_integer(*UINT32) for item in user.items("additionalGids")]),
    )


def _capabilities(sets: Value | None, warnings: list[str], strict: bool) -> CapabilitySets:
    """Without any, there are none. What the kernel has no capability of is left out: config.md, "capabilities".

    `strict`: that is an error, as it had to be up to version 1.0 of the specification.
    """
    kept: dict[str, tuple[str, ...]] = {}
    for name in CapabilitySets.__match_args__:
        found = list[str]()
        for item in sets.items(name) if sets else ():
            if item.as_text().removeprefix("CAP_") not in NAMES or not item.value.startswith("CAP_"):
                told = f"{shown(item.value)} is no capability that is known here"
                if strict:
                    item.refuse(told)
                warnings.append(item.told(f"{told}; it is left out"))
            elif item.value not in found:
                found.append(item.value)
        kept[name] = tuple(found)
    return CapabilitySets(**kept)


def _rlimits(process: Value) -> Sequence[tuple[str, int, int]]:
    found: dict[str, tuple[str, int, int]] = {}
    for item in process.items("rlimits"):
        kind = item["type"].as_text()
        if not kind.startswith("RLIMIT_") or kind.removeprefix("RLIMIT_") not in RLIMITS:
            item["type"].refuse(f"{shown(kind)} is no resource of setrlimit(2)")
        if kind in found:
            item.refuse(f"there is a {kind} before it already")
        soft, hard = item["soft"].as_integer(*UINT64), item["hard"].as_integer(*UINT64)
        if soft > hard:
            item.refuse(f"the soft limit, {soft}, is above the hard one, {hard}")
        found[kind] = kind, soft, hard
    return tuple(found.values())


def _scheduler(scheduler: Value | None) -> Scheduler | None:
    """What sched_setattr(2) refuses, or does not look at."""
    if scheduler is None:
        return None
    policy = scheduler["policy"].as_choice(*POLICIES)
    nice, priority = scheduler.integer("nice", *INT32) or 0, scheduler.integer("priority", *INT32) or 0
    times = [scheduler.integer(name, *UINT64) or 0 for name in ("runtime", "deadline", "period")]
    if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= nice <= 19:
        scheduler["nice"].refuse(f"{nice} is not between -20 and 19")
    if priority and policy not in ("SCHED_FIFO", "SCHED_RR"):
        scheduler["priority"].refuse(f"{policy} has no priorities; SCHED_FIFO and SCHED_RR have")
    if policy == "SCHED_DEADLINE":
        _deadline(scheduler, *times)
    if any(times) and policy != "SCHED_DEADLINE":
        scheduler.refuse(f"{policy} has no runtime, deadline and period; SCHED_DEADLINE has")
    flags = scheduler.choices("flags", SCHEDULER_FLAGS)
    return Scheduler(policy, nice, priority, flags, *times)


def _deadline(scheduler: Value, runtime: int, deadline: int, period: int) -> None:
    """What sched_setattr(2) answers EINVAL to, in nanoseconds; sched(7), "SCHED_DEADLINE"."""
    least, most = 1 << 10, 1 << 63  # the kernel counts in units of 1024 ns
    for name in ("runtime", "deadline"):
        if scheduler.get(name) is None:
            scheduler.refuse(f"sched_setattr: `SCHED_DEADLINE` requires `{name}`")
    if runtime == 0:
        scheduler.refuse("sched_setattr: `SCHED_DEADLINE` runtime must be greater than 0")
    if not least <= runtime < most:
        scheduler.refuse(f"sched_setattr: `SCHED_DEADLINE` runtime {runtime} must be between {least} and {most - 1} ns")
    if runtime > deadline:
        scheduler.refuse(f"sched_setattr: `SCHED_DEADLINE` runtime ({runtime}) must be <= deadline ({deadline})")
    if period and deadline > period:
        scheduler.refuse(f"sched_setattr: `SCHED_DEADLINE` deadline ({deadline}) must be <= period ({period})")


def _io_priority(priority: Value | None) -> tuple[str, int] | None:
    if priority is None:
        return None
    kind = priority["class"].as_choice("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
    return kind, priority.integer("priority", 0, 7) or 0


def _affinity(affinity: Value | None) -> tuple[str, str]:
    if affinity is None:
        return "", ""
    first, last = (affinity.get(name) for name in ("initial", "final"))
    return first.as_numbers() if first else "", last.as_numbers() if last else ""


def _name(config: Value, which: str, kinds: frozenset[Namespace]) -> str:
    name = config.text(which)
    if name and Namespace.UTS not in kinds:
        config[which].refuse("takes a UTS namespace, or it would be the host's that changes")
    if len(name.encode()) > LONGEST_NAME:
        config[which].refuse(f"{shown(name)} is longer than {LONGEST_NAME} bytes")
    return name


def _hooks(hooks: Value | None) -> Hooks:
    if hooks is None:
        return Hooks()
    names = "prestart createRuntime createContainer startContainer poststart poststop".split()
    return Hooks(*(tuple([_hook(hook) for hook in hooks.items(name)]) for name in names))


def _hook(hook: Value) -> Hook:
    return Hook(hook["path"].as_path(), hook.texts("args"), hook.texts("env"), hook.integer("timeout", 1, INT32[1]))


# config-linux.md


def _namespaces(config: Value) -> tuple[frozenset[Namespace], Sequence[tuple[Namespace, str]]]:
    """Those that are new, and those that are joined. Whether a path is one of its kind is seen when it is opened."""
    linux, names = config.get("linux"), [kind.name.lower() for kind in Namespace]
    new, joined = set[Namespace](), list[tuple[Namespace, str]]()
    for item in linux.items("namespaces") if linux else ():
        kind = Namespace[item["type"].as_choice(*names).upper()]
        if kind in new or any(kind is other for other, _ in joined):
            item.refuse(f"there is a {kind.name.lower()} namespace before it already")
        if item.text("path"):
            joined.append((kind, item["path"].as_path()))
        else:
            new.add(kind)
    return frozenset(new), tuple(joined)


def _mappings(
    linux: Value, new: frozenset[Namespace], kinds: frozenset[Namespace]
) -> tuple[Sequence[IdMap], Sequence[IdMap]]:
    """The maps of a new user namespace. One that is joined has its own, whatever containerd says again here."""
    uids, gids = _id_maps(linux, "uidMappings"), _id_maps(linux, "gidMappings")
    if (uids or gids) and Namespace.USER not in kinds:
        linux["uidMappings" if uids else "gidMappings"].refuse("there is no user namespace that they could be of")
    if Namespace.USER not in new:
        return (), ()
    if bool(uids) != bool(gids):
        linux.refuse("a user namespace takes uidMappings and gidMappings, or neither of them")
    return uids, gids


def _id_maps(owner: Value, name: str) -> Sequence[IdMap]:
    maps: list[IdMap] = []
    for item in owner.items(name):
        inside, outside, size = (item[part].as_integer(*UINT32) for part in ("containerID", "hostID", "size"))
        if not size or max(inside, outside) + size > 1 << 32:
            item.refuse(f"{size} ids from {inside} (inside) and {outside} (outside) on cannot be mapped")
        maps.append((inside, outside, size))
    if len(maps) > MOST_MAPS:
        owner[name].refuse(f"has {len(maps)} lines, and the kernel takes {MOST_MAPS}")
    for side in (0, 1):
        ranges = sorted((line[side], line[side] + line[2]) for line in maps)
        if any(before[1] > after[0] for before, after in itertools.pairwise(ranges)):
            owner[name].refuse(f"the same id is mapped twice {'inside' if side == 0 else 'outside'}")
    return tuple(maps)


def _clocks(linux: Value, new: frozenset[Namespace]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Seconds and nanoseconds, each of the monotonic and of the boot-time clock."""
    offsets = {"monotonic": (0, 0), "boottime": (0, 0)}
    for clock, offset in linux.members("timeOffsets"):
        if clock not in offsets:
            offset.refuse("a time namespace has the clocks monotonic and boottime, and no other")
        offsets[clock] = offset.integer("secs", *INT64) or 0, offset.integer("nanosecs", 0, 999_999_999) or 0
    if any(map(any, offsets.values())) and Namespace.TIME not in new:
        linux["timeOffsets"].refuse("there is no new time namespace whose clocks they could be")
    seconds, nanoseconds = zip(*offsets.values(), strict=True)
    return seconds, nanoseconds


def _device(device: Value) -> Device:
    """Go leaves a zero out: without a number it is that, although the text wants it."""
    kind = device["type"].as_choice("c", "b", "u", "p")
    return Device(
        device["path"].as_path(),
        kind,
        device.integer("major", 0, (1 << 12) - 1) or 0 if kind != "p" else 0,
        device.integer("minor", 0, (1 << 20) - 1) or 0 if kind != "p" else 0,
        None if (mode := device.integer("fileMode", *UINT32)) is None else mode & 0o7777,
        device.integer("uid", *UINT32),
        device.integer("gid", *UINT32),
    )


def _net_devices(linux: Value, kinds: frozenset[Namespace]) -> Sequence[tuple[str, str]]:
    found = list[tuple[str, str]]()
    for outside, device in linux.members("netDevices"):
        inside = device.text("name") or outside
        for name in (outside, inside):
            if name in ("", ".", "..") or set(name) & set("/: \n\t\0") or len(name.encode(errors="replace")) > 15:
                device.refuse(f"{shown(name)} cannot be the name of a network device")
        found.append((outside, inside))
    if found and Namespace.NETWORK not in kinds:
        linux["netDevices"].refuse("there is no network namespace to move them into")
    return tuple(found)


def _landlock(config: Value) -> Sequence[tuple[str, str]]:
    """Ours, in an annotation, as the specification has no word: ``{"/usr": "read execute", "/tmp": "read write"}``."""
    annotations = config.get("annotations")
    wanted = annotations.get(LANDLOCK) if annotations else None
    if wanted is None:
        return ()
    import json

    from minicontainer.steps.landlock import RIGHTS

    try:
        rules = Value(json.loads(wanted.as_text()), config.file, wanted.path)
    except (ValueError, RecursionError) as error:
        wanted.refuse(f"is no JSON: {error}")
    found = list[tuple[str, str]]()
    for path, rights in rules.as_members():
        if not path.startswith("/") or "\0" in path:
            rights.refuse(f"{shown(path)} is no absolute path")
        for word in rights.as_text().split():
            if word not in RIGHTS:
                rights.refuse(f"{shown(word)} is none of {', '.join(RIGHTS)}")
        found.append((path, rights.as_text()))
    if not found:
        wanted.refuse("names no path that its program could be read from")
    return tuple(found)


def _cgroups_path(linux: Value) -> str | None:
    """``slice:prefix:name`` too, as who uses systemd for groups writes it."""
    path = linux.text("cgroupsPath")
    if ".." in path.split("/"):
        linux["cgroupsPath"].refuse(f"{shown(path)} leads out of where it begins")
    return path or None


def _sysctl(linux: Value, kinds: frozenset[Namespace], domainname: str) -> Sequence[tuple[str, str]]:
    """Only what belongs to a namespace that the container has for itself: everything else is the host's."""
    found = list[tuple[str, str]]()
    for name, value in linux.members("sysctl"):
        from minicontainer.linux.procfs import sysctl_file  # most configurations have none

        try:
            file = sysctl_file(name)
        except ValueError:
            value.refuse("is no name such as net.ipv4.ip_forward")
        top = file.split("/")[0]
        if file == "kernel/hostname":
            value.refuse("say it as hostname")
        if file in IPC_SYSCTLS or file.startswith("fs/mqueue/"):
            kind = Namespace.IPC
        elif file == "kernel/domainname":
            kind = Namespace.UTS
            if domainname and value.as_text() != domainname:
                value.refuse(f"domainname says {shown(domainname)}: one of the two would be lost")
        elif top in ("net", "user"):
            kind = Namespace.NETWORK if top == "net" else Namespace.USER
        else:
            value.refuse("is of no namespace: it would change the host's")
        if kind not in kinds:
            value.refuse(f"takes a {kind.name.lower()} namespace, or it would change the host's")
        found.append((file, value.as_text()))
    return tuple(found)


def _seccomp(seccomp: Value | None) -> dict[str, object] | None:
    """The types only: what the names of calls, actions and architectures mean is known to `steps.seccomp`."""
    if seccomp is None:
        return None
    seccomp["defaultAction"].as_text()
    seccomp.integer("defaultErrnoRet", *UINT32)
    seccomp.texts("architectures"), seccomp.texts("flags")
    if seccomp.text("listenerMetadata") and not seccomp.text("listenerPath"):
        seccomp["listenerMetadata"].refuse("takes a listenerPath")
    for call in seccomp.items("syscalls"):
        if not call.texts("names"):
            call["names"].refuse("names no system call")
        call["action"].as_text()
        call.integer("errnoRet", *UINT32)
        for argument in call.items("args"):
            argument["index"].as_integer(0, 5)
            argument["value"].as_integer(*UINT64)
            argument.integer("valueTwo", *UINT64)
            argument["op"].as_text()
    return {name: _present(part) for name, part in seccomp.as_object().items() if part is not None}


def _present(part: object) -> object:
    """Without the members of objects in an array that are null, as docker's writer has them."""
    if isinstance(part, list):
        return [{key: _present(value) for key, value in item.items() if value is not None}
                if isinstance(item, dict) else item for item in part]  # fmt: skip
    return part


def _choice(owner: Value, name: str, choices: Sequence[str]) -> str | None:
    found = owner.get(name)
    return found.as_choice(*choices) if found and found.value != "" else None


def _paths(linux: Value, name: str, kinds: frozenset[Namespace]) -> Sequence[str]:
    paths = tuple([item.as_path() for item in linux.items(name)])
    if paths and Namespace.MOUNT not in kinds:
        linux[name].refuse("takes a mount namespace, or it would change the host's mounts")
    return paths


def _personality(personality: Value | None, warnings: list[str]) -> str | None:
    if personality is None:
        return None
    if personality.texts("flags"):
        warnings.append(personality["flags"].told("the specification knows no flags; they are left out"))
    return personality["domain"].as_choice("LINUX", "LINUX32")


def _memory_policy(policy: Value | None) -> MemoryPolicy | None:
    """What set_mempolicy(2) refuses whatever nodes there are."""
    if policy is None:
        return None
    mode, flags = policy["mode"].as_choice(*MEMORY_MODES), policy.choices("flags", MEMORY_FLAGS)
    nodes = policy["nodes"].as_numbers() if policy.get("nodes") else ""
    if nodes and mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        policy["nodes"].refuse(f"{mode} takes no nodes")
    if not nodes and mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"):
        policy.refuse(f"{mode} takes nodes")
    if {"MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"} <= {*flags}:
        policy["flags"].refuse("nodes are either static or relative")
    if "MPOL_F_NUMA_BALANCING" in flags and mode not in ("MPOL_BIND", "MPOL_PREFERRED_MANY"):
        policy["flags"].refuse("MPOL_F_NUMA_BALANCING goes with MPOL_BIND and MPOL_PREFERRED_MANY only")
    return MemoryPolicy(mode, nodes, flags)


def _intel_rdt(rdt: Value | None) -> dict[str, object] | None:
    """Whether this machine has it is seen by `bundle.specification`."""
    if rdt is None:
        return None
    closid = rdt.text("closID")
    if closid in (".", "..") or ("/" in closid and closid != "/"):
        rdt["closID"].refuse(f"{shown(closid)} cannot be the name of a directory of resctrl")
    for line in (rdt.text("l3CacheSchema"), rdt.text("memBwSchema"), *rdt.texts("schemata")):
        if "\n" in line:
            rdt.refuse(f"{shown(line)} is more than one line of schemata")
    rdt.flag("enableMonitoring")
    return rdt.as_object()
