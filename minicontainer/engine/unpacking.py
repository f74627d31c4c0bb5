"""Unpacking an image's layers: in a process of its own, because layers are unpacked by threads, and a process that is
going to start a container must have none; and, for a user who is not root, as root of the user namespace in which they
are going to be used, because their files belong to the ids of that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import minicontainer
from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Store
from minicontainer.images.documents import Descriptor
from minicontainer.steps import Steps

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from minicontainer.engine.unpacking import serve; serve(*sys.argv[2:])"
)


def unpack_image(store: Store, descriptor: Descriptor, steps_path: str | None) -> None:
    """Unpack the layers of an image that are not. The caller keeps them from being collected. Raises EngineError."""
    place = os.path.dirname(minicontainer.__path__[0])
    words = [store.root, descriptor.media_type, descriptor.digest, str(descriptor.size), steps_path or ""]
    done = subprocess.run([sys.executable, "-I", "-c", _PROGRAM, place, *words], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the process that unpacks ended with status {done.returncode}"]
        raise EngineError(lines[-1])


def serve(root: str, media_type: str, digest: str, size: str, steps_path: str) -> None:
    """The process that does it."""
    from minicontainer.images.errors import ImageError
    from minicontainer.runtime.substitute import load_steps

    descriptor, store = Descriptor(media_type, digest, int(size)), Store(root)
    steps = load_steps(steps_path) if steps_path else Steps()

    def unpack() -> int:
        try:
            unpack_here(store, descriptor, steps)
        except ImageError as error:
            print(" ".join(str(error).split("\n")), file=sys.stderr)
            return 1
        return 0

    sys.exit(unpack() if os.geteuid() == 0 else _as_container_root(unpack))


def unpack_here(store: Store, descriptor: Descriptor, steps: Steps) -> None:
    """Likewise in this process. Raises ImageError."""
    from minicontainer.engine.images import images_of
    from minicontainer.images.unpack import unpack

    images = images_of(store)
    for blob, diff_id in images.missing(images.image(descriptor)):
        fd = images.content.open(blob.digest)
        try:
            unpack(images.layers, diff_id, fd, steps.apply_layer)
        finally:
            os.close(fd)
        images.note(diff_id)


def _as_container_root(act: Callable[[], int]) -> int:
    """In a child in a user namespace with the ids that rootless containers have."""
    from minicontainer.linux import Namespace
    from minicontainer.runtime.users import rootless_maps

    steps = Steps()
    mapped, tell = os.pipe()

    def main() -> int:
        os.close(tell)
        os.read(mapped, 1)
        steps.become_root()
        return act()

    pid = steps.spawn_init(main, [Namespace.USER])
    steps.write_maps(pid, *rootless_maps())
    os.write(tell, b"x")
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
