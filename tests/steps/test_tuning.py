"""`steps/tuning.py`: set by us, and read with prlimit(1), chrt(1), ionice(1), from /proc, or through Python's own calls."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer.linux.scheduling import (
    ASK,
    IOPRIO_CLASS_SHIFT,
    IOPRIO_WHO_PROCESS,
    RLIM_INFINITY,
    RLIMITS,
    ioprio_get,
    personality,
    prlimit,
)
from minicontainer.steps.capabilities import set_capabilities
from minicontainer.steps.tuning import (
    schedule,
    set_affinity,
    set_io_priority,
    set_memory_policy,
    set_oom_score,
    set_personality,
    set_rlimits,
)
from tests.command import DEADLINE, line_of, needs_root
from tests.steps.apart import ROOT_AT_100000, apart, tmpfs

pytestmark = needs_root

SOMEBODY = 61234
MACHINE = platform.machine()


def said(*command: str) -> str:
    """What a program says that is executed here and now."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout.strip()


def refused(act: Callable[[], object]) -> tuple[int, str]:
    """The number and the text of the error that it raises; (0, "") for none."""
    try:
        act()
    except OSError as error:
        return error.errno or -1, str(error.strerror)
    return 0, ""


@contextlib.contextmanager
def sleeping() -> Iterator[int]:
    """Another process, that does nothing.

    Not before it has said so: an execve(2) that is still at its end puts back the limit of the stack that it began with.
    """
    process = subprocess.Popen(["sh", "-c", "echo ready; read wait"], stdin=-1, stdout=-1, text=True)
    try:
        line_of(process.stdout)
        yield process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


# Resource limits


