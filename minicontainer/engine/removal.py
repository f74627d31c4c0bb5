"""Removing files that belong to a rootless container's other users:

only its own root may, inside such a user namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import minicontainer
from minicontainer.engine.errors import EngineError

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from minicontainer.engine.removal import serve; serve(sys.argv[2])"
)


def remove_as_container_root(directory: str) -> None:
    """Remove a directory with everything in it, as root of a user namespace with the ids that rootless containers have.

    In a process of its own, because the caller may have threads. Raises EngineError.
    """
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, os.path.dirname(minicontainer.__path__[0]), directory]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(f"cannot remove {directory}: {done.stderr.strip().splitlines()[-1:]}; remove it as root")


def serve(directory: str) -> None:
    """The process that does it: a child in the user namespace removes, we write its maps."""
    from minicontainer.linux import Namespace
    from minicontainer.runtime.users import rootless_maps
    from minicontainer.steps import Steps

    steps = Steps()
    mapped, tell = os.pipe()

    def remove() -> int:
        os.close(tell)
        os.read(mapped, 1)
        steps.become_root()
        shutil.rmtree(directory)
        return 0

    pid = steps.spawn_init(remove, [Namespace.USER])
    steps.write_maps(pid, *rootless_maps())
    os.write(tell, b"x")
    _, status = os.waitpid(pid, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
