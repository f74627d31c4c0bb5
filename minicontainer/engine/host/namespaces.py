"""Namespaces: each is entered once."""

from __future__ import annotations

import errno
import os

from minicontainer.engine.host.finding import Finding, content
from minicontainer.engine.host.probing import attempt, isolate
from minicontainer.linux import Namespace

OPTIONAL = (Namespace.USER, Namespace.TIME, Namespace.CGROUP)
"""Root's containers can do without these."""


def of_namespaces() -> list[Finding]:
    """A finding for each of the eight."""
    return [_namespace(kind) for kind in Namespace]


def _namespace(kind: Namespace) -> Finding:
    name, required = (
        f"{kind.proc_name} namespace",
        kind not in OPTIONAL or (kind is Namespace.USER and os.geteuid() != 0),
    )
    options = tuple(dict.fromkeys(("CONFIG_NAMESPACES", kind.kernel_option)))
    built = f"it came with Linux {kind.since}; the kernel must be built with {kind.kernel_option}"
    if not kind.supported:
        return Finding(name, False, f"this kernel ({os.uname().release}) has none", built, required, options)
    error, said = attempt(lambda: isolate(kind.flag))
    limit = content(f"/proc/sys/user/max_{kind.proc_name}_namespaces")
    if error == 0:
        return Finding(name, True, kind.isolates + (f"; {limit} at most" if limit else ""), "", required, options)
    mend = {
        errno.ENOSPC: f"as root: sysctl user.max_{kind.proc_name}_namespaces=10000",
        errno.EINVAL: built,
        errno.ENOSYS: built,
    }
    elsewhere = "run it where neither a seccomp filter nor a security module refuses it (in docker: --privileged)"
    return Finding(name, False, said, mend.get(error, elsewhere), required, options)
