"""rtnetlink as we speak it, beside what iproute2 and pyroute2 say of the same devices; in a world that the test made."""

from __future__ import annotations

import errno
import os

import pytest
from pyroute2 import IPRoute

from minicontainer.linux import CLONE_NEWNET, unshare
from minicontainer.linux.conntrack import connections
from minicontainer.linux.netlink import Netlink, format_address, parse_address, parse_network
from tests.command import needs_root
from tests.netns import HOST, OUTSIDE, World, run

pytestmark = needs_root


def furnished(world: World) -> None:
    """Devices of many kinds, on and off, with addresses and routes."""
    world.outside()
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "address", "add", "172.17.0.1/16", "dev", "br0")
    run("ip", "link", "add", "va", "mtu", "1400", "type", "veth", "peer", "name", "vb")
    run("ip", "link", "set", "va", "master", "br0", "up")
    run("ip", "link", "add", "link", "uplink", "name", "m", "type", "macvlan", "mode", "bridge")
    run("ip", "link", "set", "br0", "up")
    run("ip", "route", "add", "default", "via", OUTSIDE, "metric", "7")
    run("ip", "route", "add", "10.0.0.0/8", "dev", "br0", "src", "172.17.0.1")
    run("ip", "-6", "route", "add", "2001:db8:1::/48", "via", "2001:db8::2")
    assert world.ping(OUTSIDE)


def test_links_as_ip_lists_them(world: World) -> None:
    furnished(world)
    with Netlink() as kernel:
        ours = {link.name: link for link in kernel.links()}
        assert kernel.link("uplink").replace(rx_packets=0, rx_bytes=0, tx_packets=0, tx_bytes=0) == ours[
            "uplink"
        ].replace(rx_packets=0, rx_bytes=0, tx_packets=0, tx_bytes=0)
    theirs = world.json("ip", "-d", "-s", "-j", "link")
    assert [link["ifname"] for link in theirs] == list(ours)
    numbers = {link["ifname"]: link["ifindex"] for link in theirs}
    for link in theirs:
        our = ours[link["ifname"]]
        assert (our.index, our.mtu, our.up) == (link["ifindex"], link["mtu"], "UP" in link["flags"])
        assert our.kind == link.get("linkinfo", {}).get("info_kind", "")
        assert our.mac == link.get("address", "")
        assert our.master == numbers.get(link.get("master", ""), 0)
        assert our.peer == (numbers.get(link["link"], 0) if link.get("link") else link.get("link_index", 0))
        assert our.rx_bytes <= link["stats64"]["rx"]["bytes"]
        assert our.tx_packets <= link["stats64"]["tx"]["packets"]
    assert ours["uplink"].rx_packets > 0
    assert ours["uplink"].tx_bytes >= 84  # a ping


def test_addresses_and_routes_as_ip_lists_them(world: World) -> None:
    furnished(world)
    with Netlink() as kernel:
        addresses, routes = kernel.addresses(), kernel.routes()
        number = kernel.index("br0")
        assert [found.address for found in kernel.addresses(number) if found.scope == 0] == ["172.17.0.1/16"]
    names = {link["ifindex"]: link["ifname"] for link in world.json("ip", "-j", "link")}
    theirs = {
        (link["ifname"], f"{found['local']}/{found['prefixlen']}")
        for link in world.json("ip", "-j", "address")
        for found in link["addr_info"]
    }
    assert {(names[found.index], found.address) for found in addresses} == theirs
    listed = world.json("ip", "-j", "route") + world.json("ip", "-6", "-j", "route")
    plain = {(route["dst"], route.get("gateway", ""), route["dev"], route.get("prefsrc", "")) for route in listed}
    assert {(known.destination, known.gateway, names[known.index], known.source) for known in routes} == plain
    assert [known.metric for known in routes if known.destination == "default"] == [7]


def test_pyroute2_sees_what_we_made(world: World) -> None:
    node = world.node()
    with Netlink() as kernel, Netlink(pid=node.pid) as there:
        kernel.add_bridge("br0", mtu=1450, mac="02:00:00:00:00:01")
        kernel.add_veth("va", "vb", node.fd, master=kernel.index("br0"), mtu=1400, mac="02:00:00:00:00:02")
        kernel.set_link("br0", up=True)
        kernel.add_address("br0", "172.17.0.1/16")
        kernel.add_address("br0", "fd00::1/64")
        kernel.set_link("va", up=True, hairpin=True)
        there.set_link("vb", up=True)
        there.add_address("vb", "172.17.0.2/16")
        there.add_route("10.0.0.0/8", "172.17.0.1", "vb")
        there.add_route("192.168.0.0/24", None, "vb")
    with IPRoute() as oracle:
        [bridge] = oracle.link("get", ifname="br0")
        assert bridge.get(("linkinfo", "kind")) == "bridge"
        assert (bridge.get("mtu"), bridge.get("address")) == (1400, "02:00:00:00:00:01")  # a port's, if that is less
        [cable] = oracle.link("get", ifname="va")
        assert (cable.get("mtu"), cable.get("master")) == (1400, bridge["index"])
        shown = {(found.get("address"), found["prefixlen"]) for found in oracle.get_addr(index=bridge["index"])}
        assert {("172.17.0.1", 16), ("fd00::1", 64)} <= shown
        [found] = oracle.get_addr(index=bridge["index"], address="172.17.0.1")
        assert found.get("broadcast") == "172.17.255.255"
    assert node.json("ip", "-d", "-j", "link", "show", "vb")[0]["address"] == "02:00:00:00:00:02"
    assert run("ip", "-d", "link", "show", "va").count("hairpin on") == 1
    routes = {route["dst"]: route for route in node.json("ip", "-j", "route")}
    assert routes["10.0.0.0/8"]["gateway"] == "172.17.0.1"
    assert routes["192.168.0.0/24"]["scope"] == "link"
    with Netlink(pid=node.pid) as there:
        there.delete_route("10.0.0.0/8", "172.17.0.1", "vb")
        there.delete_address("vb", "172.17.0.2/16")
        there.set_link("vb", new_name="c", mtu=1300, mac="02:00:00:00:00:03", up=False)
    [link] = node.json("ip", "-j", "address", "show", "c")
    assert (link["mtu"], link["address"], "UP" in link["flags"]) == (1300, "02:00:00:00:00:03", False)
    assert not [found for found in link["addr_info"] if found["family"] == "inet"]
    assert "10.0.0.0/8" not in node.run("ip", "route")


