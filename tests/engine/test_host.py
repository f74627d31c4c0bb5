"""`minicontainer check`: what it asks, what it says where something is missing, and that it changes nothing.

What is missing is missing indeed, for a child of the test: closed by a sysctl of its own user namespace, covered in its
own mount namespace, refused by a system call filter of its own.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minicontainer.engine.host import Finding, examine, kernel, network, passes, report, trial
from minicontainer.engine.host.calls import of_calls
from minicontainer.engine.host.files import of_files
from minicontainer.engine.host.groups import of_groups
from minicontainer.engine.host.hardening import of_hardening
from minicontainer.engine.host.kernel import ABSENT, AT_FIRST_USE, HERE, NO_MODULE, UNTOLD, Kernel, read_kernel
from minicontainer.engine.host.namespaces import of_namespaces
from minicontainer.engine.host.network import DEVICES, of_network
from minicontainer.engine.host.probing import NO_ANSWER, attempt, become_ordinary, isolate
from minicontainer.engine.host.security_modules import active_modules, of_security_modules
from minicontainer.engine.host.sysctls import of_sysctls
from minicontainer.engine.host.users import of_users
from minicontainer.linux import CLONE_NEWNET, MS_BIND, PR_SET_NO_NEW_PRIVS, Namespace, mount, prctl, seccomp
from minicontainer.linux.capabilities import NAMES, capget, capset
from minicontainer.linux.cgroups import CONTROLLERS
from minicontainer.linux.landlock import landlock_abi
from minicontainer.linux.numbers import numbers_of
from tests.command import Command, needs_root
from tests.host_state import SLOWER, HostUnchanged, children
from tests.steps.apart import ROOT_AT_100000, apart

HEADINGS = {
    "Kernel": "Linux / kernel configuration / modules / System V IPC / POSIX message queues / Python",
    "System calls": "clone3 / openat2 / close_range / pidfd / pidfd_getfd / setns with a pidfd / open_tree, move_mount / "
    "fsopen, fsconfig, fsmount / mount_setattr / epoll, eventfd, signalfd",
    "Namespaces": "mnt namespace / uts namespace / ipc namespace / pid namespace / net namespace / user namespace / "
    "cgroup namespace / time namespace",
    "Users": "privileges / user namespaces / several users, rootless",
    "Control groups": "control groups / blkio controller / cpu controller / cpuacct controller / cpuset controller / "
    "devices controller / freezer controller / hugetlb controller / memory controller / misc controller / "
    "net_cls controller / net_prio controller / perf_event controller / pids controller / rdma controller / "
    "processor quotas / rates of disks / limit of swap / device rules / pressure (PSI) / birth into a group",
    "File systems": "overlayfs / overlayfs, rootless / proc / sysfs / tmpfs / tmpfs with attributes / devpts / mqueue / "
    "idmapped mounts / FUSE",
    "Network": "loopback / veth pairs / bridges / macvlan / ipvlan / VLANs / VXLAN / dummy devices / tun and tap / nftables / "
    "masquerading / connection tracking / bridge netfilter / iptables / libnftables / IP forwarding / IPv6",
    "Hardening": "seccomp filters / seccomp actions / capabilities / no_new_privs / session keyrings / security modules / "
    "Landlock / AppArmor / SELinux / links in sticky directories / hard links / FIFOs in sticky directories / "
    "files in sticky directories / kernel log / kernel addresses / unprivileged BPF / performance events / "
    "ptrace (Yama) / core dumps / vsyscall page",
    "Checkpoint and restore": "checkpoint/restore / sockets' state / CRIU",
    "Containers": "static busybox / a container starts",
}  # fmt: skip
"""Every finding by its name. Programs look for these names in the JSON: a name may be added, and none is changed."""

KEYS = {
    "feature": str,
    "works": (bool, type(None)),
    "shows": str,
    "mend": str,
    "required": bool,
    "options": list,
    "heading": str,
}

LXC_ASKS = """
    NAMESPACES UTS_NS IPC_NS PID_NS USER_NS NET_NS CGROUPS CGROUP_DEVICE CGROUP_SCHED CGROUP_CPUACCT MEMCG CPUSETS VETH
    MACVLAN VLAN_8021Q BRIDGE NETFILTER_ADVANCED IP_NF_TARGET_MASQUERADE IP6_NF_TARGET_MASQUERADE
    NETFILTER_XT_TARGET_CHECKSUM NETFILTER_XT_MATCH_COMMENT FUSE_FS CHECKPOINT_RESTORE FHANDLE EVENTFD EPOLL UNIX_DIAG
    INET_DIAG PACKET_DIAG NETLINK_DIAG
