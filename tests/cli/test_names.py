"""Names of containers as they have them: their name server and files below /etc, on a host of the test's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.linux import birth_of
from tests.command import Command, needs_root, one_line, wait_until
from tests.neighbourhood import Host

pytestmark = needs_root

UPSTREAM = """
import socket, sys, threading
address, says = sys.argv[1], bytes(map(int, sys.argv[2].split(".")))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind((address, 53))
tcp = socket.socket(); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); tcp.bind((address, 53)); tcp.listen()

def answered(data, stream):
    end = data.index(b"\\0", 12) + 5
    wanted = data[end - 4 : end - 2] == b"\\0\\1"
    cut = b"big" in data[:end] and not stream
    head = data[:2] + (b"\\x87" if cut else b"\\x85") + b"\\x80\\0\\1" + bytes([0, wanted and not cut]) + bytes(4)
    record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x07\\0\\4" + says
    return head + data[12:end] + (record if wanted and not cut else b"")

def streams():
    while True:
        connection, _ = tcp.accept()
        size = int.from_bytes(connection.recv(2), "big")
        message = answered(connection.recv(size), True)
        connection.sendall(len(message).to_bytes(2, "big") + message)
        connection.close()

threading.Thread(target=streams, daemon=True).start()
print("ready", flush=True)
while True:
    data, peer = udp.recvfrom(4096)
    udp.sendto(answered(data, False), peer)
"""
"""A name server to which every name is the same address; names with "big" in them are told over TCP only."""

ASK = """
import socket, sys
server, name, kind, protocol = sys.argv[1:]
labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
question = b"\\x12\\x34\\1\\0\\0\\1" + bytes(6) + labels + b"\\0\\0" + bytes([int(kind)]) + b"\\0\\1"
family = socket.AF_INET6 if ":" in server else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
sock.settimeout(20)
sock.connect((server, 53))
if protocol == "tcp":
    sock.sendall(len(question).to_bytes(2, "big") + question)
    size = int.from_bytes(sock.recv(2), "big")
    data = sock.recv(size)
else:
    sock.send(question)
    data = sock.recv(4096)
assert data[:2] == question[:2]
found, place = [], len(question)
for _ in range(int.from_bytes(data[6:8], "big")):
    size = int.from_bytes(data[place + 10 : place + 12], "big")
    body = data[place + 12 : place + 12 + size]
    place += 12 + size
    found.append(socket.inet_ntop(socket.AF_INET6 if size == 16 else socket.AF_INET, body) if size in (4, 16) else "")
print(data[3] & 15, bool(data[2] & 2), *found)
"""


@pytest.fixture
def up(on: Command) -> Iterator[Callable[..., str]]:
    """Starts containers that run by themselves, and removes them in the end; returns their first IPv4 address."""
    names: list[str] = []

    def start(name: str, *options: str) -> str:
        names.append(name)
        good(on("run", "-d", "--name", name, *options, "busybox", "sleep", "600"))
        [found] = json.loads(on("inspect", name).stdout)
        return str(next(iter(found["NetworkSettings"]["Networks"].values()))["IPAddress"])

    yield start
    on("rm", "-f", *names)
    assert on.containers() == []


@pytest.fixture
def inside(on: Command) -> Callable[[str], Host]:
    """The network of a container that runs."""

    def look(name: str) -> Host:
        [known] = json.loads(on("inspect", name).stdout)
        return Host(known["State"]["Pid"])

    return look


@pytest.fixture
def upstream(host: Host) -> Callable[..., subprocess.Popen[str]]:
    """Starts a name server on an address of the host's loopback."""

    def start(address: str, says: str) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            host.line(sys.executable, "-c", UPSTREAM, address, says), stdout=subprocess.PIPE, text=True
        )
        host.others.append(server)
        assert server.stdout and server.stdout.readline() == "ready\n"
        return server

    return start


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def asked(there: Host, server: str, name: str, kind: int = 1, protocol: str = "udp") -> tuple[int, bool, list[str]]:
    """The code, whether the answer is cut off, and the addresses."""
    code, cut, *found = there(sys.executable, "-c", ASK, server, name, str(kind), protocol).split()
    return int(code), cut == "True", found


