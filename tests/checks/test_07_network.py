"""Lab 07, the network namespace and setns: what the kernel says of `network.bring_up_loopback` and `network.join`.

Sockets are the examiner's: one is made in a namespace by whoever has gone there, and stays there.
"""

from __future__ import annotations

import errno
import secrets
import socket

from labs.grading.checks import Wrong, check
from labs.grading.observed_network import Enter, exchange, visiting
from labs.grading.subject import Performed, Subject
from minicontainer.linux import CLONE_NEWNET, IFF_UP, Namespace, interface_flags

SLEEP = ["sleep", "600"]
SANDBOX = 1
"""Of the line NSpid: the first is our own number for a process, the next the sandbox's, the last its container's."""
EVERY = [kind for kind in Namespace if kind.supported]


# bring_up_loopback


@check("The container has a network namespace of its own", exercise="network.bring_up_loopback", points=1)
def test_own_namespace(subject: Subject) -> None:
    """network_namespaces(7), unshare(2); compare: readlink /proc/self/ns/net, outside and inside"""
    container = subject.start(SLEEP)
    inside, outside = container.namespace("net"), subject.sandbox.namespace("net")
    subject.saw(f"container {inside}, the process that started it {outside}")
    if inside == outside:
        raise Wrong(
            f"the container's network namespace is that of the process that started it, {outside}: "
            f"unshare(CLONE_NEWNET) was not called, so it has the host's devices, addresses and ports"
        )


@check("A port that is taken outside is free inside", exercise="network.bring_up_loopback", points=1)
def test_own_ports(subject: Subject) -> None:
    """bind(2): EADDRINUSE; ss -tlnp, outside and inside"""
    container, port = subject.start(SLEEP), 1024 + secrets.randbelow(20000)
    outside = subject.sandbox

    def act(enter: Enter) -> int:
        enter(outside)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            enter(container)
            with socket.socket() as inside:
                try:
                    inside.bind(("127.0.0.1", port))
                except OSError as error:
                    return error.errno or errno.EIO
        return 0

    refused = visiting(act)
    subject.saw(f"port {port} of 127.0.0.1, taken outside; inside: {errno.errorcode.get(refused, 'free')}")
    if refused == errno.EADDRINUSE:
        raise Wrong(
            f"a server outside has port {port}, and in the container bind(2) says EADDRINUSE: both have the same ports, "
            f"since both are in the network namespace {container.namespace('net')}"
        )
    if refused:
        raise Wrong(f"in the container, no socket gets port {port} of 127.0.0.1: {errno.errorcode.get(refused)}")


@check("Its loopback is switched on, and carries", exercise="network.bring_up_loopback", points=2)
def test_loopback(subject: Subject) -> None:
    """netdevice(7): IFF_UP; ip link show lo"""
    container, port = subject.start(SLEEP), 1024 + secrets.randbelow(20000)
    if container.namespace("net") == subject.sandbox.namespace("net"):
        raise Wrong("the container has no loopback of its own: it uses that of whoever started it, which was up before")
    up = _loopback_is_up(container)
    subject.saw(f"lo of the container: {'up' if up else 'down'}")
    if not up:
        raise Wrong(
            'the container\'s loopback device, "lo", is switched off, as every device is in a new network namespace: '
            "nobody has set IFF_UP on it after unshare(2), and what a program sends to 127.0.0.1 goes nowhere"
        )
    if not exchange(container, ("127.0.0.1", port), container, ("127.0.0.1", port)):
        raise Wrong(f"the loopback is up, and yet nothing gets from the container to its own 127.0.0.1:{port}")


@check("Nothing else changes, and nothing outside", exercise="network.bring_up_loopback", points=1)
def test_nothing_else(subject: Subject) -> None:
    """unshare(2): one flag for each kind of namespace; network_namespaces(7)"""
    outside = subject.perform([("linux.unshare", [CLONE_NEWNET])])  # a world whose loopback is still off
    process = subject.perform(
        [
            ("linux.pidfd_open", [_pid(outside)]),
            ("linux.setns", [{"result": 0}, CLONE_NEWNET]),
            ("os.close", [{"result": 0}]),
        ]
    )
    if process.namespace("net") != outside.namespace("net"):
        raise Wrong("linux.setns was replaced: there is no world to leave")
    process.then("network.bring_up_loopback")
    changed = _changed(process, subject, Namespace.NETWORK)
    left = _loopback_is_up(outside)
    subject.saw(
        f"other namespaces that are new: {', '.join(changed) or 'none'}; lo of the one it left: {'up' if left else 'down'}"
    )
    if process.namespace("net") == outside.namespace("net"):
        raise Wrong("not even the network namespace has changed: that no other has is no merit then")
    if changed:
        raise Wrong(
            f"besides its network namespace, the process has left its namespaces of the kind {', '.join(changed)}: "
            f"unshare() was given more flags than CLONE_NEWNET; each step of a container makes its own namespace"
        )
    if left:
        raise Wrong(
            "the loopback of the namespace that the process has left was off, and is on now: the device was switched on "
            "before unshare(2), so it was the host's, and the container's own is another one"
        )


# join