"""
"""The options that lxc-checkconfig of LXC 5 and 6 asks for, except those for kernels before 5.0."""

DOCKER_ASKS = """
    NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CGROUPS CGROUP_CPUACCT CGROUP_DEVICE CGROUP_FREEZER CGROUP_SCHED CPUSETS MEMCG
    KEYS VETH BRIDGE BRIDGE_NETFILTER IP_NF_FILTER IP_NF_TARGET_MASQUERADE NETFILTER_XT_MATCH_ADDRTYPE
    NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_MARK IP_NF_NAT NF_NAT POSIX_MQUEUE CGROUP_BPF USER_NS SECCOMP
    SECCOMP_FILTER CGROUP_PIDS BLK_CGROUP BLK_DEV_THROTTLING CGROUP_PERF CGROUP_HUGETLB CGROUP_NET_PRIO CFS_BANDWIDTH
    FAIR_GROUP_SCHED SECURITY_SELINUX SECURITY_APPARMOR NF_TABLES NFT_NAT NFT_MASQ VXLAN IPVLAN MACVLAN DUMMY OVERLAY_FS
"""
"""Of those that docker's check-config.sh asks for: all but what swarm, old iptables and ext4 want."""

LISTED = "/sys/kernel/security"

Refused = list[tuple[str, int]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, images: Path) -> list[Finding]:
    """What is said of this machine."""
    root = tmp_path_factory.mktemp("state")
    (root / "images").symlink_to(images)
    return examine(str(root))


def by_name(findings: list[Finding]) -> dict[str, dict[str, Any]]:
    """Feature → finding, as it is in the JSON; it goes through a pipe."""
    return {finding.feature: finding.asdict() for finding in findings}


def refuse(calls: Refused) -> None:
    """From now on, these calls end with an errno; with errno 0, whoever makes one is killed."""
    numbers = numbers_of(os.uname().machine)
    program = [seccomp.BPF_STMT(seccomp.BPF_LD_W_ABS, seccomp.NR)]
    for name, number in calls:
        answer = seccomp.SECCOMP_RET_ERRNO | number if number else seccomp.SECCOMP_RET_KILL_PROCESS
        program += [
            seccomp.BPF_JUMP(seccomp.BPF_JEQ_K, numbers[name], 0, 1),
            seccomp.BPF_STMT(seccomp.BPF_RET_K, answer),
        ]
    program.append(seccomp.BPF_STMT(seccomp.BPF_RET_K, seccomp.SECCOMP_RET_ALLOW))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.seccomp(seccomp.SECCOMP_SET_MODE_FILTER, 0, b"".join(program))


def cover(path: str, text: str, directory: Path) -> None:
    """In a mount namespace of the child's: let a file say something else."""
    file = directory / f"instead-of{path.replace('/', '-')}"
    file.write_text(text)
    mount(file, path, None, MS_BIND)


# What is said


def test_every_heading_has_its_findings(found: list[Finding]) -> None:
    said: dict[str, list[str]] = {}
    for finding in found:
        said.setdefault(finding.heading, []).append(finding.feature)
    assert {heading: " / ".join(features) for heading, features in said.items()} == HEADINGS
    assert len({finding.feature for finding in found}) == len(found)


def test_every_finding_says_yes_or_no_why_and_how_to_mend(found: list[Finding]) -> None:
    for finding in found:
        assert finding.shows and "\n" not in finding.shows + finding.mend, finding
        assert finding.works in (True, False, None)
        if not finding.works:
            assert finding.mend, f"{finding.feature}: no word on how to mend it"
            assert "Traceback" not in finding.shows and "object at" not in finding.shows
        if finding.required:
            assert finding.works is not None, f"{finding.feature}: nobody knows whether a container starts"


def test_the_json_is_a_list_of_objects_with_these_keys(found: list[Finding]) -> None:
    for entry in json.loads(report(found, as_json=True)):
        assert list(entry) == list(KEYS)
        for key, kind in KEYS.items():
            assert isinstance(entry[key], kind), f"{entry['feature']}: {key}"  # type: ignore[arg-type]
        assert all(option.startswith("CONFIG_") for option in entry["options"])


