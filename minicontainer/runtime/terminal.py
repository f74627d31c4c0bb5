"""Terminals: one inside for the program, and the caller's own, which passes everything through while it runs.

pty(7), ioctl_tty(2), termios(3). The pair is allocated in the container's own /dev/pts, so that ttyname(3) works
inside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct

from minicontainer.linux import TIOCSCTTY
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
TIOCSWINSZ = 0x5414


class Console(Record):
    """Both sides of a pseudo-terminal."""

    master: int
    slave: int


def allocate(size: tuple[int, int] | None = None) -> Console:
    """A new pseudo-terminal of the calling process's own /dev/pts.

    `size` is its rows and columns, set before anybody can ask.
    """
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = peer(master)
    if size:
        fcntl.ioctl(slave, TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    return Console(master, slave)


def peer(master: int) -> int:
    """The other side, opened once more. As long as somebody has it open, whoever reads the master waits and meets no
    end, though the program closes its terminal and opens it again, as systemd does.

    By ioctl, not by its path: what lies at a path may have been put there by the image (CVE-2025-52565).
    """
    return int(fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))


def control(slave: int) -> None:
    """Make the terminal the controlling one of the caller, who leads a session without one: ^C now reaches it."""
    fcntl.ioctl(slave, TIOCSCTTY, 0)


def copy_size(source: int, master: int) -> None:
    """Give the terminal behind `master` the size (rows, columns) of the one at `source`."""
    import termios

    size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(master, termios.TIOCSWINSZ, size)


class Raw:
    """The caller's terminal in raw mode, as a context manager: every key goes to the program, ^C among them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def __enter__(self) -> None:
        if os.isatty(self._fd):
            import termios
            import tty

            self._before = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSANOW)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            with contextlib.suppress(termios.error):  # EIO: the window has been closed
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


class Relay:
    """Copies between the caller's terminal and the program's master side; driven by the caller's poll loop.

    A program that reads nothing must not stop us: what it has not taken is kept, and no more is read until it has.
    """

    def __init__(self, master: int, stdin: int, stdout: int) -> None:
        self.master = master
        self.stdin: int | None = stdin
        self.pending = b""
        """Typed, and not yet taken by the program."""
        self._stdout = stdout
        os.set_blocking(master, False)

    def from_program(self) -> bool:
        """Copy what the program wrote; False when it has closed its terminal (EIO: no slave is open any more)."""
        try:
            data = os.read(self.master, 1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        view = memoryview(data)
        while view:
            view = view[os.write(self._stdout, view) :]
        return bool(data)

    def typed(self) -> None:
        """Take what was typed; at end of file, ^D is."""
        if self.stdin is not None:
            data = os.read(self.stdin, 1 << 12)
            self.pending = data or b"\x04"
            if not data:
                self.stdin = None

    def to_program(self) -> None:
        """Pass on as much as the program's terminal has room for."""
        with contextlib.suppress(OSError):
            self.pending = self.pending[os.write(self.master, self.pending) :]

    def drain(self) -> None:
        """Copy what is still in the terminal's buffer after the program has ended."""
        if self.master < 0:
            return
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        while poll.poll(0) and self.from_program():
            pass
