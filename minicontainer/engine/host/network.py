"""The pieces that container networks are made of: each is made once, in a network namespace that vanishes with it.

A kind of device or an expression of nftables that is not in the kernel yet is loaded by who asks for it. So a piece is
only tried where it is there already; of a module that is not loaded, it is enough to know that it can be.
"""

from __future__ import annotations

import errno
import os
import struct

from minicontainer.engine.host.files import device_file, elsewhere
from minicontainer.engine.host.finding import Finding, content
from minicontainer.engine.host.kernel import HERE, Kernel, build_with, configured, named
from minicontainer.engine.host.netlink import add_table, make_link
from minicontainer.engine.host.probing import attempt, isolate
from minicontainer.linux import CLONE_NEWNET
from minicontainer.linux.netlink import attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LIBNFTABLES = "libnftables.so.1"

VLAN_ID, VXLAN_ID = attribute(1, struct.pack("=H", 7)), attribute(1, struct.pack("=I", 7))

DEVICES = (
    # what                   kind       option         module     upon  data       what for
    ("veth pairs",           "veth",    "VETH",        "veth",    "",   b"",       "one end inside, the other outside"),
    ("bridges",              "bridge",  "BRIDGE",      "bridge",  "",   b"",       "containers of one network"),
    ("macvlan",              "macvlan", "MACVLAN",     "macvlan", "up", b"",       "straight on the host's network"),
    ("ipvlan",               "ipvlan",  "IPVLAN",      "ipvlan",  "up", b"",       "likewise, by the host's address"),
    ("VLANs",                "vlan",    "VLAN_8021Q",  "8021q",   "up", VLAN_ID,   "networks with tags"),
    ("VXLAN",                "vxlan",   "VXLAN",       "vxlan",   "",   VXLAN_ID,  "a network over several hosts"),
    ("dummy devices",        "dummy",   "DUMMY",       "dummy",   "",   b"",       "devices that lead nowhere"),
)  # fmt: skip


def of_network(kernel: Kernel) -> list[Finding]:
    """The findings about networks."""
    return [
        _loopback(),
        *(_device(kernel, *line) for line in DEVICES),
        _tun(kernel),
        _packets(kernel, "nftables", ("NF_TABLES",), ("nf_tables",), add_table, "rules for packets"),
        _packets(
            kernel, "masquerading", ("NF_TABLES", "NFT_NAT", "NFT_MASQ", "NF_NAT"),
            ("nf_tables", "nft_chain_nat", "nft_masq", "nf_nat"),
            lambda: add_table(masquerade=True), "containers reach out behind the host's address",
        ),
        _tracking(kernel),
        configured(
            kernel, "bridge netfilter", ("BRIDGE_NETFILTER",), ("/proc/sys/net/bridge",),
            mend="as root: modprobe br_netfilter; only iptables rules on a bridge's own packets want it",
        ),
        configured(
            kernel, "iptables",
            (
                "NETFILTER_ADVANCED", "IP_NF_FILTER", "IP_NF_NAT", "IP_NF_TARGET_MASQUERADE",
                "IP6_NF_TARGET_MASQUERADE", "NETFILTER_XT_MATCH_ADDRTYPE", "NETFILTER_XT_MATCH_CONNTRACK",
                "NETFILTER_XT_MATCH_COMMENT", "NETFILTER_XT_TARGET_CHECKSUM", "NETFILTER_XT_MARK",
            ),
            mend="nothing here needs it, docker and LXC may: load the iptables modules, or use their nftables forms",
        ),
        _library(),
        _forwarding(),
        _ipv6(),
    ]  # fmt: skip


def _loopback() -> Finding:
    def act() -> None:
        from minicontainer.linux import IFF_UP, interface_flags, set_interface_flags

        isolate(CLONE_NEWNET)
        set_interface_flags("lo", interface_flags("lo") | IFF_UP)

    error, said = attempt(act)
    mend = "look for what refuses a network namespace, under Namespaces"
    return Finding(
        "loopback",
        error == 0,
        "a network namespace with its own" if error == 0 else said,
        mend,
        True,
        named(("NET_NS", "INET")),
    )


