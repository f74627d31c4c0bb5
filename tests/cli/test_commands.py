"""The ``minicontainer`` command as its user sees it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.command import DEADLINE, Command, line_of, needs_root, one_line

pytestmark = needs_root


def test_the_first_command_of_the_issue(minicontainer: Command) -> None:
    done = minicontainer("run", "--rm", "busybox", "hostname")
    assert re.fullmatch(r"[0-9a-f]{12}\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() != socket.gethostname()
    assert minicontainer.containers() == []


def test_the_image_is_made_at_first_use_without_a_network(tmp_path: Path) -> None:
    command = Command(tmp_path / "state")
    done = subprocess.run(
        ["unshare", "--net", *command.line("run", "--rm", "busybox", "hostname")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    [layer] = (tmp_path / "state/layers").iterdir()
    assert (layer / "diff/bin/busybox").is_file()


def test_a_students_steps(minicontainer: Command, tmp_path: Path) -> None:
    cell = "%%exercise uts.set_names\ndef set_names(host, domain=None):\n    unshare(CLONE_NEWUTS)\n    sethostname(host.upper())"
    notebook = {
        "cells": [{"cell_type": "code", "source": cell, "metadata": {}, "outputs": []}],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "03-uts.ipynb").write_text(json.dumps(notebook))
    done = minicontainer(
        "--steps", tmp_path / "03-uts.ipynb", "run", "--rm", "--hostname", "alpha", "busybox", "hostname"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ALPHA\n", "")


@pytest.mark.parametrize("status", [0, 1, 7, 125, 126, 127, 137, 255])
def test_the_exit_code_is_the_programs(minicontainer: Command, status: int) -> None:
    done = minicontainer("run", "--rm", "busybox", "sh", "-c", f"exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_a_signal_is_128_and_its_number(minicontainer: Command) -> None:
    assert minicontainer("run", "--rm", "busybox", "sh", "-c", "kill -9 $$").returncode == 137


def test_standard_input_only_when_asked_for(minicontainer: Command) -> None:
    assert minicontainer("run", "--rm", "busybox", "cat", stdin=None, input="typed").stdout == ""
    assert minicontainer("run", "--rm", "-i", "busybox", "cat", stdin=None, input="typed").stdout == "typed"


def test_output_is_passed_on_as_it_is(minicontainer: Command) -> None:
    done = minicontainer("run", "--rm", "busybox", "sh", "-c", "printf '\\377\\0\\1'; printf '\\376' >&2", text=False)
    assert (done.stdout, done.stderr) == (b"\xff\0\1", b"\xfe")  # type: ignore[comparison-overlap]


def test_a_closed_reader_ends_the_program_and_is_no_error_of_ours(minicontainer: Command) -> None:
    line = shlex.join(map(str, minicontainer.line("run", "--rm", "busybox", "yes")))
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done.stdout, done.stderr) == ("y\n141\n", "")
    line = shlex.join(map(str, minicontainer.line("ps")))
    done = subprocess.run(["bash", "-c", f"{line} | true"], capture_output=True, text=True, timeout=DEADLINE)
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_are_not_taken_for_something_else(minicontainer: Command, closed: str) -> None:
    """What is opened next gets their numbers: a socket of ours must not become the program's output."""
    script = "ls -l /proc/$$/fd | grep -c -e socket -e signalfd -e eventpoll -e lock > /v/seen; echo out; echo err >&2; exit 7"
    volume = minicontainer.root.parent
    line = shlex.join(map(str, minicontainer.line("run", "--rm", "-v", f"{volume}:/v", "busybox", "sh", "-c", script)))
    done = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, text=True, timeout=DEADLINE)
    assert (volume / "seen").read_text() == "0\n"
    assert done.returncode == 7
    assert minicontainer.containers() == []


