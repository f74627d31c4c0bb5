"""``network graph``: what is drawn is what the kernel has, and it can be read in every way."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer.network.drawing import as_svg, as_text
from minicontainer.network.graph import Graph, Member, Net, Uplink
from tests.command import Command, needs_root
from tests.neighbourhood import Host

SVG = "{http://www.w3.org/2000/svg}"

WEB = Member("web", "eth0", ("172.17.0.2/16",), ("127.0.0.1:8080 → 80/tcp", "*:53 → 53/udp"))
DB = Member("database", "eth0", ("172.17.0.3/16", "fd00::3/64"))
FULL = Graph(
    (Uplink("eth0", ("192.0.2.2/24",), ("192.0.2.1",)),),
    (
        Net("bridge", "bridge", "minicontainer0", ("172.17.0.1/16",), ("172.17.0.0/16",), nat=True, members=(WEB, DB)),
        Net("back", "bridge", "mc-1", ("10.0.0.1/8",), ("10.0.0.0/8",), internal=True,
            members=(Member("web", "eth1", ("10.0.0.2/8",)),)),
        Net("later", "bridge", subnets=("172.18.0.0/16",)),
        Net("pasta", "pasta", nat=True, members=(Member("mine", "", (), ("127.0.0.1:81 → 81/tcp",)),)),
    ),
)  # fmt: skip

TREE = """\
the host
├─ eth0  192.0.2.2/24  the way out, by 192.0.2.1
├─ bridge  minicontainer0 172.17.0.1/16  NAT
│  ├─ web       eth0 172.17.0.2/16             127.0.0.1:8080 → 80/tcp
│  │                                           *:53 → 53/udp
│  └─ database  eth0 172.17.0.3/16 fd00::3/64
├─ back  mc-1 10.0.0.1/8  internal: nothing in or out
│  └─ web  eth1 10.0.0.2/8
├─ later  172.18.0.0/16  nothing of it is made now
└─ pasta  carries their packets, with the host's address
   └─ mine    127.0.0.1:81 → 81/tcp"""


DOCUMENTED = Graph(
    (Uplink("eth0", ("198.51.100.2/24",), ("198.51.100.1",)),),
    (
        Net("bridge", "bridge", "minicontainer0", ("172.17.0.1/16",), nat=True, members=(
            Member("web", "eth0", ("172.17.0.2/16",), ("127.0.0.1:8080 → 80/tcp",)),
            Member("db", "eth0", ("172.17.0.3/16",)),
        )),
        Net("back", "bridge", "mc-6e2f2b79d7", ("172.18.0.1/16",), internal=True,
            members=(Member("db", "eth1", ("172.18.0.2/16",)),)),
    ),
)  # fmt: skip


def test_the_page_shows_what_is_printed() -> None:
    page = (Path(__file__).parents[2] / "docs/NETWORKS.md").read_text(encoding="utf-8")
    assert f"$ minicontainer network graph\n{as_text(DOCUMENTED)}\n```" in page


def aligned(text: str) -> str:
    """With one blank wherever there are more."""
    return re.sub(r" {2,}", " ", text)


def test_a_tree() -> None:
    assert aligned(as_text(FULL)) == aligned(TREE)
    web, further = (next(line for line in as_text(FULL).splitlines() if port in line) for port in ("8080", "*:53"))
    assert web.index("127.0.0.1:8080") == further.index("*:53"), "ports are one below another"


@pytest.mark.parametrize("graph", [Graph((), ()), FULL, Graph((), (Net("<&\"'\x00", "bridge"),))])
def test_a_picture(graph: Graph) -> None:
    """It is a document that a parser accepts, names itself, and says in words what it shows."""
    picture = ElementTree.fromstring(as_svg(graph))
    assert picture.get("role") == "img"
    known = {element.get("id"): element for element in picture.iter() if element.get("id")}
    title, description = (known[name] for name in (picture.get("aria-labelledby") or "").split())
    assert re.fullmatch(r"\d+ networks?, \d+ containers?", title.text or "")
    assert (description.text or "").startswith("the host")
    style = picture.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme: dark" in style


def boxes(picture: ElementTree.Element) -> Iterator[tuple[float, float, float, float]]:
    """Left, top, right, bottom of each."""
    for box in picture.iter(f"{SVG}rect"):
        if "box" in (box.get("class") or ""):
            x, y, width, height = (float(box.get(name, "")) for name in ("x", "y", "width", "height"))
            yield x, y, x + width, y + height


def test_nothing_lies_over_anything_else() -> None:
    """Nor out of the picture; and each line of text is in a box."""
    picture = ElementTree.fromstring(as_svg(FULL))
    found = list(boxes(picture))
    assert len(found) == 1 + 4 + 3  # the host, networks, containers: each once
    width, height = (float(picture.get(name, "")) for name in ("width", "height"))
    for number, (left, top, right, bottom) in enumerate(found):
        assert left >= 0 and top >= 0 and right <= width and bottom <= height
        for other in found[number + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    for text in picture.iter(f"{SVG}text"):
        x, y = float(text.get("x", "")), float(text.get("y", ""))
        end = x + 7.2 * len(text.text or "")
        assert any(box[0] < x and end < box[2] and box[1] < y < box[3] for box in found), text.text
    ways = len(list(picture.iter(f"{SVG}path")))
    assert ways == 4 + 2  # ends in containers; from the host to the bridge, and to what pasta carries


def luminance(colour: str) -> float:
    """Of ``#rrggbb``, as the contrast of WCAG 2.1 wants it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_it_can_be_read_in_light_and_dark() -> None:
    """Text against its box at least 4.5 to 1, lines against the paper at least 3 to 1: WCAG 2.1, 1.4.3 and 1.4.11."""
    style = ElementTree.fromstring(as_svg(FULL)).findtext(f"{SVG}style") or ""
    light, dark = style.split("@media")
    for rules in (light, dark):
        colours = {name: re.findall(r"#[0-9a-f]{6}", body) for name, body in re.findall(r"([.\w]+) \{(.*?)\}", rules)}
        box, paper = colours[".box"][0], colours[".paper"][0]
        pairs = [(colours["text"][0], box, 4.5), (colours[".soft"][0], box, 4.5)]
        pairs += [(colours[f".n{number}"][0], paper, 3.0) for number in range(6)]
        for one, other, least in pairs:
            bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= least, (one, other)


