"""Lab 15's steps and their like: capabilities, who one is, Landlock, settings of the kernel, labels.

Each acts in a forked child, and the kernel is asked what has come of it: /proc/PID/status, programs that are executed,
files that are opened. Nothing here is harder than what a container does at every start.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer.linux import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_BIND,
    PR_SET_DUMPABLE,
    Namespace,
    mount,
    prctl,
    unshare,
)
from minicontainer.linux.capabilities import capbset_drop, known, mask_of, names_of
from minicontainer.linux.landlock import NET_SINCE, landlock_abi
from minicontainer.steps.capabilities import (
    drop_capabilities,
    forbid_new_privileges,
    keep_capabilities,
    limit_bounding,
    set_capabilities,
)
from minicontainer.steps.identity import become_user
from minicontainer.steps.labels import label_exec
from minicontainer.steps.landlock import RIGHTS, restrict_paths
from minicontainer.steps.sysctls import set_sysctls
from tests.command import DEADLINE, needs_root
from tests.steps.apart import ROOT_AT_100000, apart, tmpfs

pytestmark = needs_root

SOMEBODY = 61234
"""A uid and gid that nobody has."""
ALL = tuple(Namespace)

Status = dict[str, str]


def read_status(text: str) -> Status:
    """/proc/PID/status: name → the rest of the line, in single spaces."""
    return {line.partition(":")[0]: " ".join(line.partition(":")[2].split()) for line in text.splitlines()}


def status() -> Status:
    return read_status(Path("/proc/self/status").read_text())


def status_of_a_program(program: str = "/bin/cat") -> Status:
    """The status of a program that is executed here and now: of cat(1), which shows its own."""
    done = subprocess.run(
        [program, "/proc/self/status"], cwd="/", capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    return read_status(done.stdout)


def sets(status: Status) -> dict[str, set[str]]:
    return {name[3:]: {*names_of(int(status[name], 16))} for name in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")}


def refused(act: Callable[[], object]) -> tuple[int, str]:
    """The number and the text of the error that it raises; (0, "") for none."""
    try:
        act()
    except OSError as error:
        return error.errno or -1, str(error.strerror)
    return 0, ""


# Capabilities


def test_every_set_is_what_was_asked_for() -> None:
    def act() -> tuple[Status, Status]:
        drop_capabilities(
            bounding=["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            effective=["CAP_CHOWN"],
            permitted=["CAP_CHOWN", "CAP_KILL"],
            inheritable=["CAP_KILL"],
            ambient=["CAP_KILL"],
        )
        return status(), status_of_a_program()

    process, program = apart(act)
    assert sets(process) == {
        "Bnd": {"CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"},
        "Eff": {"CAP_CHOWN"},
        "Prm": {"CAP_CHOWN", "CAP_KILL"},
        "Inh": {"CAP_KILL"},
        "Amb": {"CAP_KILL"},
    }
    everything = {"CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"}  # what root executes gets all of the bounding set again
    assert sets(program)["Prm"] == sets(program)["Eff"] == everything


def test_none_at_all() -> None:
    def act() -> tuple[Status, Status, int]:
        drop_capabilities((), (), (), (), ())
        return status(), status_of_a_program(), refused(lambda: os.chroot("/"))[0]

    process, program, chroot = apart(act)
    assert not any(sets(process).values()) and not any(sets(program).values())
    assert chroot == errno.EPERM


def test_ambient_ones_of_the_caller_are_gone() -> None:
    def act() -> tuple[set[str], set[str]]:
        drop_capabilities(known(), ["CAP_KILL"], known(), ["CAP_KILL"], ["CAP_KILL"])
        before = sets(status())["Amb"]
        set_capabilities(["CAP_KILL"], ["CAP_KILL"], ["CAP_KILL"], [])
        return before, sets(status())["Amb"]

    assert apart(act) == ({"CAP_KILL"}, set())


NAMES = st.frozensets(st.sampled_from([*known(), "CAP_NONSENSE", ""]))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, NAMES, NAMES, NAMES, NAMES)
def test_whatever_is_asked_for_nobody_gets_more(
    bounding: Collection[str],
    effective: Collection[str],
    permitted: Collection[str],
    inheritable: Collection[str],
    ambient: Collection[str],
) -> None:
    """What can be granted is, and what cannot is left out, in the words of capabilities(7)."""
    before = sets(status())

    def act() -> Status:
        drop_capabilities(bounding, effective, permitted, inheritable, ambient)
        return status()

    after = sets(apart(act))
    may = {*permitted} & before["Prm"]
    passed_on = {*inheritable} & ({*bounding} & before["Bnd"]) & (before["Prm"] | before["Inh"])
    assert after == {
        "Bnd": {*bounding} & before["Bnd"],
        "Prm": may,
        "Eff": {*effective} & may,
        "Inh": passed_on,
        "Amb": {*ambient} & may & passed_on,
    }


def become_somebody(kept: Collection[str], ambient: Collection[str] = (), keep: bool = True) -> None:
    """In the order that the runtime has."""
    limit_bounding(kept)
    if keep:
        keep_capabilities()
    become_user(SOMEBODY, SOMEBODY)
    set_capabilities(kept, kept, kept, ambient)


def test_capabilities_stay_when_the_uid_changes() -> None:
    kept = {"CAP_CHOWN", "CAP_NET_BIND_SERVICE"}

    def act() -> tuple[Status, Status]:
        become_somebody(kept, ["CAP_NET_BIND_SERVICE"])
        return status(), status_of_a_program()

    process, program = apart(act)
    assert sets(process) == {**dict.fromkeys(("Bnd", "Eff", "Prm", "Inh"), kept), "Amb": {"CAP_NET_BIND_SERVICE"}}
    # through execve(2), for somebody who is not root, nothing but the ambient ones
    assert sets(program)["Eff"] == sets(program)["Prm"] == sets(program)["Amb"] == {"CAP_NET_BIND_SERVICE"}
    assert program["Uid"] == " ".join([str(SOMEBODY)] * 4)


def test_without_keeping_them_they_are_gone() -> None:
    def act() -> Status:
        become_somebody(["CAP_CHOWN"], ["CAP_CHOWN"], keep=False)
        return status()

    assert {name: has for name, has in sets(apart(act)).items() if has} == {"Bnd": {"CAP_CHOWN"}}


def test_without_ambient_ones_a_program_has_none() -> None:
    def act() -> Status:
        become_somebody(["CAP_CHOWN", "CAP_KILL"])
        return status_of_a_program()

    program = sets(apart(act))
    assert not program["Eff"] and not program["Prm"] and not program["Amb"]


def set_user_id(where: Path) -> str:
    """A cat(1) that runs as root whoever executes it, on a file system where that counts."""
    tmpfs(where, "mode=755")
    shutil.copy("/bin/cat", where / "cat")
    (where / "cat").chmod(0o4755)
    return str(where / "cat")


def capable(where: Path) -> str:
    """A cat(1) that has CAP_NET_RAW and CAP_CHOWN of its own: capabilities(7), "File capabilities"."""
    tmpfs(where, "mode=755")
    shutil.copy("/bin/cat", where / "cat")
    (where / "cat").chmod(0o755)
    mask = mask_of(["CAP_NET_RAW", "CAP_CHOWN"])
    os.setxattr(where / "cat", "security.capability", struct.pack("<5I", 0x02000000, mask, 0, 0, 0))
    return str(where / "cat")


@pytest.mark.parametrize("forbidden", [False, True])
def test_a_set_user_id_program(forbidden: bool) -> None:
    """Root's power comes back with it, cut down to the bounding set; with no_new_privs, nothing comes back."""

    def act() -> Status:
        program = set_user_id(Path("/mnt"))
        limit_bounding(["CAP_CHOWN"])
        if forbidden:
            forbid_new_privileges()
        become_user(SOMEBODY, SOMEBODY)
        return status_of_a_program(program)

    program = apart(act)
    if forbidden:
        assert program["NoNewPrivs"] == "1"
        assert program["Uid"] == " ".join([str(SOMEBODY)] * 4)
        assert not sets(program)["Eff"] and not sets(program)["Prm"]
    else:
        assert program["Uid"] == f"{SOMEBODY} 0 0 0"
        assert sets(program)["Eff"] == sets(program)["Prm"] == {"CAP_CHOWN"}


