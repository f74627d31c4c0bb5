"""Lab 08, the cgroup and the time namespace: what `cgroup.hide_cgroup_path` and `time.offset_clocks` let be seen."""

from __future__ import annotations

import secrets

from labs.grading.checks import Wrong, check
from labs.grading.observed_views import Reading, clock_offsets, clocks, group_paths
from labs.grading.subject import Performed, Subject
from minicontainer.linux import Namespace

SLEEP = ["sleep", "600"]
GIGA = 10**9
SIMPLE = (Namespace.MOUNT, Namespace.PID)
"""What a container has beside the namespace in question, so that one exercise is not judged by the other."""


# hide_cgroup_path


@check("The container has a cgroup namespace of its own", exercise="cgroup.hide_cgroup_path", points=1)
def test_own_cgroup_namespace(subject: Subject) -> None:
    """cgroup_namespaces(7), unshare(2); compare: readlink /proc/self/ns/cgroup, outside and inside"""
    container = subject.start(SLEEP, namespaces=[*SIMPLE, Namespace.CGROUP])
    inside, outside = container.namespace("cgroup"), subject.sandbox.namespace("cgroup")
    subject.saw(f"container {inside}, the process that started it {outside}")
    if inside == outside:
        raise Wrong(
            f"the container's cgroup namespace is that of the process that started it, {outside}: "
            f"unshare(CLONE_NEWCGROUP) was not called, so /proc/self/cgroup tells where on the host it is"
        )


@check("Its own control group looks like the top, and it is still in it", exercise="cgroup.hide_cgroup_path", points=2)
def test_its_group_is_the_top(subject: Subject) -> None:
    """cgroup_namespaces(7); /proc/PID/cgroup, read inside and outside"""
    if not subject.has_groups:
        process = subject.perform("cgroup.hide_cgroup_path")
        subject.saw("no control groups can be made by this user, so only the namespace was looked at")
        if process.namespace("cgroup") == subject.sandbox.namespace("cgroup"):
            raise Wrong("the process is in the cgroup namespace that it began in: what it sees has not changed")
        return
    group = subject.group("pids", "memory")
    process = subject.perform("group.enter_group", {"group": group.name}, 0)
    before = group_paths(process)
    process.then("cgroup.hide_cgroup_path")
    after = group_paths(process)
    inside = {controller: process.pid in group.processes(controller) for controller in ("pids", "memory")}
    shown = [tree for tree, path in before.items() if group.name in path]
    subject.saw(
        f"in {group.name}; it read {before[shown[0]] if shown else before}, and after hide_cgroup_path() "
        f"{', '.join(sorted({after.get(tree, 'nothing') for tree in shown}))}; still in it: {inside}"
    )
    if out := [controller for controller, there in inside.items() if not there]:
        raise Wrong(
            f"the process is not in its {' and '.join(out)} group any more: it was moved to another one, whose path looks "
            f"better, and has lost its limits with that. Its group stays; what is new is where it seems to be"
        )
    if process.namespace("cgroup") == subject.sandbox.namespace("cgroup"):
        raise Wrong(
            f"the process still reads {before[shown[0]]} in /proc/self/cgroup: it is in the cgroup namespace that it "
            f"began in, and that one's root is further up"
        )
    if wrong := [after[tree] for tree in shown if after[tree] != "/"]:
        raise Wrong(f'the process reads {wrong[0]} where "/" was to be: the namespace\'s root is another group')


@check("Nothing else about the process changes", exercise="cgroup.hide_cgroup_path", points=1)
def test_nothing_but_the_cgroup_namespace(subject: Subject) -> None:
    """unshare(2): one flag for each kind of namespace"""
    _nothing_else(subject, subject.perform("cgroup.hide_cgroup_path"), Namespace.CGROUP)


# offset_clocks


@check("The process itself is in a time namespace of its own", exercise="time.offset_clocks", points=2)
def test_own_time_namespace(subject: Subject) -> None:
    """time_namespaces(7): time and time_for_children in /proc/PID/ns; setns(2)"""
    process = subject.perform("time.offset_clocks", 0, 0)
    outside, now, later = (
        subject.sandbox.namespace("time"),
        process.namespace("time"),
        process.namespace("time_for_children"),
    )
    subject.saw(f"before: {outside}; the process: {now}; its children: {later}")
    if now == outside == later:
        raise Wrong(
            f"neither the process nor its children have a time namespace of their own: it is {outside}, as before. Also "
            f"with no offsets one was to be made: others may be joined to it"
        )
    if now == outside:
        raise Wrong(
            f"the process is in {now}, as before, and only its children will be in {later}: unshare(CLONE_NEWTIME) does not "
            f"move its caller. Offsets can be set as long as nobody is in; then somebody has to go in"
        )
    if now != later:
        raise Wrong(
            f"the process is in {now}, and its children will be in {later}: two namespaces where one was asked for"
        )


