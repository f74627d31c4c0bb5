"""The documents that say what an image is: manifests, indexes, configurations. Read with distrust, because anybody may
have written them.

https://github.com/opencontainers/image-spec/blob/v1.1.0/ (descriptor.md, manifest.md, image-index.md, config.md), and
docker's earlier forms of the same, which most registries still hold: Image Manifest Version 2, Schema 2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from minicontainer.images.errors import ImageError
from minicontainer.images.references import is_digest, shown
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
"""An uncompressed one; with "+gzip" and "+zstd" at its end there are compressed ones."""
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
"""An uncompressed one; ".gzip" and ".zstd"."""

MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_INDEX)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)

DOCUMENT_LIMIT = 4 << 20
"""Bytes that a manifest, an index or a configuration may have. Registries take no larger manifest either."""

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation that holds an image's name in the index of a layout."""

_OLD = "application/vnd.docker.distribution.manifest.v1"
_ANY = ("", "application/json", "application/octet-stream", "text/plain")
"""Types that say nothing: the document says then what it is."""


class Platform(Record):
    """What a program runs on, in the words of Go: image-index.md, "platform"."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""
    """Of the architecture: ``v7``."""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def serves(self, wanted: Platform) -> bool:
        """Whether what was made for this platform runs on the `wanted` one; a variant that is not said is any."""
        one, other = self._normal(), wanted._normal()
        same = (one.os, one.architecture) == (other.os, other.architecture)
        return same and (not one.variant or not other.variant or one.variant == other.variant)

    def _normal(self) -> Platform:
        """With one name for what has several: containerd's platforms.Normalize."""
        architecture, variant = self.architecture, self.variant
        architecture = {"x86_64": "amd64", "x86-64": "amd64", "i386": "386", "aarch64": "arm64", "armhf": "arm"}.get(
            architecture, architecture
        )
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        return Platform(self.os, architecture, variant)


class Descriptor(Record):
    """What names a blob: descriptor.md."""

    media_type: str
    digest: str
    size: int
    """Bytes."""
    platform: Platform | None = None
    annotations: Mapping[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """As a document has it."""
        data: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform:
            data["platform"] = {name: value for name, value in self.platform.asdict().items() if value}
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        return data


class Manifest(Record):
    """One image for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    """The lowest first."""
    media_type: str = OCI_MANIFEST
    annotations: Mapping[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        data: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        return {**data, "annotations": dict(self.annotations)} if self.annotations else data


class Index(Record):
    """One image for several platforms, or all images of a layout."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: Mapping[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        data: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [one.to_json() for one in self.manifests],
        }
        return {**data, "annotations": dict(self.annotations)} if self.annotations else data


class History(Record):
    """How one layer came to be, or what else was set: config.md, "history"."""

    created: str = ""
    """RFC 3339."""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False
    """There is no layer of it."""