def server_of(on: Command, network: str = "bridge") -> int:
    """The pid of a network's name server."""
    return int((on.root / "networks" / network / "server").read_text())


def test_containers_reach_each_other_by_name(on: Command, up: Callable[..., str]) -> None:
    two = up("two", "--network-alias", "db", "--hostname", "second")
    up("one")
    for name in ("two", "TWO", "db", "second"):
        assert f"PING {name} ({two})" in good(on("exec", "one", "ping", "-c", "1", "-W", "5", name))
    looked = good(on("exec", "one", "nslookup", "two"))
    assert "Server:\t\t172.17.0.1" in looked and f"Address: {two}" in looked, looked
    good(on("exec", "one", "ping", "-c", "1", "-W", "5", "host.containers.internal"))
    assert "two" in good(on("exec", "one", "nslookup", two))  # PTR


def test_names_come_and_go(on: Command, up: Callable[..., str], inside: Callable[[str], Host], upstream: Any) -> None:
    upstream("127.0.0.7", "203.0.113.7")
    up("one", "--dns", "127.0.0.7")
    there = inside("one")
    assert asked(there, "172.17.0.1", "late") == (0, False, ["203.0.113.7"])  # the other server knows everything
    late = up("late")
    assert asked(there, "172.17.0.1", "late") == (0, False, [late])
    assert asked(there, "172.17.0.1", "late", protocol="tcp") == (0, False, [late])
    assert asked(there, "172.17.0.1", "late", 28) == (0, False, [])  # the name is there, and has no such address
    assert asked(there, "172.17.0.1", "late", 15) == (0, False, [])
    good(on("rm", "-f", "late"))
    assert asked(there, "172.17.0.1", "late") == (0, False, ["203.0.113.7"])


def test_round_robin(up: Callable[..., str], inside: Callable[[str], Host]) -> None:
    addresses = {up(name, "--network-alias", "web") for name in ("a", "b", "c")}
    there = inside("a")
    answers = [asked(there, "172.17.0.1", "web")[2] for _ in range(6)]
    assert all(set(answer) == addresses and len(answer) == 3 for answer in answers)
    assert {answer[0] for answer in answers} == addresses


def test_ipv6_and_a_network_that_nothing_leaves(
    on: Command, up: Callable[..., str], inside: Callable[[str], Host]
) -> None:
    good(on("network", "create", "--internal", "--subnet", "10.7.0.0/24", "--subnet", "fd00:7::/64", "in"))
    up("one", "--network", "in")
    up("two", "--network", "in,ip6=fd00:7::22")
    there = inside("one")
    wait_until(lambda: "tentative" not in there("ip", "address"), "its addresses are its own")
    for server in ("10.7.0.1", "fd00:7::1"):
        assert asked(there, server, "two", 28) == (0, False, ["fd00:7::22"])
        assert asked(there, server, "example.com")[0] == 3  # NXDOMAIN: nobody else is asked
    good(on("exec", "one", "ping", "-6", "-c", "1", "-W", "5", "two"))
    good(on("rm", "-f", "one", "two"))
    good(on("network", "rm", "in"))


def test_others_are_asked_by_udp_and_tcp(
    up: Callable[..., str], inside: Callable[[str], Host], upstream: Callable[..., Any]
) -> None:
    """The first of the two servers is dead: that is noticed, and costs no answer."""
    upstream("127.0.0.7", "203.0.113.7")
    up("one", "--dns", "127.0.0.6", "--dns", "127.0.0.7")
    up("gone", "--dns", "127.0.0.6")
    there = inside("one")
    for protocol in ("udp", "tcp"):
        assert asked(there, "172.17.0.1", "example.com", protocol=protocol) == (0, False, ["203.0.113.7"])
    assert asked(there, "172.17.0.1", "big.example.com") == (0, True, [])
    assert asked(there, "172.17.0.1", "big.example.com", protocol="tcp") == (0, False, ["203.0.113.7"])
    assert asked(there, "172.17.0.1", "9.9.17.172.in-addr.arpa", 12)[0] == 3
    for protocol in ("udp", "tcp"):
        assert asked(inside("gone"), "172.17.0.1", "example.com", protocol=protocol) == (2, False, [])


