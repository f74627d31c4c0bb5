"""Which ids a container's users have outside, when the caller is not root."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence

from minicontainer.steps.user import IdMap


def rootless_maps(*, alone: bool = False) -> tuple[Sequence[IdMap], Sequence[IdMap]]:
    """The uid and gid maps of a rootless container: root is the caller; the others from /etc/subuid and /etc/subgid.

    Without newuidmap(1), or without a range of one's own in either file, root is the only user; so it is with `alone`,
    for whoever writes maps without newuidmap(1). subuid(5).
    """
    uid, gid = os.geteuid(), os.getegid()
    if alone:
        return [(0, uid, 1)], [(0, gid, 1)]
    ranges = subordinate_ids("/etc/subuid", uid), subordinate_ids("/etc/subgid", uid)
    if not all(ranges) or not all(map(shutil.which, ("newuidmap", "newgidmap"))):
        return [(0, uid, 1)], [(0, gid, 1)]
    return [(0, uid, 1), *_numbered(ranges[0])], [(0, gid, 1), *_numbered(ranges[1])]


def subordinate_ids(file: str, uid: int) -> list[tuple[int, int]]:
    """The (first id, how many) that this file grants to a user, who stands there by name or by number."""
    import pwd

    names = {str(uid)}
    with contextlib.suppress(KeyError):  # a user without an entry in /etc/passwd
        names.add(pwd.getpwuid(uid).pw_name)
    return granted_ids(file, names)


def granted_ids(file: str, names: set[str]) -> list[tuple[int, int]]:
    """The (first id, how many) of all lines for one of these names."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            entries = [line.strip().split(":") for line in lines if line.count(":") == 2]
    except FileNotFoundError:
        return []
    mine = [(first, count) for name, first, count in entries if name in names]
    return [(int(first), int(count)) for first, count in mine if first.isdecimal() and count.isdecimal() and int(count)]


def _numbered(ranges: list[tuple[int, int]]) -> list[IdMap]:
    """Ids inside from 1 on, without gaps."""
    maps, inside = [], 1
    for first, count in ranges:
        maps.append((inside, first, count))
        inside += count
    return maps
