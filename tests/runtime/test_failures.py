"""Whatever a step does, its failure reaches the caller with the step's name, and nothing is left of the container."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from minicontainer import linux
from minicontainer.linux import Namespace
from minicontainer.runtime.errors import Interrupted, StartError
from minicontainer.runtime.limits import Limits
from minicontainer.runtime.spec import Directory, Mount
from minicontainer.steps import Steps
from tests.command import needs_root
from tests.runtime.conftest import Nursery, with_exercise

pytestmark = needs_root

INSIDE = [
    "become_root", "hide_cgroup_path", "bring_up_loopback", "private_queues", "set_names", "offset_clocks", "make_private",
    "stack", "mount_proc_and_dev", "bind", "attach", "pivot",
]  # fmt: skip
"""The steps that process 1 takes."""
OUTSIDE = ["pick_up", "create_group", "spawn_init", "write_maps", "enter_group"]
"""The steps that the caller takes."""
NAMES = {field: name for name, field in Steps.names().items()}

WAYS = {
    "an errno": ("raise OSError(28, 'mine')", "mine", errno.ENOSPC),
    "a system call": ("umount2('/nowhere')", 'umount2("/nowhere", 0): ENOENT', errno.ENOENT),
    "a file": ("open('/nowhere')", "/nowhere", errno.ENOENT),
    "an exit": ("raise SystemExit(0)", "SystemExit: 0", None),
    "another exception": ("{}['key']", "KeyError: 'key'", None),
    "an assertion": ("assert False", "AssertionError", None),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt", None),
    "a bare exception": ("raise BaseException('mine')", "BaseException: mine", None),
    "too deep": ("f = lambda: f()\n    f()", "RecursionError", None),
    "a long text": ("raise ValueError('x' * 10_000_000)", "ValueError: xxx", None),
    "several lines": ("raise ValueError('one\\ntwo')", "ValueError: one", None),
    "an odd text": ("raise ValueError('\\udc80\\0\\x1b')", "ValueError: ", None),
    "no text": ("raise type('Mine', (Exception,), {'__str__': lambda self: 1 / 0})", "Mine", None),
    "an odd errno": ("error = OSError(1, 'mine')\n    error.errno = object()\n    raise error", "mine", None),
}


def failing(field: str, body: str) -> Steps:
    """The reference with one step that does this instead."""
    return with_exercise(NAMES[field], f"def {field}(*args, **kwargs):\n    {body}")


def start_all(nursery: Nursery, steps: Steps, tmp_path: Path) -> None:
    """A container that takes every step."""
    (tmp_path / "volume").mkdir(exist_ok=True)
    nursery.run(
        "true", steps=steps, limits=Limits(pids=20), namespaces=frozenset(Namespace),
        uid_mappings=[(0, 0, 65536)], gid_mappings=[(0, 0, 65536)],
        mounts=[Mount("/v", source=str(tmp_path / "volume")), Mount("/t", "tmpfs")],
    )  # fmt: skip


def test_the_container_of_these_tests_takes_every_step(nursery: Nursery, tmp_path: Path) -> None:
    start_all(nursery, Steps(), tmp_path)


@pytest.mark.parametrize("field", INSIDE + OUTSIDE)
def test_a_step_that_fails_is_named_with_the_call_and_the_errno(nursery: Nursery, tmp_path: Path, field: str) -> None:
    with pytest.raises(StartError) as raised:
        start_all(nursery, failing(field, "umount2('/nowhere')"), tmp_path)
    assert raised.value.step == NAMES[field]
    assert raised.value.errno == errno.ENOENT
    assert raised.value.exit_code == 125
    text = str(raised.value)
    assert text.startswith(f"{NAMES[field]}: ") and 'umount2("/nowhere", 0): ENOENT (No such file or directory)' in text
    assert "line 3 of the cell" in text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", ["set_names", "write_maps"])
def test_in_whatever_way_it_fails(nursery: Nursery, tmp_path: Path, field: str, way: str) -> None:
    body, told, number = WAYS[way]
    expected = KeyboardInterrupt if (field, way) == ("write_maps", "an interrupt") else StartError
    with pytest.raises(expected) as raised:
        start_all(nursery, failing(field, body), tmp_path)
    if expected is StartError:
        assert raised.value.step == NAMES[field]  # type: ignore[attr-defined]
        assert told in str(raised.value)
        assert raised.value.errno == number  # type: ignore[attr-defined]


@pytest.mark.parametrize("field", INSIDE)
@pytest.mark.parametrize("act", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.execv('/bin/true', ['true'])"])
def test_a_step_that_ends_its_process_is_no_success(nursery: Nursery, tmp_path: Path, field: str, act: str) -> None:
    if act.startswith("os.kill"):
        act = "import ctypes; ctypes.string_at(0)"  # process 1 is safe from its own SIGKILL, and from nobody's null pointer
    with pytest.raises(StartError, match="ended before it had started the program"):
        start_all(nursery, failing(field, act), tmp_path)


@pytest.mark.parametrize("field", INSIDE)
def test_a_step_that_comes_back_twice_is_no_second_container(nursery: Nursery, tmp_path: Path, field: str) -> None:
    """A fork in a step whose child comes back: the same steps are taken again, and whatever comes of it ends."""
    reference = f"from minicontainer.steps.{NAMES[field].split('.')[0]} import {field} as ours"
    steps = with_exercise(
        NAMES[field], f"{reference}\ndef {field}(*args):\n    if os.fork() == 0: os._exit(0)\n    ours(*args)"
    )
    start_all(nursery, steps, tmp_path)


@pytest.mark.parametrize("field", INSIDE)
def test_a_step_that_never_returns_is_ended_by_an_interrupt(nursery: Nursery, tmp_path: Path, field: str) -> None:
    inside, tell = os.pipe()
    steps = failing(field, f"os.write({tell}, b'x'); import signal; signal.sigwait([signal.SIGUSR2])")
    number, helper = interrupted_when(inside)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    interrupts = linux.signalfd({number})
    try:
        (tmp_path / "volume").mkdir()
        with pytest.raises(Interrupted) as raised:
            nursery.start(
                "true", steps=steps, interrupts=interrupts, limits=Limits(pids=20), namespaces=frozenset(Namespace),
                uid_mappings=[(0, 0, 65536)], gid_mappings=[(0, 0, 65536)],
                mounts=[Mount("/v", source=str(tmp_path / "volume")), Mount("/t", "tmpfs")],
            )  # fmt: skip
        assert raised.value.number == number
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.waitpid(helper, 0)
        for fd in (inside, tell, interrupts):
            os.close(fd)


def interrupted_when(ready: int) -> tuple[signal.Signals, int]:
    """A helper that sends this process a signal as soon as something can be read; the signal, and the helper's pid."""
    number = signal.SIGTERM
    helper = os.fork()
    if helper == 0:
        try:
            os.read(ready, 1)
            os.kill(os.getppid(), number)
        finally:
            os._exit(0)
    return number, helper


