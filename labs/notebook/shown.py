"""What a notebook shows, in the kernel or in a process of a cell's own: always with a form that can be read aloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Bundle = Mapping[str, str]
"""The same thing in several forms, by MIME type; pictures in base64, as Jupyter has them."""

send: Callable[[Bundle, Mapping[str, Any]], None] | None = None
"""In the process of a cell's own: hands what is to be shown to the notebook, and returns when that has shown it."""

_CELL = "text-align:left;vertical-align:top;padding:.25em .7em;border-top:1px solid #8884;overflow-wrap:anywhere;"
_MARKS = {"+": "#009e73", "-": "#d55e00", "≠": "#2b88d8", "!": "#d55e00"}  # Okabe and Ito; the sign says it as well


def show(bundle: Bundle, metadata: Mapping[str, Any] | None = None) -> None:
    """Show this now, in the middle of a cell too."""
    if send:
        send(bundle, metadata or {})
        return
    from IPython.display import display

    display(dict(bundle), metadata=dict(metadata or {}), raw=True)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Table:
    """Rows of texts. The first column may be a sign: "+" new, "-" gone, "≠" different."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def show(self) -> None:
        """Show it, as text and for the browser."""
        show({"text/plain": repr(self), "text/html": self._repr_html_()})

    def __repr__(self) -> str:
        lines = [self.head, *self.rows]
        wide = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        told = [
            "  ".join(f"{text:<{width}}" for text, width in zip(line, wide, strict=True)).rstrip() for line in lines
        ]
        return "\n".join(filter(None, [self.title, *told, self.note]))

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="{_CELL}">{escape(text)}</th>' for text in self.head)
        rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.rows)
        note = f'<p style="font-size:90%;opacity:.8">{escape(self.note)}</p>' if self.note else ""
        caption = f'<caption style="text-align:left;font-weight:bold">{escape(self.title)}</caption>'
        return (
            f'<table style="border-collapse:collapse;font-family:monospace">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table>{note}"
        )


def _cell(text: str) -> str:
    colour = _MARKS.get(text)
    style = f"{_CELL}font-weight:bold;color:{colour}" if colour else f"{_CELL}white-space:pre-wrap"
    return f'<td style="{style}">{escape(text)}</td>'
