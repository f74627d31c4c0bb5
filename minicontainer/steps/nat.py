"""Step 12, what passes between a bridge and the rest of the world: isolation, masquerading, published ports.

One table of the packet filter holds it all, ``inet minicontainer``: see it with ``nft list table inet minicontainer``.
Its rules never change. What changes are its sets and maps, an element for a bridge, a subnet or a port, so that each
change is one small transaction and what is undone leaves nothing. The table comes with the first bridge that needs it,
and goes with the last.

nft(8); Documentation/networking/ip-sysctl.rst (ip_forward, route_localnet); conntrack(8).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterable, Iterator, Sequence

from minicontainer.linux import nftables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Port = tuple[str, str, int, str, int]  # protocol, host's address, host's port, container's address and port
    Element = tuple[str, str, str]  # set or map, key, and of a map " : value"

TABLE = "inet minicontainer"


def isolate(bridge: str, internal: bool = False) -> None:
    """Let nothing pass to a bridge but answers and what is published; if `internal`, nothing in or out at all.

    Between the bridge and the host itself everything passes. Raises OSError: EPERM, ENOSYS (no nftables); ValueError.
    """
    _add(bridge, [("internal", f'"{_name(bridge)}"', "")] if internal else [])


def masquerade(bridge: str, subnets: Sequence[str]) -> None:
    """Let what the bridge's subnets (``172.17.0.0/16``) send to elsewhere go out with the host's own address.

    Switches forwarding on, for each family that a subnet is of. Raises OSError, ValueError.
    """
    elements = []
    for subnet in map(_subnet, subnets):
        six = "6" if ":" in subnet else ""
        elements += [(f"subnets{six}", subnet, ""), (f"hairpin{six}", f"{subnet} . {subnet}", "")]
    _add(bridge, elements, forwarded=subnets)


def publish(bridge: str, ports: Sequence[Port]) -> None:
    """Have what comes for a port of the host go to a container's, for all `ports` at once.

    Each is (protocol, host's address, host's port, container's address, container's port); "" or "0.0.0.0" or "::" is
    every address of the host. From the host itself they are reached by 127.0.0.1 too; not by ::1, which never leaves
    the machine. None is published if one cannot be. Raises OSError: EADDRINUSE (it leads elsewhere), ENODEV (no such
    bridge); ValueError.
    """
    elements = [_element(port) for port in ports]
    if not os.path.exists(_ROUTE_LOCALNET.format(_name(bridge))):
        raise OSError(errno.ENODEV, f'no bridge is called "{bridge}" here')
    try:
        _add(bridge, elements, forwarded=[port[3] for port in ports])
    except FileExistsError:
        there = _mapped({where for where, _, _ in elements})
        told = [f"{key} leads to {there[where, key][0].removeprefix(' : ')} ({there[where, key][1]})"
                for where, key, value in elements if there.get((where, key), (value,))[0] != value]  # fmt: skip
        raise OSError(errno.EADDRINUSE, f"published already: {', '.join(told) or 'by somebody who is gone'}") from None
    if any(":" not in port[3] for port in ports):
        _set(_ROUTE_LOCALNET.format(bridge), 1)  # what says that it comes from 127.0.0.1 may leave by the bridge
    _forget_direct(ports)


def unpublish(ports: Sequence[Port]) -> None:
    """Undo `publish`; connections by these ports end. Ports that are not there, or lead elsewhere, are no error."""
    elements = [_element(port) for port in ports]
    there = _mapped({where for where, _, _ in elements})
    theirs = [(where, key, "") for where, key, value in elements if there.get((where, key), ("",))[0] == value]
    if theirs:
        nftables.run(_lines("delete", theirs))
    _forget_translated(ports)


def withdraw(bridge: str) -> None:
    """Take everything of a bridge out of the table, and with the last bridge the table itself.

    What was switched on for the first bridge is switched off then. Nothing happens if the bridge is not there.
    """
    theirs, ports, found, others = [], [], [], False
    for where, key, comment, value in _elements(nftables.listing(f"list table {TABLE}")):
        if where in ("forwarding", "advised"):
            found.append((where, key))
        elif comment == bridge:
            theirs.append((where, key, ""))
            if where.startswith("ports"):
                ports.append(_port(key, value))
        elif where == "bridges":
            others = True
    if theirs:
        with contextlib.suppress(FileNotFoundError):  # the bridge has gone before
            _set(_ROUTE_LOCALNET.format(bridge), 0)  # as long as there are rules that see to what it lets in
    if theirs and others:
        nftables.run(_lines("delete", theirs))
    elif theirs:
        nftables.run(f"delete table {TABLE}")
        for where, key in found:
            with contextlib.suppress(FileNotFoundError):  # a device that is gone
                if where == "forwarding":
                    _set(_FORWARDING[key], 0)
                else:
                    _set(_ACCEPT_RA.format(key), 1)
    _forget_translated(ports)


def obstacles(bridge: str = "minicontainer0") -> list[str]:
    """A line for each other table that drops what is to be forwarded by default, which our accepting cannot change."""
    found = []
    for entry in nftables.listing("list chains"):
        chain = entry.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            place = f"{chain['family']} {chain['table']} {chain['name']}"
            rules = "; ".join(f'insert rule {place} {way} "{bridge}" accept' for way in ("iifname", "oifname"))
            found.append((f"the packet filter's chain {place}", f"nft '{rules}'"))
    for program, names in (("iptables-legacy", "ip_tables_names"), ("ip6tables-legacy", "ip6_tables_names")):
        if _drops_of_old(program, f"/proc/net/{names}"):
            rules = "; ".join(f"{program} -I FORWARD {way} {bridge} -j ACCEPT" for way in ("-i", "-o"))
            found.append((f"the packet filter's chain FORWARD ({program})", rules))
    return [
        f"{what} drops by default what is to be forwarded: containers reach no other network until it lets them: {how}"
        for what, how in found
    ]


def _drops_of_old(program: str, names: str) -> bool:
    """Whether the packet filter that was before nftables, if it is in use, drops what is to be forwarded."""
    with contextlib.suppress(OSError), open(names) as file:
        if "filter" in file.read().split():
            import subprocess

            listed = subprocess.run([program, "-S", "FORWARD"], capture_output=True, text=True, check=False)
            return "-P FORWARD DROP" in listed.stdout.splitlines()
    return False


def _forget_translated(ports: Sequence[Port]) -> None:
    """Make the kernel forget the connections that came by these ports, or their next packet would still go there."""
    if not ports:
        return
    from minicontainer.linux.conntrack import connections, forget

    ways = {(protocol, host_port, _address(to), to_port) for protocol, _, host_port, to, to_port in ports}
    for protocol, six in sorted({(port[0], ":" in port[3]) for port in ports}):
        forget(
            known
            for known in connections(protocol, six)
            if (protocol, known.original.destination_port, known.reply.source, known.reply.source_port) in ways
            and known.original.destination != known.reply.source
        )


def _forget_direct(ports: Sequence[Port]) -> None:
    """Make the kernel forget what went to these ports of the host itself: UDP has no end, and would go on so."""
    wanted = {(":" in port[3], port[2]) for port in ports if port[0] == "udp"}
    if not wanted:
        return
    from minicontainer.linux.conntrack import connections, forget
    from minicontainer.linux.netlink import Netlink

    with Netlink() as kernel:
        local = {found.address.partition("/")[0] for found in kernel.addresses()}
    for six in sorted({six for six, _ in wanted}):
        forget(
            known
            for known in connections("udp", six)
            if (six, known.original.destination_port) in wanted
            and known.original.destination in local
            and known.original.destination == known.reply.source
        )


def _rules() -> str:
    """The table with its rules, and with nothing in its sets."""
    return f"""
