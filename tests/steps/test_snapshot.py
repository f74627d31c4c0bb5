"""Snapshots as directories: what is taken is what comes back, to the last attribute, and nothing is copied for it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer.linux import mount
from minicontainer.steps import Steps
from tests.command import needs_root
from tests.steps.apart import apart, tmpfs

pytestmark = needs_root
STEPS = Steps()


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    """All of a tree: kind and mode, owner, size, time, attributes (not overlayfs's marks), number of names, content."""
    found = {}
    for directory, directories, names in os.walk(top):
        for path in [Path(directory), *(Path(directory, name) for name in names)] + [
            Path(directory, name) for name in directories if Path(directory, name).is_symlink()
        ]:
            about = path.lstat()
            attributes = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
                if ".overlay." not in name
            }
            regular, link = stat.S_ISREG(about.st_mode), stat.S_ISLNK(about.st_mode)
            found[str(path.relative_to(top))] = (
                oct(about.st_mode), about.st_uid, about.st_gid, about.st_mtime_ns, about.st_rdev, sorted(attributes.items()),
                about.st_nlink if regular else None, about.st_size if regular else None,
                hashlib.sha256(path.read_bytes()).hexdigest() if regular else os.readlink(path) if link else None,
            )  # fmt: skip
    return found


def fill(top: Path) -> None:
    """Some of everything."""
    (top / "dir").mkdir()
    (top / "dir/file").write_text("content")
    os.link(top / "dir/file", top / "again")
    (top / "link").symlink_to("dir/file")
    os.mkfifo(top / "fifo")
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (top / "suid").write_bytes(b"x" * 5000)
    os.chown(top / "suid", 5, 7)
    os.chmod(top / "suid", 0o4751)
    os.setxattr(top / "suid", "user.note", b"kept")
    (top / "old").write_text("")
    os.utime(top / "old", ns=(1, 123456789))
    with open(top / "sparse", "wb") as file:
        file.truncate(1 << 24)
        file.seek(1 << 20)
        file.write(b"data")
    os.chown(top, 3, 4)
    os.chmod(top, 0o751)
    os.setxattr(top, "user.top", b"too")
    os.utime(top, ns=(5, 987654321))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small container: base, upper and work."""
    for name in ("base", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "base/below").write_text("of the base")
    (tmp_path / "base/gone").write_text("to be hidden")
    return tmp_path


def shown(small: Path, layers: list[str], upper: str = "upper") -> dict[str, tuple[object, ...]]:
    """What the overlay of these shows, mounted apart."""

    def look() -> dict[str, tuple[object, ...]]:
        STEPS.stack(
            [str(small / name) for name in layers], str(small / upper), str(small / "work"), str(small / "merged")
        )
        return tree(small / "merged")

    return apart(look)


def written(small: Path, layers: list[str], write: Callable[[Path], object]) -> None:
    """Write through the overlay of these."""

    def act() -> None:
        STEPS.stack(
            [str(small / name) for name in layers], str(small / "upper"), str(small / "work"), str(small / "merged")
        )
        write(small / "merged")

    apart(act)


def test_take_and_restore_give_the_same_tree(small: Path) -> None:
    def first(top: Path) -> None:
        (top / "gone").unlink()
        fill(top)

    written(small, ["base"], first)
    before = shown(small, ["base"])
    inode = (small / "upper").stat().st_ino
    STEPS.take(str(small / "upper"), str(small / "snap"))
    assert (small / "snap").stat().st_ino == inode, "it was copied"
    assert os.listdir(small / "upper") == []
    assert shown(small, ["snap", "base"]) == before

    def second(top: Path) -> None:
        subprocess.run(["rm", "-r", top / "dir", top / "below", top / "suid"], check=True)
        (top / "dir").mkdir()  # opaque
        (top / "new").write_text("later")
        os.chmod(top, 0o700)

    written(small, ["snap", "base"], second)
    assert shown(small, ["snap", "base"]) != before
    STEPS.restore([str(small / "snap"), str(small / "base")], str(small / "upper"))
    assert shown(small, ["snap", "base"]) == before
    assert sorted(os.listdir(small)) == ["base", "merged", "snap", "upper", "work"]


def test_an_interrupted_restore_is_done_again(small: Path) -> None:
    fill(small / "upper")
    before = shown(small, ["base"])
    STEPS.take(str(small / "upper"), str(small / "snap"))
    (small / "upper/file").write_text("later")
    (small / "upper.new").mkdir()
    (small / "upper.new/half").write_text("what somebody left")
    STEPS.restore([str(small / "snap")], str(small / "upper"))
    assert shown(small, ["snap", "base"]) == before and not (small / "upper.new").exists()


def test_take_remembers_when_the_layer_changes_nothing_yet(small: Path) -> None:
    fill(small / "upper")
    before, seen = shown(small, ["base"]), []
    STEPS.take(str(small / "upper"), str(small / "snap"), lambda: seen.append(shown(small, ["snap", "base"])))
    assert seen == [before]


def test_a_name_that_is_taken_changes_nothing(small: Path) -> None:
    fill(small / "upper")
    (small / "snap").mkdir()
    (small / "snap/mine").write_text("")
    before = tree(small)
    with pytest.raises(FileExistsError):
        STEPS.take(str(small / "upper"), str(small / "snap"))
    assert tree(small) == before


def test_what_cannot_be_remembered_leaves_the_upper_layer(small: Path) -> None:
    fill(small / "upper")
    before = tree(small / "upper")

    def no_space() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space"):
        STEPS.take(str(small / "upper"), str(small / "snap"), no_space)
    assert tree(small / "upper") == before


@pytest.mark.parametrize("full", [False, True], ids=["copy on write", "full"])
def test_a_clone_is_the_same_and_its_own(small: Path, full: bool) -> None:
    written(small, ["base"], lambda top: ((top / "gone").unlink(), fill(top)))
    STEPS.take(str(small / "upper"), str(small / "one"))
    written(small, ["one", "base"], lambda top: ((top / "dir/more").write_text("more"), (top / "link").unlink()))
    STEPS.take(str(small / "upper"), str(small / "two"))
    before = shown(small, ["two", "one", "base"])
    STEPS.clone([str(small / "two"), str(small / "one")], str(small / "clone"), full, [str(small / "base")])
    below = ["base"] if full else ["two", "one", "base"]
    assert shown(small, below, "clone") == before
    (small / "clone/own").write_text("")
    assert shown(small, ["two", "one", "base"]) == before
    if full:  # holes stay holes
        assert (small / "clone/sparse").stat().st_blocks <= (small / "one/sparse").stat().st_blocks


def test_merged_layers_show_the_same_above_any_other(small: Path) -> None:
    """Whiteouts, opaque directories, a file in the place of a directory and the other way round, over three layers."""

    def one(top: Path) -> None:
        fill(top)
        for name in ("a", "b", "c", "d"):
            (top / name / "inner").mkdir(parents=True)
            (top / name / "inner/file").write_text(name)

    def two(top: Path) -> None:
        (top / "gone").unlink()
        subprocess.run(["rm", "-r", top / "a", top / "b", top / "c/inner"], check=True)
        (top / "b").write_text("a file now")
        (top / "c/inner").mkdir()
        (top / "second").write_text("")
        os.link(top / "second", top / "third")

    def three(top: Path) -> None:
        (top / "a").mkdir()
        (top / "b").unlink()
        (top / "b").mkdir(mode=0o711)
        (top / "c/inner/new").write_text("")
        (top / "d/inner/file").unlink()

    layers = ["base"]
    for number, write in enumerate((one, two, three)):
        written(small, layers, write)
        STEPS.take(str(small / "upper"), str(small / f"layer{number}"))
        layers.insert(0, f"layer{number}")
    before = shown(small, layers)
    STEPS.merge(
        [str(small / name) for name in layers[:2]], str(small / "merged2"), [str(small / name) for name in layers[2:]]
    )
    assert shown(small, ["merged2", *layers[2:]]) == before, "two of three"
    STEPS.merge([str(small / name) for name in layers[:3]], str(small / "merged3"), [str(small / "base")])
    assert shown(small, ["merged3", "base"]) == before, "all three"
    assert not any("origin" in name for name in os.listxattr(small / "merged3/again"))


def test_a_renamed_directory_of_overlayfs_is_refused_by_name(small: Path) -> None:
    (small / "upper/dir").mkdir()
    os.setxattr(small / "upper/dir", "trusted.overlay.redirect", b"/elsewhere")
    with pytest.raises(OSError, match=r"trusted\.overlay\.redirect"):
        STEPS.merge([str(small / "upper")], str(small / "merged2"))


def test_a_full_clone_without_space_raises(tmp_path: Path) -> None:
    def act() -> str:
        top = tmpfs(tmp_path / "small", "size=300k")
        (top / "layer").mkdir()
        (top / "layer/file").write_bytes(b"x" * 200_000)
        try:
            STEPS.clone([str(top / "layer")], str(top / "clone"), True)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "nothing"

    assert apart(act) == "ENOSPC"


def test_what_shares_blocks_is_not_copied(tmp_path: Path) -> None:
    """ioctl_ficlone(2), on a file system that can."""
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    made = (
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], capture_output=True) if _has("mkfs.xfs") else None
    )
    if made is None or made.returncode:
        pytest.skip("mkfs.xfs is not installed: there is no file system that shares blocks")

    def act() -> tuple[int, bool]:
        (tmp_path / "xfs").mkdir()
        loop = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True).stdout
        try:
            mount(loop.strip(), tmp_path / "xfs", "xfs")
            top = tmp_path / "xfs"
            (top / "layer").mkdir()
            (top / "layer/file").write_bytes(os.urandom(64 << 20))
            os.sync()
            before = os.statvfs(top).f_bfree * os.statvfs(top).f_frsize
            STEPS.clone([str(top / "layer")], str(top / "clone"), True)
            os.sync()
            same = (top / "clone/file").read_bytes() == (top / "layer/file").read_bytes()
            return before - os.statvfs(top).f_bfree * os.statvfs(top).f_frsize, same
        finally:
            subprocess.run(["umount", tmp_path / "xfs"], check=False)
            subprocess.run(["losetup", "--detach", loop.strip()], check=True)

    taken, same = apart(act)
    assert same and taken < 8 << 20


def _has(program: str) -> bool:
    return subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True).returncode == 0