def test_the_table_is_grouped_and_sums_up(found: list[Finding]) -> None:
    lines = report(found).split("\n")
    assert [line for line in lines if line in HEADINGS] == list(HEADINGS)
    for finding in found:
        mark = {True: "yes", False: "NO" if finding.required else "no", None: "?"}[finding.works]
        assert any(line.split() == [*finding.feature.split(), mark, *finding.shows.split()] for line in lines), finding
        assert finding.works or any(line.strip() == f"→ {finding.mend}" for line in lines)
    assert lines[-1].startswith("Everything that containers need is here") == passes(found)


def test_the_sum_of_a_machine_without_something() -> None:
    good, bad, unknown = (
        Finding("a", True, "x", required=True),
        Finding("b", False, "y", "do", True),
        Finding("c", None, "z", "do"),
    )
    assert passes([good, unknown]) and not passes([good, bad])
    assert report([good, bad, unknown]).split("\n")[-1] == "Containers need what is missing here: b."
    assert "  b  NO   y\n          → do\n  c  ?    z" in report([good, bad, unknown])


@pytest.mark.parametrize("asked", [LXC_ASKS, DOCKER_ASKS], ids=["lxc", "docker"])
def test_it_asks_for_what_others_ask_for(found: list[Finding], asked: str) -> None:
    known = {option for finding in found for option in finding.options}
    assert {f"CONFIG_{option}" for option in asked.split()} - known == set()


def test_it_covers_what_the_feature_list_needs_of_a_kernel(found: list[Finding]) -> None:
    """docs/FEATURES.md, row by row: each namespace, each controller, the LSMs, layers, networks, and what is asked for."""
    said = by_name(found)
    assert {f"{kind.proc_name} namespace" for kind in Namespace} <= said.keys()
    assert {f"{name} controller" for name in CONTROLLERS if name != "io"} <= said.keys()  # on v2 blkio is io
    for row, features in {
        "clone(), setns(), unshare()": ["clone3", "setns with a pidfd", "birth into a group"],
        "cgroup v1, hybrid and v2": ["control groups"],
        "cpu": ["processor quotas"], "cgroup v1: blkio": ["rates of disks"], "memory": ["limit of swap"],
        "devices": ["device rules"],
        "SELinux hardening": ["SELinux", "AppArmor", "seccomp filters", "capabilities", "Landlock", "no_new_privs"],
        "lxc-console": ["devpts"], "lxc-clone -s": ["overlayfs", "overlayfs, rootless"],
        "physical bridge": ["bridges", "veth pairs"], "docker0, iptables -t nat": ["masquerading", "IP forwarding", "nftables"],
        "user-namespace remap, rootless run": ["user namespaces", "several users, rootless"],
        "idmapped volume": ["idmapped mounts"], "/proc/meminfo that shows the limits": ["FUSE"],
        "time namespaces": ["time namespace"], "checkpoint/restore": ["checkpoint/restore", "CRIU"],
    }.items():  # fmt: skip
        assert set(features) <= said.keys(), row


# It agrees with others


@needs_root
def test_what_it_says_of_devices_is_what_ip_says(found: list[Finding]) -> None:
    this, said = read_kernel(), by_name(found)
    if not (ip := shutil.which("ip")):
        pytest.skip("no ip(8) on this machine")
    tried = 0
    for feature, kind, option, module, upon, *_ in DEVICES:
        if this.loadable and this.whereabouts(option, module) != HERE:
            continue  # ip would load it
        words = {"vlan": ["id", "7"], "vxlan": ["id", "7", "dstport", "4789"]}.get(kind, [])
        lower = ["link", "lower"] if upon else []
        script = f'{ip} link add lower type bridge; exec {ip} link add probe "$@" 2>&1'
        done = subprocess.run(["unshare", "-n", "sh", "-c", script, "sh", *lower, "type", kind, *words])
        assert said[feature]["works"] == (done.returncode == 0), feature
        tried += 1
    assert tried >= 2


def test_what_it_says_of_the_kernel_is_what_files_say(found: list[Finding]) -> None:
    said = by_name(found)
    assert os.uname().release in said["Linux"]["shows"]
    try:
        shown = f"ABI {landlock_abi()}: files"
    except OSError as error:
        shown = str(error.strerror)
    assert said["Landlock"]["shows"].startswith(shown)
    assert said["overlayfs"]["works"]
    actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    assert set(said["seccomp actions"]["shows"].split()) == set(actions)
    bounding = next(line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith("CapBnd"))
    assert said["capabilities"]["shows"].startswith(f"{int(bounding.split()[1], 16).bit_count()} of ")