create table {TABLE}

# Who is who. The comment of an element is the bridge that it belongs to.
add set {TABLE} bridges {{ type ifname; }}
add set {TABLE} internal {{ type ifname; }}
add set {TABLE} within {{ type ifname . ifname; }}
add set {TABLE} subnets {{ type ipv4_addr; flags interval; }}
add set {TABLE} subnets6 {{ type ipv6_addr; flags interval; }}
add set {TABLE} hairpin {{ type ipv4_addr . ipv4_addr; flags interval; }}
add set {TABLE} hairpin6 {{ type ipv6_addr . ipv6_addr; flags interval; }}
add map {TABLE} ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map {TABLE} ports6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
add map {TABLE} ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map {TABLE} ports6_at {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}

# What was switched on for us, and was off: forwarding, and, on these devices, the advice of routers beside it.
add set {TABLE} forwarding {{ type nf_proto; }}
add set {TABLE} advised {{ type ifname; }}

# Published ports: what is for this host, at such an address or any, goes to a container.
add chain {TABLE} published
add rule {TABLE} published dnat ip to ip daddr . meta l4proto . th dport map @ports_at
add rule {TABLE} published dnat ip to meta l4proto . th dport map @ports
add rule {TABLE} published dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at
add rule {TABLE} published dnat ip6 to meta l4proto . th dport map @ports6

