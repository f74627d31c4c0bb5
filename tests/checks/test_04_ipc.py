"""Lab 04, the IPC namespace: what the kernel says of shared memory and queues after `ipc.private_queues`."""

from __future__ import annotations

from labs.grading.checks import Wrong, check
from labs.grading.observed import Observed
from labs.grading.observed_ipc import left_in, queue, segment, segments
from labs.grading.subject import Subject
from minicontainer.linux import Namespace

SLEEP = ["sleep", "600"]
ORDINARY: tuple[str, list[list[str]]] = ("capabilities.drop_capabilities", [[], [], [], [], []])


@check("The container has an IPC namespace of its own", exercise="ipc.private_queues", points=3)
def test_own_namespace(subject: Subject) -> None:
    """ipc_namespaces(7), unshare(2); compare: readlink /proc/self/ns/ipc, outside and inside"""
    container = _container(subject)
    inside, outside = container.namespace("ipc"), subject.sandbox.namespace("ipc")
    subject.saw(f"container {inside}, the process that started it {outside}")
    if inside == outside:
        raise Wrong(
            f"the container's IPC namespace is that of the process that started it, {outside}: the process that was to "
            f"leave it is in it still. unshare() was not called with the flag of this kind of namespace, or was called "
            f"in another process, or what it did was undone"
        )


@check("Shared memory of System V does not reach across", exercise="ipc.private_queues", points=2)
def test_segments(subject: Subject) -> None:
    """sysvipc(7), shmget(2); compare: cat /proc/sysvipc/shm, outside and inside"""
    container = _container(subject)
    with left_in(subject.sandbox) as ours, left_in(container) as theirs:
        inward, outward = segment(container, ours), segment(subject.sandbox, theirs)
        kept = segment(subject.sandbox, ours) == ours.words and segment(container, theirs) == theirs.words
        number = segments(container)
        subject.saw(
            f"a segment made outside, key {ours.key:#x}: inside, {_told(inward)}; one made inside, key {theirs.key:#x}: "
            f"outside, {_told(outward)}; segments inside: {number}"
        )
    if inward is not None or outward is not None:
        way = "made outside can be read inside" if inward is not None else "made inside can be read outside"
        raise Wrong(
            f"a segment of shared memory that was {way}, by nothing but its key: both look it up in the same table, that "
            f"of {subject.sandbox.namespace('ipc')}"
        )
    _see_that_they_are_apart(subject, container, kept)
    if number != 1:
        raise Wrong(
            f"{number - 1} segments are in the new namespace that nobody but your code can have put there: it has to "
            f"begin empty. (A new UTS namespace is a copy of the old one; a new IPC namespace is not, on purpose)"
        )


@check("Message queues of POSIX do not reach across", exercise="ipc.private_queues", points=2)
def test_queues(subject: Subject) -> None:
    """mq_overview(7), and there "Mounting the message queue filesystem"; ls /dev/mqueue, outside and inside"""
    container = _container(subject)
    with left_in(subject.sandbox) as ours, left_in(container) as theirs:
        inward, outward = queue(container, ours), queue(subject.sandbox, theirs)
        kept = queue(subject.sandbox, ours) == ours.words and queue(container, theirs) == theirs.words
        listed = container.listdir("/dev/mqueue")
        subject.saw(
            f"the queue /{ours.queue} made outside: inside, {_told(inward)}; /{theirs.queue} made inside: outside, "
            f"{_told(outward)}; /dev/mqueue in the container: {', '.join(listed) or 'empty'}"
        )
    if inward is not None or outward is not None:
        way = "made outside can be opened inside" if inward is not None else "made inside can be opened outside"
        raise Wrong(
            f"a message queue that was {way}, by nothing but its name: these names are in no directory that a mount could "
            f"hide, they are in {subject.sandbox.namespace('ipc')}, where both processes are"
        )
    _see_that_they_are_apart(subject, container, kept)
    if ours.queue in listed:
        raise Wrong(
            f"/dev/mqueue in the container lists /{ours.queue}, a queue of those outside: a mqueue file system shows the "
            f"namespace in which it was mounted, and this one was mounted before the process was in its own"
        )
    if extra := [name for name in listed if name != theirs.queue]:
        raise Wrong(f"queues are in the new namespace that nobody but your code can have put there: {', '.join(extra)}")


