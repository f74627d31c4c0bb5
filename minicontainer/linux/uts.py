"""The two names of a UTS namespace:

sethostname(2), setdomainname(2). Read them with uname(2), in Python `os.uname()`.
"""

from __future__ import annotations

import os

from minicontainer.linux.syscalls import call

HOST_NAME_MAX = 64  # bytes; include/uapi/linux/utsname.h: __NEW_UTS_LEN


def sethostname(name: str) -> None:
    """Set the host name of the calling process's UTS namespace. Raises OSError: EPERM, EINVAL (over 64 bytes)."""
    call("sethostname", name, len(os.fsencode(name)))


def setdomainname(name: str) -> None:
    """Set the NIS domain name of the calling process's UTS namespace ("(none)" until set). Raises as sethostname."""
    call("setdomainname", name, len(os.fsencode(name)))
