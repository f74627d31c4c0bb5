"""Device nodes and pipes that a container's configuration asks for.

mknod(2), OCI runtime specification, config-linux.md, "Devices". A node is a name for a driver of the host's kernel:
which of them a container may *use* is a matter of its control group (`devices.py`); here they only get names.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from minicontainer.linux import (
    FSCONFIG_CMD_CREATE,
    OPEN_TREE_CLONE,
    fsconfig,
    fsmount,
    fsopen,
    move_mount,
    open_tree,
    place_in,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.steps.user import IdMap

Device = tuple[str, str, int, int, int | None, int | None, int | None]
"""(type, path, major, minor, mode, uid, gid): type "c" or "u" (character), "b" (block), "p" (pipe: no numbers)."""

KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def bring_nodes(devices: Sequence[Device], uids: Sequence[IdMap], gids: Sequence[IdMap]) -> list[int]:
    """Make these nodes where nobody sees them, for the root of a user namespace, who may make none: a mount for each,
    as a file descriptor, in their order. By whoever may; owners are said as they are inside, and mapped.

    An empty list where that is not to be had: before Linux 6.15, what has no place cannot be copied in parts.
    Raises OSError.
    """
    context = fsopen("tmpfs")
    try:
        fsconfig(context, FSCONFIG_CMD_CREATE)
        nowhere = fsmount(context)
    finally:
        os.close(context)
    brought = list[int]()
    try:
        for number, (kind, _, major, minor, mode, uid, gid) in enumerate(devices):
            name = str(number)
            os.mknod(name, KINDS[kind] | 0o600, 0 if kind == "p" else os.makedev(major, minor), dir_fd=nowhere)
            _dress(nowhere, name, 0o666 if mode is None else mode, _outside(uid or 0, uids), _outside(gid or 0, gids))
            brought.append(open_tree(name, OPEN_TREE_CLONE, nowhere))
    except OSError as error:
        for node in brought:
            os.close(node)
        if error.errno != errno.EINVAL:
            raise
        return []
    finally:
        os.close(nowhere)
    return brought


def _outside(number: int, maps: Sequence[IdMap]) -> int:
    for inside, outside, count in maps:
        if inside <= number < inside + count:
            return outside + number - inside
    raise OSError(errno.EOVERFLOW, f"a device is to belong to {number}, whom the user namespace does not map")


def make_nodes(root: str, devices: Sequence[Device], brought: Sequence[int] = ()) -> None:
    """Make these nodes below `root`; what is missing of the way there is made too. Before `pivot`.

    Links on the way are followed inside `root` only, a link in a node's own place never. A node that is there already
    is fine if it is the same. Where mknod(2) is not allowed (a user namespace), what was `brought` (by `bring_nodes`)
    is bound into the place; or else the host's node of the same path, with the host's mode and owner, after a look
    whether it is that device.

    Raises ValueError (a type or a path that is none), OSError: EEXIST (something else is in the place), ENODEV (the
    host's node is another device), ENOENT (the host has none), EPERM.
    """
    for index, (kind, path, major, minor, mode, uid, gid) in enumerate(devices):
        if kind not in KINDS:
            raise ValueError(f'{path}: "{kind}" is no type of device: c, b, u or p')
        above, name = os.path.split(os.path.normpath(f"/{path}"))
        if not name:
            raise ValueError(f'"{path}" cannot be the place of a device')
        number = 0 if kind == "p" else os.makedev(major, minor)
        with place_in(root, above) as directory:
            try:
                os.mknod(name, KINDS[kind] | 0o600, number, dir_fd=directory)
            except FileExistsError:
                _accept(path, KINDS[kind], number, directory, name)
            except PermissionError:
                if brought:
                    _put(brought[index], directory, name)
                else:
                    _bind_node(path, KINDS[kind], number, directory, name)
            else:
                _dress(directory, name, 0o666 if mode is None else mode, uid or 0, gid or 0)


def _dress(directory: int, name: str, mode: int, uid: int, gid: int) -> None:
    """Owner and mode of a new node, through the node itself and not its name; the umask has no say in it."""
    node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chown(f"/proc/self/fd/{node}", uid, gid)
        os.chmod(f"/proc/self/fd/{node}", stat.S_IMODE(mode))
    finally:
        os.close(node)


def _accept(path: str, kind: int, number: int, directory: int, name: str) -> None:
    """What is in the place already: the same node, or an empty file onto which it was bound the last time."""
    about = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if _is_node(about, kind, number):
        return
    if not stat.S_ISREG(about.st_mode) or about.st_size:
        raise FileExistsError(errno.EEXIST, f"{path}: there is something else in its place")
    _bind_node(path, kind, number, directory, name)


def _bind_node(path: str, kind: int, number: int, directory: int, name: str) -> None:
    """Mount the host's node `path` on an empty file; looked at once it is in our hands."""
    try:
        node = open_tree(path, OPEN_TREE_CLONE)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"{path}: mknod is not allowed here, and the host has none") from None
    try:
        if not _is_node(os.fstat(node), kind, number):
            raise OSError(errno.ENODEV, f"{path}: mknod is not allowed here, and the host's is another device")
        _put(node, directory, name)
    finally:
        os.close(node)


def _put(node: int, directory: int, name: str) -> None:
    """Mount it on an empty file of this name."""
    place = os.open(name, os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o000, dir_fd=directory)
    try:
        move_mount(node, "", place)
    finally:
        os.close(place)


def _is_node(about: os.stat_result, kind: int, number: int) -> bool:
    return stat.S_IFMT(about.st_mode) == kind and (kind == stat.S_IFIFO or about.st_rdev == number)
