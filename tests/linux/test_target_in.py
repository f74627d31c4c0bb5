"""`target_in`: whatever an image has put in the way, a mount target never lies outside of its root."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minicontainer.linux import place_in, target_in

NAMES = st.sampled_from(["a", "b", "c", "..", "."])
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)
LINKS = st.one_of(
    PATHS,
    PATHS.map("/".__add__),
    st.sampled_from(["/", "/..", "../../../..", "/proc/self/root", "/proc/self/cwd", "OUT"]),
)
TREES = st.lists(st.tuples(PATHS, st.one_of(st.none(), LINKS, st.just(b"file"))), max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, path=st.one_of(PATHS, PATHS.map("/".__add__)), directory=st.booleans())
@example(tree=[("a", "OUT")], path="a/b", directory=True)
@example(tree=[("a", "../../../../../../../tmp")], path="a", directory=True)
@example(tree=[("a", "/b"), ("b", "a")], path="a/c", directory=False)
@example(tree=[("a", "OUT/new")], path="a", directory=False)
def test_no_link_leads_out(
    tmp_path_factory: pytest.TempPathFactory, tree: list[tuple[str, str | bytes | None]], path: str, directory: bool
) -> None:
    top = tmp_path_factory.mktemp("tree")
    root, outside = top / "root", top / "outside"
    root.mkdir()
    outside.mkdir()
    for place, kind in tree:
        spot = Path(os.path.normpath(f"/{place}").lstrip("/") or "x")
        with contextlib.suppress(OSError, RuntimeError):  # two entries want the same place, or a loop: the first has it
            if (root / spot).resolve() != root / spot:
                continue  # planted through a link: that would be our own escape
            if kind is None:
                (root / spot).mkdir(parents=True)
            elif kind == b"file":
                (root / spot).touch()
            else:
                (root / spot).symlink_to(str(kind).replace("OUT", str(outside)))
    files = set(os.listdir("/proc/self/fd"))

    with contextlib.suppress(OSError), target_in(root, path, directory=directory) as target:  # an error is no escape
        real = os.path.realpath(target)
        assert real == str(root) or real.startswith(f"{root}/"), f"{path} leads to {real}"
    assert list(outside.iterdir()) == [], "something was made outside"
    assert sorted(top.iterdir()) == [outside, root]
    assert set(os.listdir("/proc/self/fd")) == files, "a file descriptor was left open"


def test_what_is_missing_is_made(tmp_path: Path) -> None:
    with target_in(tmp_path, "/one/two/three") as target:
        assert os.path.realpath(target) == str(tmp_path / "one/two/three")
    with target_in(tmp_path, "one/two/file", directory=False) as target:
        assert stat.S_ISREG(os.stat(target).st_mode)
    assert (tmp_path / "one/two/file").read_bytes() == b""
    with target_in(tmp_path, "/") as target:
        assert os.path.samefile(target, tmp_path)


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with target_in(tmp_path, "file", directory=False) as target:
        assert Path(target).read_text() == "kept"


def test_links_inside_are_followed_as_the_container_will(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    with target_in(tmp_path, "/var/run/lock") as target:
        assert os.path.realpath(target) == str(tmp_path / "run/lock")


@pytest.mark.parametrize(
    ("link", "end"),
    [
        ("../run/systemd/resolv.conf", "run/systemd/resolv.conf"), ("/run/resolv.conf", "run/resolv.conf"),
        ("../../../../new", "new"), ("elsewhere/./x/../y", "etc/elsewhere/y"), ("second", "etc/third/end"),
        ("/etc/above/deep", "usr/above/deep"),
    ],
)  # fmt: skip
def test_what_a_link_to_nothing_leads_to_is_made_inside(tmp_path: Path, link: str, end: str) -> None:
    """As the container itself would, who opens it for writing; with all that is missing on the way."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr").mkdir()
    (tmp_path / "etc/second").symlink_to("third/end")
    (tmp_path / "etc/above").symlink_to("../usr/above")
    (tmp_path / "etc/resolv.conf").symlink_to(link)
    with target_in(tmp_path, "/etc/resolv.conf", directory=False) as target:
        assert os.path.realpath(target) == str(tmp_path / end)
        assert stat.S_ISREG(os.stat(target).st_mode)


@pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b/../c", "c": "a"}, {"a": "/a/x"}])
def test_links_without_end_have_one(tmp_path: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    with pytest.raises(OSError) as raised, target_in(tmp_path, "a"):
        pass
    assert raised.value.errno == errno.ELOOP


def test_a_chain_of_links_that_is_longer_than_the_kernels(tmp_path: Path) -> None:
    """The kernel follows forty; we make what the last of them leads to only after as many."""
    for number in range(60):
        (tmp_path / f"link{number}").symlink_to(f"link{number + 1}")
    with pytest.raises(OSError), target_in(tmp_path, "link0"):
        pass
    with target_in(tmp_path, "link30") as target:
        assert os.path.realpath(target) == str(tmp_path / "link60")


@pytest.mark.parametrize("path", ["link", "link/new", "directory/inner", "dangling", "file/new"])
def test_without_links_none_is_followed(tmp_path: Path, path: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    (tmp_path / "directory/inner").symlink_to("/")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as raised, place_in(tmp_path, path, links=False):
        pass
    assert raised.value.errno == (errno.ENOTDIR if path.startswith("file") else errno.ELOOP)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "directory", "file", "link"]
    with place_in(tmp_path, "directory/new", links=False) as there:
        assert os.path.samestat(os.fstat(there), (tmp_path / "directory/new").stat())


def test_a_file_in_the_place_of_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), target_in(tmp_path, "file/below"):
        pass


def test_renames_elsewhere_on_the_machine_do_not_disturb(tmp_path: Path) -> None:
    """openat2(2): with RESOLVE_IN_ROOT, ".." answers EAGAIN when anything anywhere is renamed meanwhile: try again."""
    (tmp_path / "root/deep/deeper").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to("deep/deeper/../../deep")
    (tmp_path / "x").mkdir()
    program = "import os\nprint(flush=True)\nwhile True: os.rename('x', 'y'); os.rename('y', 'x')"
    with subprocess.Popen([sys.executable, "-ISc", program], cwd=tmp_path, stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None and busy.stdout.readline()
            for _ in range(2000):
                with target_in(tmp_path / "root", "link/deeper") as target:
                    assert target
        finally:
            busy.kill()