@needs_root
def test_what_is_drawn_is_what_the_kernel_has(
    host: Host, on: Command, internet: Host, inside: Callable[[str], Host]
) -> None:
    """Addresses as ip(8) has them, ports as nft(8) has them: also of what was changed behind our back."""
    assert on("network", "create", "back", "--internal").returncode == 0
    for name, wishes in (("web", ["-p", "8080:80", "-p", "0.0.0.0:53:53/udp"]), ("db", ["--network", "back"])):
        on("run", "-d", "--name", name, "--network", "bridge", *wishes, "busybox", "sleep", "600")
    try:
        inside("web")("ip", "address", "add", "172.16.99.9/24", "dev", "eth0")
        drawn = json.loads(on("network", "graph", "--format", "json").stdout)
        [uplink] = drawn["uplinks"]
        assert (uplink["device"], uplink["gateways"]) == ("uplink", ["198.51.100.1", "2001:db8::1"])
        networks = {net["name"]: net for net in drawn["networks"]}
        for net in networks.values():
            [known] = json.loads(host("ip", "-j", "address", "show", net["device"]))
            assert net["addresses"] == [f"{one['local']}/{one['prefixlen']}" for one in known["addr_info"]]
            for member in net["members"]:
                [known] = json.loads(inside(member["container"])("ip", "-j", "address", "show", member["interface"]))
                assert member["addresses"] == [f"{one['local']}/{one['prefixlen']}" for one in known["addr_info"]
                                               if one["scope"] == "global"]  # fmt: skip
        assert (networks["bridge"]["nat"], networks["back"]["nat"], networks["back"]["internal"]) == (True, False, True)
        [web, db] = networks["bridge"]["members"]
        assert web["container"] == "web" and "172.16.99.9/24" in web["addresses"] and db["ports"] == []
        assert sorted(web["ports"]) == ["*:53 → 53/udp", "127.0.0.1:8080 → 80/tcp"]
        assert [member["container"] for member in networks["back"]["members"]] == ["db"]
        rule = "delete element inet minicontainer ports_at { 127.0.0.1 . tcp . 8080 }"
        host("nft", rule)
        assert "8080" not in on("network", "graph").stdout

        picture = on("network", "graph", "--format", "svg").stdout
        words = {text.text for text in ElementTree.fromstring(picture).iter(f"{SVG}text")}
        assert {"the host", "bridge", "back", "web", "db", "minicontainer0"} <= words
    finally:
        on("rm", "-f", "web", "db")
        on("network", "rm", "back")


@needs_root
def test_nothing_to_draw(on: Command) -> None:
    assert on("network", "graph").stdout == "the host\n└─ bridge  172.17.0.0/16  nothing of it is made now\n"
    done = on("network", "graph", "--format", "png")
    assert done.returncode == 125 and "'png' (choose from" in done.stderr and done.stderr.count("\n") == 1
