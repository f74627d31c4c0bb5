"""Limits that cannot be: one line that says which file refused which value and what would work, and all else as it was."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer.engine.store import Store
from minicontainer.linux.cgroups import hierarchies, hierarchy_of
from minicontainer.steps.group import PARENT, Group
from minicontainer.steps.usage import limits_of
from tests.cli.test_resources import HOLD_30_MIB, MIB, a_disk, group_of, running, says
from tests.cli.test_rootless import rootless
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.host_state import HostUnchanged

pytestmark = needs_root


@pytest.fixture
def refused(minicontainer: Command, host_unchanged: HostUnchanged) -> Callable[..., str]:
    """Run a command that must fail with this exit code, one line, and no trace; returns the line."""

    def run(exit_code: int, *arguments: str, **options: object) -> str:
        before = minicontainer.containers()
        with host_unchanged():
            done = minicontainer(*arguments, **options)
        assert done.returncode == exit_code, done
        assert done.stdout == ""
        assert minicontainer.containers() == before
        return one_line(done.stderr)

    return run


Refused = Callable[..., str]


def world_of(controller: str) -> int:
    """1 or 2: in which version this host has the controller; 0 where in none."""
    tree = hierarchy_of(controller)
    return tree.version if tree else 0


def wishes(command: Command, name: str) -> dict[str, object]:
    """What is written down of a container's limits."""
    return Store(str(command.root)).find(name).limits.asdict()


# What cannot be understood, or cannot be at all

