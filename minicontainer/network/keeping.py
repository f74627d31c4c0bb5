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
from minicontainer.linux import clone3, close_range, set_title, thread_count

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
    child = clone3(0)
    if child == 0:
        try:
            _let_go()
            if clone3(0) == 0:
                work(root)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


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


def _let_go() -> None:
    """Have nothing any more of whoever had the last container: its terminal, its files, its locks that hang on them.

    Before whoever waits for us goes on: else a container might still look as if somebody watched over it.
    """
    set_title("minicontainer networks")
    os.setsid()
    os.chdir("/")
    close_range(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _spawn(root: str) -> None:
    """From a process with threads, none of which may hold a lock in the copy: a Python of its own."""
    import subprocess

    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, os.path.dirname(minicontainer.__path__[0]), root]
    subprocess.Popen(command, stdin=-3, stdout=-3, stderr=-3, start_new_session=True)
