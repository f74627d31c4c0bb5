"""Ports of the host that are published: choosing them, and who has one that is taken.

Nobody listens at a published port: the kernel rewrites the packets' address. So two things can be in its way, another
container's, which our own records know, and a socket of the host, which bind(2) finds.
"""

from __future__ import annotations

import contextlib
import errno
import os
from _socket import AF_INET, AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Socket

from minicontainer.network.errors import NetworkError
from minicontainer.network.store import Endpoint, Records
from minicontainer.network.wishes import Port, endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EVERY = ("0.0.0.0", "::")
"""All addresses of the host."""


def booked(records: Records, wanted: Iterable[Port], container: str) -> list[Port]:
    """The same ports, each with the port of the host that it gets. Raises NetworkError: one is taken, and by whom."""
    everybody = [one for network in records.all() for one in records.endpoints(network.name)]
    others = [one for one in everybody if one.ports and one.container != container and records.alive(one.container)]
    taken = [(port, one) for one in others for port in one.ports]
    chosen: list[Port] = []
    for port in wanted:
        chosen.append(_book(port, taken, chosen))
    return chosen


def _book(port: Port, taken: list[tuple[Port, Endpoint]], chosen: list[Port]) -> Port:
    if not port.host_port:
        return _any_free(port, taken, chosen)
    choice = range(port.host_port, (port.last or port.host_port) + 1)
    reason = None
    for number in choice:
        candidate = port.replace(host_port=number, last=0)
        reason = _in_the_way(candidate, taken, chosen)
        if reason is None:
            return candidate
    if len(choice) > 1:
        raise NetworkError(f"no port of {port.address} from {choice[0]} to {choice[-1]} is free: the last {reason}")
    raise NetworkError(f"the port {port.replace(last=0)} {reason}; choose another")


def _any_free(port: Port, taken: list[tuple[Port, Endpoint]], chosen: list[Port]) -> Port:
    """The kernel chooses one, as for any program that does not care."""
    for _ in range(1000):
        with _bound(port.replace(host_port=0, last=0)) as sock:
            candidate = port.replace(host_port=sock.getsockname()[1], last=0)
        if _in_the_way(candidate, taken, chosen, ask_the_kernel=False) is None:
            return candidate
    raise NetworkError(f"there is no free port of {port.address} left")


def _in_the_way(
    port: Port, taken: list[tuple[Port, Endpoint]], chosen: list[Port], *, ask_the_kernel: bool = True
) -> str | None:
    """Why a port of the host cannot be had; None: it can."""
    for other, owner in taken:
        if collide(port, other):
            return f'is published already by container "{owner.name}"'
    if any(collide(port, other) for other in chosen):
        return "is wanted twice"
    if ask_the_kernel:
        try:
            with _bound(port):
                pass
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return f"is in use by {_user_of(port)}"
    return None


def collide(one: Port, other: Port) -> bool:
    """Whether two cannot both be published."""
    if (one.protocol, one.host_port) != (other.protocol, other.host_port):
        return False
    if (":" in one.address) != (":" in other.address):
        return False
    return one.address == other.address or one.address in EVERY or other.address in EVERY


@contextlib.contextmanager
def _bound(port: Port) -> Iterator[Socket]:
    """A socket that has this port for a moment. Raises OSError: EADDRINUSE; NetworkError: an address of nobody's."""
    family = AF_INET6 if ":" in port.address else AF_INET
    sock = Socket(family, SOCK_STREAM if port.protocol == "tcp" else SOCK_DGRAM)
    try:
        if port.protocol == "tcp":
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # a connection that lingers in TIME_WAIT is in nobody's way
        if family == AF_INET6:
            sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        try:
            sock.bind((port.address, port.host_port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise NetworkError(f"cannot publish at {port.address}: this host has no such address") from None
            if error.errno == errno.EACCES:
                raise NetworkError(f"cannot publish at port {port.host_port}: below 1024 it takes root") from None
            raise
        yield sock
    finally:
        sock.close()


def _user_of(port: Port) -> str:
    """The process that has a socket at this port of the host."""
    inodes = {inode for file in (port.protocol, f"{port.protocol}6") for inode in _sockets(file, port.host_port)}
    for process in sorted(filter(str.isdecimal, os.listdir("/proc")), key=int):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{process}/fd/{fd}") in inodes:
                        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as name:
                            return f"process {process} ({name.read().strip()})"
    return "a process of another user" if os.geteuid() else "a process that is out of our sight"


def _sockets(file: str, port: int) -> Iterable[str]:
    """``socket:[123]`` for each that has this port: proc_pid_net(5). In /proc/net/tcp 0A is LISTEN."""
    with contextlib.suppress(OSError), open(f"/proc/self/net/{file}", encoding="ascii") as sockets:
        next(sockets, "")
        for line in sockets:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and (fields[3] == "0A" or file.startswith("udp")):
                yield f"socket:[{fields[9]}]"


def shown(endpoint_of: Endpoint) -> list[str]:
    """A line for each published port, docker's: ``80/tcp -> 127.0.0.1:8080``."""
    return [f"{port.container_port}/{port.protocol} -> {endpoint(port.address, port.host_port)}"
            for port in sorted(endpoint_of.ports, key=lambda port: (port.container_port, port.protocol))]  # fmt: skip
