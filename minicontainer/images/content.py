"""Blobs by their digests, and names for some of them: an OCI image layout on disk, safe from whoever is killed when.

DIRECTORY/oci-layout, index.json  a descriptor for each image, with its name as an annotation; without: it lost its name
         /blobs/sha256/HEX        documents and layers: whole and verified, or not there
         /ingest/HEX              what of a blob has come so far; locked (flock(2)) by whoever fetches it
         /lock                    shared: by whoever adds blobs that no image in index.json names yet;
                                  exclusive: by whoever removes what nothing names
         /index.lock              while index.json is changed

https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping

from minicontainer.images.documents import (
    DOCUMENT_LIMIT,
    INDEXES,
    MANIFESTS,
    REF_NAME,
    Descriptor,
    Index,
    Manifest,
    encode,
    read_descriptor,
    read_manifest,
)
from minicontainer.images.errors import ImageError
from minicontainer.images.references import is_digest, shown
from minicontainer.linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 20
"""Bytes that are read at once."""


class ContentStore:
    """The layout in `directory`, which is made when something is first put into it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    # Blobs

    def path(self, digest: str) -> str:
        """Where the blob of this digest is, or would be. Raises ImageError: no digest."""
        if not is_digest(digest):
            raise ImageError(f'"{shown(digest)}" is no digest: sha256: and 64 hexadecimal digits')
        algorithm, _, digits = digest.partition(":")
        return f"{self.directory}/blobs/{algorithm}/{digits}"

    def has(self, digest: str) -> bool:
        """Whether the blob is there, whole."""
        return os.path.exists(self.path(digest))

    def open(self, digest: str) -> int:
        """A blob as a file descriptor, to be read. Raises ImageError: it is not there."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ImageError(f"blob {digest} is missing; see: minicontainer system check") from None

    def read(self, descriptor: Descriptor) -> bytes:
        """A document, verified. Raises ImageError: missing, too large, of another size or content than it should be."""
        if descriptor.size > DOCUMENT_LIMIT:
            raise ImageError(
                f"{descriptor.digest} has {descriptor.size} bytes: of a document, more than "
                f"{DOCUMENT_LIMIT >> 20} MiB are not read"
            )
        fd = self.open(descriptor.digest)
        try:
            raw = b""
            while more := os.read(fd, 1 << 16):
                raw += more
                if len(raw) > descriptor.size:
                    break
        finally:
            os.close(fd)
        if len(raw) != descriptor.size or digest_of(raw, descriptor.digest.partition(":")[0]) != descriptor.digest:
            raise ImageError(f"blob {descriptor.digest} is damaged; see: minicontainer system check")
        return raw

    def put(self, media_type: str, raw: bytes) -> Descriptor:
        """Keep a document of ours, or one that was verified."""
        descriptor = Descriptor(media_type, digest_of(raw), len(raw))
        if self.has(descriptor.digest):
            return descriptor
        with self.ingest(descriptor) as writer:
            writer.restart()
            writer.write(raw[writer.offset :])  # nothing, if somebody else has just put it there
        return descriptor

    @contextlib.contextmanager
    def ingest(self, descriptor: Descriptor) -> Iterator[Ingestion]:
        """Take in a blob, whose digest is known: the block writes to what it gets, from `offset` on.

        At the end of the block it is verified, written to the disk, and in its place. When the block fails, what has
        come is kept, and the next attempt goes on there. Another process that takes in the same blob is waited for; it
        may be whole then, and `offset` its size. The caller holds `sharing`.

        Raises ImageError: too short (kept), too long or of another digest (not kept); OSError: no space.
        """
        writer = Ingestion(self, descriptor)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()

    @contextlib.contextmanager
    def receive(self) -> Iterator[Reception]:
        """Take in a blob of whatever digest: the block writes, and `digest` and `size` are known at its end."""
        reception = Reception(self)
        try:
            yield reception
            reception.finish()
        finally:
            reception.close()

    def blobs(self) -> dict[str, int]:
        """Digest → bytes, of all that are there."""
        found = dict[str, int]()
        for algorithm in ("sha256", "sha512"):
            with contextlib.suppress(FileNotFoundError), os.scandir(f"{self.directory}/blobs/{algorithm}") as entries:
                found |= {f"{algorithm}:{entry.name}": entry.stat().st_size for entry in entries}
        return found

    # Names

    def descriptors(self) -> list[Descriptor]:
        """All of index.json, in its order. Raises ImageError: it is damaged."""
        file = f"{self.directory}/index.json"
        try:
            with open(file, "rb", buffering=0) as stream:
                data = json.loads(stream.readall())
            manifests = data["manifests"]
            return [read_descriptor(one, f"{file}: manifests[{number}]") for number, one in enumerate(manifests)]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ImageError(f"{file} is damaged: {shown(repr(error))}; the images are still in blobs/") from None

    def tags(self) -> dict[str, Descriptor]:
        """Canonical reference → what it stands for: a manifest, or an index of them."""
        return {name: one for one in self.descriptors() if (name := one.annotations.get(REF_NAME, ""))}

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Let a canonical reference stand for a manifest or an index that is there whole.

        What it stood for before stays, without a name if it has no other, until it is pruned.
        """
        with self._changing_index() as index:
            before = [one for one in index if one.annotations.get(REF_NAME) == name]
            index[:] = [one for one in index if one not in before]
            # What has a name now need not be there without one as well.
            index[:] = [one for one in index if one.digest != descriptor.digest or REF_NAME in one.annotations]
            index.append(_named(descriptor, name))
            _keep_unnamed(index, before)

    def untag(self, name: str, *, keep: bool = False) -> None:
        """Take a name away; what has no other goes with it, unless it is to be kept without. Nothing if it is gone."""
        with self._changing_index() as index:
            before = [one for one in index if one.annotations.get(REF_NAME) == name]
            index[:] = [one for one in index if one not in before]
            if keep:
                _keep_unnamed(index, before)

    def keep(self, descriptor: Descriptor) -> None:
        """Have an image without a name in the index, unless it is there already."""
        with self._changing_index() as index:
            _keep_unnamed(index, [descriptor])

    def drop(self, digest: str) -> None:
        """Take an image out of the index, with all its names."""
        with self._changing_index() as index:
            index[:] = [one for one in index if one.digest != digest]

    @contextlib.contextmanager
    def _changing_index(self) -> Iterator[list[Descriptor]]:
        """What index.json has, to be changed: written at the end of the block, whole or not at all."""
        self.prepare()
        with files.locked(f"{self.directory}/index.lock", fcntl.LOCK_EX):
            index = self.descriptors()
            before = list(index)
            yield index
            if index != before:
                write_durably(f"{self.directory}/index.json", encode(Index(tuple(index))))

    # Who may do what meanwhile

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        """Nothing is collected during the block: for whoever adds blobs and layers before something names them."""
        self.prepare()
        with files.locked(f"{self.directory}/lock", fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def changing(self, *, patient: bool = True) -> Iterator[bool]:
        """Nobody adds anything during the block: for whoever collects. False (impatient): somebody is adding."""
        self.prepare()
        fd = os.open(f"{self.directory}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            alone = True
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
            except BlockingIOError:
                alone = False
            yield alone
        finally:
            os.close(fd)

    def prepare(self) -> None:
        """Make the layout, unless it is there."""
        if os.path.exists(f"{self.directory}/oci-layout"):
            return
        for name in ("blobs/sha256", "ingest"):
            os.makedirs(f"{self.directory}/{name}", exist_ok=True)
        with files.locked(f"{self.directory}/index.lock", fcntl.LOCK_EX):
            if not os.path.exists(f"{self.directory}/index.json"):
                write_durably(f"{self.directory}/index.json", encode(Index(())))
            write_durably(f"{self.directory}/oci-layout", b'{"imageLayoutVersion":"1.0.0"}')

    # What hangs together

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """A manifest or an index that is there. Raises ImageError."""
        return read_manifest(self.read(descriptor), descriptor.media_type)

    def parts(self, descriptor: Descriptor) -> Iterator[Descriptor]:
        """A manifest or an index with all that it names, whether or not it is there, but for what is in it of other
        platforms and was never fetched. Raises ImageError: a document that cannot be read."""
        yield descriptor
        if descriptor.media_type in (*INDEXES, *MANIFESTS):
            match self.manifest(descriptor):
                case Index(manifests):
                    for one in manifests:
                        if one.media_type not in INDEXES and self.has(one.digest):  # an index in an index: never ours
                            yield from self.parts(one)
                case Manifest(config, layers):
                    yield config
                    yield from layers

    def missing(self, descriptor: Descriptor) -> list[Descriptor]:
        """What is not there of an image: its manifest alone, or else of its parts."""
        if not self.has(descriptor.digest):
            return [descriptor]
        return [part for part in self.parts(descriptor) if not self.has(part.digest)]

    def collect(self, kept: set[str]) -> tuple[int, int]:
        """Remove every blob but those with these digests. How many, and their bytes.

        The caller holds `changing`, so none of them is wanted by anybody.
        """
        number = size = 0
        for digest, there in self.blobs().items():
            if digest not in kept:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.directory}/blobs/{digest.replace(':', '/')}")
                    number, size = number + 1, size + there
        return number, size

    def partial(self) -> dict[str, int]:
        """File below ingest/ → bytes: what had come of blobs when somebody gave up, or was killed; or comes now."""
        with os.scandir(f"{self.directory}/ingest") as entries:
            return {entry.path: entry.stat().st_size for entry in entries}

    def forget_partial(self) -> tuple[int, int]:
        """Remove it, so the next attempt begins anew. How many, and their bytes. The caller holds `changing`."""
        found = self.partial()
        for file in found:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)
        return len(found), sum(found.values())


