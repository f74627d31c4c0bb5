"""Network namespaces of the sandbox, seen and tried from outside: devices, addresses, and packets that get through.

A child of the examiner goes from one namespace to the other, makes sockets there, and tells what came of it. Nothing
of the submission has a part in that: a socket stays where it was made, and packets go where the kernel sends them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from labs.grading.checks import Late, deadline
from labs.grading.observed import Observed
from minicontainer.linux import CLONE_NEWNET, CLONE_NEWUSER, setns
from minicontainer.linux.netlink import Netlink

Enter = Callable[[Observed], None]

SILENCE = 1.5
"""Seconds after which nothing will come. What gets through does so in less than a millisecond; but on a machine that is
busy the first question, ARP's or TCP's, can come before the bridge has heard that the cable is in, and the next is
asked a second later."""


def visiting(act: Callable[[Enter], Any]) -> Any:
    """What `act` returns, if that is JSON, in a child of ours. It is given a function, to enter networks with.

    Raises Late; RuntimeError: the child failed.
    """
    answer, told = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(answer)
            said = {"returned": act(_entering())}
        except BaseException as error:
            said = {"failed": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError), open(told, "w") as file:
            json.dump(said, file)
        os._exit(0)
    os.close(told)
    try:
        text = b""
        while select.select([answer], [], [], deadline())[0]:
            part = os.read(answer, 1 << 16)
            if not part:
                break
            text += part
        else:
            raise Late(f"the network in the sandbox could not be looked at within {deadline():g} s")
    finally:
        os.close(answer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    told_back = json.loads(text or b'{"failed": "it was killed"}')
    if "failed" in told_back:
        raise RuntimeError(f"the examiner, in a network of the sandbox: {told_back['failed']}")
    return told_back["returned"]


def _entering() -> Enter:
    joined = os.geteuid() == 0

    def enter(process: Observed) -> None:
        nonlocal joined
        setns(process.pidfd, CLONE_NEWNET | (0 if joined else CLONE_NEWUSER))
        joined = True

    return enter


def network(process: Observed) -> dict[str, dict[str, Any]]:
    """The devices of its network namespace by name: the fields of `netlink.Link`, and "addresses", "routes".

    Addresses of the link alone, which IPv6 has by itself, are left out.
    """

    def look(enter: Enter) -> dict[str, dict[str, Any]]:
        enter(process)
        with Netlink() as kernel:
            links = [
                kernel.link(link.name) for link in kernel.links()
            ]  # asked for one, it finishes what "up" has begun
            addresses, routes = kernel.addresses(), kernel.routes()
        return {
            link.name: {
                **link.asdict(),
                "addresses": [known.address for known in addresses if known.index == link.index and known.scope == 0],
                "routes": [[known.destination, known.gateway] for known in routes if known.index == link.index],
            }
            for link in links
        }

    told: dict[str, dict[str, Any]] = visiting(look)
    return told


def setting(process: Observed, name: str) -> str:
    """A setting below /proc/sys/net of its network namespace, "" where there is none."""

    def look(enter: Enter) -> str:
        enter(process)
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/{name}") as file:
            return file.read().strip()
        return ""

    return str(visiting(look))


def exchange(
    server: Observed,
    at: tuple[str, int],
    client: Observed,
    to: tuple[str, int],
    kind: str = "tcp",
    source: str = "",
) -> str:
    """Who a server sees that a client, who asks `to`, is; "" if the question does not arrive, or the answer gets lost.

    The server is at the address and port `at`, the client asks from `source`, if that is given.
    """
    return str(visiting(lambda enter: _exchange(enter, server, at, client, to, kind, source)[0]))


def arrives(server: Observed, at: tuple[str, int], client: Observed, to: tuple[str, int], source: str = "") -> str:
    """From whom a datagram arrives at the server, though the answer might get lost; "" if none does."""
    return str(visiting(lambda enter: _exchange(enter, server, at, client, to, "udp", source)[1]))


def _exchange(
    enter: Enter, server: Observed, at: tuple[str, int], client: Observed, to: tuple[str, int], kind: str, source: str
) -> tuple[str, str]:
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    style = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    enter(server)
    with socket.socket(family, style) as serves:
        serves.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        serves.settimeout(SILENCE)
        serves.bind(at)
        enter(client)
        with socket.socket(family, style) as asks:
            asks.settimeout(SILENCE)
            if source:
                asks.bind((source, 0))
            if kind == "tcp":
                serves.listen()
                try:
                    asks.connect(to)
                    served, peer = serves.accept()
                except OSError:
                    return "", ""
                served.close()
                return str(peer[0]), str(peer[0])
            try:
                asks.sendto(b"?", to)
                _, peer = serves.recvfrom(16)
            except OSError:
                return "", ""
            try:
                serves.sendto(b"!", peer)
                asks.recv(16)
            except OSError:
                return "", str(peer[0])
            return str(peer[0]), str(peer[0])


def ping(client: Observed, address: str) -> bool:
    """Whether an ICMP echo request from there is answered: ping(8)."""

    def act(enter: Enter) -> bool:
        enter(client)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            number = os.urandom(2)
            body = struct.pack("!BBH", 8, 0, 0) + number + b"\0\1"
            total = sum(struct.unpack("!4H", body))
            body = body[:2] + struct.pack("!H", 0xFFFF - (total % 0xFFFF)) + body[4:]
            try:
                sock.sendto(body, (address, 0))
            except OSError:
                return False
            return any(answer[20:22] == b"\0\0" and answer[24:26] == number for answer in _heard(sock))

    return bool(visiting(act))


def _heard(sock: socket.socket) -> Iterator[bytes]:
    while select.select([sock], [], [], SILENCE)[0]:
        yield sock.recv(2048)
