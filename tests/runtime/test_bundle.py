"""What is read of a config.json, and what is refused, in which words. Nothing is started here."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minicontainer.linux import Namespace
from minicontainer.runtime import expect
from minicontainer.runtime.bundle import check_id, default_config, load, load_process, open_namespace, specification
from minicontainer.runtime.errors import BundleError
from minicontainer.runtime.limits import EVERYDAY, Limits, apply, read_resources
from minicontainer.runtime.spec import CapabilitySets, Device, Directory, Hook, MemoryPolicy, Scheduler, Spec, User
from minicontainer.steps import Steps
from minicontainer.steps.group import LimitUnavailable
from tests.command import needs_root

MIB = 1 << 20
MINIMAL: dict[str, Any] = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A directory with an empty root in it."""
    (tmp_path / "rootfs").mkdir()
    return tmp_path


def changed(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a place such as ``linux.namespaces.0.type``; `...` takes it away."""
    config = copy.deepcopy(config)
    owner: Any = config
    *way, last = place.split(".")
    for step, following in zip(way, [*way[1:], last], strict=False):
        if isinstance(owner, list):
            owner = owner[int(step)]
        else:
            owner = owner.setdefault(step, [] if following.isdecimal() else {})
    if value is ...:
        owner.pop(int(last) if isinstance(owner, list) else last, None)
    elif isinstance(owner, list):
        owner[int(last) : int(last) + 1] = [value]
    else:
        owner[last] = value
    return config


def read(bundle: Path, config: Any) -> Spec:
    """As a runtime does: from the file."""
    (bundle / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return specification(load(str(bundle)), str(bundle), "c1")


def refusal(bundle: Path, config: Any) -> str:
    """The one line with which it is refused."""
    with pytest.raises(BundleError) as caught:
        read(bundle, config)
    assert caught.value.exit_code == 1
    text = str(caught.value)
    assert "\n" not in text and text.isprintable() and len(text) < 400
    return text


# Configurations that other programs write

RUNC_SPEC: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {
            kind: ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"] for kind in ("bounding", "effective", "permitted")
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "runc",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
    ],
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
        "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}  # fmt: skip

RUNC_ROOTLESS = copy.deepcopy(RUNC_SPEC)
del RUNC_ROOTLESS["linux"]["resources"]
RUNC_ROOTLESS["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup", "user")]
RUNC_ROOTLESS["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}]
RUNC_ROOTLESS["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}]
RUNC_ROOTLESS["mounts"][-2:] = [
    {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
]

CRUN_SPEC = changed(changed(RUNC_SPEC, "ociVersion", "1.0.0"), "hostname", "crun")
CRUN_SPEC["process"]["capabilities"] |= {"inheritable": [], "ambient": []}
CRUN_SPEC["linux"]["namespaces"].append({"type": "user", "path": None})
CRUN_SPEC["linux"] |= {
    f"{kind}Mappings": [{"containerID": 0, "hostID": 0, "size": 4294967295}] for kind in ("uid", "gid")
}

PODMAN: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [0, 1, 2, 3, 4, 6, 10]},
        "args": ["top"],
        "env": ["container=podman", "PATH=/bin", "HOME=/root", "HOSTNAME=0a1b2c", "EMPTY="],
        "cwd": "/",
        "capabilities": {kind: ["CAP_CHOWN", "CAP_SETFCAP"] for kind in ("bounding", "effective", "permitted")},
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "hard": 1048576, "soft": 1048576},
            {"type": "RLIMIT_NPROC", "hard": 18446744073709551615, "soft": 4194304},
        ],
        "oomScoreAdj": 0,
    },
    "root": {"path": "/ROOT/merged"},
    "hostname": "0a1b2c",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/etc/hosts", "type": "bind", "source": "/run/c/userdata/hosts", "options": ["bind", "rprivate"]},
        {"destination": "/dev/shm", "type": "bind", "source": "/run/c/userdata/shm", "options": ["bind", "rprivate", "nosuid", "noexec", "nodev"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rprivate", "nosuid", "noexec", "nodev", "relatime", "ro"]},
    ],
    "hooks": {"createRuntime": [{"path": "/usr/libexec/hook", "args": ["hook", "-x"], "env": ["A=b"], "timeout": 10}]},
    "annotations": {"io.container.manager": "libpod", "io.podman.annotations.init": "FALSE", "org.opencontainers.image.stopSignal": "15"},
    "linux": {
        "sysctl": {"net.ipv4.ping_group_range": "0 0"},
        "resources": {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
            ],
            "memory": {"limit": 64 * MIB, "swap": 128 * MIB},
            "pids": {"limit": 2048},
        },
        "cgroupsPath": "machine.slice:libpod:0a1b2c",
        "namespaces": [
            {"type": "pid"},
            {"type": "network", "path": "/proc/self/ns/net"},
            {"type": "ipc"},
            {"type": "uts"},
            {"type": "mount"},
            {"type": "cgroup"},
        ],
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": ["accept", "bind"], "action": "SCMP_ACT_ALLOW", "args": None},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            ],
        },
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/acpi", "/proc/kcore"],
        "readonlyPaths": ["/proc/bus", "/proc/sys"],
    },
}  # fmt: skip

DOCKER = changed(PODMAN, "linux.cgroupsPath", "/docker/0a1b2c")
DOCKER["process"] |= {"terminal": True, "consoleSize": {"height": 0, "width": 0}, "apparmorProfile": "docker-default"}
DOCKER["linux"] |= {"mountLabel": "", "sysctl": None}
DOCKER["linux"]["resources"] |= {
    "memory": {"disableOOMKiller": False},
    "cpu": {"shares": 0},
    "pids": {},
    "blockIO": {"weight": 0},
}
DOCKER["hooks"] = {"prestart": [{"path": "/proc/1/exe", "args": ["libnetwork-setkey", "-exec-root=/var/run/docker"]}]}

WRITTEN = {"runc": RUNC_SPEC, "rootless": RUNC_ROOTLESS, "crun": CRUN_SPEC, "podman": PODMAN, "docker": DOCKER,
           "minimal": MINIMAL}  # fmt: skip


@pytest.mark.parametrize("writer", WRITTEN)
def test_what_other_programs_write_is_read(bundle: Path, writer: str) -> None:
    config = WRITTEN[writer]
    if config["root"]["path"].startswith("/"):
        config = changed(changed(config, "root.path", str(bundle / "rootfs")), "linux.sysctl", ...)
    spec = read(bundle, config)
    assert spec.root == Directory(os.path.realpath(bundle / "rootfs"))
    assert spec.warnings == ()
    assert [mount.destination for mount in spec.mounts] == [mount["destination"] for mount in config.get("mounts", ())]


def test_podman_by_parts(bundle: Path) -> None:
    spec = read(bundle, changed(changed(PODMAN, "root.path", str(bundle / "rootfs")), "linux.namespaces.1.path", None))
    assert spec.id == "c1" and spec.bundle == os.path.realpath(bundle)
    assert spec.process.user == User(0, 0, 18, (0, 1, 2, 3, 4, 6, 10))
    assert spec.process.rlimits[1] == ("RLIMIT_NPROC", 4194304, (1 << 64) - 1)
    assert spec.process.capabilities == CapabilitySets(
        *[("CAP_CHOWN", "CAP_SETFCAP")] * 2, permitted=("CAP_CHOWN", "CAP_SETFCAP")
    )
    assert (spec.process.oom_score_adj, spec.process.console_size, spec.process.no_new_privileges) == (0, None, False)
    assert spec.namespaces == frozenset(Namespace) - {Namespace.USER, Namespace.TIME} and spec.joined == ()
    assert spec.limits == Limits(memory=64 * MIB, memory_swap=128 * MIB, pids=2048, devices=(("c", 10, 229, "rwm"),))
    assert spec.devices == [Device("/dev/fuse", "c", 10, 229, 0o666, 0, 0)]
    assert spec.hooks.create_runtime == (Hook("/usr/libexec/hook", ("hook", "-x"), ("A=b",), 10),)
    assert spec.sysctl == (("net/ipv4/ping_group_range", "0 0"),)
    assert spec.annotations["io.container.manager"] == "libpod"
    assert spec.cgroups_path == "machine.slice:libpod:0a1b2c" and spec.rootfs_propagation == "rslave"
    assert spec.mounts[1].type == "bind" and spec.mounts[1].options == ("bind", "rprivate")
    assert (spec.mounts[1].readonly, spec.mounts[3].readonly) == (False, True)
    assert spec.seccomp is not None and spec.seccomp["syscalls"][0] == {
        "names": ["accept", "bind"],
        "action": "SCMP_ACT_ALLOW",
    }
    assert (spec.reaper, spec.die_with_parent, spec.controllers) == (False, False, EVERYDAY)


def test_docker_leaves_things_as_they_are(bundle: Path) -> None:
    spec = read(bundle, changed(DOCKER, "root.path", "rootfs"))
    assert spec.limits == Limits(devices=(("c", 10, 229, "rwm"),))
    assert spec.process.console_size is None and spec.process.terminal and spec.mount_label is None


def test_the_least_that_there_can_be(bundle: Path) -> None:
    """Without `linux`, every namespace is the caller's; without `process`, it can be created, and not started."""
    spec = read(bundle, MINIMAL)
    assert (spec.namespaces, spec.joined, spec.process.args, spec.hostname) == (frozenset(), (), (), "")
    assert spec.limits == Limits(devices=())


def test_a_process_without_capabilities_has_none(bundle: Path) -> None:
    spec = read(bundle, changed(MINIMAL, "process", {"args": ["/x"], "cwd": "/"}))
    assert spec.process.capabilities == CapabilitySets() and spec.process.env == ()


@pytest.mark.parametrize("rootless", [False, True])
def test_what_we_write_ourselves(bundle: Path, rootless: bool) -> None:
    config = default_config(rootless)
    spec = read(bundle, config)
    assert spec.process.no_new_privileges and spec.root_readonly and spec.warnings == ()
    assert spec.process.capabilities and len(spec.process.capabilities.bounding) == 14
    assert Namespace.CGROUP in spec.namespaces and (Namespace.USER in spec.namespaces) == rootless
    assert "/proc/kcore" in spec.masked_paths and "/proc/sys" in spec.readonly_paths
    assert spec.uid_mappings == (((0, os.geteuid(), 1),) if rootless else ())
    config["mounts"][0]["options"].append("changed")
    assert "changed" not in str(default_config(rootless)), "each is one's own"


def test_everything_that_there_is(bundle: Path) -> None:
    config = changed(
        RUNC_SPEC, "linux.namespaces", [{"type": kind.name.lower()} for kind in Namespace if kind.name != "USER"]
    )
    for place, value in {
        "domainname": "example.org",
        "process.scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 4000, "flags": ["SCHED_FLAG_RECLAIM"]},
        "process.ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "process.execCPUAffinity": {"initial": "7", "final": "0-3, 7"},
        "process.consoleSize": {"height": 25, "width": 80},
        "process.selinuxLabel": "system_u:system_r:svirt_lxc_net_t:s0:c124,c675",
        "linux.timeOffsets": {"monotonic": {"secs": 172800, "nanosecs": 7}, "boottime": {"secs": -5}},
        "linux.memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        "linux.personality": {"domain": "LINUX32"},
        "linux.netDevices": {"eth7": {"name": "inside"}, "eth8": {}},
        "linux.sysctl": {"kernel.shmmax": "1", "fs/mqueue/msg_max": "2", "net.ipv4.conf.eno2/100.rp_filter": "3", "kernel.domainname": "example.org"},
        "linux.devices": [{"path": "/dev/p", "type": "p"}, {"path": "/dev/sda", "type": "b", "major": 8}],
    }.items():  # fmt: skip
        config = changed(config, place, value)
    spec = read(bundle, config)
    process = spec.process
    assert process.scheduler == Scheduler(
        "SCHED_DEADLINE", flags=("SCHED_FLAG_RECLAIM",), runtime=2000, deadline=3000, period=4000
    )
    assert (process.io_priority, process.exec_cpu_affinity, process.console_size) == (
        ("IOPRIO_CLASS_BE", 4),
        ("7", "0-3,7"),
        (25, 80),
    )
    assert (spec.clock_offsets, spec.clock_nanoseconds) == ((172800, -5), (7, 0))
    assert spec.memory_policy == MemoryPolicy("MPOL_INTERLEAVE", "0-1", ("MPOL_F_STATIC_NODES",))
    assert (spec.personality, spec.domainname) == ("LINUX32", "example.org")
    assert spec.net_devices == (("eth7", "inside"), ("eth8", "eth8"))
    files = ["kernel/shmmax", "fs/mqueue/msg_max", "net/ipv4/conf/eno2.100/rp_filter", "kernel/domainname"]
    assert [file for file, _ in spec.sysctl] == files
    assert spec.devices == [Device("/dev/p", "p"), Device("/dev/sda", "b", 8, 0)]


# What is deprecated, or unknown


def test_warnings(bundle: Path) -> None:
    config = changed(RUNC_SPEC, "process.capabilities.bounding", ["CAP_KILL", "CAP_TEST", "cap_chown", "CAP_KILL"])
    config = changed(config, "mounts.0.destination", "proc")
    config = changed(config, "linux.resources.memory", {"kernel": 5, "kernelTCP": -1})
    config = changed(config, "linux.personality", {"domain": "LINUX", "flags": ["X"]})
    spec = read(bundle, config)
    assert spec.process.capabilities and spec.process.capabilities.bounding == ("CAP_KILL",)
    assert spec.mounts[0].destination == "/proc"
    assert [warning.split(": ")[1] for warning in spec.warnings] == [
        "process.capabilities.bounding[1]", "process.capabilities.bounding[2]", "mounts[0].destination",
        "linux.personality.flags", "linux.resources.memory.kernel",
    ]  # fmt: skip


def test_unknown_members_pass(bundle: Path) -> None:
    config = RUNC_SPEC
    for place in (
        "x",
        "process.x",
        "root.x",
        "linux.x",
        "linux.resources.x",
        "windows",
        "mounts.0.x",
        "process.user.username",
    ):
        config = changed(config, place, {"any": [1.5, None, {"thing": True}]})
    assert read(bundle, config).replace(warnings=()) == read(bundle, RUNC_SPEC)


def test_null_is_as_if_it_were_not_there(bundle: Path) -> None:
    config = MINIMAL | dict.fromkeys(("process", "hostname", "mounts", "hooks", "linux", "annotations"))
    assert read(bundle, config) == read(bundle, MINIMAL)


def test_versions(bundle: Path) -> None:
    for version in ("1.0.0", "1.0.2-dev", "1.0.0-rc5", "1.3.0+dev", "1.99.7"):
        assert read(bundle, changed(MINIMAL, "ociVersion", version)).oci_version == version
    for version in ("0.1.0", "2.0.0", "1", "1.2", "1.x.0", "invalid", "", "1.2.0.0", "١.2.0"):
        assert "config.json: ociVersion: " in refusal(bundle, changed(MINIMAL, "ociVersion", version))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "is no object"),
        ("{}", "names no path"),
        ('{"tmp": "read"}', '"tmp" is no absolute path'),
        ('{"/tmp": 7}', "is no string"),
        ('{"/tmp": "read sing"}', '"sing" is none of read, execute'),
    ],
)
def test_rules_for_landlock_that_are_none(bundle: Path, text: str, said: str) -> None:
    refused = refusal(bundle, changed(MINIMAL, "annotations", {"org.minicontainer.landlock": text}))
    assert refused.startswith('config.json: annotations["org.minicontainer.landlock"]') and said in refused


