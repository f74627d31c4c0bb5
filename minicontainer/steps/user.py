"""Step 6, the user namespace: root inside, nobody special outside.

user_namespaces(7), newuidmap(1), subuid(5). The one namespace that needs no privilege to make, and that gives the
privileges to make all the others: it owns them, and its root has every capability over what it owns.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

IdMap = tuple[int, int, int]
"""(first id inside, first id outside, how many): one line of /proc/PID/uid_map."""


def write_maps(pid: int, uids: Sequence[IdMap], gids: Sequence[IdMap]) -> None:
    """Say who the ids inside the user namespace of process `pid` are outside. Once for each namespace; by its parent.

    With CAP_SETUID and CAP_SETGID any map can be written. Without, the kernel allows one line that maps one's own id,
    and that only after giving up setgroups(2): dropping a group could *give* access, where a file refuses that group.
    Longer maps are written by the setuid programs newuidmap and newgidmap, as far as /etc/subuid and /etc/subgid
    allow.

    Raises OSError: EPERM (a map that is not ours to give), EINVAL (overlapping or empty lines), FileNotFoundError (no
    newuidmap: install "uidmap").
    """
    if os.geteuid() == 0:
        _write(f"/proc/{pid}/uid_map", _lines(uids))
        _write(f"/proc/{pid}/gid_map", _lines(gids))
    elif all(count == 1 for _, _, count in [*uids, *gids]):
        _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/uid_map", _lines(uids))
        _write(f"/proc/{pid}/gid_map", _lines(gids))
    else:
        import subprocess

        for program, maps in (("newuidmap", uids), ("newgidmap", gids)):
            done = subprocess.run([program, str(pid), *_lines(maps).split()], capture_output=True, text=True)
            if done.returncode != 0:
                raise PermissionError(f"{program} {pid}: {done.stderr.strip()}")


def become_root() -> None:
    """Take uid 0 and gid 0 of the user namespace that the caller is in, now that there are such ids.

    Until the maps are written, the process has the overflow ids (65534, "nobody"). Groups first: with the uid goes, in
    other places than this, the right to change them. Raises OSError: EINVAL (0 is not mapped).
    """
    if _read("/proc/self/setgroups") != "deny":
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _lines(maps: Sequence[IdMap]) -> str:
    return "\n".join(" ".join(map(str, line)) for line in maps)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)  # in one write(2), as the kernel wants it
    except OSError as error:
        raise type(error)(error.errno, f'write({path}, "{text}"): {error.strerror}') from None


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
