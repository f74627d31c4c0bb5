"""``minicontainer snapshot`` and ``clone``: what they print and refuse; kill -9 at each system call; an ordinary user."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from minicontainer.engine import Engine
from tests.cli.test_rootless import ranges, rootless  # noqa: F401 (a fixture)
from tests.cli.tracing import CALLS, every_call, needs_strace, signalled_at
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.engine.test_snapshots import layers, shown
from tests.host_state import HostUnchanged, bury_the_dead

pytestmark = needs_root

SCRIPT = "echo one > /one; mkdir -p /dir/inner; echo two > /dir/inner/two; rm /etc/passwd"
COUNTER = "n=0; trap 'exit 0' TERM; while :; do n=$((n+1)); echo $n > /new; mv /new /count; sleep 0.01; done"


def out(minicontainer: Command, *arguments: str) -> str:
    """What a command prints that succeeds, without a word of warning."""
    done = minicontainer(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def refused(minicontainer: Command, *arguments: str, code: int = 1) -> str:
    """What a command says that fails, in one line."""
    done = minicontainer(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    return one_line(done.stderr)


def test_a_whole_life(minicontainer: Command) -> None:
    out(minicontainer, "run", "--name", "alpha", "busybox", "sh", "-c", SCRIPT)
    assert out(minicontainer, "snapshot", "alpha", "-c", "before the change") == "snap0\n"
    assert out(minicontainer, "snapshot", "alpha", "named") == "named\n"
    heading, first, second = out(minicontainer, "snapshot", "list", "alpha").splitlines()
    assert heading.split() == ["SNAPSHOT", "TAKEN", "LAYERS", "COMMENT"]
    assert re.fullmatch(r"snap0 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +1 +before the change", first)
    assert re.fullmatch(r"named +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +2", second)
    assert out(minicontainer, "snapshot", "restore", "alpha", "snap0") == "alpha\n"
    assert out(minicontainer, "snapshot", "restore", "alpha", "snap0", "beta") == "beta\n"
    assert re.fullmatch(r"[0-9a-f]{12}\n", out(minicontainer, "clone", "alpha", "gamma"))
    assert "snap0" in refused(minicontainer, "snapshot", "rm", "alpha", "snap0")
    assert "beta, gamma" in refused(minicontainer, "rm", "-f", "--snapshots", "alpha")
    assert out(minicontainer, "rm", "beta", "gamma") == "beta\ngamma\n"
    assert "snap0, named" in refused(minicontainer, "rm", "alpha")
    assert out(minicontainer, "snapshot", "rm", "alpha", "snap0") == "snap0\n"
    assert out(minicontainer, "snapshot", "rm", "alpha", "ALL") == "named\n"
    assert out(minicontainer, "rm", "alpha") == "alpha\n"
    assert minicontainer.containers() == [] and os.listdir(minicontainer.root / "layers") == ["lock"]


def test_containers_that_are_called_as_the_commands_are(minicontainer: Command) -> None:
    for name in ("list", "rm", "take", "restore"):
        out(minicontainer, "create", "--name", name, "busybox", "true")
        assert out(minicontainer, "snapshot", "take", name) == "snap0\n"
        assert "snap0" in out(minicontainer, "snapshot", "list", name)
        assert out(minicontainer, "snapshot", "restore", name, "snap0") == f"{name}\n"
        assert out(minicontainer, "snapshot", "rm", name, "snap0") == "snap0\n"


def test_while_it_runs(minicontainer: Command) -> None:
    out(minicontainer, "run", "-d", "--name", "alpha", "busybox", "sh", "-c", COUNTER)
    try:
        wait_until(lambda: minicontainer("exec", "alpha", "cat", "/count").stdout, "it counts")
        assert out(minicontainer, "snapshot", "alpha") == "snap0\n"
        first = int(out(minicontainer, "exec", "alpha", "cat", "/count"))
        wait_until(lambda: int(out(minicontainer, "exec", "alpha", "cat", "/count")) > first, "it counts on")
        said = refused(minicontainer, "snapshot", "restore", "alpha", "snap0")
        assert "minicontainer stop alpha" in said and "restore alpha snap0 NEWNAME" in said
        out(minicontainer, "clone", "-e", "--snapshot", "snap0", "alpha", "beta")
        assert "beta" in out(minicontainer, "ps")
        out(minicontainer, "stop", "beta")
        assert "beta" not in out(minicontainer, "ps", "-a")
    finally:
        out(minicontainer, "rm", "-f", "--snapshots", "alpha")


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["snapshot", "nobody"], 1, "no container"),
        (["snapshot", "list", "nobody"], 1, "no container"),
        (["snapshot", "list"], 125, "write: minicontainer snapshot list CONTAINER"),
        (["snapshot", "restore", "alpha"], 125, "write: minicontainer snapshot restore"),
        (["snapshot", "restore", "alpha", "snap0", "a", "b"], 125, "write: minicontainer snapshot restore"),
        (["snapshot", "rm", "alpha"], 125, "write: minicontainer snapshot rm"),
        (["snapshot", "alpha", "a", "b"], 125, "write: minicontainer snapshot [take]"),
        (["snapshot", "list", "alpha", "-c", "x"], 125, "--comment is for"),
        (["snapshot", "restore", "alpha", "ALL"], 1, 'no snapshot "ALL"'),
        (["snapshot", "restore", "alpha", "snap9"], 1, 'no snapshot "snap9"; there is none'),
        (["snapshot", "rm", "alpha", "snap9"], 1, 'no snapshot "snap9"'),
        (["snapshot", "alpha", "a/b"], 125, "cannot be the name"),
        (["snapshot", "alpha", "é"], 125, "cannot be the name"),
        (["snapshot", "alpha", "a\nb"], 125, "cannot be the name"),
        (["clone", "nobody"], 1, "no container"),
        (["clone", "alpha", "alpha"], 125, 'the name "alpha" is taken'),
        (["clone", "alpha", "a b"], 125, "cannot be a name"),
        (["clone", "--snapshot", "snap9", "alpha"], 1, "no snapshot"),
    ],
)
def test_bad_input(minicontainer: Command, arguments: list[str], code: int, said: str) -> None:
    out(minicontainer, "create", "--name", "alpha", "busybox", "true")
    assert said.replace("\n", " ") in refused(minicontainer, *arguments, code=code)
    assert len(minicontainer.containers()) == 2
    assert out(minicontainer, "rm", "alpha") == "alpha\n"
    assert os.listdir(minicontainer.root / "layers") in (["lock"], [])


KILLED = {
    "snapshot": ["snapshot", "alpha", "new"],
    "restore": ["snapshot", "restore", "alpha", "snap0"],
    "snapshot rm": ["snapshot", "rm", "alpha", "snap0"],
    "clone": ["clone", "alpha", "beta"],
    "full clone": ["clone", "--full", "alpha", "beta"],
    "rm": ["rm", "--snapshots", "alpha"],
}
WRITING = [*CALLS, "openat", "rmdir", "unlinkat", "fchown", "fchmod", "utimensat", "link", "symlinkat"]
SAMPLED = {"openat": 16, "unlink": 4, "write": 2}


@needs_strace
@pytest.mark.parametrize("arguments", KILLED.values(), ids=KILLED)
def test_killed_at_each_of_its_system_calls(
    tmp_path: Path, images: Path, arguments: list[str], host_unchanged: HostUnchanged
) -> None:
    """Either the old or the new: each container that there is has the files of one of the two, and can be started."""
    root = tmp_path / "state"
    root.mkdir()
    (root / "images").symlink_to(images)
    minicontainer, kills = Command(root), 0
    engine = Engine(root)

    def begin() -> list[dict[str, tuple[object, ...]]]:
        """A container with a snapshot, and with something written after it; what it was then, and is now."""
        for config, _ in engine.containers():
            engine.remove_snapshots(config, ["ALL"]) if engine.snapshots(config) and not config.origin else None
        for config in sorted((config for config, _ in engine.containers()), key=lambda config: not config.origin):
            engine.remove(config, snapshots=True)
        assert minicontainer("system", "repair").returncode == 0 and layers(engine) == []
        config = engine.create("busybox", ["true"], name="alpha")
        upper = Path(engine.store.directory(config.id), "upper")
        (upper / "dir").mkdir()
        (upper / "dir/file").write_text("one")
        then = shown(engine, config)
        engine.snapshot(config)
        (upper / "dir").mkdir()
        (upper / "dir/file").write_text("two")
        (upper / "more").write_text("three")
        return [then, shown(engine, config)]

    begin()
    with host_unchanged():
        for call, when in list(every_call(minicontainer.line(*arguments), WRITING, tmp_path / "calls")):
            if when % SAMPLED.get(call, 1):
                continue
            known = begin()
            tracer = signalled_at(call, when, signal.SIGKILL, minicontainer.line(*arguments))
            done = subprocess.run(tracer, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)
            kills += done.returncode in (-signal.SIGKILL, 137)
            where = f"kill -9 at {call} number {when}"
            bury_the_dead()
            if kills % 2:  # as it was left; what has to be finished, a start finishes
                for config, _ in engine.containers():
                    ended = engine.attend(config, engine.start(config))
                    assert ended.status == 0, where
            assert minicontainer("system", "repair").returncode == 0, where
            assert minicontainer("system", "repair").stdout == "", f"{where}: the first repair was not the whole of it"
            for config, _ in engine.containers():
                now = shown(engine, config)
                wanted = known if "restore" in arguments else known[1:]
                assert _without_times(now) in map(_without_times, wanted), where
                for snapshot in engine.snapshots(config):
                    assert all(os.path.isdir(engine.store.layer(layer)) for layer in snapshot.layers), where
            assert set(layers(engine)) <= {
                layer
                for config, _ in engine.containers()
                for layer in (
                    *config.layers,
                    *(one for snapshot in engine.snapshots(config) for one in snapshot.layers),
                )
            }, where
    assert kills >= 8, f"only {kills} kills: this tests nothing"


def _without_times(tree: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """A start makes the places of mounts, so "/" may have been touched, and what it makes there is there."""
    places = {"dev", "proc", "sys", "."}
    return {name: about for name, about in tree.items() if name.split("/")[0] not in places}


@needs_strace
def test_the_container_goes_on_whenever_the_command_is_killed(minicontainer: Command, tmp_path: Path) -> None:
    """Of one that runs: a child does it, which goes on without the command."""
    out(minicontainer, "run", "-d", "--name", "alpha", "busybox", "sh", "-c", COUNTER)
    kills = 0
    try:
        pid = json.loads(out(minicontainer, "inspect", "alpha"))[0]["State"]["Pid"]
        count = Path(f"/proc/{pid}/root/count")
        wait_until(count.exists, "it counts")
        line = minicontainer.line("snapshot", "alpha")
        for call, when in list(every_call(line, [*CALLS, "openat"], tmp_path / "calls")):
            if when % SAMPLED.get(call, 1):
                continue
            tracer = signalled_at(call, when, signal.SIGKILL, line)
            done = subprocess.run(tracer, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)
            kills += done.returncode in (-signal.SIGKILL, 137)
            before = int(count.read_text())
            wait_until(lambda before=before: int(count.read_text()) > before, f"it counts on: {call} {when}")  # type: ignore[misc]
        assert kills >= 5, f"only {kills} kills: this tests nothing"
        assert out(minicontainer, "snapshot", "alpha", "last") == "last\n"
    finally:
        out(minicontainer, "rm", "-f", "--snapshots", "alpha")
    assert minicontainer("system", "repair").returncode == 0
    assert os.listdir(minicontainer.root / "layers") == ["lock"]


def test_as_an_ordinary_user(tmp_path: Path, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        assert rootless(tmp_path, "run", "--name", "alpha", "busybox", "sh", "-c", SCRIPT).returncode == 0
        for arguments, said in (
            (["snapshot", "alpha"], "snap0\n"),
            (["clone", "--full", "alpha", "beta"], None),
            (["snapshot", "restore", "alpha", "snap0"], "alpha\n"),
            (["snapshot", "restore", "alpha", "snap0", "gamma"], "gamma\n"),
        ):
            done = rootless(tmp_path, *arguments)
            assert (done.returncode, done.stderr) == (0, "")
            assert said in (done.stdout, None)
        for name in ("alpha", "gamma", "beta"):
            done = rootless(tmp_path, "start", "-a", name)
            assert (done.returncode, done.stderr) == (1, "rm: can't remove '/etc/passwd': No such file or directory\n")
        done = rootless(tmp_path, "rm", "-s", "gamma", "beta", "alpha")
        assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path / "state/engine/layers") == ["lock"]


def test_the_files_of_a_rootless_containers_other_users(ranges: Path, host_unchanged: HostUnchanged) -> None:  # noqa: F811
    """Even its root directory is another user's, and closed."""
    script = "mkdir -p -m 700 /secret && echo x > /secret/file && chown -R 5:7 /secret && chown 5:7 / && chmod 555 /"
    with host_unchanged():
        done = rootless(ranges, "run", "--name", "alpha", "busybox", "sh", "-c", script)
        assert (done.returncode, done.stderr) == (0, "")
        for arguments in (
            ["snapshot", "alpha"],
            ["clone", "--full", "alpha", "beta"],
            ["clone", "alpha", "gamma"],
            ["snapshot", "restore", "alpha", "snap0"],
        ):
            done = rootless(ranges, *arguments)
            assert (done.returncode, done.stderr) == (0, "")
        top = ranges / "state/engine"
        for upper in top.glob("containers/*/upper"):
            about = upper.lstat()
            assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (700004, 700006, 0o555)
        assert len(list(top.glob("layers/*/diff/secret/file"))) >= 1
        done = rootless(ranges, "rm", "-s", "gamma", "beta", "alpha")
        assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(top / "layers") == ["lock"]


