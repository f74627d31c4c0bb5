"""The image that needs no network: made of the host's own static busybox at first use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from minicontainer.images.content import sync_directory
from minicontainer.images.documents import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    encode,
    host_platform,
)
from minicontainer.images.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.images.images import Images

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NAME = "docker.io/library/busybox:latest"

PLACES = ("/usr/bin/busybox", "/bin/busybox", "/usr/local/bin/busybox", "/sbin/busybox")


def make_busybox(images: Images, build_root: Callable[[str, str], None]) -> None:
    """Put the ``busybox`` image into the store, built by `build_root`, unless it is there.

    What is built is packed, uncompressed, and then is itself the unpacked layer. It is there whole or not at all; a
    second process that wants it at the same moment waits for the first.
    """
    import fcntl

    images.content.prepare()
    with open(f"{images.content.directory}/busybox.lock", "w") as lock, images.content.sharing():
        fcntl.flock(lock, fcntl.LOCK_EX)
        if NAME not in images.content.tags():
            _make(images, build_root)


def _make(images: Images, build_root: Callable[[str, str], None]) -> None:
    import shutil

    binary = static_busybox()
    os.makedirs(images.layers, exist_ok=True)
    unfinished = f"{images.layers}/.busybox.{os.urandom(4).hex()}"
    try:
        os.mkdir(unfinished, 0o711)
        os.mkdir(f"{unfinished}/diff", 0o755)
        build_root(f"{unfinished}/diff", binary)
        _settle_times(f"{unfinished}/diff", int(os.stat(binary).st_mtime))
        with images.content.receive() as blob:
            _pack(f"{unfinished}/diff", blob)
        if not os.path.isdir(images.layer(blob.digest)):
            os.rename(unfinished, os.path.dirname(images.layer(blob.digest)))
            sync_directory(images.layers)
            images.note(blob.digest)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    layer = Descriptor(OCI_LAYER, blob.digest, blob.size)
    config = images.content.put(OCI_CONFIG, encode(_config(layer, int(os.stat(binary).st_mtime))))
    images.content.tag(NAME, images.content.put(OCI_MANIFEST, encode(Manifest(config, (layer,)))))


def _config(layer: Descriptor, made: int) -> dict[str, object]:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made))
    platform = {name: value for name, value in host_platform().asdict().items() if value}
    return {
        "created": created,
        **platform,
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        "history": [{"created": created, "created_by": "minicontainer: build_root of the host's static busybox"}],
    }


def _settle_times(directory: str, when: int) -> None:
    """Give all in a tree one time of change: so the same busybox makes the same image, whenever it is made."""
    for place, directories, files in os.walk(directory, topdown=False):
        for name in (*directories, *files, "."):
            os.utime(f"{place}/{name}", (when, when), follow_symlinks=False)


def _pack(directory: str, archive: object) -> None:
    """As a tar archive, everything root's: whoever has built it here stands for root in there."""
    import tarfile

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(fileobj=archive, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name in sorted(os.listdir(directory)):
            tar.add(f"{directory}/{name}", name, filter=owned)


def static_busybox() -> str:
    """The path of the host's statically linked busybox. Raises ImageError."""
    import shutil

    found = [path for path in dict.fromkeys([*PLACES, shutil.which("busybox") or ""]) if path and os.path.isfile(path)]
    for path in found:
        if _is_static(path):
            return path
    what = f"{found[0]} is dynamically linked" if found else "there is no busybox on this machine"
    raise ImageError(f"{what}: the busybox image is made of a static one; install it with: apt install busybox-static")


def _is_static(path: str) -> bool:
    """Whether the program asks for no dynamic loader: elf(5), no program header of type PT_INTERP (3)."""
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":  # 64-bit
            return False
        offset, size, count = (int.from_bytes(header[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58)))
        file.seek(offset)
        table = file.read(size * count)
    return all(int.from_bytes(table[i : i + 4], "little") != 3 for i in range(0, len(table), size))
