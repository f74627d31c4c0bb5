"""How a container is born: the whole order, from its specification to execve(2), in the processes where each step
happens.

Three processes take part:

    the caller          outside. It knows the host, and does what needs the host's rights.
      └─ init           process 1 of the container. Changes itself, namespace by namespace, from inside.
           └─ program   what the container is for. (Without a reaper, init itself becomes it.)

The caller and init talk over a channel. What goes wrong in init or in the program travels back over it with the name of
the step, the system call and the errno, and is raised in the caller as StartError.

With a `gate`, a named pipe, the birth has a pause in it: the caller's part ends when all is ready, and init waits until
somebody, who may be another process, opens the gate; from then on it talks to that one.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
from collections.abc import Callable, Mapping

from minicontainer.linux import PR_SET_PDEATHSIG, Namespace, close_all_but, prctl, set_title, signal
from minicontainer.record import Record
from minicontainer.runtime import confinement, limits, program, rootfs, terminal
from minicontainer.runtime.channel import Channel, Gate
from minicontainer.runtime.confinement import SECCOMP_FILTER_FLAG_NEW_LISTENER
from minicontainer.runtime.errors import Interrupted, StartError
from minicontainer.runtime.failure import describe, explain
from minicontainer.runtime.hooks import run_hooks
from minicontainer.runtime.program import SIGNALS, Stdio
from minicontainer.runtime.spec import Process, Spec
from minicontainer.steps import Steps
from minicontainer.steps.group import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.runtime.keeping import Keeper

Connect = Callable[[int, Steps], None]
"""Connects the network namespace of the process with this pid to others."""

_BIRTHRIGHT = (Namespace.USER, Namespace.PID)
"""The namespaces that one is born into; the others can be entered later."""

_INSIDE = (
    "become_root enter_group leave_keys hide_cgroup_path bring_up_loopback private_queues set_names offset_clocks "
    "make_private pick_up stack attach mount_proc_and_dev bind mount_cgroups pivot show_console reap"
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


def start(
    spec: Spec,
    steps: Steps,
    stdio: Stdio = (0, 1, 2),
    interrupts: int | None = None,
    gate: str | None = None,
    born: Callable[[int, Group | None], None] | None = None,
    keeper: Keeper | None = None,
    connect: Connect | None = None,
) -> Running:
    """Start the container and return as soon as its program runs. The caller must have a single thread.

    `interrupts` is a signalfd(2): a signal that arrives there while we wait ends the birth. `gate` is a named pipe at
    which init shall wait: then we return when it does. `born` is told the pid and the group of init, before init does
    anything. `keeper` is for a container that nobody will stay with (and that has `reaper`): the files are init's.
    `connect` is told init's pid as soon as it has a network namespace of its own, with a loopback only, and connects
    it, while init goes on building; the program does not start before that.

    Raises StartError or Interrupted; nothing is left of the container then.
    """
    privileged = os.geteuid() == 0
    sources, pid, pidfd = list[int](), 0, -1
    group: Group | None = None
    own: Group | None = None
    caller, in_init = os.getpid(), False

    def main() -> int:
        nonlocal in_init
        in_init = True
        return _Init(spec, steps, own, theirs, stdio, gate, filter, keeper, connect is not None).main(ours, sources)

    _look_ahead(spec, steps)
    collects = gc.isenabled()
    ours, theirs = Channel.pair(files=spec.process.terminal or bool(spec.seccomp))
    try:
        gc.disable()  # it would write to every object, and what we and init have in common would be copied for that
        # Outside: what only we may look at, and the control group, before there is anything to put in.
        filter = compiled_filter(spec, spec.process)
        if privileged:
            sources = rootfs.take_sources(spec, steps)
        group = _group(spec, steps)
        own = group.part(1) if group else None

        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # init's from its first moment: it shall lose none
        try:
            kinds = [kind for kind in _BIRTHRIGHT if kind in spec.namespaces]
            born_as, is_in = _spawn(main, kinds, group, spec, steps)
        finally:
            if (
                in_init or os.getpid() != caller
            ):  # somebody's spawn_init that comes back in the child as well; there must not be two of us
                os._exit(125)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        pid = _child(born_as)
        pidfd = os.pidfd_open(pid)  # a child that is not waited for: the number is surely its own
        theirs.close()

        # Init waits. We say who its users are, and put it into its group as far as only we may, in a v2 tree.
        if Namespace.USER in spec.namespaces:
            steps.write_maps(pid, spec.uid_mappings, spec.gid_mappings)
        if spec.process.oom_score_adj is not None and _has_users(spec):
            steps.set_oom_score(spec.process.oom_score_adj, pid)  # only the host's root may make it less likely
        if group and group.unified and not is_in:
            steps.enter_group(group.part(2), pid)
        if born:
            born(pid, group)
        connection = (lambda: connect(pid, steps)) if connect else int
        console = _accompany(ours, interrupts, spec, pid, connection, waits=gate is not None)
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
        if collects:
            gc.enable()
        ours.close()
        for source in sources:
            os.close(source)


def _has_users(spec: Spec) -> bool:
    """Whether it is in another user namespace than we are."""
    return Namespace.USER in spec.namespaces or Namespace.USER in dict(spec.joined)


def _look_ahead(spec: Spec, steps: Steps) -> None:
    """Import, out here and once for all containers, what init will call: in there the host's files are out of reach."""
    for name in _INSIDE:
        getattr(steps, name)
    for name in (*rootfs.covers(spec), *confinement.INSIDE):
        getattr(steps, name)
    if spec.landlock:
        _ = steps.restrict_paths
    if any(spec.hooks.asdict().values()):
        import subprocess  # noqa: F401


