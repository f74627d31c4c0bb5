"""Who a container's program is, where its image says it by name: looked up in the container's own /etc/passwd and
/etc/group, in its layers as they lie there, before anything is mounted.

What is in there may be anybody's: no link is followed, as it would lead out of the layer, into the host.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.record import Record

MOST = 1 << 20
"""Bytes of such a file that are read."""


class Found(Record):
    """A user."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Supplementary ones."""
    home: str = "/"


def look_up(text: str, layers: Sequence[str]) -> Found:
    """The user ``NAME``, ``UID``, ``NAME:GROUP``, ``UID:GID`` of a root file system whose layers, the topmost first,
    are these directories. A number need not be in the files. Raises EngineError.
    """
    name, colon, group = text.partition(":")
    users = _lines(layers, "passwd", 7)
    groups = _lines(layers, "group", 4)
    number = _number(name)
    entry = next((one for one in users if one[0] == name), None) or next(
        (one for one in users if number is not None and _number(one[2]) == number), None
    )
    if entry is None and number is None:
        raise EngineError(f'there is no user "{name}" in the container\'s /etc/passwd; choose one: --user UID:GID')
    uid = number if entry is None else _number(entry[2])
    gid = 0 if entry is None else _number(entry[3])
    more: tuple[int, ...] = ()
    if colon and group:
        gid = next((_number(one[2]) for one in groups if one[0] == group), _number(group))
        if gid is None:
            raise EngineError(f'there is no group "{group}" in the container\'s /etc/group; choose one: --user UID:GID')
    elif entry is not None:
        members = [_number(one[2]) for one in groups if entry[0] in one[3].split(",")]
        more = tuple(member for member in members if member is not None)
    if uid is None or gid is None:
        raise EngineError(
            f'the entry of "{name}" in the container\'s /etc/passwd has no numbers for its user and group'
        )
    return Found(uid, gid, more, (entry[5] if entry else "") or "/")


def _lines(layers: Sequence[str], name: str, fields: int) -> list[list[str]]:
    text = _read(layers, name).decode(errors="replace")
    return [parts for line in text.splitlines() if len(parts := line.split(":")) >= fields]


def _read(layers: Sequence[str], name: str) -> bytes:
    """The file NAME in /etc, as overlayfs would show it; b"", where there is none, or something that is no file."""
    for layer in layers:
        try:
            etc = os.open(f"{layer}/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError:  # a link, or a whiteout: nothing below it is shown
            return b""
        try:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(name, dir_fd=etc, follow_symlinks=False).st_mode):
                    return b""
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=etc)
                try:
                    return os.read(fd, MOST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
                finally:
                    os.close(fd)
            if _is_opaque(etc):
                return b""
        except OSError:
            return b""
        finally:
            os.close(etc)
    return b""


def _is_opaque(directory: int) -> bool:
    """Whether overlayfs shows nothing of the same directory of the layers below."""
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name) == b"y":
                return True
    return False


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < (1 << 32) - 1 else None
