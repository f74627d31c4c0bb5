"""A registry that does what it should, and on demand something else: breaks off, lies, forgets who you are, sends you away.

A real HTTP server in a thread, on the loopback of the network namespace that the test is in. It remembers every request.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import secrets
import socket
import ssl
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

OCI = "application/vnd.oci.image"
MANIFEST, INDEX, CONFIG = f"{OCI}.manifest.v1+json", f"{OCI}.index.v1+json", f"{OCI}.config.v1+json"
LAYER = f"{OCI}.layer.v1.tar+gzip"


def digest_of(data: bytes) -> str:
    """sha256:…"""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    """As a manifest names a blob."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def archive(files: Mapping[str, bytes]) -> bytes:
    """A tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


@dataclass
class Image:
    """An image, in pieces."""

    raw: bytes
    """The manifest."""
    blobs: dict[str, bytes]
    layers: list[str]
    """Digests, the lowest first."""
    media_type: str = MANIFEST

    @property
    def digest(self) -> str:
        """The manifest's."""
        return digest_of(self.raw)


def make_image(
    *layers: Mapping[str, bytes], architecture: str = "amd64", system: str = "linux", docker: bool = False
) -> Image:
    """One layer for each set of files."""
    types = MANIFEST, CONFIG, LAYER
    if docker:
        base = "application/vnd.docker"
        types = (f"{base}.distribution.manifest.v2+json", f"{base}.container.image.v1+json",
                 f"{base}.image.rootfs.diff.tar.gzip")  # fmt: skip
    archives = [archive(files) for files in layers]
    packed = [gzip.compress(one, 1, mtime=0) for one in archives]
    config = json.dumps({
        "os": system, "architecture": architecture, "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(one) for one in archives]},
    }).encode()  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": types[0], "config": descriptor(types[1], config),
        "layers": [descriptor(types[2], one) for one in packed],
    }  # fmt: skip
    blobs = {digest_of(one): one for one in (config, *packed)}
    return Image(json.dumps(manifest).encode(), blobs, [digest_of(one) for one in packed], types[0])


@dataclass
class Seen:
    """A request."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in small letters."""
    size: int = 0


Act = Callable[["Handler"], bool]
"""What is done instead of the right thing; False: the right thing after all."""


@dataclass
class Fault:
    """What goes wrong, with which requests, how often."""

    method: str
    path: re.Pattern[str]
    act: Act
    times: int


@dataclass
class Upload:
    """What has arrived of a blob."""

    repository: str
    data: bytearray = field(default_factory=bytearray)


class OddRegistry:
    """The server, what it holds, and what it has seen."""

    def __init__(self, auth: str = "", user: str = "student", password: str = "secret") -> None:
        """`auth`: "", "basic" or "token"."""
        self.auth, self.user, self.password = auth, user, password
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, Upload] = {}
        self.tokens: dict[str, set[str]] = {}
        self.anonymous = False
        """Whether somebody without a password gets a token to pull."""
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.page = 1000
        self.absolute = True
        """Whether it says absolutely where an upload goes on."""
        self.ranges = True
        """Whether it honours Range."""
        self.halt = threading.Event()
        """Ends whoever is silent."""
        self.lock = threading.Lock()
        self.scheme = "http"
        self._server: ThreadingHTTPServer | None = None

    @contextmanager
    def serving(self, port: int = 0, certificate: tuple[str, str] | None = None) -> Iterator[OddRegistry]:
        """As long as the block lasts."""
        registry = self

        class Own(Handler):
            pass

        Own.registry = registry
        server = ThreadingHTTPServer(("127.0.0.1", port), Own)
        server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            self.scheme = "https"
        self._server = server
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.halt.set()
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def name(self) -> str:
        """HOST:PORT."""
        assert self._server
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def base(self) -> str:
        """Its URL."""
        return f"{self.scheme}://{self.name}"

    def add(self, repository: str, image: Image, *tags: str) -> None:
        """Have an image, under its digest and these tags."""
        self.blobs |= {(repository, digest): data for digest, data in image.blobs.items()}
        for name in (image.digest, *tags):
            self.manifests[repository, name] = (image.media_type, image.raw)

    def add_index(self, repository: str, images: Sequence[tuple[Image, dict[str, str]]], *tags: str) -> str:
        """Have an index, with its images. Returns its digest."""
        for image, _ in images:
            self.add(repository, image)
        entries = [
            {**descriptor(image.media_type, image.raw), "platform": platform} if platform
            else descriptor(image.media_type, image.raw) for image, platform in images
        ]  # fmt: skip
        raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        for name in (digest_of(raw), *tags):
            self.manifests[repository, name] = (INDEX, raw)
        return digest_of(raw)

    def fault(self, act: Act, path: str, method: str = "GET", times: int = 1) -> None:
        """Let something go wrong with requests for a path, a regular expression; so often."""
        self.faults.append(Fault(method, re.compile(path), act, times))

    def asked(self, method: str, path: str) -> list[Seen]:
        """The requests for a path, a regular expression."""
        return [one for one in self.seen if one.method == method and re.search(path, one.path)]


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Act:
    """Answer with a status, and headers."""

    def act(handler: Handler) -> bool:
        handler.answer(code, body, **(headers or {}))
        return True

    return act


