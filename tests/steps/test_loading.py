"""`steps/loading.py`: whatever file comes, either its exercises or one line that says what is wrong with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer.steps import Steps
from minicontainer.steps.loading import LARGEST, BadSubmission, Exercise, define, files_of, read_exercises

SOURCE = "def set_names(host, domain=None):\n    return host"


def notebook(*cells: str | list[str] | dict[str, Any]) -> str:
    """A notebook with these code cells."""
    return json.dumps(
        {
            "cells": [
                cell if isinstance(cell, dict) else {"cell_type": "code", "source": cell, "metadata": {}, "outputs": []}
                for cell in cells
            ],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def read(directory: Path, text: str | bytes, name: str = "mine.ipynb") -> dict[str, Exercise]:
    """The exercises of a file with this content."""
    file = directory / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_exercises([file])


@pytest.mark.parametrize("source", [f"%%exercise uts.set_names\n{SOURCE}", ["%%exercise uts.set_names\n", SOURCE]])
def test_a_cell_of_a_notebook(tmp_path: Path, source: str | list[str]) -> None:
    exercises = read(tmp_path, notebook("print('not this one')", source))
    assert list(exercises) == ["uts.set_names"]
    functions, wrong = define(exercises.values())
    assert not wrong and functions["uts.set_names"]("alpha") == "alpha"


def test_a_block_of_a_module(tmp_path: Path) -> None:
    text = (
        f"raise SystemExit('never run')\n# %% [markdown]\n# %%exercise uts.set_names\n{SOURCE}\n# %%\nraise SystemExit"
    )
    exercises = read(tmp_path, text, "mine.py")
    functions, wrong = define(exercises.values())
    assert not wrong and functions["uts.set_names"]("alpha") == "alpha"


@pytest.mark.parametrize("name", ["mine.py", "mine.ipynb"])
@pytest.mark.parametrize(("bom", "newline"), [("", "\r\n"), ("\ufeff", "\n"), ("\ufeff", "\r\n")])
def test_a_file_from_another_editor(tmp_path: Path, name: str, bom: str, newline: str) -> None:
    cell = f"%%exercise uts.set_names\n{SOURCE}\n".replace("\n", newline)
    exercises = read(tmp_path, bom + (f"# {cell}" if name.endswith(".py") else notebook(cell)), name)
    functions, wrong = define(exercises.values())
    assert not wrong and functions["uts.set_names"]("alpha") == "alpha"


def test_metadata_markdown_and_outputs_are_never_asked(tmp_path: Path) -> None:
    cell = f"%%exercise uts.set_names\n{SOURCE}"
    exercises = read(
        tmp_path,
        json.dumps({"cells": [{"cell_type": "markdown", "source": cell}, {"cell_type": "raw", "source": cell}]}),
    )
    assert exercises == {}
    assert list(read(tmp_path, json.dumps({"cells": [{"cell_type": "code", "source": cell}]}))) == ["uts.set_names"]


@pytest.mark.parametrize("name", ["mine.py", "mine.ipynb"])
def test_of_two_with_the_same_name_the_last_counts(tmp_path: Path, name: str) -> None:
    cells = [f"%%exercise uts.set_names\ndef set_names(): return {number}\n" for number in (1, 2, 3)]
    text = "".join(f"# {cell}" for cell in cells) if name.endswith(".py") else notebook(*cells)
    exercises = read(tmp_path, text, name)
    assert exercises["uts.set_names"].times == 3
    assert define(exercises.values())[0]["uts.set_names"]() == 3


def test_exercises_use_one_another_and_what_linux_offers(tmp_path: Path) -> None:
    exercises = read(
        tmp_path,
        notebook(
            "%%exercise mount.make_private\nLIMIT = 5\ndef make_private(): return CLONE_NEWNS",
            "%%exercise mount.pivot\ndef pivot(root): return make_private() + LIMIT + len(os.sep)",
        ),
    )
    functions, wrong = define(exercises.values())
    assert not wrong and functions["mount.pivot"]("/") == 0x20000 + 6


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("def set_names(host:\n    pass", "SyntaxError"),
        ("set_names = 3", "does not define a function set_names()"),
        ("", "does not define a function set_names()"),
        ("def set_name(host): pass", "does not define a function set_names()"),
        ("def set_names(host): pass\n\n1/0", "ZeroDivisionError: division by zero (line 4 of the cell)"),
        ("def set_names(host): pass\nraise SystemExit(0)", "SystemExit: 0 (line 3 of the cell)"),
        ("def set_names(host):\n  pass\n bad", "(line 4 of the cell)"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("class E(Exception):\n  def __str__(self): raise E\nraise E", "E: "),
        ("x = '\0'", "null"),
        ("x = '\ud800'", "surrogate"),
        ("x = " + "-" * 100_000 + "1", ""),
        ("x = " + "(" * 100_000, ""),
        ("def f(): return f()\nf()", "RecursionError"),
    ],
)
def test_a_cell_that_cannot_be_used_is_told_with_its_line(tmp_path: Path, cell: str, told: str) -> None:
    """The first line of the cell is the one with %%exercise."""
    exercises = read(
        tmp_path,
        notebook(f"%%exercise uts.set_names\n{cell}", "%%exercise ipc.private_queues\ndef private_queues(): pass"),
    )
    functions, wrong = define(exercises.values())
    assert list(functions) == ["ipc.private_queues"], "one bad cell must not spoil the others"
    assert list(wrong) == ["uts.set_names"]
    assert told in str(wrong["uts.set_names"]) and str(wrong["uts.set_names"]).startswith("uts.set_names: ")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"cells"',
        b"12",
        b"{}",
        b'{"cells": 3}',
        b'{"cells": {"a": 1}}',
        b'{"cells": [3]}',
        b'{"cells": [[]]}',
        b'{"cells": [{"cell_type": "code"}]}',
        b'{"cells": [{"cell_type": "code", "source": null}]}',
        b'{"cells": [{"cell_type": "code", "source": [1]}]}',
        b'{"cells": [{"cell_type": "code", "source": {"a": []}}]}' + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 100_000,
        b"\xff\xfe{\x00}\x00",
        b"\x80",
        notebook("x")[:-1].encode(),
        bytes(range(256)),
    ],
)
def test_what_is_no_notebook_is_told_in_one_line(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(BadSubmission) as raised:
        read(tmp_path, text)
    assert "mine.ipynb" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_huge_file_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "huge.ipynb"
    with file.open("wb") as data:
        data.truncate(1 << 40)  # a hole: 1 TiB that takes no room
    with pytest.raises(BadSubmission, match="larger than 4 MiB"):
        read_exercises([file])
    with file.open("wb") as data:
        data.write(notebook(f"%%exercise uts.set_names\n{SOURCE}").encode().ljust(LARGEST))
    assert list(read_exercises([file])) == ["uts.set_names"]


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.ipynb")
    (tmp_path / "directory.ipynb").mkdir()
    (tmp_path / "loop.ipynb").symlink_to("loop.ipynb")
    for name in ("fifo.ipynb", "directory.ipynb", "loop.ipynb", "missing.ipynb"):
        with pytest.raises(BadSubmission, match=name):
            read_exercises([tmp_path / name])
    with pytest.raises(BadSubmission, match="null"):
        read_exercises([Path("/dev/null")])


def test_a_directory_stands_for_the_files_in_it(tmp_path: Path) -> None:
    for name in ("b.py", "a.ipynb", "notes.txt", ".hidden"):
        (tmp_path / name).write_text("")
    (tmp_path / "deeper.py").mkdir()
    assert [file.name for file in files_of(tmp_path)] == ["a.ipynb", "b.py"]
    assert files_of(tmp_path / "a.ipynb") == [tmp_path / "a.ipynb"]


def test_reading_runs_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    read(tmp_path, notebook(f"%%exercise uts.set_names\nopen({str(witness)!r}, 'w')"))
    assert not witness.exists()


# Lines as an editor makes them: no line feed inside, whatever else Unicode calls a line boundary.
LINES = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=30).filter(
    lambda line: not line.startswith("# %%")
)


@given(st.lists(LINES, min_size=1, max_size=5))
@example(["x = 'a\u2028b\x0c\x85'"])
def test_a_module_is_cut_only_where_it_says(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    source = "\n".join(lines)
    exercises = read(tmp_path_factory.mktemp("m"), f"# %%exercise uts.set_names\n{source}\n# %%\nrest", "mine.py")
    assert exercises["uts.set_names"].source.strip("\n") == source.strip("\n")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just("%%exercise uts.set_names\nx=1"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["cells", "cell_type", "source", "code", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.one_of(JSON, st.builds(lambda cells: {"cells": cells}, JSON)).map(json.dumps).map(str.encode) | st.binary())
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.mktemp("any")
    for name in ("mine.ipynb", "mine.py"):
        try:
            exercises = read(directory, data, name)
        except BadSubmission as error:
            assert "\n" not in str(error) and name in str(error)
        else:
            assert all(isinstance(exercise, Exercise) for exercise in exercises.values())


def test_a_cell_that_kills_the_parser_kills_only_its_own_process(tmp_path: Path) -> None:
    """The crash, if there is one, is Python's; but the class is graded in other processes. Here: that it does not hang."""
    program = (
        "import sys; from pathlib import Path; from minicontainer.steps.loading import *\n"
        "define(read_exercises([Path(sys.argv[1])]).values()); print('told')"
    )
    file = tmp_path / "deep.ipynb"
    file.write_text(notebook("%%exercise uts.set_names\nx = " + "-" * 1_000_000 + "1"))
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, timeout=30)
    assert done.stdout == "told\n" or done.returncode < 0


def test_a_step_that_somebody_brings_is_not_ours() -> None:
    steps = Steps().with_functions({"user.write_maps": lambda pid, uids, gids: None})
    assert not steps.is_ours("write_maps")
    assert steps.is_ours("become_root") and Steps().is_ours("write_maps")
