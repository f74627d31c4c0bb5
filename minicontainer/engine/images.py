"""Images and the containers that are made of them: found, made, pulled, unpacked for those; and who uses which."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator

from minicontainer.engine.errors import EngineError
from minicontainer.engine.origin import Origin, forget, note
from minicontainer.engine.store import Config, Store
from minicontainer.images.content import ContentStore
from minicontainer.images.documents import Platform, host_platform, parse_platform
from minicontainer.images.errors import ImageError
from minicontainer.images.images import Damage, Image, Images, Missing
from minicontainer.images.references import parse_reference
from minicontainer.linux import files
from minicontainer.record import Record
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.image_mounts import ImageMount

ALWAYS, IF_MISSING, NEVER = PULLING = ("always", "missing", "never")
"""When an image is asked for at its registry."""


def images_of(store: Store) -> Images:
    """The images below the engine's root."""
    return Images(ContentStore(store.images), store.layers, store.clear)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What goes wrong with images, as errors of the engine."""
    try:
        yield
    except ImageError as error:
        raise EngineError(str(error)) from None


def obtain(
    store: Store, steps: Steps, steps_path: str | None, text: str, platform: str = "", pull: str = IF_MISSING
) -> Origin:
    """What a container takes from the image with this name, whose layers are unpacked then.

    It is made (busybox), pulled or unpacked first, if it must be. The caller holds `origin.sharing`, so that nothing of
    it is collected before a container names it.
    Raises EngineError.
    """
    with told():
        images, wanted = images_of(store), platform_of(platform)
        image = None if pull == ALWAYS else _found(images, text, wanted)
        if image is None and _is_busybox(text):
            _make_busybox(images, store, steps)
            image = images.find(text, wanted)
        if image is None:
            if pull == NEVER:
                raise Missing(text)
            _pull(store, steps_path, text, platform)
            image = images.find(text, wanted)
        require_fit(image, text, wanted)
        if images.missing(image):
            from minicontainer.engine.unpacking import unpack_image

            unpack_image(store, image.descriptor, steps_path)
        origin = origin_of(image)
        if not platform and image.names:  # an id may be the beginning of another image's tomorrow
            note(store, text, origin)
        return origin


def _found(images: Images, text: str, wanted: Platform | None) -> Image | None:
    """It, if it is here for the platform that is asked for."""
    from minicontainer.images.images import Unfit

    try:
        image = images.find(text, wanted)
    except (Missing, Unfit):
        return None
    return image if wanted is None or image.config.platform.serves(wanted) else None


def origin_of(image: Image) -> Origin:
    """What containers take from an image."""
    of = image.config
    return Origin(
        image_id=image.id, layers=image.layers, entrypoint=of.entrypoint, cmd=of.cmd, env=of.env, cwd=of.cwd,
        user=of.user, stop_signal=of.stop_signal, labels=tuple(of.labels.items()), exposed_ports=of.exposed_ports,
        volumes=of.volumes, health_check=of.health_check,
    )  # fmt: skip


def require_fit(image: Image, text: str, wanted: Platform | None) -> None:
    """Refuse an image that was made for another kind of machine, unless that is what is wanted. Raises ImageError."""
    ours = host_platform()
    if wanted is None and not image.config.platform.serves(ours):
        raise ImageError(
            f"image {text} is for {image.config.platform}, and this machine is {ours}; "
            f"to try nevertheless: --platform {image.config.platform}"
        )


def restore_layers(store: Store, config: Config, steps_path: str | None) -> None:
    """Unpack the layers of a container's image anew, where one was taken away. Raises EngineError."""
    with told():
        images = images_of(store)
        with images.content.sharing():
            for image in images.all():
                if image.id == config.image_id and images.missing(image):
                    from minicontainer.engine.unpacking import unpack_image

                    unpack_image(store, image.descriptor, steps_path)
    for layer in config.layers:
        if not os.path.isdir(store.layer(layer)):
            raise EngineError(
                f'a layer of container "{config.name}" is gone, {layer}; its image was {config.image}: '
                f"minicontainer pull {config.image}, and start it again"
            )


def users(configs: list[Config]) -> dict[str, list[str]]:
    """Image's id → the names of the containers that are made of it."""
    found = dict[str, list[str]]()
    for config in configs:
        found.setdefault(config.image_id, []).append(config.name)
    return found


def users_of(store: Store) -> dict[str, list[str]]:
    """Image's id → who needs it: the names of containers, and the directories at which it is mounted."""
    found = users(store.all())
    for one in _mounted(store):
        found.setdefault(one.image_id, []).append(one.directory)
    return found


def _mounted(store: Store) -> list[ImageMount]:
    if not os.path.isdir(f"{store.root}/mounts"):
        return []
    from minicontainer.engine.image_mounts import mounted_images

    return mounted_images(store)


