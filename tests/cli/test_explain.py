"""``--explain``: the system calls of a command, in order, with their pages. strace(1) is the witness for the order."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cli.test_rootless import UID, reachable
from tests.cli.tracing import needs_strace
from tests.command import DEADLINE, Command, needs_root, one_line
from tests.host_state import HostUnchanged

ISOLATION = (
    "mount umount2 pivot_root chroot chdir fchdir unshare setns clone3 sethostname setdomainname open_tree move_mount "
    "fsopen fsconfig fsmount fspick mount_setattr openat2 setsid setgroups setresuid setresgid capset seccomp keyctl "
    "prctl"
).split()
"""Calls by which a process changes what it sees, who it is and what it may do."""

EXPLAINED = re.compile(r"^ {4}(\w+)\((.*)\) = (-?\d+)(?: (E\w+) \([^)]*\))? +([\w+]+\(\d\))(?: +line (\d+))?$")
"""A line of the explanation."""

MESSAGE = re.compile(r"^ {4}(RTM_\w+|nft):? (.*) = (-?\d+)(?: (E\w+) \([^)]*\))? +(\w+\(\d\))$")
"""Likewise, of a message to the kernel."""

Made = tuple[str, str, str]
"""A call: name, arguments, result (or the errno's name)."""


Explanation = dict[int, list[tuple[Made, str, str]]]
"""pid → its calls in order, each with its step and its page."""


def explanation(text: str) -> Explanation:
    """Read what was written for a person."""
    found: Explanation = {}
    calls: list[tuple[Made, str, str]] = []
    step = ""
    for line in text.splitlines():
        if made := EXPLAINED.match(line) or MESSAGE.match(line):
            calls.append(((made[1], made[2], made[4] or made[3]), step, made[5]))
        elif line.startswith("  "):
            step = line.strip().partition(":")[0]
        else:
            heading = re.fullmatch(r"(?:the caller|process 1 of the container|a child), pid (\d+)", line)
            assert heading, line
            calls = found.setdefault(int(heading[1]), [])
    return found


def written_alike(name: str, arguments: str, result: str) -> Made:
    """What strace and we write in different ways, in one: flags in any order, fields of structures that are 0."""
    arguments = re.sub(r"[\w<]+(?:\|[\w<]+)+", lambda names: "|".join(sorted(names[0].split("|"))), arguments)
    if name == "clone3":
        arguments = re.sub(r", (exit_signal|stack|stack_size|cgroup)=\w+", "", arguments)
        arguments = re.sub(r" => .*", "", arguments)
    if name == "capset":
        arguments = arguments.replace("1<<", "").replace("_LINUX_CAPABILITY_VERSION_", "")
    arguments = re.sub(r" /\* \w+\?\?\? \*/", "", arguments)  # a name that this strace does not know
    arguments = re.sub(r"\b0x[0-9a-f]+", lambda number: str(int(number[0], 16)), arguments)
    arguments = re.sub(r", \w+=0\b", "", arguments)
    arguments = re.sub(r"filter=[^}]*", "filter", arguments)
    return name, arguments, result


def traced(prefix: Path, pid: int, *, first: bool) -> list[Made]:
    """What strace saw of a process: of the `first`, since it executes our code, of others, until they execute another."""
    lines = Path(f"{prefix}.{pid}").read_text().splitlines()
    executed = [number for number, line in enumerate(lines) if line.startswith("execve(")]
    made = []
    for line in lines[executed[-1] + 1 :] if first else lines[: executed[0] if executed else None]:
        call = re.match(r"(\w+)\((.*)\) += (-?\d+|\?)(?: (E\w+))?", line)
        theirs = ("CLONE_VFORK", "CLONE_THREAD", "PR_CAPBSET_READ")  # posix_spawn(3)'s, a thread's; and a mere question
        if call and call[1] in ISOLATION and not any(word in line for word in theirs):
            made.append(written_alike(call[1], call[2], call[4] or call[3]))
    return made


def agree(directory: Path, file: Path, command: list[Any]) -> Explanation:
    """Run a command, which explains itself in `file`, under strace; fails where the two differ."""
    prefix = directory / "strace"
    calls = f"trace=execve,{','.join(ISOLATION)}"
    line = ["strace", "-ff", "-qq", "-s", "4096", "-e", calls, "-o", str(prefix), *command]
    ran = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * DEADLINE)
    assert ran.returncode == 0, ran.stderr
    said = explanation(file.read_text())
    assert len(said) > 1, "process 1 is missing"
    for number, (pid, calls_made) in enumerate(said.items()):
        ours = [written_alike(*made) for made, _, _ in calls_made if made[0] in ISOLATION]
        assert ours == traced(prefix, pid, first=number == 0), f"process {pid}"
    return said


