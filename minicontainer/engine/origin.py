"""What a container takes from its image: what to run, as whom, where, with which environment, unless its user says
otherwise; and the layers that it stands on. From then on the container knows it itself: an image may lose its name, or
the name its meaning, under a container that is made of it.

What a name has stood for is noted, because to find it out anew costs four files, a digest and 3 ms of imports:

STATE/images/noted/NAME  what containers take from the image of this name, as long as index.json is the very same file
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os

from minicontainer.engine.store import Config, Store
from minicontainer.linux import files
from minicontainer.record import Record, tuples
from minicontainer.runtime.spec import DEFAULT_PATH


class Origin(Record):
    """An image, as containers need it."""

    image_id: str
    layers: tuple[str, ...]
    """The topmost first: names of directories in STATE/layers."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    stop_signal: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    health_check: tuple[object, ...] = ()
    """As `Check` has it."""


def laid_on(config: Config, origin: Origin, entrypoint: str | None) -> Config:
    """The container with what it takes from its image, where its user has not said otherwise; "" is no entrypoint."""
    start = origin.entrypoint if entrypoint is None else (entrypoint,) if entrypoint else ()
    arguments = config.args or (origin.cmd if entrypoint is None else ())
    said = config.user or config.rights.user != (0, 0)  # whoever wants root in place of the image's user says user="0"
    return config.replace(
        image_id=origin.image_id,
        layers=origin.layers,
        args=(*start, *arguments),
        env=environment(origin.env, config.env),
        cwd=config.cwd or origin.cwd or "/",
        makes_cwd=not config.cwd and bool(origin.cwd),
        user=config.user if said else origin.user,
        stop_signal=config.stop_signal or origin.stop_signal,
        labels=tuple({**dict(origin.labels), **dict(config.labels)}.items()),
        exposed_ports=origin.exposed_ports,
        image_volumes=origin.volumes,
        health=config.health.over(origin.health_check),
    )


def environment(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """``NAME=value`` once for each name: what a later part says counts. There is always a PATH."""
    merged = {"PATH": f"PATH={DEFAULT_PATH}"}
    for part in parts:
        merged |= {text.partition("=")[0]: text for text in part}
    return tuple(merged.values())


def sharing(store: Store) -> contextlib.AbstractContextManager[None]:
    """During the block no image and no layer is collected: for whoever lets a container stand on them.

    It is what `images.content.ContentStore.sharing` is, without a word about images.
    """
    return files.locked(f"{store.images}/lock", fcntl.LOCK_SH)


def recall(store: Store, name: str) -> Origin | None:
    """What is noted of an image, if nothing has changed since; None: it is to be looked up."""
    try:
        noted = json.loads(files.read(_note(store, name)))
        if noted["name"] != name or noted["index"] != _index(store):
            return None
        origin = Origin(**{field: tuples(value) for field, value in noted["origin"].items()})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return origin if all(os.path.isdir(store.layer(layer)) for layer in origin.layers) else None


def note(store: Store, name: str, origin: Origin) -> None:
    """Note it for the next time. The caller holds `sharing`; what cannot be written is looked up again."""
    text = json.dumps({"name": name, "index": _index(store), "origin": origin.asdict()})
    file = _note(store, name)
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        own = f"{file}.{os.getpid()}"
        files.write(own, text)
        os.rename(own, file)


def forget(store: Store) -> None:
    """Throw away what is noted; it is looked up again when it is wanted."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{store.images}/noted"):
            os.unlink(f"{store.images}/noted/{name}")


def _note(store: Store, name: str) -> str:
    return f"{store.images}/noted/{name.replace('/', '+')[:200]}"


def _index(store: Store) -> list[int]:
    """What tells one index.json from another: it is always replaced, and never written to."""
    status = os.stat(f"{store.images}/index.json")
    return [status.st_ino, status.st_mtime_ns, status.st_size]
