"""Mounts by file descriptor: what the kernel's mountinfo says of each, and that none lands outside of its root."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer.linux import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_SHARED,
    PROC_SUPER_MAGIC,
    TMPFS_MAGIC,
    fstatfs,
    mount,
    umount2,
)
from minicontainer.runtime.mount_options import PROPAGATIONS, parse_options
from minicontainer.steps.mount import pivot
from minicontainer.steps.volume import (
    attach,
    bind,
    disarm,
    make,
    map_ids,
    pick_up,
    place,
    protect_root,
    remount,
    settle,
    spread_root,
    unmount,
)
from tests.command import needs_root
from tests.steps.apart import ROOT_AT_100000, Mount, apart, below, errno_of, mount_at, mounts, swapping, tmpfs

pytestmark = needs_root

ROUNDS = 300  # of a race


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A container's root to be."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that everybody may search; pytest's own are for root only."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory of the host with a file in it."""
    (tmp_path / "volume/inner").mkdir(parents=True)
    (tmp_path / "volume/file").write_text("host's")
    return tmp_path / "volume"


def put(source: Path, root: Path, destination: str, *words: str) -> None:
    """Bind with these options, as the runtime does."""
    options = parse_options(["rbind", *words])
    taken = pick_up(str(source), bool(options.flags & MS_REC))
    bind(taken, str(root), destination, False, options.flags, options.cleared, options.below, options.propagation)
    os.close(taken)


def bound(source: Path, root: Path, destination: str, *words: str) -> Mount:
    """Likewise; returns what the kernel says of it."""
    put(source, root, destination, *words)
    return mount_at(root / destination.strip("/"))


def attached(root: Path, destination: str, fstype: str, *words: str) -> Mount:
    """Mount a file system with these options, as the runtime does; what the kernel says of it."""
    options = parse_options(words)
    attach(
        str(root), destination, fstype, "test", options.flags, options.data, options.below, options.propagation,
        options.copy_up,
    )  # fmt: skip
    return mount_at(root / destination.strip("/"))


# flags


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        ("", "rw relatime", "ro nosuid nodev noexec"),
        ("ro", "ro relatime", "rw"),
        ("nosuid nodev noexec", "rw nosuid nodev noexec relatime", ""),
        ("noatime nodiratime", "noatime nodiratime", "relatime"),
        ("strictatime", "rw", "relatime noatime"),
        ("noatime relatime", "relatime", "noatime"),
        ("nosymfollow", "nosymfollow", ""),
        ("rro", "ro", "rw"),
        ("rnosuid rnodev rnoexec rnosymfollow", "nosuid nodev noexec nosymfollow", ""),
        ("rnoatime rnodiratime", "noatime nodiratime", "relatime"),
        ("rstrictatime", "rw", "relatime noatime"),
        ("ro rrw", "rw", "ro"),
    ],
)
@pytest.mark.parametrize("kind", ["directory", "file", "tmpfs"])
def test_flags_as_the_kernel_shows_them(
    root: Path, volume: Path, kind: str, words: str, there: str, not_there: str
) -> None:
    def act() -> list[str]:
        if kind == "tmpfs":
            return attached(root, "/a/b", "tmpfs", *words.split()).options
        return bound(volume / "file" if kind == "file" else volume, root, "/a/b", *words.split()).options

    options = apart(act)
    assert set(there.split()) <= set(options) and not set(not_there.split()) & set(options), options


@pytest.mark.parametrize(
    ("words", "there"), [("sync", "sync"), ("dirsync", "dirsync"), ("lazytime", "lazytime"), ("mand", "mand"), ("size=64k", "size=64k"), ("mode=711", "mode=711")]
)  # fmt: skip
def test_options_of_the_file_system(root: Path, words: str, there: str) -> None:
    assert there in apart(lambda: attached(root, "/a", "tmpfs", *words.split()).super_options)


@pytest.mark.parametrize(
    "word", ["async", "loud", "silent", "iversion", "noiversion", "nolazytime", "nomand", "defaults"]
)
def test_options_that_change_nothing_are_taken(root: Path, word: str) -> None:
    assert apart(lambda: attached(root, "/a", "tmpfs", word).fstype) == "tmpfs"


