"""What the host has already: devices, addresses, routes; read from the kernel, never changed here."""

from __future__ import annotations

import contextlib
from _socket import if_nametoindex
from collections.abc import Iterable, Mapping

from minicontainer.linux.netlink import RT_SCOPE_UNIVERSE, RTPROT_KERNEL, Address, Netlink
from minicontainer.linux.netlink import Route as Hop
from minicontainer.network.addresses import Subnet, read_subnet
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Route(Record):
    """A subnet that the host knows a way to, or is itself in."""

    subnet: Subnet
    device: str
    address: bool
    """Whether it is of an address of the host's, and not just of a route."""

    def __str__(self) -> str:
        kind = "the address" if self.address else "the route"
        return f"{kind} {self.subnet} of the host's {self.device or 'routing table'}"


def has_device(name: str) -> bool:
    """Whether there is a network device of this name."""
    try:
        if_nametoindex(name)
    except OSError:
        return False
    return bool(name)


def is_port(device: str, bridge: str) -> bool:
    """Whether a device is a port of that bridge."""
    with contextlib.suppress(OSError), Netlink() as netlink:
        return netlink.link(device).master == netlink.link(bridge).index
    return False


def taken_subnets() -> list[Route]:
    """Where the host's packets go, but for the default route and its own loopback."""
    found = []
    with Netlink() as netlink:
        names = {link.index: link.name for link in netlink.links()}
        for address in netlink.addresses():
            found.append(Route(read_subnet(address.address, exact=False), names.get(address.index, ""), True))
        for route in netlink.routes():
            if route.destination != "default":
                found.append(Route(read_subnet(route.destination, exact=False), names.get(route.index, ""), False))
    link_local = read_subnet("fe80::/10")
    multicast = read_subnet("ff00::/8")
    return [one for one in found if one.device != "lo" and not one.subnet.within(link_local)
            and not one.subnet.within(multicast)]  # fmt: skip


def subnet_of_device(name: str) -> Subnet | None:
    """That of a device's first IPv4 address."""
    with contextlib.suppress(OSError), Netlink() as netlink:
        index = if_nametoindex(name)
        for address in netlink.addresses():
            if address.index == index and ":" not in address.address:
                return read_subnet(address.address, exact=False)
    return None


def own_addresses() -> list[str]:
    """Every address that the host itself has."""
    with Netlink() as netlink:
        return [address.address.partition("/")[0] for address in netlink.addresses()]


def belongings(device: str) -> dict[str, Any]:
    """The addresses of a device, and the routes through it that do not come with them, to be written down."""
    with Netlink() as netlink:
        index = netlink.link(device).index
        addresses = [one for one in netlink.addresses(index) if one.scope == RT_SCOPE_UNIVERSE]
        routes = [one for one in netlink.routes() if one.index == index and one.protocol != RTPROT_KERNEL]
    return {
        "addresses": [{**one.asdict(), "message": one.message.hex()} for one in addresses],
        "routes": [{**one.asdict(), "message": one.message.hex()} for one in routes],
    }


def read_belongings(written: Mapping[str, Any]) -> tuple[list[Address], list[Hop]]:
    """Addresses and routes out of what `belongings` has written."""
    addresses, routes = (
        [{**one, "message": bytes.fromhex(one["message"])} for one in written[kind]] for kind in ("addresses", "routes")
    )
    return [Address(**one) for one in addresses], [Hop(**one) for one in routes]


def traffic(interfaces: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Bytes that came in and went out at each of these devices, as far as they are there; all in one look."""
    wanted = set(interfaces)
    with Netlink() as netlink:
        return {link.name: (link.rx_bytes, link.tx_bytes) for link in netlink.links() if link.name in wanted}
