"""An image as files: what it is made of is found by digest, and nothing is believed before its digest is right.

OCI image specification, image-layout.md, image-index.md, manifest.md, descriptor.md. A layout is a directory:

    index.json ──▶ blobs/sha256/HEX   an index: a manifest for each platform
                     └──────────────▶ blobs/sha256/HEX   a manifest: configuration, and layers from the bottom up
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable

from minicontainer.steps.unpacking import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Descriptor = dict[str, Any]
    """What points to a blob: at least "mediaType", "digest" and "size", in bytes."""

REFERENCE = "org.opencontainers.image.ref.name"
DOCUMENT_LIMIT = 4 << 20
"""Bytes of an index or a manifest, as registries have it."""
NESTING_LIMIT = 4
"""Indexes that may point to one another."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "armv6l": "arm/v6", "i686": "386"}


def resolve(layout: str, reference: str, platform: str = "") -> list[Descriptor]:
    """What the image `reference` in the directory `layout` is made of, as descriptors: first its configuration, then
    its layers from the bottom up.

    `platform` is "os/architecture" or "os/architecture/variant", such as "linux/arm/v7"; this machine's unless given.
    Every document on the way is of the size and has the digest that its descriptor said. The blobs that are returned
    have not been looked at: whoever reads them has to verify them in turn.

    Raises LookupError (no such image, or not for this platform), Refused (a document that is not what its descriptor
    says, or makes no sense), OSError (ENOENT: a blob is missing).
    """
    wanted = platform or f"linux/{_ARCHITECTURES.get(os.uname().machine, os.uname().machine)}"
    with open(f"{layout}/index.json", "rb") as file:
        document = _parsed(file.read(DOCUMENT_LIMIT + 1), "index.json")
    named = [one for one in _descriptors(document, "manifests") if _annotations(one).get(REFERENCE) == reference]
    if not named:
        there = sorted({str(_annotations(one).get(REFERENCE)) for one in document["manifests"]} - {"None"})
        raise LookupError(f"no image {reference!r} in {layout}; there are: {', '.join(there[:10]) or 'none'}")
    for _ in range(NESTING_LIMIT):
        chosen = _choose(named, wanted, reference)
        document = _parsed(_verified(layout, chosen), chosen["digest"])
        if "manifests" not in document:
            return [*_descriptors({"config": [document.get("config")]}, "config"), *_descriptors(document, "layers")]
        named = _descriptors(document, "manifests")
    raise Refused(f"{reference!r}: more than {NESTING_LIMIT} indexes in one another")


def _choose(descriptors: Iterable[Descriptor], wanted: str, reference: str) -> Descriptor:
    """The first one for this platform; one that says none is for all."""
    offered = []
    for descriptor in descriptors:
        platform = descriptor.get("platform")
        if not isinstance(platform, dict):
            return descriptor
        parts = [str(platform[key]) for key in ("os", "architecture", "variant") if platform.get(key)]
        if parts[:2] == wanted.split("/")[:2] and (wanted.count("/") == 1 or parts == wanted.split("/")):
            return descriptor
        offered.append("/".join(parts))
    raise LookupError(f"image {reference!r} is not for {wanted}, but for {', '.join(offered[:10]) or 'none'}")


def _verified(layout: str, descriptor: Descriptor) -> bytes:
    """The blob behind a descriptor, once size and digest are right. A digest is a file name only if it is a digest."""
    digest, size = descriptor["digest"], descriptor["size"]
    if size > DOCUMENT_LIMIT:
        raise Refused(f"{digest}: a document of {size} bytes; more than {DOCUMENT_LIMIT} are not read")
    with open(f"{layout}/blobs/sha256/{digest.removeprefix('sha256:')}", "rb") as file:
        raw = file.read(DOCUMENT_LIMIT + 1)
    found = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    if found != digest or len(raw) != size:
        raise Refused(f"{digest}: what lies there has {len(raw)} of {size} bytes and the digest {found}")
    return raw


def _parsed(raw: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(f"{name} is no JSON object")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise Refused(f"{name} wants to be an index and a manifest at once, and could be taken for either")
    return document


def _descriptors(document: dict[str, Any], key: str) -> list[Descriptor]:
    """The descriptors in this list of a document. Raises Refused: some are none."""
    listed = document.get(key)
    if not isinstance(listed, list):
        raise Refused(f"a document without a list of {key}")
    for one in listed:
        if not (
            isinstance(one, dict)
            and isinstance(digest := one.get("digest"), str)
            and _DIGEST.fullmatch(digest)
            and type(size := one.get("size")) is int
            and size >= 0
            and isinstance(one.get("mediaType"), str)
        ):
            raise Refused(f"a document whose {key} have something that is no descriptor: {str(one)[:100]}")
    return listed


def _annotations(descriptor: Descriptor) -> dict[str, Any]:
    annotations = descriptor.get("annotations")
    return annotations if isinstance(annotations, dict) else {}