def test_a_volume_keeps_the_flags_of_its_source_unless_asked_to_drop_them(root: Path, volume: Path) -> None:
    def act() -> tuple[list[str], list[str]]:
        mount("test", volume, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        return bound(volume, root, "/kept", "ro").options, bound(volume, root, "/dropped", "suid", "exec").options

    kept, dropped = apart(act)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(kept)
    assert {"rw", "nodev"} <= set(dropped) and not {"nosuid", "noexec"} & set(dropped)


@pytest.mark.parametrize(("words", "refused"), [("ro", False), ("nodev", False), ("exec", True), ("rexec", True), ("rw", True), ("strictatime", True)])  # fmt: skip
def test_in_a_user_namespace_locked_flags_stay(common: Path, words: str, refused: bool) -> None:
    """The mounts that a user namespace began with have flags that are not its own to lift."""

    def outside() -> tuple[bool, list[str]]:
        source = tmpfs(common / "source")
        (source / "root").mkdir()
        source.chmod(0o755)
        os.chown(source / "root", 100000, 100000)
        flags = MS_NOSUID | MS_NOEXEC | MS_NOATIME | MS_RDONLY
        mount(None, source, None, MS_BIND | (1 << 5) | flags)  # remount

        def inside() -> tuple[bool, list[str]]:
            top = tmpfs(source / "root")
            try:
                return False, bound(source, top, "/a", *words.split()).options
            except PermissionError as error:
                assert error.errno == errno.EPERM
                return True, []

        return apart(inside, ROOT_AT_100000)

    failed, options = apart(outside)
    assert failed is refused
    assert failed or {"nosuid", "noexec", "noatime", "ro"} <= set(options)


def test_recursive_flags_reach_the_mounts_below_and_others_do_not(root: Path, volume: Path) -> None:
    def act() -> dict[str, list[str]]:
        tmpfs(volume / "inner")
        found = {}
        for name, words in {"ro": "ro", "rro": "rro", "mixed": "ro rro rnosuid rnoatime", "lifted": "rro rrw"}.items():
            bound(volume, root, name, *words.split())
            found[name] = mount_at(root / name / "inner").options
        return found

    found = apart(act)
    assert "rw" in found["ro"] and "ro" in found["rro"] and "rw" in found["lifted"]
    assert {"ro", "nosuid", "noatime"} <= set(found["mixed"])


def test_readonly_means_the_whole_tree(root: Path, volume: Path) -> None:
    def act() -> list[list[str]]:
        tmpfs(volume / "inner")
        taken = pick_up(str(volume))
        bind(taken, str(root), "/a", True)
        os.close(taken)
        return [mount_at(root / "a").options, mount_at(root / "a/inner").options]

    assert all("ro" in options for options in apart(act))


def test_in_what_is_disarmed_no_device_works_and_no_file_gives_rights(root: Path) -> None:
    def act() -> tuple[int | None, list[list[str]]]:
        tmpfs(root / "below")
        os.mknod(root / "below/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        mount(str(root), str(root), None, MS_BIND | MS_REC)
        with open(root / "below/null", "w"):
            disarmed = errno_of(lambda: disarm(str(root / "nothing")))
        disarm(str(root))
        assert disarmed == errno.ENOENT
        refused = errno_of(lambda: os.close(os.open(root / "below/null", os.O_WRONLY)))
        return refused, [mount_at(root).options, mount_at(root / "below").options]

    refused, options = apart(act)
    assert refused == errno.EACCES and all({"nodev", "nosuid"} <= set(words) for words in options)


def test_not_recursive_leaves_out_what_is_mounted_below(root: Path, volume: Path) -> None:
    def act() -> list[str]:
        tmpfs(volume / "inner")
        taken = pick_up(str(volume), recursive=False)
        bind(taken, str(root), "/a")
        os.close(taken)
        return below(root)

    assert apart(act) == [f"{root}/a"]


# propagation


def test_a_volume_is_private_unless_asked(root: Path, volume: Path) -> None:
    def act() -> list[dict[str, str]]:
        tmpfs(volume)
        tmpfs(volume / "inner")
        mount(None, volume, None, MS_REC | MS_SHARED)
        bound(volume, root, "/a")
        return [mount_at(root / "a").propagation, mount_at(root / "a/inner").propagation]

    assert apart(act) == [{}, {}]


@pytest.mark.parametrize(
    ("word", "top", "inner"),
    [
        ("private", "", None), ("rprivate", "", ""), ("slave", "master", None), ("rslave", "master", "master"),
        ("shared", "shared", None), ("rshared", "shared", "shared"), ("unbindable", "unbindable", None),
        ("runbindable", "unbindable", "unbindable"), ("rslave shared", "shared master", "master"),
    ],
)  # fmt: skip
def test_propagation_as_the_kernel_shows_it(root: Path, volume: Path, word: str, top: str, inner: str | None) -> None:
    """shared:N and master:N name the group of the host's mount where that is shared."""

    def act() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        tmpfs(volume)
        tmpfs(volume / "inner")
        mount(None, volume, None, MS_REC | MS_SHARED)
        bound(volume, root, "/a", *word.split())
        return mount_at(volume).propagation, mount_at(root / "a").propagation, mount_at(root / "a/inner").propagation

    source, outer, deep = apart(act)
    assert sorted(outer) == sorted(top.split())
    if "master" in outer:
        assert outer["master"] == source["shared"]
    elif "shared" in outer:
        assert outer["shared"] == source["shared"]
    if inner is not None:
        assert sorted(deep) == sorted(inner.split())


def test_what_is_mounted_on_a_slave_stays_there_and_on_the_host_comes_through(root: Path, volume: Path) -> None:
    def act() -> tuple[list[str], list[str]]:
        tmpfs(volume)
        (volume / "from_host").mkdir()
        (volume / "from_container").mkdir()
        mount(None, volume, None, MS_SHARED)
        bound(volume, root, "/a", "rslave")
        tmpfs(volume / "from_host")
        tmpfs(root / "a/from_container")
        return below(root), below(volume)

    container, host = apart(act)
    assert f"{root}/a/from_host" in container and f"{root}/a/from_container" in container
    assert f"{volume}/from_container" not in host


@pytest.mark.parametrize("word", ["private", "rprivate", "slave", "unbindable"])
def test_a_mount_put_on_a_shared_one_is_what_it_was_asked_to_be(root: Path, word: str) -> None:
    def act() -> dict[str, str]:
        tmpfs(root)
        mount(None, root, None, MS_SHARED)
        return attached(root, "/a", "tmpfs", word).propagation

    found = apart(act)
    assert "shared" not in found and (word != "unbindable" or "unbindable" in found)


# the root


@pytest.mark.parametrize("word", sorted(PROPAGATIONS))
def test_the_root_after_pivot(root: Path, word: str) -> None:
    def act() -> tuple[dict[str, str], dict[str, str], list[str], list[str]]:
        tmpfs(root)
        (root / "proc").mkdir()
        attach(str(root), "/proc", "proc", "proc")
        attach(str(root), "/inner", "tmpfs", "inner")
        pivot(str(root))
        spread_root(PROPAGATIONS[word])
        protect_root()
        top, inner = mount_at("/"), mount_at("/inner")
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("/new")
        os.mkdir("/inner/new")
        return top.propagation, inner.propagation, top.options, inner.options

    top, inner, options, inner_options = apart(act)
    kind = {"private": set(), "slave": set(), "shared": {"shared"}, "unbindable": {"unbindable"}}[
        word.removeprefix("r")
    ]
    assert set(top) == kind
    assert set(inner) == (kind if word.startswith("r") else set())
    assert "ro" in options and "rw" in inner_options


# file systems


@pytest.mark.parametrize(("fstype", "place"), [("proc", "/proc"), ("sysfs", "/sys"), ("mqueue", "/dev/mqueue"), ("devpts", "/dev/pts"), ("ramfs", "/r")])  # fmt: skip
def test_file_systems(root: Path, fstype: str, place: str) -> None:
    words = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] if fstype == "devpts" else ["nosuid"]
    found = apart(lambda: attached(root, place, fstype, *words))
    assert (found.fstype, found.source) == (fstype, "test") and "nosuid" in found.options


def test_an_overlay_with_longer_options_than_fsconfig_takes(root: Path, tmp_path: Path) -> None:
    """And the caller is where he was: in his own mount namespace, in his directory."""
    layers = [tmp_path / f"layer-{number}-{'x' * 80}" for number in range(6)]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name[:7]).touch()

    def act() -> tuple[list[str], str, str, list[str]]:
        os.chdir(tmp_path)
        ours = os.readlink("/proc/self/ns/mnt")
        found = attached(root, "/a", "overlay", "ro", "nodev", f"lowerdir={':'.join(map(str, layers))}")
        assert os.readlink("/proc/self/ns/mnt") == ours
        return found.options, found.fstype, os.getcwd(), sorted(os.listdir(root / "a"))

    options, fstype, cwd, names = apart(act)
    assert fstype == "overlay" and {"ro", "nodev"} <= set(options) and cwd == str(tmp_path)
    assert names == [layer.name[:7] for layer in layers]


