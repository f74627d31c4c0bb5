"""An image's layer, unpacked once for all who stand on it: ``LAYERS/DIFFID/diff``, whole or not there.

It is unpacked beside its place, in ``LAYERS/.DIFFID.RANDOM``, on which its maker holds a lock (flock(2)) as long as he
lives, and renamed into it. So what a killed process left behind is known by a lock that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator

from minicontainer.images.compression import SIZE_LIMIT, LayerReader
from minicontainer.images.errors import ImageError
from minicontainer.linux.files import sync_file_system

_DIFF_ID = re.compile(r"sha256:([0-9a-f]{64})")


def layer_name(diff_id: str) -> str:
    """The name below `layers` of the layer with this diff ID. Raises ImageError: it is none."""
    match = _DIFF_ID.fullmatch(diff_id)
    if match is None:
        raise ImageError(f"{diff_id[:100]!r} is no diff ID: sha256: and 64 hexadecimal digits are wanted")
    return match[1]


def unpack(
    layers: str,
    diff_id: str,
    blob: int,
    apply_layer: Callable[..., object],
    *,
    digest: str | None = None,
    limits: object = None,
    size_limit: int = SIZE_LIMIT,
    sync: bool = True,
) -> str:
    """Unpack the blob that the file descriptor `blob` is at the beginning of into its place below `layers`.

    The uncompressed bytes must have the digest `diff_id`, and the blob `digest`, if that is given: whoever has just
    verified it need not again. `apply_layer` is the step, and `limits` what it is given as such, if it is. With `sync`
    everything is on the disk before it gets its name; without, an unpacked layer is not to be relied upon after a
    power cut. Of two who unpack the same at once the second waits, and takes what the first has made. To be called as
    root of the user namespace in which the layer is going to be used.

    Returns the directory that overlayfs takes for a layer. Raises ImageError, and then nothing is left of it.
    """
    name = layer_name(diff_id)
    place = f"{layers}/{name}"
    try:
        while not os.path.isdir(place):
            if _others_ended(layers, name):
                continue
            with _apart(layers, name) as private:
                os.mkdir(f"{private}/diff", 0o755)
                _unpack(blob, f"{private}/diff", diff_id, apply_layer, digest, limits, size_limit)
                if sync:
                    sync_file_system(private)
                _put_in_place(private, place)
    except ImageError as error:
        raise ImageError(f"layer {diff_id}: {error}") from error.__cause__
    except OSError as error:
        raise ImageError(f"layer {diff_id}: cannot be unpacked in {layers}: {error.strerror or error}") from error
    return f"{place}/diff"


def sweep(layers: str) -> list[str]:
    """Remove what killed processes left half unpacked; what somebody unpacks now stays. Returns the names."""
    swept = []
    for name in sorted(os.listdir(layers)):
        if name.startswith("."):
            with contextlib.suppress(FileNotFoundError, BlockingIOError), _locked(f"{layers}/{name}", fcntl.LOCK_NB):
                shutil.rmtree(f"{layers}/{name}")
                swept.append(name)
    return swept


def _unpack(
    blob: int,
    directory: str,
    diff_id: str,
    apply_layer: Callable[..., object],
    digest: str | None,
    limits: object,
    size_limit: int,
) -> None:
    """Unpack into a directory of our own, and see whether it was what it should be. Raises ImageError, OSError."""
    with LayerReader(blob, limit=size_limit, hash_compressed=digest is not None) as layer:
        try:
            apply_layer(layer, directory, *(() if limits is None else (limits,)))
        except ValueError as error:
            raise ImageError(f"refused: {error}") from error
        layer.drain()
    if digest is not None and layer.digest != digest:
        raise ImageError(f"its blob has the digest {layer.digest}, not {digest}: fetch it again")
    if layer.diff_id != diff_id:
        raise ImageError(f"what is in its blob has the digest {layer.diff_id}: the image contradicts itself")


def _put_in_place(private: str, place: str) -> None:
    try:
        os.rename(private, place)
    except OSError:
        if not os.path.isdir(place):  # else somebody was faster, and has made the same
            raise


@contextlib.contextmanager
def _apart(layers: str, name: str) -> Iterator[str]:
    """A new directory beside the place of the layer, locked by us; gone at the end, unless it has got its name."""
    with contextlib.ExitStack() as held:
        while True:
            private = f"{layers}/.{name}.{os.urandom(4).hex()}"
            os.mkdir(private, 0o711)
            with contextlib.suppress(FileNotFoundError):  # `sweep` came between the two: once more
                held.enter_context(_locked(private))
                break
        try:
            yield private
        finally:
            shutil.rmtree(private, ignore_errors=True)


def _others_ended(layers: str, name: str) -> bool:
    """Wait for somebody who unpacks this layer now; False: there is nobody."""
    for other in os.listdir(layers):
        if other.startswith(f".{name}."):
            try:
                with _locked(f"{layers}/{other}", fcntl.LOCK_NB):
                    continue  # of somebody who was killed
            except FileNotFoundError:
                return True
            except BlockingIOError:
                with contextlib.suppress(FileNotFoundError), _locked(f"{layers}/{other}"):
                    pass
                return True
    return False


@contextlib.contextmanager
def _locked(directory: str, flags: int = 0) -> Iterator[None]:
    """Hold the lock of a directory. Raises FileNotFoundError: it is gone by now; BlockingIOError, with LOCK_NB."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | flags)
        if not os.path.samestat(os.fstat(fd), os.stat(directory)):
            raise FileNotFoundError(f"{directory} is another one by now")
        yield
    finally:
        os.close(fd)
