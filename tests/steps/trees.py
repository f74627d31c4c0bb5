"""Archives made by Python's own tarfile, and trees of files as something that can be compared."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

KINDS = {
    "file": tarfile.REGTYPE, "link": tarfile.LNKTYPE, "symlink": tarfile.SYMTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE,
    "dir": tarfile.DIRTYPE, "fifo": tarfile.FIFOTYPE,
}  # fmt: skip


def entry(name: str, kind: str = "file", content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """An entry for `archive`; `fields` as tarfile has them: mode, uid, linkname, pax_headers…"""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime, info.mode = (
        KINDS[kind],
        len(content),
        1_000_000_000,
        0o755 if kind == "dir" else 0o644,
    )
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT, **options: Any) -> bytes:
    """An uncompressed tar of these entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, **options) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def tree_of(top: Path | str, times: bool = True) -> dict[str, tuple[Any, ...]]:
    """Path → what is there: kind and mode, owner, time, what distinguishes its kind, attributes; "." is the top.

    Of a file with more names than one, all the names.
    """
    found: dict[str, tuple[Any, ...]] = {}
    names: dict[tuple[int, int], list[str]] = {}
    pending = [""]
    while pending:
        path = pending.pop()
        file = os.path.join(top, path) if path else str(top)
        about = os.lstat(file)
        special: Any = None
        if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
            found[path] = ("a mark",)  # of which nothing counts but that it is there
            continue
        if stat.S_ISDIR(about.st_mode):
            pending += [os.path.join(path, name) for name in os.listdir(file)]
        elif stat.S_ISREG(about.st_mode):
            special = (about.st_size, hashlib.sha256(Path(file).read_bytes()).hexdigest())
        elif stat.S_ISLNK(about.st_mode):
            special = os.readlink(file)
        elif stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
            special = about.st_rdev
        if not stat.S_ISDIR(about.st_mode):
            names.setdefault((about.st_dev, about.st_ino), []).append(path)
        xattrs = {
            name: os.getxattr(file, name, follow_symlinks=False) for name in os.listxattr(file, follow_symlinks=False)
        }
        mode = stat.S_IFMT(about.st_mode) if stat.S_ISLNK(about.st_mode) else about.st_mode
        found[path or "."] = (
            oct(mode),
            about.st_uid,
            about.st_gid,
            about.st_mtime_ns if times else None,
            special,
            xattrs,
        )
    for several in names.values():
        if len(several) > 1:
            for path in several:
                found[path] = (*found[path], tuple(sorted(several)))
    return found
