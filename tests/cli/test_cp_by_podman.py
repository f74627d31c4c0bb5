"""cp, diff and commit, each asked of podman as well: the same goes to the same places, and the same is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.command import Command, needs_root
from tests.runtime.test_by_podman import Podman, podman  # noqa: F401 (a fixture)
from tests.stage import needs_v1

pytestmark = [
    needs_root,
    needs_v1,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
]

WORDS = (
    ("{tree}/file", "c:/new"),
    ("{tree}/file", "c:/tmp"),
    ("{tree}/file", "c:/tmp/"),
    ("{tree}/file", "c:/nowhere/"),
    ("{tree}/file", "c:/no/where"),
    ("{tree}/deep/er", "c:new"),
    ("{tree}", "c:/fresh"),
    ("{tree}", "c:/fresh"),
    ("{tree}/.", "c:/fresh"),
    ("{tree}/.", "c:/other"),
    ("{tree}/deep/", "c:/tmp"),
    ("{tree}", "c:/new"),
    ("{tree}/nope", "c:/x"),
    ("c:/nope", "{out}"),
    ("c:/fresh", "{out}/a"),
    ("c:/fresh", "{out}/a"),
    ("c:/fresh/.", "{out}/a"),
    ("c:/new", "{out}"),
    ("c:/new", "{out}/none/"),
    ("c:/fresh/deep/.", "{out}/b"),
    ("c:/etc", "{out}/new"),
)


def test_the_same_goes_to_the_same_places(podman: Podman, command: Command, tmp_path: Path) -> None:  # noqa: F811
    home = podman.stage.path(podman.home)
    for name in ("tree/deep", "ours", "theirs"):
        (home / name).mkdir(parents=True)
    (home / "tree/file").write_text("file")
    (home / "tree/deep/er").write_text("deeper")
    podman.ok("create", "--network=none", "--name=c", "box", "true")
    assert command("create", "--name", "c", "box", "true").returncode == 0
    for words in WORDS:
        theirs = podman("cp", *(word.format(tree=podman.home / "tree", out=podman.home / "theirs") for word in words))
        ours = command("cp", *(word.format(tree=home / "tree", out=home / "ours") for word in words))
        assert (ours.returncode == 0) == (theirs.returncode == 0), (words, ours.stderr, theirs.stderr)
        assert names(home / "ours") == names(home / "theirs"), words
    said = podman.ok("diff", "c").splitlines()
    assert sorted(command("diff", "c").stdout.splitlines()) == sorted(line for line in said if line)
    podman.ok("commit", "-q", "-c", "CMD cat /new", "-c", "ENV A=b", "c", "made")
    assert command("commit", "-c", "CMD cat /new", "-c", "ENV A=b", "c", "made").returncode == 0
    podman.ok("save", "-q", "--format=oci-archive", "-o", podman.home / "theirs.tar", "made")
    assert command("save", "--format", "oci", "-o", tmp_path / "ours.tar", "made").returncode == 0
    shutil.copy(home / "theirs.tar", tmp_path)
    mine, other = (configured(tmp_path / f"{one}.tar") for one in ("ours", "theirs"))
    assert mine["Cmd"] == other["Cmd"]
    assert "A=b" in mine["Env"] and "A=b" in other["Env"]
    assert layer(tmp_path / "ours.tar") == layer(tmp_path / "theirs.tar")


@pytest.fixture
def command(tmp_path: Path, busybox: str) -> Command:
    """With the image that podman has: box."""
    command = Command(tmp_path / "own")
    assert command("image", "make", "dir", busybox, "box").returncode == 0
    return command


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def saved(archive: Path, *words: str) -> str:
    """What skopeo says of an archive."""
    line = ["skopeo", "--insecure-policy", *words, f"oci-archive:{archive}"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def configured(archive: Path) -> dict[str, list[str]]:
    return dict(json.loads(saved(archive, "inspect", "--config"))["config"])


def layer(archive: Path) -> list[tuple[str, bytes, int, int]]:
    """What is in the topmost layer: names, kinds, owners."""
    last = json.loads(saved(archive, "inspect"))["Layers"][-1]
    with tarfile.open(archive) as tar:
        content = tar.extractfile(f"blobs/{last.replace(':', '/')}")
        assert content is not None
        with tarfile.open(fileobj=io.BytesIO(content.read())) as inner:
            found = [(member.name.strip("/"), member.type, member.uid, member.gid) for member in inner]
    return sorted(one for one in found if one[0] not in (".", ""))