@check("Whoever joins is in all the namespaces that were asked for", exercise="network.join", points=2)
def test_joined(subject: Subject) -> None:
    """setns(2): fd is a PID file descriptor, nstype the flags, or-ed; compare /proc/PID/ns of the two"""
    kinds = [Namespace.UTS, Namespace.IPC, Namespace.NETWORK, Namespace.CGROUP, Namespace.MOUNT]
    target = _apart(subject, *kinds)
    asked = [Namespace.MOUNT, *(kind for kind in kinds if kind is not Namespace.MOUNT)]
    process = subject.perform("network.join", _pid(target), _kinds(asked))
    there = [kind.proc_name for kind in asked if process.namespace(kind) == target.namespace(kind)]
    subject.saw(
        f"asked for {', '.join(kind.proc_name for kind in asked)}; the same as the other's: {', '.join(there) or 'none'}"
    )
    if not there:
        here = ", ".join(kind.proc_name for kind in asked if process.namespace(kind) == subject.sandbox.namespace(kind))
        raise Wrong(
            f"the process has joined none of the namespaces of process {_pid(target)}"
            + (
                f"; it is still in those that it began in ({here}): setns(2) was not called, or for another process"
                if here
                else ""
            )
        )
    if missing := [kind.proc_name for kind in asked if kind.proc_name not in there]:
        raise Wrong(
            f"of the namespaces asked for, the process has joined {', '.join(there)}, and is still outside of "
            f"{', '.join(missing)}: each kind has its flag, and setns(2) takes them or-ed"
        )


@check("It joins what was asked for, and nothing more", exercise="network.join", points=1)
def test_no_more(subject: Subject) -> None:
    """nsenter(1): --net alone, for debugging with the host's own programs"""
    target = _apart(subject, Namespace.UTS, Namespace.IPC, Namespace.NETWORK, Namespace.MOUNT)
    process = subject.perform("network.join", _pid(target), _kinds([Namespace.NETWORK]))
    if process.namespace("net") != target.namespace("net"):
        raise Wrong("the network namespace was asked for and not joined: that no other was is no merit then")
    more = _changed(process, subject, Namespace.NETWORK)
    subject.saw(f"asked for net; besides it, it has left its own: {', '.join(more) or 'none'}")
    if more:
        raise Wrong(
            f"only the network namespace was asked for, and the process has left its own of the kind {', '.join(more)} too: "
            f"the argument `namespaces` says which. Who looks at a container's network with the host's tools needs the "
            f"host's mounts"
        )


@check("As exec does: what it starts is a process of the container", exercise="network.join", points=1)
def test_exec(subject: Subject) -> None:
    """setns(2) on CLONE_NEWPID: for children; pid_namespaces(7)"""
    container = subject.start(SLEEP)
    asked = [kind for kind in EVERY if container.namespace(kind) != subject.sandbox.namespace(kind)]
    process = subject.perform("network.join", _pid(container), _kinds(asked))
    process.then("os.posix_spawn", "/bin/sleep", SLEEP, {})
    children = process.children()
    if len(children) != 1:
        raise Wrong("the process that has joined was to start one program, and has not one child")
    [program] = children
    numbers = program.status("NSpid").split()
    apart = [kind.proc_name for kind in asked if program.namespace(kind) != container.namespace(kind)]
    subject.saw(
        f"a program that it starts has the numbers {', '.join(numbers)}; not in the container's: {', '.join(apart) or 'none'}"
    )
    if apart == ["pid"]:
        raise Wrong(
            "what is started after joining is in every namespace of the container but that of its processes: CLONE_NEWPID "
            "was left out of the flags. It does not move the caller, but it does say where children are born"
        )
    if apart:
        raise Wrong(
            f"a program that is started after joining is not in the container's namespaces of the kind {', '.join(apart)}"
        )
    if program.root() != container.root():
        raise Wrong("a program that is started after joining has another root directory than the container's")


@check("No way back is left open", exercise="network.join", points=1)
def test_nothing_open(subject: Subject) -> None:
    """pidfd_open(2): close it; an open namespace keeps its namespace alive. ls -l /proc/PID/fd"""
    target = _apart(subject, Namespace.NETWORK, Namespace.UTS)
    process = subject.perform([("os.getpid", [])])
    before = set(process.open_files())
    process.then("network.join", _pid(target), _kinds([Namespace.NETWORK, Namespace.UTS]))
    if process.namespace("net") != target.namespace("net"):
        raise Wrong("nothing was joined: that nothing was left open is no merit then")
    left = {fd: name for fd, name in process.open_files().items() if fd not in before}
    subject.saw(f"open after it, and not before: {', '.join(left.values()) or 'nothing'}")
    if left:
        raise Wrong(
            f"the process has {', '.join(left.values())} still open: whatever holds a process or a namespace open "
            f"could be used once more, or be handed on. Close it, also when setns() raises"
        )


# What the checks are made of


def _pid(process: Performed) -> int:
    """Its number in the sandbox."""
    return int(process.status("NSpid").split()[SANDBOX])


def _loopback_is_up(process: Performed) -> bool:
    """Whether the device "lo" of its network namespace is switched on."""

    def act(enter: Enter) -> int:
        enter(process)
        return interface_flags("lo") & IFF_UP

    return bool(visiting(act))


def _kinds(kinds: list[Namespace]) -> dict[str, list[str]]:
    """Namespaces as an argument."""
    return {"namespaces": [kind.proc_name for kind in kinds]}


def _apart(subject: Subject, *kinds: Namespace) -> Performed:
    """A process with new namespaces of these kinds, made by the kernel's call alone."""
    process = subject.perform([("linux.unshare", [kind.flag]) for kind in kinds])
    if any(process.namespace(kind) == subject.sandbox.namespace(kind) for kind in kinds):
        raise Wrong("linux.unshare was replaced: there is nobody to join")
    return process


def _changed(process: Performed, subject: Subject, *expected: Namespace) -> list[str]:
    """The kinds of namespaces, but for the expected, that are not the sandbox's own any more; those for children too."""
    others = [kind.proc_name for kind in EVERY if kind not in expected]
    others += [kind for kind in ("pid_for_children", "time_for_children") if kind[:-13] in others]
    return [kind for kind in others if process.namespace(kind) != subject.sandbox.namespace(kind)]
