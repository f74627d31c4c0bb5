"""The keys that leave a container's terminal, through real ones: which they are, and what is passed on of them."""

from __future__ import annotations

import os
import re
import select
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minicontainer.runtime.keys import Leaving, read_keys
from tests.cli.test_terminal import is_raw, terminal
from tests.command import Command, needs_root, one_line, wait_until

pytestmark = needs_root


@pytest.fixture
def alpha(minicontainer: Command) -> Iterator[str]:
    """A container that nobody stays with, whose program shows each key that it gets."""
    script = "stty raw -echo; echo ready; exec cat"
    done = minicontainer("run", "-dit", "--name", "alpha", "--network", "none", "busybox", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: "ready" in minicontainer("logs", "alpha").stdout, "it is ready")
    yield "alpha"
    minicontainer("rm", "-f", "alpha")


def runs(minicontainer: Command) -> bool:
    """Whether it does still."""
    return bool(minicontainer("ps", "-q").stdout)


@pytest.mark.parametrize(("command", "keys"), [
    (["attach"], "\x10\x11"),
    (["attach", "--detach-keys", "ctrl-a,d"], "\x01d"),
    (["attach", "--detach-keys", "x"], "x"),
    (["console"], "\x01q"),
    (["console", "-t", "0", "-e", "ctrl-],ctrl-]"], "\x1d\x1d"),
])  # fmt: skip
def test_they_leave_it_and_it_goes_on(minicontainer: Command, alpha: str, command: list[str], keys: str) -> None:
    with terminal(minicontainer, *command, alpha) as window:
        wait_until(lambda: is_raw(window.mode()), "the terminal is raw")
        window.type("b")
        window.expect("b")
        window.type(f"c{keys}")
        assert window.end() == 0
        assert window.mode() == window.before
    assert runs(minicontainer)


@pytest.mark.parametrize(("options", "keys"), [([], "\x10\x11"), (["--detach-keys", "ctrl-a,d"], "\x01d")])
def test_what_was_started_at_a_terminal_can_be_left(minicontainer: Command, options: list[str], keys: str) -> None:
    """By `run`, found again by `attach`; and by `start`."""
    with terminal(minicontainer, "run", "-it", "--name", "alpha", *options, "busybox", "sh") as window:
        window.expect("# ")
        window.type("word=kept\r")
        window.expect("# ")
        window.type(keys)
        assert window.end() == 0
        assert window.mode() == window.before
    assert runs(minicontainer)
    with terminal(minicontainer, "attach", "alpha") as window:
        wait_until(lambda: is_raw(window.mode()), "the terminal is raw")
        window.type("echo $word; exit 3\r")
        window.expect("kept")
        assert window.end() == 3
    with terminal(minicontainer, "start", "-ai", *options, "alpha") as window:
        window.expect("# ")
        window.type(keys)
        assert window.end() == 0
    assert runs(minicontainer)
    assert minicontainer("rm", "-f", "alpha").returncode == 0


def test_it_goes_on_without_who_started_it(minicontainer: Command) -> None:
    """Killed, he has lost neither the container nor what it has written."""
    script = "echo ready; read word; echo got $word; read word; exit 4"
    with terminal(minicontainer, "run", "-it", "--rm", "--name", "alpha", "busybox", "sh", "-c", script) as window:
        window.expect("ready")
        window.process.kill()
        window.process.wait()
    with terminal(minicontainer, "attach", "alpha") as window:
        wait_until(lambda: is_raw(window.mode()), "the terminal is raw")
        window.type("it\r")
        window.expect("got it")
        assert "ready" in minicontainer("logs", "alpha").stdout
        window.type("\r")
        assert window.end() == 4
    assert minicontainer.containers() == []


@pytest.mark.parametrize("options", [[], ["--no-init"]])
def test_what_has_ended_before_anybody_looked(minicontainer: Command, options: list[str]) -> None:
    for _ in range(5):
        with terminal(
            minicontainer, "run", "-it", "--rm", *options, "busybox", "sh", "-c", "echo hi; exit 5"
        ) as window:
            window.expect("^hi\r\n")
            assert window.end() == 5
    assert minicontainer.containers() == []


@pytest.mark.parametrize("how", ["-it", "-d"])
def test_no_room_for_what_it_needs(minicontainer: Command, how: str) -> None:
    """Inodes for so many more files: too few, wherever it stands then, leave no container; at last there are enough."""
    line = shlex.join(
        map(str, minicontainer.line("run", how, "--name", "alpha", "--network", "none", "busybox", "true"))
    )
    remove = shlex.join(map(str, minicontainer.line("rm", "-f", "alpha")))
    script = f"""
    mkdir -p {minicontainer.root}; mount -t tmpfs -o nr_inodes=1k none {minicontainer.root}; {line}; {remove}
    cd {minicontainer.root}; used=$(find . | wc -l)
    for more in $(seq 1 40); do
        mount -o remount,nr_inodes=$((used + more)) {minicontainer.root}
        {line} && break
        echo "left $? $(find containers names -mindepth 1 | wc -l)"
    done
    echo "tried $more"; {remove}
    """
    in_its_own = replace(minicontainer, words=["unshare", "--mount", "sh", "-c", script])
    with terminal(in_its_own) as window:
        window.end()
        while select.select([window.master], [], [], 0)[0]:
            window.seen += os.read(window.master, 1 << 16)
        said = window.seen.decode()
    left = {tuple(text.split()) for text in re.findall(r"left (\d+ \d+)\r", said)}
    assert left == {("125", "0")}, said
    assert 5 < int(re.findall("tried (.*)\r", said)[0]) < 40
    assert "No space left on device" in said and "Traceback" not in said