def layers_in_use(store: Store, *, certain: bool = False) -> dict[str, list[str]]:
    """Layer → the names of the containers that stand on it, themselves or by a snapshot, and where it is mounted.

    `certain`: for who removes what nothing stands on. Raises ImageError then: what a snapshot stands on is not known.
    """
    import json

    found = dict[str, list[str]]()
    for config in store.all():
        stood_on = set(config.layers)
        directory = f"{store.directory(config.id)}/snapshots"
        for file in os.listdir(directory) if os.path.isdir(directory) else ():
            try:
                stood_on |= {*json.loads(files.read(f"{directory}/{file}")).get("layers", ())}
            except FileNotFoundError:
                continue  # it has just been removed
            except (OSError, ValueError, TypeError, AttributeError) as error:
                if certain:
                    raise _lost(file.removesuffix(".json"), config, error) from None
        for layer in stood_on:
            found.setdefault(layer, []).append(config.name)
    for one in _mounted(store):
        for layer in one.layers:
            found.setdefault(layer, []).append(one.directory)
    return found


def _lost(snapshot: str, config: Config, error: Exception) -> ImageError:
    return ImageError(
        f"nothing is removed while snapshot {snapshot} of {config.name} cannot be read, as nobody knows what it stands "
        f"on: {error}; to give it up: minicontainer snapshot rm {config.name} {snapshot}"
    )


def remove(store: Store, text: str, *, force: bool = False) -> list[str]:
    """``rmi``: what was done, a line each. Raises EngineError."""
    with told():
        images = images_of(store)
        done = images.remove(text, users_of(store), force=force)
        if any(line.startswith("Deleted") for line in done):
            with contextlib.suppress(ImageError):  # one cannot be read: `images` says so, and what to do
                images.collect(lambda: layers_in_use(store, certain=True))
        return done


def prune(store: Store, *, unused: bool = False) -> tuple[list[str], int | None]:
    """``image prune``: what was removed, a line each, and how many bytes that freed (None: not yet). EngineError."""
    with told():
        images = images_of(store)
        done = images.prune(users_of(store), unused=unused)
        forget(store)
        return done, images.collect(lambda: layers_in_use(store, certain=True), everything=True)


class Use(Record):
    """What one kind of things takes of the disk."""

    kind: str
    total: int
    active: int
    size: int
    """Bytes."""
    reclaimable: int


def disk_use(store: Store, running: Collection[str]) -> list[Use]:
    """``system df``; `running` are ids of containers. What could be freed of layers is what nothing stands on."""
    from minicontainer.images.images import disk_usage

    with told():
        images = images_of(store)
        configs = store.all()
        found, used, blobs = images.all(), users(configs), images.content.blobs()
        needed = {part.digest for image in found if image.id in used for part in image.blobs}
    active = {*layers_in_use(store)}
    names = [name for name in os.listdir(store.layers) if os.path.isdir(store.layer(name))]
    layers = {name: disk_usage(f"{store.layers}/{name}") for name in names}
    writable = {config.id: disk_usage(f"{store.directory(config.id)}/upper") for config in configs}
    ended = sum(size for container, size in writable.items() if container not in running)
    partial = sum(images.content.partial().values()) if os.path.isdir(f"{store.images}/ingest") else 0
    return [
        Use("Images", len(found), sum(image.id in used for image in found), sum(blobs.values()) + partial,
            sum(size for digest, size in blobs.items() if digest not in needed) + partial),
        Use("Layers", len(layers), len(active & layers.keys()), sum(layers.values()),
            sum(size for name, size in layers.items() if name not in active)),
        Use("Containers", len(writable), len({*running} & writable.keys()), sum(writable.values()), ended),
    ]  # fmt: skip


def examine(store: Store) -> Iterator[Damage]:
    """``system check``. Raises ImageError: there is no telling what images there are."""
    yield from images_of(store).examine(layers_in_use(store))


def _is_busybox(text: str) -> bool:
    return (
        text in ("busybox", "busybox:latest") or parse_reference(text).canonical == "docker.io/library/busybox:latest"
    )


def _make_busybox(images: Images, store: Store, steps: Steps) -> None:
    from minicontainer.images.busybox import make_busybox

    try:
        make_busybox(images, steps.build_root)
    except ImageError:
        raise
    except (Exception, SystemExit) as error:  # build_root may be somebody's own
        from minicontainer.runtime.failure import describe, explain

        reason = explain(describe(error))
        raise EngineError(f"cannot make the busybox image below {store.images}: {reason}") from None


def platform_of(text: str) -> Platform | None:
    """As it is written on the command line; "" is any. Raises ImageError."""
    if not text:
        return None
    return parse_platform(text)


def _pull(store: Store, steps_path: str | None, text: str, platform: str) -> None:
    """As ``minicontainer pull`` does. Raises EngineError, ImageError."""
    parse_reference(text)
    try:
        from minicontainer.engine.registries import pull_missing
    except ImportError:
        raise Missing(text) from None
    pull_missing(store, steps_path, text, platform)
