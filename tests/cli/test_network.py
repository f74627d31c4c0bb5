"""Networks as a user has them: the command, on a host of the test's own, and what packets do there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.neighbourhood import Host

pytestmark = needs_root

NEVER = 0.3  # s, after which what does not answer is taken not to: nothing here is further away than a bridge

Inside = Callable[[str], Host]


@pytest.fixture
def up(on: Command) -> Iterator[Callable[..., dict[str, Any]]]:
    """Starts containers that run by themselves, and removes them in the end; returns what `inspect` says."""
    names: list[str] = []

    def start(name: str, *options: str) -> dict[str, Any]:
        names.append(name)
        done = on("run", "-d", "--name", name, *options, "busybox", "sleep", "600")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return known(on, name)

    yield start
    on("rm", "-f", *names)
    assert on.containers() == []


def known(on: Command, name: str) -> dict[str, Any]:
    """What `inspect` says of a container's networks and ports."""
    [found] = json.loads(on("inspect", name).stdout)
    return dict(found["NetworkSettings"])


def address(settings: dict[str, Any], network: str = "bridge", kind: str = "IPAddress") -> str:
    return str(settings["Networks"][network][kind])


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def pings(on: Command, name: str, where: str) -> bool:
    return on("exec", name, "ping", "-c", "1", "-W", "1", where).returncode == 0


# The default network


def test_a_container_has_an_address_and_a_way_out(on: Command, host: Host) -> None:
    shown = good(on("run", "--rm", "busybox", "sh", "-c", "ip -o -4 address; ip route; ip -o link show eth0"))
    assert re.search(r"eth0\s+inet 172\.17\.0\.2/16", shown), shown
    assert "default via 172.17.0.1 dev eth0" in shown
    assert "link/ether 02:42:ac:11:00:02" in shown


def test_with_users_of_its_own(on: Command, host: Host) -> None:
    words = "ip -o -4 address show eth0; stat -c %u /etc/hosts; cat /proc/self/uid_map"
    shown = good(on("run", "--rm", "--uidmap", "0:100000:65536", "busybox", "sh", "-c", words))
    assert "172.17.0.2/16" in shown and shown.split()[-4:] == ["0", "0", "100000", "65536"]


def test_who_ends_while_it_is_connected_says_why(on: Command, host: Host) -> None:
    for _ in range(5):  # the connection may be made before or after
        done = on("run", "--rm", "--boottime", "-999999999", "busybox", "true")
        assert done.returncode == 125 and "a clock would be below zero" in one_line(done.stderr)