class Ingestion:
    """A blob that is taken in, whose digest is known."""

    def __init__(self, store: ContentStore, descriptor: Descriptor) -> None:
        self._store, self._descriptor = store, descriptor
        self._place = store.path(descriptor.digest)
        self._algorithm, _, digits = descriptor.digest.partition(":")
        self._file = f"{store.directory}/ingest/{digits}"
        store.prepare()
        self._fd = self._open()
        self.offset = descriptor.size
        """Bytes that are there already: the next that is written goes behind them."""
        if self._fd >= 0:
            self._begin()

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises ImageError (more than there should be), OSError."""
        if self._fd < 0:
            if data:
                raise ImageError(f"blob {self._descriptor.digest} is whole: there is more of it than there should be")
            return
        if self.offset + len(data) > self._descriptor.size:
            self._discard()
            raise ImageError(
                f"blob {self._descriptor.digest} is longer than the {self._descriptor.size} bytes that were announced"
            )
        self._hash.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.offset += len(data)

    def restart(self) -> None:
        """Forget what has come so far, because the rest cannot be had alone. Not of a blob that is whole."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            self._begin()

    def finish(self) -> None:
        """Verify it and put it into its place. Raises ImageError, OSError."""
        if self._fd < 0:
            return
        if self.offset < self._descriptor.size:
            raise ImageError(
                f"blob {self._descriptor.digest} ends after {self.offset} of {self._descriptor.size} bytes: "
                "what has come is kept, and the next attempt goes on from there"
            )
        if (found := f"{self._algorithm}:{self._hash.hexdigest()}") != self._descriptor.digest:
            self._discard()
            raise ImageError(
                f"what came as blob {self._descriptor.digest} is {found}: it was damaged on its way, or forged"
            )
        _put_in_place(self._fd, self._file, self._place)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        """The file, locked; -1: the blob is whole."""
        while not os.path.exists(self._place):
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Whoever had it before us has put it into its place, or thrown it away: then this is not the file any more.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self._file)):
                    if not os.path.exists(self._place):
                        return fd
                    os.unlink(self._file)  # it was put into its place between our look and our opening: this one is new
            os.close(fd)
        return -1

    def _begin(self) -> None:
        """Read what is there, and be behind it."""
        import hashlib

        self._hash, self.offset = hashlib.new(self._algorithm), 0
        while data := os.pread(self._fd, _CHUNK, self.offset):
            self._hash.update(data)
            self.offset += len(data)
        if self.offset > self._descriptor.size:
            os.ftruncate(self._fd, 0)
            self._hash, self.offset = hashlib.new(self._algorithm), 0
        os.lseek(self._fd, self.offset, os.SEEK_SET)

    def _discard(self) -> None:
        """It is not what it should be, and nothing of it is worth keeping."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file)


class Reception:
    """A blob that is taken in, whose digest nobody has said."""

    def __init__(self, store: ContentStore) -> None:
        import hashlib

        store.prepare()
        self._store, self._hash, self.size = store, hashlib.sha256(), 0
        self._file = f"{store.directory}/ingest/.{os.urandom(8).hex()}"
        self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    @property
    def digest(self) -> str:
        """Of what has been written."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes | memoryview) -> int:
        """Append, as a file object has it. Raises OSError."""
        self._hash.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.size += len(data)
        return len(data)

    def finish(self) -> None:
        """Put it into its place."""
        _put_in_place(self._fd, self._file, self._store.path(self.digest))

    def close(self) -> None:
        """Nothing is left where it did not come to its end."""
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file)


