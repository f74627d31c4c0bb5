"""Trees that are planted and looked at: what was asked for is there, what differs is told, and traps hold nobody up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.grading.checks import Wrong
from labs.grading.classroom import Classrooms
from labs.grading.observed_trees import (
    DIRECTORY,
    FIFO,
    OPAQUE,
    SYMLINK,
    WHITEOUT,
    File,
    Tree,
    difference,
    plant,
    seen,
    told,
)
from labs.grading.sandbox import Sandbox
from labs.grading.subject import Subject

TREE: Tree = {
    "d": File(DIRECTORY, mode=0o1750, modified=1_400_000_000, xattrs={OPAQUE: b"y"}),
    "d/file": File(content=b"content", mode=0o4755, modified=1_300_000_000, xattrs={"user.a": b"b"}),
    "d/second": File(same_as="d/file"),
    "gone": File(WHITEOUT),
    "link": File(SYMLINK, b"/etc"),
    "pipe": File(FIFO, mode=0o622),
}
TRAPS = """
import os, stat
def set_names(kind):
    os.makedirs("/run/trap", exist_ok=True)
    os.chdir("/run/trap")
    if kind == "pipe":
        os.mkfifo("file")
    elif kind == "deep":
        for _ in range(100):
            os.mkdir("d")
            os.chdir("d")
    elif kind == "many":
        for number in range(11_000):
            os.close(os.open(str(number), os.O_CREAT))
    elif kind == "link":
        os.rmdir("/run/trap")
        os.symlink("/proc/1/root", "/run/trap")
    elif kind == "swaps":
        if os.fork() == 0:
            while True:
                os.close(os.open("file", os.O_CREAT | os.O_WRONLY))
                os.unlink("file")
                os.mkfifo("file")
                os.unlink("file")
                os.symlink("/proc/1/mem", "file")
                os.unlink("file")
"""


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    """A submission that sets traps."""
    sandbox = Sandbox(Classrooms(tmp_path).without({"uts"}), {"uts.set_names": TRAPS})
    yield Subject(sandbox, ["uts.set_names"])
    sandbox.close()


def test_what_is_planted_is_seen(subject: Subject) -> None:
    process = subject.perform(plant("/run/tree", TREE))
    found = {path: file for path, file in seen(process, "/run/tree").items() if path != "."}
    assert difference(TREE, found) == ""
    assert found["d/file"].number == found["d/second"].number != found["d"].number
    assert told(found) == "d/ (opaque) d/file d/second gone (whiteout) link@ pipe|"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d/new": File()}, r"d/new \(file\) is there, and should not be"),
        ({"gone": File()}, "gone should be a whiteout, and is a file"),
        ({"d/file": File(content=b"other", mode=0o4755)}, "d/file: it holds 'content', and now it holds 'other'"),
        ({"d": File(DIRECTORY, mode=0o750)}, "d: its mode is 1750, and now its mode is 0750"),
        ({"d/second": File(content=b"content", mode=0o4755)}, "it is another name of d/file, and now it is a file of"),
        ({"link": File(SYMLINK, b"/")}, "link: it holds '/etc', and now it holds '/'"),
    ],
)
def test_what_differs_is_told(change: Tree, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        assert difference(TREE, {**TREE, **change}) == "", difference(TREE, {**TREE, **change})


def test_what_is_missing_is_told() -> None:
    assert difference(TREE, {}) == "d (directory) is missing"


@pytest.mark.parametrize("kind", ["deep", "many"])
def test_a_tree_without_end_is_not_walked(kind: str, subject: Subject) -> None:
    process = subject.perform("uts.set_names", kind)
    with pytest.raises(Wrong, match=r"below one another|more than"):
        seen(process, "/run/trap")


@pytest.mark.parametrize("kind", ["pipe", "link", "swaps"])
def test_a_trap_holds_nobody_and_leads_nowhere(kind: str, subject: Subject) -> None:
    process = subject.perform("uts.set_names", kind)
    for _ in range(50 if kind == "swaps" else 1):
        try:
            found = seen(process, "/run/trap")
        except Wrong:
            continue
        assert all(file.content == b"" or file.kind == SYMLINK for file in found.values())
