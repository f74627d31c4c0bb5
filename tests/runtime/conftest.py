"""Containers started in this very process, without the engine: a specification, the steps, and what comes of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from minicontainer.linux import Namespace, is_single_threaded
from minicontainer.runtime.birth import Running, start
from minicontainer.runtime.spec import Overlay, Process, Spec
from minicontainer.steps import Steps
from minicontainer.steps.loading import Exercise, define
from tests.command import DEADLINE

ALL = frozenset(Namespace) - {Namespace.USER}


@dataclass(frozen=True)
class Outcome:
    """How a container ended, and what it wrote."""

    status: int
    out: str
    err: str


@dataclass
class Nursery:
    """Starts containers with a root of their own over the busybox image."""

    directory: Path
    image: str
    running: list[Running] = field(default_factory=list)
    count: int = 0

    def spec(self, *args: str, **fields: Any) -> Spec:
        """What to start: the command, and fields of Process or Spec that differ from the usual."""
        self.count += 1
        place = self.directory / f"c{self.count}"
        for name in ("upper", "work", "merged"):
            (place / name).mkdir(parents=True)
        process = {name: fields.pop(name) for name in ("env", "cwd", "terminal", "preserve_fds") if name in fields}
        usual: dict[str, Any] = {
            "id": f"test-{os.getpid()}-{self.count}",
            "root": Overlay([self.image], f"{place}/upper", f"{place}/work", f"{place}/merged"),
            "process": Process(args, **process),
            "hostname": "inside",
        }
        return Spec(**{**usual, **fields})

    def start(self, *args: str, steps: Steps | None = None, stdio: Any = (None, None, None), interrupts: int | None = None,
              **fields: Any) -> Running:  # fmt: skip
        """Start it, and leave it running."""
        assert is_single_threaded(), "a test has left a thread behind: nothing can be forked from here"
        running = start(self.spec(*args, **fields), steps or Steps(), stdio, interrupts)
        self.running.append(running)
        return running

    def run(self, *args: str, stdin: int | None = None, **fields: Any) -> Outcome:
        """Start it and wait for its end."""
        with open(self.directory / "out", "w+b") as out, open(self.directory / "err", "w+b") as err:
            running = self.start(*args, stdio=(stdin, out.fileno(), err.fileno()), **fields)
            status = self.end_of(running)
            out.seek(0)
            err.seek(0)
            return Outcome(status, out.read().decode(errors="replace"), err.read().decode(errors="replace"))

    def end_of(self, running: Running) -> int:
        """Wait for its end; the status."""
        if not select.select([running.pidfd], [], [], DEADLINE)[0]:
            pytest.fail(f"the container has not ended for {DEADLINE} s")
        status = running.wait()
        self.running.remove(running)
        os.close(running.pidfd)
        if running.console is not None:
            os.close(running.console)
        if running.group:
            Steps().remove_group(running.group)
        return status

    def end(self, running: Running) -> int:
        """Kill it, and wait for its end; the status."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
        return self.end_of(running)


@pytest.fixture
def nursery(tmp_path: Path, busybox: str) -> Iterator[Nursery]:
    """Where containers are born, and die at the end of the test."""
    nursery = Nursery(tmp_path, busybox)
    yield nursery
    for running in list(nursery.running):
        nursery.end(running)


def with_exercise(name: str, source: str) -> Steps:
    """The reference steps with one exercise as a student would have written it in a cell."""
    functions, wrong = define([Exercise(name, source)])
    assert not wrong, wrong
    return Steps().with_functions(functions)
