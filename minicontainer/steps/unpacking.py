"""A tree of files made by the word of somebody who may mean harm: where everything goes, and what may not be asked for.

openat(2), openat2(2), path_resolution(7), xattr(7). An archive is a list of names, and names are the attack: ``../x``,
``/x``, or ``a/x`` behind an ``a`` that the same archive has made a symbolic link to "/". So no path is ever handed to
the kernel here: we walk, one open directory after the other, without following links; and where the tree itself has a
link on the way, RESOLVE_IN_ROOT follows it as the container would, with the tree as "/".
"""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType

from minicontainer.linux import open_in
from minicontainer.linux.tar import Entry
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_LAST_ID = 2**32 - 2  # the one above it stands for "leave it as it is"; chown(2)
OVERLAYS_OWN = ("trusted.overlay.", "user.overlay.")
"""Extended attributes by which overlayfs finds its way: who could bring some could lead it elsewhere."""
KEPT = ("user.", "system.posix_acl_", "security.capability")
"""Those that are the file's. All others are this host's affair, such as labels of SELinux."""
_LOST_SHOWN = 100


class Refused(ValueError):
    """An image or a layer that is or wants what none may. The text says what."""


class Limits(Record):
    """What a layer may ask for at most: a small blob can unpack to anything."""

    size: int = 64 << 30
    """Bytes of all its files, holes included."""
    entries: int = 1_000_000
    depth: int = 255
    """Directories in one another."""


LIMITS = Limits()
"""Of whom nobody has said any."""


class Unpacked(Record):
    """What a layer was."""

    entries: int
    size: int
    """Bytes of its files."""
    lost: tuple[str, ...]
    """What could not be kept here, one line for each; the first hundred."""