@pytest.mark.parametrize("options", [[], ["--no-init"]])
def test_an_interrupt_while_it_is_built(minicontainer: Command, tmp_path: Path, options: list[str]) -> None:
    """By a step that does not come to its end."""
    slow = tmp_path / "slow.py"
    slow.write_text("# %%exercise uts.set_names\ndef set_names(host, domain=None):\n"
                    f"    open('{tmp_path}/there', 'w')\n    while True:\n        pass\n")  # fmt: skip
    run = ("--steps", str(slow), "run", "-it", "--rm", *options, "busybox", "sh")
    with terminal(minicontainer, *run) as window:
        wait_until((tmp_path / "there").exists, "the step has begun")
        window.type("\x03")
        assert window.end() == 130
        assert window.mode() == window.before
    assert minicontainer.containers() == []


def test_the_second_key_that_comes_late(minicontainer: Command, alpha: str) -> None:
    """The first is passed on by then, and the second is one like any other."""
    with terminal(minicontainer, "attach", alpha) as window:
        wait_until(lambda: is_raw(window.mode()), "the terminal is raw")
        window.type("\x10")
        window.expect("\x10")
        window.type("\x11b")
        window.expect("\x11b")
        window.type("\x10\x10b")
        window.expect("\x10\x10b")
        window.type("\x10\x11")
        assert window.end() == 0


def test_the_environment_says_which(minicontainer: Command, alpha: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICONTAINER_DETACH_KEYS", "ctrl-x")
    with terminal(minicontainer, "attach", alpha) as window:
        wait_until(lambda: is_raw(window.mode()), "the terminal is raw")
        window.type("\x10\x11")
        window.expect("\x10\x11")
        window.type("\x18")
        assert window.end() == 0
    assert minicontainer("attach", "--detach-keys", "a", alpha, stdin=None, input="ba").returncode == 0


def test_the_window_of_a_console(minicontainer: Command) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done"
    minicontainer("run", "-dt", "--name", "alpha", "--network", "none", "busybox", "sh", "-c", script)
    with terminal(minicontainer, "console", "alpha") as window:
        window.expect(r"33 99\r\n")
        window.resize(11, 77)
        window.expect(r"11 77\r\n")
        window.type("\x01q")
        assert window.end() == 0
        assert window.mode() == window.before
    minicontainer("rm", "-f", "alpha")


def test_what_cannot_be(minicontainer: Command, alpha: str) -> None:
    done = minicontainer("attach", "--detach-keys", "ctrl-p,nope", alpha)
    assert (done.returncode, one_line(done.stderr)) == (
        125, 'cannot understand the key "nope" of "ctrl-p,nope": write them as in ctrl-p,ctrl-q',
    )  # fmt: skip
    done = minicontainer("console", "-t", "3", alpha)
    assert done.returncode == 1 and "has one terminal" in one_line(done.stderr)
    minicontainer("create", "--name", "beta", "--network", "none", "busybox", "true")
    done = minicontainer("console", "beta")
    assert done.returncode == 1 and "has no terminal" in one_line(done.stderr)


@pytest.mark.parametrize(("typed", "passed", "left"), [
    (["ab"], "ab", False), (["a1", "2b"], "a", True), (["1", "1", "2"], "1", True), (["1", "b12"], "1b", True),
    (["1"], "", False),
])  # fmt: skip
def test_what_is_held_back(typed: list[str], passed: str, left: bool) -> None:
    leaving = Leaving(b"12")
    leaving.overdue = lambda: b""  # type: ignore[method-assign]
    assert b"".join(leaving.pass_on(text.encode()) for text in typed) == passed.encode()
    assert leaving.left is left
    assert leaving.flush() == (b"1" if typed == ["1"] else b"")


@pytest.mark.parametrize(("text", "keys"), [
    ("ctrl-p,ctrl-q", b"\x10\x11"), ("ctrl-A,q", b"\x01q"), ("ctrl-@,ctrl-[,ctrl-_,ctrl-^", b"\x00\x1b\x1f\x1e"), ("", b""),
])  # fmt: skip
def test_how_they_are_written(text: str, keys: bytes) -> None:
    assert read_keys(text) == keys


@pytest.mark.parametrize("text", [",", "ctrl-", "ctrl-é", "ab", "a,", "ctrl-1", "ctrl-ab"])
def test_how_they_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="cannot understand the key"):
        read_keys(text)
