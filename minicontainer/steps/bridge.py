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
    Netlink,
    change_link,
    inside,
    new_address,
    new_route,
    opened_namespace,
)


def create_bridge(name: str, addresses: Sequence[str] = (), mtu: int | None = None, *, mac: str | None = None) -> None:
    """Make a bridge, give the host these addresses on it (``172.17.0.1/16``), and switch it on.

    Raises OSError: EEXIST (a device has that name), EPERM (needs CAP_NET_ADMIN); ValueError (no name, no address).
    Nothing is left of it then.
    """
    with Netlink() as kernel:
        kernel.add_bridge(name, mtu, mac)
        with _undone(kernel, name):
            _settle(name, bool([address for address in addresses if ":" in address]), route_localnet=1)
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
            _configure(there, namespace, interface, addresses, gateways)
            here.set_link(host_interface, up=True)
            here.index(host_interface), there.index(interface)  # the kernel sees to it, when asked, that both can send
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
        here.add_virtual(kind, interface, here.index(parent), mode, namespace, mtu, mac)
        with _undone(there, interface):
            _configure(there, namespace, interface, addresses, gateways)
            there.index(interface)
            _add_routes(there, interface, gateways)


def disconnect_directly(pid: int, interface: str) -> None:
    """Remove a device of the container's network namespace. Nothing happens if it is not there."""
    with _absent_is_well(), Netlink(pid=pid) as there:
        there.delete_link(interface)


def _configure(
    there: Netlink, namespace: int, interface: str, addresses: Sequence[str], gateways: Sequence[str]
) -> None:
    """Switch a container's device on, and give it its addresses."""
    with inside(namespace):
        _settle(interface, bool([address for address in addresses if ":" in address]))
    index = there.index(interface)
    requests = [new_address(index, address, interface) for address in addresses]
    there.ask(*requests, change_link(interface, up=True))


def _add_routes(there: Netlink, interface: str, gateways: Sequence[str]) -> None:
    if gateways:
        index = there.index(interface)
        there.ask(*[new_route(index, "default", gateway) for gateway in gateways])


def _settle(name: str, ipv6: bool, route_localnet: int = 0) -> None:
    """Settings of a device: no IPv6 where it has no use, and where it has, no advice from whoever calls himself a router.

    A container could (CVE-2020-10749). `route_localnet` lets what the host sends from 127.0.0.1 out through it.
    """
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        _set(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", 0)
        _set(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", not ipv6)
    if route_localnet:
        _set(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", 1)


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
