"""Asking the kernel for one device of a kind, and, without libnftables, for one rule of NAT.

rtnetlink(7), include/uapi/linux/nfnetlink.h and nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import struct

from minicontainer.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Netlink,
    attribute,
)

NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES = 0x10, 0x11, 10
NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE = 0, 3, 6
NFPROTO_IPV4, NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC = 2, 4, 100


def make_link(kind: str, name: str, parent: str | None = None, data: bytes = b"") -> None:
    """``ip link add NAME [link PARENT] type KIND``. Raises OSError: EOPNOTSUPP (no such kind), EPERM, EEXIST."""
    with Netlink() as kernel:
        kernel.add_link(kind, name, data, parent=kernel.index(parent) if parent else None)


def add_table(*, masquerade: bool = False) -> None:
    """``nft add table ip probe``; with `masquerade` a chain for NAT with such a rule too. Raises OSError."""
    table = attribute(1, b"probe\0")
    messages = [_nft(NFT_MSG_NEWTABLE, table)]
    if masquerade:
        hook = attribute(1, struct.pack(">I", NF_INET_POST_ROUTING)) + attribute(
            2, struct.pack(">i", NF_IP_PRI_NAT_SRC)
        )
        chain = table + attribute(3, b"after\0") + attribute(4, hook) + attribute(7, b"nat\0")
        rule = table + attribute(2, b"after\0") + attribute(4, attribute(1, attribute(1, b"masq\0")))
        messages += [_nft(NFT_MSG_NEWCHAIN, chain), _nft(NFT_MSG_NEWRULE, rule)]
    edge = struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    batch = [
        _message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, edge),
        *messages,
        _message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, edge),
    ]
    _ask(batch)


def _nft(kind: int, attributes: bytes) -> bytes:
    body = struct.pack(">BBH", NFPROTO_IPV4, 0, 0) + attributes
    return _message(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, body)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def _ask(messages: list[bytes]) -> None:
    """Send them together, and wait for an answer to each that asks for one."""
    import socket

    awaited = sum(bool(struct.unpack_from("=H", message, 6)[0] & NLM_F_ACK) for message in messages)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.sendall(b"".join(messages))
        while awaited > 0:
            answer = sock.recv(1 << 16)
            while answer:
                length, kind = struct.unpack_from("=IH", answer)
                number = -struct.unpack_from("=i", answer, 16)[0] if kind == NLMSG_ERROR else 0
                if number:
                    raise OSError(number, f"nftables: {errno.errorcode.get(number, number)} ({os.strerror(number)})")
                awaited -= kind == NLMSG_ERROR
                answer = answer[(length + 3) & ~3 :]
