"""The ``labs`` command: check a submission, grade a class, build the notebooks.

Exit status: 0 all right (check: full marks; grade: every submission was processed), 1 not full marks, 2 the
command was not meant like this, 3 this host cannot do it, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from labs.catalogue import Lab, NoSuchLab, find

if TYPE_CHECKING:
    from labs.grading.grade import Graded, Tell
    from labs.grading.records import Report

Result = TypeVar("Result")

USAGE, HOST, INTERRUPTED = 2, 3, 130


class Misused(Exception):
    """A command that cannot be carried out as it was given; the text says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="labs", description="The labs: check a submission, grade a class, build the notebooks."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="check one submission and say what the kernel says of it")
    check.add_argument("lab", metavar="NN", help="the lab's number: 03")
    check.add_argument(
        "--subject", metavar="FILE", type=Path, action="append", required=True, help="notebook, module or directory"
    )
    check.add_argument("--json", action="store_true", help="print the result as JSON")

    grade = commands.add_parser("grade", help="grade a folder of submissions")
    grade.add_argument("lab", metavar="NN", help="the lab's number: 03")
    grade.add_argument(
        "folder", metavar="DIR", type=Path, help="with STUDENT.ipynb, STUDENT.py or STUDENT/*.ipynb in it"
    )
    grade.add_argument(
        "--out", metavar="OUT", type=Path, required=True, help="where grades.csv, results.json and feedback/ go"
    )
    grade.add_argument("--jobs", metavar="N", type=int, default=len(os.sched_getaffinity(0)), help="how many at a time")

    commands.add_parser("build", help="write notebooks/ anew from labs/course/", add_help=False)
    commands.add_parser("book", help="make a static site of the course, with outputs", add_help=False)
    commands.add_parser("vm", help="the lab's virtual machine: up, ssh, status, halt, destroy, …", add_help=False)

    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["vm"]:  # what follows is its own, such as the options of a command in the machine
        from vm.commands import main as command_machine

        return command_machine(words[1:])

    told, rest = parser.parse_known_args(argv)
    if rest and told.command not in ("build", "book"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if told.command == "build":
        from labs.notebook.build import main as build_notebooks

        return int(build_notebooks(rest) or 0)
    if told.command == "book":
        from labs.notebook.book import main as make_book

        return make_book(rest)

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if told.command == "check":
            return _check(find(told.lab), told.subject, told.json)
        return _grade(find(told.lab), told.folder, told.out, told.jobs)
    except (NoSuchLab, Misused) as error:
        return _say(error, USAGE)
    except BrokenPipeError:  # whoever read our output has gone, as `head` does; Python would complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return _say("interrupted; nothing was written", INTERRUPTED)
    except Exception as error:
        from labs.grading.examine import NO_SANDBOX, BrokenChecks

        if isinstance(error, (*NO_SANDBOX, BrokenChecks)):
            return _say(error, HOST)
        raise


def _check(lab: Lab, paths: Sequence[Path], as_json: bool) -> int:
    from labs.grading.examine import examine

    for path in paths:
        if not path.exists():
            raise Misused(f"{path}: there is no such file or directory")
    report = examine(lab, paths)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        _show(lab, report)
    return 0 if report.full else 1


def _show(lab: Lab, report: Report) -> None:
    """The result as a person reads it, in colours on a terminal."""
    colours = {"pass": "\033[32m", "fail": "\033[31m"} if sys.stdout.isatty() else {}
    end = "\033[0m" if colours else ""
    print(f"lab {lab.number}, {lab.title}: {report.points} of {report.max} points")
    for record in report.records:
        print(
            f"\n{colours.get(record.verdict, '')}{record.verdict:8}{end}{record.points} / {record.max}  {record.title}"
        )
        told = [record.diagnosis, record.evidence and f"seen: {record.evidence}"]
        told += [f"look at: {record.look_at}"] if record.verdict != "pass" and record.look_at else []
        for text in filter(None, told):
            print("               " + text.replace("\n", "\n               "))


def _grade(lab: Lab, folder: Path, out: Path, jobs: int) -> int:
    from labs.grading import feedback
    from labs.grading.grade import grade

    if not folder.is_dir():
        raise Misused(f"{folder}: there is no such directory of submissions")
    if out.resolve().is_relative_to(folder.resolve()):
        raise Misused(f"{out} lies in {folder}, and would be taken for a submission: put it elsewhere")
    if jobs < 1:
        raise Misused(f"--jobs {jobs}: at least one must be at work")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable by this user", str(out))
        rows, limited = _with_progress(lambda tell: grade(lab, folder, jobs, tell))
        feedback.write(out, lab, rows, limited)
    except OSError as error:
        raise Misused(f"{error.filename or out}: {error.strerror}") from None
    full = sum(row.report.full for row in rows)
    print(f"lab {lab.number}: {len(rows)} submissions, {full} with full marks; {out / 'grades.csv'}")
    for row in rows:
        if row.status != "graded":
            print(f"  {row.entry.student}: {row.status}: {row.reason}")
    if not limited:
        print(
            "labs: no control groups here: memory, processor and processes were held by rlimits only", file=sys.stderr
        )
    return 0


def _with_progress(work: Callable[[Tell], Result]) -> Result:
    """Do the work, with a progress bar where there is a terminal. No threads: sandboxes are started from here."""
    if not sys.stderr.isatty():
        return work(lambda done, of, last: None)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=None)

        def tell(done: int, of: int, last: Graded | None) -> None:
            description = f"{last.entry.student}: {last.report.points}/{last.report.max}" if last else ""
            progress.update(task, completed=done, total=of, description=description)
            progress.refresh()

        return work(tell)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _say(what: object, status: int) -> int:
    print(f"labs: {what}", file=sys.stderr)
    return status
