"""The sandbox: what a submission can see, reach and forge in there."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from labs.grading import classroom
from labs.grading.checks import Late, Wrong, plain
from labs.grading.observed import Observed
from labs.grading.sandbox import Sandbox
from labs.grading.subject import Performed, Subject
from minicontainer import steps
from minicontainer.linux import Namespace

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: control groups, and ids that are nobody's")


def perform(sandbox: Sandbox, code: str) -> Performed:
    """Let a performer run this code."""
    return Subject(sandbox).perform("uts.set_names", code)


def said(sandbox: Sandbox, expression: str) -> str:
    """What an expression is in there, in the words of the exception that tells it."""
    with pytest.raises(Wrong) as told:
        perform(sandbox, f"import os, socket, sys\nraise RuntimeError({expression})")
    return str(told.value)


def test_all_eight_namespaces_are_its_own(sandbox: Sandbox) -> None:
    seen = Subject(sandbox).sandbox
    assert [kind for kind in Namespace if kind.supported and seen.namespace(kind) == kind.link()] == []


@needs_root
def test_its_root_is_nobody_outside(sandbox: Sandbox) -> None:
    assert min(map(int, perform(sandbox, "0").status("Uid").split())) >= 0x70000000


@needs_root
def test_control_groups_hold_it(sandbox: Sandbox) -> None:
    assert sandbox.limited
    assert "/minicontainer/labs-" in Path(f"/proc/{sandbox.pid}/cgroup").read_text()


def test_it_sees_no_device_but_the_loopback(sandbox: Sandbox) -> None:
    assert "['lo']" in said(sandbox, "[name for _, name in socket.if_nameindex()]")


def test_it_sees_nothing_of_the_host_but_programs_and_the_classroom(sandbox: Sandbox) -> None:
    seen = set(Subject(sandbox).sandbox.listdir("/"))
    assert seen <= {
        "bin",
        "classroom",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "proc",
        "run",
        "sbin",
        "usr",
        "opt",
        "root",
    }
    assert Subject(sandbox).sandbox.listdir("/etc") == ["ld.so.cache"]


def test_no_mount_of_it_is_a_peer_of_one_of_the_hosts(sandbox: Sandbox) -> None:
    """Or what is mounted in there, over /usr say, would be mounted on a host with systemd too."""
    ours = {field for line in Path("/proc/self/mountinfo").read_text().splitlines() for field in line.split()[6:-3]}
    theirs = {field for mount in Subject(sandbox).sandbox.mountinfo() for field in mount.propagation.split()}
    assert not {field for field in ours & theirs if field.startswith("shared:")}


def test_the_reference_of_the_lab_is_not_there(sandbox: Sandbox) -> None:
    source = Subject(sandbox).sandbox.read("/classroom/minicontainer/steps/uts.py").decode()
    assert "def set_names" in source
    assert "unshare(" not in source.partition("def ")[2]
    assert "sethostname(host)" not in said(sandbox, "open('/classroom/minicontainer/steps/uts.py').read()")


def test_every_step_module_has_a_stub_that_can_be_imported() -> None:
    for path in sorted(Path(steps.__file__).parent.glob("[a-z]*.py")):
        names: dict[str, object] = {"__name__": "stub"}
        exec(compile(classroom.stub(path.read_text(), path.stem), path.name, "exec"), names)


def test_a_message_cannot_name_a_process_outside(sandbox: Sandbox) -> None:
    """unix(7): the kernel takes a pid in the sender's own namespace, where ours does not exist."""
    with pytest.raises(Wrong, match=r"No such process|Operation not permitted"):
        perform(sandbox, _send(f"struct.pack('iII', {os.getpid() + 100_000}, 0, 0)"))
    with pytest.raises(Wrong, match="has ended"):
        Observed(sandbox, os.getpid(), "a process of the host")


@pytest.mark.parametrize("pid", ["1", "os.getppid() + 1000"])
def test_only_the_performer_is_believed_to_have_performed(sandbox: Sandbox, pid: str) -> None:
    with pytest.raises(Wrong, match=r"forged the report|not there|No such process"):
        perform(sandbox, _send(f"struct.pack('iII', {pid}, 0, 0)"))


def test_only_process_1_of_a_new_namespace_is_believed_to_be_the_container(sandbox: Sandbox) -> None:
    """A bystander, well prepared, that the submission's cell reports before the container's start does."""
    prepared = "pid = os.fork()\nif pid == 0:\n    unshare(CLONE_NEWUTS)\n    signal.pause()\n"
    report = _send("struct.pack('iII', pid, 0, 0)")
    cell = f"import os, signal\n{prepared}{report}\ndef set_names(host, domain=None): return 0"
    forged = pytest.raises(Wrong, match="not the container's process 1")
    with contextlib.closing(Sandbox(sandbox.classroom, {"uts.set_names": cell})) as other, forged:
        Subject(other).start(["sleep", "600"])


