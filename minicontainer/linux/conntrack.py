"""What the kernel remembers of connections, and how to make it forget: the messages of conntrack(8).

A packet filter that translates addresses decides once, with the first packet of a connection; the rest, and the
answers, follow what is remembered. So a changed rule does not change where an older connection leads; and as UDP has no
end, whoever goes on with the same port goes on to the same place.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h. The kernel filters what it lists since Linux 5.8.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable

from minicontainer.linux.netlink import (
    AF_INET6,
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    Netlink,
    Request,
    attribute,
    attributes,
    format_address,
)
from minicontainer.linux.network import AF_INET
from minicontainer.record import Record

IPPROTO = {"tcp": 6, "udp": 17, "sctp": 132}

IPCTNL_MSG_CT_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK is 1
IPCTNL_MSG_CT_DELETE = 1 << 8 | 2

CTA_TUPLE_ORIG = 1
CTA_TUPLE_REPLY = 2
CTA_ID = 12
CTA_ZONE = 18
CTA_FILTER = 25
CTA_FILTER_ORIG_FLAGS = 1
CTA_FILTER_F_CTA_PROTO_NUM = 1 << 3
CTA_TUPLE_IP = 1
CTA_TUPLE_PROTO = 2
CTA_PROTO_NUM = 1
CTA_PROTO_SRC_PORT = 2
CTA_PROTO_DST_PORT = 3
NLA_F_NESTED = 0x8000

_GENERIC = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource


class Way(Record):
    """One direction of a connection."""

    source: str
    source_port: int
    destination: str
    destination_port: int


class Connection(Record):
    """A remembered connection: how its first packet came, and how answers to it come, before any translation."""

    protocol: str
    original: Way
    reply: Way
    name: bytes  # what tells the kernel which one is meant


def connections(protocol: str, six: bool = False) -> list[Connection]:
    """The connections of a protocol ("tcp", "udp", "sctp") that the network namespace remembers.

    The kernel looks through the memory of all namespaces for them, which takes it some 10 ms, however few they are.
    Raises OSError: EPERM (needs CAP_NET_ADMIN), EOPNOTSUPP or EINVAL (this kernel does not tell).
    """
    if _none():
        return []
    family = AF_INET6 if six else AF_INET
    number = attribute(CTA_PROTO_NUM, bytes([IPPROTO[protocol]]))
    body = _GENERIC.pack(family, 0, 0)
    body += _nested(CTA_TUPLE_ORIG, _nested(CTA_TUPLE_PROTO, number))
    flags = struct.pack("=I", CTA_FILTER_F_CTA_PROTO_NUM)
    body += _nested(CTA_FILTER, attribute(CTA_FILTER_ORIG_FLAGS, flags))
    with Netlink(protocol=NETLINK_NETFILTER) as kernel:
        listed = kernel.ask(Request(IPCTNL_MSG_CT_GET, NLM_F_DUMP, body, f"list {protocol} connections"))
    found = [_connection(protocol, family, answer) for answer in listed]
    return [connection for connection in found if connection]


def forget(unwanted: Iterable[Connection]) -> None:
    """Make the kernel forget these connections; those that have ended meanwhile are no error. Raises OSError: EPERM."""
    with Netlink(protocol=NETLINK_NETFILTER) as kernel:
        for connection in unwanted:
            with contextlib.suppress(FileNotFoundError):
                kernel.ask(Request(IPCTNL_MSG_CT_DELETE, 0, connection.name, f"forget {connection.original}"))


def _none() -> bool:
    """Whether nothing is remembered here, of any protocol."""
    with contextlib.suppress(OSError), open("/proc/sys/net/netfilter/nf_conntrack_count") as count:
        return count.read().strip() == "0"
    return False


def _nested(number: int, value: bytes) -> bytes:
    return attribute(number | NLA_F_NESTED, value)


def _connection(protocol: str, family: int, body: bytes) -> Connection | None:
    found = attributes(body, _GENERIC.size)
    number, original = _way(found[CTA_TUPLE_ORIG])
    if number != IPPROTO[protocol]:  # a kernel that does not filter
        return None
    name = _GENERIC.pack(family, 0, 0) + _nested(CTA_TUPLE_ORIG, found[CTA_TUPLE_ORIG])
    name += b"".join(attribute(key, found[key]) for key in (CTA_ID, CTA_ZONE) if key in found)
    return Connection(protocol, original, _way(found[CTA_TUPLE_REPLY])[1], name)


def _way(tuple_: bytes) -> tuple[int, Way]:
    parts = attributes(tuple_)
    addresses, ports = attributes(parts[CTA_TUPLE_IP]), attributes(parts[CTA_TUPLE_PROTO])
    source, destination = (format_address(raw) for _, raw in sorted(addresses.items()))
    first, second = (int.from_bytes(ports.get(key, b""), "big") for key in (CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT))
    return ports[CTA_PROTO_NUM][0], Way(source, first, destination, second)
