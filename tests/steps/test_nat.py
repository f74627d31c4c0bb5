"""What passes between bridges and the world: shown with real packets, in a world that the test made."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess

import pytest

from minicontainer.steps.bridge import connect, create_bridge, remove_bridge
from minicontainer.steps.nat import isolate, masquerade, obstacles, publish, unpublish, withdraw
from tests.command import needs_root
from tests.netns import HOST, HOST6, OUTSIDE, OUTSIDE6, Node, World, read, run

pytestmark = needs_root

GATEWAY, GATEWAY6 = "172.17.0.1", "fd00:17::1"


def network(world: World, bridge: str = "br0", third: int = 17, internal: bool = False) -> None:
    """A bridge with everything that an engine would do for it."""
    create_bridge(bridge, [f"172.{third}.0.1/16", f"fd00:{third}::1/64"])
    isolate(bridge, internal)
    if not internal:
        masquerade(bridge, [f"172.{third}.0.0/16", f"fd00:{third}::/64"])


def container(world: World, number: int = 2, bridge: str = "br0", third: int = 17) -> Node:
    node = world.node()
    addresses = [f"172.{third}.0.{number}/16", f"fd00:{third}::{number}/64"]
    connect(node.pid, bridge, "eth0", addresses, [f"172.{third}.0.1", f"fd00:{third}::1"])
    return node


def answered(server: socket.socket, client: socket.socket) -> tuple[str, str]:
    """Who the server believes that the client is, and what the client hears from it."""
    with client:
        served, peer = server.accept()
        with served:
            served.sendall(b"hello")
        heard = client.recv(16)
    return peer[0], heard.decode()


def test_out_through_masquerade(world: World) -> None:
    outside = world.outside()
    network(world)
    node = container(world)
    assert node.ping(OUTSIDE)
    assert node.ping(OUTSIDE6)
    with outside.server(80) as server:
        assert answered(server, node.connect(OUTSIDE, 80)) == (HOST, "hello")
    with outside.server(80, address="::") as server:
        assert answered(server, node.connect(OUTSIDE6, 80)) == (HOST6, "hello")


@pytest.mark.parametrize("address", ["", "0.0.0.0", HOST])
def test_in_through_a_published_port_with_the_clients_address(world: World, address: str) -> None:
    outside = world.outside()
    network(world)
    node = container(world)
    publish("br0", [("tcp", address, 8080, "172.17.0.2", 80)])
    with node.server(80) as server:
        assert answered(server, outside.connect(HOST, 8080)) == (OUTSIDE, "hello")
        assert answered(server, world.connect(HOST, 8080)) == (HOST, "hello")
        assert outside.is_kept_from(HOST, 80)
        unpublish([("tcp", address, 8080, "172.17.0.2", 80)])
        assert outside.is_kept_from(HOST, 8080)
        assert world.is_kept_from(HOST, 8080)


def test_a_published_port_by_ipv6(world: World) -> None:
    outside = world.outside()
    network(world)
    node = container(world)
    publish("br0", [("tcp", "::", 8080, "fd00:17::2", 80), ("tcp", HOST6, 8081, "fd00:17::2", 80)])
    with node.server(80, address="::") as server:
        assert answered(server, outside.connect(HOST6, 8080)) == (OUTSIDE6, "hello")
        assert answered(server, outside.connect(HOST6, 8081)) == (OUTSIDE6, "hello")
        assert answered(server, world.connect(HOST6, 8080)) == (HOST6, "hello")


@pytest.mark.parametrize("bridged", ["0", "1"], ids=["", "and br_netfilter"])
def test_from_the_host_by_loopback(world: World, bridged: str) -> None:
    outside = world.outside()
    bridge_filter(bridged)
    network(world)
    node = container(world)
    publish("br0", [("tcp", "127.0.0.1", 8080, "172.17.0.2", 80), ("tcp", "", 8081, "172.17.0.2", 80)])
    with node.server(80) as server:
        assert answered(server, world.connect("127.0.0.1", 8080)) == (GATEWAY, "hello")
        assert answered(server, world.connect("127.0.0.1", 8081)) == (GATEWAY, "hello")
        assert world.is_kept_from(HOST, 8080)
        assert outside.is_kept_from(HOST, 8080)


@pytest.mark.parametrize("bridged", ["0", "1"], ids=["", "and br_netfilter"])
def test_hairpin(world: World, bridged: str) -> None:
    """From a container to a published port of its own network, even its own, by the host's address."""
    world.outside()
    bridge_filter(bridged)
    network(world)
    first, second = container(world, 2), container(world, 3)
    publish("br0", [("tcp", "", 8080, "172.17.0.2", 80)])
    with first.server(80) as server:
        assert answered(server, second.connect(HOST, 8080)) == (GATEWAY, "hello")
        assert answered(server, second.connect(GATEWAY, 8080)) == (GATEWAY, "hello")
        assert answered(server, first.connect(HOST, 8080)) == (GATEWAY, "hello")
        assert answered(server, second.connect("172.17.0.2", 80)) == ("172.17.0.3", "hello")


