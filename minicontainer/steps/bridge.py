"""Step 12, bridged networks: a switch in the kernel, and cables from it into containers.

What LXC calls lxcbr0, libvirt virbr0 and Docker docker0 is a bridge: a network device that passes frames between those
devices that are its ports, by their MAC addresses, as a switch does. The bridge is at once a device of the host itself
with an address, which the containers use as their gateway. A cable is a veth: two devices, of which each receives what
the other sends. One end becomes a port of the bridge, the other is put into the container's network namespace.

bridge(8), veth(4), rtnetlink(7), ip-link(8).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

from minicontainer.linux.netlink import (
    RT_SCOPE_UNIVERSE,
    RTPROT_KERNEL,
    Address,
    Netlink,
    Route,
    change_link,
    inside,
    moved_address,
    moved_route,
    new_address,
    new_route,
    no_address,
    opened_namespace,
    parse_address,
    parse_network,
    question,
)


def create_bridge(name: str, addresses: Sequence[str] = (), mtu: int | None = None, *, mac: str | None = None) -> None:
    """Make a bridge, give the host these addresses on it (``172.17.0.1/16``), and switch it on.

    Its MAC address is `mac`, or a random one, for as long as it is there. Raises OSError: EEXIST (a device has that
    name), EPERM (needs CAP_NET_ADMIN); ValueError (no name, no address). Nothing is left of it then.
    """
    with Netlink() as kernel:
        kernel.add_bridge(name, mtu, mac or _random_mac())
        with _undone(kernel, name):
            _settle(name, any(":" in address for address in addresses))
            for address in addresses:
                kernel.add_address(name, address)
            kernel.set_link(name, up=True)


def remove_bridge(name: str) -> None:
    """Remove a bridge; its ports, if there are any, stay as devices. Nothing happens if it is not there."""
    with Netlink() as kernel, _absent_is_well():
        kernel.delete_link(name)


def connect(
    pid: int,
    bridge: str,
    interface: str,
    addresses: Sequence[str],
    gateways: Sequence[str] = (),
    *,
    host_interface: str | None = None,
    mac: str | None = None,
    mtu: int | None = None,
) -> str:
    """Lay a cable from a bridge into the network namespace of process `pid`, where its end is called `interface`.

    The end has the `addresses` (``172.17.0.2/16``) and is switched on; what is for nobody on the bridge goes to the
    `gateways`, one of each family. When this returns, the first packet gets through. The end at the bridge is
    `host_interface`, or a name that nobody has; it is returned.

    Raises OSError: ENODEV (no such bridge), EEXIST (one of the two names is taken), ENETUNREACH (a gateway that no
    address leads to), EPERM; ValueError (no name, no address). Nothing is left then.
    """
    host_interface = host_interface or f"mc{os.urandom(4).hex()}"
    with opened_namespace(pid) as namespace, Netlink() as here, Netlink(namespace=namespace) as there:
        here.add_veth(host_interface, interface, namespace, here.index(bridge), mtu, mac)
        with _undone(here, host_interface):
            _settle(host_interface, ipv6=False)
            _switch_on(there, namespace, interface, addresses)
            up = change_link(host_interface, up=True, hairpin=_frames_are_filtered() or None)
            here.ask(up, question(host_interface))
            _add_routes(there, interface, gateways)
    return host_interface


def disconnect(host_interface: str) -> None:
    """Pull a cable out: both of its ends are gone. Nothing happens if it is not there.

    The kernel needs 16 to 50 ms for it. When the container's network namespace ends, it does it by itself.
    """
    with Netlink() as kernel, _absent_is_well():
        kernel.delete_link(host_interface)


def connect_directly(
    pid: int,
    parent: str,
    interface: str,
    addresses: Sequence[str],
    gateways: Sequence[str] = (),
    *,
    kind: str = "macvlan",
    mode: str | None = None,
    mac: str | None = None,
    mtu: int | None = None,
) -> None:
    """Put the container on the network that the host's device `parent` is on, without a bridge: macvlan or ipvlan.

    A macvlan has a MAC address of its own there, an ipvlan shares its parent's. `mode` is "bridge" (containers on the
    same parent reach one another), "private", "vepa" or "passthru"; of an ipvlan "l2", "l3" or "l3s". The host itself
    is reached through neither, which is no fault.

    Raises OSError: EOPNOTSUPP (this kernel has no such devices), ENODEV, EBUSY, EEXIST, EPERM; ValueError. Nothing is
    left then.
    """
    with opened_namespace(pid) as namespace, Netlink() as here, Netlink(namespace=namespace) as there:
        mode = mode or {"macvlan": "bridge", "ipvlan": "l2"}.get(kind, "")
        try:
            here.add_virtual(kind, interface, here.index(parent), mode, namespace, mtu, mac)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise OSError(error.errno, f"{error.strerror}: this kernel has no {kind} devices") from None
            raise
        with _undone(there, interface):
            _switch_on(there, namespace, interface, addresses)
            _add_routes(there, interface, gateways)


def disconnect_directly(pid: int, interface: str) -> None:
    """Remove a device of the container's network namespace. Nothing happens if it is not there."""
    with _absent_is_well(), Netlink(pid=pid) as there:
        there.delete_link(interface)


