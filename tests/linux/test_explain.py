"""What is recorded of system calls, and how they are written."""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from types import CodeType

import pytest

from minicontainer.linux import CLONE_NEWUTS, MNT_DETACH, MS_PRIVATE, MS_REC, OpenHow, notation, syscalls, unshare
from minicontainer.linux.recording import Call, recording


def mine(code: CodeType) -> str | None:
    """As if the tests of this file were steps."""
    return f"test.{code.co_name}" if code.co_filename == __file__ else None


def record(act: object) -> list[Call]:
    """The calls that a function makes."""
    told: list[Call] = []
    with recording(told.extend, mine):
        act()  # type: ignore[operator]
    return told


def texts(calls: list[Call]) -> list[str]:
    """As they are written."""
    return [call.text for call in calls]


@pytest.mark.parametrize(
    ("name", "args", "written"),
    [
        ("mount", (None, "/", None, MS_REC | MS_PRIVATE, None), 'NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL'),
        ("mount", ('a"b', "/\n\x01é", "t", 0, "o=1"), '"a\\"b", "/\\n\\x01é", "t", 0, "o=1"'),
        ("umount2", (".", MNT_DETACH), '".", MNT_DETACH'),
        ("unshare", (CLONE_NEWUTS | 1 << 40,), "CLONE_NEWUTS|0x10000000000"),
        ("open_tree", (-100, "x", os.O_CLOEXEC | 1), 'AT_FDCWD, "x", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC'),
        ("openat2", (3, "x", OpenHow(flags=os.O_PATH, resolve=0x10), 24),
         '3, "x", {flags=O_RDONLY|O_PATH, resolve=RESOLVE_IN_ROOT}, 24'),
        ("mkdir", ("d", 0o755), '"d", 0755'),
        ("kill", (7, 9), "7, SIGKILL"),
        ("kill", (7, 0), "7, 0"),
        ("write", (3, b"x" * 301, 301), f'3, "{"x" * 300}"..., 301'),
        ("no_such_call", (1, "a", None, object), "1, \"a\", NULL, <class 'object'>"),
        ("unshare", ("nonsense",), '"nonsense"'),
    ],
)  # fmt: skip
def test_a_call_in_writing(name: str, args: tuple[object, ...], written: str) -> None:
    assert notation.written(name, args) == f"{name}({written})"


@pytest.mark.parametrize(
    ("name", "path", "page"),
    [
        ("mount", "", "mount(2)"),
        ("clone3", "", "clone(2)"),
        ("posix_spawn", "", "posix_spawn(3)"),
        ("RTM_NEWLINK", "", "rtnetlink(7)"),
        ("write", "/tmp/file", "write(2)"),
        ("write", "/proc/7/uid_map", "user_namespaces(7)"),
        ("write", "/sys/fs/cgroup/memory/x/tasks", "cgroups(7)"),
        ("write", "/proc/sys/net/ipv4/ip_forward", "proc_sys(5)"),
    ],
)
def test_its_page(name: str, path: str, page: str) -> None:
    assert notation.page(name, path) == page


def test_files_in_a_step(tmp_path: Path) -> None:
    def act() -> None:
        os.mkdir(tmp_path / "d")
        top = os.open(tmp_path / "d", os.O_RDONLY | os.O_DIRECTORY)
        os.mkdir("e", 0o700, dir_fd=top)
        os.rmdir("e", dir_fd=top)
        with open(tmp_path / "d/f", "w") as file:
            file.write("a\n")
            print("b", end="", file=file)
        assert (tmp_path / "d/f").read_text() == "a\nb"  # what only reads is left out
        os.close(top)
        with pytest.raises(FileNotFoundError):
            os.rmdir(tmp_path / "no")
        shutil.rmtree(tmp_path / "d")

    made = record(act)
    top = next(call.result for call in made if "O_DIRECTORY" in call.text)
    written = next(call.result for call in made if "/d/f" in call.text)
    assert texts(made)[:8] == [
        f'mkdir("{tmp_path}/d", 0777)',
        f'openat(AT_FDCWD, "{tmp_path}/d", {notation.flags("O_", os.O_DIRECTORY | os.O_CLOEXEC)})',
        f'mkdirat({top}, "e", 0700)',
        f'unlinkat({top}, "e", AT_REMOVEDIR)',
        f'openat(AT_FDCWD, "{tmp_path}/d/f", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666)',
        f'write({written}, "a\\n", 2)',
        f'write({written}, "b", 1)',
        f'rmdir("{tmp_path}/no")',
    ]
    assert made[7].result == -2 and made[0].result == 0
    assert {call.step for call in made} == {"test.test_files_in_a_step"}
    assert {"unlinkat", "rmdir"} <= {call.name for call in made[8:]}, "rmtree goes by file descriptors, as without us"