def test_a_domain_name_that_is_said_twice_is_said_the_same(bundle: Path) -> None:
    config = changed(changed(MINIMAL, "domainname", "a.org"), "linux.namespaces", [{"type": "uts"}])
    assert read(bundle, changed(config, "linux.sysctl", {"kernel.domainname": "a.org"})).domainname == "a.org"
    refused = refusal(bundle, changed(config, "linux.sysctl", {"kernel.domainname": "b.org"}))
    assert 'linux.sysctl["kernel.domainname"]: domainname says "a.org"' in refused


def test_rules_for_landlock(bundle: Path) -> None:
    text = '{"/usr": "read execute", "/tmp": "read write"}'
    spec = read(bundle, changed(MINIMAL, "annotations", {"org.minicontainer.landlock": text}))
    assert spec.landlock == (("/usr", "read execute"), ("/tmp", "read write"))


def test_ten_megabytes_of_annotations(bundle: Path) -> None:
    annotations = {f"org.example.{number}": "x" * 1000 for number in range(10_000)} | {"": "", "nul": "\0", "a\nb": "é"}
    assert read(bundle, changed(MINIMAL, "annotations", annotations)).annotations == annotations
    annotations["org.example.bad"] = ["y" * 1000] * 10_000  # type: ignore[assignment]
    text = refusal(bundle, changed(MINIMAL, "annotations", annotations))
    assert text == 'config.json: annotations["org.example.bad"]: an array is no string'