def hand_over_device(pid: int, device: str, interface: str) -> None:
    """Move a network device of the host into the network namespace of process `pid`, where it is called `interface`.

    Its addresses go along, which the kernel takes from it on the way, and it is switched on there. When the namespace
    ends, a card is back on the host, under its new name and without addresses; any other device ends with it.

    Raises OSError: ENODEV, EEXIST (that name is taken there), EINVAL (the loopback, a bridge), EPERM.
    """
    with opened_namespace(pid) as namespace, Netlink() as here, Netlink(namespace=namespace) as there:
        addresses = [one.address for one in here.addresses(here.index(device)) if one.scope == RT_SCOPE_UNIVERSE]
        here.set_link(device, new_name=interface, namespace=namespace)
        for address in addresses:
            there.add_address(interface, address)
        there.set_link(interface, up=True)


def attach_nic(bridge: str, nic: str) -> list[str]:
    """Make a network card of the host a port of a bridge: containers are then neighbours of whoever is on its cable.

    A port has no use for addresses, so the card's go to the bridge, and with them the routes that led through it and
    its MAC address, by which the neighbours know it. Returns the addresses. What is on the way meanwhile is lost.

    Raises OSError: ENODEV (no such card, no such bridge), EBUSY (a port of another), ELOOP (a bridge), EINVAL (the
    loopback), EPERM; ValueError. Everything is as before then.
    """
    with Netlink() as kernel, contextlib.ExitStack() as back:
        card, switch = kernel.link(nic), kernel.link(bridge)
        if card.master:
            raise OSError(errno.EBUSY, f'"{nic}" is a port of another bridge, or of this one already')
        kernel.set_link(nic, master=switch.index)
        back.callback(kernel.set_link, nic, master=0)
        kernel.set_link(bridge, mac=card.mac, up=True)
        back.callback(kernel.set_link, bridge, mac=switch.mac, up=switch.up)
        for setting in ("disable_ipv6", "accept_ra"):  # a bridge without addresses of IPv6 has had it off
            with contextlib.suppress(FileNotFoundError):
                found = _get(f"/proc/sys/net/ipv6/conf/{bridge}/{setting}")
                _set(f"/proc/sys/net/ipv6/conf/{bridge}/{setting}", _get(f"/proc/sys/net/ipv6/conf/{nic}/{setting}"))
                back.callback(_set, f"/proc/sys/net/ipv6/conf/{bridge}/{setting}", found)
        moved = _move(kernel, card.index, switch.index, None, back)
        back.pop_all()
    return moved


def detach_nic(bridge: str, nic: str, addresses: Sequence[str] | None = None) -> None:
    """Undo `attach_nic`: `addresses`, or all that the bridge has, go back to the card, and the routes that need them.

    Also where `attach_nic` was killed on its way. Nothing happens if the card is no port of the bridge. Raises OSError,
    ValueError; everything is as before then.
    """
    with Netlink() as kernel, contextlib.ExitStack() as back:
        card, switch = kernel.link(nic), kernel.link(bridge)
        if card.master != switch.index:
            return
        kernel.set_link(nic, master=0, up=True)
        back.callback(kernel.set_link, nic, master=switch.index)
        _move(kernel, switch.index, card.index, addresses, back)
        back.pop_all()
        kernel.set_link(bridge, mac=_random_mac())


