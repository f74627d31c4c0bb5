"""Layers: what is in the archive is in the tree, in overlayfs's form; packed again it is the same archive."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer.linux import MNT_DETACH, umount2
from minicontainer.linux.tar import TarError
from minicontainer.steps.layers import apply_layer, pack_layer
from minicontainer.steps.overlay import stack, unstack
from minicontainer.steps.unpacking import Limits, Refused
from tests.command import needs_root
from tests.steps.apart import ROOT_AT_100000, apart, errno_of
from tests.steps.trees import archive, entry, tree_of

pytestmark = needs_root

CAPABILITY = b"\1\0\0\2\0 \0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # cap_net_raw=ep, as `setcap` writes it
OPAQUE = "trusted.overlay.opaque"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty directory, and nothing that a layer could mean beside it."""
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def unpack(raw: bytes, tree: Path, **limits: int) -> Any:
    return apply_layer(io.BytesIO(raw), str(tree), Limits(**limits))


def pack(tree: Path | str) -> bytes:
    out = io.BytesIO()
    pack_layer(str(tree), out)
    return out.getvalue()


def mode(path: Path) -> str:
    return stat.filemode(path.lstat().st_mode)


# --- What is kept -----------------------------------------------------------------------------------------------------


def test_every_kind_with_all_that_it_has(tree: Path) -> None:
    found = unpack(
        archive(
            entry("./", "dir", mode=0o711, mtime=5),
            entry("./d/", "dir", mode=0o2755, uid=7, gid=8, mtime=6, pax_headers={"SCHILY.xattr.user.d": "1"}),
            entry("./d/f", content=b"x" * 100_000, mode=0o4711, uid=1000, gid=1001, pax_headers={"mtime": "1.000000001", "SCHILY.xattr.user.f": "2"}),
            entry("./d/hard", "link", linkname="./d/f"),
            entry("./d/s", "symlink", linkname="/nowhere", uid=9, mtime=7),
            entry("./null", "char", devmajor=1, devminor=3, mode=0o666),
            entry("./sda", "block", devmajor=8, devminor=1, uid=3),
            entry("./pipe", "fifo", mode=0o600, gid=4),
            entry("./closed/", "dir", mode=0o000),
            entry("./closed/in", content=b"1", mode=0o000),
        ),
        tree,
    )  # fmt: skip
    assert (found.entries, found.size, found.lost) == (10, 100_001, ())
    assert mode(tree) == "drwx--x--x" and tree.stat().st_mtime == 5
    d, f = tree / "d", tree / "d/f"
    assert mode(d) == "drwxr-sr-x" and (d.stat().st_uid, d.stat().st_gid, d.stat().st_mtime) == (7, 8, 6)
    assert os.getxattr(d, "user.d") == b"1" and os.getxattr(f, "user.f") == b"2"
    assert mode(f) == "-rws--x--x" and (f.stat().st_uid, f.stat().st_gid, f.stat().st_mtime_ns) == (
        1000,
        1001,
        10**9 + 1,
    )
    assert f.samefile(d / "hard") and f.read_bytes() == b"x" * 100_000
    assert os.readlink(d / "s") == "/nowhere" and ((d / "s").lstat().st_uid, (d / "s").lstat().st_mtime) == (9, 7)
    assert (tree / "null").stat().st_rdev == os.makedev(1, 3) and mode(tree / "null") == "crw-rw-rw-"
    assert (tree / "sda").stat().st_rdev == os.makedev(8, 1) and (tree / "sda").stat().st_uid == 3
    assert mode(tree / "pipe") == "prw-------" and (tree / "pipe").stat().st_gid == 4
    assert mode(tree / "closed") == "d---------" and (tree / "closed/in").read_bytes() == b"1"


def test_capabilities_and_acls_are_kept(tree: Path) -> None:
    acl = b"\2\0\0\0" + b"".join(tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + id.to_bytes(4, "little") for tag, perm, id in ((1, 6, 2**32 - 1), (2, 4, 33), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 4, 2**32 - 1)))  # fmt: skip
    source = tree / "source"
    source.write_bytes(b"")
    os.setxattr(source, "security.capability", CAPABILITY)
    os.setxattr(source, "system.posix_acl_access", acl)
    raw = pack(tree)
    (tree / "again").mkdir()
    unpack(raw, tree / "again")
    assert os.getxattr(tree / "again/source", "security.capability") == CAPABILITY
    assert os.getxattr(tree / "again/source", "system.posix_acl_access") == acl


def test_the_host_s_labels_are_left_out_and_that_is_said(tree: Path) -> None:
    found = unpack(archive(entry("f", pax_headers={"SCHILY.xattr.security.selinux": "system_u"})), tree)
    assert os.listxattr(tree / "f") == [] and found.lost == ("f: security.selinux (this host's affair)",)


