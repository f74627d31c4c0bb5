"""Control groups: what they add to a warm start, from start to exit; in Python, and in C that makes the same calls.

In each round every kind of container is started with each side, and what is shown is the difference to the one without
a group; all have a PID namespace and nothing else, whose cost would only blur it. *Joining* is what it takes to put
init into a group that is there already: on v1 a write(2) into a file of each tree, on v2 nothing after clone3(2) with
CLONE_INTO_CGROUP. *A group of its own* is made before, joined, and removed when the container has ended.

Moving a process into another group takes a lock against everybody's fork(2) and exit(2) (cgroup_threadgroup_rwsem). It
is cheap for some 10 ms after somebody took it; *at rest*, when nobody has, the first write waits for an RCU grace
period, in C as in any other language. That is spared a process that enters by itself, as init does. The other rows
are measured just after the lock was taken.

Believe it only from a quiet machine: on a busy one the differences came out negative, and a goal that such a figure
"reaches" is not reached. Why is not known; perhaps a container with a cpu group of its own competes better.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks import calls
from benchmarks.calls import PRECAUTION
from benchmarks.measure import Driven, Goal, Report, Series, take_turns
from benchmarks.warm_start import compile_start
from minicontainer.linux import Namespace
from minicontainer.linux.cgroups import hierarchies, hierarchy_of
from minicontainer.record import Record
from minicontainer.runtime.birth import start
from minicontainer.runtime.limits import EVERYDAY, Limits
from minicontainer.runtime.spec import Directory, Process, Spec
from minicontainer.steps import Steps
from minicontainer.steps.group import Group, create_group, enter_group, find_group, remove_group

ROUNDS = 80
JOINED = ("cpu", "memory", "pids")
LIMITS = Limits(memory=64 << 20, cpus=0.5, pids=20)
NO_GROUP = "no group"


class Kind(Record):
    """A container, as to its control group."""

    limits: Limits
    controllers: Sequence[str] = ()
    there: bool = False
    """The group is there already, and stays."""
    at_rest: bool = False
    """No process has changed its group for a while."""


JOIN, AT_REST, BORN = "joining cpu, memory, pids", "joining cpu, memory, pids, at rest", "born into a v2 group"
KINDS = {
    JOIN: Kind(Limits(), JOINED, there=True),
    AT_REST: Kind(Limits(), JOINED, there=True, at_rest=True),
    BORN: Kind(Limits(), ("perf_event",), there=True),
    "a group of its own, cpu, memory, pids limited": Kind(LIMITS),
    "a group of its own, as every container has": Kind(PRECAUTION, EVERYDAY),
}


def measure(rounds: int = ROUNDS) -> Report:
    """All kinds and both sides in turns. Raises SystemExit: not root, or no C compiler."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: groups makes control groups: run it as root")
    missing = _missing()
    kinds = [name for name in KINDS if name not in missing]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, contextlib.ExitStack() as kept:
        program = compile_start(Path(directory))
        own = f"benchmark-{os.getpid()}"
        stir = kept.enter_context(_group_with_somebody(f"{own}-0", ("cpu", "perf_event")))
        files = []
        for number, name in enumerate(kinds, 1):
            kind, group = KINDS[name], None
            if kind.there:
                group, _ = kept.enter_context(_group_with_somebody(f"{own}-{number}", kind.controllers))
            made = calls.of_a_group(kind.limits, kind.controllers, group)
            files.append(str(calls.write(made, Path(directory, f"calls-{number}"))))
        python = kept.enter_context(Driven([sys.executable, "-m", "benchmarks.groups", own, *kinds]))
        c = kept.enter_context(Driven([str(program), "", directory, "", *files]))
        subjects: dict[str, Callable[[], float]] = {}
        for number, name in enumerate([NO_GROUP, *kinds]):
            for side, program_of in (("C", c), ("Python", python)):
                at_rest = name in KINDS and KINDS[name].at_rest
                subjects[f"{name}: {side}"] = partial(
                    _after_rest, None if at_rest else stir, partial(program_of, number)
                )
        taken = {series.name: series for series in take_turns(subjects, rounds)}
    bare = {side: taken[f"{NO_GROUP}: {side}"] for side in ("C", "Python")}
    added = [
        Series(f"{name}: {side}", _differences(taken[f"{name}: {side}"], bare[side])) for name in kinds for side in bare
    ]
    most = {JOIN: 150.0 if _version() == 1 else 50.0, AT_REST: 150.0 if _version() == 1 else 50.0, BORN: 50.0}
    goals = [Goal(f"{name}: Python", limit) for name, limit in most.items() if name in kinds]
    if not goals:
        raise SystemExit(f"benchmarks: groups: {'; '.join(missing.values())}")
    note = f"Without a group: {bare['Python'].median:.2f} ms in Python, {bare['C'].median:.2f} ms in C."
    if any(series.median < 0 for series in added):
        note += " Some differences are negative: noise, and no goal is reached by them."
    return Report(
        "groups",
        "Control groups: what they add to a warm start",
        "µs",
        added,
        goals[0],
        missing,
        [note],
        goals[1:],
    )