# From elsewhere. What is published on 127.0.0.1 is not for the neighbours, who could write that address on a packet.
add chain {TABLE} prerouting {{ type nat hook prerouting priority -100; }}
add rule {TABLE} prerouting ip daddr 127.0.0.0/8 return
add rule {TABLE} prerouting fib daddr type local jump published

# From this host itself.
add chain {TABLE} output {{ type nat hook output priority -100; }}
add rule {TABLE} output fib daddr type local jump published

# Bridges may route to 127.0.0.1, for the answers to what came from there; nothing that says so itself comes in.
add chain {TABLE} martians {{ type filter hook prerouting priority -300; }}
add rule {TABLE} martians ip daddr 127.0.0.0/8 iifname @bridges drop
add rule {TABLE} martians ip saddr 127.0.0.0/8 iifname @bridges drop

# Nothing gets to a bridge but its own, answers, and what is published. Most packets belong to what has been let in
# already, so they are asked about first.
add chain {TABLE} forward {{ type filter hook forward priority 0; }}
add rule {TABLE} forward ct state established,related accept
add rule {TABLE} forward iifname . oifname @within accept
add rule {TABLE} forward iifname @internal drop
add rule {TABLE} forward oifname @internal drop
add rule {TABLE} forward oifname @bridges ct status dnat accept
add rule {TABLE} forward oifname @bridges drop

