"""``run -d`` and what one does with it afterwards: whatever is killed when, the next command finds the truth."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.command import DEADLINE, Command, line_of, needs_root, one_line, wait_until
from tests.host_state import HostUnchanged, bury_the_dead

pytestmark = needs_root

LOOP = "while :; do sleep 0.05; done"


def state_of(minicontainer: Command, name: str) -> dict[str, object]:
    """What inspect says of its state."""
    [found] = json.loads(minicontainer("inspect", name).stdout)
    state: dict[str, object] = found["State"]
    return state


def ended(minicontainer: Command, name: str) -> None:
    """Wait for its end."""
    wait_until(lambda: state_of(minicontainer, name)["Status"] == "exited", f"{name} ends")


def test_a_whole_life(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        done = minicontainer("run", "-d", "--name", "alpha", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
        assert (done.returncode, done.stderr) == (0, "") and len(done.stdout) == 13
        assert minicontainer("wait", "alpha").stdout == "7\n"
        row = minicontainer("ps", "-a").stdout.splitlines()[1]
        assert row.startswith(done.stdout.strip()) and "exited (7)" in row
        logs = minicontainer("logs", "alpha")
        assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
        assert minicontainer("start", "alpha").stdout == "alpha\n"
        assert minicontainer("wait", "alpha", "alpha").stdout == "7\n7\n"
        assert minicontainer("logs", "--tail", "1", "alpha").stderr == "err\n"
        stamped = minicontainer("logs", "-t", "alpha").stdout.splitlines()
        assert len(stamped) == 2 and all(line.endswith("Z out") for line in stamped)
        state = state_of(minicontainer, "alpha")
        assert (state["Running"], state["ExitCode"], state["Pid"]) == (False, 7, 0)
        assert str(state["StartedAt"]) <= str(state["FinishedAt"])
        assert minicontainer("rm", "alpha").returncode == 0
    assert minicontainer.containers() == []


def test_its_callers_files_are_not_held_open(minicontainer: Command) -> None:
    """``id=$(minicontainer run -d …)`` returns at once, also with standard error in the pipe."""
    done = minicontainer("run", "-d", "--name", "alpha", "busybox", "sleep", "600", stderr=subprocess.STDOUT, capture_output=False, stdout=subprocess.PIPE)  # fmt: skip
    assert len(done.stdout) == 13
    assert minicontainer("rm", "-f", "alpha").returncode == 0


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [(["nope"], 127, "not found"), (["/etc"], 126, "denied"), (["-w", "/nowhere", "true"], 125, "/nowhere")],
)
def test_what_cannot_be_started_leaves_nothing(
    minicontainer: Command, command: list[str], code: int, told: str
) -> None:
    options, words = (command[:2], command[2:]) if command[0] == "-w" else ([], command)
    done = minicontainer("run", "-d", *options, "busybox", *words)
    assert done.returncode == code and told in one_line(done.stderr).lower()
    assert minicontainer.containers() == []


def test_create_start_exec_stop_rm(minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "sh", "-c", f"echo up; {LOOP}")
    assert one_line(minicontainer("logs", "alpha").stderr).startswith('container "alpha" has no log')
    done = minicontainer("exec", "alpha", "true")
    assert done.returncode == 1 and "does not run" in one_line(done.stderr)
    assert minicontainer("start", "alpha").stdout == "alpha\n"
    again = minicontainer("start", "alpha")
    assert again.returncode == 125 and "runs already" in one_line(again.stderr)
    done = minicontainer(
        "exec", "-e", "A=b", "-w", "/tmp", "-u", "5:6", "alpha", "sh", "-c", "echo $A; pwd; id -u; exit 3"
    )
    assert (done.returncode, done.stdout) == (3, "b\n/tmp\n5\n")
    done = minicontainer("exec", "-i", "alpha", "cat", input="to and fro", stdin=None)
    assert done.stdout == "to and fro"
    assert minicontainer("exec", "alpha", "sh", "-c", "kill -9 $$").returncode == 137
    for words, code in ((["nope"], 127), (["/etc"], 126)):
        done = minicontainer("exec", "alpha", *words)
        assert done.returncode == code
        one_line(done.stderr)
    assert minicontainer("exec", "-d", "alpha", "sleep", "600").returncode == 0
    assert "sleep 600" in minicontainer("exec", "alpha", "ps").stdout
    assert minicontainer("stop", "-t", "5", "alpha").stdout == "alpha\n"
    assert minicontainer("wait", "alpha").stdout == "143\n"
    assert minicontainer("rm", "-f", "alpha").stdout == "alpha\n"
    assert minicontainer.containers() == []


def test_kill(minicontainer: Command) -> None:
    for options, code in (([], 137), (["-s", "USR1"], 138), (["-s", "SIGTERM"], 143), (["-s", "2"], 130)):
        minicontainer("run", "-d", "--name", "alpha", "busybox", "sleep", "600")
        assert minicontainer("kill", *options, "alpha").stdout == "alpha\n"
        assert minicontainer("wait", "alpha").stdout == f"{code}\n"
        minicontainer("rm", "alpha")
    done = minicontainer("kill", "-s", "NONSENSE", "alpha")
    assert done.returncode == 125 and "no signal" in one_line(done.stderr)
    done = minicontainer("kill", "alpha")
    assert done.returncode == 1 and "no container" in one_line(done.stderr)


def test_logs_that_are_followed_end_with_the_container(minicontainer: Command) -> None:
    script = "echo one; read x; echo two; exit 0"
    minicontainer("run", "-di", "--name", "alpha", "busybox", "sh", "-c", script)
    with minicontainer.running("logs", "-f", "alpha") as follows:
        assert line_of(follows.stdout) == "one\n"
        with minicontainer.running("attach", "alpha", stdin=-1) as attached:
            assert attached.stdin
            attached.stdin.write("\n")
            attached.stdin.flush()
            assert attached.wait(DEADLINE) == 0
        assert follows.wait(DEADLINE) == 0 and follows.stdout and follows.stdout.read() == "two\n"
    minicontainer("rm", "alpha")


def test_who_looks_through_a_pipe_that_is_closed_has_only_looked(minicontainer: Command) -> None:
    minicontainer("run", "-d", "--name", "alpha", "busybox", "sh", "-c", LOOP.replace("sleep", "echo x; sleep"))
    look = shlex.join(map(str, minicontainer.line("attach", "alpha")))
    done = subprocess.run(
        ["sh", "-c", f"{look} | head -n 2"], capture_output=True, text=True, timeout=DEADLINE, stdin=-3
    )
    assert (done.stdout, done.stderr) == ("x\nx\n", "")
    assert "running" in minicontainer("ps").stdout
    minicontainer("rm", "-f", "alpha")


def test_attach_ends_as_the_container_does_and_passes_signals_on(minicontainer: Command) -> None:
    script = f"trap 'echo bye; exit 4' INT; echo up; {LOOP}"
    minicontainer("run", "-d", "--rm", "--name", "alpha", "busybox", "sh", "-c", script)
    with minicontainer.running("attach", "alpha") as attached:
        wait_until(lambda: "inotify" in " ".join(_open(attached.pid)), "it watches")
        attached.send_signal(signal.SIGINT)
        assert attached.communicate(timeout=DEADLINE) == ("bye\n", "") and attached.returncode == 4
    assert minicontainer.containers() == []


def _open(pid: int) -> list[str]:
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(fd))
    return found


def test_a_terminal_that_nobody_holds(minicontainer: Command) -> None:
    """Process 1 does; it can be attached to, and left."""
    minicontainer("run", "-dt", "--name", "alpha", "busybox", "sh")
    done = minicontainer("attach", "alpha", input="tty; echo ho\n\x10\x11", stdin=None)
    assert done.returncode == 0
    wait_until(lambda: "\nho" in minicontainer("logs", "alpha").stdout.replace("\r", ""), "it has answered")
    assert "/dev/pts/0" in minicontainer("logs", "alpha").stdout
    assert state_of(minicontainer, "alpha")["Running"] is True
    assert minicontainer("attach", "alpha", input="exit 6\n", stdin=None).returncode == 6
    minicontainer("rm", "alpha")


def test_what_somebody_stays_with_cannot_be_attached_to(minicontainer: Command) -> None:
    with minicontainer.running("run", "--rm", "--name", "alpha", "busybox", "sh", "-c", f"echo up; {LOOP}") as runs:
        line_of(runs.stdout)
        wait_until(lambda: "  running  " in minicontainer("ps").stdout, "it runs")
        done = minicontainer("attach", "alpha")
        assert done.returncode == 1 and "stays with it" in one_line(done.stderr)
        assert minicontainer("exec", "alpha", "hostname").returncode == 0
        assert minicontainer("stop", "alpha").returncode == 0
        assert runs.wait(DEADLINE) == 143
    assert minicontainer.containers() == []


def test_the_command_that_started_it_is_killed_at_any_moment(
    minicontainer: Command, host_unchanged: HostUnchanged
) -> None:
    """Then it runs, and its log is whole; or it does not, and nothing of it is left."""
    chance, ran = random.Random(4), 0
    script = "for i in 1 2 3 4 5; do echo $i; sleep 0.01; done; exit 5"
    line = minicontainer.line("run", "-d", "--name", "alpha", "busybox", "sh", "-c", script)
    with host_unchanged():
        begin = time.monotonic()
        assert subprocess.run(line, stdin=-3, stdout=-3, stderr=-3).returncode == 0
        whole = time.monotonic() - begin  # on this machine, with whatever else it does
        minicontainer("rm", "-f", "alpha")
        for moment in range(16):
            process = subprocess.Popen(line, stdin=-3, stdout=-3, stderr=-3)
            pidfd = os.pidfd_open(process.pid)
            select.select([pidfd], [], [], (moment + chance.random()) * whole / 10)
            os.close(pidfd)
            process.kill()
            process.wait()
            shown = wait_until(lambda: _settled(minicontainer), "it is this or that")
            if "exited" in shown:
                ran += 1
                assert "exited (5)" in shown
                assert minicontainer("logs", "alpha").stdout == "1\n2\n3\n4\n5\n"
            minicontainer("system", "repair")
            bury_the_dead()
            minicontainer("rm", "alpha")
            assert minicontainer.containers() == []
    assert ran > 0, "it was always killed too early: this tests nothing"


def _settled(minicontainer: Command) -> str:
    """The line of ps; "" while the container is on its way."""
    shown = minicontainer("ps", "-a").stdout
    return "" if "running" in shown or "starting" in shown else shown


def test_rm_of_everything_leaves_no_trace(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        for number in range(3):
            minicontainer(
                "run", "-d", "-m", "64m", "--name", f"c{number}", "busybox", "sh", "-c", "sleep 600 & sleep 600"
            )
        minicontainer("exec", "-d", "c0", "sleep", "600")
        minicontainer("pause", "c1")
        minicontainer("run", "-d", "--rm", "--name", "c3", "busybox", "true")
        begun = time.monotonic()
        names = minicontainer("ps", "-aq").stdout.split()
        done = minicontainer("rm", "-f", *names)
        assert done.returncode == 0 and time.monotonic() - begun < DEADLINE
        wait_until(lambda: minicontainer("ps", "-aq").stdout == "", "what was to go has gone")
    assert minicontainer.containers() == []