@needs_root
@needs_strace
def test_run_agrees_with_strace(minicontainer: Command, tmp_path: Path) -> None:
    """Every call of every process of ours by which anything is isolated, with its arguments, in the same order."""
    wishes = ["--hostname", "alpha", "--domainname", "b", "--memory", "64m", "-v", f"{tmp_path}:/v:ro", "-e", "A=é"]
    line = minicontainer.line("--explain-to", tmp_path / "file", "run", "--rm", *wishes, "busybox", "true")
    caller, init = agree(tmp_path, tmp_path / "file", line).values()
    names = [made[0] for made, _, _ in init]
    assert {"unshare", "sethostname", "mount", "pivot_root", "seccomp", "capset", "posix_spawn"} <= {*names}
    assert (("sethostname", '"alpha", 5', "0"), "uts.set_names", "sethostname(2)") in init
    assert ("pid.spawn_init", "clone(2)") in [(step, page) for _, step, page in caller]
    assert "memory.limit_memory" in {step for made, step, page in caller if made[0] == "write" and page == "cgroups(7)"}


@needs_root
@needs_strace
def test_exec_agrees_with_strace(minicontainer: Command, tmp_path: Path) -> None:
    assert minicontainer("run", "-d", "--name", "c1", "busybox", "sleep", "600").returncode == 0
    try:
        line = minicontainer.line("exec", "--explain-to", tmp_path / "file", "c1", "true")
        _, joiner, program = agree(tmp_path, tmp_path / "file", line).values()
    finally:
        minicontainer("rm", "-f", "c1")
    assert "network.join" in [step for made, step, _ in joiner if made[0] == "setns"]
    assert program[-1][0][0] == "execve" and '"/bin/true"' in program[-1][0][1]


@needs_root
@needs_strace
def test_the_making_of_a_network_agrees_with_strace(on: Command, tmp_path: Path) -> None:
    """The caller enters network namespaces and comes back; what it sends there is told as messages, not as bytes."""
    wishes = ["--network", "bridge", "-p", "8080:80"]
    line = on.line("--explain-to", tmp_path / "file", "run", "--rm", *wishes, "busybox", "true")
    caller, _ = list(agree(tmp_path, tmp_path / "file", line).values())[:2]
    told = [(step, made[0], page) for made, step, page in caller]
    for step, name, page in (
        ("bridge.create_bridge", "RTM_NEWLINK", "rtnetlink(7)"),
        ("bridge.create_bridge", "RTM_NEWADDR", "rtnetlink(7)"),
        ("nat.masquerade", "nft", "nft(8)"),
        ("bridge.connect", "setns", "setns(2)"),
        ("bridge.connect", "RTM_NEWROUTE", "rtnetlink(7)"),
        ("nat.publish", "nft", "nft(8)"),
    ):
        assert (step, name, page) in told
    texts = [made[1] for made, _, _ in caller]
    assert 'make bridge "minicontainer0"' in texts
    assert any(text.startswith("add element inet minicontainer ports_at { 127.0.0.1 . tcp . 8080 ") for text in texts)
    assert not any("mc-" in made[1] or "eth0\\0" in made[1] for made, _, _ in caller if made[0] == "write")


@needs_root
def test_commands_of_networks(on: Command) -> None:
    assert on("network", "create", "--explain", "blue").returncode == 0  # is remembered, and no more
    assert on("run", "-d", "--name", "c1", "--network", "bridge", "busybox", "sleep", "600").returncode == 0
    try:
        done = on("network", "connect", "--explain", "blue", "c1")
        assert done.returncode == 0 and "  bridge.connect: " in done.stderr and 'with "eth1" = 0' in done.stderr
        done = on("--explain", "network", "disconnect", "blue", "c1")
        assert done.returncode == 0 and "RTM_DELLINK: remove device " in done.stderr
    finally:
        on("rm", "-f", "c1")
        on("network", "rm", "blue")


@needs_root
@needs_strace
def test_an_ordinary_users_run_agrees_with_strace(tmp_path: Path) -> None:
    prefix, command = reachable(tmp_path, "--explain-to", "/mnt/state/file", "run", "--rm", "busybox", "true")
    become = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--inh-caps=-all"]
    caller, init = agree(tmp_path, tmp_path / "state/file", [*prefix, *become, *command]).values()
    maps = [(made, page) for made, step, page in caller if step == "user.write_maps" and made[0] == "write"]
    assert [made[1].split(", ", 1)[1] for made, _ in maps] == ['"deny", 4', f'"0 {UID} 1", 9', f'"0 {UID} 1", 9']
    assert {page for _, page in maps} == {"user_namespaces(7)"}
    assert "user.become_root" in {step for made, step, _ in init if made[0] == "setresuid"}


