"""A container's networks over its life: joined before it is born, left when it has ended. The suppliers know no engine.

Imported only for a container that has networks: those without shall not wait for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux.capabilities import capget
from minicontainer.network.addresses import canonical
from minicontainer.network.connection import Connection
from minicontainer.network.errors import NetworkError
from minicontainer.network.files import FILES, hosts_file, read_added, resolv_conf
from minicontainer.network.networks import Networks, Who
from minicontainer.network.store import Endpoint, Network
from minicontainer.network.wishes import USERSPACE, Attachment, Port
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.failure import describe, explain
from minicontainer.runtime.spec import Mount
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.network.graph import Graph
    from minicontainer.runtime.birth import Connect

SHARED = "container:"
"""In place of a network's name: that container's network namespace."""


def check(config: Config) -> None:
    """Refuse what cannot be, before anything is made. Raises EngineError."""
    if config.networks and "net" in config.shared:
        raise EngineError("--network host is the host's own network: there is no other beside it")
    sharing = [one for one in config.networks if one.network.startswith(SHARED)]
    if sharing and len(config.networks) > 1:
        raise EngineError(f"--network {sharing[0].network} is that container's network: there is no other beside it")
    if config.ports and (sharing or not config.networks):
        reason = "the other container's ports are its own" if sharing else "it has no network that leads anywhere"
        raise EngineError(f"there is nothing to publish: {reason}; leave out --publish, or give --network bridge")
    if sharing or not config.networks:
        for option, wishes in (("dns", config.dns), ("dns-search", config.dns_search),
                               ("dns-option", config.dns_options), ("add-host", config.add_hosts)):  # fmt: skip
            if wishes:
                why = "the other container's names are its own" if sharing else "it has no network of its own"
                raise EngineError(f"--{option} {wishes[0]}: {why}; leave it out, or give --network bridge")
    with told():
        for text in config.add_hosts:
            read_added(text)
        for text in config.dns:
            canonical(text)
    for text in (*config.dns_search, *config.dns_options):
        if not text or set(text) & set(" \t\n"):
            raise EngineError(f'"{text}" cannot be a word of resolv.conf')
    if (program := userspace_of(config)) is not None:
        _check_userspace(config, program)
    elif config.networks and not sharing and os.geteuid() != 0:
        raise EngineError(
            f'network "{config.networks[0].network}" needs root: an ordinary user may not connect to the host\'s '
            f"devices; use --network pasta, or none"
        )


def _check_userspace(config: Config, program: str) -> None:
    from minicontainer.network import userspace

    if len(config.networks) > 1:
        raise EngineError(f"--network {program} carries all packets of a container: there is no other beside it")
    if config.networks[0] != Attachment(program):
        raise EngineError(f"--network {program} gives addresses and names itself: leave out ip=, mac= and alias=")
    userspace.check(program)


def connection(store: Store, config: Config, steps: Steps, warn: Callable[[str], object]) -> Connect | None:
    """What connects the container when it is born; its addresses and ports are its own from now on.

    None: nothing is to be connected. `warn` is told what will be in the way. Raises EngineError, StartError.
    """
    if config.networks[0].network.startswith(SHARED):
        return None
    if (program := userspace_of(config)) is not None:
        return _userspace(store, config, program, steps)
    if "NET_ADMIN" not in capget():
        raise EngineError(
            "networks need CAP_NET_ADMIN, which this process lacks: run it as root, or with --network none"
        )
    _mark(store, config)
    with told():
        networks = _networks(store, steps)
        endpoints = networks.join(_who(config), config.networks, config.ports)
        for line in networks.obstacles(endpoints):
            warn(line)
        _write_files(store, config, _ends(config, networks), config.dns)
    return Connection(store.root, tuple(endpoints))


def _userspace(store: Store, config: Config, program: str, steps: Steps) -> Connect:
    """The ports are chosen here, so that whose port is taken can be told, and remembered in the mark."""
    import json

    from minicontainer.network.ports import booked
    from minicontainer.network.userspace import NAMESERVERS, Userspace

    with told():
        records = _networks(store, steps).records
        with records.locked():
            ports = tuple(booked(records, config.ports, config.id))
        _write_files(store, config, [], config.dns or [NAMESERVERS[program]])
    _mark(store, config, json.dumps([port.asdict() for port in ports]))
    return Userspace(program, store.directory(config.id), ports)


def release(store: Store, config: Config, steps: Steps) -> None:
    """Take back what a container that has ended had of networks."""
    if userspace_of(config) is not None:
        from minicontainer.network import userspace

        userspace.release(store.directory(config.id))
    else:
        with told():
            _networks(store, steps).leave(config.id)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(store.networked(config.id))


def shared_with(config: Config) -> str | None:
    """The name of the container whose network this one shares; None: it has its own."""
    if config.networks and config.networks[0].network.startswith(SHARED):
        return config.networks[0].network.removeprefix(SHARED)
    return None


def userspace_of(config: Config) -> str | None:
    """The program that carries its packets; None: none does."""
    names = [one.network for one in config.networks if one.network in USERSPACE]
    return names[0] if names else None


def files(store: Store, config: Config) -> list[Mount]:
    """What of a container's /etc is said by us, to be mounted there: its own files, or those of whom it shares with."""
    other = shared_with(config)
    container, names = (config.id, FILES) if other is None else (store.find(other).id, FILES[:2])
    taken = {place for _, place, _ in config.volumes} | {place for _, _, place, _ in config.mounts}
    found = [(f"{store.directory(container)}/{name}", f"/etc/{name}") for name in names]
    return [
        Mount(destination, "bind", source, uid_mappings=config.uid_maps, gid_mappings=config.gid_maps)
        for source, destination in found
        if destination not in taken and os.path.exists(source)
    ]


