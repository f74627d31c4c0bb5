"""Another program in a container that runs: runc exec, lxc-attach, docker exec.

It joins what process 1 is in: first the control group, so that it is held to the limits from its first moment, then
every namespace at once, by a pidfd. For the PID namespace that is not enough; one has to be born into it:

    the caller        outside.
      ├─ joiner       joins, bears the program's process as its own sibling, and is gone.
      └─ program      in all of the container's namespaces; confined as process 1 was, and then executed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence

from minicontainer.linux import CLONE_PARENT, Namespace, clone3, set_title, signal
from minicontainer.record import Record
from minicontainer.runtime import confinement, program, terminal
from minicontainer.runtime.birth import Running, compiled_filter, hand_over
from minicontainer.runtime.bundle import load_process
from minicontainer.runtime.channel import Channel
from minicontainer.runtime.containers import Containers, send_master
from minicontainer.runtime.errors import Refusal, StartError
from minicontainer.runtime.failure import describe, explain
from minicontainer.runtime.program import SIGNALS, Stdio
from minicontainer.runtime.spec import CapabilitySets, Process, Spec, User
from minicontainer.steps import Steps
from minicontainer.steps.group import Group


class Wishes(Record):
    """What the program is to be, where it shall not be as process 1 is."""

    args: Sequence[str] = ()
    process: str | None = None
    """A file with the whole `process` of a configuration, in place of everything else."""
    cwd: str | None = None
    env: Sequence[str] = ()
    """Beside the container's own."""
    terminal: bool = False
    user: str | None = None
    """``uid`` or ``uid:gid``."""
    additional_gids: Sequence[int] = ()
    capabilities: Sequence[str] = ()
    """Beside the container's own."""
    no_new_privileges: bool | None = None
    apparmor: str | None = None
    label: str | None = None
    preserve_fds: int = 0
    groups: Sequence[str] = ()
    """Groups below the container's own: ``web``, or of some controllers only, ``memory:web``, ``cpu,cpuacct:web``."""
    ignore_paused: bool = False


def enter(
    containers: Containers,
    container_id: str,
    wishes: Wishes,
    stdio: Stdio = (0, 1, 2),
    console_socket: str | None = None,
) -> Running:
    """Start a program in a container that is created or runs; returns when it runs. Whoever has it must wait for it.

    Raises Refusal (stopped, paused), BundleError (a wish that cannot be), StartError.
    """
    known = containers.known(container_id)
    status = containers.status(known)
    if status == "paused" and not wishes.ignore_paused:
        raise Refusal("cannot exec in a paused container (use --ignore-paused to override)")
    if status not in ("created", "running", "paused"):
        raise Refusal(f"cannot exec in container {container_id}: container not running (it is {status})")
    spec = containers.configuration(known)
    process = _process(spec, wishes)
    group = _inner(containers.group(known), wishes.groups)
    running = start_in(known.pid, process, spec, containers.steps, group, stdio)
    if running.console is not None and console_socket:
        send_master(console_socket, running.console)
    return running


def start_in(
    pid: int,
    process: Process,
    spec: Spec,
    steps: Steps,
    group: Group | None,
    stdio: Stdio,
    *,
    alone: bool = False,
    only: Sequence[Namespace] | None = None,
) -> Running:
    """Start `process` in the namespaces of process `pid`, in `group`, confined by `spec`. Raises StartError.

    `only`: in these of them, and otherwise in ours; the users' is always one, for it says what we may in the others.
    `alone`: it is to be a child of process 1 of those namespaces, and ours is only one that ends at once.
    """
    kinds = [kind for kind in Namespace if kind.supported and kind.link(pid) != kind.link()]
    kinds = [kind for kind in kinds if only is None or kind in only or kind is Namespace.USER]
    filter = compiled_filter(spec, process)
    for name in (*confinement.INSIDE, "join", "enter_group", "become_root"):
        getattr(steps, name)  # imported as long as the host's files are in sight
    if spec.landlock:
        _ = steps.restrict_paths
    ours, theirs = Channel.pair(files=process.terminal or bool(spec.seccomp))
    said, say = os.pipe2(os.O_CLOEXEC)
    child, pidfd = 0, -1
    try:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        joiner = clone3(0)
        if joiner == 0:
            _join(pid, kinds, process, steps, group, spec, theirs, stdio, filter, say, alone)  # does not return
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        os.close(say)
        with open(said, "rb", buffering=0) as answer:
            text = answer.read() or b""
        os.waitpid(joiner, 0)
        if not text.isdigit():
            word, details = ours.receive()
            raise explain(details) if word == "error" else StartError("the process that was to join was killed")
        child = int(text)
        pidfd = os.pidfd_open(child)
        return Running(child, pidfd, _listen(ours, spec, child, pid), group)
    except BaseException as error:
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if pidfd >= 0:
            os.close(pidfd)
        if isinstance(error, StartError):
            raise
        raise explain(describe(error)) from None
    finally:
        ours.close()