# What is refused

BAD: list[tuple[str, Any, str]] = [
    # place, value there, the line that says so, after "config.json: "
    ("ociVersion", ..., "ociVersion: is missing"),
    ("ociVersion", 1, "ociVersion: 1 is no string"),
    ("root", ..., "root: is missing"),
    ("root", "rootfs", 'root: "rootfs" is no object'),
    ("root.path", ..., "root.path: is missing"),
    ("root.path", "", 'root.path: "" is no path'),
    ("root.path", "a\0b", 'root.path: "a\\u0000b" has a NUL character in it'),
    ("root.path", "\ud800", 'root.path: "\\ud800" has half a character in it, a lone surrogate'),
    ("root.readonly", "yes", 'root.readonly: "yes" is neither true nor false'),
    ("root.readonly", 1, "root.readonly: 1 is neither true nor false"),
    ("process", [], "process: an array is no object"),
    ("process.args", ..., "process.args: is missing"),
    ("process.args", [], "process.args: names no program"),
    ("process.args", "sh", 'process.args: "sh" is no array'),
    ("process.args", ["sh", 1], "process.args[1]: 1 is no string"),
    ("process.args", ["sh", None], "process.args[1]: null is no string"),
    ("process.env", ["A=1", "FOO"], 'process.env[1]: "FOO" is no NAME=value'),
    ("process.env", ["=1"], 'process.env[0]: "=1" is no NAME=value'),
    ("process.cwd", ..., "process.cwd: is missing"),
    ("process.cwd", "", 'process.cwd: "" is no absolute path'),
    ("process.cwd", "home", 'process.cwd: "home" is no absolute path'),
    ("process.terminal", 0, "process.terminal: 0 is neither true nor false"),
    ("process.consoleSize", {"height": 1}, "process.consoleSize.width: is missing"),
    ("process.consoleSize", {"height": -1, "width": 1}, "process.consoleSize.height: -1 is not between 0 and 65535"),
    ("process.user.uid", -1, "process.user.uid: -1 is not between 0 and 4294967295"),
    ("process.user.uid", 1 << 32, "process.user.uid: 4294967296 is not between 0 and 4294967295"),
    ("process.user.gid", "root", 'process.user.gid: "root" is no integer'),
    ("process.user.gid", True, "process.user.gid: true is no integer"),
    ("process.user.gid", 1.0, "process.user.gid: 1.0 is no integer"),
    ("process.user.umask", 0o1000, "process.user.umask: 512 is not between 0 and 511"),
    ("process.user.additionalGids", [5, "x"], 'process.user.additionalGids[1]: "x" is no integer'),
    ("process.capabilities", ["CAP_KILL"], "process.capabilities: an array is no object"),
    ("process.capabilities.ambient", "CAP_KILL", 'process.capabilities.ambient: "CAP_KILL" is no array'),
    ("process.rlimits", [{"type": "RLIMIT_TEST", "soft": 1, "hard": 1}], 'process.rlimits[0].type: "RLIMIT_TEST" is no resource of setrlimit(2)'),
    ("process.rlimits", [{"type": "NOFILE", "soft": 1, "hard": 1}], 'process.rlimits[0].type: "NOFILE" is no resource of setrlimit(2)'),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "process.rlimits[0]: the soft limit, 2, is above the hard one, 1"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": -1, "hard": 1}], "process.rlimits[0].soft: -1 is not between 0 and 18446744073709551615"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 1}], "process.rlimits[0].hard: is missing"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2, "process.rlimits[1]: there is a RLIMIT_CPU before it already"),
    ("process.oomScoreAdj", 1001, "process.oomScoreAdj: 1001 is not between -1000 and 1000"),
    ("process.scheduler", {}, "process.scheduler.policy: is missing"),
    ("process.scheduler.policy", "SCHED_X", 'process.scheduler.policy: "SCHED_X" is none of SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_ISO, SCHED_IDLE, SCHED_DEADLINE'),
    ("process.scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice: 20 is not between -20 and 19"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "priority": 1}, "process.scheduler.priority: SCHED_OTHER has no priorities; SCHED_FIFO and SCHED_RR have"),
    ("process.scheduler", {"policy": "SCHED_FIFO", "period": 1}, "process.scheduler: SCHED_FIFO has no runtime, deadline and period; SCHED_DEADLINE has"),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority: 8 is not between 0 and 7"),
    ("process.execCPUAffinity.initial", "3-1", 'process.execCPUAffinity.initial: "3-1" is no list of numbers such as 0-2,7'),
    ("hostname", 5, "hostname: 5 is no string"),
    ("hostname", "x" * 65, 'hostname: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... is longer than 64 bytes'),
    ("mounts", {}, "mounts: an object is no array"),
    ("mounts.0", None, "mounts[0]: null is no object"),
    ("mounts.0.destination", ..., "mounts[0].destination: is missing"),
    ("mounts.0.destination", "", 'mounts[0].destination: "" is no path'),
    ("mounts.0.type", ..., "mounts[0]: neither a type nor the option bind says what is to be mounted"),
    ("mounts.0", {"destination": "/x", "options": ["rbind"]}, "mounts[0].source: is missing"),
    ("mounts.0.options", ["ro", 1], "mounts[0].options[1]: 1 is no string"),
    ("mounts.0.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "mounts[0]: uidMappings and gidMappings go together"),
    ("mounts.0.options", ["idmap"], "mounts[0]: the option idmap takes uidMappings and gidMappings, of the mount or of a user namespace"),
    ("hooks.prestart", [{}], "hooks.prestart[0].path: is missing"),
    ("hooks.poststop", [{"path": "true"}], 'hooks.poststop[0].path: "true" is no absolute path'),
    ("hooks.startContainer", [{"path": "/x", "timeout": 0}], "hooks.startContainer[0].timeout: 0 is not between 1 and 2147483647"),
    ("annotations", {"a": 1}, "annotations.a: 1 is no string"),
    ("linux", [], "linux: an array is no object"),
    ("linux.namespaces.0.type", "pidd", 'linux.namespaces[0].type: "pidd" is none of mount, uts, ipc, pid, network, user, cgroup, time'),
    ("linux.namespaces.0", {}, "linux.namespaces[0].type: is missing"),
    ("linux.namespaces.1.type", "pid", "linux.namespaces[1]: there is a pid namespace before it already"),
    ("linux.namespaces.0.path", "ns/pid", 'linux.namespaces[0].path: "ns/pid" is no absolute path'),
    ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "linux.uidMappings: there is no user namespace that they could be of"),
    ("linux.timeOffsets", {"monotonic": {"secs": 1}}, "linux.timeOffsets: there is no new time namespace whose clocks they could be"),
    ("linux.timeOffsets", {"realtime": {"secs": 1}}, "linux.timeOffsets.realtime: a time namespace has the clocks monotonic and boottime, and no other"),
    ("linux.devices", [{"path": "/dev/x", "type": "d"}], 'linux.devices[0].type: "d" is none of c, b, u, p'),
    ("linux.devices", [{"path": "dev/x", "type": "c"}], 'linux.devices[0].path: "dev/x" is no absolute path'),
    ("linux.devices", [{"path": "/dev/x", "type": "c", "major": -1}], "linux.devices[0].major: -1 is not between 0 and 4095"),
    ("linux.netDevices", {"eth0": {"name": "a/b"}}, 'linux.netDevices.eth0: "a/b" cannot be the name of a network device'),
    ("linux.netDevices", {"x" * 16: {}}, 'linux.netDevices.xxxxxxxxxxxxxxxx: "xxxxxxxxxxxxxxxx" cannot be the name of a network device'),
    ("linux.cgroupsPath", "/../../etc", 'linux.cgroupsPath: "/../../etc" leads out of where it begins'),
    ("linux.sysctl", {"vm.swappiness": "1"}, 'linux.sysctl["vm.swappiness"]: is of no namespace: it would change the host\'s'),
    ("linux.sysctl", {"kernel.core_pattern": "|/x"}, 'linux.sysctl["kernel.core_pattern"]: is of no namespace: it would change the host\'s'),
    ("linux.sysctl", {"net/../kernel/core_pattern": "|/x"}, 'linux.sysctl["net/../kernel/core_pattern"]: is no name such as net.ipv4.ip_forward'),
    ("linux.sysctl", {"net.//.kernel.core_pattern": "|/x"}, 'linux.sysctl["net.//.kernel.core_pattern"]: is no name such as net.ipv4.ip_forward'),
    ("linux.sysctl", {"user.max_pid_namespaces": "1"}, 'linux.sysctl["user.max_pid_namespaces"]: takes a user namespace, or it would change the host\'s'),
    ("linux.sysctl", {"kernel.hostname": "x"}, 'linux.sysctl["kernel.hostname"]: say it as hostname'),
    ("linux.sysctl", {"net.a": 1}, 'linux.sysctl["net.a"]: 1 is no string'),
    ("linux.seccomp", {}, "linux.seccomp.defaultAction: is missing"),
    ("linux.seccomp", {"defaultAction": "X", "syscalls": [{"action": "Y"}]}, "linux.seccomp.syscalls[0].names: is missing"),
    ("linux.seccomp", {"defaultAction": "X", "syscalls": [{"names": ["a"], "action": "Y", "args": [{"index": 6, "value": 0, "op": "Z"}]}]}, "linux.seccomp.syscalls[0].args[0].index: 6 is not between 0 and 5"),
    ("linux.rootfsPropagation", "public", 'linux.rootfsPropagation: "public" is none of shared, slave, private, unbindable, rshared, rslave, rprivate, runbindable'),
    ("linux.maskedPaths", ["proc"], 'linux.maskedPaths[0]: "proc" is no absolute path'),
    ("linux.readonlyPaths", [""], 'linux.readonlyPaths[0]: "" is no absolute path'),
    ("linux.personality", {}, "linux.personality.domain: is missing"),
    ("linux.personality.domain", "BSD", 'linux.personality.domain: "BSD" is none of LINUX, LINUX32'),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND"}, "linux.memoryPolicy: MPOL_BIND takes nodes"),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0"}, "linux.memoryPolicy.nodes: MPOL_LOCAL takes no nodes"),
    ("linux.memoryPolicy", {"mode": "MPOL_PREFERRED", "nodes": "bad"}, 'linux.memoryPolicy.nodes: "bad" is no list of numbers such as 0-2,7'),
    ("linux.memoryPolicy", {"mode": "MPOL_PREFERRED", "flags": ["MPOL_F_NUMA_BALANCING"]}, "linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING goes with MPOL_BIND and MPOL_PREFERRED_MANY only"),
    ("linux.intelRdt.closID", "a/b", 'linux.intelRdt.closID: "a/b" cannot be the name of a directory of resctrl'),
    ("linux.resources.memory.limit", "10 bananas", 'linux.resources.memory.limit: "10 bananas" is no integer'),
    ("linux.resources.memory.limit", -5, "linux.resources.memory.limit: -5 is not between -1 and 9223372036854775807"),
    ("linux.resources.memory.limit", 1e30, "linux.resources.memory.limit: 1e+30 is no integer"),
    ("linux.resources.memory", {"limit": 10 * MIB, "swap": MIB}, "linux.resources.memory.swap: 1048576 is for memory and swap together, and takes a limit that is not above it"),
    ("linux.resources.memory", {"swap": MIB}, "linux.resources.memory.swap: 1048576 is for memory and swap together, and takes a limit that is not above it"),
    ("linux.resources.memory.swappiness", 101, "linux.resources.memory.swappiness: 101 is not between 0 and 100"),
    ("linux.resources.memory.disableOOMKiller", "no", 'linux.resources.memory.disableOOMKiller: "no" is neither true nor false'),
    ("linux.resources.cpu", {"quota": 1000, "burst": 2000}, "linux.resources.cpu.burst: 2000 is more than the quota, 1000"),
    ("linux.resources.cpu.shares", -1, "linux.resources.cpu.shares: -1 is not between 0 and 262144"),
    ("linux.resources.cpu.quota", -2, "linux.resources.cpu.quota: -2 is not between -1 and 9223372036854775807"),
    ("linux.resources.cpu.cpus", "all", 'linux.resources.cpu.cpus: "all" is no list of numbers such as 0-2,7'),
    ("linux.resources.cpu.idle", 2, "linux.resources.cpu.idle: 2 is not between 0 and 1"),
    ("linux.resources.pids.limit", -2, "linux.resources.pids.limit: -2 is not between -1 and 9223372036854775807"),
    ("linux.resources.blockIO.weight", 5, "linux.resources.blockIO.weight: 5 is not between 10 and 1000"),
    ("linux.resources.blockIO.weightDevice", [{"major": 8, "minor": 0}], "linux.resources.blockIO.weightDevice[0]: has neither a weight nor a leafWeight"),
    ("linux.resources.blockIO.throttleReadBpsDevice", [{"major": 8, "minor": 0}], "linux.resources.blockIO.throttleReadBpsDevice[0].rate: is missing"),
    ("linux.resources.hugepageLimits", [{"pageSize": "2 MB", "limit": 1}], "linux.resources.hugepageLimits[0].pageSize: is no size such as 64KB, 2MB or 1GB"),
    ("linux.resources.network.classID", 1 << 32, "linux.resources.network.classID: 4294967296 is not between 0 and 4294967295"),
    ("linux.resources.rdma", {"mlx5_1": {}}, "linux.resources.rdma.mlx5_1: has neither hcaHandles nor hcaObjects"),
    ("linux.resources.unified", {"../../x": "1"}, 'linux.resources.unified["../../x"]: is no file of cgroup v2, such as memory.high'),
    ("linux.resources.unified", {"memory.high": 1}, 'linux.resources.unified["memory.high"]: 1 is no string'),
    ("linux.resources.devices", [{"access": "rwm"}], "linux.resources.devices[0].allow: is missing"),
    ("linux.resources.devices", [{"allow": True, "access": "rx"}], "linux.resources.devices[0].access: is made of other letters than r, w and m"),
    ("linux.resources.devices", [{"allow": True, "access": "rwa"}], "linux.resources.devices[0].access: is made of other letters than r, w and m"),
    ("linux.resources.devices", [{"allow": True, "type": "p"}], 'linux.resources.devices[0].type: "p" is none of a, b, c'),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "text"), BAD, ids=[f"{place}={value}"[:60] for place, value, _ in BAD])
