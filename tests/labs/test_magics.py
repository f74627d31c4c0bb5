"""The magics in a real kernel: a notebook is executed as Jupyter does it, with every cell's outputs looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labs.catalogue import every
from labs.notebook import build
from labs.notebook.results import Results

LABS = {lab.number: lab for lab in every()}
EXECUTE = """\
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.reads(sys.stdin.read(), as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=not sys.argv[1]).execute()
print(nbformat.writes(notebook))
"""
"""In a process of its own: an event loop's files and threads would stay in ours."""

RIGHT = """\
%%exercise uts.set_names
def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
"""
WRONG = """\
%%exercise uts.set_names
def set_names(host, domain=None):
    sethostname(host)
    unshare(CLONE_NEWUTS)
    if domain is not None:
        setdomainname(domain)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kernels of this module run, and keep what they keep."""
    return tmp_path_factory.mktemp("magics")


def execute(notebook: Any, place: Path, *, stop: bool = False) -> list[Any]:
    """Execute a notebook; its code cells, with outputs. With `stop`, an error ends it unless the cell's tag allows it."""
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, "stop" if stop else ""],
        input=nbformat.writes(notebook),  # type: ignore[no-untyped-call]
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=place,
        env={**os.environ, "MINICONTAINER_LABS_ROOT": str(place / "state"), "IPYTHONDIR": str(place / "ipython")},
    )
    executed = nbformat.reads(done.stdout, as_version=4)  # type: ignore[no-untyped-call]
    return [cell for cell in executed.cells if cell.cell_type == "code"]


def said(*sources: str, place: Path) -> list[str]:
    """Execute these cells after the one that loads the magics; what each of them said, errors too."""
    new = nbformat.v4
    cells = [new.new_code_cell(text) for text in ("%load_ext labs.notebook", *sources)]  # type: ignore[no-untyped-call]
    return [text_of(cell) for cell in execute(new.new_notebook(cells=cells), place)[1:]]  # type: ignore[no-untyped-call]


