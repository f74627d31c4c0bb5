"""Sockets, by their file descriptors alone, and network devices by ioctl(2), as in netdevice(7).

Python's own `socket` is more comfortable; to import it takes half as long as to start a container.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from minicontainer.linux.syscalls import call

AF_UNIX = 1
AF_INET = 2
SOCK_DGRAM = 2
SOCK_SEQPACKET = 5
SOCK_CLOEXEC = 0x80000

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914

IFF_UP = 0x1

_IFREQ = struct.Struct("16sh22x")  # struct ifreq: the device's name, then (of the union) the flags


def socketpair() -> tuple[int, int]:
    """Two connected sockets, unix(7), that keep messages apart: what one write(2) sends, one read(2) receives."""
    pair = (ctypes.c_int * 2)()
    call("socketpair", AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)
    return pair[0], pair[1]


def interface_flags(name: str) -> int:
    """The IFF_* flags of a device of the calling process's network namespace. Raises OSError: ENODEV."""
    flags: int = _IFREQ.unpack(_ask(SIOCGIFFLAGS, _IFREQ.pack(name.encode(), 0)))[1]
    return flags


def set_interface_flags(name: str, flags: int) -> None:
    """Set the IFF_* flags of a device: IFF_UP switches it on. Raises OSError: ENODEV, EPERM (needs CAP_NET_ADMIN)."""
    _ask(SIOCSIFFLAGS, _IFREQ.pack(name.encode(), flags))


def _ask(request: int, ifreq: bytes) -> bytes:
    """Any socket of the network namespace will do to ask about its devices."""
    sock = call("socket", AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    try:
        return fcntl.ioctl(sock, request, ifreq)
    finally:
        os.close(sock)
