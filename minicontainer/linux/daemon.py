"""A process that is nobody's child: daemon(7), setsid(2)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from minicontainer.linux import signal
from minicontainer.linux.process import clone3, close_all_but, set_title


def daemon(act: Callable[[], object], title: str, kept: Iterable[int] = ()) -> None:
    """Have `act` done by a process of its own, which ps(1) shows as `title`, and that ends afterwards.

    It is nobody's child, and has nothing of its maker's: no terminal, no signal mask, no directory, and no file but
    those of the numbers `kept`; what holds on to a file, such as a lock, it has let go of when we return. The caller
    must have a single thread. Raises OSError: EAGAIN.
    """
    child = clone3(0)
    if child == 0:
        try:
            _let_go(title, kept)
            if clone3(0) == 0:  # the one between ends at once, so its child is process 1's, or a reaper's
                act()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _let_go(title: str, kept: Iterable[int]) -> None:
    set_title(title)
    os.setsid()
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    close_all_but([0, 1, 2, *kept])