@pytest.mark.parametrize(
    ("fstype", "words", "number", "told"),
    [
        ("nonesuch", "", errno.ENODEV, "nonesuch"),
        ("tmpfs", "nonesuch=1", errno.EINVAL, "nonesuch"),
        ("tmpfs", "size=a", errno.EINVAL, "size"),
    ],
)
def test_the_kernels_own_words_in_the_error(root: Path, fstype: str, words: str, number: int, told: str) -> None:
    def act() -> tuple[int, str, list[str]]:
        try:
            attached(root, "/a", fstype, *words.split())
        except OSError as error:
            return error.errno or 0, str(error), below(root)
        return 0, "", below(root)

    assert (said := apart(act))[0] == number and told in said[1] and fstype in said[1] and not said[2]


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no/such/volume"):
        pick_up(str(tmp_path / "no/such/volume"))


def test_magic_numbers_of_file_systems(tmp_path: Path) -> None:
    for path, magic in (("/proc/self/status", PROC_SUPER_MAGIC), ("/proc", PROC_SUPER_MAGIC)):
        fd = os.open(path, os.O_PATH)
        assert fstatfs(fd) == magic
        os.close(fd)

    def act() -> int:
        return fstatfs(os.open(tmpfs(tmp_path / "t"), os.O_PATH))

    assert apart(act) == TMPFS_MAGIC


