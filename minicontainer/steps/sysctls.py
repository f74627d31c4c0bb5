"""Step 15, hardening: the kernel's settings, those that a namespace has for itself.

sysctl(8), proc_sys(5), OCI runtime specification, config-linux.md, "Sysctl". Most of what is below /proc/sys there is
once for the whole machine: a container that could write kernel.core_pattern would have the host's kernel start its
program as the host's root. But some files show and set what belongs to a namespace of whoever opens them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from minicontainer.linux import Namespace
from minicontainer.linux.procfs import open_proc, sysctl_file, write_in_proc

_BY_NAME = {
    **dict.fromkeys(
        [
            f"kernel/{name}"
            for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced "
            "msg_next_id sem_next_id shm_next_id".split()
        ],
        Namespace.IPC,
    ),
    "kernel/hostname": Namespace.UTS,
    "kernel/domainname": Namespace.UTS,
}
_BY_FOLDER = {"fs/mqueue/": Namespace.IPC, "net/": Namespace.NETWORK, "user/": Namespace.USER}


def set_sysctls(settings: Mapping[str, str], namespaces: Collection[Namespace], proc: str | int = "/proc") -> None:
    """Write these settings, ``net.ipv4.ip_forward`` (or with slashes) → value, for the namespaces that we are in.

    `namespaces` are those that the caller does not share with the host: anything else is refused, before anything is
    written. `proc` is a proc file system, or a file descriptor of its root.

    Raises ValueError (a name that is none, a setting of the whole machine or of a namespace that is shared), OSError:
    EPERM (`proc` is no proc file system, or something is mounted in it), ENOENT (no such setting, perhaps for want of
    a module), EACCES (not this user namespace's to set), EINVAL (a value that the kernel does not take).
    """
    files = {sysctl_file(name): value for name, value in settings.items()}
    for file in files:
        namespace = _namespace_of(file)
        if namespace is None:
            raise ValueError(f"sysctl {file} is of no namespace: it would change the host's")
        if namespace not in namespaces:
            raise ValueError(f"sysctl {file} takes a {namespace.proc_name} namespace, or it would change the host's")
    root = open_proc(proc)
    try:
        for file, value in files.items():
            write_in_proc(root, f"sys/{file}", value)
    finally:
        os.close(root)


def _namespace_of(file: str) -> Namespace | None:
    for folder, namespace in _BY_FOLDER.items():
        if file.startswith(folder):
            return namespace
    return _BY_NAME.get(file)
