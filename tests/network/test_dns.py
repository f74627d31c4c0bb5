"""The name server's own rules, spoken to over sockets of this process; on a network it is in tests/cli/test_names.py."""

from __future__ import annotations

import json
import os
import socket
import threading
from _socket import socket as Plain
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from minicontainer.network import wire
from minicontainer.network.dns import Names, Server, resolvers
from minicontainer.network.wire import Malformed, name_of, read_query
from tests.command import DEADLINE

Ask = Callable[[bytes], bytes]

NAMES = {
    "names": {"web": ["127.0.0.9", "127.0.0.10", "::9"], "Db.internal": ["127.0.0.11"], "x" * 64: ["127.0.0.12"],
              "many": [f"127.0.1.{number}" for number in range(1, 100)]},
    "containers": {}, "servers": {},
}  # fmt: skip


def write_names(directory: Path, names: Mapping[str, object]) -> None:
    (directory / "names.new").write_text(json.dumps(names))
    os.rename(directory / "names.new", directory / "names")


def question(name: str, kind: int = wire.A, *, flags: int = wire.RD, more: bytes = b"", records: int = 0) -> bytes:
    words = (0x1234, flags, 1, 0, 0, records)
    header = b"".join(word.to_bytes(2, "big") for word in words)
    return header + wire.written_name(tuple(name.encode().split(b"."))) + kind.to_bytes(2, "big") + b"\0\1" + more


