"""Mounts that a container's own configuration asks for: file systems, and directories or files of the host (volumes).

A mount is a file descriptor here, from its making to its end: made or taken where nobody can see it, given its flags,
and then put in its place, all in one, with no moment in which it is there and not yet read-only. The place is a file
descriptor too, looked up inside the container's root: an image that has a link there cannot lead us out of it.

open_tree(2), fsopen(2), fsmount(2), mount_setattr(2), move_mount(2); OCI runtime specification, config.md, "Mounts".
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from minicontainer.linux import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_CMD_RECONFIGURE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    MNT_DETACH,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_DIRSYNC,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_SYNCHRONOUS,
    MS_UNBINDABLE,
    OPEN_TREE_CLONE,
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
    UMOUNT_NOFOLLOW,
    MountAttr,
    clone3,
    fsconfig,
    fsmount,
    fsopen,
    fspick,
    fstatfs,
    mount,
    mount_attributes,
    mount_setattr,
    move_mount,
    open_in,
    open_tree,
    place_in,
    setns,
    umount2,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.steps.user import IdMap

COVERABLE = (
    "cpuinfo diskstats loadavg meminfo slabinfo stat swaps uptime sys/crypto/fips_enabled sys/kernel/ns_last_pid"
).split()
"""What may be mounted over in /proc, by lxcfs for example: tables for reading, that nobody trusts with anything."""


def pick_up(source: str, recursive: bool = True) -> int:
    """A detached copy of the mount at `source` and of those below, as a file descriptor: a bind mount without a place.

    By whoever may look at `source`; put in place (`bind`) by a process that perhaps may not, such as the root of a user
    namespace where `source` lies in a directory of mode 700. Raises OSError: ENOENT, EPERM (needs CAP_SYS_ADMIN),
    EINVAL (in a user namespace not `recursive`: that would show what the mounts below hide).
    """
    return open_tree(source, OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0))


def make(fstype: str, source: str, flags: int = 0, data: str | None = None) -> int:
    """A new mount of a file system, as a file descriptor that has no place yet.

    `flags` are MS_*, `data` the file system's own options as mount(2) takes them. Raises OSError, with the kernel's
    reason in words where it gives one: ENODEV (no such file system), EINVAL (no such option), EPERM.
    """
    options = _split(data or "")
    try:
        if any(len(os.fsencode(word)) > 255 or "," in word for word in (source, *options)):
            return _make_by_mount(fstype, source, flags, data)
        context = fsopen(fstype)
        try:
            if source:
                fsconfig(context, FSCONFIG_SET_STRING, "source", source)
            _configure(context, flags, 0, options)
            fsconfig(context, FSCONFIG_CMD_CREATE)
            return fsmount(context, mount_attributes(flags)[0])
        finally:
            os.close(context)
    except OSError as error:
        raise OSError(error.errno, f'{fstype} from "{source}" with "{data or ""}": {error.strerror}') from None


def map_ids(mount: int, uids: Sequence[IdMap], gids: Sequence[IdMap], recursive: bool = False) -> None:
    """Show the owners of all files in a mount that was taken through maps: (id on disk, id to be seen, how many).

    A mount can be given the maps of a user namespace (Linux 5.12), so one is made, of a child that does nothing. By
    whoever has CAP_SYS_ADMIN where the file system was mounted, before the mount has a place. Raises OSError: EINVAL
    (the file system cannot, or the mount has maps already), EPERM.
    """
    namespace = _user_namespace(uids, gids)
    try:
        attributes = MountAttr(attr_set=MOUNT_ATTR_IDMAP, userns_fd=namespace)
        mount_setattr(mount, "", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), attributes)
    finally:
        os.close(namespace)


def settle(
    mount: int, flags: int = 0, cleared: int = 0, below: tuple[int, int] = (0, 0), propagation: Sequence[int] = ()
) -> None:
    """Set and clear MS_* of one mount, MOUNT_ATTR_* (set, cleared) of it and all `below` it, then its propagation.

    What is neither set nor cleared stays as it is: a volume that is nosuid on the host is so in the container, and in
    a user namespace, where the kernel would refuse to take that away, nothing has to be asked for twice.

    Raises OSError: EPERM (a flag that is locked: it comes from outside of this user namespace), EINVAL.
    """
    attr_set, attr_clr = mount_attributes(flags, cleared)
    if attr_set or attr_clr:
        mount_setattr(mount, "", AT_EMPTY_PATH, MountAttr(attr_set=attr_set, attr_clr=attr_clr))
    if any(below):
        mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, MountAttr(attr_set=below[0], attr_clr=below[1]))
    for kind in propagation:
        deep = AT_RECURSIVE if kind & MS_REC else 0
        mount_setattr(mount, "", AT_EMPTY_PATH | deep, MountAttr(propagation=kind & ~MS_REC))


def place(mount: int, root: str, destination: str) -> None:
    """Put a mount that was made or taken at `destination` below `root`; the place is made when it is missing.

    A proc or sysfs is never put where a link leads: programs and we ourselves trust these two, so they are to be
    where everybody believes them to be. For the same reason nothing else may cover /proc or what is in it, except
    the few tables that are `COVERABLE` (CVE-2019-16884, CVE-2019-19921).

    Raises OSError: ELOOP, ENOTDIR (a link, or no directory where one must be), EPERM (it is in /proc).
    """
    path = os.path.normpath(f"/{destination}").strip("/")
    what = os.fstat(mount)
    trusted = what.st_ino == 1 and fstatfs(mount) in (PROC_SUPER_MAGIC, SYSFS_MAGIC)  # the root of one
    in_proc = f"{path}/".startswith("proc/")
    directory = stat.S_ISDIR(what.st_mode)
    with _told_of(path), place_in(root, path, directory=directory, links=not (trusted or in_proc)) as there:
        spot = os.fstat(there)
        if stat.S_ISDIR(spot.st_mode) != directory:
            is_one, has_one = ("a directory", "no directory") if directory else ("no directory", "a directory")
            raise NotADirectoryError(errno.ENOTDIR, f"/{path}: here is {has_one}, and what is mounted is {is_one}")
        _spare_proc(mount, root, path, there, spot)
        move_mount(mount, "", there)


@contextlib.contextmanager
def _told_of(path: str) -> Iterator[None]:
    """Where a link is in a place in which there must be none, say so."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        told = f"/{path} must be mounted on ordinary directory: there is a link in its place, or on the way to it"
        raise OSError(error.errno, told) from None


