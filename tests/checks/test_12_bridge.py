"""Lab 12, bridged networks: what the kernel says of devices that were made, and which packets it lets through.

The host, the containers and whoever is outside are processes of the sandbox with network namespaces of their own. What
an exercise builds upon, the examiner makes itself, so that one mistake costs one check. The packets are the examiner's.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from labs.grading.checks import Wrong, check
from labs.grading.observed_network import Enter, arrives, exchange, network, ping, setting, visiting
from labs.grading.subject import Performed, Subject
from minicontainer.linux import CLONE_NEWNET, nftables
from minicontainer.linux.netlink import Netlink, opened_namespace
from minicontainer.steps.bridge import connect, create_bridge

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
OTHER, OTHERS_GATEWAY = "198.51.100.2", "198.51.100.1"


# create_bridge


@check("A bridge is there, switched on, with the host's addresses", exercise="bridge.create_bridge", points=1)
def test_the_bridge(subject: Subject) -> None:
    """ip-link(8), "type bridge"; ip -d address"""
    host = _node(subject)
    name, (first, second) = _name(), _subnets(2)
    wanted = [f"{first}.1/24", f"{second}.1/20"]
    host.then("bridge.create_bridge", name, wanted)
    found = network(host)
    _saw(subject, "the host", found)
    if name not in found:
        raise Wrong(f'create_bridge("{name}", …) returned, and the host has no device of this name')
    bridge = found[name]
    if bridge["kind"] != "bridge":
        raise Wrong(
            f'"{name}" is a device of the kind "{bridge["kind"]}", and nothing can be plugged into that: it has to be a '
            f"bridge, the kernel's switch"
        )
    if not bridge["up"]:
        raise Wrong(f'the bridge "{name}" is there and switched off: like any device it carries nothing until it is up')
    if missing := [address for address in wanted if address not in bridge["addresses"]]:
        raise Wrong(
            f"of the addresses {', '.join(wanted)} the host has {', '.join(bridge['addresses']) or 'none'} on the bridge: "
            f"{', '.join(missing)} is missing. The prefix belongs to it, since it says who is to be found on this bridge"
        )


# connect


@check("The cable: one end in the bridge, the other in the container", exercise="bridge.connect", points=2)
def test_the_cable(subject: Subject) -> None:
    """veth(4); ip-link(8): master; bridge link"""
    host, container = _node(subject), _node(subject)
    bridge, (subnet,) = _bridge(host)
    interface = f"eth{secrets.randbelow(100)}"
    host.then("bridge.connect", _pid(container), bridge, interface, [f"{subnet}.2/24"], [f"{subnet}.1"])
    ours, theirs = network(host), network(container)
    _saw(subject, "the host", ours)
    _saw(subject, "the container", theirs)
    if interface not in theirs:
        where = ", ".join(name for name in ours if name not in ("lo", bridge)) or "nothing new"
        raise Wrong(
            f"the container's network namespace has no device \"{interface}\"; the host's has {where}: the cable was not "
            f"laid, or its end was not put into the namespace of process {_pid(container)}, or not called by this name"
        )
    if theirs[interface]["kind"] != "veth":
        raise Wrong(f'"{interface}" is of the kind "{theirs[interface]["kind"]}", and no end of a veth')
    ends = [link for link in ours.values() if link["index"] == theirs[interface]["peer"] and link["kind"] == "veth"]
    if not ends:
        raise Wrong(f'the other end of "{interface}" is not on the host: nobody can plug it into the bridge')
    [end] = ends
    if end["master"] != ours[bridge]["index"]:
        raise Wrong(
            f'the host\'s end, "{end["name"]}", is in no bridge: a cable that is not plugged in. Its master has to be '
            f'"{bridge}"'
        )
    if not (end["up"] and theirs[interface]["up"]):
        off = f'the host\'s end, "{end["name"]}",' if not end["up"] else f'the container\'s end, "{interface}",'
        raise Wrong(f"{off} is switched off: a cable carries only when both of its ends are up")
    extra, beyond = _subnets(2)[0], interface
    _give(container, beyond, f"{extra}.2/24")  # addresses of the examiner's: here it is about the cable
    _give(host, bridge, f"{extra}.1/24")
    if not ping(container, f"{extra}.1"):
        raise Wrong(
            "both ends are there, plugged in and up, and yet no ping gets through from the container to the host"
        )


@check("The container has its addresses, and knows a way out", exercise="bridge.connect", points=1)
def test_addresses_and_the_way_out(subject: Subject) -> None:
    """ip-address(8); ip-route(8): default via"""
    host, first, second = _node(subject), _node(subject), _node(subject)
    bridge, (subnet, another) = _bridge(host, 2)
    wanted = [f"{subnet}.2/24", f"{another}.2/24"]
    host.then("bridge.connect", _pid(first), bridge, "eth0", wanted, [f"{subnet}.1"])
    host.then("bridge.connect", _pid(second), bridge, "eth0", [f"{subnet}.3/24"])
    found = network(first).get("eth0")
    if not found:
        raise Wrong("the container has no eth0, so no address and no way out either")
    _saw(subject, "the container", {"eth0": found})
    if missing := [address for address in wanted if address not in found["addresses"]]:
        raise Wrong(
            f"the container was to have {' and '.join(wanted)} and has {', '.join(found['addresses']) or 'no address'}: "
            f"{', '.join(missing)} is missing"
        )
    if (way := ["default", f"{subnet}.1"]) not in found["routes"]:
        others = ", ".join(f"{there} by {gateway}" for there, gateway in found["routes"] if gateway) or "none"
        raise Wrong(
            f"the container knows no way to anybody who is not on the bridge: there is no default route by {way[1]} "
            f"(routes with a gateway: {others})"
        )
    if ["default", f"{subnet}.1"] in network(second)["eth0"]["routes"]:
        raise Wrong("the second container was given no gateway, and has a default route nevertheless")
    plugged = network(host)
    if sum(link["master"] == plugged[bridge]["index"] and link["up"] for link in plugged.values()) == 2:
        for whom, address in (("the host", f"{subnet}.1"), ("its neighbour", f"{subnet}.3")):
            if not ping(first, address):
                raise Wrong(f"the container's ping to {whom}, {address}, is not answered")


# masquerade


@check("Out to the world, with the host's own address", exercise="nat.masquerade", points=2)
def test_out(subject: Subject) -> None:
    """nft(8), "masquerade"; /proc/sys/net/ipv4/ip_forward; nf_conntrack(7)"""
    host, container, outside, bridge, subnets = _crossing(subject)
    host.then("nat.masquerade", bridge, [f"{subnet}.0/24" for subnet in subnets])
    forwarding = setting(host, "ipv4/ip_forward")
    for number, subnet in enumerate(subnets):
        own = f"{subnet}.2"
        seen = {kind: exchange(outside, (OUTSIDE, 7), container, (OUTSIDE, 7), kind, own) for kind in ("tcp", "udp")}
        subject.saw(f"from {own} to {OUTSIDE}: seen there as {seen}; ip_forward of the host: {forwarding}")
        if set(seen.values()) == {HOST}:
            continue
        came = arrives(outside, (OUTSIDE, 7), container, (OUTSIDE, 7), own)
        if not came and forwarding == "0":
            raise Wrong(
                "nothing that the container sends arrives outside: the host's ip_forward is 0, so it throws away what "
                "comes in by one device and is for another"
            )
        if came == own:
            which = "" if len(subnets) == 1 or number == 0 else ", though what it sends from its first subnet is"
            raise Wrong(
                f"what the container sends arrives outside as coming from {own}, and the answer is lost, since nobody "
                f"out there knows the way to {own}: it was not masqueraded{which}"
            )
        raise Wrong(f"outside, the container is seen as {seen}, and it should be as the host, {HOST}")


@check("Everybody else stays who they are", exercise="nat.masquerade", points=1)
def test_others_stay_who_they_are(subject: Subject) -> None:
    """nft(8): ip saddr; one table of one's own, and nobody else's is touched"""
    host, container, outside, bridge, subnets = _crossing(subject)
    other = _node(subject)
    _cable(host, "lan", OTHERS_GATEWAY, other, OTHER)
    _route(other, "default", OTHERS_GATEWAY, "eth0")
    _route(outside, "198.51.100.0/24", HOST, "eth0")
    _set(host, "ipv4/ip_forward", "1")
    foreign = f"somebody_{secrets.token_hex(3)}"
    _nft(host, f"add table ip {foreign}\nadd chain ip {foreign} c\nadd rule ip {foreign} c counter\n")
    host.then("nat.masquerade", bridge, [f"{subnet}.0/24" for subnet in subnets])
    seen = exchange(outside, (OUTSIDE, 7), other, (OUTSIDE, 7))
    ours = exchange(outside, (OUTSIDE, 7), container, (OUTSIDE, 7), source=f"{subnets[0]}.2")
    rules = [entry for entry in _listing(host, f"list table ip {foreign}") if "rule" in entry]
    subject.saw(
        f"somebody in another network of the host, {OTHER}, is seen outside as {seen or 'nobody'}; {foreign}: {len(rules)} rule"
    )
    if ours != HOST:
        raise Wrong("the container itself does not get out: that others stay who they are is no merit then")
    if seen == HOST:
        raise Wrong(
            f"somebody else, {OTHER}, whose packets the host only passes on, is seen outside as the host: the rule has to "
            f"be for what comes from the bridge's subnets, and for nothing else"
        )
    if seen != OTHER:
        raise Wrong(f"somebody else, {OTHER}, whose packets the host passed on before, does not get through any more")
    if not rules:
        raise Wrong(
            f"the packet filter had a table of somebody else's, {foreign}, and its rule is gone: a firewall, perhaps. Add "
            f"to the ruleset, in a table of your own, and never flush what is not yours"
        )


# publish


@check("In by a published port, and by no other way", exercise="nat.publish", points=2)
def test_in(subject: Subject) -> None:
    """nft(8), "dnat", "fib daddr type local"; nf_nat in the prerouting hook"""
    host, container, outside, bridge, (subnet,) = _crossing(subject, 1)
    own = f"{subnet}.2"
    _set(host, "ipv4/ip_forward", "1")
    _route(outside, f"{subnet}.0/24", HOST, "eth0")
    tcp, udp, here, lo = (8000 + number for number in secrets.SystemRandom().sample(range(1000), 4))
    ports = [
        ["tcp", "", tcp, own, 80],
        ["udp", "", udp, own, 53],
        ["tcp", HOST, here, own, 81],
        ["tcp", "127.0.0.1", lo, own, 82],
    ]
    host.then("nat.publish", bridge, ports)
    for kind, port, inner in (("tcp", tcp, 80), ("udp", udp, 53), ("tcp", here, 81)):
        seen = exchange(container, ("", inner), outside, (HOST, port), kind)
        subject.saw(f"{kind} port {port} of the host, for port {inner} of {own}: the container sees {seen or 'nobody'}")
        if not seen:
            hint = _where_instead(container, outside, port, inner, kind)
            raise Wrong(
                f"from outside, nothing gets by {kind} port {port} of the host to port {inner} of the container{hint}"
            )
        if seen != OUTSIDE:
            raise Wrong(
                f"the container sees {seen} at its port, and it was {OUTSIDE} who came: only the destination is to be "
                f"translated, since whom a server talks to it ought to know"
            )
    if exchange(container, ("", 82), outside, (HOST, lo)):
        raise Wrong(
            f"port {lo} was published at 127.0.0.1, and somebody outside got in by {HOST}: the address is part of it"
        )
    if not exchange(outside, (OUTSIDE, tcp), container, (OUTSIDE, tcp)):
        raise Wrong(
            f"the container asks somebody else's server, {OUTSIDE}, port {tcp}, and does not get there any more: the rule "
            f"catches whatever has this port, and should only what is for an address of the host itself"
        )


@check("From the host itself too, by its address and by 127.0.0.1", exercise="nat.publish", points=1)
def test_from_the_host_itself(subject: Subject) -> None:
    """nft(8): the output hook; ip-sysctl: route_localnet"""
    host, container, _, bridge, (subnet,) = _crossing(subject, 1)
    own, port = f"{subnet}.2", 8000 + secrets.randbelow(1000)
    _set(host, "ipv4/ip_forward", "1")
    host.then("nat.publish", bridge, [["tcp", "", port, own, 80]])
    seen = {to: exchange(container, ("", 80), host, (to, port)) for to in (HOST, "127.0.0.1")}
    localnet = {name: setting(host, f"ipv4/conf/{name}/route_localnet") for name in (bridge, "all")}
    subject.saw(f"port {port}, asked for by the host itself: the container sees {seen}; route_localnet: {localnet}")
    if not seen[HOST]:
        raise Wrong(
            f"the host itself does not get to {HOST}:{port}: what it sends does not come in anywhere, so the prerouting "
            f"hook never sees it; the output hook does"
        )
    if not seen["127.0.0.1"]:
        if "1" not in localnet.values():
            raise Wrong(
                f"the host gets to {HOST}:{port} and not to 127.0.0.1:{port}: the kernel lets no packet from 127.0.0.1 out "
                f"of the machine, unless route_localnet of the device that it leaves by ({bridge}) is 1"
            )
        raise Wrong(
            f"the host gets to {HOST}:{port} and not to 127.0.0.1:{port}: the packet says that it comes from 127.0.0.1, "
            f"and the container, asked by that address, answers to itself; on the bridge it has to be masqueraded"
        )


# What the checks are made of


def _node(subject: Subject) -> Performed:
    """A process with a network namespace of its own, in which only the loopback is, switched on."""
    process = subject.perform([("linux.unshare", [CLONE_NEWNET])])
    if process.namespace("net") == subject.sandbox.namespace("net"):
        raise Wrong("linux.unshare was replaced: there is no network to try anything in")

    def act(enter: Enter) -> None:
        enter(process)
        with Netlink() as kernel:
            kernel.set_link("lo", up=True)

    visiting(act)
    _set(process, "ipv4/ip_forward", "0")
    return process


def _pid(process: Performed) -> int:
    """Its number in the sandbox."""
    return int(process.status("NSpid").split()[-1])


def _name() -> str:
    return f"br{secrets.token_hex(3)}"


def _subnets(number: int) -> list[str]:
    """The beginnings of subnets that nobody can know beforehand: "10.17.42"."""
    return [f"10.{part}.{secrets.randbelow(15) * 16}" for part in secrets.SystemRandom().sample(range(1, 255), number)]


def _bridge(host: Performed, number: int = 1) -> tuple[str, list[str]]:
    """A bridge that the reference has made, and the beginnings of its subnets."""
    name, subnets = _name(), _subnets(number)

    def act(enter: Enter) -> None:
        enter(host)
        create_bridge(name, [f"{subnet}.1/24" for subnet in subnets])
        with open(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "w") as file:
            file.write("0")

    visiting(act)
    return name, subnets


def _crossing(subject: Subject, number: int = 2) -> tuple[Performed, Performed, Performed, str, list[str]]:
    """A host between a container on its bridge and somebody outside who knows no way to the bridge's subnets.

    Returns the three, the bridge and the beginnings of its subnets; the container is number 2 in each.
    """
    host, container, outside = _node(subject), _node(subject), _node(subject)
    bridge, subnets = _bridge(host, number)

    def act(enter: Enter) -> None:
        enter(host)
        connect(container.pid, bridge, "eth0", [f"{subnet}.2/24" for subnet in subnets], [f"{subnets[0]}.1"])

    visiting(act)
    _cable(host, "uplink", HOST, outside, OUTSIDE)
    return host, container, outside, bridge, subnets


def _cable(host: Performed, name: str, address: str, other: Performed, their_address: str) -> None:
    """A cable between the host and somebody, with an address at each end."""

    def act(enter: Enter) -> None:
        enter(host)
        with Netlink() as here, Netlink(pid=other.pid) as there, opened_namespace(other.pid) as namespace:
            here.add_veth(name, "eth0", namespace)
            there.add_address("eth0", f"{their_address}/24")
            there.set_link("eth0", up=True)
            here.add_address(name, f"{address}/24")
            here.set_link(name, up=True)
            here.link(name), there.link("eth0")

    visiting(act)


def _give(process: Performed, device: str, address: str) -> None:
    def act(enter: Enter) -> None:
        enter(process)
        with Netlink() as kernel:
            kernel.add_address(device, address)

    visiting(act)


def _route(process: Performed, destination: str, gateway: str, device: str) -> None:
    def act(enter: Enter) -> None:
        enter(process)
        with Netlink() as kernel:
            kernel.add_route(destination, gateway, device)

    visiting(act)


def _set(process: Performed, name: str, value: str) -> None:
    def act(enter: Enter) -> None:
        enter(process)
        with open(f"/proc/sys/net/{name}", "w") as file:
            file.write(value)

    visiting(act)


def _nft(process: Performed, commands: str) -> None:
    def act(enter: Enter) -> None:
        enter(process)
        nftables.run(commands)

    visiting(act)


def _listing(process: Performed, command: str) -> list[dict[str, Any]]:
    def act(enter: Enter) -> list[dict[str, Any]]:
        enter(process)
        return nftables.listing(command)

    listed: list[dict[str, Any]] = visiting(act)
    return listed


def _where_instead(container: Performed, outside: Performed, port: int, inner: int, kind: str) -> str:
    """Where it got, if that can be found out."""
    if kind == "udp" and exchange(container, ("", inner), outside, (HOST, port), "tcp"):
        return "; by tcp it does, and it was to be udp"
    if exchange(container, ("", port), outside, (HOST, port), kind):
        return f"; it gets to port {port} of the container, which is the host's number"
    return ""


def _saw(subject: Subject, whose: str, found: dict[str, dict[str, Any]]) -> None:
    told: Sequence[str] = [
        f"{name} ({link['kind'] or 'device'}, {'up' if link['up'] else 'down'}, {' '.join(link['addresses']) or 'no address'})"
        for name, link in found.items()
        if name != "lo"
    ]
    subject.saw(f"{whose}: {'; '.join(told) or 'nothing but lo'}")
