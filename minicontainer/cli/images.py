"""Images on the command line: ``images``, ``rmi``, ``tag``, ``history``, ``save``, ``load``, ``image``; ``system``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from minicontainer.cli import formats, making
from minicontainer.cli.commands import _bytes, _dispatch, _engine, _let_interrupt, _printable
from minicontainer.engine.errors import EngineError
from minicontainer.engine.images import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from minicontainer.cli.arguments import Parser
    from minicontainer.images.images import Image, Images

Act = Callable[[argparse.Namespace], int]


# Listing and looking


def list_options(parser: Parser) -> None:
    """Of ``images``."""
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="ids only")
    add("--digests", action="store_true", help="with the digests of their manifests")
    add("--no-trunc", action="store_true", help="ids in full")
    formats.add_options(parser)
    add("repository", nargs="?", metavar="NAME", help="those of this name only")


def list_images(arguments: argparse.Namespace) -> int:
    """``minicontainer images``: a line for each name of each image, the latest first; 1, if one cannot be read."""
    _let_interrupt()
    with told():
        store = _engine(arguments).images()
        images, code = [*reversed(store.all())], _say_unreadable(store)
        rows = [row for image in images for row in _names(image, arguments.repository)]
    fields: list[dict[str, Any]] = [
        {
            "Repository": repository,
            "Tag": tag,
            "Digest": image.descriptor.digest,
            "ID": image.id if arguments.no_trunc else _short(image.id),
            "CreatedSince": _age(image.config.created),
            "CreatedAt": image.config.created,
            "Size": _bytes(image.size),
        }
        for image, repository, tag in rows
    ]
    if arguments.quiet and not arguments.json:
        for identity in dict.fromkeys(row["ID"] for row in fields):
            print(identity)
        return code
    columns = {field: heading for field, heading in IMAGES.items() if field != "Digest" or arguments.digests}
    formats.show_list(arguments, columns, fields, data=lambda: [_row(*row) for row in rows])
    return code


IMAGES = {
    "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
    "Size": "SIZE",
}  # fmt: skip
"""Field, docker's, → heading; likewise of the steps of an image:"""

HISTORY = {"ID": "LAYER", "CreatedSince": "CREATED", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT"}


def _say_unreadable(images: Images) -> int:
    """Name the images that cannot be read; 1, if there are any."""
    from minicontainer.images.images import called

    unreadable = images.unreadable()
    for one, error in unreadable:
        name = called(one)
        print(f"minicontainer: image {name}: {error}; to give it up: minicontainer rmi {name}", file=sys.stderr)
    return 1 if unreadable else 0


def _names(image: Image, wanted: str | None) -> list[tuple[Image, str, str]]:
    from minicontainer.images.references import parse_reference

    found = []
    for name in image.names or ("",):
        reference = parse_reference(name) if name else None
        repository = reference.name if reference else "<none>"
        tag = (reference.tag if reference else "") or "<none>"
        if wanted is None or wanted in (repository, f"{repository}:{tag}"):
            found.append((image, repository, tag))
    return found


def _row(image: Image, repository: str, tag: str) -> dict[str, Any]:
    return {
        "Repository": repository,
        "Tag": tag,
        "Id": image.id,
        "Digest": image.descriptor.digest,
        "Created": image.config.created,
        "Size": image.size,
    }


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


def _age(created: str) -> str:
    """``3 days ago``, as docker has it."""
    import datetime

    try:
        when = datetime.datetime.fromisoformat(_whole_microseconds(created))
    except ValueError:
        return "-"
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    seconds = (datetime.datetime.now(datetime.UTC) - when).total_seconds()
    for unit, size in (("year", 31536000), ("month", 2592000), ("week", 604800), ("day", 86400), ("hour", 3600),
                       ("minute", 60)):  # fmt: skip
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}s ago"
    return "just now"