def test_remount(root: Path, volume: Path) -> None:
    def act() -> list[Mount]:
        found = [attached(root, "/a", "tmpfs", "nosuid", "size=64k")]
        options = parse_options(["remount", "ro", "nodev", "size=128k"])
        remount(str(root), "/a", options.flags, options.cleared, options.data)
        found.append(mount_at(root / "a"))
        options = parse_options(["remount", "bind", "rw", "suid"])
        remount(str(root), "/a", options.flags, options.cleared, options.data)
        found.append(mount_at(root / "a"))
        for missing in ("/nothing", "/"):  # not there; not a mount
            with pytest.raises(OSError):
                remount(str(root), missing, MS_BIND | MS_RDONLY)
        return found

    first, second, third = apart(act)
    assert {"rw", "nosuid"} <= set(first.options) and "size=64k" in first.super_options
    assert {"ro", "nosuid", "nodev"} <= set(second.options) and {"ro", "size=128k"} <= set(second.super_options)
    assert {"rw", "nodev"} <= set(third.options) and "nosuid" not in third.options and "ro" in third.super_options


# targets


def test_a_file_gets_a_file_and_a_directory_a_directory(root: Path, volume: Path) -> None:
    def act() -> tuple[str, bool]:
        bound(volume / "file", root, "/new/dir/file")
        bound(volume, root, "/new/dir/directory")
        return (root / "new/dir/file").read_text(), (root / "new/dir/directory/inner").is_dir()

    assert apart(act) == ("host's", True)


@pytest.mark.parametrize(("source", "there"), [("file", "directory"), ("inner", "file")])
def test_a_directory_does_not_fit_on_a_file_nor_the_other_way(
    root: Path, volume: Path, source: str, there: str
) -> None:
    (root / "directory").mkdir()
    (root / "file").touch()

    def act() -> int:
        with pytest.raises(NotADirectoryError):
            bound(volume / source, root, there)
        return len(below(root))

    assert apart(act) == 0


def test_pipes_and_sockets_can_be_bound(root: Path, volume: Path) -> None:
    os.mkfifo(volume / "pipe")

    def act() -> bool:
        bound(volume / "pipe", root, "/a/pipe", "rro")
        return stat.S_ISFIFO(os.stat(root / "a/pipe").st_mode)

    assert apart(act)


