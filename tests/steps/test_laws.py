"""What the limits *do*: the laws of the course notes, measured on this machine's kernel.

Compressible: whoever gets less is slower, and nothing dies. Incompressible: over the limit, somebody is killed. Values
are not inherited, but bounds are. Where a law is about a measured ratio, other load on the machine can spoil one
measurement (never make a wrong ratio right three times): it is taken up to three times.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer.linux import CLONE_NEWNET, IFF_UP, interface_flags, set_interface_flags, unshare
from minicontainer.steps.cpu import pin, share_cpu, throttle, yield_cpu
from minicontainer.steps.devices import EVERY_CONTAINER, allow_devices
from minicontainer.steps.freezer import freeze, thaw
from minicontainer.steps.group import Group, LimitUnavailable, enter_group
from minicontainer.steps.io import limit_io
from minicontainer.steps.memory import count_oom_kills, limit_memory, protect_memory
from minicontainer.steps.packets import tag_packets
from minicontainer.steps.pids import limit_pids
from minicontainer.steps.scarce import limit_huge_pages
from minicontainer.steps.usage import measure_group
from tests.command import DEADLINE, line_of, needs_root, wait_until
from tests.steps.conftest import Groups, on_disk

pytestmark = needs_root

MIB = 1 << 20
SPIN = ("sh", "-c", "while :; do :; done")
GUEST = "LAB_CGROUP" in os.environ
"""In the lab's own VM, which is ours to change: there, huge pages can be set aside."""


def eat(mebibytes: int) -> str:
    """A program that takes so much memory, writes a line, and waits."""
    return f"import time; held = bytearray(b'x') * ({mebibytes} << 20); print('ate', flush=True); time.sleep(1000)"


def used(group: Group) -> int:
    """Processor time of a group, µs."""
    usage = measure_group(group).cpu
    assert usage is not None
    return usage


def measured(times: int, measure: Callable[[], bool]) -> bool:
    """Whether a measurement, one of so many, comes out as the law says."""
    return any(measure() for _ in range(times))


# cpu, the compressible resource


@pytest.mark.parametrize("seconds", [5])
def test_1_2_1_of_one_processor(groups: Groups, seconds: float) -> None:
    """Three groups that want all of one processor get it as 1:2:1, within 5 %."""
    several = [groups("cpu", "cpuacct", "cpuset") for _ in range(3)]
    for group, shares in zip(several, (1024, 2048, 1024), strict=True):
        pin(group, cpus="0")
        share_cpu(group, shares)
        groups.start(group, *SPIN)

    seen = []

    def ratio() -> bool:
        before = [used(group) for group in several]
        time.sleep(seconds)  # not a wait for something: how long is measured
        spent = [used(group) - past for group, past in zip(several, before, strict=True)]
        seen.append([round(part / sum(spent), 4) for part in spent])
        return all(
            abs(part / sum(spent) - share) <= 0.05 * share for part, share in zip(spent, (0.25, 0.5, 0.25), strict=True)
        )

    assert measured(3, ratio), f"shares of the processor: {seen}"


def test_shares_bind_only_where_there_is_competition(groups: Groups) -> None:
    """Alone on its processor, the group with the fewest shares has all of it that the machine can give."""
    group = groups("cpu", "cpuacct", "cpuset")
    pin(group, cpus="0")
    share_cpu(group, 2)
    groups.start(group, *SPIN)
    before = used(group)
    wait_until(lambda: used(group) - before > 300_000, "0.3 s of processor time")


def test_a_quota_throttles_and_kills_nobody(groups: Groups) -> None:
    group = groups("cpu", "cpuacct", "pids")
    throttle(group, 20_000)
    process = groups.start(group, *SPIN)
    seen = []

    def fifth() -> bool:
        before, begun = used(group), time.monotonic()
        time.sleep(1)
        seen.append((used(group) - before) / (time.monotonic() - begun) / 1e6)
        return seen[-1] <= 0.25

    assert measured(3, fifth), f"of one processor: {seen}"
    wait_until(lambda: (measure_group(group).throttled or 0) >= 5, "nr_throttled grows")
    assert process.poll() is None


