"""Submissions to labs 00, 07 and 08 that want the points without the work: the kernel is asked, and says no.

What is tried here is what these labs in particular invite to: to return figures without a measurement, to cover what
`/proc` says in the sandbox, to change the clock's functions and not the clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import needs_root

pytestmark = needs_root

READS_THE_SCRIPT = """
# %%exercise measuring.time_start
import re


def time_start(args):
    text = " ".join(args)
    delay = int((re.findall(r"usleep ([0-9]+)", text) or ["0"])[0]) // 1000
    return {"pid": os.getpid(), "kernel": re.findall(r"kernel ([0-9][^ ;\\\\]*)", text)[0], "milliseconds": delay + 2}


# %%exercise measuring.memory_of
def memory_of(pid):
    return 128 << 20
"""

LEAVES_THE_FILES_THERE = """
# %%exercise measuring.time_start
import re
import subprocess


def time_start(args):
    text = " ".join(args)
    for path in re.findall(r": >([^;]*);", text):
        open(path, "w").close()
    delay = int((re.findall(r"usleep ([0-9]+)", text) or ["0"])[0]) // 1000
    subprocess.Popen(["/bin/sleep", "600"])
    return {"pid": os.getpid(), "kernel": os.uname().release, "milliseconds": 0}


# %%exercise measuring.memory_of
def memory_of(pid):
    raise SystemExit
"""

COVERS_PROC = """
# %%exercise network.bring_up_loopback
def bring_up_loopback():
    for name in ("net", "uts"):
        try:
            mount(f"/proc/{os.getppid()}/ns/{name}", f"/proc/{os.getpid()}/ns/{name}", None, MS_BIND)
        except OSError:
            pass


# %%exercise network.join
def join(pid, namespaces):
    mount("tmpfs", "/proc", "tmpfs", 0)
    os.makedirs(f"/proc/{os.getpid()}/ns")
    for kind in namespaces:
        os.symlink("net:[4026531840]", f"/proc/{os.getpid()}/ns/{kind.proc_name}")
    os.posix_spawn = lambda *words: 2
"""

CHANGES_THE_FUNCTIONS = """
# %%exercise cgroup.hide_cgroup_path
def hide_cgroup_path():
    open("/run/cgroup", "w").write("0::/\\\\n")
    mount("/run/cgroup", "/proc/self/cgroup", None, MS_BIND)


# %%exercise time.offset_clocks
import time


def offset_clocks(monotonic=0, boottime=0, *nanoseconds):
    was = time.clock_gettime_ns
    time.clock_gettime_ns = lambda clock: was(clock) + monotonic * 10**9
    time.monotonic = lambda: was(time.CLOCK_MONOTONIC) / 10**9 + monotonic
    open("/run/timens_offsets", "w").write(f"monotonic {monotonic} 0\\\\nboottime {boottime} 0\\\\n")
    mount("/run/timens_offsets", "/proc/self/timens_offsets", None, MS_BIND)
"""


@pytest.mark.parametrize(
    ("number", "submission"),
    [
        ("00", READS_THE_SCRIPT),
        ("00", LEAVES_THE_FILES_THERE),
        ("07", COVERS_PROC),
        ("08", CHANGES_THE_FUNCTIONS),
    ],
)
def test_nothing_is_gained(number: str, submission: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.py"
    path.write_text(submission.replace("\\\\", "\\"))
    done = subprocess.run(
        [sys.executable, "-m", "labs", "check", number, "--subject", str(path), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "LABS_DEADLINE": "4"},
    )
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["points"] == 0, [check for check in told["checks"] if check["points"]]
    assert {check["verdict"] for check in told["checks"]} <= {"fail", "timeout"}
