"""Trees of files into tar archives, and out of them, while somebody else may be changing the tree and mean harm by it.

openat(2), xattr(7), fstatfs(2). Names are looked up one at a time, in directories that are open, and what was opened is
looked at again before it is believed. Nothing is looked up in /proc, so this works under a root where there is none.

Unlike a layer (`steps.layers`), these archives are of files only: a name is a name, and nothing is hidden by one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence

from minicontainer.linux import tar
from minicontainer.linux.mount import fstatfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH = 500
"""Directories in one another; each is an open file."""
TRIES = 100
"""To catch a name as what it was when it was looked at, while somebody exchanges it all the time."""

NO_FILES = frozenset(
    (0x9FA0, 0x62656572, 0x1CD1, 0x19800202, 0x27E0EB, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0xCAFE4A11,
     0x6E736673, 0x42494E4D)
)  # fmt: skip
"""proc, sysfs, devpts, mqueue, cgroup (both), debugfs, tracefs, securityfs, bpf, nsfs, binfmt_misc: what is in there
are views of the kernel, and no files that could be copied. statfs(2)."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: tar.FILE, stat.S_IFLNK: tar.SYMLINK, stat.S_IFCHR: tar.CHARACTER, stat.S_IFBLK: tar.BLOCK,
    stat.S_IFDIR: tar.DIRECTORY, stat.S_IFIFO: tar.FIFO,
}  # fmt: skip
_CHANGED = (errno.ELOOP, errno.ENOTDIR, errno.ESTALE, errno.ENXIO, errno.EINVAL)

Owner = Callable[[int, int], tuple[int, int]]
"""(uid, gid) of a file → those that the archive is to have."""


# Into an archive


class Packing:
    """An archive that is being written, by `add`. The same trees give the same bytes.

    `lost` is told, a line each, what has no place in an archive. `whole_mounts`: what is mounted in a tree comes too,
    unless it is no files at all; else its place is an empty directory.
    """

    def __init__(
        self,
        archive: Any,
        lost: Callable[[str], object],
        owner: Owner | None = None,
        *,
        whole_mounts: bool = True,
    ) -> None:
        self._writer, self._lost, self._owner, self._whole_mounts = tar.Writer(archive), lost, owner, whole_mounts
        self._first: dict[tuple[int, int], str] = {}

    def add(self, parent: int, name: str, path: str) -> None:
        """The file `name` in the open directory `parent`, with all that is in it, as `path`. Raises OSError, TarError.

        A symbolic link is packed as such. ESTALE: it changed faster than it could be read.
        """
        self._add(parent, name, path, os.fstat(parent).st_dev, 0)

    def add_content(self, directory: int) -> None:
        """All that is in the open directory, but not itself."""
        device = os.fstat(directory).st_dev
        for name in sorted(os.listdir(directory), key=os.fsencode):
            with contextlib.suppress(FileNotFoundError):
                self._add(directory, name, name, device, 1)

    def close(self) -> None:
        """Write the end mark."""
        self._writer.close()

    def _add(self, parent: int, name: str, path: str, device: int, depth: int) -> None:
        if depth > DEPTH:
            raise OSError(errno.ENAMETOOLONG, f"{path!r}: more than {DEPTH} directories in one another")
        for _ in range(TRIES):
            try:
                opened = self._opened(parent, name)
            except OSError as error:
                if error.errno in _CHANGED:
                    continue
                raise
            break
        else:
            raise OSError(errno.ESTALE, f"{path!r} is exchanged for something else all the time")
        about, fd, link = opened
        try:
            self._write(about, fd, link, path, device, depth)
        finally:
            if fd >= 0:
                os.close(fd)

    @staticmethod
    def _opened(parent: int, name: str) -> tuple[os.stat_result, int, str]:
        """What a name is: (its status, the open file or -1, where the link leads), all three of the same file."""
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(about.st_mode):
            return about, -1, os.readlink(name, dir_fd=parent)
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            return about, -1, ""
        kind = _DIRECTORY if stat.S_ISDIR(about.st_mode) else os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, kind, dir_fd=parent)
        now = os.fstat(fd)
        if stat.S_IFMT(now.st_mode) != stat.S_IFMT(about.st_mode):  # a device, it may be: nothing of it is read
            os.close(fd)
            raise OSError(errno.ESTALE, f"{name!r} has become something else")
        return now, fd, ""

    def _write(self, about: os.stat_result, fd: int, link: str, path: str, device: int, depth: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(about.st_mode))
        if kind is None:
            self._lost(f"{path}: a socket, on which nobody listens in an archive")
            return
        uid, gid = self._owner(about.st_uid, about.st_gid) if self._owner else (about.st_uid, about.st_gid)
        entry = tar.Entry(
            f"{path.rstrip('/')}/" if kind == tar.DIRECTORY else path,
            kind,
            stat.S_IMODE(about.st_mode),
            uid,
            gid,
            mtime=about.st_mtime_ns,
            link=link,
            xattrs=_attributes(fd) if fd >= 0 else {},
        )
        if kind != tar.DIRECTORY and about.st_nlink > 1:
            one = self._first.setdefault((about.st_dev, about.st_ino), path)
            if one != path:
                entry.kind, entry.link, entry.xattrs = tar.LINK, one, {}
                self._writer.add(entry)
                return
        if kind == tar.FILE:
            entry.size = about.st_size
            self._writer.add(entry, fd)
            return
        if kind in (tar.CHARACTER, tar.BLOCK):
            entry.major, entry.minor = os.major(about.st_rdev), os.minor(about.st_rdev)
        self._writer.add(entry)
        if kind != tar.DIRECTORY:
            return
        if about.st_dev != device and (not self._whole_mounts or fstatfs(fd) in NO_FILES):
            return
        above = "" if path == "." else f"{path.rstrip('/')}/"
        for name in sorted(os.listdir(fd), key=os.fsencode):
            with contextlib.suppress(FileNotFoundError):  # it vanished meanwhile
                self._add(fd, name, f"{above}{name}", about.st_dev, depth + 1)


