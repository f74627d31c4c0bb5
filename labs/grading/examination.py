"""One submission in examination: its sandbox, made when first needed, and anew when it has died or is spoilt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping

from labs.grading.checks import Check, Late, Wrong, deadline
from labs.grading.classroom import Classrooms
from labs.grading.sandbox import Sandbox, Unavailable
from labs.grading.subject import Subject
from labs.grading.submission import Submission

ON_GROUPS = frozenset({"group", "memory", "cpu", "freezer", "pids", "io", "devices", "packets", "events"})
"""The step modules whose exercises need control groups to work on."""

SHOWN_BY_GROUPS = frozenset({"cgroup"})
"""Those that control groups show more of, and that can do without."""

PATIENCE = 6
"""A whole submission has so many times the deadline of one request."""


class Examination:
    """Hands the subject to one check after the other."""

    def __init__(self, submission: Submission | None, classrooms: Classrooms) -> None:
        """`submission` None is the reference itself."""
        self._submission = submission
        self.classrooms = classrooms
        self._sandbox: Sandbox | None = None
        self._room: tuple[frozenset[str], bool] | None = None
        self._hung: dict[str, str] = {}
        self._until = time.monotonic() + PATIENCE * deadline()
        self.limited = True
        """Whether control groups hold the sandbox's memory, processor time and processes."""

    def begin(self, check: Check, exercises: Collection[str]) -> Subject:
        """The subject for a check of a lab with these exercises. Raises Wrong, Late where the check need not be run."""
        if check.exercise in self._hung:
            raise Late(f"not run, because in a check before this one {check.exercise} was {self._hung[check.exercise]}")
        if self._submission is not None and time.monotonic() > self._until:
            raise Late(
                f"not run: the submission has used up the {PATIENCE * deadline():g} s that it has for all checks"
            )
        sources: Mapping[str, str] = {}
        modules = frozenset(name.partition(".")[0] for name in exercises)
        stubs: frozenset[str] = frozenset()
        if self._submission is not None:
            if self._submission.problem:
                raise Wrong(self._submission.problem)
            if check.exercise not in self._submission.exercises:
                raise Wrong(f"{check.exercise}: no cell begins with %%exercise {check.exercise}")
            stubs = modules
            sources = {name: exercise.source for name, exercise in self._submission.only(exercises).items()}
        if check.exercise.partition(".")[0] in SHOWN_BY_GROUPS and not modules & ON_GROUPS:
            with contextlib.suppress(Unavailable):
                return Subject(self._ready(stubs, sources, groups=True), sources)
        return Subject(self._ready(stubs, sources, groups=bool(modules & ON_GROUPS)), sources)

    def give_up(self, exercise: str, why: str) -> None:
        """An exercise was too late: its other checks are spared the wait, and the sandbox is ended."""
        self._hung[exercise] = why
        self.close()

    def end(self, subject: Subject) -> None:
        """The check is over: nothing of it is left for the next one to stumble over."""
        if subject.used and self._sandbox and not self._sandbox.sweep():
            self.close()

    def _ready(self, stubs: frozenset[str], sources: Mapping[str, str], groups: bool) -> Sandbox:
        if self._sandbox and self._room != (stubs, groups):
            self.close()
        if not self._sandbox:
            self._sandbox = Sandbox(self.classrooms.without(stubs), sources, groups=groups)
            self._room = stubs, groups
            self.limited = self._sandbox.limited
        return self._sandbox

    def close(self) -> None:
        """End the sandbox."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox:
            sandbox.close()
