"""A small world of networks to watch packets in: a host, two containers on its bridge, and somebody outside.

    from labs.notebook import pictures
    pictures.journey("out")             # built by the course's own steps
    pictures.journey("out", mine=True)  # by this session's exercises, as far as there are any

The world is made anew for each question, in a process that is root of namespaces of its own, and gone with it. On every
device of it somebody listens (packet(7)), so what is shown was seen there.

In a cell under %%apart, `place()` is a process to lay a cable to, and `devices(pid)` tells what it has; `shim(name)` is
one that does what root tells it, over a socket of AF_UNIX.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from minicontainer.linux import CLONE_NEWNET, unshare
from minicontainer.linux.netlink import Netlink, inside, opened_namespace

EVERYTHING = ["--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
PATIENCE = 1.0  # s, after which a packet that was lost is given up

BRIDGE, SUBNET, GATEWAY = "br0", "172.17.0.0/16", "172.17.0.1"
FIRST, SECOND = "172.17.0.2", "172.17.0.3"
HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
PORT, PUBLISHED = 53, 8053

KINDS = {
    "out": "from the container to somebody outside",
    "in": "from somebody outside to a published port",
    "loopback": "from the host itself, by 127.0.0.1, to a published port",
    "beside": "from the container to its neighbour on the bridge",
}

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SO_TIMESTAMPNS = 35


@dataclass(frozen=True)
class Sighting:
    """A packet where it was seen: on this device of this node, coming or leaving, between these two."""

    node: str
    device: str
    leaving: bool
    source: str
    destination: str
    answer: bool
    nanoseconds: int


@dataclass(frozen=True)
class Journey:
    """A question and its answer as the devices on their way saw them, and what the server said of the client."""

    kind: str
    sightings: list[Sighting]
    client: str
    """Whom the server took for the client; "" if nothing arrived there."""
    answered: bool
    complaint: str = ""
    """What a step raised, if one did."""


def journey(kind: str, mine: bool = False) -> Journey:
    """What becomes of one packet and of its answer. `kind` is a key of KINDS."""
    from labs.notebook.session import session

    with tempfile.TemporaryDirectory(prefix="journey-") as directory:
        submission = session.write(Path(directory, "session.ipynb")) if mine else Path("-")
        command = ["unshare", *EVERYTHING, sys.executable, "-m", "labs.notebook.network", kind, str(submission)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, env=environment
        )
    if done.returncode:
        raise RuntimeError(f"no network could be made: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    told = json.loads(done.stdout)
    told["sightings"] = [Sighting(**one) for one in told["sightings"]]
    return Journey(**told)


@contextlib.contextmanager
def shim(name: str) -> Iterator[None]:
    """A process of a sandbox that listens at this name of AF_UNIX, and runs what root says, while the block lasts.

    As containerd's shims did (CVE-2020-15257), it believes whoever has the uid that it has itself.
    """
    with socket.socket(socket.AF_UNIX) as serves:
        serves.bind(name)
        serves.listen()
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    _obey(serves)
            finally:
                os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _obey(serves: socket.socket) -> None:
    with serves.accept()[0] as caller:
        _, uid, _ = struct.unpack("iII", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid == os.getuid():
            done = subprocess.run(["sh", "-c", caller.recv(1000)], stdin=subprocess.DEVNULL, capture_output=True)
            caller.sendall(done.stdout)


@contextlib.contextmanager
def place() -> Iterator[int]:
    """The pid of a process that has a network namespace of its own, and does nothing, while the block lasts."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        unshare(CLONE_NEWNET)
        os.write(told, b"!")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    try:
        with Netlink(pid=pid) as kernel:
            kernel.set_link("lo", up=True)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def devices(pid: int | None = None) -> None:
    """Print the devices of a process's network namespace (our own, without one), with what the kernel tells of them."""
    with Netlink(pid=pid) as kernel:
        links, addresses, routes = kernel.links(), kernel.addresses(), kernel.routes()
    names = {link.index: link.name for link in links}
    for link in links:
        own = " ".join(known.address for known in addresses if known.index == link.index and known.scope != 253)
        plugged = f"  in {names[link.master]}" if link.master in names else ""
        print(f"{link.name:10} {link.kind or '-':7} {'up' if link.up else 'down':5}{own or 'no address'}{plugged}")
    for route in routes:
        if route.gateway:
            print(f"{'':10} {route.destination} by {route.gateway}, through {names[route.index]}")


def asks(client: int | None, address: str, port: int, server: int | None, at: int, kind: str = "udp") -> None:
    """Print whether the process `client` (None: we) gets an answer from there, and whom `server` takes it for."""
    with _listening(server, at, kind) as serves, _socket(client, kind) as sock:
        try:
            seen = _ask(sock, (address, port), serves, kind)
        except OSError as error:
            print(f"{address}:{port} is not reached: {error.strerror or 'no answer'}")
        else:
            print(f"{address}:{port} has answered; to the server it was {seen[0]} who asked")