NONSENSE = [
    ("--memory=10 bananas", '"10 bananas"', "64m"),
    ("--memory=", '""', "64m"),
    ("--memory=m", '"m"', "64m"),
    ("--memory=-5", '"-5"', "64m"),
    ("--memory=1.5g", '"1.5g"', "64m"),
    ("--memory=٣٢m", '"٣٢m"', "64m"),
    ("--memory=0", "0 bytes", "6m"),
    ("--memory=4m", "4194304 bytes", "6m"),
    ("--memory=99999999999999999999999", "99999999999999999999999", "more than any machine has"),
    ("--memory=18446744073776660480", "18446744073776660480", "more than any machine has"),  # 2**64 + 64 MiB
    ("--memory-reservation=99999999999g", "--memory-reservation", "more than any machine has"),
    ("--memory-reservation=-3", '"-3"', "64m"),
    ("--memory-swap=64m", "--memory-swap", "--memory"),
    ("--memory=64m --memory-swap=32m", "--memory-swap", "cannot be less than --memory"),
    ("--cpus=0", "0.0 processors", "0.5"),
    ("--cpus=-1", "-1.0 processors", "0.5"),
    ("--cpus=0.001", "0.001 processors", "0.5"),
    ("--cpus=nan", "nan processors", "0.5"),
    ("--cpus=9999", "9999 processors", "this host has"),
    ("--cpus=٣", '"٣"', "--cpus"),
    ("--cpus=1_0", '"1_0"', "--cpus"),
    ("--cpus=", '""', "--cpus"),
    ("--cpus=1 --cpu-quota=5000", "--cpus and --cpu-quota", "give one of them"),
    ("--cpu-quota=-7", "-7", "-1 is no limit"),
    ("--cpu-quota=5.5", '"5.5"', "--cpu-quota"),
    ("--cpu-period=0", "0 µs", "1000 to 1000000"),
    ("--cpu-period=-5", "-5 µs", "1000 to 1000000"),
    ("--cpu-period=9999999", "9999999 µs", "1000 to 1000000"),
    ("--cpu-burst=5000", "--cpu-burst", "--cpu-quota"),
    ("--cpus=1 --cpu-burst=-5", "-5 µs", "0 or more"),
    ("--cpu-shares=1", "1 CPU shares", "2 to 262144"),
    ("--cpu-shares=-1", "-1 CPU shares", "2 to 262144"),
    ("--cpu-shares=99999999999999999999", "CPU shares", "2 to 262144"),
    ("--cpu-idle --cpu-shares=5", "--cpu-idle", "leave out --cpu-shares"),
    ("--cpuset-cpus=x", '"x"', "0-2,7"),
    ("--cpuset-cpus=", '""', "0-2,7"),
    ("--cpuset-cpus=٠", '"٠"', "0-2,7"),
    ("--cpuset-cpus=0-", '"0-"', "0-2,7"),
    ("--pids-limit=0", "0 processes", "2"),
    ("--pids-limit=1", "1 processes", "2"),
    ("--pids-limit=-2", "-2 processes", "2"),
    ("--pids-limit=1_0", '"1_0"', "--pids-limit"),
    ("--pids-limit=many", '"many"', "--pids-limit"),
    ("--blkio-weight=5", "weight of 5", "10 to 1000"),
    ("--blkio-weight=1001", "weight of 1001", "10 to 1000"),
    ("--net-class=-1", '"-1"', "10:1"),
    ("--net-class=10:99999", '"10:99999"', "10:1"),
    ("--net-class=4294967296", '"4294967296"', "2^32"),
    ("--net-class=10:1:2", '"10:1:2"', "10:1"),
    ("--net-class=٣", '"٣"', "10:1"),
    ("--net-prio=lo", '"lo"', "--net-prio eth0=5"),
    ("--net-prio=lo=-1", '"-1"', "no number"),
    ("--net-prio=lo=4294967296", "4294967296", "2^32"),
    ("--hugetlb=2MB", '"2MB"', "--hugetlb 2MB=64m"),
    ("--hugetlb=2MB=x", '"x"', "64m"),
    ("--rdma=mlx5_0=1", '""', "no number"),
    ("--misc=sev", '"sev"', "--misc sev=1"),
    ("--unified=memory.oom.group", '"memory.oom.group"', "--unified memory.oom.group=1"),
    ("--device=dev", '"dev"', "/dev/NAME"),
    ("--device=/dev/null:/dev/x:rz", '"/dev/null:/dev/x:rz"', "rwm"),
    ("--device=/dev/nope", "/dev/nope", "no device"),
    ("--device=/etc/passwd", "/etc/passwd", "--volume"),
    ("--device=/dev/null:/etc/null", "/etc/null", "/dev/null:/dev/NAME"),
    ("--device-cgroup-rule=x", '"x"', "c 1:3 rwm"),
    ("--device-cgroup-rule=c 1:3 rwx", '"c 1:3 rwx"', "c 1:3 rwm"),
    ("--device-cgroup-rule=c ١:3 r", '"c ١:3 r"', "c 1:3 rwm"),
    ("--device-read-bps=/dev/null:1m", "/dev/null", "lsblk"),
    ("--device-read-bps=/dev/nope:1m", "/dev/nope", "no device"),
    ("--device-read-bps=/dev/null", '"/dev/null"', "64m"),
    ("--device-read-iops=8:0:-1", '"-1"', "no number"),
    ("--device-write-bps=8:1m", '"8:1m"', "/dev/vda:10m"),
    ("--cgroup-parent=..", '".."', "web/front"),
    ("--cgroup-parent=../minicontainer", '"../minicontainer"', "web/front"),
    ("--cgroup-parent=/../../x", '"../../x"', "web/front"),
    ("--cgroup-parent=web/../..", '"web/../.."', "web/front"),
    ("--cgroup-parent=web//front", '"web//front"', "web/front"),
    ("--cgroup-parent=cgroup.procs", '"cgroup.procs"', "web/front"),
    ("--cgroup-parent=web/cgroup.procs", '"web/cgroup.procs"', "web/front"),
    ("--cgroup-parent=a b", '"a b"', "letters"),
    ("--cgroup-parent=ä", '"ä"', "letters"),
    ("--cgroupns=both", "--cgroupns", "private"),
    ("--memory-share=1:1", "--memory-share", "--help"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "told", "advice"), NONSENSE, ids=[row[0] for row in NONSENSE])
def test_what_cannot_be_is_refused_with_what_would_work(refused: Refused, options: str, told: str, advice: str) -> None:
    words = options.split(" --")
    text = refused(125, "run", "--rm", words[0], *(f"--{word}" for word in words[1:]), "busybox", "true")
    assert told in text and advice in text


@pytest.mark.parametrize(
    "value", ["../memory.max", "/etc/passwd", "a/b", "cgroup.procs", "cgroup.subtree_control", ".."]
)
def test_only_limits_can_be_written_through_unified(refused: Refused, value: str) -> None:
    text = refused(125, "run", "--rm", f"--unified={value}=1", "busybox", "true")
    if any(tree.version == 2 for tree in hierarchies()):
        assert value in text
    else:
        assert "only v1 trees" in text


# What the kernel, or the machine, refuses: the file, the value, and what would work

