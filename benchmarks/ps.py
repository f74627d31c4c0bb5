"""``ps`` of 200 containers, 50 of them running, beside podman's of as many (created) ones."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Goal, Report, command_time, take_turns
from minicontainer.engine import Engine

ROUNDS = 30
CONTAINERS, RUNNING = 200, 50
OURS, FILTERED, PODMAN = "minicontainer ps -a", "minicontainer ps -a --filter --format", "podman ps -a"


def measure(rounds: int = ROUNDS, containers: int = CONTAINERS) -> Report:
    """All in turns. Raises SystemExit: `minicontainer` is not installed."""
    program = Path(sys.executable).with_name("minicontainer")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    missing = dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as root, contextlib.ExitStack() as others:
        engine = Engine(root)
        for number in range(containers - RUNNING):
            engine.create("busybox", ["sleep", "600"], name=f"c{number}")
        for number in range(RUNNING):
            others.enter_context(engine.started("busybox", ["sleep", "600"], name=f"r{number}"))
        ours = [str(program), "--root", root, "ps", "-a"]
        if (there := subprocess.run(ours, capture_output=True, text=True, check=True).stdout.count("\n")) <= containers:
            raise SystemExit(f"benchmarks: ps lists {there} lines of {containers} containers")
        subjects: dict[str, Callable[[], float]] = {
            OURS: partial(command_time, ours),
            FILTERED: partial(command_time, [*ours, "--filter", "name=c1", "--format", "{{.Names}} {{.Status}}"]),
        }
        try:
            podman = others.enter_context(_podman(containers))
        except (OSError, subprocess.SubprocessError) as error:
            missing[PODMAN] = f"not measured: {error}"
        else:
            subjects[PODMAN] = partial(command_time, [*podman, "ps", "-a"])
        series = take_turns(subjects, rounds)
    title = f"A list of {containers} containers, {RUNNING} of them running (podman's: none)"
    return Report("ps", title, "ms", series, Goal(OURS, 60.0), missing)


@contextlib.contextmanager
def _podman(containers: int) -> Iterator[list[str]]:
    """podman with a place of its own and so many created containers in it."""
    found = shutil.which("podman")
    if not found:
        raise FileNotFoundError("podman is not installed")
    with tempfile.TemporaryDirectory(prefix="benchmark-podman-") as root, tempfile.TemporaryDirectory() as empty:
        podman = [found, "--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs"]
        try:
            for _ in range(containers):
                create = [*podman, "create", "--network", "none", "--rootfs", empty, "true"]
                subprocess.run(create, check=True, capture_output=True, timeout=60)
            yield podman
        finally:
            subprocess.run([*podman, "rm", "--all", "--force"], capture_output=True, check=False, timeout=120)
