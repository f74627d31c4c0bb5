"""Volumes on the command line: ``-v``, ``--mount``, ``--tmpfs`` of ``run`` and ``create``; the command ``volume``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from minicontainer.cli.commands import _dispatch, _engine, _let_interrupt
from minicontainer.engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.engine.engine import Engine
    from minicontainer.engine.mounting import Wish
    from minicontainer.engine.store import Config
    from minicontainer.engine.volumes import Volume

_HOW = (
    "write DIR:/PLACE, NAME:/PLACE or /PLACE, and after another colon options with commas between them: "
    "ro, nocopy, rslave, idmap…"
)


def wishes_of(
    volumes: Sequence[str], mounts: Sequence[str], tmpfs: Sequence[str], *, views: bool = False
) -> tuple[Wish, ...]:
    """What these options ask for, as `engine.mounting` has it. Raises EngineError: one cannot be understood."""
    shown = _views() if views else ()
    return (*map(_of_volume, volumes), *map(_of_mount, mounts), *map(_of_tmpfs, tmpfs), *shown)


LXCFS = "/var/lib/lxcfs/proc"
"""Where lxcfs(1) answers: what is read there is made for the control group of whoever reads, at that moment."""


def _views() -> tuple[Wish, ...]:
    """Files of lxcfs in the place of those of /proc that tell of the whole host. Raises EngineError: none is there."""
    names = [name for name in _VIEWS if os.path.exists(f"{LXCFS}/{name}")]
    if not names:
        raise EngineError(
            f"--views needs lxcfs, which is not mounted at {os.path.dirname(LXCFS)}: install it and start it, such as: "
            f"apt install lxcfs, systemctl start lxcfs"
        )
    return tuple(("bind", f"{LXCFS}/{name}", f"/proc/{name}", ()) for name in names)


_VIEWS = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")


def _of_volume(text: str) -> Wish:
    """``[DIR|NAME:]PLACE[:OPTION,…]``."""
    parts = text.split(":")
    if len(parts) == 1:
        source, destination, options = "", parts[0], ""
    else:
        source, destination, options = parts[0], parts[1], ":".join(parts[2:])
        if not source:
            raise EngineError(f'cannot understand the volume "{text}": {_HOW}')
    if not destination.startswith("/"):
        raise EngineError(f'cannot understand the volume "{text}": {_HOW}')
    is_path = "/" in source or source in (".", "..")
    kind, source = ("bind", os.path.abspath(source)) if is_path else ("volume", source)
    words = [word for option in options.split(",") for word in _words(option) if option]
    if kind == "bind" and "nocopy" in words:
        raise EngineError(f'"{text}": nocopy is for a volume, and {source} is a directory: nothing is copied into it')
    return kind, source, destination, tuple(words)


def _words(option: str) -> list[str]:
    """One option of ``-v`` in the kernel's words. Read-only is so with all that is mounted below."""
    if option in ("z", "Z"):
        if os.path.exists("/sys/fs/selinux/enforce"):
            raise EngineError(
                f'"{option}": SELinux is active here, and files are not labelled anew by us: '
                f"chcon -R -t container_file_t DIR, and leave the option out"
            )
        return []  # without SELinux there are no labels to be changed
    if option == "U":
        raise EngineError('"U": owners of files are not changed by us; show them through maps: idmap=uids=…;gids=…')
    return {"ro": ["rro"], "rw": []}.get(option, [option])


_KEYS = {
    "src": "source", "dst": "target", "destination": "target", "ro": "readonly", "volume-nocopy": "nocopy",
    "bind-propagation": "propagation", "tmpfs-size": "size", "tmpfs-mode": "mode",
}  # fmt: skip
_OF = {
    "bind": {"source", "target", "readonly", "propagation", "bind-recursive", "idmap"},
    "volume": {"source", "target", "readonly", "propagation", "nocopy", "idmap"},
    "tmpfs": {"target", "readonly", "size", "mode"},
}


def _of_mount(text: str) -> Wish:
    """``type=bind|volume|tmpfs,source=…,target=…,…``: docker's, a volume unless it says otherwise."""
    said: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        said[_KEYS.get(key, key)] = value
    kind = said.pop("type", "volume")
    if kind not in _OF:
        raise EngineError(f'--mount {text}: there is no type "{kind}"; there are bind, volume and tmpfs')
    for key in said:
        if key not in _OF[kind]:
            raise EngineError(f'--mount {text}: a {kind} has no "{key}"; it has {", ".join(sorted(_OF[kind]))}')
    source, target = said.get("source", ""), said.get("target", "")
    if not target.startswith("/") or (kind == "bind" and not source):
        raise EngineError(f"--mount {text}: say target=/PLACE{', and source=DIR' if kind == 'bind' else ''}")
    words = list[str]()
    if _is_set(said, "readonly", text):
        words.append("ro" if kind == "tmpfs" or said.get("bind-recursive") in ("writable", "disabled") else "rro")
    if kind == "tmpfs":
        return kind, "", target, (*_TMPFS, *words, *(f"{key}={said[key]}" for key in ("size", "mode") if key in said))
    recursive = said.get("bind-recursive", "enabled")
    if recursive not in ("enabled", "disabled", "writable", "readonly"):
        raise EngineError(f"--mount {text}: bind-recursive is enabled, disabled, writable or readonly")
    words += ["bind"] if recursive == "disabled" else []
    words += [said["propagation"]] if "propagation" in said else []
    words += ["nocopy"] if _is_set(said, "nocopy", text) else []
    words += [f"idmap={said['idmap']}" if said["idmap"] else "idmap"] if "idmap" in said else []
    return kind, os.path.abspath(source) if kind == "bind" else source, target, tuple(words)


