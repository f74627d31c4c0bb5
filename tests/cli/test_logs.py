"""Logs of what runs by itself: their front goes as they grow, and whoever follows misses nothing and gets nothing twice."""

from __future__ import annotations

import itertools
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from minicontainer.linux import files
from tests.command import DEADLINE, Command, line_of, lines_of, needs_root, one_line, wait_until

pytestmark = needs_root

BATCHES = "n=0; while read x; do i=0; while [ $i -lt 300 ]; do echo $n; n=$((n+1)); i=$((i+1)); done; done"
"""300 numbers for each line that is read."""


@pytest.fixture(name="alpha")
def in_batches(minicontainer: Command) -> Iterator[int]:
    """A container that writes when it is told to, of whose log 16 to 24 KB are kept; where to tell it."""
    options = ("--log-opt", "max-size=8k", "--log-opt", "max-file=3")
    done = minicontainer("run", "-di", "--name", "alpha", *options, "busybox", "sh", "-c", BATCHES)
    assert done.returncode == 0, done.stderr
    stdin = os.open(minicontainer.root / "containers" / done.stdout.strip() / "stdin", os.O_WRONLY)
    yield stdin
    os.close(stdin)
    minicontainer("rm", "-f", "alpha")


def numbers_to(last: int, stream: IO[str] | None) -> list[int]:
    """What a process writes up to this number; fails after the deadline."""
    assert stream is not None
    text = b""
    while not text.endswith(b"\n") or int(text.split()[-1]) != last:
        if not select.select([stream], [], [], DEADLINE)[0]:
            pytest.fail(f"nothing was written for {DEADLINE} s after {text[-30:]!r}")
        if not (more := os.read(stream.fileno(), 1 << 16)):
            pytest.fail(f"it ended after {text[-30:]!r}")
        text += more
    return [int(word) for word in text.split()]


def log_of(minicontainer: Command) -> Path:
    """The only one."""
    [log] = minicontainer.root.glob("containers/*/log")
    return log


def test_a_follower_follows_across_what_goes(minicontainer: Command, alpha: int) -> None:
    numbers = list(range(300 * 10))
    with minicontainer.running("logs", "-f", "alpha") as follows:
        got = []
        for batch in range(10):
            os.write(alpha, b"\n")
            got += numbers_to(300 * batch + 299, follows.stdout)
        assert got == numbers
        log = log_of(minicontainer)
        kept = range(2 * 8192, 3 * 8192 + 2 * 4096)  # it goes a moment after the line is there
        wait_until(lambda: log.stat().st_blocks * 512 in kept, "the last pieces are there, and nothing before them")
        now = [int(line) for line in minicontainer("logs", "alpha").stdout.split()]
        assert now == numbers[-len(now) :] and 16384 / 42 - 2 <= len(now) < 24576 / 37
        assert minicontainer("logs", "--tail", "3", "alpha").stdout == "2997\n2998\n2999\n"
        minicontainer("stop", "-t", "0", "alpha")
        assert follows.wait(DEADLINE) == 0 and follows.stdout and follows.stdout.read() == ""


def test_who_is_too_slow_goes_on_where_the_log_begins_by_now(minicontainer: Command, alpha: int) -> None:
    """He is held up by a pipe that nobody reads from until more has gone than he can have."""
    os.write(alpha, b"\n")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with minicontainer.running("logs", "-f", "alpha", stdout=writing) as follows:
        os.close(writing)
        with open(reading) as stream:
            assert line_of(stream) == "0\n"
            follows.send_signal(19)  # SIGSTOP
            os.write(alpha, b"\n" * 20)
            with minicontainer.running("logs", "-f", "alpha") as watches:
                numbers_to(300 * 21 - 1, watches.stdout)
            follows.send_signal(18)  # SIGCONT
            minicontainer("stop", "-t", "0", "alpha")
            assert follows.wait(DEADLINE) == 0
            rest = [int(line) for line in stream]
    jumps = [one for before, one in itertools.pairwise(rest) if one != before + 1]
    assert rest[-1] == 300 * 21 - 1 and len(jumps) == 1 and rest == sorted(set(rest))


def test_what_somebody_was_killed_in_spoils_no_other_line(minicontainer: Command) -> None:
    minicontainer("run", "-d", "--name", "alpha", "busybox", "echo", "whole")
    minicontainer("wait", "alpha")
    with log_of(minicontainer).open("ab") as log:
        log.write(b"2026-11-26T10:00:00.000000Z std")
    assert minicontainer("logs", "alpha").stdout == "whole\n"
    minicontainer("start", "alpha")
    minicontainer("wait", "alpha")
    assert minicontainer("logs", "alpha").stdout == "whole\nwhole\n"
    assert log_of(minicontainer).read_bytes().count(b"\n") == 3, "what was there is there"
    minicontainer("rm", "alpha")


