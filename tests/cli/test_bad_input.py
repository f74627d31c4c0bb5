"""Whatever a user gets wrong: one line that says what to do, the right exit code, and the host as it was."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.tracing import CALLS, every_call, needs_strace, signalled_at
from tests.command import DEADLINE, Command, needs_root, one_line
from tests.host_state import HostUnchanged

pytestmark = needs_root


@pytest.fixture
def bad(minicontainer: Command, host_unchanged: HostUnchanged) -> Callable[..., str]:
    """Run a command that must fail with this exit code, one line, and no trace; returns the line."""

    def run(exit_code: int, *arguments: str | bytes | Path, **options: object) -> str:
        before = minicontainer.containers()
        with host_unchanged():
            done = minicontainer(*arguments, **options)
        assert done.returncode == exit_code, done.stderr
        assert done.stdout == ""
        assert minicontainer.containers() == before
        return one_line(done.stderr)

    return run


Bad = Callable[..., str]


@pytest.mark.parametrize(
    ("exit_code", "arguments", "told"),
    [
        (125, ["run", "--rm", "--rootfs", "/nowhere", "true"], "/nowhere"),
        (125, ["run", "--rm", "--rootfs", "/etc/passwd", "true"], "/etc/passwd"),
        (127, ["run", "--rm", "--rootfs", "/usr/share", "true"], "true: not found"),
        (125, ["run", "--rm", "--pull", "never", "nope", "true"], 'no image "nope"'),
        (125, ["run", "--rm", "--rootfs", "/"], "no command"),
        (127, ["run", "--rm", "busybox", "nope"], "not found in the container's PATH"),
        (127, ["run", "--rm", "busybox", "/nope/nope"], "/nope/nope: not found"),
        (127, ["run", "--rm", "busybox", ""], "not found"),
        (126, ["run", "--rm", "busybox", "/etc/passwd"], "/etc/passwd"),
        (126, ["run", "--rm", "busybox", "/etc"], "/etc"),
        (125, ["run", "--rm", "--name", "a b", "busybox", "true"], "cannot be a name"),
        (125, ["run", "--rm", "--hostname", "x" * 65, "busybox", "true"], "64 bytes"),
        (125, ["run", "--rm", "-v", "/nowhere:/v", "busybox", "true"], "/nowhere"),
        (125, ["run", "--rm", "-v", "nonsense", "busybox", "true"], "DIR:/PLACE"),
        (125, ["run", "--rm", "-m", "lots", "busybox", "true"], "size"),
        (125, ["run", "--rm", "-m", "0", "busybox", "true"], "memory"),
        (125, ["run", "--rm", "--cpus", "nan", "busybox", "true"], "processors"),
        (125, ["run", "--rm", "--cpus", "x", "busybox", "true"], "--cpus"),
        (125, ["run", "--rm", "--pids-limit", "-2", "busybox", "true"], "processes"),
        (125, ["run", "--nonsense", "busybox", "true"], "--help"),
        (125, ["nonsense"], "nonsense"),
        (125, ["run", "--rm", "-it", "busybox", "sh"], "terminal"),
        (125, ["--steps", "/nowhere.ipynb", "run", "--rm", "busybox", "true"], "nowhere.ipynb"),
        (125, ["--steps", "/etc/passwd", "run", "--rm", "busybox", "true"], "passwd"),
        (125, ["--steps", "/etc", "run", "--rm", "busybox", "true"], "%%exercise"),
        (1, ["rm", "nope"], "nope"),
        (1, ["wait", "nope"], "nope"),
        (1, ["start", "nope"], "nope"),
        (125, ["system", "nonsense"], "repair"),
    ],
)  # fmt: skip
def test_one_line_and_no_trace(bad: Bad, exit_code: int, arguments: list[str], told: str) -> None:
    assert told in bad(exit_code, *arguments)


def test_a_working_directory_that_is_not_there(bad: Bad) -> None:
    text = bad(125, "run", "--rm", "-w", "/nowhere", "busybox", "true")
    assert "/nowhere" in text and "working directory" in text


@pytest.mark.parametrize("option", ["--name", "--hostname", "--domainname", "-w", "-e", "-v"])
def test_bytes_that_are_no_text(minicontainer: Command, option: str) -> None:
    """Never a traceback: it works, or one line says why not."""
    done = minicontainer("run", "--rm", option, b"\xff", "busybox", "true", text=False)
    assert b"Traceback" not in done.stderr  # type: ignore[operator]
    assert done.returncode == 0 or done.stderr.count(b"\n") == 1  # type: ignore[arg-type]
    assert minicontainer.containers() == []


def test_an_environment_variable_without_a_name(bad: Bad) -> None:
    bad(125, "run", "--rm", "-e", "=x", "busybox", "true")


def test_a_name_that_is_taken(bad: Bad, minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert "minicontainer rm alpha" in bad(125, "run", "--rm", "--name", "alpha", "busybox", "true")
    assert "minicontainer rm alpha" in bad(125, "create", "--name", "alpha", "busybox", "true")
    minicontainer("rm", "alpha")


def test_a_container_that_was_never_started(bad: Bad, minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert "minicontainer start alpha" in bad(125, "wait", "alpha")
    minicontainer("rm", "alpha")


def test_a_root_file_system_that_went_away(bad: Bad, minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    minicontainer("create", "--name", "alpha", "--rootfs", str(tmp_path / "root"), "true")
    (tmp_path / "root").rmdir()
    assert "no root file system" in bad(125, "start", "alpha")
    minicontainer("rm", "alpha")


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null", "/dev/null/x", "/etc/passwd"])
def test_a_state_directory_that_cannot_be(host_unchanged: HostUnchanged, place: str) -> None:
    for command in (["run", "--rm", "busybox", "true"], ["create", "busybox", "true"]):
        with host_unchanged():
            done = Command(Path(place))(*command)
        assert done.returncode == 125 and place in one_line(done.stderr)
    assert "Traceback" not in Command(Path(place))("ps").stderr


def test_a_full_disk(minicontainer: Command, tmp_path: Path) -> None:
    """On a tmpfs of 64 KiB in a mount namespace of the test's own: at no point of filling up a traceback, or half a thing."""
    script = """
    mount -t tmpfs -o size=64k none "$1" && shift
    for i in $(seq 40); do "$@" create --name c$i busybox true >/dev/null 2>"$ERR" || { cat "$ERR"; break; }; done
    "$@" ps -aq | wc -l; ls "$DIR/containers" | wc -l; "$@" system repair
    """
    (tmp_path / "full").mkdir()
    command = Command(tmp_path / "full")
    script = script.replace(
        "&& shift",
        f'&& ln -s {shlex.quote(str(minicontainer.root))}/images {shlex.quote(str(minicontainer.root))}/layers "$1" && shift',
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", tmp_path / "full", *command.line()],
        env={**os.environ, "ERR": str(tmp_path / "err"), "DIR": str(tmp_path / "full")}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].startswith("minicontainer: ") and "No space left" in lines[0], done
    assert lines[1] == lines[2], "what could not be made whole is there in part"
    assert len(lines) == 3 and done.stderr == "", "repair found something"


