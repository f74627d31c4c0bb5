"""``info``, ``top``, ``rename``, ``container prune``: what is said is what the kernel says."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.engine import Engine
from minicontainer.engine.store import Store
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until

pytestmark = needs_root


@pytest.fixture
def two(minicontainer: Command) -> Iterator[Command]:
    """Containers: alpha runs, beta was only created."""
    made = minicontainer("run", "-d", "--name", "alpha", "--network", "none", "busybox", "sleep", "600")
    assert made.returncode == 0, made.stderr
    minicontainer("create", "--name", "beta", "--network", "none", "busybox", "true")
    yield minicontainer
    for identity in minicontainer("ps", "-aq").stdout.split():
        minicontainer("rm", "-f", identity)


def test_info_of_a_container_is_lxc_infos(two: Command) -> None:
    shown = dict(line.split(":", 1) for line in two("info", "alpha").stdout.splitlines())
    assert shown["State"].strip() == "RUNNING" and "seconds" in shown["CPU use"]
    pid = int(shown["PID"])
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    two("pause", "alpha")
    assert two("info", "--format", "{{.State}}", "alpha").stdout == "PAUSED\n"
    two("unpause", "alpha")
    assert "CREATED" in two("info", "beta").stdout and "PID" not in two("info", "beta").stdout
    assert two("info", "nope").returncode == 1


def test_info_of_the_engine(two: Command) -> None:
    [facts] = json.loads(two("info", "--json").stdout)
    assert (facts["Containers"], facts["Running"], facts["Stopped"]) == (2, 1, 1)
    assert facts["Kernel"] == os.uname().release and facts["Root"] == str(two.root)
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert facts["Cgroup version"] == "2" if unified else facts["Cgroup version"] in ("1", "hybrid")


def test_top_of_a_container_is_its_processes_alone(two: Command) -> None:
    two("exec", "-d", "alpha", "sh", "-c", "sleep 700 & wait")

    def listed() -> dict[str, dict[str, str]]:
        return {one["Command"]: one for one in json.loads(two("top", "alpha", "--json").stdout)}

    wait_until(lambda: "sleep 700" in listed(), "what exec has started is listed")
    found = listed()
    assert {"sleep 600", "sleep 700", "sh -c sleep 700 & wait"} <= {*found} and len(found) == 4
    assert 1 in {one["Inside"] for one in found.values()}
    for one in found.values():
        status = Path(f"/proc/{one['Pid']}/status").read_text()
        assert f"\t{one['Inside']}\n" in status.partition("NSpid:")[2].partition("\n")[0] + "\n"
    done = two("top", "beta")
    assert done.returncode == 1 and "does not run" in one_line(done.stderr)


def test_top_in_batches_sorted(two: Command) -> None:
    many = "sleep 600 & sleep 600 & sleep 600 & wait"
    two("run", "-d", "--name", "gamma", "--network", "none", "busybox", "sh", "-c", many)
    wait_until(lambda: two("top", "gamma").stdout.count("sleep 600\n") == 3, "it has its processes")
    lines = two("top", "--batch", "--count", "2", "--delay", "0.2", "--sort", "pids").stdout.splitlines()
    assert len(lines) == 6 and [line.split()[0] for line in lines] == ["NAME", "gamma", "alpha"] * 2
    names = two("top", "--reverse", "--format", "{{.Name}}").stdout.split()
    assert names == ["gamma", "alpha"]
    for words in (["--count", "0"], ["--delay", "-1"], ["--sort", "colour"]):
        assert two("top", *words).returncode == 125


def test_top_on_a_terminal_takes_keys(two: Command) -> None:
    two("run", "-d", "--name", "gamma", "--network", "none", "busybox", "sleep", "600")
    ours, theirs = pty.openpty()
    with subprocess.Popen(two.line("top", "--delay", "1000"), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            said = b""

            def until(*wanted: bytes) -> None:
                nonlocal said
                said = b""
                while not all(one in said for one in wanted):
                    assert select.select([ours], [], [], DEADLINE)[0], said
                    said += os.read(ours, 4096)

            until(b"alpha", b"gamma")
            assert said.index(b"alpha") < said.index(b"gamma")
            os.write(ours, b"r")
            until(b"gamma", b"alpha")
            assert said.index(b"gamma") < said.index(b"alpha")
            os.write(ours, b"q")
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
            os.close(ours)


def test_rename(two: Command) -> None:
    assert two("rename", "alpha", "omega").returncode == 0
    assert two("ps", "--format", "{{.Names}}").stdout == "omega\n"
    assert two("inspect", "omega").returncode == 0 and two("inspect", "alpha").returncode == 1
    for name, told in (("beta", "taken"), (".x", "cannot be a name"), ("", "empty"), ("omega", "taken")):
        done = two("rename", "omega", name)
        assert done.returncode == 125 and told in one_line(done.stderr)
    assert two("rename", "nope", "x").returncode == 1
    assert two("create", "--name", "alpha", "busybox", "true").returncode == 0  # the old name is free


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rename_that_was_killed_leaves_one_name(two: Command, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    engine = Engine(two.root)
    write = Store._write

    def die(store: Store, config: object) -> None:
        if moment == "after":
            write(store, config)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "_write", die)
    monkeypatch.setattr(Store, "_unname", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        engine.rename(engine.store.find("beta"), "delta")
    monkeypatch.undo()
    assert sorted(os.listdir(two.root / "names")) == ["alpha", "beta", "delta"]
    assert "not its container's" in two("system", "repair").stdout
    left = "beta" if moment == "before" else "delta"
    assert sorted(os.listdir(two.root / "names")) == ["alpha", left]
    assert two("inspect", "--format", "{{.Name}}", left).stdout == f"{left}\n"


def test_container_prune(two: Command) -> None:
    two("create", "--name", "gamma", "-l", "keep", "--network", "none", "busybox", "true")
    assert two("container", "prune").returncode == 125
    assert two("container", "prune", "-f", "--filter", "name=beta").stdout.count("\n") == 1
    assert two("ps", "-a", "--format", "{{.Names}}").stdout == "alpha\ngamma\n"
    two("snapshot", "gamma")
    kept = two("container", "prune", "-f")
    assert kept.returncode == 1 and "has snapshots" in one_line(kept.stderr)
    two("rm", "--snapshots", "gamma")
    assert two("ps", "-a", "--format", "{{.Names}}").stdout == "alpha\n"
