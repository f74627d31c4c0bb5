"""Step 8, the cgroup namespace: the control group one is in looks like the root of the tree.

cgroup_namespaces(7). It limits nothing. It hides: without it, /proc/self/cgroup tells a container where on the host it
is.
"""

from __future__ import annotations

from minicontainer.linux import CLONE_NEWCGROUP, unshare


def hide_cgroup_path() -> None:
    """Give the calling process a cgroup namespace, whose root is the group that the process is in at this moment.

    So it comes *after* the process was put into its group; a later move would show as "/../other". Raises OSError:
    EPERM.
    """
    unshare(CLONE_NEWCGROUP)