def bridge_filter(value: str) -> None:
    for protocol in ("iptables", "ip6tables"):
        with open(f"/proc/sys/net/bridge/bridge-nf-call-{protocol}", "w") as file:
            file.write(value)


@pytest.mark.parametrize("bridged", ["0", "1"], ids=["", "and br_netfilter"])
def test_from_one_network_not_into_another(world: World, bridged: str) -> None:
    bridge_filter(bridged)
    network(world)
    network(world, "br1", 18)
    here, there, beside = container(world), container(world, 2, "br1", 18), container(world, 3)
    with there.server(80), there.server(80, address="fd00:18::2"), here.server(80), beside.server(80):
        assert here.is_kept_from("172.18.0.2", 80)
        assert here.is_kept_from("fd00:18::2", 80)
        assert there.is_kept_from("172.17.0.2", 80)
        assert beside.reaches("172.17.0.2", 80)
        assert world.reaches("172.18.0.2", 80)


def test_a_published_port_is_reached_from_another_network(world: World) -> None:
    world.outside()
    network(world)
    network(world, "br1", 18)
    here, there = container(world), container(world, 2, "br1", 18)
    publish("br1", [("tcp", HOST, 8080, "172.18.0.2", 80)])
    with there.server(80) as server:
        assert answered(server, here.connect(HOST, 8080)) == ("172.17.0.2", "hello")


def test_a_neighbour_gets_in_through_no_other_door(world: World) -> None:
    """One who knows the container's address and routes to it through us, and one who asks for 127.0.0.1 (moby 45610)."""
    outside = world.outside()
    network(world)
    node = container(world)
    publish("br0", [("tcp", "127.0.0.1", 8080, "172.17.0.2", 80)])
    outside.run("ip", "route", "add", "172.17.0.0/16", "via", HOST)
    outside.run("ip", "route", "add", "127.0.0.0/8", "via", HOST, "table", "7")
    outside.run("ip", "rule", "add", "pref", "0", "to", "127.0.0.1", "ipproto", "tcp", "dport", "8080", "lookup", "7")
    outside.run("ip", "rule", "del", "pref", "0", "lookup", "local")
    outside.run("ip", "rule", "add", "pref", "10", "lookup", "local")
    outside.run("sysctl", "-q", "net.ipv4.conf.eth0.route_localnet=1")
    with node.server(80):
        assert outside.is_kept_from("172.17.0.2", 80)
        assert outside.is_kept_from("127.0.0.1", 8080)
        assert world.reaches("127.0.0.1", 8080)
        run("nft", "flush", "chain", "inet", "minicontainer", "forward")
        assert outside.reaches("172.17.0.2", 80)  # so it was the rule that kept him out
        rules = json.loads(run("nft", "-j", "list", "chain", "inet", "minicontainer", "prerouting"))["nftables"]
        [first, *_] = [entry["rule"]["handle"] for entry in rules if "rule" in entry]
        run("nft", "delete", "rule", "inet", "minicontainer", "prerouting", "handle", str(first))
        assert outside.reaches("127.0.0.1", 8080)  # and so it was this one


