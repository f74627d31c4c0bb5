"""The ``minicontainer`` command as a user has it, and the image it uses, made once."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from minicontainer.engine import Engine
from tests.host_state import SLOWER

DEADLINE = 30 * SLOWER  # s, for what takes 30 ms on an idle machine

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes containers without a user namespace")


def command_line() -> list[str]:
    """The installed command, beside the interpreter that runs the tests; from the checkout where it is not installed."""
    installed = Path(sys.executable).with_name("minicontainer")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "minicontainer"]


@dataclass
class Command:
    """The command with a state directory of the test's own."""

    root: Path
    words: list[str] = field(default_factory=command_line)

    def line(self, *arguments: str | bytes | Path) -> list[str | bytes | Path]:
        """The whole command line."""
        return [*self.words, "--root", self.root, *arguments]

    def __call__(self, *arguments: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(self.line(*arguments), **{**settings, "timeout": DEADLINE, **options})

    @contextlib.contextmanager
    def running(self, *arguments: str | bytes | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Run it beside the test; killed at the end of the block if it still runs."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "text": True}
        settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(self.line(*arguments), **{**settings, **options})
        try:
            yield process
        finally:
            self.put_down(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def put_down(self, process: subprocess.Popen[Any]) -> None:
        """Kill it if it still runs, and put right what it could not."""
        if process.poll() is None:
            process.kill()
            process.wait()
            self("system", "repair")
        process.wait()

    def containers(self) -> list[str]:
        """What is left below the state directory of containers: directories and names."""
        return sorted(str(path.relative_to(self.root)) for place in ("containers", "names")
                      for path in (self.root / place).glob("*"))  # fmt: skip


def line_of(stream: IO[str] | None) -> str:
    """The next line that a process writes; fails after the deadline instead of waiting for ever."""
    assert stream is not None
    if not select.select([stream], [], [], DEADLINE)[0]:
        pytest.fail(f"nothing was written for {DEADLINE} s")
    return stream.readline()


def lines_of(stream: IO[Any] | None, count: int) -> list[str]:
    """The next so many, without newlines, though they may come all at once; fails after the deadline."""
    assert stream is not None
    text = b""
    while text.count(b"\n") < count:
        if not select.select([stream], [], [], DEADLINE)[0]:
            pytest.fail(f"nothing was written for {DEADLINE} s after {text[-200:]!r}")
        if not (byte := os.read(stream.fileno(), 1)):  # one by one: what comes after them is for the next
            pytest.fail(f"it ended after {text[-200:]!r}")
        text += byte
    return text.decode().splitlines()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll a condition for which there is no event to wait for. Returns its first true value."""
    import time

    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE} s: {what}")
        select.select([], [], [], 0.005)
    return value


def one_line(error: str) -> str:
    """The error of a command: exactly one line, that says who speaks. Returns what it says."""
    assert error.endswith("\n") and error.count("\n") == 1, f"not one line: {error!r}"
    said = re.fullmatch(r"minicontainer( \w+)?: (.+)\n", error)
    assert said and "Traceback" not in error, error
    return said[2]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with the busybox image in it, and without containers."""
    directory = tmp_path_factory.mktemp("images")
    Engine(directory).image_layers("busybox")
    return directory


@pytest.fixture(scope="session")
def busybox(images: Path) -> str:
    """The root file system of the busybox image. Not to be written to."""
    [layer] = Engine(images).image_layers("busybox")
    return layer


@pytest.fixture
def state_root(tmp_path: Path, images: Path) -> Path:
    """A state directory that has the image already: names of the same files, which nobody writes to."""
    root = tmp_path / "state"
    root.mkdir()
    subprocess.run(["cp", "-al", images / "images", images / "layers", root], check=True)
    return root


@pytest.fixture
def minicontainer(state_root: Path) -> Command:
    """The command."""
    return Command(state_root)


def end(processes: Sequence[int]) -> None:
    """SIGKILL to processes, and wait until they are gone."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], DEADLINE)
            os.close(pidfd)
