"""The exercises that were run in this notebook's session, and engines to start containers with.

Nothing here changes the process that it runs in: a notebook's kernel has a dozen threads, and one that had left its
namespaces, or its root directory, would be of no use to the cells after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from labs import catalogue
from labs.notebook.predictions import Predictions
from minicontainer.engine import Engine
from minicontainer.engine.engine import default_root
from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config
from minicontainer.linux.recording import Told
from minicontainer.runtime.birth import Running
from minicontainer.runtime.program import Stdio


class NotHere(Exception):
    """A step was called in the notebook's own process."""


class Stored:
    """What stands for an exercise's function in the notebook. The function itself runs in other processes only."""

    def __init__(self, name: str, doc: str | None) -> None:
        self.name = name
        self.__doc__ = doc

    def __call__(self, *_: object, **__: object) -> NoReturn:
        function = self.name.rpartition(".")[2]
        raise NotHere(
            f"{function}() changes the process that calls it, and here that would be the notebook itself. "
            f"Call it in a cell that begins with %%isolated, or run %check"
        )

    def __repr__(self) -> str:
        return f"<exercise {self.name}, stored: ask the kernel about it with %check>"


class Session:
    """The exercises so far, the last version of each."""

    def __init__(self) -> None:
        self.exercises: dict[str, str] = {}
        self.predictions = Predictions()
        self.hints: dict[str, int] = {}
        """How many of an exercise's hints were given."""

    def forget(self) -> None:
        """As if the notebook had just been opened."""
        self.exercises.clear()
        self.hints.clear()
        self.predictions.forget()

    def store(self, name: str, source: str) -> None:
        """Keep the text of a cell, in the place of an older version."""
        self.exercises.pop(name, None)  # so that the order is that in which they were run last
        self.exercises[name] = source

    def lab(self, number: str | None) -> catalogue.Lab:
        """The lab with this number or, without one, the lab that the latest exercise belongs to. Raises NoSuchLab."""
        if number:
            return catalogue.find(number)
        for name in reversed(self.exercises):
            for lab in catalogue.every():
                if name in lab.exercises:
                    return lab
        raise catalogue.NoSuchLab(
            "no cell that begins with %%exercise was run yet; which lab? Say, for instance: %check 03"
        )

    def write(self, path: Path) -> Path:
        """Write the exercises to `path` as a notebook, the form that no line of an exercise can break."""
        cells = [
            {"cell_type": "code", "source": f"%%exercise {name}\n{source}"} for name, source in self.exercises.items()
        ]
        path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
        return path


session = Session()
"""Of this process: a notebook's kernel is one session."""

_CHROOT = shutil.which("chroot", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or "chroot"
"""Not in every user's PATH."""


def lab_root() -> Path:
    """Where the labs' containers are kept, apart from the user's own; MINICONTAINER_LABS_ROOT names another place."""
    named = os.environ.get("MINICONTAINER_LABS_ROOT")
    return Path(named) if named else Path(default_root()).with_name("minicontainer-labs")


class LabEngine(Engine):
    """An engine that remembers what it has made, for `labs.notebook.tidying`."""

    def _create(self, image: str, args: list[str], **options: Any) -> Config:
        config = super()._create(image, args, **options)
        _made.append((self, config))
        return config

    def start(self, config: Config, stdio: Stdio = (None, 1, 2), interrupts: int | None = None) -> Running:
        """Likewise."""
        running = super().start(config, stdio, interrupts)
        _started[config.id] = running
        return running


_made: list[tuple[LabEngine, Config]] = []
_started: dict[str, Running] = {}


def containers_left() -> list[tuple[str, tuple[LabEngine, Config]]]:
    """The containers that this session has made, and that are there still; by name. Asked once, they are forgotten."""
    left = [(config.name, (engine, config)) for engine, config in _made if engine.store.is_there(config)]
    _made.clear()
    return left


def put_away(made: tuple[LabEngine, Config]) -> None:
    """End a container, if it runs, and remove it. Raises EngineError."""
    engine, config = made
    if running := _started.pop(config.id, None):
        engine.end(config, running)
    if engine.store.is_there(config):
        engine.remove(config, force=True)


def remove_all() -> list[str]:
    """End and remove every container of the labs, of other notebooks too; returns what to tell of it."""
    told = []
    engine = Engine(lab_root())
    for config, _ in engine.containers():
        try:
            engine.remove(config, force=True)
            told.append(f"container {config.name}")
        except EngineError as error:
            told.append(f"not container {config.name}: {error}")
    return told


def engine(explain: Told | None = None) -> Engine:
    """An engine whose steps are the course's own, to watch the kernel with; `explain` is given its system calls."""
    return LabEngine(lab_root(), explain=explain)


def my_engine() -> Engine:
    """An engine in which this session's exercises take the place of the course's steps.

    Raises BadExercise (no exercise was run yet).
    """
    busybox_root()  # built by our own build_root: yours would otherwise run in this very process
    sessions = lab_root() / "sessions"
    sessions.mkdir(exist_ok=True)
    for left in sessions.iterdir():  # a kernel is killed more often than it ends, so nobody tidies up behind himself
        if not Path("/proc", left.stem).exists():
            left.unlink(missing_ok=True)
    return LabEngine(lab_root(), session.write(sessions / f"{os.getpid()}.ipynb"))


def new_directory(name: str) -> str:
    """The path of an empty directory to work in; what an earlier one of this name held is removed."""
    directory = lab_root() / "work" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return str(directory)


def busybox_root() -> str:
    """The path of the root file system that containers of the busybox image begin with. Only to be looked at."""
    [root] = engine().image_layers("busybox")
    return root


@contextlib.contextmanager
def jailed(root: str, cwd: str = "/", *, inside: bool = True) -> Iterator[int]:
    """A process whose root directory is `root`, while the block lasts; `cwd` is where it stands.

    Inside, that is a directory below `root`, in which there must be a shell; otherwise a directory of ours, where
    chroot(2) leaves a process that does not move.
    """
    command = [_CHROOT, root, "/bin/sh", "-c", 'cd "$0" && echo there && exec sleep 600', cwd]
    if not inside:
        program = "import os, signal, sys; os.chroot(sys.argv[1]); print('there', flush=True); signal.pause()"
        command = [sys.executable, "-c", program, root]
    process = subprocess.Popen(
        ["unshare", "--map-root-user", *command],
        cwd=None if inside else cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"no process could be started in {root}: the message is above")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something in /proc is so. Raises TimeoutError: it is not, after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {seconds:g} seconds")
        select.select([], [], [], 0.005)
