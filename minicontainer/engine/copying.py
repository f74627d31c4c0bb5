"""Files into containers and out of them: ``cp``, ``export``.

What travels is a tar archive through a pipe: whoever packs and whoever lays down stands on his own side, and neither
ever sees a path of the other's. A container's side is an errand's (`engine.inside`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.engine.inside import View, enter, errand, piped
from minicontainer.engine.snapshots import Taking, standing
from minicontainer.engine.store import Config
from minicontainer.linux import tar, trees
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from minicontainer.steps import Steps

STREAM = "-"
"""In place of a path outside: an archive from standard input, or to standard output."""


class Place(Record):
    """Where something is to be copied from, or to."""

    path: str
    container: Config | None = None
    """None: outside."""

    def __str__(self) -> str:
        return f"{self.container.name}:{self.path}" if self.container else self.path

    @property
    def is_stream(self) -> bool:
        """Whether it is an archive."""
        return self.container is None and self.path == STREAM


def copy(
    taking: Taking,
    source: Place,
    target: Place,
    *,
    archive: bool = False,
    follow: bool = False,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> None:
    """Copy a file or a directory with all that is in it, as docker cp does. Raises EngineError.

    `archive`: owners stay who they are, as numbers; else everything becomes root's in a container, and the caller's
    outside; what comes from an archive keeps the owners it has there. `follow`: a symbolic link that is named as the
    source is not copied itself, but what it leads to.
    """
    if source.container is None and target.container is None:
        raise EngineError("cp: one of the two must be in a container: write CONTAINER:PATH")
    try:
        if source.container is None:
            _copy_in(taking, source, target, None if archive or source.is_stream else (0, 0), follow, stdin)
        elif target.is_stream:
            assert stdout is not None
            with _giving(taking, source, follow, stdout) as given:
                _warn(taking.warn, given())
        elif target.container is None:
            _copy_out(taking, source, target, None if archive else (os.geteuid(), os.getegid()), follow)
        elif source.container.id == target.container.id:
            _copy_within(taking, source, target, None if archive else (0, 0), follow)
        else:
            _copy_across(taking, source, target, None if archive else (0, 0), follow)
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot copy {source} to {target}: {_said(error)}", 1) from None


Owner = tuple[int, int] | None
Result = Callable[[], list[str]]
"""Waits for an errand, and returns what could not be copied."""


def _copy_in(taking: Taking, source: Place, target: Place, owner: Owner, follow: bool, stdin: IO[bytes] | None) -> None:
    with piped() as (read, write), _receiving(taking, target, read, owner, [write], source.is_stream) as received:
        read.close()
        lost = list[str]()
        with contextlib.suppress(BrokenPipeError):  # whoever does not read any more says why
            if source.is_stream:
                assert stdin is not None
                _pump(stdin, write)
            else:
                lost = pack_named(source.path, write, follow)
            write.close()
        _warn(taking.warn, [*lost, *received()])


def _copy_out(taking: Taking, source: Place, target: Place, owner: Owner, follow: bool) -> None:
    with piped() as (read, write), _giving(taking, source, follow, write, [read]) as given:
        write.close()
        try:
            lost = lay(read, target.path, owner, False)
            _drain(read)
        except tar.TarError:
            given()  # it knows better why the archive was cut off
            raise
        _warn(taking.warn, [*given(), *lost])


def _copy_across(taking: Taking, source: Place, target: Place, owner: Owner, follow: bool) -> None:
    with piped() as (read, write), _giving(taking, source, follow, write, [read]) as given:
        write.close()
        with _receiving(taking, target, read, owner, []) as received:
            read.close()
            try:
                lost = received()
            except ValueError:  # the archive was cut off, it may be: then the other one knows why
                given()
                raise
            _warn(taking.warn, [*given(), *lost])


def _copy_within(taking: Taking, source: Place, target: Place, owner: Owner, follow: bool) -> None:
    """In one and the same container, which is gone into once: two may not write to one upper layer."""
    assert source.container is not None
    with _view(taking, source.container) as (view, mapped):

        def copy() -> list[str]:
            _enter(taking.steps, view, source)
            with piped() as (read, write):

                def give() -> list[str]:
                    return pack_named(_absolute(source.path), write, follow)

                with errand(taking.steps, give, [read], under_another_root=True) as given:
                    write.close()
                    try:
                        lost = lay(read, _absolute(target.path), owner, True)
                        _drain(read)
                    except tar.TarError:
                        given()
                        raise
                    return [*given(), *lost]

        with errand(taking.steps, copy, mapped=mapped) as result:
            _warn(taking.warn, result())


@contextlib.contextmanager
def _giving(
    taking: Taking, source: Place, follow: bool, sink: IO[bytes], ours: Sequence[IO[bytes]] = ()
) -> Iterator[Result]:
    """An errand that packs."""
    assert source.container is not None
    with _view(taking, source.container) as (view, mapped):

        def give() -> list[str]:
            _enter(taking.steps, view, source)
            return pack_named(_absolute(source.path), sink, follow)

        with errand(taking.steps, give, ours, mapped=mapped) as result:
            yield result


@contextlib.contextmanager
def _receiving(
    taking: Taking,
    target: Place,
    stream: IO[bytes],
    owner: Owner,
    ours: Sequence[IO[bytes]],
    is_archive: bool = False,
) -> Iterator[Result]:
    """An errand that lays down."""
    assert target.container is not None
    with _view(taking, target.container) as (view, mapped):

        def receive() -> list[str]:
            _enter(taking.steps, view, target)
            path = _absolute(target.path)
            lost = lay_archive(stream, path, owner) if is_archive else lay(stream, path, owner, True)
            _drain(stream)
            return lost

        with errand(taking.steps, receive, ours, mapped=mapped) as result:
            yield result


def _absolute(path: str) -> str:
    """A path in a container begins at its root."""
    return f"/{path.lstrip('/')}"


def export(taking: Taking, config: Config, file: IO[bytes]) -> None:
    """Write all files of a container, as one archive, without what is mounted in it. Raises EngineError."""
    steps = taking.steps
    try:
        with contextlib.ExitStack() as stack:
            view, mapped = stack.enter_context(_view(taking, config))
            view = view.replace(bare=view.pid is not None, volumes=())

            def give() -> list[str]:
                _enter(steps, view, Place("/", config))
                lost = list[str]()
                packing = trees.Packing(file, lost.append, whole_mounts=False)
                packing.add_content(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                packing.close()
                file.flush()
                return lost

            with errand(steps, give, mapped=mapped) as result:
                _warn(taking.warn, result())
    except (OSError, ValueError) as error:
        raise EngineError(f'cannot export container "{config.name}": {_said(error)}', 1) from None


@contextlib.contextmanager
def _view(taking: Taking, config: Config) -> Iterator[tuple[View, bool]]:
    """A container's root, running or not, and whether its ids are another user namespace's. Raises EngineError."""
    state = taking.state(config)
    if state.status == "running":
        yield View(state.pid, state.started), False
        return
    with standing(taking, config):
        config = taking.store.config(config.id)
        directory = taking.store.directory(config.id)
        yield (
            View(
                lowers=tuple(taking.bottom(config)),
                upper=f"{directory}/upper",
                work=f"{directory}/work",
                merged=f"{directory}/merged",
                volumes=_volumes(taking, config),
            ),
            True,
        )


def _volumes(taking: Taking, config: Config) -> tuple[tuple[str, str, bool], ...]:
    if not config.mounts:
        return config.volumes
    from minicontainer.engine import mounting

    return mounting.seen(taking.store, config)


def _enter(steps: Steps, view: View, place: Place) -> None:
    try:
        enter(steps, view)
    except OSError as error:
        name = place.container.name if place.container else ""
        raise OSError(error.errno, f'container "{name}" cannot be gone into: {error.strerror}') from None


# The giving side


def pack_named(path: str, file: IO[bytes], follow: bool) -> list[str]:
    """Write what is at `path` to `file`, as an archive whose first entry is it: by its last name, or as "./".

    ``DIR/.`` is what is in a directory. Returns what has no place in an archive, a line each. Raises OSError, TarError.
    """
    lost = list[str]()
    above, name, as_name = _named(path, follow)
    try:
        plain = path.removesuffix(".").rstrip("/") if path.endswith(("/", "/.")) else ""
        if plain and os.path.lexists(plain) and not os.path.isdir(plain):
            raise NotADirectoryError(errno.ENOTDIR, f"{path} is no directory")
        parent = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            packing = trees.Packing(file, lost.append)
            packing.add(parent, name, as_name)
            packing.close()
            file.flush()
        finally:
            os.close(parent)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"there is no {path}") from None
    return lost


def _named(path: str, follow: bool) -> tuple[str, str, str]:
    """(directory, name in it, name in the archive): links on the way are followed, the last one only if wanted."""
    plain = path.rstrip("/") if path.rstrip("/") else "/"
    last = os.path.basename(plain)
    if last in ("", ".", ".."):
        return path, ".", "."
    led = _led(plain) if follow or path.endswith("/") else plain
    name = os.path.basename(led.rstrip("/"))
    if name in ("", ".", ".."):
        return led, ".", last
    return os.path.dirname(led.rstrip("/")) or ".", name, last


def _led(path: str) -> str:
    """Where a path leads if its last part is a symbolic link. The parts before are for the kernel to follow."""
    for _ in range(40):  # as the kernel has it: path_resolution(7)
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            return path
    raise OSError(errno.ELOOP, f"{path}: {os.strerror(errno.ELOOP)}")


def _pump(source: IO[bytes], sink: IO[bytes]) -> None:
    """An archive, compressed or not, to whoever reads it. Raises ValueError."""
    from minicontainer.images.compression import decompress
    from minicontainer.images.errors import ImageError

    try:
        for piece in decompress(iter(lambda: source.read(1 << 16), b"")):
            sink.write(piece)
    except ImageError as error:
        raise ValueError(f"the archive: {error}") from None


# The taking side


def lay(file: IO[bytes], path: str, owner: tuple[int, int] | None, follow: bool) -> list[str]:
    """Lay down at `path` what `pack_named` has packed. Returns what could not be laid down.

    What was not there before is not there after an error either. Raises OSError, TarError.
    """
    lost = list[str]()
    entries = tar.read(file)
    first = next(entries, None)
    if first is None:
        raise tar.TarError("the archive is empty")
    top, target, whole = _target(path, first)
    directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    new = bool(target) and not _is_there(target, directory)

    def placed(name: str) -> str:
        rest = name if whole else name.partition("/")[2]
        return f"{target}/{rest}" if target else rest

    try:
        with trees.filling(directory, lost.append, owner, follow=follow) as filling:
            filling.add(first, target)
            for entry in entries:
                filling.add(entry, placed(entry.name), placed(entry.link) if entry.kind == tar.LINK else "")
    except BaseException:
        if new and first.kind == tar.DIRECTORY:
            shutil.rmtree(target, ignore_errors=True, dir_fd=directory)
        raise
    finally:
        os.close(directory)
    return lost


def lay_archive(file: IO[bytes], path: str, owner: tuple[int, int] | None) -> list[str]:
    """Lay down in the directory `path` what is in an archive. Raises OSError, TarError."""
    lost = list[str]()
    if not os.path.isdir(path or "/"):
        raise NotADirectoryError(errno.ENOTDIR, f"an archive goes into a directory, and {path} is none")
    directory = os.open(path or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with trees.filling(directory, lost.append, owner, follow=True) as filling:
            for entry in tar.read(file):
                filling.add(entry, entry.name, entry.link)
    finally:
        os.close(directory)
    return lost


def _target(path: str, first: tar.Entry) -> tuple[str, str, bool]:
    """(directory that is there, name in it or "": what is copied goes into it itself, whether names stay whole)."""
    is_directory = first.kind == tar.DIRECTORY
    name = first.name.rstrip("/")
    whole = name == "."
    if os.path.isdir(path):
        return path, "" if whole else name, whole
    led = _led(path.rstrip("/"))
    if os.path.lexists(led):
        if is_directory:
            raise NotADirectoryError(errno.ENOTDIR, f"a directory cannot be copied over the file {path}")
        if path.endswith(("/", "/.")):
            raise NotADirectoryError(errno.ENOTDIR, f"{path} is no directory")
    elif path.endswith(("/", "/.")) and not is_directory:
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {path}")
    above = os.path.dirname(led) or "."
    if not os.path.isdir(above):
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {os.path.dirname(path.rstrip('/')) or above}")
    return above, os.path.basename(led), whole


def _is_there(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _drain(file: IO[bytes]) -> None:
    """What comes after the end mark, so that whoever writes it is not cut off."""
    while file.read(1 << 16):
        pass


def _warn(warn: Callable[[str], object], lost: list[str]) -> None:
    for line in lost[:10]:
        warn(f"not copied: {line}")
    if len(lost) > 10:
        warn(f"not copied: {len(lost) - 10} more")


def _said(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        text = error.strerror or str(error)
        return f"{error.filename}: {text}" if error.filename else text
    return str(error)
