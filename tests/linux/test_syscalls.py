"""`linux/syscalls.py`: the right numbers, and errors that name the call and its arguments."""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import linux
from minicontainer.linux import capabilities, notation, syscalls
from minicontainer.linux.syscalls import call

HEADERS = {
    "x86_64": (
        "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "/usr/include/asm/unistd_64.h",
        "/usr/x86_64-linux-gnu/include/asm/unistd_64.h",
    ),
    # aarch64 uses the generic table, which is installed on every architecture.
    "aarch64": ("/usr/include/asm-generic/unistd.h", "/usr/aarch64-linux-gnu/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = next((path for path in HEADERS[machine] if os.path.exists(path)), None)
    if header is None:
        pytest.skip(f"no kernel header for {machine} here: {', '.join(HEADERS[machine])}")
    defined = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    column = syscalls._COLUMN[machine]

    ours = {name: numbers[column] for name, numbers in syscalls._NUMBERS.items()}
    theirs = {name: int(defined[name]) for name in ours if name in defined}

    assert {name: ours[name] for name in theirs} == theirs
    missing = ours.keys() - theirs.keys()
    assert missing <= {"mount_setattr", "openat2", "close_range", "lsm_list_modules"}, (
        f"{header} is too old to tell: {missing}"
    )


@pytest.mark.parametrize(
    ("act", "number", "text"),
    [
        (lambda: linux.pivot_root("/nowhere", "/new"), errno.ENOENT, 'pivot_root("/nowhere", "/new")'),
        (
            lambda: linux.mount("source", "/nowhere", "nofs", linux.MS_BIND, "size=1"),
            errno.ENOENT,
            'mount("source", "/nowhere", "nofs", 0x1000, "size=1")',
        ),
        (lambda: linux.mount(None, "/nowhere"), errno.ENOENT, 'mount(NULL, "/nowhere", NULL, 0, NULL)'),
        (lambda: linux.umount2("/nowhere", linux.MNT_DETACH), errno.ENOENT, 'umount2("/nowhere", 2)'),
        (lambda: linux.setns(-1, 0), errno.EBADF, "setns(-1, 0)"),
        (lambda: linux.unshare(0x40), errno.EINVAL, "unshare(64)"),
        (lambda: linux.clone3(1), errno.EINVAL, "clone3(&cloneargs, 88)"),
        (lambda: linux.openat2(-1, "x", 0), errno.EBADF, 'openat2(-1, "x", &openhow, 24)'),
        (lambda: linux.open_tree("/nowhere"), errno.ENOENT, 'open_tree(-100, "/nowhere", 0x80000)'),
        (lambda: linux.move_mount(-1, "/proc"), errno.EBADF, 'move_mount(-1, "", -100, "/proc", 20)'),
        (lambda: linux.prctl(-5), errno.EINVAL, "prctl(-5, 0, 0, 0, 0)"),
        (lambda: linux.close_range(7, 3), errno.EINVAL, "close_range(7, 3, 0)"),
        (lambda: capabilities.capget(-1), errno.EINVAL, "capget(&_header, &_data)"),
    ],
)
def test_an_error_names_the_call_and_its_arguments(act, number: int, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OSError) as raised:
        act()
    assert raised.value.errno == number
    assert raised.value.strerror == f"{text}: {errno.errorcode[number]} ({os.strerror(number)})"


def test_errors_name_flags_where_somebody_has_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "written", syscalls.written)  # put back afterwards
    notation.name_flags_in_errors()
    for act, text in (
        (lambda: linux.mount(None, "/nowhere", None, linux.MS_REC | linux.MS_PRIVATE), "MS_REC|MS_PRIVATE"),
        (lambda: linux.unshare(linux.CLONE_NEWNS | 0x40), "unshare(CLONE_NEWNS|0x40): EINVAL"),
        (lambda: linux.clone3(linux.CLONE_NEWUTS | 1), "clone3({flags=CLONE_NEWUTS|0x1"),
        (lambda: linux.umount2("/nowhere", linux.MNT_DETACH), 'umount2("/nowhere", MNT_DETACH): ENOENT'),
    ):
        with pytest.raises(OSError, match=re.escape(text)):
            act()


def test_the_exception_is_of_the_class_that_fits() -> None:
    with pytest.raises(FileNotFoundError):
        linux.umount2("/nowhere")
    with pytest.raises(NotADirectoryError):
        linux.openat2(linux.AT_FDCWD, "/etc/passwd/x", os.O_RDONLY)


@given(st.text(min_size=1).filter(lambda text: "\0" not in text and _encodable(text)))
def test_whatever_the_path_is_it_stands_in_the_error(path: str) -> None:
    with pytest.raises(OSError) as raised:
        linux.umount2(f"/proc/self/nowhere/{path}")
    assert f'umount2("/proc/self/nowhere/{path}", 0): ' in str(raised.value)


@pytest.mark.parametrize("path", ["\0", "/tmp\0/etc", b"/tmp\0/etc"])
def test_a_path_with_a_nul_is_not_cut_short(path: str) -> None:
    """C would stop reading there, and the call would hit another file than the one that was named."""
    with pytest.raises(ValueError, match="null"):
        linux.umount2(path)  # type: ignore[arg-type]


def test_a_machine_whose_numbers_are_not_known_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_MACHINE", "riscv64")
    with pytest.raises(syscalls.KernelTooOld, match="unshare: its number on riscv64") as raised:
        call("unshare", 0)
    assert raised.value.errno == errno.ENOSYS


def test_a_call_that_a_signal_interrupts_is_made_again(tmp_path: Path) -> None:
    """PEP 475: a SIGCHLD in the middle of openat2(2) is no error. Here the call waits for the other end of a fifo."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    child = os.fork()
    if child == 0:
        try:
            while not _waits(os.getppid()):
                pass
            os.kill(os.getppid(), signal.SIGUSR1)
            while not (_waits(os.getppid()) and not _has_pending(os.getppid())):
                pass
            os.close(os.open(fifo, os.O_WRONLY))
        finally:
            os._exit(0)
    try:
        os.close(linux.openat2(linux.AT_FDCWD, fifo, os.O_RDONLY))
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.waitpid(child, 0)
    assert seen == [signal.SIGUSR1]


def _waits(pid: int) -> bool:
    """Whether the process is inside of openat2(2), asleep."""
    asleep = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    return asleep and Path(f"/proc/{pid}/syscall").read_text().split()[0] == str(syscalls._NUMBERS["openat2"][0])


def _has_pending(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return any(int(mask, 16) for mask in re.findall(r"(?:Sig|Shd)Pnd:\t(\w+)", status))


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
