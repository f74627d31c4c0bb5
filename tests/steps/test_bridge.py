"""Bridges and cables: made by the steps, seen by ip(8), tried with packets, in a world that the test made."""

from __future__ import annotations

import os
import signal

import pytest

from minicontainer.linux.netlink import Netlink
from minicontainer.steps.bridge import (
    attach_nic,
    connect,
    connect_directly,
    create_bridge,
    detach_nic,
    disconnect,
    disconnect_directly,
    remove_bridge,
)
from tests.command import needs_root
from tests.netns import HOST, HOST6, OUTSIDE, OUTSIDE6, Node, World, read, run

pytestmark = needs_root

SUBNET = "172.17.0.0/16"


def container(world: World, number: int = 2, bridge: str = "br0") -> Node:
    node = world.node()
    addresses = [f"172.17.0.{number}/16", f"fd00:17::{number}/64"]
    connect(node.pid, bridge, "eth0", addresses, ["172.17.0.1", "fd00:17::1"])
    return node


def names(node: Node) -> list[str]:
    return [link["ifname"] for link in node.json("ip", "-j", "link")]


def test_a_bridge_as_ip_sees_it(world: World) -> None:
    create_bridge("br0", ["172.17.0.1/16", "fd00:17::1/64"], mtu=1400, mac="02:00:00:00:00:01")
    [link] = world.json("ip", "-d", "-j", "address", "show", "br0")
    assert link["linkinfo"]["info_kind"] == "bridge"
    assert (link["mtu"], link["address"]) == (1400, "02:00:00:00:00:01")
    assert "UP" in link["flags"]
    shown = [(found["local"], found["prefixlen"], found["scope"]) for found in link["addr_info"]]
    assert ("172.17.0.1", 16, "global") in shown
    assert ("fd00:17::1", 64, "global") in shown
    assert link["addr_info"][0]["broadcast"] == "172.17.255.255"
    remove_bridge("br0")
    assert "br0" not in run("ip", "link")
    remove_bridge("br0")


def test_the_mac_of_a_bridge_stays_as_ports_come_and_go(world: World) -> None:
    create_bridge("br0", ["172.17.0.1/16"])
    before = world.json("ip", "-j", "link", "show", "br0")[0]["address"]
    nodes = [container(world, number) for number in range(2, 6)]
    assert nodes[0].ping("172.17.0.1")
    assert world.json("ip", "-j", "link", "show", "br0")[0]["address"] == before


def test_a_container_is_connected_as_ip_sees_it(world: World) -> None:
    create_bridge("br0", ["172.17.0.1/16", "fd00:17::1/64"])
    node = world.node()
    host_end = connect(
        node.pid,
        "br0",
        "net0",
        ["172.17.0.2/16", "172.17.1.2/32", "fd00:17::2/64"],
        ["172.17.0.1", "fd00:17::1"],
        host_interface="cable0",
        mac="02:42:ac:11:00:02",
        mtu=1300,
    )
    assert host_end == "cable0"
    [ours] = world.json("ip", "-d", "-j", "link", "show", "cable0")
    assert (ours["master"], ours["linkinfo"]["info_kind"], ours["mtu"]) == ("br0", "veth", 1300)
    assert ours["linkinfo"]["info_slave_data"]["state"] == "forwarding"
    [theirs] = node.json("ip", "-j", "address", "show", "net0")
    assert (theirs["address"], theirs["mtu"], theirs["link_index"]) == ("02:42:ac:11:00:02", 1300, ours["ifindex"])
    shown = {(found["local"], found["prefixlen"]) for found in theirs["addr_info"] if found["scope"] == "global"}
    assert shown == {("172.17.0.2", 16), ("172.17.1.2", 32), ("fd00:17::2", 64)}
    assert not any(found.get("tentative") for found in theirs["addr_info"] if found["scope"] == "global")
    [default] = node.json("ip", "-j", "route", "show", "default")
    assert (default["gateway"], default["dev"]) == ("172.17.0.1", "net0")
    [default] = node.json("ip", "-6", "-j", "route", "show", "default")
    assert (default["gateway"], default["dev"]) == ("fd00:17::1", "net0")


