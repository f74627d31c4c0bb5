"""``logs -f``: how much later a line is there than at the end of the program's own pipe.

Two containers run cat(1). Into one a line goes by the pipes of `run -i`, and comes back by them: that is what two
switches of context and cat itself take. Into the other one, which runs by itself, it goes by its named pipe; process 1
reads what cat writes, and writes it into the log; `logs -f` is told by inotify(7), reads the log, and writes the line
where we wait for it. What the second takes longer, round by round, is what is added.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks.measure import Goal, Report, Series, take_turns

ROUNDS = 500
DIRECT, FOLLOWED, ADDED = "run -i", "run -di, logs -f", "what logs -f adds"


def measure(rounds: int = ROUNDS) -> Report:
    """Both in turns. Raises SystemExit: `minicontainer` is not installed, a container did not start."""
    program = Path(sys.executable).with_name("minicontainer")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as root, contextlib.ExitStack() as stack:
        command = [str(program), "--root", root]
        cat = ["--network", "none", "busybox", "cat"]
        done = subprocess.run([*command, "run", "-di", "--name", "alone", *cat], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"benchmarks: {done.stderr}")
        stack.callback(subprocess.run, [*command, "rm", "-f", "alone"], stdout=subprocess.DEVNULL, check=False)
        stdin = stack.enter_context(open(f"{root}/containers/{done.stdout.strip()}/stdin", "wb", buffering=0))
        follows = stack.enter_context(_running([*command, "logs", "-f", "alone"]))
        beside = stack.enter_context(_running([*command, "run", "--rm", "-i", *cat]))
        assert follows.stdout and beside.stdin and beside.stdout
        series = take_turns(
            {
                DIRECT: partial(_there_and_back, beside.stdin, beside.stdout),
                FOLLOWED: partial(_there_and_back, stdin, follows.stdout),
            },
            rounds,
        )
    direct, followed = series
    added = [late - early for late, early in zip(followed.samples, direct.samples, strict=True)]
    title = "A line of a container that is followed"
    return Report("follow", title, "ms", [*series, Series(ADDED, added)], Goal(ADDED, 1.0))


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            yield process
        finally:
            process.terminate()


def _there_and_back(into: IO[bytes], out: IO[bytes]) -> float:
    """Milliseconds."""
    line = b"%d\n" % time.perf_counter_ns()
    begin = time.perf_counter()
    os.write(into.fileno(), line)
    if os.read(out.fileno(), 64) != line:
        raise SystemExit("benchmarks: something else came back than the line")
    return (time.perf_counter() - begin) * 1000