class ImageConfig(Record):
    """What a container of this image is to be, unless its user says otherwise: config.md."""

    platform: Platform
    diff_ids: tuple[str, ...]
    """The digests of the layers' uncompressed archives, the lowest first."""
    env: tuple[str, ...] = ()
    """``NAME=value``."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    """``NAME``, ``UID``, ``NAME:GROUP``, ``UID:GID``."""
    exposed_ports: tuple[str, ...] = ()
    """``80/tcp``."""
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    stop_signal: str = ""
    """``SIGQUIT``, or a number."""
    health_check: tuple[object, ...] = ()
    """Docker's Healthcheck: the test, and in seconds its interval, its timeout, its start period; how many failures in
    a row count. None: not said."""
    created: str = ""
    author: str = ""
    history: tuple[History, ...] = ()


def host_platform() -> Platform:
    """What this machine is, as images name it."""
    machine = os.uname().machine
    names = {"x86_64": ("amd64",), "aarch64": ("arm64",), "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6")}
    names |= {"i686": ("386",), "ppc64le": ("ppc64le",), "loongarch64": ("loong64",)}
    return Platform("linux", *names.get(machine, (machine,)))


def parse_platform(text: str) -> Platform:
    """``linux/arm64/v8``, ``linux/amd64``, or just ``arm64``. Raises ImageError."""
    parts = text.split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(part.isascii() and part.replace("_", "").replace("-", "").isalnum() for part in parts):
        raise ImageError(f'"{shown(text)}" cannot be a platform: write OS/ARCHITECTURE, such as linux/amd64')
    return Platform(*parts)


def encode(document: Manifest | Index | Mapping[str, Any]) -> bytes:
    """A document of our making as bytes: the same one always the same bytes, and so the same digest."""
    data = document.to_json() if isinstance(document, Manifest | Index) else document
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def read_manifest(raw: bytes, media_type: str = "") -> Manifest | Index:
    """What a manifest or an index says that came as `raw`, of the type `media_type` ("": the document says).

    Whoever calls has verified the digest of the raw bytes. Raises ImageError: too large, no JSON, a field that is
    missing or of another type, a type that is another than was announced, a document that could be read as both
    (CVE-2021-41190), a digest that we cannot verify.
    """
    said = media_type.partition(";")[0].strip()
    if said.startswith(_OLD):
        raise ImageError(
            "this manifest is in docker's schema 1, which nobody can verify: ask for the image's newer form"
        )
    what = "the index" if said in INDEXES else "the manifest"
    document = _Part(what, _parsed(raw, what))
    if (version := document.number("schemaVersion")) != 2:
        raise ImageError(f"{what} has schemaVersion {version}: only version 2 can be read")
    own = document.text("mediaType", "")
    if said not in _ANY and own and own != said:
        raise ImageError(f"{what} is of type {shown(own)}, and came as {shown(said)}: one of them is wrong")
    is_index, is_manifest = "manifests" in document.data, {"config", "layers"} & document.data.keys()
    if is_index and is_manifest:
        raise ImageError(f"{what} is both a manifest and an index, and could be read in two ways: it is refused")
    type = own or (said if said not in _ANY else OCI_INDEX if is_index else OCI_MANIFEST)
    if type in INDEXES and not is_manifest:
        return Index(document.descriptors("manifests"), type, document.texts_by_name("annotations"))
    if type in MANIFESTS and not is_index:
        config = _descriptor(document.part("config"))
        return Manifest(config, document.descriptors("layers"), type, document.texts_by_name("annotations"))
    if type in (*INDEXES, *MANIFESTS):
        raise ImageError(f"{what} says that it is of type {type}, and what is in it is something else")
    raise ImageError(f"{what} is of type {shown(type)}: that is no image")


def read_config(raw: bytes) -> ImageConfig:
    """What the configuration of an image says. Raises ImageError."""
    what = "the image's configuration"
    document = _Part(what, _parsed(raw, what))
    root, own = document.part("rootfs"), document.part("config", optional=True)
    if (kind := root.text("type", "layers")) != "layers":
        raise ImageError(f'{what}: rootfs.type is "{shown(kind)}": only "layers" is known')
    diff_ids = root.texts("diff_ids")
    for number, digest in enumerate(diff_ids):
        _require_digest(digest, root.where(f"diff_ids[{number}]"))
    return ImageConfig(
        platform=Platform(
            document.text("os", "linux"), document.text("architecture", "amd64"), document.text("variant", "")
        ),
        diff_ids=diff_ids,
        env=_without_nul(own, "Env"),
        entrypoint=_without_nul(own, "Entrypoint"),
        cmd=_without_nul(own, "Cmd"),
        cwd=own.text("WorkingDir", ""),
        user=own.text("User", ""),
        exposed_ports=tuple(own.mapping("ExposedPorts")),
        volumes=tuple(own.mapping("Volumes")),
        labels=own.texts_by_name("Labels"),
        stop_signal=own.text("StopSignal", ""),
        health_check=_health_check(own),
        created=document.text("created", ""),
        author=document.text("author", ""),
        history=tuple(map(_history, document.parts("history"))),
    )


def _health_check(own: _Part) -> tuple[object, ...]:
    part = own.part("Healthcheck", optional=True)
    if not (test := _without_nul(part, "Test")):
        return ()
    numbers = [part.data.get(name) for name in ("Interval", "Timeout", "StartPeriod", "Retries")]
    interval, timeout, start, retries = (n if type(n) is int and n > 0 else None for n in numbers)  # 0: not said
    return test, *(None if n is None else n / 1e9 for n in (interval, timeout, start)), retries


def health_check_in_words(check: tuple[Any, ...]) -> dict[str, Any]:
    """What an image says as its Healthcheck, as docker has it: times in nanoseconds. {}: nothing.

    `check` is what `ImageConfig.health_check` is.
    """
    if not check or not check[0]:
        return {}
    test, interval, timeout, start_period, retries = check
    times = {"Interval": interval, "Timeout": timeout, "StartPeriod": start_period}
    said = {name: round(seconds * 1e9) for name, seconds in times.items() if seconds}
    return {"Test": [*test], **said, **({"Retries": retries} if retries else {})}


def read_descriptor(data: object, what: str) -> Descriptor:
    """A descriptor that stands in a document of somebody else's; `what` says where. Raises ImageError."""
    return _descriptor(_Part(what, data))


