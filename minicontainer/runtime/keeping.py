"""What process 1 keeps of a container that nobody stays with: what its program writes, and how it ends.

Process 1 is there as long as its container is, whatever becomes of the command that started it. So no other process is
needed beside it; just three files that it holds open, in the state directory of the engine:

    3  the record   locked (flock(2)) as long as process 1 lives. It says "started", and in the end the exit status.
    4  the log      a line for each that is written, as CRI has them: ``2026-11-25T19:15:00.123456Z stdout F text``;
                    P in place of F where the line is not at its end yet. Its front goes as it grows, if that is
                    wished: `linux.files.append` needs nothing for it but the open file. Other files, to be opened by
                    their names, are out of reach for whom the program's user, its limits and Landlock hold as well.
    5  the other ends of the program's standard output and error; or the master of its terminal, at which `attach` types
    6

Pipes, and not the log itself as the program's output: ``echo x > /dev/stderr`` would open that once more, and empty it.
A second thread copies, so that `reap` stays as simple as it is.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import os
import select
import time

from minicontainer.linux import files

FIRST = 3
MASTER = 5
"""Where in process 1 the terminal's master is, if there is one."""

STARTED = b"started "
_RECORD = b"started     \n"
"""All of it at once: later, on a full disk, it can only be written over."""


def stamp(now: float) -> bytes:
    """As lines of the log begin: that moment, in seconds since the epoch, as RFC 3339 writes it."""
    seconds, rest = divmod(round(now * 1e6), 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%06dZ" % rest


class Keeper:
    """The files, from when they are opened until process 1 ends."""

    def __init__(
        self, record: int, log: int, out: int | None = None, err: int | None = None, pieces: tuple[int, int] = (0, 1)
    ) -> None:
        """`record` is locked already; `out` and `err` are the ends to be read from, None with a terminal.

        `pieces`: of how many bytes each, and how many of them are kept of the log; 0: all of it is.
        """
        self._pieces = pieces
        self._torn = b""
        self._files = [record, log]
        self._streams = [name for name, fd in ((b"stdout", out), (b"stderr", err)) if fd is not None]
        self._files += [fd for fd in (out, err) if fd is not None]
        self._copying = _thread.allocate_lock()

    def take(self, master: int) -> None:
        """Keep the master of the program's terminal, and what comes out of it."""
        self._files.append(master)
        self._streams = [b"stdout"]

    def move(self, least: int) -> None:
        """Let all file descriptors have other numbers, the lowest free ones from `least` on."""
        for place, fd in enumerate(self._files):
            self._files[place] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
            os.close(fd)

    def prepare(self) -> None:
        """Have the thread ready, before there is a program. Raises RuntimeError (no more threads, --pids-limit)."""
        self._copying.acquire()
        _thread.start_new_thread(self._copy, ())

    def begin(self) -> int:
        """The program runs: from now on its output is copied. Returns the first number above our files."""
        above = self.number()
        self._copying.release()
        return above

    def number(self) -> int:
        """Let our files have the numbers at which others look for them. Returns the first above."""
        self.move(FIRST + len(self._files))
        for place, fd in enumerate(self._files):
            self._files[place] = os.dup2(fd, FIRST + place, inheritable=False)
        for fd in self._files[2:]:
            os.set_blocking(fd, False)
        return FIRST + len(self._files)

    def stay(self, pidfd: int) -> None:
        """Copy in the caller's own thread, until this process has ended: for who keeps from outside."""
        poll = select.poll()
        for fd in (pidfd, *self._files[2:]):
            poll.register(fd, select.POLLIN)
        while (ready := [fd for fd, _ in poll.poll()]) and pidfd not in ready:
            for fd in ready:
                if self._pass_on(fd - MASTER) is None:
                    poll.unregister(fd)

    def started(self) -> None:
        """Write down that the program has been started. Nobody else may live to do so."""
        with contextlib.suppress(OSError):
            os.pwrite(self._files[0], _RECORD, 0)

    def ended(self, status: int | None) -> None:
        """Copy what is left, and write down how it ended; None: that it has not been started, for it begins again."""
        with self._copying, contextlib.suppress(OSError):
            for place in range(len(self._streams)):
                while self._pass_on(place):
                    pass
        with contextlib.suppress(OSError):
            if status is None:
                os.ftruncate(self._files[0], 0)
            else:
                os.pwrite(self._files[0], b"%-3d" % status, len(STARTED))

    def _copy(self) -> None:
        """The thread."""
        self._copying.acquire()
        self._copying.release()
        poll = select.poll()
        for fd in self._files[2:]:
            poll.register(fd, select.POLLIN)
        open_still = len(self._streams)
        while open_still:
            for fd, _ in poll.poll():
                with self._copying:
                    if self._pass_on(fd - MASTER) is None:
                        poll.unregister(fd)
                        open_still -= 1

    def _pass_on(self, place: int) -> bool | None:
        """Copy what there is of one stream. False: nothing more at the moment; None: nothing ever again."""
        try:
            data = os.read(self._files[2 + place], 1 << 16)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the terminal open any more
            return None
        if not data:
            return None
        head = stamp(time.time()) + b" " + self._streams[place]
        *whole, rest = data.split(b"\n")
        text = b"".join([b"%b F %b\n" % (head, line) for line in whole])
        if rest:
            text += b"%b P %b\n" % (head, rest)
        try:
            files.append(self._files[1], self._torn + text, *self._pieces)
            self._torn = b""
        except OSError:  # a full disk: the program shall not stand still for it, and what comes next begins a line
            self._torn = b"\n"
        return True
