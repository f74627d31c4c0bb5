"""Messages of the domain name system as they are on the wire: RFC 1035 section 4, EDNS(0) of RFC 6891.

A message is a header of 12 bytes, one question, and records. What comes in is read strictly: nothing behind the end is
looked at, and a pointer of a compressed name leads backwards, so that no message can send us round in circles.
"""

from __future__ import annotations

from minicontainer.network.addresses import read_address, written
from minicontainer.network.errors import NetworkError
from minicontainer.record import Record

A, PTR, OPT, AAAA, ANY = 1, 12, 41, 28, 255
IN = 1

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
"""Bits of the header's second word: an answer, by authority, cut off, forwarding wanted, forwarding to be had."""

HEADER = 12
SMALLEST = 512
"""Bytes that a datagram may have unless the asker says that it takes more."""
LARGEST = 1232
"""Bytes that one of ours has at most: what passes every IPv6 link in one piece."""
LONGEST = 65535
"""Bytes of a message over TCP, whose length has two of them."""

Name = tuple[bytes, ...]
"""The labels of a name: ``(b"www", b"example")``."""


class Malformed(Exception):
    """A message that is none."""


class Query(Record):
    """A question, as somebody asks it."""

    id: int
    flags: int
    question: bytes
    """The question's own bytes, to be echoed: whoever asks may look at the case of each letter."""
    name: Name
    """In lower case."""
    type: int
    kind: int
    """The class: 1, the internet's."""
    size: int | None = None
    """Bytes of the largest datagram that the asker takes; None: it does not know EDNS."""
    version: int = 0
    """Of EDNS."""

    @property
    def opcode(self) -> int:
        """0, a question."""
        return self.flags >> 11 & 15

    @property
    def limit(self) -> int:
        """Bytes that an answer by datagram may have."""
        return max(SMALLEST, min(self.size or 0, LARGEST))


def read_query(data: bytes) -> Query:
    """The question in a message. Raises Malformed: it is no message, or asks for no one thing."""
    if len(data) < HEADER:
        raise Malformed("shorter than a header")
    number, flags, questions, answers, authorities, more = (_word(data, place) for place in range(0, HEADER, 2))
    if flags & QR or questions != 1:
        raise Malformed("not one question")
    name, place = read_name(data, HEADER)
    kind, place = _word(data, place + 2), place + 4
    query = Query(number, flags, data[HEADER:place], name, _word(data, place - 4), kind)
    options = 0
    for _ in range(answers + authorities + more):
        _, place = read_name(data, place)
        type, size, version = _word(data, place), _word(data, place + 2), _byte(data, place + 5)
        place += 10 + _word(data, place + 8)
        if place > len(data):
            raise Malformed("a record goes over the end")
        if type == OPT:
            query, options = query.replace(size=size, version=version), options + 1
    if place != len(data) or options > 1:
        raise Malformed("more than a message")
    return query


def read_name(data: bytes, place: int) -> tuple[Name, int]:
    """The name that begins at this place, in lower case, and the place behind it. Raises Malformed."""
    labels, length, behind, earliest = list[bytes](), 1, None, place
    while True:
        size = _byte(data, place)
        if size >= 0xC0:
            behind = behind or place + 2
            place = _word(data, place) & 0x3FFF
            if not HEADER <= place < earliest:
                raise Malformed("a pointer that does not lead backwards")
            earliest = place
            continue
        if size > 63:
            raise Malformed("an unknown kind of label")
        place += 1
        if not size:
            return tuple(labels), behind or place
        length += size + 1
        if length > 255 or place + size > len(data):
            raise Malformed("a name without end")
        labels.append(data[place : place + size].lower())
        place += size


def name_of(text: str) -> Name:
    """The labels of a name that is written with dots."""
    return tuple(text.lower().encode(errors="replace").split(b"."))


def written_name(name: Name) -> bytes:
    """A name on the wire, not compressed. Raises Malformed: it is too long for it."""
    if not all(0 < len(label) < 64 for label in name) or sum(len(label) + 1 for label in name) > 254:
        raise Malformed("too long for a name")
    return b"".join(bytes([len(label)]) + label for label in name) + b"\0"


def address_of(name: Name) -> str | None:
    """The address that 2.0.17.172.in-addr.arpa stands for, or its like of IPv6; None: it is no such name."""
    *parts, kind, top = (b"", b"", *name)
    if top != b"arpa":
        return None
    digits = [part.decode(errors="replace") for part in reversed(parts[2:])]
    try:
        if kind == b"in-addr" and len(digits) == 4:
            return written(*read_address(".".join(digits)))
        if kind == b"ip6" and len(digits) == 32 and set(digits) <= set("0123456789abcdef"):
            return written(6, int("".join(digits), 16))
    except (NetworkError, ValueError):
        pass
    return None


def answer(
    query: Query, code: int, records: list[tuple[int, bytes]], *, forwards: bool, limit: int | None = None
) -> bytes:
    """An answer by authority: (type, data) of each record, all of them about the name that was asked for.

    Longer than `limit`, it has no records, and says so: whoever wants them asks over TCP.
    """
    flags = QR | AA | query.flags & (0x7800 | RD) | (RA if forwards else 0) | code & 15
    body = b"".join(
        (0xC000 | HEADER).to_bytes(2, "big")
        + type.to_bytes(2, "big")
        + IN.to_bytes(2, "big")
        + bytes(4)  # s for which it may be remembered: it may be somebody else's the next moment
        + len(data).to_bytes(2, "big")
        + data
        for type, data in records
    )
    return _message(query, flags, len(records), body, code, limit)


def refusal(data: bytes, code: int) -> bytes:
    """The answer to what could not be understood."""
    flags = QR | _word(data, 2) & (0x7800 | RD) | code
    return data[:2] + flags.to_bytes(2, "big") + bytes(8)


def cut(query: Query, message: bytes) -> bytes:
    """Somebody's answer without its records: it is larger than the asker takes."""
    return _message(query, _word(message, 2) | TC, 0, b"", 0, None)


def answers(message: bytes, query: Query, number: int) -> bool:
    """Whether a message is an answer to what we have asked under this number, and not somebody's guess."""
    if len(message) < HEADER or _word(message, 0) != number or not _word(message, 2) & QR or _word(message, 4) != 1:
        return False
    try:
        name, place = read_name(message, HEADER)
        return (name, message[place : place + 4]) == (query.name, query.question[-4:])
    except Malformed:
        return False


def _message(query: Query, flags: int, count: int, body: bytes, code: int, limit: int | None) -> bytes:
    options = b""
    if query.size is not None:
        options = b"\0" + b"".join(word.to_bytes(2, "big") for word in (OPT, LARGEST, (code >> 4) << 8, 0, 0))
    if limit is not None and HEADER + len(query.question) + len(body) + len(options) > limit:
        flags, count, body = flags | TC, 0, b""
    words = (query.id, flags, 1, count, 0, 1 if options else 0)
    return b"".join(word.to_bytes(2, "big") for word in words) + query.question + body + options


def _byte(data: bytes, place: int) -> int:
    if place >= len(data):
        raise Malformed("it goes over the end")
    return data[place]


def _word(data: bytes, place: int) -> int:
    if place + 2 > len(data):
        raise Malformed("it goes over the end")
    return int.from_bytes(data[place : place + 2], "big")
