"""Lab 00's comparison: what is measured, by whose functions, and that a run of another day is never taken for one of today.

Everything runs in a process of its own: what matplotlib opens, and numpy's threads, would stay in ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from labs.notebook import machines

MEASURE = "import json; from labs.notebook import machines; print(json.dumps(machines.measured({mine})))"
DRAW = """\
from labs.notebook.comparison import compare
from labs.notebook.pictures import read_aloud
print(read_aloud(compare.figure()))
"""
MINE = """\
from labs.notebook.session import session
session.store("measuring.memory_of", "def memory_of(pid):\\n    {body}\\n")
"""


def run(code: str, place: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program that keeps the labs' state in `place`."""
    env = {**os.environ, "MINICONTAINER_LABS_ROOT": str(place / "state"), "PATH": path or os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, env=env)
    assert done.returncode == 0, done.stderr
    return done


def without_qemu(place: Path) -> str:
    """A PATH with what the lab takes, but for QEMU."""
    tools = place / "tools"
    tools.mkdir()
    for name in ("unshare", "sh", "cat", "sleep", "uname", "busybox"):
        found = shutil.which(name)
        assert found, name
        (tools / name).symlink_to(found)
    return str(tools)


def measured(place: Path, before: str = "", mine: bool = False, path: str | None = None) -> dict[str, Any]:
    """What a program of its own has measured."""
    told: dict[str, Any] = json.loads(run(before + MEASURE.format(mine=mine), place, path).stdout.splitlines()[-1])
    return told


def test_three_kinds_are_measured_and_the_container_has_the_hosts_kernel(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert found["process"]["kernel"] == found["container"]["kernel"] == os.uname().release
    assert 0 < found["process"]["memory"] < found["container"]["memory"] < found["machine"]["memory"]
    assert len(found["container"]["processes"]) >= 3
    if reason := machines.missing():
        assert reason in found["machine"]["recorded"]
        return
    assert "recorded" not in found["machine"]
    assert found["accelerator"] in machines.ACCELERATORS
    assert found["machine"]["kernel"][0].isdigit()
    assert [name for name, _ in found["machine"]["processes"]] == ["qemu-system-x86"]


def test_without_qemu_a_recorded_run_takes_its_place_and_says_so(tmp_path: Path) -> None:
    path = without_qemu(tmp_path)
    found = measured(tmp_path, path=path)
    assert "recorded" not in found["container"]
    assert found["machine"]["recorded"].startswith("recorded 20")
    assert "there is no qemu-system-x86_64" in found["machine"]["recorded"]
    assert found["machine"]["milliseconds"] == json.loads(machines.RECORD.read_text())["machine"]["milliseconds"]
    drawn = run(DRAW, tmp_path, path).stdout
    assert "NOT measured here, recorded 20" in drawn
    assert drawn.count("(recorded)") == 2  # its two bars, and no other
    assert f"accelerator {machines.ACCELERATORS['tcg']}" in drawn


def test_the_students_functions_are_those_that_measure(tmp_path: Path) -> None:
    found = measured(tmp_path, MINE.format(body="return 4711"), mine=True, path=without_qemu(tmp_path))
    assert found["process"]["memory"] == found["container"]["memory"] == 4711


def test_a_function_that_fails_is_told_in_a_line(tmp_path: Path) -> None:
    code = MINE.format(body="raise ValueError(str(pid - pid))") + (
        "from labs.notebook import machines\n"
        "try:\n    machines.measured(True)\nexcept RuntimeError as error:\n    print('told:', error)"
    )
    assert run(code, tmp_path, without_qemu(tmp_path)).stdout.splitlines()[-1] == "told: ValueError: 0"