@pytest.mark.parametrize(
    "link",
    [
        "{outside}",
        "../outside",
        "../../../../../../../../../../..{outside}",
        "/proc/self/root{outside}",
        "/../..{outside}",
    ],
)
@pytest.mark.parametrize("destination", ["link", "/link/deeper", "a/../link"])
def test_no_link_of_an_image_leads_a_mount_out(
    tmp_path: Path, root: Path, volume: Path, link: str, destination: str
) -> None:
    """CVE-2021-30465, without the race: the destination is a link to a directory of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "link").symlink_to(link.format(outside=outside))

    def act() -> list[str]:
        with contextlib.suppress(OSError):
            taken = pick_up(str(volume))
            bind(taken, str(root), destination)
        with contextlib.suppress(OSError):
            attach(str(root), destination, "tmpfs", "test", MS_RDONLY)
        return [one.point for one in mounts()]

    points = apart(act)
    assert not [point for point in points if point.startswith(str(outside))]
    assert len([point for point in points if point.startswith(f"{root}/")]) == 2  # both are there, inside
    assert not list(outside.iterdir())


def test_etc_of_the_host_is_out_of_reach(root: Path, volume: Path) -> None:
    (root / "data").symlink_to("/etc")

    def act() -> tuple[list[str], list[str]]:
        put(volume, root, "/data")
        return below("/etc"), below(root)

    assert apart(act) == (apart(lambda: below("/etc")), [f"{root}/etc"])


def test_a_link_to_what_is_not_there_is_followed_and_its_end_is_made(root: Path, volume: Path) -> None:
    """As an image's /etc/resolv.conf → ../run/resolvconf/resolv.conf, before anything is in /run."""
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").symlink_to("../run/resolvconf/resolv.conf")
    (root / "round").symlink_to("round")

    def act() -> list[str]:
        put(volume / "file", root, "/etc/resolv.conf")
        with pytest.raises(OSError, match="must be mounted on ordinary directory: there is a link"):
            put(volume / "file", root, "/round")
        return below(root)

    assert apart(act) == [f"{root}/run/resolvconf/resolv.conf"]


@pytest.mark.parametrize("act", ["bind", "attach", "proc"])
def test_a_directory_that_turns_into_a_link_meanwhile(tmp_path: Path, root: Path, volume: Path, act: str) -> None:
    """CVE-2021-30465: between the check of the destination and the mount it becomes a link to the host's directory."""
    outside = tmp_path / "outside"
    outside.mkdir()
    name = "proc" if act == "proc" else "place"
    (root / name).mkdir()
    (root / "link").symlink_to(outside)

    def once() -> None:
        if act == "bind":
            taken = pick_up(str(volume))
            try:
                bind(taken, str(root), "/place")
            finally:
                os.close(taken)
        else:
            attach(str(root), f"/{name}", "proc" if act == "proc" else "tmpfs", "test")

    def race() -> tuple[int, list[str]]:
        done = 0
        with swapping(root / name, root / "link"):
            for _ in range(ROUNDS):
                os.sched_yield()  # where the two share one processor, the attacker has his turn
                with contextlib.suppress(OSError):  # a name that is not there in this moment, or is a link
                    once()
                    done += 1
                for one in reversed(mounts()):
                    if one.point.startswith(f"{tmp_path}/"):
                        if not one.point.startswith(f"{root}/"):
                            return done, [one.point]
                        with contextlib.suppress(OSError):
                            umount2(one.point, 2)
        return done, [one.point for one in mounts() if one.point.startswith(str(outside))]

    done, escaped = apart(race)
    assert escaped == [] and not list(outside.iterdir())
    assert done > 0, "not one mount went well: nothing was tried"


# /proc


@pytest.mark.parametrize("fstype", ["proc", "sysfs"])
@pytest.mark.parametrize("link", ["/tmp", "elsewhere", "/nowhere"])
def test_proc_and_sys_are_mounted_where_they_are_believed_to_be(root: Path, fstype: str, link: str) -> None:
    """CVE-2019-19921: an image whose /proc is a link would have its own files taken for the kernel's."""
    place = {"proc": "proc", "sysfs": "sys"}[fstype]
    (root / "elsewhere").mkdir()
    (root / place).symlink_to(link)

    def act() -> tuple[int, list[str]]:
        try:
            attach(str(root), f"/{place}", fstype, fstype)
        except OSError as error:
            return error.errno or 0, below(root)
        return 0, below(root)

    assert apart(act) == (errno.ELOOP, [])


