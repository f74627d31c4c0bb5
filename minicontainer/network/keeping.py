"""Taking down, a moment later, what the host has of networks whose last container has gone.

A process does it that is nobody's child, so that nobody waits for the kernel's grace periods, nor makes anew what would
be needed again at once. There is no daemon: it looks once a second, and ends with its work. Killed, its work is left to
the next one, or to ``minicontainer system repair`` and ``network prune``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time

import minicontainer
from minicontainer.linux import thread_count
from minicontainer.linux.daemon import daemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.network.store import Network

LINGER = 1.0
"""Seconds for which a bridge without containers is kept."""

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from minicontainer.network.keeping import work; work(sys.argv[2])"
)


def take_down_later(root: str) -> None:
    """See to it that somebody takes idle networks below this state directory down. The caller holds the lock."""
    lock = os.open(f"{root}/networks/.keeper", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # there is one, and it will look again before it ends
    finally:
        os.close(lock)
    if thread_count() > 1:
        _spawn(root)
        return
    # It has let go of our locks when this returns: else a container might still look as if somebody watched over it.
    daemon(lambda: work(root), "minicontainer networks")


def work(root: str) -> None:
    """The process: as long as a network is idle, and has not been so for long, look again."""
    from minicontainer.network.connection import unmake
    from minicontainer.network.networks import Networks
    from minicontainer.steps import Steps

    try:
        lock = os.open(f"{root}/networks/.keeper", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody else was faster, or has removed everything
        return
    networks = Networks(root, Steps())
    idle: list[Network] = []
    with contextlib.suppress(Exception):  # nobody is there to be told; `system repair` tells
        while True:
            if not os.path.isdir(networks.records.root):  # somebody has removed it, with all that we might look up
                for network in idle:
                    unmake(network, networks.steps)
                return
            with networks.records.locked():
                idle = networks.idle()
                if not networks.take_down_idle(LINGER):
                    os.close(lock)  # before the other lock: who comes now, starts another of us
                    return
            time.sleep(LINGER / 4)  # it is time alone that is waited for: who needs the network meanwhile, finds it


def _spawn(root: str) -> None:
    """From a process with threads, none of which may hold a lock in the copy: a Python of its own."""
    import subprocess

    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, os.path.dirname(minicontainer.__path__[0]), root]
    subprocess.Popen(command, stdin=-3, stdout=-3, stderr=-3, start_new_session=True)
