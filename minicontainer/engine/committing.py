"""What a container has become, looked at and kept as an image: ``diff``, ``commit``.

A commit freezes what was written, as a snapshot does: in constant time, and a container that runs stands still no
longer than for that. What is packed into the image's new layer is what was frozen, while the container goes on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from minicontainer.engine import snapshots
from minicontainer.engine.errors import EngineError
from minicontainer.engine.images import images_of, told
from minicontainer.engine.inside import do, errand, piped
from minicontainer.engine.snapshots import FROZEN, Taking
from minicontainer.engine.store import Config, Store
from minicontainer.images.committing import command_of, commit, settings_of
from minicontainer.images.documents import health_check_in_words
from minicontainer.images.images import Image, Images
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Wishes(Record):
    """What the image is to be."""

    name: str = ""
    message: str = ""
    author: str = ""
    changes: tuple[str, ...] = ()
    """Instructions of a Containerfile."""
    pause: bool = True
    """A container that runs stands still for the moment."""
    snapshot: str = ""
    """Of what the container was then."""


def changes(taking: Taking, config: Config) -> list[tuple[str, str]]:
    """What a container has changed of its image: ("A", "C" or "D", path). Raises EngineError."""
    store = taking.store
    config = store.config(config.id)
    over = [_upper(store, config), *map(store.layer, _frozen(config.layers))]
    below = [*taking.bottom(config)][len(over) - 1 :]
    step = taking.steps.changes
    with snapshots.told(f'cannot look at what container "{config.name}" has changed'):
        found = do(taking.steps, lambda: [*step(over, below)], mapped=True)
    return [(kind, path) for kind, path in found if path not in _OURS]


_OURS = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"})
"""Places that were made for what is mounted there: as docker, we do not tell of them."""


def commit_container(taking: Taking, config: Config, wishes: Wishes) -> Image:
    """Make an image of what a container is, or was. Raises EngineError; there is no new image then."""
    store = taking.store
    if config.rootfs:
        raise EngineError(
            f'container "{config.name}" stands on the directory {config.image}, and on no image that could get one '
            f"more layer; make one of all that it has: minicontainer export {config.name} | minicontainer import - NAME"
        )
    images = images_of(store)
    with told(), snapshots.alone(store, config), snapshots.kept(store), images.content.sharing():
        base = _base(images, config)
        settings = {**settings_of(images, base), **_settings(config, base)}
        with _to_pack(taking, config, wishes) as layers:
            below = [*map(store.layer, base.layers)]
            return commit(
                images,
                base,
                _packer(taking, config, layers, below, wishes.pause),
                {key: value for key, value in settings.items() if value},
                name=wishes.name,
                created_by=" ".join(config.args),
                comment=wishes.message,
                author=wishes.author,
                changes=wishes.changes,
            )


@contextlib.contextmanager
def _to_pack(taking: Taking, config: Config, wishes: Wishes) -> Iterator[list[str]]:
    """The directories that are above the image, the topmost first; nothing writes to them, unless that is wished."""
    store = taking.store
    if wishes.snapshot:
        yield [*map(store.layer, _frozen(snapshots.find(store, config, wishes.snapshot).layers))]
    elif not wishes.pause and taking.state(config).status == "running":
        config = store.config(config.id)
        yield [_upper(store, config), *map(store.layer, _frozen(config.layers))]
    else:
        yield [*map(store.layer, _frozen(snapshots.freeze(taking, config)))]


def _packer(taking: Taking, config: Config, layers: list[str], below: list[str], pause: bool) -> Any:
    """What packs these layers as one; None: there is nothing in them."""
    store, pack, merge = taking.store, taking.steps.pack_layer, taking.steps.merge
    steps = taking.steps

    def is_empty() -> bool:
        return not any(os.listdir(layer) for layer in layers)

    def pack_all(archive: Any) -> None:
        """Several are merged first; what that makes goes again, and of whoever is killed is swept as any layer."""
        made = store.layer(snapshots.new_layer(store)) if len(layers) > 1 else ""
        try:
            with piped() as (source, sink):

                def write_out() -> None:
                    if made:
                        merge(layers, made, below)
                    with sink:
                        pack(made or layers[0], sink)

                with errand(steps, write_out, [source], mapped=True) as result:
                    sink.close()
                    while piece := source.read(1 << 20):
                        archive.write(piece)
                    result()
        finally:
            if made:
                store.clear(os.path.dirname(made))

    with snapshots.told(f'cannot look at what container "{config.name}" has written'):
        if do(steps, is_empty, mapped=True):
            return None
    return _told(
        config, pack_all, "" if pause else "; it changes it meanwhile: let it stand still, without --pause=false"
    )


def _told(config: Config, pack: Any, hint: str) -> Any:
    def act(archive: Any) -> None:
        what = f'cannot pack what container "{config.name}" has written'
        try:
            pack(archive)
        except OSError as error:
            raise EngineError(f"{what}: {error.strerror or error}{hint}") from None
        except ValueError as error:  # a name that is a mark in a layer; a file that changes while it is read
            raise EngineError(f"{what}: {error}{hint}") from None

    return act


def _base(images: Images, config: Config) -> Image:
    for image in images.all():
        if image.id == config.image_id:
            return image
    raise EngineError(
        f'the image of container "{config.name}" is gone, {config.image}; get it again, or make an image of all that '
        f"the container has: minicontainer export {config.name} | minicontainer import - NAME"
    )


def _settings(config: Config, base: Image) -> dict[str, Any]:
    """What the container was told to be, in the words of an image."""
    (uid, gid), check = config.rights.user, config.health
    user = config.user or (f"{uid}:{gid}" if (uid, gid) != (0, 0) else "")
    environment = [one for one in config.env if not (config.terminal and one == "TERM=xterm")]
    return {
        **command_of(config.args, base.config.entrypoint),
        "Env": environment,
        "WorkingDir": config.cwd if config.cwd != "/" or base.config.cwd else "",
        "User": user,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Volumes": {path: {} for path in config.image_volumes},
        "Healthcheck": health_check_in_words(
            (check.test, check.interval, check.timeout, check.start_period, check.retries)
        ),
    }


def _frozen(layers: Sequence[str]) -> list[str]:
    return [layer for layer in layers if layer.startswith(FROZEN)]


def _upper(store: Store, config: Config) -> str:
    return f"{store.directory(config.id)}/upper"
