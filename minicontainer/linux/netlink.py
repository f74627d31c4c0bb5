"""Network devices, their addresses and routes, by messages to the kernel: rtnetlink(7), what ip(8) itself speaks.

A request is a header (struct nlmsghdr), a body that depends on its type (struct ifinfomsg for a device), and
attributes: length, number, value, padded to four bytes; a value may be attributes again. Several requests may go in
one datagram. The kernel acts on each of them before write(2) returns, and answers with an error number, 0 for success,
and since Linux 4.12 with a reason in words.

Sources: netlink(7), rtnetlink(7), Documentation/netlink/specs/rt-{link,addr,route}.yaml, include/uapi/linux/if_link.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from minicontainer.linux.namespaces import CLONE_NEWNET
from minicontainer.linux.network import AF_INET, SOCK_CLOEXEC
from minicontainer.linux.process import setns
from minicontainer.linux.syscalls import call
from minicontainer.record import Record

AF_UNSPEC = 0
AF_INET6 = 10
AF_NETLINK = 16
SOCK_RAW = 3

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10  # an answer does not repeat the request
NETLINK_EXT_ACK = 11  # it may hold a reason in words
NETLINK_GET_STRICT_CHK = 12  # what a question for a list says counts as a filter

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100  # in an answer
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

IFF_UP = 0x1

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_STATS64 = 23
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_KIND = 4
IFLA_INFO_SLAVE_DATA = 5
IFLA_BRPORT_MODE = 4
VETH_INFO_PEER = 1
IFLA_VLAN_MODE = 1  # IFLA_MACVLAN_MODE and IFLA_IPVLAN_MODE
RTEXT_FILTER_SKIP_STATS = 0x8

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_LABEL = 3
IFA_BROADCAST = 4
IFA_FLAGS = 8
IFA_F_NODAD = 0x02
IFA_F_TENTATIVE = 0x40

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_PREFSRC = 7
RTA_CACHEINFO = 12
RTA_TABLE = 15
RT_TABLE_MAIN = 254
RTPROT_KERNEL = 2
RTPROT_BOOT = 3
RTPROT_RA = 9  # from the advice of a router
RTNH_F_ONLINK = 4
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1

IFNAMSIZ = 16
LARGEST = 32768  # bytes that the kernel puts in a datagram of a list
SIOCGIFINDEX = 0x8933

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, which of the flags count
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=8BI")  # struct rtmsg: family, lengths (destination, source), tos, table, protocol, scope, type
_NUMBER = struct.Struct("=I")
_IFREQ = struct.Struct("=16si20x")  # struct ifreq: the device's name, then (of the union) its number
_STATS = struct.Struct("=8Q")  # struct rtnl_link_stats64 begins: packets, bytes, errors, dropped; of each rx, tx

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}


class Link(Record):
    """A network device as it was when it was asked about, and what it has carried until then."""

    index: int
    name: str
    kind: str  # "bridge", "veth"…; of a NIC, and of the loopback, ""
    mac: str
    mtu: int
    up: bool
    master: int  # the index of the bridge that it is a port of; 0: of none
    peer: int  # the index of a veth's other end, or of the device that a macvlan sits on, in that one's own namespace
    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


class Address(Record):
    """An address of a device: ``172.17.0.1/16``."""

    index: int
    address: str
    scope: int  # 0: the whole world, 253: this link, 254: this host
    flags: int
    message: bytes = b""  # as the kernel told it, with lifetimes and all


class Route(Record):
    """A route to a destination, ``172.17.0.0/16`` or ``default``, through a device, perhaps by a gateway."""

    destination: str
    gateway: str
    index: int
    table: int
    protocol: int
    source: str
    metric: int
    message: bytes = b""


class Request(Record):
    """A message for the kernel; `told` is what an error says was tried."""

    type: int
    flags: int
    body: bytes
    told: str


class Netlink:
    """A socket that the kernel answers, in this network namespace or in another. To be used in a with statement.

    Raises OSError: ENOENT (no such process), EPERM (needs CAP_SYS_ADMIN over another namespace).
    """

    def __init__(self, pid: int | None = None, namespace: int | None = None, protocol: int = NETLINK_ROUTE) -> None:
        if pid is not None:
            with opened_namespace(pid) as fd, inside(fd):
                self._fd = _socket(protocol)
        elif namespace is not None:
            with inside(namespace):
                self._fd = _socket(protocol)
        else:
            self._fd = _socket(protocol)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back."""
        os.close(self._fd)

    def ask(self, *requests: Request) -> list[bytes]:
        """Send requests in one datagram; what the kernel answers but for the bare acknowledgements, as bodies.

        All of them are acted on, whatever became of the ones before. Raises the first error there was, as an OSError.
        """
        first, parts = self._sequence + 1, []
        for request in requests:
            self._sequence += 1
            flags = NLM_F_REQUEST | request.flags
            if request is requests[-1] and flags & NLM_F_DUMP != NLM_F_DUMP:
                flags |= NLM_F_ACK  # the rest are answered only if they fail, or have asked something
            parts.append(_HEADER.pack(_HEADER.size + len(request.body), request.type, flags, self._sequence, 0))
            parts.append(_padded(request.body))
        os.write(self._fd, b"".join(parts))
        bodies: list[bytes] = []
        failure, interrupted, done = None, False, False
        while not done:
            for kind, flags, sequence, body in _messages(os.read(self._fd, LARGEST)):
                if sequence < first:  # an answer to what was asked before, and had failed
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    failure = failure or _failure(requests[sequence - first], body, flags)
                    done = done or sequence == self._sequence
                else:
                    bodies.append(body)
        if failure:
            raise failure
        return self.ask(*requests) if interrupted else bodies  # the list has changed while it was told

    # What there is

    def links(self) -> list[Link]:
        """Every device of the namespace, with its counters."""
        body = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0)
        return [_link(body) for body in self.ask(Request(RTM_GETLINK, NLM_F_DUMP, body, "list devices"))]

    def link(self, name: str) -> Link:
        """The device with this name. Raises OSError: ENODEV."""
        return _link(self.ask(question(name, counters=True))[0])

    def index(self, name: str) -> int:
        """The number of the device with this name. Raises OSError: ENODEV."""
        asked = _IFREQ.pack(_interface(name), 0)  # by netdevice(7), since rtnetlink would tell all there is to know
        try:
            found: int = _IFREQ.unpack(fcntl.ioctl(self._fd, SIOCGIFINDEX, asked))[1]
        except OSError as error:
            raise OSError(
                error.errno, f'no network device is called "{name}" here: ENODEV ({error.strerror})'
            ) from None
        return found

    def addresses(self, index: int = 0) -> list[Address]:
        """Every address, or those of the device with this number."""
        body = _ADDRESS.pack(AF_UNSPEC, 0, 0, 0, index)
        return [_address(body) for body in self.ask(Request(RTM_GETADDR, NLM_F_DUMP, body, "list addresses"))]

    def routes(self) -> list[Route]:
        """Every route of the main table that leads through a device.

        A namespace in which no device was ever switched on has no such table (ENOENT), so no routes.
        """
        found = []
        for family in (AF_INET, AF_INET6):
            body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_TABLE, _NUMBER.pack(RT_TABLE_MAIN))
            with contextlib.suppress(FileNotFoundError):
                found += [_route(body) for body in self.ask(Request(RTM_GETROUTE, NLM_F_DUMP, body, "list routes"))]
        return found

    # What is to be

    def add_link(
        self,
        kind: str,
        name: str,
        data: bytes = b"",
        *,
        parent: int | None = None,
        master: int | None = None,
        namespace: int | None = None,
        mtu: int | None = None,
        mac: str | None = None,
        peer: str = "",
    ) -> None:
        """Make a device of any kind that the kernel has, switched off, in this namespace or another one.

        `data` are the attributes that only this kind has, `parent` the number of the device that it sits on, `master`
        that of the bridge which it becomes a port of; `peer`, the other end that `data` ask for, is named in errors.
        Raises OSError: EEXIST, EOPNOTSUPP (no such kind), EPERM.
        """
        body = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + _name(name)
        body += _properties(mtu=mtu, mac=mac, master=master, parent=parent, namespace=namespace)
        info = attribute(IFLA_INFO_KIND, kind.encode()) + (attribute(IFLA_INFO_DATA, data) if data else b"")
        body += attribute(IFLA_LINKINFO, info)
        told = f'make {kind} "{name}"' + (f' with "{peer}"' if peer else "")
        self.ask(Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, told))

    def add_bridge(self, name: str, mtu: int | None = None, mac: str | None = None) -> None:
        """Make a bridge, a switch in the kernel, switched off. Raises OSError: EEXIST, EPERM (CAP_NET_ADMIN)."""
        self.add_link("bridge", name, mtu=mtu, mac=mac)

    def add_veth(
        self,
        name: str,
        peer: str,
        namespace: int,
        master: int | None = None,
        mtu: int | None = None,
        mac: str | None = None,
    ) -> None:
        """Make a pair of devices, a cable: `name` here, a port of bridge number `master`; `peer` in another namespace.

        `mac` is the peer's. Both are switched off. Raises OSError: EEXIST (either name), EPERM.
        """
        their = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + _name(peer) + _properties(mtu=mtu, mac=mac, namespace=namespace)
        try:
            self.add_link("veth", name, attribute(VETH_INFO_PEER, their), mtu=mtu, master=master, peer=peer)
        except FileExistsError as error:
            taken = f'there is a "{peer}" in the other namespace'
            with contextlib.suppress(OSError):
                self.index(name)
                taken = f'there is a "{name}" here'
            raise OSError(error.errno, f"{error.strerror}: {taken}") from None

    def add_virtual(
        self,
        kind: str,
        name: str,
        parent: int,
        mode: str,
        namespace: int | None = None,
        mtu: int | None = None,
        mac: str | None = None,
    ) -> None:
        """Make a macvlan or an ipvlan: a second device, in whichever namespace, on the cable of the device `parent`.

        Raises OSError: EOPNOTSUPP (not in this kernel), EBUSY (the parent is a port of a bridge), EEXIST, EPERM.
        ValueError: no such mode.
        """
        modes, number = (MACVLAN_MODES, "=I") if kind == "macvlan" else (IPVLAN_MODES, "=H")
        if mode not in modes:
            raise ValueError(f'{kind} has no mode "{mode}"; it has {", ".join(modes)}')
        data = attribute(IFLA_VLAN_MODE, struct.pack(number, modes[mode]))
        self.add_link(kind, name, data, parent=parent, namespace=namespace, mtu=mtu, mac=mac)

    def set_link(
        self,
        name: str,
        *,
        up: bool | None = None,
        master: int | None = None,
        mtu: int | None = None,
        mac: str | None = None,
        new_name: str | None = None,
        namespace: int | None = None,
        hairpin: bool | None = None,
    ) -> None:
        """Change a device: on or off, the bridge it is a port of (0: none), its MTU, MAC, name, and namespace.

        `hairpin`: the bridge may send a frame back through the port it came from. Raises OSError: ENODEV, EBUSY, EPERM.
        """
        self.ask(
            change_link(
                name,
                self.index(name) if new_name else 0,
                up=up,
                master=master,
                mtu=mtu,
                mac=mac,
                new_name=new_name,
                namespace=namespace,
                hairpin=hairpin,
            )
        )

    def delete_link(self, name: str) -> None:
        """Remove a device; of a veth, both ends. Takes the kernel 16 to 50 ms. Raises OSError: ENODEV."""
        body = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + _name(name)
        self.ask(Request(RTM_DELLINK, 0, body, f'remove device "{name}"'))

    def add_address(self, name: str, address: str) -> None:
        """Give a device an address, ``172.17.0.1/16``, at once: IPv6 does not first ask whether somebody has it.

        Raises ValueError (no address), OSError: ENODEV, EEXIST, EACCES (IPv6 is switched off there).
        """
        self.ask(new_address(self.index(name), address, name))

    def delete_address(self, name: str, address: str) -> None:
        """Take an address from a device. Raises ValueError, OSError: EADDRNOTAVAIL."""
        self.ask(no_address(self.index(name), address, name))

    def add_route(self, destination: str, gateway: str | None, name: str) -> None:
        """Send what is for `destination`, ``10.0.0.0/8`` or ``default``, through a device, to a gateway if it has one.

        Raises ValueError, OSError: ENETUNREACH (no address of the device leads to the gateway), EEXIST.
        """
        self.ask(new_route(self.index(name), destination, gateway))

    def delete_route(self, destination: str, gateway: str | None, name: str) -> None:
        """Undo `add_route`. Raises ValueError, OSError: ESRCH (there is none)."""
        body, told = _route_body(self.index(name), destination, gateway)
        self.ask(Request(RTM_DELROUTE, 0, body, f"remove the {told}"))


