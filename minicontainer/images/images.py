"""The images that are here: found, listed, named, removed, looked through for damage.

An image is a manifest in the content store; its layers are unpacked, once for all images that have them, in
LAYERS/HEX/diff, where HEX is of the digest of the uncompressed layer (its diff ID). What is needed is what index.json
names, and what containers stand on: the rest goes, when something is removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from minicontainer.images.content import ContentStore, sync_directory, write_durably
from minicontainer.images.documents import (
    CONFIGS,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    host_platform,
    read_config,
)
from minicontainer.images.errors import ImageError
from minicontainer.images.references import Reference, parse_reference, shown
from minicontainer.record import Record

_HEX = frozenset("0123456789abcdef")


class Image(Record):
    """One that is here."""

    descriptor: Descriptor
    """Of its manifest."""
    manifest: Manifest
    config: ImageConfig
    names: tuple[str, ...] = ()
    """Canonical references; without any it is dangling."""

    @property
    def id(self) -> str:
        """The digest of its configuration: what docker calls the image's ID."""
        return self.manifest.config.digest

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its layers' directories, the topmost first."""
        return tuple([diff_id.partition(":")[2] for diff_id in reversed(self.config.diff_ids)])

    @property
    def size(self) -> int:
        """Bytes of its blobs: what a registry would send."""
        return sum(blob.size for blob in self.blobs)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All that it is made of."""
        return (self.descriptor, self.manifest.config, *self.manifest.layers)

    @property
    def shown(self) -> str:
        """What to call it in a sentence."""
        return parse_reference(self.names[0]).familiar if self.names else f"{self.id[7:19]} (without a name)"


class Damage(Record):
    """Something that is not as it was stored."""

    what: str
    mended_by: Callable[[], object] | None = None
    """Takes what is damaged out of the way, so that it is fetched or unpacked anew."""


class Images:
    """Those of one content store, with their layers below the directory `layers`."""

    def __init__(self, content: ContentStore, layers: str, remove_tree: Callable[[str], None]) -> None:
        self.content, self.layers, self._remove_tree = content, layers, remove_tree

    # Finding

    def find(self, text: str, platform: Platform | None = None) -> Image:
        """The image of a reference, or whose id begins so. Raises ImageError: there is none, or it is damaged."""
        image = self.by_name(text, platform)
        if image is None and _may_be_id(text):
            image = self._by_id(text.removeprefix("sha256:"))
        if image is None:
            from minicontainer.runtime.errors import did_you_mean

            names = [one.annotations.get(REF_NAME, "") for one in self.content.descriptors()]
            raise Missing(text, did_you_mean(text, [parse_reference(name).familiar for name in names if name]))
        return image

    def by_name(self, text: str, platform: Platform | None = None) -> Image | None:
        """The image that a reference stands for. Raises ImageError: no reference; a damaged image."""
        if _may_be_id(text) and len(text) >= 64:
            return None
        reference = parse_reference(text)
        index = self.content.descriptors()
        for one in index:
            if one.annotations.get(REF_NAME) == reference.canonical:
                return self.image(one, platform, [reference.canonical])
        if reference.digest:  # by which it is known too, if a name of the same repository is its own
            for one in index:
                name = one.annotations.get(REF_NAME, "")
                if name and one.digest == reference.digest and _same_repository(parse_reference(name), reference):
                    return self.image(one, platform, [name])
        return None

    def all(self) -> list[Image]:
        """Every image, those with several names once, in the order in which they came; but `unreadable` ones.

        Raises ImageError: index.json is damaged.
        """
        names = dict[str, list[str]]()
        index = self.content.descriptors()
        for one in index:
            names.setdefault(one.digest, []).extend([name] if (name := one.annotations.get(REF_NAME, "")) else [])
        found = dict[str, Image]()
        for one in index:
            if one.digest not in found:
                with contextlib.suppress(ImageError):
                    found[one.digest] = self.image(one, None, names[one.digest])
        return [*found.values()]

    def unreadable(self) -> list[tuple[Descriptor, ImageError]]:
        """What index.json names and cannot be read, and why. Raises ImageError: index.json is damaged."""
        found = []
        for one in self.content.descriptors():
            try:
                self.image(one)
            except Unfit:  # of other platforms only
                pass
            except ImageError as error:
                found.append((one, error))
        return found

    def _by_id(self, digits: str) -> Image | None:
        matching = {image.id: image for image in self.all() if image.id[7:].startswith(digits)
                    or image.descriptor.digest[7:].startswith(digits)}  # fmt: skip
        if len(matching) > 1:
            raise ImageError(f'more than one image\'s id begins with "{digits}"; see: minicontainer images')
        return next(iter(matching.values()), None)

    def image(self, descriptor: Descriptor, platform: Platform | None = None, names: Sequence[str] = ()) -> Image:
        """What a descriptor of the index stands for. Raises ImageError: damaged, no image, for other platforms only."""
        manifest = self.content.manifest(descriptor)
        if isinstance(manifest, Index):
            descriptor = self.choose(manifest, platform, names[0] if names else descriptor.digest)
            manifest = self.content.manifest(descriptor)
            if isinstance(manifest, Index):
                raise ImageError(f"{descriptor.digest} is an index in an index: that is no image")
        if manifest.config.media_type not in CONFIGS:
            raise ImageError(
                f"{descriptor.digest} is a {shown(manifest.config.media_type)}: that is no container image"
            )
        config = read_config(self.content.read(manifest.config))
        if len(config.diff_ids) != len(manifest.layers):
            raise ImageError(
                f"image {descriptor.digest} has {len(manifest.layers)} layers, and its configuration speaks of "
                f"{len(config.diff_ids)}: it contradicts itself"
            )
        plain = Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)
        return Image(plain, manifest, config, tuple(names))

    def choose(self, index: Index, platform: Platform | None, name: str) -> Descriptor:
        """The manifest of an index that is here and runs on the platform, or on this machine. Raises Unfit."""
        wanted = platform or host_platform()
        here = [one for one in index.manifests if self.content.has(one.digest)]
        fitting = [one for one in here if one.platform is None or one.platform.serves(wanted)]
        fitting.sort(key=lambda one: one.platform != wanted)
        if not fitting:
            there = ", ".join(str(one.platform) for one in here) or "none"
            raise Unfit(f"{name} is not here for {wanted}; it is for {there}")
        return fitting[0]

    # Layers

    def missing(self, image: Image) -> list[tuple[Descriptor, str]]:
        """(blob, diff ID) of the layers that are not unpacked, the lowest first."""
        pairs = zip(image.manifest.layers, image.config.diff_ids, strict=True)
        return [(blob, diff_id) for blob, diff_id in pairs if not os.path.isdir(self.layer(diff_id))]

    def layer(self, diff_id: str) -> str:
        """The directory of a layer, unpacked or to be."""
        algorithm, _, digits = diff_id.partition(":")
        if algorithm != "sha256":
            raise ImageError(f"layers are known by their sha256 digests, and this one by {shown(diff_id[:80])}")
        return f"{self.layers}/{digits}/diff"

    def note(self, diff_id: str) -> None:
        """Write down what the tree of a layer that was just unpacked is like.

        Of several who wanted it at once, each believes that it was him: the first one writes.
        """
        import fcntl

        place = os.path.dirname(self.layer(diff_id))
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if not os.path.exists(f"{place}/fingerprint"):
                write_durably(f"{place}/fingerprint", fingerprint(f"{place}/diff").encode())
        finally:
            os.close(directory)

    # Naming

    def tag(self, image: Image, text: str) -> Reference:
        """Give an image one more name. Raises ImageError."""
        reference = parse_reference(text)
        if reference.digest:
            raise ImageError(f'"{shown(text)}" has a digest: what an image is called can be chosen, its digest cannot')
        with self.content.sharing():
            self._require_there(image)
            self.content.tag(reference.canonical, image.descriptor)
        return reference

    def _require_there(self, image: Image) -> None:
        if not self.content.has(image.descriptor.digest):
            raise ImageError(f"image {image.shown} was removed just now")

    # Removing

    def remove(self, text: str, users: Mapping[str, Collection[str]], *, force: bool = False) -> list[str]:
        """Take a name from an image, or with an id all; one without a name goes, unless containers are made of it.

        One that cannot be read is of no use to anybody, and nobody can tell who is made of it: its name goes, with its
        digest all of it. `users`: image's id → names of containers. What was done, a line each. Raises ImageError.
        """
        try:
            image = self.find(text)
        except ImageError:
            if done := self._give_up(text):
                return done
            raise
        using = sorted(users.get(image.id, ()))
        all_names = next((one.names for one in self.all() if one.descriptor.digest == image.descriptor.digest), ())
        named = [name for name in image.names if name in all_names] if not _is_id_of(text, image) else [*all_names]
        if len(named) > 1 and not force:
            names = ", ".join(parse_reference(name).familiar for name in named)
            raise ImageError(f"image {image.id[7:19]} has several names, {names}: remove them by name, or all with -f")
        last = set(named) >= set(all_names)
        if last and using and not (force and named):
            way = "remove those first" if not named else "remove those first, or take away just the name: rmi -f"
            raise ImageError(f"image {image.shown} is used by {_containers(using)}: {way}")
        done = []
        for name in named:
            self.content.untag(name, keep=bool(using))
            done.append(f"Untagged: {parse_reference(name).familiar}")
        if last and not using:
            self.content.drop(image.descriptor.digest)
            done.append(f"Deleted: {image.id}")
        return done

    def _give_up(self, text: str) -> list[str]:
        """Take what cannot be read out of the index, by its name or by the beginning of its digest: what was done."""
        lost = {one.digest for one, _ in self.unreadable()}
        name = "" if _may_be_id(text) and len(text) >= 64 else parse_reference(text).canonical
        done = []
        if name and any(
            one.digest in lost for one in self.content.descriptors() if one.annotations.get(REF_NAME) == name
        ):
            self.content.untag(name)
            done.append(f"Untagged: {parse_reference(name).familiar}")
        elif _may_be_id(text):
            digits = text.removeprefix("sha256:")
            matching = [digest for digest in lost if digest.partition(":")[2].startswith(digits)]
            if len(matching) == 1:
                self.content.drop(matching[0])
        left = {one.digest for one in self.content.descriptors()}
        return done + [f"Deleted: {digest}" for digest in sorted(lost - left)]

    def prune(self, users: Mapping[str, Collection[str]], *, unused: bool = False) -> list[str]:
        """Take images out of the index that have no name or, `unused`, that no container is made of.

        Raises ImageError: one of them cannot be read, and nothing was done.
        """
        for one, error in self.unreadable():
            raise _nobody_knows(one, error)
        done = []
        for image in self.all():
            if image.id not in users and (unused or not image.names):
                self.content.drop(image.descriptor.digest)
                done += [f"Untagged: {parse_reference(name).familiar}" for name in image.names]
                done.append(f"Deleted: {image.id}")
        return done

    def collect(self, layers_in_use: Callable[[], Collection[str]], *, everything: bool = False) -> int | None:
        """Remove the blobs and layers that nobody needs any more; how many bytes of the disk that freed.

        `layers_in_use` tells the layers that containers and snapshots stand on. `everything`: also what has come so far
        of blobs. None: somebody adds to the store right now, so nothing was removed; the next collection will.
        Raises ImageError: an image cannot be read, so what it needs is not known.
        """
        with self.content.changing(patient=False) as alone:
            if not alone:
                return None
            blobs, layers = set[str](), set(layers_in_use())
            for one in self.content.descriptors():
                try:
                    parts = [*self.content.parts(one)]
                    configs = [part for part in parts if part.media_type in CONFIGS]
                    for config in configs:
                        layers |= {each.partition(":")[2] for each in read_config(self.content.read(config)).diff_ids}
                except ImageError as error:
                    raise _nobody_knows(one, error) from None
                blobs |= {part.digest for part in parts}
            freed = self.content.collect(blobs)[1]
            if everything:
                freed += self.content.forget_partial()[1]
            return freed + sum(map(self._remove_layer, [*self._unneeded(layers)]))

    def there(self) -> tuple[set[str], set[str]]:
        """The digests of all blobs, and the names of all layers: for `forget_since`."""
        layers = {*os.listdir(self.layers)} if os.path.isdir(self.layers) else set[str]()
        return {*self.content.blobs()}, layers

    def forget_since(self, before: tuple[Collection[str], Collection[str]]) -> None:
        """Remove what has come since then and no image names: what somebody has made who failed.

        Unless somebody else adds to the store right now: then the next collection does it. Raises ImageError.
        """
        with self.content.changing(patient=False) as alone:
            if not alone:
                return
            blobs, layers = set[str](before[0]), set[str](before[1])
            for one in self.content.descriptors():
                for part in self.content.parts(one):
                    blobs.add(part.digest)
                    if part.media_type in CONFIGS:
                        config = read_config(self.content.read(part))
                        layers |= {each.partition(":")[2] for each in config.diff_ids}
            self.content.collect(blobs)
            for name in [*self._unneeded(layers)]:
                self._remove_layer(name)

    def _unneeded(self, kept: Collection[str]) -> Iterator[str]:
        """Directories of layers of images, and what somebody who was killed left of making or removing one."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.layers)):
                whole = len(name) == 64 and set(name) <= _HEX
                left = name.startswith(".") and not name.startswith(".snap-")  # those are of snapshots
                if (whole and name not in kept) or (left and not _is_locked(f"{self.layers}/{name}")):
                    yield name

    def _remove_layer(self, name: str) -> int:
        """It gets another name first: so it is there whole, or not. Returns its bytes."""
        size = disk_usage(f"{self.layers}/{name}")
        going = f"{self.layers}/.{name.lstrip('.').partition('.')[0]}.removed-{os.urandom(4).hex()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{self.layers}/{name}", going)
            sync_directory(self.layers)
            self._remove_tree(going)
        return size

    # Looking for damage

    def examine(self, layers_in_use: Mapping[str, Collection[str]]) -> Iterator[Damage]:
        """What is not as it should be: every blob is read, every unpacked tree looked through.

        `layers_in_use`: layer → the containers and snapshots that stand on it.
        """
        bad = set[str]()
        needed = self._needed_by()
        for digest in sorted(self.content.blobs()):
            if not self._is_sound(digest):
                bad.add(digest)
                yield Damage(f"blob {digest} is damaged: {_pull(needed.get(digest, ()))}", self._taking_out(digest))
        for digest in sorted(needed.keys() - bad):
            if not self.content.has(digest):
                yield Damage(f"blob {digest} is missing: {_pull(needed[digest])}")
        for one in self.content.descriptors():
            if one.digest not in bad and self.content.has(one.digest):
                try:
                    self.image(one)
                except Unfit:
                    pass
                except ImageError as error:
                    yield Damage(f"image {called(one)}: {error}")
        for name in sorted(os.listdir(self.layers)) if os.path.isdir(self.layers) else ():
            if len(name) == 64 and set(name) <= _HEX and not self._is_as_unpacked(name):
                standing = sorted(layers_in_use.get(name, ()))
                used = f"; {_containers(standing)} stand on it" if standing else ""
                yield Damage(f"layer {name} is not as it was unpacked: somebody has changed files below {self.layers}"
                             f"{used}; --repair lets it be unpacked anew", lambda name=name: self._remove_layer(name))  # type: ignore[misc]  # fmt: skip
        again = self._unpackable()
        for name, users in sorted(layers_in_use.items()):
            if not os.path.isdir(f"{self.layers}/{name}/diff") and name not in again:
                yield Damage(f"layer {name} is missing, on which {_containers(sorted(users))} stand")

    def _unpackable(self) -> set[str]:
        """Layers that can be unpacked, again if they have been, when a container wants them."""
        names = set[str]()
        for one in self.content.descriptors():
            with contextlib.suppress(ImageError):
                image = self.image(one)
                pairs = zip(image.manifest.layers, reversed(image.layers), strict=True)
                names |= {name for blob, name in pairs if self.content.has(blob.digest)}
        return names

    def _needed_by(self) -> dict[str, list[str]]:
        """Digest → what the images are called that need it, as far as they can be read."""
        needed = dict[str, list[str]]()
        for one in self.content.descriptors():
            name = called(one)
            needed.setdefault(one.digest, []).append(name)
            with contextlib.suppress(ImageError):
                for part in self.content.parts(one):
                    if part.digest != one.digest:
                        needed.setdefault(part.digest, []).append(name)
        return needed

    def _is_sound(self, digest: str) -> bool:
        import hashlib

        try:
            with open(self.content.path(digest), "rb", buffering=0) as blob:
                algorithm, _, digits = digest.partition(":")
                return hashlib.file_digest(blob, algorithm).hexdigest() == digits
        except FileNotFoundError:  # removed meanwhile
            return True
        except (OSError, ImageError):  # EIO: the disk knows it itself; a file that has no digest for its name
            return False

    def _is_as_unpacked(self, name: str) -> bool:
        try:
            with open(f"{self.layers}/{name}/fingerprint", encoding="ascii") as file:
                return file.read() == fingerprint(f"{self.layers}/{name}/diff")
        except FileNotFoundError:  # whoever unpacked it was killed before he wrote it down: nothing can be told
            return os.path.isdir(f"{self.layers}/{name}/diff")

    def _taking_out(self, digest: str) -> Callable[[], None]:
        return lambda: os.unlink(f"{self.content.directory}/blobs/{digest.replace(':', '/')}")