def digest_of(raw: bytes, algorithm: str = "sha256") -> str:
    """The digest of a document: by the function that is built into Python, where hashlib would load OpenSSL first."""
    try:
        if algorithm != "sha256":
            raise ImportError
        sha256: Any = __import__(_BUILT_IN).sha256
    except ImportError:
        import hashlib

        return f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
    return f"sha256:{sha256(raw).hexdigest()}"


_BUILT_IN = "_sha2" if sys.version_info >= (3, 12) else "_sha256"


def write_durably(file: str, content: bytes) -> None:
    """Write a file, whole or not at all, whoever is killed or loses power when. One writer at a time. OSError."""
    fd = os.open(f"{file}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        while content:
            content = content[os.write(fd, content) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(f"{file}.new", file)
    sync_directory(os.path.dirname(file))


def sync_directory(directory: str) -> None:
    """Have the names in a directory on the disk: fsync(2), "does not necessarily ensure that the entry in the directory
    containing the file has also reached disk"."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _put_in_place(fd: int, file: str, place: str) -> None:
    os.fsync(fd)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    os.rename(file, place)
    sync_directory(os.path.dirname(place))


def _named(descriptor: Descriptor, name: str) -> Descriptor:
    return descriptor.replace(annotations={**descriptor.annotations, REF_NAME: name})


def _unnamed(descriptor: Descriptor) -> Descriptor:
    rest: Mapping[str, str] = {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}
    return descriptor.replace(annotations=rest)


def _keep_unnamed(index: list[Descriptor], descriptors: list[Descriptor]) -> None:
    there = {one.digest for one in index}
    index += [_unnamed(one) for one in descriptors if one.digest not in there]