def cut(after: int) -> Act:
    """Break the connection after so many bytes of the right answer's body."""

    def act(handler: Handler) -> bool:
        handler.cut_after = after
        return False

    return act


def hang_up(handler: Handler) -> bool:
    """Break the connection without a word."""
    with suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True
    return True


def fall_silent(after: int) -> Act:
    """Stop in the middle of the body, and say no more, for as long as the registry lives."""

    def act(handler: Handler) -> bool:
        handler.silent_after = after
        return False

    return act


def forget(handler: Handler) -> bool:
    """Take back every token that was given."""
    handler.registry.tokens.clear()
    return False


def change(alter: Callable[[bytes], bytes]) -> Act:
    """Answer with another body."""

    def act(handler: Handler) -> bool:
        handler.alter = alter
        return False

    return act


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    registry: OddRegistry
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    def handle(self) -> None:
        """A client that goes away is no event."""
        with suppress(OSError):
            super().handle()

    def _serve(self) -> None:
        self.cut_after: int | None = None
        self.silent_after: int | None = None
        self.alter: Callable[[bytes], bytes] | None = None
        parts = urlsplit(self.path)
        path, query = parts.path, parse_qs(parts.query)
        length = int(self.headers.get("Content-Length", 0))
        seen = Seen(
            self.command, path, query, {name.lower(): value for name, value in self.headers.items()}, length
        )  # fmt: skip
        with self.registry.lock:
            self.registry.seen.append(seen)
            fault = next(
                (
                    one
                    for one in self.registry.faults
                    if one.times and one.method == self.command and one.path.search(path)
                ),
                None,
            )
            if fault:
                fault.times -= 1
        self.body_left = length
        if fault and fault.act(self):
            self._drop_body()
            return
        if path == "/token":
            self._drop_body()
            return self._token(query)
        if not self._allowed(path, query):
            self._drop_body()
            return
        for pattern, act in ROUTES:
            if match := re.fullmatch(pattern, path):
                act(self, query, *match.groups())
                self._drop_body()
                return
        self._drop_body()
        self.error(404, "NOT_FOUND", "no such thing")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    # -- answers

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        if self.alter:
            body = self.alter(body)
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers and code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.flush()
        if self.command == "HEAD":
            return
        if self.cut_after is not None:
            self.wfile.write(body[: self.cut_after])
            self.wfile.flush()
            hang_up(self)
        elif self.silent_after is not None:
            self.wfile.write(body[: self.silent_after])
            self.wfile.flush()
            self.registry.halt.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(body)
            self.wfile.flush()

    def error(self, code: int, name: str, message: str, **headers: str) -> None:
        self.answer(code, json.dumps({"errors": [{"code": name, "message": message}]}).encode(), **headers)

    def _body(self) -> bytes:
        data = self.rfile.read(self.body_left)
        self.body_left = 0
        return data

    def _drop_body(self) -> None:
        while self.body_left > 0:
            got = len(self.rfile.read(min(self.body_left, 1 << 16)))
            self.body_left = self.body_left - got if got else 0

    # -- who is there

    def _allowed(self, path: str, query: dict[str, list[str]]) -> bool:
        registry, said = self.registry, self.headers.get("Authorization", "")
        if not registry.auth:
            return True
        if registry.auth == "basic":
            if said == "Basic " + base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode():
                return True
            self.error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="odd, very"')
            return False
        match = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", path)
        wanted = {f"repository:{match[1]}:{'pull' if self.command in ('GET', 'HEAD') else 'push'}"} if match else set()
        granted = registry.tokens.get(said.removeprefix("Bearer "))
        if granted is not None and wanted <= granted:
            return True
        asked = f',scope="repository:{match[1]}:pull"' if match else ""
        self.error(401, "UNAUTHORIZED", "authentication required",
                   WWW_Authenticate=f'Bearer realm="{registry.base}/token",service="odd"{asked}')  # fmt: skip
        return False

    def _token(self, query: dict[str, list[str]]) -> None:
        registry, said = self.registry, self.headers.get("Authorization", "")
        known = said == "Basic " + base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
        if not known and (said or not registry.anonymous):
            return self.error(401, "UNAUTHORIZED", "who are you?")
        granted = set[str]()
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            granted |= {f"{kind}:{name}:{action}" for action in actions.split(",") if known or action == "pull"}
        token = secrets.token_hex(8)
        registry.tokens[token] = granted
        self.answer(200, json.dumps({"token": token, "expires_in": 60}).encode())

    # -- the specification

    def base_(self, query: dict[str, list[str]]) -> None:
        self.answer(200, b"{}")

    def manifest(self, query: dict[str, list[str]], repository: str, name: str) -> None:
        if self.command == "PUT":
            media_type, raw = self.headers["Content-Type"], self._body()
            missing = [one["digest"] for one in [*json.loads(raw).get("layers", []), *([json.loads(raw)["config"]] if "config" in json.loads(raw) else [])]
                       if (repository, one["digest"]) not in self.registry.blobs and "foreign" not in one["mediaType"]]  # fmt: skip
            if missing:
                return self.error(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry {missing[0]}")
            for one in {name, digest_of(raw)}:
                self.registry.manifests[repository, one] = (media_type, raw)
            return self.answer(201, Location=f"/v2/{repository}/manifests/{name}", Docker_Content_Digest=digest_of(raw))
        found = self.registry.manifests.get((repository, name))
        if not found:
            known = any(one == repository for one, _ in self.registry.manifests)
            code, text = (("MANIFEST_UNKNOWN", "manifest unknown") if known
                          else ("NAME_UNKNOWN", "repository name not known to registry"))  # fmt: skip
            return self.error(404, code, text)
        media_type, raw = found
        self.answer(200, raw, Content_Type=media_type, Docker_Content_Digest=digest_of(raw))

    def blob(self, query: dict[str, list[str]], repository: str, digest: str) -> None:
        data = self.registry.blobs.get((repository, digest))
        if data is None:
            return self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.registry.ranges:
            begin = int(asked[1])
            if begin >= len(data):
                return self.error(416, "RANGE_INVALID", "no such range")
            headers = {"Content_Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
            return self.answer(206, data[begin:], **headers)
        self.answer(200, data)

    def begin(self, query: dict[str, list[str]], repository: str) -> None:
        if "mount" in query and "from" in query:
            data = self.registry.blobs.get((query["from"][0], query["mount"][0]))
            if data is not None:
                self.registry.blobs[repository, query["mount"][0]] = data
                return self.answer(201, Location=f"/v2/{repository}/blobs/{query['mount'][0]}")
        number = secrets.token_hex(4)
        self.registry.uploads[number] = Upload(repository)
        self._goes_on(202, repository, number)

    def _goes_on(self, code: int, repository: str, number: str) -> None:
        there = f"/v2/{repository}/blobs/uploads/{number}?state={secrets.token_hex(2)}"
        base = self.registry.base if self.registry.absolute else ""
        size = len(self.registry.uploads[number].data)
        self.answer(code, Location=base + there, Range=f"0-{max(0, size - 1)}")

    def upload(self, query: dict[str, list[str]], repository: str, number: str) -> None:
        upload = self.registry.uploads.get(number)
        if not upload:
            return self.error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if self.command == "GET":
            return self._goes_on(204, repository, number)
        expected = self.headers.get("Content-Range")
        if expected and int(expected.split("-")[0]) != len(upload.data):
            return self.error(416, "RANGE_INVALID", "out of order")
        while self.body_left > 0:
            chunk = self.rfile.read1(min(self.body_left, 1 << 16))
            if not chunk:
                return  # it has gone away; what has come stays
            upload.data += chunk
            self.body_left -= len(chunk)
            if self.cut_after is not None and len(upload.data) >= self.cut_after:
                hang_up(self)
                self.body_left = 0
                return
        if self.command == "PATCH":
            return self._goes_on(202, repository, number)
        data, digest = bytes(upload.data), query["digest"][0]
        del self.registry.uploads[number]
        if digest_of(data) != digest:
            return self.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.registry.blobs[repository, digest] = data
        self.answer(201, Location=f"/v2/{repository}/blobs/{digest}", Docker_Content_Digest=digest)

    def tags(self, query: dict[str, list[str]], repository: str) -> None:
        names = sorted(tag for one, tag in self.registry.manifests if one == repository and ":" not in tag)
        if not any(one == repository for one, _ in self.registry.manifests):
            return self.error(404, "NAME_UNKNOWN", "repository name not known to registry")
        self._page(query, names, {"name": repository}, "tags", f"/v2/{repository}/tags/list")

    def catalog(self, query: dict[str, list[str]]) -> None:
        self._page(query, sorted({one for one, _ in self.registry.manifests}), {}, "repositories", "/v2/_catalog")

    def _page(self, query: dict[str, list[str]], names: list[str], more: dict[str, Any], key: str, path: str) -> None:
        names = [name for name in names if name > query.get("last", [""])[0]]
        count = min(self.registry.page, int(query.get("n", ["1000"])[0]))
        headers = {}
        if len(names) > count:
            names = names[:count]
            headers["Link"] = f'<{path}?last={names[-1]}&n={count}>; rel="next"'
        self.answer(200, json.dumps({**more, key: names}).encode(), **headers)


NAME = "([a-z0-9./_-]+)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    ("/v2/", Handler.base_),
    ("/v2/_catalog", Handler.catalog),
    (f"/v2/{NAME}/tags/list", Handler.tags),
    (f"/v2/{NAME}/manifests/([^/]+)", Handler.manifest),
    (f"/v2/{NAME}/blobs/uploads/", Handler.begin),
    (f"/v2/{NAME}/blobs/uploads/([0-9a-f]+)", Handler.upload),
    (f"/v2/{NAME}/blobs/(sha256:[0-9a-f]+)", Handler.blob),
]