# No privileges


def test_root_without_the_capability_is_told_which(bad: Bad, minicontainer: Command) -> None:
    minicontainer.words = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", *minicontainer.words]
    for options in ([], ["-v", "/tmp:/v"], ["-m", "64m"]):
        assert "CAP_SYS_ADMIN" in bad(125, "run", "--rm", *options, "busybox", "true")


def test_without_any_capability(bad: Bad, minicontainer: Command) -> None:
    minicontainer.words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *minicontainer.words]
    text = bad(125, "run", "--rm", "busybox", "true")
    assert "CAP_SYS_ADMIN" in text and ("sudo" in text or "root" in text)


# A kernel that lacks something


def in_user_namespace(minicontainer: Command, setting: str, value: str) -> None:
    """Let the command run as root of a user namespace in which a kernel limit is set."""
    script = f'echo {value} > /proc/sys/user/{setting} && exec "$@"'
    minicontainer.words = ["unshare", "--user", "--map-root-user", "--", "sh", "-c", script, "sh", *minicontainer.words]


@pytest.mark.parametrize("kind", ["mnt", "uts", "ipc", "pid", "net", "cgroup", "time"])
def test_no_more_namespaces_of_a_kind(bad: Bad, minicontainer: Command, kind: str) -> None:
    in_user_namespace(minicontainer, f"max_{kind}_namespaces", "0")
    assert f"max_{kind}_namespaces" in bad(125, "run", "--rm", "busybox", "true")


