"""The name server of one network: a process that answers for the network's names, and asks others about the rest.

It has one thread, and waits for nothing but poll(2): whoever is slow, asking or answering, keeps nobody else. What the
names are is in a file that is replaced whenever they change (`network.store`), and looked at before each answer. It is
started and ended by `network.serving`; it ends by itself when that file goes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import time
from _socket import AF_INET, AF_INET6, SO_ERROR, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Socket
from collections.abc import Callable

from minicontainer.linux import close_range, set_title
from minicontainer.linux.inotify import inotify_add_watch, inotify_init1
from minicontainer.network import wire
from minicontainer.network.addresses import Subnet, canonical, read_address, read_subnet
from minicontainer.network.errors import NetworkError
from minicontainer.network.wire import Malformed, Name, Query, answer, read_query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATIENCE = 1.5
"""Seconds until the next server is asked."""

ROUNDS = 2
"""So often each of them is."""

IDLE = 10.0
"""Seconds until a TCP connection that nothing comes from is closed."""

MOST_ASKED = 512
"""Questions to others that wait for their answers at the same time."""

MOST_CONNECTIONS = 64

HOST_NAMES = ("host.containers.internal", "host.docker.internal", "gateway.docker.internal")
"""What containers call the host, podman's name and docker's."""

IN_DELETE, IN_DELETE_SELF = 0x200, 0x400

RESOLV_CONF = "/etc/resolv.conf"

Reply = Callable[[bytes], None]


class Names:
    """The file of names, as it is now."""

    def __init__(self, directory: str, gateways: list[str], subnets: list[str]) -> None:
        self.directory = directory
        self._file = f"{directory}/names"
        self._gateways = gateways
        self._subnets: list[Subnet] = [read_subnet(one) for one in subnets]
        self._seen: tuple[int, int] | None = None
        self._turn = 0
        self.addresses: dict[Name, list[str]] = {}
        self.names: dict[str, list[Name]] = {}
        self.containers: dict[str, str] = {}
        """A container's address → its id."""
        self.servers: dict[str, list[str]] = {}
        """A container's address → the servers that it wants asked."""

    def there(self) -> bool:
        """Whether there still is such a network."""
        return os.path.exists(self._file)

    def refresh(self) -> bool:
        """Read it again if it is another than last time: it is replaced, never written to. False: it is not there."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            now = os.stat(self._file)
            if self._seen == (now.st_ino, now.st_mtime_ns):
                return True
            with open(self._file, "rb") as file:
                data = json.load(file)
            self._seen = (now.st_ino, now.st_mtime_ns)
            self.names, self.servers, self.containers = {}, data["servers"], data["containers"]
            self.addresses = {}
            for name, found in (*data["names"].items(), *((name, self._gateways) for name in HOST_NAMES)):
                labels = wire.name_of(name)
                with contextlib.suppress(Malformed):  # a host name of 64 letters is none here
                    wire.written_name(labels)
                    self.addresses[labels] = list(dict.fromkeys(found))
                    for address in found:
                        self.names.setdefault(address, []).append(labels)
            return True
        return False

    def records(self, query: Query) -> list[tuple[int, bytes]] | None:
        """What is to be answered; empty: there is the name, and nothing of this type; None: it is not one of ours."""
        address = wire.address_of(query.name)
        if address is not None and address in self.names:
            wanted_here = query.type in (wire.PTR, wire.ANY)
            return [(wire.PTR, wire.written_name(name)) for name in self.names[address]] if wanted_here else []
        found = self.addresses.get(query.name)
        if found is None:
            return None
        wanted = {wire.A: (4,), wire.AAAA: (6,), wire.ANY: (4, 6)}.get(query.type, ())
        self._turn += 1  # round robin: each of several containers of one name is the first one in its turn
        split = self._turn % len(found) if found else 0
        records = []
        for version, number in map(read_address, [*found[split:], *found[:split]]):
            if version in wanted:
                kind, size = (wire.A, 4) if version == 4 else (wire.AAAA, 16)
                records.append((kind, number.to_bytes(size, "big")))
        return records

    def is_inside(self, query: Query) -> bool:
        """Whether it asks about an address of this network: nobody else can know it, nor need hear of it."""
        address = wire.address_of(query.name)
        return address is not None and self.has(address)

    def has(self, address: str) -> bool:
        """Whether this is an address of this network: others reach the gateway too, and its names are not theirs."""
        return "%" not in address and any(address in subnet for subnet in self._subnets)


class Server:
    """All of it: sockets, connections, questions that are out."""

    def __init__(
        self, names: Names, sockets: list[Socket], gateways: list[str], *, forwards: bool, resolv_conf: str
    ) -> None:
        self._names = names
        self._others: dict[str, Names] = {}
        self._gateways = set(gateways)
        self._forwards = forwards
        self._resolv_conf = resolv_conf
        self._poll = select.poll()
        self._acts: dict[int, Callable[[], object]] = {}
        self._deadlines: dict[int, tuple[float, Callable[[], object]]] = {}
        self.asked: set[_Asked] = set()
        self.connections: set[_Connection] = set()
        for one in sockets:
            one.setblocking(False)
            listens = bool(one.type & 7 == SOCK_STREAM)
            self.watch(one.fileno(), select.POLLIN, self._accepting(one) if listens else self._receiving(one))

    def run(self, watched: int | None = None) -> None:
        """Answer until the names are gone; `watched`: readable when they may be, else it is looked every second."""
        if watched is not None:
            self.watch(watched, select.POLLIN, lambda: os.read(watched, 1 << 14))
        while self._names.there():
            self.step(None if watched is not None else 1.0)

    def step(self, seconds: float | None = None) -> None:
        """Wait until something comes, or has not come for too long, and deal with it."""
        now = time.monotonic()
        ends = [until - now for until, _ in self._deadlines.values()] + ([] if seconds is None else [seconds])
        for fd, _ in self._poll.poll(max(0, min(ends) * 1000 + 1) if ends else None):
            act = self._acts.get(fd)
            if act:
                with contextlib.suppress(BlockingIOError):
                    act()
        now = time.monotonic()
        for until, late in list(self._deadlines.values()):
            if until <= now:
                late()

    def watch(self, fd: int, events: int, act: Callable[[], object]) -> None:
        """Do something whenever this is ready."""
        self._acts[fd] = act
        self._poll.register(fd, events)

    def expect(self, fd: int, seconds: float, late: Callable[[], object]) -> None:
        """Do something when nothing has become of it by then."""
        self._deadlines[fd] = (time.monotonic() + seconds, late)

    def forget(self, fd: int) -> None:
        """Neither of both any more."""
        if self._acts.pop(fd, None):
            self._poll.unregister(fd)
        self._deadlines.pop(fd, None)

    def handle(self, data: bytes, asker: str, reply: Reply, *, stream: bool) -> None:
        """Answer a message, now or later."""
        try:
            query = read_query(data)
        except Malformed:
            if len(data) >= wire.HEADER and not data[2] & 0x80:  # never to what is an answer itself
                reply(wire.refusal(data, wire.FORMERR))
            return
        limit = wire.LONGEST if stream else query.limit
        self._names.refresh()

        def say(code: int, records: list[tuple[int, bytes]] | None = None) -> None:
            reply(answer(query, code, records or [], forwards=self._forwards, limit=limit))

        if query.version:
            say(wire.BADVERS)
        elif query.opcode:
            say(wire.NOTIMP)
        elif query.kind != wire.IN or not self._names.has(asker):
            say(wire.REFUSED)
        elif (records := self._records(query, asker)) is not None:
            say(wire.NOERROR, records)
        elif not self._forwards or self._names.is_inside(query):
            say(wire.NXDOMAIN)
        else:
            servers = self._servers(asker)
            if not servers or len(self.asked) >= MOST_ASKED:
                say(wire.SERVFAIL)
                return

            def answered(message: bytes | None) -> None:
                if message is None:
                    say(wire.SERVFAIL)
                elif not stream and len(message) > max(query.size or 0, wire.SMALLEST):
                    reply(wire.cut(query, data[:2] + message[2:]))
                else:
                    # The asker's own letters, whichever the other server sent.
                    behind = wire.HEADER + len(query.question)
                    reply(data[:2] + message[2 : wire.HEADER] + query.question + message[behind:])

            _Asked(self, query, data, servers, stream, answered).ask()

    def _records(self, query: Query, asker: str) -> list[tuple[int, bytes]] | None:
        """What this network knows, else the others that the asker is on: it asks one server, as resolvers do."""
        records = self._names.records(query)
        container = self._names.containers.get(asker)
        if records is not None or container is None:
            return records
        networks, _, own = self._names.directory.rpartition("/")
        with contextlib.suppress(OSError):
            for name in os.listdir(networks):
                other = self._others.setdefault(name, Names(f"{networks}/{name}", [], []))
                if name == own or not other.refresh():
                    del self._others[name]
                elif container in other.containers.values():
                    records = other.records(query)
                    if records is not None:
                        return records
        return None

    def _servers(self, asker: str) -> list[str]:
        """Who is to be asked for a container: those that it wants, else the host's; never ourselves."""
        wanted = self._names.servers.get(asker) or resolvers(self._resolv_conf)
        return [one for one in wanted if one not in self._gateways]

    def _receiving(self, one: Socket) -> Callable[[], None]:
        def receive() -> None:
            for _ in range(64):  # then it is the others' turn
                data, peer = one.recvfrom(4096)

                def reply(message: bytes, peer: Any = peer) -> None:
                    with contextlib.suppress(OSError):  # it has gone, or takes no more: it will ask again
                        one.sendto(message, peer)

                self.handle(data, peer[0], reply, stream=False)

        return receive

    def _accepting(self, one: Socket) -> Callable[[], None]:
        def accept() -> None:
            try:
                fd, peer = one._accept()  # type: ignore[attr-defined]  # what the class of `socket` is made of
            except OSError:  # it has gone again
                return
            connection = Socket(fileno=fd)
            if len(self.connections) >= MOST_CONNECTIONS:
                connection.close()
                return
            _Connection(self, connection, peer[0])

        return accept


