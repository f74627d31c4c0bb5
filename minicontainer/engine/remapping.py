"""Users of a root's container that are somebody else outside: its root is nobody on the host.

docker calls it userns-remap, podman ``--userns=auto`` and ``--uidmap``. Files keep on disk the owners that they have
for the container, so images, snapshots and commits know nothing of it; the kernel shows them through maps
(`steps.stack_mapped`). Imported only for a container that has such wishes.
"""

from __future__ import annotations

import os

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config, Store
from minicontainer.linux import in_user_namespace
from minicontainer.runtime.users import granted_ids
from minicontainer.steps.user import IdMap

OWNER = "containers"
"""Whose ranges in /etc/subuid and /etc/subgid are given out, as podman and CRI-O have it."""
RANGE = 1 << 16
"""Ids for one container: as many as a distribution numbers by itself, "nobody" (65534) among them."""
_ALL = (1 << 32) - 1


def check(config: Config) -> None:
    """Refuse what cannot be, in docker's words where it has some. Raises EngineError."""
    if os.geteuid() != 0 or in_user_namespace():
        raise EngineError(
            "--userns, --uidmap and --gidmap take root: an ordinary user's containers are remapped anyway"
        )
    if config.rights.privileged:
        raise EngineError("privileged mode is incompatible with user namespaces: leave out --privileged, or the maps")
    for name, what in (("net", "network"), ("pid", "PID"), ("ipc", "IPC")):
        if name in config.shared:
            raise EngineError(f"cannot share the host's {what} namespace when user namespaces are enabled")
    if any(one.network.startswith("container:") for one in config.networks):
        raise EngineError(
            "cannot share another container's network when user namespaces are enabled: it is not its own"
        )
    if not config.own_ids:
        _check("--uidmap", config.uid_maps)
        _check("--gidmap", config.gid_maps)


def _check(option: str, maps: tuple[IdMap, ...]) -> None:
    """As the kernel does when they are written, user_namespaces(7), only that the line is named. Raises EngineError."""
    for inside, outside, count in maps:
        said = f"{option} {inside}:{outside}:{count}: cannot be: "
        if count < 1 or max(inside, outside) + count > _ALL:
            raise EngineError(f"{said}a range has at least one id, and none is over {_ALL - 1}")
        for other in maps:
            if other != (inside, outside, count) and (
                _overlap(inside, count, other[0], other[2]) or _overlap(outside, count, other[1], other[2])
            ):
                raise EngineError(f"{said}it overlaps with {other[0]}:{other[1]}:{other[2]}")
    if not any(inside == 0 for inside, _, _ in maps):
        raise EngineError(f"{option}: nobody is root in the container: map its 0 too, as in {option} 0:100000:65536")


def _overlap(first: int, count: int, other: int, others: int) -> bool:
    return first < other + others and other < first + count


def with_ids_of_its_own(config: Config, store: Store) -> Config:
    """The container with ids that no other container here has; with the lock on names held. Raises EngineError."""
    taken = [one for other in store.all() for one in (other.uid_maps, other.gid_maps)]
    maps = []
    for number, file in enumerate(("/etc/subuid", "/etc/subgid")):
        used = [one for maps_of in taken[number::2] for one in maps_of]
        maps.append(((0, _free(file, used), RANGE),))
    return config.replace(uid_maps=maps[0], gid_maps=maps[1])


def _free(file: str, used: list[IdMap]) -> int:
    """The first of RANGE ids that this file grants, and nobody has."""
    ranges = granted_ids(file, {OWNER})
    for first, count in ranges:
        for start in range(first, first + count - RANGE + 1, RANGE):
            if not any(_overlap(start, RANGE, outside, many) for _, outside, many in used):
                return start
    why = "are all in use" if ranges else "are not there"
    raise EngineError(
        f"ids for the container, {RANGE} in {file} of the user {OWNER}, {why}; "
        f"add a line such as {OWNER}:2147483648:1073741824, or name some: --uidmap 0:100000:65536"
    )
