"""notebooks/ is what the generator makes of labs/course/: the same every time, and with no answer in it."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labs.catalogue import COURSE, Lab, every
from labs.notebook import build
from minicontainer.steps.loading import define, read_exercises

LABS = {lab.number: lab for lab in every()}


def cells(text: str) -> list[dict[str, Any]]:
    """The cells of a notebook."""
    found: list[dict[str, Any]] = json.loads(text)["cells"]
    return found


def source(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def test_the_notebooks_are_as_their_sources() -> None:
    assert build.differences() == []


def test_building_twice_changes_nothing(tmp_path: Path) -> None:
    assert [path.name for path in build.build(tmp_path)] == [build.place(lab).name for lab in LABS.values()]
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert build.build(tmp_path) == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.parametrize("number", LABS)
def test_a_notebook_is_valid_and_bare(number: str) -> None:
    text = build.student(LABS[number])
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert code[0].source == "%load_ext labs.notebook"
    assert code[-1].source == f"%check {number}"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("number", LABS)
def test_no_answer_is_in_a_notebook(number: str) -> None:
    """No line that stands between the markers of the source is in the cell that the student gets."""
    lab = LABS[number]
    answers, skeletons = read_exercises([lab.directory / "notebook.py"]), exercises(build.student(lab))
    assert answers.keys() == skeletons.keys() == set(lab.exercises)
    for name, answer in answers.items():
        between = answer.source.partition(build.BEGIN)[2].partition(build.END)[0]
        lines = {line.strip() for line in between.splitlines()} - {""}
        assert lines  # one will do: of some answers, what counts is what they leave alone
        assert not lines & {line.strip() for line in skeletons[name].splitlines()}
        assert "raise NotImplementedError" in skeletons[name]
    assert "SOLUTION" not in build.student(lab) + build.solved(lab)


@pytest.mark.parametrize("number", [number for number in LABS if LABS[number].hints])
def test_hints_are_steps_and_no_answers(number: str) -> None:
    lab = LABS[number]
    assert lab.hints.keys() == set(lab.exercises)
    for name, answer in read_exercises([lab.directory / "notebook.py"]).items():
        assert 2 <= len(lab.hints[name]) <= 5
        between = answer.source.partition(build.BEGIN)[2].partition(build.END)[0]
        lines = {line.strip() for line in between.splitlines() if len(line.strip()) > 8}
        for hint in lab.hints[name]:
            assert not [line for line in lines if line in hint]


def test_labs_that_ask_before_they_show_look_back() -> None:
    for number, lab in LABS.items():
        text = build.student(lab)
        asked = re.findall(r"%%predict (\w+)", text)
        assert asked == list(dict.fromkeys(asked)), number
        assert set(asked) == set(re.findall(r"%look_back (\w+)", text)), number
        assert text.count("My prediction:") == len(asked), number


@pytest.mark.parametrize("number", ["00", "01", "02", "03", "04", "05", "06", "07", "08"])
def test_every_experiment_is_predicted_and_looked_back_on(number: str) -> None:
    """An experiment is a part of the notebook under one heading, in which something is run that is no answer's trial.

    Somebody has said before what will come of it: in there, or earlier, and has not looked back on it yet.
    """
    heading, predicted, unpredicted = "", False, list[str]()
    expected, run_since = set[str](), set[str]()
    for cell in cells(build.student(LABS[number])):
        text = source(cell)
        if cell["cell_type"] == "markdown":
            if headings := re.findall(r"^##+ (.*)", text, re.MULTILINE):
                heading, predicted = headings[-1], bool(expected)
        elif name := re.match(r"%%predict (\w+)", text):
            predicted = True
            expected.add(name[1])
            run_since.discard(name[1])
        elif name := re.match(r"%look_back (\w+)", text):
            assert name[1] in expected & run_since, f"{name[1]} is looked back on before anything was to be seen"
            expected.discard(name[1])
        elif not re.match(r"%load_ext|%check|%%exercise", text):
            run_since |= expected
            if not predicted and not heading.startswith("Exercise"):
                unpredicted.append(f"{heading}: {text}")
    assert unpredicted == []
    assert expected == set()


def exercises(text: str) -> dict[str, str]:
    """The exercise cells of a notebook by name."""
    found = [source(cell).partition("\n") for cell in cells(text) if source(cell).startswith("%%exercise ")]
    return {first.split()[1]: rest for first, _, rest in found}


@pytest.mark.parametrize("number", LABS)
def test_a_notebook_loads_and_only_its_functions_are_unwritten(number: str, tmp_path: Path) -> None:
    path = tmp_path / "student.ipynb"
    path.write_text(build.student(LABS[number]), encoding="utf-8")
    functions, wrong = define(read_exercises([path]).values())
    assert wrong == {}
    assert functions.keys() == set(LABS[number].exercises)


def test_a_change_of_one_cell_is_a_change_of_one_cell(tmp_path: Path) -> None:
    lab = copy_of("03", tmp_path)
    before = cells(build.student(lab))
    text = (lab.directory / "notebook.py").read_text(encoding="utf-8")
    (lab.directory / "notebook.py").write_text(text.replace("A new number and the old name", "Changed"))
    after = cells(build.student(lab))
    assert len([cell for cell in after if cell not in before]) == 1


def test_a_notebook_that_differs_or_has_no_lab_is_named(tmp_path: Path) -> None:
    build.build(tmp_path)
    notebook = tmp_path / "03-uts.ipynb"
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("one's own", "its own"), encoding="utf-8")
    (tmp_path / "99-old.ipynb").write_text("{}")
    found = "\n".join(build.differences(tmp_path))
    assert "03-uts.ipynb as it is" in found
    assert "its own" in found
    assert "99-old.ipynb has no lab" in found
    assert build.main(["--check", "--out", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# %%\n# SOLUTION BEGIN\n1\n", "BEGIN without"),
        ("# %%\n1\n# SOLUTION END\n", "END where none belongs"),
        ("# %%\n# SOLUTION BEGIN\n# SOLUTION BEGIN\n# SOLUTION END\n", "BEGIN where none belongs"),
    ],
)
def test_markers_that_do_not_match_are_an_error(text: str, told: str, tmp_path: Path) -> None:
    lab = copy_of("03", tmp_path)
    (lab.directory / "notebook.py").write_text(text, encoding="utf-8")
    with pytest.raises(build.BadSource, match=told):
        build.student(lab)


def copy_of(number: str, place: Path) -> Lab:
    """A lab in a directory of the test's own."""
    name = LABS[number].directory.name
    shutil.copytree(COURSE / name, place / name)
    return every(place)[0]


@pytest.mark.parametrize("number", LABS)
def test_the_checks_of_a_lab_are_worth_ten_points_and_know_its_exercises(number: str) -> None:
    checks = importlib.import_module(f"tests.checks.{LABS[number].checks.stem}")
    marks = [mark for function in vars(checks).values() for mark in getattr(function, "pytestmark", ())]
    declared = [mark.args[0] for mark in marks if mark.name == "check"]
    assert sum(check.points for check in declared) == 10
    assert {check.exercise for check in declared} == set(LABS[number].exercises)
