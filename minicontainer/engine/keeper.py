"""The keeper: one small process for all containers of a state directory that are to be restarted or checked.

It lives as long as there are such containers, and no longer; who starts the first starts it, too. It remembers nothing:
all that it goes by is written down, so whoever looks next after somebody has killed it starts another, which goes on
where it was.

STATE/kept/ID       a note for each container that it is to look after; it has an eye (inotify) on that directory
STATE/keeper.lock   locked by it, so that there is one

It waits for the ends of their processes 1 (pidfds) and for what is due next. What is to be done then, a child of its
own does: that needs the whole engine, which it has not loaded, and what goes wrong there does not end it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import time
from collections.abc import Callable

import minicontainer
from minicontainer.engine import health, restarting
from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux import birth_of, set_title
from minicontainer.linux.inotify import IN_ATTRIB, IN_CREATE, IN_DELETE, inotify_add_watch, inotify_init1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.engine import Engine

BREATH = 0.05
"""Seconds between two tries of the same: what goes wrong each time shall not keep a processor busy."""
PATIENCE = 1.0
"""Seconds until a container is looked at again of which no news came that should have: its starter was killed."""

_PROGRAM = """\
import os, sys
if os.fork():
    os._exit(0)
sys.path.insert(0, sys.argv[1])
from minicontainer.engine.keeper import serve
serve(sys.argv[2], sys.argv[3] or None)
"""


def is_kept(config: Config) -> bool:
    """Whether a container is to be restarted or checked."""
    return config.restart not in ("", "no") or health.has_check(config)


def keep(store: Store, config: Config, steps: str | None) -> None:
    """Let a container be looked after from now on, and tell the keeper that there is news of it."""
    os.makedirs(_kept(store), exist_ok=True)
    fd = os.open(f"{_kept(store)}/{config.id}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.utime(fd)
    finally:
        os.close(fd)
    _revive(store, steps)


def remind(store: Store, config: Config, state: State, steps: str | None) -> None:
    """Whoever looks at such a container sees to it that there is a keeper, if one is needed."""
    if state.status != "running" and not restarting.is_due(store, config, state):
        return
    if os.path.exists(f"{_kept(store)}/{config.id}"):
        _revive(store, steps)
    elif state.status == "running" or store.is_there(config):
        keep(store, config, steps)


def let_go(store: Store, config: Config) -> None:
    """It is gone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{_kept(store)}/{config.id}")


def _kept(store: Store) -> str:
    return f"{store.root}/kept"


def _revive(store: Store, steps: str | None) -> None:
    """Start a keeper, if none lives. It is nobody's child, and has no file of ours."""
    lock = _locked(store.root, fcntl.LOCK_SH)
    if lock is None:
        return
    os.close(lock)
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    place = os.path.dirname(minicontainer.__path__[0])
    arguments = [sys.executable, "-I", "-S", "-c", _PROGRAM, place, store.root, steps or ""]
    pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=null, setsid=True, setsigmask=())
    os.waitpid(pid, 0)


