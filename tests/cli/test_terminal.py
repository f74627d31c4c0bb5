"""``-t``: a real terminal outside, one of its own inside, and everything as it was afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import DEADLINE, Command, needs_root, wait_until
from tests.host_state import HostUnchanged

pytestmark = needs_root


class Terminal:
    """A terminal with the command in it, and somebody who types and reads."""

    def __init__(self, master: int, process: subprocess.Popen[bytes], slave: int, before: list[object]) -> None:
        self.master = master
        self.process = process
        self.slave = slave
        self.before = before
        """Its mode before the command was started."""
        self.seen = b""

    def type(self, text: str) -> None:
        """Type."""
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> re.Match[bytes]:
        """Read until this regular expression matches; what was matched is then past."""
        deadline = time.monotonic() + DEADLINE
        while not (match := re.search(pattern.encode(), self.seen, re.DOTALL)):
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                pytest.fail(f"{pattern!r} does not come; so far: {self.seen!r}")
            try:
                self.seen += os.read(self.master, 1 << 16)
            except OSError:
                pytest.fail(f"the terminal has closed before {pattern!r}; so far: {self.seen!r}")
        self.seen = self.seen[match.end() :]
        return match

    def mode(self) -> list[object]:
        """Of the terminal, as stty shows it."""
        return termios.tcgetattr(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        """Pull at the corner of the window."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self) -> int:
        """Wait for the command's end; its exit code."""
        deadline = time.monotonic() + DEADLINE
        pidfd = os.pidfd_open(self.process.pid)
        try:
            while self.process.poll() is None:
                if time.monotonic() > deadline:
                    pytest.fail(f"the command does not end; so far: {self.seen!r}")
                if self.master in select.select([self.master, pidfd], [], [], 1)[0]:
                    self.seen += os.read(self.master, 1 << 16)
        finally:
            os.close(pidfd)
        return self.process.returncode