def edns(size: int, version: int = 0) -> bytes:
    return b"\0" + b"".join(word.to_bytes(2, "big") for word in (wire.OPT, size, version, 0, 0))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """One that runs in a thread, for 127.0.0.0/8; its port, and where its names are."""
    udp, tcp = (Plain(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    udp.bind(("127.0.0.1", 0))
    port = int(udp.getsockname()[1])
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(("127.0.0.1", port))
    tcp.listen(8)
    write_names(tmp_path, NAMES)
    names = Names(str(tmp_path), ["127.0.0.1"], ["127.0.0.0/8"])
    made = Server(names, [udp, tcp], ["127.0.0.1"], forwards=True, resolv_conf=str(tmp_path / "resolv.conf"))
    end, ended = os.pipe()
    thread = threading.Thread(target=made.run, args=(end,))
    thread.start()
    yield port, tmp_path
    (tmp_path / "names").unlink()
    os.write(ended, b"x")
    thread.join(DEADLINE)
    assert not thread.is_alive()
    for one in (udp, tcp):
        one.close()
    os.close(end)
    os.close(ended)


@pytest.fixture
def ask(server: tuple[int, Path]) -> Iterator[Ask]:
    """Sends a datagram and returns the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(("127.0.0.1", server[0]))

        def one(message: bytes) -> bytes:
            sock.send(message)
            return sock.recv(65535)

        yield one


def code(message: bytes) -> int:
    return message[3] & 15


def count(message: bytes) -> int:
    return int.from_bytes(message[6:8], "big")


def test_it_echoes_the_question_and_knows_no_case(ask: Ask) -> None:
    asked = question("wEb")
    answer = ask(asked)
    assert answer[:2] == asked[:2] and answer[12 : len(asked)] == asked[12:]
    assert (code(answer), count(answer)) == (0, 2)
    assert answer[2] & 0x84 == 0x84 and answer[2] & 1 and answer[3] & 0x80  # QR, AA, RD as asked, RA
    assert count(ask(question("DB.Internal"))) == 1


def test_of_another_type_there_is_nothing_but_the_name_is_there(ask: Ask) -> None:
    assert count(ask(question("web", wire.AAAA))) == 1
    for kind in (15, 16, 65):
        assert (code(ask(question("web", kind))), count(ask(question("web", kind)))) == (wire.NOERROR, 0)
    assert count(ask(question("web", wire.ANY))) == 3


def test_addresses_have_names(ask: Ask) -> None:
    assert wire.written_name(name_of("web")) in ask(question("9.0.0.127.in-addr.arpa", wire.PTR))
    assert wire.written_name(name_of("web")) in ask(question("9." + "0." * 31 + "ip6.arpa", wire.PTR))
    assert code(ask(question("77.0.0.127.in-addr.arpa", wire.PTR))) == wire.NXDOMAIN


def test_the_host_has_a_name(ask: Ask) -> None:
    for name in ("host.containers.internal", "host.docker.internal"):
        assert ask(question(name)).endswith(bytes([127, 0, 0, 1]))


def test_what_is_too_long_is_cut_off_unless_more_is_taken(ask: Ask, server: tuple[int, Path]) -> None:
    cut = ask(question("many"))
    assert cut[2] & 2 and count(cut) == 0 and len(cut) <= 512
    still = ask(question("many", more=edns(4096), records=1))
    assert still[2] & 2 and len(still) <= wire.LARGEST  # what would be sent in pieces is not sent
    with socket.create_connection(("127.0.0.1", server[0]), DEADLINE) as stream:
        message = question("many")
        stream.sendall((len(message).to_bytes(2, "big") + message) * 1000)  # one answer after the other
        reader = stream.makefile("rb")
        for _ in range(1000):
            whole = reader.read(int.from_bytes(reader.read(2), "big"))
            assert not whole[2] & 2 and count(whole) == 99
        reader.close()


def test_edns(ask: Ask) -> None:
    answer = ask(question("web", more=edns(1400), records=1))
    assert answer[10:12] == b"\0\1" and answer.endswith(edns(wire.LARGEST))
    newer = ask(question("web", more=edns(1400, version=1), records=1))
    assert newer[-6] == 1 and code(newer) == 0  # BADVERS is 16: its upper bits are in there


def test_what_it_does_not_do_it_says(ask: Ask) -> None:
    assert code(ask(question("web", flags=4 << 11))) == wire.NOTIMP
    assert code(ask(question("web")[:-1] + b"\3")) == wire.REFUSED  # of the class CHAOS
    assert code(ask(question("web") + b"x")) == wire.FORMERR
    assert code(ask(question("web")[:-2])) == wire.FORMERR


def test_it_answers_no_answers(server: tuple[int, Path]) -> None:
    """Else two servers could go on for ever; what is asked afterwards is what is answered first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(("127.0.0.1", server[0]))
        for message in (question("web", flags=wire.QR), question("web", flags=wire.QR)[:-1], b"short"):
            sock.send(b"\0\0" + message[2:])
        sock.send(question("web"))
        assert sock.recv(512)[:2] == b"\x12\x34"


def test_names_are_read_again_when_they_change(ask: Ask, server: tuple[int, Path]) -> None:
    assert count(ask(question("web"))) == 2
    write_names(server[1], {**NAMES, "names": {"web": ["127.0.0.77"]}})
    assert ask(question("web")).endswith(bytes([127, 0, 0, 77]))


def test_a_slow_one_keeps_nobody(ask: Ask, server: tuple[int, Path]) -> None:
    with socket.create_connection(("127.0.0.1", server[0]), DEADLINE) as stream:
        stream.sendall(b"\0")
        assert count(ask(question("web"))) == 2
        stream.sendall(len(question("web")).to_bytes(2, "big")[1:] + question("web"))
        assert stream.recv(2)


def test_without_anybody_to_ask_it_says_so(ask: Ask, server: tuple[int, Path]) -> None:
    (server[1] / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # it itself
    assert code(ask(question("example.com"))) == wire.SERVFAIL


def test_the_hosts_resolvers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    assert resolvers(str(file)) == ["127.0.0.1"]
    file.write_text(
        "# nameserver 1.1.1.1\nnameserver 10.0.0.1\nsearch x\nnameserver fd00:0::1\nnameserver fe80::1%eth0\n"
    )
    assert resolvers(str(file)) == ["10.0.0.1", "fd00::1"]


def test_only_what_was_asked_is_an_answer() -> None:
    query = read_query(question("example.com"))
    true = b"\xab\xcd\x81\x80" + question("EXAMPLE.com")[4:]
    assert wire.answers(true, query, 0xABCD)
    for other in (
        true[:5],
        b"\xab\xce" + true[2:],
        b"\xab\xcd\x01" + true[3:],
        b"\xab\xcd\x81\x80" + question("example.org")[4:],
        b"\xab\xcd\x81\x80" + question("example.com", wire.AAAA)[4:],
    ):
        assert not wire.answers(other, query, 0xABCD)


@pytest.mark.parametrize("name", [
    b"\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\xc0\x00", b"\x40a\0", b"\x3fa", b"\x01a" * 127 + b"\x01a\0", b"\x01a", b"\xc0",
])  # fmt: skip
def test_names_that_are_none(name: bytes) -> None:
    with pytest.raises(Malformed):
        wire.read_name(bytes(12) + name, 12)


def test_a_pointer_that_leads_backwards() -> None:
    data = bytes(12) + b"\3www\7Example\0" + b"\4mail\xc0\x10"
    assert wire.read_name(data, 25) == ((b"mail", b"example"), len(data))
