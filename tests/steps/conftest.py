"""Control groups for a test, gone after it; and processes that wait in them, work, or do what they are told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.linux.cgroups import hierarchy_of
from minicontainer.steps.group import Group, create_group, enter_group, remove_group
from tests.command import line_of


class Groups:
    """Makes groups with names that nobody else has, and processes in them."""

    def __init__(self) -> None:
        self.made: list[Group] = []
        self.processes: list[subprocess.Popen[str]] = []

    def name(self, below: Group | None = None) -> str:
        """A name that is free."""
        own = f"test-{os.getpid()}-{len(self.made)}"
        return f"{below.name}/{own}" if below else own

    def __call__(self, *controllers: str, below: Group | None = None) -> Group:
        """A new group with these controllers; skips the test where this host has not got them."""
        for controller in controllers:
            if hierarchy_of(controller) is None and controller not in ("net_cls", "net_prio"):
                pytest.skip(f"no tree of control groups on this host has the {controller} controller")
        group = create_group(self.name(below), controllers)
        self.made.append(group)
        return group

    def start(self, group: Group, *command: str) -> subprocess.Popen[str]:
        """A process in the group, which runs the command from its first moment there."""
        process = subprocess.Popen(
            ["sh", "-c", 'read go; exec "$@"', "sh", *command], stdin=-1, stdout=-1, stderr=-1, text=True
        )
        self.processes.append(process)
        enter_group(group, process.pid)
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):  # killed before it could read it
            process.stdin.write("\n")
            process.stdin.flush()
        return process

    def python(self, group: Group, program: str) -> subprocess.Popen[str]:
        """A Python in the group that runs this program."""
        return self.start(group, sys.executable, "-I", "-S", "-c", program)

    def ready(self, group: Group, program: str) -> subprocess.Popen[str]:
        """Likewise; returns when it has written a line."""
        process = self.python(group, program)
        line_of(process.stdout)
        return process

    def close(self) -> None:
        """End everything."""
        for group in reversed(self.made):
            remove_group(group)
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


@pytest.fixture
def groups() -> Iterator[Groups]:
    """Makes control groups."""
    groups = Groups()
    yield groups
    groups.close()


def on_disk(group: Group, controller: str, v1: str, v2: str | None = None) -> str:
    """What a control file of the group says, by its name on v1 and on v2; read without our own code."""
    version, directory = group[controller]
    return Path(directory, v1 if version == 1 else v2 or v1).read_text().strip()
