"""What the kernel says, drawn. Every picture is made of what is read in /proc while the container runs.

Nothing is told by colour alone: what is new, crossed out or dead is also dashed, apart, or said in words. The colours
are those of Okabe and Ito, which people who do not tell red from green can tell apart.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Generic, ParamSpec

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.text import Text

from labs.notebook.network import KINDS, Journey, Sighting
from labs.notebook.network import journey as followed
from labs.notebook.seen import Relative, Running, family, relative, status
from labs.notebook.session import engine
from labs.notebook.shown import show
from minicontainer.linux import Namespace
from minicontainer.linux.recording import Call

__all__ = [
    "Picture",
    "Relative",
    "Running",
    "family",
    "journey",
    "mounts",
    "namespaces",
    "processes",
    "scalable",
    "timeline",
    "tree",
    "way_up",
]

SHARED, OWN, GONE, INK = "#d9d9d9", "#56b4e9", "#d55e00", "#222222"
MONO = "monospace"


Arguments = ParamSpec("Arguments")


class Picture(Generic[Arguments]):
    """A function that draws. Called, it shows what it has drawn at once, in the middle of a cell too."""

    def __init__(self, draw: Callable[Arguments, Figure], kind: str = "image/png") -> None:
        self.figure, self.kind = draw, kind
        self.__doc__ = draw.__doc__

    def __call__(self, *args: Arguments.args, **options: Arguments.kwargs) -> None:
        """Draw, and show: on white, which is readable on a dark page too, and as text for whoever does not see it."""
        figure, drawn = self.figure(*args, **options), io.BytesIO()
        title = (self.__doc__ or "").partition("\n")[0]
        text = f"{title}\n{read_aloud(figure)}"
        alt = text.replace("\n", "; ")
        if self.kind == "image/svg+xml":
            figure.savefig(drawn, format="svg", facecolor="white", metadata={"Date": None})
            rest = drawn.getvalue().decode().partition("<svg ")[2]
            picture = f'<svg role="img" aria-label="{escape(alt)}" {rest}'
        else:
            figure.savefig(drawn, dpi=100, facecolor="white")
            picture = base64.b64encode(drawn.getvalue()).decode()
        show({self.kind: picture, "text/plain": text}, {self.kind: {"alt": alt}, "needs_background": "light"})


def scalable(draw: Callable[Arguments, Figure]) -> Picture[Arguments]:
    """A picture in lines and letters, SVG, which stays sharp at any size."""
    return Picture(draw, "image/svg+xml")


def read_aloud(figure: Figure) -> str:
    """The texts of a picture that was drawn, line by line from the top, each from the left."""
    found = []
    bare = [axis for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis)]
    hidden = {id(text) for axis in bare for text in axis.findobj(Text)}  # of axes that are not drawn
    for one in figure.findobj(Text):
        if isinstance(one, Text) and one.get_visible() and one.get_text().strip() and id(one) not in hidden:
            x, y = one.get_transform().transform(one.get_position())
            found.append((-y, x, " ".join(one.get_text().split())))
    lines: list[tuple[float, list[tuple[float, str]]]] = []
    for down, x, text in sorted(found):
        if not lines or down - lines[-1][0] > 6:
            lines.append((down, []))
        lines[-1][1].append((x, text))
    return "\n".join("   ".join(text for _, text in sorted(line)) for _, line in lines)


# Namespaces


@Picture
def namespaces(container: Running | int, names: Sequence[str] = ("this notebook", "the container")) -> Figure:
    """The namespaces of this process and of a container, side by side: joined where they are the same."""
    kinds = [kind for kind in Namespace if kind.supported]
    pid = _pid(container)
    axes = _canvas(9.6, 0.62 * len(kinds) + 1.5, (0, 24), (-len(kinds) - 0.9, 1.1))
    for x, name in ((9.25, names[0]), (20.25, names[1])):
        axes.text(x, 0.55, name, ha="center", weight="bold", color=INK)
    for row, kind in enumerate(kinds):
        y = -row - 0.5
        here, there = kind.link("self"), kind.link(pid)
        axes.text(0, y, kind.proc_name, va="center", family=MONO, weight="bold", color=INK)
        axes.text(
            2.1, y, kind.isolates if len(kind.isolates) < 22 else _shortened(kind), va="center", size=7.5, color=INK
        )
        if here == there:
            _box(axes, 6.0, y, 17.5, SHARED)
            axes.text(14.75, y, f"{here}   the same", ha="center", va="center", family=MONO, size=9, color=INK)
        else:
            _box(axes, 6.0, y, 6.5, SHARED)
            _box(axes, 17.0, y, 6.5, OWN)
            axes.text(9.25, y, here, ha="center", va="center", family=MONO, size=9, color=INK)
            axes.text(20.25, y, there, ha="center", va="center", family=MONO, size=9, color=INK)
            axes.text(14.75, y, "≠", ha="center", va="center", size=15, color=INK)
    axes.text(
        0, -len(kinds) - 0.55, f"read from /proc/self/ns and /proc/{pid}/ns", size=8, color="#555555", va="center"
    )
    return _figure(axes)


def _shortened(kind: Namespace) -> str:
    short = {
        Namespace.UTS: "host and domain name",
        Namespace.IPC: "SysV IPC, mqueues",
        Namespace.NETWORK: "devices, ports, rules",
        Namespace.USER: "user ids, capabilities",
        Namespace.CGROUP: "root of the cgroup tree",
        Namespace.TIME: "clocks since boot",
    }
    return short.get(kind, kind.isolates)


# Directories


@Picture
def way_up(container: Running | int) -> Figure:
    """The directories from a process's root and working directory up to ours, with the way that ".." takes.

    Both are read from /proc/PID/root and /proc/PID/cwd. They are drawn by their real place in the tree that *we* see,
    which the process itself need not see.
    """
    pid = _pid(container)
    root, cwd = (Path(os.readlink(f"/proc/{pid}/{name}")) for name in ("root", "cwd"))
    rows = list(dict.fromkeys([*reversed(root.parents), root, *reversed(cwd.parents), cwd]))
    axes = _canvas(9.6, max(3.2, 0.62 * len(rows) + 1.0), (0, 24), (-0.9 * len(rows) - 0.7, 0.9))
    for row, directory in enumerate(rows):
        x, y = 0.6 + 1.15 * (len(directory.parts) - 1), -0.9 * row
        name = directory.name if len(directory.name) < 30 else f"{directory.name[:12]}…{directory.name[-6:]}"
        width = max(1.6, 0.36 * len(name) + 0.7)
        _box(axes, x, y, width, OWN if directory.is_relative_to(root) else SHARED, height=0.62)
        axes.text(x + 0.3, y, name or "/", va="center", family=MONO, size=10, color=INK)
        if row:
            stopped = directory == root
            _dotdot(axes, x, y, row - rows.index(directory.parent), stopped=stopped)
        notes = ["our root directory"] if directory == Path("/") else []
        if directory == root:
            notes.append('its root directory: here, for this process, ".." stops')
        if directory == cwd:
            notes.append(
                f"its working directory{'' if cwd.is_relative_to(root) else ', outside of its root directory'}"
            )
        if notes:
            axes.text(x + width + 0.4, y, "◀ " + "; ".join(notes), va="center", size=9, color=INK)
    axes.text(0.6, -0.9 * len(rows) - 0.3, f"read from /proc/{pid}/root and /proc/{pid}/cwd", size=8, color="#555555")
    return _figure(axes)


def _dotdot(axes: Axes, x: float, y: float, rows: int, *, stopped: bool) -> None:
    """An arrow from a directory to its parent, so many rows above: ".."; crossed out where the kernel stops."""
    below_parent = (x - 0.75, y + 0.9 * rows - 0.34)
    bent = "arc3,rad=-0.35" if rows == 1 else "angle,angleA=180,angleB=90,rad=6"
    arrow = FancyArrowPatch(
        (x - 0.02, y + 0.02),
        below_parent,
        connectionstyle=bent,
        arrowstyle="-|>",
        mutation_scale=11,
        color=GONE if stopped else INK,
        linestyle="--" if stopped else "-",
        shrinkA=0,
        shrinkB=1,
    )
    axes.add_patch(arrow)
    axes.text(x - 0.95, y - 0.02, "..", family=MONO, size=9, ha="center", color=GONE if stopped else INK)
    if stopped:
        axes.text(x - 0.62, y + 0.2, "✕", size=13, weight="bold", ha="center", va="center", color=GONE)


@Picture
def tree(directory: str | os.PathLike[str], most: int = 5) -> Figure:
    """The directories and files below `directory`, a root file system: links with where they lead, long lists cut."""
    lines = [(0, "/", f"= {directory}")]
    _branch(Path(directory), 1, most, lines)
    axes = _canvas(9.6, 0.27 * len(lines) + 0.4, (0, 24), (-len(lines) + 0.3, 0.9))
    for row, (depth, name, note) in enumerate(lines):
        x = 0.4 + 1.4 * depth
        if depth:
            parent = max(index for index in range(row) if lines[index][0] == depth - 1)
            axes.plot([x - 0.9, x - 0.9, x - 0.2], [-parent - 0.4, -row, -row], color="#999999", lw=0.9)
        axes.text(x, -row, f"{name}  {note}".rstrip(), va="center", family=MONO, size=9, color=INK)
    return _figure(axes)


def _branch(directory: Path, depth: int, most: int, lines: list[tuple[int, str, str]]) -> None:
    entries = sorted(directory.iterdir(), key=lambda entry: (entry.is_symlink(), entry.name))
    cut = depth > 1 and len(entries) > most + 1
    for entry in entries[:most] if cut else entries:
        if entry.is_symlink():
            lines.append((depth, entry.name, f"→ {os.readlink(entry)}"))
        elif entry.is_dir():
            lines.append(
                (depth, f"{entry.name}/", "sticky, everybody may write" if entry.stat().st_mode & 0o1000 else "")
            )
            _branch(entry, depth + 1, most if depth < 2 else 2, lines)
        else:
            size = entry.stat().st_size
            lines.append((depth, entry.name, f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size} bytes"))
    if cut:
        lines.append((depth, f"… and {len(entries) - most} more", ""))


# Mounts


@dataclass
class _Mount:
    id: int
    parent: int
    point: str
    fstype: str
    propagation: str
    below: list[_Mount] = field(default_factory=list)


@Picture
def mounts(*processes: Running | int | str, titles: Sequence[str] = (), most: int = 22) -> Figure:
    """The tree of mounts that processes see, side by side, as /proc/PID/mountinfo has it. "self" is this process.

    Each mount hangs below the mount that it covers a directory of. A mark says how mounts spread: "⇄ shared",
    "← follower".
    """
    lists = [_rows(_top(process if isinstance(process, str) else str(_pid(process))), most) for process in processes]
    rows = max(len(lines) for lines in lists)
    figure = Figure(figsize=(9.6, 0.27 * rows + 0.8))
    panes = figure.subplots(1, len(lists), squeeze=False)
    for index, (pane, lines) in enumerate(zip(panes[0], lists, strict=True)):
        _bare(pane, (0, 24), (-rows + 0.2, 1.2))
        title = titles[index] if index < len(titles) else f"process {_pid(processes[index])}"
        pane.set_title(title, loc="left", size=10, weight="bold", color=INK)
        for row, (depth, mount, text) in enumerate(lines):
            x = 0.3 + 0.55 * len(lists) * depth
            if depth:
                parent = max(i for i in range(row) if lines[i][0] == depth - 1)
                left = x - 0.3 * len(lists)
                pane.plot([left, left, x - 0.12], [-parent - 0.4, -row, -row], color="#999999", lw=0.9)
            shared = mount is not None and mount.propagation == "shared"
            pane.text(x, -row, text, va="center", family=MONO, size=8, color=GONE if shared else INK)
    figure.tight_layout()
    return figure


def _top(pid: str) -> _Mount | None:
    """The mounts that a process sees as a tree; None where it sees none, as in a chroot."""
    known: dict[int, _Mount] = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        spread = " ".join(fields[6:])
        propagation = "shared" if "shared" in spread else "slave" if "master" in spread else "private"
        mount = _Mount(int(fields[0]), int(fields[1]), fields[4], after.split()[0], propagation)
        known[mount.id] = mount
    top: _Mount | None = None
    for mount in known.values():
        if mount.parent in known and mount.parent != mount.id:
            known[mount.parent].below.append(mount)
        elif top is None or mount.point == "/":
            top = mount
    return top


def _rows(top: _Mount | None, most: int) -> list[tuple[int, _Mount | None, str]]:
    found: list[tuple[int, _Mount | None, str]] = []

    def visit(mount: _Mount, depth: int) -> None:
        point = mount.point if len(mount.point) < 30 else f"{mount.point[:9]}…{mount.point[-18:]}"
        spread = {"private": "", "shared": "  ⇄ shared", "slave": "  ← follower"}[mount.propagation]
        found.append((depth, mount, f"{point}  [{mount.fstype}]{spread}"))
        for below in sorted(mount.below, key=lambda one: one.point):
            visit(below, depth + 1)

    if top is None:
        told = ("no mount is in its sight: its root directory", "is a mere directory of one of ours")
        return [(0, None, line) for line in told]
    visit(top, 0)
    if len(found) > most:
        hidden = len(found) - most + 1
        found = [*found[: most - 1], (0, None, f"… and {hidden} more")]
    return found


# Processes


@Picture
def processes(container: Running | int) -> Figure:
    """A container's processes as a tree: their numbers outside and inside, by the line NSpid of /proc/PID/status.

    A zombie, which has ended and was not waited for, is dashed and says so.
    """
    init = relative(_pid(container))
    parent = relative(int(status(init.outside)["PPid"]))
    parent.below = [init]
    rows: list[tuple[int, Relative]] = []

    def visit(process: Relative, depth: int) -> None:
        rows.append((depth, process))
        for below in process.below:
            visit(below, depth + 1)

    visit(parent, 0)
    axes = _canvas(9.6, 0.55 * len(rows) + 1.3, (0, 24), (-len(rows) - 0.2, 1.3))
    axes.text(16.2, 0.75, "number outside", ha="center", weight="bold", color=INK, size=9)
    axes.text(21.0, 0.75, "number inside", ha="center", weight="bold", color=INK, size=9)
    level = len(parent.inside)
    last = max((row for row, (_, process) in enumerate(rows) if len(process.inside) > level), default=0)
    axes.add_patch(
        FancyBboxPatch(
            (0.9, -last - 0.45),
            22.7,
            last - 0.1,
            boxstyle="round,pad=0,rounding_size=0.3",
            fc="#eaf5fc",
            ec=OWN,
            lw=1.2,
            zorder=0,
        )
    )
    for row, (depth, process) in enumerate(rows):
        x, y = 0.5 + 1.6 * depth, -row
        if depth:
            above = max(i for i in range(row) if rows[i][0] == depth - 1)
            axes.plot([x - 0.8, x - 0.8, x], [-above - 0.3, y, y], color="#777777", lw=1.1)
        zombie = process.state == "Z"
        text = process.name + ("  (zombie)" if zombie else "")
        _box(axes, x, y, 0.36 * len(text) + 0.9, "white" if zombie else SHARED, height=0.6, dashed=zombie)
        axes.text(x + 0.35, y, text, va="center", family=MONO, size=9, color=INK)
        own = len(process.inside) > level
        axes.text(16.2, y, str(process.outside), ha="center", va="center", family=MONO, color=INK)
        axes.text(21.0, y, str(process.inside[-1]) if own else "–", ha="center", va="center", family=MONO, color=INK)
        if own and process.inside[-1] == 1:
            axes.text(21.7, y, "◀ init", va="center", size=9, color=INK)
    axes.text(
        0.5,
        -len(rows) + 0.15,
        f"shaded: in {init.namespace}; outside: {parent.namespace}",
        size=8,
        color="#555555",
        va="center",
    )
    return _figure(axes)


# Packets


@Picture
def journey(kind: str = "out", mine: bool = False) -> Figure:
    """The way of a packet and of its answer through the devices of containers, host and outside, as they saw it.

    `kind` is "out", "in", "loopback" or "beside". Time goes down. What was translated since the packet was last seen is
    in a box with a thick frame.
    """
    return drawn_journey(followed(kind, mine))


def drawn_journey(way: Journey) -> Figure:
    """The picture of a journey that was made."""
    order = [("the container", "eth0"), ("the host", "lo"), ("the host", "cable1"), ("the host", "br0")]
    order += [("the host", "cable2"), ("its neighbour", "eth0"), ("the host", "uplink"), ("outside", "eth0")]
    seen = {(one.node, one.device) for one in way.sightings}
    columns = [place for place in order if place in seen] or [("the container", "eth0")]
    step = 24 / (len(columns) + 1)
    across = {place: step * (number + 1) for number, place in enumerate(columns)}
    rows = sorted(way.sightings, key=lambda one: (one.nanoseconds, one.device == "br0"))
    bottom = -len(rows) - 1.6
    axes = _canvas(9.6, 0.42 * len(rows) + 2.3, (0, 24), (bottom, 2.6))
    axes.text(0.2, 2.2, KINDS[way.kind][0].upper() + KINDS[way.kind][1:], weight="bold", color=INK)
    for node in dict.fromkeys(node for node, _ in columns):
        mine = [across[place] for place in columns if place[0] == node]
        left, width = min(mine) - step * 0.47, max(mine) - min(mine) + step * 0.94
        patch = FancyBboxPatch(
            (left, bottom + 1.1),
            width,
            2.6 - bottom - 2.0,
            boxstyle="round,pad=0,rounding_size=0.25",
            fc="#eaf5fc" if node != "the host" else "#f2f2f2",
            ec="#999999",
            lw=0.9,
            zorder=0,
        )
        axes.add_patch(patch)
        axes.text(left + width / 2, 1.3, node, ha="center", va="center", size=9, weight="bold", color=INK)
    for place, x in across.items():
        axes.text(x, 0.72, place[1], ha="center", va="center", family=MONO, size=9, color=INK)
        axes.plot([x, x], [0.4, -len(rows) - 0.1], color="#bbbbbb", lw=1.0, zorder=1)
    before: Sighting | None = None
    for row, one in enumerate(rows):
        x, y = across[one.node, one.device], -row - 0.3
        changed = False
        if before is not None:
            same = before.answer == one.answer
            changed = same and (before.source, before.destination) != (one.source, one.destination)
            arrow = FancyArrowPatch(
                (across[before.node, before.device], y + 1),
                (x, y),
                arrowstyle="-|>",
                mutation_scale=9,
                lw=1.0,
                zorder=2,
                color=INK if same else "#999999",
                linestyle="-" if same else ":",
            )
            axes.add_patch(arrow)
        axes.plot([x], [y], "o" if not one.answer else "s", ms=5, color=OWN if not one.answer else GONE, zorder=3)
        text = f"{one.source} → {one.destination}"
        left = x > 13
        frame = {"ec": INK, "lw": 1.6} if changed else {"ec": "#dddddd", "lw": 0.5}
        axes.text(
            x - 0.35 if left else x + 0.35,
            y,
            text + ("  translated" if changed else ""),
            ha="right" if left else "left",
            va="center",
            family=MONO,
            size=7.5,
            weight="bold" if changed else "normal",
            color=INK,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", **frame},
        )
        before = one
    if way.complaint:
        told = f"a step failed: {way.complaint}"
    elif way.answered:
        told = f"the server took {way.client} for the client; the answer has come back"
    elif way.client:
        told = f"the server took {way.client} for the client; the answer was lost"
    else:
        told = "the question has not arrived"
    axes.text(0.2, bottom + 0.75, f"● the question   ■ the answer   —   {told}", size=9, color=INK, va="center")
    axes.text(0.2, bottom + 0.25, "heard on each device with a packet(7) socket", size=8, color="#555555", va="center")
    return _figure(axes)


# System calls


@Picture
def timeline(args: Sequence[str] = ("true",), **options: Any) -> Figure:
    """Who asked what of the kernel, and when, while a container started: a mark for each system call.

    As ``--explain`` tells it. The calls of a step are in a box with its name; the options are those of the engine.
    """
    calls: list[Call] = []
    engine(calls.extend).run("busybox", list(args), capture=True, **options)
    return drawn_timeline(calls)


def drawn_timeline(calls: Sequence[Call]) -> Figure:
    """The picture of calls that were recorded, in milliseconds since the first."""
    calls = sorted(calls, key=lambda call: call.began)
    begun = calls[0].began
    who = list(dict.fromkeys((call.process, call.pid) for call in calls))
    spans = [
        span for process in who for span in _spans([call for call in calls if (call.process, call.pid) == process])
    ]
    last = max(call.began + call.took for call in calls) - begun
    scale = 16.0 / max(last, 1)
    axes = _canvas(9.6, 0.34 * (len(spans) + len(who)) + 0.9, (0, 24), (-len(spans) - len(who) - 0.9, 0.9))
    y = 0.0
    for process in who:
        axes.text(0, y, f"{process[0]}, pid {process[1] or '?'}", va="center", weight="bold", size=9, color=INK)
        y -= 1
        for step, inside in spans:
            if (inside[0].process, inside[0].pid) != process:
                continue
            left = 7.4 + (inside[0].began - begun) * scale
            right = 7.4 + (inside[-1].began + inside[-1].took - begun) * scale
            axes.text(0.4, y, step, va="center", family=MONO, size=8, color=INK)
            colour = OWN if "/" not in step else SHARED
            axes.add_patch(Rectangle((left, y - 0.3), max(right - left, 0.08), 0.6, fc=colour, ec=INK, lw=0.6))
            for call in inside:
                x = 7.4 + (call.began - begun) * scale
                # Thin where there are many in no time, so that something is left of the colour of the step.
                dense = 0.7 if len(inside) < 40 * (right - left) else 0.25
                axes.plot([x, x], [y - 0.3, y + 0.3], color=GONE if call.result < 0 else INK, lw=dense)
            told = f"{len(inside)} call{'s' if len(inside) > 1 else ''}, at {(inside[0].began - begun) / 1e6:.1f} ms"
            if right < 19:
                axes.text(right + 0.25, y, told, va="center", size=7, color="#555555")
            else:
                axes.text(left - 0.25, y, told, va="center", ha="right", size=7, color="#555555")
            y -= 1
    axes.text(
        0, y - 0.1, f"{len(calls)} calls in {last / 1e6:.1f} ms, recorded as --explain does", size=8, color="#555555"
    )
    return _figure(axes)


def _spans(calls: Sequence[Call]) -> list[tuple[str, list[Call]]]:
    """One process's calls, those of one step that follow on one another together."""
    found: list[tuple[str, list[Call]]] = []
    for call in calls:
        if not found or found[-1][0] != call.step:
            found.append((call.step, []))
        found[-1][1].append(call)
    return found


# What all of them are drawn with


def _pid(container: Running | int | str) -> int:
    if isinstance(container, str):
        return os.getpid()
    return container if isinstance(container, int) else container.pid


def _canvas(width: float, height: float, across: tuple[float, float], down: tuple[float, float]) -> Axes:
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    _bare(axes, across, down)
    return axes


def _bare(axes: Any, across: tuple[float, float], down: tuple[float, float]) -> None:
    axes.set_xlim(*across)
    axes.set_ylim(*down)
    axes.set_axis_off()


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _box(
    axes: Axes, x: float, y: float, width: float, colour: str, *, height: float = 0.66, dashed: bool = False
) -> None:
    """A rounded box whose left edge is at `x` and whose middle is at height `y`."""
    patch = FancyBboxPatch(
        (x, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.18",
        facecolor=colour,
        edgecolor=INK,
        linewidth=0.9,
        linestyle="--" if dashed else "-",
    )
    axes.add_patch(patch)
