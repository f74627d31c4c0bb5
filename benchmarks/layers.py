"""A start on an image of a hundred layers, against one of a single layer: `Engine.run` of /bin/true, start to exit.

The same files are in both: busybox in the lowest layer, and in each of the others a file of its own. overlayfs looks
for /bin/true in every layer from the top, the mount names each of them, and the engine looks after them all.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Driven, Goal, Report, take_turns
from minicontainer.images.busybox import static_busybox
from tests.images.made import Made

if TYPE_CHECKING:
    from minicontainer.engine import Engine

ROUNDS = 100
ONE, HUNDRED = "on one layer", "on 100 layers"
LIMIT = 1.5


def measure(rounds: int = ROUNDS) -> Report:
    """Both in turns. Raises SystemExit: not root."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: layers starts containers without a user namespace: run it as root")
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as directory,
        Driven([sys.executable, "-m", "benchmarks.layers", directory]) as start,
    ):
        series = take_turns({ONE: partial(start, "one"), HUNDRED: partial(start, "hundred")}, rounds)
    title = "A start on 100 layers: /bin/true, start to exit and removed"
    return Report("layers", title, "ms", series, Goal(HUNDRED, LIMIT, beside=ONE))


def drive(root: Path) -> None:
    """A container on the image that a line on standard input names, its milliseconds on standard output."""
    from minicontainer.engine import Engine

    engine = Engine(root)
    busybox = Path(static_busybox()).read_bytes()
    lowest: dict[str, bytes | str] = {"bin/": b"", "bin/busybox": busybox, "bin/true": "busybox"}
    above: list[dict[str, bytes | str]] = [{f"layer-{number}": b"%d" % number} for number in range(1, 100)]
    everything = {**lowest, **{name: content for layer in above for name, content in layer.items()}}
    _load(engine, Made([everything]), "one")
    _load(engine, Made([lowest, *above]), "hundred")
    for line in sys.stdin:
        begin = time.perf_counter()
        status = engine.run(line.strip(), ["/bin/true"], stdio=(None, None, None)).status
        taken = (time.perf_counter() - begin) * 1000
        if status != 0:
            raise SystemExit(f"benchmarks: the container ended with status {status}")
        print(f"{taken:.4f}", flush=True)


def _load(engine: Engine, image: Made, name: str) -> None:
    from minicontainer.engine.unpacking import unpack_image
    from minicontainer.images.archives import load

    load(
        engine.images(),
        io.BytesIO(image.dockers(f"{name}:latest")),
        lambda loaded: unpack_image(engine.store, loaded.descriptor, None),
        None,
    )


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