class Missing(ImageError):
    """There is no such image here; a registry may have it."""

    def __init__(self, text: str, like: str = "") -> None:
        super().__init__(
            f'there is no image "{shown(text)}" here{like or f"; get it: minicontainer pull {shown(text)}"}'
        )


class Unfit(ImageError):
    """It is here, but not for this platform."""


def fingerprint(directory: str) -> str:
    """Names, kinds, modes, owners, sizes and times of all that is in a tree, as one number.

    Not what is in the files: that would take as long as to unpack them. Whoever writes to one changes its time. And no
    owners where they have other numbers for who unpacks, as root of a user namespace, and for who looks later.
    """
    import hashlib

    from minicontainer.linux import in_user_namespace

    sum, owned = hashlib.sha256(), os.geteuid() == 0 and not in_user_namespace()
    for path, entries in _directories(directory):
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            size = 0 if entry.is_dir(follow_symlinks=False) else status.st_size
            owner = (status.st_uid, status.st_gid) if owned else (0, 0)
            about = (status.st_mode, *owner, size, status.st_mtime_ns, status.st_rdev)
            sum.update(b"%b%b %o %d %d %d %d %d\n" % (os.fsencode(path), os.fsencode(entry.name), *about))
    return sum.hexdigest()


def disk_usage(directory: str) -> int:
    """Bytes of the disk that a tree takes, what has several names once; du(1)."""
    total, seen = 0, set[tuple[int, int]]()
    for _, entries in _directories(directory, patient=True):
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total