def compiled_filter(spec: Spec, process: Process) -> tuple[bytes, int] | None:
    """The filter of system calls, as machine code, and the flags to load it with."""
    if not spec.seccomp:
        return spec.filter
    from minicontainer.steps.seccomp import compile_filter, filter_flags

    _refuse_to_ask_about_ourselves(spec.seccomp)
    held = process.capabilities.bounding if process.capabilities else ()
    listens = SECCOMP_FILTER_FLAG_NEW_LISTENER if spec.seccomp.get("listenerPath") else 0  # also when nothing is asked
    return compile_filter(spec.seccomp, held), filter_flags(spec.seccomp) | listens


def _refuse_to_ask_about_ourselves(profile: Mapping[str, Any]) -> None:
    """What hands the listener over must not have to wait for who gets it: write(2) and sendmsg(2)."""
    notify = "SCMP_ACT_NOTIFY"
    if profile.get("defaultAction") == notify:
        raise StartError(
            f"linux.seccomp: {notify} cannot be used as default action: the container would wait for itself"
        )
    for call in profile.get("syscalls") or ():
        for name in ("write", "sendmsg"):
            if call["action"] == notify and name in call["names"]:
                raise StartError(
                    f"linux.seccomp: {notify} cannot be used for the {name} syscall: it hands over the listener"
                )


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


