"""Step 15, hardening: who the program is.

credentials(7), OCI runtime specification, config.md, "POSIX-platform User". Numbers only: what names they have is in
the image's own /etc/passwd, and whoever calls has looked there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from minicontainer.linux.capabilities import capget


def become_user(uid: int, gid: int, additional_gids: Sequence[int] = (), umask: int | None = None) -> None:
    """Become this user, with this group and these supplementary groups and no others, for good.

    The groups first: with uid 0 goes the right to change them. All three ids each time, real, effective and saved: one
    that keeps a saved 0 can be root again. `umask` None leaves it as it is.

    In a user namespace where setgroups(2) is denied (a rootless one with a single id), the groups of the caller stay;
    asking for others there is an error. Raises OSError: EPERM (needs CAP_SETGID and CAP_SETUID), EINVAL (an id that
    the user namespace does not map).
    """
    _set_groups(additional_gids)
    try:
        os.setresgid(gid, gid, gid)
    except OSError as error:
        raise _explained(error, f"setresgid({gid})", "CAP_SETGID") from None
    try:
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise _explained(error, f"setresuid({uid})", "CAP_SETUID") from None
    if umask is not None:
        os.umask(umask)


def _set_groups(gids: Sequence[int]) -> None:
    try:
        os.setgroups(gids)
    except PermissionError as error:
        # /proc/self/setgroups would say why. But /proc is the container's by now, and says what it likes.
        denied = "SETGID" in capget()
        if denied and gids:
            text = f"additional groups {', '.join(map(str, gids))}: setgroups(2) is denied in this user namespace"
            raise PermissionError(error.errno, f"{text}; it takes a range of ids, /etc/subgid") from None
        if not denied and sorted(gids) != sorted(os.getgroups()):
            raise _explained(error, f"setgroups({list(gids)})", "CAP_SETGID") from None
    except OSError as error:
        raise _explained(error, f"setgroups({list(gids)})", "CAP_SETGID") from None


def _explained(error: OSError, call: str, capability: str) -> OSError:
    if error.errno == errno.EPERM:
        return OSError(error.errno, f"{call}: {error.strerror}; it takes {capability}")
    if error.errno == errno.EINVAL:
        return OSError(error.errno, f"{call}: {error.strerror}; this user namespace has no such id")
    return OSError(error.errno, f"{call}: {error.strerror}")