def test_it_does_not_ask_itself(up: Callable[..., str], inside: Callable[[str], Host]) -> None:
    up("one", "--dns", "172.17.0.1")
    assert asked(inside("one"), "172.17.0.1", "example.com") == (2, False, [])


def test_on_two_networks_it_knows_the_names_of_both(
    on: Command, up: Callable[..., str], inside: Callable[[str], Host]
) -> None:
    good(on("network", "create", "--internal", "--subnet", "10.7.0.0/24", "back"))
    up("db", "--network", "back,alias=sql")
    up("web", "--network", "bridge")
    up("other", "--network", "bridge", "--dns", "172.17.0.1")  # itself, so that nobody is asked
    good(on("network", "connect", "back", "web"))
    assert "PING sql" in good(on("exec", "web", "ping", "-c", "1", "-W", "5", "sql"))
    assert asked(inside("other"), "172.17.0.1", "sql")[0] == 2  # that one is none of its neighbours
    assert asked(inside("other"), "10.7.0.1", "sql")[0] == 5  # nor does the other network's server tell
    good(on("network", "disconnect", "back", "web"))
    good(on("rm", "-f", "db", "web", "other"))
    good(on("network", "rm", "back"))


def test_one_server_that_ends_with_the_last_container(on: Command, up: Callable[..., str], host: Host) -> None:
    up("one")
    first = server_of(on)
    up("two")
    assert server_of(on) == first
    assert Path(f"/proc/{first}/cmdline").read_bytes().startswith(b"minicontainer dns")
    good(on("rm", "-f", "one"))
    assert server_of(on) == first and birth_of(first)
    good(on("rm", "-f", "two"))
    host.restored()
    wait_until(lambda: birth_of(first) is None, "it has ended")


def test_it_has_nothing_but_what_it_needs(on: Command, up: Callable[..., str]) -> None:
    up("one")
    directory = f"/proc/{server_of(on)}/fd"
    wait_until(lambda: "anon_inode:inotify" in [os.readlink(f"{directory}/{fd}") for fd in os.listdir(directory)],
               "it has begun")  # fmt: skip
    kinds = sorted(re.sub(r":\[\d+\]", "", os.readlink(f"{directory}/{fd}")) for fd in os.listdir(directory))
    assert kinds == [*["/dev/null"] * 3, str(on.root / "networks/bridge/server"), "anon_inode:inotify",
                     "socket", "socket"]  # fmt: skip


@pytest.mark.parametrize("heals", ["repair", "the next container"])
def test_a_killed_one_comes_back(
    on: Command, up: Callable[..., str], inside: Callable[[str], Host], heals: str
) -> None:
    up("one")
    first = server_of(on)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: birth_of(first) is None, "it is dead")
    if heals == "repair":
        assert 'the name server of network "bridge"' in good(on("system", "repair"))
    else:
        up("two")
    assert server_of(on) != first
    assert asked(inside("one"), "172.17.0.1", "one")[0] == 0


def test_it_ends_by_itself_with_its_directory(on: Command, up: Callable[..., str], inside: Any, host: Host) -> None:
    up("one")
    server = server_of(on)
    assert asked(inside("one"), "172.17.0.1", "one")[0] == 0
    names = on.root / "networks/bridge/names"
    names.rename(on.root / "kept")
    (on.root / "networks/bridge/other").write_text("")
    (on.root / "networks/bridge/other").unlink()  # whoever removes a directory removes more than a file
    wait_until(lambda: birth_of(server) is None, "it has ended")
    (on.root / "kept").rename(names)


def test_another_server_has_the_port(on: Command, host: Host) -> None:
    script = (
        "import socket; s = socket.socket(); s.bind(('0.0.0.0', 53)); s.listen(); print('ready', flush=True); input()"
    )
    server = subprocess.Popen(host.line(sys.executable, "-c", script), stdin=-1, stdout=-1, text=True)
    host.others.append(server)
    assert server.stdout and server.stdout.readline() == "ready\n"
    done = on("run", "--rm", "busybox", "true")
    assert done.returncode == 125
    assert "cannot answer names at 172.17.0.1:53/tcp: another server" in one_line(done.stderr)
    assert on.containers() == []