def moved_address(address: Address, index: int) -> Request:
    """A request that gives device number `index` an address as another has it, with its lifetime and its flags."""
    family, prefix, flags, scope, _ = _ADDRESS.unpack_from(address.message)
    kept = attributes(address.message, _ADDRESS.size)
    kept.pop(IFA_LABEL, None)  # begins with the other device's name
    if family == AF_INET6:
        kept[IFA_FLAGS] = _NUMBER.pack(address.flags & ~IFA_F_TENTATIVE | IFA_F_NODAD)
    body = _ADDRESS.pack(family, prefix, flags & ~IFA_F_TENTATIVE, scope, index)
    body += b"".join(attribute(number, value) for number, value in kept.items())
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"move the address {address.address}")


def moved_route(route: Route, index: int) -> Request:
    """A request that has a route lead through device number `index` from now on, in the place of the one there is."""
    *header, flags = _ROUTE.unpack_from(route.message)
    kept = attributes(route.message, _ROUTE.size)
    kept.pop(RTA_CACHEINFO, None)
    kept[RTA_OIF] = _NUMBER.pack(index)
    body = _ROUTE.pack(*header, flags & RTNH_F_ONLINK)
    body += b"".join(attribute(number, value) for number, value in kept.items())
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"move the route to {route.destination}")


