"""Step 8, the cgroup namespace: the control group one is in looks like the root of the tree.

cgroup_namespaces(7). It limits nothing. It hides: without it, /proc/self/cgroup tells a container where on the host it
is.
"""

from __future__ import annotations

import os

from minicontainer.linux import CLONE_NEWCGROUP, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount, target_in, unshare
from minicontainer.linux.cgroups import SYSTEMD, Hierarchy, hierarchies
from minicontainer.steps.volume import attach, bind, pick_up


def hide_cgroup_path() -> None:
    """Give the calling process a cgroup namespace, whose root is the group that the process is in at this moment.

    So it comes *after* the process was put into its group; a later move would show as "/../other". Raises OSError:
    EPERM.
    """
    unshare(CLONE_NEWCGROUP)


def mount_cgroups(
    root: str,
    destination: str = "/sys/fs/cgroup",
    readonly: bool = True,
    own_namespace: bool = True,
    managed: bool = False,
) -> None:
    """Mount at `destination` below `root` what the container may see of the control groups: its own, as the top.

    One tree on v2, one for each controller on v1, as on the host, and after `hide_cgroup_path`: a cgroup file system
    shows the tree from the root of its mounter's cgroup namespace. Without a namespace of one's own, the group's
    directories are bound instead: a mount would show the host's whole tree.

    `managed`: a service manager in there is to make groups below its own: on v2 in the one tree, on v1 in that without
    controllers, name=systemd, and in no other, for the container's limits are files of its own group. The v2 tree of a
    hybrid host is not shown then, or systemd would want to have that. Raises OSError: EPERM.
    """
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    read_only = MS_RDONLY if readonly else 0
    trees = hierarchies(not_below=root, named=managed)
    if managed and any(tree.version == 1 for tree in trees):
        trees = [tree for tree in trees if tree.version == 1]
    if not own_namespace:
        _bind_cgroups(trees, root, destination, readonly)
        return
    if [tree.version for tree in trees] == [2]:
        with target_in(root, destination) as target:
            mount("cgroup2", target, "cgroup2", flags | (0 if managed else read_only))
        return
    with target_in(root, destination) as target:
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k")
    for tree in trees:
        names = ",".join(tree.controllers) if tree.version == 1 else ""
        with target_in(root, f"{destination}/{names.removeprefix('name=') or 'unified'}") as target:
            writable = managed and names == SYSTEMD
            if tree.version == 1:
                mount("cgroup", target, "cgroup", flags | (0 if writable else read_only), names)
            else:
                mount("cgroup2", target, "cgroup2", flags | read_only)


def _bind_cgroups(trees: list[Hierarchy], root: str, destination: str, readonly: bool) -> None:
    one = [tree.version for tree in trees] == [2]
    if not one:
        attach(root, destination, "tmpfs", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k")
    for tree in trees:
        group = pick_up(f"{tree.mountpoint}{tree.own}")
        name = "" if one else ",".join(tree.controllers) if tree.version == 1 else "unified"
        bind(group, root, f"{destination}/{name}", readonly, MS_NOSUID | MS_NODEV | MS_NOEXEC)
        os.close(group)
