"""`steps/group.py`: groups in each tree of this machine, and on a directory that looks like a v2 tree."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.linux import CLONE_NEWCGROUP, CLONE_NEWUSER, unshare
from minicontainer.linux.cgroups import Hierarchy, hierarchy_of
from minicontainer.steps import group as steps
from minicontainer.steps.group import (
    MOUNTS,
    PARENT,
    Group,
    LimitUnavailable,
    create_group,
    delegate_group,
    enter_group,
    find_group,
    list_groups,
    remove_empty_groups,
    remove_group,
)
from minicontainer.steps.pids import limit_pids
from tests.command import needs_root
from tests.steps.conftest import Groups, on_disk

pytestmark = needs_root

EVERY = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer", "devices")


def test_a_group_is_a_directory_in_each_tree_that_it_needs(groups: Groups) -> None:
    group = groups(*EVERY)
    for controller in EVERY:
        version, directory = group[controller]
        tree = hierarchy_of(controller)
        assert tree and (version, directory) == (tree.version, f"{tree.home()}/{PARENT}/{group.name}")
        assert Path(directory).is_dir()
    remove_group(group)
    assert not any(map(os.path.exists, group.directories))


def test_only_the_trees_that_are_needed_are_used(groups: Groups) -> None:
    group = groups("pids")
    assert len(group.directories) == 1
    assert create_group("nothing", []).directories == []


def test_a_process_enters_with_all_that_it_starts(groups: Groups) -> None:
    group = groups("memory", "cpu", "pids")
    process = groups.start(group, "sh", "-c", "cat /proc/self/cgroup")
    out, _ = process.communicate(timeout=60)
    assert out.count(f"/{PARENT}/{group.name}\n") == len(group.directories)


def test_groups_lie_in_groups(groups: Groups) -> None:
    outer = groups("pids")
    inner = create_group(f"{outer.name}/inner/most", ["pids"])
    assert inner["pids"][1] == f"{outer['pids'][1]}/inner/most"
    remove_group(inner)
    assert not os.path.exists(f"{outer['pids'][1]}/inner"), "what only held a group goes with it"


def test_what_is_still_in_it_is_killed(groups: Groups) -> None:
    group = groups("memory", "pids")
    # One that ignores every request to end, with children of its own.
    process = groups.start(
        group, "sh", "-c", "trap '' TERM INT HUP; sleep 1000 & sleep 1000 & echo; while :; do wait; done"
    )
    assert process.stdout and process.stdout.readline()
    remove_group(group)
    assert process.wait(30) == -signal.SIGKILL
    assert process.stdout.read() == "", "the pipe is closed only when all of them have ended"


def test_what_is_frozen_is_killed_as_well(groups: Groups) -> None:
    """On v1 it does not even die before it is thawed."""
    from minicontainer.steps.freezer import freeze

    group = groups("pids", "freezer")
    process = groups.start(group, "sleep", "1000")
    freeze(group)
    remove_group(group)
    assert process.wait(30) == -signal.SIGKILL


def test_removing_what_is_gone_is_no_error(groups: Groups) -> None:
    group = groups("pids")
    remove_group(group)
    remove_group(group)
    remove_group(Group("nothing", {}))


def test_a_group_with_groups_in_it_goes_with_them(groups: Groups) -> None:
    """Whoever is root in a container may make groups below its own, where a cgroup tree is mounted inside."""
    group = groups("pids")
    Path(group.directories[0], "inner/innermost").mkdir(parents=True)
    remove_group(group)
    assert not os.path.exists(group.directories[0])


def test_it_is_found_again_by_its_name(groups: Groups) -> None:
    group = groups(*EVERY)
    found = find_group(group.name)
    assert {controller: found[controller] for controller in EVERY} == dict(group.places)
    assert group.name in list_groups()
    assert find_group("nobody").places == {}


def test_a_controller_that_nobody_has_is_named() -> None:
    with pytest.raises(LimitUnavailable, match="the rubber controller cannot be used here: this kernel was built"):
        create_group("rubber", ["pids", "rubber"])
    assert find_group("rubber").places == {}


def test_what_is_only_wished_for_may_be_missing(groups: Groups) -> None:
    group = create_group(groups.name(), ["pids"], ["rubber", "memory"])
    groups.made.append(group)
    assert "rubber" not in group and "pids" in group
    with pytest.raises(LimitUnavailable, match="rubber"):
        group["rubber"]


# Controllers that are in no tree


@pytest.mark.parametrize("controller", ["net_cls", "net_prio"])
def test_a_missing_controller_is_mounted_in_a_place_of_ours(groups: Groups, controller: str) -> None:
    if tree := hierarchy_of(controller):
        pytest.skip(f"this host has mounted {controller} itself, at {tree.mountpoint}")
    try:
        group = groups(controller)
    except LimitUnavailable as error:
        pytest.skip(f"this kernel has no {controller}: {error}")
    version, directory = group[controller]
    assert version == 1 and directory.startswith(f"{MOUNTS}/")
    assert hierarchy_of(controller) is not None
    remove_group(group)
    assert hierarchy_of(controller) is None and not os.path.exists(MOUNTS), "and goes with its last group"


def test_a_mount_that_somebody_has_forgotten_is_taken_away(groups: Groups) -> None:
    """Killed between the mount and the group, or between its removal and the end of the mount."""
    if hierarchy_of("net_cls"):
        pytest.skip("this host has mounted net_cls itself")
    try:
        group = groups("net_cls")
    except LimitUnavailable as error:
        pytest.skip(f"this kernel has no net_cls: {error}")
    os.rmdir(group["net_cls"][1])
    assert os.path.ismount(f"{MOUNTS}/net_cls")
    remove_empty_groups()
    assert not os.path.exists(MOUNTS)


# Several at once


def test_many_at_once_do_not_disturb_each_other() -> None:
    """The last group of ours takes the common parent with it, while another is being made in there."""
    program = (
        "import sys; from minicontainer.steps.group import *\n"
        "for n in range(60): remove_group(create_group(f'test-{sys.argv[1]}-{n}', ['pids', 'memory']))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, f"{os.getpid()}-{n}"], stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert errors == ["", "", ""]


# Delegation


def test_a_delegated_group_can_be_divided_and_not_lifted(groups: Groups) -> None:
    """Root of a user namespace makes groups below, fills them and limits them; the limits of its own stay as they are."""
    group = groups("memory", "pids")
    limit_pids(group, 50)
    delegate_group(group, 12345, 12345)
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        words = []
        try:
            enter_group(group, 0)
            os.setgroups([])
            os.setresgid(12345, 12345, 12345)
            os.setresuid(12345, 12345, 12345)
            unshare(CLONE_NEWUSER | CLONE_NEWCGROUP)
            version, directory = group["pids"]
            if version == 2:  # a group of v2 has either processes or groups with controllers
                os.mkdir(f"{directory}/leaf")
                Path(directory, "leaf/cgroup.procs").write_text("0")
                Path(directory, "cgroup.subtree_control").write_text("+pids")
            os.mkdir(f"{directory}/mine")
            Path(directory, "mine/pids.max").write_text("7")
            Path(directory, "mine/cgroup.procs").write_text("0")
            words.append("divided")
            Path(directory, "pids.max").write_text("max")
            words.append("lifted")
        except OSError as error:
            words.append(type(error).__name__)
        finally:
            os.write(told, " ".join(words).encode())
            os._exit(0)
    os.close(told)
    with open(ready) as answer:
        assert answer.read() == "divided PermissionError"
    os.waitpid(child, 0)
    assert on_disk(group, "pids", "pids.max") == "50"
    assert Path(group["pids"][1], "mine/pids.max").read_text().strip() == "7"


def test_an_ordinary_user_is_told_what_would_work(groups: Groups, capfd: pytest.CaptureFixture[str]) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(12345, 12345, 12345)
            create_group("not-allowed", ["pids"])
        except LimitUnavailable as error:
            print(error.strerror, flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    told = capfd.readouterr().out
    assert "/sys/fs/cgroup" in told and "EACCES" in told and "delegated to you" in told, told
    assert find_group("not-allowed").places == {}


# Born into it: v2


def test_clone3_can_be_born_into_a_v2_group(groups: Groups) -> None:
    """CLONE_INTO_CGROUP, through spawn_init: no moment in which it is elsewhere. This host's v2 tree will do."""
    from minicontainer.steps.pid import spawn_init

    group = groups("perf_event")
    if group.unified is None:
        pytest.skip("this host has no v2 tree")
    ready, told = os.pipe()

    def main() -> int:
        os.read(ready, 1)
        return 0

    place = os.open(group.unified, os.O_RDONLY | os.O_DIRECTORY)
    pid = spawn_init(main, cgroup=place)
    os.close(place)
    assert str(pid) in Path(group.unified, "cgroup.procs").read_text().split()
    os.write(told, b"x")
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(told)


