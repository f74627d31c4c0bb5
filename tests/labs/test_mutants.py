"""The checks are tested as students will test them: with right answers, none, and wrong ones that might be handed in.

For every lab one class is graded, by the command that an instructor uses. In it are the solved notebook, the notebook
as it is handed out, and each file of the lab's mutants/ laid over the solution.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labs.catalogue import Lab, every
from labs.notebook import build
from minicontainer.steps.loading import read_exercises

PATIENCE = "6"
"""Seconds for LABS_DEADLINE: a wrong answer that waits for ever costs each check half of them."""


@dataclass(frozen=True)
class Mutant:
    """A wrong answer, and what its author says will come of it."""

    path: Path
    lab: Lab

    def header(self, field: str) -> str:
        """What stands behind ``# FIELD:`` at the head of the file."""
        found = re.search(rf"^# {field}: (.+)$", self.path.read_text(encoding="utf-8"), re.MULTILINE)
        assert found, f"{self.path} does not say in its head what {field} is"
        return found[1].strip()

    @property
    def loses(self) -> set[str]:
        """The names of the checks."""
        return set(self.header("loses").replace(",", " ").split())


LABS = {lab.number: lab for lab in every()}
MUTANTS = [Mutant(path, lab) for lab in LABS.values() for path in sorted(lab.directory.glob("mutants/*.py"))]
CLASSES: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the classes of this module are; their grades are forgotten with it."""
    yield tmp_path_factory.mktemp("classes")
    CLASSES.clear()


def graded(lab: Lab, folder: Path) -> dict[str, Any]:
    """The grades of the lab's class by student, as results.json tells them."""
    if lab.number not in CLASSES:
        handed_in = folder / lab.number
        handed_in.mkdir()
        (handed_in / "solved.ipynb").write_text(build.solved(lab), encoding="utf-8")
        (handed_in / "untouched.ipynb").write_text(build.student(lab), encoding="utf-8")
        right = read_exercises([lab.directory / "notebook.py"])
        for mutant in (mutant for mutant in MUTANTS if mutant.lab == lab):
            exercises = {**right, **read_exercises([mutant.path])}
            cells = [
                {"cell_type": "code", "source": f"%%exercise {exercise.name}\n{exercise.source}"}
                for exercise in exercises.values()
            ]
            (handed_in / f"{mutant.path.stem}.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
        nothing = "\n".join(
            f"# %%exercise {name}\ndef {name.partition('.')[2]}(*args, **kwargs):\n    return len(args) - len(args)\n"
            for name in lab.exercises
        )
        (handed_in / "nothing.py").write_text(nothing, encoding="utf-8")
        out = folder / f"{lab.number}-grades"
        done = subprocess.run(
            [sys.executable, "-m", "labs", "grade", lab.number, str(handed_in), "--out", str(out)],
            capture_output=True,
            text=True,
            env={**os.environ, "LABS_DEADLINE": PATIENCE},
        )
        assert done.returncode == 0, done.stderr
        told = json.loads((out / "results.json").read_text(encoding="utf-8"))
        CLASSES[lab.number] = {student["student"]: student for student in told["submissions"]}
    return CLASSES[lab.number]


@pytest.mark.parametrize("number", LABS)
def test_the_solved_notebook_has_full_marks(number: str, folder: Path) -> None:
    student = graded(LABS[number], folder)["solved"]
    assert [check for check in student["checks"] if check["verdict"] != "pass"] == []
    assert student["points"] == student["max"] > 0


@pytest.mark.parametrize("number", LABS)
def test_the_untouched_notebook_has_no_points_and_is_told_why(number: str, folder: Path) -> None:
    student = graded(LABS[number], folder)["untouched"]
    assert student["points"] == 0
    for check in student["checks"]:
        assert check["verdict"] == "fail"
        assert "not written yet" in check["diagnosis"]


@pytest.mark.parametrize("number", LABS)
def test_functions_that_do_nothing_have_no_points(number: str, folder: Path) -> None:
    """No check is passed by an absence alone: "the host kept its name" is no merit where nothing was named."""
    student = graded(LABS[number], folder)["nothing"]
    assert student["points"] == 0, [check for check in student["checks"] if check["points"]]
    assert all("not written" not in check["diagnosis"] for check in student["checks"])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.lab.number}-{mutant.path.stem}")
def test_a_wrong_answer_loses_exactly_its_checks_and_is_told_why(mutant: Mutant, folder: Path) -> None:
    checks = graded(mutant.lab, folder)[mutant.path.stem]["checks"]
    lost = {check["name"]: check["diagnosis"] for check in checks if check["points"] < check["max"]}
    assert lost.keys() == mutant.loses, lost
    for name, diagnosis in lost.items():
        assert re.search(mutant.header("diagnosis"), diagnosis), f"{name}: {diagnosis}"
    assert {check["verdict"] for check in checks} <= {"pass", "fail"}


@pytest.mark.parametrize("number", LABS)
def test_every_lab_has_wrong_answers_for_each_of_its_exercises(number: str) -> None:
    lab = LABS[number]
    mutants = [mutant for mutant in MUTANTS if mutant.lab == lab]
    assert len(mutants) >= 6
    covered = {name for mutant in mutants for name in read_exercises([mutant.path])}
    assert covered == set(lab.exercises)


@pytest.mark.parametrize("number", LABS)
def test_every_check_is_lost_by_some_wrong_answer(number: str, folder: Path) -> None:
    lab = LABS[number]
    names = {check["name"] for check in graded(lab, folder)["solved"]["checks"]}
    assert names == {name for mutant in MUTANTS if mutant.lab == lab for name in mutant.loses}