def test_no_user_namespaces_for_an_ordinary_user(
    minicontainer: Command, tmp_path: Path, host_unchanged: HostUnchanged
) -> None:
    """The limit is set in a user namespace of the test's own; the user is one of that namespace."""
    from tests.cli.test_rootless import reachable

    command, arguments = reachable(tmp_path, "run", "--rm", "busybox", "true")
    script = (
        'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --reuid 61234 --regid 61234 --clear-groups "$@"'
    )
    with host_unchanged():
        done = subprocess.run(
            [*command, *AS_ROOT_OF_A_USER_NAMESPACE, script, *arguments],
            capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 125
    assert "max_user_namespaces" in one_line(done.stderr)


AS_ROOT_OF_A_USER_NAMESPACE = [
    sys.executable,
    "-c",
    """
import os, sys
from minicontainer.linux import CLONE_NEWUSER, unshare
asked, ask = os.pipe()
answered, answer = os.pipe()
child = os.fork()
if child == 0:
    unshare(CLONE_NEWUSER)
    os.write(ask, b"x")
    os.read(answered, 1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.execvp("sh", ["sh", "-c", sys.argv[1], "sh", *sys.argv[2:]])
os.read(asked, 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 0 65536")
os.write(answer, b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
]
"""unshare(1) of util-linux cannot map a range before version 2.39."""

CLONE_FLAGS = {
    "time": 0x80,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "net": 0x40000000,
    "mnt": 0x20000,
}
OPTIONS = {"time": "--timens", "cgroup": "--cgroupns", "uts": "--uts", "ipc": "--ipc", "net": "--network"}


def kernel_without(flag: int) -> Callable[[], None]:
    """A seccomp filter (seccomp(2), BPF) in which unshare(2) of this flag answers EINVAL, as kernels do that lack it."""
    number = {"x86_64": 272, "aarch64": 97}[platform.machine()]
    load, equal, bits, answer = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JSET|K, RET|K
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in [
            (load, 0, 0, 0),  # struct seccomp_data: nr
            (equal, 0, 3, number),
            (load, 0, 0, 16),  # its first argument, low word
            (bits, 0, 1, flag),
            (answer, 0, 0, 0x00050000 | 22),  # SECCOMP_RET_ERRNO | EINVAL
            (answer, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        ]
    )
    libc = ctypes.CDLL(None, use_errno=True)

    def install() -> None:
        instructions = ctypes.create_string_buffer(program, len(program))
        filter_program = ctypes.create_string_buffer(
            struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
        )
        # PR_SET_NO_NEW_PRIVS is not set: root may load a filter without.
        if libc.prctl(22, 2, filter_program, 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            os._exit(99)

    return install


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason=f"no system call numbers for {platform.machine()}"
)
@pytest.mark.parametrize("kind", CLONE_FLAGS)
def test_a_kernel_without_a_namespace(bad: Bad, minicontainer: Command, kind: str) -> None:
    text = bad(125, "run", "--rm", "busybox", "true", preexec_fn=kernel_without(CLONE_FLAGS[kind]))
    assert "minicontainer check" in text and "CONFIG_" in text
    if kind in OPTIONS:
        assert f"{OPTIONS[kind]} host" in text
        done = minicontainer(
            "run", "--rm", OPTIONS[kind], "host", "busybox", "true", preexec_fn=kernel_without(CLONE_FLAGS[kind])
        )
        assert (done.returncode, done.stderr) == (0, ""), "the advice does not help"


# Somebody else's steps


@pytest.mark.parametrize(
    ("exercise", "body", "told"),
    [
        ("uts.set_names", "sethostname('x' * 65)", "uts.set_names: sethostname("),
        ("uts.set_names", "raise SystemExit(0)", "SystemExit"),
        ("uts.set_names", "os._exit(0)", "process 1 ended"),
        ("mount.pivot", "raise ValueError('one\\ntwo')", "mount.pivot: ValueError: one two"),
        ("pid.spawn_init", "return None", "pid.spawn_init"),
        ("pid.spawn_init", "return os.fork()", ""),
        ("chroot.build_root", "pass", ""),
    ],
)
def test_a_step_that_fails(bad: Bad, tmp_path: Path, exercise: str, body: str, told: str) -> None:
    name = exercise.split(".")[1]
    (tmp_path / "mine.py").write_text(f"# %%exercise {exercise}\ndef {name}(*args, **kwargs):\n    {body}\n")
    if exercise == "chroot.build_root":
        return  # the image is there already: it is not asked
    assert told in bad(125, "--steps", tmp_path / "mine.py", "run", "--rm", "busybox", "true")


def test_a_step_that_does_not_exist(bad: Bad, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("# %%exercise uts.set_name\ndef set_name(): pass\n")
    text = bad(125, "--steps", tmp_path / "mine.py", "run", "--rm", "busybox", "true")
    assert "uts.set_name" in text and "uts.set_names" in text


# ^C at any moment, without a terminal


@needs_strace
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_at_any_moment(
    minicontainer: Command, number: signal.Signals, host_unchanged: HostUnchanged, tmp_path: Path
) -> None:
    """Whether the container is born already or not: it ends, with 128 + n, at most one line, and nothing is left."""
    command = minicontainer.line("run", "--rm", "-m", "64m", "busybox", "cat")
    sent = 0
    with host_unchanged():
        for call, when in every_call(command, CALLS if number is signal.SIGINT else CALLS[::3], tmp_path / "calls"):
            done = subprocess.run(
                signalled_at(call, when, number, command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
            )
            where = f"{number.name} at {call} number {when}: {done}"
            assert minicontainer.containers() == [], where
            # The program's own end may have come first; and after it, there is nothing to interrupt any more.
            assert done.returncode in (128 + number, -number, 0), where
            if done.stderr:
                assert "interrupted" in one_line(done.stderr), where
            sent += done.returncode != 0
    assert sent >= 5, "hardly ever was anything interrupted"


def test_an_interrupt_while_it_runs_is_the_programs(minicontainer: Command) -> None:
    for trap, status in (("trap 'exit 42' INT", 42), (":", 130)):
        with minicontainer.running(
            "run", "--rm", "busybox", "sh", "-c", f"{trap}; echo up; while :; do sleep 600 & wait; done"
        ) as process:
            assert process.stdout and process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == status
            assert process.stderr and process.stderr.read() == ""
        assert minicontainer.containers() == []


def test_who_does_not_listen_is_killed_in_the_end(minicontainer: Command) -> None:
    with minicontainer.running(
        "run", "--rm", "busybox", "sh", "-c", "trap 'echo no' INT; echo up; while :; do sleep 600 & wait; done"
    ) as process:
        assert process.stdout and process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "no\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "no\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 137
    assert minicontainer.containers() == []
