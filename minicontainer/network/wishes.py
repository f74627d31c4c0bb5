"""What a user wants of networks, and how it is written on the command line: docker's words."""

from __future__ import annotations

from minicontainer.network.errors import NetworkError
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LOOPBACK = "127.0.0.1"
"""Where a port is published unless an address is given. Docker takes every address of the host, and surprises."""

PROTOCOLS = ("tcp", "udp")

USERSPACE = ("pasta", "slirp4netns")
"""In place of a network's name: the program that carries the packets of whom may make no network on the host."""

MOST_PORTS = 4096
"""In one range."""


class Attachment(Record):
    """A network that a container is to be connected to, and as what."""

    network: str
    """Its name; or "container:NAME", whose network namespace is shared."""
    ip: str = ""
    """Its IPv4 address there; "": whichever is free."""
    ip6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    """Further names, which others on this network know it by."""
    interface: str = ""
    """What the device is called in the container; "": eth0, eth1…"""


class Port(Record):
    """A port of the host at which a port of a container is to be reached."""

    container_port: int
    host_port: int = 0
    """0: whichever is free."""
    address: str = LOOPBACK
    """Of the host; "0.0.0.0" and "::" are all that it has."""
    protocol: str = "tcp"
    last: int = 0
    """The first port that is free from `host_port` to this one; 0: just that one."""

    def __str__(self) -> str:
        return f"{endpoint(self.address, self.host_port)}/{self.protocol}"


def endpoint(address: str, port: int) -> str:
    """``127.0.0.1:80``, ``[::1]:80``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def read_attachment(text: str) -> Attachment:
    """``NAME``, ``NAME,ip=172.20.0.5,alias=db,alias=sql``, or docker's ``name=NAME,ip=…``. Raises NetworkError."""
    name, *words = text.split(",")
    fields: dict[str, Any] = {"network": name.removeprefix("name=")}
    aliases = list[str]()
    for word in words:
        key, equals, value = word.partition("=")
        field = _FIELDS.get(key)
        if not equals or not value or field is None:
            raise NetworkError(f'cannot understand "{word}" of the network "{text}": write NAME,ip=172.20.0.5,alias=db')
        if field == "aliases":
            aliases.append(value)
        else:
            fields[field] = value
    return checked(Attachment(aliases=tuple(aliases), **fields))


_FIELDS = {
    "ip": "ip",
    "ip6": "ip6",
    "mac": "mac",
    "mac-address": "mac",
    "alias": "aliases",
    "interface": "interface",
}


def checked(wanted: Attachment) -> Attachment:
    """The same, each word in its one form. Raises NetworkError: what can be no address, MAC, name."""
    from minicontainer.network.addresses import canonical, read_address

    for text, version in ((wanted.ip, 4), (wanted.ip6, 6)):
        if text and read_address(text)[0] != version:
            raise NetworkError(f'"{text}" is no IPv{version} address')
    if wanted.mac:
        parts = wanted.mac.lower().split(":")
        if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
            raise NetworkError(f'"{wanted.mac}" is no MAC address: write it as 02:42:ac:11:00:02')
        if int(parts[0], 16) & 1 or not any(int(part, 16) for part in parts):
            raise NetworkError(f'"{wanted.mac}" cannot be a device\'s: it stands for several, or for none')
    for alias in wanted.aliases:
        if not is_name(alias):
            raise NetworkError(f'"{alias}" cannot be a name on a network: letters, digits, "_", "." and "-"')
    if wanted.interface and (not is_name(wanted.interface) or len(wanted.interface) > 15 or wanted.interface == "lo"):
        raise NetworkError(f'"{wanted.interface}" cannot be a device\'s name: at most 15 letters, digits, "_", "." "-"')
    return wanted.replace(
        ip=wanted.ip and canonical(wanted.ip), ip6=wanted.ip6 and canonical(wanted.ip6), mac=wanted.mac.lower()
    )


def is_name(text: str) -> bool:
    """Whether it can be the name of a network, a container on it, a device: nothing that a path or a file could be."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return bool(text) and len(text) <= 63 and set(text) <= set(letters + "_.-") and text[0] in letters


def read_ports(text: str) -> list[Port]:
    """``[ADDRESS:][PORT[-PORT]:]PORT[-PORT][/udp]``: of the host, then of the container. Raises NetworkError."""
    from minicontainer.network.addresses import canonical

    rest, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        raise NetworkError(f'cannot publish "{text}": behind the slash goes tcp or udp')
    address = ""
    if rest.startswith("["):
        address, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            raise NetworkError(f'cannot publish "{text}": an IPv6 address goes in brackets, as in [::1]:8080:80')
    elif rest.count(":") == 2:
        address, _, rest = rest.partition(":")
    host, colon, container = rest.rpartition(":")
    if ":" in host or (address and not colon and not rest):
        raise NetworkError(f'cannot publish "{text}": write [ADDRESS:][PORT:]PORT, an IPv6 address in brackets')
    first, last = _range(container, text)
    chosen = _range(host, text) if host else (0, 0)
    place = canonical(address) if address else LOOPBACK
    protocol = protocol or "tcp"
    if not host:
        return [Port(port, 0, place, protocol) for port in range(first, last + 1)]
    if first == last and chosen[0] < chosen[1]:
        return [Port(first, chosen[0], place, protocol, chosen[1])]
    if last - first != chosen[1] - chosen[0]:
        raise NetworkError(f'cannot publish "{text}": one range has {chosen[1] - chosen[0] + 1} ports, the other '
                           f"{last - first + 1}")  # fmt: skip
    return [Port(port, chosen[0] + port - first, place, protocol) for port in range(first, last + 1)]


def _range(text: str, whole: str) -> tuple[int, int]:
    """``80`` or ``8000-8010``."""
    first, dash, last = text.partition("-")
    numbers = [first, last if dash else first]
    if not all(number.isascii() and number.isdecimal() and 1 <= int(number) <= 65535 for number in numbers):
        raise NetworkError(f'cannot publish "{whole}": ports are numbers from 1 to 65535, such as 8080:80')
    begin, end = map(int, numbers)
    if begin > end or end - begin >= MOST_PORTS:
        raise NetworkError(f'cannot publish "{whole}": a range goes upwards, over at most {MOST_PORTS} ports')
    return begin, end


def attachments_of(data: Mapping[str, Any]) -> tuple[Attachment, ...]:
    """Those of a config.json."""
    return tuple(Attachment(**{**one, "aliases": tuple(one["aliases"])}) for one in data.get("networks") or ())


def ports_of(data: Mapping[str, Any]) -> tuple[Port, ...]:
    """Likewise its ports."""
    return tuple(Port(**one) for one in data.get("ports") or ())
