"""How a container is born: the whole order, from its specification to execve(2), in the processes where each step
happens.

Three processes take part:

    the caller          outside. It knows the host, and does what needs the host's rights.
      └─ init           process 1 of the container. Changes itself, namespace by namespace, from inside.
           └─ program   what the container is for. (Without a reaper, init itself becomes it.)

The caller and init talk over a channel. What goes wrong in init or in the program travels back over it with the name of
the step, the system call and the errno, and is raised in the caller as StartError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable, Sequence

from minicontainer.linux import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    PR_SET_PDEATHSIG,
    Namespace,
    prctl,
    set_title,
)
from minicontainer.record import Record
from minicontainer.runtime import limits, program, terminal
from minicontainer.runtime.channel import Channel
from minicontainer.runtime.errors import Interrupted, StartError
from minicontainer.runtime.failure import describe, explain
from minicontainer.runtime.program import SIGNALS, Stdio
from minicontainer.runtime.spec import Directory, Mount, Overlay, Spec
from minicontainer.steps import Steps
from minicontainer.steps.group import Group

_BIRTHRIGHT = (Namespace.USER, Namespace.PID)
"""The namespaces that one is born into; the others can be entered later."""

_INSIDE = (
    "become_root enter_group leave_keys hide_cgroup_path bring_up_loopback private_queues set_names offset_clocks "
    "make_private take stack attach mount_proc_and_dev bind mount_cgroups pivot reap"
).split()
"""The steps that init may take."""


class Running(Record):
    """A container whose program has been started. Whoever has it must wait for it."""

    pid: int
    """Of init, as the caller sees it."""
    pidfd: int
    console: int | None = None
    """The master side of the program's terminal, where it has one."""
    group: Group | None = None
    """Its control group, where it has one."""

    def wait(self) -> int:
        """Wait until the container has ended, and return its exit status (128 + n: killed by signal n)."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def start(spec: Spec, steps: Steps, stdio: Stdio = (0, 1, 2), interrupts: int | None = None) -> Running:
    """Start the container and return as soon as its program runs. The caller must have a single thread.

    `interrupts` is a signalfd(2): a signal that arrives there while we wait ends the birth.

    Raises StartError or Interrupted; nothing is left of the container then.
    """
    privileged = os.geteuid() == 0
    sources, pid, pidfd = list[int](), 0, -1
    group: Group | None = None
    caller, in_init = os.getpid(), False

    def main() -> int:
        nonlocal in_init
        in_init = True
        return _init(spec, steps, group.part(1) if group else None, theirs, ours, sources, stdio)

    for name in _INSIDE:
        getattr(steps, name)  # imported out here, once for all containers, and as long as the host's files can be seen
    ours, theirs = Channel.pair(files=spec.process.terminal)
    try:
        # Outside: what only we may look at, and the control group, before there is anything to put in.
        if privileged:
            sources = _take(spec.mounts, steps)
        group = _group(spec, steps)

        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # init's from its first moment: it shall lose none
        try:
            kinds = [kind for kind in _BIRTHRIGHT if kind in spec.namespaces]
            born, is_in = _spawn(main, kinds, group, steps)
        finally:
            if (
                in_init or os.getpid() != caller
            ):  # somebody's spawn_init that comes back in the child as well; there must not be two of us
                os._exit(125)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        pid = _child(born)
        pidfd = os.pidfd_open(pid)  # a child that is not waited for: the number is surely its own
        theirs.close()

        # Init waits. We say who its users are, and put it into its group as far as only we may, in a v2 tree.
        if Namespace.USER in spec.namespaces:
            steps.write_maps(pid, spec.uid_mappings, spec.gid_mappings)
        if group and group.unified and not is_in:
            steps.enter_group(group.part(2), pid)
        console = _accompany(ours, interrupts)
        return Running(pid, pidfd, console, group)
    except BaseException as error:
        theirs.close()  # an init that still waits for our word reads end-of-file, and ends
        _put_down(pid, pidfd)
        with contextlib.suppress(Exception):  # somebody's own may fail too; what went wrong first is what is told
            if group:
                steps.remove_group(group)
        if isinstance(error, StartError | Interrupted | KeyboardInterrupt):
            raise
        raise explain(describe(error)) from None
    finally:
        ours.close()
        for source in sources:
            os.close(source)


def _group(spec: Spec, steps: Steps) -> Group | None:
    """The control group that the container will be put into, with its limits; None, where it needs and gets none."""
    needed = spec.limits.needed()
    if not needed and not spec.controllers:
        return None
    group = steps.create_group(spec.group or spec.id, needed, spec.controllers)
    try:
        limits.apply(spec.limits, group, steps)
        for inside, outside, _ in spec.uid_mappings:
            if inside == 0 and Namespace.USER in spec.namespaces and os.geteuid() == 0:
                steps.delegate_group(group, outside, spec.gid_mappings[0][1])
    except BaseException:
        steps.remove_group(group)
        raise
    return group if group.places else None


def _spawn(main: Callable[[], int], kinds: list[Namespace], group: Group | None, steps: Steps) -> tuple[object, bool]:
    """Let the step make init; returns its pid, and whether it was born into its group in the v2 tree.

    That is one call instead of two, and no moment in between. Where a student has written one of these steps, it is
    two: their spawn_init need not know of groups, and their enter_group is to be seen at work.
    """
    ours = steps.spawn_init is Steps.spawn_init and steps.enter_group is Steps.enter_group
    if group and group.unified and ours:
        place = os.open(group.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return steps.spawn_init(main, kinds, place), True
        finally:
            os.close(place)
    return steps.spawn_init(main, kinds), False


def _accompany(channel: Channel, interrupts: int | None) -> int | None:
    """Give init the word to begin, and listen until the program has been started; returns the terminal's master."""
    console, started, ready = None, False, False
    with contextlib.suppress(BrokenPipeError):  # an init that is dead already is seen below
        channel.send("go")
    poll = select.poll()
    for fd in (channel, interrupts):
        if fd is not None:
            poll.register(fd, select.POLLIN)
    try:
        while True:
            readable = {fd for fd, _ in poll.poll()}
            if interrupts in readable and channel.fileno() not in readable and not started:
                if (number := os.read(interrupts, 128)[0]) != signal.SIGWINCH:  # the terminal's size is copied later
                    raise Interrupted(number)
                continue
            word, details = channel.receive()
            if word == "error":
                raise explain(details)
            if word == "console":
                console = channel.receive_file()
            if not word:  # end-of-file: the program has replaced init's copy of us, or init is dead
                break
            if word in ("starting", "ready") and not started:
                started = True  # from here on, a signal is meant for the program: it stays where it is until we return
                if interrupts is not None:
                    poll.unregister(interrupts)
            ready = ready or word == "ready"
        if not ready:
            raise StartError("the container's process 1 ended before it had started the program", errno=errno.ECHILD)
        return console
    except BaseException:
        if console is not None:
            os.close(console)
        raise


