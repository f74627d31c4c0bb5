"""References: how people name images, ``debian:12``, and what that is short for, ``docker.io/library/debian:12``.

The grammar is that of distribution's `reference` package, which docker, podman and skopeo share:
https://pkg.go.dev/github.com/distribution/reference. Read by hand: `re` would take longer to compile it than a
container to start.
"""

from __future__ import annotations

from minicontainer.images.errors import ImageError
from minicontainer.record import Record

DOCKER_HUB = "docker.io"

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_WORD = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HEX = frozenset("0123456789abcdef")

_DIGITS = {"sha256": 64, "sha512": 128}
"""How many hexadecimal digits a digest has, by its algorithm."""


class Reference(Record):
    """An image's name, in full; of `tag` and `digest` at least one is not empty."""

    registry: str
    """Its host and, perhaps, port: ``docker.io``, ``localhost:5000``, ``[::1]:5000``."""
    repository: str
    """``library/debian``."""
    tag: str = ""
    digest: str = ""

    @property
    def canonical(self) -> str:
        """All of it: ``docker.io/library/debian:12``. It stands for the same image everywhere."""
        return f"{self.registry}/{self.repository}{self._end}"

    @property
    def familiar(self) -> str:
        """What people write: ``debian:12``."""
        return f"{self.name}{self._end}"

    @property
    def name(self) -> str:
        """The familiar name without tag and digest: ``debian``."""
        first, slash, _ = self.repository.partition("/")
        if self.registry != DOCKER_HUB or (slash and _names_a_registry(first)):
            return f"{self.registry}/{self.repository}"
        official = self.repository.removeprefix("library/")
        return official if "/" not in official else self.repository

    @property
    def _end(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """The reference that somebody has written, or that an index names; without a tag and a digest, the tag is "latest".

    Raises ImageError, in one line that shows what was written with nothing in it that a terminal would obey.
    """
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _odd(text, "a digest is sha256: and 64 of the hexadecimal digits 0-9a-f")
    rest, colon, tag = rest.rpartition(":") if ":" in rest.rpartition("/")[2] else (rest, "", "")
    if colon and not _is_tag(tag):
        raise _odd(text, 'a tag is up to 128 letters, digits, "_", "." and "-", and not one of ".-" first')
    registry, slash, repository = rest.partition("/")
    if not (slash and _names_a_registry(registry)):
        registry, repository = DOCKER_HUB, rest
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and repository and "/" not in repository:
        repository = f"library/{repository}"
    if not _is_host(registry):
        raise _odd(text, "before the first slash is a host, and its port after a colon")
    if not repository or not all(map(_is_component, repository.split("/"))):
        what = "capital letters" if repository != repository.lower() and repository.isascii() else "that"
        raise _odd(
            text, f'a name is of a-z and 0-9 with ".", "_", "__" or "-" between and slashes; {what} cannot be in it'
        )
    if len(registry) + len(repository) > 255:
        raise _odd(text, f"a name has up to 255 characters, this one has {len(registry) + len(repository)}")
    if len(rest) == 64 and _HEX.issuperset(rest):
        raise _odd(text, "64 hexadecimal digits are an image's id, and no name")
    return Reference(registry, repository, tag if tag or digest else "latest", digest)


def is_digest(text: str) -> bool:
    """Whether it is a digest that we can verify: sha256 or sha512, a colon, and as many lower-case digits as there must
    be. So there is no slash in it, and it may become the name of a file."""
    algorithm, _, digits = text.partition(":")
    return len(digits) == _DIGITS.get(algorithm) and _HEX.issuperset(digits)


def shown(text: str) -> str:
    """What somebody else has written, short, on one line, and nothing in it that a terminal would take for an order."""
    clean = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:300])
    return clean if len(text) <= 300 else f"{clean}…"


def _names_a_registry(part: str) -> bool:
    """What comes before the first slash is a host if it could be no name of Docker Hub's."""
    return "." in part or ":" in part or part == "localhost" or part != part.lower()


def _is_host(text: str) -> bool:
    if text.startswith("["):  # an IPv6 address
        address, bracket, port = text[1:].partition("]")
        inside = bool(bracket and address) and set(address.lower()) <= _HEX | {":"}
        return inside and (not port or (port[0] == ":" and _is_port(port[1:])))
    host, colon, port = text.partition(":")
    labels = host.split(".")
    fine = all(label and _WORD | {"-"} >= set(label) and "-" not in (label[0], label[-1]) for label in labels)
    return fine and (not colon or _is_port(port))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 1 << 16


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= 128 and set(text) <= _WORD | {"_", ".", "-"} and text[0] not in ".-"


def _is_component(text: str) -> bool:
    """Words of a-z0-9, with one of . _ __ or any number of - between two of them."""
    if not text or not set(text) <= _LOWER | {".", "_", "-"} or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    between = "".join(c if c not in _LOWER else " " for c in text).split()
    return all(part in (".", "_", "__") or set(part) == {"-"} for part in between)


def _odd(text: str, rule: str) -> ImageError:
    return ImageError(f'"{shown(text)}" cannot be an image: {rule}')
