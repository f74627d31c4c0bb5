"""Addresses and subnets, IPv4 and IPv6: reading them, and choosing one that is free.

A subnet is its first address and how many bits of it all its addresses share: 172.17.0.0/16 are the 2^16 addresses from
172.17.0.0 to 172.17.255.255. The first stands for the subnet itself, and in IPv4 the last for all of it (broadcast), so
no machine has them.

Python's own `ipaddress` does this too, and takes a tenth as long to import as a container to start.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from collections.abc import Callable, Collection, Iterable, Iterator

from minicontainer.network.errors import NetworkError
from minicontainer.record import Record

_FAMILIES = {4: AF_INET, 6: AF_INET6}
_BITS = {4: 32, 6: 128}

MOST_TRIED = 1 << 16
"""So many addresses are looked at for a free one; nobody has so many containers."""


class Subnet(Record):
    """All addresses that begin with the same bits."""

    version: int
    """4 or 6."""
    first: int
    """The address as a number; the bits behind the prefix are 0."""
    prefix: int
    """How many bits the addresses share."""

    @property
    def last(self) -> int:
        """The last of its addresses."""
        return self.first | (1 << (_BITS[self.version] - self.prefix)) - 1

    def __str__(self) -> str:
        return f"{written(self.version, self.first)}/{self.prefix}"

    def __contains__(self, address: str) -> bool:
        version, number = read_address(address)
        return version == self.version and self.first <= number <= self.last

    def overlaps(self, other: Subnet) -> bool:
        """Whether an address is in both."""
        return self.version == other.version and self.first <= other.last and other.first <= self.last

    def within(self, other: Subnet) -> bool:
        """Whether all its addresses are the other's too."""
        return self.version == other.version and other.first <= self.first and self.last <= other.last

    def usable(self, address: str) -> bool:
        """Whether a machine may have this address of the subnet."""
        _, number = read_address(address)
        if self.prefix >= _BITS[self.version] - 1:  # a point-to-point link has neither of the two: RFC 3021, RFC 6164
            return address in self
        return self.first < number < self.last + (self.version == 6)

    def gateway(self) -> str:
        """The first address that a machine may have."""
        return written(self.version, self.first + (self.prefix < _BITS[self.version] - 1))


def read_address(text: str) -> tuple[int, int]:
    """The version and the number of ``172.17.0.2`` or ``fd00::2``. Raises NetworkError."""
    version = 6 if ":" in text else 4
    try:
        return version, int.from_bytes(inet_pton(_FAMILIES[version], text), "big")
    except (OSError, ValueError):
        raise NetworkError(f'"{text}" is no address: write it as 172.20.0.5, or fd00:20::5') from None


def written(version: int, number: int) -> str:
    """An address as text, in its shortest form (RFC 5952)."""
    return inet_ntop(_FAMILIES[version], number.to_bytes(_BITS[version] // 8, "big"))


def canonical(text: str) -> str:
    """An address in its shortest form, however it was written. Raises NetworkError."""
    return written(*read_address(text))


def read_subnet(text: str, *, exact: bool = True) -> Subnet:
    """The subnet of ``172.20.0.0/16``. Raises NetworkError; `exact`: also when its address is not the first.

    Without a prefix it is that one address.
    """
    address, slash, length = text.partition("/")
    version, number = read_address(address)
    bits = _BITS[version]
    if slash and not (length.isascii() and length.isdecimal() and int(length) <= bits):
        raise NetworkError(f'"{text}" is no subnet: behind the slash goes how many bits are shared, 0 to {bits}')
    prefix = int(length) if slash else bits
    subnet = Subnet(version, number >> bits - prefix << bits - prefix, prefix)
    if exact and subnet.first != number:
        raise NetworkError(f'"{text}" is no subnet: it has bits behind the prefix; did you mean {subnet}?')
    return subnet


def free_subnet(taken: Collection[Subnet]) -> Subnet:
    """The first subnet that overlaps none of those taken: docker's pools, in its order. Raises NetworkError."""
    for subnet in _pools():
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise NetworkError(
        "no subnet is free from 172.17.0.0 to 172.31.255.255 and in 192.168.0.0/16: choose one with --subnet"
    )


def _pools() -> Iterator[Subnet]:
    for second in range(17, 32):
        yield read_subnet(f"172.{second}.0.0/16")
    for third in range(0, 256, 16):
        yield read_subnet(f"192.168.{third}.0/20")


def local_subnet(seed: bytes) -> Subnet:
    """A subnet of IPv6 for local use, RFC 4193: fd, then 40 bits that nobody else is likely to have, and 16 zeros."""
    return Subnet(6, int.from_bytes(b"\xfd" + seed[:5] + bytes(10), "big"), 64)


def free_address(
    subnet: Subnet, range: Subnet | None, is_taken: Callable[[str], bool], after: str | None = None
) -> str | None:
    """The next free address of the subnet (of the part of it that is `range`), `after` the one given last.

    Not the lowest: what has just become free is used again as late as can be, since others may still remember whose it
    was. None: there is none.
    """
    pool = range or subnet
    begin, end = pool.first, pool.last
    if after is not None and after in pool:
        begin = read_address(after)[1] + 1
    for number in _around(begin, pool.first, end):
        address = written(subnet.version, number)
        if subnet.usable(address) and not is_taken(address):
            return address
    return None


def _around(begin: int, first: int, last: int) -> Iterable[int]:
    """From `begin` to `last`, then from `first` on; not for ever."""
    number = begin
    for _ in range(min(last - first + 1, MOST_TRIED)):
        if number > last:
            number = first
        yield number
        number += 1


def mac_of(address: str) -> str:
    """A MAC address for a container with this IPv4 address, docker's way: locally administered, and the address itself.

    So whoever gets the address later gets the MAC too, and no neighbour's ARP table is wrong.
    """
    return "02:42:" + ":".join(f"{byte:02x}" for byte in inet_pton(AF_INET, address))