# Files


def test_its_files(on: Command, host: Host) -> None:
    own = Path("/etc/resolv.conf").read_text() if os.path.exists("/etc/resolv.conf") else ""
    shown = good(on("run", "--rm", "--name", "one", "--hostname", "first", "--add-host", "db:10.0.0.9", "--add-host",
                    "gate:host-gateway", "--dns-search", "example.com", "--dns-option", "ndots:2", "busybox", "sh", "-c",
                    "cat /etc/hostname /etc/hosts /etc/resolv.conf; echo 1.2.3.4 more >>/etc/hosts"))  # fmt: skip
    assert shown.startswith("first\n127.0.0.1\tlocalhost\n")
    assert "10.0.0.9\tdb\n172.17.0.1\tgate\n172.17.0.1\thost.containers.internal host.docker.internal\n" in shown
    assert re.search(r"^172\.17\.0\.2\tfirst one [0-9a-f]{12}$", shown, re.MULTILINE), shown
    assert shown.endswith("nameserver 172.17.0.1\nsearch example.com\noptions ndots:2\n")
    assert own == (Path("/etc/resolv.conf").read_text() if os.path.exists("/etc/resolv.conf") else "")


def test_they_follow_what_it_is_connected_to(on: Command, up: Callable[..., str]) -> None:
    good(on("network", "create", "--subnet", "10.7.0.0/24", "back"))
    up("one")
    good(on("network", "connect", "--alias", "uno", "back", "one"))
    shown = good(on("exec", "one", "cat", "/etc/hosts"))
    assert re.search(r"^10\.7\.0\.2\t.* uno$", shown, re.MULTILINE) and "172.17.0.2\t" in shown
    good(on("network", "disconnect", "back", "one"))
    assert "10.7.0.2" not in good(on("exec", "one", "cat", "/etc/hosts"))
    good(on("network", "rm", "back"))


def test_who_shares_a_network_shares_its_names(on: Command, up: Callable[..., str]) -> None:
    up("one", "--add-host", "db:10.0.0.9")
    shown = good(on("run", "--rm", "--network", "container:one", "busybox", "cat", "/etc/hosts", "/etc/resolv.conf"))
    assert "10.0.0.9\tdb\n" in shown and "nameserver 172.17.0.1\n" in shown


def test_ones_own_file_goes_before(on: Command, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("mine\n")
    mine = f"{tmp_path}/hosts:/etc/hosts"
    assert good(on("run", "--rm", "-v", mine, "busybox", "cat", "/etc/hosts")) == "mine\n"


def test_in_a_directory_without_etc(on: Command, busybox: str, tmp_path: Path) -> None:
    root = tmp_path / "bare"
    subprocess.run(["cp", "-a", busybox, str(root)], check=True)
    subprocess.run(["rm", "-rf", str(root / "etc")], check=True)
    assert "nameserver" in good(on("run", "--rm", "--rootfs", str(root), "cat", "/etc/resolv.conf"))
    assert not (root / "etc").exists()


@pytest.mark.parametrize(("options", "says"), [
    (["--add-host", "db"], 'cannot understand --add-host "db"'),
    (["--add-host", "db:10.0.0"], '"10.0.0" is no address'),
    (["--dns", "example"], '"example" is no address'),
    (["--dns-search", "a b"], 'cannot be a word of resolv.conf'),
    (["--network", "none", "--dns", "10.0.0.1"], "--dns 10.0.0.1: it has no network of its own"),
    (["--network", "host", "--add-host", "a:10.0.0.1"], "--add-host a:10.0.0.1: it has no network of its own"),
])  # fmt: skip
def test_what_cannot_be(on: Command, options: list[str], says: str) -> None:
    done = on("run", "--rm", *options, "busybox", "true")
    assert done.returncode == 125 and says in one_line(done.stderr)
    assert on.containers() == []