def test_idle_groups_wait_for_all_others(groups: Groups) -> None:
    idle, busy = (groups("cpu", "cpuacct", "cpuset") for _ in range(2))
    if not Path(idle["cpu"][1], "cpu.idle").exists():
        pytest.skip("this kernel has no cpu.idle: it came with Linux 5.15")
    yield_cpu(idle)
    for group in (idle, busy):
        pin(group, cpus="0")
        groups.start(group, *SPIN)

    def most() -> bool:
        before = used(idle), used(busy)
        time.sleep(1)
        return (used(busy) - before[1]) > 10 * (used(idle) - before[0])

    assert measured(3, most)


def test_frozen_processes_stand_still_and_go_on(groups: Groups) -> None:
    """A counter stops where it is, and goes on from there: nothing is lost, and its owner does not notice."""
    group = groups("freezer", "cpuacct")
    process = groups.ready(
        group, "import sys\nn = 0\nwhile True:\n n += 1\n if n % 1000 == 0: print(n, flush=True)\n if n == 1000: pass"
    )
    freeze(group)
    while select.select([process.stdout], [], [], 0.2)[0]:  # what it had written before
        os.read(process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
    stopped = used(group)  # now: v1 says FROZEN some µs before the last of them has left its processor
    assert not select.select([process.stdout], [], [], 0.3)[0]
    assert used(group) == stopped and process.poll() is None
    thaw(group)
    line_of(process.stdout)
    wait_until(lambda: used(group) > stopped, "it goes on")


def test_a_child_of_a_limited_group_cannot_have_more_processor(groups: Groups) -> None:
    """Values are not inherited, bounds are: v1 refuses what v2 takes, and does not give."""
    outer = groups("cpu", "cpuacct")
    throttle(outer, 20_000)
    inner = groups("cpu", "cpuacct", below=outer)
    if inner["cpu"][0] == 1:
        assert on_disk(inner, "cpu", "cpu.cfs_quota_us") == "-1", "not inherited"
        with pytest.raises(LimitUnavailable, match=r"EINVAL.*no group more than the one above it has"):
            throttle(inner, 50_000)
        return
    assert on_disk(inner, "cpu", "cpu.max").startswith("max"), "not inherited"
    throttle(inner, 50_000)
    groups.start(inner, *SPIN)

    def fifth() -> bool:
        before, begun = used(inner), time.monotonic()
        time.sleep(1)
        return (used(inner) - before) / (time.monotonic() - begun) <= 250_000

    assert measured(3, fifth)


# memory, the incompressible resource


def test_over_its_memory_it_is_killed_and_its_neighbour_is_not(groups: Groups) -> None:
    group, neighbour = groups("memory"), groups("memory")
    for one in (group, neighbour):
        limit_memory(one, 40 * MIB)
    beside = groups.ready(neighbour, eat(10))
    process = groups.python(group, eat(80))
    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert (count_oom_kills(group), count_oom_kills(neighbour)) == (1, 0)
    assert beside.poll() is None


def test_a_childs_larger_limit_still_dies_at_its_parents(groups: Groups) -> None:
    outer = groups("memory")
    limit_memory(outer, 40 * MIB)
    inner = groups("memory", below=outer)
    assert measure_group(inner).memory_limit is None, "the value is not inherited"
    limit_memory(inner, 200 * MIB)
    process = groups.python(inner, eat(80))
    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert count_oom_kills(inner) >= 1


def test_within_its_limit_it_lives(groups: Groups) -> None:
    group = groups("memory")
    limit_memory(group, 60 * MIB)
    assert groups.ready(group, eat(20)).poll() is None
    assert count_oom_kills(group) == 0


def test_above_high_it_is_slowed_down_and_not_killed(groups: Groups) -> None:
    group = groups("memory")
    if group["memory"][0] == 1:
        pytest.skip("memory.high is of cgroup v2")
    protect_memory(group, high=20 * MIB)
    process = groups.python(group, eat(24))
    events = Path(group["memory"][1], "memory.events")
    wait_until(lambda: "high 0" not in events.read_text().splitlines(), "memory.events counts it")
    assert process.poll() is None and count_oom_kills(group) == 0


# pids


def test_a_fork_bomb_stops_and_the_host_stays_usable(groups: Groups) -> None:
    group = groups("pids")
    limit_pids(group, 20)
    bomb = groups.start(group, "sh", "-c", "b() { b | b & wait; }; b")
    highest = 0

    def full() -> bool:
        nonlocal highest
        highest = max(highest, measure_group(group).pids or 0)
        failed = on_disk(group, "pids", "pids.events").split()[-1]
        return int(failed) > 0

    wait_until(full, "a fork is refused: pids.events")
    assert 1 <= highest <= 20
    assert subprocess.run(["true"], timeout=DEADLINE).returncode == 0, "out here there are processes to be had"
    bomb.kill()


# cpuset


def test_affinity_is_what_was_asked_for(groups: Groups) -> None:
    group = groups("cpuset")
    pin(group, cpus="0")
    process = groups.ready(
        group, "import os, time; print(sorted(os.sched_getaffinity(0)), flush=True); time.sleep(1000)"
    )
    assert os.sched_getaffinity(process.pid) == {0}


# devices


@pytest.mark.parametrize("version", [1, 2])
def test_an_unlisted_device_is_refused_and_a_listed_one_is_not(groups: Groups, version: int, tmp_path: Path) -> None:
    """On this host both can be had at once: the lists of v1, and a BPF program on the v2 tree beside them."""
    group = groups("devices") if version == 1 else groups("perf_event")
    if version == 2 and group.unified is not None:
        group = Group(group.name, {"devices": (2, group.unified)})
    elif group.places and next(iter(group.places.values()))[0] != version:
        pytest.skip(f"this host has no v{version} tree")
    allow_devices(group, [rule for rule in EVERY_CONTAINER if rule[:3] != ("c", 1, 5)])
    node, disk = tmp_path / "zero", tmp_path / "disk"
    program = (
        "import os, stat\n"
        "def tried(act):\n"
        " try: act()\n"
        " except OSError as error: return type(error).__name__\n"
        " return 'done'\n"
        f"print(tried(lambda: open('/dev/null', 'w')), tried(lambda: open('/dev/zero')), "
        f"tried(lambda: os.mknod({str(node)!r}, stat.S_IFCHR | 0o600, os.makedev(1, 5))), "
        f"tried(lambda: os.mknod({str(disk)!r}, stat.S_IFBLK | 0o600, os.makedev(8, 0))))"
    )
    assert (
        groups.python(group, program).communicate(timeout=DEADLINE)[0]
        == "done PermissionError PermissionError PermissionError\n"
    )
    allow_devices(group, EVERY_CONTAINER)
    assert groups.python(group, program).communicate(timeout=DEADLINE)[0] == "done done done PermissionError\n"
    node.unlink()


def test_some_of_what_can_be_done_with_a_device(groups: Groups) -> None:
    """Reading allowed, writing not."""
    group = groups("devices")
    allow_devices(group, [("c", 1, 3, "r"), ("c", 1, 8, "rwm"), ("c", 1, 9, "rwm")])
    out, _ = groups.start(
        group, "sh", "-c", "cat /dev/null && echo read; (echo > /dev/null) 2>&-; echo $?"
    ).communicate(timeout=DEADLINE)
    assert out in ("read\n1\n", "read\n2\n")


# block devices


def disk_and_file(tmp_path: Path) -> tuple[str, Path]:
    """A disk, as the kernel numbers it, and what can be read of it: a spare disk of the VM, or a file on this one."""
    if spare := os.environ.get("LAB_DISK"):
        status = os.stat(spare)
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}", Path(spare)
    number = os.stat(tmp_path).st_dev
    disk = f"{os.major(number)}:{os.minor(number)}"
    if not Path(f"/sys/dev/block/{disk}/queue").exists():
        pytest.skip(f"{tmp_path} is on no whole disk ({disk}), and LAB_DISK names no other")
    file = tmp_path / "blocks"
    file.write_bytes(os.urandom(MIB) * 16)
    subprocess.run(["sync", file], check=True)
    return disk, file


