"""Grading: `labs grade 03` over a folder of notebooks, each in a sandbox of its own.

The notebooks are what a class hands in: right answers, wrong ones (the lab's own mutants) and untouched ones.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

from benchmarks.measure import Goal, Report, Series, take_turns

ROUNDS = 5
STUDENTS = 20
LAB = "03"
OURS = "a submission"
COURSE = Path(__file__).parents[1] / "labs/course"
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

RIGHT = '''\
def set_names(host, domain=None):
    """The answer that the lab teaches."""
    unshare(CLONE_NEWUTS)
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
'''


def measure(rounds: int = ROUNDS, students: int = STUDENTS) -> Report:
    """Grade the class `rounds` times. Raises SystemExit: `labs` is not installed, or fails."""
    labs = Path(sys.executable).with_name("labs")
    if not labs.exists():
        raise SystemExit(f"benchmarks: there is no {labs}: make setup")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        handed_in = Path(directory, "submissions")
        _hand_in(handed_in, students)
        graded = iter(range(1 << 20))
        once = lambda: _grade(labs, handed_in, Path(directory, f"grades-{next(graded)}"), students)  # noqa: E731
        series = take_turns({OURS: once}, rounds, warm_up=1)
    processors = len(os.sched_getaffinity(0))
    return Report(
        "grading",
        f"Grading: `labs grade {LAB}` of {students} notebooks, seconds for each; {processors} processors, isolation on",
        "s",
        [Series(OURS, series[0].samples)],
        Goal(OURS, 0.25),
    )


def _grade(labs: Path, handed_in: Path, out: Path, students: int) -> float:
    """Seconds for each submission of one run over the whole class."""
    begin = time.perf_counter()
    done = subprocess.run(
        [labs, "grade", LAB, handed_in, "--out", out], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    taken = time.perf_counter() - begin
    if done.returncode != 0:
        raise SystemExit(f"benchmarks: labs grade {LAB}: exit status {done.returncode}: {done.stderr.strip()[-2000:]}")
    with (out / "grades.csv").open(newline="") as grades:
        rows = {row["student"]: row for row in csv.DictReader(grades)}
    # A grader that grades nothing is fast: look at the grades before believing the time.
    right = rows.get("student-00", {})
    if len(rows) != students or not right or float(right["points"]) != float(right["max"]):
        raise SystemExit(f"benchmarks: labs grade {LAB} gave other grades than it should: {list(rows.values())[:3]}")
    return taken / students


def _hand_in(directory: Path, students: int) -> None:
    """A folder of notebooks, ``student-NN.ipynb``; every other one is right, the first among them."""
    directory.mkdir()
    wrong = [_cell_of(mutant) for mutant in sorted(COURSE.glob(f"{LAB}_*/mutants/*.py"))]
    wrong.append('"""Nothing was written."""\n')
    for number, answer in enumerate(islice(_alternating(wrong), students)):
        notebook = _notebook(f"%%exercise uts.set_names\n{answer}")
        (directory / f"student-{number:02}.ipynb").write_text(json.dumps(notebook))


def _alternating(wrong: list[str]) -> Iterator[str]:
    for answer in cycle(wrong):
        yield RIGHT
        yield answer


def _cell_of(mutant: Path) -> str:
    """What stands below ``# %%exercise …`` in a mutant's file."""
    return re.split(r"^# %%exercise .*\n", mutant.read_text(), maxsplit=1, flags=re.MULTILINE)[-1]


def _notebook(source: str) -> dict[str, object]:
    """The lab's notebook as students get it, with this exercise cell; where there is none, of this cell only."""
    cell: dict[str, object] = {
        "cell_type": "code",
        "id": "exercise",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": source,
    }
    given = sorted(NOTEBOOKS.glob(f"{LAB}-*.ipynb"))
    if not given:
        return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    notebook: dict[str, object] = json.loads(given[0].read_text())
    cells = notebook["cells"]
    assert isinstance(cells, list)
    notebook["cells"] = [
        cell if "".join(other["source"]).startswith("%%exercise uts.set_names") else other for other in cells
    ]
    return notebook
