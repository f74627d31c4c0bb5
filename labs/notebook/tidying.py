"""Nothing outlives its cell: what a cell has started and left behind is ended, and it is said what that was.

Every program that a notebook starts inherits a mark in its environment, so those are found too whose parent has ended.
Containers do not have it: the engines of this session remember theirs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
from pathlib import Path

from labs.notebook import session
from minicontainer.engine.errors import EngineError

MARK = "LABS_NOTEBOOK"

_OURS = b"minicontainer"
"""In the command line of the engine's own helpers, which end with the notebook, or with their container."""


def mark() -> None:
    """Mark what this process will start from now on."""
    os.environ[MARK] = f"{os.getpid()}-{secrets.token_hex(8)}"


def tidy() -> list[str]:
    """End what is left of the cells so far; returns what that was, in words."""
    ended = []
    for name, container in session.containers_left():
        with contextlib.suppress(EngineError):
            session.put_away(container)
            ended.append(f"container {name}")
    for pid, name in _left():
        with contextlib.suppress(ProcessLookupError):
            held = os.pidfd_open(pid)
            try:
                if _is_ours(pid):  # still: the number may be another's by now
                    signal.pidfd_send_signal(held, signal.SIGKILL)
                    ended.append(f"{name} (process {pid})")
            finally:
                os.close(held)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return ended


def reset() -> list[str]:
    """Leave the host as it was before the first notebook of the course: returns what is gone."""
    gone = tidy()
    root = session.lab_root()
    if root.exists():
        gone += session.remove_all()
        shutil.rmtree(root, ignore_errors=True)
        gone.append(f"the directory {root}")
    return gone


def _left() -> list[tuple[int, str]]:
    """Processes with our mark, and their names."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid() and _is_ours(int(entry)):
            with contextlib.suppress(OSError):
                found.append((int(entry), Path(f"/proc/{entry}/comm").read_text().strip()))
    return found


def _is_ours(pid: int) -> bool:
    try:
        if _OURS in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False
        return f"{MARK}={os.environ[MARK]}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
