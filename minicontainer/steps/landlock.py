"""Step 15, hardening: which files the program can reach, said by the program's side itself.

landlock(7). Permissions, capabilities and mounts say what a *user* may do; with Landlock a process says what *it* will
ever need, and the kernel holds it and its descendants to that. It takes no privileges to give something up. It is a
second wall: where the first one, the root that was pivoted into, has a hole, there is nothing to be opened behind it.

Best effort: a kernel refuses what its Landlock knows how to refuse. By ABI, what is *not* yet restricted: before 3
(Linux 6.2) truncate(2), before 5 (Linux 6.10) ioctl(2) on devices; up to this day stat(2), chdir(2), chmod(2) and their
like. Moving files to another directory is refused altogether before ABI 2. `restrict_paths` returns the ABI.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Mapping

from minicontainer.linux import landlock
from minicontainer.linux.landlock import (
    FILE_RIGHTS,
    LANDLOCK_ACCESS_FS_EXECUTE,
    LANDLOCK_ACCESS_FS_IOCTL_DEV,
    LANDLOCK_ACCESS_FS_MAKE_BLOCK,
    LANDLOCK_ACCESS_FS_MAKE_CHAR,
    LANDLOCK_ACCESS_FS_MAKE_DIR,
    LANDLOCK_ACCESS_FS_MAKE_FIFO,
    LANDLOCK_ACCESS_FS_MAKE_REG,
    LANDLOCK_ACCESS_FS_MAKE_SOCK,
    LANDLOCK_ACCESS_FS_MAKE_SYM,
    LANDLOCK_ACCESS_FS_READ_DIR,
    LANDLOCK_ACCESS_FS_READ_FILE,
    LANDLOCK_ACCESS_FS_REFER,
    LANDLOCK_ACCESS_FS_REMOVE_DIR,
    LANDLOCK_ACCESS_FS_REMOVE_FILE,
    LANDLOCK_ACCESS_FS_TRUNCATE,
    LANDLOCK_ACCESS_FS_WRITE_FILE,
    LANDLOCK_ACCESS_NET_BIND_TCP,
    LANDLOCK_ACCESS_NET_CONNECT_TCP,
    LANDLOCK_RULE_NET_PORT,
    LANDLOCK_RULE_PATH_BENEATH,
    NET_SINCE,
    LandlockNetPortAttr,
    LandlockPathBeneathAttr,
    LandlockRulesetAttr,
    handled_fs,
    landlock_abi,
    landlock_add_rule,
    landlock_create_ruleset,
    landlock_restrict_self,
)
from minicontainer.linux.syscalls import KernelTooOld

RIGHTS = {
    "read": LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
    "execute": LANDLOCK_ACCESS_FS_EXECUTE,
    "write": LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_REMOVE_DIR
    | LANDLOCK_ACCESS_FS_REMOVE_FILE
    | LANDLOCK_ACCESS_FS_MAKE_DIR
    | LANDLOCK_ACCESS_FS_MAKE_REG
    | LANDLOCK_ACCESS_FS_MAKE_SOCK
    | LANDLOCK_ACCESS_FS_MAKE_FIFO
    | LANDLOCK_ACCESS_FS_MAKE_SYM
    | LANDLOCK_ACCESS_FS_REFER,
    "devices": LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK,
    "ioctl": LANDLOCK_ACCESS_FS_IOCTL_DEV,
}
"""Words for what is usually wanted together; "devices" is to make device files, "ioctl" to control what is one."""


def restrict_paths(
    rules: Mapping[str, str | Collection[str]],
    bind_ports: Collection[int] | None = None,
    connect_ports: Collection[int] | None = None,
) -> int:
    """Give up every right over files except those in `rules`; returns the ABI of Landlock that was used.

    A rule is a path, with all that lies below, and rights over it: words of `RIGHTS`, or names such as
    ``LANDLOCK_ACCESS_FS_READ_FILE``: ``{"/usr": "read execute", "/tmp": ["read", "write"]}``. A program takes both
    on itself, and "read" on its libraries. Files that are open already stay so. Ports are TCP ports to listen on and to
    connect to; None leaves the network as it is, an empty list allows none.

    After it, nobody here can mount or unmount anything: last of all. Raises ValueError (a word that is no right),
    FileNotFoundError (nothing at a path), KernelTooOld (no Landlock; one that knows no ports), OSError: EPERM (it takes
    no_new_privs, `capabilities.forbid_new_privileges`, or CAP_SYS_ADMIN).
    """
    wanted = {path: _mask(rights) for path, rights in rules.items()}
    ports = {LANDLOCK_ACCESS_NET_BIND_TCP: bind_ports, LANDLOCK_ACCESS_NET_CONNECT_TCP: connect_ports}
    abi = _abi()
    files = handled_fs(abi)
    net = sum(right for right, allowed in ports.items() if allowed is not None)
    if net and abi < NET_SINCE:
        raise KernelTooOld(errno.EOPNOTSUPP, f"this kernel's Landlock (ABI {abi}) knows no ports: that takes Linux 6.7")

    ruleset = landlock_create_ruleset(LandlockRulesetAttr(files, net, 0))
    try:
        for path, rights in wanted.items():
            _allow_below(ruleset, path, rights & files)
        for right, allowed in ports.items():
            for port in allowed or ():
                landlock_add_rule(ruleset, LANDLOCK_RULE_NET_PORT, LandlockNetPortAttr(right, port))
        _restrict_self(ruleset)
    finally:
        os.close(ruleset)
    return abi


def _restrict_self(ruleset: int) -> None:
    try:
        landlock_restrict_self(ruleset)
    except PermissionError as error:
        text = f"{error.strerror}: it takes no_new_privs, so forbid new privileges before, or CAP_SYS_ADMIN"
        raise PermissionError(error.errno, text) from None


def _abi() -> int:
    try:
        return landlock_abi()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        text = (
            'this kernel has no Landlock: it takes CONFIG_SECURITY_LANDLOCK, and "landlock" in the lsm= it boots with'
        )
        raise KernelTooOld(error.errno, text) from None


def _mask(rights: str | Collection[str]) -> int:
    mask = 0
    for word in rights.replace(",", " ").split() if isinstance(rights, str) else rights:
        right = RIGHTS.get(word) or (getattr(landlock, word, None) if word.startswith("LANDLOCK_ACCESS_FS_") else None)
        if not isinstance(right, int):
            raise ValueError(f'"{word}" is no right over files; choose among {", ".join(RIGHTS)}')
        mask |= right
    return mask


def _allow_below(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= FILE_RIGHTS
        if rights:  # a rule that allows nothing is an error to the kernel: it is what there is without one
            landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, LandlockPathBeneathAttr(rights, place))
    finally:
        os.close(place)
