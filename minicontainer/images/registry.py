"""A client of any registry: the OCI distribution specification over HTTP.

    GET /v2/                                            is it a registry, and does it know us
    GET /v2/NAME/manifests/TAG-or-DIGEST                a manifest, or an index of several
    HEAD GET /v2/NAME/blobs/DIGEST                      a layer or a configuration; Range: bytes=N- for the rest of it
    POST /v2/NAME/blobs/uploads/[?mount=DIGEST&from=…]  begin an upload, or have the registry take it from another name;
                                                        Location says where it goes on
    PATCH, PUT …?digest=DIGEST                          some of it; the rest of it, and what it must be
    PUT /v2/NAME/manifests/TAG-or-DIGEST
    GET /v2/NAME/tags/list, GET /v2/_catalog            in pages, Link: …; rel="next"

What fails but may work a moment later (429, 5xx, a connection that is refused or breaks) is tried again, after a pause
that doubles, or is as long as Retry-After asks for, within the bounds of `Patience`. What has arrived of a blob stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import quote, urlencode, urljoin, urlsplit

from minicontainer.images.authentication import Authorizer, Login, find_login
from minicontainer.images.documents import DOCUMENT_LIMIT, INDEXES, MANIFESTS
from minicontainer.images.endpoints import Endpoint, pool
from minicontainer.images.errors import ImageError
from minicontainer.images.references import shown
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeVar

    import urllib3
    from urllib3.response import BaseHTTPResponse

    class Writer(Protocol):
        """Where a blob goes; knows how much of it is there already."""

        @property
        def offset(self) -> int: ...
        def write(self, chunk: bytes) -> None: ...
        def restart(self) -> None: ...

    T = TypeVar("T")
    Body = Any
    """What urllib3 takes: bytes, or an object to read from."""

ANSWER_LIMIT = 8 << 20
"""Bytes of a page of names, or of a token."""
CHUNK = 32 << 20
"""Bytes; a blob that is larger is uploaded in several parts, each of which need not be sent again."""
AT_ONCE = 1 << 18
"""Bytes that are read, hashed and written in one go."""
REDIRECTS = 5
PAGES = 10_000
RETRIED = (408, 429, 500, 502, 503, 504)


class Patience(Record):
    """How often something is tried, and how long is waited."""

    attempts: int = 5
    """Without any progress between them."""
    pause: float = 0.3
    """Seconds before the second; doubled from one to the next."""
    longest: float = 60.0
    """Seconds; a registry that asks for a longer pause is taken at its word, and not tried again."""
    connect: float = 10.0
    """Seconds until a host that does not answer is not there."""
    silence: float = 30.0
    """Seconds without a byte, after which a connection is given up."""


class RegistryError(ImageError):
    """A registry did not do what it was asked; `status` is HTTP's (0: no answer), `code` the registry's own."""

    def __init__(self, text: str, status: int = 0, code: str = "") -> None:
        super().__init__(text)
        self.status, self.code = status, code


class Transient(RegistryError):
    """It may work a moment later; `after` seconds, if the registry has said when."""

    def __init__(self, text: str, status: int = 0, after: float = 0) -> None:
        super().__init__(text, status)
        self.after = after


class Stopped(ImageError):
    """Somebody has called `Registry.stop`."""


class Registry:
    """One registry, or a mirror of one. May be used by several threads at once."""

    def __init__(
        self, endpoint: Endpoint, patience: Patience | None = None, login: Login | None = None, connections: int = 4
    ) -> None:
        """`login` in place of what `find_login` finds."""
        self.endpoint, self.name, self.patience = endpoint, endpoint.name, patience or Patience()
        self._connections, self._pools = connections, dict[str, "urllib3.PoolManager"]()
        self._login, self._repository = login, ""
        plain_http = endpoint.base.startswith("http:")
        self._authorizer = Authorizer(self.name, self._fetch, self._who, plain_http=plain_http)
        self._stopped, self._reading, self._lock = threading.Event(), set["BaseHTTPResponse"](), threading.Lock()

    def stop(self) -> None:
        """Have whatever goes on in other threads end with `Stopped`."""
        self._stopped.set()
        with self._lock:
            for response in self._reading:
                with contextlib.suppress(ValueError, RuntimeError, OSError):  # it has just ended
                    response.shutdown()

    def close(self) -> None:
        """Give up the connections."""
        for manager in self._pools.values():
            for key in manager.pools.keys():  # noqa: SIM118 (it is no dict)
                manager.pools[key].close()  # which `clear` leaves to the garbage collector
            manager.clear()

    # Is it there, what does it have

    def check(self) -> None:
        """Raises ImageError: it is no registry, or does not know us."""
        response = self._request("GET", "/v2/", [])
        if response.status != 200:
            raise self._refusal(response, "speak to")
        self._end(response)

    def repositories(self) -> Iterator[str]:
        """The names of all repositories that it shows. Raises RegistryError: most public ones show none."""
        yield from self._pages("/v2/_catalog?n=1000", "repositories", ["registry:catalog:*"])

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of a repository."""
        yield from self._pages(self._path(repository, "tags/list?n=1000"), "tags", [self._scope(repository)])

    # Down

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """The media type that it gives, and the bytes, checked against their digest before anybody reads them."""
        path = self._path(repository, f"manifests/{reference}")
        response = self._request("GET", path, [self._scope(repository)], {"Accept": ", ".join([*INDEXES, *MANIFESTS])})
        if response.status != 200:
            raise self._refusal(response, f"get {repository}:{reference} from")
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        claimed = response.headers.get("Docker-Content-Digest", "")
        raw = self._body(response, DOCUMENT_LIMIT, "a manifest")
        for digest in {reference, claimed}:
            algorithm, colon, _ = digest.partition(":")
            if colon and algorithm in ("sha256", "sha512"):
                found = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
                if found != digest:
                    raise RegistryError(f"{self.name} sends another manifest than {digest}: its digest is {found}")
        return media_type, raw

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether it has it, in this repository."""
        response = self._request(
            "HEAD", self._path(repository, f"blobs/{digest}"), [self._scope(repository, "pull,push")]
        )
        if response.status not in (200, 404):
            raise self._refusal(response, f"look for {digest} in")
        self._end(response)
        return response.status == 200

    def download(
        self, repository: str, digest: str, size: int, writer: Writer, told: Callable[[int], None], url: str = ""
    ) -> None:
        """What is missing of a blob, into `writer`, which checks it; `told` of every so many bytes.

        `url` is where to get it when it is not the registry that has it (a foreign layer).
        """
        what = url or self._path(repository, f"blobs/{digest}")

        def the_rest() -> None:
            if writer.offset < size:
                self._download(what, [] if url else [self._scope(repository)], size, writer, told)

        self._persist(the_rest, lambda: writer.offset >> 20)

    def _download(
        self, what: str, scopes: Sequence[str], size: int, writer: Writer, told: Callable[[int], None]
    ) -> None:
        """One attempt. RFC 9110, section 14: 206 goes on where we are, 200 begins again, 416 knows no such place."""
        headers = {"Range": f"bytes={writer.offset}-"} if writer.offset else {}
        response = self._once("GET", what, scopes, headers)
        content_range = response.headers.get("Content-Range", "")
        if response.status == 416 or (
            response.status == 206 and not content_range.startswith(f"bytes {writer.offset}-")
        ):
            response.close()
            told(-writer.offset)
            writer.restart()
            response = self._once("GET", what, scopes, {})
        if response.status not in (200, 206):
            raise self._refusal(response, "get a blob from")
        if response.status == 200 and writer.offset:
            told(-writer.offset)
            writer.restart()
        for chunk in self._stream(response):
            if writer.offset + len(chunk) > size:
                response.close()
                writer.restart()
                raise RegistryError(f"{self.name} sends more than the {size} bytes that the blob has by its manifest")
            writer.write(chunk)
            told(len(chunk))
        if writer.offset < size:
            raise Transient(f"{self.name} has sent {writer.offset} of {size} bytes, and no more")

    # Up

    def upload(
        self, repository: str, digest: str, size: int, file: int, told: Callable[[int], None], mount_from: str = ""
    ) -> bool:
        """A blob, from an open file. False: the registry had it in `mount_from` already, and took it from there."""
        scopes = [self._scope(repository, "pull,push"), *([self._scope(mount_from)] if mount_from else [])]
        place, sent, moved, said = "", 0, True, 0

        def say(count: int) -> None:
            nonlocal said
            said += count
            told(count)

        def the_rest() -> None:
            nonlocal place, sent, moved
            if place:  # an attempt has failed, and it may have been just the answer that was lost
                if self.has_blob(repository, digest):
                    return
                place, sent = self._reached(place, scopes)
                say(sent - said)
            if not place or sent > size:
                sent, place = 0, self._begin(repository, digest, scopes, mount_from)
                moved = bool(place)
            while size > CHUNK and sent < size and moved:
                part = _Part(file, sent, min(CHUNK, size - sent), say)
                place, sent = self._append(place, scopes, part)
            if moved:
                self._finish(place, scopes, _Part(file, sent, size - sent, say), digest)

        self._persist(the_rest, lambda: sent // CHUNK)
        return moved

    def _begin(self, repository: str, digest: str, scopes: Sequence[str], mount_from: str) -> str:
        """Returns where to send it; empty if that is not needed."""
        query = "?" + urlencode({"mount": digest, "from": mount_from}) if mount_from else ""
        path = self._path(repository, f"blobs/uploads/{query}")
        response = self._once("POST", path, scopes, {"Content-Length": "0"})
        if response.status == 201 and mount_from:
            self._end(response)
            return ""
        return self._place(response, path, 202, f"push to {repository} in")

    def _append(self, place: str, scopes: Sequence[str], part: _Part) -> tuple[str, int]:
        """Returns where to go on, and how much it has."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(part.length),
            "Content-Range": f"{part.begin}-{part.begin + part.length - 1}",
        }
        response = self._once("PATCH", place, scopes, headers, part.again)
        if response.status == 416:
            self._end(response)
            raise Transient(f"{self.name} does not have what was sent before (HTTP status 416)", 416)
        return self._place(response, place, 202, "push a part of a blob to"), part.begin + part.length

    def _finish(self, place: str, scopes: Sequence[str], part: _Part, digest: str) -> None:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(part.length)}
        if part.begin and part.length:
            headers["Content-Range"] = f"{part.begin}-{part.begin + part.length - 1}"
        url = f"{place}{'&' if urlsplit(place).query else '?'}{urlencode({'digest': digest})}"
        response = self._once("PUT", url, scopes, headers, part.again)
        if response.status != 201:
            raise self._refusal(response, f"push {digest} to")
        self._end(response)

    def _reached(self, place: str, scopes: Sequence[str]) -> tuple[str, int]:
        """Where an upload goes on that broke off, and how much has arrived; nowhere, if it is not known there any more.

        "0-0" may be one byte or none: as good as none.
        """
        response = self._once("GET", place, scopes, {})
        _, _, last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if response.status not in (200, 204) or not last.isdigit() or last == "0":
            self._end(response)
            return "", 0
        return self._place(response, place, response.status, "go on with a push to"), int(last) + 1

    def _place(self, response: BaseHTTPResponse, asked: str, status: int, what: str) -> str:
        """The address that a registry gives for what is left to do, absolute, or relative to what was `asked` for."""
        location = response.headers.get("Location", "") or (asked if response.status in (200, 204) else "")
        if response.status != status or not location:
            raise self._refusal(response, what)
        self._end(response)
        return urljoin(urljoin(self.endpoint.base, asked), location)

    def put_manifest(self, repository: str, reference: str, media_type: str, raw: bytes) -> None:
        """Last, when all that it names is there. Raises RegistryError: it is not taken, or taken for something else."""
        path = self._path(repository, f"manifests/{reference}")
        headers = {"Content-Type": media_type}
        response = self._request("PUT", path, [self._scope(repository, "pull,push")], headers, raw)
        if response.status not in (200, 201, 202):
            raise self._refusal(response, f"push {repository}:{reference} to")
        claimed = response.headers.get("Docker-Content-Digest", "")
        self._end(response)
        if claimed.startswith("sha256:") and claimed != f"sha256:{hashlib.sha256(raw).hexdigest()}":
            raise RegistryError(f"{self.name} has taken {repository}:{reference} for {claimed}, which it is not")

    # One request

    def _request(
        self, method: str, what: str, scopes: Sequence[str], headers: Mapping[str, str] = {}, body: bytes | None = None
    ) -> BaseHTTPResponse:
        """Asked until it is answered."""
        return self._persist(lambda: self._once(method, what, scopes, headers, (lambda: body) if body else None))

    def _persist(self, act: Callable[[], T], reached: Callable[[], int] = lambda: 0) -> T:
        """Try until it works; give up after so many attempts in which `reached` has not moved."""
        failures, before = 0, reached()
        while True:
            try:
                return act()
            except Transient as error:
                failures, before = (failures + 1 if reached() == before else 1), reached()
                pause = max(self.patience.pause * 2 ** (failures - 1), error.after)
                if pause > self.patience.longest and error.after:
                    raise RegistryError(f"{error}; it wants to be left alone for {pause:.0f} s", error.status) from None
                if failures >= self.patience.attempts:
                    raise RegistryError(f"{error}; tried {failures} times", error.status) from None
                if self._stopped.wait(min(pause, self.patience.longest)):
                    raise Stopped("interrupted") from None

    def _once(
        self,
        method: str,
        what: str,
        scopes: Sequence[str],
        headers: Mapping[str, str],
        body: Callable[[], Body] | None = None,
    ) -> BaseHTTPResponse:
        """Asked once; and once more with a new answer to the question who we are. Raises Transient, ImageError."""
        url = urljoin(self.endpoint.base, what)
        ours = _origin(url) == _origin(self.endpoint.base)
        value = self._authorizer.value(scopes) if ours else ""
        response = self._send(method, url, {**headers, "Authorization": value} if value else headers, body)
        challenges = response.headers.getlist("WWW-Authenticate")
        if response.status == 401 and ours and self._authorizer.answer(challenges, scopes, value):
            self._end(response)
            value = self._authorizer.value(scopes)
            response = self._send(method, url, {**headers, "Authorization": value}, body)
        if response.status in RETRIED:
            after = _retry_after(response.headers.get("Retry-After", ""))
            said = self._said(response)[0]
            raise Transient(f"{self.name} answers with {said}", response.status, after)
        return response

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Callable[[], Body] | None = None
    ) -> BaseHTTPResponse:
        """Over the wire, and after redirections; what we are known by goes to nobody but whom it was meant for."""
        for _ in range(REDIRECTS):
            if self._stopped.is_set():
                raise Stopped("interrupted")
            with self._in_words(url):
                response = self._pool(url).request(
                    method, url, headers={"Accept-Encoding": "identity", **headers}, body=body() if body else None,
                    redirect=False, preload_content=False,
                )  # fmt: skip
            location = response.headers.get("Location")
            if method not in ("GET", "HEAD") or response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            self._end(response)
            target = urljoin(url, location)
            if urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
                raise RegistryError(
                    f"{self.name} sends us from {_origin(url)} to {_origin(target)}, which is not as safe"
                )
            if _origin(target) != _origin(url):
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise RegistryError(f"{self.name} sends us from one place to another, {REDIRECTS} times")

    def _pool(self, url: str) -> urllib3.PoolManager:
        origin = _origin(url)
        with self._lock:
            if origin not in self._pools:
                patience, own = self.patience, origin == _origin(self.endpoint.base)
                place = self.endpoint.replace(base=origin, certificate=self.endpoint.certificate if own else None)
                self._pools[origin] = pool(place, self._connections, patience.connect, patience.silence)
            return self._pools[origin]

    def _fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        """For the authorizer: ask a realm."""
        response = self._send(method, url, headers, (lambda: body) if body else None)
        if response.status in RETRIED:
            after = _retry_after(response.headers.get("Retry-After", ""))
            raise Transient(f"{_origin(url)} answers with {self._said(response)[0]}", response.status, after)
        return response.status, self._body(response, ANSWER_LIMIT, "a token")

    def _who(self) -> Login | None:
        return self._login or find_login(self.name, self._repository)

    def _scope(self, repository: str, actions: str = "pull") -> str:
        self._repository = self._repository or f"{self.endpoint.prefix}{repository}"
        return f"repository:{self.endpoint.prefix}{repository}:{actions}"

    def _path(self, repository: str, rest: str) -> str:
        return f"/v2/{quote(self.endpoint.prefix + repository)}/{rest}"

    # What comes back

    def _stream(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        """The body as it arrives; can be ended by `stop`."""
        with self._lock:
            self._reading.add(response)
        try:
            while True:
                if self._stopped.is_set():
                    raise Stopped("interrupted")
                with self._in_words(self.endpoint.base):
                    chunk = response.read1(AT_ONCE, decode_content=False)
                if not chunk:
                    break
                yield chunk
            if self._stopped.is_set():
                raise Stopped("interrupted")
        except BaseException:
            response.close()
            raise
        finally:
            with self._lock:
                self._reading.discard(response)
        response.release_conn()

    def _body(self, response: BaseHTTPResponse, limit: int, what: str) -> bytes:
        found = bytearray()
        for chunk in self._stream(response):
            found += chunk
            if len(found) > limit:
                response.close()
                raise RegistryError(f"{self.name} sends {what} of more than {limit >> 20} MiB, which is refused")
        return bytes(found)

    def _end(self, response: BaseHTTPResponse) -> None:
        """Read what nobody wants, so that the connection can be used again; give it up if that is much."""
        with contextlib.suppress(RegistryError):
            self._body(response, 1 << 16, "")

    def _refusal(self, response: BaseHTTPResponse, what: str) -> RegistryError:
        """In our words and the registry's."""
        said, code = self._said(response)
        if response.status in (401, 403):
            who = "not allowed to" if self._who() else "nobody there, log in with: minicontainer login " + self.name
            said = f"{said}; we are {who}"
        return RegistryError(f"cannot {what} {self.name}: {said}", response.status, code)

    def _said(self, response: BaseHTTPResponse) -> tuple[str, str]:
        """The registry's own words, and its code, if it has any: {"errors": [{"code": …, "message": …}]}."""
        status = f"HTTP status {response.status}"
        try:
            error = json.loads(self._body(response, 1 << 16, "a complaint"))["errors"][0]
            code, message = str(error.get("code", "")), str(error.get("message", ""))
        except (ValueError, LookupError, TypeError, AttributeError, RegistryError):
            return status, ""
        text = shown(f"{code}: {message}".strip(": "))
        return f"{status}, {text}" if text else status, code

    def _pages(self, first: str, key: str, scopes: Sequence[str]) -> Iterator[str]:
        """All names of a list that comes in pages. RFC 8288: Link: </v2/…?last=…>; rel="next"."""
        what, seen = urljoin(self.endpoint.base, first), set[str]()
        while what and what not in seen and len(seen) < PAGES:
            seen.add(what)
            response = self._request("GET", what, scopes)
            if response.status != 200:
                raise self._refusal(response, "list " + key + " of")
            link = response.headers.get("Link", "")
            try:
                names = json.loads(self._body(response, ANSWER_LIMIT, "a list"))[key] or []
            except (ValueError, LookupError, TypeError):
                raise RegistryError(f"{self.name} answers with no list of {key}") from None
            yield from (str(name) for name in names if str(name).isprintable())
            target, _, attributes = link.partition(">")
            what = urljoin(what, target.strip(" <")) if "next" in attributes else ""
            if what and _origin(what) != _origin(self.endpoint.base):
                raise RegistryError(f"{self.name} has the next page of {key} somewhere else: {_origin(what)}")

    @contextlib.contextmanager
    def _in_words(self, url: str) -> Iterator[None]:
        """What can go wrong on the way, as one of our errors. Raises Transient, RegistryError."""
        from urllib3 import exceptions as wrong

        where = self.name if _origin(url) == _origin(self.endpoint.base) else _origin(url)
        try:
            yield
        except wrong.ProxyError as error:
            raise Transient(f"cannot reach {where}: its proxy does not let us through: {_reason(error)}") from None
        except wrong.NameResolutionError:
            raise RegistryError(f"cannot reach {where}: no host of that name is known here") from None
        except wrong.NewConnectionError as error:
            raise Transient(f"cannot reach {where}: {_reason(error)}") from None
        except wrong.ConnectTimeoutError:
            raise Transient(f"cannot reach {where}: no answer for {self.patience.connect:g} s") from None
        except wrong.SSLError as error:
            why = _reason(error)
            hint = (
                f'it speaks plain http; if it may, write insecure = true below ["{self.name}"] in registries.toml'
                if "WRONG_VERSION" in why.upper().replace(" ", "_")
                else f"{why}; whoever vouches for it is named with --ca FILE"
            )
            raise RegistryError(f"cannot trust {where}: {hint}") from None
        except wrong.ReadTimeoutError:
            raise Transient(f"{where} has been silent for {self.patience.silence:g} s") from None
        except (wrong.ProtocolError, OSError) as error:
            raise Transient(f"{where} broke off: {_reason(error)}") from None
        except wrong.HTTPError as error:
            raise RegistryError(f"cannot speak to {where}: {shown(str(error))}") from None


class _Part:
    """A part of an open file, to be read once by whoever sends it."""

    def __init__(self, file: int, begin: int, length: int, told: Callable[[int], None]) -> None:
        self.begin, self.length = begin, length
        self._file, self._told, self._read = file, told, 0

    def again(self) -> _Part:
        """From its beginning, for the next attempt."""
        self._told(-self._read)
        self._read = 0
        return self

    def read(self, size: int = -1) -> bytes:
        """Of at most so many bytes."""
        left = self.length - self._read
        data = os.pread(self._file, left if size < 0 else min(size, left), self.begin + self._read)
        self._read += len(data)
        self._told(len(data))
        return data


def _origin(url: str) -> str:
    """Whom a request goes to: scheme, host and port."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise RegistryError(f'"{url}" is no address of a registry') from None
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")


def _retry_after(text: str) -> float:
    """Seconds, which the header has in figures or as a date. RFC 9110, section 10.2.3."""
    if not text:
        return 0
    if text.isdigit():
        return float(text)
    import time
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0


def _reason(error: BaseException) -> str:
    """What is at the bottom of an error of urllib3's, in the kernel's words where they are the kernel's."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "original_error", None)
        inner = inner or next((one for one in error.args if isinstance(one, BaseException)), None)
        if inner is None:
            break
        error = inner
    from http.client import IncompleteRead

    if isinstance(error, IncompleteRead) and error.expected:
        return f"{error.expected} more bytes were to come"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
