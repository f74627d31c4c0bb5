"""The options of ``run`` and ``create`` that say what a container may do, and who is in it: docker's."""

from __future__ import annotations

import argparse

from minicontainer.cli.limits import whole
from minicontainer.engine.errors import EngineError
from minicontainer.engine.rights import UNCONFINED, Rights

NO_LIMIT = (1 << 64) - 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """The rights."""
    add = parser.add_argument
    add("--privileged", action="store_true", help="every capability, device and system call; nothing is masked")
    add("--cap-add", action="append", default=[], metavar="CAPABILITY", help="give it this one too, or ALL")
    add("--cap-drop", action="append", default=[], metavar="CAPABILITY", help="take this one from it, or ALL")
    add(
        "--security-opt", action="append", default=[], metavar="OPTION",
        help="no-new-privileges[=false], seccomp=unconfined, seccomp=FILE, landlock=PATH:RIGHT+RIGHT,PATH:…",
    )  # fmt: skip
    add("--read-only", action="store_true", help="its root file system cannot be written to")
    add("-u", "--user", metavar="USER[:GROUP]", help="who the command is (root)")
    auto = "auto: ids that no other container has, of those that /etc/subuid grants to containers"
    add("--userns", choices=("host", "auto"), help=auto)
    maps = "its users from ID on, COUNT, are those from HOST on of the host"
    add("--uidmap", action="append", default=[], metavar="ID:HOST:COUNT", help=maps)
    add("--gidmap", action="append", default=[], metavar="ID:HOST:COUNT", help="likewise its groups (as --uidmap)")
    add("--group-add", action="append", default=[], type=whole, metavar="GID", help="a group beside that one")
    add("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="setrlimit(2): nofile=1024:2048")
    add("--oom-score-adj", type=whole, metavar="N", help="-1000 to 1000: who is killed first when memory is short")
    add("--sysctl", action="append", default=[], metavar="NAME=VALUE", help="a setting of its own namespaces")


def rights_of(arguments: argparse.Namespace) -> Rights:
    """What the command line asks for. Raises EngineError: an option that cannot be understood."""
    given: dict[str, object] = {}
    for text in arguments.security_opt:
        for name, value in _security(text).items():
            given[name] = (*given.get(name, ()), *value) if isinstance(value, tuple) else value  # type: ignore[misc]
    if arguments.user is not None and not is_name(arguments.user):
        given["user"] = user_of(arguments.user)
    return Rights(
        privileged=arguments.privileged,
        added=tuple(map(_capability, arguments.cap_add)),
        dropped=tuple(map(_capability, arguments.cap_drop)),
        read_only=arguments.read_only,
        groups=tuple(arguments.group_add),
        rlimits=tuple(map(_ulimit, arguments.ulimit)),
        oom_score_adj=arguments.oom_score_adj,
        sysctls=tuple(map(_sysctl, arguments.sysctl)),
        **given,  # type: ignore[arg-type]
    )


def ids_of(arguments: argparse.Namespace) -> dict[str, object]:
    """Who its users are on the host, where that is said. Raises EngineError."""
    uids = tuple(_map("--uidmap", text) for text in arguments.uidmap)
    gids = tuple(_map("--gidmap", text) for text in arguments.gidmap)
    if arguments.userns and (uids or gids):
        raise EngineError("--userns, or --uidmap and --gidmap: one of them says it")
    if not (uids or gids or arguments.userns == "auto"):
        return {}
    return {"own_ids": arguments.userns == "auto", "uid_maps": uids or gids, "gid_maps": gids or uids}


def _map(option: str, text: str) -> tuple[int, int, int]:
    """``0:100000:65536``. Raises EngineError."""
    numbers = text.split(":")
    if len(numbers) != 3 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise EngineError(
            f'{option}: cannot understand "{text}": write ID:HOST:COUNT, as 0:100000:65536, the first of COUNT ids '
            f"in the container, and who that is on the host"
        )
    inside, outside, count = map(int, numbers)
    return inside, outside, count


def is_name(text: str) -> bool:
    """Whether it is a user, and perhaps a group, to be looked up in the container: ``www-data``, ``www-data:adm``."""
    name, colon, group = text.partition(":")
    fine = bool(name) and (bool(group) or not colon) and set(name + group).isdisjoint(" \t\n:/\0")
    return fine and not all(part.isascii() and part.isdecimal() for part in (name, group or "0"))


def user_of(text: str) -> tuple[int, int]:
    """``1000`` or ``1000:100``. Raises EngineError."""
    uid, colon, gid = text.partition(":")
    numbers = [uid, gid] if colon else [uid]
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise EngineError(f'cannot understand the user "{text}": write it in numbers, such as 1000 or 1000:100')
    return int(uid), int(gid or 0)


def _capability(text: str) -> str:
    return text.upper().removeprefix("CAP_")


def _security(text: str) -> dict[str, object]:
    name, sign, value = text.partition("=")
    if not sign:
        name, sign, value = text.partition(":")
    if name == "no-new-privileges" and (not sign or value in ("true", "false")):
        return {"no_new_privileges": value != "false"}
    if name == "seccomp" and value:
        return {"seccomp": value if value == UNCONFINED else _read(value)}
    if name == "landlock" and value:
        return {"landlock": tuple(map(_rule, value.split(",")))}
    raise EngineError(
        f'cannot understand the security option "{text}": write no-new-privileges, no-new-privileges=false, '
        f"seccomp=unconfined, seccomp=FILE or landlock=PATH:RIGHT+RIGHT"
    )


def _rule(text: str) -> tuple[str, str]:
    """``/tmp:read+write``. Raises EngineError."""
    path, colon, rights = text.rpartition(":")
    if not colon or not path or not rights:
        raise EngineError(f'cannot understand the rule "{text}": write PATH:RIGHT+RIGHT, such as /tmp:read+write')
    return path, rights.replace("+", " ")


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as profile:
            return profile.read()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise EngineError(f"cannot read the seccomp profile {file}: {reason}") from None


def _ulimit(text: str) -> tuple[str, int, int]:
    name, _, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    numbers = [_limit(part) for part in ([soft, hard] if colon else [soft])]
    if not name or None in numbers:
        raise EngineError(f'cannot understand the limit "{text}": write NAME=SOFT or NAME=SOFT:HARD, nofile=1024:2048')
    return name.upper().removeprefix("RLIMIT_"), numbers[0] or 0, numbers[-1] or 0


def _limit(text: str) -> int | None:
    if text in ("-1", "unlimited"):
        return NO_LIMIT
    return int(text) if text.isascii() and text.isdecimal() and int(text) <= NO_LIMIT else None


def _sysctl(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign or not value:
        raise EngineError(f'cannot understand the setting "{text}": write NAME=VALUE, such as net.ipv4.ip_forward=1')
    return name, value
