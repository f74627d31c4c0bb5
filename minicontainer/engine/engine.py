"""The engine: create, start, wait, remove, by name, remembered on disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence

from minicontainer.engine import restarting, rights
from minicontainer.engine.errors import EngineError
from minicontainer.engine.origin import Origin, environment, laid_on, recall, sharing
from minicontainer.engine.store import Check, Config, State, Store
from minicontainer.linux import Namespace, birth_of, in_user_namespace, is_single_threaded, signal, thread_count
from minicontainer.record import Record
from minicontainer.runtime.attach import accompany, put_down
from minicontainer.runtime.birth import Running, start
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.limits import EVERYDAY, Limits
from minicontainer.runtime.program import Stdio
from minicontainer.runtime.spec import Mount, Overlay, Process, Spec
from minicontainer.steps import Steps
from minicontainer.steps.group import Group, find_group, find_groups, remove_empty_groups, remove_group
from minicontainer.steps.user import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes longer to import than a container to start
    from typing import IO, Any

    from minicontainer.engine.committing import Wishes
    from minicontainer.engine.copying import Place
    from minicontainer.engine.events import Event
    from minicontainer.engine.following import Log
    from minicontainer.engine.image_mounts import ImageMount
    from minicontainer.engine.listing import Row
    from minicontainer.engine.making import Making
    from minicontainer.engine.mounting import Wish
    from minicontainer.engine.processes import Process as Inmate
    from minicontainer.engine.resources import Node, Statistics
    from minicontainer.engine.snapshots import Snapshot, Taking
    from minicontainer.engine.volumes import Volumes
    from minicontainer.images.documents import Descriptor, Platform
    from minicontainer.images.images import Image, Images
    from minicontainer.images.references import Reference
    from minicontainer.images.registry import Registry
    from minicontainer.images.transfer import Progress
    from minicontainer.linux.recording import Call, Told
    from minicontainer.network.graph import Graph
    from minicontainer.network.networks import Networks
    from minicontainer.network.store import Endpoint
    from minicontainer.network.wishes import Attachment, Port
    from minicontainer.runtime.birth import Connect
    from minicontainer.runtime.zygote import Zygote


AnyPath = str | os.PathLike[str]

_IN_THE_END = ("count_oom_kills",)
"""The steps that are taken when a container has ended."""


class Result(Record):
    """How a container ended, and (where it was captured) what it wrote."""

    status: int
    stdout: str = ""
    stderr: str = ""
    oom_killed: bool = False
    """Whether the kernel killed one of its processes for want of memory."""
    rebooted: bool = False
    """Its systemd wants to be started again."""


class Container(Record):
    """A running container, for `Engine.started`."""

    id: str
    name: str
    pid: int
    """Of its process 1, as the caller sees it."""


class Engine:
    """Containers under one directory, `root`; with `steps`, somebody's own steps laid over ours.

    `steps` is a notebook, a module or a directory of them (see `minicontainer.steps.loading`). In a process with
    several threads, such as a notebook's kernel, containers are started by a helper process. `explain` is called each
    time that a program was started or could not be, with the system calls by which it was done.
    """

    def __init__(
        self, root: AnyPath | None = None, steps: AnyPath | None = None, *, explain: Told | None = None
    ) -> None:
        self.store = Store(os.path.abspath(root or default_root()))
        self._explain = explain
        self.warn: Callable[[str], object] = str
        """Told, a line each, what will not be as the user may think; whoever wants to hear it sets it."""
        self._steps, self._steps_path = Steps(), None
        if steps:
            from minicontainer.runtime.substitute import load_steps

            self._steps_path = os.path.abspath(steps)
            self._steps = load_steps(self._steps_path)

    # One container, from beginning to end

    def run(
        self,
        image: str,
        args: list[str],
        *,
        stdio: Stdio = (None, 1, 2),
        capture: bool = False,
        interrupts: int | None = None,
        **options: Any,
    ) -> Result:
        """Create a container, start it, wait until it has ended and (unless ``remove=False``) remove it.

        `options` are fields of Config: name, hostname, env, terminal, limits…, and `network`: a single one by its name,
        "bridge", "none", "host". `capture` returns what the program wrote.
        Raises EngineError, StartError, Interrupted; the container is gone then.
        """
        config = self._create(image, args, **{"remove": True, **options})
        try:
            if capture:
                return self._run_captured(config)
            running = self.start(config, stdio, interrupts)
        except BaseException:
            self._remove(config, force=True, volumes=True)
            raise
        return self.stay(config, running, stdio, interrupts)

    @contextlib.contextmanager
    def started(self, image: str, args: list[str], **options: Any) -> Iterator[Container]:
        """A container that runs while the ``with`` block does, to be looked at from outside;

        ended and removed after it.
        """
        config = self._create(image, args, **{"remove": True, **options})
        running = None
        try:
            running = self.start(config, (None, None, None))
            yield Container(config.id, config.name, running.pid)
        finally:
            if running:
                self.end(config, running)
            self._remove(config, force=True)

    def create(self, image: str, args: list[str], **options: Any) -> Config:
        """Remember a new container of this image, ready to be started.

        Raises EngineError (unknown image, name taken).
        """
        config = self._create(image, args, **options)
        self.store.leave(config.id)
        return config

    def _create(self, image: str, args: list[str], **options: Any) -> Config:
        """Likewise, and watch over it from the beginning: nobody else starts it, or takes it for forgotten."""
        self.store.prepare()
        if "network" in options:
            options |= _named_network(options.pop("network"))
        platform, pull = options.pop("platform", ""), options.pop("pull", "missing")
        systemd = options.pop("systemd", "true")
        entrypoint, env = options.pop("entrypoint", None), tuple(options.pop("env", ()))
        name = options.pop("name", None) or ""
        config = Config(id="", name=name, image=image, args=tuple(args), env=env, **options)
        _check(config)
        try:
            if config.rootfs:
                self._directory(config)  # an unknown one is an error of create, not of start
                start = (entrypoint,) if entrypoint else ()
                config = config.replace(args=(*start, *config.args), env=environment(config.env), cwd=config.cwd or "/")
                return self._added(config, systemd)
            with sharing(self.store):  # what the container is going to stand on is not collected meanwhile
                return self._added(laid_on(config, self._origin(image, platform, pull), entrypoint), systemd)
        except OSError as error:
            raise EngineError(f"cannot write below {self.store.root}: {error.strerror}") from None

    def _added(self, config: Config, systemd: str) -> Config:
        if config.health != Check():
            from minicontainer.engine import health

            health.check_wishes(config)
        if not config.args:
            raise EngineError("no command: say what to run in the container, such as: minicontainer run busybox sh")
        if systemd == "always" or (systemd == "true" and _is_init(config.args[0])):
            from minicontainer.engine.systemd import prepared

            config = prepared(config)
        if not (config.mounts or config.image_volumes):
            return self.store.add(_dated(config))
        from minicontainer.engine import mounting

        config = self.store.add(_dated(mounting.wanted(config)))
        try:
            mounting.provide(self.store, config, self._lowers(config), self._steps)
        except BaseException:
            self.store.forget(config, volumes=True)
            raise
        return config

    def start(self, config: Config, stdio: Stdio = (None, 1, 2), interrupts: int | None = None) -> Running:
        """Start a created container;

        returns as soon as its program runs. Raises EngineError, StartError, Interrupted.
        """
        config = self._claim(config)
        restarting.forget_past(self.store, config)
        self.store.set_state(config.id, State("starting"))
        self.store.tell(config, state="STARTING")
        running: Running | None = None
        try:
            connect = self._connection(config)
            with self._explained() as calls:
                if thread_count() == 1:
                    with self._recorded(calls):
                        running = start(self._spec(config), self._steps, stdio, interrupts, connect=connect)
                else:
                    told = calls.extend if self._explain else None
                    running = _zygote().start(self._spec(config), self._steps_path, stdio, connect, told)
                self.store.set_state(config.id, State("running", running.pid, birth_of(running.pid), began=time.time()))
                self.store.tell(config, "start", "RUNNING")
        except BaseException:
            if running:  # the disk is full, or `explain` has failed
                self.end(config, running)
            else:
                self._disconnected(config)
                self.store.tell_failure(config)
                self.store.set_state(config.id, State("created"))
                self.store.leave(config.id)
            raise
        self._keep(config)
        return running

    @contextlib.contextmanager
    def _explained(self) -> Iterator[list[Call]]:
        """At the end of the block, however it ends, `explain` is told what was noted in its list."""
        calls: list[Call] = []
        try:
            yield calls
        finally:
            if self._explain and calls:
                self._explain(calls)

    def _recorded(self, calls: list[Call]) -> contextlib.AbstractContextManager[None]:
        """What is done in the block is noted in `calls`. That cannot fail, so nothing that was started is lost."""
        if self._explain is None:
            return contextlib.nullcontext()
        from minicontainer.linux.recording import recording
        from minicontainer.steps import step_of

        return recording(calls.extend, step_of)

    def run_detached(self, image: str, args: list[str], **options: Any) -> Config:
        """Create a container, start it, and let go of it: it runs on whatever becomes of us.

        Raises EngineError, StartError; the container is gone then. With ``remove=True`` it is removed by whoever looks
        first after it has ended.
        """
        config = self._create(image, args, **options)
        try:
            self.start_detached(config)
        except BaseException:
            self._remove(config, force=True, volumes=True)
            raise
        return config

    def start_detached(self, config: Config, *, again: bool = False, interrupts: int | None = None) -> None:
        """Start a created container, and let go of it; `again`: by its policy.

        Raises EngineError, StartError, Interrupted.
        """
        from minicontainer.engine.detached import leave_alone

        config = self._claim(config)
        if not again:
            restarting.forget_past(self.store, config)
        self.store.set_state(config.id, State("starting", detached=True))
        self.store.tell(config, state="STARTING")
        with self._explained() as calls:
            try:
                connect = self._connection(config)
                with self._recorded(calls):
                    leave_alone(
                        self.store, config, self._spec(config), self._steps, connect, lambda: self._anew(config),
                        interrupts,
                    )  # fmt: skip
            except BaseException:
                self._disconnected(config)
                os.ftruncate(self.store.lock_of(config.id), 0)  # it may say "started": the program was just not found
                self.store.tell_failure(config)
                with contextlib.suppress(OSError):  # a full disk, of which we are about to tell
                    self.store.set_state(config.id, State("created"))
                raise
            finally:
                self.store.leave(config.id)
        self._keep(config)

    def _keep(self, config: Config) -> None:
        """Let the keeper know of a container that is to be restarted or checked."""
        if config.restart or config.health.test:
            from minicontainer.engine import keeper

            if keeper.is_kept(config):
                keeper.keep(self.store, config, self._steps_path)

    def _anew(self, config: Config) -> tuple[Spec, Connect | None]:
        """What a container that has asked for it is started with again."""
        self._disconnected(config)
        connect = self._connection(config)
        return self._spec(config), connect

    def _claim(self, config: Config) -> Config:
        """Become the one that starts it. Returns it on the layers that it lies on by now. Raises EngineError."""
        if self.state(config).status == "running":
            raise EngineError(f'container "{config.name}" runs already; wait for it: minicontainer wait {config.name}')
        if not self.store.attend(config.id):
            return config  # we have made it just now
        self._settle(config)
        config = config.replace(layers=self.store.config(config.id).layers)
        if config.mounts:
            from minicontainer.engine import mounting

            mounting.provide(self.store, config, self._lowers(config), self._steps)
        return config

    def stay(self, config: Config, running: Running, stdio: Stdio, interrupts: int | None = None) -> Result:
        """As `attend`, also while it starts again, as often as it asks for that by reboot(2)."""
        while (result := self.attend(config, running, interrupts)).rebooted:
            running = self.start(config, stdio, interrupts)
        return result

    def attend(self, config: Config, running: Running, interrupts: int | None = None) -> Result:
        """Stay with a container until it has ended, pass signals and its terminal on; then tidy up."""
        try:
            for name in _IN_THE_END:
                getattr(self._steps, name)  # imported now, while the program runs
            accompany(running, interrupts)
        except BaseException:
            put_down(running)
            raise
        finally:
            result = self._tidied_up(config, running)
            if config.remove and not result.rebooted:  # how it ended is told to those who wait, and not written down
                self.store.forget(config, result.status)
            else:
                self._recorded_as_ended(config, result)
        return result

    def end(self, config: Config, running: Running) -> None:
        """Kill a container that we have started, and would have to stay with; what it has written stays."""
        put_down(running)
        self._recorded_as_ended(config, self._tidied_up(config, running))

    def wait(self, config: Config) -> int:
        """Wait until a container, which may be another process's child, has ended, and return its exit status.

        That is: for good. One that is going to be restarted goes on.
        """
        status = self.store.wait(config.id)
        state = self.state(config)
        while restarting.await_restart(self.store, config, state):
            status = self.store.wait(config.id)
            state = self.state(config)
        if status is not None:
            return status
        if state.status == "created":
            raise EngineError(f'container "{config.name}" was not started: minicontainer start {config.name}')
        raise EngineError(f'how container "{config.name}" ended is not known: the process that watched it was killed')

    def remove(self, config: Config, *, force: bool = False, snapshots: bool = False, volumes: bool = False) -> None:
        """Forget a container and its files; `force` kills it first if it runs. Raises EngineError.

        With `volumes`, those that nobody has named go as well. Not the base of clones; and one that has snapshots only
        if they are to go too.
        """
        from minicontainer.engine.snapshots import refuse_base

        refuse_base(self.store, config, snapshots)
        self._remove(config, force, volumes)

    def _remove(self, config: Config, force: bool = False, volumes: bool = False) -> None:
        if force:
            restarting.mark_stopped(self.store, config)
        state = self._steady(config) if force else self.state(config)
        if not force and restarting.is_due(self.store, config, state):
            what_to_do = f"stop it first, or: minicontainer rm -f {config.name}"
            raise EngineError(f'container "{config.name}" is about to be restarted; {what_to_do}', 1)
        if state.pid and (state.status == "running" or (force and state.detached)):
            if not force:
                raise EngineError(
                    f'container "{config.name}" runs; stop it first, or: minicontainer rm -f {config.name}', 1
                )
            self.store.tell(config, "kill", "STOPPING", signal=int(signal.SIGKILL))
            _kill(state.pid, state.started, find_group(config.group))
            self.store.wait(config.id)  # let its watcher write down how it ended
        elif self.store.attended(config.id):
            raise EngineError(f'container "{config.name}" is just being started by another process; wait for that', 1)
        if self.store.state(config.id).status in ("starting", "running"):  # and nobody has tidied up after it
            remove_group(find_group(config.group))
        self._disconnected(config)
        self.store.forget(config, volumes=volumes)
        if config.restart or config.health.test:
            from minicontainer.engine import keeper

            keeper.let_go(self.store, config)

    def send(self, config: Config, number: int) -> None:
        """Send a signal to a running container's program. Raises EngineError."""
        from minicontainer.engine import detached

        state = self._running(config)
        self.store.tell(config, "kill", signal=int(number))
        if number in (signal.SIGKILL, detached.stop_signal(config.stop_signal)):
            restarting.mark_stopped(self.store, config)
            state = self._steady(config)  # it may have begun again just before
            if state.status != "running":  # or has come to its end
                return
        detached.send(config, state, number)
        if number == signal.SIGKILL and self.paused(config):
            self.unpause(config)  # on v1, what is frozen does not even die

    def stop(self, config: Config, seconds: float = 10) -> None:
        """Ask a container to end, and kill it after so many seconds; returns when it has. Nothing, if it has already.

        Raises EngineError.
        """
        from minicontainer.engine import detached

        restarting.mark_stopped(self.store, config)
        state = self._steady(config)
        if state.status != "running":
            return
        self.store.tell(config, "kill", "STOPPING", signal=detached.stop_signal(config.stop_signal))
        if self.paused(config):
            detached.stop(config, state, seconds, lambda: self.unpause(config))
        else:
            detached.stop(config, state, seconds)
        self.store.wait(config.id)
        self.state(config)
        self.store.tell(config, "stop")

    def logs(
        self,
        config: Config,
        *,
        follow: bool = False,
        tail: int | None = None,
        timestamps: bool = False,
        since: float | None = None,
        until: float | None = None,
    ) -> None:
        """Write what a container that nobody stays with has written to our own standard output and error.

        `tail`: its last lines only; `since`, `until`: what was written in that time, in seconds since the epoch.
        Raises EngineError.
        """
        from minicontainer.engine import following

        following.logs(
            self.store, config, self.state(config), follow=follow, tail=tail, timestamps=timestamps, since=since,
            until=until, out=(1, 2),
        )  # fmt: skip

    def attach(self, config: Config, stdin: int | None, interrupts: int | None, leave: bytes) -> Result | None:
        """Stay with a container that was left alone, until it ends. None: we left it again, by the keys `leave`.

        Raises EngineError.
        """
        from minicontainer.engine import following

        with self.store.waiter(config.id) as end:
            state = self._running(config)
            if not state.detached:
                raise EngineError(
                    f'container "{config.name}" is somebody\'s who stays with it: its output goes there', 1
                )
            self.store.tell(config, "attach")
            with following.from_now_on(self.store, config) as log:
                return self._attached(config, state, log, end, stdin, interrupts, leave)

    def start_attached(self, config: Config, interrupts: int, leave: bytes, *, new: bool = False) -> Result | None:
        """Start a created container that has a terminal, and stay with it as `attach` does, so that it can be left.

        Raises EngineError, StartError, Interrupted, OSError; one that is `new` is gone when it could not be started.
        """
        from minicontainer.engine import following

        with contextlib.ExitStack() as stack:
            try:
                os.close(self.store.open_log(config.id))
                end = stack.enter_context(self.store.waiter(config.id))
                log = stack.enter_context(following.from_now_on(self.store, config))
                self.start_detached(config, interrupts=interrupts)
            except BaseException:
                if new:
                    self._remove(config, force=True, volumes=True)
                raise
            return self._attached(config, self.store.state(config.id), log, end, 0, interrupts, leave)

    def run_attached(self, image: str, args: list[str], interrupts: int, leave: bytes, **options: Any) -> Result | None:
        """Create a container and do the same. Raises EngineError, StartError, Interrupted, OSError."""
        return self.start_attached(self._create(image, args, **options), interrupts, leave, new=True)

    def _attached(
        self,
        config: Config,
        state: State | None,
        log: Log,
        end: Callable[[], int | None],
        stdin: int | None,
        interrupts: int | None,
        leave: bytes,
    ) -> Result | None:
        from minicontainer.engine import following

        while state:
            if not following.attach(self.store, config, state, log, stdin=stdin, interrupts=interrupts, leave=leave):
                return None
            state = following.again(lambda: self.state(config)) if config.systemd else None
        status = end()
        return Result(0 if status is None else status, oom_killed=self.state(config).oom_killed)

    def exec(
        self,
        config: Config,
        args: list[str],
        stdio: Stdio = (None, 1, 2),
        *,
        env: tuple[str, ...] = (),
        cwd: str | None = None,
        user: tuple[int, int] | str | None = None,
        terminal: bool = False,
        alone: bool = False,
        only: Sequence[Namespace] | None = None,
    ) -> Running:
        """Start another program in a running container, confined as that is; returns when it runs.

        `only`: in these of its namespaces, and otherwise the host's, as lxc-attach -s.
        Whoever has it must wait for it; `alone`: there is nothing to wait for. Raises EngineError, StartError.
        """
        from minicontainer.runtime.entry import start_in

        state = self._running(config)
        if not args:
            raise EngineError("no command: say what to run in the container, such as: minicontainer exec c1 sh")
        if not is_single_threaded():
            raise EngineError("this process has several threads: use the command, minicontainer exec")
        if self.paused(config):
            raise EngineError(f'container "{config.name}" is paused; first: minicontainer unpause {config.name}', 1)
        if isinstance(user, str):
            config = config.replace(user=user)
        elif user is not None:
            config = config.replace(user="", rights=config.rights.replace(user=user))
            rights.check(config.rights)
        spec = self._spec(config.replace(networks=()))  # it is joined as it is
        process = spec.process.replace(
            args=tuple(args),
            env=(*spec.process.env, *env),
            cwd=spec.process.cwd if cwd is None else cwd,
            terminal=terminal,
            console_size=_console_size() if terminal else None,
        )
        group, running = find_group(config.group), None
        try:
            if config.systemd:
                from minicontainer.engine.systemd import group_of

                group = group_of(group, state.pid or 0)
            with self._explained() as calls, self._recorded(calls):
                running = start_in(state.pid or 0, process, spec, self._steps, group, stdio, alone=alone, only=only)
                # The group is not this program's: who puts that down leaves the container alone.
                running = running.replace(group=None)
                self.store.tell(config, f"exec_start: {' '.join(args)}")
        except BaseException as error:
            if running:  # `explain` has failed
                put_down(running)
                if not alone:
                    running.wait()
                for fd in (running.pidfd, running.console):
                    if fd is not None:
                        os.close(fd)
            if isinstance(error, OSError | StartError) and getattr(error, "exit_code", 125) == 125 and _ends(state):
                raise EngineError(f'container "{config.name}" has just ended', 1) from error
            raise
        return running

    # All of them

    def containers(self) -> list[tuple[Config, State]]:
        """Every container and how far it has come."""
        found = [(config, self.state(config)) for config in self.store.all()]
        # What was to go when it ended, and nobody stayed with, has gone just now.
        return [(config, state) for config, state in found if state.status != "exited" or self.store.is_there(config)]

    def listed(self, filters: Sequence[str] = (), *, all: bool = False, last: int | None = None) -> list[Row]:
        """The containers that `ps` lists: see `engine.listing.listed`. Raises EngineError."""
        from minicontainer.engine import listing

        return listing.listed(self.store, self.state, self._steps, filters, all=all, last=last)

    def processes(self, config: Config) -> list[Inmate]:
        """Those of a container that runs, as the host sees them. Raises EngineError."""
        from minicontainer.engine.processes import processes_of

        return processes_of(self._running(config).pid or 0)

    def rename(self, config: Config, name: str) -> Config:
        """Give a container another name, also while it runs. Raises EngineError: it is taken, or cannot be one."""
        if not name:
            raise EngineError("a name cannot be empty")
        _check_name(name)
        renamed = self.store.rename(config, name)
        self.store.tell(renamed, "rename", oldName=config.name)
        return renamed

    def change_restart(self, config: Config, policy: str) -> Config:
        """Give a container another restart policy. Raises EngineError: there is none such, or it was made with --rm."""
        changed = config.replace(restart=policy)
        restarting.check_policy(changed)
        self.store.change(changed)
        self.state(changed)
        return changed

    def state(self, config: Config) -> State:
        """How far a container has come: what was written, held against the process table."""
        state = self._found(config)
        if config.restart or config.health.test:
            from minicontainer.engine import keeper

            if keeper.is_kept(config):
                keeper.remind(self.store, config, state, self._steps_path)
        return state

    def _found(self, config: Config) -> State:
        state = self.store.state(config.id)
        if state.detached and state.status in ("starting", "running"):
            from minicontainer.engine.detached import settle

            return settle(self.store, config, state, self._steps)
        # started is null where the program had ended before its birth could be written down.
        if state.status == "running" and not (state.pid and state.started and birth_of(state.pid) == state.started):
            return State("exited")  # and whoever watched it could not write down how
        if state.status == "starting" and not self.store.attended(config.id, also_by_us=True):
            return State("exited")  # likewise
        return state

    def repair(self) -> list[str]:
        """Put right what was killed half-way, whenever; returns a line for each thing that was put right."""
        self.store.prepare()
        done = self.store.rubbish()
        for config in self.store.all():
            done += self._set_going(config)
            if self.store.attended(config.id):
                continue
            if self._settle(config):
                done.append(f'container "{config.name}" is restored, which was begun')
            before = self.store.state(config.id)
            if before.detached and before.status in ("starting", "running"):
                after = self.state(config)
                done.append(f'container "{config.name}" {_became(config, after)}')
                continue
            done += self._put_away(config)
        remove_empty_groups()
        if os.path.isdir(f"{self.store.root}/networks"):
            from minicontainer.engine.networks import told

            with told():
                done += self.networks().repair()
        if os.path.isdir(f"{self.store.root}/volumes"):
            done += self.volumes().repair()
        if os.path.isdir(f"{self.store.root}/mounts"):
            from minicontainer.engine import image_mounts

            done += image_mounts.repair(self.store)
        return done

    def _put_away(self, config: Config) -> list[str]:
        """What is left of a container that nobody watches over any more, who should; what was done."""
        # Whoever did is dead, so it should be too; what was frozen when its parent died is not.
        left = find_group(config.group)
        remove_group(left)
        remove_empty_groups(config.cgroup_parent)
        done = [f"control group {directory}" for directory in left.directories]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.store.networked(config.id))
        status = self.store.state(config.id).status
        if status == "running":
            self.store.tell_end(config, None, False)
        elif status == "starting":
            self.store.tell_failure(config)
        if config.remove:
            self.store.forget(config)
            done.append(f'container "{config.name}", which was to go when it ended')
        elif status in ("starting", "running"):
            self.store.set_state(config.id, State("exited"))
            done.append(f'container "{config.name}" is recorded as ended')
        return done

    # What happens to them

    def events(self, since: float | None = None, until: float | None = None) -> Iterator[Event]:
        """What happens to containers, as it happens, and until `until`; with `since`, also what has happened since.

        In seconds since the epoch. Who runs by himself has his end noticed meanwhile, as by any other command that
        looks. Raises EngineError.
        """
        from minicontainer.engine import events

        self.store.prepare()
        return events.events(self.store, self._settled, since, until)

    def _settled(self, config: Config) -> State:
        """How far a container has come; if it has ended, that is written down, whoever should have."""
        state = self.state(config)
        before = self.store.state(config.id)
        if state.status == "exited" and before.status != "exited" and not before.detached:
            with self.store.claimed(config.id, patient=False) as ours:
                if ours and self.store.state(config.id) == before:
                    self._put_away(config)
        return state

    # Images

    def pull(
        self,
        reference: Reference,
        sources: Sequence[Registry],
        platform: Platform | None,
        progress: Progress,
        parallel: int,
    ) -> Descriptor:
        """Fetch an image from the first of `sources` that has it, and unpack it. Raises ImageError."""
        from minicontainer.engine import registries

        self.store.prepare()
        return registries.pull(self.store, self._steps, reference, sources, platform, progress, parallel)

    # Snapshots

    def snapshot(self, config: Config, name: str = "", comment: str = "") -> Snapshot:
        """Keep what a container's files are now, as `name` (snap0, snap1…). Raises EngineError.

        One that runs stands still for that moment, and goes on.
        """
        from minicontainer.engine import snapshots

        return snapshots.take(self._taking(), config, name, comment)

    def snapshots(self, config: Config) -> list[Snapshot]:
        """Those of a container, the oldest first."""
        from minicontainer.engine import snapshots

        return snapshots.all_of(self.store, config)

    def restore(self, config: Config, snapshot: str) -> None:
        """Put the files of a container that does not run back to what they were then. Raises EngineError."""
        from minicontainer.engine import snapshots

        snapshots.restore(self._taking(), config, snapshot)

    def remove_snapshots(self, config: Config, names: Sequence[str]) -> list[str]:
        """Forget these snapshots of a container, or `["ALL"]`; returns their names. Raises EngineError."""
        from minicontainer.engine import snapshots

        return snapshots.remove(self.store, config, names)

    def clone(
        self, source: Config, name: str = "", *, snapshot: str = "", full: bool = False, ephemeral: bool = False
    ) -> Config:
        """Another container that begins as what this one, or a snapshot of it, is. Raises EngineError, StartError.

        They share what the source has written, unless `full`. `ephemeral`: it is started at once, and is gone with all
        that it writes when it ends.
        """
        from minicontainer.engine import snapshots

        if name:
            _check_name(name)
        config = snapshots.clone(self._taking(), source, name, snapshot, full=full, remove=ephemeral)
        if not ephemeral:
            self.store.leave(config.id)
            return config
        try:
            self.start_detached(config)
        except BaseException:
            self._remove(config, force=True)
            raise
        return config

    # Images made of containers, and files in and out of them: `engine.committing`, `engine.copying`, `engine.making`

    def commit(self, config: Config, wishes: Wishes) -> Image:
        """Make an image of what a container is, or was in a snapshot. Raises EngineError.

        One that runs stands still for the moment, unless that is not wished.
        """
        from minicontainer.engine.committing import commit_container

        return commit_container(self._taking(), config, wishes)

    def changes(self, config: Config) -> list[tuple[str, str]]:
        """What a container has changed of its image: ("A", "C" or "D", path). Raises EngineError."""
        from minicontainer.engine.committing import changes

        return changes(self._taking(), config)

    def copy(self, source: Place, target: Place, **options: Any) -> None:
        """Copy files into a container, out of one, between two, as docker cp does; `options` are those of
        `engine.copying.copy`. Raises EngineError."""
        from minicontainer.engine.copying import copy

        copy(self._taking(), source, target, **options)

    def export(self, config: Config, file: IO[bytes]) -> None:
        """Write all files of a container as a tar, without what is mounted in it. Raises EngineError."""
        from minicontainer.engine.copying import export

        export(self._taking(), config, file)

    def mount_image(self, image: str, directory: str) -> ImageMount:
        """Show the files of an image at a directory, read-only, until `unmount_image`. Raises EngineError."""
        from minicontainer.engine.image_mounts import mount_image

        self.store.prepare()
        return mount_image(self.store, self._steps, self._steps_path, image, directory)

    def unmount_image(self, directory: str) -> None:
        """Undo it. Raises EngineError."""
        from minicontainer.engine.image_mounts import unmount_image

        self.store.prepare()
        unmount_image(self.store, self._steps, directory)

    def making(self) -> Making:
        """What images are made with. Raises EngineError: no place for them."""
        from minicontainer.engine.making import Making

        self.store.prepare()
        return Making(self.store, self._steps, self._steps_path, self.warn)

    def _taking(self) -> Taking:
        from minicontainer.engine.snapshots import Taking

        return Taking(self.store, self._steps, self.state, self._lowers, self.warn)

    def _settle(self, config: Config) -> bool:
        """Finish a restoration that was killed; whether there was one. Raises EngineError."""
        if not os.path.exists(f"{self.store.directory(config.id)}/restoring"):
            return False
        from minicontainer.engine import snapshots

        with snapshots.told(f'cannot restore container "{config.name}"'):
            return snapshots.settle(self.store, config, self._steps)

    def _set_going(self, config: Config) -> list[str]:
        """Let a container go on whose snapshot was being taken by somebody who was killed; what was done."""
        if not os.path.exists(f"{self.store.directory(config.id)}/freezing"):
            return []
        from minicontainer.engine.standstill import set_going

        return set_going(self._taking(), config)

    # Volumes

    def volumes(self) -> Volumes:
        """Directories that outlive containers: to be made, looked at, removed."""
        from minicontainer.engine.volumes import Volumes

        self.store.prepare()
        return Volumes(self.store)

    def change_mounts(self, config: Config, add: Sequence[Wish], remove: Sequence[str]) -> Config:
        """Mount other things in a container, at once if it runs: all of them, or none. Raises EngineError."""
        from minicontainer.engine import mounting

        return mounting.change(self._taking(), config, add, remove)

    # Networks

    def networks(self) -> Networks:
        """Those that containers can be connected to: to be made, looked at, removed."""
        from minicontainer.network.networks import Networks

        return Networks(self.store.root, self._steps)

    def connect(self, config: Config, wanted: Attachment) -> Config:
        """Connect a container to one more network, at once if it runs, and for its next start. Raises EngineError."""
        from minicontainer.engine import networks

        return networks.connect(self.store, config, self.state(config), wanted, self._steps)

    def disconnect(self, config: Config, network: str) -> Config:
        """Take a container off a network. Raises EngineError."""
        from minicontainer.engine import networks

        return networks.disconnect(self.store, config, self.state(config), network, self._steps)

    def republish(self, config: Config, add: Sequence[Port], remove: Sequence[Port]) -> Config:
        """Publish other ports of a container, at once if it runs: all, or none. Raises EngineError."""
        from minicontainer.engine import networks

        return networks.republish(self.store, config, self.state(config), add, remove, self._steps)

    def endpoints(self, config: Config) -> list[Endpoint]:
        """Where a container is connected now, with its addresses and published ports."""
        from minicontainer.engine import networks

        return networks.endpoints_of(self.store, config, self._steps)

    def network_settings(self, config: Config) -> dict[str, Any]:
        """Likewise in docker's words, for ``inspect``."""
        if not os.path.exists(self.store.networked(config.id)):
            return {"Networks": {}, "Ports": {}}
        from minicontainer.engine import networks

        return networks.shown(self.store, config, self._steps)

    def network_graph(self) -> Graph:
        """What networks there are now, and which containers are on them, to be drawn. Raises EngineError."""
        from minicontainer.engine import networks

        running = [(config, state) for config, state in self.containers() if state.status == "running"]
        return networks.graph(self.store, running, self._steps)

    def _connection(self, config: Config) -> Connect | None:
        if not config.networks:
            return None
        from minicontainer.engine import networks

        return networks.connection(self.store, config, self._steps, self.warn)

    def _disconnected(self, config: Config) -> None:
        """Take back what a container that has ended had of networks; of one that never had, nothing is imported."""
        if os.path.exists(self.store.networked(config.id)):
            from minicontainer.engine import networks

            networks.release(self.store, config, self._steps)

    # What they use

    def update(self, config: Config, changes: Limits) -> Config:
        """Change the limits of a container, at once if it runs, and for its next start. Raises EngineError."""
        from minicontainer.engine import resources

        wanted = resources.laid_over(config.limits, changes)
        resources.check(wanted)
        if self.state(config).status == "running":
            with _told(config):
                resources.change(self._group(config), wanted, self._steps)
        config = config.replace(limits=wanted)
        self.store.change(config)
        self.store.tell(config, "update")
        return config

    def pause(self, config: Config) -> None:
        """Stop every process of a running container where it is: lxc-freeze. Raises EngineError."""
        with _told(config):
            group = self._group(config)
            self.store.tell(config, state="FREEZING")
            self._steps.freeze(group)
        self.store.tell(config, "pause", "FROZEN")

    def unpause(self, config: Config) -> None:
        """Let a paused container go on: lxc-unfreeze. Raises EngineError."""
        with _told(config):
            self._steps.thaw(self._group(config))
        self.store.tell(config, "unpause", "THAWED")

    def paused(self, config: Config) -> bool:
        """Whether a container stands still."""
        group = find_group(config.group)
        return "freezer" in group and bool(self._steps.is_frozen(group))

    def statistics(
        self, configs: list[Config] | None = None, before: dict[str, Statistics] | None = None, seconds: float = 0
    ) -> list[Statistics]:
        """What each of these containers, or each that runs, uses now. `before`: the look `seconds` ago, by id."""
        from minicontainer.engine import resources

        found, configs = [], self.store.all() if configs is None else configs
        groups = find_groups([config.group for config in configs])
        traffic: dict[str, tuple[int, int]] = {}
        if any(config.networks for config in configs):
            traffic = self.networks().traffic()
        for config in configs:
            state, group = self.state(config), groups[config.group]
            if state.status == "running":
                with contextlib.suppress(OSError):  # it ends while we look
                    past = (before or {}).get(config.id)
                    moved = traffic.get(config.id)
                    found.append(resources.look(config, state.started, group, self._steps, past, seconds, moved))
        return found

    def count(self, config: Config, event: str, seconds: float) -> int:
        """How often an event of `steps.events.EVENTS` happens in a running container in so many seconds. EngineError.

        The container's end ends it early.
        """
        import select

        if not 0 <= seconds <= 1e6:
            raise EngineError(f"it cannot be counted for {seconds:g} seconds: give a positive number")
        state, group = self.state(config), self._group(config)
        with _told(config):
            counters = self._steps.count_events(group, event)
        try:
            pidfd = os.pidfd_open(state.pid or 0)
            try:
                select.select([pidfd], [], [], seconds)
            finally:
                os.close(pidfd)
            return self._steps.events_counted(counters)
        finally:
            for counter in counters:
                os.close(counter)

    def groups(self) -> list[Node]:
        """Every control group of ours with its limits and its use, each after the one above it."""
        from minicontainer.engine import resources

        return resources.tree({config.group: config.name for config in self.store.all()}, self._steps)

    def _group(self, config: Config) -> Group:
        """The group of a container that runs. Raises EngineError."""
        self._running(config)
        return find_group(config.group)

    def _running(self, config: Config) -> State:
        """The state of a container that runs. Raises EngineError."""
        state = self._steady(config)
        if state.status != "running":
            raise EngineError(f'container "{config.name}" does not run; start it: minicontainer start {config.name}', 1)
        return state

    def _steady(self, config: Config) -> State:
        """The state of a container; if it is just being started again, by its own wish, what comes of that."""
        state = self.state(config)
        if config.systemd and state.status == "starting":
            from minicontainer.engine import following

            state = following.again(lambda: self.state(config)) or self.state(config)
        return state

    # Images

    def images(self) -> Images:
        """Those that are here: to be looked at, named, found. Raises EngineError: no place for them."""
        from minicontainer.engine.images import images_of

        self.store.prepare()
        return images_of(self.store)

    def image_layers(self, image: str) -> list[str]:
        """The directories that containers of an image stand on, the topmost first. Only to be looked at. EngineError.

        The image is made, pulled and unpacked first, if it must be.
        """
        self.store.prepare()
        with sharing(self.store):
            return [*map(self.store.layer, self._origin(image).layers)]

    def _origin(self, image: str, platform: str = "", pull: str = "missing") -> Origin:
        """What a container takes from an image that is made, pulled, unpacked first, if it must be. EngineError."""
        noted = None if platform or pull == "always" else recall(self.store, image)
        if noted:
            return noted
        from minicontainer.engine.images import obtain

        return obtain(self.store, self._steps, self._steps_path, image, platform, pull)

    # From wishes to a specification

    def _spec(self, config: Config) -> Spec:
        directory = self.store.directory(config.id)
        namespaces = frozenset(Namespace) - {Namespace.named(name) for name in config.shared} - {Namespace.USER}
        uids, gids = list[IdMap](), list[IdMap]()
        if os.geteuid() != 0:
            namespaces |= {Namespace.USER}
            from minicontainer.runtime.users import rootless_maps

            # More ids than one take newuidmap(1), which whoever writes this step anew, as lab 06 asks, need not call.
            uids, gids = map(list, rootless_maps(alone=not self._steps.is_ours("write_maps")))
        elif config.uid_maps:
            namespaces, uids, gids = namespaces | {Namespace.USER}, [*config.uid_maps], [*config.gid_maps]
        mounts = [Mount(destination, "bind", source, readonly) for source, destination, readonly in config.volumes]
        if config.mounts:
            from minicontainer.engine import mounting

            mounts = mounting.mounts_of(self.store, config)
        mounts += [Mount(destination, "bind", source) for source, destination in config.devices]
        if config.networks:
            from minicontainer.engine import networks

            mounts = [*networks.files(self.store, config), *mounts]
        config = self._as_user(config)
        joined = self._shared_network(config)
        if config.debugs:
            from minicontainer.engine.debugging import namespaces_of

            joined = namespaces_of(self._running(self.store.find(config.debugs)))
        namespaces -= {kind for kind, _ in joined}
        if joined or Namespace.NETWORK in namespaces:
            mounts.insert(
                0, Mount("/sys", "sysfs", readonly=not config.rights.privileged)
            )  # shows the devices of the network namespace it is in
        spec = Spec(
            id=config.id,
            root=Overlay(
                self._lowers(config),
                f"{directory}/upper",
                f"{directory}/work",
                f"{directory}/merged",
                mapped=bool(config.uid_maps),
            ),
            process=Process(
                config.args,
                config.env,
                config.cwd or "/",
                config.terminal,
                _console_size() if config.terminal else None,
            ),
            hostname=config.hostname,
            domainname=config.domainname,
            namespaces=namespaces,
            joined=joined,
            uid_mappings=uids,
            gid_mappings=gids,
            clock_offsets=config.clock_offsets,
            mounts=mounts,
            limits=config.limits if config.rights.privileged else _guarded(config.limits),
            group=config.group,
            controllers=EVERYDAY,
            reaper=config.reaper,
            makes_cwd=config.makes_cwd,
        )
        if config.systemd:
            from minicontainer.engine.systemd import booting

            spec = booting(spec)
        return rights.confined(spec, config.rights, self.store.cached_filter)

    def _as_user(self, config: Config) -> Config:
        """The container with the numbers of its user, and a HOME."""
        home = "/root"
        if config.user:
            from minicontainer.engine.users import look_up

            directory = self.store.directory(config.id)
            found = look_up(config.user, [f"{directory}/upper", *self._lowers(config)])
            home = found.home
            groups = tuple(dict.fromkeys((*config.rights.groups, *found.groups)))
            config = config.replace(rights=config.rights.replace(user=(found.uid, found.gid), groups=groups))
        if any(text.startswith("HOME=") for text in config.env):
            return config
        return config.replace(env=(*config.env, f"HOME={home}"))

    def _shared_network(self, config: Config) -> tuple[tuple[Namespace, str], ...]:
        """The network namespace of another container, where that is to be this one's."""
        if not config.networks:
            return ()
        from minicontainer.engine.networks import shared_with

        other = shared_with(config)
        return (
            () if other is None else ((Namespace.NETWORK, f"/proc/{self._running(self.store.find(other)).pid}/ns/net"),)
        )

    def _lowers(self, config: Config) -> list[str]:
        """The read-only part of the container's root, the topmost layer first. Raises EngineError."""
        layers = [*map(self.store.layer, config.layers)]
        if config.rootfs:
            return [*layers, self._directory(config)]
        if not all(map(os.path.isdir, layers)):
            from minicontainer.engine.images import restore_layers

            restore_layers(self.store, config, self._steps_path)
        return layers

    def _directory(self, config: Config) -> str:
        """The root file system that is used as it is."""
        if not os.path.isdir(config.image):
            raise EngineError(f"no root file system at {config.image}: the directory is not there")
        return os.path.abspath(config.image)

    # The end

    def _run_captured(self, config: Config) -> Result:
        import tempfile

        # Files, not pipes: nobody has to read while the program writes, and what outlives it keeps nothing open.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            running = self.start(config, (None, out.fileno(), err.fileno()))
            result = self.attend(config, running)
            out.seek(0)
            err.seek(0)
            return result.replace(
                stdout=out.read().decode(errors="replace"), stderr=err.read().decode(errors="replace")
            )

    def _tidied_up(self, config: Config, running: Running) -> Result:
        """Wait for a container that ends, remove its control group, and take its cables away."""
        status = running.wait()
        os.close(running.pidfd)
        if running.console is not None:
            os.close(running.console)
        oom_killed = False
        if running.group:
            with contextlib.suppress(OSError):  # somebody else has removed it meanwhile, or it has no such controller
                oom_killed = self._steps.count_oom_kills(running.group) > 0
            remove_group(running.group)
        self._disconnected(config)
        rebooted = False
        if config.systemd:
            from minicontainer.engine.systemd import REBOOTED, status_of

            status, rebooted = status_of(status), status == REBOOTED
        self.store.tell_end(config, status, oom_killed)
        return Result(status, oom_killed=oom_killed, rebooted=rebooted)

    def _recorded_as_ended(self, config: Config, result: Result) -> None:
        """Write down how it ended, and watch over it no more."""
        with contextlib.suppress(FileNotFoundError):  # somebody else has removed it meanwhile
            began, now = self.store.state(config.id).began, time.time()
            ended = State("exited", exit_code=result.status, oom_killed=result.oom_killed, began=began, finished=now)
            self.store.set_state(config.id, ended)
        self.store.leave(config.id, result.status)
        self._keep(config)