@pytest.mark.parametrize("forbidden", [False, True])
def test_a_program_with_capabilities_of_its_own(forbidden: bool) -> None:
    def act() -> Status:
        program = capable(Path("/mnt"))
        limit_bounding(["CAP_CHOWN"])
        if forbidden:
            forbid_new_privileges()
        become_user(SOMEBODY, SOMEBODY)
        return status_of_a_program(program)

    assert sets(apart(act))["Prm"] == (set() if forbidden else {"CAP_CHOWN"})


def test_new_privileges_stay_forbidden() -> None:
    def act() -> tuple[str, int]:
        forbid_new_privileges()
        return status_of_a_program()["NoNewPrivs"], refused(lambda: prctl(38, 0))[0]

    assert apart(act) == ("1", errno.EINVAL)


def test_to_limit_the_bounding_set_takes_a_capability() -> None:
    def act() -> tuple[tuple[int, str], int]:
        become_user(SOMEBODY, SOMEBODY)
        return refused(lambda: limit_bounding(())), refused(lambda: limit_bounding(known()))[0]

    (number, text), nothing_to_do = apart(act)
    assert number == errno.EPERM and "to drop CAP_CHOWN takes CAP_SETPCAP" in text
    assert nothing_to_do == 0


def test_what_is_not_there_needs_no_right_to_be_dropped() -> None:
    def act() -> Status:
        kept = [name for name in known() if name != "CAP_SYS_TIME"]
        capbset_drop(known().index("CAP_SYS_TIME"))
        set_capabilities([], [], [], [])
        limit_bounding(kept)
        return status()

    assert "CAP_SYS_TIME" not in sets(apart(act))["Bnd"]


