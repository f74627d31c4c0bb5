"""Which labs there are: one directory each below labs/course, described by its lab.toml.

number = "03"                        # as on the command line and in the name of the notebook
name = "uts"
title = "A host name of one's own"
exercises = ["uts.set_names"]        # what the student writes: step and function
checks = "test_03_uts.py"            # below tests/checks

[hints]                              # what %hint tells, a step at a time; there need not be any
"uts.set_names" = ["Where have you seen…?", "…"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

COURSE = Path(__file__).parent / "course"
CHECKS = Path(__file__).parents[1] / "tests" / "checks"


class NoSuchLab(Exception):
    """A lab that is not there, or not described as it should be; the text says what to do."""


@dataclass(frozen=True)
class Lab:
    """One lab."""

    number: str
    name: str
    title: str
    exercises: tuple[str, ...]
    checks: Path
    """The file with its checks."""
    directory: Path
    """Where its description, the source of its notebook and its mutants lie."""
    hints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By exercise, each nearer to the answer than the one before."""


def every(course: Path = COURSE) -> list[Lab]:
    """The labs of the course in its order. Raises NoSuchLab (a description that cannot be read)."""
    return [_read(description) for description in sorted(course.glob("*/lab.toml"))]


def find(number: str) -> Lab:
    """The lab with this number ("03" or "3"). Raises NoSuchLab."""
    labs = every()
    for lab in labs:
        if lab.number == number.zfill(2):
            return lab
    there = ", ".join(lab.number for lab in labs) or "none"
    raise NoSuchLab(f"there is no lab {number}; there are: {there}")


def _read(description: Path) -> Lab:
    try:
        told = tomllib.loads(description.read_text(encoding="utf-8"))
        return Lab(
            number=str(told["number"]),
            name=str(told["name"]),
            title=str(told["title"]),
            exercises=tuple(map(str, told["exercises"])),
            checks=CHECKS / str(told["checks"]),
            directory=description.parent,
            hints={str(name): tuple(map(str, steps)) for name, steps in dict(told.get("hints", {})).items()},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoSuchLab(f"{description} cannot be used: {type(error).__name__}: {error}") from None
