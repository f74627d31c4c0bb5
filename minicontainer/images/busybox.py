"""The image that needs no network: made of the host's own static busybox at first use."""

from __future__ import annotations

import os
from collections.abc import Callable

from minicontainer.images.errors import ImageError

PLACES = ("/usr/bin/busybox", "/bin/busybox", "/usr/local/bin/busybox", "/sbin/busybox")


def busybox_image(images: str, build_root: Callable[[str, str], None]) -> str:
    """The root file system of the ``busybox`` image below the directory `images`; built by `build_root` when missing.

    It is built beside its place and renamed into it, so it is there whole or not at all; a second process that wants it
    at the same moment waits for the first.
    """
    root = f"{images}/busybox/rootfs"
    if os.path.isdir(root):
        return root
    import fcntl
    import shutil

    os.makedirs(f"{images}/busybox", exist_ok=True)
    with open(f"{images}/busybox/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(root):
            unfinished = f"{root}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)  # of somebody who was killed here
            try:
                os.mkdir(unfinished, 0o755)
                build_root(unfinished, static_busybox())
                os.rename(unfinished, root)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
    return root


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