def test_root_of_a_user_namespace() -> None:
    def act() -> tuple[Status, Status]:
        limit_bounding(["CAP_CHOWN", "CAP_SYS_RESOURCE"])  # of which the host may have none: here, all are there again
        keep_capabilities()
        become_user(1000, 1000, [5, 6])
        set_capabilities(["CAP_SYS_RESOURCE"], ["CAP_SYS_RESOURCE"], ["CAP_SYS_RESOURCE"], ["CAP_SYS_RESOURCE"])
        return status(), status_of_a_program()

    process, program = apart(act, ROOT_AT_100000)
    assert sets(process)["Bnd"] == {"CAP_CHOWN", "CAP_SYS_RESOURCE"}
    assert sets(program)["Eff"] == {"CAP_SYS_RESOURCE"}
    assert (program["Uid"].split()[0], program["Gid"].split()[0], program["Groups"]) == ("1000", "1000", "5 6")


# Who one is


def test_ids_groups_and_umask() -> None:
    def act() -> Status:
        become_user(SOMEBODY, SOMEBODY + 1, [7, 8], umask=0o27)
        return status_of_a_program()

    found = apart(act)
    assert found["Uid"] == " ".join([str(SOMEBODY)] * 4)
    assert found["Gid"] == " ".join([str(SOMEBODY + 1)] * 4)
    assert found["Groups"] == "7 8"
    assert found["Umask"] == "0027"


def test_the_callers_groups_are_gone_and_the_umask_stays() -> None:
    def act() -> Status:
        os.setgroups([0, 4, 27])
        os.umask(0o77)
        become_user(0, 0)
        return status()

    assert (apart(act)["Groups"], apart(act)["Umask"]) == ("", "0077")


def test_there_is_no_way_back() -> None:
    def act() -> list[int]:
        become_user(SOMEBODY, SOMEBODY)
        tries = [lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])]
        return [refused(one)[0] for one in tries]

    assert apart(act) == [errno.EPERM] * 4


def test_an_id_that_is_not_mapped() -> None:
    def act() -> list[tuple[int, str]]:
        return [
            refused(lambda: become_user(70000, 0)),
            refused(lambda: become_user(0, 70000)),
            refused(lambda: become_user(0, 0, [70000])),
        ]

    for (number, text), call in zip(
        apart(act, ROOT_AT_100000), ("setresuid(70000)", "setresgid(70000)", "setgroups([70000])"), strict=True
    ):
        assert number == errno.EINVAL and call in text and "no such id" in text