def _whole_microseconds(text: str) -> str:
    """RFC 3339 as Go writes it has nanoseconds, which Python does not read before 3.12."""
    head, dot, rest = text.partition(".")
    if not dot:
        return text
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"


def inspect_options(parser: Parser) -> None:
    """Of ``image inspect``."""
    several(parser)
    formats.add_options(parser)


def inspect_images(arguments: argparse.Namespace) -> int:
    """``minicontainer image inspect``."""
    _let_interrupt()
    with told():
        images = _engine(arguments).images()
        formats.show_objects(arguments, [shown_image(images.find(name), images.layers) for name in arguments.images])
    return 0


def shown_image(image: Image, layers: str) -> dict[str, Any]:
    """In docker's words."""
    from minicontainer.images.documents import health_check_in_words
    from minicontainer.images.references import parse_reference

    of = image.config
    check = health_check_in_words(of.health_check)
    names = [parse_reference(name) for name in image.names]
    return {
        "Id": image.id,
        "RepoTags": [name.familiar for name in names if name.tag],
        "RepoDigests": sorted({f"{name.name}@{image.descriptor.digest}" for name in names}),
        "Created": of.created,
        "Author": of.author,
        "Os": of.platform.os,
        "Architecture": of.platform.architecture,
        "Variant": of.platform.variant,
        "Size": image.size,
        "Config": {
            "User": of.user,
            "ExposedPorts": {port: {} for port in of.exposed_ports},
            "Env": list(of.env),
            "Entrypoint": list(of.entrypoint) or None,
            "Cmd": list(of.cmd) or None,
            "Volumes": {volume: {} for volume in of.volumes},
            "WorkingDir": of.cwd,
            "Labels": dict(of.labels),
            "StopSignal": of.stop_signal,
            **({"Healthcheck": check} if check else {}),
        },
        "RootFS": {"Type": "layers", "Layers": list(of.diff_ids)},
        "Manifest": image.descriptor.to_json(),
        "Blobs": [blob.to_json() for blob in image.manifest.layers],
        "Unpacked": [f"{layers}/{name}/diff" for name in image.layers],
    }


def history_options(parser: Parser) -> None:
    """Of ``history``."""
    add = parser.add_argument
    add("--tree", action="store_true", help="the layers of these images, or of all, and what they have in common")
    add("--no-trunc", action="store_true", help="everything in full")
    add("-q", "--quiet", action="store_true", help="the layers' digests only")
    formats.add_options(parser)
    add("images", nargs="*", metavar="IMAGE", help="its name, or the beginning of its id")


def history(arguments: argparse.Namespace) -> int:
    """``minicontainer history``: how an image came to be, the latest first."""
    _let_interrupt()
    with told():
        images = _engine(arguments).images()
        if arguments.tree:
            from minicontainer.images.tree import drawn

            chosen = [images.find(name) for name in arguments.images] or images.all()
            for line in drawn(chosen, images.layers):
                print(line)
            return 0 if arguments.images else _say_unreadable(images)
        if len(arguments.images) != 1:
            raise EngineError("history: name one image, or draw several: minicontainer history --tree")
        steps = _steps_of(images.find(arguments.images[0]))
    if arguments.quiet and not arguments.json:
        print("\n".join(step["layer"] for step in steps if step["layer"]))
        return 0
    rows: list[dict[str, Any]] = []
    for step in steps:
        layer, by = step["layer"] if arguments.no_trunc else _short(step["layer"]), _printable(step["created_by"])
        rows.append(
            {
                "ID": layer or "-",
                "CreatedSince": _age(step["created"]),
                "CreatedAt": step["created"],
                "CreatedBy": by if arguments.no_trunc or len(by) <= 60 else f"{by[:59]}…",
                "Size": "0 B" if step["size"] is None else _bytes(step["size"]),
                "Comment": _printable(step["comment"]),
            }
        )
    formats.show_list(arguments, HISTORY, rows, data=lambda: steps)
    return 0