def _listen(channel: Channel, spec: Spec, pid: int, one: int) -> int | None:
    """Until the program has replaced its process; returns the terminal's master. Raises StartError."""
    console, ready = None, False
    while True:
        word, details = channel.receive()
        if word == "error":
            raise explain(details)
        if word == "console":
            console = channel.receive_file()
        if word == "listener":
            hand_over(channel.receive_file(), spec, pid, spec.state("running", one))
        if word == "ready":
            ready = True
        if not word:
            break
    if not ready:
        raise StartError("the process ended before it had become the program", errno=errno.ECHILD)
    return console


def _join(
    pid: int,
    kinds: Sequence[Namespace],
    process: Process,
    steps: Steps,
    group: Group | None,
    spec: Spec,
    channel: Channel,
    stdio: Stdio,
    filter: tuple[bytes, int] | None,
    say: int,
    alone: bool,
) -> None:
    """The joiner, and in it the program's process. Neither returns."""
    status = 125
    try:
        set_title("minicontainer exec")
        before, afterwards = process.exec_cpu_affinity
        if before:
            steps.set_affinity(before)
        if group and group.places:
            steps.enter_group(group)
        if afterwards:
            steps.set_affinity(afterwards)
        confinement.tune(process, spec, steps)
        # In there are processes of the same users: none of them shall look into us, who have files of the host's open
        steps.hide_process()
        if kinds:
            steps.join(pid, kinds)
        child = clone3(CLONE_PARENT)
        if child:
            os.write(say, b"%d" % child)
            status = 0
            return
        os.close(say)
        if alone and clone3(0):
            status = 0
            return
        if Namespace.USER in kinds:
            steps.become_root()
        os.setsid()
        console = terminal.allocate(process.console_size) if process.terminal else None
        if console:
            channel.send("console")
            channel.send_file(console.master)
            os.close(console.master)
        stub = program.arrange(process, console, stdio, [channel], steps)
        process = confinement.with_home(process)
        last, listener = confinement.confine(process, steps, filter, spec.landlock)
        if listener is not None:
            channel.send("listener")
            channel.send_file(listener)
            os.close(listener)
        if last:
            last()
        channel.send("ready")
        program.become(process, console, channel, stub)
    except BaseException as error:
        message = describe(error)
        channel.send("error", message)
        status = int(message["exit_code"])
    finally:
        os._exit(status)


def _process(spec: Spec, wishes: Wishes) -> Process:
    """The container's own process with the wishes laid over it."""
    if wishes.process is not None:
        process, _ = load_process(wishes.process)
        return process.replace(preserve_fds=_preserved(wishes))
    own = spec.process
    user = own.user
    if wishes.user:
        uid, _, gid = wishes.user.partition(":")
        if not uid.isdecimal() or not (gid or "0").isdecimal():
            raise Refusal(f'--user {wishes.user}: write it in numbers, as in "1000:100"')
        user = User(uid=int(uid), gid=int(gid or 0))
    if wishes.additional_gids:
        user = user.replace(additional_gids=(*user.additional_gids, *wishes.additional_gids))
    sets = own.capabilities
    if wishes.capabilities:
        before = sets or CapabilitySets()
        more = tuple(wishes.capabilities)
        sets = before.replace(
            **{name: (*getattr(before, name), *more) for name in ("bounding", "effective", "permitted")}
        )
    return own.replace(
        args=wishes.args,
        cwd=wishes.cwd or own.cwd,
        env=(*own.env, *wishes.env),
        terminal=wishes.terminal,
        user=user,
        capabilities=sets,
        no_new_privileges=own.no_new_privileges if wishes.no_new_privileges is None else wishes.no_new_privileges,
        apparmor_profile=wishes.apparmor or own.apparmor_profile,
        selinux_label=wishes.label or own.selinux_label,
        preserve_fds=_preserved(wishes),
    )


def _preserved(wishes: Wishes) -> tuple[int, ...]:
    return tuple(range(3, 3 + wishes.preserve_fds))


def _inner(own: Group, paths: Sequence[str]) -> Group:
    """The groups below the container's own that --cgroup names, the last word counting. Raises Refusal."""
    places = dict(own.places)
    for path in paths:
        controllers, colon, inner = path.partition(":")
        wanted, inner = (controllers.split(","), inner) if colon else (list(own.places), path)
        for one in wanted:
            if one not in own:
                raise Refusal(f"--cgroup {path}: unknown controller {one}")
        if ".." in inner.split("/"):
            raise Refusal(f"--cgroup {path}: {inner} is not a sub cgroup path")
        for name in wanted:
            version, directory = own.places[name]
            directory = os.path.normpath(f"{directory}/{inner}")
            if not os.path.isdir(directory):
                raise Refusal(
                    f"--cgroup {path}: adding pid {os.getpid()} to cgroups {directory}/cgroup.procs: no such file or "
                    f"directory"
                )
            places[name] = version, directory
    return Group(own.name, places)
