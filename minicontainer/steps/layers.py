"""Layers: read-only directories laid over one another, with a writable one on top, seen as one tree.

overlayfs, Documentation/filesystems/overlayfs.rst in the kernel's tree.
"""

from __future__ import annotations

from collections.abc import Sequence

from minicontainer.linux import in_user_namespace, mount


def stack(lowers: Sequence[str], upper: str, work: str, target: str) -> None:
    """Show at `target` the directories `lowers` (the topmost first) below the writable directory `upper`.

    A file is read from the highest layer that has it, and copied to `upper` before its first change. `work` is an empty
    directory on the file system of `upper` in which the kernel prepares such copies.

    In a user namespace the marks of deleted files cannot be trusted.* attributes, so they are user.* ones (Linux 5.11).
    Raises OSError: EINVAL (`upper` cannot carry a layer, as on another overlay), ENOENT, EPERM, ESTALE.
    """
    options = [
        f"lowerdir={':'.join(map(_escaped, lowers))}",
        f"upperdir={_escaped(upper)}",
        f"workdir={_escaped(work)}",
    ]
    if in_user_namespace():
        options.append("userxattr")
    mount("overlay", target, "overlay", 0, ",".join(options))


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
