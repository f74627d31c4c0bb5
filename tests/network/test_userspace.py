"""Networks of an ordinary user, who may make none on the host: by pasta(1), and by slirp4netns(1)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from minicontainer.network.userspace import release, usable
from tests.cli.test_rootless import UID, left, reachable
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.neighbourhood import Host

pytestmark = needs_root  # to make hosts, and to become somebody else
both = pytest.mark.parametrize("program", ["pasta", "slirp4netns"])


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    """The programs are in the list of system packages; without one there is nothing to test."""
    for program in ("pasta", "slirp4netns"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: make setup")


@dataclass
class Rootless:
    """The command on a test's own host, as an ordinary user."""

    host: Host
    directory: Path

    def line(self, *arguments: str, before: str = "true") -> list[str]:
        """The whole command line; `before` is done first, as root, where only the command sees it."""
        prefix, command = reachable(self.directory, *arguments)
        user = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--inh-caps=-all"]
        return self.host.line(*prefix, "sh", "-c", f'{before} && exec "$@"', "sh", *user, *command)

    def __call__(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        line = self.line(*arguments, **options)
        return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE)

    def pid(self, name: str) -> int:
        """Of the container's process 1."""
        [known] = json.loads(self("inspect", name).stdout)
        return int(known["State"]["Pid"])

    def processes(self) -> list[int]:
        """Those that serve networks: of our keepers and of the programs, on this host."""
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                served = b"pasta\0" in words or b"slirp4netns" in words or words.startswith(b"minicontainer pasta")
                if served and os.stat(f"/proc/{pid}").st_uid == UID:
                    found.append(int(pid))
        return found


@pytest.fixture
def user(host: Host, internet: Host, tmp_path: Path) -> Iterator[Rootless]:
    """Somebody on a host with a way out; at the end nothing of theirs runs any more."""
    one = Rootless(host, tmp_path)
    assert one.processes() == []
    yield one
    for config in json.loads(one("inspect", *one("ps", "-aq").stdout.split()).stdout or "[]"):
        one("rm", "-f", config["Id"])
    wait_until(lambda: one.processes() == [], "the programs end with their containers")
    assert left(tmp_path) == []


@both
def test_out_and_in(program: str, user: Rootless, internet: Host) -> None:
    """To a server elsewhere, over tcp and udp; from the host to a published port, and from nowhere else."""
    internet.serve("tcp", "198.51.100.1", 7000, "tcp")
    internet.serve("udp", "198.51.100.1", 7001, "udp")
    done = user("run", "-d", "--name", "c1", "--network", program, "-p", "8080:80", "-p", "81", "-p", "198.51.100.2:5300:5300/udp",
                "busybox", "sleep", "600")  # fmt: skip
    assert done.returncode == 0, done.stderr
    inside = Host(user.pid("c1"))
    try:
        assert inside.ask("tcp", "198.51.100.1", 7000) == "tcp 198.51.100.2"  # everybody takes it for the host
        assert inside.ask("udp", "198.51.100.1", 7001) == "udp 198.51.100.2"
        inside.serve("tcp", "0.0.0.0", 80, "inside")
        inside.serve("udp", "0.0.0.0", 5300, "inside")
        assert user.host.ask("tcp", "127.0.0.1", 8080).startswith("inside ")
        assert internet.ask("udp", "198.51.100.2", 5300).startswith("inside ")
        assert internet.ask("tcp", "198.51.100.2", 8080) == "ConnectionRefusedError"
    finally:
        inside.close()
    first, second, third = user("port", "c1").stdout.splitlines()
    assert (first, third) == ("80/tcp -> 127.0.0.1:8080", "5300/udp -> 198.51.100.2:5300")
    assert second.startswith("81/tcp -> 127.0.0.1:")
    [known] = json.loads(user("inspect", "c1").stdout)
    assert known["NetworkSettings"]["Networks"] == {program: {}}
    assert known["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8080"}]
    assert user("rm", "-f", "c1").returncode == 0
    wait_until(lambda: user.processes() == [], f"{program} ends with the container")
    # A process that ends has no memory any more, so no name, a moment before it has no sockets.
    wait_until(lambda: user.host.ask("tcp", "127.0.0.1", 8080) == "ConnectionRefusedError", "nobody listens there")


@both
def test_the_hosts_own_services_stay_its_own(program: str, user: Rootless) -> None:
    """What listens at the host's loopback is for the host; a container gets there by no address."""
    user.host.serve("tcp", "127.0.0.1", 7002, "private")
    assert user("run", "-d", "--name", "c1", "--network", program, "busybox", "sleep", "600").returncode == 0
    inside = Host(user.pid("c1"))
    for address in ("127.0.0.1", "10.0.2.2", "198.51.100.1"):
        assert "private" not in inside.ask("tcp", address, 7002, seconds=1)


