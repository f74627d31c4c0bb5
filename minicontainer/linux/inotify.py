"""Being told that a file has changed: inotify(7)."""

from __future__ import annotations

import os

from minicontainer.linux.syscalls import call

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_CLOEXEC = os.O_CLOEXEC
IN_NONBLOCK = os.O_NONBLOCK


def inotify_init1(flags: int = IN_CLOEXEC | IN_NONBLOCK) -> int:
    """A file descriptor that is readable when something has happened to what is watched; what, is read from it.

    Raises OSError: EMFILE (/proc/sys/fs/inotify/max_user_instances).
    """
    return call("inotify_init1", flags)


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """Watch what is at `path` for the events in `mask`; returns the number by which events name it.

    Raises OSError: ENOENT, EACCES, ENOSPC (/proc/sys/fs/inotify/max_user_watches).
    """
    return call("inotify_add_watch", fd, path, mask)