# Whose answer would not find back goes out with an address of this host: containers' packets to the world, those from
# 127.0.0.1, and those to a published port of their own network, which would be answered behind our back.
add chain {TABLE} postrouting {{ type nat hook postrouting priority 100; }}
add rule {TABLE} postrouting oifname @bridges ip saddr 127.0.0.0/8 masquerade
add rule {TABLE} postrouting ct status dnat ip saddr . ip daddr @hairpin masquerade
add rule {TABLE} postrouting ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade
add rule {TABLE} postrouting oifname != @bridges ip saddr @subnets masquerade
add rule {TABLE} postrouting oifname != @bridges ip6 saddr @subnets6 masquerade
"""


_FORWARDING = {"ipv4": "/proc/sys/net/ipv4/ip_forward", "ipv6": "/proc/sys/net/ipv6/conf/all/forwarding"}
_ACCEPT_RA = "/proc/sys/net/ipv6/conf/{}/accept_ra"
_ROUTE_LOCALNET = "/proc/sys/net/ipv4/conf/{}/route_localnet"


def _add(bridge: str, elements: Sequence[Element], forwarded: Sequence[str] = ()) -> None:
    """Add elements in one transaction, the table too if it is missing, and switch forwarding on.

    `forwarded` are addresses of the families that need it. What is changed of the host is in the table first, so that
    whoever takes that away, knows.
    """
    name = _name(bridge)
    known = [("bridges", f'"{name}"', ""), ("within", f'"{name}" . "{name}"', ""), *elements]
    changes = []
    for family in sorted({"ipv6" if ":" in address else "ipv4" for address in forwarded}):
        try:
            was = _get(_FORWARDING[family])
        except FileNotFoundError:
            raise OSError(errno.EAFNOSUPPORT, f"this host has no {family}: {_FORWARDING[family]} is missing") from None
        if was == 0:
            known.append(("forwarding", family, ""))
            changes.append((_FORWARDING[family], 1))
            for device in _advised() if family == "ipv6" else ():
                known.append(("advised", f'"{device}"', ""))
                changes.insert(0, (_ACCEPT_RA.format(device), 2))
    commands = _lines("add", known, name)
    try:
        nftables.run(commands)
    except FileNotFoundError:
        try:
            nftables.run(_rules() + commands)
        except FileExistsError:  # somebody else has made the table meanwhile
            nftables.run(commands)
    for path, value in changes:
        _set(path, value)


def _advised() -> list[str]:
    """The devices by which a router has told of itself: a host that forwards stops listening to it, unless told to.

    ip-sysctl.rst, accept_ra: 1 is "unless forwarding", 2 is "also then".
    """
    from minicontainer.linux.netlink import RTPROT_RA, Netlink

    with Netlink() as kernel:
        routes, names = kernel.routes(), {link.index: link.name for link in kernel.links()}
    devices = sorted({names[route.index] for route in routes if route.protocol == RTPROT_RA})
    return [device for device in devices if _get(_ACCEPT_RA.format(device)) == 1]


def _mapped(maps: Collection[str]) -> dict[tuple[str, str], tuple[str, str]]:
    """What published ports lead to: (map, key) → (value, as in an element; bridge)."""
    found = {}
    for where in sorted(maps):
        for _, key, comment, value in _elements(nftables.listing(f"list map {TABLE} {where}")):
            found[where, key] = (f" : {value}", comment)
    return found


def _lines(verb: str, elements: Iterable[Element], comment: str = "") -> str:
    """A command for each element."""
    told = f' comment "{comment}"' if comment else ""
    return "".join(f"{verb} element {TABLE} {where} {{ {key}{told}{value} }}\n" for where, key, value in elements)


def _element(port: Port) -> Element:
    """Map, key and value of a published port. Raises ValueError."""
    protocol, host, host_port, container, container_port = port
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f'"{protocol}" has no ports to publish; tcp, udp and sctp have')
    for number in (host_port, container_port):
        if not 0 < number < 65536:
            raise ValueError(f"{number} is no port: they go from 1 to 65535")
    six = "6" if ":" in container else ""
    where, key = f"ports{six}", f"{protocol} . {host_port}"
    if host not in ("", "0.0.0.0", "::"):
        if (":" in host) != (":" in container):
            raise ValueError(f"{host} and {container} are addresses of different kinds: no port leads across")
        where, key = f"{where}_at", f"{_address(host)} . {key}"
    return where, key, f" : {_address(container)} . {container_port}"


def _port(key: str, value: str) -> Port:
    """The published port that an element is."""
    *host, protocol, host_port = key.split(" . ")
    container, container_port = value.split(" . ")
    return protocol, host[0] if host else "", int(host_port), container, int(container_port)


def _elements(listed: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Set or map, key, comment and value of each element, of what nft -j lists."""
    for entry in listed:
        where = entry.get("set") or entry.get("map") or {}
        for element in where.get("elem", []):
            key, value = element if isinstance(element, list) else (element, "")
            told = key.get("elem", {"val": key}) if isinstance(key, dict) else {"val": key}
            yield where["name"], _text(told["val"]), told.get("comment", ""), _text(value)


def _text(value: Any) -> str:
    """A key or a value as nft's own language has it."""
    if isinstance(value, dict):
        if "concat" in value:
            return " . ".join(map(_text, value["concat"]))
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return str(value)


def _name(bridge: str) -> str:
    """A device's name, in which nft would find nothing of its own. Raises ValueError."""
    if not 0 < len(bridge) < 16 or not set(bridge).isdisjoint(' "*\\/\n\t;{}') or not bridge.isprintable():
        raise ValueError(f'"{bridge}" cannot be the name of a bridge')
    return bridge


def _address(text: str) -> str:
    """An address as the kernel writes it. Raises ValueError."""
    from minicontainer.linux.netlink import format_address, parse_address

    return format_address(parse_address(text)[1])


def _subnet(text: str) -> str:
    """The network that ``172.17.0.1/16`` is in. Raises ValueError."""
    from minicontainer.linux.netlink import format_address, parse_network

    _, raw, length = parse_network(text)
    keep = (1 << len(raw) * 8) - (1 << len(raw) * 8 - length)
    return f"{format_address((int.from_bytes(raw, 'big') & keep).to_bytes(len(raw), 'big'))}/{length}"


def _get(path: str) -> int:
    with open(path) as file:
        return int(file.read())


def _set(path: str, value: int) -> None:
    with open(path, "w") as file:
        file.write(str(value))