NOT_HERE = [
    ("--cpuset-cpus=4000", "cpuset", "cpuset.cpus", '"4000"', "choose among the processors 0"),
    ("--cpuset-mems=900", "cpuset", "cpuset.mems", '"900"', "choose among the nodes 0"),
    ("--cpu-quota=5", "cpu", "cpu.", '"5', "at least 1000"),
    ("--cpu-quota=5000 --cpu-burst=9000", "cpu", "burst", '"9000"', "at most the quota"),
    ("--pids-limit=99999999999", "pids", "pids.max", '"99999999999"', "-1 for no limit"),
    ("--device-read-bps=4000:99:1m", "blkio", "", "4000:99 ", "whole disk"),
    ("--net-prio=nope=5", "net_prio", "net_prio.ifpriomap", '"nope 5"', "ip link"),
    ("--hugetlb=3MB=6m", "hugetlb", "", '"3MB"', "MB"),
]


@pytest.mark.parametrize(
    ("options", "controller", "file", "value", "advice"), NOT_HERE, ids=[row[0] for row in NOT_HERE]
)
def test_what_this_machine_has_not_got_is_told_with_its_file(
    refused: Refused, options: str, controller: str, file: str, value: str, advice: str
) -> None:
    text = refused(125, "run", "--rm", *options.split(), "busybox", "true")
    if f"the {controller} controller cannot be used here" in text:
        pytest.skip(text)
    assert file in text and value in text and advice in text


def test_more_processors_than_there_are(refused: Refused, minicontainer: Command) -> None:
    there = os.sysconf("SC_NPROCESSORS_ONLN")
    assert f"this host has {there}" in refused(125, "run", "--rm", f"--cpus={there + 1}", "busybox", "true")
    assert minicontainer("run", "--rm", f"--cpus={there}", "busybox", "true").returncode == 0


def test_a_controller_that_is_off(refused: Refused, minicontainer: Command, tmp_path: Path) -> None:
    """As cgroup_disable=pids leaves it: in no tree, and 0 in /proc/cgroups; in a mount namespace of the test's own."""
    known = Path("/proc/cgroups").read_text()
    if "\npids\t" not in known:
        pytest.skip("/proc/cgroups of this kernel does not list pids")
    if world_of("pids") != 1:
        pytest.skip("a controller of a v2 tree cannot be hidden by unmounting it alone")
    off = "".join("pids\t0\t1\t0\n" if line.startswith("pids\t") else line for line in known.splitlines(keepends=True))
    (tmp_path / "cgroups").write_text(off)
    tree = hierarchy_of("pids")
    assert tree
    script = f"umount -l {shlex.quote(tree.mountpoint)} && mount --bind {tmp_path}/cgroups /proc/cgroups && exec "
    line = shlex.join(map(str, minicontainer.line()))
    minicontainer.words = ["unshare", "--mount", "sh", "-c", f'{script}"$@"', "sh", *minicontainer.words]
    text = refused(125, "run", "--rm", "--pids-limit", "20", "busybox", "true")
    assert "the pids controller cannot be used here" in text and "cgroup_disable=" in text, line
    assert minicontainer("run", "--rm", "busybox", "true").returncode == 0, "who does not ask for it needs it not"


def read_only(command: Command) -> None:
    """Let the command run where every tree of control groups is mounted read-only: in a mount namespace of its own."""
    places = [shlex.quote(tree.mountpoint) for tree in hierarchies()]
    script = "; ".join(f"mount --bind {place} {place} && mount -o remount,bind,ro {place}" for place in places)
    command.words = ["unshare", "--mount", "sh", "-c", f'{script}; exec "$@"', "sh", *command.words]


@pytest.mark.parametrize("option", ["--memory=64m", "--cpus=0.5", "--pids-limit=20", "--cpuset-cpus=0"])
def test_a_tree_that_is_mounted_read_only(refused: Refused, minicontainer: Command, option: str) -> None:
    read_only(minicontainer)
    text = refused(125, "run", "--rm", option, "busybox", "true")
    assert "EROFS" in text and "mounted read-only" in text and "cgroup" in text


def test_without_a_limit_a_read_only_tree_is_no_hindrance(
    minicontainer: Command, host_unchanged: HostUnchanged
) -> None:
    read_only(minicontainer)
    with host_unchanged():
        done = minicontainer("run", "--rm", "busybox", "echo", "up")
    assert (done.returncode, done.stdout, done.stderr) == (0, "up\n", "")