def test_a_directory_s_default_acl_is_not_passed_on_by_us(tree: Path) -> None:
    """Nor its setgid bit: what the archive says of a file is all that counts."""
    unpack(archive(entry("d/", "dir", mode=0o2777, gid=44), entry("d/f"), entry("d/d/", "dir")), tree)
    assert (tree / "d/f").stat().st_gid == 0 and mode(tree / "d/d") == "drwxr-xr-x"


def test_directories_that_are_not_mentioned_are_root_s(tree: Path) -> None:
    unpack(archive(entry("a/b/c", content=b"1")), tree)
    assert [(mode(tree / path), (tree / path).stat().st_uid, (tree / path).stat().st_mtime) for path in ("a", "a/b")] == [("drwxr-xr-x", 0, 0)] * 2  # fmt: skip


@pytest.mark.parametrize(
    "options", [["--format=gnu"], ["--format=pax"], ["--format=ustar"]], ids=["gnu", "pax", "ustar"]
)
@pytest.mark.parametrize("order", [["--sort=name"], ["--sort=none"], ["--no-recursion", "--null", "-T", "-"]], ids=["by name", "as they come", "shuffled"])  # fmt: skip
def test_a_real_tree_by_gnu_tar(tree: Path, options: list[str], order: list[str]) -> None:
    source = Path(__file__).parents[2] / "labs/course"
    names = ["./" + str(path.relative_to(source)) for path in source.rglob("*")]
    for number in range(0, len(names) - 7, 7):  # jumping to and fro, as no program would
        names[number], names[-number] = names[-number], names[number]
    what = order if "-T" in order else [*order, "."]
    raw = subprocess.run(["tar", "-C", str(source), *options, "-cf", "-", *what], input="\0".join([".", *names]).encode(), capture_output=True, check=True).stdout  # fmt: skip
    unpack(raw, tree)
    expected, found = tree_of(source), tree_of(tree)
    if "--format=pax" not in options:  # the others know whole seconds only
        expected, found = ({path: (*about[:3], about[3] // 10**9, *about[4:]) for path, about in both.items()} for both in (expected, found))  # fmt: skip
    assert found == expected


def test_names_that_begin_with_a_dot_after_a_directory_far_down(tree: Path) -> None:
    unpack(
        archive(entry("./a/b/", "dir"), entry("./x"), entry("./a/b/c/", "dir"), entry("./y/", "dir"), entry("z")), tree
    )
    assert sorted(os.listdir(tree)) == ["a", "x", "y", "z"] and os.listdir(tree / "a/b") == ["c"]


def test_holes_stay_holes(tree: Path, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    raw = subprocess.run(
        ["tar", "-C", str(tmp_path), "-S", "-cf", "-", "holes"], capture_output=True, check=True
    ).stdout
    unpack(raw, tree)
    assert (tree / "holes").read_bytes() == (tmp_path / "holes").read_bytes()
    assert (tree / "holes").stat().st_blocks * 512 < 100_000


# --- Marks ------------------------------------------------------------------------------------------------------------


def is_whiteout(path: Path) -> bool:
    about = path.lstat()
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y"


def test_marks_become_overlayfs_s(tree: Path) -> None:
    unpack(
        archive(
            entry("d/", "dir"),
            entry("d/.wh.gone"),
            entry("o/", "dir"),
            entry("o/.wh..wh..opq"),
            entry("o/f"),
            entry(".wh.etc"),
        ),
        tree,
    )
    assert is_whiteout(tree / "d/gone") and is_whiteout(tree / "etc")
    assert is_opaque(tree / "o") and not is_opaque(tree / "d")
    assert sorted(os.listdir(tree)) == ["d", "etc", "o"] and os.listdir(tree / "o") == ["f"]


def test_the_top_can_be_opaque(tree: Path) -> None:
    unpack(archive(entry(".wh..wh..opq")), tree)
    assert is_opaque(tree)


@pytest.mark.parametrize("first", ["mark", "entry"])
def test_a_mark_hides_nothing_of_its_own_layer(tree: Path, first: str) -> None:
    """And a directory in the place of a hidden one begins anew: what the layers below have in it stays hidden."""
    marks = [entry(".wh.f"), entry(".wh.d")]
    own = [entry("f", content=b"1"), entry("d/", "dir"), entry("d/x")]
    unpack(archive(*(marks + own if first == "mark" else own + marks)), tree)
    assert (tree / "f").read_bytes() == b"1" and (tree / "d/x").exists() and is_opaque(tree / "d")


def test_what_an_old_docker_left_of_aufs_is_passed_over(tree: Path) -> None:
    unpack(archive(entry(".wh..wh.plnk/", "dir"), entry(".wh..wh.plnk/1.2"), entry(".wh..wh.aufs"), entry("f")), tree)
    assert os.listdir(tree) == ["f"]


def test_a_mark_that_is_a_link_as_with_aufs(tree: Path) -> None:
    unpack(archive(entry(".wh.f", "link", linkname=".wh..wh.aufs")), tree)
    assert is_whiteout(tree / "f")


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh..wh.plnk", "d/.wh..wh.", ".wh.a/b", "d/.wh.x/y/z", ".wh.a/.wh.b"])  # fmt: skip
def test_odd_marks_are_refused(tree: Path, name: str) -> None:
    with pytest.raises(Refused, match=r"marks|hides"):
        unpack(archive(entry("d/", "dir"), entry(name)), tree)


@pytest.mark.parametrize("kind", ["dir", "symlink", "fifo", "char", "block"])
@pytest.mark.parametrize("name", [".wh.f", ".wh..wh..opq"])
def test_only_files_are_marks(tree: Path, kind: str, name: str) -> None:
    with pytest.raises(Refused, match="cannot be one"):
        unpack(archive(entry(name, kind, linkname="/")), tree)


def test_in_a_user_namespace_marks_are_of_the_other_kind(shared: Path) -> None:
    def act() -> Any:
        found = unpack(archive(entry("o/.wh..wh..opq"), entry(".wh.f"), entry("null", "char", devmajor=1, devminor=3, mode=0o666), entry("x", uid=33)), shared)  # fmt: skip
        return found.lost

    assert apart(act, ROOT_AT_100000) == ("null: a device (an empty file is in its place)",)
    assert os.getxattr(shared / "o", "user.overlay.opaque") == b"y" and OPAQUE not in os.listxattr(shared / "o")
    assert is_whiteout(shared / "f") and (shared / "x").stat().st_uid == 100033
    assert mode(shared / "null") == "-rw-rw-rw-" and (shared / "null").stat().st_size == 0


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that belongs to the root of a user namespace."""
    above = Path(tempfile.mkdtemp())
    above.chmod(0o755)
    (above / "tree").mkdir()
    os.chown(above / "tree", 100000, 100000)
    yield above / "tree"
    shutil.rmtree(above)


def test_an_owner_who_has_no_id_here(shared: Path) -> None:
    def act() -> str:
        try:
            unpack(archive(entry("etc/shadow", gid=70000)), shared)
        except OSError as error:
            return str(error)
        return "no error"

    told = apart(act, ROOT_AT_100000)
    assert "etc/shadow" in told and "0:70000" in told and "/etc/subuid" in told


def test_without_any_rights(shared: Path) -> None:
    def act() -> str:
        os.setgroups([])
        os.setresgid(100000, 100000, 100000)
        os.setresuid(100000, 100000, 100000)
        unpack(
            archive(
                entry("d/", "dir", mode=0o500, uid=100000, gid=100000),
                entry("d/f", uid=100000, gid=100000),
                entry("d/.wh.x"),
            ),
            shared,
        )
        try:
            unpack(archive(entry("f")), shared)
        except PermissionError as error:
            return str(error)
        return "no error"

    (shared.parent / "tree").chmod(0o755)
    assert "only root" in apart(act)
    assert mode(shared / "d") == "dr-x------" and is_whiteout(shared / "d/x")


# --- An entry in the place of an earlier one ---------------------------------------------------------------------------

SHAPES: dict[str, Callable[[], list[Any]]] = {
    "file": lambda: [entry("x", content=b"new")],
    "dir": lambda: [entry("x/", "dir", mode=0o700)],
    "full": lambda: [entry("x/", "dir"), entry("x/y/", "dir"), entry("x/y/z")],
    "symlink": lambda: [entry("x", "symlink", linkname="other")],
    "link": lambda: [entry("x", "link", linkname="other/f")],
    "fifo": lambda: [entry("x", "fifo")],
    "char": lambda: [entry("x", "char", devmajor=1, devminor=3)],
}


@pytest.mark.parametrize("second", SHAPES)
@pytest.mark.parametrize("first", SHAPES)
def test_the_last_entry_counts(tree: Path, first: str, second: str) -> None:
    """As with Docker and umoci: only two directories become one."""
    other = [entry("other/", "dir"), entry("other/f", content=b"kept")]
    unpack(archive(*other, *SHAPES[first](), *SHAPES[second]()), tree)
    alone = tree.parent / "alone"
    alone.mkdir()
    unpack(archive(*other, *SHAPES[second]()), alone)
    found = tree_of(tree)
    if first == "full" and second == "dir":
        found = {path: about for path, about in found.items() if not path.startswith("x/")}
    assert found == tree_of(alone)
    assert (tree / "other/f").read_bytes() == b"kept"


def test_what_took_the_place_of_a_directory_does_not_get_its_attributes(tree: Path) -> None:
    unpack(archive(entry("x/", "dir", mode=0o1777, uid=5), entry("x/y/", "dir", uid=6), entry("x", content=b"1")), tree)
    assert mode(tree / "x") == "-rw-r--r--" and (tree / "x").stat().st_uid == 0
    again = tree.parent / "again"
    again.mkdir()
    unpack(archive(entry("x/y/", "dir", mode=0o1777, uid=5), entry("x"), entry("x/", "dir"), entry("x/y/z")), again)
    assert mode(again / "x/y") == "drwxr-xr-x" and (again / "x/y").stat().st_uid == 0


# --- Packing ----------------------------------------------------------------------------------------------------------


def furnish(tree: Path) -> None:
    (tree / "d/e").mkdir(parents=True)
    (tree / "d/f").write_bytes(b"content" * 1000)
    os.link(tree / "d/f", tree / "a-link")
    os.symlink("d/f", tree / "s")
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tree / "d/gone", stat.S_IFCHR, 0)
    os.setxattr(tree / "d/e", OPAQUE, b"y")
    os.setxattr(tree / "d/e", "trusted.overlay.origin", b"whatever")
    os.setxattr(tree / "d/f", "user.x", b"\0\n=")
    os.chown(tree / "d/f", 2**31, 77)
    os.chmod(tree / "d/f", 0o6755)
    os.utime(tree / "d/f", ns=(1, 123456789))
    os.chown(tree / "s", 5, 6, follow_symlinks=False)
    (tree / ("n" * 200)).mkdir()
    (tree / os.fsdecode(b"\xff\xfe")).touch()


def test_packed_and_unpacked_it_is_the_same_tree(tree: Path) -> None:
    furnish(tree)
    (tree / "copy").mkdir()
    raw = pack(tree)
    shutil.rmtree(tree / "copy")
    again = tree.parent / "again"
    again.mkdir()
    unpack(raw, again)
    os.removexattr(tree / "d/e", "trusted.overlay.origin")
    (again / "copy").rmdir()
    expected, found = tree_of(tree), tree_of(again)
    expected.pop("."), found.pop(".")  # the copy came and went
    assert found == expected


def test_the_same_tree_gives_the_same_bytes(tree: Path) -> None:
    furnish(tree)
    again = tree.parent / "again"
    again.mkdir()
    raw = pack(tree)
    unpack(raw, again)
    assert pack(tree) == raw and pack(again) == raw
    with contextlib.suppress(FileNotFoundError):
        (tree / "d/f").read_bytes()  # its time of access is not in there
    assert pack(tree) == raw


def test_others_read_what_we_pack(tree: Path) -> None:
    furnish(tree)
    (tree / "d/gone").unlink()
    again = tree.parent / "again"
    again.mkdir()
    subprocess.run(
        ["tar", "-C", str(again), "--xattrs", "--xattrs-include=*", "-xpf", "-"], input=pack(tree), check=True
    )
    (again / "d/e/.wh..wh..opq").unlink()
    os.utime(again / "d/e", ns=(1, (tree / "d/e").stat().st_mtime_ns))
    for name in (OPAQUE, "trusted.overlay.origin"):
        os.removexattr(tree / "d/e", name)
    assert tree_of(again) == tree_of(tree)


def test_marks_come_before_what_is_in_a_directory(tree: Path) -> None:
    furnish(tree)
    from minicontainer.linux import tar

    names = [one.name for one in tar.read([pack(tree)])]
    assert names[0] == "./" and "d/.wh.gone" in names
    assert names.index("d/e/.wh..wh..opq") == names.index("d/e/") + 1
    assert names == sorted(names, key=lambda name: [os.fsencode(part.removeprefix(".wh.")) for part in name.rstrip("/").split("/")])  # fmt: skip


def test_sockets_are_left_out(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "s"))
    again = tree.parent / "again"
    again.mkdir()
    unpack(pack(tree), again)
    assert os.listdir(again) == []


def test_a_name_that_would_be_a_mark_cannot_be_packed(tree: Path) -> None:
    (tree / ".wh.x").touch()
    with pytest.raises(Refused, match=r"\.wh\.x"):
        pack(tree)


@pytest.mark.parametrize("mark", ["trusted.overlay.redirect", "trusted.overlay.metacopy"])
def test_what_is_only_here_in_part_cannot_be_packed(tree: Path, mark: str) -> None:
    (tree / "d").mkdir()
    os.setxattr(tree / "d", mark, b"/x")
    with pytest.raises(Refused, match="not whole"):
        pack(tree)


CONTENTS = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=1500), st.integers(0, 0o7777), st.integers(0, 70000)),
    st.tuples(st.just("dir"), st.just(b""), st.integers(0, 0o7777), st.integers(0, 70000)),
    st.tuples(
        st.just("symlink"),
        st.binary(min_size=1, max_size=150).filter(lambda to: b"\0" not in to),
        st.just(0),
        st.integers(0, 70000),
    ),
    st.tuples(st.just("fifo"), st.just(b""), st.integers(0, 0o777), st.just(0)),
    st.tuples(st.just("whiteout"), st.just(b""), st.just(0), st.just(0)),
    st.tuples(st.just("link"), st.just(b""), st.just(0), st.just(0)),
    st.tuples(st.just("opaque"), st.just(b""), st.just(0o755), st.just(0)),
)
PARTS = st.one_of(st.sampled_from("abc"), st.binary(min_size=1, max_size=120).filter(lambda name: name not in (b".", b"..") and not {0, 47} & {*name} and not name.startswith(b".wh.")).map(os.fsdecode))  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(PARTS, min_size=1, max_size=4), CONTENTS, st.integers(0, 2 * 10**18)), max_size=12))
def test_any_tree_survives(tmp_path_factory: pytest.TempPathFactory, plan: list[Any]) -> None:
    top = tmp_path_factory.mktemp("any")
    tree, again = top / "tree", top / "again"
    tree.mkdir()
    again.mkdir()
    files: list[str] = []
    for parts, (kind, content, bits, owner), time in plan:
        path = os.path.join(tree, *parts)
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if kind == "file":
                with open(path, "xb") as file:
                    file.write(content)
                files.append(path)
            elif kind in ("dir", "opaque"):
                os.mkdir(path)
                if kind == "opaque":
                    os.setxattr(path, OPAQUE, b"y")
            elif kind == "symlink":
                os.symlink(content, os.fsencode(path))
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "whiteout":
                os.mknod(path, stat.S_IFCHR, 0)
                continue  # of a mark nothing is kept but that it is there
            elif files:
                os.link(files[0], path)
                continue
            else:
                continue
            os.chown(path, owner, owner, follow_symlinks=False)
            if kind != "symlink":
                os.chmod(path, bits)
            os.utime(path, ns=(time, time), follow_symlinks=False)
    raw = pack(tree)
    unpack(raw, again)
    assert pack(again) == raw
    assert tree_of(again) == tree_of(tree)
    subprocess.run(["rm", "-rf", str(top)], check=True)


# --- Stacking ---------------------------------------------------------------------------------------------------------


def layers_of(tree: Path, count: int) -> list[str]:
    """So many layers, the topmost first; each has a file of its own, and all have one in common."""
    made = []
    for number in range(count):
        layer = tree / f"layer-{number:04}"
        layer.mkdir()
        (layer / f"own-{number}").touch()
        (layer / "common").write_text(str(number))
        made.append(str(layer))
    return made[::-1]


@pytest.mark.parametrize("maps", [(), ROOT_AT_100000], ids=["root", "user namespace"])
@pytest.mark.parametrize("count", [1, 2, 45, 500])
def test_any_number_of_layers(shared: Path, count: int, maps: Any) -> None:
    def act() -> tuple[int, str]:
        lowers = layers_of(shared, count)
        for name in ("upper", "work", "target"):
            (shared / name).mkdir()
        stack(lowers, str(shared / "upper"), str(shared / "work"), str(shared / "target"))
        (shared / "target/new").touch()
        (shared / "target/common").unlink()
        assert is_whiteout(shared / "upper/common") and (shared / "upper/new").exists()
        return len(os.listdir(shared / "target")), Path(lowers[0], "common").read_text()

    assert apart(act, maps) == (count + 1, str(count - 1))


def test_more_layers_than_overlayfs_has(tree: Path) -> None:
    def act() -> int | None:
        (tree / "target").mkdir()
        try:
            stack(layers_of(tree, 501), "", "", str(tree / "target"))
        except OSError as error:
            return error.errno
        return 0

    assert apart(act) == errno.EINVAL


def test_what_is_unstacked_shows_what_was_there(tree: Path) -> None:
    def act() -> tuple[list[str], int | None, list[str], int | None]:
        target = tree / "target"
        target.mkdir()
        (target / "below").touch()
        stack(layers_of(tree, 2), "", "", str(target))
        with open(target / "common"):
            busy = errno_of(lambda: unstack(str(target)))
        shown = sorted(os.listdir(target))
        unstack(str(target))
        return shown, busy, os.listdir(target), errno_of(lambda: unstack(str(target)))

    assert apart(act) == (["common", "own-0", "own-1"], errno.EBUSY, ["below"], errno.EINVAL)


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b", "a\\:b", "a'\"b", "n" * 250, "n:,\\" * 60])
@pytest.mark.parametrize("count", [2, 60])
def test_names_with_letters_that_mean_something(tree: Path, name: str, count: int) -> None:
    def act() -> list[str]:
        top = tree / name
        top.mkdir()
        lowers = layers_of(top, count)
        for part in ("upper", "work", "target"):
            (top / part).mkdir()
        stack(lowers, str(top / "upper"), str(top / "work"), str(top / "target"))
        (top / "target/new").touch()
        return os.listdir(top / "upper")

    assert apart(act) == ["new"]


@pytest.mark.parametrize("count", [1, 2, 60])
def test_without_an_upper_it_is_read_only(tree: Path, count: int) -> None:
    def act() -> int | None:
        target = tree / "target"
        target.mkdir()
        stack(layers_of(tree, count), "", "", str(target))
        assert (target / "common").read_text() == str(count - 1) and len(os.listdir(target)) == count + 1
        try:
            (target / "new").touch()
        except OSError as error:
            return error.errno
        finally:
            umount2(target, MNT_DETACH)
        return 0

    assert apart(act) == errno.EROFS


def test_layers_hide_what_they_say(tree: Path) -> None:
    """The kernel reads our marks as the specification means them."""

    def act() -> dict[str, list[str]]:
        for name in ("below", "above", "target"):
            (tree / name).mkdir()
        unpack(archive(entry("d/a"), entry("d/b"), entry("o/a"), entry("x/a"), entry("gone")), tree / "below")
        unpack(archive(entry("d/.wh.a"), entry("o/.wh..wh..opq"), entry("o/new"), entry(".wh.gone"), entry(".wh.x"), entry("x/", "dir"), entry("x/new")), tree / "above")  # fmt: skip
        stack([str(tree / "above"), str(tree / "below")], "", "", str(tree / "target"))
        return {name: sorted(os.listdir(tree / "target" / name)) for name in (".", "d", "o", "x")}

    assert apart(act) == {".": ["d", "o", "x"], "d": ["b"], "o": ["new"], "x": ["new"]}


# --- Guards: what an archive may not do -------------------------------------------------------------------------------

EVERY_KIND = ["file", "dir", "symlink", "link", "fifo", "char", "block", "mark", "opaque"]


def attack(name: str, kind: str) -> Any:
    """An entry of this kind with this name; a link leads to the file "own"."""
    above, _, last = name.rpartition("/")
    if kind == "mark":
        return entry(f"{above}/.wh.{last}" if above else f".wh.{last}")
    if kind == "opaque":
        return entry(f"{name}/.wh..wh..opq")
    return entry(name, kind, content=b"evil" if kind == "file" else b"", linkname="own", devmajor=1, devminor=3)


@pytest.fixture
def guarded(tree: Path) -> Iterator[Path]:
    """A tree beside which there is something that has to stay as it is."""
    victim = tree.parent / "victim"
    victim.mkdir()
    (victim / "f").write_bytes(b"precious")
    before = tree_of(victim), set(os.listdir(tree.parent)), set(os.listdir("/"))
    yield tree
    assert (tree_of(victim), set(os.listdir(tree.parent)), set(os.listdir("/"))) == before, "something was done outside"


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("name", ["../victim/f", "../new", "d/../../victim/new", "./../victim/f", "d/.././../new", "/../victim/f", "..", "d/.."])  # fmt: skip
def test_no_name_leads_upwards(guarded: Path, kind: str, name: str) -> None:
    with pytest.raises((Refused, TarError)):
        unpack(archive(entry("own"), entry("d/", "dir"), attack(name, kind)), guarded)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_absolute_names_are_below_the_top(guarded: Path, kind: str) -> None:
    victim = str(guarded.parent / "victim")
    unpack(archive(entry("own"), attack(f"/{victim}/new", kind), attack(f"//{victim}//f", kind)), guarded)
    assert os.path.lexists(f"{guarded}/{victim}/f")


@pytest.mark.parametrize("link", ["VICTIM", "../victim", "/", "../..", "/proc/self/root", "/proc/self/cwd", "."])
@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("name", ["s/f", "s/new", "s/deep/er", "d/t/f"])
def test_no_link_on_the_way_leads_out(guarded: Path, kind: str, name: str, link: str) -> None:
    to = link.replace("VICTIM", str(guarded.parent / "victim"))
    raw = archive(
        entry("own"),
        entry("s", "symlink", linkname=to),
        entry("d/t", "symlink", linkname=f"../{to}"),
        attack(name, kind),
    )
    with contextlib.suppress(
        Refused, OSError
    ):  # what the links lead to may not be there: that is an error, and no harm
        unpack(raw, guarded)


def test_a_link_on_the_way_is_followed_inside(guarded: Path) -> None:
    """As Docker does it. With merged /usr, an image may say lib/x and mean usr/lib/x."""
    unpack(archive(entry("usr/lib/", "dir", uid=5), entry("lib", "symlink", linkname="/usr/lib"), entry("lib/x", content=b"1"), entry("lib/d/", "dir", mode=0o700), entry("y", "link", linkname="lib/x"), entry("lib/.wh.z")), guarded)  # fmt: skip
    assert (guarded / "usr/lib/x").samefile(guarded / "y") and mode(guarded / "usr/lib/d") == "drwx------"
    assert is_whiteout(guarded / "usr/lib/z") and (guarded / "usr/lib").stat().st_uid == 5


def test_a_link_to_nothing_is_not_followed(guarded: Path) -> None:
    with pytest.raises(FileNotFoundError, match="leads to nothing"):
        unpack(archive(entry("s", "symlink", linkname="nowhere"), entry("s/x")), guarded)


def test_links_in_a_circle(guarded: Path) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        unpack(archive(entry("a", "symlink", linkname="b"), entry("b", "symlink", linkname="a"), entry("a/x")), guarded)


@pytest.mark.parametrize("kind", EVERY_KIND[:-1])
def test_a_link_in_its_own_place_is_replaced_and_not_followed(guarded: Path, kind: str) -> None:
    to = str(guarded.parent / "victim/f")
    unpack(archive(entry("own"), entry("s", "symlink", linkname=to), attack("s", kind)), guarded)
    assert kind in ("symlink", "mark") or not (guarded / "s").is_symlink()


@pytest.mark.parametrize("kind", ["file", "symlink", "link", "fifo", "char", "block"])
@pytest.mark.parametrize("name", [".", "./", "/", "./.", "", "//"])
def test_the_top_is_a_directory_and_stays_one(guarded: Path, kind: str, name: str) -> None:
    with pytest.raises(Refused, match="top"):
        unpack(archive(entry("own"), attack(name, kind)), guarded)
    assert guarded.is_dir() and not guarded.is_symlink()


@pytest.mark.parametrize(
    "to", ["../victim/f", "VICTIM/f", "/etc/passwd", "s/f", "missing", "d", ".", "", "hidden", "own/x", "new"]
)
def test_hard_links_lead_to_files_of_this_layer(guarded: Path, to: str) -> None:
    victim = str(guarded.parent / "victim")
    raw = archive(entry("own"), entry("d/", "dir"), entry(".wh.hidden"), entry("s", "symlink", linkname=victim), entry("new", "link", linkname=to.replace("VICTIM", victim)))  # fmt: skip
    with pytest.raises(Refused):
        unpack(raw, guarded)


def test_a_hard_link_to_a_symbolic_link_is_one(guarded: Path) -> None:
    unpack(
        archive(entry("s", "symlink", linkname=str(guarded.parent / "victim/f")), entry("h", "link", linkname="s")),
        guarded,
    )
    assert (guarded / "h").is_symlink()


@pytest.mark.parametrize("name", ["trusted.x", "trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "user.overlay.redirect", "user.overlay.metacopy"])  # fmt: skip
@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_attributes_that_no_layer_may_bring(guarded: Path, name: str, kind: str) -> None:
    with pytest.raises(Refused, match=name):
        unpack(archive(entry("f", kind, linkname="x", pax_headers={f"SCHILY.xattr.{name}": "y"})), guarded)


def test_overlayfs_s_mark_is_not_brought_as_a_device(guarded: Path) -> None:
    with pytest.raises(Refused, match="0:0"):
        unpack(archive(entry("f", "char", devmajor=0, devminor=0)), guarded)


@pytest.mark.parametrize("ids", [{"uid": 2**32 - 1}, {"gid": 2**32 - 1}, {"uid": 2**32}, {"gid": -1}, {"uid": -2}])
def test_ids_that_there_are_not(guarded: Path, ids: dict[str, int]) -> None:
    """2³² - 1 means "as it is": a setuid file would be root's."""
    with pytest.raises(Refused, match="no such ids"):
        unpack(archive(entry("f", mode=0o4755, **ids), format=1), guarded)


@pytest.mark.parametrize("numbers", [(2**40, 1), (1, 2**40), (-1, 5), (4096, 0), (1, 1 << 20)])
@pytest.mark.parametrize("kind", ["char", "block"])
def test_devices_that_there_are_not(guarded: Path, kind: str, numbers: tuple[int, int]) -> None:
    with pytest.raises(Refused, match="no such numbers"):
        unpack(archive(entry("f", kind, devmajor=numbers[0], devminor=numbers[1]), format=1), guarded)


def test_times_that_there_are_not(guarded: Path) -> None:
    with pytest.raises(Refused, match="time"):
        unpack(archive(entry("f", pax_headers={"mtime": "99999999999999999999"})), guarded)


def test_a_flood_of_entries(guarded: Path) -> None:
    raw = archive(*(entry(f"f{number}") for number in range(11)))
    with pytest.raises(Refused, match="more than 10 entries"):
        unpack(raw, guarded, entries=10)
    assert len(os.listdir(guarded)) == 10
    unpack(raw, guarded, entries=11)


def test_more_bytes_than_are_allowed(guarded: Path) -> None:
    raw = archive(entry("a", content=bytes(600)), entry("b", content=bytes(600)))
    with pytest.raises(Refused, match="more than 1000 bytes"):
        unpack(raw, guarded, size=1000)
    assert os.listdir(guarded) == ["a"]
    unpack(raw, guarded, size=1200)


def test_holes_are_bytes_too(guarded: Path) -> None:
    headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50), "GNU.sparse.name": "f"}
    with pytest.raises(Refused, match="bytes"):
        unpack(archive(entry("f", content=b"1", pax_headers=headers)), guarded)


@pytest.mark.parametrize("name", ["/".join("a" * 256), "/".join("a" * 2000)])
def test_directories_too_deep(guarded: Path, name: str) -> None:
    with pytest.raises(Refused, match="deep"):
        unpack(archive(entry(name)), guarded)


def test_directories_too_deep_by_links(guarded: Path) -> None:
    """By links one can go deeper than any name is long; and a tree so deep is hard to remove."""
    down = "/".join("a" * 200)
    raw = archive(entry(f"{down}/", "dir"), entry("l", "symlink", linkname=down), entry("l/" + "/".join("b" * 100)))
    with pytest.raises(Refused, match="deep"):
        unpack(raw, guarded)


def test_names_too_long_are_the_kernel_s_to_refuse(guarded: Path) -> None:
    for name in ("n" * 256, "/".join(["n" * 255] * 20)):
        with contextlib.suppress(OSError):
            unpack(archive(entry(name)), guarded)
    with pytest.raises(OSError, match="too long"):
        unpack(archive(entry("n" * 256)), guarded)


def test_nothing_is_left_open(guarded: Path) -> None:
    files = set(os.listdir("/proc/self/fd"))
    unpack(archive(entry("a/b/c/d/e"), entry("s", "symlink", linkname="a/b"), entry("s/x")), guarded)
    for name in ("..", "a/b/../x", "s/../x", "/".join("a" * 400)):
        with pytest.raises(Refused):
            unpack(archive(entry("a/b/c"), entry(name)), guarded)
    pack(guarded)
    assert set(os.listdir("/proc/self/fd")) == files


SAMPLE = archive(
    entry("d/", "dir", pax_headers={"SCHILY.xattr.user.x": "y"}), entry("d/" + "n" * 120, content=b"1" * 600), entry("d/l", "link", linkname="d/" + "n" * 120), entry("s", "symlink", linkname="d"),
    entry("s/null", "char", devmajor=1, devminor=3), entry("p", "fifo"), entry("d/.wh.x"), entry("e/.wh..wh..opq"), entry("x", pax_headers={"mtime": "1.5"}),
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_archive_is_an_error_of_ours_or_a_tree(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Damaged where it hurts, in the headers, with the checksums put right."""
    raw = bytearray(SAMPLE)
    headers = [at for at in range(0, len(raw), 512) if raw[at + 257 : at + 262] == b"ustar"]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(headers))
        raw[at + data.draw(st.integers(0, 511))] = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from(b"\0/.0123456xLKS\x80\xff"))
        )
        raw[at + 148 : at + 156] = b"%06o\0 " % (sum(raw[at : at + 148]) + sum(raw[at + 156 : at + 512]) + 256)
    top = tmp_path_factory.mktemp("damaged")
    (top / "tree").mkdir()
    with contextlib.suppress(Refused, TarError, OSError):
        unpack(bytes(raw), top / "tree")
    assert os.listdir(top) == ["tree"]
    shutil.rmtree(top)


STEPS = st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh.", ".wh..wh..opq", "VICTIM", "proc/self/root"])
WAYS = st.lists(STEPS, min_size=1, max_size=5).map("/".join)
HOSTILE = st.lists(st.tuples(WAYS, st.sampled_from(["file", "dir", "symlink", "link", "fifo", "char"]), WAYS, st.integers(-1, 70000)), max_size=9)  # fmt: skip


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HOSTILE)
def test_whatever_is_asked_for_nothing_happens_outside(
    tmp_path_factory: pytest.TempPathFactory, plan: list[Any]
) -> None:
    top = tmp_path_factory.mktemp("hostile")
    (top / "tree").mkdir()
    (top / "victim").mkdir()
    (top / "victim/a").write_bytes(b"precious")
    before, others, files = tree_of(top / "victim"), os.listdir(top), set(os.listdir("/proc/self/fd"))

    def told(way: str) -> str:
        return way.replace("VICTIM", str(top / "victim"))

    entries = [entry(told(name), kind, content=b"evil" if kind == "file" else b"", linkname=told(to), uid=uid, devmajor=1, devminor=3) for name, kind, to, uid in plan]  # fmt: skip
    with contextlib.suppress(Refused, TarError, OSError):
        unpack(archive(*entries, format=1), top / "tree")
    assert tree_of(top / "victim") == before and os.listdir(top) == others
    assert set(os.listdir("/proc/self/fd")) == files
    shutil.rmtree(top)