def test_containers_reach_one_another_and_the_host(world: World) -> None:
    create_bridge("br0", ["172.17.0.1/16", "fd00:17::1/64"])
    first, second = container(world, 2), container(world, 3)
    for address in ("172.17.0.1", "fd00:17::1", "172.17.0.3", "fd00:17::3"):
        assert first.ping(address), address
    assert world.ping("172.17.0.2")
    assert world.ping("fd00:17::2")
    with second.server(80) as server, first.connect("172.17.0.3", 80) as client:
        served, peer = server.accept()
        served.sendall(b"hello")
        assert (client.recv(5), peer[0]) == (b"hello", "172.17.0.2")
        served.close()


def test_the_first_packet_gets_through(world: World) -> None:
    """When `connect` returns, both ends can send: a datagram that was lost, nobody would send again."""
    create_bridge("br0", ["172.17.0.1/16"])
    with world.udp(7) as server:
        for number in range(2, 12):
            node = world.node()
            connect(node.pid, "br0", "eth0", [f"172.17.0.{number}/16"], ["172.17.0.1"])
            with node.udp() as client:
                client.sendto(b"first", ("172.17.0.1", 7))
            assert server.recvfrom(16)[1][0] == f"172.17.0.{number}"
            dropped = node.json("ip", "-s", "-j", "link", "show", "eth0")[0]["stats64"]["tx"]["dropped"]
            assert dropped == 0


def test_without_ipv6_addresses_there_is_no_ipv6(world: World) -> None:
    """Not even an address of the link, which would be announced to everybody; and nobody's advice about routers."""
    create_bridge("br0", ["172.17.0.1/16"])
    create_bridge("br1", ["fd00:17::1/64"])
    node = world.node()
    connect(node.pid, "br0", "eth0", ["172.17.0.2/16"], ["172.17.0.1"])
    connect(node.pid, "br1", "eth1", ["fd00:17::2/64"], ["fd00:17::1"])
    assert node.json("ip", "-6", "-j", "address", "show", "eth0") in ([], [{}])
    assert read("net/ipv6/conf/br1/accept_ra") == "0"
    with node.inside():
        assert read("net/ipv6/conf/eth1/accept_ra") == "0"


def test_disconnect_takes_both_ends(world: World) -> None:
    create_bridge("br0", ["172.17.0.1/16"])
    node = world.node()
    host_end = connect(node.pid, "br0", "eth0", ["172.17.0.2/16"], ["172.17.0.1"])
    disconnect(host_end)
    disconnect(host_end)
    assert "eth0" not in node.run("ip", "link")
    assert host_end not in run("ip", "link")
    connect(node.pid, "br0", "eth0", ["172.17.0.2/16"], ["172.17.0.1"], host_interface=host_end)
    assert node.ping("172.17.0.1")


def test_macvlan_puts_a_container_on_the_hosts_cable(world: World) -> None:
    outside = world.outside()
    first, second = world.node(), world.node()
    connect_directly(first.pid, "uplink", "eth0", ["192.0.2.10/24", "2001:db8::10/64"], [OUTSIDE])
    connect_directly(second.pid, "uplink", "eth0", ["192.0.2.11/24"], mac="02:42:ac:11:00:02", mtu=1400)
    assert first.ping(OUTSIDE)
    assert first.ping(OUTSIDE6)
    assert outside.ping("192.0.2.11")
    assert second.ping("192.0.2.10")
    [link] = second.json("ip", "-d", "-j", "link", "show", "eth0")
    assert (link["linkinfo"]["info_kind"], link["linkinfo"]["info_data"]["mode"]) == ("macvlan", "bridge")
    assert (link["address"], link["mtu"]) == ("02:42:ac:11:00:02", 1400)
    disconnect_directly(second.pid, "eth0")
    disconnect_directly(second.pid, "eth0")
    assert "eth0" not in second.run("ip", "link")
    with pytest.raises(ValueError, match="private, vepa, bridge, passthru"):
        connect_directly(second.pid, "uplink", "eth0", ["192.0.2.11/24"], mode="l2")