def test_somebody_who_may_not() -> None:
    def act() -> list[tuple[int, str]]:
        os.setgroups([5])
        os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
        return [
            refused(lambda: become_user(SOMEBODY, SOMEBODY)),  # would keep a group that it is not to have
            refused(lambda: become_user(0, SOMEBODY, [5])),
            refused(lambda: become_user(SOMEBODY, SOMEBODY, [5])),  # who it is already
        ]

    groups, uid, same = apart(act)
    assert groups[0] == errno.EPERM and groups[1].endswith("it takes CAP_SETGID")
    assert uid[0] == errno.EPERM and uid[1].endswith("it takes CAP_SETUID")
    assert same == (0, "")


def test_where_groups_cannot_be_set() -> None:
    """A rootless user namespace with one id: groups stay as they are, and who asks for others is told."""

    def act() -> tuple[tuple[int, str], tuple[int, str], Status]:
        os.setgroups([])
        os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
        prctl(PR_SET_DUMPABLE, 1)  # or /proc/self is root's, after the change of the uid
        unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {SOMEBODY} 1")
        Path("/proc/self/gid_map").write_text(f"0 {SOMEBODY} 1")
        more = refused(lambda: become_user(0, 0, [0]))
        return more, refused(lambda: become_user(0, 0)), status()

    more, none, after = apart(act)
    assert more[0] == errno.EPERM and "setgroups(2) is denied in this user namespace" in more[1]
    assert none == (0, "") and after["Uid"] == "0 0 0 0"