def test_a_container_does_not_reach_the_hosts_loopback(world: World) -> None:
    """Though packets for 127.0.0.1 may be routed from and to the bridge (CVE-2020-8558)."""
    network(world)
    node = container(world)
    publish("br0", [("tcp", "127.0.0.1", 8080, "172.17.0.2", 80)])
    node.run("sysctl", "-q", "net.ipv4.conf.eth0.route_localnet=1")
    node.run("ip", "rule", "add", "pref", "0", "to", "127.0.0.1", "ipproto", "tcp", "dport", "81", "lookup", "7")
    node.run("ip", "rule", "del", "pref", "0", "lookup", "local")
    node.run("ip", "rule", "add", "pref", "10", "lookup", "local")
    node.run("ip", "route", "add", "127.0.0.0/8", "via", GATEWAY, "table", "7", "src", "172.17.0.2")
    with world.server(81, address="127.0.0.1"), world.server(82, address=GATEWAY):
        assert node.reaches(GATEWAY, 82)
        assert node.is_kept_from("127.0.0.1", 81)
        run("nft", "delete", "table", "inet", "minicontainer")
        assert node.reaches("127.0.0.1", 81)  # so it was the rule that kept it out


def test_only_a_bridge_with_ports_routes_to_the_loopback(world: World) -> None:
    network(world)
    setting = "net/ipv4/conf/br0/route_localnet"
    assert read(setting) == "0"
    publish("br0", [("tcp", "::", 8080, "fd00:17::2", 80)])
    assert read(setting) == "0"
    publish("br0", [("tcp", "127.0.0.1", 8080, "172.17.0.2", 80)])
    assert read(setting) == "1"
    withdraw("br0")
    assert read(setting) == "0"


def test_an_internal_network(world: World) -> None:
    outside = world.outside()
    network(world)
    network(world, "br1", 18, internal=True)
    outer, inner, beside = container(world), container(world, 2, "br1", 18), container(world, 3, "br1", 18)
    publish("br1", [("tcp", "", 8080, "172.18.0.2", 80)])
    with outside.server(80), inner.server(80), outer.server(80):
        assert inner.is_kept_from(OUTSIDE, 80)
        assert inner.is_kept_from("172.17.0.2", 80)
        assert outside.is_kept_from(HOST, 8080)
        assert beside.reaches("172.18.0.2", 80)
        assert world.reaches("172.18.0.2", 80)


def test_udp_and_what_a_removed_port_leaves_behind(world: World) -> None:
    """The same client, with the same port of its own, gets to the new container as soon as the port is another's."""
    outside = world.outside()
    network(world)
    old, new = container(world, 2), container(world, 3)
    with old.udp(53) as first, new.udp(53) as second, outside.udp(5000) as client:
        publish("br0", [("udp", "", 53, "172.17.0.2", 53)])
        client.sendto(b"one", (HOST, 53))
        assert first.recvfrom(16) == (b"one", (OUTSIDE, 5000))
        first.sendto(b"answer", (OUTSIDE, 5000))
        assert client.recvfrom(16) == (b"answer", (HOST, 53))
        unpublish([("udp", "", 53, "172.17.0.2", 53)])
        publish("br0", [("udp", "", 53, "172.17.0.3", 53)])
        client.sendto(b"two", (HOST, 53))
        assert second.recvfrom(16) == (b"two", (OUTSIDE, 5000))


