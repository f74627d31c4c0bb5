"""The engine's word on resources: limits that change, containers that stand still, who was killed for want of memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.engine import Engine, EngineError
from minicontainer.engine.engine import Container
from minicontainer.engine.resources import LEAST_MEMORY, laid_over, split
from minicontainer.engine.store import Config, State
from minicontainer.linux.cgroups import hierarchy_of
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.limits import Limits
from minicontainer.steps.group import Group, find_group, list_groups
from minicontainer.steps.io import RATES
from minicontainer.steps.usage import limits_of
from tests.command import DEADLINE, Command, line_of, needs_root, wait_until
from tests.host_state import HostUnchanged

pytestmark = needs_root

MIB = 1 << 20
BURN = ["sh", "-c", "while :; do :; done"]


@pytest.fixture
def engine(state_root: Path) -> Engine:
    """An engine with a state directory of its own."""
    return Engine(state_root)


@contextlib.contextmanager
def started(engine: Engine, args: list[str], **options: object) -> Iterator[tuple[Container, Config, Group]]:
    """A container that runs while the block does, what is remembered of it, and its control group as it is on disk."""
    with engine.started("busybox", args, **options) as container:
        config = engine.store.find(container.id)
        yield container, config, find_group(config.group)


def says(group: Group, controller: str, v1: str, v2: str | None = None) -> str:
    """What a control file says, by its name on v1 and on v2."""
    version, directory = group[controller]
    return Path(directory, v1 if version == 1 else v2 or v1).read_text().strip()


def memory_limit(group: Group) -> int:
    """The limit of a group that has one."""
    return int(says(group, "memory", "memory.limit_in_bytes", "memory.max"))


# Limits that change


def test_update_changes_the_kernel_and_what_is_remembered(engine: Engine) -> None:
    with started(engine, ["sleep", "600"], limits=Limits(memory=64 * MIB)) as (_, config, group):
        changed = engine.update(config, Limits(memory=96 * MIB, pids=30))
        assert changed.limits == Limits(memory=96 * MIB, pids=30)
        assert engine.store.config(config.id) == changed
        assert (memory_limit(group), says(group, "pids", "pids.max")) == (96 * MIB, "30")
        changed = engine.update(changed, Limits(pids=-1))
        assert memory_limit(group) == 96 * MIB and says(group, "pids", "pids.max") == "max"
        assert changed.limits.pids == -1, "lifted is remembered as well"


def test_a_change_that_is_refused_is_undone_whole(engine: Engine) -> None:
    """All, or none: for every limit that was there, and every one that was not."""
    wanted = Limits(
        memory=128 * MIB, memory_swap=160 * MIB, cpus=0.5, cpu_period=50_000, pids=30, cpuset_cpus="0", cpu_shares=700,
        memory_reservation=32 * MIB, io_rates=(("4000:99", "read_bps", 1 << 20),),
    )  # fmt: skip
    for before in (
        Limits(),
        Limits(memory=64 * MIB, cpu_quota=20_000, pids=40),
        Limits(memory=64 * MIB, memory_swap=80 * MIB, cpus=0.25, cpu_burst=5_000, memory_reservation=16 * MIB),
        Limits(cpu_idle=True, cpuset_mems="0"),
        Limits(cpu_shares=300, cpu_period=20_000, cpuset_cpus="0"),
    ):
        with started(engine, ["sleep", "600"], limits=before) as (_, config, group):
            at_first = limits_of(group)
            with pytest.raises(EngineError, match='"4000:99 ') as raised:
                engine.update(config, wanted)
            assert raised.value.exit_code == 125
            assert limits_of(group) == at_first, before
            assert engine.store.config(config.id) == config
            engine.update(config, wanted.replace(io_rates=()))


def test_an_update_of_what_was_never_started_is_only_remembered(engine: Engine) -> None:
    config = engine.create("busybox", ["cat", "/proc/self/cgroup"])
    changed = engine.update(config, Limits(pids=30))
    assert engine.store.config(config.id).limits == changed.limits == Limits(pids=30)
    assert find_group(config.group).places == {}
    for wrong in (Limits(memory=1), Limits(cpus=0.0), Limits(pids=0), Limits(memory_swap=64 * MIB)):
        with pytest.raises(EngineError):
            engine.update(changed, wrong)
        assert engine.store.config(config.id) == changed
    engine.remove(changed)


WHOLE = st.none() | st.integers(-1, 1 << 40)
NAME = st.text("abcxyz0:.ä\udcff", min_size=1, max_size=6)
LIMITS = st.builds(
    Limits,
    memory=WHOLE, pids=WHOLE, memory_swap=WHOLE, memory_reservation=WHOLE, memory_low=WHOLE, memory_min=WHOLE,
    memory_high=WHOLE, cpu_shares=WHOLE, cpu_quota=WHOLE, cpu_period=WHOLE, cpu_burst=WHOLE, blkio_weight=WHOLE,
    net_class=WHOLE, cpus=st.none() | st.floats(0.01, 512), oom_kill_disable=st.booleans(),
    cpu_idle=st.none() | st.booleans(), cpuset_cpus=st.none() | NAME, cpuset_mems=st.none() | NAME,
    files=st.lists(st.tuples(NAME, NAME, NAME, NAME), max_size=3).map(tuple),
    io_rates=st.lists(st.tuples(NAME, st.sampled_from(sorted(RATES)), st.integers(0, 1 << 40)), max_size=3).map(tuple),
    devices=st.none() | st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 4095), st.none() | st.integers(0, 4095),
                  st.sampled_from(["r", "rw", "rwm"])), max_size=3).map(tuple),
    huge_pages=st.lists(st.tuples(NAME, st.integers(0, 1 << 40)), max_size=3).map(tuple),
    rdma=st.lists(st.tuples(NAME, st.integers(0, 9), st.integers(0, 9)), max_size=3).map(tuple),
    misc=st.lists(st.tuples(NAME, st.integers(0, 9)), max_size=3).map(tuple),
    net_priorities=st.lists(st.tuples(NAME, st.integers(0, 9)), max_size=3).map(tuple),
    unified=st.lists(st.tuples(NAME, NAME), max_size=3).map(tuple),
)  # fmt: skip


def test_every_limit_has_its_strategy_here() -> None:
    assert set(LIMITS.wrapped_strategy.kwargs) == set(Limits().asdict())  # type: ignore[attr-defined]


@given(LIMITS)
def test_limits_go_to_disk_and_come_back_the_same(limits: Limits) -> None:
    config = Config(
        "id", "name", "busybox", ("true",), limits=limits, cgroup_parent="web", devices=(("/dev/a", "/dev/b"),)
    )
    again = Config.from_json(config.to_json())
    assert again == config and hash(again) == hash(config)


def test_a_container_of_an_older_version_is_found_and_started(engine: Engine) -> None:
    """Its config.json says nothing of what did not exist then; nor does its state.json."""
    config = engine.create("busybox", ["sh", "-c", "exit 7"], name="alpha", limits=Limits(memory=64 * MIB))
    directory = Path(engine.store.directory(config.id))
    written = json.loads((directory / "config.json").read_text())
    written["limits"] = {"memory": 64 * MIB, "cpus": None, "pids": 20}
    for name in ("devices", "cgroup_parent"):
        del written[name]
    (directory / "config.json").write_text(json.dumps(written))
    (directory / "state.json").write_text('{"status": "exited", "pid": null, "started": null, "exit_code": 3}')
    found = engine.store.find("alpha")
    assert found == config.replace(limits=Limits(memory=64 * MIB, pids=20))
    assert engine.state(found) == State("exited", exit_code=3)
    assert engine.attend(found, engine.start(found)).status == 7
    engine.remove(found)


@given(LIMITS, LIMITS)
def test_what_is_said_later_counts_and_the_rest_stays(before: Limits, changes: Limits) -> None:
    after = laid_over(before, changes)
    for name, value in changes.asdict().items():
        old = getattr(before, name)
        if value == getattr(Limits, name):  # nothing was said of it
            assert getattr(after, name) in (old, None, False), name
        elif isinstance(value, tuple) and name != "devices":
            assert set(value[-1:]) <= set(getattr(after, name))
            assert len(getattr(after, name)) <= len(old) + len(value)
        else:
            assert getattr(after, name) == value, name
    assert laid_over(before, Limits()) == before
    assert laid_over(after, changes) == after, "saying it twice changes nothing"


def test_two_words_for_one_limit_do_not_add_up() -> None:
    assert laid_over(Limits(cpus=0.5), Limits(cpu_quota=5_000)) == Limits(cpu_quota=5_000)
    assert laid_over(Limits(cpu_quota=5_000, cpu_period=20_000), Limits(cpus=2.0)) == Limits(
        cpus=2.0, cpu_period=20_000
    )
    assert laid_over(Limits(memory=5, memory_swap=9), Limits(memory=20)) == Limits(memory=20)
    assert laid_over(Limits(memory=5), Limits(memory_swap=9)) == Limits(memory=5, memory_swap=9)
    assert laid_over(Limits(cpu_idle=True), Limits(cpu_shares=9)) == Limits(cpu_idle=False, cpu_shares=9)
    assert laid_over(Limits(cpu_shares=9), Limits(cpu_idle=True)) == Limits(cpu_idle=True)
    both = laid_over(Limits(), Limits(cpus=1.0, cpu_quota=9))
    assert both == Limits(cpus=1.0, cpu_quota=9), "said at once, they are left for check() to refuse"


def test_a_rate_of_one_disk_leaves_those_of_others() -> None:
    before = Limits(io_rates=(("8:0", "read_bps", 1), ("8:0", "write_bps", 2), ("8:16", "read_bps", 3)))
    after = laid_over(before, Limits(io_rates=(("8:0", "read_bps", 9),)))
    assert after.io_rates == (("8:0", "read_bps", 9), ("8:0", "write_bps", 2), ("8:16", "read_bps", 3))


# A pool that is split


@given(st.integers(0, 1 << 45), st.lists(st.integers(1, 10_000), min_size=1, max_size=8))
def test_parts_of_a_pool_are_whole_pages_in_proportion_and_never_more_than_it(pool: int, shares: list[int]) -> None:
    page, total = os.sysconf("SC_PAGE_SIZE"), sum(shares)
    try:
        parts = split(pool, ":".join(map(str, shares)), len(shares))
    except EngineError as error:
        assert pool * min(shares) // total < LEAST_MEMORY + page, error
        return
    assert sum(parts) <= pool
    for part, share in zip(parts, shares, strict=True):
        assert part % page == 0 and part >= LEAST_MEMORY
        assert 0 <= pool * share / total - part < page + 1
    ordered = [part for _, part in sorted(zip(shares, parts, strict=True))]
    assert ordered == sorted(parts), "who has the greater share has no less"


@given(st.text("0123456789:-.x ٣", max_size=9), st.integers(1, 4))
def test_shares_are_understood_or_refused(text: str, how_many: int) -> None:
    words = text.split(":")
    good = len(words) == how_many and all(
        word.isascii() and word.isdecimal() and 0 < int(word) <= 10_000 for word in words
    )
    try:
        parts = split(1 << 50, text, how_many)
    except EngineError:
        assert not good
    else:
        assert good and len(parts) == how_many


# Containers that stand still


def test_a_paused_container_is_known_to_be(engine: Engine) -> None:
    with started(engine, BURN) as (container, config, _):
        assert not engine.paused(config)
        engine.pause(config)
        assert engine.paused(config)
        assert engine.state(config).status == "running" and engine.state(config).pid == container.pid
        [look] = engine.statistics([config])
        assert look.frozen
        engine.unpause(config)
        assert not engine.paused(config) and not engine.statistics([config])[0].frozen
    assert not engine.paused(config), "what is gone does not stand still"


def test_what_does_not_run_cannot_be_paused(engine: Engine) -> None:
    config = engine.create("busybox", ["true"], name="alpha")
    for act in (engine.pause, engine.unpause, lambda it: engine.count(it, "cpu-clock", 0)):
        with pytest.raises(EngineError, match="minicontainer start alpha") as raised:
            act(config)
        assert raised.value.exit_code == 1
    assert not engine.paused(config)
    engine.remove(config)


def test_a_paused_container_goes_with_its_block(engine: Engine) -> None:
    with started(engine, BURN) as (container, config, group):
        pidfd = os.pidfd_open(container.pid)
        engine.pause(config)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)
    assert not any(map(os.path.exists, group.directories))


def test_who_watches_a_paused_container_can_remove_it(engine: Engine) -> None:
    config = engine.create("busybox", BURN)
    running = engine.start(config)
    engine.pause(config)
    engine.remove(config, force=True)
    assert engine.attend(config, running).status == 137
    assert engine.containers() == []


def test_others_can_remove_a_paused_container(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    """On v1 what is frozen does not die before it is thawed: SIGKILL alone would wait for ever."""
    with (
        host_unchanged(),
        minicontainer.running("run", "--name", "alpha", "busybox", "sh", "-c", "echo up; sleep 600 & wait") as process,
    ):
        line_of(process.stdout)
        assert minicontainer("pause", "alpha").returncode == 0
        done = minicontainer("rm", "alpha")
        assert done.returncode == 1 and "rm -f alpha" in done.stderr, "it counts as running"
        done = minicontainer("rm", "-f", "alpha")
        assert (done.returncode, done.stdout, done.stderr) == (0, "alpha\n", "")
        assert process.wait(DEADLINE) == 137
    assert minicontainer.containers() == []


def test_a_paused_container_is_killed_by_asking_often_enough(
    minicontainer: Command, host_unchanged: HostUnchanged
) -> None:
    """^C is passed on, and a frozen container does not hear it; the third is the last."""
    with (
        host_unchanged(),
        minicontainer.running(
            "run", "--rm", "--name", "alpha", "busybox", "sh", "-c", "echo up; exec sleep 600"
        ) as process,
    ):
        line_of(process.stdout)
        assert minicontainer("pause", "alpha").returncode == 0
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            wait_until(lambda: not _pending(process.pid, signal.SIGINT), "the request has been read")
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 137
    assert minicontainer.containers() == []


def _pending(pid: int, number: int) -> bool:
    lines = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(lines["ShdPnd"], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("options", [["--rm"], []])
def test_repair_ends_what_was_paused_when_its_watcher_was_killed(
    minicontainer: Command, host_unchanged: HostUnchanged, options: list[str]
) -> None:
    with host_unchanged():
        with minicontainer.running(
            "run", *options, "--name", "alpha", "-m", "64m", "busybox", "sh", "-c", "echo up; sleep 600 & wait"
        ) as process:
            line_of(process.stdout)
            group = find_group(Engine(minicontainer.root).store.find("alpha").group)
            members = [int(pid) for pid in says(group, "freezer", "cgroup.procs").split()]
            assert minicontainer("pause", "alpha").returncode == 0
            process.kill()
            process.wait()
            done = minicontainer("system", "repair")
            assert (done.returncode, done.stderr) == (0, "") and "alpha" in done.stdout
            assert not any(map(os.path.exists, group.directories))
            wait_until(lambda: not any(map(_alive, members)), "its processes have ended")
        assert minicontainer("system", "repair").stdout == ""
        if not options:
            assert "exited (unknown)" in minicontainer("ps", "-a").stdout
            assert minicontainer("rm", "alpha").returncode == 0
    assert minicontainer.containers() == []


def test_a_paused_container_whose_watcher_was_killed_can_be_removed(minicontainer: Command) -> None:
    """Without a repair in between."""
    with minicontainer.running("run", "--name", "alpha", "busybox", "sh", "-c", "echo up; sleep 600 & wait") as process:
        line_of(process.stdout)
        assert minicontainer("pause", "alpha").returncode == 0
        process.kill()
        process.wait()
        done = minicontainer("rm", "-f", "alpha")
        assert (done.returncode, done.stderr) == (0, "")
    assert minicontainer.containers() == []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Want of memory


def test_who_was_killed_for_want_of_memory_is_known_afterwards(engine: Engine) -> None:
    config = engine.create("busybox", ["tail", "/dev/zero"], limits=Limits(memory=16 * MIB))
    result = engine.attend(config, engine.start(config))
    assert (result.status, result.oom_killed) == (137, True)
    state = json.loads(Path(engine.store.directory(config.id), "state.json").read_text())
    assert (state["status"], state["exit_code"], state["oom_killed"]) == ("exited", 137, True)
    assert engine.state(config).oom_killed
    engine.store.change(config := config.replace(args=("sh", "-c", "kill -9 $$")))
    result = engine.attend(config, engine.start(config))
    assert (result.status, result.oom_killed) == (137, False), "killed, and not for want of memory"
    assert not engine.state(config).oom_killed, "and no longer remembered of the time before"
    engine.remove(config)


def test_a_child_that_is_killed_counts_too(engine: Engine) -> None:
    """From a small process: the kernel kills the largest in the group, and process 1 is a copy of whoever starts it."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from minicontainer.engine import Engine; from minicontainer.runtime.limits import Limits\n"
        "result = Engine(sys.argv[2]).run('busybox', ['sh', '-c', 'tail /dev/zero; exit 5'], limits=Limits(memory=64 << 20))\n"
        "print(result.status, result.oom_killed)"
    )
    command = [sys.executable, "-I", "-S", "-c", program, Path(__file__).parents[2], engine.store.root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout == "5 True\n", done.stderr


def test_without_a_limit_of_memory_it_is_known_as_well(engine: Engine) -> None:
    assert not engine.run("busybox", ["true"]).oom_killed
    assert not engine.run("busybox", ["true"], limits=Limits(pids=20)).oom_killed


def test_neighbours_go_on_when_one_is_killed_for_want_of_memory(engine: Engine) -> None:
    with started(engine, BURN, limits=Limits(memory=32 * MIB), cgroup_parent="web") as (container, config, group):
        result = engine.run("busybox", ["tail", "/dev/zero"], limits=Limits(memory=16 * MIB), cgroup_parent="web")
        assert (result.status, result.oom_killed) == (137, True)
        assert engine.state(config).status == "running" and _alive(container.pid)
        file = "memory.oom_control" if group["memory"][0] == 1 else "memory.events"
        assert "oom_kill 0" in says(group, "memory", file).splitlines()
        before = engine.statistics([config])[0].usage.cpu or 0
        wait_until(lambda: (engine.statistics([config])[0].usage.cpu or 0) > before, "it works on")


# What is used


def test_statistics_are_of_those_that_run(engine: Engine) -> None:
    idle = engine.create("busybox", ["true"])
    assert engine.statistics() == [] == engine.statistics([idle])
    with started(engine, ["sleep", "600"], limits=Limits(memory=64 * MIB, pids=20)) as (container, _, group):
        [look] = engine.statistics()
        assert (look.id, look.name) == (container.id, container.name)
        assert (look.usage.memory_limit, look.usage.pids_limit) == (64 * MIB, 20)
        assert look.usage.pids == int(says(group, "pids", "pids.current"))
        assert look.memory_percent == pytest.approx(100 * (look.usage.memory or 0) / (64 * MIB))
        assert look.asdict()["usage"]["pids_limit"] == 20
        assert engine.statistics([idle]) == []
    engine.remove(idle)


def test_the_rate_between_two_looks_is_of_the_time_between_them(engine: Engine) -> None:
    with started(engine, BURN) as (_, config, _group):
        [first] = engine.statistics([config])
        wait_until(lambda: (engine.statistics([config])[0].usage.cpu or 0) > (first.usage.cpu or 0) + 20_000, "20 ms")
        engine.pause(config)
        [second] = engine.statistics([config], {config.id: first}, seconds=0.5)
        used = (second.usage.cpu or 0) - (first.usage.cpu or 0)
        assert second.cpu_percent == pytest.approx(used / 0.5 / 10_000)
        [third] = engine.statistics([config], {config.id: second}, seconds=1)
        assert third.cpu_percent == pytest.approx(0, abs=0.5)


def test_the_tree_has_every_group_after_the_one_above_it(engine: Engine) -> None:
    with (
        started(engine, ["sleep", "600"], cgroup_parent="web/front", limits=Limits(pids=20)) as (one, first, group),
        started(engine, ["sleep", "600"], cgroup_parent="web") as (two, second, _),
    ):
        nodes = engine.groups()
        names = [node.name for node in nodes]
        for name in ("web", "web/front", first.group, second.group):
            assert name in names and names.index(name) > names.index(name.rpartition("/")[0])
        found = {node.container: node for node in nodes if node.container}
        assert set(found) == {one.name, two.name}
        assert dict(found[one.name].limits)["pids.max"] == "20"
        assert found[one.name].usage.pids == int(says(group, "pids", "pids.current"))
        assert "pids.max" not in found[two.name].limits
    assert not {"web", "web/front"} & set(list_groups())


@pytest.mark.parametrize("most", [100, 1024, 10])
def test_a_limit_is_shown_whatever_its_value_is(engine: Engine, most: int) -> None:
    """100 and 1024 are what other files say when nothing is set."""
    with started(engine, ["sleep", "600"], limits=Limits(pids=most, cpu_shares=100)) as (container, _, group):
        [node] = [node for node in engine.groups() if node.container == container.name]
        assert node.limits["pids.max"] == str(most)
        assert {"cpu.shares", "cpu.weight"} & set(node.limits)
        engine.update(engine.store.find(container.id), Limits(cpu_shares=1024, pids=-1))
        assert not {"cpu.shares", "cpu.weight", "pids.max"} & set(limits_of(group))


def test_events_are_counted_until_the_time_or_the_container_is_over(engine: Engine) -> None:
    with started(engine, BURN) as (_, config, _group):
        try:
            assert engine.count(config, "cpu-clock", 0.1) > 0
        except EngineError as error:
            pytest.skip(f"perf_event_open(2) is closed here: {error}")
        for seconds in (-1.0, float("nan"), float("inf")):
            with pytest.raises(EngineError, match="positive"):
                engine.count(config, "cpu-clock", seconds)
        engine.pause(config)
        assert engine.count(config, "cpu-clock", 0.1) == 0
    ending = engine.create("busybox", ["sh", "-c", "echo up; read x"])
    stdin, stdout = os.pipe(), os.pipe()
    running = engine.start(ending, (stdin[0], stdout[1], 2))
    os.read(stdout[0], 3)
    os.write(stdin[1], b"\n")
    engine.count(ending, "cpu-clock", 1e6)  # which would be eleven days
    engine.attend(ending, running)
    for fd in (*stdin, *stdout):
        os.close(fd)
    engine.remove(ending)


def test_from_a_process_with_threads_it_is_the_same(engine: Engine) -> None:
    """A notebook's kernel: containers are started by a helper, and looked at and limited by us."""
    quiet = threading.Event()
    thread = threading.Thread(target=quiet.wait)
    thread.start()
    try:
        with started(engine, BURN, limits=Limits(memory=64 * MIB)) as (_, config, group):
            config = engine.update(config, Limits(memory=96 * MIB))
            assert memory_limit(group) == 96 * MIB
            engine.pause(config)
            assert engine.paused(config) and engine.statistics()[0].frozen
            engine.unpause(config)
        assert engine.run("busybox", ["tail", "/dev/zero"], limits=Limits(memory=16 * MIB)).oom_killed
    finally:
        quiet.set()
        thread.join()
        _end_of_helper()


def _end_of_helper() -> None:
    from minicontainer.engine.engine import _helper

    while _helper:
        _helper.pop().close()


def test_a_start_that_is_refused_leaves_no_group(engine: Engine, host_unchanged: HostUnchanged) -> None:
    for wrong in (
        Limits(memory=64 * MIB, pids=20, io_rates=(("4000:99", "read_bps", 5),)),
        Limits(cpuset_cpus="4000"),
        Limits(pids=20, net_priorities=(("nope", 5),)),
        Limits(unified=(("cgroup.procs", "1"),)),
        Limits(misc=(("nope", 1),)),
    ):
        with host_unchanged(), pytest.raises(StartError) as raised:
            engine.run("busybox", ["true"], limits=wrong, cgroup_parent="web")
        assert raised.value.exit_code == 125
        assert engine.containers() == []


def test_every_world_has_what_the_engine_takes_for_granted() -> None:
    """Statistics and pause work without a limit: their controllers are asked for each time."""
    for controller in ("memory", "cpuacct", "pids", "freezer"):
        assert hierarchy_of(controller) is not None, f"{controller} is in no tree of this machine"
