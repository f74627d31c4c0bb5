"""Images that are made here of what is at hand, by `minicontainer.images.templates`: ``import``, ``image make``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.engine.images import images_of, platform_of, told
from minicontainer.engine.store import Store
from minicontainer.images import templates
from minicontainer.images.documents import Descriptor
from minicontainer.images.errors import ImageError
from minicontainer.images.images import Image
from minicontainer.images.references import parse_reference
from minicontainer.record import Record
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

TEMPLATES = ("busybox", "debian", "ubuntu", "tar", "dir", "oci")


class Making(Record):
    """What images are made with."""

    store: Store
    steps: Steps
    steps_path: str | None
    warn: Callable[[str], object]

    def unpack(self, manifest: Descriptor) -> None:
        """Unpack its layers, in a process of its own. Raises ImageError: they are none."""
        from minicontainer.engine.unpacking import unpack_image

        try:
            unpack_image(self.store, manifest, self.steps_path)
        except EngineError as error:
            raise ImageError(str(error)) from None


def import_archive(
    making: Making, file: IO[bytes], name: str, changes: Sequence[str] = (), message: str = "", what: str = "an archive"
) -> Image:
    """Make an image of a tar with a root file system. Raises EngineError, and leaves nothing then."""
    with told():
        try:
            return templates.of_archive(
                images_of(making.store), file, name, making.unpack, changes=changes, message=message, what=what
            )
        except OSError as error:
            raise EngineError(f"cannot import {what}: {error.strerror or error}") from None


def make_image(
    making: Making,
    template: str,
    name: str,
    source: str = "",
    packages: templates.Packages | None = None,
    changes: Sequence[str] = (),
    *,
    platform: str = "",
    fresh: bool = False,
) -> Image:
    """Make an image of a template: of a distribution, or of a `source` on this machine. Raises EngineError, and leaves
    nothing then."""
    images = images_of(making.store)
    with told():
        try:
            if template in templates.DISTRIBUTIONS:
                wanted = packages or templates.Packages(template)
                return templates.of_packages(images, wanted, name, making.unpack, changes=changes, fresh=fresh)
            if template == "busybox":
                return _busybox(making, name)
            if template == "dir":
                if not os.path.isdir(source):
                    raise EngineError(f"there is no directory {source}")
                return templates.of_directory(images, source, name, making.unpack, making.warn, changes=changes)
            if template == "oci":
                asked = str(platform_of(platform) or "")
                return templates.of_layout(images, source, name, making.unpack, making.steps.resolve, asked)
        except OSError as error:
            raise EngineError(f"cannot make image {name}: {error.filename or source}: {error.strerror}") from None
    if template != "tar":
        raise EngineError(f'there is no template "{template}"; there are {", ".join(TEMPLATES)}')
    try:
        file = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise EngineError(f"cannot read {source}: {error.strerror}") from None
    with file:
        return import_archive(making, file, name, changes, what=source)


def _busybox(making: Making, name: str) -> Image:
    """The offline image, under one more name."""
    from minicontainer.engine.images import IF_MISSING, obtain
    from minicontainer.engine.origin import sharing

    parse_reference(name)
    with sharing(making.store):
        obtain(making.store, making.steps, making.steps_path, "busybox", "", IF_MISSING)
        images = images_of(making.store)
        image = images.find("busybox")
        images.tag(image, name)
        return image