# Landlock


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two directories with a file in each, and a program."""
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
    shutil.copy(shutil.which("busybox") or "", tmp_path / "open/busybox")
    shutil.copy(tmp_path / "open/busybox", tmp_path / "closed/busybox")
    return tmp_path


def create(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def run(program: Path) -> None:
    _, waited = os.waitpid(os.posix_spawn(program, ["true"], {}), 0)
    assert waited == 0


DEEDS: dict[str, Callable[[Path], object]] = {
    "read": lambda place: (place / "file").read_text(),
    "list": lambda place: os.listdir(place),
    "write": lambda place: os.close(os.open(place / "file", os.O_WRONLY)),
    "truncate": lambda place: os.truncate(place / "file", 0),
    "create": lambda place: create(place / "new"),
    "mkdir": lambda place: (place / "directory").mkdir(),
    "symlink": lambda place: (place / "link").symlink_to("file"),
    "fifo": lambda place: os.mkfifo(place / "fifo"),
    "mknod": lambda place: os.mknod(place / "null", 0o20666, os.makedev(1, 3)),
    "run": lambda place: run(place / "busybox"),
    "remove": lambda place: (place / "file").unlink(),
}
"""What may be done to a directory, in an order in which each can be."""

ALLOWED = {
    "read": {"read", "list"},
    "write": {"write", "truncate", "create", "mkdir", "symlink", "fifo", "remove"},
    "execute": set[str](),  # to the kernel, who executes a file reads it too
    "devices": {"mknod"},
    "ioctl": set[str](),
    "LANDLOCK_ACCESS_FS_READ_FILE": {"read"},
    "LANDLOCK_ACCESS_FS_READ_DIR": {"list"},
}


def deeds(place: Path) -> set[str]:
    """Those that the kernel lets happen; the others are refused with EACCES, the way of Landlock with root."""
    done = set()
    for name, deed in DEEDS.items():
        number = refused(lambda deed=deed: deed(place))[0]  # type: ignore[misc]
        assert number in (0, errno.EACCES), f"{name}: {os.strerror(number)}"
        done |= {name} if number == 0 else set()
    return done


@pytest.mark.parametrize("rights", [*ALLOWED, "read write", "execute, read", " ".join(RIGHTS)])
def test_what_the_rights_are_good_for(tree: Path, rights: str) -> None:
    def act() -> tuple[set[str], set[str], int]:
        abi = restrict_paths({str(tree / "open"): rights})
        return deeds(tree / "open"), deeds(tree / "closed"), abi

    opened, closed, abi = apart(act)
    unknown = set() if abi >= 3 else {"truncate"}  # to this Landlock: see the module
    words = rights.replace(",", "").split()
    both = {"run"} if {"read", "execute"} <= {*words} else set[str]()
    assert opened == {deed for word in words for deed in ALLOWED[word]} | both | unknown
    assert closed == unknown
    assert abi == landlock_abi()


def test_without_landlock_all_of_it_works(tree: Path) -> None:
    assert apart(lambda: deeds(tree / "closed")) == {*DEEDS}


def test_rights_as_a_list_on_a_file_and_further_down(tree: Path) -> None:
    (tree / "closed/deep").mkdir()

    def act() -> tuple[list[int], set[str]]:
        restrict_paths({str(tree / "closed"): ["read"], str(tree / "closed/file"): ["write"], str(tree / "open"): []})
        place = tree / "closed"
        acts = (
            lambda: os.close(os.open(place / "file", os.O_RDWR)),  # as much as all rules on the way there say together
            lambda: create(place / "deep/new"),
            lambda: (place / "file").unlink(),  # "write" over a file is not over the directory that it is in
        )
        return [refused(one)[0] for one in acts], deeds(tree / "open")

    assert apart(act) == ([0, errno.EACCES, errno.EACCES], set())


def test_rules_only_ever_add_up_to_less(tree: Path) -> None:
    def act() -> tuple[set[str], set[str]]:
        restrict_paths({str(tree / "open"): "read"})
        restrict_paths({str(tree): "read write execute devices"})
        return deeds(tree / "open"), deeds(tree / "closed")

    assert apart(act) == ({"read", "list"}, set())


def test_children_are_held_to_it_and_open_files_stay_open(tree: Path) -> None:
    def act() -> tuple[int, str, int]:
        with (tree / "closed/file").open() as file:
            restrict_paths({str(tree / "open"): "read execute"})
            child = os.waitstatus_to_exitcode(
                os.waitpid(
                    os.posix_spawn(tree / "open/busybox", ["cat", str(tree / "closed/file")], {},
                                   file_actions=[(os.POSIX_SPAWN_CLOSE, 2)]), 0
                )[1]
            )  # fmt: skip
            return child, file.read(), refused(lambda: mount("x", str(tree / "open"), "tmpfs"))[0]

    assert apart(act) == (1, "text", errno.EPERM)


def test_whoever_has_no_privileges_must_forbid_new_ones_first() -> None:
    def act() -> tuple[tuple[int, str], tuple[int, str], int]:
        become_user(SOMEBODY, SOMEBODY)
        before = refused(lambda: restrict_paths({"/usr": "read"}))
        forbid_new_privileges()
        return before, refused(lambda: restrict_paths({"/usr": "read"})), refused(lambda: os.listdir("/etc"))[0]

    before, after, listed = apart(act)
    assert before[0] == errno.EPERM and "no_new_privs" in before[1]
    assert after == (0, "") and listed == errno.EACCES


def test_ports() -> None:
    def act() -> list[int]:
        unshare(CLONE_NEWNET)  # not a packet leaves
        restrict_paths({"/": "read"}, bind_ports=[8080], connect_ports=[443])
        found = []
        for port in (8080, 8081):
            with socket.socket() as one:
                found.append(refused(lambda one=one, port=port: one.bind(("0.0.0.0", port)))[0])  # type: ignore[misc]
        for port in (443, 444):
            with socket.socket() as one:
                found.append(refused(lambda one=one, port=port: one.connect(("127.0.0.1", port)))[0])  # type: ignore[misc]
        return found

    if landlock_abi() < NET_SINCE:
        with pytest.raises(AssertionError, match="knows no ports"):
            apart(act)
    else:
        assert apart(act) == [0, errno.EACCES, errno.ENETUNREACH, errno.EACCES]


def test_the_network_stays_as_it_is_unless_asked() -> None:
    def act() -> int:
        unshare(CLONE_NEWNET)
        restrict_paths({"/": "read"})
        with socket.socket() as one:
            return refused(lambda: one.bind(("0.0.0.0", 8081)))[0]

    assert apart(act) == 0


@pytest.mark.parametrize("word", ["reed", "LANDLOCK_ACCESS_FS_FLY", "FILE_RIGHTS", "call", "LANDLOCK_ACCESS_FS_"])
def test_a_word_that_is_no_right(word: str) -> None:
    with pytest.raises(ValueError, match=f'"{word}" is no right over files; choose among read, execute'):
        restrict_paths({"/": [word]})


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    def act() -> tuple[int, int]:
        return refused(lambda: restrict_paths({str(tmp_path / "missing"): "read"}))[0], len(os.listdir("/"))

    number, seen = apart(act)
    assert number == errno.ENOENT and seen


# Settings of the kernel

OURS = {
    "net.ipv4.ip_forward": "1",
    "net/ipv4/conf/lo/forwarding": "1",
    "kernel.shmmax": "65536",
    "kernel.sem": "10 20 30 40",
    "fs.mqueue.msg_max": "7",
    "kernel.domainname": "inner",
    "kernel.hostname": "alpha",
}


def value_of(name: str) -> str:
    return " ".join(Path("/proc/sys", *name.replace("/", ".").split(".")).read_text().split())


@pytest.mark.parametrize("maps", [(), ROOT_AT_100000], ids=["root", "user namespace"])
def test_settings_of_new_namespaces(maps: tuple[tuple[int, int, int], ...]) -> None:
    before = {name: value_of(name) for name in OURS}
    allowed = {name: value for name, value in OURS.items() if not maps or name.startswith("net")}

    def act() -> dict[str, str]:
        unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
        set_sysctls(allowed, ALL)
        return {name: value_of(name) for name in allowed}

    assert apart(act, maps) == allowed
    assert {name: value_of(name) for name in OURS} == before


def test_an_interface_with_a_dot_in_its_name() -> None:
    def act() -> str:
        unshare(CLONE_NEWNET)
        subprocess.run(["ip", "link", "add", "a.b", "type", "veth", "peer", "name", "c"], check=True, timeout=DEADLINE)
        set_sysctls({"net.ipv4.conf.a/b.forwarding": "1"}, [Namespace.NETWORK])
        return Path("/proc/sys/net/ipv4/conf/a.b/forwarding").read_text().strip()

    assert apart(act) == "1"


@pytest.mark.parametrize(
    "name",
    ["kernel.core_pattern", "kernel/core_pattern", "kernel.modprobe", "vm.overcommit_memory", "fs.file-max", "fs.mqueue",
     "kernel.shm_rmid_forced2", "kernel.msg", "kernel", "abi.vsyscall32", "dev.cdrom.info", "network.x", "kernel.sysrq"],
)  # fmt: skip
def test_what_is_the_whole_machines(name: str) -> None:
    with pytest.raises(ValueError, match="is of no namespace: it would change the host's"):
        set_sysctls({name: "1"}, ALL)


@pytest.mark.parametrize(
    "name",
    ["net/../kernel/core_pattern", "net/ipv4/../../kernel/core_pattern", "net.//.kernel.core_pattern", "net..kernel",
     "/kernel/core_pattern", "net/./ipv4/ip_forward", "net/", "", "net/ipv4\0/x", "net/ipv4/", "fs/mqueue/../file-max"],
)  # fmt: skip
def test_names_that_would_lead_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a sysctl"):
        set_sysctls({name: "1"}, ALL)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("net.ipv4.ip_forward", "net"), ("kernel.shmmax", "ipc"), ("fs.mqueue.msg_max", "ipc"), ("kernel.hostname", "uts"), ("user.max_net_namespaces", "user")],
)  # fmt: skip
def test_each_takes_its_namespace(name: str, kind: str) -> None:
    others = [one for one in Namespace if one.proc_name != kind]
    with pytest.raises(ValueError, match=f"takes a {kind} namespace, or it would change the host's"):
        set_sysctls({name: "1"}, others)


def test_all_names_are_looked_at_before_anything_is_written() -> None:
    def act() -> str:
        unshare(CLONE_NEWNET)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        with pytest.raises(ValueError):
            set_sysctls({"net.ipv4.ip_forward": "1", "kernel.core_pattern": "|/x"}, ALL)
        return value_of("net.ipv4.ip_forward")

    assert apart(act) == "0"


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [("net.ipv4.no_such_thing", "1", errno.ENOENT), ("net.ipv4.ip_forward", "x", errno.EINVAL), ("net.ipv4.conf", "1", errno.EISDIR)],
)  # fmt: skip
def test_what_the_kernel_does_not_take(name: str, value: str, number: int) -> None:
    def act() -> tuple[int, str]:
        unshare(CLONE_NEWNET)
        return refused(lambda: set_sysctls({name: value}, ALL))

    found, text = apart(act)
    assert found == number and f"/proc/sys/{name.replace('.', '/')}" in text


def test_a_proc_that_is_none(tmp_path: Path) -> None:
    """CVE-2025-52881: with something else at its place, what is meant for one file goes into another."""

    def act() -> tuple[tuple[int, str], str]:
        unshare(CLONE_NEWNET)
        real = os.open("/proc", os.O_PATH)
        tmpfs(Path("/proc"))
        fake = Path("/proc/sys/net/ipv4/ip_forward")
        fake.parent.mkdir(parents=True)
        fake.write_text("untouched")
        over = refused(lambda: set_sysctls({"net.ipv4.ip_forward": "1"}, ALL))
        set_sysctls({"net.ipv4.ip_forward": "1"}, ALL, real)  # by a file descriptor, it is still to be had
        return over, fake.read_text() + Path(f"/proc/self/fd/{real}").name

    (number, text), said = apart(act)
    assert number == errno.EPERM and "not a proc file system" in text
    assert said.startswith("untouched")


def test_a_file_of_proc_that_is_another() -> None:
    """The same with a mount on the one file: of something on a real proc, so that the type alone would not tell."""

    def act() -> tuple[tuple[int, str], str]:
        unshare(CLONE_NEWNET | CLONE_NEWUTS)
        mount("/proc/sys/kernel/domainname", "/proc/sys/net/ipv4/ip_forward", None, MS_BIND)
        return refused(lambda: set_sysctls({"net.ipv4.ip_forward": "1"}, ALL)), value_of("kernel.domainname")

    before = value_of("kernel.domainname")
    (number, text), domain = apart(act)
    assert number == errno.EPERM and "something is mounted over it" in text
    assert domain == before


# Labels


def apparmor() -> bool:
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    return enabled.exists() and enabled.read_text().strip() == "Y"


def selinux() -> bool:
    return Path("/sys/fs/selinux/enforce").exists()


def test_a_label_where_nobody_would_enforce_it_is_told() -> None:
    """And where somebody would, one that does not exist is an error: never is a label silently without effect."""

    def act() -> list[object]:
        found: list[object] = []
        for labels in ({"apparmor": "no-such-profile"}, {"selinux": "no:such:label"}):
            try:
                found.append(label_exec(**labels))
            except OSError as error:
                found.append(error.errno)
        return found

    profile, label = apart(act)
    left_out = "the profile no-such-profile is not applied: AppArmor is not active on this host"
    assert profile == (errno.ENOENT if apparmor() else [left_out])
    left_out = "the label no:such:label is not applied: SELinux is not active on this host"
    assert label == (errno.EINVAL if selinux() else [left_out])


def test_no_label_and_no_confinement_are_nothing_to_tell() -> None:
    assert apart(lambda: label_exec()) == []
    assert apart(lambda: label_exec("unconfined")) == []


def test_no_label_is_written_to_what_is_no_proc() -> None:
    def act() -> tuple[tuple[int, str], str]:
        tmpfs(Path("/proc"))
        fake = Path("/proc/self/attr/apparmor")
        fake.mkdir(parents=True)
        for name in ("current", "exec"):
            (fake / name).write_text("untouched")
        return refused(lambda: label_exec("docker-default", "a:b:c")), (fake / "exec").read_text()

    (number, text), said = apart(act)
    assert number == errno.EPERM and "not a proc file system" in text
    assert said == "untouched"
