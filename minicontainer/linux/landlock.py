"""Landlock: rights that a process gives up by itself, for files and TCP ports.

landlock(7), landlock_create_ruleset(2), landlock_add_rule(2), landlock_restrict_self(2), include/uapi/linux/landlock.h.
The kernel numbers what it understands, its "ABI": each has some rights more than the one before.
"""

from __future__ import annotations

import ctypes

from minicontainer.linux.syscalls import call

LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_RULE_NET_PORT = 2

LANDLOCK_ACCESS_FS_EXECUTE = 1 << 0
LANDLOCK_ACCESS_FS_WRITE_FILE = 1 << 1
LANDLOCK_ACCESS_FS_READ_FILE = 1 << 2
LANDLOCK_ACCESS_FS_READ_DIR = 1 << 3
LANDLOCK_ACCESS_FS_REMOVE_DIR = 1 << 4
LANDLOCK_ACCESS_FS_REMOVE_FILE = 1 << 5
LANDLOCK_ACCESS_FS_MAKE_CHAR = 1 << 6
LANDLOCK_ACCESS_FS_MAKE_DIR = 1 << 7
LANDLOCK_ACCESS_FS_MAKE_REG = 1 << 8
LANDLOCK_ACCESS_FS_MAKE_SOCK = 1 << 9
LANDLOCK_ACCESS_FS_MAKE_FIFO = 1 << 10
LANDLOCK_ACCESS_FS_MAKE_BLOCK = 1 << 11
LANDLOCK_ACCESS_FS_MAKE_SYM = 1 << 12
LANDLOCK_ACCESS_FS_REFER = 1 << 13  # ABI 2, Linux 5.19: to link or rename from one directory into another
LANDLOCK_ACCESS_FS_TRUNCATE = 1 << 14  # ABI 3, Linux 6.2
LANDLOCK_ACCESS_FS_IOCTL_DEV = 1 << 15  # ABI 5, Linux 6.10

LANDLOCK_ACCESS_NET_BIND_TCP = 1 << 0  # ABI 4, Linux 6.7, as the next one
LANDLOCK_ACCESS_NET_CONNECT_TCP = 1 << 1

FILE_RIGHTS = (
    LANDLOCK_ACCESS_FS_EXECUTE
    | LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_READ_FILE
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_IOCTL_DEV
)
"""The rights that there are over something that is no directory; with another, landlock_add_rule(2) says EINVAL."""

NET_SINCE = 4
"""The first ABI that knows ports."""


class LandlockRulesetAttr(ctypes.Structure):
    """``struct landlock_ruleset_attr``: what is refused unless a rule allows it. An older kernel takes it if what it
    does not know is 0."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("handled_access_fs", "handled_access_net", "scoped")]


class LandlockPathBeneathAttr(ctypes.Structure):
    """``struct landlock_path_beneath_attr``: what may be done with `parent_fd` and all that lies below."""

    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class LandlockNetPortAttr(ctypes.Structure):
    """``struct landlock_net_port_attr``: what may be done with a port, in the host's byte order."""

    _fields_ = [("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def landlock_abi() -> int:
    """The ABI of this kernel's Landlock. Raises OSError: ENOSYS (not compiled in), EOPNOTSUPP (not switched on)."""
    return call("landlock_create_ruleset", None, 0, LANDLOCK_CREATE_RULESET_VERSION)


def landlock_create_ruleset(attr: LandlockRulesetAttr) -> int:
    """A new, empty set of rules, as a file descriptor. Raises OSError: EINVAL, E2BIG (what this kernel knows not)."""
    return call("landlock_create_ruleset", attr, ctypes.sizeof(attr), 0)


def landlock_add_rule(ruleset: int, rule_type: int, attr: LandlockPathBeneathAttr | LandlockNetPortAttr) -> None:
    """Allow something. Raises OSError: EINVAL (what the set does not handle), ENOMSG (nothing), EBADFD."""
    call("landlock_add_rule", ruleset, rule_type, attr, 0)


def landlock_restrict_self(ruleset: int) -> None:
    """Hold the calling thread, and what it starts, to these rules for ever, beside those that it is held to already.

    Raises OSError: EPERM (it takes no_new_privs or CAP_SYS_ADMIN), E2BIG (16 sets of rules at most).
    """
    call("landlock_restrict_self", ruleset, 0)


def handled_fs(abi: int) -> int:
    """Every right over files that this ABI knows."""
    last = LANDLOCK_ACCESS_FS_MAKE_SYM
    for since, right in (
        (2, LANDLOCK_ACCESS_FS_REFER),
        (3, LANDLOCK_ACCESS_FS_TRUNCATE),
        (5, LANDLOCK_ACCESS_FS_IOCTL_DEV),
    ):
        if abi >= since:
            last = right
    return (last << 1) - 1
