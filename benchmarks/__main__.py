"""Measure, print a table for each benchmark, and on request keep the figures: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    follow,
    grading,
    groups,
    layers,
    memory,
    names,
    networks,
    podman_start,
    ps,
    pull,
    runtime_start,
    shell_start,
    snapshots,
    stats,
    throughput,
    unpack,
    warm_start,
)
from benchmarks.measure import Report, circumstances

MODULES = {
    "warm_start": warm_start,
    "groups": groups,
    "shell_start": shell_start,
    "runtime_start": runtime_start,
    "podman_start": podman_start,
    "networks": networks,
    "throughput": throughput,
    "layers": layers,
    "unpack": unpack,
    "pull": pull,
    "names": names,
    "snapshots": snapshots,
    "stats": stats,
    "ps": ps,
    "follow": follow,
    "memory": memory,
    "grading": grading,
}
BENCHMARKS: dict[str, Callable[..., Report]] = {name: module.measure for name, module in MODULES.items()}
PAGE = Path(__file__).parents[1] / "docs/BENCHMARKS.md"


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when everything was measured, whatever the figures; they are goals, not tests."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What it costs, beside its peers, in one run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all unless given")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of each, in place of its own number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[1])} from this run")
    parser.add_argument(
        "--imports", action="store_true", help="only show what `minicontainer run` imports, and its cost"
    )
    arguments = parser.parse_args(argv)
    if arguments.imports:
        print(shell_start.imports())
        return 0
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    if arguments.write and arguments.names:
        parser.error("--write makes the whole page, so it takes all benchmarks: leave the names out")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds: at least one")

    where, reports, failed = circumstances(), [], []
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    for name in arguments.names or BENCHMARKS:
        try:
            report = BENCHMARKS[name](**({"rounds": arguments.rounds} if arguments.rounds else {}))
        except SystemExit as error:  # the others can be measured nevertheless
            failed.append(name)
            print(f"\n{name}: not measured: {error}")
            continue
        reports.append(report)
        print(f"\n{report.title}\n{_as_text(report)}")
    if arguments.json:
        figures = {"circumstances": where, "benchmarks": [report.to_dict() for report in reports]}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.write and not failed:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(_page(where, reports))
    return 1 if failed else 0


def _as_text(report: Report) -> str:
    rows = report.rows()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([*lines, *_remarks(report), *map(report.verdict, report.goals)])


def _as_markdown(report: Report) -> str:
    head, *rows = ["| " + " | ".join(row) + " |" for row in report.rows()]
    rule = "|---|" + "---:|" * (len(report.rows()[0]) - 1)
    remarks = [f"- {remark}" for remark in (*_remarks(report), *map(report.verdict, report.goals))]
    return "\n".join([f"## {report.title}", "", head, rule, *rows, "", *remarks, ""])


def _remarks(report: Report) -> list[str]:
    return [*(f"{name}: {why}" for name, why in report.missing.items()), *report.notes]


def _page(where: dict[str, str], reports: list[Report]) -> str:
    parts = [
        "# What it costs",
        "",
        "Written by `python -m benchmarks --write`, every figure from one run; nothing is typed by hand. Subjects take",
        "turns, so read the ratios: the milliseconds are this machine's, on that day, with whatever else it did.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in where.items()),
        "",
    ]
    for report in reports:
        about = (MODULES[report.name].__doc__ or "").strip()
        parts += [_as_markdown(report), about, ""]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
