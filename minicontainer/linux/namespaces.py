"""The eight namespaces of Linux: what each isolates, its flag, its file below /proc/PID/ns, and how old it is.

namespaces(7). A namespace wraps one global resource so that the processes in it have a copy of their own. It has no
name: it is known by the inode number of its file, ``readlink /proc/self/ns/uts`` → ``uts:[4026531838]``, and two
processes share a namespace exactly when these links are the same.
"""

from __future__ import annotations

import enum
import fcntl
import os
from collections.abc import Iterable

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

NS_GET_NSTYPE = 0xB703


class Namespace(enum.Enum):
    """One kind of namespace. Members are in the order in which Linux learned them, complete enough to be used."""

    # fmt: off
    #          flag             /proc name  since    what a process sees a copy of                   kernel option
    MOUNT =   (CLONE_NEWNS,     "mnt",      "2.4.19", "the tree of mounts",                          "NAMESPACES")
    UTS =     (CLONE_NEWUTS,    "uts",      "2.6.19", "host name and NIS domain name",               "UTS_NS")
    IPC =     (CLONE_NEWIPC,    "ipc",      "2.6.19", "System V IPC objects, POSIX message queues",  "IPC_NS")
    PID =     (CLONE_NEWPID,    "pid",      "2.6.24", "process ids",                                 "PID_NS")
    NETWORK = (CLONE_NEWNET,    "net",      "2.6.29", "network devices, addresses, ports, rules",    "NET_NS")
    USER =    (CLONE_NEWUSER,   "user",     "3.8",    "user and group ids, capabilities",            "USER_NS")
    CGROUP =  (CLONE_NEWCGROUP, "cgroup",   "4.6",    "the root of the cgroup tree",                 "CGROUPS")
    TIME =    (CLONE_NEWTIME,   "time",     "5.6",    "the monotonic and the boot-time clock",       "TIME_NS")
    # fmt: on

    def __init__(self, flag: int, proc_name: str, since: str, isolates: str, kernel_option: str) -> None:
        self.flag = flag
        self.proc_name = proc_name
        self.since = since
        self.isolates = isolates
        self.kernel_option = f"CONFIG_{kernel_option}"

    @classmethod
    def named(cls, proc_name: str) -> Namespace:
        """The namespace whose file below /proc/PID/ns has this name: "mnt", "uts", "net"… Raises KeyError."""
        for namespace in cls:
            if namespace.proc_name == proc_name:
                return namespace
        raise KeyError(proc_name)

    @classmethod
    def of(cls, fd: int) -> Namespace:
        """The kind of an open namespace: ioctl_ns(2), NS_GET_NSTYPE. Raises OSError, ENOTTY: it is no namespace."""
        asked = fcntl.ioctl(fd, NS_GET_NSTYPE)
        return next(namespace for namespace in cls if namespace.flag == asked)

    def link(self, pid: int | str = "self") -> str:
        """What identifies the namespace that process `pid` is in, such as ``uts:[4026531838]``.

        Raises FileNotFoundError (no such process, or no such namespace in this kernel), PermissionError (the process
        is another user's: PTRACE_MODE_READ_FSCREDS is asked for, ptrace(2)).
        """
        return os.readlink(f"/proc/{pid}/ns/{self.proc_name}")

    @property
    def supported(self) -> bool:
        """Whether this kernel has it."""
        return os.path.lexists(f"/proc/self/ns/{self.proc_name}")


def flags(namespaces: Iterable[Namespace]) -> int:
    """The CLONE_NEW* flags of these namespaces, or-ed: what clone3(2), unshare(2) and setns(2) take."""
    result = 0
    for namespace in namespaces:
        result |= namespace.flag
    return result
