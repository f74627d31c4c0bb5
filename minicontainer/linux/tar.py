"""The tar format, read as a stream, and written so that the same files give the same bytes.

An archive is a row of entries: a header of 512 bytes with name, kind, size and so on, then the content, filled up to a
multiple of 512. Two blocks of zeros are the end. What does not fit into the header of 1988 ("ustar") stands before it:

* ``x`` (pax, POSIX 2001): an entry of its own, whose content is lines ``LENGTH KEY=VALUE`` about the next entry; ``g``:
  about all that follow. Long names, large numbers, fractions of seconds; extended attributes by keys SCHILY.xattr.*.
* ``L``, ``K`` (GNU): a long name, or target of a link, for the next entry. A number whose first bit is set is binary.
* ``S`` (GNU), or GNU.sparse.* in pax headers, in three versions: files with holes.

pax(1), "ustar Interchange Format" and "pax Interchange Format"; GNU tar's manual, "Tar Internals". Where these allow
more than one reading it is that of Go's archive/tar, which has made nearly every image there is.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
"""Kinds of entries, by their letter in the header. A LINK is another name (a hard link) for an entry before it."""

HEADERS_LIMIT = 1 << 20
"""Bytes that may stand before one entry, and be kept for all: pax headers, long names, the map of a sparse file."""
PIECE = 256 << 10

_BLOCK = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12s")
_ZEROS = bytes(_BLOCK)
_SECOND = 1_000_000_000
_XATTR = "SCHILY.xattr."
_NONE: Mapping[str, bytes] = {}
_ENCODING = sys.getfilesystemencoding()


class TarError(ValueError):
    """What is read is no tar, or a damaged one; or what is to be written does not fit into one."""


class Entry:
    """One file, as an archive has it. The names are as they stand there; whether they may is for others to say."""

    __slots__ = (
        "_parts", "_stream", "gid", "kind", "link", "major", "minor", "mode", "mtime", "name", "size", "uid", "xattrs",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        kind: str = FILE,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        link: str = "",
        major: int = 0,
        minor: int = 0,
        xattrs: Mapping[str, bytes] = _NONE,
    ) -> None:
        self.name, self.kind, self.mode, self.uid, self.gid = name, kind, mode, uid, gid
        self.size = size
        """Bytes of a FILE, its holes included; 0 for all other kinds."""
        self.mtime = mtime
        """Time of modification, in ns since 1970."""
        self.link = link
        """Where a SYMLINK leads, or the entry whose other name this LINK is."""
        self.major, self.minor = major, minor
        self.xattrs = xattrs
        self._stream: _Stream | None = None
        self._parts: Sequence[tuple[int, int]] = ()

    def content(self) -> Iterator[tuple[int, memoryview]]:
        """What is stored of a FILE, as (offset, bytes); once, before the next entry is read, or not at all.

        Raises TarError: the archive ends before it does.
        """
        for offset, count in self._parts:
            assert self._stream is not None
            for data in self._stream.pieces(count):
                yield offset, data
                offset += len(data)
        self._parts = ()

    def write_to(self, fd: int) -> None:
        """Write the content to a new, empty file; holes stay holes. Raises TarError, OSError."""
        end = 0
        for offset, data in self.content():
            if offset != end:
                os.lseek(fd, offset, os.SEEK_SET)
            end = offset + len(data)
            while (written := os.write(fd, data)) < len(data):
                data = data[written:]
        if end != self.size:
            os.ftruncate(fd, self.size)

    def __repr__(self) -> str:
        return f"Entry({', '.join(f'{field}={getattr(self, field)!r}' for field in self.__slots__[2:])})"


# --- Reading ----------------------------------------------------------------------------------------------------------


def read(archive: Any) -> Iterator[Entry]:
    """The entries of an uncompressed archive, which is an open binary file or pieces of bytes, in their order.

    What comes after the end mark is not read. Raises TarError: bad checksum, cut off, a header that makes no sense.
    """
    stream = _Stream(iter(lambda: archive.read(PIECE), b"") if hasattr(archive, "read") else archive)
    for_all: dict[str, bytes] = {}
    while (block := stream.block()) != _ZEROS:
        found = _read_entry(stream, block, for_all)
        if found is not None:
            entry, stored = found
            end = stream.position + stored + -stored % _BLOCK
            yield entry
            stream.skip(end - stream.position)
    if stream.block(or_nothing=True) not in (_ZEROS, b""):
        raise TarError("something follows half of the end mark")


class _Stream:
    """Bytes that come in pieces of any size, and are wanted in other ones."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = filter(None, pieces)
        self._piece = b""
        self._view = memoryview(b"")
        self._at = 0
        self._before = 0

    @property
    def position(self) -> int:
        """Bytes that were handed out or skipped."""
        return self._before + self._at

    def block(self, or_nothing: bool = False) -> bytes:
        """The next 512 bytes; b"" if there is nothing more, and that is fine."""
        at = self._at
        block = self._piece[at : at + _BLOCK]
        if len(block) == _BLOCK:
            self._at = at + _BLOCK
            return block
        if or_nothing and not block and not self._next():
            return b""
        return b"".join(self.pieces(_BLOCK))

    def take(self, count: int) -> bytes:
        """The next `count` bytes; those that they are filled up with to a whole block are skipped."""
        data = b"".join(self.pieces(count))
        self.skip(-count % _BLOCK)
        return data

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes, in as few pieces as can be without copying."""
        while count:
            data = self._view[self._at : self._at + count]
            if data:
                self._at += len(data)
                count -= len(data)
                yield data
            elif not self._next():
                raise _cut_off()

    def skip(self, count: int) -> None:
        while count > len(self._piece) - self._at:
            count -= len(self._piece) - self._at
            if not self._next():
                raise _cut_off()
        self._at += count

    def _next(self) -> bool:
        self._before += len(self._piece)
        self._at = 0
        self._piece = next(self._pieces, b"")
        self._view = memoryview(self._piece)
        return bool(self._piece)


def _cut_off() -> TarError:
    return TarError("the archive is cut off: it ends before its end mark")


def _read_entry(stream: _Stream, block: bytes, for_all: dict[str, bytes]) -> tuple[Entry, int] | None:
    """The entry that begins with this header, and the bytes that are stored of it; None: it was a header for all."""
    records: list[tuple[str, bytes]] = []
    long_name = long_link = None
    room = HEADERS_LIMIT
    while True:
        (name, mode, uid, gid, size, mtime, checksum, flag, link, magic, _, _, _, major, minor, prefix, rest) = (
            _HEADER.unpack(block)
        )
        # The low half of an Adler-32 (RFC 1950) is the sum of all bytes, and sum() takes ten times as long.
        if (_number(checksum) + sum(checksum) - 8 * 32 - (zlib.adler32(block, 0) & 0xFFFF)) % 65521:
            _see_signed_sum(block, checksum)
        stored = _number(size)
        if stored < 0:
            raise TarError(f"an entry of {stored} bytes")
        if flag not in b"xgLKX":
            break
        room = _less(room, stored)
        data = stream.take(stored)
        if flag == b"g":
            if records or long_name or long_link:
                raise TarError("a header for all entries among the headers of one")
            _note_for_all(for_all, _records(data))
            return None
        if flag == b"L":
            long_name = _text(data)
        elif flag == b"K":
            long_link = _text(data)
        else:
            records += _records(data)
        block = stream.block()
        if block == _ZEROS:
            raise TarError("headers for an entry that does not come")

    if prefix[0] and magic == b"ustar\0":
        name = (prefix[:131] if rest.endswith(b"tar\0") else prefix).partition(b"\0")[0] + b"/" + name  # star(1): times
    entry = Entry(
        _text(name) if long_name is None else long_name,
        flag.decode("latin-1"),
        _number(mode) & 0o7777,
        _number(uid),
        _number(gid),
        stored,
        _number(mtime) * _SECOND,
        _text(link) if long_link is None else long_link,
    )
    pax = {**for_all, **dict(records)} if for_all or records else _NONE
    if pax:
        _apply(entry, pax)

    if flag == b"\0" and entry.name.endswith("/"):  # there was a time before directories had a letter
        flag = b"5"
        entry.kind = DIRECTORY
    if flag in _WITH_CONTENT:
        entry.kind, entry._stream, stored = FILE, stream, entry.size
        if flag == b"S" or "GNU.sparse.size" in pax or "GNU.sparse.realsize" in pax:
            stored = _leave_holes(entry, stored, stream, block if flag == b"S" else b"", records, pax)
        elif stored:
            entry._parts = ((0, stored),)
        return entry, stored
    if flag not in _WITHOUT_CONTENT:
        raise TarError(f"{entry.name!r} is of a kind that is not known: {entry.kind!r}")
    entry.size = 0  # whatever the header says: some give a link the size of the file
    if flag in b"34":
        entry.major, entry.minor = _number(major), _number(minor)
    return entry, 0


_WITH_CONTENT = (b"0", b"\0", b"7", b"S")
"""Files: usual, of old, in one piece on the disk, with holes."""
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")


def _see_signed_sum(block: bytes, checksum: bytes) -> None:
    """There were tars that took characters for signed numbers."""
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 8 * 32
    if _number(checksum) != signed:
        raise TarError("a header has a wrong checksum: this is no tar, or a damaged one")


@lru_cache(maxsize=1024)
def _number(field: bytes) -> int:
    """A number in a header: octal digits; or binary (GNU), where the first bit is set: then the second is the sign."""
    if field[0] & 0x80:
        sign = 1 << (8 * len(field) - 2)
        value = int.from_bytes(field, "big") & (2 * sign - 1)
        return value - 2 * sign if value & sign else value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if digits.strip(b"01234567"):
        raise TarError(f"{field!r} is no number: this is no tar, or a damaged one")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    """Text up to the first NUL."""
    return field.partition(b"\0")[0].decode(_ENCODING, "surrogateescape")


def _records(data: bytes) -> list[tuple[str, bytes]]:
    """What a pax header says, in its order: "LENGTH KEY=VALUE\\n", where LENGTH counts the whole line."""
    records = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = data[at:space] if space > at else b""
        end = at + int(length) if length.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not (at < space < end <= len(data) and key and equals and data[end - 1] == 10):
            raise TarError(f"a pax header has a line that makes no sense: {data[at : at + 40]!r}")
        records.append((key.decode(_ENCODING, "surrogateescape"), value))
        at = end
    return records


def _note_for_all(for_all: dict[str, bytes], records: Sequence[tuple[str, bytes]]) -> None:
    """Keep what is said about all entries that follow."""
    for key, value in records:
        if key in ("path", "linkpath", "size") or key.startswith("GNU.sparse."):
            raise TarError(f"a header gives all entries the same {key}")
        for_all[key] = value
    _less(HEADERS_LIMIT, sum(len(key) + len(value) for key, value in for_all.items()))


def _less(room: int, count: int) -> int:
    """What is left of the room for headers."""
    if count > room:
        raise TarError(f"more than {HEADERS_LIMIT} bytes of headers before an entry")
    return room - count


def _apply(entry: Entry, pax: Mapping[str, bytes]) -> None:
    """Let pax headers have their say over the header's. An empty value takes back what was said."""
    xattrs: dict[str, bytes] = {}
    for key, value in pax.items():
        if key.startswith(_XATTR):
            if "\0" in key or key == _XATTR:
                raise TarError(f"{entry.name!r} has an extended attribute with an impossible name: {key!r}")
            xattrs[key.removeprefix(_XATTR)] = value
        elif not value:
            continue
        elif key == "path":
            entry.name = _pax_text(key, value)
        elif key == "linkpath":
            entry.link = _pax_text(key, value)
        elif key == "size":
            entry.size = _decimal(key, value)
        elif key == "uid":
            entry.uid = _decimal(key, value)
        elif key == "gid":
            entry.gid = _decimal(key, value)
        elif key == "mtime":
            entry.mtime = _time(value)
    if name := pax.get("GNU.sparse.name"):  # `path` is then made up, for tars that know nothing of holes
        entry.name = _pax_text("GNU.sparse.name", name)
    if xattrs:
        entry.xattrs = xattrs


