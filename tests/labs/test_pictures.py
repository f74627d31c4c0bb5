"""The pictures say what the kernel says: the texts in them are compared with what was read in /proc beside them.

They are drawn in a process of its own, by this file: what matplotlib opens, and numpy's threads, would stay in ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Scene = Callable[[], dict[str, Any]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What was drawn, and what was read, in each of the scenes below."""
    root = tmp_path_factory.mktemp("labs")
    done = subprocess.run(
        [sys.executable, __file__],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "MINICONTAINER_LABS_ROOT": str(root)},
    )
    told: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return told


def test_namespaces_are_joined_where_they_are_the_same(scenes: dict[str, Any]) -> None:
    scene = scenes["namespaces"]
    for here, there in scene["links"]:
        assert any(here in text for text in scene["texts"])
        assert any(there in text for text in scene["texts"])
    different = [link for link in scene["links"] if link[0] != link[1]]
    assert len(different) >= 5
    assert scene["texts"].count("≠") == len(different)
    assert len([text for text in scene["texts"] if text.endswith("the same")]) == len(scene["links"]) - len(different)


def test_mounts_are_those_of_mountinfo(scenes: dict[str, Any]) -> None:
    scene = scenes["mounts"]
    assert {"notebook", "container"} <= set(scene["texts"])
    for point in scene["points"]:
        assert any(text.startswith(f"{point}  [") for text in scene["texts"])


def test_a_process_in_a_chroot_sees_no_mount(scenes: dict[str, Any]) -> None:
    assert any("no mount is in its sight" in text for text in scenes["chroot"]["mounts"])


def test_the_way_up_stops_at_the_root_directory(scenes: dict[str, Any]) -> None:
    scene = scenes["chroot"]
    assert scene["way_up"].count("✕") == 1
    assert scene["way_up"].count("..") == len(Path(scene["root"], "usr/bin").parts) - 1
    assert any("its working directory" in text for text in scene["way_up"])


def test_a_process_that_stands_outside_of_its_root_is_shown_there(scenes: dict[str, Any]) -> None:
    assert any("outside of its root" in text for text in scenes["outside"]["texts"])


def test_processes_have_their_numbers_inside_and_outside(scenes: dict[str, Any]) -> None:
    scene = scenes["processes"]
    assert scene["numbers"][0][1] == 1
    for number in {str(number) for pair in scene["numbers"] for number in pair}:
        assert number in scene["texts"]


def test_a_zombie_is_named(scenes: dict[str, Any]) -> None:
    assert any("(zombie)" in text for text in scenes["zombie"]["texts"])


def test_a_tree_shows_where_links_lead(scenes: dict[str, Any]) -> None:
    scene = scenes["tree"]
    assert f"/  = {scene['root']}" in scene["texts"]
    assert any(text.endswith("→ /bin/busybox") for text in scene["texts"])
    assert any(text.startswith("… and ") for text in scene["texts"])


@pytest.mark.parametrize("kind", ["out", "in", "loopback", "beside"])
def test_a_packet_is_where_it_was_seen(scenes: dict[str, Any], kind: str) -> None:
    scene = scenes[f"journey {kind}"]
    for sighting in scene["sightings"]:
        assert any(f"{sighting['source']} → {sighting['destination']}" in text for text in scene["texts"])
        assert sighting["node"] in scene["texts"]
        assert sighting["device"] in scene["texts"]
    assert any(scene["client"] in text and "the answer has come back" in text for text in scene["texts"])
    translated = [text for text in scene["texts"] if text.endswith("  translated")]
    assert bool(translated) == (kind != "beside")


def test_a_packet_changes_its_address_where_it_leaves_the_host(scenes: dict[str, Any]) -> None:
    seen = {
        (one["node"], one["device"]): one["source"] for one in scenes["journey out"]["sightings"] if not one["answer"]
    }
    assert seen["the host", "br0"].startswith("172.17.0.2:")
    assert seen["the host", "uplink"].startswith("192.0.2.1:")
    assert scenes["journey out"]["client"] == seen["outside", "eth0"]


