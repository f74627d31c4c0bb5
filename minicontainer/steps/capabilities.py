"""Step 15, hardening: which of root's powers are left.

capabilities(7), execve(2), OCI runtime specification, config.md, "capabilities". "root" in a container is uid 0, and
all that made it dangerous are some forty capabilities, each of which can be taken away. The order, where the program
is also to be somebody else:

    limit_bounding        takes CAP_SETPCAP, which goes with the uid
    keep_capabilities     or the change of the uid from 0 takes all that is permitted
    identity.become_user
    set_capabilities      what is left, to the set; ambient ones last, they need the permitted and the inheritable

A program that uid 0 executes gets every capability of the bounding set, whatever the permitted one was before; one
that somebody else executes gets the ambient ones. So it is the bounding set that counts for root, for others the
ambient set.

A name that cannot be granted, one that the kernel does not know or that the process has not got itself, is left out of
every set: less is always safe. `minicontainer.linux.capabilities.grantable` tells which can.
"""

from __future__ import annotations

from collections.abc import Collection

from minicontainer.linux import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, prctl
from minicontainer.linux.capabilities import (
    LAST_POSSIBLE,
    NAMES,
    PR_SET_KEEPCAPS,
    Capabilities,
    cap_ambient_clear_all,
    cap_ambient_raise,
    capbset_drop,
    capget,
    capset,
    grantable,
    in_bounding_set,
    mask_of,
)


def drop_capabilities(
    bounding: Collection[str],
    effective: Collection[str],
    permitted: Collection[str],
    inheritable: Collection[str],
    ambient: Collection[str],
) -> None:
    """Leave the calling process with these capabilities, such as ``CAP_CHOWN``, in its five sets, and no others.

    For a process that stays who it is. Raises OSError: EPERM (to limit the bounding set takes CAP_SETPCAP).
    """
    limit_bounding(bounding)
    set_capabilities(effective, permitted, inheritable, ambient)


def limit_bounding(names: Collection[str]) -> None:
    """Take every capability but these out of the bounding set: no program executed from now on can ever have another.

    Also what has no name here yet, in a newer kernel, goes. Raises OSError: EPERM (needs CAP_SETPCAP).
    """
    kept = mask_of(names)
    for number in range(LAST_POSSIBLE + 1):
        if kept >> number & 1:
            continue
        try:
            capbset_drop(number)
        except OSError as error:
            has = in_bounding_set(number)
            if has is None:  # the numbers have no gaps: from here on, this kernel has none
                return
            if not has:  # nothing to drop, and nobody who may
                continue
            name = f"CAP_{NAMES[number]}" if number < len(NAMES) else f"capability {number}"
            raise OSError(error.errno, f"{error.strerror}: to drop {name} takes CAP_SETPCAP") from None


def keep_capabilities() -> None:
    """Let the permitted capabilities survive when the uid changes from 0 to another. The next execve(2) forgets it."""
    prctl(PR_SET_KEEPCAPS, 1)


def set_capabilities(
    effective: Collection[str], permitted: Collection[str], inheritable: Collection[str], ambient: Collection[str]
) -> None:
    """Give the calling process these capabilities, of those that it has. After the change of the uid.

    What is asked for and cannot be is left out: permitted ones that are not permitted now, effective ones that are not
    permitted, inheritable ones that are not permitted now or not in the bounding set, ambient ones that are not both
    permitted and inheritable.
    """
    held = capget()
    may = mask_of(permitted) & held.permitted
    passed_on = mask_of(grantable(inheritable)) & (held.permitted | held.inheritable)
    capset(Capabilities(effective=mask_of(effective) & may, permitted=may, inheritable=passed_on))
    cap_ambient_clear_all()
    lasting = mask_of(ambient) & may & passed_on
    for number in range(len(NAMES)):
        if lasting >> number & 1:
            cap_ambient_raise(number)


def forbid_new_privileges() -> None:
    """From now on, no execve(2) gives this process or a child more than it has: set-user-ID bits and capabilities of
    files count for nothing. Cannot be undone. Documentation/userspace-api/no_new_privs.rst in the kernel's tree."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def hide_process() -> None:
    """Let no process without CAP_SYS_PTRACE trace the calling one, or open its files in /proc, until it executes a
    program; PR_SET_DUMPABLE(2const), "ptrace access mode" in ptrace(2)."""
    prctl(PR_SET_DUMPABLE, 0)