@needs_root
def test_both_ways_to_ask_for_the_security_modules_agree() -> None:
    """The file, lsm_list_modules(2), and the file once more, in a mount of the probe's own."""

    def hidden(*refused: tuple[str, int]) -> list[str] | None:
        mount("none", LISTED, "tmpfs")
        refuse(list(refused))
        return active_modules()

    told = apart(hidden)
    assert told and "capability" in told
    assert apart(lambda: hidden(("lsm_list_modules", errno.ENOSYS))) == told
    assert apart(active_modules) == told


@needs_root
def test_what_nobody_tells_is_neither_yes_nor_no() -> None:
    def nobody_tells() -> dict[str, dict[str, Any]]:
        mount("none", LISTED, "tmpfs")
        refuse([("lsm_list_modules", errno.ENOSYS), ("mount", errno.EPERM)])
        return by_name(of_security_modules(read_kernel()))

    modules = apart(nobody_tells)["security modules"]
    assert modules["works"] is None and modules["mend"]


# It harms nobody


@needs_root
def test_nothing_is_changed(host_unchanged: HostUnchanged, state_root: Path) -> None:
    def modules() -> set[str]:
        return set(os.listdir("/sys/module"))

    before, sysctls = modules(), Path("/proc/sys/net/ipv4/ip_forward").read_text()
    with host_unchanged():
        examine(str(state_root))
    assert modules() == before
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == sysctls
    assert not Path("/sys/class/net/probe").exists()


def test_it_costs_less_than_half_a_second(minicontainer: Command) -> None:
    """Of processor time, that of its children among it; the machine may be busy with something else."""
    costs, line = [], [os.fspath(word) for word in minicontainer.line("check")]
    nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    for _ in range(2):
        pid = os.posix_spawn(line[0], line, os.environ, file_actions=nowhere)
        _, status, used = os.wait4(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        costs.append(used.ru_utime + used.ru_stime)
    assert min(costs) < 0.5 * SLOWER


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        (lambda: None, (0, "")),
        (lambda: 7, (0, "7")),
        (lambda: os.stat("/not/there"), (errno.ENOENT, "No such file or directory: /not/there")),
        (lambda: 1 // 0, (NO_ANSWER, "ZeroDivisionError: integer division or modulo by zero")),
        (lambda: os._exit(0), (NO_ANSWER, "the process that tried ended without a word")),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), (NO_ANSWER, "the process that tried was killed by SIGKILL")),
        (lambda: [os.write(fd, b"noise") for fd in (1, 2)], (0, "[5, 5]")),
    ],
)
def test_a_probe_answers(act: Callable[[], object], answer: tuple[int, str], capfd: pytest.CaptureFixture[str]) -> None:
    assert attempt(act) == answer
    assert capfd.readouterr() == ("", "")


def test_a_probe_that_hangs_is_ended_with_all_that_it_started() -> None:
    def hang() -> None:
        if os.fork() == 0:
            signal.pause()
        signal.pause()

    before, begun = children(os.getpid()), time.monotonic()
    assert attempt(hang, 0.2) == (NO_ANSWER, "no answer within 0.2 s")
    assert time.monotonic() - begun < 1 * SLOWER
    deadline = time.monotonic() + 5 * SLOWER
    while set(children(os.getpid())) - set(before) and time.monotonic() < deadline:
        os.waitpid(-1, 0)  # the grandchild, ours since its parent died
    assert set(children(os.getpid())) <= set(before)


def test_who_answers_need_not_be_the_last_to_go() -> None:
    def leave_somebody() -> str:
        if os.fork() == 0:
            signal.pause()
        return "gone"

    begun = time.monotonic()
    assert attempt(leave_somebody) == (0, "gone")
    assert time.monotonic() - begun < 1 * SLOWER