def _directories(top: str, *, patient: bool = False) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """(path below the top, with a "/" at its end; what is in it) for each directory of a tree.

    One open in the other, for whoever made the tree may have made longer paths than the kernel takes (PATH_MAX).
    `patient`: what may not be looked into, or is gone by now, is passed over. Raises OSError.
    """
    way: list[tuple[int, str, Iterator[str]]] = []
    waiting: tuple[str, str, int | None] | None = (top, "", None)
    try:
        while waiting or way:
            if waiting:
                (name, path, parent), waiting = waiting, None
                try:
                    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                except OSError:
                    if not patient:
                        raise
                    continue
                with os.scandir(fd) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
                way.append((fd, path, iter([entry.name for entry in entries if entry.is_dir(follow_symlinks=False)])))
                yield path, entries
                continue
            fd, path, names = way[-1]
            inner = next(names, None)
            if inner is None:
                os.close(way.pop()[0])
            else:
                waiting = (inner, f"{path}{inner}/", fd)
    finally:
        for fd, _, _ in way:
            os.close(fd)


def _nobody_knows(one: Descriptor, error: ImageError) -> ImageError:
    return ImageError(
        f"nothing is removed while image {called(one)} cannot be read, as nobody knows what it needs: {error}; "
        f"to give it up: minicontainer rmi {called(one)}"
    )


