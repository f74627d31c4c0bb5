"""What labs 13 and 14 work with, in a cell apart: layers made of a few words, archives, and what an overlay shows.

place = workshop()                                   # a file system in memory, of this cell alone
base = layer(f"{place}/base", {"etc/": "", "etc/motd": "of the base"})
shown = overlay([base], f"{place}/upper")            # its path; the upper directory is made
listing(f"{place}/upper")
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from labs.notebook.shown import Table
from minicontainer.linux import in_user_namespace, mount

WHITEOUT = "(whiteout)"
"""Instead of a content: this name is hidden."""
OPAQUE = "(opaque)"
"""Instead of the content of a directory: all that lies below it is hidden."""
REFERENCE = "org.opencontainers.image.ref.name"


def workshop(place: str = "/mnt") -> str:
    """An empty file system in memory, seen by this cell only."""
    mount("tmpfs", place, "tmpfs")
    return place


def opaque_mark() -> str:
    """The attribute by which overlayfs knows an opaque directory, here."""
    return f"{'user' if in_user_namespace() else 'trusted'}.overlay.opaque"


def layer(directory: str, files: Mapping[str, str]) -> str:
    """Make a layer as it lies on disk; a name that ends with "/" is a directory. Returns `directory`."""
    os.makedirs(directory, exist_ok=True)
    for name, content in files.items():
        path = f"{directory}/{name}"
        os.makedirs(os.path.dirname(path.rstrip("/")), exist_ok=True)
        if name.endswith("/"):
            os.makedirs(path, exist_ok=True)
            if content == OPAQUE:
                os.setxattr(path, opaque_mark(), b"y")
        elif content == WHITEOUT:
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        else:
            Path(path).write_text(content, encoding="utf-8")
    return directory


def overlay(lowers: Sequence[str], upper: str = "", target: str = "") -> str:
    """Stack them by the course's own step, the topmost first; returns where they are seen."""
    from minicontainer.steps.overlay import stack

    target = target or f"{upper or lowers[0]}.seen"
    work = f"{upper}.work" if upper else ""
    for directory in filter(None, (upper, work, target)):
        os.makedirs(directory, exist_ok=True)
    stack(lowers, upper, work, target)
    return target


def walk(directory: str) -> Iterator[tuple[str, os.stat_result, str]]:
    """All in a directory, sorted: path, lstat(2), and what it is for overlayfs ("whiteout", "opaque" or "")."""
    for above, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted([*names, *directories]):
            path = f"{above}/{name}"
            about = os.lstat(path)
            mark = "whiteout" if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0 else ""
            if stat.S_ISDIR(about.st_mode) and opaque_mark() in os.listxattr(path):
                mark = "opaque"
            yield os.path.relpath(path, directory), about, mark


def listing(directory: str, title: str = "") -> None:
    """Show what is in a directory: kind and mode, owner, time, inode, and overlayfs's marks."""
    rows = []
    for path, about, mark in sorted(walk(directory)):
        device = f"  {os.major(about.st_rdev)}:{os.minor(about.st_rdev)}" if stat.S_ISCHR(about.st_mode) else ""
        leads = f" -> {os.readlink(f'{directory}/{path}')}" if stat.S_ISLNK(about.st_mode) else ""
        rows.append(
            (
                "!" if mark else "",
                stat.filemode(about.st_mode) + device,
                f"{about.st_uid}:{about.st_gid}",
                time.strftime("%Y-%m-%d", time.gmtime(about.st_mtime)),
                str(about.st_ino),
                path + leads,
                mark,
            )
        )
    head = ("", "mode", "owner", "modified", "inode", "name", "for overlayfs")
    Table(title or directory, head, rows, "" if rows else "nothing is in it").show()


def archive(
    files: Mapping[str, str], modes: Mapping[str, int] | None = None, links: Mapping[str, str] | None = None
) -> bytes:
    """A layer as it travels: a tar, written by Python's own tarfile. `links` are hard links; "-> X" a symbolic one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.mode, member.mtime = (modes or {}).get(name, 0o755 if name.endswith("/") else 0o644), 1_234_567_890
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            elif content.startswith("-> "):
                member.type, member.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
            data = content.encode() if member.isreg() else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            tar.addfile(member)
    return out.getvalue()


_KINDS = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h", tarfile.CHRTYPE: "c"}
"""As `tar -tv` has it."""


def entries(raw: bytes) -> None:
    """Show what an archive has."""
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        rows = [
            (
                _KINDS.get(member.type, "-") + stat.filemode(member.mode)[1:],
                f"{member.uid}:{member.gid}",
                str(member.size),
                member.name,
                f"-> {member.linkname}" if member.linkname else "",
            )
            for member in tar
        ]
    digest = hashlib.sha256(raw).hexdigest()
    Table(f"sha256:{digest[:16]}…, {len(raw)} bytes", ("mode", "owner", "size", "name", ""), rows).show()


def image_layout(directory: str, name: str, layers: Sequence[bytes]) -> str:
    """An OCI image layout with one image, made of these tars, for two platforms. Returns `directory`."""
    os.makedirs(f"{directory}/blobs/sha256")

    def blob(kind: str, raw: bytes) -> dict[str, object]:
        digest = hashlib.sha256(raw).hexdigest()
        Path(f"{directory}/blobs/sha256/{digest}").write_bytes(raw)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(raw)}

    def document(kind: str, content: object) -> dict[str, object]:
        return blob(kind, json.dumps(content, indent=1).encode())

    manifests = []
    for architecture in ("amd64", "arm64"):
        diff_ids = [f"sha256:{hashlib.sha256(raw).hexdigest()}" for raw in layers]
        config = {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        packed = [blob("layer.v1.tar+gzip", gzip.compress(raw, mtime=0)) for raw in layers]
        manifest = {"schemaVersion": 2, "config": document("config.v1+json", config), "layers": packed}
        described = document("manifest.v1+json", manifest)
        manifests.append({**described, "platform": {"os": "linux", "architecture": architecture}})
    index = document("index.v1+json", {"schemaVersion": 2, "manifests": manifests})
    top = {"schemaVersion": 2, "manifests": [{**index, "annotations": {REFERENCE: name}}]}
    Path(f"{directory}/index.json").write_text(json.dumps(top, indent=1), encoding="utf-8")
    return directory


def filled(directory: str, files: int, size: int = 4096) -> str:
    """A directory with so many files in it, `size` bytes each."""
    os.makedirs(directory)
    for number in range(files):
        if number % 500 == 0:
            os.mkdir(f"{directory}/{number}")
        with open(f"{directory}/{number - number % 500}/{number}", "wb") as file:
            file.write(b"x" * size)
    return directory


def milliseconds(act: Callable[..., object], *args: object) -> float:
    """How long a call takes."""
    begun = time.perf_counter()
    act(*args)
    return (time.perf_counter() - begun) * 1000
