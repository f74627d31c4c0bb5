"""What a container reads about names: /etc/hosts, /etc/resolv.conf and /etc/hostname, in docker's form."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from minicontainer.network.addresses import canonical
from minicontainer.network.errors import NetworkError
from minicontainer.network.serving import serves
from minicontainer.network.store import Endpoint, Network

FILES = ("hosts", "resolv.conf", "hostname")
"""Below /etc."""

HOST = ("host.containers.internal", "host.docker.internal")
"""What containers call the host: podman's name and docker's."""

HOST_GATEWAY = "host-gateway"
"""In place of an address: the host's."""

_LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts_file(
    hostname: str,
    domainname: str | None,
    ends: Sequence[tuple[Endpoint, Network]],
    added: Sequence[str] = (),
) -> str:
    """hosts(5): the loopback, what was added (``NAME:ADDRESS``), the host, and the container itself on each network.

    Raises NetworkError: what was added is no address, or the host has none here.
    """
    lines = [_LOCAL]
    gateway = _host_of(ends)
    for text in added:
        name, address = read_added(text)
        if address == HOST_GATEWAY:
            if not gateway:
                raise NetworkError(f"--add-host {text}: the container is on no bridge of the host's, which has no "
                                   "address there")  # fmt: skip
            address = gateway
        lines.append(f"{address}\t{name}\n")
    if gateway:
        lines.append(f"{gateway}\t{' '.join(HOST)}\n")
    full = [f"{hostname}.{domainname}"] if domainname and hostname else []
    for endpoint, _ in ends:
        names = dict.fromkeys([*full, hostname, *endpoint.names])
        lines += [f"{address}\t{' '.join(filter(None, names))}\n" for address in endpoint.plain_addresses]
    return "".join(lines)


def resolv_conf(
    ends: Sequence[tuple[Endpoint, Network]],
    host: str,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
) -> str:
    """resolv.conf(5): our own server where there is one, which asks `dns` or the host's about what it does not know.

    `host` is what the host's own file says. Where there is none of ours, the container asks for itself; the servers
    that the host has on its own loopback cannot be reached from there.
    """
    servers, searched, set = _read_resolv_conf(host)
    ours = [gateway for _, network in ends if serves(network) for gateway in network.gateways if gateway]
    reachable = [one for one in servers if not one.startswith("127.") and one != "::1"]
    asked = ours[:1] or list(dns) or reachable
    searched = [] if "." in search else list(search) or searched
    set = list(options) or set
    lines = [f"nameserver {one}\n" for one in asked]
    lines += [f"search {' '.join(searched)}\n"] if searched else []
    lines += [f"options {' '.join(set)}\n"] if set else []
    return "".join(lines)


def read_added(text: str) -> tuple[str, str]:
    """The name and the address of ``NAME:ADDRESS``. Raises NetworkError."""
    name, colon, address = text.partition(":")
    if not colon:
        name, _, address = text.partition("=")
    if not name or not address or set(name) & set(" \t\n#"):
        raise NetworkError(f'cannot understand --add-host "{text}": write NAME:ADDRESS, or NAME:{HOST_GATEWAY}')
    if address == HOST_GATEWAY:
        return name, address
    return name, canonical(address.removeprefix("[").removesuffix("]"))


def _host_of(ends: Sequence[tuple[Endpoint, Network]]) -> str:
    """The host's address on the first bridge where it has one."""
    found = (gateway for _, network in ends if serves(network) for gateway in network.gateways if gateway)
    return next(found, "")


def _read_resolv_conf(text: str) -> tuple[list[str], list[str], list[str]]:
    """Its servers, domains to search and options; of the words that exclude one another, the last holds."""
    servers, search, options = list[str](), list[str](), list[str]()
    for line in text.splitlines():
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest:
            with contextlib.suppress(NetworkError):
                servers.append(canonical(rest[0]))
        elif word in ("search", "domain"):
            search = [one for one in rest if one != "."]
        elif word == "options":
            options += rest
    return servers, search, options