def question(name: str, counters: bool = False) -> Request:
    """A request to tell about a device. The kernel first finishes what "up" has begun: then it can send and receive."""
    mask = attribute(IFLA_EXT_MASK, _NUMBER.pack(0 if counters else RTEXT_FILTER_SKIP_STATS))
    return Request(RTM_GETLINK, 0, _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + _name(name) + mask, f'look for device "{name}"')


def change_link(
    name: str,
    index: int = 0,
    *,
    up: bool | None = None,
    master: int | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    new_name: str | None = None,
    namespace: int | None = None,
    hairpin: bool | None = None,
) -> Request:
    """A request that changes a device, found by its name, or by its number where the name is what changes."""
    flags, mask = (IFF_UP if up else 0), (IFF_UP if up is not None else 0)
    body = _LINK.pack(AF_UNSPEC, 0, index, flags, mask) + _name(new_name or name)
    body += _properties(mtu=mtu, mac=mac, master=master, namespace=namespace)
    if hairpin is not None:
        port = attribute(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, bytes([hairpin])))
        body += attribute(IFLA_LINKINFO, attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0") + port)
    return Request(RTM_NEWLINK, 0, body, f'set device "{name}"')


def new_address(index: int, address: str, name: str = "") -> Request:
    """A request that gives device number `index` an address, ``172.17.0.1/16``. Raises ValueError."""
    family, raw, prefix = parse_network(address)
    body = _ADDRESS.pack(family, prefix, 0, RT_SCOPE_UNIVERSE, index)
    body += attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    if family == AF_INET6:
        body += attribute(IFA_FLAGS, _NUMBER.pack(IFA_F_NODAD))
    elif prefix < 31:
        host = (1 << 32 - prefix) - 1
        body += attribute(IFA_BROADCAST, (int.from_bytes(raw, "big") | host).to_bytes(4, "big"))
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f'give "{name or index}" the address {address}')


