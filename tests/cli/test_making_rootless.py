"""Images made of the containers of an ordinary user, and files in and out of them: of users that are not himself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_rootless import ranges, rootless  # noqa: F401 (a fixture)
from tests.command import needs_root, one_line

pytestmark = needs_root

SECRET = "mkdir -m 700 /secret && echo x >/secret/file && rm /etc/passwd && chown -R 5:7 /secret && chmod 0 /secret"


def done(completed: subprocess.CompletedProcess[str]) -> str:
    assert (completed.returncode, completed.stderr) == (0, ""), completed
    return completed.stdout


def test_what_its_other_users_wrote(ranges: Path) -> None:  # noqa: F811
    """Closed to whoever asks; it is their own root who looks."""
    done(rootless(ranges, "run", "--name", "alpha", "busybox", "sh", "-c", SECRET))
    told = ["C /etc", "D /etc/passwd", "A /secret", "A /secret/file"]
    assert done(rootless(ranges, "diff", "alpha")).splitlines() == told
    done(rootless(ranges, "commit", "-c", "CMD stat -c %u:%g:%a /secret /secret/file", "alpha", "mine"))
    assert done(rootless(ranges, "run", "--rm", "mine")) == "5:7:0\n5:7:644\n"
    done(rootless(ranges, "snapshot", "alpha"))
    done(rootless(ranges, "commit", "alpha", "again"))
    assert done(rootless(ranges, "run", "--rm", "again", "cat", "/secret/file")) == "x\n"
    archive = "/mnt/state/root.tar"
    done(rootless(ranges, "export", "-o", archive, "alpha"))
    listed = subprocess.run(["tar", "-tvf", ranges / "state/root.tar"], capture_output=True, text=True).stdout
    assert "5/7" in next(line for line in listed.splitlines() if line.endswith("secret/file"))
    done(rootless(ranges, "import", archive, "third"))
    assert done(rootless(ranges, "run", "--rm", "third", "cat", "/secret/file")) == "x\n"


@pytest.mark.parametrize("running", (False, True), ids=("stopped", "running"))
def test_copies(ranges: Path, running: bool) -> None:  # noqa: F811
    script = f"{SECRET}; touch /ready; {'sleep 1000' if running else ''}"
    if running:
        done(rootless(ranges, "run", "-d", "--name", "alpha", "busybox", "sh", "-c", script))
        while "/ready" not in done(rootless(ranges, "diff", "alpha")):
            pass
    else:
        done(rootless(ranges, "run", "--name", "alpha", "busybox", "sh", "-c", script))
    try:
        done(rootless(ranges, "cp", "alpha:/secret/file", "/mnt/state/got"))
        got = ranges / "state/got"
        assert (got.read_text(), got.stat().st_uid) == ("x\n", (ranges / "state").stat().st_uid)
        done(rootless(ranges, "cp", "/mnt/state/got", "alpha:/secret/back"))
        done(rootless(ranges, "cp", "alpha:/secret", "alpha:/copy"))
        assert {"A /copy/back", "A /copy/file"} <= {*done(rootless(ranges, "diff", "alpha")).splitlines()}
        done(rootless(ranges, "export", "-o", "/mnt/state/root.tar", "alpha"))
        listed = subprocess.run(["tar", "-tf", ranges / "state/root.tar"], capture_output=True, text=True).stdout
        names = listed.splitlines()
        assert {"copy/back", "proc/", "dev/"} <= {*names}
        assert not [name for name in names if name.startswith(("proc/", "dev/")) and name.count("/") > 1]
        done(rootless(ranges, "commit", "--pause=false", "alpha", "mine"))
        assert done(rootless(ranges, "run", "--rm", "mine", "cat", "/copy/back")) == "x\n"
    finally:
        rootless(ranges, "rm", "-f", "alpha")


def test_mounting_is_roots(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "state/place")
    refused = rootless(tmp_path, "image", "mount", "busybox", "/mnt/state/place")
    assert refused.returncode == 125
    assert "only root can mount" in one_line(refused.stderr)


def test_a_directory_of_ones_own_is_roots_in_the_image(tmp_path: Path) -> None:
    (tmp_path / "state/tree/bin").mkdir(parents=True)
    for path in ("state", "state/tree", "state/tree/bin"):
        os.chown(tmp_path / path, 61234, 61234)
    done(rootless(tmp_path, "image", "make", "busybox", "bb"))
    subprocess.run(["cp", "/bin/busybox", tmp_path / "state/tree/bin/sh"], check=True)
    os.chown(tmp_path / "state/tree/bin/sh", 61234, 61234)
    done(rootless(tmp_path, "image", "make", "dir", "/mnt/state/tree", "mine"))
    said = done(rootless(tmp_path, "run", "--rm", "mine", "sh", "-c", "exec /bin/sh --help 2>&1 | head -1; echo $?"))
    assert said.endswith("0\n")
    said = done(rootless(tmp_path, "run", "--rm", "mine", "sh", "-c", "[ -O /bin/sh ] && echo mine"))
    assert said == "mine\n"
