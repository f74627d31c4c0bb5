"""Statistics: one look at what 100 running containers use, as a call of `Engine.statistics` and as a command.

Beside them psutil, a C library with a Python face, as it reads as much about 100 processes, which knows nothing of
containers; and the engine's own files, only opened, read and closed: what the kernel needs for its part.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks import calls
from benchmarks.measure import Goal, Report, command_time, take_turns
from minicontainer.engine import Engine

ROUNDS = 40
CONTAINERS = 100
OURS, COMMAND = "Engine.statistics", "minicontainer stats --no-stream"
PSUTIL, FILES = "psutil, of as many processes", "the same files, only read"


def measure(rounds: int = ROUNDS, containers: int = CONTAINERS) -> Report:
    """All in turns. Raises SystemExit: not root, or `minicontainer` is not installed."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: stats wants containers whose groups have every controller: run it as root")
    program = Path(sys.executable).with_name("minicontainer")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as root, contextlib.ExitStack() as running:
        engine = Engine(root)
        pids = [
            running.enter_context(engine.started("busybox", ["sleep", "600"], name=f"c{number}")).pid
            for number in range(containers)
        ]

        def look() -> None:
            found = engine.statistics()
            # Whoever finds nothing is quick: see that it was all there.
            if len(found) != containers or any(one.usage.memory is None or one.usage.cpu is None for one in found):
                raise SystemExit(f"benchmarks: {len(found)} of {containers} containers have statistics")

        files = calls.files_read_by(look)
        subjects: dict[str, Callable[[], float]] = {
            OURS: partial(_time, look),
            COMMAND: partial(command_time, [str(program), "--root", root, "stats", "--no-stream"]),
            PSUTIL: partial(_time, partial(_processes, pids)),
            FILES: partial(_time, partial(_read, files)),
        }
        series = take_turns(subjects, rounds)
    return Report(
        "stats",
        f"Statistics of {containers} running containers",
        "ms",
        series,
        Goal(OURS, 20.0),
        notes=[f"Files that are read for one look: {len(files)}."],
    )


def _time(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    return (time.perf_counter() - begin) * 1000


def _processes(pids: Sequence[int]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for pid in pids:
        process = psutil.Process(pid)
        with process.oneshot():
            found.append(
                (
                    process.memory_info(),
                    process.cpu_times(),
                    process.num_threads(),
                    process.io_counters(),
                    process.status(),
                )
            )
    return found


def _read(files: Sequence[str]) -> None:
    for file in files:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        os.read(fd, 1 << 16)
        os.close(fd)
