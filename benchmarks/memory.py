"""Memory that helpers of detached containers hold: our process 1 in each, the keeper of all that have a restart policy,
and conmon for as many of podman's.

PSS, /proc/PID/smaps_rollup: pages that several processes share are counted in parts.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Goal, Report, Series
from minicontainer.engine import Engine

ROUNDS, MANY = 3, 20
FIRST, EACH, KEEPER = "process 1 of one", f"process 1, each of {MANY}", "the keeper of one"
KEEPER_MANY, CONMON, CONMON_EACH = f"the keeper of {MANY}", "conmon of one", f"conmon, each of {MANY}"


def measure(rounds: int = ROUNDS, many: int = MANY) -> Report:
    """All in turns. Raises SystemExit: `minicontainer` is not installed."""
    program = Path(sys.executable).with_name("minicontainer")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    found: dict[str, list[float]] = {name: [] for name in (FIRST, EACH, KEEPER, KEEPER_MANY)}
    missing = dict[str, str]()
    for _ in range(rounds):
        for one, keeper, count in ((FIRST, KEEPER, 1), (EACH, KEEPER_MANY, many)):
            with _ours(program, count) as (pids, kept_by):
                found[one].append(sum(map(pss, pids)) / count)
                found[keeper].append(pss(kept_by))
        if missing:
            continue
        try:
            for one, count in ((CONMON, 1), (CONMON_EACH, many)):
                with _podmans(count) as pids:
                    found.setdefault(one, []).append(sum(map(pss, pids)) / count)
        except (OSError, subprocess.SubprocessError) as error:
            missing = {CONMON: f"not measured: {error}", CONMON_EACH: "likewise"}
            found = {name: samples for name, samples in found.items() if name not in missing}
    title = f"Memory of the helpers of detached containers (PSS), at one and at {many}"
    series = [Series(name, samples) for name, samples in found.items()]
    return Report("memory", title, "MB", series, Goal(FIRST, 1.5), missing, more_goals=[Goal(EACH, 0.5)])


def pss(pid: int) -> float:
    """The proportional share of a process, in MB. Raises OSError."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/{pid}/smaps_rollup has no line Pss")


@contextlib.contextmanager
def _ours(program: Path, count: int) -> Iterator[tuple[list[int], int]]:
    """So many containers; their processes 1, and the keeper."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as root:
        run = [str(program), "--root", root, "run", "-d", "--network", "none", "--restart", "always", "busybox"]
        try:
            for _ in range(count):
                subprocess.run([*run, "sleep", "600"], check=True, capture_output=True)
            engine = Engine(root)
            pids = [state.pid or 0 for _, state in engine.containers()]
            yield pids, _keeper(root)
        finally:
            for config, _ in Engine(root).containers():
                Engine(root).remove(config, force=True)


def _keeper(root: str) -> int:
    """Who holds the keeper's lock. Raises SystemExit: nobody does, for ten seconds."""
    inode, deadline = f":{Path(root, 'keeper.lock').stat().st_ino}", time.monotonic() + 10
    while time.monotonic() < deadline:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        for words in locks:
            if words[-3].endswith(inode) and words[3] == "WRITE":
                return int(words[4])
        time.sleep(0.01)
    raise SystemExit("benchmarks: there is no keeper")


@contextlib.contextmanager
def _podmans(count: int) -> Iterator[list[int]]:
    """So many of podman's; their conmons."""
    if not (podman := shutil.which("podman")):
        raise FileNotFoundError("podman is not installed")
    with tempfile.TemporaryDirectory(prefix="benchmark-podman-") as root, tempfile.TemporaryDirectory() as image:
        Path(image, "bin").mkdir()
        shutil.copy("/bin/busybox", Path(image, "bin"))
        command = [podman, "--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs"]
        try:
            for _ in range(count):
                run = [*command, "run", "-d", "--network", "none", "--ulimit=host", "--cgroups=disabled"]
                words = ["--rootfs", image, "/bin/busybox", "sleep", "600"]
                done = subprocess.run([*run, *words], capture_output=True, text=True, timeout=60)
                if done.returncode:
                    raise OSError(f"podman run: {done.stderr.strip()}")
            listed = subprocess.run([*command, "ps", "-q"], check=True, capture_output=True, text=True, timeout=60)
            inspect = [*command, "inspect", *listed.stdout.split()]
            about = subprocess.run(inspect, check=True, capture_output=True, text=True, timeout=60)
            yield [int(Path(one["ConmonPidFile"]).read_text()) for one in json.loads(about.stdout)]
        finally:
            subprocess.run(
                [*command, "rm", "--all", "--force", "-t", "0"], capture_output=True, check=False, timeout=120
            )