def _device(
    kernel: Kernel, feature: str, kind: str, option: str, module: str, upon: str, data: bytes, why: str
) -> Finding:
    where = kernel.whereabouts(option, module)
    if where != HERE:
        return elsewhere(where, feature, f"{module} is not there", module, (option,))
    lower = next(
        (one for one, name in (("VETH", "veth"), ("BRIDGE", "bridge")) if kernel.whereabouts(one, name) == HERE), None
    )

    def act() -> None:
        isolate(CLONE_NEWNET)
        if upon and lower:
            make_link(lower.lower(), upon)
        try:
            make_link(kind, "probe", upon if upon and lower else None, data)
        except OSError as error:
            if (
                not upon or lower or error.errno != errno.EINVAL
            ):  # the kind is known, and there is nothing to put it upon
                raise

    error, said = attempt(act)
    mend = "look for missing rights: it takes CAP_NET_ADMIN in a network namespace"
    if error == errno.EOPNOTSUPP:  # no such kind
        mend = build_with((option,))
    return Finding(feature, error == 0, why if error == 0 else said, mend, options=named((option,)))


def _tun(kernel: Kernel) -> Finding:
    """What gives a rootless container a way out, pasta(1) and slirp4netns(1), begins with this file."""
    feature, where, file = "tun and tap", kernel.whereabouts("TUN", "tun"), "/dev/net/tun"
    if where != HERE:
        return elsewhere(where, feature, "tun is not there", "tun", ("TUN",))
    return device_file(feature, file, "a way out for rootless containers", "c 10 200", ("TUN",))


def _packets(
    kernel: Kernel, feature: str, options: tuple[str, ...], modules: tuple[str, ...], act: Callable[[], None], why: str
) -> Finding:
    for option, module in zip(options, modules, strict=True):
        where = kernel.whereabouts(option, module)
        if where != HERE:
            found = elsewhere(where, feature, f"{module} is not there", module, (option,))
            return found.replace(options=named(options))

    def in_a_namespace() -> None:
        isolate(CLONE_NEWNET)
        act()

    error, said = attempt(in_a_namespace)
    return Finding(feature, error == 0, why if error == 0 else said, build_with(options), options=named(options))


def _tracking(kernel: Kernel) -> Finding:
    where, options = kernel.whereabouts("NF_CONNTRACK", "nf_conntrack"), ("NF_CONNTRACK",)
    if where != HERE:
        return elsewhere(where, "connection tracking", "nf_conntrack is not there", "nf_conntrack", options)
    room = content("/proc/sys/net/netfilter/nf_conntrack_max")
    shows = f"{room} connections at most" if room else "there"
    return Finding("connection tracking", True, shows, options=named(options))


def _library() -> Finding:
    import shutil

    def load() -> None:
        import ctypes

        ctypes.CDLL(LIBNFTABLES)

    error, said = attempt(load)
    tool = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    shows = (
        LIBNFTABLES
        if error == 0
        else f"{tool}, for want of {LIBNFTABLES}"
        if tool
        else f"neither {LIBNFTABLES} nor nft: {said}"
    )
    return Finding("libnftables", error == 0 or bool(tool), shows, "apt install nftables")


def _forwarding() -> Finding:
    works = content("/proc/sys/net/ipv4/ip_forward") == "1"
    shows = f"net.ipv4.ip_forward={int(works)}" + (
        "" if works else ": a container on a bridge reaches no further than this host"
    )
    return Finding("IP forwarding", works, shows, "as root: sysctl net.ipv4.ip_forward=1")


def _ipv6() -> Finding:
    if not os.path.isdir("/proc/sys/net/ipv6"):
        return Finding("IPv6", False, "this kernel has none", build_with(("IPV6",)), options=named(("IPV6",)))
    off = content("/proc/sys/net/ipv6/conf/all/disable_ipv6") == "1"
    forwards = content("/proc/sys/net/ipv6/conf/all/forwarding") == "1"
    shows = "net.ipv6.conf.all.disable_ipv6=1" if off else f"net.ipv6.conf.all.forwarding={int(forwards)}"
    return Finding("IPv6", not off, shows, "as root: sysctl net.ipv6.conf.all.disable_ipv6=0", options=named(("IPV6",)))
