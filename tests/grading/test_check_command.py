"""``labs check``: what other tools rely on, and what a person reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.grading.conftest import RIGHT, exercise, labs, notebook

Write = Callable[..., Path]


def result(path: Path) -> tuple[int, dict[str, object], list[dict[str, object]]]:
    """Exit status, JSON, and its checks."""
    done = labs("check", "03", "--subject", path, "--json")
    told = json.loads(done.stdout)
    return done.returncode, told, told["checks"]


def test_the_right_answer_has_full_marks_and_exit_status_0(submission: Write) -> None:
    status, told, checks = result(submission(exercise(RIGHT)))
    assert (status, told["lab"], told["points"]) == (0, "03", told["max"])
    for check in checks:
        assert {"name", "points", "max", "verdict", "diagnosis", "evidence"} <= check.keys()
        assert check["verdict"] == "pass"
        assert check["evidence"], "a verdict without what the kernel showed"


@pytest.mark.parametrize(
    "body",
    ["pass", "...", '"""Only said."""', "raise NotImplementedError", "raise NotImplementedError('later')"],
)
def test_what_is_not_written_has_no_points_in_any_check(submission: Write, body: str) -> None:
    status, told, checks = result(submission(exercise(f"def set_names(host, domain=None):\n    {body}\n")))
    assert (status, told["points"]) == (1, 0)
    assert {check["verdict"] for check in checks} == {"fail"}
    for check in checks:
        assert "is still empty" in str(check["diagnosis"]) or "is not written yet" in str(check["diagnosis"])


def test_a_file_without_the_exercise_says_which_cell_is_missing(submission: Write) -> None:
    status, told, checks = result(submission(notebook("x = 1"), "other.ipynb"))
    assert (status, told["points"]) == (1, 0)
    assert {check["diagnosis"] for check in checks} == {"uts.set_names: no cell begins with %%exercise uts.set_names"}


def test_a_file_that_is_no_notebook_is_json_all_the_same(submission: Write) -> None:
    status, told, checks = result(submission('{"cells": [', "broken.ipynb"))
    assert (status, told["points"]) == (1, 0)
    assert "broken.ipynb is not a notebook" in str(checks[0]["diagnosis"])


def test_an_exception_is_told_with_its_line(submission: Write) -> None:
    _, _, checks = result(submission(exercise("def set_names(host, domain=None):\n    host.nothing()\n")))
    assert "AttributeError" in str(checks[0]["diagnosis"])
    assert "(line 3 of the cell)" in str(checks[0]["diagnosis"])


def test_an_endless_loop_costs_one_deadline(submission: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_DEADLINE", "1")
    status, told, checks = result(submission(exercise("def set_names(host, domain=None):\n    while True: pass\n")))
    assert (status, told["points"]) == (1, 0)
    assert {check["verdict"] for check in checks} == {"timeout"}
    assert sum("not run" in str(check["diagnosis"]) for check in checks) == len(checks) - 1


def test_several_files_are_one_submission_and_the_last_counts(submission: Write) -> None:
    wrong = submission(exercise("def set_names(host, domain=None):\n    raise ValueError\n"), "a.py")
    right = submission(exercise(RIGHT), "b.py")
    assert labs("check", "03", "--subject", wrong, "--subject", right).returncode == 0
    assert labs("check", "03", "--subject", right, "--subject", wrong).returncode == 1


def test_a_person_is_told_the_points_the_diagnosis_and_where_to_look(submission: Write) -> None:
    done = labs("check", "03", "--subject", submission(exercise(RIGHT.replace("sethostname(host)", "host"))))
    assert done.returncode == 1
    assert " points\n" in done.stdout.splitlines(True)[0]
    assert "fail    0 / 2  It has the host name that it was given" in done.stdout
    assert "sethostname() was not called" in done.stdout
    assert "look at: sethostname(2)" in done.stdout
    assert "\033" not in done.stdout, "colours, where there is no terminal"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["check", "99", "--subject", "."], 2, "labs: there is no lab 99; there are: "),
        (["check", "03", "--subject", "/nowhere.ipynb"], 2, "labs: /nowhere.ipynb: there is no such file"),
        (
            ["check", "03", "--subject", "/usr/bin/env"],
            3,
            "labs: /usr/bin/env lies below /usr, which every submission can",
        ),
    ],
)
def test_a_mistake_of_the_instructor_is_one_line(arguments: list[str], status: int, said: str) -> None:
    done = labs(*arguments)
    assert done.returncode == status
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