def _became(config: Config, state: State) -> str:
    if config.remove:
        return "has ended, and was to go then"
    return "is recorded as ended" if state.status == "exited" else "was not started after all"


def _is_init(program: str) -> bool:
    """Whether it is a distribution's own init, by its name, as podman knows it."""
    return (
        program in ("/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init") or program.rpartition("/")[2] == "systemd"
    )


def _guarded(wanted: Limits) -> Limits:
    """The limits, with a guard on devices where it can be had: root of a user namespace has no mknod(2)."""
    return wanted if wanted.devices or os.geteuid() != 0 or in_user_namespace() else wanted.replace(devices=())


def _console_size() -> tuple[int, int] | None:
    """Rows and columns of the terminal that we are in, if we are in one."""
    try:
        columns, rows = os.get_terminal_size(0)
    except OSError:
        return None
    return rows, columns


def default_root() -> str:
    """/var/lib/minicontainer; for an ordinary user ``$XDG_DATA_HOME/minicontainer`` (~/.local/share/minicontainer)."""
    if os.geteuid() == 0:
        return "/var/lib/minicontainer"
    return (os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")) + "/minicontainer"


_helper: list[Zygote] = []


def _zygote() -> Zygote:
    """The helper of this process; of a fork of it, another."""
    from minicontainer.runtime.zygote import Zygote

    if _helper and not _helper[0].alive:
        _helper.clear()  # somebody has killed it; and with it, its containers have ended
    if not _helper:
        _helper.append(Zygote())
        os.register_at_fork(after_in_child=_helper.clear)
    return _helper[0]


def _kill(pid: int, started: int | None, group: Group) -> None:
    import select

    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if birth_of(pid) == started:  # the number is still its own
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            remove_group(group)  # on v1, what is frozen dies only when it is thawed
            select.select([pidfd], [], [], 10)
        finally:
            os.close(pidfd)


def _ends(state: State) -> bool:
    """Whether process 1 of what ran a moment ago has ended, or is about to: it does so after all others."""
    import select

    try:
        pidfd = os.pidfd_open(state.pid or 0)
    except OSError:
        return True
    try:
        return birth_of(state.pid or 0) != state.started or bool(select.select([pidfd], [], [], 0.1)[0])
    finally:
        os.close(pidfd)


@contextlib.contextmanager
def _told(config: Config) -> Iterator[None]:
    """What the kernel refuses a running container, in the words of the step."""
    try:
        yield
    except FileNotFoundError:
        raise EngineError(f'container "{config.name}" has just ended', 1) from None
    except OSError as error:
        raise EngineError(error.strerror or str(error)) from None


def _named_network(name: str) -> dict[str, Any]:
    """The fields of Config for one network, as it is named on the command line."""
    if name == "none":
        return {}
    if name == "host":
        return {"shared": ("net",)}
    from minicontainer.network.wishes import read_attachment

    return {"networks": (read_attachment(name),)}


def _dated(config: Config) -> Config:
    return config.replace(created=time.time())


_ALLOWED = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
"""In names."""


def _check_name(name: str) -> None:
    if not set(name) <= _ALLOWED or name[0] in ".-":
        raise EngineError(f'"{name}" cannot be a name: letters, digits, "_", "." and "-", and not one of ".-" first')


def _check(config: Config) -> None:
    if config.name:
        _check_name(config.name)
    if len(os.fsencode(config.hostname)) > 64:
        raise EngineError(f'the host name "{config.hostname}" is longer than the kernel\'s 64 bytes')
    for source, _, _ in config.volumes:
        if not os.path.exists(source):
            raise EngineError(f"nothing to mount at {source}: it is not there")
    if config.mounts:
        from minicontainer.engine import mounting

        mounting.check(config)
    for source, destination in config.devices:
        if not os.path.exists(source):
            raise EngineError(f"there is no device {source} on this host")
        if not destination.startswith("/dev/"):
            raise EngineError(f"a device goes below /dev, and {destination} does not: write {source}:/dev/NAME")
    if config.cgroup_parent and not set(config.cgroup_parent) <= _ALLOWED | {"/"}:
        raise EngineError(f'"{config.cgroup_parent}" cannot be a group: letters, digits, "_", "-" and "/"')
    if any(
        part.startswith((".", "cgroup.")) or not part
        for part in config.cgroup_parent.split("/")
        if config.cgroup_parent
    ):
        raise EngineError(f'"{config.cgroup_parent}" cannot be a group: name one below ours, such as web or web/front')
    rights.check(config.rights)
    restarting.check_policy(config)
    if any(config.clock_offsets) and "time" in config.shared:
        raise EngineError("--boottime and --monotonic take clocks of its own: leave out --timens host")
    if config.uid_maps or config.own_ids:
        from minicontainer.engine import remapping

        remapping.check(config)
    if config.networks or config.ports or config.dns or config.dns_search or config.dns_options or config.add_hosts:
        from minicontainer.engine import networks

        networks.check(config)
    if config.limits != Limits():
        from minicontainer.engine import resources

        resources.check(config.limits)