def test_an_ordinary_users_container_that_runs_must_be_able_to_stand_still(
    tmp_path: Path, host_unchanged: HostUnchanged
) -> None:
    with host_unchanged():
        assert rootless(tmp_path, "run", "-d", "--name", "alpha", "busybox", "sleep", "600").returncode == 0
        done = rootless(tmp_path, "snapshot", "alpha")
        rootless(tmp_path, "rm", "-f", "alpha")
    assert done.returncode == 1 and "stop it first: minicontainer stop alpha" in one_line(done.stderr)


def test_a_step_of_somebody_else_that_fails_is_told(minicontainer: Command, tmp_path: Path) -> None:
    out(minicontainer, "create", "--name", "alpha", "busybox", "true")
    mine = tmp_path / "mine.py"
    mine.write_text("# %%exercise snapshot.take\ndef take(upper, layer, remember=None):\n    return 1 / 0\n")
    done = minicontainer("--steps", mine, "snapshot", "alpha")
    assert done.returncode == 125 and "ZeroDivisionError" in one_line(done.stderr)
    assert "snap" not in out(minicontainer, "snapshot", "list", "alpha").replace("SNAPSHOT", "")
    assert out(minicontainer, "system", "repair") == "" and os.listdir(minicontainer.root / "layers") == ["lock"]


def test_of_one_that_somebody_stays_with(minicontainer: Command) -> None:
    """Its watcher goes on watching."""
    with minicontainer.running("run", "--name", "alpha", "busybox", "sh", "-c", f"echo up; {COUNTER}") as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        wait_until(lambda: "running" in minicontainer("ps").stdout, "it runs")
        wait_until(lambda: minicontainer("exec", "alpha", "cat", "/count").stdout, "it counts")
        out(minicontainer, "snapshot", "alpha")
        out(minicontainer, "stop", "alpha")
        assert process.wait(DEADLINE) == 0
    assert out(minicontainer, "wait", "alpha") == "0\n"
    out(minicontainer, "rm", "-s", "alpha")
