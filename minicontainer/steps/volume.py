"""Mounts that a container's own configuration asks for: file systems, and directories or files of the host (volumes).

mount(2), open_tree(2), move_mount(2).
"""

from __future__ import annotations

import os
import stat

from minicontainer.linux import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
    MountAttr,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    target_in,
)


def take(source: str) -> int:
    """A detached copy of the mounts at `source` and below, as a file descriptor: a bind mount that has no place yet.

    Taken by whoever may look at `source`; put in place (`bind`) by a process that perhaps may not, such as the root of
    a user namespace where `source` lies in a directory of mode 700. Raises OSError: ENOENT, EPERM (needs
    CAP_SYS_ADMIN).
    """
    return open_tree(source, OPEN_TREE_CLONE | AT_RECURSIVE)


def bind(source: int, root: str, destination: str, readonly: bool = False) -> None:
    """Put what `take` took at `destination` below `root`; the place is made when it is missing.

    Private, in the same call and before it can be seen: where the host's mounts are shared (systemd makes them so), the
    copy is still a peer of the original, and what the container mounts there would appear on the host. Read-only means
    the whole tree (mount(2) leaves the mounts below writable). Raises OSError: EPERM, EINVAL.
    """
    attributes = MountAttr(attr_set=MOUNT_ATTR_RDONLY if readonly else 0, propagation=MS_PRIVATE)
    mount_setattr(source, "", AT_EMPTY_PATH | AT_RECURSIVE, attributes)
    with target_in(root, destination, directory=stat.S_ISDIR(os.fstat(source).st_mode)) as target:
        move_mount(source, target)


def attach(root: str, destination: str, fstype: str, source: str, flags: int = 0, data: str | None = None) -> None:
    """Mount a file system of type `fstype` at `destination` below `root`; the place is made when it is missing."""
    with target_in(root, destination) as target:
        mount(source, target, fstype, flags, data)