def no_address(index: int, address: str, name: str = "") -> Request:
    """A request that takes an address from device number `index`. Raises ValueError."""
    family, raw, prefix = parse_network(address)
    body = _ADDRESS.pack(family, prefix, 0, 0, index) + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    return Request(RTM_DELADDR, 0, body, f'take address {address} from "{name or index}"')


def new_route(index: int, destination: str, gateway: str | None) -> Request:
    """A request for a route through device number `index`. Raises ValueError."""
    body, told = _route_body(index, destination, gateway)
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"make the {told}")


def parse_address(text: str) -> tuple[int, bytes]:
    """The family, AF_INET or AF_INET6, and the bytes of an address. Raises ValueError."""
    family, size = (AF_INET6, 16) if ":" in text else (AF_INET, 4)
    buffer = ctypes.create_string_buffer(size)
    if "\0" in text or not text.isascii() or _LIBC.inet_pton(family, text.encode(), buffer) != 1:
        raise ValueError(f'"{text}" is no IP address')
    return family, buffer.raw


def parse_network(text: str) -> tuple[int, bytes, int]:
    """The family, the bytes and the length of the prefix of ``172.17.0.1/16``. Raises ValueError."""
    address, slash, length = text.partition("/")
    family, raw = parse_address(address)
    if not slash or not length.isdecimal() or not length.isascii() or int(length) > len(raw) * 8:
        raise ValueError(f'"{text}" needs the length of its network after a slash, 0 to {len(raw) * 8}')
    return family, raw, int(length)


