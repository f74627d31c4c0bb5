"""Device nodes: made by mknod(2), or bound where that is not allowed; never outside of the root, never over a file."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.steps.nodes import Device, bring_nodes, make_nodes
from tests.command import needs_root
from tests.steps.apart import ROOT_AT_100000, apart, below, mount_at, mounts, swapping, tmpfs

pytestmark = needs_root

NULL: Device = ("c", "/dev/null", 1, 3, 0o666, 0, 0)
ROUNDS = 200


@pytest.fixture
def root() -> Iterator[Path]:
    """A container's root, that the root of a user namespace may use."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    (directory / "root").mkdir()
    os.chown(directory / "root", 100000, 100000)
    yield directory / "root"
    shutil.rmtree(directory)


def inside(root: Path, devices: list[Device], brought: list[int] | None = None) -> int:
    """Make them as the root of a user namespace; the number of the error."""

    def act() -> int:
        return error_of(root, devices, brought)

    return apart(act, ROOT_AT_100000)


def error_of(root: Path, devices: list[Device], brought: list[int] | None = None) -> int:
    try:
        make_nodes(str(root), devices, brought or [])
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize(
    ("kind", "form", "number"),
    [("c", stat.S_IFCHR, (1, 3)), ("u", stat.S_IFCHR, (10, 229)), ("b", stat.S_IFBLK, (259, 70000)), ("p", stat.S_IFIFO, (0, 0)), ("c", stat.S_IFCHR, (0, 0))],
)  # fmt: skip
@pytest.mark.parametrize(
    ("mode", "uid", "gid", "seen"),
    [(0o640, 7, 8, 0o640), (None, None, None, 0o666), (0o20666, 0, 0, 0o666), (0o4777, 1, 1, 0o4777), (0, 0, 0, 0)],
)
def test_type_number_mode_and_owner(
    root: Path,
    kind: str,
    form: int,
    number: tuple[int, int],
    mode: int | None,
    uid: int | None,
    gid: int | None,
    seen: int,
) -> None:
    """Whatever the umask; the bits of the type, which some write into fileMode, are not the mode's."""
    old = os.umask(0o077)
    try:
        make_nodes(str(root), [(kind, "/dev/deep/er/node", *number, mode, uid, gid)])
    finally:
        os.umask(old)
    about = os.lstat(root / "dev/deep/er/node")
    assert stat.S_IFMT(about.st_mode) == form and stat.S_IMODE(about.st_mode) == seen
    assert (about.st_uid, about.st_gid) == (uid or 0, gid or 0)
    assert kind == "p" or (os.major(about.st_rdev), os.minor(about.st_rdev)) == number


def test_the_same_node_may_be_there_already(root: Path) -> None:
    devices: list[Device] = [NULL, ("p", "/run/pipe", 0, 0, 0o600, 0, 0), ("b", "/disk", 8, 0, 0o600, 0, 0)]
    make_nodes(str(root), devices)
    make_nodes(str(root), devices)
    make_nodes(str(root), [("u", "/dev/../dev/null", 1, 3, None, None, None)])
    assert sorted(path.name for path in root.rglob("*")) == ["dev", "disk", "null", "pipe", "run"]


@pytest.mark.parametrize(
    "there", ["text", "directory", "link", "link to the same", "other number", "block", "pipe", "loop"]
)
def test_anything_else_in_its_place_is_an_error_and_stays(root: Path, there: str) -> None:
    place = root / "dev/null"
    (root / "dev").mkdir()
    match there:
        case "text":
            place.write_text("kept")
        case "directory":
            place.mkdir()
        case "link" | "loop":
            place.symlink_to("/nowhere" if there == "link" else "null")
        case "link to the same":
            place.symlink_to("/dev/null")
        case "pipe":
            os.mkfifo(place)
        case _:
            kind = stat.S_IFBLK if there == "block" else stat.S_IFCHR
            os.mknod(place, kind | 0o600, os.makedev(1, 3 if there == "block" else 5))
    before = os.lstat(place)
    with pytest.raises(FileExistsError, match="/dev/null"):
        make_nodes(str(root), [NULL])
    assert os.lstat(place) == before and not os.path.lexists(root / "nowhere")


@pytest.mark.parametrize(
    "device",
    [
        ("x", "/dev/a", 1, 3, 0, 0, 0),
        ("", "/dev/a", 1, 3, 0, 0, 0),
        ("c", "/", 1, 3, 0, 0, 0),
        ("c", "", 1, 3, 0, 0, 0),
        ("c", "/dev/..", 1, 3, 0, 0, 0),
    ],
)
def test_what_is_no_device(root: Path, device: Device) -> None:
    with pytest.raises(ValueError, match="device"):
        make_nodes(str(root), [device])
    assert not list(root.iterdir())


# links


@pytest.mark.parametrize("link", ["../outside", "{outside}", "../../../../../..{outside}"])
def test_no_link_on_the_way_leads_out(root: Path, link: str) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "dev").symlink_to(link.format(outside=outside))
    make_nodes(str(root), [NULL, ("c", "/dev/../dev/deep/zero", 1, 5, 0o666, 0, 0)])
    assert not list(outside.iterdir())
    assert len([path for path in root.rglob("*") if path.name in ("null", "zero")]) == 2


