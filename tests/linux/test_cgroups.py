"""Which world of control groups this is: read from what the kernel of each of them says, and from this one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicontainer.linux import cgroups
from minicontainer.linux.cgroups import Hierarchy, hierarchies, hierarchy_of, mountable, read, write
from tests.command import needs_root

V1 = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
V2 = "30 24 0:26 / {top} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Let the kernel say this, below /proc. The trees themselves are directories where there is one."""

    def tell(mountinfo: str, own: str, known: str = "") -> None:
        for name, text in (("MOUNTINFO", mountinfo), ("OWN_GROUPS", own), ("KNOWN", known)):
            (tmp_path / name).write_text(text)
            monkeypatch.setattr(cgroups, name, str(tmp_path / name))

    return tell


def unified(tmp_path: Path, controllers: str = "cpuset cpu io memory pids") -> Path:
    """A directory that looks like a v2 tree: this host has none with controllers."""
    top = tmp_path / "unified"
    top.mkdir(exist_ok=True)
    (top / "cgroup.procs").touch()
    (top / "cgroup.controllers").write_text(f"{controllers}\n")
    return top


def test_v1_has_a_tree_for_each_controller(told) -> None:  # type: ignore[no-untyped-def]
    told(V1, "4:memory:/user/1000\n2:cpu,cpuacct:/\n1:name=systemd:/init.scope\n")
    assert hierarchies() == [
        Hierarchy(1, "/sys/fs/cgroup/cpu,cpuacct", ("cpu", "cpuacct"), "/"),
        Hierarchy(1, "/sys/fs/cgroup/memory", ("memory",), "/user/1000"),
    ]
    assert hierarchy_of("cpuacct").mountpoint == "/sys/fs/cgroup/cpu,cpuacct"  # type: ignore[union-attr]
    assert hierarchy_of("pids") is None


def test_v2_has_one_for_all_and_some_controllers_without_asking(told, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    top = unified(tmp_path)
    told(V2.format(top=top), "0::/\n")
    [tree] = hierarchies()
    assert (tree.version, tree.controllers) == (2, ("cpuset", "cpu", "io", "memory", "pids"))
    for controller in ("memory", "blkio", "freezer", "devices", "cpuacct", "perf_event"):
        assert hierarchy_of(controller) == tree, controller
    for controller in ("net_cls", "hugetlb", "rdma"):
        assert hierarchy_of(controller) is None, controller


def test_hybrid_prefers_v1_where_the_controller_is_there(told, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    top = unified(tmp_path, "hugetlb")
    told(V2.format(top=top) + V1, "4:memory:/\n2:cpu,cpuacct:/\n0::/\n")
    assert hierarchy_of("cpuacct").version == 1  # type: ignore[union-attr]
    assert hierarchy_of("hugetlb").version == 2  # type: ignore[union-attr]


def test_a_blank_in_a_path_and_a_part_of_a_tree(told) -> None:  # type: ignore[no-untyped-def]
    told("35 31 0:32 /docker/abc /sys/fs/my\\040groups rw - cgroup cgroup rw,memory\n", "4:memory:/docker/abc/inner\n")
    assert hierarchies() == [Hierarchy(1, "/sys/fs/my groups", ("memory",), "/inner")]


@pytest.mark.parametrize("own", ["/../elsewhere", "/..", "/"])
def test_a_group_out_of_sight_is_taken_for_the_top(told, own: str) -> None:  # type: ignore[no-untyped-def]
    """As after a move out of the root of one's cgroup namespace."""
    told(V1, f"4:memory:{own}\n2:cpu,cpuacct:/\n")
    assert hierarchy_of("memory").own == "/"  # type: ignore[union-attr]


def test_home_is_the_highest_group_that_may_be_written(told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """What systemd delegates to a user begins at user@1000.service, a few groups below the top."""
    top = unified(tmp_path)
    delegated = top / "user.slice/user@1000.service"
    own = delegated / "app.slice/shell.scope"
    own.mkdir(parents=True)
    for group in (delegated, delegated / "app.slice", own):
        (group / "cgroup.procs").touch()
    (delegated / "cgroup.controllers").write_text("memory pids")
    writable = {str(path) for path in (delegated, delegated / "app.slice", own)}
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).removesuffix("/cgroup.procs") in writable)
    told(V2.format(top=top), f"0::/{own.relative_to(top)}\n")
    [tree] = hierarchies()
    assert tree.home() == str(delegated)
    assert tree.controllers == ("memory", "pids"), "those that reach the home, not those of the top"


def test_what_can_be_mounted(told) -> None:  # type: ignore[no-untyped-def]
    known = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nnet_cls\t0\t1\t1\nmemory\t0\t1\t0\nrdma\t7\t1\t1\nperf_event\t7\t1\t1\n"
    told("", "7:rdma,perf_event:/\n", known)
    assert mountable("net_cls") == ("net_cls",)
    assert mountable("memory") == (), "switched off"
    assert mountable("misc") == (), "not in this kernel"
    assert mountable("rdma") == ("rdma", "perf_event"), "a tree that is alive, out of our sight: only as a whole"
    assert "switched off" in cgroups.missing("memory") and "built without" in cgroups.missing("misc")


def test_this_host_says_what_its_own_files_say() -> None:
    """Against another reading of the same files: findmnt(8)."""
    for tree in hierarchies():
        assert Path(tree.mountpoint, "cgroup.procs").exists()
        assert Path(tree.home()).is_dir()
    assert hierarchies() == hierarchies()


@needs_root
def test_a_refusal_is_the_call_that_was_refused(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    write(f"{tmp_path}/memory.max", 4096)
    assert read(f"{tmp_path}/memory.max") == "4096"
    with pytest.raises(FileNotFoundError, match=r'write\(.*/nothing, "5"\): ENOENT'):
        write(f"{tmp_path}/nothing", 5)
    if tree := hierarchy_of("pids"):
        with pytest.raises(OSError, match=r'write\(.*cgroup.procs, "none"\): EINVAL \(Invalid argument\)'):
            write(f"{tree.mountpoint}/cgroup.procs", "none")