@pytest.mark.parametrize("there", ["file", "link above"])
def test_and_only_on_a_directory(root: Path, there: str) -> None:
    if there == "file":
        (root / "sys").touch()
    else:
        (root / "real").mkdir()
        (root / "sys").symlink_to("real")

    def act() -> list[str]:
        with pytest.raises(OSError):
            attach(str(root), "/sys" if there == "file" else "/sys/deeper", "sysfs", "sysfs")
        return below(root)

    assert apart(act) == []


@pytest.mark.parametrize("mounted", [True, False], ids=["with proc", "before proc"])
@pytest.mark.parametrize("how", ["bind", "tmpfs", "link", "bind of a part of proc"])
@pytest.mark.parametrize(
    "destination", ["/proc", "/proc/self/attr", "/proc/sys", "/proc/../proc/", "/proc/sys/kernel/../fs", "//proc/1"]
)
def test_nothing_covers_proc(root: Path, volume: Path, how: str, destination: str, mounted: bool) -> None:
    """CVE-2019-16884: a volume over /proc, and labels are "written" to files of the image."""
    (root / "proc").mkdir()
    (root / "link").symlink_to(destination)
    if how.startswith("bind of a part") and os.path.normpath(destination) in ("/proc", "//proc"):
        return  # a proc on a proc is no cover

    def act() -> tuple[str, list[str]]:
        if mounted:
            attach(str(root), "/proc", "proc", "proc")
        before = below(root)
        try:
            if how == "tmpfs":
                attach(str(root), destination, "tmpfs", "test")
            else:
                taken = pick_up("/proc/sys" if how.startswith("bind of") else str(volume))
                bind(taken, str(root), "/link" if how == "link" else destination)
        except OSError as error:
            return str(error), below(root)[len(before) :]
        return "", below(root)[len(before) :]

    said, new = apart(act)
    if how == "link" and not mounted and os.path.normpath(destination).lstrip("/") != "proc":
        return  # a directory below a directory that is not /proc yet, and will be covered by it
    assert "proc" in said and new == []


def test_the_tables_that_lxcfs_brings_may_cover_those_in_proc(root: Path, volume: Path) -> None:
    def act() -> str:
        attach(str(root), "/proc", "proc", "proc")
        for name in ("uptime", "meminfo"):
            bound(volume / "file", root, f"/proc/{name}")
        with pytest.raises(PermissionError):
            bound(volume / "file", root, "/proc/version")
        return (root / "proc/uptime").read_text()

    assert apart(act) == "host's"


def test_proc_of_the_host_may_be_bound_to_proc_and_proc_mounted_twice(root: Path) -> None:
    def act() -> list[str]:
        taken = pick_up("/proc")
        bind(taken, str(root), "/proc")
        attach(str(root), "/proc", "proc", "proc", MS_NOSUID)
        return mount_at(root / "proc").options

    assert "nosuid" in apart(act)


# tmpfs


def test_a_tmpfs_has_the_mode_of_what_it_covers(root: Path) -> None:
    for name, mode in (("inherits", 0o712), ("explicit", 0o700), ("sticky", 0o1777)):
        (root / name).mkdir()
        (root / name).chmod(mode)

    def act() -> list[int]:
        attached(root, "/inherits", "tmpfs", "ro")
        attached(root, "/explicit", "tmpfs", "mode=1750")
        attached(root, "/sticky", "tmpfs")
        attached(root, "/new", "tmpfs")
        return [stat.S_IMODE(os.stat(root / name).st_mode) for name in ("inherits", "explicit", "sticky", "new")]

    assert apart(act) == [0o712, 0o1750, 0o1777, 0o1777]


def snapshot(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory that a copy must keep."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(top):
        for name in [*directories, *files, ""]:
            path = os.path.join(directory, name) if name else directory
            about = os.lstat(path)
            kept: tuple[object, ...] = (about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, about.st_rdev)
            kept += tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in sorted(os.listxattr(path, follow_symlinks=False)))  # fmt: skip
            if stat.S_ISREG(about.st_mode):
                kept += (Path(path).read_bytes(), about.st_nlink)
            if stat.S_ISLNK(about.st_mode):
                kept += (os.readlink(path),)
            found[os.path.relpath(path, top)] = kept
    return found