def restore_nic(nic: str, addresses: Sequence[Address], routes: Sequence[Route]) -> None:
    """Give a network card back what it had before `attach_nic`, as far as it is missing: somebody was killed meanwhile.

    Nothing else may have it any more: remove the bridge first. Raises OSError: ENODEV, EPERM.
    """
    with Netlink() as kernel:
        card = kernel.link(nic)
        kernel.set_link(nic, master=0, up=True)
        requests = [moved_address(known, card.index) for known in addresses]
        requests += [moved_route(route, card.index) for route in sorted(routes, key=lambda route: route.gateway != "")]
        for request in requests:
            with contextlib.suppress(FileExistsError):
                kernel.ask(request)


def _move(
    kernel: Netlink, source: int, target: int, addresses: Sequence[str] | None, back: contextlib.ExitStack
) -> list[str]:
    """Move addresses of a device, and the routes through it that need them, to another.

    At every moment one of the two has them: whoever is killed in between leaves a host that can still be reached.
    """
    found = [known for known in kernel.addresses(source) if known.scope == RT_SCOPE_UNIVERSE]
    wanted = [known for known in found if addresses is None or known.address in addresses]
    routes = [known for known in kernel.routes() if known.index == source and known.protocol != RTPROT_KERNEL]
    if addresses is not None:
        routes = [route for route in routes if any(_leads(known.address, route.gateway) for known in wanted)]
    routes.sort(key=lambda route: route.gateway != "")  # a gateway must be reached by then
    for known in wanted:
        kernel.ask(moved_address(known, target))
        back.callback(kernel.ask, no_address(target, known.address))
    for route in routes:
        kernel.ask(moved_route(route, target))
        back.callback(kernel.ask, moved_route(route, source))
    for known in reversed(wanted):  # the first of a subnet would take the others with it
        kernel.ask(no_address(source, known.address))
        back.callback(kernel.ask, moved_address(known, source))
    return [known.address for known in wanted]


def _leads(address: str, gateway: str) -> bool:
    """Whether the network of ``172.17.0.1/16`` has the gateway in it."""
    family, raw, length = parse_network(address)
    if not gateway or parse_address(gateway)[0] != family:
        return False
    rest = len(raw) * 8 - length
    return int.from_bytes(raw, "big") >> rest == int.from_bytes(parse_address(gateway)[1], "big") >> rest


def _switch_on(there: Netlink, namespace: int, interface: str, addresses: Sequence[str]) -> None:
    """Give a container's device its addresses, and switch it on."""
    with inside(namespace):
        _settle(interface, any(":" in address for address in addresses))
    index = there.index(interface)
    requests = [new_address(index, address, interface) for address in addresses]
    there.ask(*requests, change_link(interface, up=True))


def _add_routes(there: Netlink, interface: str, gateways: Sequence[str]) -> None:
    """Send by the gateways what is for elsewhere. The question sees to it that the device can send by now."""
    index = there.index(interface)
    there.ask(question(interface), *[new_route(index, "default", gateway) for gateway in gateways])


def _random_mac() -> str:
    """A MAC address that is nobody's: the second lowest bit of the first byte says "locally administered".

    A bridge that is given none takes the lowest of its ports', and changes it as they come and go: then nobody's
    neighbour table is right any more.
    """
    return "02:" + os.urandom(5).hex(":")


def _frames_are_filtered() -> bool:
    """Whether rules for packets see the frames that a bridge passes on (br_netfilter).

    What a container sends to a published port of its own is then turned around in the bridge, and goes back into the
    port that it came from, which a switch does only where it is told to.
    """
    try:
        return _get("/proc/sys/net/bridge/bridge-nf-call-iptables") == 1
    except FileNotFoundError:
        return False


def _settle(name: str, ipv6: bool) -> None:
    """Settings of a device: no IPv6 where it has no use; where it has, no advice from whoever calls itself a router.

    A container could (CVE-2020-10749).
    """
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        _set(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", not ipv6)
        if ipv6:
            _set(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", 0)


def _get(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 16))
    finally:
        os.close(fd)


def _set(path: str, value: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _undone(kernel: Netlink, name: str) -> Iterator[None]:
    """If what is within fails, the device is gone."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            kernel.delete_link(name)
        raise


@contextlib.contextmanager
def _absent_is_well() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise
