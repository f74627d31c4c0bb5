"""Images as files: archives that `docker save`, `podman save` and skopeo write, read and written as streams.

What is written is an OCI image layout in a tar archive; with docker's manifest.json in it, if that is wanted, it is
what `docker save` has written since version 25, and what older ones can load. What is read may also be of before:
there, a manifest.json names files of any name, and the layers are uncompressed.

https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md; moby, image/spec/spec.md ("Combined Image JSON
+ Filesystem Changeset Format").
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence

from minicontainer.images.content import ContentStore
from minicontainer.images.documents import (
    DOCUMENT_LIMIT,
    INDEXES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
    Index,
    Manifest,
    Platform,
    encode,
    read_config,
    read_manifest,
)
from minicontainer.images.errors import ImageError
from minicontainer.images.images import Image, Images
from minicontainer.images.references import Reference, is_digest, parse_reference, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

CONTAINERD_NAME = "io.containerd.image.name"
"""The annotation that holds an image's whole name in what docker writes."""

_CHUNK = 1 << 20
_PIECE = 1 << 16
"""Bytes that are passed on at once: where the archive is cut off, those of the last piece are lost."""
_MOST = 1 << 16
"""Files in an archive."""
_DOCUMENTS = ("index.json", "manifest.json", "oci-layout")
_NEEDLESS = ("VERSION", "json", "repositories")
"""What old archives have beside, for docker before 1.10."""


# Writing


def save(images: Sequence[Image], content: ContentStore, file: BinaryIO, *, docker: bool) -> None:
    """Write images with all their names, each blob once. The same images always give the same bytes.

    The caller holds `content.sharing`. Raises ImageError: a part is missing; OSError.
    """
    blobs = {blob.digest: blob for image in images for blob in image.blobs}
    named = [
        image.descriptor.replace(platform=image.config.platform, annotations=_annotations(name))
        for image in images
        for name in image.names or ("",)
    ]
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", encode(Index(tuple(named))))
        if docker:
            _add(tar, "manifest.json", json.dumps([*map(_dockers, images)], separators=(",", ":")).encode())
        for digest in sorted(blobs):
            fd = content.open(digest)
            with open(fd, "rb") as blob:
                if os.fstat(fd).st_size != blobs[digest].size:
                    raise ImageError(f"blob {digest} is damaged; see: minicontainer system check")
                tar.addfile(_member(_path(digest), blobs[digest].size), blob)


def _annotations(name: str) -> dict[str, str]:
    return {CONTAINERD_NAME: name, REF_NAME: name} if name else {}


def _dockers(image: Image) -> dict[str, Any]:
    """An entry of manifest.json."""
    tags = [reference.familiar for name in image.names if (reference := parse_reference(name)).tag]
    layers = [_path(layer.digest) for layer in image.manifest.layers]
    return {"Config": _path(image.id), "RepoTags": tags or None, "Layers": layers}


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    import io

    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


# Reading


class Loaded:
    """An image that was in an archive."""

    def __init__(self, image: Image, names: Sequence[Reference]) -> None:
        self.image, self.names = image, names


def load(
    images: Images, file: BinaryIO, unpack: Callable[[Image], None], platform: Platform | None = None
) -> list[Loaded]:
    """Take in all images of an archive: first all blobs, verified; then `unpack` for each, and then their names.

    Whatever fails, no image is half there; what has come of blobs is used by the next attempt. Raises ImageError.
    """
    with images.content.sharing():
        archive = _Archive(images.content)
        try:
            with tarfile.open(fileobj=file, mode="r|*", bufsize=_CHUNK) as tar:
                archive.take(tar)
        except (tarfile.TarError, EOFError) as error:
            raise ImageError(f"this is no whole archive of images: {shown(str(error))}") from None
        except OSError as error:
            if error.errno is None:  # of a decompressor
                raise ImageError(f"this is no whole archive of images: {shown(str(error))}") from None
            raise
        except ValueError as error:  # of a decompressor, or of a header
            raise ImageError(f"this is no whole archive of images: {shown(str(error))}") from None
        loaded = [Loaded(images.image(one, platform), names) for one, names in archive.images(images, platform)]
        if not loaded:
            raise ImageError("there is no image in this archive")
        for one in loaded:
            absent = [blob for blob in one.image.blobs if not images.content.has(blob.digest)]
            if absent:
                raise ImageError(f"image {one.image.descriptor.digest} is not whole in this archive: blob "
                                 f"{absent[0].digest} is missing")  # fmt: skip
            unpack(one.image)
        for one in loaded:
            for reference in one.names:
                images.content.tag(reference.canonical, one.image.descriptor)
            if not one.names:
                images.content.keep(one.image.descriptor)
        return loaded


class _Archive:
    """What was in an archive, by the names that it had there: nothing is ever written under such a name."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._documents = dict[str, bytes]()
        self._files = dict[str, Descriptor]()
        self._links = dict[str, str]()

    def take(self, tar: tarfile.TarFile) -> None:
        """Read it once, from its beginning to its end."""
        for number, member in enumerate(tar):
            if number == _MOST:
                raise ImageError(f"the archive has more than {_MOST} files: that is no archive of images")
            name = posixpath.normpath(member.name)
            if member.issym():
                self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                self._links[name] = posixpath.normpath(member.linkname)
            elif member.isreg():
                source = tar.extractfile(member)
                assert source is not None
                self._file(name, member.size, source)

    def _file(self, name: str, size: int, source: Any) -> None:
        if name in _DOCUMENTS:
            if size > DOCUMENT_LIMIT:
                raise ImageError(f"{name} has {size} bytes: more than {DOCUMENT_LIMIT >> 20} MiB are not read")
            self._documents[name] = source.read()
        elif name.startswith("blobs/"):
            digest = name.removeprefix("blobs/").replace("/", ":", 1)
            if not is_digest(digest):
                raise ImageError(f'the archive has a blob "{shown(name)}", and that is no digest')
            descriptor = Descriptor("", digest, size)
            with self._content.ingest(descriptor) as writer:
                there = writer.offset  # of an earlier attempt: passed over
                for chunk in _chunks(source):
                    writer.write(chunk[there:])
                    there = max(0, there - len(chunk))
            self._files[name] = descriptor
        elif posixpath.basename(name) not in _NEEDLESS:
            with self._content.receive() as reception:
                for chunk in _chunks(source):
                    reception.write(chunk)
            self._files[name] = Descriptor("", reception.digest, reception.size)

    def images(self, images: Images, platform: Platform | None) -> Iterator[tuple[Descriptor, list[Reference]]]:
        """The manifest of each image that it has, and its names."""
        if "index.json" in self._documents:
            yield from self._of_a_layout(images, platform)
        elif "manifest.json" in self._documents:
            yield from self._of_dockers()
        else:
            raise ImageError("this is no archive of images: there is neither an index.json nor a manifest.json in it")

    def _of_a_layout(self, images: Images, platform: Platform | None) -> Iterator[tuple[Descriptor, list[Reference]]]:
        index = read_manifest(self._documents["index.json"])
        if not isinstance(index, Index):
            raise ImageError("the archive's index.json is a manifest")
        found = dict[str, tuple[Descriptor, list[Reference]]]()
        for one in index.manifests:
            name = _name_of(one)
            if not self._content.has(one.digest):
                raise ImageError(f"the archive is not whole: blob {one.digest}, which its index.json names, is missing")
            plain = Descriptor(one.media_type, one.digest, one.size)
            if one.media_type in INDEXES:
                inner = self._content.manifest(plain)
                assert isinstance(inner, Index)
                chosen = images.choose(inner, platform, name.familiar if name else one.digest)
                plain = Descriptor(chosen.media_type, chosen.digest, chosen.size)
            names = found.setdefault(plain.digest, (plain, []))[1]
            names += [name] if name and name not in names else []
        yield from found.values()

    def _of_dockers(self) -> Iterator[tuple[Descriptor, list[Reference]]]:
        """Without a manifest of the image: one is made, of the configuration and the layers that are named."""
        try:
            entries = json.loads(self._documents["manifest.json"])
            wanted = [
                (_text(one["Config"]), [*map(_text, one["Layers"])], [*map(_text, one.get("RepoTags") or ())])
                for one in entries
            ]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ImageError(f"the archive's manifest.json is not as docker writes it: {shown(repr(error))}") from None
        for config_name, layer_names, tags in wanted:
            names = [*map(parse_reference, tags)]
            config = self._file_of(config_name).replace(media_type=OCI_CONFIG)
            stem = posixpath.basename(config_name).removesuffix(".json")
            if is_digest(f"sha256:{stem}") and config.digest != f"sha256:{stem}":
                raise ImageError(
                    f"the configuration {shown(config_name)} has the digest {config.digest}: it is damaged"
                )
            known = read_config(self._content.read(config)).diff_ids
            layers = tuple(self._layer(name) for name in layer_names)
            if len(known) != len(layers):
                raise ImageError(
                    f"the archive has {len(layers)} layers of {shown(config_name)}, which speaks of {len(known)}"
                )
            yield self._content.put(OCI_MANIFEST, encode(Manifest(config, layers))), names

    def _layer(self, name: str) -> Descriptor:
        descriptor = self._file_of(name)
        fd = self._content.open(descriptor.digest)
        try:
            beginning = os.pread(fd, 4, 0)
        finally:
            os.close(fd)
        end = "+gzip" if beginning[:2] == b"\x1f\x8b" else "+zstd" if beginning == b"\x28\xb5\x2f\xfd" else ""
        return descriptor.replace(media_type=f"{OCI_LAYER}{end}")

    def _file_of(self, name: str) -> Descriptor:
        """What an archive's file is, through links within the archive."""
        place = posixpath.normpath(name)
        for _ in range(8):
            if place in self._files:
                return self._files[place]
            if place not in self._links:
                break
            place = self._links[place]
        raise ImageError(f"the archive is not whole: {shown(name)}, which its manifest.json names, is missing")


def _name_of(descriptor: Descriptor) -> Reference | None:
    """What an image in a layout is called. A tag alone, as the specification would have it, is no name."""
    name = descriptor.annotations.get(CONTAINERD_NAME) or descriptor.annotations.get(REF_NAME, "")
    if not name or not set(name) & set("/:@"):
        return None
    with contextlib.suppress(ImageError):
        return parse_reference(name)
    return None


def _chunks(source: Any) -> Iterable[bytes]:
    while chunk := source.read(_PIECE):
        yield chunk


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value