# The other version, as files: what would be written to a unified tree.


@pytest.fixture
def unified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what is written to of a v2 tree. Only here is anything pretended; the VM has a real one."""
    for directory in (tmp_path, tmp_path / PARENT, tmp_path / PARENT / "alpha"):
        directory.mkdir(exist_ok=True)
        for file in ("cgroup.subtree_control", "cgroup.procs"):
            (directory / file).touch()
    monkeypatch.setattr(
        steps, "hierarchies", lambda **_: [Hierarchy(2, str(tmp_path), ("cpu", "memory", "pids", "io"))]
    )
    return tmp_path


def test_v2_controllers_are_switched_on_above_the_group_and_not_in_it(unified: Path) -> None:
    group = create_group("alpha", ["memory", "pids", "blkio", "freezer", "cpuacct"])
    assert group.directories == [str(unified / PARENT / "alpha")]
    for place in (unified, unified / PARENT):
        assert (place / "cgroup.subtree_control").read_text() == "+memory +pids +io"
    assert (unified / PARENT / "alpha/cgroup.subtree_control").read_text() == ""
    enter_group(group, 4242)
    assert (unified / PARENT / "alpha/cgroup.procs").read_text() == "4242"


def test_a_group_that_is_full_of_processes_is_explained(unified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(file: str, value: object) -> None:
        raise OSError(16, f'write({file}, "{value}"): EBUSY (Device or resource busy)')

    monkeypatch.setattr(steps, "write", busy)
    with pytest.raises(LimitUnavailable, match=r"EBUSY.*either processes or groups.*move the processes of"):
        create_group("alpha", ["memory"])


def test_a_wait_for_the_dead_is_a_wait_for_an_event(groups: Groups) -> None:
    """A big group goes quickly: its processes are killed together, and waited for by pidfd."""
    group = groups("pids")
    processes = [groups.start(group, "sleep", "1000") for _ in range(20)]
    remove_group(group)
    for process in processes:
        pidfd = os.pidfd_open(process.pid)
        assert select.select([pidfd], [], [], 0)[0], "it had ended when remove_group returned"
        os.close(pidfd)
        assert process.wait() == -signal.SIGKILL
