"""Images that are made here: a layer more on one that there is, or a first layer; and what the new one says of itself.

OCI image specification, config.md. What a base image says and we have no word for (its author's own fields) the new
one says as well, as docker commit has it.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from minicontainer.images.compression import GZIP, LayerWriter
from minicontainer.images.documents import (
    DOCKER_LAYER,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    encode,
    host_platform,
)
from minicontainer.images.errors import ImageError
from minicontainer.images.images import Image, Images
from minicontainer.images.references import Reference, parse_reference, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Settings = dict[str, Any]
    """The object `config` of an image's configuration, in the words of config.md: Env, Cmd, WorkingDir…"""

Pack = Callable[["Any"], object]
"""Writes an uncompressed tar to the open file that it is given."""


def commit(
    images: Images,
    base: Image | None,
    pack: Pack | None,
    settings: Settings,
    *,
    name: str = "",
    created_by: str = "",
    comment: str = "",
    author: str = "",
    changes: Iterable[str] = (),
    unpack: Callable[[Descriptor], None] | None = None,
) -> Image:
    """Make an image of `base` and the layer that `pack` writes (None: it would be empty), and call it `name`.

    `changes` are instructions of a Containerfile, such as "CMD sh". `unpack` is called before the image has its name:
    what it refuses is none. The caller holds `content.sharing`. Raises ImageError; there is no new image then.
    """
    reference = new_name(name) if name else None
    settings = changed(settings, changes)
    document = _document(images, base)
    layer = add_layer(images, pack) if pack else None
    now = _now()
    history = {"created": now, "created_by": created_by, "comment": comment, "author": author}
    history = {key: value for key, value in history.items() if value}
    document |= {"created": now, "config": settings}
    if author:
        document["author"] = author
    document["history"] = [*document.get("history", ()), {**history, **({} if layer else {"empty_layer": True})}]
    if layer:
        diff_ids = [*document["rootfs"]["diff_ids"], layer[1]]
        document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    layers = [*map(_as_oci, base.manifest.layers if base else ()), *([layer[0]] if layer else [])]
    config = images.content.put(OCI_CONFIG, encode(document))
    manifest = images.content.put(OCI_MANIFEST, encode(Manifest(config, tuple(layers))))
    if unpack:
        unpack(manifest)
    return named(images, manifest, reference)


def named(images: Images, manifest: Descriptor, reference: Reference | None) -> Image:
    """An image that is there whole, under this name, or without one. Raises ImageError: it is none."""
    image = images.image(manifest, None, [reference.canonical] if reference else [])
    if reference:
        images.content.tag(reference.canonical, manifest)
    else:
        images.content.keep(manifest)
    return image


def new_name(text: str) -> Reference:
    """What an image is to be called. Raises ImageError."""
    reference = parse_reference(text)
    if reference.digest:
        raise ImageError(f'"{shown(text)}" has a digest: what an image is called can be chosen, its digest cannot')
    return reference


def add_layer(images: Images, pack: Pack) -> tuple[Descriptor, str]:
    """Keep what `pack` writes as a blob. Returns it and its diff ID."""
    with images.content.receive() as blob, LayerWriter(blob, GZIP) as layer:
        pack(layer)
    return Descriptor(f"{OCI_LAYER}+gzip", blob.digest, blob.size), layer.diff_id


def settings_of(images: Images, image: Image) -> Settings:
    """All that an image says of its containers."""
    found = _document(images, image).get("config")
    return dict(found) if isinstance(found, dict) else {}


def _document(images: Images, base: Image | None) -> dict[str, Any]:
    if base is None:
        platform = {name: value for name, value in host_platform().asdict().items() if value}
        return {**platform, "rootfs": {"type": "layers", "diff_ids": []}}
    document: dict[str, Any] = json.loads(images.content.read(base.manifest.config))
    # What docker had noted of the container that it was made in says nothing of this one.
    return {key: value for key, value in document.items() if key not in ("container", "container_config", "id")}


