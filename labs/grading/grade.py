"""A class is graded: one row for every entry of a folder, whatever is in it.

    this process ── pytest has collected the checks once ──fork──▶ an examiner for one submission ──▶ its sandbox
         ◀───────────── a pipe: the records, as JSON ─────────────────┘

As many examiners as there are processors are at work at a time. One that dies, or does not come back, costs
its own submission the points and nobody else's: points come only from the record of a check.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from labs.catalogue import Lab
from labs.grading.checks import deadline, plain
from labs.grading.classroom import Classrooms, refuse_changes, refuse_exposure
from labs.grading.examination import PATIENCE, Examination
from labs.grading.examine import Examiner, checks_of, found, run
from labs.grading.pytest_plugin import EXAMINATION, RECORDS
from labs.grading.records import Record, Report
from labs.grading.sandbox import Sandbox, remove_groups_of, strangers
from labs.grading.submission import Submission, read
from minicontainer.linux import PR_SET_PDEATHSIG, prctl


@dataclass(frozen=True)
class Entry:
    """One entry of the folder."""

    student: str
    path: Path


@dataclass(frozen=True)
class Graded:
    """One row of the grades."""

    entry: Entry
    status: str
    """"graded", "empty", "unreadable", "timeout" or "error"."""
    reason: str
    report: Report


Tell = Callable[[int, int, Graded | None], None]
"""Is told after each submission: how many are done, of how many, and which was the last."""


def entries(folder: Path) -> list[Entry]:
    """Every entry of the folder, sorted. Where two would have one name, alice.py and alice/, they keep their endings.

    A name is a cell of a table and a file's name, also where "A" and "a" are the same: on one line, and nobody else's.
    """
    paths = sorted(folder.iterdir())
    short = [_name(path.stem if path.suffix in (".ipynb", ".py") else path.name) for path in paths]
    folded = [name.casefold() for name in short]
    taken, found = set[str](), list[Entry]()
    for path, name in zip(paths, short, strict=True):
        wanted = name if folded.count(name.casefold()) == 1 else _name(path.name)
        numbered = (wanted if number == 1 else f"{wanted}-{number}" for number in itertools.count(1))
        student = next(name for name in numbered if name.casefold() not in taken)
        taken.add(student.casefold())
        found.append(Entry(student, path))
    return found


def _name(text: str) -> str:
    return plain(text).replace("\n", "�")


def grade(lab: Lab, folder: Path, jobs: int, tell: Tell) -> tuple[list[Graded], bool]:
    """Grade every entry of the folder; returns the rows in its order, and whether control groups held the sandboxes.

    Raises BrokenChecks, NO_SANDBOX, OSError (the folder), KeyboardInterrupt: nothing is left running then.
    """
    refuse_exposure([folder])
    if not strangers():
        refuse_changes()
    school_class = _Class(lab, entries(folder), jobs, tell)
    run(lab, school_class)
    return [school_class.rows[entry] for entry in school_class.entries], school_class.limited


class _Class(Examiner):
    """A plugin of pytest: instead of running the checks once, run them in an examiner for each submission."""

    def __init__(self, lab: Lab, submissions: list[Entry], jobs: int, tell: Tell) -> None:
        super().__init__()
        self.lab = lab
        self.entries = submissions
        self.rows: dict[Entry, Graded] = {}
        self._jobs = jobs
        self._tell = tell

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """The loop over the class."""
        if session.testsfailed:
            return True  # the checks could not be collected: examine.run() says so
        waiting, at_work = list(reversed(self.entries)), list[_AtWork]()
        classrooms = session.config.stash[EXAMINATION].classrooms
        self._rehearse(classrooms)
        self._tell(0, len(self.entries), None)
        try:
            while waiting or at_work:
                while waiting and len(at_work) < self._jobs:
                    entry = waiting.pop()
                    at_work.append(_AtWork.begin(entry, functools.partial(self._examine, session, entry)))
                for examiner in _ready(at_work):
                    at_work.remove(examiner)
                    examiner.end()
                    row = self.rows[examiner.entry] = self._row(session, examiner)
                    self._tell(len(self.rows), len(self.entries), row)
        finally:
            with _undisturbed():
                for examiner in at_work:
                    examiner.end()
        return True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Nothing was found by this process itself."""

    def _rehearse(self, classrooms: Classrooms) -> None:
        """Start one empty sandbox: where that fails, it fails for everybody, and nobody is to get a 0 for it."""
        sandbox = Sandbox(classrooms.without({name.partition(".")[0] for name in self.lab.exercises}), {})
        sandbox.close()
        self.limited = sandbox.limited

    def _examine(self, session: pytest.Session, entry: Entry, pipe: int) -> None:
        """In the examiner: run the checks for one submission, and write down the pipe what they found."""
        submission = _read(entry.path)
        classrooms = session.config.stash[EXAMINATION].classrooms
        if not strangers():
            # The sandbox's root is then the same user as we: it could change a classroom that the next ones come into.
            classrooms = Classrooms(classrooms.directory / str(os.getpid()))
        examination = Examination(submission, classrooms)
        session.config.stash[EXAMINATION] = examination
        session.config.stash[RECORDS] = {}
        try:
            for number, item in enumerate(session.items):
                following = session.items[number + 1] if number + 1 < len(session.items) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        finally:
            examination.close()
        told = {
            "limited": examination.limited,
            "kind": submission.kind(self.lab.exercises),
            "remarks": [*([submission.problem] if submission.problem else []), *submission.remarks(self.lab.exercises)],
            "checks": Report(self.lab.number, found(session)).as_json()["checks"],
        }
        with open(pipe, "w") as file:
            json.dump(told, file)

    def _row(self, session: pytest.Session, examiner: _AtWork) -> Graded:
        """What to write of a submission whose examiner has come back, or has not."""
        try:
            told = json.loads(examiner.said)
            records = tuple(Record(**check) for check in told["checks"])
        except (ValueError, KeyError, TypeError):
            lost = "the time is up" if examiner.late else "the examiner ended without a result: tell your instructor"
            records = tuple(
                Record.of(check, "timeout" if examiner.late else "error", lost) for check in checks_of(session).values()
            )
            return Graded(
                examiner.entry, "timeout" if examiner.late else "error", lost, Report(self.lab.number, records)
            )
        self.limited = self.limited and told.get("limited") is True
        status, reason = _status(told["kind"], told["remarks"], records)
        return Graded(examiner.entry, status, plain(reason), Report(self.lab.number, records))