def test_refused_with_its_place(bundle: Path, place: str, value: Any, text: str) -> None:
    assert refusal(bundle, changed(RUNC_SPEC, place, value)) == f"config.json: {text}"


def test_what_takes_a_namespace(bundle: Path) -> None:
    for kind, place, value in (
        ("uts", "hostname", "x"),
        ("mount", "linux.maskedPaths", ["/proc"]),
        ("network", "linux.sysctl", {"net.ipv4.ip_forward": "1"}),
        ("network", "linux.netDevices", {"eth0": {}}),
        ("ipc", "linux.sysctl", {"kernel.shmmax": "1"}),
        ("ipc", "linux.sysctl", {"fs.mqueue.msg_max": "1"}),
    ):
        without = [{"type": other} for other in ("uts", "mount", "network", "ipc") if other != kind]
        config = changed(changed(MINIMAL, "linux.namespaces", without), place, value)
        assert f"{kind} namespace" in refusal(bundle, config).lower()
        config["linux"]["namespaces"].append({"type": kind})
        read(bundle, config)


def test_maps(bundle: Path) -> None:
    config = changed(RUNC_ROOTLESS, "linux.gidMappings", ...)
    assert refusal(bundle, config).endswith("a user namespace takes uidMappings and gidMappings, or neither of them")
    neither = changed(changed(RUNC_ROOTLESS, "linux.gidMappings", ...), "linux.uidMappings", ...)
    assert read(bundle, neither).uid_mappings == (), "who makes the container maps everybody to who they are"

    def line(inside: int, outside: int, size: int) -> dict[str, int]:
        return {"containerID": inside, "hostID": outside, "size": size}

    for maps, text in (
        ([line(0, -1, 1)], "uidMappings[0].hostID: -1 is not between"),
        ([line(0, 0, 0)], "uidMappings[0]: 0 ids from 0 (inside) and 0 (outside) on cannot be mapped"),
        ([line(5, 0, (1 << 32) - 1)], "cannot be mapped"),
        ([line(0, 1000, 2), line(1, 2000, 1)], "uidMappings: the same id is mapped twice inside"),
        ([line(0, 1000, 2), line(5, 1001, 1)], "uidMappings: the same id is mapped twice outside"),
        ([line(number, number, 1) for number in range(341)], "uidMappings: has 341 lines, and the kernel takes 340"),
    ):
        assert text in refusal(bundle, changed(RUNC_ROOTLESS, "linux.uidMappings", maps))
    maps = [line(0, 1, 1), line(1, 0, 1), line(2, 2, (1 << 32) - 3)]
    assert read(bundle, changed(RUNC_ROOTLESS, "linux.uidMappings", maps)).uid_mappings == (
        (0, 1, 1),
        (1, 0, 1),
        (2, 2, (1 << 32) - 3),
    )
    joined = changed(RUNC_ROOTLESS, "linux.namespaces.5.path", "/proc/self/ns/user")
    assert read(bundle, joined).uid_mappings == (), "containerd gives the maps of a namespace that is joined once more"


