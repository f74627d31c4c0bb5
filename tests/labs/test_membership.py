"""The pictures of labs 07 and 08 say what /proc says, and what a student's step has done shows in them.

They are drawn in a process of its own, by this file: what matplotlib opens, and numpy's threads, would stay in ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SERVER = ["httpd", "-f", "-p", "8080"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was drawn, and what was read, below."""
    root = tmp_path_factory.mktemp("labs")
    done = subprocess.run(
        [sys.executable, __file__],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=240,
        env={**os.environ, "MINICONTAINER_LABS_ROOT": str(root)},
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_what_exec_starts_is_where_the_container_is(scenes: dict[str, Any]) -> None:
    for name in ("entered", "entered by mine"):
        links = scenes[name]["links"]
        assert all(container == program for _, container, program in links.values())
        different = [kind for kind, (here, container, _) in links.items() if here != container]
        assert {"mnt", "net", "pid", "uts"} <= set(different)
        drawn = scenes[name]["texts"]
        for kind in different:
            here, container, _ = (link.partition(":")[2] for link in links[kind])
            assert f"{kind}   " in drawn
            assert f"A {here}" in drawn
            assert drawn.count(f"B {container}") == 2


def test_a_join_that_does_nothing_starts_nothing_in_the_container(scenes: dict[str, Any]) -> None:
    links = scenes["entered by nobody"]["links"]
    assert all(here == program for here, _, program in links.values())


def test_two_servers_have_one_port_each_in_its_own_frame(scenes: dict[str, Any]) -> None:
    drawn = scenes["listeners"]["texts"]
    assert drawn.count("8080") == 2
    assert "the first and its friend" in drawn
    assert scenes["listeners"]["read"] == [["[::]:8080"], ["[::]:8080"]]


def test_a_port_that_nobody_has_is_not_drawn(scenes: dict[str, Any]) -> None:
    assert "nobody listens" in scenes["silence"]


def test_the_groups_path_differs_by_the_reader(scenes: dict[str, Any]) -> None:
    rows = scenes["groups"]["rows"]
    apart = [(outside, inside) for _, outside, inside in rows if outside != inside]
    if os.geteuid() == 0:
        assert apart
    assert all(inside == "/" and outside.startswith("/") for outside, inside in apart)
    assert scenes["groups"]["texts"].count("≠") == len(apart)


def test_clocks_are_drawn_as_they_are_moved(scenes: dict[str, Any]) -> None:
    for found in (scenes["clocks"], scenes["clocks by mine"]):
        moved = {name: found["inside"][name] - found["here"][name] for name in ("monotonic", "boottime", "time of day")}
        # A reading is some seconds later than the other, at most:
        assert [round(moved[name] / 86400, 1) for name in moved] == [20, 300, 0]
    assert "the same out here and inside" in scenes["clocks drawn"]
    assert "ValueError: mine" in scenes["clocks refused"]


def main() -> dict[str, Any]:
    """Draw."""
    from labs.notebook import hidden, membership
    from labs.notebook.pictures import read_aloud
    from labs.notebook.session import engine, session, until

    found: dict[str, Any] = {}
    join = "def join(pid, namespaces):\n    setns(pidfd_open(pid), flags(namespaces))\n"
    for name, mine in (("entered", ""), ("entered by mine", join), ("entered by nobody", "def join(*_):\n    os\n")):
        if mine:
            session.store("network.join", mine)
        with engine().started("busybox", ["sleep", "60"]) as container:
            with membership.entered(container, ["sleep", "55"], mine=bool(mine)) as program:
                those = {"notebook": os.getpid(), "container": container.pid, "program": program}
                texts = read_aloud(membership.members.figure(those))
                found[name] = {"links": membership.memberships(those), "texts": texts}
            if name == "entered":
                found["silence"] = read_aloud(membership.listeners.figure({"it": container.pid}))
                rows = hidden.group_paths_of(container.pid)
                found["groups"] = {"rows": rows, "texts": read_aloud(hidden.group_paths.figure(container.pid))}
    with engine().started("busybox", SERVER) as first, engine().started("busybox", SERVER) as second:
        until(lambda: bool(membership.listening(first.pid) and membership.listening(second.pid)), 20)
        those = {"the first": first.pid, "its friend": first.pid, "the second": second.pid}
        found["listeners"] = {
            "texts": read_aloud(membership.listeners.figure(those)),
            "read": [membership.listening(first.pid), membership.listening(second.pid)],
        }
    found["clocks"] = hidden.clocks_of(20 * 86400, 300 * 86400)
    found["clocks drawn"] = read_aloud(hidden.clocks.figure(20 * 86400, 300 * 86400))
    source = (Path(__file__).parents[2] / "labs" / "course" / "08_views" / "notebook.py").read_text()
    cell = source[source.index("def offset_clocks") :]
    session.store("time.offset_clocks", cell[: cell.index("# SOLUTION END")])
    found["clocks by mine"] = hidden.clocks_of(20 * 86400, 300 * 86400, mine=True)
    session.store("time.offset_clocks", "def offset_clocks(*_):\n    raise ValueError('mine')\n")
    try:
        hidden.clocks_of(1, 1, mine=True)
    except RuntimeError as error:
        found["clocks refused"] = str(error)
    return found


if __name__ == "__main__":
    print(json.dumps(main()))
