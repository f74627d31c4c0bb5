"""A host of a test's own: a network namespace with nothing in it but a loopback, in which bridges may be built.

No test touches the interfaces, routes, rules or sysctls of the machine. A command that makes networks runs in such a
namespace; it has the machine's files and processes, and a network in which it is alone. At the end everything must be
there as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from minicontainer.linux import CLONE_NEWNET, setns
from tests.command import DEADLINE, Command, wait_until

CHANGING = re.compile(
    r"^net\.netfilter\.nf_conntrack_count|^net\.ipv4\.(conf|neigh)\.veth|^net\.ipv6\.(conf|neigh)\.veth"
)
"""What says something else each time it is asked: how many connections are tracked."""

SERVER = """
import socket, sys, threading
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((address, port))
if kind == "tcp":
    sock.listen(64)
print("ready", flush=True)
while True:
    if kind == "tcp":
        connection, peer = sock.accept()
        connection.sendall(f"{sys.argv[4]} {peer[0]}\\n".encode())
        connection.close()
    else:
        data, peer = sock.recvfrom(2048)
        sock.sendto(f"{sys.argv[4]} {peer[0]}\\n".encode(), peer)
"""

CLIENT = """
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
sock.settimeout(float(sys.argv[4]))
try:
    sock.connect((address, port))
    if kind == "udp":
        sock.send(b"x")
    print(sock.recv(2048).decode().strip())
except OSError as error:
    print(type(error).__name__)
"""


@dataclass
class Host:
    """A network namespace, held by a process that does nothing else."""

    pid: int
    """Of a process that is in there as long as it is needed."""
    before: str = ""
    others: list[subprocess.Popen[Any]] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """The file that stands for it."""
        return f"/proc/{self.pid}/ns/net"

    def line(self, *words: str | Path) -> list[str]:
        """The command line that runs a command in there."""
        return ["nsenter", f"--net={self.namespace}", "--", *map(str, words)]

    def __call__(self, *words: str | Path, check: bool = True, **options: Any) -> str:
        """What a command in there prints."""
        settings = {"capture_output": True, "text": True, "timeout": DEADLINE, **options}
        done = subprocess.run(self.line(*words), **settings)
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return str(done.stdout)

    def shell(self, script: str) -> str:
        """What a shell script prints."""
        return self("sh", "-ec", script)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This very process in there, for as long as the block lasts."""
        back = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
            yield
        finally:
            setns(back, CLONE_NEWNET)
            os.close(there)
            os.close(back)

    def serve(self, kind: str, address: str, port: int, says: str = "served") -> None:
        """A server that answers everybody with what it says, and with the address that it sees."""
        words = self.line(sys.executable, "-c", SERVER, kind, address, str(port), says)
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.others.append(server)
        assert server.stdout and server.stdout.readline() == "ready\n"

    def ask(self, kind: str, address: str, port: int, seconds: float = DEADLINE) -> str:
        """What the server at this address answers; the error's name when it does not."""
        return self(sys.executable, "-c", CLIENT, kind, address, str(port), str(seconds)).strip()

    def state(self) -> str:
        """All that a network could have changed: devices, addresses, routes, rules, sysctls."""
        devices = self("ip", "-o", "address"), self("ip", "-o", "link")
        routes = self("ip", "route", "show", "table", "all"), self("ip", "-6", "route", "show", "table", "all")
        # Counters of packets and the place of a rule in memory are no part of what was set.
        rules = re.sub(r"packets \d+ bytes \d+", "", self("nft", "list", "ruleset"))
        legacy = self("iptables-legacy-save", check=False) if "Legacy" in rules else ""
        sysctls = [line for line in self("sysctl", "-a", "-r", r"^net\.", check=False).splitlines()
                   if not CHANGING.match(line)]  # fmt: skip
        text = "\n".join([*devices, *routes, rules, legacy, *sysctls])
        return re.sub(r"valid_lft \S+ preferred_lft \S+| (state|qlen|qdisc|group) \S+", "", text)

    def is_as_before(self) -> bool:
        """Whether it says again what it said when it was made, or `remember` was called."""
        return self.state() == self.before

    def remember(self) -> None:
        """What is there now is the test's own, and is to be there in the end."""
        self.before = self.state()

    def restored(self) -> None:
        """Wait until it is as before: bridges go a moment after their last container."""
        deadline = time.monotonic() + DEADLINE / 2
        while not self.is_as_before():
            if time.monotonic() > deadline:
                old, new = set(self.before.splitlines()), set(self.state().splitlines())
                pytest.fail(
                    "not as before:\n" + "\n".join([f"+ {x}" for x in new - old] + [f"- {x}" for x in old - new])
                )
            time.sleep(0.05)

    def close(self) -> None:
        """End everything that runs in there for the test."""
        for process in self.others:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stdin):
                if stream:
                    stream.close()


def make_host() -> Host:
    """A new one, with its loopback up."""
    script = "ip link set lo up; echo 0 >/proc/sys/net/ipv4/ip_forward; echo ready; exec cat"
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdin=-1, stdout=-1, text=True)
    assert holder.stdout and holder.stdout.readline() == "ready\n"
    return Host(holder.pid, others=[holder])


@pytest.fixture
def new_host(leaves_no_trace: None) -> Iterator[Callable[[], Host]]:
    """Makes hosts that end with the test."""
    made: list[Host] = []

    def make() -> Host:
        made.append(make_host())
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture
def inside(on: Command) -> Iterator[Callable[[str], Host]]:
    """The network of a container that runs, to be looked at and spoken from with the machine's own programs."""
    seen: list[Host] = []

    def look(name: str) -> Host:
        [known] = json.loads(on("inspect", name).stdout)
        seen.append(Host(known["State"]["Pid"]))
        return seen[-1]

    yield look
    for one in seen:
        one.close()


@pytest.fixture
def host(new_host: Callable[[], Host]) -> Iterator[Host]:
    """A host on which everything is as before when the test ends."""
    made = new_host()
    made.remember()
    yield made
    made.restored()


@pytest.fixture
def on(host: Host, minicontainer: Command) -> Command:
    """The command on that host, with docker's default for the network."""
    return replace(minicontainer, words=[*host.line(), "env", "MINICONTAINER_NETWORK=bridge", *minicontainer.words])


@pytest.fixture
def internet(host: Host, new_host: Callable[[], Host]) -> Host:
    """A second host, 198.51.100.1 and 2001:db8::1, which the first one has its default route to."""
    other = new_host()
    host.shell(
        f"ip link add uplink type veth peer name downlink; ip link set downlink netns {other.pid};"
        "ip link set uplink up; ip address add 198.51.100.2/24 dev uplink;"
        "ip address add 2001:db8::2/64 dev uplink nodad"
    )
    other.shell("ip link set downlink up; ip address add 198.51.100.1/24 dev downlink;"
                "ip address add 2001:db8::1/64 dev downlink nodad")  # fmt: skip
    host.shell("ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8::1")
    wait_until(lambda: "tentative" not in host("ip", "address"), "the link-local address is its own")
    host.remember()
    return other
