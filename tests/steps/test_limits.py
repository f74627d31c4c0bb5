"""The limits of `steps/`, controller by controller: what the kernel's own files say after them, and what it refuses.

On whichever version this machine has; the VM runs the same tests on the others. What a limit *does* is in test_laws.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.linux.cgroups import read
from minicontainer.steps.cpu import pin, share_cpu, throttle, yield_cpu
from minicontainer.steps.devices import EVERY_CONTAINER, allow_devices, device_program, read_rule
from minicontainer.steps.events import EVENTS, count_events, events_counted
from minicontainer.steps.freezer import freeze, is_frozen, thaw
from minicontainer.steps.group import Group, LimitUnavailable, remove_group
from minicontainer.steps.io import limit_io, weigh_io
from minicontainer.steps.memory import count_oom_kills, disable_oom_killer, limit_memory, protect_memory
from minicontainer.steps.packets import prioritize_packets, tag_packets
from minicontainer.steps.pids import limit_pids
from minicontainer.steps.scarce import limit_huge_pages, limit_misc, limit_rdma, set_control
from minicontainer.steps.usage import limits_of, measure_group
from tests.command import needs_root
from tests.steps.conftest import Groups, on_disk

pytestmark = needs_root

MIB = 1 << 20


def some_disk() -> str:
    """A whole disk of this machine, as the kernel numbers it."""
    for disk in sorted(Path("/sys/block").iterdir()):
        if not disk.name.startswith(("loop", "ram", "zram")) and int((disk / "size").read_text()):
            return (disk / "dev").read_text().strip()
    pytest.skip("this machine has no disk")


# Memory


def test_memory_and_swap(groups: Groups) -> None:
    group = groups("memory")
    limit_memory(group, 64 * MIB)
    assert on_disk(group, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    swap = {1: "memory.memsw.limit_in_bytes", 2: "memory.swap.max"}[group["memory"][0]]
    if Path(group["memory"][1], swap).exists():
        assert on_disk(group, "memory", swap) == {1: str(64 * MIB), 2: "0"}[group["memory"][0]], "no swap"
        limit_memory(group, 64 * MIB, 96 * MIB)
        assert on_disk(group, "memory", swap) == {1: str(96 * MIB), 2: str(32 * MIB)}[group["memory"][0]]


def test_memory_goes_up_and_down_and_away(groups: Groups) -> None:
    """In v1 the limit of memory may at no moment be the greater one: the order of the two files changes."""
    group = groups("memory")
    for limit in (64 * MIB, 256 * MIB, 8 * MIB, 512 * MIB):
        limit_memory(group, limit)
        assert on_disk(group, "memory", "memory.limit_in_bytes", "memory.max") == str(limit)
    limit_memory(group, -1)
    assert measure_group(group).memory_limit is None


def test_less_memory_than_is_in_use_is_refused(groups: Groups) -> None:
    group = groups("memory")
    limit_memory(group, 64 * MIB)
    process = groups.ready(group, "import time; held = b'x' * (40 << 20); print(flush=True); time.sleep(1000)")
    with pytest.raises(LimitUnavailable, match=r"EBUSY.*uses more than that.*choose a higher limit"):
        limit_memory(group, 20 * MIB)
    assert process.poll() is None, "it lives"
    assert on_disk(group, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)


def test_whom_pages_are_taken_from(groups: Groups) -> None:
    group = groups("memory")
    protect_memory(group, reservation=32 * MIB)
    assert on_disk(group, "memory", "memory.soft_limit_in_bytes", "memory.low") == str(32 * MIB)
    if group["memory"][0] == 1:
        for name in ("low", "minimum", "high"):
            with pytest.raises(LimitUnavailable, match="on cgroup v2 only"):
                protect_memory(group, **{name: MIB})
    else:
        protect_memory(group, low=8 * MIB, minimum=4 * MIB, high=48 * MIB)
        assert [on_disk(group, "memory", f"memory.{name}") for name in ("low", "min", "high")] == [
            str(8 * MIB),
            str(4 * MIB),
            str(48 * MIB),
        ]
        protect_memory(group, high=-1)
        assert on_disk(group, "memory", "memory.high") == "max"


def test_the_oom_killer_can_be_switched_off_on_v1_only(groups: Groups) -> None:
    group = groups("memory")
    if group["memory"][0] == 2:
        with pytest.raises(LimitUnavailable, match="cannot switch the OOM killer off"):
            disable_oom_killer(group)
    else:
        disable_oom_killer(group)
        assert "oom_kill_disable 1" in on_disk(group, "memory", "memory.oom_control")
    assert count_oom_kills(group) == 0


@pytest.mark.parametrize("limit", [-5, 1 << 70])
def test_memory_that_the_kernel_refuses(groups: Groups, limit: int) -> None:
    group = groups("memory")
    with pytest.raises(LimitUnavailable, match=rf'write\(.*, "{limit}"\): '):
        limit_memory(group, limit)


# Processors


def test_shares(groups: Groups) -> None:
    """v2's weight 100 is 1024 shares, and in proportion: the kernel's own conversion."""
    group = groups("cpu")
    for shares, weight in ((1024, 100), (2048, 200), (512, 50), (2, 1), (262_144, 10_000)):
        share_cpu(group, shares)
        assert on_disk(group, "cpu", "cpu.shares", "cpu.weight") == str({1: shares, 2: weight}[group["cpu"][0]])
    for shares in (0, 1, -3, 262_145):
        with pytest.raises(LimitUnavailable, match="give it 2 to 262144"):
            share_cpu(group, shares)


def quota_of(group: Group) -> tuple[str, str]:
    if group["cpu"][0] == 2:
        quota, period = on_disk(group, "cpu", "cpu.max").split()
        return quota.replace("max", "-1"), period
    return on_disk(group, "cpu", "cpu.cfs_quota_us"), on_disk(group, "cpu", "cpu.cfs_period_us")


def test_quota_period_and_burst(groups: Groups) -> None:
    group = groups("cpu")
    throttle(group, 50_000)
    assert quota_of(group) == ("50000", "100000")
    throttle(group, 20_000, 10_000)
    assert quota_of(group) == ("20000", "10000")
    burst = {1: "cpu.cfs_burst_us", 2: "cpu.max.burst"}[group["cpu"][0]]
    if Path(group["cpu"][1], burst).exists():
        throttle(group, 50_000, 100_000, 40_000)
        assert on_disk(group, "cpu", burst) == "40000"
        throttle(group, 10_000)  # less than the burst of before
        assert (quota_of(group), on_disk(group, "cpu", burst)) == (("10000", "100000"), "0")
    throttle(group, -1)
    assert quota_of(group)[0] == "-1"


@pytest.mark.parametrize(("quota", "period"), [(10, 100_000), (50_000, 10), (50_000, 2_000_000)])
def test_a_quota_that_the_kernel_refuses(groups: Groups, quota: int, period: int) -> None:
    with pytest.raises(LimitUnavailable, match=r"EINVAL.*a quota is at least 1000 µs, a period 1000 to 1000000 µs"):
        throttle(groups("cpu"), quota, period)


def test_idle(groups: Groups) -> None:
    group = groups("cpu")
    if not Path(group["cpu"][1], "cpu.idle").exists():
        pytest.skip("this kernel has no cpu.idle: it came with Linux 5.15")
    yield_cpu(group)
    assert on_disk(group, "cpu", "cpu.idle") == "1"
    yield_cpu(group, False)
    assert on_disk(group, "cpu", "cpu.idle") == "0"


def test_pinned_processes_see_it_at_once(groups: Groups) -> None:
    group = groups("cpuset")
    process = groups.start(group, "sleep", "1000")
    before = os.sched_getaffinity(process.pid)
    pin(group, cpus="0", memory_nodes="0")
    assert os.sched_getaffinity(process.pid) == {0}
    pin(group, cpus=",".join(map(str, sorted(before))))
    assert os.sched_getaffinity(process.pid) == before


@pytest.mark.parametrize("cpus", ["4095", "0-4095", "9", "one", "1-", "-1", "", "99999999999"])
def test_processors_that_there_are_not(groups: Groups, cpus: str) -> None:
    group = groups("cpuset")
    with pytest.raises(LimitUnavailable, match=r"choose among the processors 0|cannot understand"):
        pin(group, cpus=cpus)


def test_a_cpuset_of_v1_begins_with_what_the_group_above_has(groups: Groups) -> None:
    """A new one is empty, and no process may enter: the groups above it have to be filled first, from the top."""
    outer = groups("cpuset")
    inner = groups("cpuset", below=outer)
    process = groups.start(inner, "sleep", "1000")
    assert os.sched_getaffinity(process.pid)
    if inner["cpuset"][0] == 1:
        assert on_disk(inner, "cpuset", "cpuset.cpus") == on_disk(outer, "cpuset", "cpuset.cpus") != ""


# The freezer


def test_when_freeze_returns_all_stand_still(groups: Groups) -> None:
    group = groups("freezer", "pids")
    for _ in range(10):
        groups.start(group, "sh", "-c", "while :; do :; done")
    freeze(group)
    assert is_frozen(group)
    assert on_disk(group, "freezer", "freezer.state", "cgroup.freeze") == {1: "FROZEN", 2: "1"}[group["freezer"][0]]
    thaw(group)
    assert not is_frozen(group)
    remove_group(group)
    assert not is_frozen(group), "somebody looks at one that has just gone"


def test_an_empty_group_can_be_frozen_and_thawed_twice(groups: Groups) -> None:
    group = groups("freezer")
    for _ in range(2):
        freeze(group)
        freeze(group)
        thaw(group)
        thaw(group)


# Devices


def test_the_list_of_devices_is_what_was_allowed(groups: Groups) -> None:
    group = groups("devices")
    if group["devices"][0] == 2:
        pytest.skip("v2 has no list: what is refused is tested in test_laws.py")
    allow_devices(group, [("c", 1, 3, "rwm"), ("b", 8, None, "r")])
    assert on_disk(group, "devices", "devices.list").splitlines() == ["c 1:3 rwm", "b 8:* r"]
    allow_devices(group, EVERY_CONTAINER)
    assert len(on_disk(group, "devices", "devices.list").splitlines()) == len(EVERY_CONTAINER), "and no others"


@given(st.text(max_size=20))
def test_no_text_breaks_the_reading_of_rules(text: str) -> None:
    try:
        kind, _, _, access = read_rule(text)
    except LimitUnavailable as error:
        assert "write it as in: c 1:3 rwm" in str(error)
    else:
        assert kind in ("a", "b", "c") and access and set(access) <= set("rwm")


def test_rules_as_docker_and_the_kernel_write_them() -> None:
    assert read_rule("c 1:3 rwm") == ("c", 1, 3, "rwm")
    assert read_rule("b 8:* wr") == ("b", 8, None, "rw")
    assert read_rule("a") == read_rule("a *:* mrw") == ("a", None, None, "rwm")


# A BPF program is tested as a program too: by a machine of a dozen lines that knows its instructions.


def answer(program: list[bytes], kind: int, access: int, major: int, minor: int) -> int:
    """What it answers: an interpreter of the instructions that it uses, Documentation/bpf/instruction-set.rst."""
    question = {0: access << 16 | kind, 4: major, 8: minor}
    registers = [0] * 11
    place = 0
    while True:
        opcode, dst, src = program[place][0], program[place][1] & 15, program[place][1] >> 4
        offset = int.from_bytes(program[place][2:4], "little", signed=True)
        immediate = int.from_bytes(program[place][4:8], "little", signed=True)
        place += 1
        match opcode:
            case 0x61:
                registers[dst] = question[offset]
            case 0x54:
                registers[dst] &= immediate
            case 0x74:
                registers[dst] >>= immediate
            case 0xB7:
                registers[dst] = immediate
            case 0xBF:
                registers[dst] = registers[src]
            case 0x55:
                place += offset if registers[dst] != immediate else 0
            case 0x5D:
                place += offset if registers[dst] != registers[src] else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"opcode {opcode:#x}")


numbers = st.integers(0, 3)
rules = st.tuples(
    st.sampled_from("abc"),
    st.none() | numbers,
    st.none() | numbers,
    st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters))),
)


@given(st.lists(rules, max_size=6), st.sampled_from([1, 2]), st.integers(1, 7), numbers, numbers)
def test_the_program_answers_as_the_rules_say(
    allowed: list[tuple[str, int | None, int | None, str]], kind: int, access: int, major: int, minor: int
) -> None:
    asked = {letter for letter, bit in (("m", 1), ("r", 2), ("w", 4)) if access & bit}
    expected = any(
        which in ("a", "?bc"[kind]) and first in (None, major) and second in (None, minor) and asked <= set(letters)
        for which, first, second, letters in allowed
    )
    assert answer(device_program(allowed), kind, access, major, minor) == expected


# What is left of lab 11


def test_how_many_processes(groups: Groups) -> None:
    group = groups("pids")
    limit_pids(group, 20)
    assert on_disk(group, "pids", "pids.max") == "20"
    limit_pids(group, -1)
    assert on_disk(group, "pids", "pids.max") == "max"
    with pytest.raises(LimitUnavailable, match=r'write\(.*pids.max, "-5"\): EINVAL.*a number of processes'):
        limit_pids(group, -5)


def test_rates_of_a_disk(groups: Groups) -> None:
    group, disk = groups("blkio"), some_disk()
    limit_io(group, disk, read_bps=MIB, write_iops=50)
    if group["blkio"][0] == 1:
        assert on_disk(group, "blkio", "blkio.throttle.read_bps_device") == f"{disk} {MIB}"
        assert on_disk(group, "blkio", "blkio.throttle.write_iops_device") == f"{disk} 50"
    else:
        assert on_disk(group, "blkio", "io.max") == f"{disk} rbps={MIB} wbps=max riops=max wiops=50"
    limit_io(group, disk, read_bps=0, write_iops=0)
    assert not limits_of(group)


def test_a_disk_that_is_not_there(groups: Groups) -> None:
    with pytest.raises(LimitUnavailable, match=r"ENODEV.*give a whole disk"):
        limit_io(groups("blkio"), "4000:0", read_bps=MIB)


def test_weights_of_a_disk(groups: Groups) -> None:
    group = groups("blkio")
    directory = Path(group["blkio"][1])
    known = [
        name
        for name in ("blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight")
        if (directory / name).exists()
    ]
    if not known:
        with pytest.raises(LimitUnavailable, match="no I/O scheduler of this kernel weighs groups"):
            weigh_io(group, 300)
        return
    weigh_io(group, 300)
    for name in known:
        assert (directory / name).read_text().split()[-1].strip() in ("300", str(1 + 290 * 9999 // 990))
    with pytest.raises(LimitUnavailable, match="give it 10 to 1000"):
        weigh_io(group, 5)


def test_a_class_for_packets(groups: Groups) -> None:
    try:
        group = groups("net_cls")
    except LimitUnavailable as error:
        pytest.skip(f"this kernel cannot: {error}")
    tag_packets(group, 0x0010_0001)
    assert on_disk(group, "net_cls", "net_cls.classid") == str(0x0010_0001)
    with pytest.raises(LimitUnavailable, match="a class is a number from 0 to 0xFFFFFFFF"):
        tag_packets(group, -1)


def test_a_priority_on_a_device(groups: Groups) -> None:
    try:
        group = groups("net_prio")
    except LimitUnavailable as error:
        pytest.skip(f"this kernel cannot: {error}")
    prioritize_packets(group, "lo", 5)
    assert "lo 5" in on_disk(group, "net_prio", "net_prio.ifpriomap").splitlines()
    for wrong in ("nothing0", "two words", ""):
        with pytest.raises(LimitUnavailable, match="ip link"):
            prioritize_packets(group, wrong, 5)


def test_huge_pages(groups: Groups) -> None:
    group = groups("hugetlb")
    limit_huge_pages(group, "2MB", 8 * MIB)
    assert on_disk(group, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max") == str(8 * MIB)
    with pytest.raises(LimitUnavailable, match=r'no huge pages of "3MB"; there are .*2MB'):
        limit_huge_pages(group, "3MB", MIB)


def test_rdma_and_misc_say_what_is_missing(groups: Groups) -> None:
    """No machine of ours has such a device; what the kernel answers to the name of one is what a user would see."""
    for controller, refused in (
        ("rdma", lambda group: limit_rdma(group, "mlx5_0", 10, 1000)),
        ("misc", lambda group: limit_misc(group, "sev", 1)),
    ):
        try:
            group = groups(controller)
        except pytest.skip.Exception:
            from minicontainer.steps.group import create_group

            with pytest.raises(LimitUnavailable, match=f"the {controller} controller cannot be used here"):
                create_group(groups.name(), [controller])
            continue
        with pytest.raises(LimitUnavailable, match=r"EINVAL|ENODEV|not there"):
            refused(group)


def test_any_file_of_v2(groups: Groups) -> None:
    group = groups("perf_event")
    if group.unified is None:
        with pytest.raises(LimitUnavailable, match="of cgroup v2, and this host has only v1"):
            set_control(group, "memory.oom.group", "1")
        return
    set_control(group, "cgroup.max.depth", "3")
    assert Path(group.unified, "cgroup.max.depth").read_text() == "3\n"
    for name in ("cgroup.procs", "../cgroup.procs", "/etc/passwd", "cgroup.kill"):
        with pytest.raises(LimitUnavailable, match="is no limit"):
            set_control(group, name, "1")
    with pytest.raises(LimitUnavailable, match="is not there: this kernel does not have that limit"):
        set_control(group, "memory.rubber", "1")


# What is counted


@pytest.mark.parametrize("event", ["context-switches", "cpu-clock", "page-faults"])
def test_events_of_one_group_and_of_no_other(groups: Groups, event: str) -> None:
    """A real event, counted by the kernel: what happens in the group, and not what happens beside it."""
    group, neighbour = groups("perf_event"), groups("perf_event")
    try:
        counters = count_events(group, event)
    except LimitUnavailable as error:
        pytest.skip(f"this kernel does not count: {error}")
    work = "import time\nfor n in range(50): time.sleep(0.001); b'x' * (1 << 20)\nprint(flush=True); time.sleep(1000)"
    try:
        groups.ready(neighbour, work)
        assert events_counted(counters) == 0
        groups.ready(group, work)
        assert events_counted(counters) >= 40
    finally:
        for counter in counters:
            os.close(counter)


def test_an_event_that_this_machine_does_not_count_is_explained(groups: Groups) -> None:
    group = groups("perf_event")
    try:
        for counter in count_events(group, "cycles"):
            os.close(counter)
    except LimitUnavailable as error:
        assert "cpu-clock is counted by the kernel itself" in str(error)
    assert set(EVENTS) >= {"cpu-clock", "cycles"}


def test_usage_is_what_the_kernels_files_say(groups: Groups) -> None:
    group = groups("memory", "cpu", "cpuacct", "pids", "blkio", "freezer")
    limit_memory(group, 64 * MIB)
    limit_pids(group, 20)
    process = groups.ready(
        group,
        "import time\nheld = b'x' * (8 << 20)\nwhile time.process_time() < 0.1: pass\nprint(flush=True); time.sleep(1000)",
    )
    freeze(group)  # nothing changes between our look and the kernel's file
    usage = measure_group(group)
    assert usage.memory == int(on_disk(group, "memory", "memory.usage_in_bytes", "memory.current")) >= 8 * MIB
    assert (usage.memory_limit, usage.pids, usage.pids_limit) == (64 * MIB, 1, 20)
    if group["cpuacct"][0] == 1:
        assert usage.cpu == int(on_disk(group, "cpuacct", "cpuacct.usage")) // 1000
    else:
        assert f"usage_usec {usage.cpu}" in on_disk(group, "cpu", "cpu.stat")
    assert usage.cpu and usage.cpu >= 50_000
    assert set(limits_of(group)) >= {"pids.max"}
    thaw(group)
    process.send_signal(signal.SIGKILL)


def test_pressure_is_there_where_there_is_a_v2_tree(groups: Groups) -> None:
    group = groups("perf_event")
    if group.unified is None or not os.path.exists(f"{group.unified}/cpu.pressure"):
        assert measure_group(group).pressure == {}
        return
    try:
        read(f"{group.unified}/cpu.pressure")
    except OSError:  # EOPNOTSUPP: the kernel was not started with psi=1
        assert measure_group(group).pressure == {}
        return
    assert set(measure_group(group).pressure) == {"cpu", "memory", "io"}


def test_the_usage_of_a_group_that_is_gone_is_empty() -> None:
    assert measure_group(Group("gone", {"memory": (1, "/nowhere"), "cpuacct": (2, "/nowhere")})).memory is None


def test_refusals_leave_no_half_written_group(groups: Groups) -> None:
    """Each is one line, with the file, the value, and what would work."""
    group = groups("memory", "cpu", "pids", "cpuset", "blkio")
    refused: list[Callable[[], None]] = [
        lambda: limit_pids(group, -5), lambda: throttle(group, 1), lambda: pin(group, "4095"),
        lambda: limit_io(group, "4000:0", read_bps=1),
    ]  # fmt: skip
    for act in refused:
        with pytest.raises(LimitUnavailable) as raised:
            act()
        assert "\n" not in str(raised.value) and ";" in str(raised.value)
