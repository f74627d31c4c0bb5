"""Registries on the command line: ``pull``, ``push``, ``login``, ``logout``, ``search``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from minicontainer.cli import formats
from minicontainer.cli.commands import _engine, _let_interrupt, _printable
from minicontainer.engine.errors import EngineError
from minicontainer.engine.images import told
from minicontainer.engine.registries import SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minicontainer.engine.engine import Engine
    from minicontainer.images.authentication import Login
    from minicontainer.images.documents import Descriptor
    from minicontainer.images.registry import Registry
    from minicontainer.images.transfer import Progress


def pull(arguments: argparse.Namespace) -> int:
    """``minicontainer pull``: fetch images, unpack them, and print what they are called."""
    _let_interrupt()
    with told():
        from minicontainer.images.documents import parse_platform
        from minicontainer.images.references import parse_reference

        engine = _engine(arguments)
        platform = parse_platform(arguments.platform) if arguments.platform else None
        for reference in [parse_reference(text) for text in arguments.images]:
            with _registries(arguments, engine, reference.registry) as sources, _progress(arguments) as progress:
                engine.pull(reference, sources, platform, progress, arguments.parallel)
            print(reference.canonical)
    return 0


def push(arguments: argparse.Namespace) -> int:
    """``minicontainer push``: bring an image to the registry that its name says, and print its digest."""
    _let_interrupt()
    with told():
        from minicontainer.images import transfer
        from minicontainer.images.references import parse_reference

        engine, reference = _engine(arguments), parse_reference(arguments.image)
        with _registries(arguments, engine, reference.registry) as sources, _progress(arguments) as progress:
            descriptor = transfer.push(
                reference, engine.images().content, sources[-1], progress=progress, parallel=arguments.parallel
            )
        print(f"{reference.canonical.partition('@')[0]}@{descriptor.digest}")
    return 0


def login(arguments: argparse.Namespace) -> int:
    """``minicontainer login``: keep a password that the registry has accepted, where docker keeps its own."""
    _let_interrupt()
    with told():
        from minicontainer.images.authentication import save_login

        name, known = _registry_name(arguments.registry), _asked(arguments)
        with _registries(arguments, _engine(arguments), name, login=known) as sources:
            sources[-1].check()
        print(f"Logged in to {name} as {known.user}; kept in {save_login(name, known)}")
    return 0


def logout(arguments: argparse.Namespace) -> int:
    """``minicontainer logout``."""
    _let_interrupt()
    with told():
        from minicontainer.images.authentication import forget_login

        name = _registry_name(arguments.registry)
        if not forget_login(name):
            raise EngineError(f"nobody is logged in to {name}")
        print(f"Logged out of {name}")
    return 0


def search(arguments: argparse.Namespace) -> int:
    """``minicontainer search``: repositories of a registry with a word in their names, or a repository's tags."""
    _let_interrupt()
    with told():
        from itertools import islice

        from minicontainer.images.references import DOCKER_HUB, Reference, parse_reference

        if arguments.list_tags:
            reference, word = parse_reference(arguments.name), ""
        else:
            name, _, word = arguments.name.partition("/")
            reference = Reference(_registry_name(name), "") if _is_registry(name) else Reference(DOCKER_HUB, "")
            if reference.registry == DOCKER_HUB:
                name = _printable(arguments.name)
                raise EngineError("Docker Hub does not list its repositories: name another registry first, as in: "
                                  f"minicontainer search localhost:5000/{name}")  # fmt: skip
        with _registries(arguments, _engine(arguments), reference.registry) as sources:
            if arguments.list_tags:
                tags = islice(sources[-1].tags(reference.repository), arguments.limit)
                formats.print_table([("NAME", "TAG"), *((reference.name, tag) for tag in tags)])
            else:
                found = (one for one in sources[-1].repositories() if word in one)
                shown = ((f"{reference.registry}/{one}",) for one in islice(found, arguments.limit))
                formats.print_table([("NAME",), *shown])
    return 0


# -- options -----------------------------------------------------------------------------------------------------------


def pull_options(parser: argparse.ArgumentParser) -> None:
    """Of ``pull``."""
    _transfer_options(parser)
    add = parser.add_argument
    add("--platform", metavar="OS/ARCH[/VARIANT]", help="of an image for several machines, the one for this (our own)")
    add("images", nargs="+", metavar="IMAGE", help="[REGISTRY/]NAME[:TAG][@DIGEST]; docker.io unless REGISTRY is given")


def push_options(parser: argparse.ArgumentParser) -> None:
    """Of ``push``."""
    _transfer_options(parser)
    parser.add_argument("image", metavar="IMAGE", help="REGISTRY/NAME[:TAG], a name that an image has here")


def login_options(parser: argparse.ArgumentParser) -> None:
    """Of ``login``."""
    add = parser.add_argument
    add("-u", "--username", metavar="NAME", help="who you are there (asked for)")
    add("--password-stdin", action="store_true", help="the password is what standard input has (asked for)")
    _connection_options(parser)
    _registry(parser)


