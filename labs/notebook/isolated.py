"""Runs a cell in a process of its own, and brings back its output, its pictures and its errors.

    the kernel ──fork, exec──▶ unshare(1) ──▶ labs.notebook.cell: process 1 of a sandbox ──clone3──▶ the cell, if --new

The kernel itself, which has a dozen threads, changes nothing about itself. The sandbox is root of new namespaces of its
own, so whatever the cell does to itself in there the host does not notice; and when it ends, its PID namespace ends
with all that was started in it.
"""

from __future__ import annotations

import codecs
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labs.notebook import shown
from labs.notebook.cell import LENGTH
from labs.notebook.session import session

SANDBOX = ["--user", "--map-root-user", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
"""unshare(1): what is around every cell apart."""

WITH_US = ["setpriv", "--pdeathsig", "KILL"]
"""A notebook's kernel is killed more often than it ends: then the sandbox ends too."""

PATIENCE = 60
"""Seconds that a cell may take."""


class NoSandbox(Exception):
    """A cell cannot be run apart on this host; the text says why."""


def run(cell: str, source: str, variables: dict[str, Any], new: Sequence[str] = (), *, explain: bool = False) -> None:
    """Run a cell, `source` is Python, in a sandbox; in it in new namespaces of the kinds `new` ("uts", "pid"…).

    Its output is this cell's output. Raises NoSandbox; KeyboardInterrupt, when nothing of it is left.
    """
    for program in ("unshare", "setpriv"):
        if shutil.which(program) is None:
            raise NoSandbox(f"a cell apart needs {program}(1) of util-linux: apt install util-linux")
    ours, its = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="apart-") as directory, ours:
        request = Path(directory, "request.json")
        mine = session.write(Path(directory, "session.ipynb"))
        asked = {"cell": cell, "source": source, "variables": variables, "new": list(new), "explain": explain}
        request.write_text(json.dumps({**asked, "session": str(mine)}), encoding="utf-8")
        command = [sys.executable, "-u", "-m", "labs.notebook.cell", str(request), str(its.fileno())]
        with its:
            process = subprocess.Popen(
                [*WITH_US, "unshare", *SANDBOX, "--mount-proc", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[its.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MPLBACKEND": "agg"},
            )
        try:
            late = _relay(process, ours)
        finally:
            process.kill()  # and by --kill-child all that is in its PID namespace
            status = process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
    if late:
        print(f"the process was ended: it was not done after {PATIENCE} seconds", file=sys.stderr)
    elif status not in (0, 1):
        print(f"the process ended with status {status}", file=sys.stderr)


def _relay(process: subprocess.Popen[bytes], channel: socket.socket) -> bool:
    """Pass on what comes, as it comes, until there is no more; True: it was not done in time."""
    assert process.stdout is not None
    assert process.stderr is not None
    streams = {process.stdout.fileno(): sys.stdout, process.stderr.fileno(): sys.stderr}
    decoders = {number: codecs.getincrementaldecoder("utf-8")("replace") for number in streams}
    poll = select.poll()
    for number in (*streams, channel.fileno()):
        poll.register(number, select.POLLIN)
    open_ones, end = set(streams), time.monotonic() + PATIENCE
    while open_ones:
        left = end - time.monotonic()
        ready = {number for number, _ in poll.poll(max(left, 0) * 1000)}
        if not ready:
            return True
        for number in sorted(ready & open_ones):
            text = os.read(number, 1 << 16)
            streams[number].write(decoders[number].decode(text, final=not text))
            if not text:
                poll.unregister(number)
                open_ones.discard(number)
        if channel.fileno() in ready and not ready & open_ones and not _picture(channel):
            poll.unregister(channel)
    process.wait()
    return False


def _picture(channel: socket.socket) -> bool:
    """Show what has come over the channel, and say that it is shown; False: nothing more will come."""
    head = channel.recv(LENGTH.size, socket.MSG_WAITALL)
    if len(head) < LENGTH.size:
        return False
    (length,) = LENGTH.unpack(head)
    message = json.loads(channel.recv(length, socket.MSG_WAITALL))
    shown.show(message["data"], message["metadata"])
    channel.sendall(b".")
    return True