def test_udp_from_a_client_who_was_there_before_the_port(world: World) -> None:
    """Connection tracking remembers that it went to the host itself: publishing must make it forget."""
    outside = world.outside()
    network(world)
    node = container(world)
    with node.udp(53) as server, outside.udp(5000) as client:
        client.sendto(b"none", (HOST, 53))
        publish("br0", [("udp", "", 53, "172.17.0.2", 53)])
        client.sendto(b"one", (HOST, 53))
        assert server.recvfrom(16) == (b"one", (OUTSIDE, 5000))


def test_many_ports_in_one_transaction(world: World) -> None:
    outside = world.outside()
    network(world)
    node = container(world)
    ports = [("tcp", "", 9000 + number, "172.17.0.2", 9000 + number) for number in range(200)]
    publish("br0", ports)
    with node.server(9000), node.server(9199):
        assert outside.reaches(HOST, 9000)
        assert outside.reaches(HOST, 9199)
    with pytest.raises(OSError, match=r"published already: tcp . 9199 leads to 172.17.0.2 . 9199 \(br0\)$"):
        publish("br0", [("tcp", "", 8999, "172.17.0.3", 1), ("tcp", "", 9199, "172.17.0.3", 1)])
    with node.server(1):
        assert outside.is_kept_from(HOST, 8999)


def test_the_last_removal_leaves_what_was_found(world: World) -> None:
    world.outside()
    run("nft", "add", "table", "ip", "somebody")
    run("nft", "add", "chain", "ip", "somebody", "forward", "{ type filter hook forward priority 0; }")
    before = world.state()
    network(world)
    network(world, "br1", 18, internal=True)
    publish("br0", [("tcp", "", 8080, "172.17.0.2", 80), ("udp", "127.0.0.1", 8080, "172.17.0.2", 80)])
    assert read("net/ipv4/ip_forward") == "1"
    withdraw("br1")
    withdraw("br1")
    assert read("net/ipv4/ip_forward") == "1"
    assert "br1" not in run("nft", "list", "ruleset")
    withdraw("br0")
    withdraw("br0")
    remove_bridge("br0")
    remove_bridge("br1")
    assert world.state() == before


def test_forwarding_that_was_on_stays_on(world: World) -> None:
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    network(world)
    withdraw("br0")
    assert read("net/ipv4/ip_forward") == "1"
    assert read("net/ipv6/conf/all/forwarding") == "0"


def test_who_drops_by_policy_is_named(world: World) -> None:
    network(world)
    assert obstacles() == []
    run("nft", "add", "table", "ip", "filter")
    run("nft", "add", "chain", "ip", "filter", "FORWARD", "{ type filter hook forward priority 0; policy drop; }")
    [line] = obstacles("br0")
    assert "ip filter FORWARD" in line
    outside = world.outside()
    node = container(world)
    with outside.server(80):
        assert node.is_kept_from(OUTSIDE, 80)
        subprocess.run(line.partition("lets them: ")[2], shell=True, check=True)  # what it says to do, helps
        assert node.reaches(OUTSIDE, 80)


@pytest.mark.skipif(not shutil.which("iptables-legacy"), reason="needs iptables-legacy")
def test_who_drops_by_policy_in_the_old_packet_filter_is_named(world: World) -> None:
    network(world)
    run("iptables-legacy", "-P", "FORWARD", "DROP")
    [line] = obstacles("br0")
    outside = world.outside()
    node = container(world)
    with outside.server(80):
        assert node.is_kept_from(OUTSIDE, 80)
        subprocess.run(line.partition("lets them: ")[2], shell=True, check=True)
        assert node.reaches(OUTSIDE, 80)


def test_a_port_that_is_anothers_by_now_stays_his(world: World) -> None:
    """Whoever undoes what a record says, a repair after a crash perhaps, takes nothing from whoever came after."""
    network(world)
    old, new = ("tcp", "", 8080, "172.17.0.2", 80), ("tcp", "", 8080, "172.17.0.3", 80)
    publish("br0", [old])
    unpublish([old])
    publish("br0", [new])
    unpublish([old])
    assert "172.17.0.3 . 80" in run("nft", "list", "map", "inet", "minicontainer", "ports")
    unpublish([old, new])
    assert "172.17.0.3 . 80" not in run("nft", "list", "map", "inet", "minicontainer", "ports")