def _steps_of(image: Image) -> list[dict[str, Any]]:
    """The latest first, each with its layer's diff ID and bytes, as it travels; layers of which there is no history
    come last."""
    layers = [*zip(image.config.diff_ids, image.manifest.layers, strict=True)]
    steps = []
    for step in image.config.history:
        diff_id, blob = ("", None) if step.empty_layer or not layers else layers.pop(0)
        steps.append({"layer": diff_id, "size": blob.size if blob else None, "created": step.created,
                      "created_by": step.created_by, "comment": step.comment})  # fmt: skip
    rest = [{"layer": diff_id, "size": blob.size, "created": "", "created_by": "", "comment": ""}
            for diff_id, blob in layers]  # fmt: skip
    return [*reversed(steps), *rest]


# Naming and removing


def tag_options(parser: Parser) -> None:
    """Of ``tag``."""
    parser.add_argument("image", metavar="IMAGE", help="its name, or the beginning of its id")
    parser.add_argument("name", metavar="NAME", help="what it shall be called as well")


def tag(arguments: argparse.Namespace) -> int:
    """``minicontainer tag``."""
    _let_interrupt()
    with told():
        images = _engine(arguments).images()
        images.tag(images.find(arguments.image), arguments.name)
    return 0


def several(parser: Parser) -> None:
    """Images by name or id."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="its name, or the beginning of its id")


def remove_options(parser: Parser) -> None:
    """Of ``rmi``."""
    add = parser.add_argument
    add("-f", "--force", action="store_true", help="all names of an id; a name also where containers use the image")
    several(parser)


def remove(arguments: argparse.Namespace) -> int:
    """``minicontainer rmi``: prints what was done; goes on after one that could not be removed."""
    from minicontainer.engine import images

    engine, code = _engine(arguments), 0
    engine.store.prepare()
    for name in arguments.images:
        try:
            for line in images.remove(engine.store, name, force=arguments.force):
                print(line)
        except EngineError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 1
    return code


def prune_options(parser: Parser) -> None:
    """Of ``image prune``."""
    parser.add_argument("-a", "--all", action="store_true", help="all that no container is made of")


def prune(arguments: argparse.Namespace) -> int:
    """``minicontainer image prune``: images without a name, blobs and layers that nothing needs."""
    from minicontainer.engine import images

    engine = _engine(arguments)
    engine.store.prepare()
    done, freed = images.prune(engine.store, unused=arguments.all)
    for line in done:
        print(line)
    _say_freed(freed)
    return 0


def _say_freed(freed: int | None) -> None:
    if freed is None:
        print("minicontainer: an image is on its way into the store: what nothing needs is removed by the next prune",
              file=sys.stderr)  # fmt: skip
    else:
        print(f"Freed: {_bytes(freed)}")


# As files


def save_options(parser: Parser) -> None:
    """Of ``save``."""
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="write there (to standard output)")
    add("--format", choices=("docker", "oci"), default="docker", help="whom it is for (docker; others read that too)")
    several(parser)


def save(arguments: argparse.Namespace) -> int:
    """``minicontainer save``: a file is there whole, or not at all."""
    _let_interrupt()
    from minicontainer.images.archives import save

    with told():
        images = _engine(arguments).images()
        with images.content.sharing():
            chosen: dict[str, Image] = {}
            for name in arguments.images:
                image = images.find(name)
                before = chosen.get(image.descriptor.digest, image)
                names = tuple(dict.fromkeys((*before.names, *image.names)))
                chosen[image.descriptor.digest] = before.replace(names=names)
            docker = arguments.format == "docker"
            if arguments.output is None:
                if os.isatty(1):
                    raise EngineError("an archive is not for a terminal: save -o FILE, or save … | program")
                save([*chosen.values()], images.content, sys.stdout.buffer, docker=docker)
                sys.stdout.buffer.flush()
                return 0
            try:
                with _whole(arguments.output) as file:
                    save([*chosen.values()], images.content, file, docker=docker)
            except OSError as error:
                raise EngineError(f"cannot write {arguments.output}: {error.strerror}") from None
    return 0


@contextlib.contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """A file to be written, which is there whole in the end, or as it was before. OSError.

    What is no file, as a pipe or /dev/null, is not replaced by one, but written to.
    """
    place = os.path.realpath(path)  # not a link to it, either
    if os.path.exists(place) and not os.path.isfile(place):
        with open(place, "wb") as file:
            yield file
        return
    unfinished = f"{place}.{os.getpid()}"
    with open(unfinished, "xb") as file:
        try:
            yield file
            file.flush()
            os.rename(unfinished, place)
        except BaseException:
            os.unlink(unfinished)
            raise


def load_options(parser: Parser) -> None:
    """Of ``load``."""
    add = parser.add_argument
    add("-i", "--input", metavar="FILE", help="read this archive (standard input)")
    add("-q", "--quiet", action="store_true", help="print nothing")
    add("--platform", default="", metavar="OS/ARCH", help="of an image for several machines, the one for this (ours)")


def load(arguments: argparse.Namespace) -> int:
    """``minicontainer load``: prints the names of what was loaded."""
    _let_interrupt()
    from minicontainer.engine.images import platform_of
    from minicontainer.engine.unpacking import unpack_image
    from minicontainer.images.archives import load

    engine = _engine(arguments)
    steps = os.path.abspath(arguments.steps) if arguments.steps else None
    with told():
        images = engine.images()
        try:
            file = open(arguments.input, "rb") if arguments.input else sys.stdin.buffer  # noqa: SIM115
        except OSError as error:
            raise EngineError(f"cannot read {arguments.input}: {error.strerror}") from None
        if file.isatty():
            raise EngineError("load reads an archive, and standard input is a terminal: load -i FILE")
        with file:
            loaded = load(images, file, lambda image: unpack_image(engine.store, image.descriptor, steps),
                          platform_of(arguments.platform))  # fmt: skip
    for one in loaded if not arguments.quiet else ():
        for name in one.names:
            print(f"Loaded image: {name.familiar}")
        if not one.names:
            print(f"Loaded image ID: {one.image.id}")
    return 0


# image WHAT, system WHAT


def image_options(parser: Parser) -> None:
    """Of ``image``."""
    _with_rest(parser, IMAGE_COMMANDS, "image")


def image(arguments: argparse.Namespace) -> int:
    """``minicontainer image …``."""
    return _dispatch(arguments, "image", IMAGE_COMMANDS)


def system_options(parser: Parser) -> None:
    """Of ``system``."""
    _with_rest(parser, SYSTEM_COMMANDS, "system")


def system(arguments: argparse.Namespace) -> int:
    """``minicontainer system …``."""
    return _dispatch(arguments, "system", SYSTEM_COMMANDS)


def _with_rest(parser: Parser, commands: dict[str, Any], of: str) -> None:
    parser.epilog = "".join(f"  {name:<8} {what}\n" for name, (what, _, _) in commands.items())
    parser.add_argument("what", choices=tuple(commands), metavar="WHAT", help=", ".join(commands))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def repair(arguments: argparse.Namespace) -> int:
    """``minicontainer system repair``: a line for each thing that was put right.

    The OCI runtime's containers are looked at too, in their usual place unless we were told of other ones.
    """
    from minicontainer.runtime.containers import Containers, default_root

    for line in _engine(arguments).repair():
        print(line)
    if arguments.runtime_root or not arguments.root:
        for line in Containers(arguments.runtime_root or default_root()).repair():
            print(line)
    return 0


def repair_options(parser: Parser) -> None:
    """Of ``system repair``."""
    parser.add_argument("--runtime-root", metavar="DIR", help="where minicontainer-runtime has its containers")


def usage(arguments: argparse.Namespace) -> int:
    """``minicontainer system df``."""
    _let_interrupt()
    from minicontainer.engine.images import disk_use

    engine = _engine(arguments)
    engine.store.prepare()
    uses = disk_use(engine.store, {config.id for config, state in engine.containers() if state.status == "running"})
    columns = {name: name.upper() for name in ("Type", "Total", "Active", "Size", "Reclaimable")}
    rows = [
        {"Type": use.kind, "Total": use.total, "Active": use.active, "Size": _bytes(use.size),
         "Reclaimable": _bytes(use.reclaimable)}
        for use in uses
    ]  # fmt: skip
    formats.show_list(arguments, columns, rows, data=lambda: [use.asdict() for use in uses])
    return 0


def prune_all_options(parser: Parser) -> None:
    """Of ``system prune``."""
    parser.add_argument("-a", "--all", action="store_true", help="also images that no container is made of")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")


def prune_all(arguments: argparse.Namespace) -> int:
    """``minicontainer system prune``: ended containers, unused networks, images without a name."""
    _let_interrupt()
    from minicontainer.engine import images

    what = "images that no container is made of" if arguments.all else "images without a name"
    if not arguments.force:
        if not os.isatty(0):
            raise EngineError("system prune asks first, and there is no terminal to ask on: say -f if you mean it")
        answer = input(f"This removes all containers that do not run, networks without any, and {what}. Go on? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            return 1
    engine = _engine(arguments)
    engine.store.prepare()
    code = 0
    for config, state in reversed(engine.containers()):  # the latest first: clones before what they were made of
        if state.status not in ("running", "starting"):
            try:
                engine.remove(config)
                print(f"Removed container: {config.name}")
            except EngineError as error:
                print(f"minicontainer: {error}", file=sys.stderr)
                code = 1
    if os.path.isdir(f"{engine.store.root}/networks"):
        from minicontainer.engine import networks

        with networks.told():
            for name in engine.networks().prune():
                print(f"Removed network: {name}")
    done, freed = images.prune(engine.store, unused=arguments.all)
    for line in done:
        print(line)
    _say_freed(freed)
    return code


def check_options(parser: Parser) -> None:
    """Of ``system check``."""
    parser.add_argument("--repair", action="store_true", help="take away what is damaged, to be fetched or made anew")


def check_store(arguments: argparse.Namespace) -> int:
    """``minicontainer system check``: a line for each thing that is damaged; 1, if any was not repaired."""
    _let_interrupt()
    from minicontainer.engine.images import examine

    engine = _engine(arguments)
    engine.store.prepare()
    left = 0
    with told():
        for damage in examine(engine.store):
            mended = arguments.repair and damage.mended_by is not None
            if mended and damage.mended_by is not None:
                damage.mended_by()
            left += not mended
            print(f"{'taken away: ' if mended else ''}{_printable(damage.what)}")
    return 1 if left else 0


Commands = dict[str, tuple[str, Callable[..., None], Act]]

IMAGE_COMMANDS: Commands = {
    "ls": ("list images", list_options, list_images),
    "inspect": ("all that is known of images, as JSON", inspect_options, inspect_images),
    "history": ("how an image came to be", history_options, history),
    "tag": ("give an image one more name", tag_options, tag),
    "rm": ("remove images", remove_options, remove),
    "prune": ("remove images without a name", prune_options, prune),
    "save": ("write images to an archive", save_options, save),
    "load": ("read images from an archive", load_options, load),
    "make": ("make an image of a template: busybox, debian, ubuntu, tar, dir, oci", making.make_options, making.make),
    "import": ("make an image of an archive of files", making.import_options, making.import_archive),
    "mount": ("show the files of an image at a directory", making.mount_options, making.mount),
    "unmount": ("undo that", making.unmount_options, making.unmount),
}
SYSTEM_COMMANDS: Commands = {
    "repair": ("put right what was killed half-way", repair_options, repair),
    "df": ("what is on the disk", formats.add_options, usage),
    "prune": ("remove what is not used", prune_all_options, prune_all),
    "check": ("look for damage in images and layers", check_options, check_store),
}
