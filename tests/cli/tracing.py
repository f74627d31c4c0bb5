"""A signal at a chosen system call of a command: strace(1) counts them, and sends it there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

CALLS = (
    "mkdir", "symlink", "rename", "renameat2", "clone3", "flock", "write", "socketpair", "poll", "pidfd_open", "wait4",
    "rmdir", "unlink",
)  # fmt: skip
"""Those by which `run` changes something, or waits."""

_STRACE = shutil.which("strace", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
needs_strace = pytest.mark.skipif(not _STRACE, reason="strace is not installed: it sends the signals of this test")


def every_call(command: list[str | bytes | Path], names: Iterable[str], log: Path) -> Iterator[tuple[str, int]]:
    """(name, n) for the n-th of each of these system calls that the command makes in a run that is only watched."""
    tracer = [_STRACE, "-qq", "-o", log, "-e", f"trace={','.join(names)}"]
    subprocess.run([*tracer, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)  # type: ignore[list-item]
    made = re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE)
    for name in names:
        yield from ((name, when) for when in range(1, made.count(name) + 1))


def signalled_at(call: str, when: int, number: int, command: list[str | bytes | Path]) -> list[str | bytes | Path]:
    """The command line that runs this command and sends it the signal as it enters that system call for the n-th time."""
    inject = f"inject={call}:signal={int(number)}:when={when}"
    return [str(_STRACE), "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *command]
