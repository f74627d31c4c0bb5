"""Looking at a submission's files, each of which may be a trap."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.grading import files
from labs.grading.checks import Wrong


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A directory that plays the submission's "/"."""
    (tmp_path / "secret").write_text("of the host")
    (tmp_path / "root").mkdir()
    os.chdir(tmp_path / "root")
    fd = os.open(".", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def _back() -> Iterator[None]:
    before = Path.cwd()
    yield
    os.chdir(before)


def test_links_are_followed_within(root: int) -> None:
    Path("etc").mkdir()
    Path("etc/real").write_text("inside")
    Path("link").symlink_to("/etc/../../../etc/real")
    assert files.read(root, "/link", 100) == b"inside"


@pytest.mark.parametrize(
    "target", ["../secret", "/proc/self/cwd/../secret", "/proc/self/root/etc/passwd", "/etc/passwd"]
)
def test_no_link_leads_out(root: int, target: str) -> None:
    Path("link").symlink_to(target)
    with pytest.raises(FileNotFoundError):
        files.read(root, "link", 100)


def test_a_loop_of_links_ends(root: int) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    with pytest.raises(OSError, match=r"levels of symbolic links|ELOOP"):
        files.read(root, "a", 100)


def test_nobody_waits_for_a_pipe(root: int) -> None:
    os.mkfifo("pipe")
    with pytest.raises(OSError, match="neither a file nor a directory"):
        files.read(root, "pipe", 100)


def test_a_file_is_read_up_to_the_limit(root: int) -> None:
    Path("long").touch()
    os.truncate("long", 1 << 40)
    assert len(files.read(root, "long", 1000)) == 1000


def test_a_tree_is_told_as_lstat_tells_it(root: int) -> None:
    Path("a/b").mkdir(parents=True)
    Path("a/b/file").write_text("four")
    Path("a/link").symlink_to("/")
    tree = files.tree(root, "/")
    assert sorted(tree) == ["a", "a/b", "a/b/file", "a/link"]
    assert stat.S_ISLNK(tree["a/link"].st_mode)
    assert tree["a/b/file"].st_size == 4


def test_a_deep_tree_is_refused(root: int) -> None:
    Path("/".join("d" * 40)).mkdir(parents=True)
    with pytest.raises(Wrong, match="below one another"):
        files.tree(root, "/")


def test_a_large_tree_is_refused(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST", 10)
    for number in range(11):
        Path(str(number)).touch()
    with pytest.raises(Wrong, match="more than 10"):
        files.tree(root, "/")
