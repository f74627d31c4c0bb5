"""Control groups made, limited and removed over and over, by one and by several at once: nothing is left, nobody is hurt.

The last group of ours takes the common parent with it, while another is being made in there; and the last of a tree that
was mounted for it takes the mount.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.engine import Engine
from minicontainer.linux.cgroups import hierarchies, hierarchy_of
from minicontainer.runtime import limits
from minicontainer.runtime.limits import EVERYDAY, Limits
from minicontainer.steps import Steps
from minicontainer.steps.group import MOUNTS, PARENT, LimitUnavailable, create_group, list_groups, remove_group
from tests.command import Command, needs_root
from tests.host_state import SLOWER, HostUnchanged

pytestmark = needs_root

ROUNDS = 500
TOGETHER = 3  # processes; the machine is shared
WANTED = Limits(memory=64 << 20, pids=20, cpus=0.5, cpu_shares=512, cpuset_cpus="0")
PATIENCE = 80 * SLOWER  # s

CHURN = """
import sys
from minicontainer.steps.group import create_group, remove_group
name, rounds, needed = sys.argv[1], int(sys.argv[2]), sys.argv[3].split()
for n in range(rounds):
    group = create_group(f"{name}-{n}", needed)
    remove_group(group)
"""

LOCK_CHURN = """
import contextlib, os, sys
from minicontainer.steps import group
group.MOUNTS, rounds = sys.argv[1], int(sys.argv[2])
for n in range(rounds):
    with group._mounts_locked():
        for directory in (group.MOUNTS, os.path.dirname(group.MOUNTS)):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
"""
"""Take the lock, and take its directory away with it, as whoever unmounts the last tree does."""


def ours() -> list[str]:
    """The groups that this test's processes have made, in any tree."""
    return [name for name in list_groups() if f"churn-{os.getpid()}" in name]


def test_hundreds_of_rounds_leave_no_group_behind(host_unchanged: HostUnchanged) -> None:
    steps = Steps()
    with host_unchanged():
        for number in range(ROUNDS):
            group = steps.create_group(f"churn-{os.getpid()}-{number}", WANTED.needed(), EVERYDAY)
            try:
                limits.apply(WANTED, group, steps)
                if number % 50 == 0:
                    assert all(map(os.path.isdir, group.directories)) and len(group.directories) >= 1
            finally:
                steps.remove_group(group)
        assert ours() == []


def test_rounds_with_a_process_in_each_leave_nobody_behind(host_unchanged: HostUnchanged) -> None:
    """A process leaves its group some moments after its death: rmdir(2) says EBUSY until then."""
    steps = Steps()
    with host_unchanged():
        for number in range(50):
            group = steps.create_group(f"churn-{os.getpid()}-{number}", ["memory", "pids"], EVERYDAY)
            process = subprocess.Popen(["sleep", "600"])
            try:
                steps.enter_group(group, process.pid)
                if number % 5 == 0:
                    steps.freeze(group)
            finally:
                steps.remove_group(group)
                process.kill()
                assert process.wait() == -9
            assert not any(map(os.path.exists, group.directories))
        assert ours() == []


def test_rounds_of_a_refused_limit_leave_no_group_behind(engine: Engine, host_unchanged: HostUnchanged) -> None:
    from minicontainer.runtime.errors import StartError

    wrong = WANTED.replace(io_rates=(("4000:99", "read_bps", 5),))
    with host_unchanged():
        for _ in range(20):
            with pytest.raises(StartError):
                engine.run("busybox", ["true"], limits=wrong, cgroup_parent="web/front")
    assert engine.containers() == []


@pytest.fixture
def engine(state_root: Path) -> Engine:
    """An engine with a state directory of its own."""
    return Engine(state_root)


def test_containers_with_limits_come_and_go_and_leave_nothing(engine: Engine, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        for number in range(15):
            parent = ("", "web", "web/front")[number % 3]
            assert engine.run("busybox", ["true"], limits=WANTED, cgroup_parent=parent).status == 0
    assert engine.containers() == []
    assert Command(Path(engine.store.root)).containers() == []


def at_once(*argument_lists: tuple[str, ...], churn: str = CHURN) -> list[str]:
    """The churn in several processes side by side; returns what each wrote on standard error."""
    processes = [
        subprocess.Popen([sys.executable, "-c", churn, *arguments], stderr=subprocess.PIPE, text=True)
        for arguments in argument_lists
    ]
    try:
        return [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("below", ["", "web/front/"])
def test_many_at_once_do_not_disturb_each_other(host_unchanged: HostUnchanged, below: str) -> None:
    """In groups of their own, and in one that they share and that goes with the last of them."""
    names = [f"{below}churn-{os.getpid()}-{number}" for number in range(TOGETHER)]
    with host_unchanged():
        errors = at_once(*((name, "80", "pids memory cpu") for name in names))
    assert errors == [""] * TOGETHER
    assert ours() == []


def test_mounts_on_demand_are_made_and_unmade_by_many_at_once(host_unchanged: HostUnchanged) -> None:
    for controller in ("net_cls", "net_prio"):
        if (tree := hierarchy_of(controller)) and not tree.mountpoint.startswith(MOUNTS):
            pytest.skip(f"this host has mounted {controller} itself, at {tree.mountpoint}")
        try:
            remove_group(create_group(f"churn-{os.getpid()}", [controller]))
        except LimitUnavailable as error:
            pytest.skip(f"this kernel has no {controller}: {error}")
    kinds = ("net_cls pids", "net_prio", "net_cls net_prio memory")
    with host_unchanged():
        errors = at_once(*((f"churn-{os.getpid()}-{number}", "15", kind) for number, kind in enumerate(kinds)))
    assert errors == [""] * len(kinds)
    assert ours() == []


def test_the_lock_of_the_mounts_may_be_taken_away_at_any_moment(tmp_path: Path) -> None:
    """Its directory, and the one above it, go with the last mount, while others are about to make them."""
    arguments = (str(tmp_path / "run/mounts"), "1500")
    assert at_once(*[arguments] * 3, churn=LOCK_CHURN) == [""] * 3
    assert not (tmp_path / "run").exists()


def test_containers_whose_packets_are_marked_start_side_by_side(
    minicontainer: Command, host_unchanged: HostUnchanged
) -> None:
    if minicontainer("run", "--rm", "--net-class", "10:1", "busybox", "true").returncode:
        pytest.skip("this kernel has no net_cls")
    with host_unchanged():
        for _ in range(3):
            processes = [
                subprocess.Popen(
                    minicontainer.line("run", "--rm", "--net-class", f"10:{number + 1}", "-m", "64m", "busybox", "true"),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
                for number in range(4)
            ]  # fmt: skip
            ends = [(*process.communicate(timeout=PATIENCE), process.returncode) for process in processes]
            assert ends == [("", "", 0)] * 4
    assert minicontainer.containers() == []


def test_no_tree_has_a_group_of_ours_that_nobody_uses() -> None:
    """After all of the above; other people's containers may run."""
    for tree in hierarchies():
        top = Path(tree.home(), PARENT)
        assert not [path for path in top.rglob(f"churn-{os.getpid()}*") if path.is_dir()]