def test_withdrawing_forgets_connections_too(world: World) -> None:
    outside = world.outside()
    network(world)
    network(world, "br1", 18)
    old, new = container(world), container(world, 2, "br1", 18)
    with old.udp(53) as first, new.udp(53) as second, outside.udp(5000) as client:
        publish("br0", [("udp", HOST, 53, "172.17.0.2", 53)])
        client.sendto(b"one", (HOST, 53))
        assert first.recv(16) == b"one"
        withdraw("br0")
        publish("br1", [("udp", "", 53, "172.18.0.2", 53)])
        client.sendto(b"two", (HOST, 53))
        assert second.recv(16) == b"two"


def test_the_hosts_router_by_ipv6_is_listened_to_all_the_same(world: World) -> None:
    """A host that forwards ignores advice of routers, and would lose its own way out in time (accept_ra)."""
    world.outside()
    run("ip", "-6", "route", "add", "default", "via", OUTSIDE6, "dev", "uplink", "proto", "ra")
    before = world.state(), read("net/ipv6/conf/uplink/accept_ra")
    assert before[1] == "1"
    network(world)
    assert read("net/ipv6/conf/all/forwarding") == "1"
    assert read("net/ipv6/conf/uplink/accept_ra") == "2"
    withdraw("br0")
    remove_bridge("br0")
    assert (world.state(), read("net/ipv6/conf/uplink/accept_ra")) == before


def test_many_make_the_table_at_once(world: World) -> None:
    for number in range(8):
        create_bridge(f"br{number}", [f"10.{number}.0.1/16"])
    go, start = os.pipe()
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            try:
                os.read(go, 1)
                masquerade(f"br{number}", [f"10.{number}.0.0/16"])
                publish(f"br{number}", [("tcp", "", 8000 + number, f"10.{number}.0.2", 80)])
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    os.write(start, bytes(8))
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    os.close(go)
    os.close(start)
    listed = run("nft", "list", "table", "inet", "minicontainer")
    assert all(f'10.{number}.0.0/16 comment "br{number}"' in listed for number in range(8))
    assert listed.count("tcp . 80") == 8
    for number in range(8):
        withdraw(f"br{number}")
    assert run("nft", "list", "ruleset") == ""


@pytest.mark.parametrize(
    ("port", "told"),
    [
        (("icmp", "", 80, "172.17.0.2", 80), "icmp"),
        (("tcp", "", 0, "172.17.0.2", 80), "1 to 65535"),
        (("tcp", "", 80, "172.17.0.2", 65536), "1 to 65535"),
        (("tcp", "localhost", 80, "172.17.0.2", 80), "is no IP address"),
        (("tcp", "", 80, "172.17.0", 80), "is no IP address"),
        (("tcp", "::1", 80, "172.17.0.2", 80), "different kinds"),
    ],
)
def test_ports_that_are_none(world: World, port: tuple[str, str, int, str, int], told: str) -> None:
    before = world.state()
    with pytest.raises(ValueError, match=told):
        publish("br0", [port])
    with pytest.raises(ValueError, match="cannot be the name"):
        masquerade('br0" ; flush ruleset', ["172.17.0.0/16"])
    with pytest.raises(ValueError, match="is no IP address"):
        masquerade("br0", ["flush ruleset/16"])
    with pytest.raises(OSError, match='no bridge is called "br0" here'):
        publish("br0", [("tcp", "", 80, "172.17.0.2", 80)])
    assert world.state() == before


def test_without_the_right_nothing_changes(world: World) -> None:
    before = world.state()
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match="CAP_NET_ADMIN"):
            masquerade("br0", ["172.17.0.0/16"])
    finally:
        os.seteuid(0)
    assert world.state() == before