def _is_set(said: dict[str, str], key: str, text: str) -> bool:
    value = said.get(key, "false").lower()
    if value not in ("", "true", "1", "false", "0"):
        raise EngineError(f"--mount {text}: {key} is true or false")
    return value in ("", "true", "1")


_TMPFS = ("nosuid", "nodev", "noexec")
"""As docker has it; what is said after them counts."""


def _of_tmpfs(text: str) -> Wish:
    """``PLACE[:size=…,mode=…,exec]``: options of the file system, and of mount(8)."""
    destination, _, options = text.partition(":")
    if not destination.startswith("/"):
        raise EngineError(f'cannot understand --tmpfs "{text}": write /PLACE, or /PLACE:size=64m,mode=1777')
    return "tmpfs", "", destination, (*_TMPFS, *filter(None, options.split(",")))


def change_mounts(engine: Engine, configs: Sequence[Config], mount: Sequence[str], unmount: Sequence[str]) -> None:
    """``minicontainer update --mount --unmount``."""
    wishes = wishes_of((), mount, ())
    for config in configs:
        engine.change_mounts(config, wishes, unmount)


def volume(arguments: argparse.Namespace) -> int:
    """``minicontainer volume …``."""
    _let_interrupt()
    return _dispatch(arguments, "volume", COMMANDS)


def _create_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-l", "--label", action="append", default=[], metavar="NAME=VALUE", help="note something with it"
    )
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="one is made up unless given")


def _create(arguments: argparse.Namespace) -> int:
    labels = [(name, value) for name, _, value in (text.partition("=") for text in arguments.label)]
    print(_engine(arguments).volumes().create(arguments.name, labels).name)
    return 0


def _list_options(parser: argparse.ArgumentParser) -> None:
    from minicontainer.cli import formats

    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    formats.add_options(parser)


LISTED = {"Name": "VOLUME", "Users": "CONTAINERS"}
"""Field → heading."""


def _list(arguments: argparse.Namespace) -> int:
    from minicontainer.cli import formats

    volumes = _engine(arguments).volumes()
    users = volumes.users()
    if arguments.quiet:
        for one in volumes.all():
            print(one.name)
        return 0
    rows = [_shown(one, volumes.data(one.name), users.get(one.name, [])) for one in volumes.all()]
    formats.show_list(arguments, LISTED, [{**row, "Users": ", ".join(row["Containers"]) or "-"} for row in rows])
    return 0


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    from minicontainer.cli import formats

    _names(parser)
    formats.add_options(parser)


def _names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="VOLUME")


def _inspect(arguments: argparse.Namespace) -> int:
    from minicontainer.cli import formats

    volumes = _engine(arguments).volumes()
    users = volumes.users()
    shown = [_shown(one, volumes.data(one.name), users.get(one.name, [])) for one in map(volumes.find, arguments.names)]
    formats.show_objects(arguments, shown)
    return 0


def _shown(one: Volume, data: str, users: list[str]) -> dict[str, Any]:
    """Docker's words where they say the same."""
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.made))
    return {
        "Name": one.name, "Driver": "local", "Mountpoint": data, "Labels": dict(one.labels), "Scope": "local",
        "CreatedAt": made, "Anonymous": one.anonymous, "Containers": users,
    }  # fmt: skip


def _remove_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="no error where there is none")
    _names(parser)


def _remove(arguments: argparse.Namespace) -> int:
    volumes, code = _engine(arguments).volumes(), 0
    for name in arguments.names:
        if arguments.force and name not in {one.name for one in volumes.all()}:
            continue
        try:
            volumes.remove(name)
            print(name)
        except EngineError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = error.exit_code
    return code


def _prune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="those with a name too")


def _prune(arguments: argparse.Namespace) -> int:
    for name in _engine(arguments).volumes().prune(named=arguments.all):
        print(name)
    return 0


COMMANDS: dict[str, tuple[str, Callable[[Any], None], Callable[[argparse.Namespace], int]]] = {
    "create": ("make a volume", _create_options, _create),
    "ls": ("list volumes, and who has them", _list_options, _list),
    "inspect": ("all that is known of volumes, as JSON", _inspect_options, _inspect),
    "rm": ("remove volumes that no container has", _remove_options, _remove),
    "prune": ("remove volumes without a name that no container has", _prune_options, _prune),
}
"""``minicontainer volume WHAT`` → what it does, what sets up its options, what carries it out."""
