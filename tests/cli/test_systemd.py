"""--systemd, with a busybox in systemd's place: what it finds, how it ends and begins again; and the monitor beside it.

A Debian's own systemd boots in test_debian.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from minicontainer.linux.cgroups import SYSTEMD, hierarchies
from tests.cli.test_terminal import terminal
from tests.command import DEADLINE, Command, end, line_of, needs_root, one_line, wait_until

pytestmark = needs_root

TWICE = "if test -e /once; then echo again; exit 7; fi; echo first; touch /once; exec reboot -f"
"""The files stay, so the second time it goes another way."""

has_v1 = any(tree.version == 1 for tree in hierarchies())


def said(done: subprocess.CompletedProcess[str], status: int = 0) -> str:
    """What a command that ends so has printed."""
    assert done.returncode == status, done
    return done.stdout


def process_1(command: Command, name: str) -> int:
    [known] = json.loads(said(command("inspect", name)))
    return int(known["State"]["Pid"])


def with_trees(command: Command, script: str) -> Command:
    """The command where this has changed which trees of control groups are mounted: in a view of its own."""
    inside = f'set -e; mount --make-rprivate /; {script}; exec "$@"'
    return replace(command, words=["unshare", "--mount", "sh", "-c", inside, "sh", *command.words])


def only_v2(command: Command) -> Command:
    """Where there is one tree."""
    return with_trees(command, "umount -R -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup")


def without_systemds(command: Command) -> Command:
    """Where there are trees of v1, and none of them is systemd's."""
    [tree] = [tree for tree in hierarchies(named=True) if SYSTEMD in tree.controllers]
    return with_trees(command, f"umount {tree.mountpoint}")


LOOK = """
echo "$$ $container $container_uuid"
stat -f -c %T /run /run/lock /tmp
stat -c %a /run /run/lock /tmp
for place in $PLACES; do mkdir $place/own.scope && echo made; done
grep CapEff /proc/self/status
"""


@pytest.mark.parametrize(("view", "places", "kept"), [
    pytest.param(lambda command: command, "systemd", "memory", marks=pytest.mark.skipif(
        not has_v1, reason="this host has no trees of v1, so systemd's is not among them")),
    (only_v2, ".", ""),
])  # fmt: skip
def test_what_it_finds(minicontainer: Command, view: Callable[[Command], Command], places: str, kept: str) -> None:
    """podman's words: true looks at the command's name, always does not."""
    command = view(minicontainer)
    places = f"/sys/fs/cgroup/{places}"
    look = LOOK + (f"mkdir /sys/fs/cgroup/{kept}/own.scope 2>&1; ls /sys/fs/cgroup" if kept else "")
    words = ["-e", f"PLACES={places}", "--name", "c1", "busybox", "sh", "-c", look]
    told = said(command("run", "--systemd", "always", *words)).splitlines()
    [known] = json.loads(said(minicontainer("inspect", "c1")))
    assert told[:8] == [
        f"1 minicontainer {known['Id'][:12]:0<32}", *["tmpfs"] * 3, "755", "1777", "1777", "made"
    ]  # fmt: skip
    assert int(told[8].split()[1], 16) >> 22 & 1, "CAP_SYS_BOOT is missing"
    if kept:
        assert "Read-only file system" in told[9]
        assert "unified" not in told[10:]


def test_it_is_known_by_its_name(minicontainer: Command) -> None:
    def environment(*words: str) -> str:
        create = ("create", *words[:-1], "busybox", words[-1])
        container_id = said(minicontainer(*create)).strip()
        [known] = json.loads(said(minicontainer("inspect", container_id)))
        return str(known["Config"]["stop_signal"])

    halt = "SIGRTMIN+3"
    for program in ("/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init", "/usr/lib/systemd/systemd", "systemd"):
        assert environment(program) == halt
        assert environment("--systemd", "false", program) != halt
    for program in ("/bin/init", "sh", "/sbin/systemd-not"):
        assert environment(program) != halt
        assert environment("--systemd", "always", program) == halt
    assert "invalid choice: 'maybe'" in one_line(minicontainer("run", "--systemd", "maybe", "busybox", "sh").stderr)