def test_a_tree_that_becomes_read_only_under_a_container(minicontainer: Command) -> None:
    with running(minicontainer, "alpha", "-m", "64m") as group:
        other = Command(minicontainer.root)
        read_only(other)
        done = other("update", "--memory", "128m", "alpha")
        assert done.returncode == 125
        text = one_line(done.stderr)
        assert "memory" in text and "mounted read-only" in text
        done = other("pause", "alpha")
        assert done.returncode == 1 and "mounted read-only" in one_line(done.stderr)
        assert says(group, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
        assert wishes(minicontainer, "alpha")["memory"] == 64 * MIB


# No permission


@pytest.mark.parametrize(
    "option", ["--memory=64m", "--cpus=0.5", "--pids-limit=20", "--cpuset-cpus=0", "--net-class=1:1"]
)
def test_an_ordinary_user_is_told_whose_it_is_and_what_would_work(
    tmp_path: Path, host_unchanged: HostUnchanged, option: str
) -> None:
    """The trees are root's here: nothing was delegated to anybody."""
    with host_unchanged():
        done = rootless(tmp_path, "run", "--rm", option, "busybox", "true")
    assert done.returncode == 125
    text = one_line(done.stderr)
    assert ("EACCES" in text and PARENT in text) or "cgroup.subtree_control" in text or "takes root" in text, text
    assert "root" in text and ("delegated to you" in text or "mounting one takes root" in text), text
    engine = tmp_path / "state/engine"
    assert [path for place in ("containers", "names") for path in (engine / place).glob("*")] == []


def test_an_ordinary_user_can_pause_nothing_that_has_no_group(tmp_path: Path, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        assert rootless(tmp_path, "create", "--name", "alpha", "busybox", "true").returncode == 0
        for command in ("pause", "unpause"):
            done = rootless(tmp_path, command, "alpha")
            assert done.returncode == 1 and "does not run" in one_line(done.stderr)
        done = rootless(tmp_path, "update", "--memory", "64m", "alpha")
        assert done.returncode == 0, "that counts from its next start"
        done = rootless(tmp_path, "start", "alpha")
        assert done.returncode == 125 and "root" in one_line(done.stderr), "and there it is refused"
        assert rootless(tmp_path, "rm", "alpha").returncode == 0


# Changes that are refused


@contextlib.contextmanager
def as_it_was(command: Command, name: str, group: Group) -> Iterator[None]:
    """The container's limits, in the kernel and on disk, are the same after the block; and it lives."""
    before, written = limits_of(group), wishes(command, name)
    yield
    assert limits_of(group) == before
    assert wishes(command, name) == written
    assert f" {name} " in command("ps").stdout


def test_less_memory_than_is_in_use_is_refused_and_nobody_dies(minicontainer: Command) -> None:
    with running(minicontainer, "alpha", "-m", "64m", program=HOLD_30_MIB) as group:
        version, directory = group["memory"]
        usage = Path(directory, "memory.usage_in_bytes" if version == 1 else "memory.current")
        wait_until(lambda: int(usage.read_text()) > 30 * MIB, "it has its memory")
        with as_it_was(minicontainer, "alpha", group):
            processes = says(group, "memory", "cgroup.procs").split()
            done = minicontainer("update", "--memory", "8m", "alpha")
            assert (done.returncode, done.stdout) == (125, "")
            text = one_line(done.stderr)
            # v1 with swap can push the pages out there, and then finds that both together are too much.
            files = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if version == 1 else ("memory.max",)
            assert any(file in text for file in files) and f'"{8 * MIB}"' in text
            assert "EBUSY" in text and "choose a higher limit" in text
            assert says(group, "memory", "cgroup.procs").split() == processes
        assert says(group, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)


def test_a_container_without_any_limit_keeps_having_none(minicontainer: Command) -> None:
    """Whatever else was changed before the kernel refused."""
    changes = ["--memory=64m", "--memory-reservation=32m", "--cpus=0.5", "--cpuset-cpus=0", "--cpuset-mems=0",
               "--pids-limit=40", "--cpu-shares=300", "--device-read-bps=4000:99:1m"]  # fmt: skip
    with running(minicontainer, "alpha") as group, as_it_was(minicontainer, "alpha", group):
        assert {file for file in limits_of(group) if not file.startswith("cpuset")} == set()
        done = minicontainer("update", *changes, "alpha")
        assert done.returncode == 125 and '"4000:99 ' in one_line(done.stderr)


def test_of_several_limits_all_are_set_or_none(minicontainer: Command) -> None:
    disk, _ = a_disk()
    first = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "30", "--cpuset-cpus", "0", "--cpu-shares", "512",
             "--device-write-bps", f"{disk}:9m"]  # fmt: skip
    changes = ["--memory=128m", "--memory-swap=256m", "--cpu-quota=5000", "--cpu-period=20000", "--cpu-idle",
               "--pids-limit=-1", f"--device-write-bps={disk}:1m", f"--device-read-bps={disk}:1m"]  # fmt: skip
    with running(minicontainer, "alpha", *first) as group:
        with as_it_was(minicontainer, "alpha", group):
            done = minicontainer("update", *changes, "--device-read-iops=4000:99:5", "alpha")
            assert done.returncode == 125 and '"4000:99 ' in one_line(done.stderr)
        assert minicontainer("update", *changes, "alpha").returncode == 0, "without the one, all the others can be"
        assert says(group, "pids", "pids.max") == "max"


def test_what_is_written_last_takes_the_others_back_with_it(minicontainer: Command) -> None:
    if not any(tree.version == 2 for tree in hierarchies()):
        pytest.skip("this host has no v2 tree: there is no --unified")
    with running(minicontainer, "alpha", "--unified", "cgroup.max.depth=5") as group:
        assert group.unified
        with as_it_was(minicontainer, "alpha", group):
            options = ["--pids-limit=40", "--unified=cgroup.max.depth=3", "--unified=cgroup.max.descendants=x"]
            done = minicontainer("update", *options, "alpha")
            assert done.returncode == 125 and "cgroup.max.descendants" in one_line(done.stderr)
        assert Path(group.unified, "cgroup.max.depth").read_text() == "5\n"


def test_a_controller_that_it_was_started_without(minicontainer: Command) -> None:
    if minicontainer("run", "--rm", "--net-class", "10:1", "busybox", "true").returncode:
        pytest.skip("this kernel has no net_cls")
    with running(minicontainer, "alpha") as group, as_it_was(minicontainer, "alpha", group):
        done = minicontainer("update", "--pids-limit=40", "--net-class=10:1", "alpha")
        assert done.returncode == 125
        text = one_line(done.stderr)
        assert "was started without the net_cls controller" in text and "next start" in text


def test_a_controller_that_is_off_in_its_group_of_v2(minicontainer: Command) -> None:
    """It is in the tree, and was not asked for when the container was started; unless some neighbour had asked for it."""
    if world_of("hugetlb") != 2:
        pytest.skip("hugetlb is not in a v2 tree here")
    with running(minicontainer, "alpha") as group:
        assert group.unified
        if "hugetlb" in Path(group.unified, "cgroup.controllers").read_text().split():
            pytest.skip("somebody else's container has switched hugetlb on for all groups of ours")
        with as_it_was(minicontainer, "alpha", group):
            done = minicontainer("update", "--pids-limit=40", "--hugetlb=2MB=64m", "alpha")
            assert done.returncode == 125
            assert "was started without the hugetlb controller" in one_line(done.stderr)


@pytest.mark.parametrize("options", ["", "--memory 64m", "--pids-limit 20 --cpus 1"])
def test_what_does_not_run_is_checked_as_well(minicontainer: Command, options: str) -> None:
    minicontainer("create", "--name", "alpha", *options.split(), "busybox", "true")
    before = wishes(minicontainer, "alpha")
    for change in (
        "--memory=0",
        "--cpus=9999",
        "--cpus=1 --cpu-quota=5000",
        "--pids-limit=0",
        "--memory=10bananas",
        "",
    ):
        done = minicontainer("update", *change.split(), "alpha")
        assert done.returncode == 125 and done.stdout == "", change
        one_line(done.stderr)
        assert wishes(minicontainer, "alpha") == before
    minicontainer("rm", "alpha")


def test_an_update_of_nothing_is_told_what_could_be_changed(refused: Refused, minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert "--memory 128m" in refused(125, "update", "alpha")
    assert "CONTAINER" in refused(125, "update", "--memory", "64m")
    minicontainer("rm", "alpha")


# Shares of memory


@pytest.mark.parametrize(
    ("share", "memory", "told"),
    [
        ("1:1:1", "300m", "3 shares, for 2 containers"),
        ("1", "300m", "1 shares, for 2 containers"),
        ("1:0", "300m", "1:2:1"),
        ("1:-1", "300m", "1:2:1"),
        ("1:x", "300m", "1:2:1"),
        ("1:٣", "300m", "1:2:1"),
        ("1:", "300m", "1:2:1"),
        ("1:1.5", "300m", "1:2:1"),
        ("1:1", "8m", "at least 6m"),
        ("1:1", "-1", "at least 6m"),
        ("1:1", "0", "at least 6m"),
        ("1:100000000", "300m", "1:2:1"),
        ("1:10000", "300m", "at least 6m"),
        ("1:1", "lots", "size"),
        ("1:1", "", "--memory"),
    ],
)
def test_shares_that_cannot_be_change_nothing(
    refused: Refused, minicontainer: Command, share: str, memory: str, told: str
) -> None:
    for name in ("alpha", "beta"):
        minicontainer("create", "--name", name, "-m", "64m", "busybox", "true")
    pool = ["--memory", memory] if memory else []
    assert told in refused(125, "update", *pool, f"--memory-share={share}", "alpha", "beta")
    assert wishes(minicontainer, "alpha")["memory"] == wishes(minicontainer, "beta")["memory"] == 64 * MIB
    minicontainer("rm", "alpha", "beta")


# What is not there, or does not run


@pytest.mark.parametrize("command", ["pause", "unpause", "freeze", "unfreeze"])
def test_what_does_not_run_cannot_be_stopped(refused: Refused, minicontainer: Command, command: str) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert "minicontainer start alpha" in refused(1, command, "alpha")
    minicontainer("start", "-a", "alpha")
    assert "does not run" in refused(1, command, "alpha")
    minicontainer("rm", "alpha")


@pytest.mark.parametrize(
    "arguments",
    [
        ["update", "--memory", "64m", "nope"], ["pause", "nope"], ["unpause", "nope"], ["freeze", "nope"],
        ["unfreeze", "nope"], ["stats", "--no-stream", "nope"], ["cgroup", "count", "nope"],
        ["update", "--memory", "64m", "../containers"], ["pause", ""],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_name_of_nothing(refused: Refused, arguments: list[str]) -> None:
    text = refused(1, *arguments)
    assert f'"{arguments[-1]}"' in text and "minicontainer ps -a" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cgroup"], "what"),
        (["cgroup", "forest"], "tree"),
        (["cgroup", "count"], "minicontainer cgroup count c1"),
        (["cgroup", "count", "alpha", "--event", "nonsense"], "cpu-clock"),
        (["cgroup", "count", "alpha", "--seconds", "x"], "--seconds"),
        (["cgroup", "count", "alpha", "--seconds=-1"], "positive"),
        (["cgroup", "count", "alpha", "--seconds", "nan"], "positive"),
        (["cgroup", "count", "alpha", "--seconds", "inf"], "positive"),
        (["pause"], "CONTAINER"),
        (["stats", "--nonsense"], "--help"),
        (["update", "--oom-kill-disable", "alpha"], "--help"),
        (["update", "--device", "/dev/null", "alpha"], "--help"),
    ],
)
def test_words_that_are_missing_or_wrong(
    refused: Refused, minicontainer: Command, arguments: list[str], told: str
) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert told in refused(125, *arguments)
    minicontainer("rm", "alpha")


def test_events_of_what_does_not_run(refused: Refused, minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert "minicontainer start alpha" in refused(1, "cgroup", "count", "alpha")
    assert json.loads(minicontainer("stats", "--json", "alpha").stdout) == []
    minicontainer("rm", "alpha")


def test_statistics_of_what_ends_meanwhile_are_left_out(minicontainer: Command) -> None:
    """Containers come and go while others are counted: no traceback, and never half a line."""
    with running(minicontainer, "alpha") as group:
        churn = shlex.join(map(str, minicontainer.line("run", "--rm", "busybox", "true")))
        script = f"for i in $(seq 12); do {churn}; done"
        with subprocess.Popen(["sh", "-c", script], stdin=-3, stdout=-3, stderr=-1, text=True) as comes_and_goes:
            while comes_and_goes.poll() is None:
                for arguments in (["stats", "--json"], ["cgroup", "tree", "--json"], ["ps"]):
                    done = minicontainer(*arguments)
                    assert (done.returncode, done.stderr) == (0, ""), arguments
                    assert "alpha" in done.stdout
            assert comes_and_goes.stderr and comes_and_goes.stderr.read() == ""
            comes_and_goes.wait(DEADLINE)
        assert group_of(minicontainer, "alpha") == group
