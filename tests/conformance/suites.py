"""The three suites: what a ready checkout of each looks like, its test files, and how one of them is run.

A checkout is made and built by whoever runs this; here it is only used. What each needs:

runtime-tools   `make runtimetest validation-executables` was run in it
crun            tests/init was compiled (statically) from tests/init.c; Python's libmount (of util-linux) can be
                imported, through PYTHONPATH if need be: without it test_mounts.py would pass over 39 tests in silence
runc            recvtty, sd-helper and seccompagent were built in contrib/cmd; busybox-ARCH.tar.xz and
                debian-ARCH.tar.xz lie in tests/integration/testdata; bats, jq, gawk and gcc are installed
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class NotReady(Exception):
    """The checkout lacks something; the text says what."""


class Run(NamedTuple):
    """How to run one test file."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: str | None
    """None: a scratch directory, which goes when the file has ended."""
    terminal_output: bool
    """Whether standard output must be a terminal, too. Standard input and the controlling terminal always are."""


class Suite(NamedTuple):
    """A suite by its name on the command line."""

    name: str
    title: str
    needed: Sequence[str]
    """Paths in a ready checkout, as patterns."""
    tools: Sequence[str]
    """Programs that it runs."""
    modules: Sequence[str]
    """Python modules that it imports."""
    files: str
    """The test files, as a pattern."""


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "runtime-tools",
            "opencontainers/runtime-tools, its validation programs",
            ["runtimetest", "rootfs-*.tar.gz", "validation/*/*.t"],
            ["tar"],
            [],
            "validation/*/*.t",
        ),
        Suite(
            "crun",
            "containers/crun, its Python tests",
            ["tests/init", "tests/tests_utils.py"],
            ["ip"],
            ["libmount"],
            "tests/test_*.py",
        ),
        Suite(
            "runc",
            "opencontainers/runc, its bats files",
            [
                "contrib/cmd/recvtty/recvtty",
                "contrib/cmd/sd-helper/sd-helper",
                "contrib/cmd/seccompagent/seccompagent",
                "tests/integration/testdata/busybox-*.tar.xz",
                "tests/integration/testdata/debian-*.tar.xz",
            ],
            ["bats", "jq", "gawk", "gcc", "go"],
            [],
            "tests/integration/*.bats",
        ),
    )
}


def files(suite: Suite, checkout: Path) -> list[Path]:
    """The test files of a ready checkout, in order of their names. Raises NotReady."""
    lacking = [pattern for pattern in suite.needed if not any(checkout.glob(pattern))]
    missing = [tool for tool in suite.tools if not shutil.which(tool)]
    missing += [f"Python's {module}" for module in suite.modules if not importable(module)]
    if lacking or missing:
        what = [f"{checkout} has no {pattern}" for pattern in lacking] + [
            f"{tool} is not installed" for tool in missing
        ]
        raise NotReady("; ".join(what))
    return sorted(checkout.glob(suite.files))


def importable(module: str) -> bool:
    """Whether the Python that runs the tests has this module."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def name_of(suite: Suite, file: Path) -> str:
    """What a test file is called in tables: `start`, for validation/start/start.t, test_start.py and start.bats."""
    return file.stem.removeprefix("test_") if suite.name == "crun" else file.stem


def run_of(suite: Suite, checkout: Path, file: Path, runtime: str) -> Run:
    """How to run `file` with `runtime`."""
    if suite.name == "runtime-tools":
        return Run([str(file)], {"RUNTIME": runtime}, str(checkout), False)
    if suite.name == "crun":
        environment = {"OCI_RUNTIME": runtime, "INIT": str(checkout / "tests/init"), "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"PYTHONPATH": path} if (path := os.environ.get("PYTHONPATH")) else {}
        # Its tests of terminals ask whether standard output is one, and are skipped where not.
        return Run([sys.executable, "-u", str(file)], environment, None, True)
    return Run(["bats", "--tap", str(file)], {"RUNC": runtime}, str(checkout), False)
