"""What networks there are, as the kernel has them now: devices and addresses by netlink, ports and NAT by nftables.

Only the names are ours: of networks and of containers. So what is drawn is what is so, and not what was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from minicontainer.linux import nftables
from minicontainer.linux.netlink import Address, Link, Netlink
from minicontainer.network.store import Endpoint, Network
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _Element = tuple[tuple[Any, ...], str, tuple[Any, ...]]  # key, comment, value; of a set, the value is ()

_TABLE = "inet minicontainer"


class Member(Record):
    """A container's end of a network."""

    container: str
    """Its name."""
    interface: str
    addresses: tuple[str, ...]
    """``172.17.0.2/16``."""
    ports: tuple[str, ...] = ()
    """Published ones: ``127.0.0.1:8080 → 80/tcp``, ``*:53 → 53/udp``."""


class Net(Record):
    """A network, and who is on it."""

    name: str
    driver: str
    device: str = ""
    """The host's: the bridge, or what macvlan and ipvlan go through; "": it has none now."""
    addresses: tuple[str, ...] = ()
    """The host's own there, the gateways."""
    subnets: tuple[str, ...] = ()
    nat: bool = False
    """Whether what goes out has the host's address."""
    internal: bool = False
    members: tuple[Member, ...] = ()


class Uplink(Record):
    """A way out of the host."""

    device: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]


class Graph(Record):
    """All of it."""

    uplinks: tuple[Uplink, ...]
    networks: tuple[Net, ...]

    def asdict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "uplinks": [uplink.asdict() for uplink in self.uplinks],
            "networks": [
                {**network.asdict(), "members": [member.asdict() for member in network.members]}
                for network in self.networks
            ],
        }


def look(networks: Collection[Network], endpoints: Collection[Endpoint], pids: Mapping[str, int]) -> Graph:
    """Ask the kernel about these networks, and these containers' ends of them. Raises OSError.

    `pids`: of the process 1 of each container, by its id. Where we may not look into a container's namespace, its
    addresses are those that were given; where we may not ask the packet filter, there are no rules of ours either.
    """
    with Netlink() as netlink:
        links, addresses, routes = netlink.links(), netlink.addresses(), netlink.routes()
    names = {link.index: link.name for link in links}
    ways = {names.get(route.index, "") for route in routes if route.destination == "default"}
    uplinks = tuple(
        Uplink(
            link.name,
            tuple(_of(link, addresses)),
            tuple(route.gateway for route in routes if route.destination == "default" and route.index == link.index),
        )
        for link in links
        if link.name in ways
    )
    rules = _rules()
    inside = {container: _inside(pid) for container, pid in pids.items()}
    found = []
    for network in networks:
        ours = [one for one in endpoints if one.network == network.name]
        device = next((link for link in links if link.name in (network.device, network.parent)), None)
        found.append(
            Net(
                name=network.name,
                driver=network.driver,
                device=device.name if device else "",
                addresses=tuple(_of(device, addresses)) if device else (),
                subnets=network.subnets,
                nat=_is_in(rules, network.device, "subnets", "subnets6"),
                internal=_is_in(rules, network.device, "internal") or network.internal,
                members=tuple(_member(one, inside.get(one.container, {}), rules) for one in ours),
            )
        )
    known = {network.name for network in networks}
    for name in dict.fromkeys(one.network for one in endpoints if one.network not in known):  # pasta, slirp4netns
        ours = [one for one in endpoints if one.network == name]
        members = tuple(_carried(one, inside.get(one.container, {})) for one in ours)
        found.append(Net(name, name, nat=True, members=members))
    return Graph(uplinks, tuple(found))


def _of(link: Link, addresses: Collection[Address]) -> Iterator[str]:
    """The addresses of a device, but for those that every device has for itself."""
    return (one.address for one in addresses if one.index == link.index and not one.address.startswith("fe80:"))


def _inside(pid: int) -> dict[str, tuple[str, ...]]:
    """Device → its addresses, in a container."""
    try:
        with Netlink(pid=pid) as netlink:
            addresses = netlink.addresses()
            return {link.name: tuple(_of(link, addresses)) for link in netlink.links() if link.name != "lo"}
    except OSError:
        return {}


def _member(endpoint: Endpoint, inside: Mapping[str, tuple[str, ...]], rules: Mapping[str, list[_Element]]) -> Member:
    addresses = inside.get(endpoint.interface, endpoint.addresses)
    mine = {address.partition("/")[0] for address in addresses}
    return Member(endpoint.name, endpoint.interface, addresses, tuple(_published(rules, mine)))


def _carried(endpoint: Endpoint, inside: Mapping[str, tuple[str, ...]]) -> Member:
    """One whose packets a program carries, which has its ports too."""
    interface, addresses = next(iter(inside.items()), ("", ()))
    ports = (_arrow(port.address, port.host_port, port.container_port, port.protocol) for port in endpoint.ports)
    return Member(endpoint.name, interface, addresses, tuple(ports))


# The packet filter's table


def _rules() -> dict[str, list[_Element]]:
    """The elements of each set and map of our table."""
    try:
        table = nftables.listing(f"list table {_TABLE}")
    except OSError:
        return {}
    found: dict[str, list[_Element]] = {}
    for entry in table:
        for kind in ("set", "map"):
            if kind in entry:
                found[entry[kind]["name"]] = [_element(one) for one in entry[kind].get("elem") or ()]
    return found


def _element(listed: Any) -> _Element:
    key, value = listed if isinstance(listed, list) else (listed, {"concat": []})
    comment = ""
    if isinstance(key, dict) and "elem" in key:
        comment, key = key["elem"].get("comment", ""), key["elem"]["val"]
    return _parts(key), comment, _parts(value)


def _parts(value: Any) -> tuple[Any, ...]:
    return tuple(value["concat"]) if isinstance(value, dict) and "concat" in value else (value,)


def _is_in(rules: Mapping[str, list[_Element]], bridge: str, *names: str) -> bool:
    """Whether one of these sets has an element of this bridge's, which is the element's comment."""
    return any(comment == bridge for name in names for _, comment, _ in rules.get(name, ()) if bridge)


def _published(rules: Mapping[str, list[_Element]], mine: Collection[str]) -> Iterator[str]:
    """Of the ports that lead to these addresses."""
    for name in ("ports", "ports6", "ports_at", "ports6_at"):
        for key, _, value in rules.get(name, ()):
            if value and value[0] in mine:
                address = key[0] if name.endswith("_at") else ""
                yield _arrow(address, key[-1], value[1], key[-2])


def _arrow(address: str, host_port: int, container_port: int, protocol: str) -> str:
    place = "*" if address in ("", "0.0.0.0", "::") else f"[{address}]" if ":" in address else address
    return f"{place}:{host_port} → {container_port}/{protocol}"
