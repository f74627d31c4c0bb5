"""kill -9 of whatever changes the store of images, at each call by which it does: what is left is whole."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from minicontainer.engine import Engine
from minicontainer.engine.images import examine, images_of, prune
from minicontainer.images.archives import save
from tests.cli.tracing import every_call, needs_strace, signalled_at
from tests.command import DEADLINE, Command
from tests.host_state import HostUnchanged, bury_the_dead
from tests.images.made import Made, digest_of

pytestmark = needs_strace

CALLS = ("write", "fsync", "rename", "unlink", "rmdir", "mkdir", "flock", "ftruncate")
BELOW: dict[str, bytes | str] = {"below": b"below" * 3000}
OLD, NEW = Made([BELOW, {"n": b"1"}]), Made([BELOW, {"n": b"2" * 30_000}])


@pytest.mark.parametrize(
    ("command", "most"),
    [
        (["load", "-q", "-i", "new.tar"], 30),
        (["tag", "old:1", "again:1"], 30),
        (["rmi", "old:1"], 30),
        (["image", "prune", "-a"], 30),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_at_each_of_its_system_calls(
    tmp_path: Path, command: list[str], most: int, host_unchanged: HostUnchanged
) -> None:
    first = Command(tmp_path / "first")
    for name, made in (("old", OLD), ("other", Made([BELOW]))):
        (tmp_path / f"{name}.tar").write_bytes(made.dockers(f"{name}:1"))
        assert first("load", "-i", tmp_path / f"{name}.tar").returncode == 0
    (tmp_path / "new.tar").write_bytes(NEW.dockers("old:1", "new:1"))
    arguments = [str(tmp_path / word) if word == "new.tar" else word for word in command]

    def again() -> Command:
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        shutil.copytree(first.root, tmp_path / "state", symlinks=True)
        return Command(tmp_path / "state")

    kills = 0
    with host_unchanged():
        calls = [*every_call(again().line(*arguments), CALLS, tmp_path / "calls")]
        for call, when in calls[:: max(1, len(calls) // most)]:
            state = again()
            tracer = signalled_at(call, when, signal.SIGKILL, state.line(*arguments))
            done = subprocess.run(tracer, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)
            kills += done.returncode in (-signal.SIGKILL, 137)
            bury_the_dead()
            is_whole(state, f"kill -9 at {call} number {when}")
            assert state(*arguments).returncode in (0, 1), "a retry"  # 1: it was done already
            is_whole(state, f"a retry after kill -9 at {call} number {when}")
    assert kills >= 10, f"only {kills} kills: this tests nothing"


def is_whole(state: Command, where: str) -> None:
    """Nothing is damaged, what is listed can be used, and what is not is gone after a prune."""
    store = Engine(state.root).store
    store.prepare()
    assert [damage.what for damage in examine(store)] == [], where
    assert prune(store)[1] is not None, where
    images = images_of(store)
    kept = [made for made in (OLD, NEW, Made([BELOW])) if made.id in {image.id for image in images.all()}]
    assert len(images.all()) == len(kept), where
    for image in images.all():
        save([image], images.content, io.BytesIO(), docker=True)
    wanted = {digest_of(tar)[7:] for made in kept for tar in made.tars}
    assert {name for name in os.listdir(store.layers) if name != "lock"} <= wanted, (
        f"{where}: a layer that nothing needs"
    )
    parts = wanted | {part.digest[7:] for one in images.content.descriptors() for part in images.content.parts(one)}
    assert set(os.listdir(f"{store.images}/blobs/sha256")) == parts, f"{where}: what nothing needs, or what is missing"
    assert os.listdir(f"{store.images}/ingest") == [], where