def bind(
    source: int,
    root: str,
    destination: str,
    readonly: bool = False,
    flags: int = 0,
    cleared: int = 0,
    below: tuple[int, int] = (0, 0),
    propagation: Sequence[int] = (),
) -> None:
    """Put what was picked up at `destination` below `root`; the place is made when it is missing.

    Private, if nothing else is asked for, and before it can be seen: where the host's mounts are shared (systemd makes
    them so), the copy is still a peer of the original, and what the container mounts there would appear on the host.
    `readonly` means the whole tree (`flags` with MS_RDONLY, like mount(2), leaves the mounts below writable).

    Raises OSError: EPERM, EINVAL; what `settle` and `place` raise.
    """
    below = (below[0] | MOUNT_ATTR_RDONLY, below[1]) if readonly else below
    settle(source, flags, cleared, below, [_for_now(kind) for kind in propagation] or [MS_PRIVATE | MS_REC])
    place(source, root, destination)
    settle(source, propagation=propagation)  # again: what is put on a shared mount has become shared


def attach(
    root: str,
    destination: str,
    fstype: str,
    source: str,
    flags: int = 0,
    data: str | None = None,
    below: tuple[int, int] = (0, 0),
    propagation: Sequence[int] = (),
    copy_up: bool = False,
) -> None:
    """Mount a file system of type `fstype` at `destination` below `root`; the place is made when it is missing.

    A tmpfs gets the mode of the directory that it covers, unless `data` says another, and with `copy_up` all that is
    in it. Raises what `make`, `settle` and `place` raise, ValueError (only a tmpfs can be filled).
    """
    if copy_up and fstype != "tmpfs":
        raise ValueError(f"{destination}: tmpcopyup is for a tmpfs; this is a {fstype}")
    late = MS_RDONLY if fstype == "tmpfs" else 0  # nobody could write to it, not even we
    new = make(fstype, source, flags & ~late, data)
    try:
        if fstype == "tmpfs" and (copy_up or "mode=" not in (data or "")):
            _imitate(new, root, destination, keep_mode="mode=" in (data or ""), copy_up=copy_up)
        settle(new, flags & late, 0, below, [_for_now(kind) for kind in propagation])
        place(new, root, destination)
        settle(new, propagation=propagation)
    finally:
        os.close(new)


