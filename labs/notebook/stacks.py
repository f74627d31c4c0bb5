"""Layers drawn one over the other, as overlayfs has them; and what a snapshot costs.

    stacks.layers({"upper": upper, "app": app, "base": base}, shown)
    stacks.costs([100, 1000, 5000], {"copied": […], "renamed": […]})

Drawn of what is on disk and in the mount at that moment. Apart from `labs.notebook.layers`, which needs no matplotlib.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from labs.notebook.layers import walk
from labs.notebook.pictures import GONE, INK, MONO, OWN, SHARED, Picture, _box, _canvas, _figure, scalable

MOST = 9
"""Names in a picture."""


@scalable
def layers(directories: Mapping[str, str], shown: str) -> Figure:
    """Layers, the topmost first: what each has of every name, what it hides, and which one is seen in `shown`."""
    found = {title: {path: _what(path, about.st_mode, mark, directory) for path, about, mark in walk(directory)}
             for title, directory in directories.items()}  # fmt: skip
    names = sorted({path for one in found.values() for path in one})[:MOST]
    visible = {path for path, _, _ in walk(shown)}
    wide = 20.0 / max(1, len(names))
    axes = _canvas(9.6, 0.62 * (len(found) + 2) + 0.9, (0, 24), (-len(found) - 1.7, 1.6))
    for column, name in enumerate(names):
        axes.text(3.6 + (column + 0.5) * wide, 1.15, name, ha="center", va="center", family=MONO, size=8, color=INK)
    for row, title in enumerate(["what is seen", *found]):
        y = -row * 1.0 + (0.3 if row == 0 else -0.2)
        _box(axes, 0.2, y, 23.6, "white" if row == 0 else OWN if row == 1 else "#f2f2f2", height=0.8)
        axes.text(0.5, y, title, va="center", weight="bold", size=9, color=INK)
        for column, name in enumerate(names):
            x = 3.6 + (column + 0.5) * wide
            text = (
                found[title].get(name, "·") if row else _content(f"{shown}/{name}") if name in visible else "not seen"
            )
            hides = text in ("whiteout", "opaque")
            if row and text != "·":
                _box(axes, x - wide * 0.44, y, wide * 0.88, "white" if hides else SHARED, dashed=hides, height=0.6)
            axes.text(x, y, text, ha="center", va="center", size=8, family=MONO, color=GONE if hides else INK)
    y = -len(found) - 1.3
    axes.text(0.2, y, "read from the directories and from the mount, name by name; dashed: it hides what is below",
              size=8, color="#555555", va="center")  # fmt: skip
    return _figure(axes)


def _what(path: str, mode: int, mark: str, directory: str) -> str:
    return mark or _content(f"{directory}/{path}")


def _content(path: str) -> str:
    if os.path.isdir(path):
        return "directory"
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")[:12] or "(empty)"
    except OSError:
        return "(device)"


@Picture
def costs(files: Sequence[int], measured: Mapping[str, Sequence[float]]) -> Figure:
    """Milliseconds by number of files, on logarithmic scales, with the figures beside the points."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), colour, sign in zip(measured.items(), (GONE, "#0072b2", INK), "os^", strict=False):
        axes.plot(files, values, color=colour, marker=sign, lw=1.5)
        axes.text(files[-1], values[-1], f"  {name}", va="center", color=colour, size=9)
        for x, value in zip(files, values, strict=True):
            axes.annotate(
                f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms",
                (x, value),
                (0, 7),
                textcoords="offset points",
                ha="center",
                size=8,
            )
    axes.set(xscale="log", yscale="log", xlabel="files that were written", ylabel="milliseconds")
    axes.set_xticks(files, list(map(str, files)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.margins(x=0.18, y=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
