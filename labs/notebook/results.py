"""What ``%check`` shows: each check, its points, the verdict, what the kernel showed, and what to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

# Sign, word and colour: whoever does not tell red from green reads the word. Colours of Okabe and Ito.
_SIGNS = {
    "pass": ("✓", "right", "#009e73"),
    "fail": ("✗", "wrong", "#d55e00"),
    "error": ("!", "the check itself failed", "#cc79a7"),
    "timeout": ("…", "not done in time", "#e69f00"),
}
_CELL = "overflow-wrap:anywhere;text-align:left;vertical-align:top;padding:.35em .7em;border-top:1px solid #8884;"


@dataclass(frozen=True)
class Results:
    """One run of a lab's checks, as `labs check --json` tells it."""

    report: Mapping[str, Any]

    @property
    def full(self) -> bool:
        """Whether every check was passed."""
        checks = self.report["checks"]
        return bool(checks) and all(check["verdict"] == "pass" for check in checks)

    def __repr__(self) -> str:
        lines = []
        for check in self.report["checks"]:
            sign, word, _ = _look(check)
            lines.append(f"{sign} {check['points']}/{check['max']}  {_title(check)}: {word}")
            if check["verdict"] != "pass":
                lines += _indented("diagnosis", check["diagnosis"])
            lines += _indented("the kernel showed", check["evidence"])
            if check["verdict"] != "pass":
                lines += _indented("look at", check.get("look_at", ""))
        lines.append(f"lab {self.report['lab']}: {self.report['points']} of {self.report['max']} points")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th style="{_CELL};width:{width}">{name}</th>'  # notebooks lay tables out in columns of one width
            for name, width in (
                ("check", "24%"),
                ("points", "8%"),
                ("verdict", "9%"),
                ("what the kernel showed", "35%"),
                ("what to look at", "24%"),
            )
        )
        rows = "".join(self._row(check) for check in self.report["checks"])
        total = f"{self.report['points']} of {self.report['max']} points"
        return (
            f'<table style="width:100%;border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
            f"</table><p><b>Lab {escape(str(self.report['lab']))}: {escape(total)}</b></p>"
        )

    def _row(self, check: Mapping[str, Any]) -> str:
        sign, word, colour = _look(check)
        passed = check["verdict"] == "pass"
        cells = [
            escape(_title(check)),
            f"{check['points']}/{check['max']}",
            f'<b style="color:{colour};white-space:nowrap">{sign} {word}</b>',
            _lines(check["evidence"]),
            "" if passed else _lines(check.get("look_at", "")),
        ]
        row = _tr(cells)
        if not passed:
            row += (
                f'<tr><td colspan="5" style="text-align:left;padding:.1em .7em .7em 1.4em;border-left:4px solid '
                f'{colour}">'
                f"{_lines(check['diagnosis'])}</td></tr>"
            )
        return row


def _tr(cells: list[str]) -> str:
    return "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"


def _look(check: Mapping[str, Any]) -> tuple[str, str, str]:
    return _SIGNS.get(check["verdict"], ("?", str(check["verdict"]), "#000000"))


def _title(check: Mapping[str, Any]) -> str:
    return str(check.get("title") or check["name"])


def _indented(label: str, text: str) -> list[str]:
    first, *rest = str(text).splitlines() or [""]
    return [f"      {label}: {first}", *(f"        {line}" for line in rest)] if first or rest else []


def _lines(text: str) -> str:
    return "<br>".join(map(escape, str(text).splitlines()))