def connect(store: Store, config: Config, state: State, wanted: Attachment, steps: Steps) -> Config:
    """Connect a container to one more network, at once if it runs, and for its next start. Raises EngineError."""
    _refuse_sharing(config)
    networks = _networks(store, steps)
    with told():
        network = networks.find(wanted.network)
        if any(one.network == network.name for one in config.networks):
            raise EngineError(f'container "{config.name}" is on network "{network.name}" already', 1)
        wanted = wanted.replace(network=network.name)
        if state.status == "running":
            _mark(store, config)
            networks.connect(_who(config), state.pid or 0, wanted)
            _write_files(store, config, _ends(config, networks), config.dns)
    config = config.replace(networks=(*config.networks, wanted))
    store.change(config)
    return config


def disconnect(store: Store, config: Config, state: State, name: str, steps: Steps) -> Config:
    """Take a container off a network. Raises EngineError."""
    networks = _networks(store, steps)
    with told():
        network = networks.find(name)
        if not any(one.network == network.name for one in config.networks):
            raise EngineError(f'container "{config.name}" is not on network "{network.name}"', 1)
        if state.status == "running":
            networks.disconnect(_who(config), state.pid or 0, network.name)
            _write_files(store, config, _ends(config, networks), config.dns)
    config = config.replace(networks=tuple(one for one in config.networks if one.network != network.name))
    store.change(config)
    return config


def republish(
    store: Store, config: Config, state: State, add: Sequence[Port], remove: Sequence[Port], steps: Steps
) -> Config:
    """Publish other ports of a container: all of them at once, or none. Raises EngineError."""
    _refuse_sharing(config)
    if state.status == "running":
        with told():
            endpoints = _networks(store, steps).republish(_who(config), add, remove)
        ports = tuple(port for endpoint in endpoints for port in endpoint.ports)
    else:
        from minicontainer.network.networks import matching

        gone = [port for wish in remove for port in matching(config.ports, wish, config.name)]
        ports = (*(port for port in config.ports if port not in gone), *add)
    config = config.replace(ports=ports)
    store.change(config)
    return config


def endpoints_of(store: Store, config: Config, steps: Steps) -> list[Endpoint]:
    """Where a container is connected now."""
    if (program := userspace_of(config)) is not None:
        return _userspace_endpoint(store, config, program)
    return _networks(store, steps).of_container(config.id)