@contextlib.contextmanager
def terminal(minicontainer: Command, *arguments: str) -> Iterator[Terminal]:
    """The command as the foreground process group of a session with a controlling terminal of 33 rows, 99 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        minicontainer.line(*arguments), stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
    )  # fmt: skip
    window = Terminal(master, process, slave, before)
    try:
        yield window
    finally:
        minicontainer.put_down(process)
        os.close(slave)
        with contextlib.suppress(OSError):
            os.close(window.master)


def is_raw(mode: list[object]) -> bool:
    """Nothing is echoed, edited or taken for a signal."""
    flags = mode[3]
    assert isinstance(flags, int)
    return not flags & (termios.ECHO | termios.ICANON | termios.ISIG)


SHELL = ("run", "-it", "--rm", "--hostname", "alpha", "busybox", "sh")


def test_the_shell_of_the_issue(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    with host_unchanged(), terminal(minicontainer, *SHELL) as window:
        before = window.mode()
        window.expect(r"# ")
        assert is_raw(window.mode())
        window.type("hostname\r")
        window.expect(r"hostname\r\nalpha\r\n")
        window.type("tty; ls -l /dev/console; test -t 0 && test -t 1 && test -t 2 && echo all\r")
        window.expect(r"/dev/pts/0\r\n.*/dev/console\r\nall\r\n")
        window.type("exit 3\r")
        assert window.end() == 3
        assert window.mode() == before
    assert minicontainer.containers() == []


def test_the_window_size_passes_and_changes(minicontainer: Command) -> None:
    # Not an interactive shell: that would make the group of each sleep the foreground one, to which SIGWINCH goes.
    script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 1; done"
    with terminal(minicontainer, "run", "-it", "--rm", "busybox", "sh", "-c", script) as window:
        window.expect(r"33 99\r\n")
        window.expect(r"ready\r\n")
        window.resize(11, 77)
        window.expect(r"11 77\r\n")
        window.process.send_signal(signal.SIGTERM)
        assert window.end() == 143


def test_control_c_reaches_the_program_and_not_us(minicontainer: Command) -> None:
    with terminal(minicontainer, *SHELL) as window:
        window.expect(r"# ")
        window.type("trap 'echo cau''ght; s=1' INT; echo re''ady; until [ $s ]; do sleep 1; done\r")
        window.expect(r"ready\r\n")
        window.type("\x03")
        window.expect(r"caught\r\n")
        window.type("exit 5\r")
        assert window.end() == 5


def test_control_c_ends_a_program_that_does_not_care(minicontainer: Command) -> None:
    with terminal(minicontainer, "run", "-it", "--rm", "busybox", "sh", "-c", "echo ready; exec sleep 600") as window:
        before = window.mode()
        window.expect(r"ready\r\n")
        window.type("\x03")
        assert window.end() == 130
        assert window.mode() == before or not is_raw(window.mode())
    assert minicontainer.containers() == []


def test_control_d_is_the_end_of_the_input(minicontainer: Command) -> None:
    with terminal(minicontainer, "run", "-it", "--rm", "busybox", "cat") as window:
        wait_until(lambda: is_raw(window.mode()), "the terminal is raw")
        window.type("line\r")
        window.expect(r"line\r\nline\r\n")
        window.type("\x04")
        assert window.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_restored_after_a_signal(minicontainer: Command, number: signal.Signals) -> None:
    with terminal(minicontainer, "run", "-it", "--rm", "busybox", "sh", "-c", "echo ready; exec sleep 600") as window:
        window.expect(r"ready\r\n")
        assert is_raw(window.mode())
        window.process.send_signal(number)
        assert window.end() == 128 + number
        assert not is_raw(window.mode())
    assert minicontainer.containers() == []


def test_the_terminal_is_restored_after_the_container_was_killed(minicontainer: Command) -> None:
    with terminal(
        minicontainer, "run", "-it", "--name", "alpha", "busybox", "sh", "-c", "echo ready; exec sleep 600"
    ) as window:
        before = window.mode()
        window.expect(r"ready\r\n")
        assert minicontainer("rm", "-f", "alpha").returncode == 0
        assert window.end() == 137
        assert window.mode() == before
    assert minicontainer.containers() == []


@pytest.mark.parametrize("command", ["nope", "/etc/passwd"])
def test_the_terminal_is_as_it_was_when_nothing_could_be_started(minicontainer: Command, command: str) -> None:
    with terminal(minicontainer, "run", "-it", "--rm", "busybox", command) as window:
        before = window.mode()
        assert window.end() in (126, 127)
        assert window.mode() == before
        with contextlib.suppress(OSError):
            while select.select([window.master], [], [], 0)[0]:
                window.seen += os.read(window.master, 1 << 16)
        assert window.seen.startswith(b"minicontainer: ") and window.seen.count(b"\n") == 1


@pytest.mark.parametrize("script", ["exec sleep 600", "while :; do echo; sleep 0.005; done"])
def test_a_window_that_is_closed_ends_the_container(
    minicontainer: Command, host_unchanged: HostUnchanged, script: str
) -> None:
    """Whoever of the two notices it first: we who hear of it, or we who cannot write there any more."""
    with (
        host_unchanged(),
        terminal(
            minicontainer, "run", "-it", "--rm", "-m", "64m", "busybox", "sh", "-c", f"echo ready; {script}"
        ) as window,
    ):
        window.expect(r"ready\r\n")
        os.close(window.slave)
        os.close(window.master)
        window.process.wait(DEADLINE)
        window.master, window.slave = os.open("/dev/null", os.O_RDWR), os.open("/dev/null", os.O_RDWR)
        wait_until(lambda: minicontainer.containers() == [], "nothing is left")


def test_all_of_the_output_arrives(minicontainer: Command) -> None:
    """What the program wrote just before its end is still in the terminal then."""
    with terminal(minicontainer, "run", "-t", "--rm", "busybox", "sh", "-c", "seq 20000; echo last") as window:
        window.expect(r"^1\r\n.*20000\r\nlast\r\n")
        assert window.end() == 0


def test_a_paste_that_nobody_reads_does_not_stop_us(minicontainer: Command) -> None:
    """The program sleeps, its terminal is full, and there is more to come: a signal must still be heard."""
    with terminal(
        minicontainer, "run", "-it", "--rm", "busybox", "sh", "-c", "stty -echo; echo ready; exec sleep 600"
    ) as window:
        window.expect(r"ready\r\n")
        os.set_blocking(window.master, False)
        paste = b"0123456789" * 6 + b"\r"
        for _ in range(8000):
            try:
                os.write(window.master, paste)
            except BlockingIOError:
                if not select.select([], [window.master], [], 0.2)[1]:
                    break  # full, all the way to the program
        os.set_blocking(window.master, True)
        window.process.send_signal(signal.SIGTERM)
        assert window.end() == 143
    assert minicontainer.containers() == []


def test_a_long_paste_arrives_whole(minicontainer: Command) -> None:
    with terminal(
        minicontainer,
        "run",
        "-it",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "stty raw -echo; echo ready; head -c 300000 | md5sum",
    ) as window:
        window.expect(r"ready")
        data = b"".join(b"%06d\n" % number for number in range(300000 // 7 + 1))[:300000]
        import hashlib

        os.set_blocking(window.master, False)
        rest = data
        while rest:
            select.select([], [window.master], [], DEADLINE)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(window.master, rest[:4096]) :]
        os.set_blocking(window.master, True)
        window.expect(hashlib.md5(data).hexdigest())
        assert window.end() == 0


def test_a_terminal_for_the_program_alone(minicontainer: Command) -> None:
    """-t without -i and without a terminal outside: the program has one, and what it writes is passed on."""
    done = minicontainer("run", "-t", "--rm", "busybox", "sh", "-c", "tty; echo text")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "/dev/pts/0\r\ntext\r\n",
        "",
    ) or done.stdout == "/dev/pts/0\ntext\n"
    assert minicontainer.containers() == []


def test_an_interrupt_while_it_starts(minicontainer: Command) -> None:
    """^C in the window before the terminal is raw: the whole foreground group is hit, and nothing is left."""
    for moment in range(12):
        with terminal(minicontainer, *SHELL) as window:
            select.select([], [], [], moment * 0.004)
            window.type("\x03")
            # A shell that is there already survives it, and drops the line that it is in the middle of: type it again.
            deadline = time.monotonic() + DEADLINE
            while window.process.poll() is None and time.monotonic() < deadline:
                window.type("exit 130\r")
                with contextlib.suppress(OSError):
                    while select.select([window.master], [], [], 0.3)[0]:
                        window.seen += os.read(window.master, 1 << 16)
            ended = window.process.poll()
            if b"Fatal Python error: init_" in window.seen:  # before there was a line of ours
                assert ended == 1 and b"minicontainer" not in window.seen, window.seen
            else:
                assert ended in (130, -signal.SIGINT), window.seen
            assert window.mode() == window.before
        assert minicontainer.containers() == [], f"^C after {moment * 4} ms"


def test_nothing_of_the_outer_terminal_is_inside(minicontainer: Command) -> None:
    with terminal(minicontainer, *SHELL) as window:
        window.expect(r"# ")
        window.type("ls -l /proc/1/fd /proc/$$/fd; echo do''ne\r")
        seen = window.expect(r"fd:\r\n.*done\r\n")[0]
        assert os.ttyname(window.slave).encode() not in seen.replace(b"/dev/pts/0", b"")
        window.type("exit\r")
        window.end()
    assert Path("/dev/pts").is_dir()