def test_nothing_of_it_is_there_without_containers(on: Command, host: Host) -> None:
    """The fixture sees that all is as before; here, that it is not so meanwhile, or it would see nothing."""
    good(on("run", "-d", "--name", "a", "busybox", "sleep", "600"))
    assert "minicontainer0" in host("ip", "link") and "minicontainer" in host("nft", "list", "tables")
    assert host("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"
    good(on("rm", "-f", "a"))
    host.restored()
    assert host("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"


def test_the_subnet_is_the_next_one_where_the_host_has_it_already(on: Command, host: Host) -> None:
    # Without a link-local address, which would be another one, "tentative" first, while we look.
    host.shell("ip link add lan type bridge; ip link set lan addrgenmode none up; ip address add 172.17.5.1/24 dev lan;"
               "ip route add 172.18.0.0/16 dev lan")  # fmt: skip
    host.remember()
    assert "172.19.0.2/16" in good(on("run", "--rm", "busybox", "ip", "-o", "-4", "address"))


def test_two_state_directories_do_not_disturb_each_other(on: Command, host: Host, tmp_path: Path, images: Path) -> None:
    other = Command(tmp_path / "other", on.words)
    other.root.mkdir()
    (other.root / "images").symlink_to(images)
    good(on("run", "-d", "--name", "a", "busybox", "sleep", "600"))
    good(other("run", "-d", "--name", "a", "busybox", "sleep", "600"))
    assert address(known(on, "a")) == "172.17.0.2" and address(known(other, "a")) == "172.18.0.2"
    good(on("rm", "-f", "a"))
    wait_until(lambda: "minicontainer0" not in host("ip", "link"), "the first one's bridge goes")
    assert host("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert pings(other, "a", "172.18.0.1")
    good(other("rm", "-f", "a"))


def test_containers_reach_each_other(on: Command, up: Callable[..., Any], inside: Inside) -> None:
    one, two = up("one"), up("two")
    assert address(one) != address(two)
    assert pings(on, "one", address(two)) and pings(on, "two", address(one))
    inside("two").serve("tcp", "0.0.0.0", 80, "two")
    assert inside("one").ask("tcp", address(two), 80) == f"two {address(one)}"


def test_out_through_nat(on: Command, up: Callable[..., Any], host: Host, internet: Host, inside: Inside) -> None:
    internet.serve("tcp", "198.51.100.1", 80, "outside")
    internet.serve("udp", "198.51.100.1", 53, "outside")
    up("one")
    for kind, port in (("tcp", 80), ("udp", 53)):
        assert inside("one").ask(kind, "198.51.100.1", port) == "outside 198.51.100.2"
    assert pings(on, "one", "198.51.100.1")


def test_nobody_gets_in_from_outside_but_to_published_ports(
    on: Command, up: Callable[..., Any], internet: Host, inside: Inside
) -> None:
    """Who knows the address of a container, and the host to be its gateway, is not let in for that."""
    settings = up("one", "-p", "198.51.100.2:8080:80")
    inside("one").serve("tcp", "0.0.0.0", 80, "one")
    inside("one").serve("tcp", "0.0.0.0", 81, "one")
    internet("ip", "route", "add", "172.17.0.0/16", "via", "198.51.100.2")
    assert internet.ask("tcp", "198.51.100.2", 8080) == "one 198.51.100.1"
    assert internet.ask("tcp", address(settings), 81, NEVER) in ("TimeoutError", "ConnectionRefusedError")


# Ports


def test_a_published_port(on: Command, up: Callable[..., Any], host: Host, internet: Host, inside: Inside) -> None:
    up("one", "-p", "0.0.0.0:8080:80", "-p", "0.0.0.0:8053:53/udp")
    up("two")
    inside("one").serve("tcp", "0.0.0.0", 80, "one")
    inside("one").serve("udp", "0.0.0.0", 53, "one")
    for kind, port in (("tcp", 8080), ("udp", 8053)):
        assert internet.ask(kind, "198.51.100.2", port) == "one 198.51.100.1"  # and its address is kept
        assert host.ask(kind, "127.0.0.1", port).startswith("one ")
        assert host.ask(kind, "198.51.100.2", port).startswith("one ")
        assert inside("two").ask(kind, "198.51.100.2", port).startswith("one ")  # hairpin
        assert inside("one").ask(kind, "198.51.100.2", port).startswith("one ")


def test_it_is_the_loopbacks_only_unless_told_otherwise(
    up: Callable[..., Any], host: Host, internet: Host, inside: Inside
) -> None:
    up("one", "-p", "8080:80")
    inside("one").serve("tcp", "0.0.0.0", 80, "one")
    assert host.ask("tcp", "127.0.0.1", 8080).startswith("one ")
    assert internet.ask("tcp", "198.51.100.2", 8080, NEVER) == "ConnectionRefusedError"
    internet.shell("ip route add 127.0.0.0/8 via 198.51.100.2 table 7 || true")


def test_ranges_and_random_ports(on: Command, up: Callable[..., Any], host: Host, inside: Inside) -> None:
    settings = up("one", "-p", "8000-8002:80-82", "-p", "90")
    inside("one").serve("tcp", "0.0.0.0", 82, "82")
    inside("one").serve("tcp", "0.0.0.0", 90, "90")
    [random] = settings["Ports"]["90/tcp"]
    assert random["HostIp"] == "127.0.0.1" and int(random["HostPort"]) > 1023
    assert host.ask("tcp", "127.0.0.1", 8002).startswith("82 ")
    assert host.ask("tcp", "127.0.0.1", int(random["HostPort"])).startswith("90 ")
    lines = good(on("port", "one")).splitlines()
    assert lines[:3] == [f"{port}/tcp -> 127.0.0.1:{7920 + port}" for port in (80, 81, 82)] and len(lines) == 4


def test_a_range_of_the_host_for_one_port_is_a_choice(on: Command, up: Callable[..., Any]) -> None:
    up("one", "-p", "8000-8001:80")
    up("two", "-p", "8000-8001:80")
    assert "80/tcp -> 127.0.0.1:8001" in good(on("port", "two"))
    done = on("run", "--rm", "-p", "8000-8001:80", "busybox", "true")
    assert "no port of 127.0.0.1 from 8000 to 8001 is free" in one_line(done.stderr)


def test_a_port_in_use_says_by_whom(on: Command, up: Callable[..., Any], host: Host) -> None:
    up("one", "-p", "8080:80")
    done = on("run", "--rm", "-p", "8080:80", "busybox", "true")
    assert done.returncode == 125
    assert one_line(done.stderr) == (
        'the port 127.0.0.1:8080/tcp is published already by container "one"; choose another'
    )
    host.serve("tcp", "127.0.0.1", 8081)
    server = host.others[-1].pid
    done = on("run", "--rm", "-p", "8081:80", "busybox", "true")
    assert re.search(rf"127\.0\.0\.1:8081/tcp is in use by process {server} \(python", one_line(done.stderr))
    for wanted in ("0.0.0.0:8080:80", "0.0.0.0:8081:80"):
        assert on("run", "--rm", "-p", wanted, "busybox", "true").returncode == 125
    good(on("run", "--rm", "-p", "8080:80/udp", "busybox", "true"))


def test_ports_change_while_it_runs(
    on: Command, up: Callable[..., Any], host: Host, internet: Host, inside: Inside
) -> None:
    """What docker's users have asked for since 2013."""
    up("one", "-p", "8080:80")
    inside("one").serve("tcp", "0.0.0.0", 80, "one")
    assert good(on("update", "--publish", "0.0.0.0:9090:80", "--unpublish", "8080:80", "one")) == "one\n"
    assert internet.ask("tcp", "198.51.100.2", 9090) == "one 198.51.100.1"
    assert host.ask("tcp", "127.0.0.1", 8080, NEVER) == "ConnectionRefusedError"
    assert good(on("port", "one")) == "80/tcp -> 0.0.0.0:9090\n"
    done = on("update", "--unpublish", "8080:80", "one")
    assert done.returncode == 1 and 'container "one" does not publish 80/tcp there' in one_line(done.stderr)
    host.serve("tcp", "127.0.0.1", 8081)
    done = on("update", "--publish", "8082:80", "--publish", "8081:80", "one")
    assert "8081/tcp is in use by process" in one_line(done.stderr)
    assert good(on("port", "one")) == "80/tcp -> 0.0.0.0:9090\n"  # all or nothing
    good(on("stop", "-t", "0", "one"))
    good(on("start", "one"))
    assert good(on("port", "one")) == "80/tcp -> 0.0.0.0:9090\n"


def test_a_port_that_is_published_anew_does_not_lead_to_who_had_it(
    on: Command, up: Callable[..., Any], host: Host, inside: Inside
) -> None:
    """UDP has no end of a connection: what the kernel remembers of the old one has to be forgotten."""
    up("one", "-p", "8053:53/udp")
    inside("one").serve("udp", "0.0.0.0", 53, "one")
    client = [sys.executable, "-u", "-c", "import socket\ns = socket.socket(2, 2)\ns.settimeout(5)\n"
              "s.connect(('127.0.0.1', 8053))\n"
              "while input() == 'go':\n s.send(b'x')\n print(s.recv(99).decode().strip())"]  # fmt: skip
    process = subprocess.Popen(host.line(*client), stdin=-1, stdout=-1, text=True)
    host.others.append(process)
    assert process.stdin and process.stdout

    def ask() -> str:
        print("go", file=process.stdin, flush=True)
        return process.stdout.readline().split(" ")[0] if process.stdout else ""

    assert ask() == "one"
    good(on("update", "--unpublish", "8053:53/udp", "one"))
    up("two", "-p", "8053:53/udp")
    inside("two").serve("udp", "0.0.0.0", 53, "two")
    assert ask() == "two"


# Networks of one's own


def test_one_network_does_not_reach_another(on: Command, up: Callable[..., Any], inside: Inside) -> None:
    good(on("network", "create", "green"))
    green, blue = up("g", "--network", "green"), up("b")
    inside("g").serve("tcp", "0.0.0.0", 80, "g")
    assert not pings(on, "b", address(green, "green")) and not pings(on, "g", address(blue))
    assert inside("b").ask("tcp", address(green, "green"), 80, NEVER) != f"g {address(blue)}"


def test_an_internal_network_leads_nowhere(on: Command, up: Callable[..., Any], internet: Host, inside: Inside) -> None:
    internet.serve("tcp", "198.51.100.1", 80, "outside")
    good(on("network", "create", "--internal", "--subnet", "10.7.0.0/24", "closed"))
    up("one", "--network", "closed")
    up("two", "--network", "closed")
    assert pings(on, "one", address(known(on, "two"), "closed"))
    assert "outside" not in inside("one").ask("tcp", "198.51.100.1", 80, NEVER)
    inside("one")("ip", "route", "add", "default", "via", "10.7.0.1")
    assert "outside" not in inside("one").ask("tcp", "198.51.100.1", 80, NEVER)
    done = on("run", "--rm", "--network", "closed", "-p", "80", "busybox", "true")
    assert "internal network" in one_line(done.stderr)


def test_everything_that_can_be_chosen(on: Command, up: Callable[..., Any], host: Host, inside: Inside) -> None:
    good(on("network", "create", "--subnet", "10.7.0.0/24", "--gateway", "10.7.0.254", "--ip-range", "10.7.0.128/25",
            "--ipv6", "--subnet", "fd00:7::/64", "-o", "mtu=1400", "-o", "name=br7", "own"))  # fmt: skip
    up("one", "--network", "own", "--mac-address", "02:00:00:00:00:07", "--ip6", "fd00:7::77")
    up("two", "--network", "own,ip=10.7.0.7,interface=lan0")
    one, two = known(on, "one"), known(on, "two")
    assert address(one, "own") == "10.7.0.128" and address(two, "own") == "10.7.0.7"
    assert address(one, "own", "GlobalIPv6Address") == "fd00:7::77"
    shown = inside("one")("ip", "address", "show", "eth0")
    assert "mtu 1400" in shown and "link/ether 02:00:00:00:00:07" in shown
    assert re.search(r"fd00:7::77/64 scope global (nodad )?\n", shown)
    assert "default via 10.7.0.254" in inside("two")("ip", "route") and "lan0" in inside("two")("ip", "link")
    assert "mtu 1400" in host("ip", "link", "show", "br7") and "10.7.0.254/24" in host("ip", "address", "show", "br7")
    assert pings(on, "two", "fd00:7::77") and pings(on, "two", "10.7.0.128")
    [shown_as] = json.loads(good(on("network", "inspect", "own")))
    assert shown_as["Mtu"] == 1400 and shown_as["EnableIPv6"] and not shown_as["Internal"]
    assert {one["Name"] for one in shown_as["Containers"].values()} == {"one", "two"}


def test_ipv6_out_and_in(on: Command, up: Callable[..., Any], host: Host, internet: Host, inside: Inside) -> None:
    internet.serve("tcp", "2001:db8::1", 80, "outside")
    good(on("network", "create", "--ipv6", "six"))
    up("one", "--network", "six", "-p", "[::]:8080:80", "-p", "[::1]:8081:80")
    inside("one").serve("tcp", "::", 80, "one")
    assert inside("one").ask("tcp", "2001:db8::1", 80) == "outside 2001:db8::2"
    assert internet.ask("tcp", "2001:db8::2", 8080) == "one 2001:db8::1"


def test_several_networks_and_live_ones(on: Command, up: Callable[..., Any], inside: Inside) -> None:
    good(on("network", "create", "--subnet", "10.7.0.0/24", "green"))
    good(on("network", "create", "--subnet", "10.8.0.0/24", "blue"))
    up("one", "--network", "green", "--network", "blue,ip=10.8.0.9")
    up("two", "--network", "blue")
    assert sorted(known(on, "one")["Networks"]) == ["blue", "green"]
    assert inside("one")("ip", "route").count("default") == 1
    assert pings(on, "two", "10.8.0.9")
    good(on("network", "disconnect", "blue", "one"))
    assert "eth1" not in inside("one")("ip", "link") and not pings(on, "two", "10.8.0.9")
    good(on("network", "connect", "--ip", "10.7.0.77", "green", "two"))
    assert pings(on, "one", "10.7.0.77")
    done = on("network", "connect", "green", "two")
    assert done.returncode == 1 and "is on network" in one_line(done.stderr)
    good(on("stop", "-t", "0", "two"))
    good(on("start", "two"))
    assert sorted(known(on, "two")["Networks"]) == ["blue", "green"]
    assert address(known(on, "two"), "green") == "10.7.0.77"


def test_what_had_no_network_is_given_one(on: Command, up: Callable[..., Any], internet: Host, inside: Inside) -> None:
    internet.serve("tcp", "198.51.100.1", 80, "outside")
    up("one", "--network", "none")
    good(on("network", "connect", "bridge", "one"))
    assert inside("one").ask("tcp", "198.51.100.1", 80) == "outside 198.51.100.2"


def test_the_network_of_another_container_and_the_hosts(on: Command, up: Callable[..., Any], host: Host) -> None:
    up("one")
    mine = good(on("exec", "one", "readlink", "/proc/self/ns/net"))
    assert good(on("run", "--rm", "--network", "container:one", "busybox", "readlink", "/proc/self/ns/net")) == mine
    assert good(on("run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net")) == (
        host("readlink", "/proc/self/ns/net")
    )
    none = good(on("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link"))
    assert none.count("\n") == 1 and "lo" in none
    done = on("run", "--rm", "--network", "container:nobody", "busybox", "true")
    assert 'there is no container "nobody"' in one_line(done.stderr)


def test_devices_of_the_host(on: Command, up: Callable[..., Any], host: Host, internet: Host) -> None:
    kinds = ["ipvlan", "macvlan"]
    for kind in kinds:
        made = subprocess.run(
            host.line("ip", "link", "add", "probe", "link", "uplink", "type", kind), capture_output=True
        )
        host("ip", "link", "delete", "probe", check=False)
        good(on("network", "create", "-d", kind, "--subnet", "198.51.100.0/24", "-o", "parent=uplink", "lan"))
        done = on("run", "--rm", "--network", "lan,ip=198.51.100.77", "busybox", "ping", "-c1", "-W2", "198.51.100.1")
        if made.returncode == 0:
            good(done)
        else:
            assert kind in one_line(done.stderr)
        good(on("network", "rm", "lan"))


def test_a_nic_of_the_host_on_a_bridge(on: Command, up: Callable[..., Any], host: Host, internet: Host) -> None:
    good(on("network", "create", "-d", "physical", "-o", "parent=uplink", "--ip-range", "198.51.100.128/25", "lan"))
    up("one", "--network", "lan")
    bridge = json.loads(on("network", "inspect", "lan").stdout)[0]["Device"]
    assert "198.51.100.2/24" in host("ip", "address", "show", bridge)
    assert "inet " not in host("ip", "address", "show", "uplink")
    assert pings(on, "one", "198.51.100.1")
    host("busybox", "ping", "-c1", "-W2", "198.51.100.1")
    internet("busybox", "ping", "-c1", "-W2", address(known(on, "one"), "lan"))


# Over its life


def test_stop_and_start_again(on: Command, up: Callable[..., Any], host: Host) -> None:
    up("one")
    good(on("stop", "-t", "0", "one"))
    assert known(on, "one")["Networks"] == {}
    good(on("start", "one"))
    assert pings(on, "one", "172.17.0.1")


def test_what_ended_by_itself_gives_its_address_back(on: Command, host: Host) -> None:
    good(on("network", "create", "--subnet", "10.7.0.0/30", "tiny"))  # room for the gateway and one container
    for _ in range(3):
        good(on("run", "-d", "--rm", "--name", "one", "--network", "tiny", "busybox", "true"))
        wait_until(lambda: "one" not in on("ps", "-a").stdout, "it has ended")
    done = on("run", "-d", "--name", "two", "--network", "tiny", "busybox", "sleep", "600")
    assert "10.7.0.2" in str(known(on, "two")), done.stderr
    done = on("run", "--rm", "--network", "tiny", "busybox", "true")
    assert 'network "tiny" has no free address left in 10.7.0.0/30' in one_line(done.stderr)
    good(on("rm", "-f", "two"))
    good(on("run", "--rm", "--network", "tiny", "busybox", "true"))


def test_exec_sees_the_same_network(on: Command, up: Callable[..., Any]) -> None:
    settings = up("one")
    assert f"{address(settings)}/16" in good(on("exec", "one", "ip", "-o", "-4", "address"))


def test_traffic_is_counted(on: Command, up: Callable[..., Any]) -> None:
    up("one")
    up("none", "--network", "none")

    def look() -> dict[str, Any]:
        return {one["name"]: one for one in json.loads(good(on("stats", "--json")))}

    before = look()
    assert before["none"]["received"] is None
    good(on("exec", "one", "ping", "-c", "1", "-s", "1400", "172.17.0.1"))
    after = look()["one"]
    assert after["sent"] >= before["one"]["sent"] + 1400 and after["received"] >= before["one"]["received"] + 1400


def test_fifty_at_once_have_fifty_addresses(on: Command, host: Host) -> None:
    names = [f"c{number}" for number in range(50)]
    words = [on.line("run", "-d", "--name", name, "-p", "80", "busybox", "sleep", "600") for name in names]
    started = [subprocess.Popen(line, stdin=-3, stdout=-1, stderr=subprocess.STDOUT, text=True) for line in words]
    try:
        said = [process.communicate(timeout=DEADLINE)[0] for process in started]
        assert [process.returncode for process in started] == [0] * 50, said
        settings = [one["NetworkSettings"] for one in json.loads(good(on("inspect", *names)))]
        assert len({address(one) for one in settings}) == 50
        assert len({one["Ports"]["80/tcp"][0]["HostPort"] for one in settings}) == 50
        neighbours = host("ip", "-o", "link", "show", "master", "minicontainer0")
        assert neighbours.count("\n") == 50
        assert pings(on, "c0", address(settings[-1]))
    finally:
        on("rm", "-f", *names)


def test_beside_the_rules_of_others(
    on: Command, up: Callable[..., Any], host: Host, internet: Host, inside: Inside
) -> None:
    """iptables-nft as docker and libvirt leave it, and iptables-legacy: neither is touched, and both go on to hold."""
    internet.serve("tcp", "198.51.100.1", 80, "outside")
    for tables in ("iptables-nft", "iptables-legacy"):
        host.shell(f"{tables} -t nat -A POSTROUTING -s 172.30.0.0/16 -j MASQUERADE;"
                   f"{tables} -A FORWARD -s 172.30.0.0/16 -j ACCEPT; {tables} -A INPUT -p tcp --dport 9999 -j DROP")  # fmt: skip
    host.remember()
    up("one", "-p", "0.0.0.0:8080:80")
    inside("one").serve("tcp", "0.0.0.0", 80, "one")
    assert inside("one").ask("tcp", "198.51.100.1", 80) == "outside 198.51.100.2"
    assert internet.ask("tcp", "198.51.100.2", 8080) == "one 198.51.100.1"


def test_repair_brings_rules_back_that_somebody_has_flushed(
    on: Command, up: Callable[..., Any], host: Host, internet: Host, inside: Inside
) -> None:
    """As a firewall's scripts do when they are loaded anew."""
    internet.serve("tcp", "198.51.100.1", 80, "outside")
    up("one", "-p", "0.0.0.0:8080:80")
    inside("one").serve("tcp", "0.0.0.0", 80, "one")
    forward = host("cat", "/proc/sys/net/ipv4/ip_forward")
    host.shell("nft flush ruleset; echo 0 >/proc/sys/net/ipv4/ip_forward")
    assert "one" not in internet.ask("tcp", "198.51.100.2", 8080, NEVER)
    good(on("system", "repair"))
    assert internet.ask("tcp", "198.51.100.2", 8080) == "one 198.51.100.1"
    assert inside("one").ask("tcp", "198.51.100.1", 80) == "outside 198.51.100.2"
    assert host("cat", "/proc/sys/net/ipv4/ip_forward") == forward


# What cannot be


BAD_COMMANDS = [
    (["create", "--subnet", "198.51.100.128/25", "x"], "overlaps the address 198.51.100.0/24 of the host's uplink"),
    (["create", "--subnet", "10.7.0.0/24", "--gateway", "10.8.0.1", "x"], "the gateway 10.8.0.1 is outside"),
    (["create", "--subnet", "10.7.0.0/24", "--ip-range", "10.8.0.0/25", "x"], "the range 10.8.0.0/25 is outside"),
    (["create", "--subnet", "10.7.0.5/24", "x"], "did you mean 10.7.0.0/24?"),
    (["create", "--subnet", "10.7.0.0/31", "x"], "no room"),
    (["create", "--subnet", "300.7.0.0/16", "x"], "is no address"),
    (["create", "bridge"], "is always there"),
    (["create", "a/b"], "cannot be a network's name"),
    (["create", ".."], "cannot be a network's name"),
    (["create", "-d", "overlay", "x"], 'there is no network driver "overlay"'),
    (["create", "-o", "mtu=12", "x"], "an MTU of 12 cannot be"),
    (["create", "-o", "speed=9", "x"], 'has no option "speed"'),
    (["create", "-o", "mtu", "x"], "cannot understand the option"),
    (["create", "-o", "name=uplink", "x"], "already"),
    (["create", "-d", "physical", "-o", "parent=eth77", "x"], 'no network device "eth77" on this host'),
    (["create", "-d", "macvlan", "x"], "give --opt parent="),
    (["rm", "bridge"], "cannot be removed"),
    (["rm", "nothing"], 'there is no network "nothing"'),
    (["inspect", "nothing"], 'there is no network "nothing"'),
    (["connect", "bridge", "nobody"], 'there is no container "nobody"'),
]

BAD_WISHES = [
    (["--network", "nothing"], 'there is no network "nothing"'),
    (["--network", "own,ip=10.9.0.5"], 'the address 10.9.0.5 is outside of network "own", which is 10.7.0.0/24'),
    (["--network", "own,ip=10.7.0.1"], "is its gateway's"),
    (["--network", "own,ip=10.7.0.255"], "is the subnet's own"),
    (["--network", "own,ip=10.7.0.9"], 'is taken by container "nine"'),
    (["--network", "own", "--ip6", "fd00::5"], "has no IPv6 subnet"),
    (["--network", "own", "-p", "[::1]:80:80"], "has no IPv6"),
    (["--network", "own", "-p", "203.0.113.9:80:80"], "this host has no such address"),
    (["--network", "own", "--network", "own"], 'is on network "own" already'),
    (["--network", "own", "--network", "host"], "no other beside"),
    (["--network", "own", "--network", "bridge", "--ip", "10.7.0.5"], "for one network"),
    (["--network", "none", "-p", "80"], "nothing to publish"),
    (["--network", "container:nine", "-p", "80"], "nothing to publish"),
    (["-p", "80:80", "-p", "80:81"], "is wanted twice"),
    (["-p", "x"], "cannot publish"),
    (["--ip", "x"], "is no address"),
]


def test_bad_input(on: Command, internet: Host) -> None:
    for words, reason in BAD_COMMANDS:
        done = on("network", *words)
        assert done.returncode in (1, 125) and reason in one_line(done.stderr), done.stderr
    assert good(on("network", "ls", "-q")).split() == ["bridge", "host", "none"]


def test_bad_wishes(on: Command, up: Callable[..., Any], host: Host) -> None:
    good(on("network", "create", "--subnet", "10.7.0.0/24", "own"))
    up("nine", "--network", "own,ip=10.7.0.9")
    for words, reason in BAD_WISHES:
        done = on("run", "--name", "one", *words, "busybox", "true")
        assert done.returncode in (1, 125) and reason in one_line(done.stderr), done.stderr
        assert len(on.containers()) == 2  # nine, and its name


def test_a_network_in_use_stays(on: Command, up: Callable[..., Any]) -> None:
    good(on("network", "create", "own"))
    up("one", "--network", "own")
    done = on("network", "rm", "own")
    assert done.returncode == 1 and 'network "own" is in use by container "one"' in one_line(done.stderr)
    assert good(on("network", "prune")) == ""
    done = on("network", "create", "own")
    assert 'the network name "own" is taken' in one_line(done.stderr)


def test_prune_takes_down_at_once(on: Command, host: Host) -> None:
    good(on("network", "create", "own"))
    good(on("run", "--rm", "--network", "own", "busybox", "true"))
    good(on("run", "--rm", "busybox", "true"))
    assert sorted(good(on("network", "prune")).split()) == ["bridge", "own"]
    assert host.is_as_before()


def test_rules_of_others_that_are_in_the_way_are_named(on: Command, host: Host) -> None:
    """A policy of drop holds whatever our table accepts: docker's, on a host that has it."""
    host("iptables-nft", "-P", "FORWARD", "DROP")
    host.remember()
    done = on("run", "--rm", "busybox", "true")
    assert done.returncode == 0 and "warning: " in done.stderr and "drop" in one_line(done.stderr)


def test_without_nftables(on: Command, host: Host, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_text("")
    hide = "for file in $(ls -d /usr/lib/*/libnftables.so.1 /usr/sbin/nft); do mount --bind " + str(nothing) + " $file;"
    words = ["unshare", "--mount", "sh", "-c", f'{hide} done; exec "$@"', "sh"]
    without = Command(on.root, [*host.line(), *words, *on.words[on.words.index("env") :]])
    done = without("run", "--rm", "busybox", "true")
    assert done.returncode == 125 and "install nftables" in one_line(done.stderr)
    assert on.containers() == [] and host.is_as_before()


def test_without_the_right_to(on: Command, host: Host) -> None:
    words = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    without = Command(on.root, [*host.line(), *words, *on.words[on.words.index("env") :]])
    done = without("run", "--rm", "busybox", "true")
    assert done.returncode == 125 and "CAP_NET_ADMIN" in one_line(done.stderr)
    assert on.containers() == [] and host.is_as_before()
