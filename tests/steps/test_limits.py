"""`steps/limits.py`: on the control groups of this machine; and, for the other version, in a directory that looks like it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.linux.cgroups import Hierarchy, hierarchies, hierarchy_of
from minicontainer.steps import limits
from minicontainer.steps.limits import Limits, LimitUnavailable, create_group, enter_group, groups_named, remove_group
from tests.command import needs_root

pytestmark = needs_root

ALL = Limits(memory=64 << 20, cpus=0.5, pids=20)
HERE = {controller: hierarchy_of(controller) for controller in ("memory", "cpu", "pids")}

needs_controllers = pytest.mark.skipif(
    not all(HERE.values()), reason=f"no mounted cgroup tree has {[name for name, tree in HERE.items() if not tree]}"
)


@pytest.fixture
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A name for a group that nobody else has."""
    return f"test-{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**8}"


def in_use(name: str, controller: str, file: str) -> str:
    """What a limit file of the group says."""
    tree = HERE[controller]
    assert tree is not None
    return Path(tree.mountpoint, limits.PARENT, name, file).read_text().strip()


@needs_controllers
def test_the_kernel_has_the_limits_that_were_asked_for(name: str) -> None:
    group = create_group(name, ALL)
    try:
        if HERE["memory"].version == 1:  # type: ignore[union-attr]
            assert in_use(name, "memory", "memory.limit_in_bytes") == str(64 << 20)
        else:
            assert in_use(name, "memory", "memory.max") == str(64 << 20)
        if HERE["cpu"].version == 1:  # type: ignore[union-attr]
            period, quota = (int(in_use(name, "cpu", f"cpu.cfs_{what}_us")) for what in ("period", "quota"))
        else:
            quota, period = map(int, in_use(name, "cpu", "cpu.max").split())
        assert quota / period == 0.5
        assert in_use(name, "pids", "pids.max") == "20"
        assert sorted(group) == sorted(groups_named(name))
    finally:
        remove_group(group)
    assert groups_named(name) == []


@needs_controllers
def test_only_the_trees_that_are_needed_are_used(name: str) -> None:
    group = create_group(name, Limits(pids=5))
    try:
        tree = HERE["pids"]
        assert group == [f"{tree.mountpoint}/{limits.PARENT}/{name}"]  # type: ignore[union-attr]
    finally:
        remove_group(group)
    assert create_group(name, Limits()) == []


@needs_controllers
def test_a_process_enters_with_all_that_it_starts(name: str) -> None:
    group = create_group(name, ALL)
    with subprocess.Popen(["sh", "-c", "read x; cat /proc/self/cgroup"], stdin=-1, stdout=-1, text=True) as process:
        enter_group(group, process.pid)
        out, _ = process.communicate("\n")
    remove_group(group)
    for directory in group:
        assert f"/{limits.PARENT}/{name}" in out, directory
    assert out.count(f"/{limits.PARENT}/{name}") == len({os.path.dirname(directory) for directory in group})


@needs_controllers
def test_what_is_still_in_it_is_killed(name: str) -> None:
    group = create_group(name, ALL)
    # One that ignores every request to end, with children of its own.
    program = "trap '' TERM INT HUP; sleep 1000 & sleep 1000 & echo; while :; do wait; done"
    process = subprocess.Popen(["sh", "-c", f"read x; {program}"], stdin=-1, stdout=-1, text=True)
    assert process.stdin and process.stdout
    enter_group(group, process.pid)
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()
    remove_group(group)
    assert process.wait(30) == -signal.SIGKILL
    assert process.stdout.read() == "", "the pipe is closed only when all of them have ended"
    process.stdin.close()
    process.stdout.close()
    assert groups_named(name) == []


@needs_controllers
def test_removing_what_is_gone_is_no_error(name: str) -> None:
    group = create_group(name, ALL)
    remove_group(group)
    remove_group(group)
    remove_group([])


@needs_controllers
def test_a_group_with_groups_in_it_goes_with_them(name: str) -> None:
    """Whoever is root in a container may make groups below its own, where a cgroup tree is mounted inside."""
    group = create_group(name, Limits(pids=20))
    Path(group[0], "inner/innermost").mkdir(parents=True)
    try:
        remove_group(group)
        assert groups_named(name) == []
    finally:
        for directory in ("inner/innermost", "inner", ""):
            if Path(group[0], directory).is_dir():
                Path(group[0], directory).rmdir()


