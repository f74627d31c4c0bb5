"""Images on their way between a registry and the content store: pull and push.

A pull asks for the manifest, then for the configuration, then for all layers, several at once. Whatever arrives is
checked against its digest before anybody reads it, and a layer is unpacked while others are still on their way. The tag
comes last: until then the image is not there, and what has arrived waits for the next attempt.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from minicontainer.images.content import ContentStore
from minicontainer.images.documents import (
    CONFIGS,
    INDEXES,
    MANIFESTS,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    host_platform,
    read_config,
    read_manifest,
)
from minicontainer.images.errors import ImageError
from minicontainer.images.references import Reference, parse_reference
from minicontainer.images.registry import Registry, RegistryError, Stopped

PARALLEL = 4
"""Layers that are on their way at once; a registry may not like more."""
HURRY = 1.0
"""Seconds; so long an interrupted pull waits for each of its threads to let go."""
NAP = 0.5
"""Seconds; a ^C that comes right before Python goes to sleep, or to another thread, is seen after so long."""
DEPTH = 3
"""Indexes of indexes of indexes."""
FOREIGN = ("foreign", "nondistributable")
"""In the media type of a layer that its maker does not let registries give away."""


class Progress:
    """Is told what a pull or push is doing, by several threads. This one keeps it to itself."""

    def begin(self, blob: Descriptor) -> None:
        """A blob begins to move."""

    def advance(self, blob: Descriptor, count: int) -> None:
        """So many more bytes of it have; fewer, if some have to move again."""

    def end(self, blob: Descriptor, how: str) -> None:
        """It is where it belongs: "pulled", "there already", "pushed", "mounted", "unpacked"."""

    def remark(self, text: str) -> None:
        """Something did not work, and there is another way."""


def pull(
    reference: Reference,
    store: ContentStore,
    sources: Sequence[Registry],
    platform: Platform | None = None,
    *,
    unpack: Callable[[Descriptor, str], None] | None = None,
    progress: Progress | None = None,
    parallel: int = PARALLEL,
) -> Descriptor:
    """Fetch an image from the first of `sources`, mirrors and then the registry, that has it. Returns its manifest.

    `platform`: this machine's, unless given. `unpack(layer, diff_id)` is called for each layer as soon as it is there.
    Raises ImageError.
    """
    told = progress or Progress()
    with store.sharing(), _kept(reference, store):
        source, descriptor, manifest = _manifest(reference, store, sources, platform, told)
        sources = [source, *(other for other in sources if other is not source)]
        fetch = _Fetch(reference.repository, store, sources, told, _urls(store.read(descriptor)))
        fetch.blob(manifest.config)
        config = read_config(store.read(manifest.config))
        _require_fit(reference, manifest, config, platform)
        layers = {
            (blob.digest, id): blob for blob, id in zip(manifest.layers, config.diff_ids, strict=True)
        }  # each once
        _together([fetch.layer(blob, id, unpack) for (_, id), blob in layers.items()], parallel, sources)
        store.tag(reference.canonical, descriptor)
    return descriptor


def push(
    reference: Reference,
    store: ContentStore,
    registry: Registry,
    *,
    progress: Progress | None = None,
    parallel: int = PARALLEL,
) -> Descriptor:
    """Bring an image that has this name here to its registry. Returns its manifest, or index. Raises ImageError."""
    told = progress or Progress()
    with store.sharing():
        descriptor = store.tags().get(reference.canonical)
        if descriptor is None:
            raise ImageError(f"there is no image {reference.familiar} here; to give one that name: minicontainer "
                             f"tag IMAGE {reference.familiar}")  # fmt: skip
        send = _Send(reference, store, registry, told)
        for inner in _documents(descriptor, store):
            manifest = read_manifest(store.read(inner), inner.media_type)
            if isinstance(manifest, Manifest):
                blobs = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
                jobs = [send.job(blob) for blob in blobs.values() if not _is_foreign(blob)]
                _together(jobs, parallel, [registry])
            name = (reference.tag or reference.digest) if inner is descriptor else inner.digest
            registry.put_manifest(reference.repository, name, inner.media_type, store.read(inner))
    return descriptor


# -- pulling -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _kept(reference: Reference, store: ContentStore) -> Iterator[None]:
    """What the disk does not take, a full one or a broken one, as an error of this image."""
    try:
        yield
    except BrokenPipeError:  # whoever is told of the progress does not want to know
        raise
    except OSError as error:
        raise ImageError(f"cannot keep {reference.familiar} in {store.directory}: {error.strerror or error}; what has "
                         "come of it stays, and the next pull goes on from there") from None  # fmt: skip


def _manifest(
    reference: Reference, store: ContentStore, sources: Sequence[Registry], platform: Platform | None, told: Progress
) -> tuple[Registry, Descriptor, Manifest]:
    """The manifest for the platform, kept in the store, and where it was found."""
    for source in sources:
        try:
            return source, *_resolved(reference, store, source, platform)
        except ImageError as error:
            if source is sources[-1] or isinstance(error, Stopped):
                raise
            told.remark(f"the mirror {source.name} does not help: {error}")
    raise ImageError(f"there is no registry to ask for {reference.familiar}")


def _resolved(
    reference: Reference, store: ContentStore, source: Registry, platform: Platform | None
) -> tuple[Descriptor, Manifest]:
    """From the name through an index, if there is one, to a manifest."""
    wanted, name = platform or host_platform(), reference.digest or reference.tag
    for _ in range(DEPTH):
        try:
            media_type, raw = source.manifest(reference.repository, name)
        except RegistryError as error:
            raise (_who_has_it(reference, source, error) if error.status == 404 else error) from None
        document = read_manifest(raw, media_type)
        if isinstance(document, Manifest):
            return store.put(document.media_type, raw), document
        name = _choose(reference, document, wanted).digest
    raise ImageError(f"{reference.familiar} is an index of indexes, {DEPTH} deep: no image in sight")


def _choose(reference: Reference, index: Index, wanted: Platform) -> Descriptor:
    """The manifest for a platform: the very one before one that would do. Raises ImageError."""
    fit = [one for one in index.manifests if one.platform and one.platform.serves(wanted)]
    fit.sort(key=lambda one: one.platform != wanted)
    nested = [one for one in index.manifests if not one.platform and one.media_type in INDEXES]
    for one in (*fit, *nested):
        return one
    known = sorted({str(one.platform) for one in index.manifests if one.platform and one.platform.os != "unknown"})
    raise ImageError(f"{reference.familiar} is not there for {wanted}; it is for {', '.join(known) or 'no platform'}: "
                     "say which with --platform")  # fmt: skip


def _who_has_it(reference: Reference, source: Registry, error: RegistryError) -> ImageError:
    """What a 404 means: no such repository, or no such tag, and then which there are."""
    repository = reference.repository
    try:
        tags = [*_at_most(1000, source.tags(repository))]
    except ImageError:
        tags = []
    if not tags:
        return RegistryError(f"{source.name} has no repository {repository}: {_said(error)}", 404, error.code)
    if reference.digest:
        return RegistryError(
            f"{source.name} has nothing of the digest {reference.digest} in {repository}", 404, error.code
        )
    import difflib

    near = difflib.get_close_matches(reference.tag, tags, 3, 0.5)
    shown = [*dict.fromkeys([*near, *tags])][:8]
    more = f" and {len(tags) - len(shown)} more" if len(tags) > len(shown) else ""
    text = f'{source.name} has no tag "{reference.tag}" of {repository}; it has {", ".join(shown)}{more}'
    return RegistryError(text, 404, error.code)


def _said(error: RegistryError) -> str:
    return str(error).rpartition(f"{error.status}, ")[2]


def _at_most(count: int, names: Iterator[str]) -> Iterator[str]:
    for _, name in zip(range(count), names, strict=False):
        yield name


def _require_fit(reference: Reference, manifest: Manifest, config: ImageConfig, platform: Platform | None) -> None:
    """Raises ImageError: made for another machine, or a configuration that is of other layers."""
    wanted = platform or host_platform()
    if not config.platform.serves(wanted):
        raise ImageError(f"{reference.familiar} is for {config.platform}, and not for {wanted}; "
                         f"to have it nevertheless: --platform {config.platform}")  # fmt: skip
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(f"{reference.familiar} has {len(manifest.layers)} layers, and {len(config.diff_ids)} by its "
                         "configuration: one of them is wrong")  # fmt: skip


class _Fetch:
    """Brings blobs of one repository into the store."""

    def __init__(
        self,
        repository: str,
        store: ContentStore,
        sources: Sequence[Registry],
        told: Progress,
        urls: Mapping[str, Sequence[str]],
    ) -> None:
        """`urls`: digest → where else a blob is to be had."""
        self._repository, self._store, self._sources, self._told, self._urls = repository, store, sources, told, urls

    def layer(
        self, blob: Descriptor, diff_id: str, unpack: Callable[[Descriptor, str], None] | None
    ) -> Callable[[], None]:
        """What brings a layer and unpacks it."""

        def fetched_and_unpacked() -> None:
            self.blob(blob)
            if unpack:
                unpack(blob, diff_id)
                self._told.end(blob, "unpacked")

        return fetched_and_unpacked

    def blob(self, blob: Descriptor) -> None:
        """From the first that has it: addresses that the manifest gives for it, or the sources. Raises ImageError."""
        if self._store.has(blob.digest):
            self._told.end(blob, "there already")
            return
        self._told.begin(blob)
        urls = self._urls.get(blob.digest, ())
        ways = [*((self._sources[-1], url) for url in urls), *((source, "") for source in self._sources)]
        for source, url in ways:
            try:
                self._from(source, blob, url)
            except ImageError as error:
                if (source, url) == ways[-1] or isinstance(error, Stopped):
                    raise
                self._told.remark(f"{url or source.name} does not help: {error}")
            else:
                break
        self._told.end(blob, "pulled")

    def _from(self, source: Registry, blob: Descriptor, url: str) -> None:
        """What was there of it from another day may be the part that is wrong: then all of it, once."""
        for attempt in range(2):
            resumed, arrived = 0, False
            try:
                with self._store.ingest(blob) as writer:
                    resumed = writer.offset
                    self._told.advance(blob, resumed)
                    source.download(self._repository, blob.digest, blob.size, writer,
                                    lambda count: self._told.advance(blob, count), url)  # fmt: skip
                    arrived = True
                return
            except ImageError:
                if attempt or not (arrived and resumed):
                    raise
                self._told.advance(blob, -blob.size)


def _urls(raw: bytes) -> dict[str, list[str]]:
    """Digest → where else a layer is to be had that registries may not give away. Of https, and nowhere else."""
    layers = json.loads(raw).get("layers", [])  # has been read as a manifest before
    return {
        layer["digest"]: [url for url in layer.get("urls") or [] if isinstance(url, str) and url.startswith("https://")]
        for layer in layers
    }


def is_layer(blob: Descriptor) -> bool:
    """Whether it is a part of the root file system, and not a document."""
    return blob.media_type not in (*CONFIGS, *MANIFESTS, *INDEXES)


def _is_foreign(blob: Descriptor) -> bool:
    return any(word in blob.media_type for word in FOREIGN)


# -- pushing -----------------------------------------------------------------------------------------------------------


def _documents(descriptor: Descriptor, store: ContentStore, depth: int = DEPTH) -> Iterator[Descriptor]:
    """A manifest; an index after all that it names, because registries want to have those first."""
    if depth and descriptor.media_type in INDEXES:
        index = read_manifest(store.read(descriptor), descriptor.media_type)
        for inner in index.manifests if isinstance(index, Index) else ():
            if not store.has(inner.digest):
                raise ImageError(
                    f"{descriptor.digest} names an image for {inner.platform} that is not here: {inner.digest}"
                )
            yield from _documents(inner, store, depth - 1)
    yield descriptor


class _Send:
    """Brings blobs out of the store into one repository."""

    def __init__(self, reference: Reference, store: ContentStore, registry: Registry, told: Progress) -> None:
        self._repository, self._store, self._registry, self._told = reference.repository, store, registry, told
        self._elsewhere = _elsewhere(reference, store)

    def job(self, blob: Descriptor) -> Callable[[], None]:
        """What brings one of them, if the registry has not got it."""
        return lambda: self._blob(blob)

    def _blob(self, blob: Descriptor) -> None:
        if self._registry.has_blob(self._repository, blob.digest):
            self._told.end(blob, "there already")
            return
        self._told.begin(blob)
        file = self._store.open(blob.digest)
        try:
            moved = self._registry.upload(
                self._repository, blob.digest, blob.size, file, lambda count: self._told.advance(blob, count),
                self._elsewhere.get(blob.digest, ""),
            )  # fmt: skip
        finally:
            os.close(file)
        self._told.end(blob, "pushed" if moved else "mounted")


def _elsewhere(reference: Reference, store: ContentStore) -> dict[str, str]:
    """Digest → another repository of the same registry that seems to have it, by what the images here are called."""
    found = dict[str, str]()
    for name, descriptor in store.tags().items():
        try:
            other = parse_reference(name)
            if other.registry != reference.registry or other.repository == reference.repository:
                continue
            manifest = read_manifest(store.read(descriptor), descriptor.media_type)
        except ImageError:  # not to be pushed, and no business of this push
            continue
        if isinstance(manifest, Manifest):
            found |= {blob.digest: other.repository for blob in (manifest.config, *manifest.layers)}
    return found


# -- several at once ---------------------------------------------------------------------------------------------------


def _together(jobs: Sequence[Callable[[], None]], parallel: int, registries: Sequence[Registry]) -> None:
    """Do all jobs, in order, so many at once. The first error stops the others, and is raised when they have ended."""
    waiting, errors = collections.deque(jobs), list[BaseException]()

    def work() -> None:
        while not errors:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:
                errors.append(error)
                for registry in registries:
                    registry.stop()

    # Daemons, so that somebody who is in a hurry need not wait for one that waits for a silent registry.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(parallel, len(jobs)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(NAP)
    except BaseException:  # ^C
        waiting.clear()
        for registry in registries:
            registry.stop()
        for thread in threads:
            with contextlib.suppress(RuntimeError):  # not started yet
                thread.join(HURRY)
        raise
    if errors:
        raise errors[0]
