"""Limits and statistics from the command line: what the kernel's own files say, and what a container feels of it.

In whichever world of control groups this machine has; `make test-v2` runs the same in the others. What each limit does in
general is in tests/steps: here it is the way from an option to its file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.engine.store import Store
from minicontainer.linux.cgroups import hierarchies, hierarchy_of
from minicontainer.steps.group import MOUNTS, PARENT, Group, find_group
from tests.command import DEADLINE, Command, line_of, needs_root, one_line, wait_until

pytestmark = needs_root

MIB = 1 << 20
UP = ("sh", "-c", "echo up; exec sleep 600")
HOLD_30_MIB = ("sh", "-c", "echo up; dd if=/dev/zero bs=30M count=1 2>/dev/null | sleep 600")
"""dd cannot write all of it, since nobody reads."""
BURN = ("sh", "-c", "echo up; while :; do :; done")


@contextlib.contextmanager
def running(command: Command, name: str, *options: str, program: tuple[str, ...] = UP) -> Iterator[Group]:
    """A container of this name that runs while the block does; yields its control group as it is on disk."""
    with command.running("run", "--rm", "--name", name, *options, "busybox", *program) as process:
        if line_of(process.stdout) != "up\n":
            assert process.stderr
            pytest.fail(f"it did not start: {process.stderr.read()}")
        yield group_of(command, name)
        command("rm", "-f", name)
        process.wait(DEADLINE)


def group_of(command: Command, name: str) -> Group:
    """The control group of a container that runs, as it is on disk."""
    return find_group(Store(str(command.root)).find(name).group)


def says(group: Group, controller: str, v1: str, v2: str | None = None) -> str:
    """What a control file says, by its name on v1 and on v2; read without our own code. Skips where it is not there."""
    version, directory = group[controller]
    file = Path(directory, v1 if version == 1 else v2 or v1)
    assert file.parent.is_dir(), f"{file.parent} is gone: the container has ended"
    if not file.exists():
        pytest.skip(f"this kernel has no {file.name}")
    return file.read_text().strip()


def needs_v1(controller: str) -> None:
    """Skip the test where this controller is none of v1."""
    if (tree := hierarchy_of(controller)) and tree.version == 2:
        pytest.skip(f"{controller} is in the v2 tree here")


def a_disk() -> tuple[str, str]:
    """A whole disk of this machine: its file, and its number as the kernel writes it."""
    for disk in sorted(Path("/sys/block").iterdir()):
        if not disk.name.startswith(("loop", "ram", "zram")) and int((disk / "size").read_text()):
            return f"/dev/{disk.name}", (disk / "dev").read_text().strip()
    pytest.skip("this machine has no disk")


# From an option to a file

FILES = [
    ("-m 64m", "memory", "memory.limit_in_bytes", 64 * MIB, "memory.max", 64 * MIB),
    ("--memory 65536k", "memory", "memory.limit_in_bytes", 64 * MIB, "memory.max", 64 * MIB),
    ("-m 64m", "memory", "memory.memsw.limit_in_bytes", 64 * MIB, "memory.swap.max", 0),
    ("-m 64m --memory-swap 96m", "memory", "memory.memsw.limit_in_bytes", 96 * MIB, "memory.swap.max", 32 * MIB),
    ("-m 64m --memory-swap -1", "memory", "memory.memsw.limit_in_bytes", (1 << 63) - 4096, "memory.swap.max", "max"),
    ("--memory-reservation 32m", "memory", "memory.soft_limit_in_bytes", 32 * MIB, "memory.low", 32 * MIB),
    ("--cpus 0.5", "cpu", "cpu.cfs_quota_us", 50_000, "cpu.max", "50000 100000"),
    ("--cpus 0.5 --cpu-period 50000", "cpu", "cpu.cfs_quota_us", 25_000, "cpu.max", "25000 50000"),
    ("--cpu-quota 20000 --cpu-period 50000", "cpu", "cpu.cfs_quota_us", 20_000, "cpu.max", "20000 50000"),
    ("--cpu-quota 20000 --cpu-period 50000", "cpu", "cpu.cfs_period_us", 50_000, "cpu.max", "20000 50000"),
    ("--cpu-quota -1", "cpu", "cpu.cfs_quota_us", -1, "cpu.max", "max 100000"),
    ("--cpu-quota 50000 --cpu-burst 20000", "cpu", "cpu.cfs_burst_us", 20_000, "cpu.max.burst", 20_000),
    ("--cpu-shares 512", "cpu", "cpu.shares", 512, "cpu.weight", 50),
    ("--cpu-idle", "cpu", "cpu.idle", 1, "cpu.idle", 1),
    ("--cpuset-cpus 0", "cpuset", "cpuset.cpus", 0, "cpuset.cpus", 0),
    ("--cpuset-mems 0", "cpuset", "cpuset.mems", 0, "cpuset.mems", 0),
    ("--pids-limit 17", "pids", "pids.max", 17, "pids.max", 17),
    ("--pids-limit -1", "pids", "pids.max", "max", "pids.max", "max"),
]


@pytest.mark.parametrize(
    ("options", "controller", "v1", "first", "v2", "second"), FILES, ids=[f"{row[0]} {row[2]}" for row in FILES]
)
def test_an_option_is_a_value_in_a_file(
    minicontainer: Command, options: str, controller: str, v1: str, first: object, v2: str, second: object
) -> None:
    with running(minicontainer, "alpha", *options.split()) as group:
        assert says(group, controller, v1, v2) == str({1: first, 2: second}[group[controller][0]])


@pytest.mark.parametrize(("option", "file"), [("low", "memory.low"), ("min", "memory.min"), ("high", "memory.high")])
def test_what_only_v2_has_is_set_there_and_refused_elsewhere(minicontainer: Command, option: str, file: str) -> None:
    if (tree := hierarchy_of("memory")) and tree.version == 1:
        done = minicontainer("run", "--rm", f"--memory-{option}", "16m", "busybox", "true")
        assert done.returncode == 125
        told = one_line(done.stderr)
        assert file in told and "cgroup v2 only" in told and "--memory-reservation" in told
        return
    with running(minicontainer, "alpha", f"--memory-{option}", "16m") as group:
        assert says(group, "memory", file) == str(16 * MIB)


def test_the_oom_killer_is_switched_off_on_v1_and_the_container_still_goes(minicontainer: Command) -> None:
    """Over its limit it waits, for ever if nobody helps; what waits so can be removed all the same."""
    options = ("-m", "16m", "--oom-kill-disable")
    if (tree := hierarchy_of("memory")) and tree.version == 2:
        done = minicontainer("run", "--rm", *options, "busybox", "true")
        assert done.returncode == 125 and "--memory-high" in one_line(done.stderr)
        return
    # A shell that doubles a variable writes to its memory itself; read(2) into memory would fail, and not wait.
    greedy = ("sh", "-c", "echo up; x=0123456789abcdef; while :; do x=$x$x; done")
    with running(minicontainer, "alpha", *options, program=greedy) as group:
        assert "oom_kill_disable 1" in says(group, "memory", "memory.oom_control")
        wait_until(lambda: "under_oom 1" in says(group, "memory", "memory.oom_control"), "it has reached its limit")
        assert "running" in minicontainer("ps").stdout


def test_weights_of_disks_where_a_scheduler_knows_of_them(minicontainer: Command) -> None:
    try:
        with running(minicontainer, "alpha", "--blkio-weight", "300") as group:
            version, directory = group["blkio"]
            prefix = "blkio" if version == 1 else "io"
            weights = {file.name: file.read_text().split()[-1] for file in Path(directory).glob(f"{prefix}*weight")}
            assert weights.get(f"{prefix}.bfq.weight", "300") == "300"
            assert set(weights.values()) & {"300", "2930"}, weights  # io.weight counts from 1 to 10000
    except pytest.fail.Exception as error:
        if "no I/O scheduler of this kernel weighs groups" not in str(error):
            raise
        pytest.skip("this kernel weighs no groups")


RATES = {
    "--device-read-bps": ("blkio.throttle.read_bps_device", "rbps", "1m", "1048576"),
    "--device-write-bps": ("blkio.throttle.write_bps_device", "wbps", "2m", "2097152"),
    "--device-read-iops": ("blkio.throttle.read_iops_device", "riops", "100", "100"),
    "--device-write-iops": ("blkio.throttle.write_iops_device", "wiops", "200", "200"),
}


def test_the_rates_of_a_disk_by_its_file_or_its_number(minicontainer: Command) -> None:
    disk, number = a_disk()
    options = [
        word
        for place, (option, (_, _, rate, _)) in enumerate(RATES.items())
        for word in (option, f"{(disk, number)[place % 2]}:{rate}")
    ]
    with running(minicontainer, "alpha", *options) as group:
        for v1, v2, _, value in RATES.values():
            if group["blkio"][0] == 1:
                assert says(group, "blkio", v1) == f"{number} {value}"
            else:
                assert f"{v2}={value}" in says(group, "blkio", "io.max").split()
        done = minicontainer("update", "--device-read-bps", f"{disk}:0", "alpha")
        assert (done.returncode, done.stderr) == (0, "")
        if group["blkio"][0] == 1:
            assert says(group, "blkio", RATES["--device-read-bps"][0]) == "", "0 lifts it"
            assert says(group, "blkio", RATES["--device-write-bps"][0]) == f"{number} 2097152", "and no other"
        else:
            assert {"rbps=max", "wbps=2097152"} <= set(says(group, "blkio", "io.max").split())


def test_huge_pages(minicontainer: Command) -> None:
    if not Path("/sys/kernel/mm/hugepages/hugepages-2048kB").is_dir():
        pytest.skip("this machine has no huge pages of 2 MB")
    done = minicontainer("run", "--rm", "--hugetlb", "2MB=64m", "busybox", "true")
    if "hugetlb controller cannot be used here" in done.stderr:
        pytest.skip(one_line(done.stderr))
    with running(minicontainer, "alpha", "--hugetlb", "2MB=64m") as group:
        assert says(group, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max") == str(64 * MIB)
        assert minicontainer("update", "--hugetlb", "2MB=32m", "alpha").returncode == 0
        assert says(group, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max") == str(32 * MIB)


@pytest.mark.parametrize(("option", "controller"), [("--rdma=mlx5_0=10,1000", "rdma"), ("--misc=sev=1", "misc")])
def test_what_this_machine_has_none_of_is_named(minicontainer: Command, option: str, controller: str) -> None:
    """No RDMA device, and no encrypted virtual machines; and perhaps not even the controllers."""
    done = minicontainer("run", "--rm", option, "busybox", "true")
    assert done.returncode == 125
    assert f"the {controller} controller cannot be used here" in done.stderr or f"{controller}.max" in done.stderr
    one_line(done.stderr)


def test_packets_are_marked_through_a_tree_that_is_mounted_for_it(minicontainer: Command) -> None:
    if minicontainer("run", "--rm", "--net-class", "10:1", "busybox", "true").returncode:
        pytest.skip("this kernel has no net_cls")
    had = hierarchy_of("net_cls") is not None
    with running(minicontainer, "alpha", "--net-class", "10:1") as group:
        assert int(says(group, "net_cls", "net_cls.classid")) == 0x100001
        assert had or group["net_cls"][1].startswith(f"{MOUNTS}/")
        assert minicontainer("update", "--net-class", "0x200002", "alpha").returncode == 0
        assert int(says(group, "net_cls", "net_cls.classid")) == 0x200002
        [init] = says(group, "net_cls", "cgroup.procs").split()[:1]
        places = (line.split(":", 2) for line in Path(f"/proc/{init}/cgroup").read_text().splitlines())
        assert [path for _, names, path in places if "net_cls" in names.split(",")] == [f"/{PARENT}/{group.name}"]
    assert (hierarchy_of("net_cls") is not None) == had, "and goes with the last container"


def test_packets_get_a_priority_on_a_device_of_the_callers(minicontainer: Command) -> None:
    if minicontainer("run", "--rm", "--net-prio", "lo=5", "busybox", "true").returncode:
        pytest.skip("this kernel has no net_prio")
    with running(minicontainer, "alpha", "--net-prio", "lo=5") as group:
        assert "lo 5" in says(group, "net_prio", "net_prio.ifpriomap").splitlines()
        assert minicontainer("update", "--net-prio", "lo=6", "alpha").returncode == 0
        assert "lo 6" in says(group, "net_prio", "net_prio.ifpriomap").splitlines()


def test_any_file_of_v2_can_be_written(minicontainer: Command) -> None:
    """Hybrid hosts too: what has no controller there is in the v2 tree."""
    if not any(tree.version == 2 for tree in hierarchies()):
        done = minicontainer("run", "--rm", "--unified", "cgroup.max.depth=3", "busybox", "true")
        assert done.returncode == 125 and "only v1 trees" in one_line(done.stderr)
        return
    options = ["--unified", "cgroup.max.depth=3", "--unified", "cgroup.max.descendants=7"]
    if (tree := hierarchy_of("memory")) and tree.version == 2:
        options += ["-m", "64m", "--unified", "memory.oom.group=1"]
    with running(minicontainer, "alpha", *options) as group:
        assert group.unified
        for option in options[1::2]:
            file, _, value = option.partition("=")
            if value:
                assert Path(group.unified, file).read_text() == f"{value}\n"


# What a container feels of it


def test_processes_beyond_the_limit_cannot_be_forked(minicontainer: Command) -> None:
    done = minicontainer(
        "run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c", "for i in 1 2 3 4; do sleep 9 & done"
    )
    assert done.returncode != 0 and "can't fork" in done.stderr


def test_a_quota_throttles(minicontainer: Command) -> None:
    with running(minicontainer, "alpha", "--cpus", "0.1", program=BURN) as group:
        statistics = Path(group["cpu"][1], "cpu.stat")
        wait_until(lambda: "nr_throttled 0\n" not in statistics.read_text(), "its quota is used up")


def test_a_pinned_container_sees_the_processors_it_has(minicontainer: Command) -> None:
    assert minicontainer("run", "--rm", "--cpuset-cpus", "0", "busybox", "nproc").stdout == "1\n"
    everything = str(len(os.sched_getaffinity(0)))
    assert minicontainer("run", "--rm", "busybox", "nproc").stdout.strip() == everything


def test_the_end_by_want_of_memory_is_told_and_remembered(minicontainer: Command) -> None:
    done = minicontainer("run", "--name", "alpha", "-m", "16m", "busybox", "tail", "/dev/zero")
    assert done.returncode == 137 and "(OOM)" in one_line(done.stderr)
    killed = minicontainer("run", "--name", "beta", "-m", "16m", "busybox", "sh", "-c", "kill -9 $$")
    assert (killed.returncode, killed.stderr) == (137, ""), "killed, and not for want of memory"
    statuses = {line.split()[1]: line for line in minicontainer("ps", "-a").stdout.splitlines()}
    assert "exited (137, OOMKilled)" in statuses["alpha"] and "exited (137) " in statuses["beta"]
    assert minicontainer("wait", "alpha").stdout == "137\n"
    again = minicontainer("update", "-m", "64m", "alpha")
    assert again.returncode == 0, again.stderr
    done = minicontainer("start", "-a", "alpha")
    assert done.returncode == 137, "64 MiB are not enough for everything, either"
    assert minicontainer("rm", "alpha", "beta").returncode == 0


# Devices

KMSG = Path("/dev/kmsg")
needs_kmsg = pytest.mark.skipif(not KMSG.is_char_device(), reason="this machine has no /dev/kmsg")


@needs_kmsg
def test_a_device_that_is_given_can_be_used_as_far_as_it_is_given(minicontainer: Command) -> None:
    script = ": < /dev/given && echo reads; (: > /dev/given) 2>&1; ls /dev | grep -c -x kmsg"
    run = ["run", "--rm", "--cap-add", "SYSLOG"]  # what it takes to read the kernel's messages anyway
    done = minicontainer(*run, "--device", "/dev/kmsg:/dev/given:r", "busybox", "sh", "-c", script)
    reads, refused, count = done.stdout.splitlines()
    assert reads == "reads" and "Operation not permitted" in refused and count == "0"


@needs_kmsg
def test_the_devices_in_a_directory(minicontainer: Command, tmp_path: Path) -> None:
    """All of them, and not what else is there."""
    (tmp_path / "dev/inner").mkdir(parents=True)
    (tmp_path / "dev/file").touch()
    (tmp_path / "dev/link").symlink_to("/dev/null")
    options = ("run", "--rm", "--network", "none", f"--device={tmp_path}/dev:/dev/mine", "busybox", "find", "/dev/mine")
    done = minicontainer(*options)
    assert done.returncode == 125 and "no device in the directory" in one_line(done.stderr)
    os.mknod(tmp_path / "dev/inner/zero", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    assert sorted(minicontainer(*options).stdout.split()) == ["/dev/mine", "/dev/mine/inner", "/dev/mine/inner/zero"]


def test_a_device_that_is_not_given_cannot_be_made_either(minicontainer: Command) -> None:
    """Root in a container has mknod(2): the numbers are guarded, and not the name."""
    script = "mknod /tmp/null c 1 3 && echo null; mknod /tmp/kmsg c 1 11 && : < /tmp/kmsg && echo kmsg"
    run = ["run", "--rm", "--cap-add", "SYSLOG"]
    done = minicontainer(*run, "busybox", "sh", "-c", script)
    assert done.stdout == "null\n" and "Operation not permitted" in done.stderr
    for rule, expected in (("c 1:11 rm", "null\nkmsg\n"), ("c 1:* rwm", "null\nkmsg\n"), ("a", "null\nkmsg\n")):
        done = minicontainer(*run, "--device-cgroup-rule", rule, "busybox", "sh", "-c", script)
        assert done.stdout == expected, (rule, done.stderr)
    done = minicontainer(*run, "--device-cgroup-rule", "c 1:11 m", "busybox", "sh", "-c", script)
    assert done.stdout == "null\n", "made, and not read"


@needs_kmsg
def test_the_list_of_v1_has_the_rules(minicontainer: Command) -> None:
    needs_v1("devices")
    with running(minicontainer, "alpha", "--device", "/dev/kmsg:r", "--device-cgroup-rule", "b 8:* rm") as group:
        rules = says(group, "devices", "devices.list").splitlines()
        assert {"c 1:11 r", "b 8:* rm", "c 1:3 rwm"} <= set(rules) and "a *:* rwm" not in rules
        # An update of something else leaves them as they are.
        assert minicontainer("update", "--pids-limit", "30", "alpha").returncode == 0
        assert says(group, "devices", "devices.list").splitlines() == rules


# Where its group lies


def test_groups_lie_beside_others_in_one_of_ours_that_goes_with_the_last(minicontainer: Command) -> None:
    with (
        running(minicontainer, "alpha", "--cgroup-parent", "web/front", "--pids-limit", "20") as first,
        running(minicontainer, "beta", "--cgroup-parent", "/web/front/") as second,
    ):
        assert first.name.startswith("web/front/") and second.name.startswith("web/front/")
        parent = Path(first["pids"][1]).parent
        assert parent == Path(second["pids"][1]).parent
        assert f"{PARENT}/web/front" in str(parent)
        # The smaller limit of a group and those above it binds.
        used = int((parent / "pids.current").read_text())
        (parent / "pids.max").write_text(str(used))
        done = minicontainer("run", "--rm", "--cgroup-parent", "web/front", "busybox", "true")
        assert done.returncode != 0 and "Traceback" not in done.stderr
        (parent / "pids.max").write_text("max")
    assert not parent.exists() and not parent.parent.exists()


def test_a_container_takes_its_group_for_the_top(minicontainer: Command) -> None:
    script = ("cut", "-d:", "-f3", "/proc/self/cgroup")
    for options in ([], ["--cgroupns", "private"]):
        private = minicontainer("run", "--rm", *options, "busybox", *script).stdout.split()
        # Trees in which it has no group of its own, such as systemd's, are the host's.
        assert "/" in private and not any(PARENT in path for path in private)
    host = minicontainer("run", "--rm", "--cgroupns", "host", "busybox", *script).stdout.split()
    assert any(path.startswith(f"/{PARENT}/") for path in host)


# update

CHANGES = [
    ("--memory 128m", "memory", "memory.limit_in_bytes", 128 * MIB, "memory.max", 128 * MIB),
    ("--memory 48m --memory-swap 50m", "memory", "memory.limit_in_bytes", 48 * MIB, "memory.max", 48 * MIB),
    ("--memory -1", "memory", "memory.limit_in_bytes", (1 << 63) - 4096, "memory.max", "max"),
    ("--cpus 0.25", "cpu", "cpu.cfs_quota_us", 25_000, "cpu.max", "25000 100000"),
    ("--cpu-quota 5000", "cpu", "cpu.cfs_quota_us", 5_000, "cpu.max", "5000 100000"),
    ("--cpu-period 20000", "cpu", "cpu.cfs_quota_us", 5_000, "cpu.max", "5000 20000"),
    ("--cpu-quota -1", "cpu", "cpu.cfs_quota_us", -1, "cpu.max", "max 20000"),
    ("--cpu-shares 2048", "cpu", "cpu.shares", 2048, "cpu.weight", 200),
    ("--cpu-idle", "cpu", "cpu.idle", 1, "cpu.idle", 1),
    ("--cpu-shares 256", "cpu", "cpu.shares", 256, "cpu.weight", 25),
    ("--cpuset-cpus 0", "cpuset", "cpuset.cpus", 0, "cpuset.cpus", 0),
    ("--pids-limit 40", "pids", "pids.max", 40, "pids.max", 40),
    ("--pids-limit -1", "pids", "pids.max", "max", "pids.max", "max"),
]


def test_limits_change_while_it_runs_and_stay_changed(minicontainer: Command) -> None:
    """One container, one change after another: each leaves the others as they are."""
    with running(minicontainer, "alpha", "-m", "64m", "--pids-limit", "30") as group:
        for options, controller, v1, first, v2, second in CHANGES:
            done = minicontainer("update", *options.split(), "alpha")
            assert (done.returncode, done.stdout, done.stderr) == (0, "alpha\n", ""), options
            assert says(group, controller, v1, v2) == str({1: first, 2: second}[group[controller][0]]), options
        assert says(group, "cpu", "cpu.shares", "cpu.weight") == {1: "256", 2: "25"}[group["cpu"][0]]
        assert says(group, "cpu", "cpu.idle") == "0", "the later word counts"


def test_several_containers_change_at_once(minicontainer: Command) -> None:
    with running(minicontainer, "alpha") as alpha, running(minicontainer, "beta") as beta:
        done = minicontainer("update", "--pids-limit", "25", "alpha", "beta")
        assert (done.returncode, done.stdout) == (0, "alpha\nbeta\n")
        assert [says(group, "pids", "pids.max") for group in (alpha, beta)] == ["25", "25"]


def test_an_update_of_what_does_not_run_counts_from_its_next_start(minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "--pids-limit", "20", "busybox", *UP)
    assert minicontainer("update", "--memory", "64m", "--pids-limit", "30", "alpha").returncode == 0
    with minicontainer.running("start", "-a", "alpha") as process:
        assert line_of(process.stdout) == "up\n"
        group = group_of(minicontainer, "alpha")
        assert says(group, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
        assert says(group, "pids", "pids.max") == "30"
        assert minicontainer("update", "--pids-limit", "40", "alpha").returncode == 0
        assert minicontainer("rm", "-f", "alpha").returncode == 0
        process.wait(DEADLINE)


def test_what_changed_while_it_ran_counts_at_its_next_start(minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "--pids-limit", "20", "busybox", "sh", "-c", "echo up; read x")
    with minicontainer.running("start", "-i", "alpha", stdin=-1) as process:
        line_of(process.stdout)
        assert minicontainer("update", "--pids-limit", "40", "alpha").returncode == 0
        assert process.stdin
        process.stdin.close()
        process.wait(DEADLINE)
        process.stdin = None
    with minicontainer.running("start", "-i", "alpha", stdin=-1) as process:
        line_of(process.stdout)
        assert says(group_of(minicontainer, "alpha"), "pids", "pids.max") == "40"
        minicontainer("rm", "-f", "alpha")
        process.wait(DEADLINE)


def test_a_pool_of_memory_is_split_in_proportion(minicontainer: Command) -> None:
    with (
        running(minicontainer, "alpha") as alpha,
        running(minicontainer, "beta") as beta,
        running(minicontainer, "gamma") as gamma,
    ):
        done = minicontainer("update", "--memory", "400m", "--memory-share", "1:2:1", "alpha", "beta", "gamma")
        assert (done.returncode, done.stderr) == (0, "")
        first, *lines = done.stdout.splitlines()
        assert "no shares of memory" in first, "what the kernel cannot do is said"
        assert lines == ["alpha  100 MiB", "beta  200 MiB", "gamma  100 MiB"]
        found = [int(says(group, "memory", "memory.limit_in_bytes", "memory.max")) for group in (alpha, beta, gamma)]
        assert found == [100 * MIB, 200 * MIB, 100 * MIB]


# stats


def test_statistics_are_the_kernels(minicontainer: Command) -> None:
    with running(minicontainer, "alpha", "-m", "64m", "--pids-limit", "17", program=HOLD_30_MIB) as group:
        usage = Path(group["memory"][1], "memory.usage_in_bytes" if group["memory"][0] == 1 else "memory.current")
        wait_until(lambda: int(usage.read_text()) > 30 * MIB, "it has its memory")
        with running(minicontainer, "beta"):
            found = {one["name"]: one for one in json.loads(minicontainer("stats", "--json").stdout)}
            assert set(found) == {"alpha", "beta"}
            only = json.loads(minicontainer("stats", "--json", "beta").stdout)
            assert [one["name"] for one in only] == ["beta"]
        one = found["alpha"]
        use = one["usage"]
        assert (use["memory_limit"], use["pids_limit"]) == (64 * MIB, 17)
        assert use["pids"] == int(says(group, "pids", "pids.current"))
        assert 30 * MIB < use["memory"] <= 64 * MIB
        assert one["memory_percent"] == pytest.approx(100 * use["memory"] / (64 * MIB))
        assert use["cpu"] > 0 and one["cpu_percent"] > 0 and one["frozen"] is False
        assert found["beta"]["usage"]["memory_limit"] is None
        head, row = minicontainer("stats", "--no-stream").stdout.splitlines()
        assert head.split()[0] == "NAME" and row.split()[0] == "alpha"
        assert "/ 64 MiB" in row and "/ 17" in row
    assert json.loads(minicontainer("stats", "--json").stdout) == []


def test_processor_time_is_seen_to_grow(minicontainer: Command) -> None:
    def used() -> int:
        [one] = json.loads(minicontainer("stats", "--json", "alpha").stdout)
        return int(one["usage"]["cpu"])

    with running(minicontainer, "alpha", program=BURN):
        before = used()
        wait_until(lambda: used() > before, "more processor time")


def test_on_a_terminal_they_come_again_until_somebody_stops_it(minicontainer: Command) -> None:
    if not (script := shutil.which("script")):
        pytest.skip("script(1) is not installed: it makes the terminal")
    with running(minicontainer, "alpha"):
        line = shlex.join(map(str, minicontainer.line("stats")))
        with subprocess.Popen([script, "-qec", line, "/dev/null"], stdin=-1, stdout=-1, stderr=-3) as process:
            assert process.stdin and process.stdout
            seen = b""
            while seen.count(b"alpha") < 2:  # two looks
                more = os.read(process.stdout.fileno(), 4096)
                assert more, seen
                seen += more
            assert b"\x1b[2J" in seen
            process.stdin.write(b"\x03")
            process.stdin.flush()
            process.wait(DEADLINE)


# pause


@pytest.mark.parametrize(("stop", "go_on"), [("pause", "unpause"), ("freeze", "unfreeze")])
def test_a_paused_container_stands_still_and_goes_on(minicontainer: Command, stop: str, go_on: str) -> None:
    with running(minicontainer, "alpha", program=BURN) as group:
        files = ("freezer.state", "cgroup.freeze")
        done = minicontainer(stop, "alpha")
        assert (done.returncode, done.stdout, done.stderr) == (0, "alpha\n", "")
        assert says(group, "freezer", *files) == {1: "FROZEN", 2: "1"}[group["freezer"][0]]
        # Its status, two words before the end of the line in which a command of three words begins.
        assert "  paused  " in minicontainer("ps").stdout
        assert minicontainer(stop, "alpha").returncode == 0, "what stands still already is no error"
        assert minicontainer("stats", "--no-stream", "alpha").stdout.rstrip().endswith("paused")

        def used() -> int:
            [one] = json.loads(minicontainer("stats", "--json", "alpha").stdout)
            assert one["frozen"] == ("paused" in minicontainer("ps").stdout)
            return int(one["usage"]["cpu"])

        assert used() == used()
        assert minicontainer("update", "--pids-limit", "33", "alpha").returncode == 0
        assert says(group, "pids", "pids.max") == "33", "limits change all the same"
        done = minicontainer(go_on, "alpha")
        assert (done.returncode, done.stdout, done.stderr) == (0, "alpha\n", "")
        assert says(group, "freezer", *files) == {1: "THAWED", 2: "0"}[group["freezer"][0]]
        assert "  running  " in minicontainer("ps").stdout
        before = used()
        wait_until(lambda: used() > before, "it goes on")
        assert minicontainer(go_on, "alpha").returncode == 0, "what goes on already is no error"


def test_pause_goes_on_after_one_that_it_cannot_stop(minicontainer: Command) -> None:
    with running(minicontainer, "alpha") as group:
        done = minicontainer("pause", "nope", "alpha")
        assert (done.returncode, done.stdout) == (1, "alpha\n") and "nope" in one_line(done.stderr)
        done = minicontainer("unpause", "nope", "alpha")
        assert (done.returncode, done.stdout) == (1, "alpha\n") and "nope" in one_line(done.stderr)
        assert says(group, "freezer", "freezer.state", "cgroup.freeze") in ("THAWED", "0")


# cgroup


def test_the_tree_shows_every_group_its_limits_and_whose_it_is(minicontainer: Command) -> None:
    options = ("--cgroup-parent", "web", "--pids-limit", "17", "-m", "64m", "--cpuset-cpus", "0")
    with running(minicontainer, "alpha", *options) as group:
        lines = minicontainer("cgroup", "tree").stdout.splitlines()
        assert lines[0].startswith("minicontainer: memory ")
        [at] = [number for number, line in enumerate(lines) if "(alpha)" in line]
        own = group.name.rpartition("/")[2]
        assert lines[at].startswith(f"    {own} (alpha): memory ")
        assert any(line.startswith("  web: ") for line in lines[:at])
        memory = "memory.limit_in_bytes" if group["memory"][0] == 1 else "memory.max"
        shown = lines[at + 1 :]
        assert f"        {memory} = {64 * MIB}" in shown and "        pids.max = 17" in shown
        if len(os.sched_getaffinity(0)) > 1:
            assert "        cpuset.cpus = 0" in shown
        nodes = {node["container"]: node for node in json.loads(minicontainer("cgroup", "tree", "--json").stdout)}
        assert nodes["alpha"]["name"] == group.name
        assert nodes["alpha"]["limits"]["pids.max"] == "17"
        assert sorted(nodes["alpha"]["directories"]) == sorted(group.directories)
        assert nodes["alpha"]["usage"]["pids"] == int(says(group, "pids", "pids.current"))


def test_events_are_counted_in_one_container_only(minicontainer: Command) -> None:
    def count(name: str, *options: str) -> int:
        done = minicontainer("cgroup", "count", name, "--seconds", "0.2", *options)
        if "takes root, or CAP_PERFMON" in done.stderr:
            pytest.skip(f"perf_event_open(2) is closed on this kernel: {one_line(done.stderr)}")
        assert (done.returncode, done.stderr) == (0, "")
        return int(done.stdout)

    with running(minicontainer, "alpha", program=BURN), running(minicontainer, "beta"):
        assert count("alpha") > 0, "ns of processor time"
        assert count("beta") == 0, "it sleeps, while the other works"
        assert count("beta", "--event", "page-faults") == 0
        assert minicontainer("pause", "alpha").returncode == 0
        assert count("alpha") == 0, "it stands still"


def test_hardware_events_are_counted_or_the_reason_is_told(minicontainer: Command) -> None:
    with running(minicontainer, "alpha", program=BURN):
        done = minicontainer("cgroup", "count", "alpha", "--event", "cycles", "--seconds", "0.2")
        if done.returncode:
            assert done.returncode == 125 and "cpu-clock" in one_line(done.stderr)
        else:
            assert int(done.stdout) > 0
