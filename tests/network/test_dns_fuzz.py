"""Whatever is in a message, the parser returns or says Malformed, soon; and what is written is read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.network import wire
from minicontainer.network.dns import Names, Server
from minicontainer.network.wire import Malformed, Query

labels = st.binary(min_size=1, max_size=63).map(bytes.lower)
names = st.lists(labels, max_size=8).map(tuple).filter(lambda name: sum(len(label) + 1 for label in name) <= 254)

pieces = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 0x3FFF).map(lambda place: (0xC000 | place).to_bytes(2, "big")),
    names.map(wire.written_name),
    st.sampled_from(
        [b"\0\1\0\1", b"\0\x0c\0\1", b"\0\0\x29\x10\0\0\0\0\0\0\0", b"\7in-addr\4arpa\0", b"\3ip6\4arpa\0"]
    ),
)
counts = st.lists(st.sampled_from([0, 1, 2, 65535]), min_size=4, max_size=4)


def message(number: int, flags: int, parts: list[int], body: list[bytes]) -> bytes:
    return b"".join(word.to_bytes(2, "big") for word in (number, flags, *parts)) + b"".join(body)


messages = st.one_of(
    st.binary(max_size=600),
    st.builds(message, st.integers(0, 65535), st.integers(0, 65535), counts, st.lists(pieces, max_size=8)),
    st.builds(message, st.integers(0, 65535), st.just(0x100), st.just([1, 0, 0, 0]),
              st.tuples(names.map(wire.written_name), st.sampled_from([b"\0\1\0\1", b"\0\x0c\0\1", b"\0\xff\0\1"])).map(list)),
)  # fmt: skip


@given(messages)
@settings(max_examples=1000, deadline=None)
def test_the_parser_returns_or_refuses(data: bytes) -> None:
    try:
        query = wire.read_query(data)
    except Malformed:
        return
    assert query.question == data[12 : 12 + len(query.question)]
    wire.address_of(query.name)
    answer = wire.answer(query, 0, [(wire.A, bytes(4))] * 50, forwards=True, limit=query.limit)
    assert len(answer) <= query.limit and answer[:2] == data[:2]


@given(messages, st.integers(0, 700))
@settings(max_examples=500, deadline=None)
def test_a_name_anywhere(data: bytes, place: int) -> None:
    try:
        name, behind = wire.read_name(data, place)
    except Malformed:
        return
    assert place < behind <= len(data)
    assert sum(len(label) + 1 for label in name) <= 254


@given(names)
def test_what_is_written_is_read_again(name: wire.Name) -> None:
    data = bytes(12) + wire.written_name(name)
    assert wire.read_name(data, 12) == (name, len(data))


@given(messages, messages)
@settings(max_examples=500, deadline=None)
def test_whether_it_is_an_answer_can_always_be_said(data: bytes, other: bytes) -> None:
    query = Query(1, 0, b"\0\0\1\0\1", (), 1, 1)
    assert not wire.answers(data, query, 1) or data[:2] == b"\0\1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    directory: Path = tmp_path_factory.mktemp("names")
    (directory / "names").write_text(
        json.dumps({"names": {"web": ["10.0.0.2", "fd00::2"], "ä": ["10.0.0.3"]}, "containers": {}, "servers": {}})
    )
    known = Names(str(directory), ["10.0.0.1"], ["10.0.0.0/24"])
    return Server(known, [], ["10.0.0.1"], forwards=False, resolv_conf="/nowhere")


@given(messages, st.booleans())
@settings(max_examples=1000, deadline=None)
def test_the_server_answers_once_or_not_at_all(server: Server, data: bytes, stream: bool) -> None:
    said: list[bytes] = []
    server.handle(data, "10.0.0.2", said.append, stream=stream)
    assert len(said) == (len(data) >= 12 and not data[2] & 0x80)
    assert all(one[:2] == data[:2] and one[2] & 0x80 for one in said)