@pytest.mark.parametrize(
    "returned", ["None", "0", "-1", "1", "os.getppid()", "'x'", "2**40", "os.getpid()", "True", "1.5"]
)
def test_whatever_spawn_init_returns_nobody_else_is_killed(busybox: str, tmp_path: Path, returned: str) -> None:
    """In a PID namespace of its own, because -1 means everybody: kill(2)."""
    program = textwrap.dedent(f"""
        import os, sys
        from minicontainer.runtime.birth import start
        from minicontainer.runtime.errors import StartError
        from minicontainer.runtime.spec import *
        from minicontainer.steps import Steps
        witness = os.fork()
        if witness == 0:
            import signal
            signal.pause()
        def spawn_init(main, namespaces):
            return {returned}
        spec = Spec(id="x", root=Directory({busybox!r}), process=Process(["true"]), hostname="x")
        try:
            start(spec, Steps(spawn_init=spawn_init), (None, 1, 2))
        except StartError as error:
            print(error)
        assert os.waitpid(witness, os.WNOHANG) == (0, 0), "the witness was killed"
    """)
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pid.spawn_init" in done.stdout


@pytest.mark.parametrize("source", ["return clone3(flags(namespaces))", "return os.fork()"])
def test_a_spawn_init_that_comes_back_in_the_child_too_is_told_once(busybox: str, source: str) -> None:
    program = textwrap.dedent(f"""
        import os
        from minicontainer.linux import clone3, flags
        from minicontainer.runtime.birth import start
        from minicontainer.runtime.errors import StartError
        from minicontainer.runtime.spec import *
        from minicontainer.steps import Steps
        def spawn_init(main, namespaces):
            {source}
        spec = Spec(id="x", root=Directory({busybox!r}), process=Process(["true"]), hostname="x")
        try:
            start(spec, Steps(spawn_init=spawn_init), (None, 1, 2))
        except StartError as error:
            os.write(1, b"told\\n")
    """)
    # Not as process 1 of that namespace, which a child that is process 1 of its own cannot be told from.
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        '"$@"; exit $?',
        "sh",
        sys.executable,
        "-c",
        program,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("told\n", "")


