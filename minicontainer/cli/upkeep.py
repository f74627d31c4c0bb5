"""Names and leftovers: ``rename``, and ``container``, under which docker has its commands for containers too."""

from __future__ import annotations

import argparse
import os
import sys

from minicontainer.cli.commands import _engine, _let_interrupt
from minicontainer.engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.arguments import Parser


def rename_options(parser: Parser) -> None:
    """Of ``rename``."""
    parser.add_argument("container", metavar="CONTAINER", help="name, or the beginning of the id")
    parser.add_argument("name", metavar="NEWNAME", help="on its networks it is known by that from its next start on")


def rename(arguments: argparse.Namespace) -> int:
    """``minicontainer rename``."""
    _let_interrupt()
    engine = _engine(arguments)
    engine.rename(engine.store.find(arguments.container), arguments.name)
    return 0


def container_options(parser: Parser) -> None:
    """Of ``container``."""
    parser.epilog = "prune is its own; ls, inspect, rm… are ps, inspect, rm…"
    parser.add_argument("what", choices=("prune",), metavar="prune", help="remove all that do not run")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    parser.add_argument("--filter", action="append", default=[], metavar="NAME=VALUE", help="only those, as of ps")


def container(arguments: argparse.Namespace) -> int:
    """``minicontainer container prune``: prints the ids of what was removed; goes on after one that could not be."""
    _let_interrupt()
    if not arguments.force:
        if not os.isatty(0):
            raise EngineError("container prune asks first, and there is no terminal to ask on: say -f if you mean it")
        if input("This removes all containers that do not run. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    engine, code = _engine(arguments), 0
    for row in reversed(engine.listed(arguments.filter, all=True)):  # the latest first: clones before their base
        if row.status in ("created", "exited"):
            try:
                engine.remove(row.config)
                print(row.config.id)
            except EngineError as error:
                print(f"minicontainer: {error}", file=sys.stderr)
                code = 1
    return code
