"""Networks on the command line: the options of ``run`` and ``create``, and the commands ``network`` and ``port``."""

from __future__ import annotations

import argparse

from minicontainer.cli.commands import _dispatch, _engine, _let_interrupt
from minicontainer.engine.engine import Engine
from minicontainer.engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.network.store import Network


def wishes_of(arguments: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """The fields of Config that say what a container is connected to. Raises NetworkError."""
    from minicontainer.network.wishes import Attachment, checked, read_attachment, read_ports

    if any(name in ("none", "host") for name in names):
        if len(names) > 1:
            raise EngineError(f"--network {names[0]} and {names[1]}: of none and host there is no other beside it")
        attachments: list[Attachment] = []
    else:
        attachments = [read_attachment(name) for name in names]
    own = {"ip": arguments.ip, "ip6": arguments.ip6, "mac": arguments.mac_address}
    own = {field: value for field, value in own.items() if value} | (
        {"aliases": tuple(arguments.network_alias)} if arguments.network_alias else {}
    )
    if own:
        if len(attachments) != 1:
            raise EngineError("--ip, --ip6, --mac-address and --network-alias are for one network: with several, write "
                              "--network NAME,ip=172.20.0.5,alias=db")  # fmt: skip
        attachments = [checked(attachments[0].replace(**own))]
    return {
        "networks": tuple(attachments),
        "ports": tuple(port for text in arguments.publish for port in read_ports(text)),
        "dns": tuple(arguments.dns),
        "dns_search": tuple(arguments.dns_search),
        "dns_options": tuple(arguments.dns_option),
        "add_hosts": tuple(arguments.add_host),
    }


def port(arguments: argparse.Namespace) -> int:
    """``minicontainer port``: a line for each published port."""
    _let_interrupt()
    from minicontainer.network.ports import shown

    engine = _engine(arguments)
    for endpoint in engine.endpoints(engine.store.find(arguments.container)):
        for line in shown(endpoint):
            print(line)
    return 0


def republish(engine: Engine, names: list[str], publish: list[str], unpublish: list[str]) -> None:
    """``minicontainer update --publish --unpublish``."""
    from minicontainer.network.wishes import read_ports

    add = [port for text in publish for port in read_ports(text)]
    remove = [port for text in unpublish for port in read_ports(text)]
    for name in names:
        engine.republish(engine.store.find(name), add, remove)


def network(arguments: argparse.Namespace) -> int:
    """``minicontainer network …``."""
    _let_interrupt()
    return _dispatch(arguments, "network", COMMANDS)


def _create_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--driver", default="bridge", metavar="DRIVER", help="bridge, macvlan, ipvlan or physical (bridge)")
    add("--subnet", action="append", default=[], metavar="SUBNET", help="its addresses: 172.20.0.0/16, fd00:20::/64")
    add("--gateway", action="append", default=[], metavar="ADDRESS", help="the host's own address there (the first)")
    add("--ip-range", action="append", default=[], metavar="SUBNET", help="give addresses of this part only")
    add("--ipv6", action="store_true", help="addresses of IPv6 too, local ones unless --subnet says which")
    add("--internal", action="store_true", help="nothing goes out of it, and nothing comes in")
    add(
        "-o", "--opt", action="append", default=[], metavar="NAME=VALUE", help="mtu=1400, name=br0, parent=eth1, mode=…"
    )
    add("name", metavar="NAME")


def _create(arguments: argparse.Namespace) -> int:
    options = dict[str, str]()
    for text in arguments.opt:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise EngineError(f'cannot understand the option "{text}": write NAME=VALUE, such as mtu=1400')
        options[_DOCKERS.get(key, key)] = value
    made = _engine(arguments).networks().create(
        arguments.name, driver=arguments.driver, subnets=arguments.subnet, gateways=arguments.gateway,
        ranges=arguments.ip_range, ipv6=arguments.ipv6, internal=arguments.internal, options=options,
    )  # fmt: skip
    print(made.id)
    return 0


_DOCKERS = {
    "com.docker.network.driver.mtu": "mtu", "com.docker.network.bridge.name": "name",
    "macvlan_mode": "mode", "ipvlan_mode": "mode",
}  # fmt: skip


def _list_options(parser: argparse.ArgumentParser) -> None:
    from minicontainer.cli import formats

    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    formats.add_options(parser)


LISTED = {"Name": "NETWORK", "Driver": "DRIVER", "Subnets": "SUBNETS", "Device": "DEVICE", "Containers": "CONTAINERS"}
"""Field → heading."""


def _list(arguments: argparse.Namespace) -> int:
    from minicontainer.cli import formats

    networks = _engine(arguments).networks()
    rows = [
        {"Name": one.name, "Driver": one.driver, "Subnets": " ".join(one.subnets), "Device": one.device or one.parent,
         "Containers": _users(networks, one), "ID": one.id, "Internal": one.internal}
        for one in networks.all()
    ]  # fmt: skip
    rows += [dict.fromkeys(LISTED, "") | {"Name": name, "Driver": name, "ID": "", "Internal": name == "none"}
             for name in ("host", "none")]  # fmt: skip
    if arguments.quiet:
        print("\n".join(str(row["Name"]) for row in rows))
    else:
        formats.show_list(arguments, LISTED, rows)
    return 0


def _users(networks: Any, network: Network) -> str:
    return ", ".join(one.name for one in networks.records.living(network.name)) or "-"


def _names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NETWORK", help="its name, or the beginning of its id")


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    from minicontainer.cli import formats

    _names(parser)
    formats.add_options(parser)


def _inspect(arguments: argparse.Namespace) -> int:
    from minicontainer.cli import formats

    networks = _engine(arguments).networks()
    formats.show_objects(arguments, [shown_network(networks, networks.find(name)) for name in arguments.names])
    return 0


def shown_network(networks: Any, network: Network) -> dict[str, Any]:
    """Docker's words where they say the same."""
    pools = [
        {key: value for key, value in (("Subnet", subnet), ("Gateway", gateway), ("IPRange", part)) if value}
        for subnet, gateway, part in zip(network.subnets, network.gateways, network.ranges, strict=True)
    ]
    return {
        "Name": network.name,
        "Id": network.id,
        "Driver": network.driver,
        "Device": network.device,
        "Parent": network.parent,
        "Internal": network.internal,
        "EnableIPv6": any(":" in subnet for subnet in network.subnets),
        "Mtu": network.mtu,
        "IPAM": {"Config": pools},
        "Options": dict(network.options),
        "Made": network.made,
        "Containers": {
            one.container: {
                "Name": one.name,
                "Interface": one.interface,
                "Addresses": list(one.addresses),
                "MacAddress": one.mac,
            }
            for one in networks.records.living(network.name)
        },
    }


def _remove(arguments: argparse.Namespace) -> int:
    import sys

    networks, code = _engine(arguments).networks(), 0
    for name in arguments.names:
        try:
            _told(networks.remove, name)
            print(name)
        except EngineError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = error.exit_code
    return code


def _prune(arguments: argparse.Namespace) -> int:
    for name in _told(_engine(arguments).networks().prune):
        print(name)
    return 0


def _told(act: Callable[..., Any], *arguments: str) -> Any:
    from minicontainer.engine.networks import told

    with told():
        return act(*arguments)


def _connect_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--ip", default="", metavar="ADDRESS", help="its IPv4 address there")
    add("--ip6", default="", metavar="ADDRESS", help="its IPv6 address there")
    add("--mac-address", default="", metavar="MAC", help="its MAC address there")
    add("--alias", action="append", default=[], metavar="NAME", help="another name that it is known by there")
    _pair(parser)


def _pair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK")
    parser.add_argument("container", metavar="CONTAINER", help="its name, or the beginning of its id")


def _connect(arguments: argparse.Namespace) -> int:
    from minicontainer.network.wishes import Attachment, checked

    engine = _engine(arguments)
    wanted = Attachment(arguments.network, arguments.ip, arguments.ip6, arguments.mac_address, tuple(arguments.alias))
    engine.connect(engine.store.find(arguments.container), checked(wanted))
    return 0


def _disconnect(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    engine.disconnect(engine.store.find(arguments.container), arguments.network)
    return 0


def _graph_options(parser: argparse.ArgumentParser) -> None:
    formats = ("text", "svg", "json")
    parser.add_argument("--format", choices=formats, default="text", help="a tree, a picture, or for programs (text)")


def _graph(arguments: argparse.Namespace) -> int:
    from minicontainer.network import drawing

    graph = _engine(arguments).network_graph()
    if arguments.format == "json":
        import json

        print(json.dumps(graph.asdict(), indent=2, ensure_ascii=False))
    elif arguments.format == "svg":
        print(drawing.as_svg(graph), end="")
    else:
        print(drawing.as_text(graph))
    return 0


COMMANDS: dict[str, tuple[str, Callable[[Any], None], Callable[[argparse.Namespace], int]]] = {
    "create": ("make a network", _create_options, _create),
    "ls": ("list networks", _list_options, _list),
    "inspect": ("all that is known of networks, as JSON", _inspect_options, _inspect),
    "rm": ("remove networks that no container is on", _names, _remove),
    "prune": ("remove every network that no container is on", lambda parser: None, _prune),
    "connect": ("connect a container to one more network, also while it runs", _connect_options, _connect),
    "disconnect": ("take a container off a network", _pair, _disconnect),
    "graph": ("draw what there is: bridges, addresses, containers, published ports", _graph_options, _graph),
}
"""``minicontainer network WHAT`` → what it does, what sets up its options, what carries it out."""
