"""Images made of containers and of other things on the command line: ``commit``, ``diff``, ``cp``, ``export``,
``import``; ``image make``, ``image mount``, ``image unmount``."""

from __future__ import annotations

import argparse
import os
import sys

from minicontainer.cli import formats
from minicontainer.cli.commands import _engine, _let_interrupt, _printable
from minicontainer.engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.arguments import Parser
    from minicontainer.engine.copying import Place
    from minicontainer.engine.engine import Engine


# What a container has become


def commit_options(parser: Parser) -> None:
    """Of ``commit``."""
    add = parser.add_argument
    add("-m", "--message", default="", metavar="TEXT", help="what to remember it by")
    add("-a", "--author", default="", metavar="NAME", help="who has made it")
    add("-c", "--change", action="append", default=[], metavar="INSTRUCTION", help='as in a Containerfile: "CMD sh"')
    add("-p", "--pause", default="true", choices=("true", "false"), nargs="?", const="true",
        help="let it stand still for the moment, if it runs (true)")  # fmt: skip
    add("--snapshot", default="", metavar="SNAPSHOT", help="of what it was then")
    add("container", metavar="CONTAINER", help="name, or the beginning of the id")
    add("name", nargs="?", default="", metavar="NAME[:TAG]", help="what the image shall be called")


def commit(arguments: argparse.Namespace) -> int:
    """``minicontainer commit``: prints the image's id."""
    _let_interrupt()
    from minicontainer.engine.committing import Wishes

    engine = _engine(arguments)
    wishes = Wishes(
        arguments.name,
        arguments.message,
        arguments.author,
        tuple(arguments.change),
        arguments.pause == "true",
        arguments.snapshot,
    )
    print(engine.commit(engine.store.find(arguments.container), wishes).id)
    return 0


def diff_options(parser: Parser) -> None:
    """Of ``diff``."""
    formats.add_options(parser)
    parser.add_argument("container", metavar="CONTAINER", help="name, or the beginning of the id")


def diff(arguments: argparse.Namespace) -> int:
    """``minicontainer diff``: A what it has added, C what it has changed, D what it has deleted."""
    _let_interrupt()
    engine = _engine(arguments)
    found = engine.changes(engine.store.find(arguments.container))
    if arguments.json or arguments.format:
        rows = [{"kind": kind, "path": path} for kind, path in found]
        formats.show_list(arguments, {"kind": "KIND", "path": "PATH"}, rows)
        return 0
    for kind, path in found:
        print(f"{kind} {_printable(path)}")
    return 0


# Files


def cp_options(parser: Parser) -> None:
    """Of ``cp``."""
    parser.usage = "minicontainer cp [-a] [-L] CONTAINER:PATH PATH|- | PATH|- CONTAINER:PATH | C1:PATH C2:PATH"
    parser.epilog = (
        "A directory is copied into one that is there, and as one that is not; DIR/. is what is in it.\n"
        "-  is an archive (tar), to standard output or from standard input."
    )
    add = parser.add_argument
    add("-a", "--archive", action="store_true", help="owners stay who they are (they become root, or the caller)")
    add("-L", "--follow-link", action="store_true", help="of a symbolic link, what it leads to")
    add("source", metavar="SOURCE")
    add("target", metavar="TARGET")


def cp(arguments: argparse.Namespace) -> int:
    """``minicontainer cp``."""
    _let_interrupt()
    engine = _engine(arguments)
    source, target = (_place(engine, text) for text in (arguments.source, arguments.target))
    if target.is_stream and os.isatty(1):
        raise EngineError("an archive is not for a terminal: cp … - | program")
    if source.is_stream and os.isatty(0):
        raise EngineError("cp - reads an archive, and standard input is a terminal")
    engine.copy(
        source,
        target,
        archive=arguments.archive,
        follow=arguments.follow_link,
        stdin=sys.stdin.buffer,
        stdout=sys.stdout.buffer,
    )
    return 0


def _place(engine: Engine, text: str) -> Place:
    """``NAME:PATH`` is in a container, unless it begins like a path: docker's rule."""
    from minicontainer.engine.copying import Place

    name, colon, path = text.partition(":")
    if not text:
        raise EngineError("cp: a path is empty")
    if not colon or "/" in name or name.startswith("."):
        return Place(text)
    if not path:
        raise EngineError(f'cp: say which file, such as "{name}:/etc/passwd"')
    return Place(path, engine.store.find(name))


def export_options(parser: Parser) -> None:
    """Of ``export``."""
    parser.add_argument("-o", "--output", metavar="FILE", help="write there (to standard output)")
    parser.add_argument("container", metavar="CONTAINER", help="name, or the beginning of the id")


def export(arguments: argparse.Namespace) -> int:
    """``minicontainer export``: a file is there whole, or not at all."""
    _let_interrupt()
    engine = _engine(arguments)
    config = engine.store.find(arguments.container)
    if arguments.output is None:
        if os.isatty(1):
            raise EngineError("an archive is not for a terminal: export -o FILE, or export … | program")
        engine.export(config, sys.stdout.buffer)
        return 0
    unfinished = f"{arguments.output}.{os.getpid()}"
    try:
        with open(unfinished, "xb") as file:
            engine.export(config, file)
        os.rename(unfinished, arguments.output)
    except OSError as error:
        raise EngineError(f"cannot write {arguments.output}: {error.strerror}") from None
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
    return 0


def import_options(parser: Parser) -> None:
    """Of ``import``."""
    add = parser.add_argument
    add("-c", "--change", action="append", default=[], metavar="INSTRUCTION", help='as in a Containerfile: "CMD sh"')
    add("-m", "--message", default="", metavar="TEXT", help="what to remember it by")
    add("file", metavar="FILE|-", help="an archive with a root file system, compressed or not; -: standard input")
    add("name", nargs="?", default="", metavar="NAME[:TAG]", help="what the image shall be called")


