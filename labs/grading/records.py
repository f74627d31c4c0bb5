"""What a check found, and what all checks of a lab found together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from labs.grading.checks import Check, plain

Verdict = Literal["pass", "fail", "error", "timeout"]


@dataclass(frozen=True)
class Record:
    """One check of one submission."""

    name: str
    title: str
    points: float
    max: float
    verdict: Verdict
    diagnosis: str
    """What is wrong; empty at "pass"."""
    evidence: str
    """What the kernel showed."""
    look_at: str

    @classmethod
    def of(cls, check: Check, verdict: Verdict, diagnosis: str = "", evidence: Sequence[str] = ()) -> Record:
        """The record of a check: points for the verdict "pass" only."""
        return cls(
            name=check.name,
            title=check.title,
            points=check.points if verdict == "pass" else 0,
            max=check.points,
            verdict=verdict,
            diagnosis=plain(diagnosis),
            evidence=plain("\n".join(evidence)),
            look_at=plain(check.look_at),
        )


@dataclass(frozen=True)
class Report:
    """One submission for one lab."""

    lab: str
    records: tuple[Record, ...]

    @property
    def points(self) -> float:
        """Reached."""
        return _whole(sum(record.points for record in self.records))

    @property
    def max(self) -> float:
        """To be reached."""
        return _whole(sum(record.max for record in self.records))

    @property
    def full(self) -> bool:
        """Whether everything was right. A lab without checks is nothing that could be right."""
        return bool(self.records) and all(record.verdict == "pass" for record in self.records)

    def as_json(self) -> dict[str, Any]:
        """``{"lab", "points", "max", "checks": [{"name", "points", "max", "verdict", …}]}``."""
        return {
            "lab": self.lab,
            "points": self.points,
            "max": self.max,
            "checks": [asdict(record) for record in self.records],
        }


def _whole(points: float) -> float:
    """Two halves are one, and not 1.0."""
    return int(points) if points == int(points) else points
