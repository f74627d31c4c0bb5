"""Layers as they travel, and as they lie: a tar with marks, and a directory for overlayfs to `stack` (`overlay.py`).

A layer travels as a tar of what it adds, with marks for what it takes away: an empty file ``.wh.NAME`` beside the place
where NAME is no longer seen, ``.wh..wh..opq`` in a directory of which nothing that lies below is seen any more. On disk
overlayfs wants other marks: a character device 0:0 called NAME; an extended attribute on the directory.

OCI image specification, layer.md; overlayfs, Documentation/filesystems/overlayfs.rst in the kernel's tree. Whoever made
the image may mean harm, so nothing here goes by a path: `unpacking.py`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from minicontainer.linux import in_user_namespace, tar
from minicontainer.steps.unpacking import KEPT, LIMITS, OVERLAYS_OWN, Limits, Refused, Unpacked, Unpacking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

WHITEOUT = ".wh."
"""What the name of a mark begins with; what follows is the name that it hides."""
OPAQUE = ".wh..wh..opq"
"""The mark in a directory that hides all that the layers below have in it."""
AUFS = ".wh..wh."
"""What the names of aufs's own files began with; at the top of layers from the first years of Docker they still lie."""
WHITEOUT_DEVICE = os.makedev(0, 0)


def apply_layer(archive: Iterable[bytes] | BinaryIO, directory: str, limits: Limits = LIMITS) -> Unpacked:
    """Unpack a layer, an uncompressed tar, into the empty `directory`, in the form that overlayfs takes.

    Kept are owners, modes, times of modification, extended attributes of users, ACLs and file capabilities, links of
    both kinds, pipes, devices and holes. An entry takes the place of an earlier one with its name; only directories
    become one. Where devices cannot be made (a user namespace), an empty file stands for each, as umoci does it; what
    else is lost is in the result.

    Raises Refused, or tar.TarError: no archive, or one that no layer may be; OSError: ENOSPC; EINVAL, an owner who has
    no id here; EPERM… The directory is then half filled, and for the caller to remove.
    """
    with Unpacking(directory, limits) as layer:
        for entry in tar.read(archive):
            layer.count(entry)
            try:
                _add(layer, entry)
            except OSError as error:
                raise OSError(error.errno, f"{entry.name!r}: {error.strerror}") from error
        layer.finish()
        return layer.result


def _add(layer: Unpacking, entry: tar.Entry) -> None:
    """Add one entry: a mark of what is hidden, or a file of whatever kind."""
    if WHITEOUT in entry.name and _is_mark(layer.parts(entry.name)):
        _hide(layer, entry)
        return
    parent, name = layer.place(entry.name)
    if entry.kind == tar.DIRECTORY:
        _make_directory(layer, parent, name, entry)
    elif name:
        try:
            _make(layer, parent, name, entry)
        except FileExistsError:
            layer.clear(name)
            _make(layer, parent, name, entry)
    else:
        raise Refused(f"{entry.name!r} is the top of the layer, and no directory")


def _is_mark(parts: Sequence[str]) -> bool:
    return any(part.startswith(WHITEOUT) for part in parts)


def _hide(layer: Unpacking, entry: tar.Entry) -> None:
    """A mark: hide a name of the layers below, or with OPAQUE all of them in this directory."""
    *above, name = parts = layer.parts(entry.name)
    if parts[0].startswith(AUFS) and parts != [OPAQUE]:
        return
    hidden = name.removeprefix(WHITEOUT)
    if _is_mark(above) or entry.kind not in (tar.FILE, tar.LINK):  # LINK: all marks of aufs were one file
        raise Refused(f"{entry.name!r} has a name of marks for what is hidden, and cannot be one")
    if name != OPAQUE and (hidden in ("", ".", "..") or _is_mark([hidden])):
        raise Refused(f"{entry.name!r} hides {hidden!r}, which is no name")
    parent, _ = layer.place(entry.name)
    if name == OPAQUE:
        _make_opaque(f"/proc/self/fd/{parent}")
        return
    try:
        os.mknod(hidden, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=parent)
    except FileExistsError:  # what the layer brings itself is seen: a mark is for the layers below
        if layer.is_directory(hidden):
            _make_opaque(f"/proc/self/fd/{parent}/{hidden}")


