"""``labs grade``: a row for every entry of a folder, whatever is in it, and nothing left behind."""

from __future__ import annotations

import csv
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from labs.grading.feedback import file_name
from tests.grading.conftest import DEADLINE, RIGHT, exercise, labs, notebook
from tests.host_state import HostUnchanged


def grades(folder: Path, out: Path, **options: object) -> dict[str, dict[str, str]]:
    """Grade, and return the rows by student."""
    done = labs("grade", "03", folder, "--out", out, **options)
    assert done.returncode == 0, done.stderr
    with (out / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["student", "lab", "points", "max", "status", "reason"]
    return {row["student"]: row for row in rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of submissions, with one right answer in it."""
    (tmp_path / "class").mkdir()
    (tmp_path / "class/good.ipynb").write_text(notebook("%%exercise uts.set_names\n" + RIGHT))
    return tmp_path / "class"


def test_every_entry_has_a_row(folder: Path, tmp_path: Path) -> None:
    (folder / "module.py").write_text(exercise(RIGHT))
    (folder / "directory").mkdir()
    (folder / "directory/anything.ipynb").write_text(notebook("%%exercise uts.set_names\n" + RIGHT))
    (folder / "nothing").mkdir()
    (folder / "broken.ipynb").write_text('{"cells": [')
    (folder / "deep.ipynb").write_text("[" * 200_000)
    (folder / "latin.py").write_bytes(b"# %%exercise uts.set_names\n\xff\xfe")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "huge.py").touch()
    os.truncate(folder / "huge.py", 1 << 33)
    os.mkfifo(folder / "pipe.ipynb")
    (folder / "link.ipynb").symlink_to("good.ipynb")
    (folder / "dangling.py").symlink_to("/nowhere")
    (folder / "linked").mkdir()
    (folder / "linked/good.ipynb").symlink_to("../good.ipynb")
    (folder / "other.py").write_text(exercise("def pivot(root): ...", "mount.pivot"))
    rows = grades(folder, tmp_path / "out")
    assert len(rows) == len(list(folder.iterdir()))
    for student in ("good", "module", "directory"):
        assert (rows[student]["points"], rows[student]["status"]) == (rows[student]["max"], "graded")
    for student in ("broken", "deep", "latin", "binary", "huge", "pipe", "link", "dangling", "linked"):
        assert (rows[student]["points"], rows[student]["status"]) == ("0", "unreadable"), rows[student]
    for student in ("nothing", "other"):
        assert (rows[student]["points"], rows[student]["status"]) == ("0", "empty")
    assert all(row["reason"] for row in rows.values())
    assert {path.stem for path in (tmp_path / "out/feedback").iterdir()} == set(rows)


def test_entries_of_one_name_stay_apart(folder: Path, tmp_path: Path) -> None:
    (folder / "good.py").write_text("")
    (folder / "good").mkdir()
    rows = grades(folder, tmp_path / "out")
    assert {student: row["points"] == row["max"] for student, row in rows.items()} == {
        "good": False,
        "good.ipynb": True,
        "good.py": False,
    }


def test_a_duplicate_counts_last_and_the_student_is_told(folder: Path, tmp_path: Path) -> None:
    twice = notebook("%%exercise uts.set_names\ndef set_names(host): 1/0", "%%exercise uts.set_names\n" + RIGHT)
    (folder / "twice.ipynb").write_text(twice)
    row = grades(folder, tmp_path / "out")["twice"]
    assert row["points"] == row["max"]
    assert "uts.set_names is there 2 times: the last one counts" in row["reason"]


def test_what_a_submission_says_is_only_text_on_its_page(folder: Path, tmp_path: Path) -> None:
    says = "def set_names(host, domain=None):\n    raise ValueError('<script>alert(1)</script>\\033[2J \\ud800')\n"
    (folder / "<b>.py").write_text(exercise(says))
    grades(folder, tmp_path / "out")
    page = (tmp_path / "out/feedback/<b>.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "\033" not in page


def test_the_results_are_there_for_other_tools(folder: Path, tmp_path: Path) -> None:
    grades(folder, tmp_path / "out")
    told = json.loads((tmp_path / "out/results.json").read_text())
    [submission] = told["submissions"]
    assert (told["lab"], submission["student"], submission["points"]) == ("03", "good", told["max"])
    assert all(check["evidence"] for check in submission["checks"])


def test_the_name_of_a_page_fits_into_a_directory() -> None:
    long = "é" * 127
    assert len(file_name(long).encode()) < 250
    assert file_name(long) != file_name(long + "x")


@pytest.mark.parametrize(
    ("directory", "out", "said"),
    [
        ("nowhere", "out", "there is no such directory"),
        ("class", "class/out", "would be taken for a submission"),
        ("class", "file", "File exists"),
    ],
)
def test_a_mistake_of_the_instructor_is_one_line(
    folder: Path, tmp_path: Path, directory: str, out: str, said: str
) -> None:
    (tmp_path / "file").touch()
    done = labs("grade", "03", tmp_path / directory, "--out", tmp_path / out)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(
    folder: Path, tmp_path: Path, host_unchanged: HostUnchanged, number: int
) -> None:
    """The signal comes when a submission's endless loop is running, and to every process of the terminal."""
    beat = "def set_names(host, domain=None):\n    while True: pass\n"
    for student in range(3):
        (folder / f"loop{student}.py").write_text(exercise(beat))
    line = [sys.executable, "-c", "import sys; from labs.cli import main; sys.exit(main())"]
    line += ["grade", "03", str(folder), "--out", str(tmp_path / "out")]
    with host_unchanged():
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(1000):
            started = [child for child in psutil.Process(process.pid).children(recursive=True) if _is_sandbox(child)]
            if len(started) >= 2:
                break
            select.select([], [], [], 0.01)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert said == "labs: interrupted; nothing was written\n"
    assert not (tmp_path / "out/grades.csv").exists()


def _is_sandbox(process: psutil.Process) -> bool:
    try:
        return "/classroom/inside.py" in process.cmdline()
    except psutil.NoSuchProcess:
        return False