@pytest.mark.parametrize("ignored", ["CHLD", "PIPE", "INT TERM HUP QUIT", "ALRM USR1 USR2"])
def test_signals_that_somebody_ignores_above_us(minicontainer: Command, ignored: str) -> None:
    """nohup, and daemons that never wait for their children, hand that down through execve(2)."""
    import sys

    program = (
        "import os, signal, sys\n"
        f"for name in {ignored.split()!r}: signal.signal(getattr(signal, 'SIG' + name), signal.SIG_IGN)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    line = minicontainer.line(
        "run", "--rm", "-m", "64m", "busybox", "sh", "-c", "grep ^SigIgn /proc/self/status; exit 7"
    )
    done = subprocess.run([sys.executable, "-c", program, *line], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (7, "")
    assert int(done.stdout.split()[1], 16) & ~(1 << 31 | 1 << 32) == 0
    assert minicontainer.containers() == []


def test_names_environment_and_working_directory(minicontainer: Command) -> None:
    done = minicontainer(
        "run", "--rm", "--hostname", "alpha", "--domainname", "beta", "-e", "A=1", "-e", "FROM_HERE", "-e", "NOT_THERE", "-w", "/tmp",
        "busybox", "sh", "-c", "hostname; cat /proc/sys/kernel/domainname; echo $A $FROM_HERE; pwd",
        env={**os.environ, "FROM_HERE": "there"},
    )  # fmt: skip
    assert done.stdout == "alpha\nbeta\n1 there\n/tmp\n"


def test_volumes(minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    done = minicontainer(
        "run",
        "--rm",
        "-v",
        f"{tmp_path}/v:/rw",
        "-v",
        f"{tmp_path}/v:/ro:ro",
        "busybox",
        "sh",
        "-c",
        "echo x > /rw/f; cat /ro/f; echo y > /ro/f",
    )
    assert done.stdout == "x\n" and "Read-only" in done.stderr
    assert (tmp_path / "v/f").read_text() == "x\n"


def test_a_read_only_volume_and_the_mounts_below_it(minicontainer: Command, tmp_path: Path) -> None:
    """bind(2) through mount(2) leaves them writable; in a mount namespace of the test's own, which has such a mount."""
    (tmp_path / "v/below").mkdir(parents=True)
    line = shlex.join(
        map(str, minicontainer.line("run", "--rm", "-v", f"{tmp_path}/v:/v:ro", "busybox", "touch", "/v/below/x"))
    )
    script = f"mount -t tmpfs none {shlex.quote(str(tmp_path / 'v/below'))} && {line}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1 and "Read-only file system" in done.stderr


def test_a_shared_root_mount_gets_nothing_from_us(minicontainer: Command) -> None:
    """systemd makes "/" shared: what we mount must not spread to it. In a mount namespace where it is so."""
    line = shlex.join(map(str, minicontainer.line("run", "--rm", "busybox", "true")))
    script = f"mount --make-rshared / && cat /proc/self/mountinfo | wc -l && {line} && cat /proc/self/mountinfo | wc -l"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, "")
    before, after = done.stdout.split()
    assert before == after


def test_a_rootfs_is_not_written_to(minicontainer: Command, busybox: str, tmp_path: Path) -> None:
    root = tmp_path / "odd, na:me"
    subprocess.run(["cp", "-a", busybox, root], check=True)
    done = minicontainer("run", "--rm", "--rootfs", root, "sh", "-c", "echo x > /new; cat /new")
    assert done.stdout == "x\n"
    assert not (root / "new").exists()


@pytest.mark.parametrize(
    ("option", "kind"),
    [("--uts", "uts"), ("--ipc", "ipc"), ("--cgroupns", "cgroup"), ("--timens", "time"), ("--network", "net")],
)
def test_a_namespace_of_the_host_can_be_shared(minicontainer: Command, option: str, kind: str) -> None:
    done = minicontainer("run", "--rm", option, "host", "busybox", "readlink", f"/proc/self/ns/{kind}")
    assert done.stdout.strip() == os.readlink(f"/proc/self/ns/{kind}")
    done = minicontainer("run", "--rm", "busybox", "readlink", f"/proc/self/ns/{kind}")
    assert done.stdout.strip() != os.readlink(f"/proc/self/ns/{kind}")


def test_limits(minicontainer: Command) -> None:
    assert minicontainer("run", "--rm", "-m", "32m", "busybox", "tail", "/dev/zero").returncode == 137
    done = minicontainer(
        "run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6; do sleep 600 & done"
    )
    assert done.returncode != 0 and "can't fork" in done.stderr


def test_without_init_the_command_is_process_1(minicontainer: Command) -> None:
    assert minicontainer("run", "--rm", "--no-init", "busybox", "sh", "-c", "echo $$").stdout == "1\n"


def test_whoever_loses_its_parent_is_buried(minicontainer: Command) -> None:
    """A zombie keeps its name, so pgrep(1) would find it for ever; there is no option to ask for a reaper."""
    script = "sh -c 'sleep 0.1 &'; while pgrep -x sleep >/dev/null; do usleep 10000; done; ps -o pid,comm | head -2"
    done = minicontainer("run", "--rm", "busybox", "sh", "-c", script)
    assert done.returncode == 0 and done.stdout.split()[2] == "1", done


def test_a_whole_life(minicontainer: Command) -> None:
    created = minicontainer("create", "--name", "alpha", "busybox", "sh", "-c", "echo here; exit 4")
    assert re.fullmatch(r"[0-9a-f]{12}\n", created.stdout)
    assert "created" in minicontainer("ps", "-a").stdout and "alpha" not in minicontainer("ps").stdout
    started = minicontainer("start", "-a", "alpha")
    assert (started.returncode, started.stdout) == (4, "here\n")
    assert "exited (4)" in minicontainer("ps", "-a").stdout
    assert minicontainer("wait", "alpha").stdout == "4\n"
    assert minicontainer("ps", "-aq").stdout == created.stdout
    assert minicontainer("rm", "alpha").stdout == "alpha\n"
    assert minicontainer("ps", "-aq").stdout == ""
    assert minicontainer.containers() == []


def test_ps_has_one_line_for_each_whatever_the_command_is(minicontainer: Command) -> None:
    for number, word in enumerate([b"a\nb", b"\xff", b"\x1b[31mred", "ä\u2028".encode(), b"\t\r"]):
        assert minicontainer("create", "--name", f"c{number}", "busybox", "echo", word).returncode == 0
    done = minicontainer("ps", "-a", text=False)
    assert (done.returncode, done.stderr) == (0, b"")  # type: ignore[comparison-overlap]
    assert len(done.stdout.decode("utf-8", "surrogateescape").splitlines()) == 6
    assert b"\x1b" not in done.stdout  # type: ignore[operator]
    assert minicontainer("rm", *(f"c{number}" for number in range(5))).returncode == 0


def test_rm_goes_on_after_one_that_could_not_be_removed(minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    done = minicontainer("rm", "nope", "alpha")
    assert (done.returncode, done.stdout) == (1, "alpha\n")
    assert "nope" in one_line(done.stderr)


def test_rm_of_what_runs_wants_force(minicontainer: Command) -> None:
    with minicontainer.running("run", "--name", "alpha", "busybox", "sh", "-c", "echo up; sleep 600") as process:
        line_of(process.stdout)
        refused = minicontainer("rm", "alpha")
        assert refused.returncode == 1 and "rm -f alpha" in one_line(refused.stderr)
        assert minicontainer("rm", "-f", "alpha").returncode == 0
        assert process.wait(DEADLINE) == 137
        assert process.stderr and process.stderr.read() == ""


def test_two_state_directories_never_meet(minicontainer: Command, tmp_path: Path, images: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/images").symlink_to(images)
    other = Command(tmp_path / "other")
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert other("create", "--name", "alpha", "busybox", "true").returncode == 0
    assert minicontainer("rm", "alpha").returncode == other("rm", "alpha").returncode == 0


def test_check_says_yes_here_and_leaves_nothing(minicontainer: Command) -> None:
    done = minicontainer("check", "--json")
    findings = {finding["feature"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert findings["a container starts"]["works"]
    assert {
        f"{name.removesuffix('_for_children')} namespace" for name in os.listdir("/proc/self/ns")
    } <= findings.keys()
    assert minicontainer("check").stdout.count("\n") >= len(findings)


def test_help_is_help(minicontainer: Command) -> None:
    for command in (
        [],
        ["run"],
        ["create"],
        ["start"],
        ["ps"],
        ["rm"],
        ["wait"],
        ["check"],
        ["system"],
        ["system", "repair"],
    ):
        done = minicontainer(*command, "--help")
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: minicontainer"), command


def test_run_imports_no_more_than_it_needs(minicontainer: Command) -> None:
    """30 ms for a run from the shell are not to be had with typing, subprocess or argparse in them."""
    words = Path(minicontainer.words[0]).read_text().splitlines()[0].removeprefix("#!").split()
    done = subprocess.run(
        [*words, "-X", "importtime", *minicontainer.line("run", "--rm", "busybox", "true")],
        capture_output=True,
        text=True,
    )
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert done.returncode == 0 and "minicontainer.engine.engine" in imported
    assert not imported & {
        "typing",
        "subprocess",
        "dataclasses",
        "pathlib",
        "rich",
        "pytest",
        "inspect",
        "tempfile",
        "shutil",
        "asyncio",
    }


def test_a_hangup_ends_it(minicontainer: Command) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        # Not a shell: it would take SIGQUIT for itself, before it has become what it is to run.
        with minicontainer.running("run", "--rm", "-i", "busybox", "cat", "/proc/version", "-", stdin=-1) as process:
            line_of(process.stdout)
            process.send_signal(number)
            assert process.wait(DEADLINE) == 128 + number
        assert minicontainer.containers() == []