def logout_options(parser: argparse.ArgumentParser) -> None:
    """Of ``logout``."""
    _registry(parser)


def search_options(parser: argparse.ArgumentParser) -> None:
    """Of ``search``."""
    add = parser.add_argument
    add("--list-tags", action="store_true", help="NAME is a repository: list its tags")
    add("--limit", type=_count, default=100, metavar="N", help="at most so many (100)")
    _connection_options(parser)
    add("name", metavar="NAME", help="REGISTRY[/WORD], such as localhost:5000/deb; or a repository")


def _transfer_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="no progress, only what it is called in the end")
    add("--parallel", type=_count, default=4, metavar="N", help="so many layers at once (4)")
    _connection_options(parser)


def _connection_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--ca", default="", metavar="FILE", help="certificates of who may vouch for the registry, in PEM form")
    add("--retry", type=_count, default=5, metavar="N", help="attempts, until a registry that fails is given up (5)")
    add("--retry-delay", type=_seconds, default=0.3, metavar="S", help="seconds before the second, then doubled (0.3)")
    add("--timeout", type=_seconds, default=30.0, metavar="S", help="seconds of silence, until it has failed (30)")


def _registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registry", nargs="?", default="docker.io", metavar="REGISTRY", help="HOST[:PORT] (docker.io)")


def _count(text: str) -> int:
    from minicontainer.cli.limits import whole

    if (number := whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1")
    return number


def _seconds(text: str) -> float:
    from minicontainer.cli.limits import decimal

    if not 0 < (number := decimal(text)) <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: more than 0 s, and no more than a day")
    return number


# -- from them to a client ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _registries(
    arguments: argparse.Namespace, engine: Engine, name: str, login: Login | None = None
) -> Iterator[list[Registry]]:
    """Clients for a registry's mirrors, and for itself, which is the last."""
    from minicontainer.images.endpoints import endpoints_of, read_settings
    from minicontainer.images.registry import Patience, Registry

    patience = Patience(arguments.retry, arguments.retry_delay, silence=arguments.timeout)
    settings = read_settings(f"{engine.store.root}/{SETTINGS}")
    parallel = getattr(arguments, "parallel", 1)
    registries = [
        Registry(endpoint, patience, login, parallel) for endpoint in endpoints_of(name, settings, arguments.ca)
    ]
    try:
        yield registries
    finally:
        for registry in registries:
            registry.close()


def _is_registry(text: str) -> bool:
    """As in a reference: what could be no name of Docker Hub's."""
    return "." in text or ":" in text or text == "localhost"


def _registry_name(text: str) -> str:
    """HOST[:PORT], also out of a URL. Raises ImageError."""
    from minicontainer.images.references import parse_reference

    host = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    if host in ("docker.io", "index.docker.io", "registry-1.docker.io", "index.docker.io/v1"):
        return "docker.io"
    if "/" in host or not _is_registry(host):
        raise EngineError(f'"{_printable(text)}" is no registry: write HOST[:PORT], such as localhost:5000')
    return parse_reference(f"{host}/x").registry


def _asked(arguments: argparse.Namespace) -> Login:
    """User and password, from options, standard input, or the terminal."""
    from minicontainer.images.authentication import Login

    user = arguments.username
    if arguments.password_stdin:
        if not user:
            raise EngineError("--password-stdin wants --username as well")
        password = sys.stdin.read().rstrip("\r\n")
    elif not os.isatty(0):
        raise EngineError("login asks for a password at a terminal, and standard input is none: use --password-stdin")
    else:
        import getpass

        user = user or input("Username: ")
        password = getpass.getpass("Password: ")
    if not user or not password or ":" in user:
        raise EngineError("a registry wants a user, without a colon in its name, and a password")
    return Login(user, password)


# -- what is seen of it ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(arguments: argparse.Namespace) -> Iterator[Progress]:
    """Bars on a terminal, a line for each layer that is done elsewhere, nothing with --quiet."""
    if not arguments.quiet and os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb":
        from minicontainer.cli.progress import bars

        with bars() as progress:
            yield progress
    else:
        yield _lines(arguments.quiet)


def _lines(quiet: bool) -> Progress:
    from minicontainer.images.transfer import Progress, is_layer

    class Lines(Progress):
        """A line when a layer is where it belongs."""

        def end(self, blob: Descriptor, how: str) -> None:
            if not quiet and is_layer(blob) and how != "unpacked":
                note = "" if how in ("pulled", "pushed") else f", {how}"
                line = f"layer {blob.digest} {shown_size(blob.size)}{note}\n"
                print(line, end="", flush=True)  # in one piece: there are several threads

        def remark(self, text: str) -> None:
            print(f"minicontainer: {text}", file=sys.stderr)

    return Lines()


def shown_size(size: int) -> str:
    """Bytes as people write them: 12.3 MB."""
    number, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while number >= 999.95 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.1f} {units[0]}" if units[0] != "B" else f"{size} B"