def _pax_text(key: str, value: bytes) -> str:
    if b"\0" in value:
        raise TarError(f"a {key} with a NUL in it: {value[:40]!r}")
    return value.decode(_ENCODING, "surrogateescape")


def _decimal(key: str, value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise TarError(f"a {key} that is no number: {value[:40]!r}")
    return int(value)


def _time(value: bytes) -> int:
    """Seconds with a fraction, such as "-1.5", in ns."""
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 20 or not (fraction.isdigit() or not fraction):
        raise TarError(f"an mtime that is no time: {value[:40]!r}")
    time = int(whole) * _SECOND + int(fraction[:9].ljust(9, b"0"))
    return -time if value[:1] == b"-" else time


# Files with holes. All four ways come down to a row of numbers: offset and length, by turns, of what is stored.


def _leave_holes(
    entry: Entry,
    stored: int,
    stream: _Stream,
    header: bytes,
    records: Sequence[tuple[str, bytes]],
    pax: Mapping[str, bytes],
) -> int:
    """Set the size and the stored parts of a file with holes; returns how many bytes of content are to come."""
    if header:  # GNU: in the header, and in as many blocks behind it as are needed
        entry.size = _number(header[483:495])
        numbers = [_number(header[at : at + 12]) for at in range(386, 482, 12) if header[at]]
        room, more = HEADERS_LIMIT, header[482]
        while more:
            room = _less(room, _BLOCK)
            block = stream.block()
            numbers += [_number(block[at : at + 12]) for at in range(0, 504, 12) if block[at]]
            more = block[504]
    elif pax.get("GNU.sparse.major") == b"1":  # GNU.sparse 1.0: before the content, and first how many
        entry.size = _decimal("GNU.sparse.realsize", pax.get("GNU.sparse.realsize", b""))
        begin, lines = stream.position, _lines(stream)
        numbers = [next(lines) for _ in range(2 * next(lines))]
        stored -= stream.position - begin
    else:
        entry.size = _decimal("GNU.sparse.size", pax.get("GNU.sparse.size", b""))
        if "GNU.sparse.map" in pax:  # 0.1: in one line
            numbers = [_decimal("GNU.sparse.map", number) for number in pax["GNU.sparse.map"].split(b",") if number]
        else:  # 0.0: by the same keys over and over
            keys = ("GNU.sparse.offset", "GNU.sparse.numbytes")
            numbers = [_decimal(key, value) for key, value in records if key in keys]
    parts = list(zip(numbers[::2], numbers[1::2], strict=False))
    end = 0
    for offset, count in parts:
        if offset < end or count < 0:
            raise TarError(f"{entry.name!r} is a file whose parts overlap")
        end = offset + count
    if len(numbers) % 2 or end > entry.size or sum(numbers[1::2]) != stored:
        raise TarError(f"{entry.name!r} is a file whose parts do not add up")
    entry._parts = parts
    return stored


def _lines(stream: _Stream) -> Iterator[int]:
    """Numbers, each on a line of its own, in as many blocks as are needed."""
    text, room = b"", HEADERS_LIMIT
    while True:
        line, newline, rest = text.partition(b"\n")
        if newline:
            yield _decimal("GNU.sparse map", line)
            text = rest
        else:
            room = _less(room, _BLOCK)
            text += stream.block()


# --- Writing ----------------------------------------------------------------------------------------------------------


class Writer:
    """Writes an archive to an open binary file. The same entries give the same bytes, whoever writes them and when.

    Plain ustar, and a pax header before an entry with something that does not fit: no names of users, no times but
    that of modification.
    """

    def __init__(self, archive: BinaryIO) -> None:
        self._archive = archive

    def add(self, entry: Entry, content: int | None = None) -> None:
        """Write an entry, and of a FILE as many bytes as it has from the file descriptor `content`.

        Raises TarError (an attribute whose name tar has no way to write; a file that has become shorter), OSError.
        """
        self._archive.write(_headers(entry))
        left = entry.size
        while left and content is not None:
            data = os.read(content, min(left, PIECE))
            if not data:
                raise TarError(f"{entry.name!r} has become shorter while it was read")
            self._archive.write(data)
            left -= len(data)
        self._archive.write(_ZEROS[: -entry.size % _BLOCK])

    def close(self) -> None:
        """Write the end mark."""
        self._archive.write(_ZEROS * 2)


def _headers(entry: Entry) -> bytes:
    name, link = os.fsencode(entry.name), os.fsencode(entry.link)
    seconds, fraction = divmod(entry.mtime, _SECOND)
    pax: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        pax[b"path"] = name
    if len(link) > 100 or not link.isascii():
        pax[b"linkpath"] = link
    if fraction or not 0 <= seconds < 8**11:
        pax[b"mtime"] = _told(entry.mtime)
    for key, number, digits in ((b"size", entry.size, 11), (b"uid", entry.uid, 7), (b"gid", entry.gid, 7)):
        if number >= 8**digits:
            pax[key] = b"%d" % number
    for attribute, value in entry.xattrs.items():
        if "=" in attribute:
            raise TarError(f"{entry.name!r} has the extended attribute {attribute!r}, and tar cannot write such a name")
        pax[os.fsencode(_XATTR + attribute)] = value
    header = _header(
        name, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, seconds, link, entry.major, entry.minor
    )
    if not pax:
        return header
    records = b"".join(_record(key, pax[key]) for key in sorted(pax))
    before = _header(b"PaxHeaders/" + os.path.basename(name.rstrip(b"/")), "x", 0o644, 0, 0, len(records), 0, b"", 0, 0)
    return before + records + _ZEROS[: -len(records) % _BLOCK] + header


def _header(
    name: bytes, kind: str, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes, major: int, minor: int
) -> bytes:
    """One block; what does not fit is cut off, or 0, and stands in a pax header."""
    block = _HEADER.pack(
        name[:100], _octal(mode, 7), _octal(uid, 7), _octal(gid, 7), _octal(size, 11), _octal(mtime, 11), b" " * 8,
        kind.encode(), link[:100], b"ustar\0", b"00", b"", b"", _octal(major, 7), _octal(minor, 7), b"", b"",
    )  # fmt: skip
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def _octal(number: int, digits: int) -> bytes:
    return b"%0*o" % (digits, number if 0 <= number < 8**digits else 0)


def _told(time: int) -> bytes:
    """Nanoseconds as seconds with a fraction."""
    seconds, fraction = divmod(abs(time), _SECOND)
    text = f"{'-' if time < 0 else ''}{seconds}.{fraction:09d}"
    return text.rstrip("0").rstrip(".").encode()


def _record(key: bytes, value: bytes) -> bytes:
    """A line of a pax header, which begins with its own length, that of the length included."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d%b" % (length, rest)