def _locked(root: str, how: int, tries: int = 1) -> int | None:
    """The lock, if it can be had; whoever only looks whether it is taken has it for a moment."""
    fd = os.open(f"{root}/keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for left in range(tries, 0, -1):
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if left > 1:
                time.sleep(0.01)
    os.close(fd)
    return None


def serve(root: str, steps: str | None) -> None:
    """Be the keeper, unless there is one; returns when there is nothing more to keep."""
    set_title("minicontainer keeper")
    os.chdir("/")
    store = Store(root)
    # Notes are made before the lock is looked at, and looked for after it is given away: none is overlooked.
    while os.path.isdir(_kept(store)) and os.listdir(_kept(store)):
        lock = _locked(root, fcntl.LOCK_EX, tries=20)
        if lock is None:
            return
        try:
            _Keeper(store, steps, lock).keep()
        finally:
            os.close(lock)


class _Keeper:
    def __init__(self, store: Store, steps: str | None, lock: int) -> None:
        self._store, self._steps, self._lock = store, steps, lock
        self._notices = inotify_init1()
        self._children: dict[str, tuple[int, int]] = {}
        self._tried: dict[str, float] = {}

    def keep(self) -> None:
        inotify_add_watch(self._notices, _kept(self._store), IN_CREATE | IN_ATTRIB | IN_DELETE)
        try:
            while True:
                waits = list[tuple[int | None, float | None]]()
                for container_id in os.listdir(_kept(self._store)):
                    wait = self._look(container_id)
                    if wait is None:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(f"{_kept(self._store)}/{container_id}")
                    else:
                        waits.append(wait)
                if not waits and not self._children:
                    return
                self._wait(waits)
        finally:
            os.close(self._notices)

    def _look(self, container_id: str) -> tuple[int | None, float | None] | None:
        """What to wait for of a container: a pidfd and a moment. None: nothing any more."""
        if container_id in self._children:
            return None, None
        try:
            config = self._store.config(container_id)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        state, now = self._store.state(container_id), time.time()
        if not is_kept(config):
            return None
        if (again := self._tried.get(container_id, 0.0) + BREATH) > now:
            return None, again
        if state.status in ("starting", "running"):
            pidfd = _opened(state)
            if pidfd is None:  # it has ended, and somebody is to write that down; or is not born yet
                if self._store.attended(container_id):
                    return None, now + PATIENCE
                if not state.detached and restarting.due(config, State("exited"), restarting.Past()) is None:
                    return None
                return self._do(container_id, now, lambda engine: restarting.restart_if_due(engine, container_id))
            at = health.next_check(self._store, config, state) if state.status == "running" else None
            if at is not None:
                at = max(at, self._tried.get(container_id, 0.0) + config.health.every)
                if at <= now:
                    os.close(pidfd)
                    return self._do(container_id, now, lambda engine: health.check_now(engine, config))
            return pidfd, at
        at = restarting.due(config, state, restarting.past_of(self._store, container_id))
        if at is not None and at <= now:
            return self._do(container_id, now, lambda engine: restarting.restart_if_due(engine, container_id))
        return None if at is None else (None, at)

    def _do(self, container_id: str, now: float, act: Callable[[Engine], object]) -> tuple[None, None]:
        """Let a child do it."""
        self._tried[container_id] = now
        pid = os.fork()
        if pid == 0:
            try:
                for fd in (self._lock, self._notices, *(pidfd for _, pidfd in self._children.values())):
                    os.close(fd)
                from minicontainer.engine import engine
                from minicontainer.runtime.errors import StartError

                with contextlib.suppress(EngineError, StartError, OSError):
                    act(engine.Engine(self._store.root, self._steps))
            finally:
                os._exit(0)
        self._children[container_id] = pid, os.pidfd_open(pid)
        return None, None

    def _wait(self, waits: list[tuple[int | None, float | None]]) -> None:
        """Until one of these things has happened."""
        poll = select.poll()
        for fd in (self._notices, *(pidfd for _, pidfd in self._children.values())):
            poll.register(fd, select.POLLIN)
        for pidfd, _ in waits:
            if pidfd is not None:
                poll.register(pidfd, select.POLLIN)
        moments = [at for _, at in waits if at is not None]
        ready = {fd for fd, _ in poll.poll(max(min(moments) - time.time(), 0) * 1000 + 1 if moments else None)}
        for pidfd, _ in waits:
            if pidfd is not None:
                os.close(pidfd)
        if self._notices in ready:
            os.read(self._notices, 1 << 16)
        for container_id, (pid, pidfd) in list(self._children.items()):
            if pidfd in ready:
                os.waitpid(pid, 0)
                os.close(pidfd)
                del self._children[container_id]


def _opened(state: State) -> int | None:
    """A pidfd of a container's process 1, surely its own; None: it has ended."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(state.pid) if state.pid else -1
        if pidfd >= 0 and state.started and birth_of(state.pid or 0) == state.started:
            return pidfd
        if pidfd >= 0:
            os.close(pidfd)
    return None
