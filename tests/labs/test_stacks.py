"""What the notebooks of labs 13 and 14 show: compared with what overlayfs makes of the same directories.

A program of its own plays the scene, by this file, in a sandbox such as a cell apart has.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

SANDBOX = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def scene() -> dict[str, Any]:
    """Three layers over one another, with something removed in the upper one."""
    done = subprocess.run([*SANDBOX, sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_picture_has_each_layer_and_what_is_seen(scene: dict[str, Any]) -> None:
    rows = {line.split("   ")[0]: line.split("   ")[1:] for line in scene["drawn"].splitlines()}
    names = scene["drawn"].splitlines()[0].split("   ")
    assert names == ["etc", "etc/motd", "gone", "who"]
    assert rows["what is seen"] == ["directory", "not seen", "not seen", "changed"]
    assert rows["upper"] == ["opaque", "·", "whiteout", "changed"]
    assert rows["app"] == ["·", "·", "·", "app"]
    assert rows["base"] == ["directory", "hello", "base", "base"]
    assert scene["kernel"] == ["etc", "who"]


def test_a_listing_names_the_marks(scene: dict[str, Any]) -> None:
    lines = {line.split()[-2]: line for line in scene["listed"].splitlines() if line.startswith("!")}
    assert "c---------  0:0" in lines["gone"]
    assert lines["gone"].endswith("whiteout")
    assert lines["etc"].endswith("opaque")


def test_an_image_layout_is_called_after_its_digests(scene: dict[str, Any]) -> None:
    assert scene["blobs"] == scene["digests"]
    assert len(scene["resolved"]) == 3
    assert {one["digest"].removeprefix("sha256:") for one in scene["resolved"]} <= set(scene["blobs"])


def test_an_archive_is_what_was_asked_for() -> None:
    from labs.notebook.layers import archive

    raw = archive({"bin/": "", "bin/su": "x", "s": "-> bin"}, {"bin/su": 0o4755}, {"bin/sudo": "bin/su"})
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        found = {member.name: member for member in tar}
    assert found["bin"].isdir()
    assert found["bin/su"].mode == 0o4755
    assert found["s"].linkname == "bin"
    assert found["bin/sudo"].islnk()


def test_the_stack_is_svg_and_can_be_read_aloud(scene: dict[str, Any]) -> None:
    [drawn] = map(ElementTree.fromstring, scene["vectors"])
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg" and drawn.get("role") == "img"
    assert all(word in drawn.get("aria-label", "") for word in ("what is seen", "whiteout", "upper", "base"))


def test_costs_are_told_in_figures(scene: dict[str, Any]) -> None:
    for told in ("5.2 ms", "50 ms", "0.02 ms", "0.021 ms", "copied", "renamed", "files that were written"):
        assert told in scene["costs"]


def play() -> dict[str, Any]:
    import shutil

    from labs.notebook import shown as shown_
    from labs.notebook import stacks
    from labs.notebook.layers import archive, image_layout, layer, listing, overlay, workshop
    from labs.notebook.pictures import read_aloud
    from minicontainer.steps.layout import resolve

    place = workshop()
    base = layer(f"{place}/base", {"who": "base", "gone": "base", "etc/motd": "hello"})
    app = layer(f"{place}/app", {"who": "app"})
    upper = f"{place}/upper"
    shown = overlay([app, base], upper)
    Path(shown, "who").write_text("changed")
    os.unlink(f"{shown}/gone")
    shutil.rmtree(f"{shown}/etc")
    os.mkdir(f"{shown}/etc")
    figure = stacks.layers.figure({"upper": upper, "app": app, "base": base}, shown)
    figure.savefig(os.devnull, format="png")
    vectors: list[str] = []
    shown_.send = lambda bundle, _: vectors.append(bundle["image/svg+xml"])
    stacks.layers({"upper": upper, "app": app, "base": base}, shown)
    listed: list[str] = []
    shown_.send = lambda bundle, _: listed.append(bundle["text/plain"])
    listing(upper)
    costs = stacks.costs.figure([100, 1000], {"copied": [5.25, 50.0], "renamed": [0.02, 0.021]})
    costs.savefig(os.devnull, format="png")
    layout = image_layout(f"{place}/layout", "example.org/hello:1", [archive({"a": "base"}), archive({"b": "app"})])
    blobs = sorted(Path(layout, "blobs/sha256").iterdir())
    return {
        "drawn": read_aloud(figure),
        "vectors": vectors,
        "kernel": sorted(os.listdir(shown)),
        "listed": listed[0],
        "costs": read_aloud(costs),
        "blobs": [blob.name for blob in blobs],
        "digests": [hashlib.sha256(blob.read_bytes()).hexdigest() for blob in blobs],
        "resolved": resolve(layout, "example.org/hello:1", "linux/arm64"),
    }


if __name__ == "__main__":
    print(json.dumps(play()))
