"""Looks from within namespaces, and tells: a program of its own, because to look one has to be in there.

    python -m labs.notebook.within groups PID                       # /proc/PID/cgroup, read in its cgroup namespace
    python -m labs.notebook.within clocks EXERCISES SECONDS SECONDS # clocks, after `offset_clocks`; EXERCISES "-": ours

It has one thread, as setns(2) wants it, so nothing that draws is imported here. It writes JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minicontainer.linux import CLONE_NEWCGROUP, CLONE_NEWUSER, Namespace, pidfd_open, setns

CLOCKS = {"monotonic": time.CLOCK_MONOTONIC, "boottime": time.CLOCK_BOOTTIME, "time of day": time.CLOCK_REALTIME}
ROOT = ("unshare", "--user", "--map-root-user", "--fork", "--kill-child")


def told(*words: str, prefix: Sequence[str] = ()) -> dict[str, Any]:
    """What this file, run as a program, has found out. Raises RuntimeError: it has failed, and why."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "labs.notebook.within", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "the program that was to look has failed").splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def groups(pid: int) -> dict[str, str]:
    """The control group of a process in every tree, by its controllers, as seen from our own cgroup namespace."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return {controllers: path for _, controllers, path in lines}


def read_clocks() -> dict[str, float]:
    """What the clocks say to us, in seconds."""
    return {name: time.clock_gettime(clock) for name, clock in CLOCKS.items()}


def main(words: list[str]) -> dict[str, Any]:
    """Go there, and look."""
    if words[0] == "groups":
        pid = int(words[1])
        other = Namespace.USER.link(pid) != Namespace.USER.link()
        setns(pidfd_open(pid), CLONE_NEWCGROUP | (CLONE_NEWUSER if other else 0))
        return dict(groups(pid))
    from minicontainer.steps import Steps
    from minicontainer.steps.loading import define, read_exercises

    functions = define(read_exercises([Path(words[1])]).values())[0] if words[1] != "-" else {}
    steps = Steps().with_functions(functions)
    steps.offset_clocks(int(words[2]), int(words[3]))
    return {**read_clocks(), "namespace": Namespace.TIME.link()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