READ = """
import mmap, os, sys, time
fd, block, begun = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 1 << 16), None
for place in range(0, int(sys.argv[2]), 1 << 16):
    os.preadv(fd, [block], place)
    if place == 1 << 20: begun = time.monotonic()
print((int(sys.argv[2]) - (1 << 20) - (1 << 16)) / (time.monotonic() - begun))
"""
"""Reads a file past the page cache (O_DIRECT), and prints bytes a second. What is saved up at first is not counted."""


def test_reading_is_throttled_to_what_was_asked(groups: Groups, tmp_path: Path) -> None:
    """Within 10 %."""
    disk, file = disk_and_file(tmp_path)
    free, group = groups("blkio"), groups("blkio")
    rate = 4 * MIB

    def speed(of: Group, amount: int) -> float:
        command = [sys.executable, "-I", "-S", "-c", READ, str(file), str(amount)]
        return float(groups.start(of, *command).communicate(timeout=DEADLINE)[0])

    unlimited = speed(free, 12 * MIB)
    if unlimited < 1.5 * rate:
        pytest.skip(f"this disk reads only {unlimited / MIB:.1f} MiB/s: nothing to throttle")
    limit_io(group, disk, read_bps=rate)
    seen = []

    def within() -> bool:
        seen.append(speed(group, 12 * MIB))
        return abs(seen[-1] - rate) <= 0.1 * rate

    assert measured(3, within), f"{[round(one / MIB, 2) for one in seen]} MiB/s of {rate // MIB}"
    assert (measure_group(group).read or 0) >= 12 * MIB, "and the kernel has counted the bytes"


