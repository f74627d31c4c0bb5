"""Networks as an engine wants them: made, joined, left, taken down; each change written down before it is made.

What the host has of a network, a bridge and rules, is made with its first container. It goes after its last one, but
not at once: to remove a bridge, the kernel waits for an RCU grace period or two, 30 to 60 ms for which nobody should
have to wait, and the next container may be on its way. `keeping` does it a moment later.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

from minicontainer.network import planning, ports, serving
from minicontainer.network.addresses import mac_of
from minicontainer.network.connection import establish, publish, rules, set_rules, unmake
from minicontainer.network.errors import NetworkError
from minicontainer.network.host import traffic
from minicontainer.network.store import DEFAULT, PREDEFINED, Endpoint, Network, Records
from minicontainer.network.wishes import Attachment, Port
from minicontainer.record import Record
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Who(Record):
    """A container, as networks know it."""

    id: str
    name: str
    hostname: str = ""
    dns: tuple[str, ...] = ()
    """The servers that it wants asked, in place of the host's."""

    @property
    def short(self) -> str:
        """Its id, as it is shown."""
        return self.id[:12]


class Networks:
    """All networks of one engine."""

    def __init__(self, root: str, steps: Steps) -> None:
        """`root`: the engine's state directory."""
        self.root = root
        self.records = Records(root)
        self.steps = steps

    # Networks

    def create(self, name: str, **wishes: Any) -> Network:
        """Remember a new network; the host's part is made with its first container. Raises NetworkError.

        `wishes` are those of `planning.planned`.
        """
        with self.records.locked():
            network = planning.planned(self.records, name, **wishes)
            self.records.write(network)
            self.records.set_endpoints(name, [])
            return network

    def all(self) -> list[Network]:
        """Every network that containers can be connected to by us; of the default one what it is or would be."""
        found = self.records.all()
        if not any(network.name == DEFAULT for network in found):
            with self.records.locked(), contextlib.suppress(NetworkError):
                found.insert(0, planning.default_network(self.records))
        return found

    def find(self, name: str) -> Network:
        """The network with this name, or whose id begins so. Raises NetworkError."""
        matching = [network for network in self.all() if name in (network.name, network.id)]
        matching = matching or [network for network in self.all() if name and network.id.startswith(name)]
        if len(matching) != 1:
            from minicontainer.runtime.errors import did_you_mean

            like = did_you_mean(name, [network.name for network in self.all()])
            raise NetworkError(f'there is no network "{name}"{like or "; see: minicontainer network ls"}', exit_code=1)
        return matching[0]

    def remove(self, name: str) -> None:
        """Forget a network, and take down what the host has of it. Raises NetworkError: it is in use."""
        if name in PREDEFINED:
            raise NetworkError(f'the network "{name}" is always there, and cannot be removed', 1)
        with self.records.locked():
            network = self.find(name)
            users = self.records.living(network.name)
            if users:
                whose = ", ".join(f'"{one.name}"' for one in users[:5])
                raise NetworkError(f'network "{network.name}" is in use by container {whose}; first: '
                                   f"minicontainer network disconnect {network.name} {users[0].name}", 1)  # fmt: skip
            self._take_down(network)
            self.records.forget(network.name)

    def prune(self) -> list[str]:
        """Remove every network that no container is on; returns their names."""
        gone = []
        with self.records.locked():
            for network in self.records.all():
                if not self.records.living(network.name):
                    self._take_down(network)
                    self.records.forget(network.name)
                    gone.append(network.name)
        return gone

    # Containers come and go

    def join(
        self, who: Who, wanted: Sequence[Attachment], published: Sequence[Port] = (), *, more: bool = False
    ) -> list[Endpoint]:
        """Give a container its addresses and ports, and write them down; `more`: beside those it has.

        Nothing of it is made. Raises NetworkError.
        """
        with self.records.locked():
            self._withdraw_gone()
            there = self.records.of_container(who.id) if more else []
            given: list[tuple[Network, Endpoint, dict[str, str]]] = []
            chosen = ports.booked(self.records, published, who.id) if published else []
            for attachment in wanted:
                network = self._wanted(attachment.network)
                if any(one.network == network.name for one in (*there, *(one for _, one, _ in given))):
                    raise NetworkError(f'container "{who.name}" is on network "{network.name}" already', 1)
                addresses, last = planning.given(self.records, network, attachment, who.id)
                endpoint = _endpoint(who, network, attachment, addresses, [*there, *(one for _, one, _ in given)])
                given.append((network, endpoint, last))
            if chosen:
                _give_ports(given, chosen)
            for network, endpoint, last in given:
                others = [one for one in self.records.endpoints(network.name) if one.container != who.id]
                self.records.set_endpoints(network.name, [*others, endpoint], last)
            return [endpoint for _, endpoint, _ in given]

    def obstacles(self, endpoints: Sequence[Endpoint]) -> list[str]:
        """What of the host's is in the way of networks that are about to be made: other people's rules. A line each."""
        found = [self.records.find(endpoint.network) for endpoint in endpoints]
        for network in found:
            if network and network.driver == "bridge" and not (network.made or network.internal):
                return list(self.steps.obstacles(network.device))
        return []

    def leave(self, container: str, name: str | None = None) -> None:
        """Take back what a container that has ended had, everywhere, or on one network.

        Its device is gone with its network namespace, or goes just now: nobody waits for that, nor for the kernel's
        grace periods when a port is withdrawn. It is as if nobody answered there, until that has been done.
        """
        with self.records.locked():
            left = False
            for network in self.records.all():
                endpoints = self.records.endpoints(network.name)
                if name not in (None, network.name) or not any(one.container == container for one in endpoints):
                    continue
                after = [one for one in endpoints if one.container != container]
                after += [one.replace(gone=True, names=()) for one in endpoints
                          if one.container == container and one.ports]  # fmt: skip
                self.records.set_endpoints(network.name, after)
                left = left or not self.records.living(network.name) or any(one.gone for one in after)
            if left:
                from minicontainer.network.keeping import take_down_later

                take_down_later(self.root)

    def connect(self, who: Who, pid: int, wanted: Attachment) -> Endpoint:
        """Connect a container that runs to one more network. Raises NetworkError, OSError."""
        with self.records.locked():
            before = [self.find(one.network) for one in self.records.of_container(who.id)]
            way_out = not any(gateway and not one.internal for one in before for gateway in one.gateways)
            [endpoint] = self.join(who, [wanted], more=True)
            try:
                establish(self.records, [endpoint], pid, self.steps, way_out=way_out)
            except BaseException:
                self._disconnect(pid, endpoint)
                self.leave(who.id, endpoint.network)
                raise
            return endpoint

    def disconnect(self, who: Who, pid: int, name: str) -> None:
        """Take a container that runs off a network. Raises NetworkError."""
        with self.records.locked():
            network = self.find(name)
            found = [one for one in self.records.endpoints(network.name) if one.container == who.id]
            if not found:
                raise NetworkError(f'container "{who.name}" is not on network "{network.name}"', 1)
            for endpoint in found:
                self._unpublish(endpoint, endpoint.ports)
                self._rewrite(endpoint, endpoint.replace(ports=()))
                self._disconnect(pid, endpoint)
            self.leave(who.id, network.name)

    def republish(self, who: Who, add: Sequence[Port], remove: Sequence[Port]) -> list[Endpoint]:
        """Publish other ports of a container that runs; all of it, or nothing. Returns its endpoints.

        Raises NetworkError.
        """
        with self.records.locked():
            self._withdraw_gone()
            endpoints = self.records.of_container(who.id)
            if not endpoints:
                raise NetworkError(f'container "{who.name}" is on no network whose ports could be published', 1)
            serving = next((one for one in endpoints if one.ports), None) or _publishing(self, endpoints)
            gone = [port for wish in remove for port in matching(serving.ports, wish, who.name)]
            left = [port for port in serving.ports if port not in gone]
            added = ports.booked(self.records, add, who.id)
            for port in added:
                if any(ports.collide(port, other) for other in left):
                    raise NetworkError(f'the port {port} is published already by container "{who.name}" itself')
            after = serving.replace(ports=(*left, *added))
            self._rewrite(serving, serving.replace(ports=(*serving.ports, *added)))  # what may be made meanwhile
            try:
                self._unpublish(serving, gone)
                publish(self.records, self.steps, serving, added)
            except BaseException:
                self._unpublish(serving, added)
                publish(self.records, self.steps, serving, gone)
                self._rewrite(serving, serving)
                raise
            self._rewrite(serving, after)
            return self.records.of_container(who.id)

    def of_container(self, container: str) -> list[Endpoint]:
        """Where a container is connected."""
        return self.records.of_container(container)

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Bytes that each container, by its id, has received and sent, by the counters of the host's ends.

        What the host's end has sent, the container has received.
        """
        owners = {one.host_interface: one.container for network in self.records.all()
                  for one in self.records.endpoints(network.name) if one.host_interface}  # fmt: skip
        counted: dict[str, tuple[int, int]] = {}
        for interface, (came, went) in traffic(owners).items():
            received, sent = counted.get(owners[interface], (0, 0))
            counted[owners[interface]] = received + went, sent + came
        return counted

    # What is left over

    def idle(self) -> list[Network]:
        """Networks of which the host has something, and that no container is on."""
        return [one for one in self.records.all() if one.made and not self.records.living(one.name)]

    def take_down_idle(self, seconds: float = 0) -> bool:
        """Take down what the host has of idle networks, if they have been so for long enough; whether some are not."""
        with self.records.locked():
            self._withdraw_gone()
            waiting = False
            for network in self.idle():
                if self.records.idle_for(network.name, time.time()) < seconds:
                    waiting = True
                else:
                    self._bury_the_dead(network)
                    self._take_down(network)
            return waiting

    def repair(self) -> list[str]:
        """Put right what was killed half-way; returns a line for each thing that was put right."""
        done = []
        with self.records.locked():
            for network in self.records.all():
                for endpoint in self._bury_the_dead(network):
                    done.append(f'the end of network "{network.name}" in container "{endpoint.name}", which has ended')
                left = self.records.endpoints(network.name)
                if left and network.made and network.device:
                    set_rules(network, self.steps)  # somebody may have flushed the ruleset, with ours
                    for endpoint in left:
                        publish(self.records, self.steps, endpoint, endpoint.ports)
                    if serving.serves(network) and not serving.runs(self.records, network):
                        serving.start(self.records, network)
                        done.append(f'the name server of network "{network.name}"')
                if left or not (network.made or network.automatic):
                    continue
                self._take_down(network)
                done.append(f'network "{network.name}" is taken down: no container is on it')
            for name in self.records.half_made():
                self.records.forget(name)
                done.append(f'network "{name}", half made or half removed')
        return done

    # The parts of it

    def _wanted(self, name: str) -> Network:
        """The network, written down; the default one is as soon as somebody wants it."""
        network = self.records.find(name)
        if network is None and name == DEFAULT:
            network = planning.default_network(self.records)
            self.records.write(network)
        if network is None:
            network = self.find(name)
        if not network.made:
            planning.still_free(self.records, network)
        return network

    def _rewrite(self, before: Endpoint, after: Endpoint) -> None:
        others = self.records.endpoints(before.network)
        key = (before.container, before.network)
        written = [after if (one.container, one.network) == key else one for one in others]
        self.records.set_endpoints(before.network, written)

    def _withdraw_gone(self) -> None:
        """Withdraw the ports of containers that have left, at last."""
        for network in self.records.all():
            endpoints = self.records.endpoints(network.name)
            gone = [one for one in endpoints if one.gone]
            if gone:
                self.steps.unpublish([rule for one in gone for rule in rules(one, one.ports)])
                self.records.set_endpoints(network.name, [one for one in endpoints if not one.gone])

    def _bury_the_dead(self, network: Network) -> list[Endpoint]:
        dead = planning.without_dead(self.records, network)
        for endpoint in dead:
            self._unpublish(endpoint, endpoint.ports)
            if endpoint.host_interface and not endpoint.gone:
                self.steps.disconnect(endpoint.host_interface)
        if dead:
            self.records.set_endpoints(network.name, self.records.living(network.name))
        return dead

    def _unpublish(self, endpoint: Endpoint, published: Sequence[Port]) -> None:
        network = self.records.find(endpoint.network)
        if published and network is not None:
            self.steps.unpublish(rules(endpoint, published))

    def _disconnect(self, pid: int, endpoint: Endpoint) -> None:
        if endpoint.host_interface:
            self.steps.disconnect(endpoint.host_interface)
        else:
            with contextlib.suppress(OSError):
                self.steps.disconnect_directly(pid, endpoint.interface)

    def _take_down(self, network: Network) -> None:
        """Remove what the host has of a network; of one that nobody asked for, also what is written."""
        if network.made:
            serving.stop(self.records, network)
            unmake(network, self.steps)
        if network.automatic:
            self.records.forget(network.name)
        elif network.made:
            self.records.write(network.replace(made=False))


def _endpoint(
    who: Who, network: Network, wanted: Attachment, addresses: Sequence[str], others: Sequence[Endpoint]
) -> Endpoint:
    used = {one.interface for one in others}
    interface = wanted.interface or next(
        name for number in range(len(used) + 1) if (name := f"eth{number}") not in used
    )
    if interface in used:
        raise NetworkError(f'container "{who.name}" has a device "{interface}" already')
    first = next((address.partition("/")[0] for address in addresses if ":" not in address), "")
    mac = wanted.mac or (mac_of(first) if first and network.driver in ("bridge", "physical") else "")
    names = dict.fromkeys((who.name, who.short, who.hostname, *wanted.aliases))
    return Endpoint(
        container=who.id,
        name=who.name,
        network=network.name,
        interface=interface,
        addresses=tuple(addresses),
        mac=mac,
        host_interface=f"veth{os.urandom(5).hex()}" if network.device else "",
        names=tuple(name for name in names if name),
        dns=who.dns,
    )


def _give_ports(given: list[tuple[Network, Endpoint, dict[str, str]]], chosen: Sequence[Port]) -> None:
    """Published ports lead to the first network whose gateway is the host."""
    for place, (network, endpoint, last) in enumerate(given):
        if network.device and not network.internal:
            given[place] = (network, _serving(endpoint, chosen), last)
            return
    raise NetworkError(
        "ports can be published on a bridge that leads outside only: not on an internal network, not on one of a "
        "device of the host, where the container can be reached by its own address"
    )


def _serving(endpoint: Endpoint, published: Sequence[Port]) -> Endpoint:
    for port in published:
        version = 6 if ":" in port.address else 4
        if not endpoint.address(version):
            raise NetworkError(f'cannot publish at {port.address}: network "{endpoint.network}" has no IPv{version}')
    return endpoint.replace(ports=(*endpoint.ports, *published))


def _publishing(networks: Networks, endpoints: Sequence[Endpoint]) -> Endpoint:
    for endpoint in endpoints:
        network = networks.find(endpoint.network)
        if network.device and not network.internal:
            return endpoint
    raise NetworkError(
        "none of the container's networks is a bridge that leads outside: there is nothing to publish on"
    )


def matching(published: Sequence[Port], wanted: Port, name: str) -> list[Port]:
    """The published ports that somebody means who wants them away: by the host's port, or the container's alone."""
    where = (wanted.host_port, wanted.address) if wanted.host_port else None
    found = [
        port
        for port in published
        if (port.container_port, port.protocol) == (wanted.container_port, wanted.protocol)
        and where in (None, (port.host_port, port.address))
    ]
    if not found:
        raise NetworkError(f'container "{name}" does not publish {wanted.container_port}/{wanted.protocol} there; see: '
                           f"minicontainer port {name}", 1)  # fmt: skip
    return found
