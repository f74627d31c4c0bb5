"""``events`` and ``monitor``: who listens hears of everything once, whoever has done it, also if nobody has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command import DEADLINE, Command, line_of, lines_of, needs_root, one_line, wait_until
from tests.host_state import HostUnchanged

pytestmark = needs_root

WORDS = "--format", "{{.Action}} {{.Name}}"


@contextmanager
def listening(minicontainer: Command, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """It has begun to listen."""
    with minicontainer.running(*arguments) as listens:
        wait_until(lambda: _watches(listens.pid), "it watches")
        yield listens


def _watches(pid: int) -> bool:
    """inotify_add_watch(2) is the last that it does before it hears everything."""
    infos = Path(f"/proc/{pid}/fdinfo")
    try:
        return any("inotify wd:" in info.read_text() for info in infos.iterdir())
    except FileNotFoundError:
        return False


def told(minicontainer: Command, *options: str) -> list[str]:
    """What has happened, as docker would call it."""
    done = minicontainer("events", "--since", "1h", "--until", "0s", *WORDS, *options)
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout.splitlines()


def test_a_life_in_dockers_words(minicontainer: Command) -> None:
    minicontainer("run", "-d", "--name", "a", "-l", "tier=web", "busybox", "sleep", "600")
    for words in ("pause a", "unpause a", "exec a true", "rename a b", "update --memory 64m b", "restart -t 5 b",
                  "kill b", "wait b", "rm b"):  # fmt: skip
        assert minicontainer(*words.split()).returncode == 0
    minicontainer("run", "--rm", "--name", "c", "busybox", "false")
    assert told(minicontainer, "--filter", "container=c") == ["create c", "start c", "die c", "destroy c"]
    life = "create start pause unpause exec_start rename update kill die stop start restart kill die destroy"
    actions = [line.split()[0].rstrip(":") for line in told(minicontainer, "--filter", "label=tier=web")]
    assert actions == life.split()
    assert told(minicontainer, "--filter", "event=die", "--filter", "event=rename") == [
        "rename b", "die b", "die b", "die c",
    ]  # fmt: skip
    assert told(minicontainer, "--filter", "event=exec_start") == ["exec_start: true a"]
    assert told(minicontainer, "--filter", "type=network") == told(minicontainer, "--filter", "label=tier=x") == []
    done = minicontainer("events", "--since", "1h", "--until", "0s", "--filter", "event=die", "--json")
    codes = [json.loads(line)["Actor"]["Attributes"]["exitCode"] for line in done.stdout.splitlines()]
    assert codes == ["143", "137", "1"]
    plain = minicontainer("events", "--since", "1h", "--until", "0s", "--filter", "container=c").stdout.splitlines()
    assert plain[2].endswith(" (exitCode=1, image=busybox, name=c)") and " container die " in plain[2]
    when = plain[1].split()[0]
    assert minicontainer("events", "--since", when, "--until", "0s").stdout.splitlines() == plain[1:]
    assert minicontainer("events", "--since", "2006-01-02", "--until", "2007-01-02").stdout == ""


def test_an_end_is_told_though_nobody_looks(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    """By whoever listens; and by one only, however many do."""
    with host_unchanged():
        done = minicontainer("run", "-di", "--rm", "--name", "a", "busybox", "sh", "-c", "read x; exit 7")
        stdin = os.open(minicontainer.root / "containers" / done.stdout.strip() / "stdin", os.O_WRONLY)
        options = ("--format", "{{.Action}} {{.Actor.Attributes.exitCode}}", "--filter", "event=die")
        with listening(minicontainer, "events", *options) as one, listening(minicontainer, "events", *options) as two:
            os.write(stdin, b"\n")
            os.close(stdin)
            assert lines_of(one.stdout, 1) == lines_of(two.stdout, 1) == ["die 7"]
            wait_until(lambda: minicontainer.containers() == [], "whichever has told it puts the rest away")
        assert told(minicontainer) == ["create a", "start a", "die a", "destroy a"]


def test_what_is_started_later_is_watched_too(minicontainer: Command) -> None:
    with listening(minicontainer, "events", *WORDS) as listens:
        for name in ("a", "b"):
            minicontainer("run", "-d", "--name", name, "busybox", "true")
        assert sorted(lines_of(listens.stdout, 6)) == [f"{word} {name}" for word in ("create", "die", "start")
                                                    for name in ("a", "b")]  # fmt: skip
    for name in ("a", "b"):
        minicontainer("rm", name)


def test_who_stayed_with_it_is_killed(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    """Then nobody is left to tell but who listens."""
    with host_unchanged(), listening(minicontainer, "monitor") as listens:
        with minicontainer.running("run", "--name", "a", "busybox", "sh", "-c", "echo up; sleep 600") as runs:
            states = lines_of(listens.stdout, 2)
            assert line_of(runs.stdout) == "up\n"
            runs.kill()
            states += lines_of(listens.stdout, 1)
        assert states == [f"'a' changed state to [{state}]" for state in ("STARTING", "RUNNING", "STOPPED")]
        assert minicontainer("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout == "a exited (unknown)\n"
        assert minicontainer("rm", "a").returncode == 0


def test_monitor_is_lxcs(minicontainer: Command) -> None:
    with (
        listening(minicontainer, "monitor", "a|b") as both,
        listening(minicontainer, "monitor", "--json", "-n", "[c-z]+") as other,
    ):
        minicontainer("run", "-d", "--name", "a", "busybox", "sleep", "600")
        for words in ("freeze a", "unfreeze a", "rename a cc", "stop -t 5 cc", "rm cc"):
            assert minicontainer(*words.split()).returncode == 0
        minicontainer("run", "--name", "b", "busybox", "nowhere")
        states = [("a", "STARTING"), ("a", "RUNNING"), ("a", "FREEZING"), ("a", "FROZEN"), ("a", "THAWED"),
                  ("b", "STARTING"), ("b", "ABORTING"), ("b", "STOPPED")]  # fmt: skip
        assert lines_of(both.stdout, 8) == [f"'{name}' changed state to [{state}]" for name, state in states]
        found = [json.loads(line) for line in lines_of(other.stdout, 2)]
        assert [(one["Name"], one["State"]) for one in found] == [("cc", "STOPPING"), ("cc", "STOPPED")]
        assert abs(found[1]["Time"] - time.time()) < DEADLINE


def test_want_of_memory_is_told(minicontainer: Command) -> None:
    minicontainer("run", "--rm", "--name", "a", "--memory", "16m", "busybox", "sh", "-c", "tail /dev/zero")
    assert told(minicontainer) == ["create a", "start a", "oom a", "die a", "destroy a"]


def test_a_line_that_somebody_was_killed_in_spoils_no_other(minicontainer: Command) -> None:
    minicontainer("create", "--name", "a", "busybox", "true")
    with (minicontainer.root / "events").open("ab") as events:
        events.write(b'\n{"time": 17')
    minicontainer("rm", "a")
    assert told(minicontainer) == ["create a", "destroy a"]


def test_it_ends_when_it_is_told_to(minicontainer: Command) -> None:
    begun = time.time()
    assert minicontainer("events", "--until", f"{begun + 0.3:.3f}").returncode == 0
    assert time.time() >= begun + 0.3
    with listening(minicontainer, "events") as listens:
        listens.send_signal(signal.SIGINT)
        assert listens.wait(DEADLINE) == 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("events", "--filter", "colour=red"), '--filter "colour=red": write NAME=VALUE, with one of container, event'),
        (("events", "--filter", "event"), '--filter "event"'),
        (("events", "--since", "soon"), 'events --since "soon"'),
        (("events", "--until", "0s", "--format", "{{.Nope"), "never closed"),
        (("monitor", "a("), 'monitor "a(": it cannot be understood as a regular expression'),
    ],
)
def test_mistakes(minicontainer: Command, words: tuple[str, ...], message: str) -> None:
    done = minicontainer(*words)
    assert done.returncode == 125 and message in one_line(done.stderr)
