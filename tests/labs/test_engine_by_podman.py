"""Lab 16 shows what it says: another program, podman, drives containers with the five functions of the solved notebook."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.catalogue import COURSE
from minicontainer.images.busybox import static_busybox
from minicontainer.steps import Steps
from tests.command import DEADLINE, needs_root

LAB = COURSE / "16_engine"
CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
[engine.runtimes]
crun = ["{runtime}"]
"""
"""Podman goes without control groups only with a runtime that is called crun: so ours is."""


class Podman:
    """Podman with everything of its own below one directory."""

    def __init__(self, place: Path) -> None:
        self.place, self.rootfs, self.containers = place, place / "rootfs", place / "containers"
        Steps().build_root(str(self.rootfs), static_busybox())
        runtime = place / "mine"
        runtime.write_text(
            f"#!/bin/sh\nLAB_CONTAINERS={self.containers} "  # podman's helper passes no environment on
            f'exec {sys.executable} {LAB / "oci.py"} {LAB / "notebook.py"} "$@"\n'
        )
        runtime.chmod(0o755)
        (place / "containers.conf").write_text(CONF.format(runtime=runtime))

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        own = [f"--{name}={self.place / name}" for name in ("root", "runroot", "tmpdir")]
        return subprocess.run(
            ["podman", *own, "--storage-driver=vfs", "--runtime=crun", *words],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env={**os.environ, "CONTAINERS_CONF": str(self.place / "containers.conf")},
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`podman run`, with options and the program's words."""
        options = [word for word in words if word.startswith("--")]
        words = tuple(word for word in words if not word.startswith("--"))
        return self("run", "--network=none", "--cgroups=disabled", *options, "--rootfs", str(self.rootfs), *words)


@pytest.fixture
def podman() -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="pod-") as place:  # podman wants short paths
        yield Podman(Path(place))


@needs_root
@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")
def test_podman_drives_the_solved_notebook(podman: Podman) -> None:
    done = podman.run("--rm", "sh", "-c", "echo my number is $$; exit 7")
    assert (done.stdout, done.returncode) == ("my number is 1\n", 7), done.stderr
    missing = podman.run("--rm", "not-in-there")
    assert missing.returncode != 0
    assert "not-in-there" in missing.stderr
    assert list(podman.containers.iterdir()) == []

    container = podman.run("--detach", "sleep", "600").stdout.strip()
    try:
        known = json.loads((podman.containers / container / "state.json").read_text())
        assert os.readlink(f"/proc/{known['pid']}/exe").endswith("/busybox")
    finally:
        removed = podman("rm", "--force", "--time=0", container)
    assert removed.returncode == 0, removed.stderr
    assert list(podman.containers.iterdir()) == []
    assert not Path(f"/proc/{known['pid']}").exists()
