"""Looking at what there is: ``ps`` and ``inspect``."""

from __future__ import annotations

import argparse
import json
import time

from minicontainer.cli import formats
from minicontainer.cli.commands import _engine, _let_interrupt, _printable
from minicontainer.engine.errors import EngineError
from minicontainer.engine.listing import FILTERS, Row, networks_of
from minicontainer.engine.store import Config, State
from minicontainer.runtime.errors import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.cli.arguments import Parser
    from minicontainer.engine.engine import Engine


# ps

_HEALTH = {"starting": " (health: starting)", "healthy": " (healthy)", "unhealthy": " (unhealthy)"}
COLUMNS = {"ID": "CONTAINER", "Names": "NAME", "Image": "IMAGE", "Status": "STATUS", "Command": "COMMAND"}
"""Field, docker's, → heading."""


def ps_options(parser: Parser) -> None:
    """Of ``ps``."""
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="also those that do not run")
    add("-q", "--quiet", action="store_true", help="ids only")
    add("-f", "--filter", action="append", default=[], metavar="NAME=VALUE", help=f"by {', '.join(FILTERS)}")
    add("-n", "--last", metavar="N", help="the last N that were made, whether they run or not")
    add("--no-trunc", action="store_true", help="commands in full")
    formats.add_options(parser)


def ps(arguments: argparse.Namespace) -> int:
    """``minicontainer ps``: a line for each container."""
    _let_interrupt()
    last = arguments.last
    if last is not None and not (last.isascii() and last.isdecimal()):
        raise EngineError(f"ps --last {last}: write a number of containers")
    found = _engine(arguments).listed(arguments.filter, all=arguments.all, last=None if last is None else int(last))
    if arguments.quiet and not arguments.format and not arguments.json:
        for row in found:
            print(row.config.id)
        return 0
    formats.show_list(arguments, COLUMNS, [_listed(row, arguments.no_trunc) for row in found])
    return 0


def _listed(row: Row, in_full: bool) -> dict[str, Any]:
    config, state = row.config, row.state
    command = _printable(" ".join(config.args))
    code = state.exit_code if state.exit_code is not None else "unknown"
    ended = f"exited ({code}{', OOMKilled' if state.oom_killed else ''})"
    return {
        "ID": config.id,
        "Names": config.name,
        "Image": config.image,
        "Command": command if in_full or len(command) <= 60 else f"{command[:59]}…",
        "CreatedAt": _date(config.created),
        "Status": ended if row.status == "exited" else row.status + _HEALTH.get(row.health, ""),
        "Health": row.health,
        "State": row.status,
        "Pid": state.pid or 0 if state.status == "running" else 0,
        "ExitCode": state.exit_code,
        "Ports": ", ".join(f"{port}->{port.container_port}" for port in config.ports),
        "Networks": ",".join(networks_of(config)),
        "Labels": dict(config.labels),
    }


# inspect


def inspect_options(parser: Parser) -> None:
    """Of ``inspect``."""
    parser.add_argument("--type", choices=tuple(KINDS), help="of this kind only (whichever has such a name)")
    formats.add_options(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a container, an image, a network; or an id")


def inspect(arguments: argparse.Namespace) -> int:
    """``minicontainer inspect``: all that is known of them; goes on after a name of nothing."""
    import sys

    _let_interrupt()
    engine, code = _engine(arguments), 0
    found: list[dict[str, Any]] = []
    for name in arguments.names:
        try:
            found.append(_inspected(engine, name, arguments.type))
        except EngineError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 1
    if found or len(arguments.names) > 1:
        formats.show_objects(arguments, found)
    return code


def _inspected(engine: Engine, name: str, kind: str | None) -> dict[str, Any]:
    if kind:
        return KINDS[kind](engine, name)
    for look in KINDS.values():
        try:
            return look(engine, name)
        except EngineError as error:
            if error.exit_code != 1 or "more than one" in str(error):
                raise
    names = [config.name for config in engine.store.all()] + [network.name for network in engine.networks().all()]
    like = did_you_mean(name, names)
    raise EngineError(f'there is no container, image or network "{name}"{like or "; see: minicontainer ps -a"}', 1)


def _container(engine: Engine, name: str) -> dict[str, Any]:
    config = engine.store.find(name)
    shown = shown_container(config, state := engine.state(config), engine.paused(config))
    if config.restart or config.health.test:
        _add_watch(shown, engine, config, state)
    return shown | {"NetworkSettings": engine.network_settings(config)}


def _add_watch(shown: dict[str, Any], engine: Engine, config: Config, state: State) -> None:
    """What is known of its restarts and its health."""
    from minicontainer.engine import restarting
    from minicontainer.engine.health import health_of

    past = restarting.past_of(engine.store, config.id)
    due = restarting.due(config, state, past) is not None
    shown |= {"RestartCount": past.count, "HostConfig": {"RestartPolicy": restarting.shown_policy(config)}}
    shown["State"] |= {"Restarting": due, "Error": past.failed} | ({"Status": "restarting"} if due else {})
    health = health_of(engine.store, config, state)
    if health:
        log = [{**one, "Start": _date(one["Start"]), "End": _date(one["End"])} for one in health.log]
        shown["State"]["Health"] = {"Status": health.status, "FailingStreak": health.streak, "Log": log}


def _image(engine: Engine, name: str) -> dict[str, Any]:
    from minicontainer.cli.images import shown_image
    from minicontainer.engine.images import told

    try:
        with told():
            images = engine.images()
            return shown_image(images.find(name), images.layers)
    except EngineError as error:
        raise EngineError(str(error), 1) from None


def _network(engine: Engine, name: str) -> dict[str, Any]:
    from minicontainer.cli.networks import shown_network

    networks = engine.networks()
    try:
        return shown_network(networks, networks.find(name))
    except Exception as error:
        raise EngineError(str(error), 1) from None


KINDS: dict[str, Callable[[Engine, str], dict[str, Any]]] = {
    "container": _container, "image": _image, "network": _network,
}  # fmt: skip
"""In the order in which a name is looked for."""


def shown_container(config: Config, state: State, paused: bool) -> dict[str, Any]:
    """Docker's words where they say the same, and every field of ours under "Config"."""
    running = state.status == "running"
    return {
        "Id": config.id,
        "Name": config.name,
        "Created": _date(config.created),
        "Image": config.image,
        "ImageId": config.image_id,
        "Args": config.args,
        "State": {
            "Status": "paused" if running and paused else state.status,
            "Running": running,
            "Paused": running and paused,
            "Pid": state.pid or 0 if running else 0,
            "ExitCode": state.exit_code,
            "OOMKilled": state.oom_killed,
            "Detached": state.detached,
            "StartedAt": _date(state.began),
            "FinishedAt": _date(state.finished),
        },
        "Config": json.loads(config.to_json()),
    }


def _date(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{seconds % 1 * 1e6:06.0f}Z"
