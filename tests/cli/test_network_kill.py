"""kill -9 of commands that make and take down networks, at each of their system calls: repair leaves the host clean."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
from pathlib import Path

from tests.cli.tracing import every_call, needs_strace, signalled_at
from tests.command import DEADLINE, Command, needs_root, wait_until
from tests.host_state import bury_the_dead
from tests.neighbourhood import Host

pytestmark = [needs_root, needs_strace]

CALLS = (
    "mkdir", "rename", "unlink", "rmdir", "flock", "setns", "socket", "bind", "sendto", "sendmsg", "recvmsg", "write",
    "clone3", "poll", "wait4", "openat",
)  # fmt: skip
"""Those by which networks are made, written down, waited for."""

SAMPLED = {"openat": 29, "recvmsg": 4, "socket": 2, "write": 2, "recvfrom": 3}

MOST = 60
"""About so many kills of one command; which they are differs from command to command, and from version to version."""


def looks(host: Host) -> str:
    """What a network leaves behind, in short."""
    return host.shell("ip -o link | cut -d: -f2; ip route; nft list tables; cat /proc/sys/net/ipv4/ip_forward;"
                      "cat /proc/sys/net/ipv6/conf/all/forwarding")  # fmt: skip


def killed(command: list[str | bytes | Path], call: str, when: int) -> bool:
    """Whether the command was killed, as it entered this call for the n-th time."""
    done = subprocess.run(
        signalled_at(call, when, signal.SIGKILL, command), stdin=-3, capture_output=True, timeout=DEADLINE
    )
    bury_the_dead()
    return done.returncode in (-signal.SIGKILL, 137)


def is_clean(on: Command, host: Host, before: str, where: str) -> None:
    """After one repair."""
    done = on("system", "repair")
    assert (done.returncode, done.stderr) == (0, ""), where
    # The device of a container that is gone goes by itself, when the kernel comes to it.
    wait_until(lambda: looks(host) == before, f"{where}: {done.stdout}")
    assert on.containers() == [], f"{where}: {done.stdout}"
    networks = on.root / "networks"
    for network in networks.iterdir() if networks.exists() else ():
        if network.is_dir():
            endpoints = network / "endpoints.json"
            assert not endpoints.exists() or '"endpoints": []' in endpoints.read_text(), where
            assert '"made": false' in (network / "network.json").read_text(), where


def every(command: list[str | bytes | Path], log: Path) -> list[tuple[str, int]]:
    return [(call, when) for call, when in every_call(command, CALLS, log) if not when % SAMPLED.get(call, 1)]


def test_of_a_container_with_a_network_and_a_port(on: Command, host: Host, tmp_path: Path) -> None:
    run = on.line("run", "--rm", "-p", "127.0.0.1:8080:80", "busybox", "true")
    before, kills = looks(host), 0
    calls = every(run, tmp_path / "calls")
    is_clean(on, host, before, "without a kill")
    for call, when in calls[:: max(1, len(calls) // MOST)]:
        kills += killed(run, call, when)
        is_clean(on, host, before, f"kill -9 at {call} number {when}")
    assert kills >= 30, f"only {kills} kills of {len(calls)}: this tests nothing"


def test_of_a_change_and_of_the_teardown(on: Command, host: Host, tmp_path: Path) -> None:
    """`network connect`, `update --publish`, `rm -f`, `network prune`."""
    before, kills = looks(host), 0
    assert on("network", "create", "--subnet", "10.7.0.0/24", "own").returncode == 0
    number = 0

    def begin() -> None:
        nonlocal number
        number += 1
        assert on("run", "-d", "--name", "one", "-p", "8080:80", "busybox", "sleep", "600").returncode == 0

    for words in (["network", "connect", "own", "one"], ["update", "--publish", "8081:81", "--unpublish", "80", "one"],
                  ["rm", "-f", "one"], ["network", "prune"]):  # fmt: skip
        command = on.line(*words)
        begin()
        if words[-1] == "prune":
            on("rm", "-f", "one")
        calls = every(command, tmp_path / "calls")
        on("rm", "-f", "one")
        for call, when in calls[:: max(1, len(calls) // 12)]:
            if words[-1] == "prune":
                on("network", "create", "--subnet", "10.7.0.0/24", "own")
            begin()
            if words[-1] == "prune":
                on("rm", "-f", "one")
            kills += killed(command, call, when)
            on("system", "repair")
            on("rm", "-f", "one")
            is_clean(on, host, before, f"{words}: kill -9 at {call} number {when}")
    assert kills >= 20, f"only {kills} kills: this tests nothing"


def test_of_the_one_who_takes_down(on: Command, host: Host) -> None:
    """The process that would take the bridge down later: the next command's does, or repair."""
    before = looks(host)
    for _ in range(3):
        assert on("run", "--rm", "busybox", "true").returncode == 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if str(on.root).encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
        bury_the_dead()
        assert "minicontainer0" in looks(host)
        is_clean(on, host, before, "kill -9 of the keeper")


def test_of_a_card_of_the_host(on: Command, host: Host, internet: Host, tmp_path: Path) -> None:
    """Whose address and routes are on their way to the bridge, or back: none of them may get lost."""

    def whole() -> str:
        return host.shell("ip -o -4 address show uplink; ip route; ip -o link | cut -d: -f2; nft list tables")

    words = ["network", "create", "-d", "physical", "-o", "parent=uplink", "--ip-range", "198.51.100.128/25", "lan"]
    assert on(*words).returncode == 0
    before, kills = whole(), 0
    for command in (on.line("run", "--rm", "--network", "lan", "busybox", "true"), on.line("system", "repair")):
        if "repair" in command:
            on("run", "--rm", "--network", "lan", "busybox", "true")
        calls = [
            call for call in every(command, tmp_path / "calls") if call[0] in ("sendto", "sendmsg", "write", "rename")
        ]
        on("system", "repair")
        for call, when in calls[:: max(1, len(calls) // 24)]:
            if "repair" in command:
                on("run", "--rm", "--network", "lan", "busybox", "true")
            kills += killed(command, call, when)
            done = on("system", "repair")
            assert (done.returncode, done.stderr) == (0, ""), f"kill -9 at {call} number {when}"
            assert whole() == before, f"kill -9 at {call} number {when}: {done.stdout}"
    assert kills >= 20, f"only {kills} kills: this tests nothing"


def test_of_the_start_of_one_that_is_left_alone(on: Command, host: Host) -> None:
    """It runs and is connected, or it does not, and its address and port are free; and in the end nothing is left."""
    chance, ran, before = random.Random(5), 0, looks(host)
    for moment in range(20):
        line = on.line("run", "-d", "--name", "one", "-p", "8080:80", "busybox", "sleep", "600")
        process = subprocess.Popen(line, stdin=-3, stdout=-3, stderr=-3)
        pidfd = os.pidfd_open(process.pid)
        select.select([pidfd], [], [], (moment + chance.random()) * 0.005)  # its own end, or so many ms
        os.close(pidfd)
        process.kill()
        process.wait()
        wait_until(lambda: "starting" not in on("ps", "-a").stdout, "it runs, or does not")
        if "running" in on("ps").stdout:
            ran += 1
            assert on("exec", "one", "ping", "-c", "1", "-W", "5", "172.17.0.1").returncode == 0
        else:
            assert on("run", "--rm", "-p", "8080:80", "busybox", "true").returncode == 0
        on("system", "repair")
        on("rm", "-f", "one")
        is_clean(on, host, before, f"kill -9 after {moment * 5} ms")
    assert 0 < ran < 20, f"{ran} of 20 ran: this tests one side only"