# packets


def test_marked_packets_are_matched_by_a_filter(groups: Groups) -> None:
    """In a network namespace of the test's own: what one group sends on lo is counted by nft(8), another's is not."""
    try:
        marked, plain = groups("net_cls"), groups("net_cls")
    except LimitUnavailable as error:
        pytest.skip(f"this kernel cannot: {error}")
    tag_packets(marked, 0x0010_0001)
    rules = """
        table ip test {
            counter from_group { }
            chain out { type filter hook output priority 0; meta cgroup 0x00100001 counter name from_group; }
        }
    """
    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            unshare(CLONE_NEWNET)
            set_interface_flags("lo", interface_flags("lo") | IFF_UP)
            subprocess.run(["/usr/sbin/nft", "-f", "-"], input=rules, text=True, check=True)
            for group, packets in ((marked, 3), (plain, 4)):
                enter_group(group, 0)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    for _ in range(packets):
                        sender.sendto(b"x", ("127.0.0.1", 9))
            listed = subprocess.run(["/usr/sbin/nft", "list", "counters"], capture_output=True, text=True, check=True)
            os.write(told, listed.stdout.encode())
        except BaseException as error:
            os.write(told, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(told)
    with open(answer) as file:
        listed = " ".join(file.read().split())
    os.waitpid(child, 0)
    assert "counter from_group { packets 3 " in listed, listed


# huge pages


def test_no_more_huge_pages_than_allowed(groups: Groups) -> None:
    if not GUEST:
        pytest.skip("huge pages would have to be taken from the host's memory; the VM has some for this test")
    group = groups("hugetlb")
    Path("/proc/sys/vm/nr_hugepages").write_text("4")
    try:
        if int(Path("/proc/sys/vm/nr_hugepages").read_text()) < 4:
            pytest.skip("the kernel found no 4 huge pages in one piece")
        limit_huge_pages(group, "2MB", 2 * MIB)
        program = (
            "import mmap; held = mmap.mmap(-1, {0} << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)\n"
            "for page in range({0}): held[page << 21] = 1\nprint('had')"
        )
        assert groups.python(group, program.format(1)).communicate(timeout=DEADLINE)[0] == "had\n"
        process = groups.python(group, program.format(2))
        assert process.communicate(timeout=DEADLINE)[0] == ""
        assert process.returncode in (-signal.SIGBUS, 1)
    finally:
        Path("/proc/sys/vm/nr_hugepages").write_text("0")


# What the kernel keeps for others


def test_pressure_grows_where_somebody_waits(groups: Groups) -> None:
    group = groups("perf_event")
    if group.unified is None or not measure_group(group).pressure:
        pytest.skip("no v2 tree here, or its kernel was not started with psi=1")
    for _ in range(2 * (os.cpu_count() or 1)):
        groups.start(group, *SPIN)
    total = Path(group.unified, "cpu.pressure")
    wait_until(lambda: "total=0" not in total.read_text().splitlines()[0], "somebody waits for a processor")


def test_what_is_held_is_let_go(groups: Groups) -> None:
    """After all this, the processes of a group that is removed have ended: their numbers are nobody's."""
    group = groups("pids")
    process = groups.start(group, "sleep", "1000")
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(DEADLINE) == -signal.SIGKILL
    wait_until(lambda: measure_group(group).pids == 0, "the group is empty")