def import_archive(arguments: argparse.Namespace) -> int:
    """``minicontainer import``: prints the image's id."""
    _let_interrupt()
    from minicontainer.engine.making import import_archive

    making = _engine(arguments).making()
    if arguments.file == "-":
        if os.isatty(0):
            raise EngineError("import - reads an archive, and standard input is a terminal")
        image = import_archive(making, sys.stdin.buffer, arguments.name, arguments.change, arguments.message)
    else:
        try:
            file = open(arguments.file, "rb")  # noqa: SIM115
        except OSError as error:
            raise EngineError(f"cannot read {arguments.file}: {error.strerror}") from None
        with file:
            name = os.path.basename(arguments.file)
            image = import_archive(making, file, arguments.name, arguments.change, arguments.message, name)
    print(image.id)
    return 0


# image make, image mount


def make_options(parser: Parser) -> None:
    """Of ``image make``."""
    parser.epilog = (
        "busybox NAME         the host's static busybox; needs no network\n"
        "debian NAME          of packages: --suite, --mirror, --include; made once, then found again\n"
        "ubuntu NAME          likewise\n"
        "tar FILE NAME        an archive with a root file system\n"
        "dir DIRECTORY NAME   what is in a directory\n"
        "oci LAYOUT[:REF] NAME   an image in an OCI layout"
    )
    add = parser.add_argument
    add("--suite", default="", metavar="NAME", help="which release (of debian, the host's own)")
    add("--mirror", action="append", default=[], metavar="URL", help='or a whole line: "deb URL SUITE main"')
    add("--variant", default="minbase", metavar="NAME", help="how much of it, in the builder's words (minbase)")
    add("--include", action="append", default=[], metavar="PACKAGE[,…]", help="packages beside")
    add("--builder", default="", metavar="PROGRAM", help="mmdebstrap or debootstrap (what there is)")
    add("--fresh", action="store_true", help="do not take what was made before of the same wishes")
    add("--platform", default="", metavar="OS/ARCH", help="oci: of an image for several machines")
    add("-c", "--change", action="append", default=[], metavar="INSTRUCTION", help='as in a Containerfile: "CMD sh"')
    add("template", metavar="TEMPLATE", help="see below")
    add("words", nargs="+", metavar="[SOURCE] NAME[:TAG]", help="of what, and what it shall be called")


def make(arguments: argparse.Namespace) -> int:
    """``minicontainer image make``: prints the image's id."""
    _let_interrupt()
    from minicontainer.engine.making import TEMPLATES, make_image
    from minicontainer.images.templates import DISTRIBUTIONS, Packages

    template, words = arguments.template, arguments.words
    if template not in TEMPLATES:
        raise EngineError(f'there is no template "{template}"; there are {", ".join(TEMPLATES)}')
    with_source = template in ("tar", "dir", "oci")
    if len(words) != 1 + with_source:
        what = {"tar": "FILE NAME", "dir": "DIRECTORY NAME", "oci": "LAYOUT[:REF] NAME"}.get(template, "NAME")
        raise EngineError(f"write: minicontainer image make {template} {what}")
    packages = None
    if template in DISTRIBUTIONS:
        include = tuple(one for text in arguments.include for one in text.split(",") if one)
        packages = Packages(
            template, arguments.suite, tuple(arguments.mirror), arguments.variant, include, arguments.builder
        )
    image = make_image(
        _engine(arguments).making(), template, words[-1], words[0] if with_source else "", packages, arguments.change,
        platform=arguments.platform, fresh=arguments.fresh,
    )  # fmt: skip
    print(image.id)
    return 0


def mount_options(parser: Parser) -> None:
    """Of ``image mount``."""
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="its name, or the beginning of its id")
    parser.add_argument("directory", nargs="?", metavar="DIRECTORY", help="where its files shall be seen")


def mount(arguments: argparse.Namespace) -> int:
    """``minicontainer image mount``: prints the directory; without an image, what is mounted where."""
    _let_interrupt()
    from minicontainer.engine.image_mounts import mounted_images

    engine = _engine(arguments)
    engine.store.prepare()
    if arguments.image is None:
        rows: list[tuple[str, ...]] = [("IMAGE", "IMAGE ID", "DIRECTORY")]
        rows += [(one.image, one.image_id[7:19], one.directory) for one in mounted_images(engine.store)]
        formats.print_table(rows)
        return 0
    if arguments.directory is None:
        raise EngineError(f"image mount: say where, such as: minicontainer image mount {arguments.image} /mnt")
    print(engine.mount_image(arguments.image, arguments.directory).directory)
    return 0


def unmount_options(parser: Parser) -> None:
    """Of ``image unmount``."""
    parser.add_argument("-a", "--all", action="store_true", help="all that are mounted")
    parser.add_argument("directories", nargs="*", metavar="DIRECTORY", help="where an image is mounted")


def unmount(arguments: argparse.Namespace) -> int:
    """``minicontainer image unmount``: prints what was; goes on after one that could not be."""
    from minicontainer.engine.image_mounts import mounted_images, repair

    engine, code = _engine(arguments), 0
    engine.store.prepare()
    if not arguments.directories and not arguments.all:
        raise EngineError("image unmount: say where, or --all")
    chosen = [one.directory for one in mounted_images(engine.store)] if arguments.all else arguments.directories
    for directory in chosen:
        try:
            engine.unmount_image(directory)
            print(directory)
        except EngineError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 1
    if arguments.all:
        repair(engine.store)
    return code