class _Connection:
    """Somebody who asks over TCP: one question after the other, each behind its length in two bytes."""

    def __init__(self, server: Server, connection: Socket, peer: str) -> None:
        self._server = server
        self._socket = connection
        self._peer = peer
        self._came, self._goes = b"", b""
        self._asking = False
        self._at_it = False
        self._open = True
        connection.setblocking(False)
        server.connections.add(self)
        self._next()

    def close(self) -> None:
        """It is over, or takes too long."""
        if self._open:
            self._open = False
            self._server.forget(self._socket.fileno())
            self._server.connections.discard(self)
            self._socket.close()

    def _wait(self) -> None:
        """For the next question, or for room for the answer; while a question is out, for neither."""
        fd = self._socket.fileno()
        self._server.forget(fd)
        if self._goes:
            self._server.watch(fd, select.POLLOUT, self._write)
        elif not self._asking:
            self._server.watch(fd, select.POLLIN, self._read)
        self._server.expect(fd, IDLE, self.close)

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 14)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._came += data
        self._next()

    def _next(self) -> None:
        """Every question that is there in full, as long as each is answered at once."""
        if self._at_it:
            return
        self._at_it = True
        while self._open and not self._asking:
            size = int.from_bytes(self._came[:2], "big")
            if len(self._came) < max(2, size + 2):
                break
            message, self._came = self._came[2 : size + 2], self._came[size + 2 :]
            if size < wire.HEADER or message[2] & 0x80:
                self.close()
                break
            self._asking = True
            self._server.handle(message, self._peer, self._reply, stream=True)
        self._at_it = False
        if self._open:
            self._wait()

    def _reply(self, message: bytes) -> None:
        if self._open:
            self._goes += len(message).to_bytes(2, "big") + message
            self._write()

    def _write(self) -> None:
        try:
            self._goes = self._goes[self._socket.send(self._goes) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._asking = bool(self._goes)
        self._next()


class _Asked:
    """A question that is passed on to one server after the other, until one of them answers.

    Each time with another number and from another port, both by chance, so that nobody can guess what an answer would
    have to look like. `answered` gets the answer; None: nobody gave one.
    """

    def __init__(
        self,
        server: Server,
        query: Query,
        data: bytes,
        servers: list[str],
        stream: bool,
        answered: Callable[[bytes | None], None],
    ) -> None:
        self._server = server
        self._query = query
        self._data = data
        self._left = [*servers] * ROUNDS
        self._stream = stream
        self._answered = answered
        self._socket: Socket | None = None
        self._number = 0
        self._goes, self._came = b"", b""
        self._refused: bytes | None = None
        server.asked.add(self)

    def ask(self) -> None:
        """Ask the next one."""
        self._close()
        while self._left:
            address = self._left.pop(0)
            number = os.urandom(2)
            self._number = int.from_bytes(number, "big")
            message = number + self._data[2:]
            kind = SOCK_STREAM if self._stream else SOCK_DGRAM
            try:
                self._socket = Socket(AF_INET6 if ":" in address else AF_INET, kind | SOCK_CLOEXEC)
                self._socket.setblocking(False)
                failed = self._socket.connect_ex((address, 53))
                if failed not in (0, errno.EINPROGRESS):
                    raise OSError(failed, os.strerror(failed))
                if not self._stream:
                    self._socket.send(message)
            except OSError:
                self._close()
                continue
            fd = self._socket.fileno()
            self._came, self._goes = b"", len(message).to_bytes(2, "big") + message
            if self._stream:
                self._server.watch(fd, select.POLLOUT, self._send)
            else:
                self._server.watch(fd, select.POLLIN, self._receive)
            self._server.expect(fd, PATIENCE, self.ask)
            return
        self._end(self._refused)

    def _send(self) -> None:
        assert self._socket is not None
        try:
            if self._socket.getsockopt(SOL_SOCKET, SO_ERROR):
                raise ConnectionError
            self._goes = self._goes[self._socket.send(self._goes) :]
        except BlockingIOError:
            return
        except OSError:
            self.ask()
            return
        if not self._goes:
            fd, late = self._socket.fileno(), self.ask
            self._server.forget(fd)
            self._server.watch(fd, select.POLLIN, self._receive_stream)
            self._server.expect(fd, PATIENCE, late)

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            self._judge(self._socket.recv(65535))
        except BlockingIOError:
            return
        except OSError:  # nobody listens there, as the kernel there says
            self.ask()

    def _receive_stream(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._came += data
        size = int.from_bytes(self._came[:2], "big")
        if len(self._came) >= 2 and len(self._came) >= size + 2:
            message = self._came[2 : size + 2]
            self._came = b""
            if wire.answers(message, self._query, self._number):
                self._judge(message)
            else:
                self.ask()
        elif not data:
            self.ask()

    def _judge(self, message: bytes) -> None:
        """An answer that is none is not one: the true one may still come."""
        if not wire.answers(message, self._query, self._number):
            return
        if message[3] & 15 in (wire.SERVFAIL, wire.REFUSED, wire.NOTIMP) and self._left:
            self._refused = message  # another one may know better
            self.ask()
            return
        self._end(message)

    def _end(self, message: bytes | None) -> None:
        self._close()
        self._server.asked.discard(self)
        self._answered(message)

    def _close(self) -> None:
        if self._socket is not None:
            self._server.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


def resolvers(file: str = RESOLV_CONF) -> list[str]:
    """The servers that the host itself asks, resolv.conf(5); without any, itself."""
    found = []
    with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                with contextlib.suppress(NetworkError):  # of a link-local address with its device, too
                    found.append(canonical(words[1]))
    return list(dict.fromkeys(found)) or ["127.0.0.1"]


def main(text: str) -> None:
    """The process: `text` says what for, as JSON, and which file descriptors it has inherited."""
    words = json.loads(text)
    set_title("minicontainer dns")
    os.chdir("/")
    kept = sorted([2, words["lock"], *words["sockets"]])
    for fd, following in zip(kept, [*kept[1:], 1 << 32], strict=True):
        if fd + 1 < following:
            close_range(fd + 1, following - 1)
    names = Names(words["directory"], words["gateways"], words["subnets"])
    sockets = [Socket(fileno=fd) for fd in words["sockets"]]
    server = Server(names, sockets, words["gateways"], forwards=words["forwards"], resolv_conf=RESOLV_CONF)
    watch: int | None = None
    try:
        watch = inotify_init1()
        inotify_add_watch(watch, words["directory"], IN_DELETE | IN_DELETE_SELF)
    except OSError:  # the user has no more of these, or it is gone already
        watch = None
    server.run(watch)
