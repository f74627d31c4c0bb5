"""Masked and read-only paths, asked of the kernel inside of a root that was pivoted into, and attacked."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from minicontainer.linux import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_UNBINDABLE, mount, open_tree, umount2
from minicontainer.steps.masks import mask_paths, protect_paths
from minicontainer.steps.mount import pivot
from minicontainer.steps.volume import attach, bind, pick_up
from tests.command import needs_root
from tests.steps.apart import ROOT_AT_100000, Maps, apart, below, mount_at, mounts, swapping, tmpfs

pytestmark = needs_root

Result = TypeVar("Result")

DOCKERS = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi "
    "/proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"
).split()
"""What Docker and podman mask."""
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()
ROUNDS = 3000  # of a race


def inside(
    root: Path, act: Callable[[], Result], prepare: Callable[[], object] = lambda: None, maps: Maps = ()
) -> Result:
    """What `act` returns as root of a new tree with /proc, /sys, /dev/null and some files; `prepare` comes before."""

    def enter() -> Result:
        tmpfs(root)
        (root / "dev").mkdir()
        if maps:
            (root / "dev/null").touch()
            mount("/dev/null", root / "dev/null", None, MS_BIND)
            for name in ("proc", "sys"):
                taken = pick_up(f"/{name}")
                bind(taken, str(root), name)
                os.close(taken)
        else:
            os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            attach(str(root), "proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            attach(str(root), "sys", "sysfs", "sysfs", MS_NOSUID)
        for name in ("one", "two"):
            (root / name).mkdir()
            (root / name / "secret").write_text(f"secret {name}")
        prepare()
        pivot(str(root))
        return act()

    return apart(enter, maps)


def error_of(act: Callable[[], object]) -> int:
    """The number of the error that it raises, 0 for none."""
    try:
        act()
    except OSError as error:
        return error.errno or -1
    return 0


def is_null(path: str) -> bool:
    about = os.stat(path)
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == os.makedev(1, 3)


# masks


@pytest.mark.parametrize("maps", [(), ROOT_AT_100000], ids=["root", "user namespace"])
def test_a_masked_file_is_empty_and_a_masked_directory_too(tmp_path: Path, maps: Maps) -> None:
    def act() -> None:
        mask_paths(["/one", "/two/secret"])
        assert is_null("/two/secret") and Path("/two/secret").read_bytes() == b""
        assert os.listdir("/one") == [] and mount_at("/one").fstype == "tmpfs"
        assert error_of(lambda: Path("/one/new").touch()) == errno.EROFS
        assert error_of(lambda: os.rmdir("/one")) == errno.EBUSY
        assert error_of(lambda: os.unlink("/two/secret")) == errno.EBUSY
        assert os.listdir("/two") == ["secret"]

    root = tmp_path if not maps else Path("/mnt")
    inside(root, act, maps=maps)


def test_what_docker_masks(tmp_path: Path) -> None:
    """Whatever this kernel has of it, a file or a directory, on proc and on sysfs; the rest is passed over."""

    def act() -> tuple[list[str], list[str]]:
        there = [path for path in DOCKERS if os.path.exists(path)]
        mask_paths(DOCKERS)
        for path in there:
            assert os.listdir(path) == [] if os.path.isdir(path) else is_null(path) and not Path(path).read_bytes(), (
                path
            )
        return there, [one.point for one in mounts()]

    there, points = inside(tmp_path, act)
    assert there, "this kernel has nothing of what Docker masks"
    assert sorted(points) == sorted([*there, "/", "/proc", "/sys"])


def test_all_directories_have_the_same_cover(tmp_path: Path) -> None:
    def act() -> tuple[set[int], list[list[str]], int]:
        for name in ("/three", "/four"):
            os.mkdir(name)
        paths = ["/one", "/two", "/three", "/four"]
        mask_paths(paths)
        empty = mount_at("/one")
        assert os.statvfs("/one").f_files == 1, "room for more than its root"
        return (
            {os.stat(path).st_dev for path in paths},
            [mount_at(path).options for path in paths],
            len(empty.propagation),
        )

    devices, options, shared = inside(tmp_path, act)
    assert len(devices) == 1 and not shared
    assert all({"ro", "nosuid", "nodev", "noexec"} <= set(one) for one in options)


def test_one_mask_on_a_path_however_often_it_is_named(tmp_path: Path) -> None:
    def act() -> list[str]:
        mask_paths(["/one", "/two/secret", "/one/", "/two/../two/secret", "//one"])
        return below("/one") + below("/two")

    assert inside(tmp_path, act) == ["/one", "/two/secret"]


def test_what_is_missing_or_out_of_reach_is_no_error(tmp_path: Path) -> None:
    def act() -> int:
        before = len(mounts())
        mask_paths(["/nothing", "/nothing/at/all", "/one/secret/below", "/proc/nothing", "/sys/no/such"])
        protect_paths(["/nothing", "/one/secret/below", "/proc/nothing"])
        mask_paths([])
        return len(mounts()) - before

    assert inside(tmp_path, act) == 0


def test_a_root_without_proc_has_nothing_to_mask_there(tmp_path: Path) -> None:
    def act() -> tuple[list[str], list[str], int]:
        umount2("/proc", 2)
        mask_paths(["/proc/kcore", "/one"])
        os.rmdir("/proc")
        mask_paths(["/proc/kcore", "/two"])
        protect_paths(["/proc/sys", "/dev"])
        return os.listdir("/one"), os.listdir("/two"), error_of(lambda: Path("/dev/new").touch())

    assert inside(tmp_path, act) == ([], [], errno.EROFS)


def test_a_link_masks_what_it_leads_to(tmp_path: Path) -> None:
    """What must not be read must not be read by its other name either."""

    def act() -> tuple[list[str], str]:
        os.symlink("/two/secret", "/one/link")
        mask_paths(["/one/link"])
        return below("/two"), Path("/one/link").read_text()

    assert inside(tmp_path, act) == (["/two/secret"], "")


def test_a_root_without_a_null_device_is_given_one(tmp_path: Path) -> None:
    def act() -> tuple[int, bool, bool]:
        os.unlink("/dev/null")
        without = error_of(lambda: mask_paths(["/one/secret"]))
        mask_paths(["/one/secret", "/two/secret"], given[0])
        return without, is_null("/one/secret"), is_null("/two/secret")

    given = list[int]()
    assert inside(tmp_path, act, lambda: given.append(pick_up("/dev/null"))) == (errno.ENOENT, True, True)


def test_on_kernels_that_copy_no_mount_without_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.15, open_tree(2) with OPEN_TREE_CLONE says EINVAL for a mount that is in no mount namespace."""

    def as_before(path: str, flags: int, dirfd: int) -> int:
        facts = dict(line.split(":\t") for line in Path(f"/proc/self/fdinfo/{dirfd}").read_text().splitlines())
        attached = {line.split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
        if facts["mnt_id"] not in attached:
            refused.append(dirfd)
            raise OSError(errno.EINVAL, "open_tree")
        return open_tree(path, flags, dirfd)

    def act() -> tuple[bool, set[int], int]:
        for name in ("/three", "/four"):
            os.mkdir(name)
        mask_paths(["/one", "/two", "/three/missing", "/proc/version", "/proc/uptime", "/three", "/four"], given[0])
        empty = {os.stat(path).st_dev for path in ("/one", "/two", "/three", "/four")}
        return is_null("/proc/version") and is_null("/proc/uptime"), empty, len(refused)

    refused, given = list[int](), list[int]()
    monkeypatch.setattr("minicontainer.steps.masks.open_tree", as_before)
    null, empty, times = inside(tmp_path, act, lambda: given.append(pick_up("/dev/null")))
    assert null and len(empty) == 1 and times == 2, "once for each of the two covers"


def test_also_where_the_root_cannot_be_bound_afterwards(tmp_path: Path) -> None:
    """In the runtime's order: the propagation of "/" comes after the covers, which are binds."""

    def act() -> tuple[int, int]:
        protect_paths(["/one"])
        mask_paths(["/two/secret"])
        mount(None, "/", None, MS_UNBINDABLE)
        return error_of(lambda: Path("/one/new").touch()), error_of(lambda: protect_paths(["/two"]))

    assert inside(tmp_path, act) == (errno.EROFS, errno.EINVAL)


def test_no_file_descriptor_is_left(tmp_path: Path) -> None:
    def act() -> None:
        files = set(os.listdir("/proc/self/fd"))
        mask_paths(["/one", "/two/secret", "/nothing"])
        protect_paths(["/proc/sys", "/nothing"])
        mount("/one", "/proc/sys", None, MS_BIND)
        for step in (mask_paths, protect_paths):
            assert error_of(lambda step=step: step(["/two", "/proc/sys"])) == errno.EPERM  # type: ignore[misc]
        os.symlink("/one/secret", "/dev/other")
        os.rename("/dev/other", "/dev/null")
        assert error_of(lambda: mask_paths(["/one"])) == errno.EPERM
        assert set(os.listdir("/proc/self/fd")) == files

    inside(tmp_path, act)


# attacks


@pytest.mark.parametrize(
    "fake", ["file", "link to core_pattern", "link to another null", "zero", "pipe", "directory", "secret"]
)
def test_a_null_device_that_is_none_masks_nothing(tmp_path: Path, fake: str) -> None:
    """CVE-2025-31133: an image whose /dev/null is a link to a file of /proc gets that file, writable, as a "mask"."""

    def act() -> tuple[int, int]:
        os.rename("/dev/null", "/dev/true-null")
        if fake == "file":
            Path("/dev/null").touch()
        elif fake.startswith("link"):
            os.symlink("/proc/sys/kernel/core_pattern" if fake.endswith("pattern") else "/dev/true-null", "/dev/null")
        elif fake == "zero":
            os.mknod("/dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        elif fake == "pipe":
            os.mkfifo("/dev/null")
        elif fake == "directory":
            os.mkdir("/dev/null")
        else:  # a device, and even number 1:3, but a block device: ram3
            os.mknod("/dev/null", stat.S_IFBLK | 0o666, os.makedev(1, 3))
        before = len(mounts())
        return error_of(lambda: mask_paths(["/one/secret", "/two"])), len(mounts()) - before

    assert inside(tmp_path, act) == (errno.EPERM, 0)


def test_a_null_device_that_turns_into_another_file_meanwhile(tmp_path: Path) -> None:
    """CVE-2025-31133 as a race, by somebody who shares the directory: every mask there is, is the null device."""

    def act() -> tuple[int, int]:
        Path("/two/core_pattern").write_text("stands for the kernel's")
        os.symlink("/two/core_pattern", "/dev/other")
        masked = refused = 0
        with swapping("/dev/null", "/dev/other"):
            while masked + refused < ROUNDS and min(masked, refused) < 30:
                os.sched_yield()  # where the two share one processor, the attacker has his turn
                if (number := error_of(lambda: mask_paths(["/one/secret"]))) == 0:
                    masked += 1
                    assert is_null("/one/secret")
                    umount2("/one/secret", 2)
                else:
                    assert number == errno.EPERM
                    refused += 1
                    assert below("/one/secret") == []
        return masked, refused

    masked, refused = inside(tmp_path, act)
    assert masked and refused, "only one of the two was ever there: nothing was tried"


def test_a_path_that_turns_into_a_link_meanwhile(tmp_path: Path) -> None:
    """The mask lies on one of the two, and every mount is on what was looked at: no directory under a file's mask."""

    def act() -> set[tuple[str, str]]:
        os.mkdir("/one/directory")
        os.symlink("/two/secret", "/one/link")
        seen = set()
        with swapping("/one/directory", "/one/link"):
            for _ in range(ROUNDS // 10):
                os.sched_yield()
                assert error_of(lambda: mask_paths(["/one/directory"])) == 0
                for one in mounts():
                    if one.point.startswith(("/one", "/two")):
                        seen.add((one.point, one.fstype if one.root == "/" else one.root))
                        with contextlib.suppress(OSError):
                            umount2(one.point, 2)
        return seen

    seen = inside(tmp_path, act)
    assert seen <= {("/one/directory", "tmpfs"), ("/one/link", "tmpfs"), ("/two/secret", "/dev/null")}, seen


@pytest.mark.parametrize("step", [mask_paths, protect_paths])
@pytest.mark.parametrize("fake", ["a tmpfs", "a link", "a directory", "a volume inside", "somebody's own proc entry"])
def test_what_is_in_proc_must_be_on_a_proc(tmp_path: Path, fake: str, step: Callable[[list[str]], None]) -> None:
    """CVE-2025-52881: what was written or mounted "in /proc" went to where somebody had directed it."""

    def act() -> tuple[int, int]:
        if fake == "a volume inside":
            mount("/one", "/proc/sys", None, MS_BIND)
        elif fake == "somebody's own proc entry":
            mount("/one/secret", "/proc/version", None, MS_BIND)
        else:
            umount2("/proc", 2)
            os.mkdir("/fake")
            for name in ("/fake/sys", "/proc/sys"):
                os.mkdir(name)
            if fake == "a tmpfs":
                mount("test", "/proc", "tmpfs")
                os.mkdir("/proc/sys")
            elif fake == "a link":
                os.rmdir("/proc/sys")
                os.rmdir("/proc")
                os.symlink("fake", "/proc")
        path = "/proc/version" if fake.startswith("somebody") else "/proc/sys"
        before = Path("/one/secret").read_text()
        number = error_of(lambda: step([path]))
        assert Path("/one/secret").read_text() == before
        return number, 0

    assert inside(tmp_path, act)[0] == (errno.ELOOP if fake == "a link" else errno.EPERM)


def test_links_of_proc_itself_lead_only_to_proc(tmp_path: Path) -> None:
    def act() -> tuple[bool, int, int]:
        mask_paths(["/proc/self/mountstats"])
        os.symlink("/one", "/two/link")
        return (
            is_null("/proc/self/mountstats"),
            error_of(lambda: mask_paths(["/proc/self/root/one"])),
            error_of(lambda: mask_paths(["/proc/self/cwd"])),
        )

    masked, root, cwd = inside(tmp_path, act)
    assert masked and root == errno.ELOOP and cwd == errno.ELOOP


# read-only


def test_read_only_paths_keep_their_other_flags(tmp_path: Path) -> None:
    def act() -> dict[str, list[str]]:
        protect_paths(READ_ONLY)
        there = [path for path in READ_ONLY if os.path.exists(path)]
        assert error_of(lambda: os.close(os.open("/proc/sys/kernel/hostname", os.O_WRONLY))) == errno.EROFS
        if "/proc/sysrq-trigger" in there:
            assert error_of(lambda: os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))) == errno.EROFS
        assert Path("/proc/sys/kernel/ostype").read_text() == "Linux\n"
        return {path: mount_at(path).options for path in there}

    found = inside(tmp_path, act)
    assert "/proc/sys" in found
    for path, options in found.items():
        assert options == ["ro", "nosuid", "nodev", "noexec", "relatime"], path


@pytest.mark.parametrize("maps", [(), ROOT_AT_100000], ids=["root", "user namespace"])
def test_read_only_reaches_what_is_mounted_below_and_not_the_rest(tmp_path: Path, maps: Maps) -> None:
    def act() -> list[int]:
        os.mkdir("/one/inner")
        mount("test", "/one/inner", "tmpfs")
        protect_paths(["/one", "/two/secret"])
        return [
            error_of(lambda path=path: Path(path).write_text("x"))
            for path in ("/one/new", "/one/inner/new", "/two/secret", "/two/new")
        ]

    root = tmp_path if not maps else Path("/mnt")
    assert inside(root, act, maps=maps) == [errno.EROFS, errno.EROFS, errno.EROFS, 0]


def test_both_on_the_same_tree(tmp_path: Path) -> None:
    """In the runtime's order: first what is read-only, then what is masked in it."""

    def act() -> tuple[int, bool]:
        protect_paths(["/proc/sys", "/one"])
        mask_paths(["/proc/sys/kernel/core_pattern", "/one/secret"])
        read_only = error_of(lambda: os.close(os.open("/proc/sys/kernel/hostname", os.O_WRONLY)))
        return read_only, is_null("/proc/sys/kernel/core_pattern") and is_null("/one/secret")

    assert inside(tmp_path, act) == (errno.EROFS, True)
