"""Hostile answers to the labs on IPC and users, one class each: the files of ``hostile_ids/``.

Each says in its first lines what it tries, why that fails, for which lab it is, and what the diagnoses say. It has the
points of none of the exercises that it answers, and an honest neighbour has all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import needs_root
from tests.host_state import OurPlaces, difference_that_stays, look

pytestmark = needs_root

HERE = Path(__file__).parent
COURSE = HERE.parents[1] / "labs/course"
ATTACKS = sorted((HERE / "hostile_ids").glob("*.py"))
DEADLINE = 5  # s


def header(attack: Path, field: str) -> str:
    found = re.search(rf"^# {field}: (.+)$", attack.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{attack.name} does not say {field}"
    return found[1]


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, our_places: OurPlaces) -> dict[str, dict[str, Any]]:
    """The rows of results.json by student, of both classes. Nothing of them is left on the host."""
    rows: dict[str, dict[str, Any]] = {}
    before = look(our_places)
    for lab in {header(attack, "lab") for attack in ATTACKS}:
        top = tmp_path_factory.mktemp(f"ids-{lab}")
        folder = top / "submissions"
        folder.mkdir()
        for attack in ATTACKS:
            if header(attack, "lab") == lab:
                shutil.copy(attack, folder)
        [solution] = COURSE.glob(f"{lab}_*/notebook.py")
        shutil.copy(solution, folder / f"honest{lab}.py")
        done = subprocess.run(
            [sys.executable, "-m", "labs", "grade", lab, str(folder), "--out", str(top / "grades")],
            env={**os.environ, "LABS_DEADLINE": str(DEADLINE)},
            capture_output=True,
            text=True,
            timeout=60 * DEADLINE,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads((top / "grades/results.json").read_text(encoding="utf-8"))
        rows |= {row["student"]: row for row in told["submissions"]}
    left = difference_that_stays(before, lambda: look(our_places))
    assert not left, left
    return rows


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.stem)
def test_it_gains_nothing_and_is_told_so(attack: Path, graded: dict[str, dict[str, Any]]) -> None:
    row = graded[attack.stem]
    assert row["points"] == 0, row["checks"]
    assert any(re.search(header(attack, "says"), check["diagnosis"]) for check in row["checks"]), row["checks"]
    assert {check["verdict"] for check in row["checks"]} <= {"fail", "timeout"}, row["checks"]


@pytest.mark.parametrize("lab", ["04", "06"])
def test_the_honest_neighbour_has_full_marks(lab: str, graded: dict[str, dict[str, Any]]) -> None:
    assert graded[f"honest{lab}"]["points"] == 10
