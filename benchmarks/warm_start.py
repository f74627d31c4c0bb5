"""Warm start: `Engine.run` of /bin/true from a Python that is running already, against C that makes the same calls.

Both sides build an overlay root, all namespaces and a control group with everything that a container gets by default,
hide and protect what every container must not see or write to, drop its capabilities, load its filter of system calls,
run the program below a reaping init, wait, and remove everything; both do so in a process that has done it before. The
C side is start.c, compiled here and now; the calls for the control group, and what is hidden, dropped and loaded, it is
told by calls.py.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import calls
from benchmarks.measure import Driven, Goal, Report, take_turns

ROUNDS = 200
C, PYTHON = "C, the same calls", "Engine.run"


def measure(rounds: int = ROUNDS) -> Report:
    """Both in turns. Raises SystemExit: not root, or no C compiler."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: warm_start starts containers without a user namespace: run it as root")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        state, work = Path(directory, "state"), Path(directory, "work")
        work.mkdir()
        program = compile_start(Path(directory))
        with Driven([sys.executable, "-m", "benchmarks.warm_start", str(state)]) as python:
            from minicontainer.engine import Engine

            python()  # the first start makes the image, which is the root file system of both
            [rootfs] = map(Path, Engine(state).image_layers("busybox"))
            group = calls.write(calls.of_a_group(), Path(directory, "calls"))
            hardening = calls.of_hardening(state, Path(directory))
            with Driven([str(program), str(rootfs), str(work), str(hardening), str(group)]) as c:
                series = take_turns({C: partial(c, 1), PYTHON: python}, rounds)
    return Report(
        "warm_start",
        "Warm start: /bin/true in all namespaces on an overlay root, start to exit and removed",
        "ms",
        series,
        Goal(PYTHON, 2.0, beside=C),
    )


def compile_start(directory: Path) -> Path:
    """Compile start.c into `directory`; returns the program. Raises SystemExit when there is no compiler."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or ""]
    if not compiler[0]:
        raise SystemExit("benchmarks: warm_start needs a C compiler: apt install gcc libc6-dev")
    program, source = directory / "start", Path(__file__).with_name("start.c")
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*compiler, *options, "-o", str(program), str(source)], check=True)
    return program


def drive(root: Path) -> None:
    """The Python side: a container for every line on standard input, its milliseconds on standard output."""
    from minicontainer.engine import Engine

    engine = Engine(root)
    for _ in sys.stdin:
        begin = time.perf_counter()
        status = engine.run("busybox", ["/bin/true"], stdio=(None, None, None)).status
        taken = (time.perf_counter() - begin) * 1000
        if status != 0:
            raise SystemExit(f"benchmarks: the container ended with status {status}")
        print(f"{taken:.4f}", flush=True)


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
