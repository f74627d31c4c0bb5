"""Images mounted on the host, to be looked at: read-only, by root, until they are unmounted.

STATE/mounts/HEX.json  which image is mounted where; written before it is mounted, removed after it is unmounted. HEX is
                       of the directory's path. As long as one is there the image and its layers stay.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Store
from minicontainer.linux import files
from minicontainer.record import Record
from minicontainer.steps import Steps


class ImageMount(Record):
    """An image that is mounted."""

    directory: str
    image: str
    """As it was named then."""
    image_id: str
    layers: tuple[str, ...]
    """The topmost first."""


def mount_image(store: Store, steps: Steps, steps_path: str | None, text: str, directory: str) -> ImageMount:
    """Show the files of an image at an existing directory, read-only. Raises EngineError; nothing is mounted then."""
    from minicontainer.engine.images import IF_MISSING, obtain
    from minicontainer.engine.origin import sharing

    if os.geteuid() != 0:
        raise EngineError(
            "image mount: only root can mount for all to see; as an ordinary user, look at an image in a container: "
            f"minicontainer run --rm -it {text} sh, or copy of one: minicontainer cp"
        )
    place = os.path.realpath(directory)
    if not os.path.isdir(place):
        raise EngineError(f"image mount: there is no directory {directory}: make it first")
    with _lock(store), sharing(store):
        if any(one.directory == place for one in _recorded(store)) and _is_mounted(store, place):
            raise EngineError(f"an image is mounted at {place} already; first: minicontainer image unmount {place}")
        origin = obtain(store, steps, steps_path, text, "", IF_MISSING)
        mount = ImageMount(place, text, origin.image_id, origin.layers)
        files.replace(_record(store, place), json.dumps(mount.asdict()))
        try:
            steps.stack([*map(store.layer, origin.layers)], "", "", place)
        except OSError as error:
            os.unlink(_record(store, place))
            raise EngineError(f"cannot mount image {text} at {place}: {error.strerror}") from None
    return mount


def unmount_image(store: Store, steps: Steps, directory: str) -> None:
    """Undo it. Raises EngineError."""
    place = os.path.realpath(directory)
    with _lock(store):
        if not os.path.exists(_record(store, place)):
            raise EngineError(f"no image is mounted at {directory}; see: minicontainer image mount", 1)
        _unmount(store, steps, place)


def mounted_images(store: Store) -> list[ImageMount]:
    """All that are mounted, by their directories."""
    return [one for one in _recorded(store) if _is_mounted(store, one.directory)]


def repair(store: Store) -> list[str]:
    """Forget what is not mounted any more, after a restart of the machine or a kill; a line for each."""
    done = []
    if os.path.isdir(_directory(store)):
        with _lock(store):
            for one in _recorded(store):
                if not _is_mounted(store, one.directory):
                    os.unlink(_record(store, one.directory))
                    done.append(f"image {one.image} is recorded as not mounted at {one.directory}")
    return done


def _unmount(store: Store, steps: Steps, place: str) -> None:
    if _is_mounted(store, place):
        try:
            steps.unstack(place)
        except OSError as error:
            what = "somebody is in it, or has a file of it open" if error.errno == errno.EBUSY else error.strerror
            raise EngineError(f"cannot unmount {place}: {what}", 1) from None
    os.unlink(_record(store, place))


def _is_mounted(store: Store, place: str) -> bool:
    """Whether the topmost mount there is of our layers: somebody else's is not ours to undo."""
    found = ""
    for line in files.read("/proc/self/mountinfo").splitlines():
        if line.split()[4] == _as_in_mountinfo(place):
            found = line
    layers = os.path.realpath(store.layers)
    return bool(found) and (" - overlay " in found or f"{os.path.basename(layers)}/" in found) and "/diff" in found


def _as_in_mountinfo(path: str) -> str:
    """proc_pid_mountinfo(5): blanks and backslashes in octal."""
    for character in "\\ \t\n":
        path = path.replace(character, f"\\{ord(character):03o}")
    return path


def _recorded(store: Store) -> list[ImageMount]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(_directory(store))):
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
                    data = json.loads(files.read(f"{_directory(store)}/{name}"))
                    found.append(ImageMount(**{**data, "layers": tuple(data["layers"])}))
    return sorted(found, key=lambda one: one.directory)


def _directory(store: Store) -> str:
    return f"{store.root}/mounts"


def _record(store: Store, place: str) -> str:
    return f"{_directory(store)}/{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}.json"


@contextlib.contextmanager
def _lock(store: Store) -> Iterator[None]:
    os.makedirs(_directory(store), exist_ok=True)
    with files.locked(f"{_directory(store)}/lock", fcntl.LOCK_EX):
        yield
