"""Just enough netlink to ask the kernel for one device of each kind, and for one rule of NAT.

rtnetlink(7), include/uapi/linux/if_link.h, nfnetlink.h and nf_tables.h. Messages are a header, a fixed part and
attributes; an attribute is its length, its kind and its value, padded to four bytes, and its value may be attributes.
"""

from __future__ import annotations

import errno
import os
import struct

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
NLMSG_ERROR, RTM_NEWLINK = 2, 16
IFLA_IFNAME, IFLA_LINK, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA = 3, 5, 18, 1, 2

NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES = 0x10, 0x11, 10
NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE = 0, 3, 6
NFPROTO_IPV4, NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC = 2, 4, 100


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """``struct nlattr``; text gets its NUL, a number is one of 32 bits."""
    data = (
        struct.pack("=I", value)
        if isinstance(value, int)
        else value.encode() + b"\0"
        if isinstance(value, str)
        else value
    )
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def make_link(kind: str, name: str, parent: str | None = None, data: bytes = b"") -> None:
    """``ip link add NAME [link PARENT] type KIND``. Raises OSError: EOPNOTSUPP (no such kind), EPERM, EEXIST."""
    import socket

    info = attribute(IFLA_INFO_KIND, kind) + (attribute(IFLA_INFO_DATA, data) if data else b"")
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name) + attribute(IFLA_LINKINFO, info)
    if parent:
        body += attribute(IFLA_LINK, socket.if_nametoindex(parent))
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    _ask(NETLINK_ROUTE, [_message(RTM_NEWLINK, flags, body)], f'RTM_NEWLINK("{name}", {kind})')


def add_table(*, masquerade: bool = False) -> None:
    """``nft add table ip probe``; with `masquerade` a chain for NAT with such a rule too. Raises OSError."""
    table = attribute(1, "probe")
    messages = [_nft(NFT_MSG_NEWTABLE, table)]
    if masquerade:
        hook = attribute(1, struct.pack(">I", NF_INET_POST_ROUTING)) + attribute(
            2, struct.pack(">i", NF_IP_PRI_NAT_SRC)
        )
        chain = table + attribute(3, "after") + attribute(4, hook) + attribute(7, "nat")
        rule = table + attribute(2, "after") + attribute(4, attribute(1, attribute(1, "masq")))
        messages += [_nft(NFT_MSG_NEWCHAIN, chain), _nft(NFT_MSG_NEWRULE, rule)]
    edge = struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    batch = [
        _message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, edge),
        *messages,
        _message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, edge),
    ]
    _ask(NETLINK_NETFILTER, batch, "nftables")


def _nft(kind: int, attributes: bytes) -> bytes:
    body = struct.pack(">BBH", NFPROTO_IPV4, 0, 0) + attributes
    return _message(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, body)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def _ask(protocol: int, messages: list[bytes], what: str) -> None:
    """Send them together, and wait for an answer to each that asks for one."""
    import socket

    awaited = sum(bool(struct.unpack_from("=H", message, 6)[0] & NLM_F_ACK) for message in messages)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
        sock.sendall(b"".join(messages))
        while awaited > 0:
            answer = sock.recv(1 << 16)
            while answer:
                length, kind = struct.unpack_from("=IH", answer)
                number = -struct.unpack_from("=i", answer, 16)[0] if kind == NLMSG_ERROR else 0
                if number:
                    name = errno.errorcode.get(number, number)
                    raise OSError(number, f"{what}: {name} ({os.strerror(number)})")
                awaited -= kind == NLMSG_ERROR
                answer = answer[(length + 3) & ~3 :]
