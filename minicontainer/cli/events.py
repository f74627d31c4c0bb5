"""What happens to containers: ``events``, in docker's words, and ``monitor``, in LXC's."""

from __future__ import annotations

import argparse
import json
import time

from minicontainer.cli import formats
from minicontainer.cli.commands import _engine, _let_interrupt, _printable
from minicontainer.cli.moments import moment
from minicontainer.engine.events import FILTERS, Event, chosen, of_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.cli.arguments import Parser


def events_options(parser: Parser) -> None:
    """Of ``events``."""
    add = parser.add_argument
    add(
        "--since", metavar="WHEN", help="what has happened since as well: 10m (ago), 2026-11-26T10:00:00Z, Unix seconds"
    )
    add("--until", metavar="WHEN", help="stop then (when it is stopped): 0s shows what there is, and stops")
    add("-f", "--filter", action="append", default=[], metavar="NAME=VALUE", help=f"by {', '.join(FILTERS)}")
    _formats(parser)


def events(arguments: argparse.Namespace) -> int:
    """``minicontainer events``: a line for each."""
    _let_interrupt()
    fits = chosen(arguments.filter)
    since, until = moment(arguments.since, "events --since"), moment(arguments.until, "events --until")
    write = _writer(arguments, _as_docker_prints)
    for event in filter(fits, _engine(arguments).events(since, until)):
        write(event, _in_dockers_words(event))
    return 0


def monitor_options(parser: Parser) -> None:
    """Of ``monitor``."""
    name = "of those whose whole name this regular expression matches (all)"
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help=name)
    parser.add_argument("-n", "--name", metavar="PATTERN", help="likewise, as lxc-monitor has it")
    _formats(parser)
    parser.epilog = "states: STARTING RUNNING FREEZING FROZEN THAWED STOPPING STOPPED ABORTING"


def monitor(arguments: argparse.Namespace) -> int:
    """``minicontainer monitor``: a line for each change of a container's state, as lxc-monitor(1) prints it."""
    _let_interrupt()
    fits = of_names(arguments.pattern or arguments.name or ".*")
    write = _writer(arguments, lambda event: f"'{_printable(event.name)}' changed state to [{event.state}]")
    for event in filter(fits, _engine(arguments).events()):
        write(event, {"Name": event.name, "ID": event.id, "State": event.state, "Time": event.time})
    return 0


def _formats(parser: Parser) -> None:
    parser.add_argument("--format", metavar="TEMPLATE", help="'{{.NAME}} …', or json, as docker's")
    parser.add_argument("--json", action="store_true", help="for programs: a line of JSON for each")


def _writer(arguments: argparse.Namespace, plain: Callable[[Event], str]) -> Callable[[Event, dict[str, Any]], object]:
    """What prints one, at once, as the options say. Raises EngineError: a template that is none."""
    if arguments.json or arguments.format == "json":
        return lambda _, fields: print(json.dumps(fields), flush=True)
    if arguments.format:
        template = formats.Template(arguments.format.replace("\\t", "\t").replace("\\n", "\n"))
        return lambda _, fields: print(template.fill(fields), flush=True)
    return lambda event, _: print(plain(event), flush=True)


def _in_dockers_words(event: Event) -> dict[str, Any]:
    attributes = {"image": event.image, "name": event.name, **event.attributes}
    return {
        "Type": "container",
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": attributes},
        "Status": event.action,
        "ID": event.id,
        "From": event.image,
        "Name": event.name,
        "Scope": "local",
        "Time": int(event.time),
        "TimeNano": int(event.time * 1e9),
    }


def _as_docker_prints(event: Event) -> str:
    fields = _in_dockers_words(event)["Actor"]["Attributes"]
    here = time.localtime(event.time)
    when = time.strftime("%Y-%m-%dT%H:%M:%S", here) + f".{int(event.time % 1 * 1e9):09d}" + _zone(here.tm_gmtoff)
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(fields.items()))
    return _printable(f"{when} container {event.action} {event.id} ({attributes})")


def _zone(seconds: int) -> str:
    minutes = abs(seconds) // 60
    return f"{'-' if seconds < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