def test_copy_up_keeps_everything(root: Path, tmp_path: Path) -> None:
    top = root / "data"
    (top / "deep/er").mkdir(parents=True)
    (top / "deep/er/file").write_bytes(os.urandom(100_000))
    (top / "setuid").write_text("x")
    os.chown(top / "setuid", 7, 8)
    (top / "setuid").chmod(0o6755)
    os.link(top / "setuid", top / "deep/hard")
    (top / "link").symlink_to("/etc/passwd")
    os.chown(top / "link", 9, 9, follow_symlinks=False)
    os.mkfifo(top / "pipe", 0o640)
    os.mknod(top / "node", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    capability = bytes.fromhex(
        "0100000200040000000000000000000000000000"
    )  # cap_net_bind_service=ep… security.capability
    (top / "capable").write_text("y")
    os.setxattr(top / "capable", "security.capability", capability)
    os.setxattr(top / "deep", "trusted.test", b"value")
    os.utime(top / "deep/er/file", ns=(1, 2))
    os.chown(top, 11, 12)
    top.chmod(0o2750)
    (tmp_path / "secret").write_text("the host's")
    (top / "way_out").symlink_to(tmp_path)
    before = snapshot(top)

    def act() -> tuple[dict[str, tuple[object, ...]], str, bool]:
        found = attached(root, "/data", "tmpfs", "tmpcopyup", "ro", "size=10m")
        assert "ro" in found.options
        return snapshot(top), found.fstype, os.path.samefile(top / "setuid", top / "deep/hard")

    copied, fstype, hard = apart(act)
    assert fstype == "tmpfs" and copied == before and hard
    assert snapshot(top) == before, "the image was changed"


def test_copy_up_leaves_other_mounts_out_and_an_explicit_mode_alone(root: Path) -> None:
    (root / "data/inner").mkdir(parents=True)
    (root / "data").chmod(0o700)

    def act() -> tuple[list[str], list[str], int]:
        tmpfs(root / "data/inner")
        (root / "data/inner/secret").touch()
        attached(root, "/data", "tmpfs", "tmpcopyup", "mode=711")
        return os.listdir(root / "data"), os.listdir(root / "data/inner"), stat.S_IMODE(os.stat(root / "data").st_mode)

    assert apart(act) == (["inner"], [], 0o711)


def test_copy_up_of_a_link_copies_inside_the_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").touch()
    (root / "data").symlink_to(tmp_path / "secret")
    assert apart(lambda: (attach(str(root), "/data", "tmpfs", "test", copy_up=True), list(root.rglob("file")))[1]) == []


def test_copy_up_into_too_small_a_tmpfs_and_into_no_tmpfs(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data/file").write_bytes(bytes(100_000))

    def act() -> tuple[int, list[str]]:
        with pytest.raises(ValueError, match="tmpcopyup"):
            attached(root, "/data", "ramfs", "tmpcopyup")
        with pytest.raises(OSError) as raised:
            attached(root, "/data", "tmpfs", "tmpcopyup", "size=8k")
        return raised.value.errno or 0, below(root)

    assert apart(act) == (errno.ENOSPC, [])


# maps


def test_owners_are_seen_through_the_maps(root: Path, volume: Path) -> None:
    os.chown(volume / "file", 5, 6)

    def act() -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        tmpfs(volume / "inner")
        taken = pick_up(str(volume))
        map_ids(taken, [(0, 100000, 100)], [(0, 200000, 100)])
        bind(taken, str(root), "/a")
        (root / "a/new").touch()  # root is nobody there: made by an id that the map does not know
        return owner(root / "a/file"), owner(root / "a/inner"), owner(volume / "file")

    def owner(path: Path) -> tuple[int, int]:
        about = os.stat(path)
        return about.st_uid, about.st_gid

    with pytest.raises(AssertionError, match="Value too large"):
        apart(act)  # EOVERFLOW

    def mapped(recursive: bool) -> list[tuple[int, int]]:
        tmpfs(volume / "inner", "uid=3")
        taken = pick_up(str(volume))
        map_ids(taken, [(0, 100000, 100)], [(0, 200000, 100)], recursive)
        bind(taken, str(root), "/a")
        return [owner(root / "a/file"), owner(root / "a/inner"), owner(volume / "file")]

    assert apart(lambda: mapped(False)) == [(100005, 200006), (3, 0), (5, 6)]
    assert apart(lambda: mapped(True)) == [(100005, 200006), (100003, 200000), (5, 6)]


def test_and_in_a_user_namespace_they_are_its_own(common: Path, volume: Path) -> None:
    """What makes a volume of the host's root writable for the root of a container, and leaves root's files behind."""
    root = common / "root"
    root.mkdir()
    os.chown(root, 100000, 100000)

    def outside() -> tuple[tuple[int, int], int]:
        taken = pick_up(str(volume))
        map_ids(taken, ROOT_AT_100000, ROOT_AT_100000)

        def inside() -> tuple[int, int]:
            bind(taken, str(root), "/a")
            (root / "a/new").write_text("the container's")
            about = os.stat(root / "a/file")
            return about.st_uid, about.st_gid

        seen = apart(inside, ROOT_AT_100000)
        return seen, os.stat(volume / "new").st_uid

    assert apart(outside) == ((0, 0), 0)


@pytest.mark.parametrize(
    ("maps", "number"), [([(0, 1000, 0)], errno.EINVAL), ([], errno.EINVAL), ([(0, 1, 5), (2, 9, 5)], errno.EINVAL)]
)
def test_maps_that_are_none(volume: Path, maps: list[tuple[int, int, int]], number: int) -> None:
    def act() -> int:
        taken = pick_up(str(volume))
        files = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError) as raised:
            map_ids(taken, maps, maps)
        assert set(os.listdir("/proc/self/fd")) == files
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        return raised.value.errno or 0

    assert apart(act) == number


# what is left


def test_every_file_descriptor_is_closed_whatever_happens(root: Path, volume: Path) -> None:
    (root / "file").touch()

    def act() -> None:
        files = set(os.listdir("/proc/self/fd"))
        tries: list[Callable[[], object]] = [
            lambda: attach(str(root), "/a", "tmpfs", "test", copy_up=True),
            lambda: attach(str(root), "/file", "tmpfs", "test"),
            lambda: attach(str(root), "/b", "tmpfs", "test", data="nonesuch"),
            lambda: attach(str(root), "/proc/1", "tmpfs", "test"),
            lambda: attach(str(root), "/c", "tmpfs", "test", data=f"mpol={'x' * 300}"),
            lambda: os.close(make("tmpfs", "test", MS_NOSUID)),
            lambda: remount(str(root), "/a", MS_NOSUID),
            lambda: remount(str(root), "/nothing", MS_NOSUID),
        ]
        for one in tries:
            with contextlib.suppress(OSError):
                one()
            assert set(os.listdir("/proc/self/fd")) == files

    apart(act)


def test_a_mount_can_be_made_set_and_placed_one_by_one(root: Path) -> None:
    """For the runtime, which makes a tmpfs read-only after all mounts: others may have their places in it."""

    def act() -> list[str]:
        new = make("tmpfs", "test")
        place(new, str(root), "/a")
        (root / "a/b").mkdir()
        settle(new, MS_RDONLY | MS_NODIRATIME | MS_NOSYMFOLLOW, propagation=[MS_PRIVATE])
        with pytest.raises(OSError, match="Read-only"):
            (root / "a/c").mkdir()
        return mount_at(root / "a").options

    assert {"ro", "nodiratime", "nosymfollow"} <= set(apart(act))


def test_unmount(root: Path) -> None:
    """A link is not followed, and what is in use stays."""
    (root / "here").mkdir()
    (root / "link").symlink_to(root / "here")

    def inside() -> list[int | None]:
        attached(root, "/here", "tmpfs")
        seen = [errno_of(lambda: unmount(str(root / "link")))]
        held = os.open(root / "here", os.O_RDONLY | os.O_DIRECTORY)
        seen.append(errno_of(lambda: unmount(str(root / "here"))))
        os.close(held)
        return [*seen, *(errno_of(lambda: unmount(str(root / "here"))) for _ in range(2))]

    assert apart(inside) == [errno.EINVAL, errno.EBUSY, None, errno.EINVAL]