def _read(path: Path) -> Submission:
    if path.is_symlink():
        return Submission(problem=f"{path.name} is a symbolic link: the file itself is wanted")
    if path.is_file() and path.suffix not in (".ipynb", ".py"):
        return Submission(problem=f"{path.name} is neither a notebook (.ipynb) nor a module (.py)")
    return read([path], follow=False)


def _status(kind: str, remarks: list[str], records: tuple[Record, ...]) -> tuple[str, str]:
    """The status of a submission, and a sentence on it."""
    if kind != "readable":
        return kind, "; ".join(remarks)
    verdicts = [record.verdict for record in records]
    count = f"{verdicts.count('pass')} of {len(verdicts)} checks passed"
    if "error" in verdicts:
        return "error", "; ".join(
            [count, f"{verdicts.count('error')} could not be decided: see the feedback page", *remarks]
        )
    if "timeout" in verdicts:
        return "timeout", "; ".join([count, f"{verdicts.count('timeout')} ran out of time", *remarks])
    first = next((f'first failed: "{record.title}"' for record in records if record.verdict == "fail"), None)
    return "graded", "; ".join([count, *([first] if first else []), *remarks])


@dataclass
class _AtWork:
    """An examiner that was forked off."""

    entry: Entry
    pid: int
    pidfd: int
    pipe: int
    until: float
    said: bytes = b""
    late: bool = False

    @classmethod
    def begin(cls, entry: Entry, examine: Callable[[int], None]) -> _AtWork:
        """Fork an examiner."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with _undisturbed():
            pid = os.fork()
            if pid == 0:
                _be_examiner(examine, writing)
        os.close(writing)
        until = time.monotonic() + (PATIENCE + 2) * deadline() + 30  # it watches the time itself; this is for the worst
        return cls(entry, pid, os.pidfd_open(pid), reading, until)

    def end(self) -> None:
        """It has closed its pipe, or must go: see to it that nothing is left of it and its sandbox."""
        if not self.said or self.late:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)  # its sandbox dies with it: die_with_parent
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        os.close(self.pipe)
        remove_groups_of(self.pid)


def _be_examiner(examine: Callable[[int], None], pipe: int) -> NoReturn:
    """The life of an examiner. It ends with the process that forked it, and ^C is that one's affair."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        examine(pipe)
    finally:
        os._exit(0)


def _ready(at_work: list[_AtWork]) -> Iterable[_AtWork]:
    """Wait until an examiner is through, or its time is up, and take in what they write meanwhile."""
    poll = select.poll()
    by_pipe = {examiner.pipe: examiner for examiner in at_work}
    for pipe in by_pipe:
        poll.register(pipe, select.POLLIN)
    soonest = min(examiner.until for examiner in at_work)
    done = []
    for pipe, _ in poll.poll(max(0.0, soonest - time.monotonic()) * 1000 + 1):
        if data := os.read(pipe, 1 << 16):
            by_pipe[pipe].said += data
        else:
            done.append(by_pipe[pipe])
    for examiner in at_work:
        if examiner not in done and time.monotonic() >= examiner.until:
            examiner.late = True
            done.append(examiner)
    return done


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No ^C in here: it comes afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
