"""What a run of a suite found: kept as JSON, counted, and compared with another run."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conformance.tap import FAILED, OK, SKIPPED, Verdict

FLOOR = "/bin/false"
"""A program that only exits 1, in place of a runtime: what it passes proves nothing."""
NAMES = {"minicontainer-runtime": "ours", "false": "floor"}
Key = tuple[str, str, int]
"""A test file, an assertion's name, and which one it is of those with this name in this file."""


class File(NamedTuple):
    """One test file: what it said, and the end of what it wrote to standard error where something failed."""

    name: str
    seconds: float
    verdicts: Sequence[Verdict]
    errors: str = ""

    @property
    def clean(self) -> bool:
        """Nothing failed and nothing is missing."""
        return not any(verdict.verdict == FAILED for verdict in self.verdicts)


class Results(NamedTuple):
    """One run of a suite with a runtime."""

    suite: str
    commit: str
    name: str
    """What the runtime is called in tables: ours, crun, runc, floor."""
    version: str
    date: str
    kernel: str
    missing: Sequence[str]
    """What the host could not give: controllers of control groups, real time."""
    files: Sequence[File]

    def count(self, verdict: str) -> int:
        """How many assertions ended so."""
        return sum(found.verdict == verdict for file in self.files for found in file.verdicts)

    def clean(self) -> int:
        """How many files are clean."""
        return sum(file.clean for file in self.files)

    def verdicts(self) -> dict[Key, Verdict]:
        """Every assertion, by what it can be found under in another run."""
        found: dict[Key, Verdict] = {}
        for file in self.files:
            met: Counter[str] = Counter()
            for verdict in file.verdicts:
                found[(file.name, verdict.name, met[verdict.name])] = verdict
                met[verdict.name] += 1
        return found

    def write(self, path: Path) -> None:
        """Keep it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._asdict() | {"files": [file._asdict() for file in self.files]}
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """What `write` has kept. Raises ValueError where the file is something else."""
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            kept["files"] = [
                File(**file | {"verdicts": [Verdict(*verdict) for verdict in file["verdicts"]]})
                for file in kept["files"]
            ]
            return cls(**kept)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not the results of a run: {error}") from None


def circumstances(suite: str, checkout: Path, runtime: str, missing: Sequence[str], files: Sequence[File]) -> Results:
    """The results of a run that has just been made."""
    base = os.path.basename(runtime)
    name = NAMES.get(base, base)
    version = "" if name == "floor" else first_line([runtime, "--version"])
    system = os.uname()
    return Results(
        suite,
        first_line(["git", "-C", str(checkout), "describe", "--tags", "--always"]) or "unknown",
        name,
        version,
        time.strftime("%Y-%m-%d %H:%M %z"),
        f"{system.sysname} {system.release} {system.machine}",
        missing,
        files,
    )


def first_line(arguments: Sequence[str]) -> str:
    """The first line that a program prints; "" if it fails."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""


def worse(one: Results, other: Results) -> Iterator[Key]:
    """What `other` passes and `one` fails, or does not so much as report while its file is not clean."""
    ours = one.verdicts()
    unclean = {file.name for file in one.files if not file.clean}
    covered = {file.name for file in one.files}
    for key, verdict in other.verdicts().items():
        if verdict.verdict != OK or key[0] not in covered:
            continue
        found = ours.get(key)
        if (found and found.verdict == FAILED) or (found is None and key[0] in unclean):
            yield key


def summary(results: Sequence[Results]) -> list[list[str]]:
    """A table of runs side by side: a line for each figure, a column for each run."""
    total = max(len(run.files) for run in results)
    return [
        ["", *(run.name for run in results)],
        [f"clean files of {total}", *(str(run.clean()) for run in results)],
        ["assertions ok", *(str(run.count(OK)) for run in results)],
        ["skipped", *(str(run.count(SKIPPED)) for run in results)],
        ["not ok", *(str(run.count(FAILED)) for run in results)],
    ]