def test_a_device_moves_to_another_namespace(world: World) -> None:
    node = world.node()
    run("ip", "link", "add", "va", "type", "veth", "peer", "name", "vb")
    with Netlink() as kernel:
        kernel.set_link("vb", namespace=node.fd)
        assert [link.name for link in kernel.links()] == ["lo", "va"]
        kernel.delete_link("va")
    assert [link["ifname"] for link in node.json("ip", "-j", "link")] == ["lo"]


def test_a_socket_stays_in_the_namespace_it_was_made_in(world: World) -> None:
    node = world.node()
    own = os.readlink("/proc/thread-self/ns/net")
    with Netlink(pid=node.pid) as by_pid, Netlink(namespace=node.fd) as by_fd:
        assert os.readlink("/proc/thread-self/ns/net") == own
        by_pid.add_bridge("br0")
        assert [link.name for link in by_fd.links()] == ["lo", "br0"]
    with Netlink() as kernel:
        assert [link.name for link in kernel.links()] == ["lo"]


def test_many_devices_come_in_several_datagrams(world: World) -> None:
    with Netlink() as kernel:
        for number in range(120):
            kernel.add_bridge(f"br{number}")
        assert len(kernel.links()) == 121


def test_the_kernels_own_words_are_in_the_error(world: World) -> None:
    with Netlink() as kernel:
        kernel.add_bridge("br0")
        with pytest.raises(FileExistsError, match=r'^\[Errno 17\] make bridge "br0": EEXIST \(File exists\)'):
            kernel.add_bridge("br0")
        with pytest.raises(OSError, match=r"give \"br0\" the address 172.17.0.1/16: EEXIST") as failure:
            kernel.add_address("br0", "172.17.0.1/16")
            kernel.add_address("br0", "172.17.0.1/16")
        assert "already assigned" in str(failure.value)
        with pytest.raises(OSError, match=r"Nexthop has invalid gateway|ENETUNREACH"):
            kernel.add_route("default", "10.0.0.1", "br0")
        with pytest.raises(OSError, match="greater than device maximum"):
            kernel.set_link("br0", mtu=100000)
        with pytest.raises(OSError, match="ENODEV") as failure:
            kernel.delete_link("br1")
        assert failure.value.errno == errno.ENODEV
        assert kernel.link("br0").name == "br0"  # the socket is in order after errors


def test_one_failure_of_several_is_told(world: World) -> None:
    from minicontainer.linux.netlink import new_address, question

    with Netlink() as kernel:
        kernel.add_bridge("br0")
        number = kernel.index("br0")
        requests = [new_address(number, "172.17.0.1/16"), new_address(number, "172.17.0.1/16"), question("br0")]
        with pytest.raises(FileExistsError):
            kernel.ask(*requests)
        [answer] = kernel.ask(question("br0"))
        assert b"br0\0" in answer


def test_connections_that_the_kernel_remembers(world: World) -> None:
    outside = world.outside()
    run(
        "nft",
        "add table inet x; add chain inet x y { type filter hook output priority 0; }; add rule inet x y ct state new",
    )
    with outside.server(80), world.connect(OUTSIDE, 80) as client, world.udp() as sock:
        sock.sendto(b"x", (OUTSIDE, 53))
        [found] = [known for known in connections("tcp") if known.original.destination_port == 80]
        assert (found.original.source, found.original.source_port) == client.getsockname()
        assert (found.reply.source, found.reply.destination) == (OUTSIDE, HOST)
        assert [known.original.destination_port for known in connections("udp")] == [53]
        assert connections("tcp", six=True) == []


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "255.255.255.255", "::", "fd00::1", "::ffff:1.2.3.4", "2001:db8::8:800:200c:417a"]
)
def test_addresses_in_and_out(text: str) -> None:
    assert format_address(parse_address(text)[1]) == text


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.4\0", "fd00::g", ":", "1.2.3.4 ", "١.2.3.4"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no IP address"):
        parse_address(text)


def test_networks() -> None:
    assert parse_network("10.1.2.3/8") == (2, bytes([10, 1, 2, 3]), 8)
    assert parse_network("fd00::1/64")[2] == 64
    with pytest.raises(ValueError, match="0 to 32"):
        parse_network("10.0.0.1/33")


def test_where_no_device_was_ever_on_there_are_no_routes(world: World) -> None:
    """The kernel makes the tables with the first route: before that, it says ENOENT of a table that is asked for."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            unshare(CLONE_NEWNET)
            with Netlink() as kernel:
                status = 0 if kernel.routes() == [] and [link.name for link in kernel.links()] == ["lo"] else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