def _spawn(
    main: Callable[[], int], kinds: list[Namespace], group: Group | None, spec: Spec, steps: Steps
) -> tuple[object, bool]:
    """Let the step make init; returns its pid, and whether it was born into its group in the v2 tree.

    That is one call instead of two, and no moment in between. Where a student has written one of these steps, it is
    two: their spawn_init need not know of groups, and their enter_group is to be seen at work.
    """
    if spec.joined:
        return steps.spawn_joined(main, kinds, dict(spec.joined)), False
    ours = steps.spawn_init is Steps.spawn_init and steps.enter_group is Steps.enter_group
    if group and group.unified and ours:
        place = os.open(group.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return steps.spawn_init(main, kinds, place), True
        finally:
            os.close(place)
    return steps.spawn_init(main, kinds), False


def _accompany(
    channel: Channel, interrupts: int | None, spec: Spec, pid: int, connect: Callable[[], object], waits: bool
) -> int | None:
    """Give init the word to begin, and listen until the program has been started, or `waits` at the gate.

    Returns the terminal's master, where there is one.
    """
    console, started, ready = None, False, False
    with contextlib.suppress(ConnectionError):  # an init that is dead already is seen below
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
            if word == "listener":
                hand_over(channel.receive_file(), spec, pid)
            if word == "networked":
                try:
                    connect()
                except Exception:  # the container may be gone, and has said why
                    if select.select([channel], [], [], 0)[0] and (said := channel.receive())[0] == "error":
                        raise explain(said[1]) from None
                    raise
                with contextlib.suppress(ConnectionError):  # what went wrong in there meanwhile is heard next
                    channel.send("connected")
            if word == "built":
                run_hooks("prestart", spec.hooks.prestart, spec.state("created", pid))  # what these were always told
                run_hooks("createRuntime", spec.hooks.create_runtime, spec.state("creating", pid))
                channel.send("go")
            if not word:  # end-of-file: the program has replaced init's copy of us, or init is dead
                break
            if word in ("starting", "ready") and not started:
                started = True  # from here on, a signal is meant for the program: it stays where it is until we return
                if interrupts is not None:
                    poll.unregister(interrupts)
            ready = ready or word == ("waiting" if waits else "ready")
        if not ready:
            raise StartError("the container's process 1 ended before it had started the program", errno=errno.ECHILD)
        return console
    except BaseException:
        if console is not None:
            os.close(console)
        raise


def hand_over(listener: int, spec: Spec, pid: int, state: dict[str, Any] | None = None) -> None:
    """Give the listener of a filter with SCMP_ACT_NOTIFY to the agent that the configuration names.

    `pid` is whom the filter is for, `state` that of the container; without it, `pid` is its process 1, being made.
    """
    import json
    import socket

    path = str((spec.seccomp or {}).get("listenerPath", ""))
    message = {
        "ociVersion": "1.2.0",
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": (spec.seccomp or {}).get("listenerMetadata", ""),
        "state": state or spec.state("creating", pid),
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.connect(path)
            socket.send_fds(line, [json.dumps(message).encode()], [listener])
    except OSError as error:
        raise StartError(f"failed to connect with seccomp agent {path}: {error.strerror or error}") from None
    finally:
        os.close(listener)


class _Init:
    """Process 1."""

    def __init__(
        self,
        spec: Spec,
        steps: Steps,
        group: Group | None,
        channel: Channel,
        stdio: Stdio,
        gate: str | None,
        filter: tuple[bytes, int] | None,
        keeper: Keeper | None,
        connected: bool,
    ) -> None:
        self.keeper = keeper
        self._connected = connected
        """Whether the caller connects our network namespace, and we have not heard yet that it has."""
        self.spec, self.steps, self.group, self.stdio, self.filter = spec, steps, group, stdio, filter
        self.line: Channel | Gate = channel
        """To whoever is to be told what goes wrong: the caller; beyond the gate, whoever has opened it."""
        self._channel, self._gate = channel, gate

    def main(self, callers: Channel, sources: list[int]) -> int:
        """Returns the exit status of the container (or never, where the program takes its place)."""
        try:
            # Here: our own PID namespace, and our own user namespace if there is to be one, where we are nobody yet.
            callers.close()
            set_title("minicontainer init")
            os.setsid()  # a ^C in the caller's terminal is the caller's affair
            if self._channel.receive()[0] != "go":
                return 125  # the caller is gone: nobody wants this container
            gate = Gate(self._gate) if self._gate else None  # found by its path as long as the host's are in sight
            self._enter_namespaces()
            self._build(sources)
            return self._begin(gate)
        except BaseException as error:  # SystemExit too: what a step does must reach the caller, who waits
            message = describe(error)
            self.line.send("error", message)
            return int(message["exit_code"])

    def _enter_namespaces(self) -> None:
        spec, steps = self.spec, self.steps
        # As long as we are who has started us: whoever has become somebody else has a /proc/self that is root's.
        if Namespace.TIME in spec.namespaces:
            steps.offset_clocks(*spec.clock_offsets, *(spec.clock_nanoseconds if any(spec.clock_nanoseconds) else ()))
        if _has_users(spec):
            steps.become_root()
        if spec.die_with_parent:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        # Root of whatever user namespace we are in. What the caller is to connect, while we go on, is made first:
        if Namespace.NETWORK in spec.namespaces:
            steps.bring_up_loopback()
        if self._connected:
            self._channel.send("networked")

        # Into our group, before a cgroup namespace shows where we are:
        if self.group and self.group.places:
            steps.enter_group(self.group, 0)

        # What is one call each:
        if spec.new_keyring:
            steps.leave_keys()
        if Namespace.CGROUP in spec.namespaces:
            steps.hide_cgroup_path()
        if Namespace.IPC in spec.namespaces:
            steps.private_queues()
        if Namespace.UTS in spec.namespaces:
            steps.set_names(spec.hostname or os.uname().nodename, spec.domainname or None)

    def _build(self, sources: list[int]) -> None:
        """Still the host's tree of mounts; from here on our own, in which we build the container's root."""
        spec, steps = self.spec, self.steps
        if Namespace.MOUNT in spec.namespaces:
            steps.make_private()
        sources = sources or rootfs.take_sources(spec, steps)  # without the host's rights only now
        root = rootfs.show_root(spec, steps, sources)
        rootfs.furnish(spec, root, steps, sources)

        if any(spec.hooks.asdict().values()):
            self._await_connection()
            self._channel.send("built")
            if self._channel.receive()[0] != "go":
                raise StartError("the caller ended while its hooks ran")
            os.chdir(root)
            run_hooks("createContainer", spec.hooks.create_container, spec.state("creating", os.getpid()))
        confinement.set_sysctls(spec, steps)
        process = spec.process.replace(oom_score_adj=None) if _has_users(spec) else spec.process
        confinement.tune(process, spec, steps)

        # The last sight of the host.
        rootfs.enter(spec, root, steps)

    def _await_connection(self) -> None:
        """Nothing of the container's runs before its network is there."""
        if self._connected and self._channel.receive()[0] != "connected":
            raise StartError("the caller ended while it connected the network")
        self._connected = False

    def _begin(self, gate: Gate | None) -> int:
        """Every namespace is the container's. What is left of the caller are open files, rights, the signal mask."""
        spec, steps, channel, process = self.spec, self.steps, self._channel, self.spec.process
        console = terminal.allocate(process.console_size) if process.terminal else None
        if console:
            steps.show_console(console.slave)
        if console and self.keeper:
            self.keeper.take(console.master)
        elif console:
            channel.send("console")
            channel.send_file(console.master)
            os.close(console.master)
        rootfs.cover(spec, steps)
        if not spec.default_filesystems:
            process = confinement.with_home(process)
        stub = program.arrange(
            process, console, self.stdio, [line for line in (channel, gate, self.keeper) if line], steps
        )
        if gate:
            # It may wait for long, and others may look at it: nothing of the caller's stays open but what was given.
            close_all_but([*range(3 + len(process.preserve_fds)), stub, channel.fileno(), *gate.held])
        self._await_connection()
        channel.send("starting")
        last, listener = confinement.confine(process, steps, self.filter, spec.landlock)
        if listener is not None:
            channel.send("listener")
            channel.send_file(listener)
            os.close(listener)
        if gate:
            channel.send("waiting")
            channel.close()
            gate.wait()
            self.line = gate
        if not process.args:
            raise StartError("config.json has no process: there is nothing to start")
        if last:
            last()  # as late as can be; but a hook that runs inside is held to it as the program is
        run_hooks("startContainer", spec.hooks.start_container, spec.state("created", os.getpid()), stub)
        if self.keeper:
            self.keeper.prepare()
            child = program.spawn(process, console, self.line, stub)
            self.keeper.started()
            with contextlib.suppress(ConnectionError):  # the caller may be gone: it is not needed any more
                self.line.send("ready")
            program.keep_nothing(self.keeper.begin())
            status = steps.reap(child)
            self.keeper.ended(status)
            return status
        if spec.reaper:
            child = program.spawn(process, console, self.line, stub)
            self.line.send("ready")
            program.keep_nothing()
            return steps.reap(child)
        self.line.send("ready")
        program.become(process, console, self.line, stub)
        return 125  # never reached: become() does not return


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
