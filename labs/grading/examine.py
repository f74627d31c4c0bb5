"""The checks of a lab, run by pytest in this process: for one submission, or for whoever brings a loop of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from labs.catalogue import Lab
from labs.grading.checks import Check, plain
from labs.grading.classroom import Exposed, refuse_exposure
from labs.grading.pytest_plugin import EXAMINATION, RECORDS, declaration
from labs.grading.records import Record, Report
from labs.grading.sandbox import Unavailable, remove_forgotten_groups
from minicontainer.images.errors import ImageError
from minicontainer.steps.group import remove_empty_groups

NO_SANDBOX = (Unavailable, Exposed, ImageError)
"""What is no submission's fault: here, nothing can be examined."""


UNWANTED = ("cacheprovider", "terminal", "faulthandler", "logging", "doctest", "junitxml")
"""Plugins of pytest that write something, or cost time."""


class BrokenChecks(Exception):
    """The checks of a lab that cannot be run; the text says why."""


def examine(lab: Lab, paths: Sequence[Path]) -> Report:
    """What the checks of the lab find in the submission made of these files. Raises BrokenChecks and NO_SANDBOX."""
    refuse_exposure(paths)
    examiner = Examiner()
    run(lab, examiner, [f"--subject={path}" for path in paths])
    return Report(lab.number, examiner.found)


class Examiner:
    """A plugin of pytest: takes note of the checks, and of what they found."""

    def __init__(self) -> None:
        self.found: tuple[Record, ...] = ()
        self.limited = True
        self.problem: Exception | None = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file of checks that cannot be imported."""
        if report.failed:
            reason = report.longreprtext.strip().splitlines()[-1]  # the exception; a traceback is above it
            self.problem = BrokenChecks(
                f"{report.nodeid} cannot be imported: {plain(reason.removeprefix('E').strip())}"
            )

    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """A sandbox that cannot be had is not the check's affair."""
        if call.excinfo and isinstance(call.excinfo.value, NO_SANDBOX):
            self.problem = call.excinfo.value

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Read what was found."""
        self.found = found(session)
        self.limited = session.config.stash[EXAMINATION].limited


def checks_of(session: pytest.Session) -> dict[str, Check]:
    """The checks of a session by node id, in their order."""
    return {item.nodeid: check for item in session.items if (check := declaration(item))}


def found(session: pytest.Session) -> tuple[Record, ...]:
    """The record of every check of a session; one that was not run has not been passed."""
    records = session.config.stash[RECORDS]
    return tuple(
        records.get(nodeid) or Record.of(check, "error", "the check was not run")
        for nodeid, check in checks_of(session).items()
    )


def run(lab: Lab, examiner: Examiner, options: Sequence[str] = ()) -> None:
    """Let pytest collect the checks of the lab, and run them. Raises BrokenChecks, NO_SANDBOX, KeyboardInterrupt."""
    if not lab.checks.is_file():
        raise BrokenChecks(f"lab {lab.number} has no checks: there is no {lab.checks}")
    remove_forgotten_groups()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed here has no business in an examination
    # No configuration but this: not the project's, nor that of the directory that we were called in.
    settings = [
        f"--config-file={os.devnull}",
        f"--rootdir={lab.checks.parent}",
        "--override-ini=addopts=",
        "--noconftest",
    ]
    settings += ["--import-mode=importlib", "--assert=plain", "--capture=no", "-plabs.grading.pytest_plugin"]
    settings += [f"-pno:{plugin}" for plugin in UNWANTED]
    try:
        ended = pytest.main([str(lab.checks), *options, *settings], plugins=[examiner])
    finally:
        remove_empty_groups()  # those of examiners that were killed in their first moments
    if examiner.problem:
        raise examiner.problem
    if ended == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if ended not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise BrokenChecks(f"the checks of lab {lab.number} cannot be run: pytest ended with {ended}")
