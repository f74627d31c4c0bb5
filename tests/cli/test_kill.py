"""kill -9 of ``minicontainer run``, whenever: what it leaves is put right by ``minicontainer system repair``."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
from pathlib import Path

import pytest

from minicontainer.linux.cgroups import hierarchy_of, mountable
from tests.cli.tracing import CALLS, every_call, needs_strace, signalled_at
from tests.command import DEADLINE, Command, line_of, needs_root, wait_until
from tests.host_state import HostUnchanged, bury_the_dead

pytestmark = needs_root

RUN = ["run", "--rm", "-m", "64m", "--pids-limit", "20", "busybox", "cat"]


def every_limit() -> list[str]:
    """The command with limits for which many files are written, in every tree that there is, and one mounted for it."""
    limits = ["--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--memory-reservation", "32m"]
    if hierarchy_of("net_cls") or mountable("net_cls"):
        limits += ["--net-class", "10:1"]
    return [*RUN[:-2], *limits, "--cgroup-parent", "web/front", *RUN[-2:]]


SAMPLED = {"openat": 32, "mkdir": 3, "rmdir": 3}
"""Of these only each so manieth: most openat are imports, and the directories of one group are much alike."""


def nothing_is_left(minicontainer: Command, where: str, twice: bool = True) -> None:
    """Repair, and look."""
    bury_the_dead()
    done = minicontainer("system", "repair")
    assert (done.returncode, done.stderr) == (0, ""), where
    assert minicontainer.containers() == [], f"{where}: {done.stdout}"
    # A filter that was compiled is as good at the next start; what has happened has happened.
    kept = set(os.listdir(minicontainer.root)) - {"seccomp", "events"}
    assert kept in ({"containers", "images", "layers", "lock", "names"}, {"images", "layers"}), where
    if twice:
        assert minicontainer("system", "repair").stdout == "", f"{where}: the first repair was not the whole of it"


@needs_strace
def test_at_each_of_its_system_calls(minicontainer: Command, host_unchanged: HostUnchanged, tmp_path: Path) -> None:
    command, kills = minicontainer.line(*every_limit()), 0
    with host_unchanged():
        for call, when in every_call(command, [*CALLS, "mount", "umount2", "openat"], tmp_path / "calls"):
            if when % SAMPLED.get(call, 1):
                continue
            tracer = signalled_at(call, when, signal.SIGKILL, command)
            done = subprocess.run(tracer, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)
            kills += done.returncode in (-signal.SIGKILL, 137)
            nothing_is_left(minicontainer, f"kill -9 at {call} number {when}", twice=kills % 6 == 0)
    assert kills >= 40, f"only {kills} kills: this tests nothing"


def test_at_any_moment(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    """Between the system calls, and while others are under way: at thirty moments of its first 60 ms."""
    chance = random.Random(1)
    with host_unchanged():
        for moment in range(30):
            process = subprocess.Popen(minicontainer.line(*RUN[:-1], "sleep", "600"), stdin=-3, stdout=-3, stderr=-3)
            pidfd = os.pidfd_open(process.pid)
            select.select([pidfd], [], [], (moment + chance.random()) * 0.002)  # its own end, or so many ms
            os.close(pidfd)
            process.kill()
            process.wait()
            nothing_is_left(minicontainer, f"kill -9 after {moment * 2} ms")


def test_while_it_runs(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    """The container does not outlive who watched it; what it was to be, if it was to stay, does."""
    with (
        host_unchanged(),
        minicontainer.running(
            "run", "--name", "alpha", "-m", "64m", "busybox", "sh", "-c", "trap '' TERM INT HUP; echo up; sleep 600"
        ) as process,
    ):
        line_of(process.stdout)
        process.kill()
        assert process.stdout and select.select([process.stdout], [], [], DEADLINE)[0]
        assert process.stdout.read() == ""  # the last process that held the pipe has ended
        process.wait()
        assert "exited (unknown)" in minicontainer("ps", "-a").stdout
        assert "recorded as ended" in minicontainer("system", "repair").stdout
        done = minicontainer("wait", "alpha")
        assert done.returncode == 125 and "not known" in done.stderr
        assert minicontainer("rm", "alpha").returncode == 0
    assert minicontainer.containers() == []


def test_of_process_1(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    with (
        host_unchanged(),
        minicontainer.running(
            "run", "--rm", "--name", "alpha", "-m", "64m", "busybox", "sh", "-c", "echo up; sleep 600"
        ) as process,
    ):
        line_of(process.stdout)
        # The program may be heard before process 1 has said that it has started it.
        wait_until(lambda: "  running  " in minicontainer("ps").stdout, "it runs")
        [init] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(init), signal.SIGKILL)
        assert process.wait(DEADLINE) == 137
    assert minicontainer.containers() == []


def test_of_create_rm_and_the_first_use_of_the_image(tmp_path: Path) -> None:
    """Whatever was half made or half removed: the next command works."""
    chance = random.Random(2)
    for attempt in range(12):
        command = Command(tmp_path / f"state{attempt}")
        for arguments in (["create", "--name", "alpha", "busybox", "true"], ["rm", "alpha"]):
            process = subprocess.Popen(command.line(*arguments), stdin=-3, stdout=-3, stderr=-3)
            pidfd = os.pidfd_open(process.pid)
            select.select([pidfd], [], [], chance.random() * 0.12)
            os.close(pidfd)
            process.kill()
            process.wait()
            bury_the_dead()
        assert command("system", "repair").returncode == 0
        command("rm", "alpha")
        done = command("run", "--rm", "--name", "alpha", "busybox", "echo", "up")
        assert (done.returncode, done.stdout, done.stderr) == (0, "up\n", "")
        assert command.containers() == []
        assert command("image", "prune").returncode == 0
        assert len([name for name in os.listdir(command.root / "layers") if name != "lock"]) == 1
        assert not os.listdir(command.root / "images/ingest")


@needs_strace
@pytest.mark.parametrize("process_1", ["ours", "its own"])
def test_of_start_and_stop(
    minicontainer: Command, host_unchanged: HostUnchanged, tmp_path: Path, process_1: str
) -> None:
    """Of one that is left alone: then it runs or it does not, stop ends it all the same, and nothing else is left."""
    own = ["--no-init"] if process_1 == "its own" else []
    stop, kills = ("stop", "-t", "0", "c1"), 0
    with host_unchanged():
        assert minicontainer("create", "--name", "c1", *own, "busybox", "sleep", "600").returncode == 0
        for words in (("start", "c1"), stop):
            if words == stop:
                minicontainer("start", "c1")
            command = minicontainer.line(*words)
            found = every_call(command, [*CALLS, "pidfd_send_signal", "openat"], tmp_path / "calls")
            calls = [(call, when) for call, when in found if not when % SAMPLED.get(call, 1)]
            assert minicontainer(*stop).returncode == 0
            for call, when in calls[:: max(1, len(calls) // 4)]:
                where = f"{words}: kill -9 at {call} number {when}"
                if words == stop:
                    assert minicontainer("start", "c1").returncode == 0, where
                tracer = signalled_at(call, when, signal.SIGKILL, command)
                done = subprocess.run(tracer, stdin=-3, capture_output=True, timeout=DEADLINE)
                kills += done.returncode in (-signal.SIGKILL, 137)
                bury_the_dead()
                wait_until(lambda: "starting" not in minicontainer("ps", "-a").stdout, where)
                repaired = minicontainer("system", "repair")
                assert (repaired.returncode, repaired.stderr) == (0, ""), where
                assert minicontainer(*stop).returncode == 0, where
                assert "running" not in minicontainer("ps", "-a").stdout, where
        assert minicontainer("rm", "c1").returncode == 0
        nothing_is_left(minicontainer, "in the end")
    assert kills >= 6, f"only {kills} kills: this tests nothing"
