"""What a class's grading leaves behind: grades.csv, results.json, and a page of feedback for each student."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import jinja2

from labs.catalogue import Lab
from labs.grading.grade import Graded

LONGEST = 200  # bytes of a file's name, well below the 255 that file systems allow


def write(out: Path, lab: Lab, rows: Sequence[Graded], limited: bool) -> None:
    """Write all of it into the directory `out`; each file whole or not at all. Raises OSError."""
    pages = out / "feedback"
    pages.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # most of what stands on a page comes from a submission
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("feedback.html.j2")
    for row in rows:
        _replace(pages / f"{file_name(row.entry.student)}.html", template.render(lab=lab, row=row))

    results = {
        "lab": lab.number,
        "title": lab.title,
        "max": max((row.report.max for row in rows), default=0),
        "cgroup_limits": limited,
        "submissions": [
            {
                "student": row.entry.student,
                "points": row.report.points,
                "max": row.report.max,
                "status": row.status,
                "reason": row.reason,
                "checks": [asdict(record) for record in row.report.records],
            }
            for row in rows
        ],
    }
    _replace(out / "results.json", json.dumps(results, indent=1) + "\n")

    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["student", "lab", "points", "max", "status", "reason"])
    for row in rows:
        cells = [row.entry.student, lab.number, row.report.points, row.report.max, row.status, row.reason]
        writer.writerow([_cell(cell) for cell in cells])
    _replace(out / "grades.csv", table.getvalue())


def file_name(student: str) -> str:
    """A file's name for a student, whose name was that of a file or directory, and so may be as long as one can be."""
    name = student.replace("/", "_").encode()
    if len(name) <= LONGEST:
        return student
    return name[:LONGEST].decode(errors="ignore") + "-" + hashlib.sha256(name).hexdigest()[:8]


def _cell(value: object) -> str:
    """A cell of a table that is read by lines, and by spreadsheets: "=1+1" is a formula there, "'=1+1" is not."""
    text = " ".join(str(value).split("\n"))
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".unfinished-{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
