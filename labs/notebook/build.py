"""Writes notebooks/NN-name.ipynb from labs/course/NN_name/notebook.py: `python -m labs.notebook.build [--check]`.

The source is a notebook as text, in jupytext's percent format, with the answers in it:

    # %%
    # %%exercise uts.set_names
    def set_names(host: str) -> None:
        '''…'''
        # SOLUTION BEGIN
        unshare(CLONE_NEWUTS)
        # SOLUTION END

In the notebook for students a line that raises NotImplementedError stands in the place of what lies between the
markers; all else is as in the source. The source itself can be handed in: an exercise in a .py file begins so.

The result depends on the source alone: no outputs, no metadata of whoever built it, and cell ids that are made of the
cells' text, so that a change of one cell is a change of one cell.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labs.catalogue import COURSE, Lab, NoSuchLab, every

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

BEGIN = "# SOLUTION BEGIN"
END = "# SOLUTION END"

_MAGIC = re.compile(r"^( *)# (?=[%!])", re.MULTILINE)
_UNWRITTEN = re.compile(r"my_engine\(|(newcomer|entered|compare|clocks)\(.*mine=True")
"""What a cell says that calls the exercises."""
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class BadSource(Exception):
    """A notebook's source that cannot be built; the text says where."""


def student(lab: Lab) -> str:
    """The notebook that students open, as the text of an .ipynb file. Raises BadSource."""
    return _written(lab, solved=False)


def solved(lab: Lab) -> str:
    """The same notebook with every exercise answered. Raises BadSource."""
    return _written(lab, solved=True)


def place(lab: Lab, directory: Path = NOTEBOOKS) -> Path:
    """Where the notebook of a lab is: notebooks/03-uts.ipynb."""
    return directory / f"{lab.number}-{lab.name}.ipynb"


def build(directory: Path = NOTEBOOKS, course: Path = COURSE) -> list[Path]:
    """Write the notebook of every lab; returns those that changed. Raises BadSource, NoSuchLab."""
    changed = []
    directory.mkdir(parents=True, exist_ok=True)
    for lab in every(course):
        path, text = place(lab, directory), student(lab)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def differences(directory: Path = NOTEBOOKS, course: Path = COURSE) -> list[str]:
    """What is not as it would be built: a diff, line by line; empty when all is well. Writes nothing."""
    found: list[str] = []
    wanted = {place(lab, directory): student(lab) for lab in every(course)}
    for path, text in wanted.items():
        there = path.read_text(encoding="utf-8") if path.is_file() else ""
        found += difflib.unified_diff(
            there.splitlines(), text.splitlines(), f"{path.name} as it is", f"{path.name} as built", lineterm="", n=1
        )
    found += [f"{path.name} has no lab" for path in sorted(directory.glob("*.ipynb")) if path not in wanted]
    return found


def _written(lab: Lab, *, solved: bool) -> str:
    import nbformat

    source = lab.directory / "notebook.py"
    try:
        cells = _cells(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSource(f"{source}: {error.strerror}") from None
    notebook: Any = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {"nbformat": 4, "nbformat_minor": 5, "metadata": _METADATA, "cells": []}
    )
    known: set[str] = set()
    for kind, text in cells:
        text = _answer(text, f"{source.parent.name}/{source.name}", solved=solved)
        cell: dict[str, Any] = {"cell_type": kind, "id": _id(text, known), "metadata": {}, "source": text}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
            if _UNWRITTEN.search(text):  # fails until the exercise is written; "Run All" is to go on all the same
                cell["metadata"] = {"tags": ["raises-exception"]}
        notebook.cells.append(nbformat.from_dict(cell))  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    written: str = nbformat.writes(  # type: ignore[no-untyped-call]
        notebook, indent=1, sort_keys=True, ensure_ascii=False
    )
    return written + "\n"


def _cells(source: str) -> list[tuple[str, str]]:
    """The cells of a percent script: ("markdown" or "code", text).

    jupytext takes them apart. The comment signs of magics (``# %load_ext``, ``# !ls``) we take away ourselves: it must
    not depend on which magics a version of jupytext knows.
    """
    import jupytext  # type: ignore[import-untyped]

    cells = []
    for cell in jupytext.reads(
        source, fmt={"extension": ".py", "format_name": "percent", "comment_magics": False}
    ).cells:
        text = cell.source
        if cell.cell_type == "code":
            text = _MAGIC.sub(r"\1", text)
            if text.startswith("%%predict "):  # a question is no Python: in the source it is a comment
                text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        cells.append((str(cell.cell_type), text))
    return cells


def _answer(text: str, where: str, *, solved: bool) -> str:
    """A cell without the markers, and without what lies between them unless `solved`."""
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        mark = line.strip()
        if mark in (BEGIN, END):
            if inside == (mark == BEGIN):
                raise BadSource(f"{where}: {mark} where none belongs")
            inside = mark == BEGIN
            if inside and not solved:
                indent = line[: len(line) - len(line.lstrip())]
                lines.append(f'{indent}raise NotImplementedError("write this function")')
        elif solved or not inside:
            lines.append(line)
    if inside:
        raise BadSource(f"{where}: {BEGIN} without {END}")
    return "\n".join(lines)


def _id(text: str, known: set[str]) -> str:
    """An id for a cell, the same whenever the text is; told apart where the same text comes twice."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    found, count = digest, 1
    while found in known:
        count += 1
        found = f"{digest}-{count}"
    known.add(found)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``labs build``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="labs build", description="Write notebooks/ from labs/course/.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say whether notebooks/ is as it would be built"
    )
    parser.add_argument(
        "--out", type=Path, default=NOTEBOOKS, metavar="DIR", help="write them there (default: notebooks/)"
    )
    options = parser.parse_args(arguments)
    try:
        if options.check:
            found = differences(options.out)
            print("\n".join(found) or "every notebook is as its source")
            return 1 if found else 0
        for path in build(options.out):
            print(path.name)
    except (BadSource, NoSuchLab) as error:
        print(f"labs build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
