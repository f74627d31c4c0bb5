"""What is made of a network: the host's part of it, and the connection of one container. Every change is a step's."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from minicontainer.network import serving
from minicontainer.network.errors import NetworkError
from minicontainer.network.host import belongings, has_device, is_port, read_belongings
from minicontainer.network.store import Endpoint, Network, Records
from minicontainer.network.wishes import Port
from minicontainer.record import Record
from minicontainer.steps import Steps


class Connection(Record):
    """Connects a container that is being born: `runtime.birth` calls it with the pid of its process 1."""

    root: str
    """The engine's state directory."""
    endpoints: tuple[Endpoint, ...]
    way_out: bool = True
    """Whether the first network that leads anywhere is the way to everywhere else."""

    def __call__(self, pid: int, steps: Steps) -> None:
        """Make what the host needs for these networks, unless it is there, and connect the process to each."""
        establish(Records(self.root), self.endpoints, pid, steps, way_out=self.way_out)


def establish(records: Records, endpoints: Sequence[Endpoint], pid: int, steps: Steps, *, way_out: bool) -> None:
    """Connect a process to the networks of these endpoints. Raises OSError, NetworkError."""
    with records.locked():
        networks = [make(records, endpoint.network, steps) for endpoint in endpoints]
        for network in networks:
            if serving.serves(network):
                serving.start(records, network)
    for endpoint, network in zip(endpoints, networks, strict=True):
        gateways = [gateway for gateway in network.gateways if gateway and not network.internal]
        _attach(pid, network, endpoint, gateways if way_out else [], steps)
        way_out = way_out and not gateways
        if endpoint.ports:
            publish(records, steps, endpoint, endpoint.ports)


def make(records: Records, name: str, steps: Steps) -> Network:
    """Make the host's part of a network, unless it is there. Raises NetworkError, OSError; nothing is left then."""
    network = records.find(name)
    if network is None:
        raise NetworkError(f'network "{name}" has just been removed')
    if not network.device or (network.made and has_device(network.device)):
        return network
    network = network.replace(made=True)
    if network.driver == "physical":
        network = network.replace(belongings=belongings(network.parent), moved=False)
    records.write(network)
    try:
        addresses = [f"{gateway}/{subnet.partition('/')[2]}"
                     for gateway, subnet in zip(network.gateways, network.subnets, strict=True) if gateway]  # fmt: skip
        if network.driver == "physical":
            steps.create_bridge(network.device, (), network.mtu)
            steps.attach_nic(network.device, network.parent)
            network = network.replace(moved=True)
            records.write(network)
        else:
            steps.create_bridge(network.device, addresses, network.mtu)
            set_rules(network, steps)
    except BaseException:
        with contextlib.suppress(OSError):
            unmake(network, steps)
        records.write(network.replace(made=False))
        raise
    return network


def set_rules(network: Network, steps: Steps) -> None:
    """Say what may get in and out; what is said already is as good."""
    if network.internal:
        steps.isolate(network.device, internal=True)
    elif network.driver == "bridge":
        steps.masquerade(network.device, network.subnets)


def unmake(network: Network, steps: Steps) -> None:
    """Remove it; what is not there is as good."""
    whole = network.driver != "physical"
    if not whole and is_port(network.parent, network.device):  # if not, somebody was killed half-way
        steps.detach_nic(network.device, network.parent)
        whole = network.moved
    if network.device:
        steps.withdraw(network.device)
        steps.remove_bridge(network.device)
    if not whole and network.belongings and has_device(network.parent):
        steps.restore_nic(network.parent, *read_belongings(network.belongings))


def publish(records: Records, steps: Steps, endpoint: Endpoint, published: Sequence[Port]) -> None:
    """Let these ports of the host lead to the container."""
    network = records.find(endpoint.network)
    if published and network is not None:
        steps.publish(network.device, rules(endpoint, published))


def rules(endpoint: Endpoint, published: Sequence[Port]) -> list[tuple[str, str, int, str, int]]:
    """(protocol, the host's address, its port, the container's address, its port) of each, as the steps want them."""
    return [(port.protocol, port.address, port.host_port, endpoint.address(6 if ":" in port.address else 4),
             port.container_port) for port in published]  # fmt: skip


def _attach(pid: int, network: Network, endpoint: Endpoint, gateways: Sequence[str], steps: Steps) -> None:
    mac, mtu = endpoint.mac or None, network.mtu
    if network.driver in ("macvlan", "ipvlan"):
        steps.connect_directly(
            pid, network.parent, endpoint.interface, endpoint.addresses, gateways,
            kind=network.driver, mode=dict(network.options).get("mode"), mac=mac, mtu=mtu,
        )  # fmt: skip
        return
    steps.connect(
        pid, network.device, endpoint.interface, endpoint.addresses, gateways,
        host_interface=endpoint.host_interface, mac=mac, mtu=mtu,
    )  # fmt: skip
