"""Staying with a running container: its terminal, the signals that are meant for it, its end."""

from __future__ import annotations

import contextlib
import os
import select

from minicontainer.linux import signal
from minicontainer.runtime.birth import Running
from minicontainer.runtime.terminal import Raw, Relay, copy_size, peer
from minicontainer.steps.group import remove_group

PATIENCE = 3
"""So many times ^C (or another request to end) is passed on; then the container is killed."""


def put_down(running: Running) -> None:
    """Kill a container, frozen or not. It has still to be waited for."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
    if running.group:
        with contextlib.suppress(OSError):  # on v1, what is frozen dies only when it is thawed; this does it too
            remove_group(running.group)


def accompany(running: Running, interrupts: int | None = None) -> None:
    """Return when the container has ended. Meanwhile copy between the caller's terminal and the program's, if it has
    one, and pass on every signal that arrives at `interrupts`, a signalfd(2)."""
    if running.console is None:
        _watch(running, interrupts, None)
        return
    stdin = 0
    with Raw(stdin):
        relay = Relay(running.console, stdin, 1)
        if os.isatty(stdin):
            copy_size(stdin, running.console)  # as it is now: it may have changed while the container was born
        held = peer(running.console)
        try:
            _watch(running, interrupts, relay)
        finally:
            relay.drain()
            os.close(held)


def _watch(running: Running, interrupts: int | None, relay: Relay | None) -> None:
    patience = PATIENCE
    while True:
        poll = select.poll()
        poll.register(running.pidfd, select.POLLIN)
        if interrupts is not None:
            poll.register(interrupts, select.POLLIN)
        if relay is not None and relay.master >= 0:
            poll.register(relay.master, select.POLLIN | (select.POLLOUT if relay.pending else 0))
            if relay.stdin is not None and not relay.pending:
                poll.register(relay.stdin, select.POLLIN)
        for fd, event in poll.poll():
            if fd == running.pidfd:
                return
            if fd == interrupts:
                number = os.read(interrupts, 128)[0]
                if number == signal.SIGWINCH:
                    if relay is not None:
                        copy_size(0, running.console or 0)
                else:
                    patience -= 1
                    if patience > 0:
                        signal.pidfd_send_signal(running.pidfd, number)
                    else:
                        put_down(running)
            elif relay is not None and fd == relay.stdin:
                relay.typed()
            elif relay is not None:
                if event & select.POLLOUT:
                    relay.to_program()
                if event & ~select.POLLOUT and not relay.from_program():
                    relay.master = -1  # nobody has the other side open any more
