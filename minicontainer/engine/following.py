"""What a container that nobody stays with has written, and writes: its log; and staying with it after all."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Callable, Iterator

from minicontainer.engine.detached import monitor_of, process_of, send
from minicontainer.engine.errors import EngineError
from minicontainer.engine.journal import Journal
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux import pidfd_getfd, signal
from minicontainer.linux.inotify import IN_MODIFY, inotify_add_watch, inotify_init1
from minicontainer.runtime.attach import PATIENCE
from minicontainer.runtime.keeping import MASTER, stamp
from minicontainer.runtime.keys import Leaving
from minicontainer.runtime.terminal import Raw, copy_size

_FAREWELL = 1.0
"""Seconds that a program may take to end when the window is closed in which it was started."""


class Log(Journal):
    """A log, read from some place on; of it, what was written in some time."""

    def __init__(self, store: Store, config: Config, since: float | None = None, until: float | None = None) -> None:
        """`since`, `until`: in seconds since the epoch. Raises EngineError: there is none."""
        try:
            super().__init__(os.open(store.log(config.id), os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            why = "was never started, or its output went to who started it; logs are of what runs with -d or -it"
            raise EngineError(f'container "{config.name}" has no log: it {why}', 1) from None
        self._since = b"" if since is None else stamp(since)
        self._until = b"~" if until is None else stamp(until)  # these stamps can be compared as text

    def to_the_last(self, count: int) -> None:
        """Pass over all but so many lines."""
        from collections import deque

        begins, before, fresh = deque[int](maxlen=count), self.place, True
        for _, _, text in self.more():
            if fresh:
                begins.append(before)
            before, fresh = self.place, text.endswith(b"\n")
        self.place = begins[0] if begins else before

    def more(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """(when, stdout or stderr, text) of what has come since. What is no such line, somebody was killed in it."""
        for line in self.lines():
            when, stream, kind, text = (*line.split(b" ", 3), b"", b"", b"")[:4]
            if stream in (b"stdout", b"stderr") and kind in (b"F", b"P") and self._since <= when <= self._until:
                yield when, stream, text + b"\n" if kind == b"F" else text


def logs(
    store: Store,
    config: Config,
    state: State,
    *,
    follow: bool,
    tail: int | None,
    timestamps: bool,
    since: float | None,
    until: float | None,
    out: tuple[int, int],
) -> None:
    """Write what a container has written, to `out` for its standard output and its standard error; `follow`: until it
    ends, or until `until`. Raises EngineError."""
    log = Log(store, config, since, until)
    try:
        if tail is not None:
            log.to_the_last(tail)
        if follow and state.status == "running":
            with contextlib.suppress(EngineError), process_of(config, state) as pidfd:
                _watch(log, pidfd, lambda: _copy(log, out, timestamps), {}, until=until)
        _copy(log, out, timestamps)
    finally:
        log.close()


@contextlib.contextmanager
def from_now_on(store: Store, config: Config) -> Iterator[Log]:
    """The log, of which only what is still to come will be shown. Raises EngineError: there is none."""
    log = Log(store, config)
    try:
        log.to_the_end()
        yield log
    finally:
        log.close()


def attach(
    store: Store, config: Config, state: State, log: Log, *, stdin: int | None, interrupts: int | None, leave: bytes
) -> bool:
    """Stay with a container until it ends: its output, what is typed, signals. False: the user has left it again."""
    stays = True
    with contextlib.ExitStack() as stack:
        if config.terminal and stdin is not None and os.isatty(stdin):
            stack.enter_context(Raw(stdin))
        with contextlib.suppress(EngineError):  # it has just ended
            stays = _accompany(store, config, state, log, stdin, interrupts, leave)
        try:
            if stays:
                _copy(log, (1, 2), False)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
    return stays


def _accompany(
    store: Store, config: Config, state: State, log: Log, stdin: int | None, interrupts: int | None, leave: bytes
) -> bool:
    with process_of(config, state) as pidfd, contextlib.ExitStack() as stack:
        sink = _sink(store, config, state, pidfd)
        if sink is not None:
            os.set_blocking(sink, False)
            stack.callback(os.close, sink)
        typing = _Typing(stdin, sink, leave if config.terminal else None)
        patience = PATIENCE

        def interrupted() -> None:
            nonlocal patience
            number = os.read(interrupts or 0, 128)[0]
            if number == signal.SIGWINCH:
                if config.terminal and sink is not None and os.isatty(0):
                    copy_size(0, sink)
                return
            patience -= 1
            typing.left = typing.left or patience < 0  # it does not want to hear: leave it
            send(config, state, number)

        if config.terminal and sink is not None and stdin is not None and os.isatty(stdin):
            copy_size(stdin, sink)
        acts: dict[int, Callable[[], object]] = {} if interrupts is None else {interrupts: interrupted}
        try:
            _watch(log, pidfd, lambda: _copy(log, (1, 2), False), acts, typing)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # Our window was closed, for which the kernel has a word that is still on its way.
            send(config, state, signal.SIGHUP)
            if not select.select([pidfd], [], [], _FAREWELL)[0]:
                raise
        return not typing.left


def again(look: Callable[[], State]) -> State | None:
    """The state of a container whose process 1 has ended, when it has been started again; None: it is not.

    Its monitor tells nobody what it is about to do, so we look.
    """
    while (state := look()).status == "starting":
        select.select([], [], [], 0.01)
    return state if state.status == "running" else None


class _Typing:
    """What is typed, on its way to the program's standard input."""

    def __init__(self, stdin: int | None, sink: int | None, leave: bytes | None) -> None:
        """`leave`: the keys that leave it; None: it is no terminal."""
        self.source = stdin if sink is not None else None
        self.sink = sink
        self.pending = b""
        self.left = False
        self._terminal = leave is not None
        self.leaving = Leaving(leave or b"")

    def take(self) -> None:
        """Some of it."""
        data = os.read(self.source or 0, 1 << 12)
        if not data:
            self.source = None
            self.pending += self.leaving.flush() + (b"\x04" if self._terminal else b"")
        self.pending += self.leaving.pass_on(data)
        self.left = self.left or self.leaving.left
        if self.left:
            self.give()

    def give(self) -> None:
        """As much as there is room for."""
        try:
            self.pending = self.pending[os.write(self.sink or 0, self.pending) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody is there any more
            self.pending, self.source = b"", None


def _watch(
    log: Log,
    pidfd: int,
    copy: Callable[[], None],
    acts: dict[int, Callable[[], object]],
    typing: _Typing | None = None,
    until: float | None = None,
) -> None:
    """Until the container has ended, or its user has left; or until `until`."""
    notices = inotify_init1()
    try:
        inotify_add_watch(notices, f"/proc/self/fd/{log.fileno()}", IN_MODIFY)
        copy()  # what came before we were watching
        while True:
            poll = select.poll()
            for fd in (notices, pidfd, *acts):
                poll.register(fd, select.POLLIN)
            if typing and typing.pending:
                poll.register(typing.sink or 0, select.POLLOUT)
            elif typing and typing.source is not None:
                poll.register(typing.source, select.POLLIN)
            left = None if until is None else max(0, until - time.time()) * 1000
            ready = {fd for fd, _ in poll.poll(typing.leaving.timeout() if typing else left)}
            if typing:
                typing.pending += typing.leaving.overdue()
            if notices in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(notices, 1 << 14)
                copy()
            for fd in acts.keys() & ready:
                acts[fd]()
            if typing and typing.pending and typing.sink in ready:
                typing.give()
            elif typing and typing.source in ready:
                typing.take()
            if pidfd in ready or (typing and typing.left) or left == 0:
                return
    finally:
        os.close(notices)


def _sink(store: Store, config: Config, state: State, pidfd: int) -> int | None:
    """Where what is typed goes to: the terminal's master, which process 1 or its monitor has; or the named pipe."""
    if config.terminal:
        try:
            if config.reaper:
                return pidfd_getfd(pidfd, MASTER)
            with monitor_of(config, state) as monitor:
                return pidfd_getfd(monitor, MASTER)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EBADF):  # it has ended; it is ending, and has closed its files
                raise
            raise EngineError(f'container "{config.name}" has just ended', 1) from None
    if config.interactive:
        with contextlib.suppress(OSError):
            return os.open(store.stdin(config.id), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


def _copy(log: Log, out: tuple[int, int], timestamps: bool) -> None:
    fresh = True
    texts = {b"stdout": list[bytes](), b"stderr": list[bytes]()}
    last = b""
    for when, stream, text in log.more():
        if stream != last and last:
            _write(out, last, texts)
        last = stream
        texts[stream].append(when + b" " + text if timestamps and fresh else text)
        fresh = text.endswith(b"\n")
    if last:
        _write(out, last, texts)


def _write(out: tuple[int, int], stream: bytes, texts: dict[bytes, list[bytes]]) -> None:
    view = memoryview(b"".join(texts[stream]))
    texts[stream].clear()
    while view:
        view = view[os.write(out[stream == b"stderr"], view) :]
