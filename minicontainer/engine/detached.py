"""Containers that nobody stays with: started and left, looked at again whenever somebody wants to know.

There is no daemon. The container's own process 1 keeps what has to be kept (`runtime.keeping`): the log, the lock that
tells that it lives, the exit status. What it cannot do from inside, remove the control group, write the state, take an
--rm container away, does the next command that looks, whichever it is: `settle`.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux import birth_of, files, is_single_threaded, signal
from minicontainer.runtime.attach import put_down
from minicontainer.runtime.birth import Connect, start
from minicontainer.runtime.keeping import Keeper
from minicontainer.runtime.program import Stdio
from minicontainer.runtime.spec import Spec
from minicontainer.steps import Steps
from minicontainer.steps.group import Group, find_group, remove_group
from minicontainer.steps.pid import FORWARDED

KILLED = 128 + signal.SIGKILL
"""The status of a container whose process 1 could not write one: nothing else ends it so."""


def leave_alone(
    store: Store,
    config: Config,
    spec: Spec,
    steps: Steps,
    connect: Connect | None = None,
    again: Callable[[], tuple[Spec, Connect | None]] | None = None,
    interrupts: int | None = None,
) -> None:
    """Start a container that is attended by us, connect it, and let go of it. Raises EngineError, StartError.

    `again`: what to start it with once more, after it has asked to be. `interrupts`: a signalfd(2); a signal that
    arrives there meanwhile ends that (Interrupted).
    """
    if not is_single_threaded():
        raise EngineError("this process has several threads: start it with the command, minicontainer start")
    if not config.reaper:
        from minicontainer.engine.monitor import watch_over

        watch_over(store, config, spec, steps, connect, again, interrupts)
        return
    if config.limits.pids == 2:
        raise EngineError("--pids-limit 2: process 1 of what runs by itself has two threads; give it at least 3")
    opened: list[int] = []
    began = time.time()
    try:
        keeper, stdio = files_for(store, config, store.lock_of(config.id), opened)
        alone = spec.replace(die_with_parent=False)
        born = noted(store, config, began)
        running = start(alone, steps, stdio, interrupts, born=born, keeper=keeper, connect=connect)
        try:
            born_at = birth_of(running.pid)
            store.set_state(config.id, State("running", running.pid, born_at, detached=True, began=began))
            store.tell(config, "start", "RUNNING")
        except BaseException:  # the disk is full: nobody would find it again
            put_down(running)
            running.wait()
            raise
        finally:
            os.close(running.pidfd)
    finally:
        for fd in opened:
            os.close(fd)


def files_for(store: Store, config: Config, record: int, opened: list[int]) -> tuple[Keeper, Stdio]:
    """Whoever keeps the container, with the files that it keeps, and those of the program. All but `record`, the lock,
    are in `opened`."""
    log = store.open_log(config.id)
    opened.append(log)
    if config.log_pieces[0]:
        _can_forget(store, log)
    if config.terminal:
        return Keeper(record, log, pieces=config.log_pieces), (None, None, None)
    (out, to_out), (err, to_err) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    opened += [out, to_out, err, to_err]
    stdin: int | None = None
    if config.interactive:
        stdin = store.open_stdin(config.id)
        opened.append(stdin)
    return Keeper(record, log, out, err, config.log_pieces), (stdin, to_out, to_err)


def noted(store: Store, config: Config, began: float) -> Callable[[int, Group | None], None]:
    """What writes down the pid of a container that is being born."""

    def born(pid: int, group: Group | None) -> None:
        store.set_state(config.id, State("starting", pid, birth_of(pid), detached=True, began=began))

    return born


def _can_forget(store: Store, log: int) -> None:
    """Raises EngineError: the file system cannot take the front of a file away."""
    try:
        files.punch_hole(log, os.fstat(log).st_size, 1 << 12)  # beyond its end: nothing goes
    except OSError as error:
        raise EngineError(f"--log-opt max-size: not on the file system of {store.root}: {error.strerror}") from None


def settle(store: Store, config: Config, state: State, steps: Steps) -> State:
    """What has become of a container that was left alone; what it left when it ended is put away first."""
    alive = _lives(state)
    begun, code = store.record(config.id)
    while not (config.reaper or alive) and begun and code is None and _is_claimed(store, config):
        # Its monitor is just writing down how it has ended, or that it begins again; nobody tells when that is done.
        select.select([], [], [], 0.002)
        state = store.state(config.id)
        alive, (begun, code) = _lives(state), store.record(config.id)
    # It may be on the way out: the lock goes some moments before the process does.
    with store.claimed(config.id, patient=begun and (code is not None or not alive)) as ours:
        if not ours and alive:
            return state.replace(status="running" if begun else "starting")
        if not ours:  # it is just being started by somebody, or is gone
            return State("starting") if store.is_there(config) else State("exited")
        state = store.state(config.id)
        if not (state.detached and state.status in ("starting", "running")):
            return state  # somebody has been here before us
        begun, code = store.record(config.id)
        group, oom_killed = find_group(config.group), False
        with contextlib.suppress(OSError):  # it has no such controller
            oom_killed = steps.count_oom_kills(group) > 0
        remove_group(group)
        if os.path.exists(store.networked(config.id)):
            from minicontainer.engine.networks import release

            release(store, config, steps)
        if begun:
            code, ended = KILLED if code is None else code, store.ended_at(config.id)
            store.tell_end(config, code, oom_killed, ended)
            state = State("exited", exit_code=code, oom_killed=oom_killed, began=state.began, finished=ended)
        else:
            store.tell_failure(config)
            state = State("created")
        if config.remove:
            store.forget(config)
        else:
            with contextlib.suppress(OSError):  # a full disk: whoever looks next finds the same
                store.set_state(config.id, state)
        return state


def _lives(state: State) -> bool:
    return bool(state.pid and state.started and birth_of(state.pid) == state.started)


def _is_claimed(store: Store, config: Config) -> bool:
    with store.claimed(config.id, patient=False) as ours:
        return not ours and store.is_there(config)


def send(config: Config, state: State, number: int) -> None:
    """Send a signal to a running container's program. Raises EngineError.

    By way of process 1, which passes on what can be caught. What cannot be is for the program alone: the end, too, so
    that process 1 notes it.
    """
    with process_of(config, state) as pidfd:
        try:
            if not config.reaper or number in FORWARDED:
                signal.pidfd_send_signal(pidfd, number)
                return
            program = _program(state.pid or 0)
            try:
                signal.pidfd_send_signal(pidfd if program is None else program, number)
            finally:
                if program is not None:
                    os.close(program)
        except ProcessLookupError:
            raise EngineError(f'container "{config.name}" has just ended', 1) from None


def stop(config: Config, state: State, seconds: float, thaw: Callable[[], object] = int) -> None:
    """Ask a running container to end, by its stop signal, and after so many seconds kill it; returns when it has.

    `thaw` lets one that is paused go on: it would not hear of it.
    """
    with contextlib.suppress(EngineError), process_of(config, state) as pidfd:
        send(config, state, stop_signal(config.stop_signal))
        thaw()
        if not select.select([pidfd], [], [], seconds)[0]:
            send(config, state, signal.SIGKILL)
        if not select.select([pidfd], [], [], 2)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            remove_group(find_group(config.group))
            select.select([pidfd], [], [], 10)


def stop_signal(text: str) -> int:
    """The number of ``SIGQUIT``, ``QUIT``, ``RTMIN+3`` or ``3``; SIGTERM, where an image says what is no signal."""
    name, plus, above = text.upper().removeprefix("SIG").partition("+")
    number = getattr(signal, f"SIG{name}", 0)
    if plus and name == "RTMIN" and above.isascii() and above.isdecimal():
        number += int(above)
    elif text.isascii() and text.isdecimal():
        number = int(text)
    return int(number) if number in signal.valid_signals() else signal.SIGTERM


@contextlib.contextmanager
def process_of(config: Config, state: State) -> Iterator[int]:
    """A pidfd of a container's process 1, surely its own. Raises EngineError: it has ended."""
    pidfd = -1
    try:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(state.pid) if state.pid else -1
        if pidfd < 0 or birth_of(state.pid or 0) != state.started:
            raise EngineError(f'container "{config.name}" does not run', 1)
        yield pidfd
    finally:
        if pidfd >= 0:
            os.close(pidfd)


@contextlib.contextmanager
def monitor_of(config: Config, state: State) -> Iterator[int]:
    """A pidfd of the process that keeps a container from outside, the parent of its process 1. Raises EngineError."""
    with process_of(config, state) as process_1, open(f"/proc/{state.pid}/stat", "rb", buffering=0) as stat:
        pidfd = os.pidfd_open(int((stat.read() or b"").rpartition(b")")[2].split()[1]))
        try:
            if select.select([process_1], [], [], 0)[0]:
                raise EngineError(f'container "{config.name}" has just ended', 1)
            yield pidfd
        finally:
            os.close(pidfd)


def _program(init: int) -> int | None:
    """A pidfd of the program: process 1's first child, as long as it lives."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{init}/task/{init}/children") as children:
        return os.pidfd_open(int(children.read().split()[0]))
    return None
