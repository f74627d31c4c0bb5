"""The command `tests/conformance/run`: judge a runtime by the suites that judge runc and crun."""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.conformance import place, suites
from tests.conformance.page import page, read_reasons
from tests.conformance.results import FLOOR, File, Results, circumstances, summary, worse
from tests.conformance.tap import FAILED, judge

LIMIT = 60.0  # s, for one test file
FLOOR_LIMIT = 15.0  # s; a file whose program waits for what never comes is not waited for as long
LAST = 4000  # characters of standard error that are kept of a file that is not clean

ABOUT = """\
Run a suite from a checkout that is ready, with a runtime, in a corner of this host of its own; needs root. Or
  compare A.json B.json          what the runtime of A fails that the one of B passes
  page PAGE.md A.json B.json …   write the page from results that were kept with --json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """0: the suite was run (whatever it found), or A is in nothing worse than B. 1: it is. 2: it could not be run."""
    parser = argparse.ArgumentParser(
        prog="tests/conformance/run", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="SUITE|compare|page")
    for name, suite in suites.SUITES.items():
        one = commands.add_parser(name, help=suite.title)
        one.add_argument("checkout", type=Path, metavar="CHECKOUT", help="where the suite is, built")
        one.add_argument("runtime", metavar="RUNTIME", help="the runtime to be judged, or `floor`")
        one.add_argument(
            "--name", help="what the runtime is called in tables (default: ours, floor, or its file's name)"
        )
        one.add_argument("--only", metavar="PATTERN", help="only the test files whose names fit: start, linux_*")
        one.add_argument(
            "--limit", type=float, default=LIMIT, metavar="SECONDS", help="for each file (default: %(default)g)"
        )
        one.add_argument("--json", type=Path, metavar="FILE", help="keep the verdict on every assertion in FILE")
        one.add_argument("--write", type=Path, metavar="PAGE", help="write PAGE from this run and those `--beside` it")
        one.add_argument(
            "--beside",
            type=Path,
            nargs="+",
            default=[],
            metavar="JSON",
            help="results of others, or of ours with another suite",
        )
        one.add_argument(
            "--no-floor", dest="floor", action="store_false", help="do not run the floor when it is not beside"
        )
        one.add_argument("--logs", type=Path, metavar="DIRECTORY", help="keep what each file printed")
        one.add_argument(
            "--verbose", action="store_true", help="show the end of what a file that fails wrote to standard error"
        )
    compared = commands.add_parser("compare", help="what A fails that B passes")
    compared.add_argument("results", type=Path, nargs=2, metavar="JSON")
    written = commands.add_parser("page", help="write the page from kept results")
    written.add_argument("page", type=Path, metavar="PAGE")
    written.add_argument("results", type=Path, nargs="+", metavar="JSON")
    asked = parser.parse_args(argv)
    try:
        if asked.command == "compare":
            return compare(*map(Results.read, asked.results))
        if asked.command == "page":
            asked.page.write_text(page(list(map(Results.read, asked.results)), read_reasons()), encoding="utf-8")
            return 0
        return judge_runtime(asked)
    except (suites.NotReady, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def judge_runtime(asked: argparse.Namespace) -> int:
    """Run the suite that was asked for, print a line for each file and the figures, keep what is to be kept."""
    suite, checkout = suites.SUITES[asked.command], asked.checkout.resolve()
    if os.geteuid() != 0:
        raise PermissionError("runtimes are judged as root")
    runtime = shutil.which(FLOOR if asked.runtime == "floor" else asked.runtime)
    if runtime is None:
        raise FileNotFoundError(f"there is no program {asked.runtime}")
    runtime = os.path.abspath(runtime)
    files = suites.files(suite, checkout)
    if asked.only is not None:
        if asked.write:
            raise ValueError("--write takes the whole suite: leave --only out")
        files = [file for file in files if fnmatch.fnmatchcase(suites.name_of(suite, file), asked.only)]
        if not files:
            raise ValueError(f"no test file is called {asked.only}")
    others = [Results.read(path) for path in asked.beside]

    def judged(view: place.View, what: str, limit: float) -> Iterator[tuple[File, place.Ended]]:
        for path in files:
            ended = place.run(view, suites.run_of(suite, checkout, path, what), limit)
            file = File(suites.name_of(suite, path), round(ended.seconds, 2), judge(ended.output, ended.status, limit))
            yield file if file.clean else file._replace(errors=ended.errors[-LAST:]), ended

    def work(view: place.View) -> int:
        if view.missing:
            print(f"what this host cannot give: {', '.join(view.missing)}")
        found = []
        for file, ended in judged(view, runtime, asked.limit):
            found.append(file)
            report(file, verbose=asked.verbose)
            if asked.logs:
                asked.logs.mkdir(parents=True, exist_ok=True)
                (asked.logs / f"{file.name}.txt").write_text(f"{ended.output}\n--- standard error ---\n{ended.errors}")
        run = circumstances(suite.name, checkout, runtime, view.missing, found)
        run = run._replace(name=asked.name or run.name)
        kept = [other for other in others if (other.suite, other.name) != (run.suite, run.name)]
        known = {other.name for other in (run, *kept) if other.suite == run.suite}
        if "floor" not in known and asked.floor and asked.only is None:
            print("the same with a program that only exits 1 …", flush=True)
            ground = [file for file, _ in judged(view, FLOOR, min(asked.limit, FLOOR_LIMIT))]
            kept.append(circumstances(suite.name, checkout, FLOOR, view.missing, ground))
        print()
        print_table(summary([run, *(other for other in kept if other.suite == run.suite)]))
        if asked.json:
            run.write(asked.json)
        if asked.write:
            asked.write.write_text(page([*kept, run], read_reasons()), encoding="utf-8")
        return 0

    return place.apart(work)


def report(file: File, *, verbose: bool) -> None:
    """One line for a file, and one for each assertion that failed."""
    counts = {verdict: sum(found.verdict == verdict for found in file.verdicts) for verdict in ("ok", "skip", FAILED)}
    figures = "  ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
    print(f"{'clean' if file.clean else 'FAILS':6}{file.name:36} {file.seconds:6.1f} s  {figures}", flush=True)
    for found in file.verdicts:
        if found.verdict == FAILED:
            print(f"      not ok: {found.name}", flush=True)
    if verbose and not file.clean:
        print("".join(f"      | {line}\n" for line in file.errors.splitlines()), end="", flush=True)


def compare(one: Results, other: Results) -> int:
    """Print what `one` fails that `other` passes; 1 if there is anything."""
    if one.suite != other.suite:
        raise ValueError(f"{one.suite} cannot be compared with {other.suite}")
    print_table(summary([one, other]))
    lost = list(worse(one, other))
    print(f"\n{other.name} passes, {one.name} does not: {len(lost)}")
    for file, name, n in lost:
        print(f"  {file}: {name}{f' ({n + 1})' if n else ''}")
    return 1 if lost else 0


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Columns under one another, figures to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print(
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            sep="  ",
        )
