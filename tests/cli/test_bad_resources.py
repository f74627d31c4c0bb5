"""Limits that cannot be: one line that says which file refused which value and what would work, and all else as it was."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.engine.store import Store
from minicontainer.linux.cgroups import hierarchies, hierarchy_of
from minicontainer.steps.group import PARENT, Group
from minicontainer.steps.usage import limits_of
from tests.cli.conftest import Refused
from tests.cli.test_resources import HOLD_30_MIB, MIB, a_disk, group_of, running, says
from tests.cli.test_rootless import rootless
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.host_state import HostUnchanged

pytestmark = needs_root


def world_of(controller: str) -> int:
    """1 or 2: in which version this host has the controller; 0 where in none."""
    tree = hierarchy_of(controller)
    return tree.version if tree else 0


def wishes(command: Command, name: str) -> dict[str, object]:
    """What is written down of a container's limits."""
    return Store(str(command.root)).find(name).limits.asdict()


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


# What ends meanwhile


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
