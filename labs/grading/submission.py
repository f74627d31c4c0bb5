"""What somebody handed in: the text of their exercises. Nothing of it is run here."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minicontainer.steps.loading import BadSubmission, Exercise, read_exercises

MOST = 200  # files in one student's directory that we are willing to look at


@dataclass(frozen=True)
class Submission:
    """The exercises of one student, by name; or, where nothing could be read, why not."""

    exercises: dict[str, Exercise] = field(default_factory=dict)
    problem: str | None = None
    files: int = 1
    """How many there were."""

    def kind(self, names: Collection[str]) -> Literal["readable", "unreadable", "empty"]:
        """Whether there is anything to grade: an exercise with one of these names."""
        if self.problem:
            return "unreadable" if self.files else "empty"
        return "readable" if self.only(names) else "empty"

    def only(self, names: Collection[str]) -> dict[str, Exercise]:
        """Those with these names."""
        return {name: exercise for name, exercise in self.exercises.items() if name in names}

    def remarks(self, names: Collection[str]) -> list[str]:
        """What the student should be told of the file itself."""
        if not self.problem and not self.only(names):
            return [f"no cell begins with %%exercise {name}" for name in names]
        return [
            f"{name} is there {exercise.times} times: the last one counts"
            for name, exercise in self.only(names).items()
            if exercise.times > 1
        ]


def read(paths: Collection[Path], *, follow: bool = True) -> Submission:
    """The submission in these files and directories, laid over one another in this order. Never raises, never waits.

    `follow=False` refuses symbolic links: in a folder of submissions a link can point to somebody else's.
    """
    try:
        files = [file for path in paths for file in _files(path, follow)]
        if not files:
            return Submission(problem="there is no notebook (.ipynb) and no module (.py) in the directory", files=0)
        return Submission(read_exercises(files, follow=follow))
    except BadSubmission as error:
        return Submission(problem=str(error))
    except OSError as error:
        return Submission(problem=f"{Path(error.filename or '').name} cannot be read: {error.strerror}")


def _files(path: Path, follow: bool) -> list[Path]:
    """`path` itself, or the notebooks and modules directly in the directory, sorted by name."""
    if not path.is_dir() or (path.is_symlink() and not follow):
        return [path]
    names = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.endswith((".ipynb", ".py")) and not entry.name.startswith("."):
                names.append(entry.name)
            if len(names) > MOST:
                raise BadSubmission(f"{path.name} has more than {MOST} notebooks and modules")
    return [path / name for name in sorted(names)]