def remount(root: str, destination: str, flags: int, cleared: int = 0, data: str | None = None) -> None:
    """Change what is mounted at `destination` below `root`: flags of the mount, and, without MS_BIND, options of the
    file system, wherever else it may be mounted too.

    Raises OSError: ENOENT, EINVAL (nothing is mounted there), EPERM.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        there = open_in(top, os.path.normpath(f"/{destination}").strip("/") or ".")
    finally:
        os.close(top)
    try:
        settle(there, flags, cleared)
        if not flags & MS_BIND:
            context = fspick(there)
            try:
                _configure(context, flags, cleared, _split(data or ""))
                fsconfig(context, FSCONFIG_CMD_RECONFIGURE)
            finally:
                os.close(context)
    finally:
        os.close(there)


def unmount(path: str) -> None:
    """Take away what is mounted last at `path`. No link in the place of its last name is followed.

    Raises OSError: EBUSY (a program uses it, or something is mounted below it), EINVAL (nothing is mounted there),
    ENOENT, EPERM.
    """
    umount2(path, UMOUNT_NOFOLLOW)


def protect_root() -> None:
    """Make the container's "/" read-only; what is mounted below keeps its own flags. Inside, after `pivot`."""
    mount_setattr(AT_FDCWD, "/", 0, MountAttr(attr_set=MOUNT_ATTR_RDONLY))


def disarm(path: str) -> None:
    """Let no device file work on the mount at `path` and on those below it, and no set-user-ID bit: for whoever goes in
    to look, and does not trust what lies there. Raises OSError: EPERM, EINVAL (nothing is mounted there)."""
    mount_setattr(AT_FDCWD, path, AT_RECURSIVE, MountAttr(attr_set=MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID))


def spread_root(propagation: int, path: str = "/") -> None:
    """Say whether later mounts below the container's "/" spread: MS_SHARED, MS_SLAVE…, with MS_REC for all below.

    Or below another mount of it, at `path`: MS_UNBINDABLE has to wait until here, since `pivot` binds the whole tree.

    Inside, after `pivot`, which refuses a shared root. Shared means a new group of peers, of which the host is none.
    """
    mount_setattr(
        AT_FDCWD, path, AT_RECURSIVE if propagation & MS_REC else 0, MountAttr(propagation=propagation & ~MS_REC)
    )


def _for_now(propagation: int) -> int:
    """What a mount can be before it has its place: nothing unbindable can be put on a shared mount."""
    return propagation & ~MS_UNBINDABLE | MS_PRIVATE if propagation & MS_UNBINDABLE else propagation


