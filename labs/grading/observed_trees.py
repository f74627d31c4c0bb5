"""Trees of files, planted in a sandbox call by call, and read from outside: all that stat(2) and listxattr(2) tell.

What a submission makes of a tree is judged by the tree. So the sandbox is given files with everything that files can
have, and afterwards they are looked at through the kernel, wherever they are now.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from labs.grading.checks import Wrong
from labs.grading.observed import Observed
from labs.grading.subject import Call

FILE, DIRECTORY, SYMLINK, FIFO, WHITEOUT = "file", "directory", "symbolic link", "pipe", "whiteout"
SECOND = 1_000_000_000
LARGEST = 1 << 20  # bytes of a file that are compared
OPAQUE = "user.overlay.opaque"
"""The mark of an opaque directory, as overlayfs takes it in a user namespace, which every sandbox is."""

_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK, stat.S_IFIFO: FIFO}


@dataclass(frozen=True)
class File:
    """A file of whatever kind, as it was planted, or as it was found."""

    kind: str = FILE
    content: bytes = b""
    """Of a SYMLINK: where it leads."""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    """User and group, in the sandbox's numbers; -1: somebody whom it does not know."""
    modified: int = 1_500_000_000
    """Seconds since 1970."""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    same_as: str = ""
    """The first path of this file, where it has several names (hard links)."""
    number: tuple[int, int] = field(default=(0, 0), compare=False)
    """Device and inode, by which the kernel knows it: a copy has another."""


Tree = dict[str, File]
"""By path; "." is the directory itself."""


def plant(top: str, tree: Mapping[str, File], so_far: int = 0) -> list[Call]:
    """The calls that make this tree in the new directory `top`; directories come before what is in them.

    `so_far` is how many calls the process has made before these.
    """
    calls: list[Call] = []
    tree = {".": File(DIRECTORY, mode=0o755), **tree}
    for path, file in tree.items():
        place = top if path == "." else f"{top}/{path}"
        if file.same_as:
            calls.append(("os.link", [f"{top}/{file.same_as}", place]))
            continue
        if file.kind == DIRECTORY:
            calls.append(("os.makedirs" if path == "." else "os.mkdir", [place, 0o700]))
        elif file.kind == SYMLINK:
            calls += [("os.symlink", [os.fsdecode(file.content), place]), ("os.lchown", [place, *file.owner])]
        elif file.kind in (FIFO, WHITEOUT):
            calls.append(("os.mknod", [place, (stat.S_IFIFO if file.kind == FIFO else stat.S_IFCHR) | 0o600, 0]))
        else:
            opened = {"result": so_far + len(calls)}
            calls.append(("os.open", [place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600]))
            calls += [("os.write", [opened, {"bytes": file.content.hex()}]), ("os.close", [opened])]
        if file.kind in (FILE, DIRECTORY, FIFO):
            calls += [("os.chown", [place, *file.owner]), ("os.chmod", [place, file.mode])]
            calls += [("os.setxattr", [place, name, {"bytes": value.hex()}]) for name, value in file.xattrs.items()]
    for path, file in reversed(tree.items()):  # a directory after all that is in it
        if file.kind in (FILE, DIRECTORY, FIFO) and not file.same_as:
            place = top if path == "." else f"{top}/{path}"
            calls.append(("os.utime", [place, {"tuple": [file.modified, file.modified]}]))
    return calls


def seen(process: Observed, top: str) -> Tree:
    """The tree at `top` as the kernel shows it now. Raises Wrong: it is not there, or cannot be looked at."""
    try:
        about = {".": process.stat(top, follow=False), **process.tree(top)}
        found: Tree = {}
        first: dict[tuple[int, int], str] = {}
        for path in sorted(about):
            found[path] = file = _file(process, f"{top}/{path}", about[path])
            if file.kind != DIRECTORY and about[path].st_nlink > 1 and first.setdefault(file.number, path) != path:
                found[path] = replace(file, same_as=first[file.number])
        return found
    except OSError as error:
        raise Wrong(f"{top} cannot be looked at: {error.strerror}") from None


def _file(process: Observed, path: str, about: os.stat_result) -> File:
    kind = _KINDS.get(stat.S_IFMT(about.st_mode), "device")
    if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
        kind = WHITEOUT
    content, xattrs = b"", dict[str, bytes]()
    if kind == SYMLINK:
        content = os.fsencode(process.readlink(path))
    if kind in (FILE, DIRECTORY):
        fd = process.open(path)
        try:
            content = os.read(fd, LARGEST) if kind == FILE else b""
            names = [name for name in os.listxattr(fd) if name == OPAQUE or not name.startswith("user.overlay.")]
            xattrs = {name: os.getxattr(fd, name) for name in names if name.startswith("user.")}
        finally:
            os.close(fd)
    return File(
        kind=kind,
        content=content,
        mode=stat.S_IMODE(about.st_mode) if kind != SYMLINK else 0o644,
        owner=process.sandbox_ids(about.st_uid, about.st_gid),
        modified=int(about.st_mtime_ns // SECOND),
        xattrs=xattrs,
        number=(about.st_dev, about.st_ino),
    )


def difference(wanted: Mapping[str, File], found: Mapping[str, File], fields: Sequence[str] = ()) -> str:
    """How the second tree differs from the first, in words: the first difference; "" where they are equal.

    `fields` are those of a `File` that are compared; all, where none are named. A SYMLINK and a WHITEOUT have no mode
    and no time of their own.
    """
    for path in sorted(wanted.keys() | found.keys()):
        if path not in found:
            return f"{path} ({wanted[path].kind}) is missing"
        if path not in wanted:
            return f"{path} ({found[path].kind}) is there, and should not be"
        one, other = wanted[path], found[path]
        if one.kind != other.kind:
            return f"{path} should be a {one.kind}, and is a {other.kind}"
        bare = one.kind in (SYMLINK, WHITEOUT)
        for name in fields or ("content", "same_as", "mode", "owner", "modified", "xattrs"):
            if (bare and name not in ("content", "same_as")) or (one.same_as and name != "same_as"):
                continue
            if getattr(one, name) != getattr(other, name):
                return f"{path}: {_told(name, one)}, and now {_told(name, other)}"
    return ""


def _told(name: str, file: File) -> str:
    match name:
        case "content":
            return f"it holds {file.content[:40].decode(errors='replace')!r}"
        case "mode":
            return f"its mode is {file.mode:04o}"
        case "owner":
            return f"it belongs to {file.owner[0]}:{file.owner[1]}"
        case "modified":
            return f"it was modified at {file.modified}"
        case "same_as":
            return f"it is another name of {file.same_as}" if file.same_as else "it is a file of its own"
        case _:
            named = ", ".join(f"{key}={value.decode(errors='replace')}" for key, value in sorted(file.xattrs.items()))
            return f"its extended attributes are {named or 'none'}"


def told(tree: Mapping[str, File]) -> str:
    """A tree in one line."""
    parts = []
    for path, file in sorted(tree.items()):
        mark = {DIRECTORY: "/", SYMLINK: "@", FIFO: "|", WHITEOUT: " (whiteout)"}.get(file.kind, "")
        opaque = " (opaque)" if file.xattrs.get(OPAQUE) == b"y" else ""
        parts += [] if path == "." else [f"{path}{mark}{opaque}"]
    return " ".join(parts[:20]) + (" …" if parts[20:] else "") or "nothing"
