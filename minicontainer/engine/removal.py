"""What belongs to a rootless container's other users: only its own root may remove it, or copy it.

In such a user namespace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import minicontainer
from minicontainer.engine.errors import EngineError

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from minicontainer.engine.removal import serve; serve(*sys.argv[2:])"
)


def remove_as_container_root(directory: str) -> None:
    """Remove a directory with everything in it, as root of a user namespace with the ids that rootless containers have.

    In a process of its own, because the caller may have threads. Raises EngineError.
    """
    if said := _as_container_root("remove", directory):
        raise EngineError(f"cannot remove {directory}: {said}; remove it as root")


def act_as_container_root(act: str, *arguments: object) -> None:
    """Do one of `engine.snapshots.acts` likewise. Raises EngineError."""
    if said := _as_container_root(act, *arguments):
        raise EngineError(f"as root of a user namespace: cannot {act} layers: {said}")


def _as_container_root(act: str, *arguments: object) -> str:
    """What went wrong; "": nothing."""
    package = os.path.dirname(minicontainer.__path__[0])
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, package, act, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it was killed"])[-1]


def serve(act: str, arguments: str) -> None:
    """The process that does it: a child in the user namespace acts, we write its maps."""
    from minicontainer.engine.snapshots import acts
    from minicontainer.engine.store import remove_tree
    from minicontainer.linux import Namespace
    from minicontainer.runtime.users import rootless_maps
    from minicontainer.steps import Steps

    steps = Steps()
    mapped, tell = os.pipe()

    def inside() -> int:
        os.close(tell)
        os.read(mapped, 1)
        known: dict[str, Callable[..., object]] = {"remove": remove_tree, **acts(steps)}
        try:
            steps.become_root()
            known[act](*json.loads(arguments))
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
            return 1
        return 0

    pid = steps.spawn_init(inside, [Namespace.USER])
    steps.write_maps(pid, *rootless_maps())
    os.write(tell, b"x")
    _, status = os.waitpid(pid, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