def test_ipvlan_or_a_clear_word(world: World) -> None:
    outside = world.outside()
    node = world.node()
    try:
        connect_directly(node.pid, "uplink", "eth0", ["192.0.2.10/24"], [OUTSIDE], kind="ipvlan")
    except OSError as error:
        assert "ipvlan" in str(error)
        assert "kernel" in str(error)
        assert "eth0" not in node.run("ip", "link")
    else:
        assert node.ping(OUTSIDE)
        assert outside.ping("192.0.2.10")


def test_a_card_moves_to_a_bridge_and_back(world: World) -> None:
    outside = world.outside()
    run("ip", "route", "add", "default", "via", OUTSIDE, "metric", "5")
    run("ip", "route", "add", "198.51.100.0/24", "via", OUTSIDE)
    run("ip", "-6", "route", "add", "default", "via", OUTSIDE6)
    run("ip", "address", "add", "192.0.2.77/24", "dev", "uplink")
    before = world.state()
    mac = world.json("ip", "-j", "link", "show", "uplink")[0]["address"]
    create_bridge("br0", ["172.17.0.1/16"])
    assert attach_nic("br0", "uplink") == [f"{HOST}/24", "192.0.2.77/24", f"{HOST6}/64"]
    assert world.ping(OUTSIDE)
    assert world.ping(OUTSIDE6)
    assert outside.ping("192.0.2.77")
    routes = world.json("ip", "-j", "route")
    assert {(route["dst"], route["dev"], route.get("metric")) for route in routes if route.get("gateway")} == {
        ("default", "br0", 5),
        ("198.51.100.0/24", "br0", None),
    }
    assert world.json("ip", "-j", "link", "show", "br0")[0]["address"] == mac
    neighbour = world.node()
    cable = connect(neighbour.pid, "br0", "eth0", ["192.0.2.50/24"], [OUTSIDE])
    assert outside.ping("192.0.2.50")
    disconnect(cable)
    detach_nic("br0", "uplink", [f"{HOST}/24", "192.0.2.77/24", f"{HOST6}/64"])
    assert world.ping(OUTSIDE)
    remove_bridge("br0")
    assert world.state() == before