@pytest.mark.skipif(not has_v1, reason="without trees of v1 it is not asked for")
def test_without_a_tree_of_its_own_it_says_what_to_mount(minicontainer: Command) -> None:
    done = without_systemds(minicontainer)("run", "--rm", "--systemd", "always", "busybox", "true")
    assert done.returncode == 125
    assert "mount -t cgroup -o none,name=systemd" in one_line(done.stderr)
    assert minicontainer.containers() == []


def test_reboot_in_the_foreground(minicontainer: Command) -> None:
    run = ("run", "--rm", "--systemd", "always", "busybox", "sh", "-c")
    assert said(minicontainer(*run, TWICE), 7) == "first\nagain\n"
    assert said(minicontainer(*run, "poweroff -f")) == ""
    assert minicontainer.containers() == []


def test_reboot_and_halt_by_itself(minicontainer: Command) -> None:
    """Whoever waits, waits for the end, and not for the moment between."""
    container = ("run", "-d", "--systemd", "always", "--name")
    said(minicontainer(*container, "c1", "busybox", "sh", "-c", TWICE))
    assert said(minicontainer("wait", "c1")) == "7\n"
    assert said(minicontainer("logs", "c1")) == "first\nagain\n"
    said(minicontainer(*container, "c2", "busybox", "halt", "-f"))
    assert said(minicontainer("wait", "c2")) == "0\n"
    assert "exited (0)" in said(minicontainer("ps", "-a", "--filter", "name=c2"))


def test_reboot_is_not_the_end_of_what_is_to_go(minicontainer: Command) -> None:
    """--rm; and who looks in the moment between sees that it starts."""
    loop = "echo >>/boots; test $(wc -l </boots) -lt 20 && exec reboot -f; exec sleep 600"
    said(minicontainer("run", "-d", "--rm", "--systemd", "always", "--name", "c1", "busybox", "sh", "-c", loop))
    seen = set[str]()

    def twenty() -> bool:
        seen.add(said(minicontainer("ps", "-a", "--format", "{{.Status}}")).strip())
        return minicontainer("exec", "c1", "sh", "-c", "test $(wc -l </boots) -eq 20").returncode == 0

    wait_until(twenty, "it has booted twenty times")
    assert seen <= {"starting", "running"}
    said(minicontainer("stop", "-t", "0", "c1"))
    wait_until(lambda: not minicontainer.containers(), "it is gone")


@pytest.mark.parametrize("words", [("stop", "-t", "0"), ("kill",), ("rm", "-f")])
def test_one_that_boots_again_and_again_can_be_stopped(minicontainer: Command, words: tuple[str, ...]) -> None:
    """In the moment between too; and it does not begin again after that."""
    boots = ("sh", "-c", "exec reboot -f")
    said(minicontainer("run", "-d", "--systemd", "always", "--name", "c1", "busybox", *boots))
    assert "has just ended" in one_line(minicontainer("exec", "c1", "sleep", "600").stderr)
    said(minicontainer(*words, "c1"))
    if words[0] == "rm":
        assert minicontainer.containers() == []
    else:
        said(minicontainer("wait", "c1"))
        assert "exited" in said(minicontainer("ps", "-a"))
        said(minicontainer("start", "c1"))
        said(minicontainer("rm", "-f", "c1"))


