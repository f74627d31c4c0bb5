"""Capabilities, the pieces that root's power is cut into: capabilities(7), capget(2), capset(2), prctl(2).

A thread has five sets of them. *effective* is what the kernel looks at, *permitted* what may be put there,
*inheritable* what a file's own capabilities may give it; *bounding* is the most that any program executed later can
get, and *ambient* what an ordinary program keeps through execve(2) without being root. The first three are changed by
capset(2), all together; the other two by prctl(2), one capability at a time.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable

from minicontainer.linux.process import PR_CAPBSET_DROP
from minicontainer.linux.syscalls import call
from minicontainer.record import Record

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()  # in the order of their numbers: CAP_CHOWN is 0

LAST_POSSIBLE = 63
"""The highest number that the two words of capset(2) have room for; what the kernel has today ends before."""

PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_LOWER = 3
PR_CAP_AMBIENT_CLEAR_ALL = 4

# What root's special treatment is switched off with; capabilities(7), "The securebits flags".
SECBIT_NOROOT = 0x01
SECBIT_NO_SETUID_FIXUP = 0x04
SECBIT_KEEP_CAPS = 0x10  # what PR_SET_KEEPCAPS sets, and execve(2) clears
SECBIT_NO_CAP_AMBIENT_RAISE = 0x40

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


def capbset_read(number: int) -> bool:
    """Whether capability `number` is in the bounding set. Raises OSError: EINVAL (this kernel has no such number)."""
    return bool(call("prctl", PR_CAPBSET_READ, number, 0, 0, 0))


def capbset_drop(number: int) -> None:
    """Take capability `number` out of the bounding set, for ever.

    Raises OSError: EPERM (it takes CAP_SETPCAP, even to drop what is not there), EINVAL (no such number).
    """
    call("prctl", PR_CAPBSET_DROP, number, 0, 0, 0)


def cap_ambient_raise(number: int) -> None:
    """Add a capability to the ambient set. Raises OSError: EPERM (not permitted, or not inheritable), EINVAL."""
    call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0)


def cap_ambient_clear_all() -> None:
    """Empty the ambient set."""
    call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def in_bounding_set(number: int) -> bool | None:
    """Whether capability `number` is in the bounding set; None where this kernel has no such number."""
    try:
        return capbset_read(number)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def mask_of(names: Iterable[str]) -> int:
    """Capabilities by name, ``CAP_CHOWN`` or ``CHOWN``, as a bit mask; what is no name of one has no bit."""
    mask = 0
    for name in names:
        bare = name.removeprefix("CAP_")
        if bare in NAMES:
            mask |= 1 << NAMES.index(bare)
    return mask


def names_of(mask: int) -> list[str]:
    """The capabilities in a bit mask by name, in the order of their numbers."""
    return [f"CAP_{name}" for number, name in enumerate(NAMES) if mask >> number & 1]


def known() -> list[str]:
    """Every capability that this kernel has, by name; /proc/sys/kernel/cap_last_cap without looking at /proc."""
    return [f"CAP_{name}" for number, name in enumerate(NAMES) if in_bounding_set(number) is not None]


def grantable(names: Iterable[str]) -> list[str]:
    """Those of these that the calling process can still hand on: this kernel has them, and so does its bounding set.

    OCI's config.md wants a warning for the others, not an error. In a new user namespace all are there again.
    """
    return [name for name in names if (bit := mask_of([name])) and in_bounding_set(bit.bit_length() - 1)]
