"""Which subnet a network gets, which addresses its containers, and what of a wish cannot be."""

from __future__ import annotations

import os
import time

from minicontainer.network import addresses
from minicontainer.network.addresses import Subnet, read_subnet
from minicontainer.network.errors import NetworkError
from minicontainer.network.host import has_device, own_addresses, subnet_of_device, taken_subnets
from minicontainer.network.store import DEFAULT, PREDEFINED, Endpoint, Network, Records
from minicontainer.network.wishes import Attachment, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

DRIVERS = ("bridge", "macvlan", "ipvlan", "physical")

DEVICE = "minicontainer"
"""Bridges that nobody has named are called so, with a number."""

_OPTIONS = {"bridge": {"mtu", "name"}, "physical": {"mtu", "name", "parent"},
            "macvlan": {"mtu", "parent", "mode"}, "ipvlan": {"mtu", "parent", "mode"}}  # fmt: skip
_MODES = {"macvlan": ("bridge", "private", "vepa", "passthru"), "ipvlan": ("l2", "l3", "l3s")}


def planned(
    records: Records,
    name: str,
    *,
    driver: str = "bridge",
    subnets: Collection[str] = (),
    gateways: Collection[str] = (),
    ranges: Collection[str] = (),
    ipv6: bool = False,
    internal: bool = False,
    options: Mapping[str, str] | None = None,
) -> Network:
    """A new network as it is to be; nothing is made or written down. Raises NetworkError."""
    options = dict(options or {})
    _check_name(records, name)
    _check_options(driver, options)
    number = os.urandom(6).hex()
    parent, mtu = options.get("parent", ""), options.get("mtu")
    if driver != "bridge" and not has_device(parent):
        raise NetworkError(f'there is no network device "{parent}" on this host; see: ip link')
    if driver in ("macvlan", "ipvlan") and ranges and not subnets:
        raise NetworkError("--ip-range is a part of a subnet: give --subnet too")
    chosen = [read_subnet(text) for text in subnets]
    if not any(subnet.version == 4 for subnet in chosen) and not (chosen and driver != "bridge"):
        chosen.insert(0, _own_subnet(records, driver, parent))
    if ipv6 and not any(subnet.version == 6 for subnet in chosen):
        chosen.append(addresses.local_subnet(os.urandom(5)))
    if len({subnet.version for subnet in chosen}) < len(chosen):
        raise NetworkError("a network has at most one subnet of IPv4 and one of IPv6")
    for subnet in chosen:
        _check_subnet(records, subnet, driver, parent)
    device = options.get("name", "") if driver in ("bridge", "physical") else ""
    return Network(
        name=name,
        id=number,
        driver=driver,
        subnets=tuple(map(str, chosen)),
        gateways=tuple(_gateway(subnet, gateways, driver) for subnet in chosen),
        ranges=tuple(_range(subnet, ranges) for subnet in chosen),
        device=device or (f"mc-{number[:10]}" if driver in ("bridge", "physical") else ""),
        parent=parent,
        mtu=None if mtu is None else int(mtu),
        internal=internal,
        options=tuple(sorted(options.items())),
        created=time.time(),
    )


def default_network(records: Records) -> Network:
    """The network that is there without being asked for: 172.17.0.0/16, or the next subnet that is free here."""
    subnet = addresses.free_subnet(_taken(records, DEFAULT))
    number = 0
    while has_device(f"{DEVICE}{number}"):  # of an engine with another state directory
        number += 1
    return Network(
        name=DEFAULT,
        id=os.urandom(6).hex(),
        subnets=(str(subnet),),
        gateways=(subnet.gateway(),),
        ranges=("",),
        device=f"{DEVICE}{number}",
        automatic=True,
        created=time.time(),
    )


def still_free(records: Records, network: Network) -> None:
    """A network of which nothing is made yet: somebody may have come to have its addresses. Raises NetworkError."""
    for subnet in map(read_subnet, network.subnets):
        _check_subnet(records, subnet, network.driver, network.parent, itself=network.name)


# Addresses


def given(records: Records, network: Network, wanted: Attachment, container: str) -> tuple[list[str], dict[str, str]]:
    """The addresses that a container gets, with their prefix, and which of each subnet was given last.

    Raises NetworkError.
    """
    others = [one for one in records.endpoints(network.name) if one.container != container]
    owners = {address.partition("/")[0]: one for one in others for address in one.addresses}
    last, found = records.last_given(network.name), list[str]()
    hosts = own_addresses() if network.parent else []
    for subnet_text, gateway, range in zip(network.subnets, network.gateways, network.ranges, strict=True):
        subnet = read_subnet(subnet_text)
        static = wanted.ip if subnet.version == 4 else wanted.ip6

        reserved = {gateway, *hosts}

        def is_taken(address: str, reserved: set[str] = reserved, owners: dict[str, Endpoint] = owners) -> bool:
            """A container that is not alive any more has none."""
            owner = owners.get(address)
            return address in reserved or (owner is not None and (owner.gone or records.alive(owner.container)))

        if static:
            if static not in subnet:
                raise NetworkError(f'the address {static} is outside of network "{network.name}", which is {subnet}')
            if not subnet.usable(static) or static == gateway:
                whose = "its gateway's" if static == gateway else "the subnet's own"
                raise NetworkError(f'the address {static} of network "{network.name}" is {whose}: choose another')
            if is_taken(static):
                whose = "the host" if static in hosts else f'container "{owners[static].name}"'
                raise NetworkError(f'the address {static} of network "{network.name}" is taken by {whose}')
            address: str | None = static
        else:
            pool = read_subnet(range) if range else None
            address = addresses.free_address(subnet, pool, is_taken, last.get(subnet_text))
            if address is None:
                raise NetworkError(f'network "{network.name}" has no free address left in {range or subnet}: remove '
                                   f"containers, or make a larger one")  # fmt: skip
            last[subnet_text] = address
        found.append(f"{address}/{subnet.prefix}")
    for static, version in ((wanted.ip, 4), (wanted.ip6, 6)):
        if static and not any(read_subnet(text).version == version for text in network.subnets):
            raise NetworkError(f'network "{network.name}" has no IPv{version} subnet for the address {static}')
    return found, last