def _make_opaque(directory: str) -> None:
    os.setxattr(directory, f"{_marks()}.opaque", b"y")


def _marks() -> str:
    """What the names of overlayfs's own attributes begin with. In a user namespace it cannot trust trusted.* ones."""
    return "user.overlay" if in_user_namespace() or os.geteuid() != 0 else "trusted.overlay"


def _make_directory(layer: Unpacking, parent: int, name: str, entry: tar.Entry) -> None:
    """A directory, unless it is there already; it gets its attributes when everything is in it."""
    try:
        if name:
            os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not layer.is_directory(name):
            hides = _is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False))
            layer.clear(name)
            os.mkdir(name, 0o700, dir_fd=parent)
            if hides:  # it takes the place of what is hidden, and nothing that was in there shall shine through
                _make_opaque(f"/proc/self/fd/{parent}/{name}")
    layer.dress_later(name, entry)


def _make(layer: Unpacking, parent: int, name: str, entry: tar.Entry) -> None:
    """Anything but a directory, with its attributes. Raises FileExistsError."""
    if entry.kind == tar.FILE:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            entry.write_to(fd)
            layer.dress(fd, entry)
        finally:
            os.close(fd)
        return
    if entry.kind == tar.LINK:
        _link(layer, parent, name, entry)
        return
    if entry.kind == tar.SYMLINK:
        os.symlink(entry.link, name, dir_fd=parent)
    elif entry.kind == tar.FIFO:
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        _make_device(layer, parent, name, entry)
    layer.dress(f"/proc/self/fd/{parent}/{name}", entry)


