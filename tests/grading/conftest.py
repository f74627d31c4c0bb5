"""What the tests of the autograder work with: submissions to lab 03, and the ``labs`` command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.grading.classroom import Classrooms
from labs.grading.sandbox import Sandbox

RIGHT = """\
def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
"""

DEADLINE = 120  # s, for a command that takes one


def exercise(source: str, name: str = "uts.set_names") -> str:
    """A module with one exercise."""
    return f"# %%exercise {name}\n{source}"


def notebook(*cells: str) -> str:
    """A notebook with these cells, and no more metadata than an editor that drops it all."""
    return json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]})


def labs(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    line = [sys.executable, "-c", "import sys; from labs.cli import main; sys.exit(main())", *map(str, arguments)]
    return subprocess.run(line, **{"capture_output": True, "text": True, "timeout": DEADLINE, **options})


@pytest.fixture
def submission(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a submission's file."""

    def write(text: str, name: str = "submission.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox in which an exercise of our own, `uts.set_names`, calls what a test asks for."""
    sandbox = Sandbox(
        Classrooms(tmp_path).without({"uts"}), {"uts.set_names": "def set_names(code): exec(code, globals())"}
    )
    yield sandbox
    sandbox.close()
