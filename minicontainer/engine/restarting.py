"""Restart policies: whether and when a container that has ended is started again, in docker's words and with its
back-off.

What is due is computed from what was written down, so nobody has to be there in the meantime, and nothing is lost with
whoever is killed:

    CONTAINER/restarts   how often it was, after which pause, and whether its user has stopped it

A user's command writes that it stops a container before it sends the signal. It and whoever restarts take turns, by a
lock on the container's directory; so no restart follows a stop.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import time
from collections.abc import Iterator

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux import files
from minicontainer.record import Record
from minicontainer.runtime.errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.engine import Engine

FIRST, LONGEST = 0.1, 60.0
"""Seconds before the first restart, and at most; in between each pause is twice the last one."""
SETTLED = 10.0
"""Seconds after which a container counts as one that runs, and the pauses begin anew."""


class Past(Record):
    """What has become of a container's restarts since its user started it."""

    count: int = 0
    delay: float = 0.0
    """Seconds before the last one."""
    stopped: str = ""
    """Its user has stopped it: the id of the host's boot then."""
    begun: bool = False
    """A restart was begun, and is not through."""
    failed: str = ""
    """Why the last one failed; there is none after it."""


def check_policy(config: Config) -> None:
    """Raises EngineError, in docker's words."""
    name, colon, most = config.restart.partition(":")
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        known = "'no', 'always', 'on-failure', or 'unless-stopped'"
        raise EngineError(f"invalid restart policy: unknown policy '{name}'; use one of {known}")
    if colon and name != "on-failure":
        raise EngineError("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if colon and not (most.isascii() and most.isdecimal()):
        raise EngineError("invalid restart policy: maximum retry count must be an integer")
    if config.remove and name not in ("", "no"):
        raise EngineError("conflicting options: cannot specify both --restart and --rm")


def shown_policy(config: Config) -> dict[str, object]:
    """As docker shows it."""
    name, _, most = config.restart.partition(":")
    return {"Name": name or "no", "MaximumRetryCount": int(most or 0)}


def due(config: Config, state: State, past: Past) -> float | None:
    """When a container is to be started again, in seconds since the epoch; None: not by itself."""
    name, _, most = config.restart.partition(":")
    if name in ("", "no") or past.failed:
        return None
    if past.stopped and (name != "always" or past.stopped == _boot()):
        return None
    if past.begun and state.status == "created":  # whoever did it was killed
        return 0.0
    if state.status != "exited":
        return None
    if name == "on-failure" and (state.exit_code == 0 or (int(most or 0) and past.count >= int(most))):
        return None
    return (state.finished or 0.0) + _pause(state, past)


def is_due(store: Store, config: Config, state: State) -> bool:
    """Whether it is going to be started again by itself."""
    return bool(config.restart) and due(config, state, past_of(store, config.id)) is not None


def _pause(state: State, past: Past) -> float:
    ran = (state.finished or 0.0) - (state.began or 0.0)
    return FIRST if ran >= SETTLED or not past.delay else min(past.delay * 2, LONGEST)


def past_of(store: Store, container_id: str) -> Past:
    """What is written down of it."""
    try:
        return Past(**json.loads(files.read(_file(store, container_id))))
    except (OSError, ValueError, TypeError):
        return Past()


def mark_stopped(store: Store, config: Config) -> None:
    """Write down that its user stops a container, before it is: waits for a restart that is just being done."""
    if config.restart or config.systemd:
        with turn(store, config.id):
            _write(store, config.id, past_of(store, config.id).replace(stopped=_boot()))


def forget_past(store: Store, config: Config) -> None:
    """Its user starts it: what was before does not count."""
    if os.path.exists(_file(store, config.id)):
        with turn(store, config.id):
            _write(store, config.id, Past())


def restart_if_due(engine: Engine, container_id: str, *, regardless: bool = False) -> bool:
    """Start a container again if its policy says so now; `regardless` of that, unless its user has stopped it.

    Whether it was. What cannot be started is written down, and not tried again.
    """
    store = engine.store
    with turn(store, container_id):
        config = store.config(container_id)
        state, past = engine.state(config), past_of(store, container_id)
        if state.status not in ("exited", "created") or store.attended(container_id):
            return False
        at = (None if past.stopped else 0.0) if regardless else due(config, state, past)
        if at is None or at > time.time():
            return False
        if not past.begun:
            past = past.replace(count=past.count + 1, delay=_pause(state, past), begun=True)
        _write(store, container_id, past)
        try:
            engine.start_detached(config, again=True)
        except (EngineError, StartError) as error:
            past = past.replace(failed=str(error))
            store.set_state(container_id, state.replace(status="exited", exit_code=error.exit_code))
        _write(store, container_id, past.replace(begun=False))
    return not past.failed


@contextlib.contextmanager
def turn(store: Store, container_id: str) -> Iterator[None]:
    """Be the only one for the moment who stops a container or starts it again. EngineError: it is gone."""
    try:
        fd = os.open(store.directory(container_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise EngineError(f"container {container_id} has just been removed", 1) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # process 1 was born as a copy of us, and may have it open for a moment
        os.close(fd)


def await_restart(store: Store, config: Config, state: State) -> bool:
    """Wait for the moment when an ended container is started again; False: it will not be."""
    from minicontainer.linux.inotify import IN_DELETE_SELF, IN_MOVED_TO, inotify_add_watch, inotify_init1

    if not config.restart:
        return False
    notices = inotify_init1()
    try:
        with contextlib.suppress(FileNotFoundError):
            inotify_add_watch(notices, store.directory(config.id), IN_MOVED_TO | IN_DELETE_SELF)
        at = due(config, state, past_of(store, config.id))
        if at is None or not store.is_there(config):
            return False
        select.select([notices], [], [], max(at - time.time(), 0) + 1)
        return True
    finally:
        os.close(notices)


def _write(store: Store, container_id: str, past: Past) -> None:
    with contextlib.suppress(FileNotFoundError):
        files.replace(_file(store, container_id), json.dumps(past.asdict()))


def _file(store: Store, container_id: str) -> str:
    return f"{store.directory(container_id)}/restarts"


def _boot() -> str:
    """A name for the host's life since it was started: random(4)."""
    return files.read("/proc/sys/kernel/random/boot_id").strip()