def without_dead(records: Records, network: Network) -> list[Endpoint]:
    """The endpoints of containers that are not alive: whoever made them was killed."""
    return [one for one in records.endpoints(network.name) if one.gone or not records.alive(one.container)]


# What cannot be


def _check_name(records: Records, name: str) -> None:
    if not is_name(name):
        raise NetworkError(f'"{name}" cannot be a network\'s name: letters, digits, "_", "." and "-", at most 63')
    if name in PREDEFINED:
        raise NetworkError(f'the network "{name}" is always there: choose another name')
    if records.find(name):
        raise NetworkError(f'the network name "{name}" is taken; choose another, or: minicontainer network rm {name}')


def _check_options(driver: str, options: dict[str, str]) -> None:
    if driver not in DRIVERS:
        raise NetworkError(f'there is no network driver "{driver}"; there are {", ".join(DRIVERS)}')
    for unknown in options.keys() - _OPTIONS[driver]:
        raise NetworkError(f'a {driver} network has no option "{unknown}"; it has '
                           f"{', '.join(sorted(_OPTIONS[driver]))}")  # fmt: skip
    mtu = options.get("mtu")
    if mtu is not None and not (mtu.isascii() and mtu.isdecimal() and 68 <= int(mtu) <= 65535):
        raise NetworkError(f"an MTU of {mtu} cannot be: give a number of bytes from 68 (1280 with IPv6) to 65535")
    if driver != "bridge" and not options.get("parent"):
        raise NetworkError(f"a {driver} network goes through a device of the host: give --opt parent=eth1")
    mode = options.get("mode")
    if mode is not None and mode not in _MODES[driver]:
        raise NetworkError(f"{driver} has no mode {mode}; it has {', '.join(_MODES[driver])}")
    device = options.get("name")
    if device is not None and (not is_name(device) or len(device) > 15):
        raise NetworkError(f'"{device}" cannot be a device\'s name: at most 15 letters, digits, "_", "." and "-"')
    if device is not None and has_device(device):
        raise NetworkError(f'there is a network device "{device}" already: choose another name')


def _check_subnet(records: Records, subnet: Subnet, driver: str, parent: str, itself: str = "") -> None:
    """Refuse a subnet that is somebody's already."""
    if subnet.prefix > (30 if subnet.version == 4 else 126):
        raise NetworkError(f"{subnet} has no room for a gateway and a container")
    for other in records.all():
        if other.name != itself:
            for theirs in map(read_subnet, other.subnets):
                if theirs.overlaps(subnet):
                    raise NetworkError(f'the subnet {subnet} overlaps {theirs} of network "{other.name}"')
    if driver == "bridge":
        for route in taken_subnets():
            if route.subnet.overlaps(subnet):
                raise NetworkError(f"the subnet {subnet} overlaps {route}: choose another with --subnet")


def _own_subnet(records: Records, driver: str, parent: str) -> Subnet:
    if driver == "bridge":
        return addresses.free_subnet(_taken(records))
    found = subnet_of_device(parent)
    if found is None:
        raise NetworkError(f"{parent} has no IPv4 address that would say the subnet: give --subnet")
    return found


def _taken(records: Records, itself: str = "") -> list[Subnet]:
    ours = [read_subnet(text) for network in records.all() if network.name != itself for text in network.subnets]
    return ours + [route.subnet for route in taken_subnets()]


def _gateway(subnet: Subnet, wanted: Collection[str], driver: str) -> str:
    """The one that was asked for; a bridge has one in any case, which is the bridge itself."""
    for text in map(addresses.canonical, wanted):
        if text in subnet:
            if not subnet.usable(text):
                raise NetworkError(f"the gateway {text} cannot be: it is the subnet's own address")
            return text
    stray = [text for text in wanted if addresses.read_address(text)[0] == subnet.version]
    if stray:
        raise NetworkError(f"the gateway {stray[0]} is outside of the subnet {subnet}")
    return subnet.gateway() if driver == "bridge" else ""


def _range(subnet: Subnet, wanted: Collection[str]) -> str:
    for text in wanted:
        part = read_subnet(text)
        if part.version == subnet.version:
            if not part.within(subnet):
                raise NetworkError(f"the range {part} is outside of the subnet {subnet}")
            return str(part)
    return ""