def test_file_descriptors_that_are_sent_along_are_dropped(sandbox: Sandbox) -> None:
    open_before = os.listdir("/proc/self/fd")
    rights = "(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('8i', *[1] * 8))"
    process = perform(sandbox, _send("struct.pack('iII', os.getpid(), 0, 0)", rights))
    del process
    assert len(os.listdir("/proc/self/fd")) <= len(open_before) + 1  # the line itself, of a subject that is not closed


@pytest.mark.parametrize(
    "message", ["b'['*50000", "b'x'*100000", "b'\\xff\\xfe'", "b'[]'", "b'{}'", "b'1'*50000", "b'\"'"]
)
def test_nonsense_on_the_line_is_the_submissions_fault(sandbox: Sandbox, message: str) -> None:
    with pytest.raises(Wrong, match="no answer"):
        perform(sandbox, _send("struct.pack('iII', os.getpid(), 0, 0)", message=message))


def _send(ucred: str, more: str = "", message: str = "b'{\"done\": true}'") -> str:
    """Code that finds the performer's line, and sends something on it before the performer does."""
    return (
        "import gc, os, socket, struct\n"
        "for line in [o for o in gc.get_objects() if isinstance(o, socket.socket) and o.fileno() > 2]:\n"
        f"    line.sendmsg([{message}], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, {ucred}), {more}])\n"
    )


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import os; os._exit(0)", "called exit"),
        ("import os; os.kill(os.getpid(), 9)", "was killed"),
        ("import os; os.killpg(0, 9)", "was killed"),
        ("raise SystemExit", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_an_end_is_told_and_the_sandbox_goes_on(sandbox: Sandbox, code: str, what: str) -> None:
    with pytest.raises(Wrong, match=what):
        perform(sandbox, code)
    assert perform(sandbox, "0").alive


@pytest.mark.parametrize("number", [1, 2, 9, 15, 17, 19])
def test_process_1_cannot_be_killed_from_within(sandbox: Sandbox, number: int) -> None:
    perform(sandbox, f"import os; os.kill(1, {number}); os.kill(os.getppid(), {number})")
    assert perform(sandbox, "0").alive


def test_a_sweep_ends_a_fork_bomb_and_puts_the_names_back(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_DEADLINE", "8")
    bomb = "import os\nif os.fork() == 0:\n    while True:\n        try: os.fork()\n        except OSError: pass\n"
    perform(sandbox, "sethostname('spoilt')\nmount('tmpfs', '/usr/games', 'tmpfs')\n" + bomb)
    assert sandbox.sweep()
    seen = Subject(sandbox).sandbox
    assert (seen.children(), seen.uname().host) == ([], "sandbox")
    assert not [mount for mount in seen.mountinfo() if mount.mountpoint == "/usr/games"]


def test_a_sandbox_that_lost_its_mounts_is_of_no_use(sandbox: Sandbox) -> None:
    perform(sandbox, "umount2('/usr', 2)")
    assert not sandbox.sweep()


def test_a_process_that_hangs_is_late(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_DEADLINE", "0.3")
    with pytest.raises(Late):
        perform(
            sandbox, "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind('\\0x')\nwhile True: pass"
        )


def test_the_same_process_can_be_looked_at_in_between(sandbox: Sandbox) -> None:
    subject = Subject(sandbox)
    top = subject.scratch("inner")
    process = subject.perform([("os.chdir", [top])])
    first = process.cwd()
    process.then("os.chdir", "inner")
    assert process.cwd() != first
    assert subject.sandbox.listdir(top) == ["inner"]


def test_the_exit_status_is_the_kernels_word(sandbox: Sandbox) -> None:
    kinds = set(Namespace) - {Namespace.USER, Namespace.UTS}
    container = Subject(sandbox).start(["sh", "-c", "exit 7"], namespaces=kinds)
    assert container.exit_status() == 7
    assert (container.state, container.gone) == ("Z", False)
    sandbox.hang_up()
    assert Subject(sandbox).until(lambda: container.gone)


def test_text_of_a_submission_becomes_plain() -> None:
    assert plain("a\x1b[2J\ud800\0b\nc") == "a�[2J?�b\nc"
    assert len(plain("x" * 10_000)) == 2000
    assert plain("x" * 5, limit=5) == "xxxxx"


def test_sockets_of_the_host_cannot_be_reached_by_name(sandbox: Sandbox) -> None:
    """Abstract names belong to the network namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours:
        name = f"labs-{os.getpid()}"
        ours.bind("\0" + name)
        ours.listen()
        assert "refused" in said(sandbox, f"socket.socket(socket.AF_UNIX).connect('\\0{name}')")
