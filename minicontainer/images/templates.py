"""Images made of what is at hand: an archive, a directory, an OCI layout, or a distribution's own packages.

What LXC's templates do with a root file system, with an image at the end. It is made apart, in LAYERS/.make.RANDOM, on
which its maker holds a lock (flock(2)): of whoever fails nothing is left, and of whoever is killed the next prune takes
it away. What packages have made once is found again, as long as any image has it: IMAGES/made/KEY.json.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from minicontainer.images.committing import commit, named, new_name
from minicontainer.images.compression import compression_of, decompress
from minicontainer.images.content import write_durably
from minicontainer.images.documents import OCI_MANIFEST, Descriptor, Manifest, encode, read_descriptor
from minicontainer.images.errors import ImageError
from minicontainer.images.images import Image, Images
from minicontainer.images.references import shown
from minicontainer.linux import trees
from minicontainer.record import Record

DISTRIBUTIONS = ("debian", "ubuntu")
BUILDERS = ("mmdebstrap", "debootstrap")
PATIENCE = 1800.0
"""Seconds that packages may take to come and to be unpacked."""

_PIECE = 256 << 10
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Unpack = Callable[[Descriptor], None]
"""Unpacks the layers of a manifest; what it refuses is no image."""


# An archive, a directory


def of_archive(
    images: Images, file: IO[bytes], name: str, unpack: Unpack, *, changes: Iterable[str] = (), message: str = "",
    what: str = "an archive",
) -> Image:  # fmt: skip
    """An image with one layer: what is in a tar, compressed by whatever. Raises ImageError, and leaves nothing then."""

    def pack(layer: Any) -> None:
        for piece in plain(file):
            layer.write(piece)

    with clean(images):
        return commit(
            images, None, pack, {}, name=name, changes=changes, comment=message or f"made of {what}", unpack=unpack,
            created_by="minicontainer import",
        )  # fmt: skip


def plain(file: IO[bytes]) -> Iterator[bytes]:
    """The uncompressed bytes of an archive. Raises ImageError: corrupt, cut off, empty."""
    beginning = b""
    while len(beginning) < 8 and (more := file.read(8 - len(beginning))):
        beginning += more
    if not beginning:
        raise ImageError("the archive is empty")
    rest = _Joined(beginning, file)
    if beginning.startswith((b"BZh", b"\xfd7zXZ\0")):
        import bz2
        import lzma

        kind: Any = bz2.BZ2File if beginning[:1] == b"B" else lzma.LZMAFile
        try:
            with kind(rest) as opened:
                while piece := opened.read(_PIECE):
                    yield piece
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise ImageError(f"the archive is corrupt or cut off: {error}") from None
        return
    compression_of(beginning)
    yield from decompress(iter(lambda: rest.read(_PIECE), b""))


class _Joined:
    """A file of which the first bytes are read already."""

    def __init__(self, beginning: bytes, file: IO[bytes]) -> None:
        self._beginning, self._file = beginning, file

    def read(self, size: int = -1) -> bytes:
        first, self._beginning = self._beginning, b""
        return first or self._file.read(size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def of_directory(
    images: Images, directory: str, name: str, unpack: Unpack, lost: Callable[[str], object],
    *, changes: Iterable[str] = (), message: str = "",
) -> Image:  # fmt: skip
    """An image with one layer: what is in a directory, but for what is mounted in it. An ordinary user's own files are
    root's in it. Raises ImageError, OSError."""

    def pack(layer: Any) -> None:
        _pack_directory(directory, layer, lost)

    with clean(images):
        return commit(
            images, None, pack, {}, name=name, changes=changes, comment=message or "made of a directory",
            created_by="minicontainer image make dir", unpack=unpack,
        )  # fmt: skip


def _pack_directory(directory: str, layer: Any, lost: Callable[[str], object]) -> None:
    for place, directories, others in os.walk(directory):
        if marks := [one for one in (*directories, *others) if one.startswith(".wh.")]:
            raise ImageError(f"{place}/{marks[0]}: a file with such a name would hide another in an image")
    mine, group = os.geteuid(), os.getegid()

    def owner(uid: int, gid: int) -> tuple[int, int]:
        return (uid, gid) if mine == 0 else (0 if uid == mine else uid, 0 if gid == group else gid)

    packing = trees.Packing(layer, lost, owner, whole_mounts=False)
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        packing.add(top, ".", ".")
        packing.close()
    finally:
        os.close(top)


# An OCI layout


def of_layout(
    images: Images, source: str, name: str, unpack: Unpack, resolve: Callable[..., list[dict[str, Any]]],
    platform_name: str = "",
) -> Image:  # fmt: skip
    """The image DIRECTORY[:NAME] of a layout; without a name, the one that there is. Raises ImageError, OSError."""
    directory, reference = _in_layout(source)
    try:
        found = resolve(directory, reference, platform_name)
    except (LookupError, ValueError) as error:
        raise ImageError(f"{shown(directory)}: {shown(str(error.args[0]))}") from None
    config, *layers = [read_descriptor(one, directory) for one in found]
    reference_new = new_name(name)
    with clean(images):
        for blob in (config, *layers):
            path = f"{directory}/blobs/{blob.digest.replace(':', '/')}"
            try:
                with open(path, "rb") as file, images.content.ingest(blob) as writer:
                    file.seek(writer.offset)
                    while piece := file.read(_PIECE):
                        writer.write(piece)
            except FileNotFoundError:
                raise ImageError(f"{shown(directory)} is not whole: blob {blob.digest} is missing") from None
        manifest = images.content.put(OCI_MANIFEST, encode(Manifest(config, tuple(layers))))
        images.image(manifest)
        unpack(manifest)
        return named(images, manifest, reference_new)