def _init(
    spec: Spec, steps: Steps, group: Group | None, channel: Channel, callers: Channel, sources: list[int], stdio: Stdio
) -> int:
    """Process 1. Returns the exit status of the container (or never, where the program takes its place)."""
    try:
        # Here: our own PID namespace, and our own user namespace if there is to be one, in which we are nobody yet.
        callers.close()
        set_title("minicontainer init")
        os.setsid()  # a ^C in the caller's terminal is the caller's affair
        if channel.receive()[0] != "go":
            return 125  # the caller is gone: nobody wants this container
        if Namespace.USER in spec.namespaces:
            steps.become_root()
        if spec.die_with_parent:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        # Root of whatever user namespace we are in. Into our group, before a cgroup namespace shows where we are:
        if group and group.places:
            steps.enter_group(group, 0)

        # What is one call each:
        steps.leave_keys()
        if Namespace.CGROUP in spec.namespaces:
            steps.hide_cgroup_path()
        if Namespace.NETWORK in spec.namespaces:
            steps.bring_up_loopback()
        if Namespace.IPC in spec.namespaces:
            steps.private_queues()
        if Namespace.UTS in spec.namespaces:
            steps.set_names(spec.hostname, spec.domainname)
        if Namespace.TIME in spec.namespaces:
            steps.offset_clocks(*spec.clock_offsets)

        # Still the host's tree of mounts. From here on our own, in which we build the container's root:
        steps.make_private()
        sources = sources or _take(spec.mounts, steps)  # without the host's rights it can be done only now
        root = _root(spec, steps)
        steps.mount_proc_and_dev(root)
        _mount(spec.mounts, root, steps, sources)

        # The last sight of the host.
        steps.pivot(root)

        # Every namespace is the container's now. What is left of the caller are open files and the signal mask.
        console = terminal.allocate(spec.process.console_size) if spec.process.terminal else None
        if console:
            channel.send("console")
            channel.send_file(console.master)
            os.close(console.master)
        program.arrange(spec.process, console, stdio, channel)
        channel.send("starting")
        if spec.reaper:
            child = program.spawn(spec.process, console)
            channel.send("ready")
            program.keep_nothing()
            return steps.reap(child)
        channel.send("ready")
        program.become(spec.process, console)
    except BaseException as error:  # SystemExit too: what a step does must reach the caller, or it waits for nothing
        message = describe(error)
        channel.send("error", message)
        return int(message["exit_code"])
    return 125  # never reached: become() does not return


def _root(spec: Spec, steps: Steps) -> str:
    """Put the root file system in its place, in our own mount namespace only; returns the place."""
    match spec.root:
        case Directory(path):
            return path
        case Overlay(lowers, upper, work, merged):
            steps.stack(lowers, upper, work, merged)
            return merged
        case scratch:
            steps.attach(scratch.path, "/", "tmpfs", "root", data=f"mode=755,size={scratch.size}")
            return scratch.path


def _take(mounts: Sequence[Mount], steps: Steps) -> list[int]:
    """One for each bind mount, in their order: where a source is wanted at two places, it is taken twice."""
    taken: list[int] = []
    try:
        for mount in mounts:
            if mount.type == "bind":
                taken.append(steps.take(mount.source))
    except BaseException:
        for source in taken:
            os.close(source)
        raise
    return taken


def _mount(mounts: Sequence[Mount], root: str, steps: Steps, sources: list[int]) -> None:
    taken = iter(sources)
    for mount in mounts:
        if mount.type == "bind":
            steps.bind(next(taken), root, mount.destination, mount.readonly)
        elif mount.type == "cgroup":
            steps.mount_cgroups(root, mount.destination, mount.readonly)
        else:
            flags = MS_NOSUID | MS_NODEV | MS_NOEXEC if mount.type != "tmpfs" else MS_NOSUID | MS_NODEV
            flags |= MS_RDONLY if mount.readonly else 0
            steps.attach(root, mount.destination, mount.type, mount.source or mount.type, flags, mount.data)


def _child(pid: object) -> int:
    """`pid`, after a look whether it is a child of ours: another's might be killed by mistake."""
    if isinstance(pid, int) and pid > 0:
        with contextlib.suppress(ChildProcessError, OverflowError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return pid
    raise StartError(f"pid.spawn_init returned {pid!r}, which is not the pid of a child of its caller")


def _put_down(pid: int, pidfd: int) -> None:
    """Kill an init that is not to live, and wait for it."""
    if pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if pidfd >= 0:
        os.close(pidfd)
