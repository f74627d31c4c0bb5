"""Blobs: by whatever they are compressed, in whatever pieces, cut off or damaged."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import random
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.images.compression import AHEAD, GZIP, NONE, PIECE, ZSTD, LayerReader, LayerWriter, decompress
from minicontainer.images.errors import ImageError

DATA = random.Random(1).randbytes(300_000) + bytes(500_000) + b"words and words " * 20_000


def written(data: bytes, method: str, step: int = 10_000) -> bytes:
    """The blob that we make of this; its digests are seen to be right."""
    fd = os.memfd_create("blob")
    with LayerWriter(fd, method) as layer:
        for at in range(0, len(data), step):
            assert layer.write(data[at : at + step]) == len(data[at : at + step])
    with open(fd, "rb") as file:
        file.seek(0)
        blob = file.read()
    assert layer.size == len(blob)
    assert layer.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    return blob


MAKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=7),
    "zstd": zstd.compress,
    "none": bytes,
    "our gzip": lambda data: written(data, GZIP),
    "our zstd": lambda data: written(data, ZSTD),
    "our none": lambda data: written(data, NONE),
}


def pieces(blob: bytes, size: int) -> Iterator[bytes]:
    return (blob[at : at + size] for at in range(0, len(blob), size))


@contextlib.contextmanager
def opened(blob: bytes) -> Iterator[int]:
    fd = os.memfd_create("blob")
    with open(fd, "wb", closefd=False) as file:
        file.write(blob)
    os.lseek(fd, 0, os.SEEK_SET)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("size", [1000, 65536, 10**7])
def test_what_was_compressed_comes_out(maker: str, size: int) -> None:
    found = list(decompress(pieces(MAKERS[maker](DATA), size)))
    assert b"".join(found) == DATA
    assert max(map(len, found)) <= PIECE


@pytest.mark.parametrize("maker", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [1, 7, 65536])
def test_several_members_and_zeros_at_the_end(maker: str, size: int) -> None:
    parts = [b"one", b"", b"two" * 1000, b"three"]
    blob = b"".join(map(MAKERS[maker], parts))
    assert b"".join(decompress(pieces(blob, size))) == b"".join(parts)
    assert b"".join(decompress(pieces(blob + bytes(1000), size))) == b"".join(parts)


def test_programs_of_others_agree() -> None:
    for program, blob in (("gzip", written(DATA, GZIP)), ("zstd", written(DATA, ZSTD))):
        assert subprocess.run([program, "-dc"], input=blob, capture_output=True, check=True).stdout == DATA
    for command in (["gzip", "-1"], ["pigz", "-i", "-b", "128"], ["zstd", "-19"], ["zstd", "--long=27"]):
        blob = subprocess.run([*command, "-c"], input=DATA, capture_output=True, check=True).stdout
        assert b"".join(decompress(pieces(blob, 65536))) == DATA


def test_frames_that_are_to_be_skipped() -> None:
    frame = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    assert b"".join(decompress([frame + zstd.compress(b"data") + frame])) == b"data"


@pytest.mark.parametrize("method", [GZIP, ZSTD, NONE])
def test_the_same_bytes_give_the_same_blob(method: str) -> None:
    """In whatever pieces they come."""
    blob = written(DATA, method)
    assert written(DATA, method, 333) == written(DATA, method, 10**7) == blob
    assert method == NONE or len(blob) < len(DATA) // 2


def test_a_writer_that_failed_has_no_digest() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    layer = LayerWriter(fd)
    with pytest.raises(OSError, match="No space left"), layer:
        layer.write(DATA * 3)
    os.close(fd)
    with pytest.raises(ValueError, match="not everything"):
        _ = layer.digest


@pytest.mark.parametrize("maker", ["gzip", "zstd"])
def test_cut_off_anywhere(maker: str) -> None:
    blob = MAKERS[maker](b"some words" * 50)
    for length in range(9, len(blob)):
        with pytest.raises(ImageError, match="cut off"):
            list(decompress(pieces(blob[:length], 16)))


@pytest.mark.parametrize("maker", ["gzip", "our zstd"])
def test_another_byte_anywhere_is_noticed(maker: str) -> None:
    blob = MAKERS[maker](b"some words" * 50)
    for at in range(10, len(blob)):  # what comes before, in gzip, is the time of day and such
        damaged = blob[:at] + bytes([blob[at] ^ 0x55]) + blob[at + 1 :]
        with contextlib.suppress(ImageError):
            assert b"".join(decompress([damaged])) == b"some words" * 50, f"byte {at}"


@pytest.mark.parametrize("maker", ["gzip", "zstd"])
def test_what_follows_must_be_a_member(maker: str) -> None:
    blob = MAKERS[maker](b"data")
    for rest in (b"garbage" * 10, bytes(10) + b"x"):
        with pytest.raises(ImageError, match=r"corrupt|follows"):
            list(decompress([blob, rest]))


@pytest.mark.parametrize(("magic", "name"), [(b"BZh91AY&SY", "bzip2"), (b"\xfd7zXZ\0\0\4", "xz"), (b"\x04\x22\x4d\x18....", "lz4")])  # fmt: skip
def test_methods_that_no_image_uses_are_named(magic: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=name):
        list(decompress([magic * 10]))


@settings(max_examples=200)
@given(st.sampled_from([b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=500), st.integers(1, 100))
def test_any_bytes_are_an_error_or_a_blob(magic: bytes, rest: bytes, size: int) -> None:
    with contextlib.suppress(ImageError):
        list(decompress(pieces(magic + rest, size)))


# --- Reading ahead ----------------------------------------------------------------------------------------------------


def test_both_digests_are_right() -> None:
    blob = MAKERS["gzip"](DATA)
    with opened(blob) as fd, LayerReader(fd, hash_compressed=True) as layer:
        assert b"".join(layer) == DATA
    assert layer.diff_id == f"sha256:{hashlib.sha256(DATA).hexdigest()}" and layer.size == len(DATA)
    assert layer.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"


def test_there_is_no_digest_before_the_end() -> None:
    with opened(DATA) as fd, LayerReader(fd, hash_compressed=True) as layer:
        next(iter(layer))
        for attribute in ("diff_id", "digest"):
            with pytest.raises(ValueError, match="not everything"):
                getattr(layer, attribute)
        layer.drain()
        assert layer.diff_id
    with opened(DATA) as fd, LayerReader(fd) as layer:
        layer.drain()
        with pytest.raises(ValueError, match="nobody"):
            _ = layer.digest


def test_a_bomb_is_stopped_before_it_is_handed_out() -> None:
    blob = zlib.compress(bytes(200 << 20), wbits=31)
    seen = 0
    with opened(blob) as fd, LayerReader(fd, limit=1 << 20) as layer, pytest.raises(ImageError, match="1048576 bytes"):
        for piece in layer:
            seen += len(piece)
    assert seen <= 1 << 20


def test_it_reads_ahead_only_so_far() -> None:
    """A blob of any size takes the memory of a few pieces."""
    blob = zlib.compress(bytes(100 << 20), wbits=31)
    with opened(blob) as fd, LayerReader(fd) as layer:
        next(iter(layer))
        while layer._room._value != 0:  # until it waits for us
            assert layer._thread.is_alive()
        assert layer.size <= (AHEAD + 3) * PIECE


def test_who_leaves_early_leaves_no_thread() -> None:
    blob = zlib.compress(bytes(50 << 20), wbits=31)
    before = threading.active_count()
    for taken in (0, 1, 30):
        with opened(blob) as fd, LayerReader(fd) as layer:
            for _ in zip(range(taken), layer, strict=False):
                pass
        assert threading.active_count() == before


def test_an_error_of_the_file_is_raised_where_it_is_read() -> None:
    fd = os.open("/", os.O_RDONLY)
    with LayerReader(fd) as layer, pytest.raises(IsADirectoryError):
        layer.drain()
    os.close(fd)