class Unpacking:
    """A directory that is being filled. It is ours alone until `finish`: nobody else has business in it.

    Directories get owner, mode, times and attributes at the end, when nothing is put into them any more. Until then
    they are ours and 0700, whatever the archive says, so that no default (setgid, ACL) of theirs is passed on.
    """

    def __init__(self, directory: str, limits: Limits) -> None:
        self.top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._limits = limits
        self._way: list[tuple[str, int]] = []
        """The directory that we are in: each step from the top, by name and file descriptor."""
        self._above: str | None = None
        """What stood before the last "/" in the name that led us here, if the next such name leads here too."""
        self._owner = (os.geteuid(), os.getegid())
        self._implied = Entry("", mode=0o755, uid=self._owner[0], gid=self._owner[1])
        """How a directory looks that is only named on the way to something."""
        self._directories = {"": self._implied}
        self._entries = self._size = 0
        self._lost: list[str] = []
        os.fchmod(self.top, 0o700)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._go_back(0)
        os.close(self.top)

    @property
    def result(self) -> Unpacked:
        """What was unpacked so far."""
        return Unpacked(self._entries, self._size, tuple(self._lost))

    def count(self, entry: Entry) -> None:
        """Count an entry. Raises Refused: one too many, or too large."""
        self._entries += 1
        self._size += entry.size
        if self._entries > self._limits.entries:
            raise Refused(f"it has more than {self._limits.entries} entries")
        if self._size > self._limits.size:
            raise Refused(f"its files have more than {self._limits.size} bytes")

    # Where

    def place(self, name: str) -> tuple[int, str]:
        """The open directory in which the entry `name` goes, and its name there; "" is the top itself.

        What is missing of the way is made. Raises Refused (".." or too deep), OSError: ENOTDIR, ENAMETOOLONG.
        """
        above, _, last = name.rpartition("/")
        if above == self._above and last not in ("", ".", ".."):
            return self._here, last
        parts = self.parts(name)
        if not parts:
            return self.top, ""
        self._walk(parts[:-1])
        self._above = above if last == parts[-1] else None  # else there was a "/" at its end
        return self._here, parts[-1]

    def parts(self, name: str) -> list[str]:
        """The names on the way to `name`, which leads nowhere but downwards. Raises Refused."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Refused(f'{name!r}: a name with ".." in it leads out of the layer, or wants to')
        if len(parts) > self._limits.depth:
            raise Refused(f"{name!r} is more than {self._limits.depth} directories deep")
        return parts

    def open_parent(self, parts: list[str]) -> int:
        """The directory that is there already above these names, for the caller to close. Raises OSError: ENOENT…"""
        return open_in(self.top, "/".join(parts[:-1]) or ".", os.O_PATH | os.O_DIRECTORY)

    @property
    def _here(self) -> int:
        return self._way[-1][1] if self._way else self.top

    def _walk(self, parts: list[str]) -> None:
        """Go to the directory with this path, from where we are: up as far as must be, and down again."""
        self._go_back(self._shared(parts))
        for at in range(len(self._way), len(parts)):
            try:
                self._step(parts[at])
            except NotADirectoryError:  # a symbolic link, it may be
                self._follow(parts[at])
                if len(self._way) + len(parts) - at > self._limits.depth:
                    raise Refused(f"{'/'.join(parts)!r} is more than {self._limits.depth} directories deep") from None

    def _shared(self, parts: list[str]) -> int:
        """How many steps of our way lead there too."""
        for at, (name, _) in enumerate(self._way):
            if at == len(parts) or name != parts[at]:
                return at
        return len(self._way)

    def _step(self, name: str) -> None:
        """Into a directory in the one where we are, which is made if it is not there."""
        try:
            self._enter(name)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=self._here)
            self._enter(name)
            self._directories["/".join(part for part, _ in self._way)] = self._implied

    def _enter(self, name: str) -> None:
        """Into a directory in the one where we are. Raises FileNotFoundError, NotADirectoryError (a link, too)."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._way.append((name, os.open(name, flags, dir_fd=self._here)))

    def _follow(self, name: str) -> None:
        """To where the symbolic link `name` leads, below our top; our way is then the one that leads there directly."""
        path = "/".join([*(part for part, _ in self._way), name])
        try:
            there = open_in(self.top, path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, f"{path!r} is a link that leads to nothing") from None
        try:
            top, straight = (os.readlink(f"/proc/self/fd/{fd}") for fd in (self.top, there))
        finally:
            os.close(there)
        self._go_back(0)
        for part in straight.removeprefix(top).split("/")[1:]:
            self._step(part)

    def _go_back(self, steps: int) -> None:
        while len(self._way) > steps:
            os.close(self._way.pop()[1])
        self._above = None

    # What

    def clear(self, name: str) -> None:
        """Remove what an earlier entry has put in the place of this one, in the directory where we are."""
        if self.is_directory(name):
            import shutil  # only here: whoever stacks layers at every start imports this module

            shutil.rmtree(name, dir_fd=self._here)
        else:
            os.unlink(name, dir_fd=self._here)

    def is_directory(self, name: str) -> bool:
        """Whether there is a directory with this name in the one where we are."""
        return stat.S_ISDIR(os.stat(name, dir_fd=self._here, follow_symlinks=False).st_mode)

    def lose(self, entry: Entry, what: str) -> None:
        """Note what of an entry cannot be kept."""
        if len(self._lost) < _LOST_SHOWN:
            self._lost.append(f"{entry.name}: {what}")

    def dress(self, file: int | str, entry: Entry) -> None:
        """Owner, extended attributes, mode, times: in this order, for each may undo those after it.

        `file` is open, or a path that ends in something of ours. Raises Refused (an attribute, an id), OSError.
        """
        follow = isinstance(file, int)
        if (entry.uid, entry.gid) != self._owner:
            self._chown(file, entry)
        for name, value in entry.xattrs.items():
            if name.startswith(("trusted.", *OVERLAYS_OWN)):
                raise Refused(f"{entry.name!r} brings {name}: such attributes are the host's and overlayfs's own")
            if name.startswith(KEPT):
                try:
                    os.setxattr(file, name, value, follow_symlinks=follow)
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                        raise
                    self.lose(entry, f"{name} ({error.strerror})")
            else:
                self.lose(entry, f"{name} (this host's affair)")
        if entry.kind != "2":  # a symbolic link has no mode
            os.chmod(file, entry.mode)
        try:
            os.utime(file, ns=(entry.mtime, entry.mtime), follow_symlinks=follow)
        except OverflowError:
            raise Refused(f"{entry.name!r} was modified at a time that there is not") from None

    def dress_later(self, name: str, entry: Entry) -> None:
        """The same for a directory in the one where we are ("": the top), when all is in it."""
        self._directories["/".join([*(part for part, _ in self._way), name]) if name else ""] = entry

    def finish(self) -> None:
        """Give every directory its attributes; those in a directory before itself, as its mode may shut us out."""
        for path in sorted(self._directories, reverse=True):
            try:
                self._return_to(path.split("/") if path else [])
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry has taken its place
            try:
                self.dress(self._here, self._directories[path])
            except OSError as error:
                raise OSError(error.errno, f"{path or '/'!r}: {error.strerror}") from error

    def _return_to(self, parts: list[str]) -> None:
        """Go to a directory that we have made. Raises FileNotFoundError, NotADirectoryError: it is gone."""
        self._go_back(self._shared(parts))
        for name in parts[len(self._way) :]:
            self._enter(name)

    def _chown(self, file: int | str, entry: Entry) -> None:
        if not (0 <= entry.uid <= _LAST_ID and 0 <= entry.gid <= _LAST_ID):
            raise Refused(f"{entry.name!r} belongs to {entry.uid}:{entry.gid}, and there are no such ids")
        try:
            os.chown(file, entry.uid, entry.gid, follow_symlinks=isinstance(file, int))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            whose = f"belongs to {entry.uid}:{entry.gid}"
            if error.errno == errno.EPERM:
                raise PermissionError(errno.EPERM, f"{whose}, and only root can give files to somebody") from None
            raise OSError(
                errno.EINVAL,
                f"{whose}, who has no id in this user namespace: give its owner more in /etc/subuid, /etc/subgid",
            ) from None