def test_a_timeline_has_every_step_of_each_process(scenes: dict[str, Any]) -> None:
    scene = scenes["timeline"]
    assert {"uts.set_names", "mount.pivot"} <= {step for _, step in scene["steps"]}
    for process, step in scene["steps"]:
        assert step in scene["texts"]
        assert any(text.startswith(f"{process}, pid ") for text in scene["texts"])
    assert any(text.startswith(f"{scene['calls']} calls in ") for text in scene["texts"])


def test_a_step_that_fails_and_a_packet_that_is_lost_are_told(scenes: dict[str, Any]) -> None:
    assert any("a step failed: RuntimeError: not today" in text for text in scenes["journey of mine"]["texts"])
    assert any("the question has not arrived" in text for text in scenes["journey lost"]["texts"])


def main() -> None:
    """Draw every scene; print what was seen."""
    import io

    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from labs.notebook import pictures
    from labs.notebook.session import busybox_root, engine, jailed, until
    from minicontainer.linux import Namespace

    def texts(figure: Figure) -> list[str]:
        figure.savefig(io.BytesIO())
        return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]

    told: dict[str, dict[str, Any]] = {}
    with engine().started("busybox", ["sh", "-c", "sleep 60 | cat"]) as container:
        until(lambda: [process.name for process in pictures.family(container)][2:] == ["sleep", "cat"])
        told["namespaces"] = {
            "texts": texts(pictures.namespaces.figure(container)),
            "links": [(kind.link("self"), kind.link(container.pid)) for kind in Namespace if kind.supported],
        }
        told["mounts"] = {
            "texts": texts(pictures.mounts.figure("self", container, titles=["notebook", "container"])),
            "points": [line.split()[4] for line in Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()],
        }
        told["processes"] = {
            "texts": texts(pictures.processes.figure(container)),
            "numbers": [(process.outside, process.inside[-1]) for process in pictures.family(container)],
        }
    with engine().started("busybox", ["sh", "-c", "(sleep 0.1 &); exec sleep 60"], reaper=False) as container:
        until(lambda: [process.state for process in pictures.family(container)] == ["S", "Z"])
        told["zombie"] = {"texts": texts(pictures.processes.figure(container))}
    with jailed(busybox_root(), "/usr/bin") as process:
        told["chroot"] = {
            "root": busybox_root(),
            "mounts": texts(pictures.mounts.figure(process)),
            "way_up": texts(pictures.way_up.figure(process)),
        }
    with jailed(busybox_root(), "/usr", inside=False) as process:
        told["outside"] = {"texts": texts(pictures.way_up.figure(process))}
    told["tree"] = {"root": busybox_root(), "texts": texts(pictures.tree.figure(busybox_root()))}
    from dataclasses import asdict

    from labs.notebook.network import KINDS, journey
    from labs.notebook.session import session

    for kind in KINDS:
        way = journey(kind)
        told[f"journey {kind}"] = {**asdict(way), "texts": texts(pictures.drawn_journey(way))}
    session.store("nat.masquerade", "def masquerade(bridge, subnets):\n    raise RuntimeError('not today')\n")
    told["journey of mine"] = {"texts": texts(pictures.journey.figure("out", mine=True))}
    session.store("nat.masquerade", "def masquerade(bridge, subnets):\n    pass\n")
    told["journey lost"] = {"texts": texts(pictures.journey.figure("out", mine=True))}
    from minicontainer.linux.recording import Call

    calls: list[Call] = []
    engine(calls.extend).run("busybox", ["true"], capture=True)
    told["timeline"] = {
        "texts": texts(pictures.drawn_timeline(calls)),
        "steps": [(call.process, call.step) for call in calls],
        "calls": len(calls),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
