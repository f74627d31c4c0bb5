"""Step 3, the UTS namespace: a host name of one's own.

uts_namespaces(7). UTS is "Unix Time-sharing System", from the name of the structure that uname(2) fills. It is the
smallest of the namespaces, and shows how all of them work: unshare first, then change what is now yours.
"""

from __future__ import annotations

from minicontainer.linux import CLONE_NEWUTS, setdomainname, sethostname, unshare


def set_names(host: str, domain: str | None = None) -> None:
    """Give the calling process a UTS namespace of its own in which it has the host name `host` and NIS domain `domain`.

    The order is everything: sethostname(2) before unshare(2) renames the host. `domain` None keeps what was inherited.

    Raises OSError: EPERM (needs CAP_SYS_ADMIN), EINVAL (a name over 64 bytes).
    """
    unshare(CLONE_NEWUTS)
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