@needs_controllers
@pytest.mark.parametrize(
    "wrong", [Limits(pids=-5), Limits(memory=64 << 20, pids=-5), Limits(cpus=0.0), Limits(cpus=1e9)]
)
def test_a_limit_that_the_kernel_refuses_leaves_nothing(name: str, wrong: Limits) -> None:
    with pytest.raises(LimitUnavailable, match=r'write\(.*, "'):
        create_group(name, wrong)
    assert groups_named(name) == []


def test_a_controller_that_is_nowhere_is_named(monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "hierarchies", lambda: [Hierarchy(2, str(tmp_path), ("cpu",))])
    with pytest.raises(LimitUnavailable, match="no mounted cgroup tree has the memory controller"):
        create_group(name, Limits(memory=1))
    assert list(tmp_path.iterdir()) == []


@needs_controllers
def test_many_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """The last group of ours takes the common parent with it, while another is being made in there."""
    program = (
        "import sys; from minicontainer.steps.limits import *\n"
        "for n in range(60): remove_group(create_group(f'test-{sys.argv[1]}-{n}', Limits(pids=5, memory=1 << 24)))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, f"{os.getpid()}-{n}"], stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == ["", "", ""]


# The other version, as files: what would be written to a unified tree.


@pytest.fixture
def unified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what is written to of a v2 tree. Only here is anything pretended: this kernel has but one world."""
    (tmp_path / "cgroup.subtree_control").touch()
    monkeypatch.setattr(limits, "hierarchies", lambda: [Hierarchy(2, str(tmp_path), ("cpu", "memory", "pids"))])
    for directory in (tmp_path / limits.PARENT, tmp_path / limits.PARENT / "alpha"):
        directory.mkdir()
        for file in ("cgroup.subtree_control", "memory.max", "memory.swap.max", "cpu.max", "pids.max", "cgroup.procs"):
            (directory / file).touch()
    return tmp_path


def test_v2_files_get_v2_values(unified: Path) -> None:
    group = create_group("alpha", Limits(memory=1 << 20, cpus=1.5, pids=7))
    assert group == [str(unified / limits.PARENT / "alpha")]
    values = {
        name: Path(group[0], name).read_text() for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
    }
    assert values == {"memory.max": "1048576", "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "7"}
    enter_group(group, 4242)
    assert Path(group[0], "cgroup.procs").read_text() == "4242"


def test_v2_controllers_are_switched_on_above_the_group_and_not_in_it(unified: Path) -> None:
    create_group("alpha", Limits(pids=7))
    assert (unified / "cgroup.subtree_control").read_text() == "+pids"
    assert (unified / limits.PARENT / "cgroup.subtree_control").read_text() == "+pids"
    assert (unified / limits.PARENT / "alpha/cgroup.subtree_control").read_text() == ""


def test_v2_without_swap_accounting_is_no_error(unified: Path) -> None:
    directory = unified / limits.PARENT / "alpha"
    (directory / "memory.swap.max").unlink()
    directory.chmod(0o555)
    group = create_group("alpha", Limits(memory=1 << 20))
    assert Path(group[0], "memory.max").read_text() == "1048576"


@given(
    st.builds(
        Limits,
        memory=st.none() | st.integers(0, 2**63 - 1),
        cpus=st.none() | st.floats(0.001, 4096),
        pids=st.none() | st.integers(0, 2**22),
    )
)
def test_every_wish_is_written_for_both_versions(wanted: Limits) -> None:
    files = wanted.files()
    assert set(files) == {
        controller
        for controller, value in (("memory", wanted.memory), ("cpu", wanted.cpus), ("pids", wanted.pids))
        if value is not None
    }
    for controller in files.values():
        for version in (1, 2):
            assert any(version in values for values in controller.values())
    if wanted.cpus is not None:
        quota, period = map(int, files["cpu"]["cpu.max"][2].split())
        assert abs(quota / period - wanted.cpus) <= 1 / period


def test_hierarchies_are_read_anew(tmp_path: Path) -> None:
    assert hierarchies() == hierarchies()
