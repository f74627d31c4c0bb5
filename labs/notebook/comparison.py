"""A process, a container and a virtual machine side by side: the picture of lab 00."""

from __future__ import annotations

import math
import os
import textwrap
from typing import Any

from matplotlib.figure import Figure

from labs.notebook.machines import ACCELERATORS, measured
from labs.notebook.pictures import GONE, INK, MONO, OWN, SHARED, Picture, _canvas, _figure

NAMES = {"process": "a process", "container": "a container", "machine": "a virtual machine"}


@Picture
def compare(mine: bool = False) -> Figure:
    """The kernel, the start time and the memory of a process, a container and a virtual machine, measured alike."""
    found = measured(mine)
    axes = _canvas(9.6, 5.7, (0, 24), (-11.2, 1.0))
    longest = max(math.log10(max(found[name]["milliseconds"], 1)) for name in NAMES) or 1.0
    largest = max(found[name]["memory"] for name in NAMES)
    axes.text(7.0, 0.4, "ready after (each mark is ten times the one before)", size=9, weight="bold", color=INK)
    for row, (name, title) in enumerate(NAMES.items()):
        one, y = found[name], -row * 1.35 - 0.5
        _bar(
            axes,
            y,
            11.0 * math.log10(max(one["milliseconds"], 1)) / longest,
            f"{one['milliseconds']} ms{_mark(one)}",
            one,
            name,
        )
        axes.text(0, y + 0.22, title, va="center", weight="bold", color=INK, size=9)
        axes.text(0, y - 0.32, one["kernel"], va="center", family=MONO, size=7.5, color=INK)
    for power in range(math.ceil(longest) + 1):
        if power <= longest:
            axes.plot([7.0 + 11.0 * power / longest] * 2, [0.1, -3.8], color="#bbbbbb", lw=0.7, zorder=0)
    axes.text(7.0, -4.7, "memory that all its processes take (Pss)", size=9, weight="bold", color=INK)
    for row, (name, title) in enumerate(NAMES.items()):
        one, y = found[name], -row * 1.35 - 5.6
        axes.text(0, y + 0.22, title, va="center", weight="bold", color=INK, size=9)
        parts = [process for process, _ in one["processes"]]
        which = ", ".join(parts) if len(", ".join(parts)) < 34 else f"{len(parts)} processes"
        axes.text(0, y - 0.32, which, va="center", size=7.5, color=INK)
        _bar(axes, y, 11.0 * one["memory"] / largest, f"{one['memory'] / (1 << 20):.1f} MiB{_mark(one)}", one, name)
    recorded = found["machine"].get("recorded")
    note = f"machine: QEMU, accelerator {ACCELERATORS[found['accelerator']]}; this host: {os.uname().release}"
    axes.text(0, -9.6, note, size=8, color="#555555", va="center")
    if recorded:
        lines = textwrap.wrap(f"hatched: NOT measured here, {recorded}", 105)
        axes.text(0, -9.95, "\n".join(lines), size=8, color=GONE, va="top")
    return _figure(axes)


def _mark(one: dict[str, Any]) -> str:
    return "  (recorded)" if "recorded" in one else ""


def _bar(axes: Any, y: float, width: float, text: str, one: dict[str, Any], name: str) -> None:
    colour = {"process": SHARED, "container": OWN, "machine": "#e69f00"}[name]
    hatch = "//" if "recorded" in one else ""
    axes.barh(y, max(width, 0.06), 0.8, left=7.0, color=colour, edgecolor=INK, linewidth=0.9, hatch=hatch)
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # no mark of the scale goes through the figures
    axes.text(7.3 + max(width, 0.06), y, text, va="center", family=MONO, size=9, color=INK, bbox=ground)