@both
def test_it_ends_by_itself(program: str, user: Rootless) -> None:
    """When the program in the container ends, without another command that looks."""
    done = user("run", "--rm", "--network", program, "busybox", "ip", "route")
    assert done.returncode == 0 and done.stdout.startswith("default via "), done.stderr
    wait_until(lambda: user.processes() == [], "it has ended with the container")
    done = user("run", "-d", "--name", "c1", "--network", program, "busybox", "true")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: user.processes() == [], "it has ended with the container")


@both
def test_whoever_is_killed(program: str, user: Rootless) -> None:
    """The caller: the container dies with it, and the program. The keeper: the program ends with the container's end."""
    line = user.line("run", "--rm", "--network", program, "busybox", "sleep", "600")
    with subprocess.Popen(line, stdin=subprocess.DEVNULL) as caller:
        wait_until(user.processes, "it serves")
        caller.kill()
    wait_until(lambda: user.processes() == [], "it has ended with the container")
    user("system", "repair")

    assert user("run", "-d", "--name", "c1", "--network", program, "busybox", "sleep", "600").returncode == 0
    for pid in user.processes():
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"minicontainer"):
            os.kill(pid, signal.SIGKILL)
    assert user("rm", "-f", "c1").returncode == 0
    wait_until(lambda: user.processes() == [], "it has ended with the container")


@both
def test_a_port_that_is_taken(program: str, user: Rootless) -> None:
    user.host.serve("tcp", "127.0.0.1", 8080)
    done = user("run", "--rm", "--network", program, "-p", "8080:80", "busybox", "true")
    assert done.returncode == 125 and "127.0.0.1:8080/tcp is in use by " in one_line(done.stderr)


@both
def test_what_stands_in_its_way(program: str, user: Rootless) -> None:
    """One line, what to do, and no container."""
    package = {"pasta": "passt"}.get(program, program)
    for before, words in (
        (f"mount --bind /dev/null {shutil.which(program)}", f"{program} is not installed: install {package}, or use"),
        ("chmod 600 /dev/net/tun", "needs /dev/net/tun, which this user may not open: as root, chmod 666 /dev/net/tun"),
        ("mount -t tmpfs none /dev/net", "needs /dev/net/tun, which is not there: as root, modprobe tun"),
    ):
        done = user("run", "--network", program, "busybox", "true", before=before)
        assert done.returncode == 125 and f"--network {program}" in one_line(done.stderr), done.stderr
        assert words in done.stderr
    for arguments, words in (
        (["--network", program, "--network", "bridge"], "there is no other beside it"),
        (["--network", f"{program},ip=10.0.2.100"], "gives addresses and names itself"),
    ):
        done = user("run", *arguments, "busybox", "true")
        assert done.returncode == 125 and words in one_line(done.stderr)


@both
def test_it_cannot_be_started(program: str, user: Rootless) -> None:
    """A host without a way out: pasta has nothing to copy. What the program says is told; the container is gone."""
    user.host.shell("ip route del default; ip -6 route del default")
    try:
        done = user("run", "--rm", "--network", program, "busybox", "true")
        if program == "pasta":
            assert done.returncode == 125 and one_line(done.stderr).startswith("--network pasta: ")
    finally:
        user.host.shell("ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8::1")


def test_a_network_cannot_be_called_so(user: Rootless) -> None:
    done = user("network", "create", "pasta")
    assert done.returncode == 125 and "always there" in one_line(done.stderr)


def test_another_network_cannot_be_had(user: Rootless) -> None:
    assert user("run", "-d", "--name", "c1", "--network", "pasta", "busybox", "sleep", "600").returncode == 0
    for command in (["network", "connect", "bridge", "c1"], ["update", "--publish", "81:81", "c1"]):
        done = user(*command)
        assert done.returncode != 0 and "has pasta for a network" in one_line(done.stderr)


def test_for_root_too(on: Command, host: Host, internet: Host, inside: Callable[[str], Host]) -> None:
    """Nothing is made on the host then: no bridge, no rule. Of pasta root is not let in to the namespace."""
    internet.serve("tcp", "198.51.100.1", 7000, "tcp")
    assert on("run", "-d", "--name", "c1", "--network", "slirp4netns", "busybox", "sleep", "600").returncode == 0
    try:
        assert inside("c1").ask("tcp", "198.51.100.1", 7000) == "tcp 198.51.100.2"
        assert host.is_as_before()
    finally:
        on("rm", "-f", "c1")
    done = on("run", "--rm", "--network", "pasta", "busybox", "true")
    assert done.returncode == 125
    assert one_line(done.stderr) == "--network pasta is for ordinary users: root has bridge, and slirp4netns"


def test_nothing_to_release(tmp_path: Path) -> None:
    release(str(tmp_path))
    assert usable() in ("pasta", "slirp4netns", None)
