"""Layers as they travel: compressed by gzip or zstd, or not at all; with two digests, of the blob and of the tar.

RFC 1952 (gzip), RFC 8878 (zstd), OCI image specification, layer.md. gzip is done by ISA-L (`isal`), three times as fast
as zlib. What is read is told by its first bytes, as Docker does, for media types lie.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType

from minicontainer.images.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

PIECE = 512 << 10
"""Bytes that are handed on at once. Both threads want the interpreter for a moment with each of them, and where many
want the processor, whoever has the interpreter may just be the one who has to wait."""
AHEAD = 12
"""Pieces that are decompressed before anybody asks for them: 6 MB, for the times when one of the two has to wait."""
INPUT = 512 << 10
"""Bytes that are read at once."""
_SEVERAL = 32 << 10
"""Bytes that a member is given at once which is not the first: those that it leaves are copied, for each of many."""
SIZE_LIMIT = 128 << 30
"""Bytes that a layer may have when it is uncompressed, unless the caller says otherwise."""

GZIP, ZSTD, NONE = "gzip", "zstd", "none"
_FOREIGN = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}
_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3


def compression_of(beginning: bytes) -> str:
    """By which method a blob with this beginning is compressed: GZIP, ZSTD or NONE.

    Raises ImageError: one that no image is compressed by.
    """
    if beginning[:2] == b"\x1f\x8b":
        return GZIP
    if beginning[:4] == b"\x28\xb5\x2f\xfd" or (beginning[1:4] == b"\x2a\x4d\x18" and beginning[:1] >= b"\x50"):
        return ZSTD  # the latter: a frame to skip, such as comes before the frames of some
    for magic, name in _FOREIGN.items():
        if beginning.startswith(magic):
            raise ImageError(f"compressed by {name}; layers are compressed by gzip, by zstd, or not at all")
    return NONE


class LayerReader:
    """The uncompressed bytes of a layer, piece by piece, while a thread decompresses and hashes what comes next.

    ``with LayerReader(fd) as layer: for piece in layer: …; layer.diff_id``. The thread works ahead by `AHEAD` pieces
    and has an end when the block has. Neither method holds the interpreter's lock while it works, nor does a digest.

    Iterating raises ImageError: corrupt, cut off, or longer than `limit` bytes; OSError.
    """

    def __init__(self, source: int, *, limit: int = SIZE_LIMIT, hash_compressed: bool = False) -> None:
        """Read the blob that the file descriptor `source` is at the beginning of; it stays the caller's."""
        self._source, self._limit = source, limit
        self._compressed = hashlib.sha256() if hash_compressed else None
        self._uncompressed = hashlib.sha256()
        self._ready: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(AHEAD)
        self._unwanted = False
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="decompress", daemon=True)
        self.size = 0
        """Uncompressed bytes so far."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unwanted = True
        self._room.release()
        self._thread.join()

    def __iter__(self) -> Iterator[bytes]:
        while not self._ended:
            piece = self._ready.get()
            if isinstance(piece, bytes):
                self._room.release()
                yield piece
                continue
            self._ended = True
            if piece is not None:
                raise piece

    def drain(self) -> None:
        """Read to the end, as what is behind the end of a tar belongs to its digest too."""
        for _ in self:
            pass

    @property
    def diff_id(self) -> str:
        """The digest of the uncompressed bytes, once all have been read."""
        return _told(self._uncompressed, self._ended)

    @property
    def digest(self) -> str:
        """The digest of the blob itself, once all has been read, if it was asked for (`hash_compressed`)."""
        if self._compressed is None:
            raise ValueError("nobody asked for the digest of the compressed bytes")
        return _told(self._compressed, self._ended)

    def _work(self) -> None:
        """The thread."""
        end: BaseException | None = None
        try:
            for piece in decompress(self._blob()):
                self.size += len(piece)
                if self.size > self._limit:
                    raise ImageError(f"has more than {self._limit} bytes when it is uncompressed: refused")
                self._uncompressed.update(piece)
                self._room.acquire()
                if self._unwanted:
                    return
                self._ready.put(piece)
        except BaseException as error:  # raised where it is waited for
            end = error
        finally:
            self._ready.put(end)

    def _blob(self) -> Iterator[bytes]:
        while piece := os.read(self._source, INPUT):
            if self._compressed:
                self._compressed.update(piece)
            yield piece


class LayerWriter:
    """An open file for `pack_layer`: what is written to it goes compressed to a blob, and both digests are known.

    ``with LayerWriter(fd) as layer: steps.pack_layer(directory, layer)``; then `diff_id`, `digest` and `size`.
    """

    def __init__(self, target: Any, method: str = GZIP) -> None:
        """Write the blob to `target`, a file descriptor or something with `write`, which stays the caller's."""
        self._target = target
        self._compressor = None if method == NONE else _compressor(method)
        self._uncompressed, self._compressed = hashlib.sha256(), hashlib.sha256()
        self._waiting = bytearray()
        self._ended = False
        self.size = 0
        """Bytes of the blob so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._pass_on(bytes(self._waiting))
            if self._compressor:
                self._store(self._compressor.flush())
            self._ended = True

    def write(self, data: bytes) -> int:
        """Take the next bytes of the tar. Raises OSError: ENOSPC…"""
        self._waiting += data
        if len(self._waiting) >= PIECE:
            whole = len(self._waiting) // PIECE * PIECE
            for at in range(0, whole, PIECE):
                self._pass_on(bytes(self._waiting[at : at + PIECE]))
            del self._waiting[:whole]
        return len(data)

    @property
    def diff_id(self) -> str:
        """The digest of what was written, after the end."""
        return _told(self._uncompressed, self._ended)

    @property
    def digest(self) -> str:
        """The digest of the blob, after the end."""
        return _told(self._compressed, self._ended)

    def _pass_on(self, piece: bytes) -> None:
        """All pieces but the last are of one size, for isal's blob depends on where they end."""
        self._uncompressed.update(piece)
        self._store(self._compressor.compress(piece) if self._compressor else piece)

    def _store(self, data: bytes) -> None:
        self._compressed.update(data)
        self.size += len(data)
        while data:
            written = os.write(self._target, data) if isinstance(self._target, int) else self._target.write(data)
            data = data[written:]