# Documents that are none


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "config.json: line 1, column 1: expecting value"),
        ("{ invalid json }", "config.json: line 1, column 3: expecting property name enclosed in double quotes"),
        ('{\n "a": 1,\n "b" 2}', "config.json: line 3, column 6: expecting ':' delimiter"),
        ('{"a": 1} x', "config.json: line 1, column 10: extra data"),
        ("[]", "config.json: an array is no object"),
        ("null", "config.json: null is no object"),
        ('{"a": NaN}', "config.json: NaN is no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "config.json: a number has too many digits"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "config.json: arrays and objects are nested too deeply"),
    ],
)
def test_broken_documents(bundle: Path, text: str, said: str) -> None:
    assert refusal(bundle, text) == said


def test_not_even_text(bundle: Path) -> None:
    (bundle / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(BundleError, match=r"^config\.json: byte 7 is not UTF-8$"):
        load(str(bundle))


def test_files_that_are_not_there_or_no_files(bundle: Path) -> None:
    for prepare, said in (
        (lambda path: None, "config.json: No such file or directory"),
        (Path.mkdir, "config.json: is not a regular file"),
        (os.mkfifo, "config.json: is not a regular file"),
        (lambda path: path.symlink_to(path), "config.json: Too many levels of symbolic links"),
        (lambda path: [path.touch(), os.truncate(path, 1 << 40)], "config.json: has 1099511627776 bytes"),
    ):
        place = bundle / str(len(os.listdir(bundle)))
        place.mkdir()
        prepare(place / "config.json")
        with pytest.raises(BundleError) as caught:
            load(str(place))
        assert said in str(caught.value)
        if place.joinpath("config.json").is_file():
            place.joinpath("config.json").unlink()
    for nowhere in (str(bundle / "none"), "", "a\0b", str(bundle / "rootfs") + "\n"):
        with pytest.raises(BundleError) as caught:
            load(nowhere)
        assert str(caught.value).isprintable()


def test_another_file_of_the_bundle(bundle: Path) -> None:
    (bundle / "other.json").write_text(json.dumps(MINIMAL))
    assert load(str(bundle), "other.json") == load(str(bundle / "rootfs"), str(bundle / "other.json")) == MINIMAL


def test_a_process_by_itself(bundle: Path) -> None:
    file = bundle / "process.json"
    file.write_text(json.dumps(RUNC_SPEC["process"]))
    process, warnings = load_process(str(file))
    assert (process.args, warnings) == (("sh",), [])
    file.write_text('{"cwd": "/", "args": ["x"], "user": {"uid": "me"}}')
    with pytest.raises(BundleError, match=r'^process\.json: user\.uid: "me" is no integer$'):
        load_process(str(file))


# The root


def _directory(bundle: Path) -> str:
    return "rootfs"


def _loop(bundle: Path) -> str:
    (bundle / "a").symlink_to("b")
    (bundle / "b").symlink_to("a")
    return "a"


def _file(bundle: Path) -> str:
    (bundle / "file").write_text("")
    return "file"


ROOTS: list[tuple[Callable[[Path], str], str]] = [
    (_directory, ""),
    (lambda bundle: str(bundle / "rootfs"), ""),
    (lambda bundle: "./rootfs/../rootfs/", ""),
    (lambda bundle: "/proc/self/root" + str(bundle / "rootfs"), ""),
    (lambda bundle: "none", "none: No such file or directory"),
    (lambda bundle: "rootfs/x\ny", 'x\\ny": No such file or directory'),
    (_loop, "a: Too many levels of symbolic links"),
    (_file, "file: Not a directory"),
    (lambda bundle: _file(bundle) + "/x", "file/x: Not a directory"),
    (lambda bundle: "x" * 300, ": File name too long"),
    (lambda bundle: "/dev/null", "/dev/null: Not a directory"),
]


@pytest.mark.parametrize(("prepare", "said"), ROOTS, ids=map(str, range(len(ROOTS))))
def test_roots(bundle: Path, prepare: Callable[[Path], str], said: str) -> None:
    config = changed(MINIMAL, "root.path", prepare(bundle))
    if said:
        text = refusal(bundle, config)
        assert text.startswith("config.json: root.path: ") and text.endswith(said)
    else:
        assert os.path.samefile(read(bundle, config).root.path, bundle / "rootfs")  # type: ignore[union-attr]


def test_a_link_to_a_root_is_followed(bundle: Path) -> None:
    (bundle / "link").symlink_to("rootfs")
    assert read(bundle, changed(MINIMAL, "root.path", "link")).root == Directory(os.path.realpath(bundle / "rootfs"))


def test_a_root_that_was_taken_away_later(bundle: Path) -> None:
    config = changed(MINIMAL, "root.path", "none")
    assert specification(config, str(bundle), "c1", exists=False).root == Directory(f"{os.path.realpath(bundle)}/none")


# Namespaces by path


def test_namespaces_by_path(bundle: Path) -> None:
    for kind in Namespace:
        config = changed(
            MINIMAL, "linux.namespaces", [{"type": kind.name.lower(), "path": f"/proc/self/ns/{kind.proc_name}"}]
        )
        assert read(bundle, config).joined == ((kind, f"/proc/self/ns/{kind.proc_name}"),)
        fd = open_namespace(kind, f"/proc/self/ns/{kind.proc_name}")
        assert os.readlink(f"/proc/self/fd/{fd}") == kind.link()
        os.close(fd)


@needs_root
def test_a_namespace_that_is_mounted_somewhere(bundle: Path) -> None:
    # What ip-netns(8) and podman do, in a mount namespace where nobody sees it; the link then reads as its path.
    (bundle / "kept").touch()
    asked = f"""
import os
from minicontainer.linux import Namespace
from minicontainer.runtime.bundle import BundleError, open_namespace
path = {str(bundle / "kept")!r}
assert os.path.samestat(os.fstat(open_namespace(Namespace.NETWORK, path)), os.stat("/proc/self/ns/net"))
try:
    open_namespace(Namespace.UTS, path)
except BundleError as error:
    print(error)
"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount --bind /proc/self/ns/net "$1"; exec "$2" -c "$3"', "sh", bundle / "kept",
         sys.executable, asked], capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.endswith("/kept: it is one of kind network\n"), done.stderr


def test_namespaces_that_are_none_of_the_kind(bundle: Path) -> None:
    fifo, file = bundle / "fifo", bundle / "uts:[4026531838]"
    os.mkfifo(fifo)
    file.write_text("")
    for path, said in (
        ("/proc/self/ns/ipc", "it is one of kind ipc"),
        (str(fifo), "it is no namespace at all"),
        (str(file), "it is no namespace at all"),
        ("/dev/null", "it is no namespace at all"),
        ("/proc/99999999/ns/uts", "No such file or directory"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(BundleError) as caught:
            open_namespace(Namespace.UTS, path)
        assert str(caught.value).startswith("the uts namespace ") and said in str(caught.value)
    config = changed(MINIMAL, "linux.namespaces", [{"type": "uts", "path": "/proc/self/ns/ipc"}])
    assert "the uts namespace /proc/self/ns/ipc: it is one of kind ipc" in refusal(bundle, config)


def test_a_namespace_of_our_own_is_no_container_s(bundle: Path) -> None:
    config = changed(MINIMAL, "linux.namespaces", [{"type": "network", "path": "/proc/self/ns/net"}])
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    assert "net/ipv4/ip_forward would change the host's" in refusal(bundle, config)


def test_intel_rdt(bundle: Path) -> None:
    config = changed(MINIMAL, "linux.intelRdt", {"closID": "x"})
    assert refusal(bundle, config).startswith("config.json: linux.intelRdt: unsupported here")


# Ids


@pytest.mark.parametrize("name", ["a", "c1", "0a1b2c" * 10, "a.b", "A_b+c-d.e", "_", "x" * 1024])
def test_good_ids(name: str) -> None:
    check_id(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".foo", "-x", "a/b", "/", "../x", "a b", "a\n", "a\0", "ä", "x" * 1025, "\ud800", "a:b"])  # fmt: skip
def test_bad_ids(name: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_id(name)
    text = str(caught.value)
    assert text.startswith("invalid ") and "container ID" in text and text.isprintable() and len(text) < 200


# Resources


def limits(**resources: Any) -> Limits:
    """Through JSON, as they come."""
    found, _ = read_resources(expect.parse(json.dumps(resources).encode(), "resources.json"))
    return found


def test_resources() -> None:
    found = limits(
        memory={"limit": 64 * MIB, "swap": -1, "reservation": 32 * MIB, "swappiness": 7, "disableOOMKiller": True, "useHierarchy": True},
        cpu={"shares": 512, "quota": 50000, "burst": 1000, "period": 100000, "cpus": "0", "mems": "0", "idle": 0, "realtimeRuntime": 5, "realtimePeriod": 6},
        pids={"limit": 0},
        blockIO={
            "weight": 500,
            "leafWeight": 10,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 20, "leafWeight": 30}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}],
        },
        hugepageLimits=[{"pageSize": "2MB", "limit": 9223372036854772000}],
        network={"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
        rdma={"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1000}},
        unified={"io.max": "259:0 rbps=2097152", "memory.high": "1"},
    )  # fmt: skip
    assert found == Limits(
        memory=64 * MIB, memory_swap=-1, memory_reservation=32 * MIB, oom_kill_disable=True,
        cpu_shares=512, cpu_quota=50000, cpu_burst=1000, cpu_period=100000, cpuset_cpus="0", cpuset_mems="0", cpu_idle=False,
        pids=0, blkio_weight=500, io_rates=(("8:0", "read_bps", 600), ("8:16", "write_iops", 300)), devices=(),
        huge_pages=(("2MB", 9223372036854772000),), net_class=1048577, net_priorities=(("eth0", 500),),
        rdma=(("mlx5_1", 3, 10000), ("mlx4_0", (1 << 31) - 1, 1000)),
        unified=(("io.max", "259:0 rbps=2097152"), ("memory.high", "1")),
        files=(
            ("memory", "memory.swappiness", "", "7"),
            ("cpu", "cpu.rt_period_us", "", "6"),
            ("cpu", "cpu.rt_runtime_us", "", "5"),
            ("blkio", "blkio.leaf_weight", "", "10"),
            ("blkio", "blkio.bfq.weight_device", "io.bfq.weight", "8:0 20"),
            ("blkio", "blkio.leaf_weight_device", "", "8:0 30"),
        ),
    )  # fmt: skip


def test_resources_that_limit_nothing() -> None:
    assert (
        limits()
        == limits(memory={}, cpu={}, pids={}, blockIO={}, network={}, rdma={}, unified={})
        == Limits(devices=())
    )
    assert limits(
        memory={"limit": 0, "swap": 0, "reservation": 0}, cpu={"shares": 0, "quota": 0, "period": 0}
    ) == Limits(devices=())
    assert limits().needed() == []


def test_memory_alone_does_not_limit_swap() -> None:
    assert limits(memory={"limit": 64 * MIB}) == Limits(memory=64 * MIB, memory_swap=-1, devices=())


def test_needed_controllers_of_files() -> None:
    assert limits(unified={"io.max": "1", "memory.high": "1", "cgroup.max.depth": "3", "foo.bar": "x"}).needed() == [
        "blkio",
        "memory",
    ]
    assert limits(memory={"swappiness": 1}).needed() == ["memory"]


DENY = {"allow": False, "access": "rwm"}
NULL = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ([], ()),
        ([DENY], ()),
        ([{"allow": False}], ()),
        ([DENY, NULL], (("c", 1, 3, "rwm"),)),
        ([NULL, NULL], (("c", 1, 3, "rwm"),)),
        ([NULL, DENY], ()),
        ([{"allow": True, "access": "rwm"}], None),
        ([{"allow": True, "access": "mrw"}, NULL], None),
        ([{"allow": True, "access": "rwm"}, DENY, NULL], (("c", 1, 3, "rwm"),)),
        ([{"allow": True, "type": "a", "access": "r"}], (("c", None, None, "r"), ("b", None, None, "r"))),
        ([{"allow": True, "type": "b", "major": 8, "access": "r"}], (("b", 8, None, "r"),)),
        ([{"allow": True, "type": "b", "major": 8, "minor": -1, "access": "mr"}], (("b", 8, None, "rm"),)),
        ([NULL, {"allow": False, "type": "c", "major": 1, "access": "m"}], (("c", 1, 3, "rw"),)),
        ([NULL, {"allow": False, "type": "c"}], ()),
        ([NULL, {"allow": False, "type": "b"}], (("c", 1, 3, "rwm"),)),
        ([NULL, {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwa"}], ()),
        ([NULL, {"allow": False, "type": "c", "major": 2, "minor": 3}], (("c", 1, 3, "rwm"),)),
    ],
)  # fmt: skip
def test_device_rules(rules: list[dict[str, Any]], allowed: Any) -> None:
    assert limits(devices=rules).devices == allowed


@pytest.mark.parametrize(
    "first", [{"allow": True}, {"allow": True, "type": "c"}, {"allow": True, "type": "c", "major": 1}]
)
def test_device_rules_that_no_list_can_follow(first: dict[str, Any]) -> None:
    with pytest.raises(
        BundleError, match=r"^resources\.json: devices\[1\]: takes some of what a rule before it allows"
    ):
        limits(devices=[first, NULL | {"allow": False}])


@needs_root
def test_the_kernel_takes_them() -> None:
    """On whichever version this machine has; what no step has a name for, too."""
    steps = Steps()
    wanted = limits(
        memory={"limit": 64 * MIB, "swap": 64 * MIB}, pids={"limit": 0}, devices=[NULL], cpu={"shares": 512, "idle": 1}
    )
    group = steps.create_group(f"test-{os.getpid()}-resources", wanted.needed(), EVERYDAY)
    try:
        apply(wanted, group, steps)
        version, directory = group["pids"]
        assert Path(directory, "pids.max").read_text() == "0\n"
        version, directory = group["memory"]
        assert Path(directory, "memory.max" if version == 2 else "memory.limit_in_bytes").read_text() == f"{64 * MIB}\n"
        swappy = limits(memory={"swappiness": 7}).replace(devices=None)
        if version == 1:
            apply(swappy, group, steps)
            assert Path(directory, "memory.swappiness").read_text() == "7\n"
        else:
            with pytest.raises(LimitUnavailable, match=r"memory\.swappiness exists on cgroup v1 only"):
                apply(swappy, group, steps)
        with pytest.raises(LimitUnavailable, match=r"exists on cgroup v1 only|this kernel does not have that limit"):
            apply(limits(blockIO={"leafWeight": 10}).replace(devices=None), group, steps)
    finally:
        steps.remove_group(group)


# What it costs


def test_importing_it_is_cheap() -> None:
    """Nothing that a start of the command does not have anyway; typing and re come with json."""
    program = "import json, sys; before = set(sys.modules); import minicontainer.runtime.bundle; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {os.getcwd()!r}); {program}"], capture_output=True, text=True, check=True)  # fmt: skip
    heavy = {"typing", "inspect", "dataclasses", "pathlib", "subprocess", "socket", "tempfile", "shutil", "jsonschema"}
    assert not heavy & set(done.stdout.split())
