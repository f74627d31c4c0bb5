"""A container that nobody stays with, and whose program is process 1 itself: it is kept from outside.

Elsewhere process 1 is ours and keeps what has to be kept (`engine.detached`). Where somebody else's program is in its
place, systemd say, the same files are kept by a process beside the container, its parent:

    the command     starts the monitor, and is told what has become of it.
      └─ monitor    outside, in a session of its own; it has the lock, the log and the terminal's master, and it waits.
           └─ process 1, the program, and all that it starts.

Process 1 dies with its monitor, as elsewhere all die with process 1. A container that has asked to be started again,
by reboot(2), is: with new namespaces and a new group, on the same files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import time
from collections.abc import Callable

from minicontainer.engine.detached import files_for, noted
from minicontainer.engine.errors import EngineError
from minicontainer.engine.restarting import past_of, turn
from minicontainer.engine.store import Config, State, Store
from minicontainer.engine.systemd import REBOOTED, status_of
from minicontainer.linux import birth_of, clone3, set_title, signal
from minicontainer.runtime.attach import put_down
from minicontainer.runtime.birth import Connect, Running, start
from minicontainer.runtime.channel import Channel
from minicontainer.runtime.errors import Interrupted, StartError
from minicontainer.runtime.keeping import FIRST, Keeper
from minicontainer.runtime.program import keep_nothing
from minicontainer.runtime.spec import Spec
from minicontainer.runtime.terminal import peer
from minicontainer.steps import Steps
from minicontainer.steps.group import remove_group

_OUT_OF_THE_WAY = 16
"""Above the numbers that the keeper's files are given."""

Again = Callable[[], tuple[Spec, Connect | None]]


def watch_over(
    store: Store,
    config: Config,
    spec: Spec,
    steps: Steps,
    connect: Connect | None,
    again: Again | None,
    interrupts: int | None,
) -> None:
    """Start a container that is attended by us, and a monitor that takes it over.

    Raises EngineError, StartError, and Interrupted: by a signal that has come to `interrupts`, a signalfd(2).
    """
    ours, theirs, passed_on = *Channel.pair(), 0
    try:
        pid = clone3(0)
        if pid == 0:
            try:
                ours.close()
                os.setsid()  # a ^C in the caller's terminal is the caller's affair
                set_title("minicontainer monitor")
                _Monitor(store, config, steps, theirs).stay(spec, connect, again, interrupts)
            finally:
                os._exit(0)
        theirs.close()
        while interrupts is not None and not passed_on:
            if ours.fileno() in select.select([ours.fileno(), interrupts], [], [])[0]:
                break
            if (number := os.read(interrupts, 128)[0]) != signal.SIGWINCH:
                os.kill(pid, passed_on := number)
        word, details = ours.receive()
    finally:
        ours.close()
        theirs.close()
    if word == "ready":
        if passed_on:  # too late: it is the program's, once somebody looks
            os.kill(os.getpid(), passed_on)
        return
    os.waitpid(pid, 0)
    if word == "interrupted":
        raise Interrupted(details["number"])
    if word == "error" and details["step"] != "engine":
        raise StartError(details["error"], step=details["step"], errno=details["errno"], exit_code=details["exit_code"])
    raise EngineError(details["error"] if details else "the process that was to watch over the container was killed")


class _Monitor:
    """In a process of its own."""

    def __init__(self, store: Store, config: Config, steps: Steps, line: Channel) -> None:
        self._store, self._config, self._steps = store, config, steps
        self._line: Channel | None = line
        """To the command, until it has been told that the container runs."""
        self._record = store.lock_of(config.id)
        self._turn = contextlib.ExitStack()
        """From its end until it runs again: whoever is about to stop it waits for that, and whoever has been is heard.
        """

    def stay(self, spec: Spec, connect: Connect | None, again: Again | None, interrupts: int | None) -> None:
        """Start it, keep it, and start it again as often as it wants that."""
        try:
            while True:
                keeper, running = self._started(spec, connect, interrupts)
                keeper.stay(running.pidfd)
                status = status_of(running.wait())
                if status != REBOOTED or not self._config.systemd or again is None:
                    keeper.ended(status)
                    return
                keeper.ended(None)
                self._turn.enter_context(turn(self._store, self._config.id))
                if past_of(self._store, self._config.id).stopped:
                    keeper.started()
                    keeper.ended(0)
                    return
                self._store.tell_end(self._config, None, False)
                self._store.set_state(self._config.id, State("starting", detached=True))
                if running.group:
                    remove_group(running.group)
                (spec, connect), interrupts = again(), None
        except Exception as error:
            self._tell(error)

    def _started(self, spec: Spec, connect: Connect | None, interrupts: int | None) -> tuple[Keeper, Running]:
        store, config, began, opened = self._store, self._config, time.time(), list[int]()
        keeper, stdio = files_for(store, config, self._record, opened)
        running = start(spec, self._steps, stdio, interrupts, born=noted(store, config, began), connect=connect)
        try:
            if running.console is not None:
                keeper.take(running.console)
            keeper.started()
            store.set_state(config.id, State("running", running.pid, birth_of(running.pid), detached=True, began=began))
            store.tell(config, "start", "RUNNING")
        except BaseException:  # the disk is full: nobody would find it again
            put_down(running)
            running.wait()
            raise
        self._turn.close()
        if self._line is not None:
            with contextlib.suppress(BrokenPipeError):  # whoever wanted it has been killed; it runs all the same
                self._line.send("ready")
            self._line = None
        held = [running.pidfd] if running.console is None else [running.pidfd, peer(running.console)]
        held = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for fd in held]
        above = keeper.number()
        for place, fd in enumerate(held):
            os.dup2(fd, above + place, inheritable=False)
        keep_nothing(above + len(held))
        os.chdir("/")
        self._record = FIRST
        return keeper, running.replace(pidfd=above, console=None)

    def _tell(self, error: Exception) -> None:
        """It could not be started; if that is the second time, there is nobody left to hear why."""
        if self._line is None:
            return
        if isinstance(error, Interrupted):
            self._line.send("interrupted", {"number": error.number})
            return
        known = isinstance(error, StartError)
        message = {
            "error": str(error) if isinstance(error, StartError | EngineError) else f"{type(error).__name__}: {error}",
            "step": getattr(error, "step", None) if known else "engine",
            "errno": getattr(error, "errno", None) or (None if known else errno.ECHILD),
            "exit_code": getattr(error, "exit_code", 125),
        }
        self._line.send("error", message)
