"""Measuring in turns: a figure from another day or machine says little, the ratio of two that took turns says much.

Every subject of a benchmark runs once in each round, so whatever else the machine does, it does to all of them alike.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

WARM_UP = 3
"""Rounds that are not counted: first calls fill caches, and first files are read from the disk."""


@dataclass(frozen=True)
class Series:
    """What one subject took, round by round."""

    name: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one: outliers, of which a busy machine has many, do not move it."""
        return statistics.median(self.samples)

    def ratios(self, other: Series) -> list[float]:
        """How many times as much as `other`, round by round."""
        return [mine / its for mine, its in zip(self.samples, other.samples, strict=True)]


@dataclass(frozen=True)
class Goal:
    """What is asked of us: the subject's median is at most `limit`, in the report's unit or as a ratio to `beside`."""

    subject: str
    limit: float
    beside: str | None = None


@dataclass(frozen=True)
class Report:
    """What a benchmark found."""

    name: str
    title: str
    unit: str
    series: Sequence[Series]
    goal: Goal
    """The first one: the table's ratios are to its yardstick, or to its subject."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Subjects that could not be measured here, and why."""
    notes: Sequence[str] = ()
    more_goals: Sequence[Goal] = ()

    def __getitem__(self, name: str) -> Series:
        return next(series for series in self.series if series.name == name)

    @property
    def goals(self) -> list[Goal]:
        """All of them."""
        return [self.goal, *self.more_goals]

    def achieved(self, goal: Goal | None = None) -> float:
        """The figure that a goal, the first one unless given, is about."""
        goal = goal or self.goal
        median = self[goal.subject].median
        return median / self[goal.beside].median if goal.beside else median

    def verdict(self, goal: Goal | None = None) -> str:
        """One line: the goal, the figure, whether it was reached, and how far the rounds spread."""
        goal = goal or self.goal
        achieved = self.achieved(goal)
        reached = "reached" if achieved <= goal.limit else "NOT reached"
        if goal.beside is None:
            return f"goal: {goal.subject} ≤ {goal.limit:g} {self.unit}; measured {achieved:.3g} {self.unit}: {reached}"
        spread = quartiles(self[goal.subject].ratios(self[goal.beside]))
        return (
            f"goal: {goal.subject} ≤ {goal.limit:g} × {goal.beside}; measured {achieved:.2f} × "
            f"(half of the rounds between {spread[0]:.2f} and {spread[1]:.2f}): {reached}"
        )

    def rows(self) -> list[list[str]]:
        """The table, with its head: ratios are to the goal's yardstick, or to our own subject."""
        yardstick = self[self.goal.beside or self.goal.subject].median
        rows = [["", f"median, {self.unit}", "quartiles", "min", "max", "n", "ratio"]]
        for series in self.series:
            low, high = quartiles(series.samples)
            figures = [_figure(value) for value in (series.median, low, high, min(series.samples), max(series.samples))]
            rows.append(
                [
                    series.name,
                    figures[0],
                    f"{figures[1]}–{figures[2]}",
                    *figures[3:],
                    str(len(series.samples)),
                    f"{series.median / yardstick:.2f}",
                ]
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything, the single samples too, for ``--json``."""
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "goals": [
                {
                    "subject": goal.subject,
                    "limit": goal.limit,
                    "beside": goal.beside,
                    "achieved": self.achieved(goal),
                    "reached": self.achieved(goal) <= goal.limit,
                }
                for goal in self.goals
            ],
            "series": {series.name: list(series.samples) for series in self.series},
            "missing": dict(self.missing),
            "notes": list(self.notes),
        }


def take_turns(subjects: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = WARM_UP) -> list[Series]:
    """Let each of `subjects`, which return what they measured, run once in every round."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(-warm_up, rounds):
        for name, subject in subjects.items():
            sample = subject()
            if number >= 0:
                samples[name].append(sample)
    return [Series(name, tuple(taken)) for name, taken in samples.items()]


class Driven:
    """A program that works once for each line that it is given, which may say at what, and answers with the
    milliseconds that it took."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, line: object = "") -> float:
        assert self._program.stdin and self._program.stdout
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()
        answer = self._program.stdout.readline()
        if not answer:
            raise SystemExit(f"benchmarks: {self._command[0]} ended with status {self._program.wait()}")
        return float(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._program.stdin and self._program.stdout
        self._program.stdin.close()
        self._program.stdout.close()
        self._program.wait()


def command_time(command: Sequence[str]) -> float:
    """Milliseconds from the start of a command to its end, as the shell that starts it sees them.

    posix_spawn(3), because a fork of this process would be the dearest part of a short command.
    """
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
    begin = time.perf_counter()
    pid = os.posix_spawn(command[0], list(command), dict(os.environ), file_actions=quiet)
    _, status = os.waitpid(pid, 0)
    taken = (time.perf_counter() - begin) * 1000
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        raise SystemExit(f"benchmarks: {' '.join(command)}: exit status {code}")
    return taken


def peak_memory(command: Sequence[str]) -> int:
    """The resident set, in bytes, of the largest process of one run of a command. getrusage(2), ru_maxrss.

    A small process starts it, and waits for nothing else: of one that started as a copy of us we would be told our own.
    """
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdin=-3, stdout=-3, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", program, *command], check=True, stdout=-1, text=True)
    return int(done.stdout) * 1024


def apart(function: Callable[[], Any]) -> Any:
    """Call a function in a process of its own and return its answer, which must fit in JSON.

    For what changes its process for good, such as the process's view of the mounts.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            with open(writing, "w") as answer:
                json.dump(function(), answer)
            status = 0
        except SystemExit as error:
            print(error, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading) as answer:
        text = answer.read()
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit(1)
    return json.loads(text)


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """Between these lies the middle half."""
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def circumstances() -> dict[str, str]:
    """What the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
