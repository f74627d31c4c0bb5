"""Registries and this engine: what is pulled is unpacked below its root, and what is missing is pulled."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import minicontainer
from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Store
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.images.documents import Descriptor, Platform
    from minicontainer.images.images import Images
    from minicontainer.images.references import Reference
    from minicontainer.images.registry import Registry
    from minicontainer.images.transfer import Progress

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from minicontainer.cli import main; sys.exit(main(sys.argv[1:]))"
)

SETTINGS = "registries.toml"
"""Below the engine's root: `minicontainer.images.endpoints`."""


def pull(
    store: Store,
    steps: Steps,
    reference: Reference,
    sources: Sequence[Registry],
    platform: Platform | None,
    progress: Progress,
    parallel: int,
) -> Descriptor:
    """Fetch an image and unpack its layers, each as soon as it is there. Raises ImageError.

    For a user who is not root they are unpacked when a container is made of them: by the root of its user namespace.
    """
    from minicontainer.engine.images import images_of
    from minicontainer.images import transfer

    images = images_of(store)
    unpack = _unpacking(images, steps) if os.geteuid() == 0 else None
    return transfer.pull(
        reference, images.content, sources, platform, unpack=unpack, progress=progress, parallel=parallel
    )


def pull_missing(store: Store, steps_path: str | None, text: str, platform: str) -> None:
    """As ``minicontainer pull`` does it, in a process of its own: it takes threads, and whoever is about to start a
    container must have none. What it has to say of its progress goes to standard error. Raises EngineError."""
    import subprocess

    place = os.path.dirname(minicontainer.__path__[0])
    words = ["--root", store.root, *(["--steps", steps_path] if steps_path else []), "pull"]
    words = [sys.executable, "-I", "-c", _PROGRAM, place, *words, *(["--platform", platform] if platform else []), text]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=2, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"the process that pulls it ended with status {done.returncode}"]
        raise EngineError(said[-1].removeprefix("minicontainer: "), 130 if done.returncode == 130 else 125)


def _unpacking(images: Images, steps: Steps) -> Callable[[Descriptor, str], None]:
    from minicontainer.images.unpack import unpack

    def unpacked(blob: Descriptor, diff_id: str) -> None:
        if os.path.isdir(images.layer(diff_id)):
            return
        file = images.content.open(blob.digest)
        try:
            unpack(images.layers, diff_id, file, steps.apply_layer)
        finally:
            os.close(file)
        images.note(diff_id)

    return unpacked
