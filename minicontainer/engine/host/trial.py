"""The proof: a container is started."""

from __future__ import annotations

import os

from minicontainer.engine.host.finding import Finding
from minicontainer.engine.host.probing import NO_ANSWER, attempt
from minicontainer.images.busybox import static_busybox
from minicontainer.images.errors import ImageError

PATIENCE = 20.0
"""Seconds for a container to start; at its first time the image is made, and machines may be emulated."""

PATIENCE_AFTERWARDS = 10.0
"""Seconds for what is left of one that did not start in time."""


def of_containers(root: str | None) -> list[Finding]:
    """Whether there is something to run, and whether it runs."""
    return [_busybox(), _trial(root)]


def _busybox() -> Finding:
    try:
        return Finding("static busybox", True, static_busybox(), required=True)
    except ImageError as error:
        return Finding("static busybox", False, str(error), "apt install busybox-static", required=True)


def _trial(root: str | None) -> Finding:
    import tempfile

    from minicontainer.engine.engine import Engine

    name = f"check-{os.getpid()}"

    def act() -> str:
        import time

        begun = time.perf_counter()
        result = Engine(place).run("busybox", ["hostname"], name=name, hostname="trial", capture=True)
        milliseconds = (time.perf_counter() - begun) * 1000
        if result != type(result)(0, "trial\n", ""):
            raise RuntimeError(f"it answers {result}")
        return f"in {milliseconds:.0f} ms"

    def put_away() -> None:
        """Its process 1 dies with who started it, a moment later; until then its control group cannot go."""
        engine = Engine(place)
        for config in engine.store.all():
            if config.name == name:
                engine.store.wait(config.id)
                engine.remove(config, force=True)
        engine.repair()  # it may have had no time to write down that it is there

    with tempfile.TemporaryDirectory(prefix="minicontainer-check-") as directory:
        place = root or directory
        error, said = attempt(act, PATIENCE)
        if error == NO_ANSWER:  # it was perhaps killed on its way
            attempt(put_away, PATIENCE_AFTERWARDS)
    mend = "see the lines above, those that say NO first"
    return Finding("a container starts", error == 0, said, mend, required=True)
