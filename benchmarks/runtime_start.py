"""The OCI runtime: `minicontainer-runtime run` of a busybox bundle, from the command's start to its exit, beside crun
and runc, each with the configuration that its own `spec` writes.

What one run takes beside time is noted: its system calls, all processes together (strace -f), and the memory of the
largest of them (peak RSS). None of the three leaves a helper behind.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Goal, Report, Series, apart, command_time, peak_memory, take_turns
from benchmarks.shell_start import _hide_cgroup2, _oci
from minicontainer.engine import Engine

ROUNDS = 40
OURS = "minicontainer-runtime run"


def measure(rounds: int = ROUNDS) -> Report:
    """All in turns. Raises SystemExit: not root, or `minicontainer-runtime` is not installed."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: runtime_start compares with runtimes that want root: run it as root")
    program = Path(sys.executable).with_name("minicontainer-runtime")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        root = Path(directory)
        [rootfs] = map(Path, Engine(root).image_layers("busybox"))
        commands: dict[str, Sequence[str]] = {OURS: _oci(str(program), rootfs, root)}
        missing = {}
        for name in ("crun", "runc"):
            found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
            if found is None:
                missing[name] = "not installed"
            else:
                commands[f"{name} run"] = _oci(found, rootfs, root)
        answer = apart(partial(_rounds, commands, rounds))
    return Report(
        "runtime_start",
        "OCI runtime: `run` of a bundle with `true`, from the command's start to its exit",
        "ms",
        [Series(name, samples) for name, samples in answer["series"].items()],
        Goal(OURS, 20.0),
        missing,
        answer["notes"],
    )


def _rounds(commands: dict[str, Sequence[str]], rounds: int) -> dict[str, object]:
    notes = []
    if _hide_cgroup2():
        notes.append("All of them saw only version 1 of cgroups, because crun refuses a host with both.")
    for name, command in commands.items():
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"benchmarks: {name}: {done.stderr.strip()}")
    series = take_turns({name: partial(command_time, command) for name, command in commands.items()}, rounds)
    notes += [
        f"{name}: {_calls(command)}; peak RSS {peak_memory(command) / 2**20:.1f} MiB."
        for name, command in commands.items()
    ]
    return {"series": {taken.name: taken.samples for taken in series}, "notes": notes}


def _calls(command: Sequence[str]) -> str:
    strace = shutil.which("strace")
    if strace is None:
        return "system calls were not counted, strace is not installed"
    with tempfile.NamedTemporaryFile("r") as file:
        subprocess.run([strace, "-f", "-qq", "-o", file.name, *command], stdin=subprocess.DEVNULL, check=True)
        count = sum(1 for line in file if re.match(r"\d+ +\w+\(", line))
    return f"{count} system calls in one run"