def _attributes(fd: int) -> dict[str, bytes]:
    """The extended attributes that are the file's, and not this host's affair."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(fd):
            if _travels(name):
                with contextlib.suppress(OSError):  # removed meanwhile
                    found[name] = os.getxattr(fd, name)
    return found


def _travels(attribute: str) -> bool:
    own = attribute.startswith(("user.", "system.posix_acl_")) or attribute == "security.capability"
    return own and not attribute.startswith("user.overlay.") and "=" not in attribute


# Out of an archive


class Filling:
    """A directory into which files are laid, in place of what is there by their names. `with` it, and `finish` it.

    `follow`: a symbolic link on the way leads where it leads; only where that is nowhere else than in our own root.
    `owner`: of everything, in place of those that the archive says.
    """

    def __init__(
        self,
        directory: int,
        lost: Callable[[str], object],
        owner: tuple[int, int] | None = None,
        *,
        follow: bool = False,
    ) -> None:
        self._top, self._lost, self._owner = directory, lost, owner
        self._step = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        self._follow = follow
        self._at: tuple[Sequence[str], int] = ((), os.dup(directory))
        self._directories: dict[str, tar.Entry] = {}

    def add(self, entry: tar.Entry, path: str, link: str = "") -> None:
        """Lay down one file at `path` below the directory; a LINK is one to `link` there.

        Raises OSError: EEXIST (a directory where there is a file), EISDIR (the other way round), ENOSPC…
        """
        parts = path_parts(path)
        if not parts:
            return  # the directory itself is somebody's, and stays as it is
        try:
            self._lay(entry, parts, link)
        except OSError as error:
            raise OSError(error.errno, f"{path}: {error.strerror or error}") from None

    def finish(self) -> None:
        """Directories get their attributes when nothing is laid into them any more."""
        for path in sorted(self._directories, reverse=True):
            parts = path.split("/")
            try:
                fd = os.open(parts[-1], self._step, dir_fd=self._parent(parts))
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                self._dress(fd, self._directories[path])
            finally:
                os.close(fd)

    def close(self) -> None:
        """Let go of the directories."""
        os.close(self._at[1])

    def _lay(self, entry: tar.Entry, parts: list[str], link: str) -> None:
        parent, name = self._parent(parts), parts[-1]
        there = self._mode(parent, name, follow=self._follow and entry.kind == tar.DIRECTORY)
        if entry.kind == tar.DIRECTORY:
            if there and not stat.S_ISDIR(there):
                raise OSError(errno.EEXIST, "this is no directory, and a directory was to be copied over it")
            if not there:
                os.mkdir(name, 0o700, dir_fd=parent)
            self._directories["/".join(parts)] = entry
            return
        if stat.S_ISDIR(there):
            raise OSError(errno.EISDIR, "this is a directory, and something else was to be copied over it")
        if entry.kind == tar.FILE:
            self._file(entry, parent, name)
        elif entry.kind in (tar.CHARACTER, tar.BLOCK):
            self._lost(f"{'/'.join(parts)}: a device")
        else:
            self._other(entry, parent, name, link)

    def _file(self, entry: tar.Entry, parent: int, name: str) -> None:
        """Whole or not at all: under a name of its own until it is finished."""
        new = f".{os.urandom(6).hex()}"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            entry.write_to(fd)
            self._dress(fd, entry)
            try:
                os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                self._overwrite(fd, parent, name)  # something is mounted there, as on a container's /etc/hosts
                os.unlink(new, dir_fd=parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=parent)
            raise
        finally:
            os.close(fd)

    @staticmethod
    def _overwrite(source: int, parent: int, name: str) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EBUSY, "something is mounted there, and it is no file")
            os.ftruncate(fd, 0)
            os.lseek(source, 0, os.SEEK_SET)
            while data := os.read(source, tar.PIECE):
                while data:
                    data = data[os.write(fd, data) :]
        finally:
            os.close(fd)

    def _other(self, entry: tar.Entry, parent: int, name: str, link: str) -> None:
        if entry.kind == tar.LINK:
            *above, last = path_parts(link) or [""]
            there = self._open(above)
            try:
                if stat.S_ISDIR(os.stat(last, dir_fd=there, follow_symlinks=False).st_mode):
                    raise OSError(errno.EPERM, f"it is a link to the directory {link!r}")
                self._remove(parent, name)
                os.link(last, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(there)
            return
        self._remove(parent, name)
        if entry.kind == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
        else:
            os.mkfifo(name, 0o600, dir_fd=parent)
        uid, gid = self._owner or (entry.uid, entry.gid)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind == tar.FIFO:
            os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    @staticmethod
    def _remove(parent: int, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)

    def _dress(self, fd: int, entry: tar.Entry) -> None:
        """Owner, attributes, mode, times: in this order, for each may undo those after it."""
        os.chown(fd, *(self._owner or (entry.uid, entry.gid)))
        for name, value in entry.xattrs.items():
            if _travels(name):
                with contextlib.suppress(OSError):
                    os.setxattr(fd, name, value)
        os.chmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    @staticmethod
    def _mode(parent: int, name: str, *, follow: bool = False) -> int:
        """Of what is there, or of the directory to which a link there leads; 0: nothing."""
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if follow and stat.S_ISLNK(mode):
                with contextlib.suppress(OSError):
                    led = os.stat(name, dir_fd=parent).st_mode
                    return led if stat.S_ISDIR(led) else mode
            return mode
        except FileNotFoundError:
            return 0

    def _parent(self, parts: Sequence[str]) -> int:
        """The directory above, made where it is missing; ours to close, later."""
        above = parts[:-1]
        if above != self._at[0]:
            fd = self._open(above, make=True)
            os.close(self._at[1])
            self._at = (above, fd)
        return self._at[1]

    def _open(self, parts: Sequence[str], *, make: bool = False) -> int:
        here = os.dup(self._top)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    if make and not self._mode(here, part):
                        os.mkdir(part, 0o755, dir_fd=here)
                fd = os.open(part, self._step, dir_fd=here)
                os.close(here)
                here = fd
        except BaseException:
            os.close(here)
            raise
        return here


def path_parts(path: str) -> list[str]:
    """The names on a way that leads nowhere but downwards. Raises OSError, EINVAL: it has ".." in it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OSError(errno.EINVAL, f'{path!r}: a name with ".." in it leads out of the directory, or wants to')
    return parts


@contextlib.contextmanager
def filling(
    directory: int, lost: Callable[[str], object], owner: tuple[int, int] | None = None, *, follow: bool = False
) -> Iterator[Filling]:
    """Lay files into the open directory during the block; it is finished at its end, if all went well."""
    one = Filling(directory, lost, owner, follow=follow)
    try:
        yield one
        one.finish()
    finally:
        one.close()