def test_a_directory_that_turns_into_a_link_meanwhile(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "dev").mkdir()
    (root / "link").symlink_to("../outside")
    made = 0
    with swapping(root / "dev", root / "link"):
        for number in range(ROUNDS):
            os.sched_yield()
            made += not error_of(root, [("c", f"/dev/node{number}", 1, 3, 0o666, 0, 0)])
    assert made == ROUNDS == len(list(root.rglob("node*")))
    assert not list(outside.iterdir())


# user namespaces


def test_where_mknod_is_not_allowed_the_hosts_node_is_bound(root: Path) -> None:
    def act() -> list[tuple[str, int, str]]:
        tmpfs(root / "dev", "mode=755")
        make_nodes(str(root), [NULL, ("c", "/dev/zero", 1, 5, 0o600, 5, 5), ("p", "/dev/pipe", 0, 0, 0o640, 1, 1)])
        with open(root / "dev/zero", "rb") as zero:
            assert zero.read(3) == bytes(3)
        Path(root / "dev/null").write_text("gone")
        pipe = os.lstat(root / "dev/pipe")
        assert stat.S_ISFIFO(pipe.st_mode) and (stat.S_IMODE(pipe.st_mode), pipe.st_uid) == (0o640, 1)
        return [
            (name, os.stat(root / "dev" / name).st_rdev, mount_at(root / "dev" / name).root)
            for name in ("null", "zero")
        ]

    assert apart(act, ROOT_AT_100000) == [("null", os.makedev(1, 3), "/null"), ("zero", os.makedev(1, 5), "/zero")]


def test_a_node_that_the_host_has_not_is_brought_by_who_may_make_it(root: Path) -> None:
    """With the mode and the owner that were asked for, as they are inside, and the device works."""
    devices: list[Device] = [("c", "/dev/zero2", 1, 5, 0o157, 10, 11), ("p", "/dev/pipe", 0, 0, None, None, None)]
    before, umask = len(os.listdir("/proc/self/fd")), os.umask(0o777)
    try:
        brought = bring_nodes(devices, ROOT_AT_100000, ROOT_AT_100000)
    finally:
        os.umask(umask)

    def act() -> list[object]:
        error = error_of(root, devices, brought)
        made, pipe = os.stat(root / "dev/zero2"), os.stat(root / "dev/pipe")
        number = (os.major(made.st_rdev), os.minor(made.st_rdev))
        with open(root / "dev/zero2", "rb") as zeros:
            read = zeros.read(3) == bytes(3)
        return [error, made.st_mode, number, made.st_uid, made.st_gid, read, pipe.st_mode, pipe.st_uid]

    seen = apart(act, ROOT_AT_100000)
    assert seen == [0, stat.S_IFCHR | 0o157, (1, 5), 10, 11, True, stat.S_IFIFO | 0o666, 0]
    for fd in brought:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_inside_can_own_a_node_whom_the_namespace_does_not_map() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="70000, whom the user namespace does not map"):
        bring_nodes([NULL, ("c", "/dev/x", 1, 3, None, 70000, 0)], [(0, 100000, 65536)], [(0, 100000, 65536)])
    assert len(os.listdir("/proc/self/fd")) == before


def test_and_bound_again_onto_the_empty_file_of_the_last_time(root: Path) -> None:
    for _ in range(2):
        assert inside(root, [NULL]) == 0
        assert (root / "dev/null").stat().st_size == 0 and (root / "dev/null").is_file()
    (root / "dev/null").chmod(0o600)
    (root / "dev/null").write_text("somebody's")
    assert inside(root, [NULL]) == errno.EEXIST


@pytest.mark.parametrize(
    ("device", "number"),
    [
        (("c", "/dev/zero", 1, 3, 0, 0, 0), errno.ENODEV),
        (("b", "/dev/null", 1, 3, 0, 0, 0), errno.ENODEV),
        (("c", "/etc/passwd", 1, 3, 0, 0, 0), errno.ENODEV),
        (("c", "/dev/no-such-node", 1, 3, 0, 0, 0), errno.ENOENT),
    ],
)
def test_the_hosts_node_must_be_that_device(root: Path, device: Device, number: int) -> None:
    """The path is the container's word: by it alone, it would get any file of the host."""
    assert inside(root, [device]) == number
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_a_link_in_the_place_is_not_followed_there_either(root: Path) -> None:
    (root / "dev").mkdir()
    os.chown(root / "dev", 100000, 100000)
    (root / "dev/null").symlink_to("../victim")
    assert inside(root, [NULL]) == errno.EEXIST
    assert not (root / "victim").exists()


def test_nothing_stays_open_and_nothing_stays_mounted(root: Path) -> None:
    def act() -> tuple[int, list[str]]:
        files, before = set(os.listdir("/proc/self/fd")), len(mounts())
        for device in (
            NULL,
            ("c", "/dev/zero", 1, 3, 0, 0, 0),
            ("c", "/dev/none", 1, 3, 0, 0, 0),
            ("c", "/dev/null/a", 1, 3, 0, 0, 0),
        ):
            error_of(root, [device])
        assert set(os.listdir("/proc/self/fd")) == files
        return len(mounts()) - before, below(root)

    assert apart(act, ROOT_AT_100000) == (1, [f"{root}/dev/null"])
    assert below(root) == []