def _link(layer: Unpacking, parent: int, name: str, entry: tar.Entry) -> None:
    """Another name for a file of this layer: a layer below is not there for a link to reach into."""
    *_, last = parts = layer.parts(entry.link) or [""]
    try:
        there = layer.open_parent(parts)
        try:
            if _is_whiteout(os.stat(last, dir_fd=there, follow_symlinks=False)):
                raise FileNotFoundError
            os.link(last, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(there)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise Refused(f"{entry.name!r} is a link to {entry.link!r}, which is no file of this layer") from None


def _make_device(layer: Unpacking, parent: int, name: str, entry: tar.Entry) -> None:
    """A device node, or an empty file in its place where we may not make one."""
    if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
        raise Refused(f"{entry.name!r} is the device {entry.major}:{entry.minor}, and there are no such numbers")
    device = os.makedev(entry.major, entry.minor)
    if entry.kind == tar.CHARACTER and device == WHITEOUT_DEVICE:
        raise Refused(f"{entry.name!r} is a character device 0:0: the mark of overlayfs, which no layer brings itself")
    try:
        os.mknod(name, 0o600 | (stat.S_IFCHR if entry.kind == tar.CHARACTER else stat.S_IFBLK), device, dir_fd=parent)
    except PermissionError:
        os.mknod(name, 0o600 | stat.S_IFREG, dir_fd=parent)
        layer.lose(entry, "a device (an empty file is in its place)")


def _is_whiteout(about: os.stat_result) -> bool:
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == WHITEOUT_DEVICE


# --- Packing ----------------------------------------------------------------------------------------------------------


def pack_layer(directory: str, archive: BinaryIO) -> None:
    """Write what is in `directory`, a layer in the form that overlayfs takes, to `archive` as an uncompressed tar.

    The same tree gives the same bytes: names in the order of their bytes, numbers for owners, of the times only that of
    modification. Marks are translated back, so `apply_layer` makes the same tree of it. Sockets are left out: nobody
    listens any more. No link is followed.

    Raises Refused: a name that would be taken for a mark, or a file that overlayfs has left in part in the layer below
    (redirect_dir, metacopy); tar.TarError: a file that changes meanwhile; OSError.
    """
    writer = tar.Writer(archive)
    first: dict[tuple[int, int], str] = {}
    for parent, name, path in _files(directory):
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if name.startswith(WHITEOUT):
            raise Refused(f"{path!r} cannot be in a layer: its name is that of a mark of what is hidden")
        if _is_whiteout(about):
            above, _, hidden = path.rpartition("/")
            writer.add(tar.Entry(f"{above}/{WHITEOUT}{hidden}".lstrip("/"), mode=0o600))
        elif not stat.S_ISSOCK(about.st_mode):
            _pack(writer, parent, name, path, about, first)
    writer.close()


def _files(directory: str) -> Iterator[tuple[int, str, str]]:
    """The directory itself and all in it, as (the open directory that it is in, its name there, the path to it)."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    top = os.open(directory, flags)
    way = [(top, "", iter(["."]))]
    try:
        while way:
            parent, above, names = way[-1]
            name = next(names, None)
            if name is None:
                os.close(way.pop()[0])
                continue
            path = f"{above}{name}" if way[1:] else "."
            yield parent, name, path
            try:
                inner = os.open(name, flags, dir_fd=parent)
            except (NotADirectoryError, FileNotFoundError):
                continue
            way.append((inner, f"{path}/" if way[1:] else "", iter(sorted(os.listdir(inner), key=os.fsencode))))
    finally:
        for fd, _, _ in way:
            os.close(fd)


_KINDS = {
    stat.S_IFREG: tar.FILE, stat.S_IFLNK: tar.SYMLINK, stat.S_IFCHR: tar.CHARACTER, stat.S_IFBLK: tar.BLOCK,
    stat.S_IFDIR: tar.DIRECTORY, stat.S_IFIFO: tar.FIFO,
}  # fmt: skip


def _pack(
    writer: tar.Writer,
    parent: int,
    name: str,
    path: str,
    about: os.stat_result,
    first: dict[tuple[int, int], str],
) -> None:
    """Write one file. `first` knows where one with several names was met first: the others are links to that."""
    kind = _KINDS[stat.S_IFMT(about.st_mode)]
    xattrs, opaque = _attributes(f"/proc/self/fd/{parent}/{name}", path)
    entry = tar.Entry(
        f"{path}/" if kind == tar.DIRECTORY else path,
        kind,
        stat.S_IMODE(about.st_mode),
        about.st_uid,
        about.st_gid,
        mtime=about.st_mtime_ns,
        xattrs=xattrs,
    )
    if kind != tar.DIRECTORY and about.st_nlink > 1:
        one = first.setdefault((about.st_dev, about.st_ino), path)
        if one != path:
            entry.kind, entry.link, entry.xattrs = tar.LINK, one, {}
            writer.add(entry)
            return
    if kind == tar.FILE:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            entry.size = os.fstat(fd).st_size
            writer.add(entry, fd)
        finally:
            os.close(fd)
        return
    if kind == tar.SYMLINK:
        entry.link = os.readlink(name, dir_fd=parent)
    elif kind in (tar.CHARACTER, tar.BLOCK):
        entry.major, entry.minor = os.major(about.st_rdev), os.minor(about.st_rdev)
    writer.add(entry)
    if opaque:
        writer.add(tar.Entry(OPAQUE if path == "." else f"{path}/{OPAQUE}", mode=0o600))


def _attributes(file: str, path: str) -> tuple[dict[str, bytes], bool]:
    """The extended attributes that go with a file, and whether overlayfs has marked it as opaque."""
    xattrs, opaque = dict[str, bytes](), False
    for name in os.listxattr(file, follow_symlinks=False):
        if name.startswith(OVERLAYS_OWN):
            mark = name.partition(".overlay.")[2]
            if mark in ("redirect", "metacopy"):
                raise Refused(f"{path!r} is not whole: overlayfs ({mark}) has left a part of it in the layer below")
            opaque |= mark == "opaque" and name.startswith(_marks())
        elif name.startswith(KEPT):
            xattrs[name] = os.getxattr(file, name, follow_symlinks=False)
    return xattrs, opaque


# --- Stacking ---------------------------------------------------------------------------------------------------------
