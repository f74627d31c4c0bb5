"""What users do all day: env files, labels, hints at what was meant, exec in some namespaces, debug, destroy."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.cli.arguments import COMMANDS, parse
from minicontainer.cli.examples import EXAMPLES
from tests.command import Command, needs_root, one_line


@pytest.fixture
def alpha(minicontainer: Command) -> Iterator[Command]:
    """A container of that name runs."""
    made = minicontainer("run", "-d", "--name", "alpha", "--network", "none", "-h", "inside", "busybox", "sleep", "600")
    assert made.returncode == 0, made.stderr
    yield minicontainer
    minicontainer("rm", "-f", "alpha")


@needs_root
def test_env_files_and_label_files(minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\n\nONE=1\n  TWO=with blanks = and more\r\nOURS\nNOBODYS\nEMPTY=\n")
    (tmp_path / "labels").write_text("tier=db\nbare\n")
    done = minicontainer("run", "--name", "alpha", "--env-file", tmp_path / "env", "-e", "ONE=one", "--label-file",
                         tmp_path / "labels", "-l", "tier=web", "busybox", "env",
                         env={**os.environ, "OURS": "mine"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (values["ONE"], values["TWO"], values["OURS"], values["EMPTY"]) == (
        "one",
        "with blanks = and more",
        "mine",
        "",
    )
    assert "NOBODYS" not in values
    assert json.loads(minicontainer("inspect", "--format", "{{json .Config.labels}}", "alpha").stdout) == [
        ["tier", "web"], ["bare", ""]
    ]  # fmt: skip


@needs_root
@pytest.mark.parametrize("text", [b"A B=1\n", b"=1\n", b"\xff\xfe=1\n", None])
def test_bad_env_files(minicontainer: Command, tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "env").write_bytes(text)
    done = minicontainer("run", "--rm", "--env-file", tmp_path / "env", "busybox", "true")
    assert done.returncode == 125 and f"--env-file {tmp_path}/env" in one_line(done.stderr)
    assert minicontainer.containers() == []


@needs_root
def test_what_was_meant(minicontainer: Command) -> None:
    minicontainer("create", "--name", "database", "--network", "none", "busybox", "true")
    for words, code, hint in (
        (["pss"], 125, "ps"), (["inspekt", "x"], 125, "inspect"), (["run", "--naem", "x", "busybox"], 125, "--name"),
        (["start", "databse"], 1, "database"), (["inspect", "databas"], 1, "database"),
        (["network", "inspect", "brigde"], 1, "bridge"), (["history", "busybx:latest"], 125, "busybox:latest"),
    ):  # fmt: skip
        done = minicontainer(*words)
        assert (done.returncode, f'did you mean "{hint}"?' in one_line(done.stderr)) == (code, True), done.stderr
    assert "did you mean" not in minicontainer("start", "zzz").stderr


@needs_root
def test_restart(alpha: Command) -> None:
    """What runs begins anew, and so does what has ended; what it has written stays, and a wrong name stops nobody."""

    def pid() -> str:
        return alpha("inspect", "--format", "{{.State.Pid}}", "alpha").stdout

    before = pid()
    assert alpha("exec", "alpha", "touch", "/written").returncode == 0
    done = alpha("restart", "--time", "0", "nobody", "alpha")
    assert (done.returncode, done.stdout) == (1, "alpha\n") and 'no container "nobody"' in one_line(done.stderr)
    assert pid() != before and alpha("exec", "alpha", "ls", "/written").returncode == 0
    assert alpha("stop", "--time", "0", "alpha").returncode == 0
    assert alpha("restart", "alpha").stdout == "alpha\n"
    assert alpha("exec", "alpha", "true").returncode == 0


def test_each_command_has_examples_that_it_understands(minicontainer: Command) -> None:
    assert {*COMMANDS} <= {*EXAMPLES}
    for name, lines in EXAMPLES.items():
        for line in lines:
            assert line.split()[0] == name
            if name in COMMANDS:
                parse(shlex.split(line.partition(" | ")[0].partition(" > ")[0]))
    assert "minicontainer ps -a --filter" in minicontainer("ps", "--help").stdout


@needs_root
def test_exec_in_some_namespaces_only(alpha: Command) -> None:
    names = ("mnt", "uts", "ipc", "pid", "net", "cgroup")
    look = ["sh", "-c", "for n in " + " ".join(names) + "; do readlink /proc/self/ns/$n; done"]
    own = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    pid = alpha("inspect", "--format", "{{.State.Pid}}", "alpha").stdout.strip()
    theirs = [os.readlink(f"/proc/{pid}/ns/{name}") for name in names]
    assert alpha("exec", "alpha", *look).stdout.split() == theirs
    found = alpha("exec", "--namespaces", "uts,net", "alpha", *look)
    assert found.returncode == 0, found.stderr
    expected = [theirs[at] if name in ("uts", "net") else own[at] for at, name in enumerate(names)]
    assert found.stdout.split() == expected
    assert alpha("exec", "-s", "UTSNAME|NETWORK", "alpha", *look).stdout.split() == expected
    assert alpha("exec", "-s", "uts", "alpha", "hostname").stdout == "inside\n"
    done = alpha("exec", "-s", "uts,colour", "alpha", "true")
    assert done.returncode == 125 and "colour" in one_line(done.stderr)


@needs_root
def test_exec_has_files_of_environment_and_its_own_codes(alpha: Command, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("ONE=1\n")
    done = alpha("exec", "--env-file", tmp_path / "env", "-w", "/tmp", "alpha", "sh", "-c", "echo $ONE; pwd")
    assert done.stdout == "1\n/tmp\n", done.stderr
    for command, code in (
        (["nope"], 127),
        (["/etc"], 126),
        (["sh", "-c", "exit 9"], 9),
        (["sh", "-c", "kill -9 $$"], 137),
    ):
        assert alpha("exec", "alpha", *command).returncode == code


@needs_root
def test_debug_has_its_own_files_among_the_others_processes(alpha: Command) -> None:
    alpha("exec", "alpha", "sh", "-c", "echo theirs >/mark; rm -f /bin/ps")
    seen = alpha("debug", "alpha", "ps", "-o", "args")
    assert seen.returncode == 0 and "sleep 600" in seen.stdout, seen.stderr
    assert alpha("debug", "alpha", "hostname").stdout == "inside\n"
    look = alpha("debug", "alpha", "sh", "-c", "ls /mark; cat /proc/$(pidof sleep)/root/mark; exit 5")
    assert (look.returncode, look.stdout) == (5, "theirs\n"), look.stderr
    pid = alpha("inspect", "--format", "{{.State.Pid}}", "alpha").stdout.strip()
    links = alpha("debug", "alpha", "sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid")
    assert links.stdout.split() == [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "pid")]
    assert alpha("debug", "alpha", "nope").returncode == 127
    assert alpha("ps", "-a", "--format", "{{.Names}}").stdout == "alpha\n"  # of debug, nothing is left
    alpha("stop", "--time", "0", "alpha")
    done = alpha("debug", "alpha", "true")
    assert done.returncode == 1 and "does not run" in one_line(done.stderr)


@needs_root
def test_destroy_refuses_what_lxc_destroy_does(alpha: Command) -> None:
    def refused(name: str, why: str) -> bool:
        done = alpha("destroy", name)
        return done.returncode == 1 and why in one_line(done.stderr)

    assert refused("alpha", "runs")
    alpha("stop", "--time", "0", "alpha")
    alpha("snapshot", "alpha")
    assert refused("alpha", "has snapshots")
    alpha("clone", "alpha", "beta")
    assert refused("alpha", "base of beta")
    assert alpha("destroy", "beta").returncode == 0
    assert alpha("destroy", "--snapshots", "alpha").returncode == 0
    assert alpha.containers() == []
