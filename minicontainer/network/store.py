"""What is remembered of networks, on disk, written before the act: so whatever is killed when, the rest can be told.

STATE/networks/.lock                held (flock(2)) while networks, addresses and ports are given and taken
STATE/networks/.keeper              held by the process that takes down what is not used any more
STATE/networks/NAME/network.json    what a network is; a directory without one is half made or half removed
                   /endpoints.json  which container has which addresses and ports there
                   /names           what its name server answers: names' addresses, whose they are, whom they want asked
                   /server          locked by that server as long as it lives; its pid

An endpoint is one end of a network, in a container. It is written before anything of it is made, and goes when its
container has ended; whose container is not alive any more, has left without a word (kill -9), and counts for nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping

from minicontainer.linux import files
from minicontainer.network.errors import NetworkError
from minicontainer.network.wishes import USERSPACE, Port, is_name
from minicontainer.record import Record, tuples

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "bridge"
"""The network that is made when it is first needed, and goes with its last container."""

PREDEFINED = (DEFAULT, "host", "none", *USERSPACE)
"""Names that are always there."""


class Network(Record):
    """A network: whose containers can reach one another, and what else."""

    name: str
    id: str
    driver: str = "bridge"
    """bridge, macvlan, ipvlan or physical."""
    subnets: tuple[str, ...] = ()
    """``172.17.0.0/16``; at most one of IPv4 and one of IPv6."""
    gateways: tuple[str, ...] = ()
    """Of each subnet: where its containers send what is for elsewhere; "" has none."""
    ranges: tuple[str, ...] = ()
    """Of each subnet: the part of it from which addresses are given; "" is all of it."""
    device: str = ""
    """The bridge that the host has for it."""
    parent: str = ""
    """The device of the host that macvlan, ipvlan and physical go through."""
    mtu: int | None = None
    internal: bool = False
    """Nothing goes out of it, and nothing comes in."""
    options: tuple[tuple[str, str], ...] = ()
    automatic: bool = False
    """Nobody asked for it: it goes with its last container."""
    made: bool = False
    """Whether the host has, or may have, something of it."""
    belongings: Mapping[str, Any] | None = None
    """Addresses and routes that `parent` had before it became a port of the bridge."""
    moved: bool = False
    """Whether all of them have reached the bridge."""
    created: float = 0.0

    @classmethod
    def of(cls, data: dict[str, Any]) -> Network:
        """From what network.json says."""
        return cls(**{name: tuples(value) for name, value in data.items()})


class Endpoint(Record):
    """A container's end of a network."""

    container: str
    """Its id."""
    name: str
    """The container's."""
    network: str
    interface: str
    """What the device is called in there."""
    addresses: tuple[str, ...]
    """With the prefix of the subnet: ``172.17.0.2/16``."""
    mac: str = ""
    host_interface: str = ""
    """What the other end is called out here, where there is one."""
    names: tuple[str, ...] = ()
    """Those that others know it by."""
    dns: tuple[str, ...] = ()
    """The servers that it wants asked about what nobody knows here; none: the host's."""
    ports: tuple[Port, ...] = ()
    """Published ones, each with its port of the host."""
    gone: bool = False
    """Its container has left; its ports are still to be withdrawn, and its address is nobody else's before that."""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Endpoint:
        """From what endpoints.json says."""
        ports = tuple(Port(**port) for port in data.pop("ports", ()))
        return cls(ports=ports, **{name: tuples(value) for name, value in data.items()})

    def asdict(self) -> dict[str, Any]:
        """For endpoints.json."""
        return {**super().asdict(), "ports": [port.asdict() for port in self.ports]}

    @property
    def plain_addresses(self) -> list[str]:
        """Its addresses without the prefix."""
        return [address.partition("/")[0] for address in self.addresses]

    def address(self, version: int = 4) -> str:
        """Its address of this version, without the prefix; "" if it has none."""
        found = (one.partition("/")[0] for one in self.addresses if (":" in one) == (version == 6))
        return next(found, "")


_NAMESPACES_OWN = "/proc/sys/net/ipv4/route/flush"
"""A file that each network namespace has one of; nothing is written to it. Whoever may lock it could keep us waiting:
/proc/self/ns/net could be opened by anybody."""