def main() -> None:
    """In namespaces of our own: build the world, let one packet go, and tell who saw it."""
    kind, submission = sys.argv[1], sys.argv[2]
    from minicontainer.steps import Steps
    from minicontainer.steps.loading import define, read_exercises

    steps = Steps()
    if submission != "-":
        functions, _ = define(read_exercises([Path(submission)]).values())
        steps = steps.with_functions({name: made for name, made in functions.items() if name in Steps.names()})
    with Netlink() as kernel:
        kernel.set_link("lo", up=True)
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("0")  # a new namespace has what the host has: here, whoever wants it on must switch it on
    with place() as first, place() as second, place() as outside:
        nodes: dict[str, int | None] = {"the container": first, "its neighbour": second, "the host": None}
        nodes["outside"] = outside
        complaint = ""
        _uplink(outside)
        try:
            steps.create_bridge(BRIDGE, [f"{GATEWAY}/16"])
            for pid, address, end in ((first, FIRST, "cable1"), (second, SECOND, "cable2")):
                steps.connect(pid, BRIDGE, "eth0", [f"{address}/16"], [GATEWAY], host_interface=end)
            steps.masquerade(BRIDGE, [SUBNET])
            if kind in ("in", "loopback"):
                steps.publish(BRIDGE, [("udp", "", PUBLISHED, FIRST, PORT)])
        except Exception as error:  # of a step, which may be a student's: it is told below the picture
            complaint = f"{type(error).__name__}: {error}"
        print(json.dumps(asdict(_followed(kind, nodes, complaint))))


def _uplink(outside: int) -> None:
    with Netlink() as here, Netlink(pid=outside) as there, opened_namespace(outside) as namespace:
        here.add_veth("uplink", "eth0", namespace)
        there.add_address("eth0", f"{OUTSIDE}/24")
        there.set_link("eth0", up=True)
        here.add_address("uplink", f"{HOST}/24")
        here.set_link("uplink", up=True)
        here.link("uplink"), there.link("eth0")  # asked about, it can send


def _followed(kind: str, nodes: dict[str, int | None], complaint: str) -> Journey:
    """Let a question go, and its answer, while somebody listens on every device."""
    client, to, server = {
        "out": ("the container", (OUTSIDE, PORT), "outside"),
        "in": ("outside", (HOST, PUBLISHED), "the container"),
        "loopback": ("the host", ("127.0.0.1", PUBLISHED), "the container"),
        "beside": ("the container", (SECOND, PORT), "its neighbour"),
    }[kind]
    seen, answered = "", False
    with contextlib.ExitStack() as stack:
        ears = []
        for node, pid in nodes.items():
            with Netlink(pid=pid) as kernel:
                names = [link.name for link in kernel.links() if link.up]
            for device in names:
                ears.append((node, device, stack.enter_context(_ear(pid, device))))
        serves = stack.enter_context(_listening(nodes[server], PORT, "udp"))
        sock = stack.enter_context(_socket(nodes[client], "udp"))
        try:
            sock.sendto(b"question", to)
            _, peer = serves.recvfrom(64)
            seen = f"{peer[0]}:{peer[1]}"
            serves.sendto(b"answer", peer)
            sock.recv(64)
            answered = True
        except OSError:
            pass
        found = [known for node, device, ear in ears for known in _heard(node, device, ear)]
    return Journey(kind, sorted(found, key=lambda known: known.nanoseconds), seen, answered, complaint)


@contextlib.contextmanager
def _in(pid: int | None) -> Iterator[None]:
    if pid is None:
        yield
    else:
        with opened_namespace(pid) as namespace, inside(namespace):
            yield


def _socket(pid: int | None, kind: str) -> socket.socket:
    with _in(pid):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    return sock


def _listening(pid: int | None, port: int, kind: str) -> socket.socket:
    sock = _socket(pid, kind)
    sock.bind(("", port))
    if kind == "tcp":
        sock.listen()
    return sock


def _ask(sock: socket.socket, to: tuple[str, int], serves: socket.socket, kind: str) -> tuple[str, int]:
    """Whom the server sees. Raises OSError: nothing arrives, or no answer."""
    peer: tuple[str, int]
    if kind == "tcp":
        sock.connect(to)
        served, peer = serves.accept()
        served.close()
        return peer
    sock.sendto(b"question", to)
    _, peer = serves.recvfrom(64)
    serves.sendto(b"answer", peer)
    sock.recv(64)
    return peer


def _ear(pid: int | None, device: str) -> socket.socket:
    """A socket that hears what comes and leaves by a device."""
    with _in(pid):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        ear.bind((device, ETH_P_ALL))
    ear.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    ear.setblocking(False)
    return ear


def _heard(node: str, device: str, ear: socket.socket) -> Iterator[Sighting]:
    """Of what an ear has heard, our question and our answer."""
    while True:
        try:
            packet, ancillary, _, where = ear.recvmsg(2048, 128)
        except BlockingIOError:
            return
        payload = packet[28:]
        if len(packet) < 28 or packet[0] != 0x45 or packet[9] != socket.IPPROTO_UDP or payload[:6] not in _OURS:
            continue
        ports = struct.unpack("!HH", packet[20:24])
        source, destination = (socket.inet_ntoa(packet[start : start + 4]) for start in (12, 16))
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        yield Sighting(
            node,
            device,
            where[2] == PACKET_OUTGOING,
            f"{source}:{ports[0]}",
            f"{destination}:{ports[1]}",
            payload[:6] == b"answer",
            seconds * 10**9 + nanoseconds,
        )


_OURS = (b"questi", b"answer")

if __name__ == "__main__":
    main()