def test_outside_of_steps_files_are_nobodys_business(tmp_path: Path) -> None:
    told: list[Call] = []
    with recording(told.extend):
        os.mkdir(tmp_path / "d")
        os.kill(os.getpid(), 0)
    assert texts(told) == [f"kill({os.getpid()}, 0)"]


def test_children_and_theirs(tmp_path: Path) -> None:
    """Each is recorded, under the number that its parent knows it by, until it executes something or ends."""

    def act() -> None:
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                os.chdir("/")
                os.execve("/bin/true", ["true"], {})
            os.waitpid(grandchild, 0)
            try:
                os.chroot("/proc/self/no")
            except OSError:
                os._exit(0)
        os.waitpid(child, 0)
        os.chdir(".")

    calls = record(act)
    caller = [call for call in calls if call.process == "the caller"]
    assert [call.name for call in caller] == ["fork", "chdir"] and {call.pid for call in caller} == {os.getpid()}
    child = [call for call in calls if call.pid == caller[0].result]
    assert [call.name for call in child] == ["fork", "chroot"] and child[1].result == -2
    grandchild = [call for call in calls if call.pid == child[0].result]
    assert texts(grandchild) == ['chdir("/")', 'execve("/bin/true", ["true"], {0 variables})']
    assert [call.began for call in calls] == sorted(call.began for call in calls)
    assert all(call.took >= 0 for call in calls)


def test_a_program_that_cannot_be_executed_is_told_once() -> None:
    def act() -> None:
        with pytest.raises(FileNotFoundError):
            os.execve("/no/such", ["x"], {})

    [call] = record(act)
    assert (call.name, call.result) == ("execve", -2)


def test_a_helper_program() -> None:
    [call] = [call for call in record(lambda: subprocess.run(["true"], check=True)) if call.name != "kill"]
    assert call.text.startswith('vfork+execve("true"') and call.page == "execve(2)"


def test_the_floor_and_its_errors() -> None:
    def act() -> None:
        with pytest.raises(OSError, match=r"^\[Errno 22\] unshare"):
            unshare(1)

    [call] = record(act)
    assert (call.text, call.result, call.page) == ("unshare(0x1)", -22, "unshare(2)")


def test_other_threads_are_left_alone(tmp_path: Path) -> None:
    def act() -> None:
        thread = threading.Thread(target=lambda: os.chdir("."))
        thread.start()
        thread.join()

    assert record(act) == []


def test_all_is_put_back() -> None:
    functions = (
        syscalls.syscall,
        os.open,
        os.fork,
        os.execve,
        fcntl.ioctl,
        signal.pidfd_send_signal,
        builtins.open,
        io.open,
    )
    able = set(os.supports_dir_fd)
    with pytest.raises(ZeroDivisionError):
        record(lambda: 1 / 0)
    assert functions == (
        syscalls.syscall, os.open, os.fork, os.execve, fcntl.ioctl, signal.pidfd_send_signal, builtins.open, io.open,
    )  # fmt: skip
    assert able == os.supports_dir_fd


def test_more_than_there_is_room_for_is_counted() -> None:
    def act() -> None:
        for _ in range(9000):
            os.chdir(".")

    calls = record(act)
    lost = 9000 - len([call for call in calls if call.name == "chdir"])
    assert lost > 0 and f"... and {lost} more, for which there was no room" in texts(calls)


def test_a_recording_in_a_recording_tells_what_there_is_so_far() -> None:
    inner: list[Call] = []
    outer: list[Call] = []
    with recording(outer.extend):
        os.chdir(".")
        with recording(inner.extend):
            os.chdir(".")
        os.chdir("/proc/self/cwd")
    assert texts(inner) == ['chdir(".")'] * 2 and texts(outer) == ['chdir("/proc/self/cwd")']