def format_address(raw: bytes) -> str:
    """The text of an address of 4 or 16 bytes."""
    buffer = ctypes.create_string_buffer(46)
    _LIBC.inet_ntop(AF_INET if len(raw) == 4 else AF_INET6, raw, buffer, len(buffer))
    return buffer.value.decode()


@contextlib.contextmanager
def opened_namespace(pid: int) -> Iterator[int]:
    """The network namespace of a process, as a file descriptor. Raises OSError: ENOENT, EACCES."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This thread, and no other, is in another network namespace: new sockets and /proc/sys/net are that one's."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(back, CLONE_NEWNET)
    finally:
        os.close(back)


def attribute(number: int, value: bytes) -> bytes:
    """A struct nlattr."""
    return _padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Number → value of the attributes in `data` from `offset` on."""
    found = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[number & 0x3FFF] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + 3 & ~3
    return found


_LIBC = ctypes.PyDLL(None)


def _socket(protocol: int) -> int:
    fd = call("socket", AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
    one = (ctypes.c_int * 1)(1)
    for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
        call("setsockopt", fd, SOL_NETLINK, option, one, 4)
    return fd


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += length + 3 & ~3


def _failure(request: Request, body: bytes, flags: int) -> OSError | None:
    """The OSError that an answer amounts to, with the kernel's words, or None for success."""
    number = -int.from_bytes(body[:4], "little", signed=True)
    if number == 0:
        return None
    told = f"{request.told}: {errno.errorcode.get(number, number)} ({os.strerror(number)})"
    if flags & NLM_F_ACK_TLVS and flags & NLM_F_CAPPED:
        words = attributes(body, 4 + _HEADER.size).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode()
        told += f": {words}" if words else ""
    if number == errno.EPERM:
        told += ": needs CAP_NET_ADMIN in the user namespace that owns this network namespace"
    return OSError(number, told)


def _name(name: str) -> bytes:
    return attribute(IFLA_IFNAME, _interface(name) + b"\0")


def _interface(name: str) -> bytes:
    """The name of a device. Raises ValueError for what no device can be called."""
    raw = os.fsencode(name)
    if not 0 < len(raw) < IFNAMSIZ or raw in (b".", b"..") or any(byte in b"/: \t\n\v\f\r\0" for byte in raw):
        raise ValueError(f'"{name}" cannot be the name of a network device: 1 to 15 bytes, no space, "/" or ":"')
    return raw


def _properties(
    mtu: int | None = None,
    mac: str | None = None,
    master: int | None = None,
    parent: int | None = None,
    namespace: int | None = None,
) -> bytes:
    """The attributes of a device that are given."""
    numbers = ((IFLA_MTU, mtu), (IFLA_LINK, parent), (IFLA_MASTER, master), (IFLA_NET_NS_FD, namespace))
    result = attribute(IFLA_ADDRESS, _mac(mac)) if mac is not None else b""
    return result + b"".join(attribute(key, _NUMBER.pack(value)) for key, value in numbers if value is not None)


def _mac(text: str) -> bytes:
    """Six bytes of ``02:42:ac:11:00:02``. Raises ValueError."""
    try:
        raw = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raw = b""
    if len(raw) != 6 or text.count(":") != 5:
        raise ValueError(f'"{text}" is no MAC address, such as 02:42:ac:11:00:02')
    if raw[0] & 1:
        raise ValueError(f"{text} is the MAC address of a group (its first byte is odd): no device can have it")
    return raw


def _route_body(index: int, destination: str, gateway: str | None) -> tuple[bytes, str]:
    body = b""
    if gateway:
        family, raw = parse_address(gateway)
        body += attribute(RTA_GATEWAY, raw)
    length = 0
    if destination == "default":
        if not gateway:
            raise ValueError("a default route needs a gateway")
    else:
        family, raw, length = parse_network(destination)
        body += attribute(RTA_DST, raw)
    body += attribute(RTA_OIF, _NUMBER.pack(index))
    scope = RT_SCOPE_UNIVERSE if gateway or family == AF_INET6 else RT_SCOPE_LINK
    header = _ROUTE.pack(family, length, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    return header + body, f"route to {destination}" + (f" by {gateway}" if gateway else "")


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    fields = (
        "rx_packets",
        "tx_packets",
        "rx_bytes",
        "tx_bytes",
        "rx_errors",
        "tx_errors",
        "rx_dropped",
        "tx_dropped",
    )
    counters = dict(zip(fields, _STATS.unpack_from(found[IFLA_STATS64]), strict=True)) if IFLA_STATS64 in found else {}
    return Link(
        index=index,
        name=os.fsdecode(found[IFLA_IFNAME].rstrip(b"\0")),
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found, IFLA_MTU),
        up=bool(flags & IFF_UP),
        master=_number(found, IFLA_MASTER),
        peer=_number(found, IFLA_LINK),
        **counters,
    )


def _address(body: bytes) -> Address:
    _, prefix, _, scope, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    raw = found.get(IFA_LOCAL) or found[IFA_ADDRESS]
    return Address(index, f"{format_address(raw)}/{prefix}", scope, _number(found, IFA_FLAGS), body)


def _route(body: bytes) -> Route:
    _, length, _, _, table, protocol, _, _, _ = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    destination = f"{format_address(found[RTA_DST])}/{length}" if RTA_DST in found else "default"
    gateway = format_address(found[RTA_GATEWAY]) if RTA_GATEWAY in found else ""
    source = format_address(found[RTA_PREFSRC]) if RTA_PREFSRC in found else ""
    return Route(
        destination,
        gateway,
        _number(found, RTA_OIF),
        _number(found, RTA_TABLE) or table,
        protocol,
        source,
        _number(found, RTA_PRIORITY),
        body,
    )


def _number(found: dict[int, bytes], number: int) -> int:
    return int.from_bytes(found.get(number, b"")[:4], "little")
