"""Capabilities, the pieces that root's power is cut into: capabilities(7), capget(2), capset(2)."""

from __future__ import annotations

import ctypes

from minicontainer.linux.syscalls import call
from minicontainer.record import Record

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()  # in the order of their numbers: CAP_CHOWN is 0

_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    """Two of ``struct cap_user_data_t``: bits 0–31 in the first, 32–63 in the second."""

    _fields_ = [
        (f"{name}{word}", ctypes.c_uint32) for word in (0, 1) for name in ("effective", "permitted", "inheritable")
    ]


class Capabilities(Record):
    """The three sets of a process that capset(2) handles, as bit masks: bit n is capability number n."""

    effective: int
    permitted: int
    inheritable: int

    def __contains__(self, name: str) -> bool:
        return bool(self.effective >> NAMES.index(name.removeprefix("CAP_")) & 1)


def capget(pid: int = 0) -> Capabilities:
    """The capabilities of a process; 0 is the caller."""
    data = _Data()
    call("capget", _Header(_VERSION_3, pid), data)
    return Capabilities(
        *(
            getattr(data, f"{name}0") | getattr(data, f"{name}1") << 32
            for name in ("effective", "permitted", "inheritable")
        )
    )


def capset(sets: Capabilities) -> None:
    """Set the calling thread's capabilities; it can only keep or drop what is permitted. Raises OSError: EPERM."""
    low = {f"{name}0": getattr(sets, name) & 0xFFFFFFFF for name in ("effective", "permitted", "inheritable")}
    high = {f"{name}1": getattr(sets, name) >> 32 for name in ("effective", "permitted", "inheritable")}
    call("capset", _Header(_VERSION_3, 0), _Data(**low, **high))
