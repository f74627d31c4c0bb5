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
from collections.abc import Iterable, Iterator, Sequence

from minicontainer.linux import nftables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Port = tuple[str, str, int, str, int]  # protocol, host's address, host's port, container's address and port

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
        _forward(bridge, six)
    _add(bridge, elements)


def publish(bridge: str, ports: Sequence[Port]) -> None:
    """Have what comes for a port of the host go to a container's, for all `ports` at once.

    Each is (protocol, host's address, host's port, container's address, container's port); "" or "0.0.0.0" or "::" is
    every address of the host. Raises OSError: EADDRINUSE (one is another's; none is then published), ValueError.
    """
    elements = [_element(port) for port in ports]
    try:
        _add(bridge, elements)
    except FileExistsError:
        raise OSError(errno.EADDRINUSE, _taken(elements)) from None
    for six in sorted({"6" if ":" in port[3] else "" for port in ports}):
        _forward(bridge, six)
    _forget_direct(ports)


def unpublish(ports: Sequence[Port]) -> None:
    """Undo `publish`, for ports that are and for ports that are not there."""
    elements = [_element(port) for port in ports]
    try:
        nftables.run(_lines("delete", [(where, key, "") for where, key, _ in elements], ""))
    except FileNotFoundError:
        for where, key, _ in elements:
            with contextlib.suppress(FileNotFoundError):
                nftables.run(_lines("delete", [(where, key, "")], ""))
    _forget_translated(ports)


def withdraw(bridge: str) -> None:
    """Take everything of a bridge out of the table, and with the last bridge the table itself."""
    table = nftables.listing(f"list table {TABLE}")
    if not table:
        return
    theirs, others = [], False
    found: dict[str, int] = {}
    for entry in table:
        for kind in ("set", "map"):
            if kind in entry:
                name = entry[kind]["name"]
                for key, comment, value in _elements(entry[kind].get("elem", [])):
                    if name == "forwarding":
                        found[key] = value
                    elif comment == bridge:
                        theirs.append((name, key, ""))
                    elif name == "bridges":
                        others = True
    if others:
        nftables.run(_lines("delete", theirs, ""))
        return
    nftables.run(f"delete table {TABLE}")
    for family, value in found.items():
        _set(_FORWARDING["6" if family == "ipv6" else ""][1], value)


def obstacles() -> list[str]:
    """A line for each other table that drops what is to be forwarded by default, which our accepting cannot change."""
    lines = []
    for entry in nftables.listing("list chains"):
        chain = entry.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            table = f"{chain['family']} {chain['table']}"
            lines.append(
                f"the packet filter's table {table} drops by default what is to be forwarded (chain {chain['name']}): "
                f"containers reach no other network unless it accepts: nft insert rule {table} {chain['name']} accept"
            )
    return lines


def _forget_translated(ports: Sequence[Port]) -> None:
    """Make the kernel forget the connections that came by these ports, or their next packet would still go there."""
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
add map {TABLE} forwarding {{ type nf_proto : mark; }}

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
add rule {TABLE} martians iifname @bridges ip daddr 127.0.0.0/8 drop
add rule {TABLE} martians iifname @bridges ip saddr 127.0.0.0/8 drop

# Nothing gets to a bridge but its own, answers, and what is published.
add chain {TABLE} forward {{ type filter hook forward priority 0; }}
add rule {TABLE} forward iifname . oifname @within accept
add rule {TABLE} forward iifname @internal drop
add rule {TABLE} forward oifname @internal drop
add rule {TABLE} forward oifname @bridges ct state established,related accept
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


_FORWARDING = {
    "": ("ipv4", "/proc/sys/net/ipv4/ip_forward"),
    "6": ("ipv6", "/proc/sys/net/ipv6/conf/all/forwarding"),
}