@pytest.mark.parametrize("name", RLIMITS)
def test_limits_as_prlimit_has_them(name: str) -> None:
    number = getattr(resource, f"RLIMIT_{name}", RLIMITS.index(name))
    assert number == RLIMITS.index(name)
    with sleeping() as pid:
        _, ceiling = prlimit(pid, number)
        hard = min(ceiling, 1 << 30)
        set_rlimits([(f"RLIMIT_{name}", hard // 2, hard)], pid)
        shown = said("prlimit", f"--pid={pid}", "--raw", "--noheadings", "--output=RESOURCE,SOFT,HARD")
    assert f"{name} {hard // 2} {hard}" in shown.splitlines()


def test_limits_of_ones_own_and_of_a_program() -> None:
    def act() -> tuple[tuple[int, int], str]:
        set_rlimits([("RLIMIT_NOFILE", 100, 200), ("CORE", 0, 0)])
        return resource.getrlimit(resource.RLIMIT_NOFILE), said("sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c")

    assert apart(act) == ((100, 200), "100\n200\n0")


def test_no_limit() -> None:
    def act() -> tuple[int, int]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        assert before[1] == resource.RLIM_INFINITY
        set_rlimits([("RLIMIT_FSIZE", 1 << 40, RLIM_INFINITY)])
        return resource.getrlimit(resource.RLIMIT_FSIZE)

    assert apart(act) == (1 << 40, resource.RLIM_INFINITY)


@pytest.mark.parametrize("maps", [(), ROOT_AT_100000], ids=["root", "user namespace"])
def test_a_hard_limit_cannot_be_raised(maps: tuple[tuple[int, int, int], ...]) -> None:
    """Root of a user namespace has CAP_SYS_RESOURCE, of its own, which is not the one that is asked for."""

    def act() -> list[tuple[int, str]]:
        set_rlimits([("RLIMIT_NOFILE", 100, 200)])
        if not maps:
            set_capabilities([], [], [], [])
        tries = [("RLIMIT_NOFILE", 100, 201), ("RLIMIT_NOFILE", 100, RLIM_INFINITY), ("RLIMIT_NOFILE", 200, 200)]
        return [refused(lambda one=one: set_rlimits([one])) for one in tries]  # type: ignore[misc]

    above, unlimited, within = apart(act, maps)
    assert above == (errno.EPERM, "RLIMIT_NOFILE cannot be 100, 201: the hard limit in force is 200, and raising it takes CAP_SYS_RESOURCE")  # fmt: skip
    assert unlimited[0] == errno.EPERM and "cannot be 100, unlimited" in unlimited[1]
    assert within == (0, "")


@pytest.mark.parametrize("name", ["RLIMIT_NONSENSE", "", "NOFILES", "rlimit_nofile", "RLIMIT_"])
def test_a_resource_that_there_is_not(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no resource; setrlimit\(2\) has RLIMIT_CPU, "):
        set_rlimits([(name, 1, 1)])


def test_a_soft_limit_above_the_hard_one() -> None:
    with pytest.raises(ValueError, match="the soft limit, unlimited, is above the hard one, 5"):
        set_rlimits([("RLIMIT_NOFILE", RLIM_INFINITY, 5)])


# Whom the kernel kills first


def test_oom_score() -> None:
    def act() -> tuple[str, str, str]:
        set_oom_score(500)
        with sleeping() as pid:
            inherited = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
            set_oom_score(700, pid)
            other = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
        return Path("/proc/self/oom_score_adj").read_text().strip(), inherited, other

    assert apart(act) == ("500", "500", "700")


def test_an_oom_score_that_cannot_be() -> None:
    def act() -> list[tuple[int, str]]:
        set_capabilities([], [], [], [])
        return [refused(lambda score=score: set_oom_score(score)) for score in (-1000, 1001, -1001)]  # type: ignore[misc]

    lower, above, below = apart(act)
    assert lower[0] == errno.EACCES and "/proc/self/oom_score_adj" in lower[1]
    assert lower[1].endswith("going lower takes CAP_SYS_RESOURCE")
    assert (above[0], below[0]) == (errno.EINVAL, errno.EINVAL)


def test_an_oom_score_is_not_written_to_what_is_no_proc() -> None:
    def act() -> tuple[int, str]:
        tmpfs(Path("/proc"))
        Path("/proc/self").mkdir()
        fake = Path("/proc/self/oom_score_adj")
        fake.write_text("untouched")
        return refused(lambda: set_oom_score(1))[0], fake.read_text()

    assert apart(act) == (errno.EPERM, "untouched")


# Policies of the scheduler


@pytest.mark.parametrize(
    ("policy", "nice", "priority", "flags"),
    [
        ("SCHED_OTHER", 0, 0, []), ("SCHED_OTHER", 7, 0, []), ("SCHED_OTHER", -5, 0, []), ("SCHED_BATCH", 3, 0, []),
        ("SCHED_IDLE", 0, 0, []), ("SCHED_FIFO", 0, 1, []), ("SCHED_FIFO", 0, 99, []), ("SCHED_RR", 0, 10, []),
        ("SCHED_RR", 0, 10, ["SCHED_FLAG_RESET_ON_FORK"]), ("SCHED_OTHER", -1, 0, ["SCHED_FLAG_RESET_ON_FORK"]),
        ("SCHED_FIFO", 0, 0, []), ("SCHED_OTHER", 0, 1, []),
    ],
)  # fmt: skip
def test_policies(policy: str, nice: int, priority: int, flags: list[str]) -> None:
    """What Python's own call is refused, we are: by the values, or for want of real time in our control group."""
    reset = os.SCHED_RESET_ON_FORK if flags else 0

    def theirs() -> int:
        number = getattr(os, policy) | reset
        return refused(lambda: os.sched_setscheduler(0, number, os.sched_param(priority)))[0]

    def ours() -> tuple[tuple[int, str], int, int, int]:
        result = refused(lambda: schedule(policy, nice, priority, flags))
        return result, os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.getpriority(os.PRIO_PROCESS, 0)

    expected = apart(theirs)
    (number, text), scheduler, has_priority, has_nice = apart(ours)
    assert number == expected
    if number:
        assert text.startswith(f"{policy}, nice {nice}, priority {priority}: ")
    else:
        assert (scheduler, has_priority) == (getattr(os, policy) | reset, priority)
        assert has_nice == nice or policy in ("SCHED_FIFO", "SCHED_RR", "SCHED_IDLE")


def test_a_program_inherits_it() -> None:
    def act() -> str:
        schedule("SCHED_BATCH", nice=5)
        return said("sh", "-c", "exec chrt -p $$")

    assert "SCHED_BATCH" in apart(act)


def test_deadlines_as_chrt_has_them() -> None:
    def act() -> tuple[tuple[int, str], int, str]:
        pid = os.getpid()
        with chrt_of(pid) as ask:
            result = refused(lambda: schedule("SCHED_DEADLINE", 0, 0, (), 1_000_000, 5_000_000, 10_000_000))
            forked = refused(os.fork)[0]
            return result, forked, ask()

    result, forked, shown = apart(act)
    if result[0] == 0:
        assert "SCHED_DEADLINE" in shown and "1000000/5000000/10000000" in shown
        assert forked == errno.EAGAIN  # as the docstring says
    else:
        assert result[0] in (errno.EPERM, errno.EBUSY) and ("CAP_SYS_NICE" in result[1] or "time left" in result[1])


@contextlib.contextmanager
def chrt_of(pid: int) -> Iterator[Callable[[], str]]:
    """Asks chrt(1) about `pid`, from a process that was there before: who has a deadline cannot fork."""
    process = subprocess.Popen(["sh", "-c", f"read go; exec chrt -p {pid}"], stdin=-1, stdout=-1, text=True)
    try:
        yield lambda: process.communicate("\n", timeout=DEADLINE)[0]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_deadlines_that_cannot_be() -> None:
    assert apart(lambda: refused(lambda: schedule("SCHED_DEADLINE", runtime=5, deadline=3, period=4)))[0] == (
        errno.EINVAL
    )


def test_a_policy_takes_a_right() -> None:
    def act() -> tuple[int, str]:
        set_capabilities([], [], [], [])
        set_rlimits([("RLIMIT_RTPRIO", 0, 0), ("RLIMIT_NICE", 0, 0)])
        return refused(lambda: schedule("SCHED_FIFO", priority=1))

    number, text = apart(act)
    assert number == errno.EPERM and "it takes CAP_SYS_NICE" in text


@pytest.mark.parametrize("policy", ["SCHED_NONSENSE", "FIFO", "", "SCHED_", "IOPRIO_CLASS_RT", "SchedAttr"])
def test_no_policy(policy: str) -> None:
    with pytest.raises(ValueError, match="is no policy that is known here; write it as SCHED_…"):
        schedule(policy)


def test_no_flag() -> None:
    with pytest.raises(ValueError, match='"SCHED_FLAG_ALL" is no flag'):
        schedule("SCHED_OTHER", flags=["SCHED_FLAG_ALL"])


# I/O priority


@pytest.mark.parametrize(
    ("kind", "level", "shown"),
    [
        ("IOPRIO_CLASS_BE", 0, "best-effort: prio 0"),
        ("IOPRIO_CLASS_BE", 7, "best-effort: prio 7"),
        ("IOPRIO_CLASS_RT", 3, "realtime: prio 3"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
        ("IOPRIO_CLASS_IDLE", 4, "idle"),
    ],
)
def test_io_priorities_as_ionice_has_them(kind: str, level: int, shown: str) -> None:
    def act() -> tuple[int, str]:
        set_io_priority(kind, level)
        return ioprio_get(IOPRIO_WHO_PROCESS, 0) >> IOPRIO_CLASS_SHIFT, said("ionice")

    assert apart(act) == (["NONE", "RT", "BE", "IDLE"].index(kind.rpartition("_")[2]), shown)


def test_the_io_priorities_that_are_root_s() -> None:
    def act() -> int:
        set_capabilities([], [], [], [])
        return refused(lambda: set_io_priority("IOPRIO_CLASS_RT", 0))[0]

    assert apart(act) == errno.EPERM


@pytest.mark.parametrize(("kind", "level"), [("IOPRIO_CLASS_BE", 8), ("IOPRIO_CLASS_BE", -1), ("BE", 1), ("", 1), ("IOPRIO_CLASS_SHIFTY", 1)])  # fmt: skip
def test_no_io_priority(kind: str, level: int) -> None:
    with pytest.raises(ValueError):
        set_io_priority(kind, level)


# Memory of which nodes


@pytest.mark.parametrize(
    ("mode", "nodes", "flags", "shown"),
    [
        ("MPOL_DEFAULT", "", [], "default"),
        ("MPOL_BIND", "0", [], "bind:0"),
        ("MPOL_BIND", "0", ["MPOL_F_STATIC_NODES"], "bind=static:0"),
        ("MPOL_INTERLEAVE", "0", ["MPOL_F_RELATIVE_NODES"], "interleave=relative:0"),
        ("MPOL_PREFERRED", "0", [], "prefer:0"),
        ("MPOL_PREFERRED_MANY", "0", [], "prefer (many):0"),
        ("MPOL_LOCAL", "", [], "local"),
        ("MPOL_PREFERRED", "", [], "local"),
    ],
)
def test_memory_policies_as_numa_maps_has_them(mode: str, nodes: str, flags: list[str], shown: str) -> None:
    def act() -> set[str]:
        set_memory_policy(mode, nodes, flags)
        lines = Path("/proc/self/numa_maps").read_text().splitlines()
        return {" ".join(line.split(" ")[1:]).removesuffix("\n") for line in lines}

    assert all(line == shown or line.startswith(f"{shown} ") for line in apart(act))


def test_memory_policies_that_cannot_be() -> None:
    def act() -> list[tuple[int, str]]:
        return [
            refused(lambda: set_memory_policy("MPOL_BIND", "1000")),
            refused(lambda: set_memory_policy("MPOL_BIND")),
            refused(lambda: set_memory_policy("MPOL_DEFAULT", "0")),
        ]

    found = apart(act)
    assert [number for number, _ in found] == [errno.EINVAL] * 3
    assert found[0][1].startswith('MPOL_BIND of the nodes "1000": ')


@pytest.mark.parametrize(
    ("mode", "nodes", "flags"),
    [("MPOL_NONE", "0", []), ("MPOL_F_STATIC_NODES0", "0", []), ("MPOL_BIND", "1024", []), ("MPOL_BIND", "a", []), ("MPOL_BIND", "0", ["STATIC"])],
)  # fmt: skip
def test_no_memory_policy(mode: str, nodes: str, flags: list[str]) -> None:
    with pytest.raises(ValueError):
        set_memory_policy(mode, nodes, flags)


# Processors


def test_processors() -> None:
    there = sorted(os.sched_getaffinity(0))

    def act() -> list[set[int]]:
        found = []
        for cpus in (str(there[0]), f"{there[0]}-{there[-1]}", f"{there[-1]},8191"):
            set_affinity(cpus)
            found.append(os.sched_getaffinity(0))
        return found

    one, all_of_them, last = apart(act)
    assert (one, all_of_them, last) == ({there[0]}, {*there}, {there[-1]})


def test_the_processors_of_another() -> None:
    first = min(os.sched_getaffinity(0))
    with sleeping() as pid:
        set_affinity(str(first), pid)
        assert os.sched_getaffinity(pid) == {first}


def test_processors_that_there_are_not() -> None:
    number, text = apart(lambda: refused(lambda: set_affinity("8000-8191")))
    assert number == errno.EINVAL
    assert text.endswith(f"there are {', '.join(map(str, sorted(os.sched_getaffinity(0))))}")


@pytest.mark.parametrize(
    "cpus",
    ["", ",", "a", "-1", "1-", "3-2", "0-4000000000", "99999999999999999999", "٣", "0,,1", " 0", "8192", "0-1-2"],
)
def test_no_list(cpus: str) -> None:
    with pytest.raises(ValueError, match=r"cannot understand|is empty"):
        set_affinity(cpus)


# Personality


def test_personality() -> None:
    def act() -> list[object]:
        found: list[object] = [refused(lambda: set_personality("LINUX32"))[0], personality(ASK), said("uname", "-m")]
        set_personality("LINUX")
        return [*found, personality(ASK), said("uname", "-m")]

    error, persona, machine, after, machine_after = apart(act)
    if error == 0:
        assert (persona, machine) == (8, {"x86_64": "i686", "aarch64": "armv8l"}[MACHINE])
    else:
        assert (error, MACHINE) == (errno.EINVAL, "aarch64")  # one that cannot run 32-bit programs
    assert (after, machine_after) == (0, MACHINE)


@pytest.mark.parametrize(
    ("domain", "flags"), [("LINUX64", []), ("", []), ("PER_LINUX", []), ("LINUX", ["ADDR_NO_RANDOMIZE"])]
)
def test_no_personality(domain: str, flags: list[str]) -> None:
    with pytest.raises(ValueError):
        set_personality(domain, flags)
