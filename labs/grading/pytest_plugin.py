"""pytest runs the checks: the option ``--subject``, the fixture `subject`, and a record of every check.

Without ``--subject`` the subject is the reference, and the checks are the engine's own tests.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from labs.grading.checks import Check, Late, Wrong
from labs.grading.classroom import Classrooms
from labs.grading.examination import Examination
from labs.grading.records import Record, Verdict
from labs.grading.subject import Subject
from labs.grading.submission import read

RECORDS = pytest.StashKey[dict[str, Record]]()
"""In the config: what each check found, by the node id of its test."""
EXAMINATION = pytest.StashKey[Examination]()
"""In the config: the submission that is examined."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """--subject FILE, several times for a submission of several files."""
    parser.addoption(
        "--subject",
        action="append",
        type=Path,
        metavar="FILE",
        help="check this notebook, module or directory instead of the reference (several are one submission)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the place for the classrooms of this run, and clear it away at its end."""
    config.addinivalue_line("markers", "check(declaration): a check of labs.grading.checks")
    config.stash[RECORDS] = {}
    paths = config.getoption("--subject")
    classrooms = Classrooms()
    config.add_cleanup(classrooms.close)
    config.stash[EXAMINATION] = Examination(read(paths) if paths else None, classrooms)
    config.add_cleanup(lambda: config.stash[EXAMINATION].close())


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The submission (or the reference), for this check."""
    node = request.node
    check = declaration(node)
    assert check, f"{node.nodeid} wants a subject, but is not declared with @check"
    same_lab = [other for item in request.session.items if item.path == node.path and (other := declaration(item))]
    examination = request.config.stash[EXAMINATION]
    given = examination.begin(check, {other.exercise for other in same_lab})
    yield given
    examination.end(given)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last check of a file its sandbox, and after the last of all the classrooms, are not needed any more."""
    examination = item.config.stash[EXAMINATION]
    if nextitem is None or (declaration(item) and nextitem.path != item.path):
        examination.close()
    if nextitem is None:
        examination.classrooms.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make of a check's outcome its record. Points come from here only: the check was called, and returned."""
    report = yield
    check = declaration(item)
    if check is None or (call.excinfo is None and call.when != "call"):
        return report
    if call.when == "teardown":
        return report
    error = call.excinfo.value if call.excinfo else None
    verdict, diagnosis = _verdict(error)
    if verdict == "timeout" and call.when == "call":
        item.config.stash[EXAMINATION].give_up(check.exercise, diagnosis)
    given = getattr(item, "funcargs", {}).get("subject")
    evidence = given.evidence if given else ()
    item.config.stash[RECORDS][item.nodeid] = Record.of(check, verdict, diagnosis, evidence)
    if isinstance(error, Wrong | Late):  # for whoever runs pytest: the diagnosis, not how we came to it
        lines = [f"{check.title}: {verdict}: {diagnosis}", *(f"    {line}" for line in evidence)]
        report.longrepr = "\n".join([*lines, f"look at: {check.look_at}"])
    return report


def declaration(item: pytest.Item) -> Check | None:
    """What a test was declared with in @check, if it was."""
    marker = item.get_closest_marker("check")
    return marker.args[0] if marker else None


def _verdict(error: BaseException | None) -> tuple[Verdict, str]:
    match error:
        case None:
            return "pass", ""
        case Wrong():
            return "fail", str(error)
        case Late():
            return "timeout", str(error)
        case _:
            return "error", f"the check itself failed, tell your instructor: {type(error).__name__}: {error}"