def text_of(cell: Any) -> str:
    """All that a cell has put out, as text."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        elif output.output_type == "error":
            parts.append(f"{output.ename}: {output.evalue}")
        else:
            parts.append(output.data.get("text/plain", ""))
    return "\n".join(parts)


@pytest.mark.parametrize("number", LABS)
def test_a_solved_notebook_runs_from_the_first_cell_to_full_marks(number: str, place: Path) -> None:
    notebook = nbformat.reads(build.solved(LABS[number]), as_version=4)  # type: ignore[no-untyped-call]
    cells = execute(notebook, place)
    for cell in cells:
        problems = [
            output for output in cell.outputs if output.output_type == "error" or output.get("name") == "stderr"
        ]
        assert problems == [], cell.source
    assert "Full marks" in text_of(cells[-1])
    assert any({"image/png", "image/svg+xml"} & {*output.get("data", {})} for cell in cells for output in cell.outputs)


@pytest.mark.parametrize("number", LABS)
def test_an_untouched_notebook_runs_too_and_shows_what_is_missing(number: str, place: Path) -> None:
    cells = execute(
        nbformat.reads(build.student(LABS[number]), as_version=4),  # type: ignore[no-untyped-call]
        place,
        stop=True,
    )
    for cell in cells:
        problems = [text_of(cell) for output in cell.outputs if output.get("name") == "stderr"]
        problems += [output.evalue for output in cell.outputs if output.output_type == "error"]
        for problem in problems:
            assert "write this function" in problem, f"{cell.source}\n{problem}"
    last = text_of(cells[-1])
    assert f"lab {number}: 0 of " in last
    assert "is not written yet" in last


def test_a_wrong_answer_gets_its_diagnosis_as_text_and_as_html(place: Path) -> None:
    new = nbformat.v4
    cells = [new.new_code_cell(text) for text in ("%load_ext labs.notebook", WRONG, "%check")]  # type: ignore[no-untyped-call]
    check = execute(new.new_notebook(cells=cells), place)[-1]  # type: ignore[no-untyped-call]
    data = check.outputs[0].data
    assert "✗ 0/2  The host keeps its own name: wrong" in data["text/plain"]
    assert "lab 03: 8 of 10 points" in data["text/plain"]
    for shown in (data["text/plain"], data["text/html"]):
        assert "starting the container renamed the host" in shown
        assert "uts_namespaces(7)" in shown
    assert "Full marks" not in text_of(check)


def test_what_is_right_after_what_was_wrong_counts(place: Path) -> None:
    *_, check = said(WRONG, RIGHT, "%check 03", place=place)
    assert "lab 03: 10 of 10 points" in check


def test_the_first_run_of_a_notebook_says_what_to_do(place: Path) -> None:
    no_number, no_exercise, unknown, misspelt = said(
        "%check", "%check 03", "%check 77", "%%exercise set_names\ndef set_names(): pass", place=place
    )
    assert "no cell that begins with %%exercise was run yet" in no_number
    assert "run the cell that begins with %%exercise uts.set_names first" in no_exercise
    assert "there is no lab 77" in unknown
    assert 'there is no exercise "set_names"; did you mean uts.set_names?' in misspelt


def test_what_is_wrong_with_a_cell_shows_at_once(place: Path) -> None:
    syntax, name, missing, check = said(
        "%%exercise uts.set_names\ndef set_names(host, domain=None)\n    unshare(CLONE_NEWUTS)",
        "%%exercise uts.set_names\nset_names = no_such_name",
        "%%exercise uts.set_names\ndef other(): ...",
        "%check 03",
        place=place,
    )
    assert "SyntaxError: expected ':'" in syntax
    assert "NameError: name 'no_such_name' is not defined" in name
    assert "does not define a function set_names()" in missing
    assert "nothing to check yet" in check


def test_an_exercise_is_never_run_in_the_kernel(place: Path) -> None:
    called, before, _, after = said(
        RIGHT + "\nprint('top level')",
        "import os; print(os.uname().nodename, os.readlink('/proc/self/ns/uts'))",
        "set_names('renamed')",
        "print(os.uname().nodename, os.readlink('/proc/self/ns/uts'))",
        place=place,
    )
    assert "top level" in called
    assert before == after
    assert "renamed" not in after


def test_the_engine_runs_with_the_exercises_of_the_session(place: Path) -> None:
    *_, out = said(
        RIGHT.replace("sethostname(host)", "sethostname('mine-' + host)"),
        "from labs.notebook.session import my_engine",
        "print(my_engine().run('busybox', ['hostname'], hostname='alpha', capture=True).stdout)",
        place=place,
    )
    assert out.strip() == "mine-alpha"


def test_apart_is_another_process_with_exercises_and_variables(place: Path) -> None:
    *_, apart, host, error, missing = said(
        RIGHT,
        "name = 'given'",
        "%%apart name\nset_names(name)\nprint(os.uname().nodename)",
        "import os; print(os.uname().nodename)",
        "%%apart\nx = 1\nraise ValueError('shown')",
        "%%apart nowhere\npass",
        place=place,
    )
    assert apart.strip() == "given"
    assert host.strip() == os.uname().nodename
    assert "ValueError: shown" in error
    assert 'File "<cell>", line 2' in error
    assert "there is no variable nowhere" in missing


def test_results_are_escaped_and_complete() -> None:
    check = {
        "name": "test_x",
        "title": "<b>bold</b>",
        "points": 0,
        "max": 2,
        "verdict": "fail",
        "diagnosis": "first\n<script>alert(1)</script>",
        "evidence": "a < b",
        "look_at": "x(7)",
    }
    results = Results({"lab": "03", "points": 0, "max": 2, "checks": [check]})
    html = results._repr_html_()
    assert "<script>" not in html
    assert "<b>bold" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not results.full
    assert not Results({"lab": "03", "points": 0, "max": 0, "checks": []}).full