def called(one: Descriptor) -> str:
    """What `rmi` knows it by: its name, or the beginning of its digest."""
    name = one.annotations.get(REF_NAME, "")
    return parse_reference(name).familiar if name else one.digest.partition(":")[2][:12]


def _may_be_id(text: str) -> bool:
    digits = text.removeprefix("sha256:")
    return 0 < len(digits) <= 64 and set(digits) <= _HEX


def _is_id_of(text: str, image: Image) -> bool:
    """Whether it was found by its id, and not by a name that looks like one."""
    return _may_be_id(text) and not any(parse_reference(name).tag == "latest" and
                                        parse_reference(name).name == text for name in image.names)  # fmt: skip


def _same_repository(one: Reference, other: Reference) -> bool:
    return (one.registry, one.repository) == (other.registry, other.repository)


def _is_locked(directory: str) -> bool:
    """Whether whoever makes a layer in there is still at it."""
    import fcntl

    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _containers(names: Sequence[str]) -> str:
    if names[0].startswith("/"):
        return f"the mount at {names[0]}"
    return f"container {names[0]}" if len(names) == 1 else f"containers {', '.join(names)}"


def _pull(names: Sequence[str]) -> str:
    """What to do about a blob that is gone: `names` are what the images are called that need it."""
    if not names:
        return "no image needs it; minicontainer image prune"
    named = [name for name in names if not _may_be_id(name)]
    if not named:
        return f"image {names[0]}, which has no name, cannot do without; to give it up: minicontainer rmi {names[0]}"
    return f"{', '.join(names)} cannot do without; after --repair: minicontainer pull {named[0]}"