def decompress(blob: Iterable[bytes]) -> Iterator[bytes]:
    """What is in a blob, in pieces of at most `PIECE` bytes. Raises ImageError: corrupt, or cut off.

    A blob may have any number of members (gzip) or frames (zstd), one after the other; nothing else may follow them but
    zeros, with which tapes and disks were filled up.
    """
    source = iter(blob)
    waiting = b""
    for piece in source:  # until there is enough of it to tell
        waiting += piece
        if len(waiting) >= 8:
            break
    method = compression_of(waiting)
    if method == NONE:
        while waiting:
            for at in range(0, len(waiting), PIECE):
                yield waiting[at : at + PIECE]
            waiting = next(source, b"")
        return
    at, feed = 0, INPUT  # how far we are in what waits, and how much of it a member is given at once
    while waiting:
        member, errors = _decompressor(method)
        while not member.eof:
            if member.needs_input and at == len(waiting):
                waiting, at = next(source, b""), 0
                if not waiting:
                    raise ImageError(f"its {method} stream is cut off: fetch it again")
            data = waiting[at : at + feed] if member.needs_input else b""
            at += len(data)
            try:
                piece = member.decompress(data, PIECE)
            except errors as error:
                raise ImageError(f"its {method} stream is corrupt ({error}): fetch it again") from None
            if piece:
                yield piece
        at -= len(member.unused_data)
        feed = _SEVERAL
        if at == len(waiting):
            waiting, at = next(source, b""), 0
        if waiting[at : at + 1] == b"\0":
            for rest in (waiting[at:], *source):
                if rest.strip(b"\0"):
                    raise ImageError(f"something follows its {method} stream that is none: fetch it again")
            return


def _decompressor(method: str) -> Any:
    """A decompressor for one member, and what it raises when it meets with nonsense."""
    if method == GZIP:
        from isal import igzip_lib

        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), igzip_lib.error
    zstd = _zstd()
    return zstd.ZstdDecompressor(), zstd.ZstdError


def _compressor(method: str) -> Any:
    """The same bytes give the same blob: no name and no time of day is in it."""
    if method == GZIP:
        from isal import isal_zlib

        return isal_zlib.compressobj(_GZIP_LEVEL, wbits=31)
    zstd = _zstd()
    return zstd.ZstdCompressor(
        options={zstd.CompressionParameter.compression_level: _ZSTD_LEVEL, zstd.CompressionParameter.checksum_flag: 1}
    )


def _zstd() -> Any:
    """Python's own from 3.14 on, and what was made of it for those before."""
    with contextlib.suppress(ImportError):
        return __import__("compression.zstd", fromlist=["zstd"])
    from backports import zstd

    return zstd


def _told(digest: Any, ended: bool) -> str:
    if not ended:
        raise ValueError("not everything has been read")
    return f"sha256:{digest.hexdigest()}"
