"""Step 7, the network namespace: devices, addresses, ports and packet filters of one's own; and joining a namespace.

network_namespaces(7), setns(2). A new network namespace holds one device, the loopback, and it is switched off.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from minicontainer.linux import (
    CLONE_NEWNET,
    IFF_UP,
    Namespace,
    flags,
    interface_flags,
    pidfd_open,
    set_interface_flags,
    setns,
    unshare,
)


def bring_up_loopback() -> None:
    """Give the calling process a network namespace of its own, and switch its loopback device on.

    The kernel gives "lo" its addresses 127.0.0.1/8 and ::1 as it comes up. Raises OSError: EPERM (needs CAP_SYS_ADMIN).
    """
    unshare(CLONE_NEWNET)
    set_interface_flags("lo", interface_flags("lo") | IFF_UP)


def join(pid: int, namespaces: Collection[Namespace]) -> None:
    """Move the calling process into these namespaces of process `pid`: what lxc-attach, nsenter and docker exec do.

    A pidfd names the process, so that no other can slip in under its number, and one call joins all the namespaces at
    once (Linux 5.8), which spares us the question of which must come first. PID and TIME take effect for children born
    afterwards; the working directory becomes "/" when MOUNT is among them.

    Raises OSError: ESRCH (no such process), EPERM (not its owner), EINVAL (several threads and USER or MOUNT asked
    for).
    """
    pidfd = pidfd_open(pid)
    try:
        setns(pidfd, flags(namespaces))
    finally:
        os.close(pidfd)
