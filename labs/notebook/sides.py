"""Both sides of a boundary, drawn: who can name which memory and which queue, and who somebody is inside and outside.

    sides.objects({"we": os.getpid(), "the other": other})
    sides.id_map(process)

Apart from `labs.notebook.ipc` and `labs.notebook.users`, since who has loaded matplotlib has threads, and nobody with
threads can enter a user namespace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon

from labs.notebook.ipc import Seen, seen
from labs.notebook.pictures import GONE, INK, MONO, OWN, SHARED, Picture, _box, _canvas, _figure
from labs.notebook.users import Side, inside

OVERFLOW = "/proc/sys/kernel/overflowuid"


@Picture
def objects(processes: Mapping[str, int]) -> Figure:
    """The IPC namespaces of these processes, what is in each, and which process can reach it."""
    told = {name: seen(pid) for name, pid in processes.items()}
    spaces = list(dict.fromkeys(one.namespace for one in told.values()))
    within = {space: next(one for one in told.values() if one.namespace == space) for space in spaces}
    things = {space: [*_segments(within[space]), *_queues(within[space])] for space in spaces}
    below = {space: [name for name, one in told.items() if one.namespace == space] for space in spaces}
    high = max(len(rows) for rows in things.values()) or 1
    low = max(sum(3 if told[name].listed is not None else 2 for name in names) for names in below.values())
    axes = _canvas(9.6, 0.42 * (high + low) + 1.9, (0, 24), (-high - low - 1.9, 1.7))
    wide = 23.2 / len(spaces)

    beyond: list[tuple[float, float, str]] = []
    for column, space in enumerate(spaces):
        left = 0.4 + column * wide
        middle = left + (wide - 0.8) / 2
        axes.text(left, 1.25, space, weight="bold", family=MONO, size=10, color=INK, va="center")
        _box(axes, left, -(high - 1) / 2 + 0.1, wide - 0.8, "#eaf5fc" if column else "#f2f2f2", height=high + 0.5)
        for row, thing in enumerate(things[space] or ["nothing"]):
            empty = not things[space]
            axes.text(
                left + 0.4, -row + 0.1, thing, va="center", family=MONO, size=8.5, color="#555555" if empty else INK
            )
        y = -high - 1.0
        for name in below[space]:
            if name == below[space][0]:
                axes.plot([middle, middle], [y + 0.4, -high + 0.3], color="#999999", lw=1)
            _box(axes, left, y, wide - 0.8, OWN if column else SHARED, height=0.72)
            axes.text(
                left + 0.4, y, f"{name}, process {processes[name]}", va="center", size=9.5, weight="bold", color=INK
            )
            y -= 0.85
            for text, strange in _at_hand(told[name]):
                axes.text(left + 0.4, y, text, va="center", size=8.5, family=MONO, color=GONE if strange else INK)
                if strange:
                    beyond.append((left - 0.1, y, space))
                y -= 0.7
            y -= 0.4
    for x, y, space in beyond:  # past the namespace that it is in, into the one that holds the thing
        aim = 0.4 + next(number for number, other in enumerate(spaces) if other != space) * wide + wide - 0.75
        arrow = FancyArrowPatch(
            (x, y), (aim, -(high - 1) / 2), arrowstyle="-|>", mutation_scale=12, color=GONE, linestyle="--", lw=1.3
        )
        axes.add_patch(arrow)
    axes.text(
        0.4, -high - low - 1.6, "asked for in each namespace: /proc/sysvipc/shm, mqueue; of each process: its "
        "/proc/PID/maps, /dev/mqueue", size=8, color="#555555", va="center",
    )  # fmt: skip
    return _figure(axes)


def _segments(one: Seen) -> list[str]:
    return [f"segment {row['key']:#x}, {row['size']} bytes, mapped {row['mapped']}×" for row in one.segments]


def _queues(one: Seen) -> list[str]:
    return [f"queue /{name}" for name in one.queues]


def _at_hand(one: Seen) -> list[tuple[str, bool]]:
    """What a process has without having to look it up, and whether that is of another namespace than its own."""
    own = {row["key"] for row in one.segments}
    rows = [(f"has mapped {key:#x}" + ("" if key in own else "  ! of another namespace"), key not in own)
            for key in one.mapped]  # fmt: skip
    if one.listed is not None:
        strange = bool(set(one.listed) - set(one.queues))
        names = " ".join(f"/{name}" for name in one.listed) or "nothing"
        rows.append((f"its /dev/mqueue: {names}" + ("  ! of another namespace" if strange else ""), strange))
    return rows or [("has nothing else at hand", False)]


@Picture
def id_map(pid: int) -> Figure:
    """The user ids inside a user namespace and outside, the lines of uid_map between them, and who the process is."""
    here, there = Side.read(pid), inside(pid)
    lines = here.uid_map
    rows = max(1, len(lines))
    axes = _canvas(9.6, 0.95 * rows + 3.2, (0, 24), (-rows - 2.1, 1.6))
    axes.text(4.4, 1.2, "inside", weight="bold", ha="center", size=11, color=INK)
    axes.text(4.4, 0.72, os.readlink(f"/proc/{pid}/ns/user"), ha="center", family=MONO, size=8, color="#555555")
    axes.text(19.6, 1.2, "outside", weight="bold", ha="center", size=11, color=INK)
    axes.text(19.6, 0.72, os.readlink("/proc/self/ns/user"), ha="center", family=MONO, size=8, color="#555555")
    own_inside, own_outside = there.status["Uid"].split()[1], here.status["Uid"].split()[1]
    for row, (first, outside, count) in enumerate(lines):
        y = -row - 0.1
        axes.add_patch(
            Polygon(
                [(8.0, y + 0.3), (16.0, y + 0.3), (16.0, y - 0.3), (8.0, y - 0.3)], fc="#eaf5fc", ec="none", zorder=0
            )
        )
        _box(axes, 0.8, y, 7.2, OWN)
        _box(axes, 16.0, y, 7.2, SHARED)
        axes.text(4.4, y, _range(first, count), ha="center", va="center", family=MONO, size=10, color=INK)
        axes.text(19.6, y, _range(outside, count), ha="center", va="center", family=MONO, size=10, color=INK)
        told = f"{first} {outside} {count}"
        axes.text(12.0, y, f'"{told}"', ha="center", va="center", family=MONO, size=9, color=INK)
    if not lines:
        axes.text(4.4, -0.1, "no id at all", ha="center", va="center", size=10, color=INK)
        axes.text(12.0, -0.1, "uid_map is empty", ha="center", va="center", family=MONO, size=9, color=INK)
        axes.text(19.6, -0.1, "everybody, as before", ha="center", va="center", size=10, color=INK)
    y = -rows - 0.15
    nobody = Path(OVERFLOW).read_text().strip()
    known = any(first <= int(own_inside) < first + count for first, _, count in lines)
    _box(axes, 0.8, y, 7.2, "white", dashed=not known)
    _box(axes, 16.0, y, 7.2, "white")
    axes.plot([8.0, 16.0], [y, y], color=INK if known else GONE, lw=1.2, ls="-" if known else "--", zorder=0)
    axes.text(4.4, y, f"it is uid {own_inside}", ha="center", va="center", weight="bold", color=INK)
    axes.text(19.6, y, f"it is uid {own_outside}", ha="center", va="center", weight="bold", color=INK)
    axes.text(
        12.0, y, "the same process", ha="center", va="center", size=8.5, color=INK,
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "#dddddd"},
    )  # fmt: skip
    told = (
        f"{nobody} inside, and nothing can be given to it" if lines else f"{nobody} inside: an id that stands for none"
    )
    axes.text(0.8, y - 0.8, f"whoever is in no line is seen as {told}", size=9, color=INK, va="center")
    axes.text(
        0.8, y - 1.4, f"read from /proc/{pid}/uid_map and status, by us, and by a process inside", size=8,
        color="#555555", va="center",
    )  # fmt: skip
    return _figure(axes)


def _range(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first} … {first + count - 1}"
