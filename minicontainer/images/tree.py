"""The layers of images as a tree: what stands on the same layers grows out of the same branch."""

from __future__ import annotations

import os
from collections.abc import Sequence

from minicontainer.images.images import Image
from minicontainer.images.references import parse_reference, shown


class _Node:
    """A layer, on all those that are below it."""

    def __init__(self, size: int = 0, made_by: str = "") -> None:
        self.size, self.made_by = size, made_by
        self.above = dict[str, _Node]()
        self.images = list[Image]()


def drawn(images: Sequence[Image], layers: str, width: int = 100) -> list[str]:
    """Lines, the lowest layers first; each with its diff ID, the bytes that travel, how it was made, and which images
    end with it. One that is not unpacked below the directory `layers` is in brackets."""
    ground = _Node()
    for image in images:
        node = ground
        made_by = [step.created_by for step in image.config.history if not step.empty_layer]
        made_by += [""] * (len(image.config.diff_ids) - len(made_by))
        for diff_id, blob, by in zip(image.config.diff_ids, image.manifest.layers, made_by, strict=False):
            node = node.above.setdefault(diff_id, _Node(blob.size, by))
        node.images.append(image)
    lines = [_names(image) + "  (no layers)" for image in ground.images]
    for diff_id, node in ground.above.items():
        lines += _branch(diff_id, node, layers, "", "")
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def _branch(diff_id: str, node: _Node, layers: str, first: str, rest: str) -> list[str]:
    digits = diff_id.partition(":")[2]
    unpacked = os.path.isdir(f"{layers}/{digits}/diff")
    name = digits[:12] if unpacked else f"({digits[:12]})"
    lines = [f"{first}{name}  {_amount(node.size)}  {shown(node.made_by)}".rstrip()]
    children = [*node.above.items()]
    for image in node.images:
        lines.append(f"{rest}{'├' if image is not node.images[-1] or children else '└'}─ {_names(image)}")
    # A layer with one above it needs no branch: the line goes on straight.
    if len(children) == 1 and not node.images:
        return lines + _branch(*children[0], layers, rest, rest)
    for number, (above, child) in enumerate(children):
        last = number == len(children) - 1
        lines += _branch(above, child, layers, f"{rest}{'└' if last else '├'}─ ", f"{rest}{'   ' if last else '│  '}")
    return lines


def _names(image: Image) -> str:
    names = ", ".join(parse_reference(name).familiar for name in image.names) or "<none>"
    return f"{names} ({image.id[7:19]})"


def _amount(size: int) -> str:
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.4g} {unit}"
