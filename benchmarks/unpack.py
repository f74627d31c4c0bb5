"""Unpacking a layer on tmpfs: a blob of gzip becomes a tree of files whose digest has been verified.

`images.unpack.unpack`, in process as a pull calls it, beside ``pigz -dc | tar x``, which verifies nothing and asks
nobody where a name leads, and umoci, which unpacks an image of this one layer. The layer is made of this machine's own
files, so its size is in the title. For orientation: the time that decompressing and hashing take alone, which a thread
does while another makes files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Goal, Report, take_turns
from minicontainer.images.compression import LayerReader
from minicontainer.images.unpack import unpack
from minicontainer.steps import Steps

ROUNDS = 12
SOURCES = ("/usr/lib/python3", "/usr/lib/python3.11", "/usr/share", "/usr/lib")
SIZE = 180 << 20
"""Bytes of files in the layer: about 63 MB of gzip."""
OURS, PEER, UMOCI, ALONE = "images.unpack", "pigz -dc | tar x", "umoci raw unpack", "decompressed and hashed only"


def measure(rounds: int = ROUNDS, size: int = SIZE) -> Report:
    """All in turns. Raises SystemExit: not root, or there is no pigz."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: unpack gives files to their owners: run it as root")
    if not shutil.which("pigz"):
        raise SystemExit("benchmarks: unpack compares with pigz: install it with: apt install pigz")
    missing = {} if shutil.which("umoci") else {UMOCI: "not installed"}
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/dev/shm") as place:
        top = Path(place)
        diff_id, entries = _make_layer(top, size)
        subjects: dict[str, Callable[[], float]] = {
            OURS: partial(_in_empty, top / "ours", partial(_ours, top, diff_id)),
            PEER: partial(_in_empty, top / "peer", partial(_run, f"pigz -dc {top}/blob | tar -C {top}/peer -xp")),
            ALONE: partial(_in_empty, top / "alone", partial(_alone, top)),
        }
        if UMOCI not in missing:
            _make_image(top)
            line = f"umoci raw unpack --image {top}/layout:tag {top}/umoci/rootfs"
            subjects[UMOCI] = partial(_in_empty, top / "umoci", partial(_run, line))
        megabytes = (top / "blob").stat().st_size / 1e6
        series = take_turns(subjects, rounds, warm_up=1)
    return Report(
        "unpack",
        f"Unpacking a layer of {megabytes:.0f} MB (gzip), {entries} entries, on tmpfs",
        "ms",
        series,
        Goal(OURS, 1.0, PEER),
        missing=missing,
    )


def _make_layer(top: Path, wanted: int) -> tuple[str, int]:
    """Write `top`/blob; its diff ID, and how many entries it has."""
    names, size = [], 0
    for file in _files():
        if size > wanted:
            break
        names.append(file)
        about = os.lstat(f"/{file}")
        size += about.st_size
    listed = "\0".join(names).encode()
    command = ["tar", "-C", "/", "--no-recursion", "--format=gnu", "-cf", str(top / "tar"), "--null", "-T", "-"]
    subprocess.run(command, input=listed, check=True)
    digest = hashlib.sha256((top / "tar").read_bytes()).hexdigest()
    with open(top / "blob", "wb") as blob:
        subprocess.run(["pigz", "-6", "-n", "-c", str(top / "tar")], check=True, stdout=blob)
    (top / "tar").unlink()
    return f"sha256:{digest}", len(names)


def _files() -> Iterator[str]:
    seen = set[str]()
    for source in SOURCES:
        for directory, names, files in os.walk(source):
            names.sort()
            for path in (directory, *(f"{directory}/{name}" for name in sorted(files))):
                if path not in seen:
                    seen.add(path)
                    yield path.lstrip("/")


def _make_image(top: Path) -> None:
    """An image of this layer for umoci, which wants one."""
    image = f"{top}/layout:tag"
    for line in (f"umoci init --layout {top}/layout", f"umoci new --image {image}"):
        subprocess.run(line.split(), check=True, capture_output=True)
    with open(top / "tar", "wb") as tar:
        subprocess.run(["pigz", "-dc", str(top / "blob")], check=True, stdout=tar)
    subprocess.run(["umoci", "raw", "add-layer", "--image", image, str(top / "tar")], check=True, capture_output=True)
    (top / "tar").unlink()


def _in_empty(directory: Path, act: Callable[[], None]) -> float:
    """Milliseconds that `act` takes to fill a directory; to empty it is not counted."""
    directory.mkdir()
    begin = time.perf_counter()
    act()
    taken = (time.perf_counter() - begin) * 1000
    shutil.rmtree(directory)
    return taken


def _ours(top: Path, diff_id: str) -> None:
    fd = os.open(top / "blob", os.O_RDONLY)
    unpack(str(top / "ours"), diff_id, fd, Steps().apply_layer)
    os.close(fd)


def _alone(top: Path) -> None:
    fd = os.open(top / "blob", os.O_RDONLY)
    with LayerReader(fd) as layer:
        layer.drain()
    os.close(fd)


def _run(line: str) -> None:
    subprocess.run(["sh", "-c", line], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
