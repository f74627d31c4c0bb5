"""Networks drawn: a tree for a terminal, and an SVG that can be read in light and in dark, and by who cannot see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minicontainer.network.graph import Graph, Member, Net, Uplink


def as_text(graph: Graph) -> str:
    """A tree: the host, its ways out and its networks, on each its containers, with their published ports."""
    branches: list[tuple[str, list[str]]] = [(_uplink(one), []) for one in graph.uplinks]
    branches += [(_heading(net), list(_leaves(net))) for net in graph.networks]
    lines = ["the host"]
    for number, (heading, leaves) in enumerate(branches):
        last = number == len(branches) - 1
        lines.append(f"{'└─' if last else '├─'} {heading}")
        lines += [f"{'   ' if last else '│  '}{leaf}" for leaf in leaves]
    return "\n".join(lines)


def _uplink(uplink: Uplink) -> str:
    return f"{uplink.device}  {', '.join(uplink.addresses) or 'no address'}  the way out{_by(uplink)}"


def _by(uplink: Uplink) -> str:
    return f", by {', '.join(uplink.gateways)}" if any(uplink.gateways) else ""


def _heading(net: Net) -> str:
    """``bridge  minicontainer0 172.17.0.1/16  NAT``."""
    place = " ".join([net.device, *net.addresses]) if net.device else ", ".join(net.subnets)
    return "  ".join(part for part in (net.name, place, _nature(net)) if part)


def _nature(net: Net) -> str:
    kind = net.driver if net.driver not in ("bridge", net.name) else ""
    if net.driver == net.name and net.driver != "bridge":
        way = "carries their packets, with the host's address"
    elif net.internal:
        way = "internal: nothing in or out"
    elif not net.device:
        way = "nothing of it is made now"
    else:
        way = "NAT" if net.nat else ""
    return ", ".join(part for part in (kind, way) if part)


def _leaves(net: Net) -> Iterator[str]:
    """A line for each container, its columns one below another, and one for each further port."""
    rows = [(member.container, " ".join([member.interface, *member.addresses]).strip(), member.ports)
            for member in net.members]  # fmt: skip
    names = max((len(name) for name, _, _ in rows), default=0)
    places = max((len(place) for _, place, ports in rows if ports), default=0)
    for number, (name, place, ports) in enumerate(rows):
        last = number == len(rows) - 1
        first, *more = ports or ("",)
        yield f"{'└─' if last else '├─'} {name:<{names}}  {place:<{places}}  {first}".rstrip()
        for port in more:
            yield f"{'  ' if last else '│ '} {'':<{names}}  {'':<{places}}  {port}"


# The SVG

_CHARACTER, _LINE, _PAD, _GAP, _LANE = 7.3, 18, 10, 16, 90
"""In pixels: a character of the font's, a line, a box's margin, between boxes, between columns."""

_STYLE = """
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre; fill: #1c1e21; }
.name { font-weight: bold; }
.soft { fill: #5b6066; }
.paper { fill: #ffffff; }
.box { fill: #f6f7f9; stroke: #9aa1a9; }
.way { fill: none; stroke-width: 2; }
.n0 { stroke: #0072b2; } .n1 { stroke: #b04a00; } .n2 { stroke: #007a59; }
.n3 { stroke: #a3497f; } .n4 { stroke: #8a6500; } .n5 { stroke: #4b4fb8; }
@media (prefers-color-scheme: dark) {
text { fill: #e8eaed; }
.soft { fill: #a9b0b8; }
.paper { fill: #15181c; }
.box { fill: #20242a; stroke: #6f7780; }
.n0 { stroke: #56b4e9; } .n1 { stroke: #f0934e; } .n2 { stroke: #3fc79c; }
.n3 { stroke: #e39ac8; } .n4 { stroke: #e6b43c; } .n5 { stroke: #a5a8ff; }
}
"""
_COLOURS = 6

_Line = tuple[str, str]
"""A class of the style, and a text."""


class _Box:
    """A rectangle with lines in it; its place is chosen when all of them are known."""

    def __init__(self, lines: Sequence[_Line], colour: str = "") -> None:
        self.lines, self.colour = lines, colour
        self.x = self.y = 0.0
        self.width = max(len(text) for _, text in lines) * _CHARACTER + 2 * _PAD
        self.height = len(lines) * _LINE + 2 * _PAD - 4

    def line(self, number: int) -> float:
        """The middle of a line."""
        return self.y + _PAD + number * _LINE + 7

    @property
    def middle(self) -> float:
        """Of its height."""
        return self.y + self.height / 2

    def drawn(self) -> Iterator[str]:
        """As SVG."""
        colour = f" {self.colour}" if self.colour else ""
        yield (f'<rect class="box{colour}" x="{self.x:.1f}" y="{self.y:.1f}" width="{self.width:.1f}" '
               f'height="{self.height:.1f}" rx="6"/>')  # fmt: skip
        for number, (kind, text) in enumerate(self.lines):
            y = self.line(number) + 4
            yield f'<text class="{kind}" x="{self.x + _PAD:.1f}" y="{y:.1f}">{_escaped(text)}</text>'


def as_svg(graph: Graph) -> str:
    """The host on the left, its networks in the middle, the containers on the right; as a document of its own."""
    host = _Box([("name", "the host"), *(line for uplink in graph.uplinks for line in _uplink_lines(uplink))])
    nets = [_Box(list(_net_lines(net)), f"n{number % _COLOURS}") for number, net in enumerate(graph.networks)]
    containers: dict[str, tuple[_Box, dict[int, int]]] = {}
    for name in dict.fromkeys(member.container for net in graph.networks for member in net.members):
        containers[name] = _container(name, graph)

    _stack([box for box, _ in containers.values()])
    for number, box in enumerate(nets):
        rows = [one.line(ends[number]) for one, ends in containers.values() if number in ends]
        box.y = (sum(rows) / len(rows) if rows else 0) - box.height / 2
    _apart(nets)
    top = min([box.y for box in nets], default=0)
    for box in nets + [box for box, _ in containers.values()]:
        box.y += _GAP - min(top, 0)
    everything = [*nets, *(box for box, _ in containers.values())]
    height = max([box.y + box.height for box in everything] + [host.height + _GAP]) + _GAP
    host.x, host.y = _GAP, (height - host.height) / 2
    for box in nets:
        box.x = host.x + host.width + _LANE
    for box, _ in containers.values():
        box.x = max((net.x + net.width for net in nets), default=host.x + host.width) + _LANE
    width = max(box.x + box.width for box in [host, *everything]) + _GAP

    parts = [f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>']
    for number, (box, net) in enumerate(zip(nets, graph.networks, strict=True)):
        if (net.device and not net.internal) or net.nat:
            parts.append(_way(host.x + host.width, host.middle, box.x, box.middle, box.colour))
        for other, ends in containers.values():
            if number in ends:
                parts.append(_way(box.x + box.width, box.middle, other.x, other.line(ends[number]), box.colour))
    for box in [host, *everything]:
        parts += box.drawn()
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-labelledby="title description" xml:space="preserve">',
        f'<title id="title">{_escaped(_title(graph))}</title>',
        f'<desc id="description">{_escaped(as_text(graph))}</desc>',
        f"<style>{_STYLE}</style>",
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def _title(graph: Graph) -> str:
    members = {member.container for net in graph.networks for member in net.members}
    return f"{_count(graph.networks, 'network')}, {_count(sorted(members), 'container')}"


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _uplink_lines(uplink: Uplink) -> Iterator[_Line]:
    yield "plain", f"{uplink.device}, the way out"
    for address in uplink.addresses:
        yield "soft", f"  {address}"
    for gateway in filter(None, uplink.gateways):
        yield "soft", f"  by {gateway}"


def _net_lines(net: Net) -> Iterator[_Line]:
    yield "name", net.name
    if net.device:
        yield "plain", net.device
    for address in net.addresses or net.subnets:
        yield "soft", address
    if nature := _nature(net):
        yield "soft", nature


def _container(name: str, graph: Graph) -> tuple[_Box, dict[int, int]]:
    """Its box, and for each network, by its number, the line in it that is its end of that network."""
    lines: list[_Line] = [("name", name)]
    ends: dict[int, int] = {}
    for number, net in enumerate(graph.networks):
        for member in net.members:
            if member.container == name:
                ends[number] = len(lines)
                lines += _member_lines(member)
    return _Box(lines), ends


def _member_lines(member: Member) -> list[_Line]:
    places = member.addresses or ("",)
    lines = [("plain", f"{member.interface} {places[0]}".strip() or "its network")]
    lines += [("plain", f"{'':{len(member.interface)}} {address}") for address in places[1:]]
    return lines + [("soft", f"  {port}") for port in member.ports]


def _stack(boxes: Sequence[_Box]) -> None:
    y = 0.0
    for box in boxes:
        box.y = y
        y += box.height + _GAP


def _apart(boxes: Sequence[_Box]) -> None:
    """Move down what would lie over another."""
    y = float("-inf")
    for box in sorted(boxes, key=lambda box: box.y):
        box.y = max(box.y, y)
        y = box.y + box.height + _GAP


def _way(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    """A line from one box to another, which leaves and arrives level."""
    half = (x + to_x) / 2
    curve = f"M{x:.1f} {y:.1f}C{half:.1f} {y:.1f} {half:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    return f'<path class="way {colour}" d="{curve}"/>'


def _escaped(text: str) -> str:
    """For XML, which has no control characters."""
    for character, name in ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"):
        text = text.replace(character, name)
    return "".join(one if one.isprintable() or one == "\n" else "�" for one in text)
