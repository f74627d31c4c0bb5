"""What a container is shown of the host by its cgroup and its time namespace: lab 08, drawn from both sides.

    group_paths(container)                       # /proc/PID/cgroup, as we read it, and as it reads it itself
    clocks(monotonic=86400, boottime=3 * 86400)  # of a process that was given a time namespace by the course's step
    clocks(…, mine=True)                         # by this session's exercise

To read from within a namespace one has to be in it: `labs.notebook.within` goes there, and tells.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from labs.notebook.pictures import INK, MONO, OWN, SHARED, Picture, Running, _box, _canvas, _figure, _pid
from labs.notebook.within import ROOT, groups, read_clocks, told
from minicontainer.linux import Namespace

DAY = 86400


def group_paths_of(pid: int) -> list[tuple[str, str, str]]:
    """For each tree: its controllers, the process's path as we read it, and as it reads it itself."""
    here, there = groups(pid), told("groups", str(pid))
    return [(controllers or "(v2)", path, there.get(controllers, "?")) for controllers, path in here.items()]


@Picture
def group_paths(container: Running | int) -> Figure:
    """Where a container is in the trees of control groups: as the host says, and as the container reads it."""
    rows = group_paths_of(_pid(container))
    axes = _canvas(9.6, 0.5 * len(rows) + 1.5, (0, 24), (-len(rows) - 0.8, 1.2))
    for x, name in ((10.2, "read out here"), (20.6, "read in the container")):
        axes.text(x, 0.5, name, ha="center", weight="bold", color=INK)
    for row, (controllers, outside, inside) in enumerate(rows):
        y = -row - 0.4
        axes.text(0, y, controllers, va="center", family=MONO, size=9, weight="bold", color=INK)
        _box(axes, 4.4, y, 11.6, SHARED)
        _box(axes, 17.4, y, 6.3, OWN if inside != outside else SHARED)
        axes.text(4.7, y, _cut(outside, 46), va="center", family=MONO, size=8, color=INK)
        axes.text(17.7, y, _cut(inside, 24), va="center", family=MONO, size=8, color=INK)
        axes.text(16.7, y, "≠" if inside != outside else "=", ha="center", va="center", size=13, color=INK)
    text = f"read from /proc/{_pid(container)}/cgroup, from two cgroup namespaces"
    axes.text(0, -len(rows) - 0.45, text, size=8, color="#555555", va="center")
    return _figure(axes)


def clocks_of(monotonic: int = 0, boottime: int = 0, mine: bool = False) -> dict[str, Any]:
    """What clocks say to a process with a time namespace of its own, and to us. Raises RuntimeError: why not."""
    from labs.notebook.session import session

    with tempfile.TemporaryDirectory(prefix="clocks-") as directory:
        exercises = str(session.write(Path(directory, "session.ipynb"))) if mine else "-"
        inside = told("clocks", exercises, str(monotonic), str(boottime), prefix=ROOT)
    return {"here": read_clocks(), "inside": inside}


@Picture
def clocks(monotonic: int = 0, boottime: int = 0, mine: bool = False) -> Figure:
    """What three clocks say out here, and to a process in a time namespace of its own: in days."""
    found = clocks_of(monotonic, boottime, mine)
    rows = [(name, whose) for name in ("monotonic", "boottime") for whose in ("here", "inside")]
    most = max(max(found[whose][name] for name, whose in rows), 1) / DAY
    axes = _canvas(9.6, 3.5, (0, 24), (-6.4, 0.8))
    for row, (name, whose) in enumerate(rows):
        y, days = -row - 0.35 * (row // 2), found[whose][name] / DAY
        if whose == "here":
            axes.text(0, y - 0.5, name, va="center", weight="bold", color=INK)
        axes.text(4.0, y, "out here" if whose == "here" else "inside", va="center", size=9, color=INK)
        colour = SHARED if whose == "here" else OWN
        axes.barh(y, 12.0 * days / most, 0.6, left=6.4, color=colour, edgecolor=INK, linewidth=0.9)
        axes.text(6.7 + 12.0 * days / most, y, f"{days:.2f} days", va="center", family=MONO, size=9, color=INK)
    apart = abs(found["here"]["time of day"] - found["inside"]["time of day"])
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(found["here"]["time of day"]))
    axes.text(0, -5.0, "time of day", va="center", weight="bold", color=INK)
    same = "the same out here and inside" if apart < DAY / 24 else "NOT the same inside"
    axes.text(4.0, -5.0, f"{day}, {same}", va="center", size=9, color=INK)
    names = f"read with clock_gettime(2), in {found['inside']['namespace']} and in {Namespace.TIME.link()}"
    axes.text(0, -6.0, names, size=8, color="#555555", va="center")
    return _figure(axes)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:8]}…{text[9 - most :]}"