MINE = """# %%exercise uts.set_names
def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host * 100)
"""


@needs_root
def test_a_students_step_is_explained_as_ours_are(minicontainer: Command, tmp_path: Path) -> None:
    """With the line of the cell in which each call is made; and what fails is there, with the errno."""
    (tmp_path / "mine.py").write_text(MINE)
    done = minicontainer("--steps", tmp_path / "mine.py", "run", "--explain", "--rm", "-h", "a", "busybox", "true")
    assert done.returncode == 125
    *explained, error = done.stderr.splitlines()
    at = explained.index("  uts.set_names, yours")
    assert explained[at + 1].split() == ["unshare(CLONE_NEWUTS)", "=", "0", "unshare(2)", "line", "3"]
    assert "= -1 EINVAL (Invalid argument)" in explained[at + 2] and explained[at + 2].endswith("  line 4")
    assert error.startswith("minicontainer: uts.set_names: sethostname(")
    assert minicontainer.containers() == []


def test_without_being_asked_nothing_of_it_is_loaded(minicontainer: Command, tmp_path: Path) -> None:
    program = f"""
import sys
from minicontainer.cli import main
code = main(["--root", {str(minicontainer.root)!r}, "run", "--rm", "busybox", "true"])
assert "minicontainer.linux.recording" not in sys.modules and "minicontainer.linux.notation" not in sys.modules
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_explanation_is_there_when_the_program_runs(minicontainer: Command) -> None:
    """Not only at the end, which may be far away. What is done after it follows then."""
    with minicontainer.running("--explain", "run", "-i", "--rm", "busybox", "cat", stdin=subprocess.PIPE) as running:
        assert running.stderr
        read = b""
        while b"posix_spawn(" not in read:
            assert select.select([running.stderr], [], [], DEADLINE)[0], read
            read += os.read(running.stderr.fileno(), 1 << 16)
        _, rest = running.communicate("", timeout=DEADLINE)
    assert running.returncode == 0
    if os.geteuid() == 0:
        assert "group.remove_group" in rest


def test_the_programs_output_is_its_own(minicontainer: Command) -> None:
    done = minicontainer("run", "--explain", "--rm", "busybox", "echo", "--explain")
    assert done.stdout == "--explain\n" and "\nprocess 1 of the container, pid " in done.stderr


def test_create_start_and_rm(minicontainer: Command) -> None:
    assert minicontainer("create", "--explain", "--name", "c1", "busybox", "true").stderr == ""  # a note, and no more
    done = minicontainer("--explain", "start", "-a", "c1")
    assert done.returncode == 0 and "unshare(CLONE_NEWUTS) = 0" in done.stderr
    assert minicontainer("rm", "--explain", "c1").returncode == 0


def test_a_file_that_cannot_be_written(minicontainer: Command, tmp_path: Path) -> None:
    done = minicontainer("run", "--explain-to", tmp_path / "no/file", "--rm", "busybox", "true")
    assert done.returncode == 125
    assert one_line(done.stderr) == f"--explain-to {tmp_path}/no/file: No such file or directory"
    assert minicontainer.containers() == []


@needs_root
def test_who_reads_may_stop(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    """``--explain … 2>&1 | head``: what is explained goes on as it would without."""
    with host_unchanged():
        for words, status in ((["run", "--rm"], 7), (["run", "-d", "--name", "c1"], 0)):
            read, write = os.pipe()
            os.close(read)
            try:
                line = minicontainer.line("--explain", *words, "busybox", "sh", "-c", "exit 7")
                done = subprocess.run(
                    line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=write, timeout=DEADLINE
                )
            finally:
                os.close(write)
            assert done.returncode == status
        assert minicontainer("wait", "c1").stdout == "7\n"
        assert minicontainer("rm", "c1").returncode == 0
        assert minicontainer.containers() == []


@needs_root
def test_a_full_disk_is_told_and_harms_nobody(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        done = minicontainer("run", "--explain-to", "/dev/full", "--rm", "busybox", "sh", "-c", "echo here; exit 7")
        assert (done.returncode, done.stdout) == (7, "here\n")
        assert one_line(done.stderr) == "--explain-to /dev/full is incomplete: No space left on device"
        with open("/dev/full", "w") as full:
            assert (
                minicontainer(
                    "--explain", "run", "--rm", "busybox", "true", capture_output=False, stderr=full
                ).returncode
                == 0
            )
        assert minicontainer.containers() == []