def _in_layout(source: str) -> tuple[str, str]:
    directory, colon, reference = source.partition(":")
    if colon:
        return directory, reference
    try:
        with open(f"{directory}/index.json", "rb") as file:
            names = [one["annotations"]["org.opencontainers.image.ref.name"] for one in json.load(file)["manifests"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise ImageError(f"{shown(directory)} is no OCI layout whose images have names") from None
    if len({*names}) != 1:
        raise ImageError(f"{shown(directory)} has several images: say which, {directory}:NAME; there are "
                         f"{', '.join(map(shown, names[:10])) or 'none'}")  # fmt: skip
    return directory, str(names[0])


# Packages


class Packages(Record):
    """A distribution, as its own packages make it."""

    distribution: str
    suite: str = ""
    """As that calls a release: ``bookworm``, ``noble``. Of debian, the host's own unless given."""
    mirrors: tuple[str, ...] = ()
    """Addresses, or whole lines of sources.list(5). Else what the host's apt is set up with, or the builder knows."""
    variant: str = "minbase"
    include: tuple[str, ...] = ()
    """Packages beside those."""
    builder: str = ""
    """mmdebstrap or debootstrap; the first that there is, unless given."""


def of_packages(
    images: Images, wanted: Packages, name: str, unpack: Unpack, *, changes: Iterable[str] = (), fresh: bool = False,
    patience: float = PATIENCE,
) -> Image:  # fmt: skip
    """An image with one layer: a distribution. Of the same wishes the same image, unless it is to be `fresh`.

    Raises ImageError, and leaves nothing then.
    """
    reference = new_name(name)
    wanted = _completed(wanted)
    note = f"{images.content.directory}/made/{_key(wanted, changes)}.json"
    with images.content.sharing():
        if not fresh and (made := _noted(images, note)):
            return named(images, made, reference)
    what = f"{wanted.distribution} {wanted.suite}"
    settings = {"Env": [f"PATH={_PATH}"], "Cmd": ["sh" if wanted.variant in ("custom", "extract") else "bash"]}
    with clean(images), _apart(images) as place:

        def pack(layer: Any) -> None:
            if wanted.builder == "mmdebstrap":
                _mmdebstrap(wanted, place, layer, patience)
            else:
                _debootstrap(wanted, place, patience)
                _pack_directory(f"{place}/root", layer, lambda line: None)

        image = commit(
            images, None, pack, settings, name=name, changes=changes, unpack=unpack, comment=what,
            created_by=f"minicontainer image make {what}: {wanted.builder} --variant={wanted.variant}",
        )  # fmt: skip
    os.makedirs(os.path.dirname(note), exist_ok=True)
    write_durably(note, json.dumps(image.descriptor.to_json()).encode())
    return image


def _completed(wanted: Packages) -> Packages:
    """With all that is not said. Raises ImageError: it cannot be made here."""
    if wanted.builder and wanted.builder not in BUILDERS:
        raise ImageError(f'there is no builder "{shown(wanted.builder)}"; there are {", ".join(BUILDERS)}')
    builders = [one for one in ((wanted.builder,) if wanted.builder else BUILDERS) if shutil.which(one, path=_path())]
    if not builders:
        missing = wanted.builder or " and no ".join(BUILDERS)
        raise ImageError(f"no {missing} is installed here: as root: apt-get install {wanted.builder or BUILDERS[0]}")
    if builders[0] == "debootstrap" and os.geteuid() != 0:
        raise ImageError("debootstrap wants to be run by root; what does not: as root: apt-get install mmdebstrap")
    host: dict[str, str] = {}
    with contextlib.suppress(OSError):
        host = platform.freedesktop_os_release()
    suite = wanted.suite or (host.get("VERSION_CODENAME", "") if host.get("ID") == wanted.distribution else "")
    if not suite:
        raise ImageError(f"say which release of {wanted.distribution}: --suite NAME")
    for text in (suite, wanted.variant, *wanted.include):
        if not text or text[0] in "-/" or not all(one.isalnum() or one in "-_.+:/~=*?!," for one in text):
            raise ImageError(f'"{shown(text)}" is no name of a release, a variant or a package')
    for text in wanted.mirrors:
        if text.startswith("-") or "\n" in text:
            raise ImageError(f'"{shown(text)}" is no address of packages')
    return wanted.replace(suite=suite, builder=builders[0])


def _key(wanted: Packages, changes: Iterable[str]) -> str:
    wishes = [wanted.asdict(), list(changes)]
    return hashlib.sha256(json.dumps(wishes, sort_keys=True).encode()).hexdigest()[:32]


def _noted(images: Images, note: str) -> Descriptor | None:
    """What was made of these wishes before, if all of it is still there."""
    with contextlib.suppress(OSError, ValueError, ImageError), open(note, "rb") as file:
        made = read_descriptor(json.load(file), note)
        if not images.content.missing(made) and not images.missing(images.image(made)):
            return made
    return None


def _mmdebstrap(wanted: Packages, place: str, layer: Any, patience: float) -> None:
    """It writes a tar, which is the layer; nothing of it touches the disk but what it is unpacked to meanwhile."""
    mirrors = list(wanted.mirrors)
    settings = []
    if not mirrors and (mirrors := _sources_of_host(wanted)):
        settings = [f"--aptopt={line}" for line in _settings_of_host()]
    include = [f"--include={','.join(wanted.include)}"] if wanted.include else []
    command = ["mmdebstrap", f"--variant={wanted.variant}", "--format=tar", *settings, *include, wanted.suite, "-"]
    with _building([*command, *mirrors], place, patience) as pieces:
        for piece in pieces:
            layer.write(piece)


def _debootstrap(wanted: Packages, place: str, patience: float) -> None:
    """It fills a directory."""
    mirrors = list(wanted.mirrors) or [line.split()[1] for line in _sources_of_host(wanted)[:1]]
    include = [f"--include={','.join(wanted.include)}"] if wanted.include else []
    variant = [f"--variant={wanted.variant}"] if wanted.variant not in ("", "-") else []
    command = ["debootstrap", *variant, *include, wanted.suite, f"{place}/root", *mirrors]
    with _building(command, place, patience) as pieces:
        for _ in pieces:
            pass


@contextlib.contextmanager
def _building(command: list[str], place: str, patience: float) -> Iterator[Iterator[bytes]]:
    """What a builder writes while it works; it has ended after the block, and done what it should. Raises ImageError.

    As root it gets mounts and processes of its own: what it leaves of either is gone with it.
    """
    if os.geteuid() == 0:
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
    until, tool = time.monotonic() + patience, next(one for one in command if one in BUILDERS)
    settings = {"PATH": _path(), "TMPDIR": place, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    log = f"{place}/log"
    with open(log, "wb") as said:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, start_new_session=True,
            env={**os.environ, **settings},
        )  # fmt: skip
    assert process.stdout is not None
    try:
        yield _pieces(process.stdout, until, tool)
        if status := process.wait(max(1.0, until - time.monotonic())):
            raise ImageError(f"{tool} has failed (status {status}): {_last_words(log)}")
    except ImageError:
        raise
    except subprocess.TimeoutExpired:
        raise ImageError(f"{tool} was not ready within {patience:.0f} s: {_last_words(log)}") from None
    finally:
        _end(process)
        process.stdout.close()


def _pieces(stream: IO[bytes], until: float, tool: str) -> Iterator[bytes]:
    while select.select([stream], [], [], max(0.0, until - time.monotonic()))[0]:
        if not (piece := os.read(stream.fileno(), _PIECE)):
            return
        yield piece
    raise subprocess.TimeoutExpired(tool, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """First so that it can clear away, and then for good."""
    for number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, None)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)


def _sources_of_host(wanted: Packages) -> list[str]:
    """Where the host's apt gets that release from, a line of sources.list(5) each."""
    form = "$(ORIGIN)|$(RELEASE)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    try:
        listed = subprocess.run(
            ["apt-get", "indextargets", "--format", form, "Created-By: Packages"], capture_output=True, text=True
        )
    except OSError:
        return []
    found = [line.split("|") for line in listed.stdout.splitlines() if line.count("|") == 2]
    origins = (wanted.distribution.capitalize(), "")
    return [line for origin, name, line in found if origin in origins and name.partition("-")[0] == wanted.suite]


def _settings_of_host() -> list[str]:
    """How the host's apt gets there: proxies, time limits."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    return [line for line in dumped.splitlines() if line.startswith("Acquire::") and '""' not in line]


def _last_words(log: str) -> str:
    """The end of what a builder said, in one line: its last errors, where they are marked."""
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "Err:", "error:"))]
    return shown(" / ".join((errors or lines)[-3:]) or "it said nothing")


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@contextlib.contextmanager
def clean(images: Images) -> Iterator[None]:
    """Whatever fails in the block, no blob and no layer of it stays. Who adds an image meanwhile puts that off.

    The caller holds no lock of the store.
    """
    before = images.there()
    try:
        with images.content.sharing():
            yield
    except BaseException:
        with contextlib.suppress(ImageError, OSError):
            images.forget_since(before)
        raise


@contextlib.contextmanager
def _apart(images: Images) -> Iterator[str]:
    """A new directory beside the layers, locked by us; gone at the end."""
    os.makedirs(images.layers, exist_ok=True)
    place = f"{images.layers}/.make.{os.urandom(6).hex()}"
    os.mkdir(place, 0o755)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.chmod(place, 0o777 if os.geteuid() else 0o755)
        yield place
    finally:
        os.close(fd)
        shutil.rmtree(place, ignore_errors=True)