def test_a_failing_remove_group_does_not_hide_the_reason(nursery: Nursery, tmp_path: Path) -> None:
    functions = {
        "remove_group": lambda directories: (Steps().remove_group(directories), 1 / 0),
        "set_names": lambda *args: os.stat("/the/reason"),
    }
    with pytest.raises(StartError, match="/the/reason"):
        start_all(nursery, Steps(**functions), tmp_path)  # type: ignore[arg-type]


def test_a_failing_reap_ends_the_container(nursery: Nursery) -> None:
    running = nursery.start("sleep", "600", steps=failing("reap", "1 / 0"))
    assert nursery.end_of(running) == 125


@pytest.mark.parametrize(
    ("args", "exit_code", "told"),
    [
        (["nope"], 127, "nope: not found in the container's PATH"),
        (["/bin/nope"], 127, "/bin/nope: not found"),
        (["./nope"], 127, "./nope: not found"),
        (["/etc"], 126, "/etc"),
        (["/etc/passwd"], 126, "/etc/passwd"),
        ([""], 127, "not found"),
        (["/etc/passwd/x"], 127, "/etc/passwd/x"),
        (["x" * 300], 127, "not found"),
        (["/" + "x/" * 3000], 127, ""),
        (["true", "x" * 200_000], 126, "true"),
        (["true", "\0"], 125, ""),
    ],
)
@pytest.mark.parametrize("reaper", [True, False])
def test_a_program_that_cannot_be_started(
    nursery: Nursery, args: list[str], exit_code: int, told: str, reaper: bool
) -> None:
    with pytest.raises(StartError) as raised:
        nursery.run(*args, reaper=reaper)
    assert raised.value.exit_code == exit_code
    assert told in str(raised.value)


@pytest.mark.parametrize("reaper", [True, False])
def test_a_script_without_its_interpreter(nursery: Nursery, tmp_path: Path, reaper: bool) -> None:
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(StartError, match="interpreter") as raised:
        nursery.run("/script", mounts=[Mount("/script", source=str(tmp_path / "script"))], reaper=reaper)
    assert raised.value.exit_code == 126


@pytest.mark.parametrize("reaper", [True, False])
def test_a_file_that_is_no_program_and_one_that_may_not_be_executed(
    nursery: Nursery, tmp_path: Path, reaper: bool
) -> None:
    file = tmp_path / "file"
    for content, mode in ((b"\x7fELF broken", 0o755), (b"", 0o755), (b"#!/bin/sh\n", 0o644)):
        file.write_bytes(content)
        file.chmod(mode)
        with pytest.raises(StartError) as raised:
            nursery.run("/file", mounts=[Mount("/file", source=str(file))], reaper=reaper)
        assert raised.value.exit_code == 126


def test_the_search_goes_on_after_what_cannot_be_executed(nursery: Nursery, tmp_path: Path) -> None:
    """As execvp(3) does: a file in an early directory of PATH that is not executable does not hide the later one."""
    decoy = tmp_path / "decoy"
    decoy.mkdir()
    (decoy / "true").write_text("not a program")
    outcome = nursery.run("true", env=["PATH=/decoy:/bin"], mounts=[Mount("/decoy", source=str(decoy))])
    assert outcome.status == 0


@pytest.mark.parametrize("cwd", ["/nowhere", "/etc/passwd", "relative"])
def test_a_working_directory_that_is_none_is_called_so(nursery: Nursery, cwd: str) -> None:
    with pytest.raises(StartError, match=cwd) as raised:
        nursery.run("true", cwd=cwd)
    assert "working directory" in str(raised.value)


def test_a_root_that_is_not_there(nursery: Nursery) -> None:
    with pytest.raises(StartError) as raised:
        nursery.run("true", root=Directory("/nowhere"))
    assert raised.value.errno == errno.ENOENT and "/nowhere" in str(raised.value)


def test_a_volume_that_is_not_there(nursery: Nursery) -> None:
    with pytest.raises(StartError) as raised:
        nursery.run("true", mounts=[Mount("/v", source="/nowhere")])
    assert raised.value.step == "volume.pick_up" and 'open_tree(-100, "/nowhere"' in str(raised.value)


def test_a_mount_that_the_kernel_refuses(nursery: Nursery) -> None:
    with pytest.raises(StartError) as raised:
        nursery.run("true", mounts=[Mount("/v", "nosuchfilesystem")])
    assert raised.value.step == "volume.attach" and raised.value.errno == errno.ENODEV
