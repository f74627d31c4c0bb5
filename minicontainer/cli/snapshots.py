"""Snapshots and clones on the command line: the commands ``snapshot`` and ``clone``."""

from __future__ import annotations

import argparse
import time

from minicontainer.cli.commands import _engine, _let_interrupt, _printable
from minicontainer.cli.formats import show_list
from minicontainer.engine.errors import EngineError

VERBS = ("take", "list", "restore", "rm")
"""What may stand in the place of a container's name. One that is called "list" is reached by ``snapshot take list``."""


def snapshot(arguments: argparse.Namespace) -> int:
    """``minicontainer snapshot [take|list|restore|rm] …``."""
    _let_interrupt()
    verb, *words = arguments.words if arguments.words[0] in VERBS else ("take", *arguments.words)
    if arguments.comment is not None and verb != "take":
        raise EngineError(f"snapshot {verb}: --comment is for a snapshot that is taken")
    least, most, usage = _USAGE[verb]
    if not least <= len(words) <= most:
        raise EngineError(f"write: minicontainer snapshot {usage}")
    return _ACTS[verb](arguments, words)


def _take(arguments: argparse.Namespace, words: list[str]) -> int:
    engine = _engine(arguments)
    print(engine.snapshot(engine.store.find(words[0]), "".join(words[1:]), arguments.comment or "").name)
    return 0


def _list(arguments: argparse.Namespace, words: list[str]) -> int:
    engine = _engine(arguments)
    rows = [
        {
            "Name": one.name,
            "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.created)),
            "Layers": len(one.layers),
            "Comment": _printable(one.comment),
        }
        for one in engine.snapshots(engine.store.find(words[0]))
    ]
    show_list(arguments, {"Name": "SNAPSHOT", "CreatedAt": "TAKEN", "Layers": "LAYERS", "Comment": "COMMENT"}, rows)
    return 0


def _restore(arguments: argparse.Namespace, words: list[str]) -> int:
    engine = _engine(arguments)
    config = engine.store.find(words[0])
    if len(words) == 3:
        print(engine.clone(config, words[2], snapshot=words[1]).name)
        return 0
    engine.restore(config, words[1])
    print(words[0])
    return 0


def _remove(arguments: argparse.Namespace, words: list[str]) -> int:
    engine = _engine(arguments)
    for name in engine.remove_snapshots(engine.store.find(words[0]), words[1:]):
        print(name)
    return 0


_USAGE = {
    "take": (1, 2, "[take] CONTAINER [NAME] [-c COMMENT]"),
    "list": (1, 1, "list CONTAINER"),
    "restore": (2, 3, "restore CONTAINER SNAPSHOT [NEWNAME]"),
    "rm": (2, 10**6, "rm CONTAINER SNAPSHOT… (or ALL)"),
}
"""Verb → how many words, and what it looks like."""

_ACTS = {"take": _take, "list": _list, "restore": _restore, "rm": _remove}


def clone(arguments: argparse.Namespace) -> int:
    """``minicontainer clone``: prints the new container's id."""
    _let_interrupt()
    engine = _engine(arguments)
    made = engine.clone(
        engine.store.find(arguments.source),
        arguments.name or "",
        snapshot=arguments.snapshot or "",
        full=arguments.full,
        ephemeral=arguments.ephemeral,
    )
    print(made.id)
    return 0
