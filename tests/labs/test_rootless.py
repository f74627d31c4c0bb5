"""The labs as an ordinary user has them, on a plain Linux machine: nothing but user namespaces, and a range of ids.

Of the first nine labs, the two that do most with one's rights are executed here. The others take nothing that these do
not, and are executed by hand: put their numbers into LABS.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labs.catalogue import find
from labs.notebook import build
from minicontainer.steps.group import MOUNTS
from tests.cli.test_rootless import UID, reachable
from tests.command import DEADLINE, needs_root

pytestmark = needs_root  # to become somebody else

LABS = ("06", "07")
EXECUTE = """\
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.stdin, as_version=4)
where = {"metadata": {"path": "/mnt/state"}}
NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True, resources=where).execute()
print(nbformat.writes(notebook))
"""


def as_student(tmp_path: Path, *command: str, around: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as an ordinary user with 65536 subordinate ids; `around`: what a shell does before, as root."""
    if not all(shutil.which(name) for name in ("newuidmap", "newgidmap")):
        pytest.skip("newuidmap is not installed (package uidmap): there are no ranges to be had")
    names = Path("/etc/passwd").read_text(encoding="utf-8")
    (tmp_path / "passwd").write_text(f"{names}student:x:{UID}:{UID}::/mnt/state:/bin/sh\n")
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("student:700000:65536\n")
    prefix, [python, *_] = reachable(tmp_path)
    environment = {
        "PATH": f"{os.path.dirname(python)}:{os.environ.get('PATH', os.defpath)}",
        "HOME": "/mnt/state",
        "PYTHONPATH": "/mnt/code",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MINICONTAINER_LABS_ROOT": "/mnt/state/labs",
    }
    become = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--inh-caps=-all"]
    become = ["sh", "-c", f'{around or ":"} && cd /mnt/state && exec "$@"', "sh", *become]
    return subprocess.run(
        [*prefix, *become, "env", "-i", *(f"{name}={value}" for name, value in environment.items()), python, *command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=5 * DEADLINE,
    )


@pytest.mark.parametrize("number", LABS)
def test_a_solved_notebook_runs_to_full_marks(number: str, tmp_path: Path) -> None:
    done = as_student(tmp_path, "-c", EXECUTE, stdin=build.solved(find(number)))
    assert done.returncode == 0, done.stderr
    code = [cell for cell in json.loads(done.stdout)["cells"] if cell["cell_type"] == "code"]
    for cell in code:
        assert complaints(cell) == [], "".join(cell["source"])
    assert "Full marks" in str(code[-1]["outputs"])


def complaints(cell: dict[str, Any]) -> list[Any]:
    """What a cell has said that it should not."""
    return [one for one in cell["outputs"] if one["output_type"] == "error" or one.get("name") == "stderr"]


def test_checks_leave_to_root_what_root_has_mounted(tmp_path: Path) -> None:
    """They tidy up after examiners that were killed; but not in root's mounts, and without waiting for root's lock."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state/04.ipynb").write_text(build.solved(find("04")), encoding="utf-8")
    locked = f"mount -t tmpfs none /run && mkdir -p {MOUNTS}/net_cls && exec 9<{MOUNTS} && flock 9"
    done = as_student(tmp_path, "-m", "labs", "check", "04", "--subject", "04.ipynb", around=locked)
    assert (done.returncode, done.stderr) == (0, "")
    assert "10 of 10 points" in done.stdout
    assert "unshare(CLONE_NEWIPC): EPERM" in done.stdout  # flags by their names, in what the kernel refused