def test_who_is_attached_stays_through_a_reboot(minicontainer: Command) -> None:
    script = f"read key; echo got $key; {TWICE.replace('exit 7', 'read key; echo got $key; exit 7')}"
    said(minicontainer("run", "-dt", "--systemd", "always", "--name", "c1", "busybox", "sh", "-c", script))
    with terminal(minicontainer, "attach", "c1") as window:
        window.type("one\n")
        window.expect("got one")
        wait_until(lambda: "first" in minicontainer("logs", "c1").stdout, "it is about to begin again")
        window.type("two\n")
        window.type("three\n")
        assert window.end() == 7
    assert "again" in said(minicontainer("logs", "c1"))


def test_any_program_that_is_process_1_can_be_left_alone(minicontainer: Command) -> None:
    """--no-init -d: kept by the monitor, what it writes, what it is sent, how it ends."""
    script = "trap 'echo asked; exit 5' TERM; echo $$; echo err >&2; while :; do sleep 0.05; done"
    said(minicontainer("run", "-d", "--no-init", "--name", "c1", "busybox", "sh", "-c", script))
    wait_until(lambda: "1\n" in minicontainer("logs", "c1").stdout, "it has written")
    assert minicontainer("logs", "c1").stderr == "err\n"
    said(minicontainer("stop", "c1"))
    assert said(minicontainer("wait", "c1")) == "5\n"
    assert said(minicontainer("logs", "c1")) == "1\nasked\n"
    for status, words in ((127, ["nope"]), (126, ["/etc"])):
        done = minicontainer("run", "-d", "--no-init", "busybox", *words)
        assert done.returncode == status
        one_line(done.stderr)
    done = minicontainer("run", "-d", "--no-init", "-v", "/proc/self/fd/nothing:/x", "busybox", "true")
    assert (done.returncode, bool(one_line(done.stderr))) == (125, True)


def test_what_is_typed_reaches_it(minicontainer: Command) -> None:
    said(minicontainer("run", "-di", "--no-init", "--name", "c1", "busybox", "cat"))
    with minicontainer.running("attach", "c1", stdin=subprocess.PIPE) as attached:
        assert attached.stdin
        attached.stdin.write("heard\n")
        attached.stdin.flush()
        assert line_of(attached.stdout) == "heard\n"
        said(minicontainer("rm", "-f", "c1"))


def test_a_container_ends_with_its_monitor(minicontainer: Command) -> None:
    said(minicontainer("run", "-dt", "--no-init", "--name", "c1", "busybox", "sh", "-c", "echo up; sleep 600"))
    wait_until(lambda: "up" in minicontainer("logs", "c1").stdout, "it has written")
    pid = process_1(minicontainer, "c1")
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert Path(f"/proc/{monitor}/cmdline").read_bytes().startswith(b"minicontainer monitor\0")
    held = {os.readlink(entry).rpartition("/")[2] for entry in Path(f"/proc/{monitor}/fd").iterdir()}
    assert held == {"null", "attended", "log", "ptmx", "anon_inode:[pidfd]", "0"}
    end([monitor])
    wait_until(lambda: not Path(f"/proc/{pid}/ns").exists() or "exited" in said(minicontainer("ps", "-a")), "it ends")
    assert "exited (137)" in said(minicontainer("ps", "-a"))
    assert "up" in said(minicontainer("logs", "c1"))
    said(minicontainer("start", "c1"))
    said(minicontainer("kill", "c1"))
    assert said(minicontainer("wait", "c1")) == "137\n"


def test_its_caller_is_killed_while_it_starts(minicontainer: Command) -> None:
    """Then the monitor finishes what was begun, or there is nothing: it runs or it does not, and can be removed."""
    containers = minicontainer.root / "containers"
    for number in range(8):
        line = minicontainer.line("run", "-d", "--no-init", "--name", "c1", "busybox", "sleep", "600")
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            if number:
                wait_until(lambda: [*containers.glob("*/state.json")], "it has begun")
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
        wait_until(lambda: "starting" not in minicontainer("ps", "-a").stdout, "it has been decided")
        minicontainer("rm", "-f", "c1")
        minicontainer("system", "repair")
        assert minicontainer.containers() == []
