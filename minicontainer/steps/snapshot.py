"""Step 14, snapshots: a container's files as they were at one moment, kept without being copied.

Everything that a container has written lies in one directory, the upper layer of its overlay; what is below is
read-only. So to keep its state nothing has to be read: the upper layer gets another name, as one more read-only layer,
and the container goes on with an empty one above it. That is two names exchanged, however much was written.

    before            after take              after restore            a clone of the snapshot
    upper   a b       upper   (empty)         upper   (empty)          upper   (empty)
    ──────────        layer   a b             layer   a b              layer   a b
    image             image                   image                    image

renameat2(2); overlayfs.rst in the kernel's tree: a layer that nothing writes to any more may lie under any number of
overlays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from minicontainer.linux.files import exchange
from minicontainer.steps.copying import imitate, merge


def take(upper: str, layer: str, remember: Callable[[], object] | None = None) -> None:
    """Freeze what was written to the directory `upper` as `layer`, and leave an empty `upper`. No overlay may use it.

    `layer` is a name that is free, on the same file system. `remember` is called to write down that the container lies
    on one more layer: when that is there, and still empty. An empty layer changes nothing, and one that has taken
    the place of the upper one changes nothing either; so whoever is killed here, between whichever two system calls,
    leaves a container that has all of its files.

    Raises OSError: EEXIST, EXDEV, ENOSPC; EACCES and EPERM (a root directory of another user's).
    """
    _empty_like(upper, layer)
    if remember:
        remember()
    exchange(upper, layer)


def restore(layers: Sequence[str], upper: str) -> None:
    """Throw away what was written to `upper`, so that it is `layers`, the topmost first, that are seen again.

    Killed half-way, it has to be done again: it can be. Raises OSError.
    """
    fresh = f"{upper}.new"
    if os.path.isdir(fresh):
        _remove(fresh)
    _empty_like(layers[0], fresh)
    exchange(fresh, upper)
    _remove(fresh)


def clone(layers: Sequence[str], upper: str, full: bool = False, below: Sequence[str] = ()) -> None:
    """Make the directory `upper` for another container that begins as what `layers`, the topmost first, show.

    Above the same layers an empty one will do. `full`: it is to lie on those in `below` only, and gets a copy of what
    `layers` have; where the file system can share blocks (reflink), of names and attributes only. Raises OSError.
    """
    if full:
        merge(layers, upper, below)
    else:
        _empty_like(layers[0], upper)


def _empty_like(directory: str, new: str) -> None:
    """An empty directory with the owner, mode, attributes and times of another.

    For the topmost layer is what the container's "/" is like.
    """
    os.mkdir(new, 0o700)
    source, target = (os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (directory, new))
    try:
        imitate(source, target)
    except OSError:
        os.rmdir(new)
        raise
    finally:
        os.close(source)
        os.close(target)


def _remove(directory: str) -> None:
    """rm -r."""
    import shutil  # takes as long as taking a snapshot

    shutil.rmtree(directory)
