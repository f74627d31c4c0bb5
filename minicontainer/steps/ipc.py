"""Step 4, the IPC namespace: System V shared memory, semaphores and queues, and POSIX message queues of one's own.

ipc_namespaces(7). These objects have keys or names in no file system, so a mount namespace does not separate them.
"""

from __future__ import annotations

from minicontainer.linux import CLONE_NEWIPC, unshare


def private_queues() -> None:
    """Give the calling process an IPC namespace of its own: empty, and gone with all its objects when its last member
    is.

    A file system of type mqueue shows the POSIX queues of the namespace in which it was mounted: mount it after this.

    Raises OSError: EPERM (needs CAP_SYS_ADMIN).
    """
    unshare(CLONE_NEWIPC)
