"""docs/CONFORMANCE.md, made of the results of runs and of reasons.toml, and of nothing else."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.conformance.results import Results, summary, worse
from tests.conformance.suites import SUITES
from tests.conformance.tap import FAILED

REASONS = Path(__file__).with_name("reasons.toml")
ORDER = ("ours", "crun", "runc", "floor")
REFERENCES = ("crun", "runc")
UNEXPLAINED = "**unexplained**"

HEAD = """# Conformance

Written by `tests/conformance/run … --write`, every figure from a run; nothing is typed by hand but the reasons, which
stand in tests/conformance/reasons.toml. The suites are those that judge runc and crun. Each runtime ran in the same
corner of the same host: control groups of version 1 alone, network, PID and mount namespaces for every test file, no
way out. The floor is a program that only exits 1: what it passes proves nothing.
"""


def page(results: Sequence[Results], reasons: Mapping[str, Mapping[str, str]]) -> str:
    """The whole page: for each suite the figures side by side, and what ours fails, with why."""
    return "\n".join(
        [HEAD, *(section for name in SUITES for section in _section(name, results, reasons.get(name, {})))]
    )


def _section(name: str, results: Sequence[Results], reasons: Mapping[str, str]) -> Iterator[str]:
    latest = {run.name: run for run in sorted(results, key=lambda run: run.date) if run.suite == name}
    runs = sorted(
        latest.values(), key=lambda run: (ORDER.index(_kind(run)) if _kind(run) in ORDER else len(ORDER), run.name)
    )
    if not runs:
        return
    commits = sorted({run.commit for run in runs})
    yield f"## {SUITES[name].title} at {', '.join(commits)}\n"
    for run in runs:
        missing = f"; without {', '.join(run.missing)}" if run.missing else ""
        yield f"- {run.name}: {run.version or 'a program that only exits 1'}; {run.date}; {run.kernel}{missing}"
    head, *lines = summary(runs)
    yield "\n" + _table(head, lines, "---|" + "---:|" * len(runs))
    if "ours" not in latest:
        yield "Ours has not been run.\n"
        return
    ours = latest["ours"]
    for other in runs:
        if _kind(other) in REFERENCES:
            count = sum(1 for _ in worse(ours, other))
            yield f"- {other.name} passes and ours does not: {count}"
    failing = [key for key, verdict in ours.verdicts().items() if verdict.verdict == FAILED]
    yield ""
    if not failing:
        yield "Ours fails nothing.\n"
        return
    others = [run for run in runs if _kind(run) in REFERENCES]
    found = {run.name: run.verdicts() for run in others}
    grouped: dict[tuple[str, ...], int] = {}
    for file, assertion, n in failing:
        beside = [
            found[run.name][key].verdict if (key := (file, assertion, n)) in found[run.name] else "–" for run in others
        ]
        line = (file, assertion, *beside, reason(reasons, file, assertion))
        grouped[line] = grouped.get(line, 0) + 1
    body = [[*line[:-1], f"{line[-1]}{f' ({count} times)' if count > 1 else ''}"] for line, count in grouped.items()]
    yield "What ours fails:\n"
    yield _table(["file", "assertion", *(run.name for run in others), "why"], body, "---|" * (3 + len(others)))


def _kind(run: Results) -> str:
    """Whose build a runtime is: crun, for crun-1.27.1."""
    return run.name.partition("-")[0]


def reason(reasons: Mapping[str, str], file: str, assertion: str) -> str:
    """Why an assertion fails, by the first pattern, `FILE: ASSERTION` with * and ?, that fits."""
    for pattern, why in reasons.items():
        if fnmatch.fnmatchcase(f"{file}: {assertion}", pattern):
            return why
    return UNEXPLAINED


def read_reasons(path: Path = REASONS) -> dict[str, dict[str, str]]:
    """reasons.toml: a table for each suite, and in it `"FILE: ASSERTION" = "why"`."""
    kept = tomllib.loads(path.read_text(encoding="utf-8"))
    for name, table in kept.items():
        if name not in SUITES or not all(isinstance(why, str) and why for why in table.values()):
            raise ValueError(f"{path}: [{name}]: a suite's table, with a text for each pattern, is wanted")
    return kept


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], rule: str) -> str:
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (head, *lines)]
    return "\n".join([rows[0], f"|{rule}", *rows[1:]]) + "\n"