@check("Both clocks are moved, each by its own offset", exercise="time.offset_clocks", points=2)
def test_offsets(subject: Subject) -> None:
    """time_namespaces(7): /proc/PID/timens_offsets; clock_gettime(2)"""
    monotonic, boottime = (86400 * (1 + secrets.randbelow(300)) + secrets.randbelow(86400) for _ in range(2))
    namespaces = [*SIMPLE, Namespace.TIME]
    container = subject.start(SLEEP, namespaces=namespaces, clock_offsets=[monotonic, boottime]).program
    found = clocks(container)
    told = {name: round((clock.inside - clock.before) / GIGA) for name, clock in found.items()}
    subject.saw(f"asked for monotonic {monotonic} s, boottime {boottime} s; the container's clocks are ahead by {told}")
    if container.namespace("time") == subject.sandbox.namespace("time"):
        raise Wrong("the container's clocks are those of the host: it is in the time namespace of whoever started it")
    right = {"monotonic": monotonic, "boottime": boottime}
    if wrong := {name: seconds for name, seconds in right.items() if not found[name].is_ahead_by(seconds * GIGA)}:
        swapped = all(
            found[name].is_ahead_by(seconds * GIGA)
            for name, seconds in zip(right, reversed(right.values()), strict=True)
        )
        name = next(iter(wrong))
        raise Wrong(
            f'the clock "{name}" was to be {right[name]} s ahead of the host\'s and is {told[name]} s ahead'
            + _mistake(found[name], right[name], swapped)
        )


@check("Backwards too, and to the nanosecond", exercise="time.offset_clocks", points=1)
def test_backwards(subject: Subject) -> None:
    """time_namespaces(7): the format of timens_offsets, a clock, seconds, nanoseconds"""
    nanoseconds, behind = secrets.randbelow(GIGA), 1 + secrets.randbelow(9)
    process = subject.perform("time.offset_clocks", -behind, 3600, nanoseconds, GIGA - 1)
    offsets = clock_offsets(process)
    wanted = {"monotonic": (-behind, nanoseconds), "boottime": (3600, GIGA - 1)}
    subject.saw(f"asked for {wanted}; the kernel has {offsets}")
    if process.namespace("time") == subject.sandbox.namespace("time"):
        raise Wrong("the process is in the time namespace that it began in: whatever was written is not for its clocks")
    for name, offset in wanted.items():
        if offsets.get(name) != offset:
            raise Wrong(
                f'the clock "{name}" was to be moved by {offset[0]} s and {offset[1]} ns, and is moved by '
                f"{offsets.get(name)}: the seconds are the first number of a line, the nanoseconds the second"
            )


@check("The time of day stays, and nothing else changes", exercise="time.offset_clocks", points=1)
def test_nothing_but_the_time_namespace(subject: Subject) -> None:
    """time_namespaces(7): CLOCK_REALTIME is nobody's own; unshare(2)"""
    process = subject.perform("time.offset_clocks", 7200, 7200)
    subject.saw(f"the time of day inside is ours: {clocks(process)['realtime'].is_ahead_by(0)}")
    _nothing_else(subject, process, Namespace.TIME)


# What the checks are made of


def _nothing_else(subject: Subject, process: Performed, own: Namespace) -> None:
    others = [kind.proc_name for kind in Namespace if kind is not own and kind.supported]
    others += [kind for kind in ("pid_for_children", "time_for_children") if kind[:-13] in others]
    changed = [kind for kind in others if process.namespace(kind) != subject.sandbox.namespace(kind)]
    subject.saw(f"other namespaces that are new: {', '.join(changed) or 'none'}")
    if process.namespace(own) == subject.sandbox.namespace(own):
        raise Wrong(f"not even the {own.proc_name} namespace has changed: that no other has is no merit then")
    if changed:
        raise Wrong(
            f"besides its {own.proc_name} namespace, the process has left its namespaces of the kind {', '.join(changed)}: "
            f"unshare() was given more than one flag; each step of a container makes its own namespace"
        )


def _mistake(clock: Reading, seconds: int, swapped: bool) -> str:
    """Which mistake makes a clock so, if that can be told."""
    if swapped:
        return ": the two clocks have each other's offset"
    if clock.is_ahead_by(0):
        return ": no offset was written for it. Each clock has a line of its own, and one that has none stays at 0"
    if clock.is_ahead_by(-seconds * GIGA):
        return ", so behind: an offset says by how much the clock inside is ahead"
    return ": what is written has to be the offset, in seconds, and not a time"
