"""`linux/procfs.py`: whatever is put in the place of /proc, or on a file in it, nothing is written there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer.linux import CLONE_NEWPID, MS_BIND, mount, umount2, unshare
from minicontainer.linux.procfs import open_in_proc, open_proc, sysctl_file, write_in_proc
from tests.command import needs_root
from tests.steps.apart import apart, tmpfs

NAME = "/proc/self/comm"


def error_of(act: Callable[[], object]) -> int:
    """The number of the error that it raises, 0 for none."""
    try:
        act()
    except OSError as error:
        return error.errno or -1
    return 0


def rename(proc: str | int = "/proc") -> None:
    """Write to a harmless file that is there for every process: its own name."""
    root = open_proc(proc)
    try:
        write_in_proc(root, "self/comm", "renamed")
    finally:
        os.close(root)


def own_name() -> str:
    return Path(NAME).read_text().strip()


def test_the_real_one() -> None:
    def act() -> tuple[str, str]:
        rename()
        first = own_name()
        Path(NAME).write_text("again")
        fd = os.open("/proc", os.O_PATH)
        rename(fd)
        return first, own_name()

    assert apart(act) == ("renamed", "renamed")


@needs_root
def test_self_is_whoever_asks_even_where_the_numbers_are_others() -> None:
    """In a new PID namespace getpid(2) is 1, and /proc/1 of the host's proc is the host's init."""
    before = Path("/proc/1/comm").read_text()

    def act() -> tuple[int, str]:
        unshare(CLONE_NEWPID)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                rename()
                os.write(write, f"{os.getpid()} {own_name()}".encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        number, _, name = os.read(read, 100).decode().partition(" ")
        return int(number), name

    assert apart(act) == (1, "renamed")
    assert Path("/proc/1/comm").read_text() == before


@needs_root
@pytest.mark.parametrize("what", ["tmpfs", "a part of proc", "a directory of files that look alike"])
def test_something_else_at_its_place(tmp_path: Path, what: str) -> None:
    fake = tmp_path / "fake"
    (fake / "self").mkdir(parents=True)
    (fake / "self/comm").write_text("untouched")

    def act() -> int:
        place = tmp_path / "proc"
        place.mkdir()
        if what == "tmpfs":
            tmpfs(place)
        else:
            mount("/proc/self" if what == "a part of proc" else fake, place, None, MS_BIND)
        return error_of(lambda: rename(str(place)))

    assert apart(act) == errno.EPERM
    assert (fake / "self/comm").read_text() == "untouched"


@needs_root
def test_over_proc_itself(tmp_path: Path) -> None:
    def act() -> tuple[int, str]:
        tmpfs(Path("/proc"))
        Path("/proc/self").mkdir()
        Path(NAME).write_text("untouched")
        error = error_of(rename)
        said = Path(NAME).read_text()
        umount2("/proc", 0)
        return error, said

    assert apart(act) == (errno.EPERM, "untouched")


@needs_root
@pytest.mark.parametrize("cover", ["file", "another file of proc"])
def test_over_a_file_in_it(tmp_path: Path, cover: str) -> None:
    (tmp_path / "file").write_text("untouched")
    source = str(tmp_path / "file") if cover == "file" else "/proc/self/oom_score_adj"

    def act() -> tuple[int, str]:
        mount(source, f"/proc/{os.getpid()}/comm", None, MS_BIND)
        return error_of(rename), Path(source).read_text()

    before = Path(source).read_text()
    assert apart(act) == (errno.EPERM, before)


def test_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "proc").symlink_to("/proc")
    assert error_of(lambda: open_proc(str(tmp_path / "proc"))) == errno.ENOTDIR


@pytest.mark.parametrize(
    ("path", "number"),
    [("self/root/etc/hostname", errno.ELOOP), ("self/cwd/x", errno.ELOOP), ("../etc/hostname", errno.EPERM), ("/etc/hostname", errno.EPERM), ("self/no-such-file", errno.ENOENT)],
)  # fmt: skip
def test_nothing_leads_out_of_it(path: str, number: int) -> None:
    root = open_proc()
    try:
        assert error_of(lambda: open_in_proc(root, path, os.O_RDONLY)) == number
    finally:
        os.close(root)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eno2/100.forwarding", "net/ipv4/conf/eno2.100/forwarding"),
        ("net/ipv4/conf/eno2.100/forwarding", "net/ipv4/conf/eno2.100/forwarding"),
        ("kernel.domainname", "kernel/domainname"),
        ("kernel", "kernel"),
    ],
)
def test_names_of_settings(name: str, file: str) -> None:
    assert sysctl_file(name) == file


@given(st.text(alphabet="a./\0", max_size=12))
@example("net/../kernel/core_pattern")
@example("net..kernel")
@example("net.//.kernel")
@example("")
def test_no_name_leads_elsewhere(name: str) -> None:
    try:
        file = sysctl_file(name)
    except ValueError:
        return
    assert os.path.normpath(f"/proc/sys/{file}") == f"/proc/sys/{file}"