def _history(part: _Part) -> History:
    texts = {name: part.text(name, "") for name in ("created", "created_by", "comment", "author")}
    return History(**texts, empty_layer=part.truth("empty_layer"))


def _descriptor(part: _Part) -> Descriptor:
    digest, size = part.text("digest"), part.number("size")
    _require_digest(digest, part.where("digest"))
    if size < 0:
        raise ImageError(f"{part.where('size')} is {size}: there is no such size")
    platform = None
    if part.data.get("platform") is not None:
        said = part.part("platform")
        platform = Platform(said.text("os", ""), said.text("architecture", ""), said.text("variant", ""))
    return Descriptor(part.text("mediaType"), digest, size, platform, part.texts_by_name("annotations"))


def _require_digest(text: str, where: str) -> None:
    if not is_digest(text):
        raise ImageError(f'{where} is "{shown(text)}": a digest is sha256: and 64 of the hexadecimal digits 0-9a-f')


def _without_nul(part: _Part, name: str) -> tuple[str, ...]:
    texts = part.texts(name, optional=True)
    if any("\0" in text for text in texts):
        raise ImageError(f"{part.where(name)} has a NUL in it, which no program can be given")
    return texts


def _parsed(raw: bytes, what: str) -> object:
    if len(raw) > DOCUMENT_LIMIT:
        raise ImageError(f"{what} has {len(raw)} bytes: more than {DOCUMENT_LIMIT >> 20} MiB are not read")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ImageError(f"{what} is no JSON: {shown(str(error))}") from None


class _Part:
    """An object in a document, and where it stands there: so an error can say what is wrong with which field."""

    def __init__(self, place: str, data: object) -> None:
        if not isinstance(data, dict):
            raise ImageError(f"{place} is {_kind(data)}, and not an object")
        self.data: dict[str, Any] = data
        self._place = place

    def where(self, name: str) -> str:
        """``the manifest: layers[0].digest``."""
        return f"{self._place}{'.' if ': ' in self._place else ': '}{name}"

    def text(self, name: str, default: str | None = None) -> str:
        return str(self._of(name, str, "a string", default))

    def number(self, name: str) -> int:
        return int(self._of(name, int, "a whole number", None))

    def truth(self, name: str) -> bool:
        return bool(self._of(name, bool, "true or false", False))

    def mapping(self, name: str) -> dict[str, Any]:
        """{} where there is none."""
        return dict(self._of(name, dict, "an object", {}))

    def texts(self, name: str, *, optional: bool = False) -> tuple[str, ...]:
        values = self._of(name, list, "an array", [] if optional else None)
        for number, value in enumerate(values):
            _require_text(value, self.where(f"{name}[{number}]"))
        return tuple(values)

    def texts_by_name(self, name: str) -> dict[str, str]:
        values = self.mapping(name)
        for key, value in values.items():
            _require_text(value, self.where(f"{name}.{shown(key)}"))
        return values

    def part(self, name: str, *, optional: bool = False) -> _Part:
        return _Part(self.where(name), self._of(name, dict, "an object", {} if optional else None))

    def parts(self, name: str) -> list[_Part]:
        values = self._of(name, list, "an array", [])
        return [_Part(self.where(f"{name}[{number}]"), value) for number, value in enumerate(values)]

    def descriptors(self, name: str) -> tuple[Descriptor, ...]:
        if self.data.get(name) is None:
            raise ImageError(f"{self.where(name)} is missing")
        return tuple(map(_descriptor, self.parts(name)))

    def _of(self, name: str, type: type, what: str, default: object) -> Any:
        value = self.data.get(name)
        if value is None:  # null is what Go writes for what there is none of
            if default is None:
                raise ImageError(f"{self.where(name)} is missing")
            return default
        if not isinstance(value, type) or (isinstance(value, bool) and type is int):
            raise ImageError(f"{self.where(name)} is {_kind(value)}, and not {what}")
        if type is str:
            _require_text(value, self.where(name))
        return value


def _require_text(value: object, where: str) -> None:
    """A string, and one that can be written down: JSON can say one half of a character."""
    if not isinstance(value, str):
        raise ImageError(f"{where} is {_kind(value)}, and not a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ImageError(f"{where} has half a character in it, {shown(value)}") from None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {
        bool: "true or false",
        str: "a string",
        int: "a number",
        float: "a number",
        list: "an array",
    }
    return names.get(type(value), "an object")