@contextlib.contextmanager
def _group_with_somebody(name: str, controllers: Sequence[str]) -> Iterator[tuple[Group, int]]:
    """A group, and the pid of a process that waits in it: an empty group, somebody's `system repair` would remove."""
    group, pid = create_group(name, (), controllers), calls.somebody()
    try:
        enter_group(group, pid)
        yield group, pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        remove_group(group)


def _after_rest(stir: tuple[Group, int] | None, measured: Callable[[], float]) -> float:
    """Measure when the kernel has finished with the group before, which it buries later; if `stir`, a group and a
    process that is in it already, just after the lock that moving a process takes was taken."""
    time.sleep(0.05)
    if stir:
        enter_group(*stir)
    return measured()


def _differences(series: Series, bare: Series) -> list[float]:
    """In µs, round by round."""
    return [(one - other) * 1000 for one, other in zip(series.samples, bare.samples, strict=True)]


def _version() -> int:
    tree = hierarchy_of("memory")
    return tree.version if tree else 0


def _missing() -> dict[str, str]:
    """The kinds that cannot be had here, and why."""
    trees, missing = hierarchies(), dict[str, str]()
    for name, kind in KINDS.items():
        for controller in (*kind.limits.needed(), *(kind.controllers if kind.there else ())):
            if hierarchy_of(controller, trees) is None:
                missing[name] = f"there is no {controller} controller here"
    if BORN not in missing and all(tree.version == 1 for tree in trees):
        missing[BORN] = "there is no v2 tree here"
    return missing


def drive(own: str, kinds: Sequence[str]) -> None:
    """The Python side: for every line on standard input a container of the kind whose number it says; 0 is no group."""
    nothing = lambda *_: None  # noqa: E731
    steps = Steps(leave_keys=nothing, make_private=nothing, mount_proc_and_dev=nothing, pivot=nothing)
    bare = Spec(own, Directory("/"), Process(["/bin/true"]), hostname="", namespaces=frozenset([Namespace.PID]))
    ways = [(bare, steps, False)]
    for number, kind in enumerate(kinds, 1):
        spec = bare.replace(group=f"{own}-{number}", limits=KINDS[kind].limits, controllers=KINDS[kind].controllers)
        group = find_group(f"{own}-{number}")
        found = steps.replace(create_group=lambda *_, group=group: group)
        ways.append((spec, found if KINDS[kind].there else steps, KINDS[kind].there))
    for line in sys.stdin:
        spec, chosen, there = ways[int(line)]
        begin = time.perf_counter()
        running = start(spec, chosen, (None, None, None))
        status = running.wait()
        if running.group and not there:
            steps.count_oom_kills(running.group)
            steps.remove_group(running.group)
        taken = (time.perf_counter() - begin) * 1000
        os.close(running.pidfd)
        if status != 0:
            raise SystemExit(f"benchmarks: the container ended with status {status}")
        print(f"{taken:.4f}", flush=True)


if __name__ == "__main__":
    drive(sys.argv[1], sys.argv[2:])
