"""A container beside another one: its own files, and with them its own tools, among the other's processes.

It is in the other's PID, network, IPC and UTS namespaces, so it sees, and can signal and trace, the processes there,
and has their network; what is installed in the other container does not matter. `/proc/N/root` leads to its files.
"""

from __future__ import annotations

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import State
from minicontainer.linux import Namespace

SHARED = (Namespace.PID, Namespace.NETWORK, Namespace.IPC, Namespace.UTS)


def namespaces_of(state: State) -> tuple[tuple[Namespace, str], ...]:
    """Those of a running container that are to be joined, each with its path. Raises EngineError."""
    pid = state.pid or 0
    if Namespace.USER.link(pid) != Namespace.USER.link():
        raise EngineError("debug: the container has users of its own, which another one cannot share: use exec", 1)
    return tuple((kind, f"/proc/{pid}/ns/{kind.proc_name}") for kind in SHARED if kind.link(pid) != kind.link())