@check("Those outside keep what is theirs", exercise="ipc.private_queues", points=1)
def test_outside_keeps_its_own(subject: Subject) -> None:
    """ipcs(1), ipcrm(1); the objects stay with the namespace that was left"""
    with left_in(subject.sandbox) as ours:
        process = subject.perform("ipc.private_queues")
        memory, message = segment(subject.sandbox, ours), queue(subject.sandbox, ours)
        subject.saw(f"outside, afterwards: the segment, {_told(memory)}; the queue, {_told(message)}")
    if memory != ours.words or message != ours.words:
        what = "segment of shared memory" if memory != ours.words else "message queue"
        raise Wrong(
            f"a {what} of somebody else's, outside, is gone or was changed when your function was called: a process that "
            f"wants to be alone leaves, it does not clear the house. Nothing has to be removed"
        )
    if process.namespace("ipc") == subject.sandbox.namespace("ipc"):
        raise Wrong(
            "the process has not left the IPC namespace: that those who stay in it kept theirs is no merit then"
        )


@check("When the kernel refuses, the caller hears of it", exercise="ipc.private_queues", points=1)
def test_refused(subject: Subject) -> None:
    """unshare(2), ERRORS: EPERM; capabilities(7): CAP_SYS_ADMIN"""
    allowed = subject.perform("ipc.private_queues")
    if allowed.namespace("ipc") == subject.sandbox.namespace("ipc"):
        raise Wrong("it does not even do it when it may, so there is nothing to be refused")
    process = subject.perform([ORDINARY])
    before = process.namespace("ipc"), process.namespace("user")
    try:
        process.then("ipc.private_queues")
    except Wrong as told:
        subject.saw(f"without any capability: {told}")
        if "EPERM" not in str(told) and "not permitted" not in str(told):
            raise Wrong(
                f"the process had no capabilities, and what your function raised is not the kernel's EPERM: {told}"
            ) from None
        return
    after = process.namespace("ipc"), process.namespace("user")
    subject.saw(f"without any capability: nothing was raised; before {' '.join(before)}, after {' '.join(after)}")
    if after != before:
        raise Wrong(
            f"the process had no capabilities, and got its namespace by making a new user namespace, {after[1]}: who the "
            f"container's root is, is not this step's to decide"
        )
    raise Wrong(
        f"the process had no capabilities, so the kernel has refused (EPERM), and your function returned as if all were "
        f"well: a container would be running in {before[0]}, the host's, and nobody would know. Let the OSError go on to "
        f"the caller"
    )


@check("Nothing else about the process changes", exercise="ipc.private_queues", points=1)
def test_nothing_else(subject: Subject) -> None:
    """unshare(2): one flag for each kind of namespace; namespaces(7)"""
    process = subject.perform("ipc.private_queues")
    others = [kind.proc_name for kind in Namespace if kind is not Namespace.IPC and kind.supported]
    others += [kind for kind in ("pid_for_children", "time_for_children") if kind[:-13] in others]
    changed = [kind for kind in others if _link(process, kind) != subject.sandbox.namespace(kind)]
    mounts = len(process.mountinfo()) - len(subject.perform("os.getpid").mountinfo())
    subject.saw(f"other namespaces that are new: {', '.join(changed) or 'none'}; new mounts: {mounts}")
    if changed:
        raise Wrong(
            f"the process has left its namespaces of the kind {', '.join(changed)}: unshare() was given another flag than "
            f"CLONE_NEWIPC, or more than that; each step of a container makes its own namespace"
        )
    if process.namespace("ipc") == subject.sandbox.namespace("ipc"):
        raise Wrong("not even the IPC namespace has changed: that no other has is no merit then")


def _container(subject: Subject) -> Observed:
    """A container with the submission's step. Raises Wrong: it cannot be started, and why."""
    try:
        return subject.start(SLEEP)
    except Wrong:
        user = subject.perform("ipc.private_queues").namespace("user")
        if user == subject.sandbox.namespace("user"):
            raise
        subject.saw(f"after private_queues() the process is in {user}")
        raise Wrong(
            "no container could be started: your function took its process into a new user namespace (CLONE_NEWUSER), in "
            "which it is nobody, and has no rights over anything that was there before"
        ) from None


def _see_that_they_are_apart(subject: Subject, container: Observed, kept: bool) -> None:
    """That an object is not seen elsewhere says something only if it is there where it was made."""
    if not kept:
        raise Wrong(
            "what was made in a namespace is gone, or was changed, in that same namespace: something that your code has "
            "left running removes what others make there"
        )
    if container.namespace("ipc") == subject.sandbox.namespace("ipc"):
        raise Wrong("both are in the same IPC namespace, so what the one makes is there for the other")


def _link(process: Observed, kind: str) -> str:
    try:
        return process.namespace(kind)
    except FileNotFoundError:  # pid_for_children, of a PID namespace that waits for its process 1
        return ""


def _told(found: str | None) -> str:
    return "not there" if found is None else "there, with what was written in it" if found else "there, and empty"
