"""A world of network namespaces for a test: a host, containers, and somebody outside. Nothing of it is the real host's.

While a test has a `world`, its process is in the world's host: what it does to devices, routes and rules it does there.
Somebody `outside` is a neighbour on the same cable, and knows no way to containers but to the host. A server or a
client of a node is a socket that was made in there, and is used from here: sockets stay where they were made.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.host_state import SLOWER

CLONE_NEWNET = 0x40000000
PATIENCE = 10 * SLOWER  # s, for what takes a millisecond
SILENCE = 0.3 * SLOWER  # s, after which nothing will come: a packet that was let through would have been here at once

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
HOST6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"

_libc = ctypes.CDLL(None, use_errno=True)


class Node:
    """A network namespace, and a process that is in it and does nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This process is in the node meanwhile."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(self.fd)
            yield
        finally:
            _enter(back)
            os.close(back)

    def server(self, port: int, kind: str = "tcp", address: str = "") -> socket.socket:
        """A server at a port, of this address or of all."""
        with self.inside():
            return server(port, kind, address)

    def connect(self, address: str, port: int, patience: float = PATIENCE) -> socket.socket:
        """A TCP connection from here."""
        with self.inside():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(patience)
        try:
            client.connect((address, port))
        except BaseException:
            client.close()
            raise
        return client

    def udp(self, port: int = 0, family: int = socket.AF_INET) -> socket.socket:
        """A UDP socket of this node."""
        with self.inside():
            sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.settimeout(PATIENCE)
        sock.bind(("", port))
        return sock

    def reaches(self, address: str, port: int, patience: float = PATIENCE) -> bool:
        """Whether somebody answers there."""
        try:
            self.connect(address, port, patience).close()
        except OSError:
            return False
        return True

    def is_kept_from(self, address: str, port: int) -> bool:
        """Whether nobody answers there, though there is somebody: that is for the test to show."""
        return not self.reaches(address, port, SILENCE)

    def ping(self, address: str, patience: float = PATIENCE) -> bool:
        """Whether an ICMP echo request is answered."""
        six = ":" in address
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
        with self.inside():
            sock = socket.socket(family, socket.SOCK_RAW, protocol)
        with sock:
            number = int.from_bytes(os.urandom(2))
            message = struct.pack("!BBHHH", 128 if six else 8, 0, 0, number, 1)
            if not six:
                message = (
                    message[:2] + struct.pack("!H", 0xFFFF - sum(struct.unpack("!4H", message)) % 0xFFFF) + message[4:]
                )
            try:
                sock.sendto(message, (address, 0))
            except OSError:
                return False
            wanted = struct.pack("!BB", 129 if six else 0, 0)
            while select.select([sock], [], [], patience)[0]:
                answer = sock.recv(2048)
                answer = answer if six else answer[(answer[0] & 15) * 4 :]
                if answer[:2] == wanted and answer[4:6] == struct.pack("!H", number):
                    return True
        return False

    def run(self, *command: str) -> str:
        """What a command prints that is run in here."""
        with self.inside():
            return run(*command)

    def json(self, *command: str) -> Any:
        """Likewise, parsed."""
        return json.loads(self.run(*command) or "[]")


class World(Node):
    """The host that the test's process is in; makes containers, and a neighbour."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.pid = os.getpid()
        self.real = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if _libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        run("ip", "link", "set", "lo", "up")
        for setting in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            with open(f"/proc/sys/{setting}", "w") as file:
                file.write("0")

    def node(self) -> Node:
        """A process with a network namespace of its own."""
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(0)
                if _libc.unshare(CLONE_NEWNET) == 0:
                    os.write(told, b"!")
                    os.close(told)
                    signal.pause()
            finally:
                os._exit(1)
        os.close(told)
        answer = os.read(ready, 1)
        os.close(ready)
        assert answer == b"!"
        node = Node(pid)
        self.nodes.append(node)
        node.run("ip", "link", "set", "lo", "up")
        return node

    def outside(self) -> Node:
        """A neighbour: the host's device "uplink", 192.0.2.1, is on a cable to him; he is 192.0.2.2, and knows no way."""
        node = self.node()
        run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", str(node.pid))
        run("ip", "address", "add", f"{HOST}/24", "dev", "uplink")
        run("ip", "address", "add", f"{HOST6}/64", "dev", "uplink", "nodad")
        node.run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "eth0")
        node.run("ip", "address", "add", f"{OUTSIDE6}/64", "dev", "eth0", "nodad")
        node.run("ip", "link", "set", "eth0", "up")
        run("ip", "link", "set", "uplink", "up")
        for end in (self, node):
            end.run("ip", "-j", "link", "show")  # which has the kernel finish with what "up" has begun
        return node

    def state(self) -> str:
        """The host's devices, addresses, routes, rules and settings, in the words of other programs."""
        addresses = json.loads(run("ip", "-j", "address"))
        shown = [
            (
                link["ifname"],
                "UP" in link["flags"],
                link["mtu"],
                link.get("address"),
                found["local"],
                found["prefixlen"],
            )
            for link in addresses
            for found in link["addr_info"] or [{"local": "", "prefixlen": 0}]
            if not found["local"].startswith("fe80:")  # comes by itself, some time after the device is up
        ]
        settings = [f"net/ipv4/ip_forward {read('net/ipv4/ip_forward')}"]
        settings.append(f"net/ipv6/conf/all/forwarding {read('net/ipv6/conf/all/forwarding')}")
        routes = [run("ip", *family, "route").replace(" linkdown", "") for family in ([], ["-6"])]
        return "\n".join([json.dumps(shown, indent=1), *routes, run("nft", "list", "ruleset"), *settings])

    def close(self) -> None:
        """The test's process is on the real host again, and the processes have ended."""
        _enter(self.real)
        os.close(self.real)
        os.close(self.fd)
        for node in self.nodes:
            os.close(node.fd)
            os.kill(node.pid, signal.SIGKILL)
            os.waitpid(node.pid, 0)


@pytest.fixture
def world() -> Iterator[World]:
    """A host of the test's own, which its process is in until the end of the test."""
    world = World()
    try:
        yield world
    finally:
        world.close()


def server(port: int, kind: str = "tcp", address: str = "") -> socket.socket:
    """A server in the namespace that this process is in."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(PATIENCE)
    sock.bind((address, port))
    if kind == "tcp":
        sock.listen()
    return sock


def run(*command: str) -> str:
    """What a program prints; the test fails with its complaint if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def read(setting: str) -> str:
    """A setting below /proc/sys."""
    with open(f"/proc/sys/{setting}") as file:
        return file.read().strip()


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
