"""Read-only directories laid over one another, with a writable one on top, seen as one tree: overlayfs.

What is changed is copied to the top first, what is deleted leaves a mark there, and nothing below is ever written to:
so any number of containers lie on the same layers. Documentation/filesystems/overlayfs.rst in the kernel's tree.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from minicontainer.linux import (
    AT_FDCWD,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    OPEN_TREE_CLONE,
    PR_GET_DUMPABLE,
    PR_SET_DUMPABLE,
    MountAttr,
    fsconfig,
    fsmount,
    fsopen,
    in_user_namespace,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    prctl,
    umount2,
)
from minicontainer.linux.capabilities import capget, capset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.steps.user import IdMap

PAGE = 4096
"""Bytes of options that mount(2) takes, with the NUL at their end."""
VALUE = 255
"""Bytes that fsconfig(2) takes for one option."""


def stack(lowers: Sequence[str], upper: str, work: str, target: str) -> None:
    """Show at `target` the directories `lowers` (the topmost first) below the writable directory `upper`.

    A file is read from the highest layer that has it, and copied to `upper` before its first change. `work` is an empty
    directory on the file system of `upper` in which the kernel prepares such copies. Without an `upper` ("") all of it
    is read-only.

    In a user namespace the marks of deleted files cannot be trusted.* attributes, so they are user.* ones (Linux 5.11).
    No file may be left in the layer below in part (redirect_dir), for then a layer could not travel without that.
    Raises OSError: EINVAL (`upper` cannot carry a layer, as on another overlay; more than 500 layers), ENOENT, EPERM,
    ESTALE.
    """
    flags = ["userxattr"] if in_user_namespace() else []
    where = [("upperdir", upper), ("workdir", work)] if upper else []
    if not upper and len(lowers) == 1:  # nothing to lay over it, and overlayfs would refuse
        mount(lowers[0], target, None, MS_BIND)
        mount_setattr(AT_FDCWD, target, 0, MountAttr(attr_set=MOUNT_ATTR_RDONLY))
        return
    options = ["lowerdir=" + ":".join(map(_escaped, lowers)), *(f"{key}={_escaped(path)}" for key, path in where)]
    text = ",".join([*options, "redirect_dir=nofollow", *flags])
    if len(os.fsencode(text)) < PAGE:
        mount("overlay", target, "overlay", 0, text)
    else:
        _stack_one_by_one(lowers, where, flags, target)


def stack_mapped(lowers: Sequence[str], upper: str, work: str, uids: Sequence[IdMap], gids: Sequence[IdMap]) -> int:
    """The same tree as a mount without a place, its files' owners shown through maps: (id on disk, id to be seen, how
    many). So containers with users of their own lie on the same layers, and root's files on disk stay root's.

    An overlay cannot be shown through maps; what it is made of can (Linux 5.19). It is made by whoever has the host's
    rights, as its marks of deleted files are then those of all other containers of root. Raises OSError as `stack`, and
    EINVAL (the file system of a layer cannot be shown through maps).
    """
    from minicontainer.steps.volume import map_ids, out_of_sight

    top = os.path.commonpath([upper, work])  # both in one mount, as overlayfs wants them
    trees = [open_tree(path, OPEN_TREE_CLONE) for path in (top, *lowers)]
    try:
        for tree in trees:
            map_ids(tree, uids, gids)
        with out_of_sight() as stage:
            mount("tmpfs", stage, "tmpfs")
            for number, tree in enumerate(trees):
                os.mkdir(f"{stage}/{number}")
                move_mount(tree, f"{stage}/{number}")
            below = [f"{stage}/{number}" for number in range(1, len(trees))]
            upper, work = (f"{stage}/0/{os.path.relpath(path, top)}" for path in (upper, work))
            with _in_the_name_of(_outside(uids), _outside(gids)):
                stack(below, upper, work, stage)
            return open_tree(stage, OPEN_TREE_CLONE)
    finally:
        for tree in trees:
            os.close(tree)


def _outside(maps: Sequence[IdMap]) -> int:
    """Who 0 is outside."""
    return next(outside for inside, outside, _ in maps if inside == 0)


@contextlib.contextmanager
def _in_the_name_of(uid: int, gid: int) -> Iterator[None]:
    """Be this user in this block, with all of one's powers.

    What overlayfs does in its layers by itself it does, ever after, in the name of whoever has mounted it: that must be
    somebody whom the layers' maps know (EOVERFLOW). Root that turns into somebody else, and back, is taken for a setuid
    program, whose /proc/self is root's: for a process in a user namespace, nobody's.
    """
    dumpable, sets = prctl(PR_GET_DUMPABLE), capget()
    os.setegid(gid)
    os.seteuid(uid)
    try:
        capset(sets)
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        prctl(PR_SET_DUMPABLE, dumpable)


def unstack(target: str) -> None:
    """Show at `target` again what was there before. Raises OSError: EBUSY (somebody is in it), EINVAL, EPERM."""
    umount2(target)


def _stack_one_by_one(
    lowers: Sequence[str], where: Sequence[tuple[str, str]], flags: Sequence[str], target: str
) -> None:
    """mount(2) takes one page of options; fsconfig(2) any number, one by one ("lowerdir+", Linux 6.5)."""
    context = fsopen("overlay")
    try:
        fsconfig(context, FSCONFIG_SET_STRING, "source", "overlay")
        for path in lowers:
            _set_directory(context, "lowerdir+", path, path)
        for key, path in where:
            _set_directory(context, key, path, path.replace("\\", "\\\\"))
        fsconfig(context, FSCONFIG_SET_STRING, "redirect_dir", "nofollow")
        for flag in flags:
            fsconfig(context, FSCONFIG_SET_FLAG, flag)
        fsconfig(context, FSCONFIG_CMD_CREATE)
        made = fsmount(context)
    finally:
        os.close(context)
    try:
        move_mount(made, target)
    finally:
        os.close(made)


def _set_directory(context: int, key: str, path: str, written: str) -> None:
    """Set an option to a directory: by its path as overlayfs reads it, or where that is too long by a descriptor."""
    if len(os.fsencode(written)) <= VALUE:
        fsconfig(context, FSCONFIG_SET_STRING, key, written)
        return
    there = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsconfig(context, FSCONFIG_SET_STRING, key, f"/proc/self/fd/{there}")
    finally:
        os.close(there)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
