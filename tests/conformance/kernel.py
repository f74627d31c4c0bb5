"""The few calls of Linux that Python lacks and the runner needs, through the C library.

The engine has a room of its own for these, and the judge does not share code with the judged.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SHARED = 0x100000
MNT_DETACH = 0x2

PR_SET_PDEATHSIG = 1

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCBRADDBR = 0x89A0
IFF_UP = 0x1
IFREQ = struct.Struct("16sh22x")  # struct ifreq: a device's name and, of the union, its flags

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _call("unshare", flags)


def setns(fd: int, flags: int) -> None:
    """setns(2)."""
    _call("setns", fd, flags)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def detach(target: str) -> None:
    """umount2(2) with MNT_DETACH: the mount and all below it."""
    _call("umount2", target.encode(), MNT_DETACH)


def die_with_parent(number: int) -> None:
    """prctl(PR_SET_PDEATHSIG): be sent this signal when the parent ends."""
    _call("prctl", PR_SET_PDEATHSIG, ctypes.c_ulong(number))


def furnish_network() -> None:
    """In a new network namespace: `ip link set lo up`, and where the kernel has bridges, a second interface, eth0.

    It leads nowhere. There are tests that assign something to the first two interfaces, whatever these are.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        _, flags = IFREQ.unpack(fcntl.ioctl(asked, SIOCGIFFLAGS, IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(asked, SIOCSIFFLAGS, IFREQ.pack(b"lo", flags | IFF_UP))
        with contextlib.suppress(OSError):
            fcntl.ioctl(asked, SIOCBRADDBR, b"eth0\0")