def _userspace_endpoint(store: Store, config: Config, program: str) -> list[Endpoint]:
    import json

    try:
        with open(store.networked(config.id), encoding="utf-8") as mark:
            ports = tuple(Port(**port) for port in json.load(mark))
    except FileNotFoundError:
        return []
    return [Endpoint(config.id, config.name, program, "", (), ports=ports)]


def shown(store: Store, config: Config, steps: Steps) -> dict[str, Any]:
    """Likewise, in docker's words, for ``inspect``."""
    endpoints = endpoints_of(store, config, steps)
    networks, ports = _networks(store, steps), dict[str, list[dict[str, str]]]()
    for endpoint in endpoints:
        for port in endpoint.ports:
            bound = {"HostIp": port.address, "HostPort": str(port.host_port)}
            ports.setdefault(f"{port.container_port}/{port.protocol}", []).append(bound)
    known = {network.name: network for network in networks.all()}
    if userspace_of(config) is not None:
        return {"Networks": {one.network: {} for one in endpoints}, "Ports": ports}
    return {
        "Networks": {
            one.network: {
                "NetworkID": known[one.network].id,
                "Interface": one.interface,
                "IPAddress": one.address(),
                "GlobalIPv6Address": one.address(6),
                "Addresses": list(one.addresses),
                "Gateways": [gateway for gateway in known[one.network].gateways if gateway],
                "MacAddress": one.mac,
                "HostInterface": one.host_interface,
                "Aliases": list(one.names),
            }
            for one in endpoints
        },
        "Ports": ports,
    }


def graph(store: Store, running: Sequence[tuple[Config, State]], steps: Steps) -> Graph:
    """What networks there are now, and these containers on them. Raises EngineError."""
    from minicontainer.network.graph import look

    known, pids, endpoints = _networks(store, steps), dict[str, int](), list[Endpoint]()
    for config, state in running:
        if config.networks and state.pid and shared_with(config) is None:
            pids[config.id] = state.pid
            endpoints += endpoints_of(store, config, steps)
    with told():
        return look(known.all(), endpoints, pids)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What the kernel refuses, in the words of the step that asked."""
    try:
        yield
    except NetworkError as error:
        raise EngineError(str(error), error.exit_code) from None
    except StartError:
        raise
    except OSError as error:
        raise explain(describe(error)) from None


def _networks(store: Store, steps: Steps) -> Networks:
    return Networks(store.root, steps)


def _who(config: Config) -> Who:
    return Who(config.id, config.name, config.hostname, tuple(map(canonical, config.dns)))


def _ends(config: Config, networks: Networks) -> list[tuple[Endpoint, Network]]:
    """Where a container is connected, in the order of its devices."""
    ends = [(one, networks.find(one.network)) for one in networks.of_container(config.id)]
    return sorted(ends, key=lambda end: end[0].interface)


def _write_files(store: Store, config: Config, ends: Sequence[tuple[Endpoint, Network]], dns: Sequence[str]) -> None:
    """Say in a container's files what names there are: in place, since it sees these very files."""
    host = ""
    with contextlib.suppress(OSError), open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
        host = file.read()
    written = (
        hosts_file(config.hostname, config.domainname, ends, config.add_hosts),
        resolv_conf(ends, host, [canonical(one) for one in dns], config.dns_search, config.dns_options),
        f"{config.hostname}\n",
    )
    for name, text in zip(FILES, written, strict=True):
        file_descriptor = os.open(
            f"{store.directory(config.id)}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644
        )
        try:
            os.write(file_descriptor, text.encode())
        finally:
            os.close(file_descriptor)


def _mark(store: Store, config: Config, text: str = "") -> None:
    fd = os.open(store.networked(config.id), os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(fd, text.encode())
    os.close(fd)


def _refuse_sharing(config: Config) -> None:
    other = shared_with(config)
    if other is not None:
        raise EngineError(f'container "{config.name}" shares the network of "{other}": change that container\'s', 1)
    if "net" in config.shared:
        raise EngineError(f'container "{config.name}" is on the host\'s network: there is nothing to connect', 1)
    if (program := userspace_of(config)) is not None:
        raise EngineError(f'container "{config.name}" has {program} for a network, as it was created: that stays', 1)