def test_process_1_that_is_killed_loses_no_line(minicontainer: Command, alpha: int) -> None:
    os.write(alpha, b"\n\n")
    with minicontainer.running("logs", "-f", "alpha") as follows:
        assert numbers_to(599, follows.stdout) == [*range(600)]
        [pid] = minicontainer("inspect", "--format", "{{.State.Pid}}", "alpha").stdout.split()
        os.kill(int(pid), 9)
        assert follows.wait(DEADLINE) == 0
    assert minicontainer("start", "alpha").returncode == 0
    stdin = os.open(log_of(minicontainer).parent / "stdin", os.O_WRONLY)
    with minicontainer.running("logs", "-f", "alpha") as follows:
        assert numbers_to(599, follows.stdout) == [*range(600)]
        os.write(stdin, b"\n")
        assert numbers_to(299, follows.stdout) == [*range(300)]
    os.close(stdin)


def test_since_and_until(minicontainer: Command) -> None:
    minicontainer("run", "-di", "--name", "alpha", "busybox", "sh", "-c", "echo one; read x; echo two >&2; read x")
    with minicontainer.running("logs", "-ft", "alpha") as follows:
        lines_of(follows.stdout, 1)
        between = time.time()
        stdin = os.open(log_of(minicontainer).parent / "stdin", os.O_WRONLY)
        os.write(stdin, b"\n")
        when = lines_of(follows.stderr, 1)[0].split()[0]
    zoned = f"{when.removesuffix('Z')}+00:00"
    for said in (str(between), f"{between:.6f}", when, zoned):
        late, early = (minicontainer("logs", f"--{option}", said, "alpha") for option in ("since", "until"))
        assert (late.stdout, late.stderr) == ("", "two\n")
        assert early.stdout == "one\n" and early.stderr == ("two\n" if said in (when, zoned) else "")
    assert minicontainer("logs", "--since", "1h30m", "--tail", "1", "alpha").stderr == "two\n"
    assert minicontainer("logs", "--until", "1h", "alpha").stdout == ""
    assert minicontainer("logs", "--since", "2006-01-02", "--until", "2006-01-02T15:04", "alpha").stdout == ""
    # It goes on for a moment that is to come, and no longer, though the container does.
    with minicontainer.running("logs", "-f", "--until", f"{time.time() + 0.2:.3f}", "alpha") as follows:
        assert follows.communicate(timeout=DEADLINE) == ("one\n", "two\n")
    assert time.time() >= between + 0.2
    os.close(stdin)
    minicontainer("rm", "-f", "alpha")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("logs", "--since", "yesterday", "a"), 'logs --since "yesterday": write how long ago'),
        (("logs", "--until", "2026-13-01", "a"), 'logs --until "2026-13-01": write how long ago'),
        (("logs", "--since", "10x", "a"), "10x"),
        (("logs", "--since", "", "a"), 'logs --since ""'),
        (("logs", "--tail", "few", "a"), "--tail few"),
        (("run", "-d", "--log-opt", "max-size", "busybox", "true"), "write max-size=SIZE"),
        (("run", "-d", "--log-opt", "tag=x", "busybox", "true"), "write max-size=SIZE"),
        (("run", "-d", "--log-opt", "max-size=big", "busybox", "true"), 'the size "big"'),
        (("run", "-d", "--log-opt", "max-size=0", "busybox", "true"), "at least 1"),
        (("run", "-d", "--log-opt", "max-file=2", "busybox", "true"), "how big each is"),
        (("run", "-d", "--log-opt", "max-size=1m", "--log-opt", "max-file=0", "busybox", "true"), "at least 1"),
    ],
)
def test_mistakes(minicontainer: Command, words: tuple[str, ...], told: str) -> None:
    done = minicontainer(*words)
    assert done.returncode == 125 and told in one_line(done.stderr) and minicontainer.containers() == []


def test_where_no_front_can_be_taken_away_it_is_refused(minicontainer: Command, tmp_path: Path) -> None:
    """ramfs has no holes."""
    place = tmp_path / "ramfs"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", place], check=True)
    try:
        subprocess.run(["cp", "-a", minicontainer.root / "images", minicontainer.root / "layers", place], check=True)
        there = Command(place)
        done = there("run", "-d", "--network", "none", "--log-opt", "max-size=1m", "busybox", "true")
        assert done.returncode == 125 and "max-size: not on the file system of" in one_line(done.stderr)
        assert there.containers() == []
    finally:
        subprocess.run(["umount", place], check=True)


def test_two_who_write_forget_the_same(tmp_path: Path) -> None:
    """Whoever begins a piece takes the oldest away: they need not know of each other."""
    fds = [os.open(tmp_path / "file", os.O_RDWR | os.O_APPEND | os.O_CREAT) for _ in range(2)]
    for number in range(1000):
        files.append(fds[number % 2], b"%07d\n" % number * 32, 8192, 2)
    assert os.fstat(fds[0]).st_size == 256 * 1000
    gone = os.lseek(fds[0], 0, os.SEEK_DATA)
    assert gone == (256 * 1000 // 8192 - 1) * 8192
    assert os.pread(fds[0], 256, gone) == b"%07d\n" % (gone // 256) * 32
    for fd in fds:
        os.close(fd)