def _forward(bridge: str, six: str) -> None:
    """Switch forwarding on; what it was is written down in the table first."""
    family, path = _FORWARDING[six]
    with open(path) as file:
        was = file.read().strip()
    if was == "0":
        _add(bridge, [("forwarding", family, " : 0")])
        _set(path, 1)


def _add(bridge: str, elements: list[tuple[str, str, str]]) -> None:
    """Add elements (set, key, value) in one transaction, the table too if it is missing."""
    name = _name(bridge)
    known = [("bridges", f'"{name}"', ""), ("within", f'"{name}" . "{name}"', "")]
    commands = _lines("add", [*known, *elements], name)
    while True:
        try:
            return nftables.run(commands)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # somebody else has made it meanwhile
                return nftables.run(_rules() + commands)


def _taken(elements: Iterable[tuple[str, str, str]]) -> str:
    """Which of these ports lead elsewhere, and where to."""
    told = []
    for where in {where for where, _, _ in elements}:
        wanted = {key: value for name, key, value in elements if name == where}
        for entry in nftables.listing(f"list map {TABLE} {where}"):
            for key, comment, value in _elements(entry.get("map", {}).get("elem", [])):
                if key in wanted and wanted[key] != f" : {_text(value)}":
                    told.append(f"{key} leads to {_text(value)} ({comment})")
    return f"published already: {', '.join(sorted(told)) or 'by somebody who has just gone'}"


def _lines(verb: str, elements: Iterable[tuple[str, str, str]], comment: str) -> str:
    told = f' comment "{comment}"' if comment else ""
    return "".join(f"{verb} element {TABLE} {where} {{ {key}{told}{value} }}\n" for where, key, value in elements)


def _element(port: Port) -> tuple[str, str, str]:
    """Map, key and value of a published port. Raises ValueError."""
    protocol, host, host_port, container, container_port = port
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f'"{protocol}" has no ports to publish: tcp, udp, sctp')
    for number in (host_port, container_port):
        if not 0 < number < 65536:
            raise ValueError(f"{number} is no port: 1 to 65535")
    six = "6" if ":" in container else ""
    key = f"{protocol} . {host_port}"
    where = f"ports{six}"
    if host not in ("", "0.0.0.0", "::"):
        where, key = f"{where}_at", f"{_address(host)} . {key}"
    return where, key, f" : {_address(container)} . {container_port}"


def _elements(listed: list[Any]) -> Iterator[tuple[str, str, Any]]:
    """Key, comment and value of each element, as nft -j lists them."""
    for element in listed:
        key, value = element if isinstance(element, list) else (element, None)
        comment = ""
        if isinstance(key, dict) and "elem" in key:
            comment = key["elem"].get("comment", "")
            key = key["elem"]["val"]
        yield _text(key), comment, value


def _text(key: Any) -> str:
    if isinstance(key, dict):
        if "concat" in key:
            return " . ".join(map(_text, key["concat"]))
        return f"{key['prefix']['addr']}/{key['prefix']['len']}"
    return str(key)


def _name(bridge: str) -> str:
    """A device's name, which nft would take for more than that if it had these signs. Raises ValueError."""
    if not 0 < len(bridge) < 16 or not set(bridge).isdisjoint(' "*\\/\n\t;{}') or not bridge.isprintable():
        raise ValueError(f'"{bridge}" cannot be the name of a bridge')
    return bridge


def _address(text: str) -> str:
    from minicontainer.linux.netlink import format_address, parse_address

    return format_address(parse_address(text)[1])


def _subnet(text: str) -> str:
    from minicontainer.linux.netlink import format_address, parse_network

    _, raw, length = parse_network(text)
    keep = (1 << len(raw) * 8) - (1 << len(raw) * 8 - length)
    return f"{format_address((int.from_bytes(raw, 'big') & keep).to_bytes(len(raw), 'big'))}/{length}"


def _set(path: str, value: int) -> None:
    with open(path, "w") as file:
        file.write(str(value))