def _as_oci(layer: Descriptor) -> Descriptor:
    """A layer in docker's terms is the same in OCI's: one manifest has one kind of terms."""
    if not layer.media_type.startswith(DOCKER_LAYER):
        return layer
    return layer.replace(media_type=OCI_LAYER + layer.media_type.removeprefix(DOCKER_LAYER).replace(".", "+"))


def _now() -> str:
    now = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 10**9))}.{now % 10**9:09d}Z"


# Instructions


def changed(settings: Mapping[str, Any], changes: Iterable[str]) -> Settings:
    """The settings with instructions of a Containerfile laid over them. Raises ImageError."""
    settings = {**settings}
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        try:
            act = _INSTRUCTIONS[word.upper()]
        except KeyError:
            raise ImageError(
                f'"{shown(change)}" is no change that can be made: write {", ".join(_INSTRUCTIONS)}, each as in a '
                f"Containerfile"
            ) from None
        if not (rest := rest.strip()):
            raise ImageError(f'"{shown(change)}" says nothing after {word.upper()}')
        try:
            act(settings, rest)
        except ValueError as error:
            raise ImageError(f'"{shown(change)}": {error}') from None
    return settings


def _command(key: str) -> Callable[[Settings, str], None]:
    """In JSON it is executed as it is; else by a shell."""

    def set_command(settings: Settings, text: str) -> None:
        settings[key] = _listed(text) or ["/bin/sh", "-c", text]
        if key == "Entrypoint" and "Cmd" in settings:
            del settings["Cmd"]  # which was for the one before

    return set_command


def _listed(text: str) -> list[str] | None:
    """What a JSON array of strings has in it; None: it is none."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    return None


def _pairs(text: str) -> dict[str, str]:
    """``A=b C="d e"``, or ``A b``."""
    words = shlex.split(text)
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value:
            raise ValueError("write NAME=VALUE")
        return {name: value.strip()}
    pairs = dict(word.partition("=")[::2] for word in words)
    if "" in pairs or not all("=" in word for word in words):
        raise ValueError("write NAME=VALUE")
    return pairs


def _environment(settings: Settings, text: str) -> None:
    before = dict(one.partition("=")[::2] for one in settings.get("Env") or ())
    settings["Env"] = [f"{name}={value}" for name, value in {**before, **_pairs(text)}.items()]


def _labels(settings: Settings, text: str) -> None:
    settings["Labels"] = {**(settings.get("Labels") or {}), **_pairs(text)}


def _ports(settings: Settings, text: str) -> None:
    ports = dict(settings.get("ExposedPorts") or {})
    for word in shlex.split(text):
        number, _, protocol = word.partition("/")
        if not number.isdecimal() or not 0 < int(number) < 65536 or protocol not in ("", "tcp", "udp", "sctp"):
            raise ValueError("write PORT, or PORT/tcp")
        ports[f"{int(number)}/{protocol or 'tcp'}"] = {}
    settings["ExposedPorts"] = ports


def _volumes(settings: Settings, text: str) -> None:
    found = _listed(text)
    paths: Collection[str] = shlex.split(text) if found is None else found
    settings["Volumes"] = {**(settings.get("Volumes") or {}), **{path: {} for path in paths}}


def _directory(settings: Settings, text: str) -> None:
    settings["WorkingDir"] = posixpath.normpath(posixpath.join(settings.get("WorkingDir") or "/", text))


def _plain(key: str) -> Callable[[Settings, str], None]:
    def set_text(settings: Settings, text: str) -> None:
        settings[key] = text

    return set_text


_INSTRUCTIONS: dict[str, Callable[[Settings, str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _environment,
    "EXPOSE": _ports,
    "LABEL": _labels,
    "STOPSIGNAL": _plain("StopSignal"),
    "USER": _plain("User"),
    "VOLUME": _volumes,
    "WORKDIR": _directory,
}


def command_of(args: Sequence[str], entrypoint: Sequence[str]) -> Settings:
    """What was run, as an image says it: its own entrypoint, if that is still at the beginning, and the rest."""
    if entrypoint and [*args[: len(entrypoint)]] == [*entrypoint]:
        return {"Entrypoint": [*entrypoint], "Cmd": [*args[len(entrypoint) :]] or None}
    return {"Entrypoint": None, "Cmd": [*args]}