class Records:
    """The directory that holds all this. Whoever changes something, or decides by what is there, holds the lock."""

    def __init__(self, root: str) -> None:
        self.root = f"{root}/networks"
        self._containers = f"{root}/containers"
        self._held = 0
        self._known: dict[str, tuple[list[Endpoint], dict[str, str]]] = {}
        """What endpoints.json says, by network, while we hold the lock and nobody else writes."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who gives and takes: below this directory, and of all engines in this network namespace.

        For these a file of the namespace's own is locked, which is there already, and which only root may open.
        """
        if self._held:
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1
            return
        held = []
        try:
            os.makedirs(self.root, mode=0o711, exist_ok=True)
            held.append(os.open(f"{self.root}/.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            with contextlib.suppress(OSError):  # an ordinary user, who changes nothing there
                held.append(os.open(_NAMESPACES_OWN, os.O_WRONLY | os.O_CLOEXEC))
            for fd in held:
                fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            for fd in held:
                os.close(fd)
            raise NetworkError(f"cannot keep networks in {self.root}: {error.strerror}") from None
        self._held = 1
        try:
            yield
        finally:
            self._held = 0
            self._known.clear()
            for fd in reversed(held):
                os.close(fd)

    # Networks

    def all(self) -> list[Network]:
        """Every network that is written down, the oldest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.root):
                with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                    found.append(self._read_network(name))
        return sorted(found, key=lambda network: (network.created, network.name))

    def find(self, name: str) -> Network | None:
        """The network with this name, if it is written down."""
        if not is_name(name):
            return None
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return self._read_network(name)
        return None

    def write(self, network: Network) -> None:
        """Write down a network, whole or not at all."""
        os.makedirs(self.directory(network.name), mode=0o711, exist_ok=True)
        files.replace(f"{self.directory(network.name)}/network.json", json.dumps(network.asdict()))

    def forget(self, name: str) -> None:
        """Remove what is written of a network; what it is goes first."""
        directory = self.directory(name)
        for file in ("network.json", *_listed(directory)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{directory}/{file}")
        self._known.pop(name, None)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(directory)

    def half_made(self) -> list[str]:
        """Directories that are no networks."""
        found = []
        for name in _listed(self.root):
            if os.path.isdir(self.directory(name)) and not os.path.exists(f"{self.directory(name)}/network.json"):
                found.append(name)
        return found

    def directory(self, name: str) -> str:
        """Where a network's files are."""
        return f"{self.root}/{name}"

    def _read_network(self, name: str) -> Network:
        return Network.of(json.loads(files.read(f"{self.directory(name)}/network.json")))

    # Endpoints

    def endpoints(self, name: str) -> list[Endpoint]:
        """Those of one network, in the order in which they came."""
        return self._endpoints(name)[0]

    def last_given(self, name: str) -> dict[str, str]:
        """Subnet → the address in it that was given last."""
        return self._endpoints(name)[1]

    def alive(self, container: str) -> bool:
        """Whether a container runs, or is being started: whoever watches over it has this file locked meanwhile."""
        try:
            fd = os.open(f"{self._containers}/{container}/attended", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def living(self, name: str) -> list[Endpoint]:
        """Those whose containers are alive."""
        return [one for one in self.endpoints(name) if not one.gone and self.alive(one.container)]

    def idle_for(self, name: str, now: float) -> float:
        """Seconds since somebody came or left."""
        try:
            return now - os.stat(f"{self.directory(name)}/endpoints.json").st_mtime
        except FileNotFoundError:
            return now

    def set_endpoints(self, name: str, endpoints: list[Endpoint], given: dict[str, str] | None = None) -> None:
        """Write down who is on a network, and what its name server is to answer."""
        given = self.last_given(name) if given is None else given
        text = json.dumps({"endpoints": [endpoint.asdict() for endpoint in endpoints], "given": given})
        self._known.pop(name, None)
        files.replace(f"{self.directory(name)}/endpoints.json", text)
        names: dict[str, list[str]] = {}
        containers, servers = dict[str, str](), dict[str, tuple[str, ...]]()
        for endpoint in endpoints:
            for address in () if endpoint.gone else endpoint.plain_addresses:
                containers[address] = endpoint.container
                if endpoint.dns:
                    servers[address] = endpoint.dns
                for known in endpoint.names:
                    names.setdefault(known, []).append(address)
        text = json.dumps({"names": names, "containers": containers, "servers": servers})
        files.replace(f"{self.directory(name)}/names", text)

    def of_container(self, container: str) -> list[Endpoint]:
        """Every endpoint of a container."""
        everybody = (one for network in self.all() for one in self.endpoints(network.name))
        return [one for one in everybody if one.container == container and not one.gone]

    def _endpoints(self, name: str) -> tuple[list[Endpoint], dict[str, str]]:
        if name not in self._known:
            try:
                data = json.loads(files.read(f"{self.directory(name)}/endpoints.json"))
                found = [Endpoint.of(one) for one in data["endpoints"]], data["given"]
            except FileNotFoundError:
                found = [], {}
            if not self._held:
                return found
            self._known[name] = found
        endpoints, given = self._known[name]
        return list(endpoints), dict(given)


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