@pytest.mark.parametrize("step", range(1, 12))
def test_a_card_that_cannot_move_is_where_it_was(world: World, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses the nth of the requests: after any of them everything is as before."""
    world.outside()
    run("ip", "route", "add", "default", "via", OUTSIDE)
    run("ip", "-6", "route", "add", "default", "via", OUTSIDE6)
    create_bridge("br0", ["172.17.0.1/16"])
    before = world.state()
    asked = 0
    ask = Netlink.ask

    def refuse(self: Netlink, *requests: object) -> list[bytes]:
        nonlocal asked
        asked += "list" not in requests[0].told and "look" not in requests[0].told  # type: ignore[attr-defined]
        if asked == step:
            asked += 1  # what undoes it is not refused
            raise OSError(5, "refused")
        return ask(self, *requests)  # type: ignore[arg-type]

    monkeypatch.setattr(Netlink, "ask", refuse)
    try:
        attach_nic("br0", "uplink")
    except OSError as error:
        assert error.errno == 5
        assert world.state() == before
        assert world.ping(OUTSIDE)
    else:
        assert asked < step, "a refusal was not told"


@pytest.mark.parametrize("step", range(1, 20))
def test_whoever_is_killed_while_a_card_moves_leaves_its_addresses(world: World, step: int) -> None:
    world.outside()
    run("ip", "route", "add", "default", "via", OUTSIDE)
    run("ip", "-6", "route", "add", "default", "via", OUTSIDE6)
    run("ip", "address", "add", "192.0.2.77/24", "dev", "uplink")
    before = world.state()
    create_bridge("br0", ["172.17.0.1/16"])
    child = os.fork()
    if child == 0:
        ask, asked = Netlink.ask, 0

        def die(self: Netlink, *requests: object) -> list[bytes]:
            nonlocal asked
            asked += 1
            if asked == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return ask(self, *requests)  # type: ignore[arg-type]

        Netlink.ask = die  # type: ignore[method-assign]
        attach_nic("br0", "uplink")
        os._exit(0)
    os.waitpid(child, 0)
    there = {found["local"] for link in world.json("ip", "-j", "address") for found in link["addr_info"]}
    assert {HOST, "192.0.2.77", HOST6} <= there
    for family in ([], ["-6"]):
        [default] = world.json("ip", *family, "-j", "route", "show", "default")
        assert default["dev"] in ("uplink", "br0")
    detach_nic("br0", "uplink", [f"{HOST}/24", "192.0.2.77/24", f"{HOST6}/64"])
    detach_nic("br0", "uplink", [f"{HOST}/24", "192.0.2.77/24", f"{HOST6}/64"])
    remove_bridge("br0")
    assert world.state() == before
    assert world.ping(OUTSIDE)


def test_errors_of_names_that_are_taken_or_missing(world: World) -> None:
    create_bridge("br0", ["172.17.0.1/16"])
    node = world.node()
    connect(node.pid, "br0", "eth0", ["172.17.0.2/16"], host_interface="cable0")
    before = world.state(), node.run("ip", "address"), names(world)
    with pytest.raises(FileExistsError, match=r'make bridge "br0": EEXIST'):
        create_bridge("br0", ["172.18.0.1/16"])
    with pytest.raises(FileExistsError, match=r'EEXIST .*: there is a "eth0" in the other'):
        connect(node.pid, "br0", "eth0", ["172.17.0.3/16"])
    with pytest.raises(FileExistsError, match=r'EEXIST .*: there is a "cable0" here'):
        connect(node.pid, "br0", "eth1", ["172.17.0.3/16"], host_interface="cable0")
    with pytest.raises(OSError, match=r'no network device is called "br9"'):
        connect(node.pid, "br9", "eth1", ["172.17.0.3/16"])
    with pytest.raises(OSError, match=r"by 10\.0\.0\.1"):
        connect(node.pid, "br0", "eth1", ["172.17.0.3/16"], ["10.0.0.1"])
    with pytest.raises(FileNotFoundError):
        connect(2**22 + 1, "br0", "eth1", ["172.17.0.3/16"])
    with pytest.raises(OSError, match=r'no network device is called "nic9"'):
        connect_directly(node.pid, "nic9", "eth1", ["172.17.0.3/16"])
    with pytest.raises(OSError, match="nic9"):
        attach_nic("br0", "nic9")
    with pytest.raises(OSError, match="lo"):
        attach_nic("br0", "lo")
    assert (world.state(), node.run("ip", "address"), names(world)) == before


@pytest.mark.parametrize(
    "bad",
    ["172.17.0.2", "172.17.0.2/33", "172.17.0.256/16", "fd00::2/129", "", "one/16", "172.17.0.2/x", "172.17.0.2/1٣"],
)
def test_bad_addresses(world: World, bad: str) -> None:
    create_bridge("br0", ["172.17.0.1/16"])
    node = world.node()
    before = names(world), names(node)
    with pytest.raises(ValueError, match=r"is no IP address|needs the length"):
        create_bridge("br1", [bad])
    with pytest.raises(ValueError, match=r"is no IP address|needs the length"):
        connect(node.pid, "br0", "eth0", [bad])
    assert (names(world), names(node)) == before


@pytest.mark.parametrize("bad", ["", "a" * 16, "a/b", "a b", ".", "..", "a:b"])
def test_bad_names(world: World, bad: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a network device"):
        create_bridge(bad)


@pytest.mark.parametrize("bad", ["02:00:00:00:00", "02-00-00-00-00-01", "zz:00:00:00:00:01", "01:00:00:00:00:01"])
def test_bad_mac_addresses(world: World, bad: str) -> None:
    with pytest.raises(ValueError, match="MAC address"):
        create_bridge("br0", mac=bad)


def test_without_the_right_it_is_said_which_is_missing(world: World) -> None:
    create_bridge("br0", ["172.17.0.1/16"])
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match="CAP_NET_ADMIN"):
            create_bridge("br1", ["172.18.0.1/16"])
    finally:
        os.seteuid(0)
