"""What happens to containers, told to whoever listens, though nobody stays with them.

Whoever does something to a container tells it in STATE/events (`Store.tell`): a line for each, at the end of one file,
whose front goes as it grows (`linux.files.append`). Whoever listens reads that file, and nothing else (`Journal`), and
is woken by inotify(7).

The end of a container that runs by itself nobody would tell until the next command looks. So who listens looks
himself: he has a pidfd of each that runs, and when it has ended, does what any command does that looks, which tells it
(`Engine.state`). However many listen, one of them does, and all of them read it. Only what is killed while it starts,
between two of those lines, is told no sooner than somebody looks.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.engine.journal import Journal
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux import birth_of
from minicontainer.linux.inotify import IN_MODIFY, inotify_add_watch, inotify_init1
from minicontainer.record import Record

FILTERS = ("container", "event", "image", "label", "type")


class Event(Record):
    """Something that happened to a container."""

    time: float
    """When, in seconds since the epoch. What was noticed later has its own time, and comes later all the same."""
    id: str
    name: str
    """That of the container then."""
    image: str
    action: str
    """Docker's word: create, start, die…; "", if it has none."""
    state: str
    """What it is by that, in LXC's words: STARTING, RUNNING, FROZEN…; "", if it has none."""
    attributes: dict[str, str]
    """Its labels, and what the event is about, such as exitCode."""


def events(
    store: Store, settled: Callable[[Config], State], since: float | None, until: float | None
) -> Iterator[Event]:
    """What is told from now on, be it of a moment ago; with `since`, what was told of that time too. Ends at `until`.

    `settled` looks at a container, and tells its end if it has ended. Raises EngineError: no more watches.
    """
    with contextlib.ExitStack() as stack:
        path = f"{store.root}/events"
        journal = Journal(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        stack.callback(journal.close)
        if since is None:
            journal.to_the_end()
        try:
            notices = inotify_init1()
            stack.callback(os.close, notices)
            inotify_add_watch(notices, path, IN_MODIFY)
        except OSError as error:
            raise EngineError(f"cannot watch {path}: {error}") from None
        running = _Running(store, settled)
        stack.callback(running.close)
        for container_id in store.ids():
            running.watch(container_id)
        while True:
            with contextlib.suppress(BlockingIOError):
                os.read(notices, 1 << 14)
            for line in journal.lines():
                event = _read(line)
                if event and event.action == "start":
                    running.watch(event.id)
                if event and (since is None or since <= event.time) and (until is None or event.time <= until):
                    yield event
            left = None if until is None else max(0.0, until - time.time()) * 1000
            if left == 0:
                return
            running.wait(notices, left)


class _Running:
    """The containers that run, each with a pidfd, which is readable when it has ended."""

    def __init__(self, store: Store, settled: Callable[[Config], State]) -> None:
        self._store, self._settled = store, settled
        self._pidfds: dict[int, str] = {}

    def watch(self, container_id: str) -> None:
        """Look at a container, and go on doing so if it runs."""
        if container_id in self._pidfds.values():
            return
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # it is gone again
            config = self._store.config(container_id)
            state = self._settled(config)
            if state.status != "running" or state.pid is None:
                return
            pidfd = self._pidfd(state.pid)
            if pidfd is not None and birth_of(state.pid) == state.started:
                self._pidfds[pidfd] = container_id
                return
            if pidfd is not None:
                os.close(pidfd)
            self._settled(config)  # it has just ended

    @staticmethod
    def _pidfd(pid: int) -> int | None:
        """None: there is no such process. Raises OSError: too many are open; that end is told by the next who looks."""
        try:
            return os.pidfd_open(pid)
        except ProcessLookupError:
            return None

    def wait(self, notices: int, milliseconds: float | None) -> None:
        """Until something is told, or one of them has ended, which is then told."""
        poll = select.poll()
        for fd in (notices, *self._pidfds):
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(milliseconds):
            if fd in self._pidfds:
                ended = self._pidfds.pop(fd)
                os.close(fd)
                self.watch(ended)

    def close(self) -> None:
        """Watch none any more."""
        for pidfd in self._pidfds:
            os.close(pidfd)


def _read(line: bytes) -> Event | None:
    """What a line tells; of an empty one, or one that somebody was killed in, nothing."""
    with contextlib.suppress(ValueError, TypeError):
        return Event(**json.loads(line))
    return None


def chosen(filters: Sequence[str]) -> Callable[[Event], bool]:
    """Whether ``NAME=VALUE`` of all names hold: those of one name are alternatives, except labels, which must all be
    there, as docker's. What docker has no word for is never chosen. Raises EngineError: a filter that is none."""
    wanted = dict[str, list[str]]()
    for text in filters:
        name, equals, value = text.partition("=")
        if name not in FILTERS or not equals or not value:
            raise EngineError(f'--filter "{text}": write NAME=VALUE, with one of {", ".join(FILTERS)}')
        wanted.setdefault(name, []).append(value)

    def fits(event: Event) -> bool:
        if not event.action:
            return False
        return all(_HOLDS[name](event, values) for name, values in wanted.items())

    return fits


def of_names(pattern: str) -> Callable[[Event], bool]:
    """Whether it is a change of state, of a container whose whole name a regular expression matches. EngineError."""
    import re

    try:
        names = re.compile(pattern)
    except re.error as error:
        raise EngineError(f'monitor "{pattern}": it cannot be understood as a regular expression: {error}') from None
    return lambda event: bool(event.state and names.fullmatch(event.name))


def _has_labels(event: Event, values: list[str]) -> bool:
    pairs = [value.partition("=") for value in values]
    return all(
        name in event.attributes and (not equals or event.attributes[name] == value) for name, equals, value in pairs
    )


_HOLDS: dict[str, Callable[[Event, list[str]], bool]] = {
    "container": lambda event, values: any(value == event.name or event.id.startswith(value) for value in values),
    "event": lambda event, values: event.action in values or event.action.partition(":")[0] in values,
    "image": lambda event, values: event.image in values or f"{event.image}:latest" in values,
    "label": _has_labels,
    "type": lambda event, values: "container" in values,
}
