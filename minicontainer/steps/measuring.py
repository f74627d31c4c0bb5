"""Step 0, before there is anything to isolate: what it costs to start something, and which kernel it then runs on.

Nothing is changed here. A process, a container and a virtual machine are started alike, by a command that says in a
line of its output when it is ready, and on which kernel.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence

READY = "kernel "
"""How the line begins with which a program says that it is ready; its kernel's release follows, as `uname -r` says."""


def time_start(args: Sequence[str]) -> dict[str, int | str]:
    """Start a program, and wait until it says "kernel RELEASE"; it goes on running then.

    Returns its "pid", its "kernel", and in "milliseconds" how long that took, by a clock that never jumps. Lines before
    that one, as a machine writes while it boots, are passed over. Raises OSError: it cannot be started; EOFError: it
    ended without a word of its kernel.
    """
    begun = time.monotonic_ns()
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        passed = time.monotonic_ns() - begun
        text = line.decode(errors="replace").strip()
        if text.startswith(READY):
            kernel = text.removeprefix(READY)
            return {"pid": process.pid, "kernel": kernel, "milliseconds": passed // 1_000_000}
    raise EOFError(f"{args[0]} has ended (status {process.wait()}), and has not said which kernel it runs on")


def memory_of(pid: int) -> int:
    """The bytes of memory that a process and all that descend from it take together.

    proc_pid_smaps(5): of a page that n processes share, each is counted the nth part (Pss). So a program that runs
    twice is not counted twice. Raises OSError: ENOENT (no such process), EACCES.
    """
    with open(f"/proc/{pid}/smaps_rollup") as file:
        kibibytes = sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return kibibytes * 1024 + sum(memory_of(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as children:
            found += [int(child) for child in children.read().split()]
    return found