def _imitate(mount: int, root: str, destination: str, keep_mode: bool = False, copy_up: bool = False) -> None:
    """Give an empty tmpfs the mode of the directory that it is going to cover, and with `copy_up` what is in there.

    Modes, owners, times, extended attributes, links and hard links are kept; what is mounted in there is not copied.
    No link is followed. Raises OSError: ENOSPC (the tmpfs is too small).
    """
    from minicontainer.steps.copying import copy_tree

    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        image = open_in(top, os.path.normpath(f"/{destination}").strip("/") or ".", os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # nothing to be like; what is wrong with the place, if anything is, `place` says
    finally:
        os.close(top)
    try:
        new = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        try:
            mode = stat.S_IMODE(os.fstat(new if keep_mode else image).st_mode)
            if copy_up:
                copy_tree(image, new)
            os.fchmod(new, mode)
        finally:
            os.close(new)
    finally:
        os.close(image)


_SUPERBLOCK = (
    (MS_RDONLY, "ro", "rw"),
    (MS_SYNCHRONOUS, "sync", "async"),
    (MS_DIRSYNC, "dirsync", None),
    (MS_MANDLOCK, "mand", "nomand"),
    (MS_LAZYTIME, "lazytime", "nolazytime"),
)
"""The MS_* that are the file system's. MS_SILENT has no use here, and versions of inodes (MS_I_VERSION) are counted by
the file systems that can, without being asked."""


def _configure(context: int, flags: int, cleared: int, options: Sequence[str]) -> None:
    """Hand flags and options to a file system in the making."""
    for flag, word, opposite in _SUPERBLOCK:
        if flags & flag:
            fsconfig(context, FSCONFIG_SET_FLAG, word)
        if cleared & flag and opposite:
            fsconfig(context, FSCONFIG_SET_FLAG, opposite)
    for option in options:
        key, given, value = option.partition("=")
        fsconfig(context, FSCONFIG_SET_STRING if given else FSCONFIG_SET_FLAG, key, value if given else None)


def _split(data: str) -> list[str]:
    """Options with commas between them; a comma in double quotes is none ("context=" of SELinux has such values)."""
    words, quoted = [""], False
    for letter in data:
        if letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            words.append("")
        else:
            words[-1] += letter
    return [word for word in words if word]


def _make_by_mount(fstype: str, source: str, flags: int, data: str | None) -> int:
    """As `make` where fsconfig(2) will not do: it takes no value over 255 bytes, such as the layers of an overlay.

    mount(2) needs a place at once. That is in a mount namespace for the purpose, of which nobody has seen anything
    when we are back.
    """
    with out_of_sight() as place:
        mount(source, place, fstype, flags, data)
        try:
            return open_tree(place, OPEN_TREE_CLONE)
        finally:
            umount2(place, MNT_DETACH)


@contextlib.contextmanager
def out_of_sight() -> Iterator[str]:
    """A directory to mount on, in a mount namespace in which the caller is for the time of this block only.

    What is to stay is taken (open_tree(2)) before the end. Raises OSError: EPERM (needs CAP_SYS_ADMIN).
    """
    ours, here = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNS)
        try:
            mount(None, "/", None, MS_REC | MS_PRIVATE)
            yield "/dev"  # it is on every machine
        finally:
            setns(ours, CLONE_NEWNS)
            os.fchdir(here)  # joining a mount namespace has put us into its root
    finally:
        os.close(ours)
        os.close(here)


def _user_namespace(uids: Sequence[IdMap], gids: Sequence[IdMap]) -> int:
    """A user namespace with these maps and nobody in it, as a file descriptor."""
    from minicontainer.steps.user import write_maps

    waits, ours = os.pipe2(os.O_CLOEXEC)
    pid = clone3(CLONE_NEWUSER)
    if pid == 0:
        try:
            os.close(ours)
            os.read(waits, 1)  # end-of-file: the namespace is held open, or nobody wants it any more
        finally:
            os._exit(0)
    try:
        write_maps(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ours)
        os.close(waits)
        os.waitpid(pid, 0)


def _spare_proc(mount: int, root: str, path: str, there: int, spot: os.stat_result) -> None:
    """Refuse to cover /proc with what is no proc, and what is in it unless it is `COVERABLE`.

    Asked of the place itself, that we hold open, and not of its name alone: a link could have led there.
    """
    on_proc = fstatfs(there) == PROC_SUPER_MAGIC
    if path == "proc" or (on_proc and spot.st_ino == 1) or _is_proc_of(root, spot):
        if fstatfs(mount) != PROC_SUPER_MAGIC:
            raise OSError(errno.EPERM, f"/{path}: only a proc may be mounted on /proc")
    elif on_proc or path.startswith("proc/"):
        top, _, name = path.partition("/")
        if top != "proc" or name not in COVERABLE:
            raise OSError(errno.EPERM, f"/{path}: this is inside /proc, where nothing may be mounted")


def _is_proc_of(root: str, spot: os.stat_result) -> bool:
    """Whether this is the directory "proc" of the tree `root`, to which a link led us before a proc is mounted."""
    try:
        return os.path.samestat(os.stat(f"{root}/proc", follow_symlinks=False), spot)
    except OSError:
        return False
