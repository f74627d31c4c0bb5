"""Resources of which a machine has few: huge pages, RDMA handles, and what the misc controller counts.

hugetlb.rst and rdma.rst in Documentation/admin-guide/cgroup-v1/; cgroup-v2.rst, "HugeTLB", "RDMA", "Misc". And the way
for whatever we have no name for: writing the files of v2 directly, as "unified" in the OCI runtime specification.
"""

from __future__ import annotations

import errno
import os

from minicontainer.steps.group import Group, LimitUnavailable, control


def limit_huge_pages(group: Group, size: str, limit: int) -> None:
    """Let the group have at most `limit` bytes in huge pages of `size`, such as ``2MB``: over it, mmap(2) fails.

    Raises LimitUnavailable: this machine has no pages of that size.
    """
    version, directory = group["hugetlb"]
    suffix = "max" if version == 2 else "limit_in_bytes"
    if not os.path.exists(f"{directory}/hugetlb.{size}.{suffix}"):
        sizes = sorted(name.split(".")[1] for name in os.listdir(directory) if name.startswith("hugetlb.") and
                       name.endswith(f"B.{suffix}"))  # fmt: skip
        raise LimitUnavailable(errno.EINVAL, f'there are no huge pages of "{size}"; there are {", ".join(sizes)}')
    control(f"{directory}/hugetlb.{size}.{suffix}", limit)


def limit_rdma(group: Group, device: str, handles: int, objects: int) -> None:
    """Let the group open an RDMA device so many times, and make so many objects on it. Raises LimitUnavailable."""
    _, directory = group["rdma"]
    control(f"{directory}/rdma.max", f"{device} hca_handle={handles} hca_object={objects}",
            "name an RDMA device of this machine, as below /sys/class/infiniband")  # fmt: skip


def limit_misc(group: Group, resource: str, most: int) -> None:
    """Let the group have so much of a resource that misc.capacity at the top of the tree names. LimitUnavailable."""
    _, directory = group["misc"]
    control(f"{directory}/misc.max", f"{resource} {most}", "misc.capacity at the top of the tree names the resources")


def set_file(group: Group, controller: str, first: str, second: str, value: str) -> None:
    """Write a limit that has no step of its own, where it is on v1, or on v2 ("": it is not there). LimitUnavailable.

    ``set_file(group, "memory", "memory.swappiness", "", "0")``
    """
    version, directory = group[controller]
    file = second if version == 2 else first
    if not file:
        raise LimitUnavailable(errno.ENODEV, f"{first} is of cgroup v1; {directory} is v2, which has nothing like it")
    control(f"{directory}/{file}", value)


def set_control(group: Group, file: str, value: str) -> None:
    """Write any file of the group's v2 directory: ``memory.oom.group``, ``1``. Raises LimitUnavailable.

    Not a path, and not one of the files that say who is in the group and how it is divided.
    """
    directory = group.unified
    if directory is None:
        told = f"invalid configuration: {file} is of cgroup v2, and this host has only v1 trees"
        raise LimitUnavailable(errno.ENODEV, told)
    if "/" in file or (file.startswith("cgroup.") and file not in ("cgroup.max.descendants", "cgroup.max.depth")):
        raise LimitUnavailable(errno.EINVAL, f'"{file}" is no limit: name a file such as memory.oom.group')
    control(f"{directory}/{file}", value)