@needs_root
def test_a_container_that_takes_too_long_is_put_away(state_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for patience in (0.004, 0.008, 0.012, 0.02):  # s; it is at another place each time
        monkeypatch.setattr(trial, "PATIENCE", patience)
        _, started = trial.of_containers(str(state_root))
        if not started.works:
            assert started.shows == f"no answer within {patience:g} s"


def test_a_process_with_threads_may_ask() -> None:
    """As a Jupyter kernel, which could not enter a user namespace itself."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        said = by_name([*of_users(), *of_namespaces()])
    finally:
        done.set()
        thread.join()
    assert said["user namespaces"]["works"] and said["user namespace"]["works"]


def test_whose_children_are_buried_by_the_kernel_may_ask_too() -> None:
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert attempt(lambda: 7) == (0, "7")
        assert attempt(lambda: os.stat("/not/there"))[0] == errno.ENOENT
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_what_a_probe_isolates_it_isolates_for_itself() -> None:
    def act() -> str:
        isolate(CLONE_NEWNET)
        return os.readlink("/proc/self/ns/net")

    assert attempt(act)[1] != os.readlink("/proc/self/ns/net")


# Where something is missing


@needs_root
def test_closed_user_namespaces() -> None:
    def closed() -> dict[str, dict[str, Any]]:
        for kind in ("user", "uts"):
            Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")  # of our own user namespace
        return by_name([*of_users(), *of_namespaces()])

    said = apart(closed, ROOT_AT_100000)
    users = said["user namespaces"]
    assert (users["works"], users["required"]) == (False, False)
    assert users["shows"] == "closed by /proc/sys/user/max_user_namespaces"
    assert users["mend"] == "as root: sysctl user.max_user_namespaces=10000"
    assert not said["user namespace"]["works"] and "ENOSPC" in said["user namespace"]["shows"]
    uts = said["uts namespace"]
    assert (uts["works"], uts["required"]) == (False, True)
    assert uts["mend"] == "as root: sysctl user.max_uts_namespaces=10000"
    assert said["ipc namespace"]["works"]


@needs_root
def test_an_ordinary_user_without_ranges(tmp_path: Path) -> None:
    def poor() -> dict[str, dict[str, Any]]:
        for file in ("/etc/subuid", "/etc/subgid"):
            cover(file, "somebody:100000:65536\n", tmp_path)
        become_ordinary()
        return by_name(of_users())

    if not shutil.which("newuidmap"):
        pytest.skip("no newuidmap(1) on this machine")
    said = apart(poor)
    assert said["privileges"]["shows"].startswith("uid 65534")
    several = said["several users, rootless"]
    assert not several["works"] and several["shows"] == "no range for this user in /etc/subuid and /etc/subgid"
    assert "usermod --add-subuids" in several["mend"]
    assert said["user namespaces"]["required"], "an ordinary user has nothing else"


def test_tools_that_are_not_there_or_may_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = by_name(of_users())["several users, rootless"]
    assert (said["works"], said["shows"]) == (False, "there is no newuidmap and no newgidmap")
    assert said["mend"] == "apt install uidmap"
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    said = by_name(of_users())["several users, rootless"]
    assert not said["works"] and "setuid" in said["shows"] and said["mend"].startswith("as root: chmod u+s")


@needs_root
def test_root_without_its_rights() -> None:
    def weak() -> dict[str, dict[str, Any]]:
        bit, own = 1 << NAMES.index("SYS_ADMIN"), capget()
        capset(own.replace(effective=own.effective & ~bit, permitted=own.permitted & ~bit))
        return by_name([*of_users(), *of_calls(), *of_namespaces()])

    said = apart(weak)
    assert (said["privileges"]["works"], said["privileges"]["shows"]) == (False, "root without CAP_SYS_ADMIN")
    assert said["privileges"]["required"] and "--privileged" in said["privileges"]["mend"]
    assert said["uts namespace"]["works"], "a user namespace gives the right to it"


@needs_root
@pytest.mark.parametrize(
    ("call", "number", "features", "shows", "mend"),
    [
        ("clone3", errno.ENOSYS, ["clone3"], "ENOSYS", "Linux 5.3"),
        ("openat2", errno.ENOSYS, ["openat2"], "ENOSYS", "Linux 5.6"),
        ("openat2", 0, ["openat2"], "killed by SIGSYS: a seccomp filter", "seccomp=unconfined"),
        ("close_range", errno.EPERM, ["close_range"], "EPERM", "Linux 5.9"),
        ("pidfd_open", errno.ENOSYS, ["pidfd", "pidfd_getfd", "setns with a pidfd"], "", "Linux 5."),
        ("move_mount", errno.ENOSYS, ["open_tree, move_mount", "fsopen, fsconfig, fsmount"], "ENOSYS", "Linux 5.2"),
        ("fsopen", errno.EPERM, ["fsopen, fsconfig, fsmount"], "EPERM", "Linux 5.2"),
        ("mount_setattr", errno.ENOSYS, ["mount_setattr", "idmapped mounts"], "ENOSYS", "Linux 5.12"),
        ("landlock_create_ruleset", errno.ENOSYS, ["Landlock"], "ENOSYS", "CONFIG_SECURITY_LANDLOCK"),
        ("landlock_create_ruleset", errno.EOPNOTSUPP, ["Landlock"], "Operation not supported", "lsm="),
        ("keyctl", errno.ENOSYS, ["session keyrings"], "ENOSYS", "CONFIG_KEYS"),
        ("keyctl", errno.EDQUOT, ["session keyrings"], "EDQUOT", "maxkeys"),
        ("seccomp", errno.ENOSYS, ["seccomp filters", "seccomp actions"], "ENOSYS", ""),
        ("epoll_create1", errno.ENOSYS, ["epoll, eventfd, signalfd"], "", ""),
        ("unshare", errno.EPERM, ["user namespaces", "uts namespace", "loopback", "overlayfs"], "EPERM", ""),
    ],
)
def test_calls_that_are_refused(call: str, number: int, features: list[str], shows: str, mend: str) -> None:
    """A kernel without a call, a kernel in which it is not switched on, docker's filter, and one that kills."""
    this = read_kernel()

    def act() -> dict[str, dict[str, Any]]:
        refuse([(call, number)])
        return by_name([
            *of_calls(), *of_users(), *of_namespaces(), *of_hardening(), *of_security_modules(this), *of_files(this, "/"),
            *of_network(this),
        ])  # fmt: skip

    said = apart(act)
    for feature in features:
        finding = said[feature]
        assert finding["works"] is False, feature
        assert shows in finding["shows"] and mend in finding["mend"], finding
    assert said["tmpfs"]["works"] == (call != "unshare")


@needs_root
def test_file_systems_that_are_not_there(tmp_path: Path) -> None:
    """A kernel whose list of file systems and whose configuration lack them."""
    lines = Path("/proc/filesystems").read_text().splitlines(keepends=True)
    listed = "".join(line for line in lines if line.split()[-1] not in ("overlay", "mqueue"))
    lacks = Kernel("6", "/boot/config-6", {"TMPFS": "y"}, b"", b"", False)

    def act() -> dict[str, dict[str, Any]]:
        cover("/proc/filesystems", listed, tmp_path)
        return by_name(of_files(lacks, "/"))

    said = apart(lambda: without_sys_module(act, tmp_path))
    assert not said["overlayfs"]["works"] and said["overlayfs"]["required"]
    assert "CONFIG_OVERLAY_FS not set" in said["overlayfs"]["shows"]
    assert said["overlayfs"]["mend"] == "run a kernel that is built with CONFIG_OVERLAY_FS"
    assert not said["mqueue"]["works"] and said["tmpfs"]["works"]


def without_sys_module(act: Callable[[], Any], tmp_path: Path, **modules: str) -> Any:
    """With another /sys/module: nothing is loaded but `modules`, each with its parameter "enabled"."""
    directory = tmp_path / "modules"
    directory.mkdir(exist_ok=True)
    for name, value in modules.items():
        (directory / name / "parameters").mkdir(parents=True)
        (directory / name / "parameters/enabled").write_text(f"{value}\n")
    mount(directory, "/sys/module", None, MS_BIND)
    return act()


@needs_root
def test_label_modules_are_found_where_they_are_active(tmp_path: Path) -> None:
    this = Kernel("6", "", {}, b"", b"", False)
    said = apart(lambda: without_sys_module(lambda: by_name(of_security_modules(this)), tmp_path, apparmor="Y"))
    assert said["AppArmor"]["works"] and said["AppArmor"]["shows"].startswith("active; we are ")
    if "apparmor" not in (active_modules() or ()):
        assert "seccomp, capabilities and Landlock hold" in by_name(of_security_modules(this))["AppArmor"]["mend"]
    lacks = Kernel("6", "/boot/config-6", {"SECURITY": "y"}, b"", b"", False)
    if not os.path.exists("/sys/fs/selinux"):
        selinux = by_name(of_security_modules(lacks))["SELinux"]
        assert (selinux["works"], selinux["required"]) == (False, False)
        assert selinux["shows"] == "CONFIG_SECURITY_SELINUX not set; labels are left out"


@needs_root
def test_sysctls_that_are_open_closed_or_not_there(tmp_path: Path) -> None:
    def act() -> dict[str, dict[str, Any]]:
        for name, value in (("fs/protected_hardlinks", "0"), ("fs/protected_symlinks", "1"), ("kernel/kptr_restrict", "2"),
                            ("kernel/perf_event_paranoid", "-1"), ("kernel/core_pattern", "|/usr/bin/catch %p"),
                            ("net/ipv4/ip_forward", "0")):  # fmt: skip
            cover(f"/proc/sys/{name}", f"{value}\n", tmp_path)
        return by_name([*of_sysctls(this), *of_network(this)])

    this = read_kernel()
    said = apart(act)
    assert (
        said["hard links"]["works"] is False
        and said["hard links"]["mend"] == "as root: sysctl fs.protected_hardlinks=1"
    )
    assert said["links in sticky directories"]["works"] and said["kernel addresses"]["works"]
    assert said["performance events"]["mend"] == "as root: sysctl kernel.perf_event_paranoid=2"
    assert said["core dumps"]["shows"].startswith("/usr/bin/catch runs on the host")
    assert (
        said["IP forwarding"]["mend"] == "as root: sysctl net.ipv4.ip_forward=1" and not said["IP forwarding"]["works"]
    )
    if not os.path.exists("/proc/sys/kernel/yama"):
        assert said["ptrace (Yama)"]["mend"].endswith("CONFIG_SECURITY_YAMA")


@needs_root
def test_without_trees_of_control_groups(tmp_path: Path) -> None:
    mountinfo = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" not in line]

    def act() -> dict[str, dict[str, Any]]:
        cover(f"/proc/{os.getpid()}/mountinfo", "\n".join(mountinfo) + "\n", tmp_path)
        cover("/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\n", tmp_path)
        return by_name(of_groups(read_kernel()))

    said = apart(act)
    assert (said["control groups"]["works"], said["control groups"]["shows"]) == (False, "none is mounted")
    assert said["memory controller"]["mend"] == "boot without cgroup_disable=memory"
    assert not said["device rules"]["works"] and not said["birth into a group"]["works"]
    assert not said["processor quotas"]["works"] and "no cpu controller" in said["processor quotas"]["shows"]


# The kernel's configuration, and its modules


@needs_root
def test_without_a_configuration_trying_tells(tmp_path: Path) -> None:
    places = [place for name in kernel.PLACES if os.path.exists(place := name.format(release=os.uname().release))]

    def act() -> dict[str, dict[str, Any]]:
        for place in places:
            cover(place, "", tmp_path)
        blind = read_kernel()
        assert blind.source == ""
        return by_name(
            [*kernel.of_kernel(blind), *kernel.of_checkpoints(blind), *of_network(blind), *of_files(blind, "/")]
        )

    said, seen = apart(act), by_name(of_network(read_kernel()))
    assert not said["kernel configuration"]["works"] and said["kernel configuration"]["mend"]
    assert said["System V IPC"]["works"] and said["System V IPC"]["shows"] == "there is /proc/sysvipc"
    assert said["iptables"]["works"] is None and said["sockets' state"]["works"] is None
    assert said["overlayfs"]["works"]
    if not read_kernel().loadable:  # nothing could be loaded by trying, so it is tried
        for feature, *_ in DEVICES:
            assert said[feature]["works"] == seen[feature]["works"], feature
    else:
        assert all(said[feature]["works"] in (True, None) for feature, *_ in DEVICES)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    """A kernel that was built so, with these modules on the disk."""

    def build(config: str, *, packed: bool = False, modules: str = "", builtin: str = "", loads: bool = True) -> Kernel:
        directory = tmp_path / "lib"
        directory.mkdir(exist_ok=True)
        data = config.encode()
        (tmp_path / "config").write_bytes(gzip.compress(data) if packed else data)
        (directory / "modules.dep").write_text(modules)
        (directory / "modules.builtin").write_text(builtin)
        (tmp_path / "loadable").write_text("")
        (tmp_path / "locked").write_text("0\n" if loads else "1\n")
        (tmp_path / "loaded").mkdir(exist_ok=True)
        monkeypatch.setattr(kernel, "PLACES", ("/not/there", str(tmp_path / "config")))
        for name, file in (("MODULES", "lib"), ("LOADABLE", "loadable"), ("LOCKED", "locked"), ("LOADED", "loaded")):
            monkeypatch.setattr(kernel, name, str(tmp_path / file))
        return read_kernel()

    return build


CONFIG = "#\n# Linux\n#\nCONFIG_BRIDGE=y\nCONFIG_VETH=m\nCONFIG_MACVLAN=m\n# CONFIG_IPVLAN is not set\nCONFIG_HZ=250\n"
ON_DISK = "kernel/drivers/net/veth.ko.xz: kernel/x.ko\nkernel/y.ko:\n"


@pytest.mark.parametrize("packed", [False, True])
def test_a_configuration_is_read_packed_or_not(built: Callable[..., Kernel], packed: bool) -> None:
    this = built(CONFIG, packed=packed)
    assert this.source.endswith("config")
    assert this.options == {"BRIDGE": "y", "VETH": "m", "MACVLAN": "m", "HZ": "250"}
    assert this.lacking(("BRIDGE", "VETH", "IPVLAN")) == ["IPVLAN"]
    assert built("nothing of the kind").source == ""


def test_where_a_part_of_the_kernel_is(built: Callable[..., Kernel], tmp_path: Path) -> None:
    this = built(CONFIG, modules=ON_DISK)
    where = {option: this.whereabouts(option, option.lower()) for option in ("BRIDGE", "VETH", "MACVLAN", "IPVLAN")}
    assert where == {"BRIDGE": HERE, "VETH": AT_FIRST_USE, "MACVLAN": NO_MODULE, "IPVLAN": ABSENT}
    assert built(CONFIG, modules=ON_DISK, loads=False).whereabouts("VETH", "veth") == NO_MODULE
    blind = built("", modules=ON_DISK, builtin="kernel/net/bridge/bridge.ko\n")
    where = {option: blind.whereabouts(option, option.lower()) for option in ("BRIDGE", "VETH", "IPVLAN")}
    assert where == {"BRIDGE": HERE, "VETH": AT_FIRST_USE, "IPVLAN": HERE}, (
        "what no file is of cannot be loaded by trying"
    )
    assert built("").whereabouts("VETH", "veth") == UNTOLD
    assert built("", loads=False).whereabouts("VETH", "veth") == HERE
    (tmp_path / "loaded/veth").mkdir()
    assert built("").whereabouts("VETH", "veth") == built(CONFIG).whereabouts("VETH", "veth") == HERE


def test_what_would_be_loaded_is_not_tried(built: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was tried")

    monkeypatch.setattr(network, "make_link", never)
    monkeypatch.setattr(network, "add_table", never)
    said = by_name(of_network(built("CONFIG_VETH=m\nCONFIG_MACVLAN=m\nCONFIG_NF_TABLES=m\n", modules=ON_DISK)))
    assert (said["veth pairs"]["works"], said["veth pairs"]["mend"]) == (True, "")
    assert said["veth pairs"]["shows"] == "veth: a module, which the kernel loads at first use"
    assert not said["macvlan"]["works"] and "modprobe macvlan" in said["macvlan"]["mend"]
    assert not said["bridges"]["works"] and said["bridges"]["mend"] == "run a kernel that is built with CONFIG_BRIDGE"
    assert not said["nftables"]["works"] and not said["masquerading"]["works"]
    untold = by_name(of_network(built("")))["veth pairs"]
    assert (untold["works"], untold["mend"]) == (None, "as root: modprobe veth, and check again")


# The command


def test_it_ends_with_0_where_containers_start(minicontainer: Command) -> None:
    done = minicontainer("check")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "Everything that containers need is here" in done.stdout.splitlines()[-1]
    said = json.loads(minicontainer("check", "--json").stdout)
    assert [entry["feature"] for entry in said] == " / ".join(HEADINGS.values()).split(" / ")


@needs_root
def test_it_ends_with_1_where_something_that_they_need_is_missing(minicontainer: Command) -> None:
    done = minicontainer("check", "--json", preexec_fn=lambda: refuse([("close_range", errno.ENOSYS)]))
    assert (done.returncode, done.stderr) == (1, "")
    said = {entry["feature"]: entry for entry in json.loads(done.stdout)}
    assert not said["close_range"]["works"] and not said["a container starts"]["works"]
    done = minicontainer("check", preexec_fn=lambda: refuse([("close_range", errno.ENOSYS)]))
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "Containers need what is missing here: close_range, a container starts."


@needs_root
def test_it_ends_with_0_where_something_else_is_missing(minicontainer: Command) -> None:
    done = minicontainer("check", preexec_fn=lambda: refuse([("landlock_create_ruleset", errno.EOPNOTSUPP)]))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("  Landlock"))
    assert line.split()[1] == "no"
