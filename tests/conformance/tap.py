"""TAP, the Test Anything Protocol, as the three suites print it: what each assertion said, and whether any is missing.

https://testanything.org/tap-specification.html. Assertions begin a line; what is indented is a diagnostic, or the
output of a program inside a container, and is nobody's verdict.
"""

from __future__ import annotations

import re
from typing import NamedTuple

OK, SKIPPED, FAILED = "ok", "skip", "not ok"

PLAN = re.compile(r"1\.\.(\d+)\b")
ASSERTION = re.compile(r"(not )?ok\b(?: +\d+)?(?: +- | +|$)(.*)")
DIRECTIVE = re.compile(r"(?:^|\s)#\s*(skip|todo)\b\s*(.*)", re.IGNORECASE)
TIMING = re.compile(r"\s*#\s*[\d.]+ ?m?s(?:ec)?$")
RANDOM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=ocitest)\d+|0x[0-9a-f]{6,}")
"""What is another one in each run: identifiers, temporary directories, addresses."""


class Verdict(NamedTuple):
    """One assertion: "ok", "skip" or "not ok", its name, and why it was skipped."""

    verdict: str
    name: str
    reason: str = ""


def parse(text: str) -> tuple[list[Verdict], int | None]:
    """The assertions in `text`, in order, and how many were promised: None where there is no plan."""
    verdicts: list[Verdict] = []
    planned = None
    for line in text.replace("\r", "").split("\n"):
        if plan := PLAN.match(line):
            planned = int(plan[1])
        elif found := ASSERTION.match(line):
            verdicts.append(_verdict(bool(found[1]), found[2]))
    return verdicts, planned


def _verdict(failed: bool, rest: str) -> Verdict:
    rest = TIMING.sub("", rest)
    directive = DIRECTIVE.search(rest)
    name = RANDOM.sub("*", rest[: directive.start()] if directive else rest).strip(" -")
    if directive:
        return Verdict(SKIPPED, name, directive[2].strip())
    return Verdict(FAILED if failed else OK, name)


def judge(text: str, status: int | None, limit: float) -> list[Verdict]:
    """Every verdict on a test file: those that it printed, and "not ok" for what it should have printed and did not.

    `status` is the exit status, None when the file was stopped after `limit` seconds. Some programs of runtime-tools say
    nothing at all when they are content, so silence with status 0 is no failure.
    """
    verdicts, planned = parse(text)
    complete = planned is not None and len(verdicts) >= planned
    if status is None:
        verdicts.append(Verdict(FAILED, f"(stopped after {limit:g} s)"))
    elif planned is None and (status != 0 or verdicts):
        verdicts.append(Verdict(FAILED, f"(ended before its plan, with status {status})"))
    elif complete and status != 0 and not any(verdict.verdict == FAILED for verdict in verdicts):
        verdicts.append(Verdict(FAILED, f"(ended with status {status})"))
    if planned is not None and not complete:
        seen = sum(not verdict.name.startswith("(") for verdict in verdicts)
        verdicts.extend(
            Verdict(FAILED, f"(assertion {n} of {planned} is missing)") for n in range(seen + 1, planned + 1)
        )
    return verdicts
