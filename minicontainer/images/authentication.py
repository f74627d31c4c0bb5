"""Who we are to a registry: passwords where docker and podman keep them, and the answer to a registry's challenge.

    WWW-Authenticate: Basic realm="…"                             user and password come with every request
    WWW-Authenticate: Bearer realm="https://…/token",service="…"  the realm gives a token, which comes with them

A scope is ``repository:NAME:pull,push``. Sources: RFC 7617, RFC 6750, and the token specification of the distribution
project; docker's credential helpers speak JSON on standard input and output (docker-credential-helpers, README).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from minicontainer.images.errors import ImageError
from minicontainer.images.references import DOCKER_HUB
from minicontainer.record import Record

HUB_KEY = "https://index.docker.io/v1/"
"""What docker files Docker Hub's password under."""
HELPER_PATIENCE = 60  # s; a helper may ask its user for something
TOKEN = "<token>"
"""A helper's user name, when its secret is an identity token."""


class Login(Record):
    """What somebody is known by: a user and a password, or a token that stands for both."""

    user: str = ""
    password: str = ""
    identity_token: str = ""
    """Buys tokens for scopes (OAuth 2's refresh token)."""
    registry_token: str = ""
    """Is itself what requests carry."""

    @property
    def basic(self) -> str:
        """The value of Authorization with user and password; empty if there is none."""
        if not self.user:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def __repr__(self) -> str:
        return f"Login({self.user!r})"  # the rest is nobody's business, a log's least of all


class Authorizer:
    """The value of Authorization for a registry's requests; got when it first asks, kept until it asks again."""

    def __init__(
        self,
        registry: str,
        fetch: Callable[..., tuple[int, bytes]],
        login: Callable[[], Login | None],
        *,
        plain_http: bool = False,
    ) -> None:
        """`fetch(method, url, headers, body)` sends a request to a realm; `login` says who we are, when it is asked."""
        self.registry = registry
        self._fetch, self._login, self._plain_http = fetch, login, plain_http
        self._known: dict[tuple[str, ...], str] = {}
        self._lock = threading.Lock()

    def value(self, scopes: Sequence[str]) -> str:
        """What is known already for these scopes; empty before the first challenge."""
        return self._known.get(_key(scopes), self._known.get(_ANY, ""))

    def answer(self, challenges: Sequence[str], scopes: Sequence[str], refused: str) -> bool:
        """After a 401: have another value than the one that was `refused`. False: there is none.

        Of several threads that are refused at once, one goes to the realm, and the others use what it has brought.
        Raises ImageError: the realm does not know us.
        """
        with self._lock:
            if self.value(scopes) != refused:
                return True
            challenge = _strongest(challenges)
            login = self._login()
            if challenge is None:
                return False
            scheme, parameters = challenge
            if scheme == "basic":
                key, value = _ANY, login.basic if login else ""
            elif login and login.registry_token:
                key, value = _ANY, f"Bearer {login.registry_token}"
            else:
                wanted = [*scopes, *(one for one in parameters.get("scope", "").split() if not _covered(one, scopes))]
                key, value = _key(scopes), f"Bearer {self._token(parameters, wanted, login)}"
            self._known[key] = value
            return bool(value) and value != refused

    def _token(self, challenge: Mapping[str, str], scopes: Sequence[str], login: Login | None) -> str:
        """Buy a token from the realm. An anonymous one is all that a public repository asks for."""
        realm, service = challenge.get("realm", ""), challenge.get("service", "")
        self._trusted(realm)
        if login and login.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": login.identity_token, "client_id": "minicontainer"}
            body = urlencode({**form, "service": service, "scope": " ".join(scopes)}).encode()
            status, raw = self._fetch("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body)
        else:
            query = urlencode([("service", service), *(("scope", scope) for scope in scopes)])
            headers = {"Authorization": login.basic} if login and login.basic else {}
            status, raw = self._fetch("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers, None)
        if status in (400, 401, 403):
            who = f"refuses the password of {login.user or 'its token'}" if login else "wants to know who we are"
            raise ImageError(f"{self.registry} {who}: log in with: minicontainer login {self.registry}")
        try:
            answer = json.loads(raw)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if status != 200 or not isinstance(token, str) or not token.isprintable():
            raise ImageError(f"{self.registry} sends us to {realm} for a token, which gives none (status {status})")
        return token

    def _trusted(self, realm: str) -> None:
        """A password goes to no realm over less than what the registry itself is spoken to over."""
        scheme = urlsplit(realm).scheme
        if scheme != "https" and not (scheme == "http" and self._plain_http):
            raise ImageError(f'{self.registry} wants our password sent to "{realm}", which is no https address')


_ANY: tuple[str, ...] = ("*",)


def _key(scopes: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(scopes))


def _covered(scope: str, scopes: Sequence[str]) -> bool:
    """Whether what the registry names is among what we ask for anyway."""
    name, _, actions = scope.rpartition(":")
    return any(
        name == other and {*actions.split(",")} <= {*its.split(",")}
        for other, _, its in (one.rpartition(":") for one in scopes)
    )


_CHALLENGE = re.compile(r'(\w+)(?:\s+((?:\w+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s,"]+)\s*,?\s*)*))?')
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def _strongest(challenges: Sequence[str]) -> tuple[str, dict[str, str]] | None:
    """The challenge to answer, a bearer's before a basic one: scheme and parameters. RFC 7235, section 4.1."""
    found = dict[str, dict[str, str]]()
    for challenge in challenges:
        for match in _CHALLENGE.finditer(challenge[:8192]):
            parameters = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare
                for name, quoted, bare in _PARAMETER.findall(match[2] or "")
            }
            found.setdefault(match[1].lower(), parameters)
    return next(((scheme, found[scheme]) for scheme in ("bearer", "basic") if scheme in found), None)


# -- where passwords are kept ------------------------------------------------------------------------------------------


def find_login(registry: str, repository: str = "") -> Login | None:
    """Who we are to a registry, as docker or podman were told. Raises ImageError: a file or a helper is broken.

    docker's file is asked before podman's, helpers before what is written down, and what is written down for a part of
    the registry (containers-auth.json(5)) before what is for all of it.
    """
    for path in _files():
        settings = _read(path)
        helper = settings.get("credHelpers", {}).get(registry) or settings.get("credsStore")
        if helper and (login := _from_helper(str(helper), registry)):
            return login
        written = settings.get("auths", {})
        for key in _keys(registry, repository):
            if isinstance(entry := written.get(key), dict) and (login := _from_entry(entry, path)):
                return login
    return None


def save_login(registry: str, login: Login) -> str:
    """Keep it in docker's file, or with the helper that this file names. Returns where it is. Raises ImageError."""
    path = _own_file()
    settings = _read(path)
    if helper := settings.get("credHelpers", {}).get(registry) or settings.get("credsStore"):
        secret = {"ServerURL": _main_key(registry), "Username": login.user, "Secret": login.password}
        _helped(str(helper), "store", json.dumps(secret))
        settings.setdefault("auths", {})[_main_key(registry)] = {}  # as docker: so that it is seen whom it knows
        where = f"the helper docker-credential-{helper}"
    else:
        settings.setdefault("auths", {})[_main_key(registry)] = {"auth": login.basic.removeprefix("Basic ")}
        where = str(path)
    _write(path, settings)
    return where


def forget_login(registry: str) -> bool:
    """Remove it from docker's file and its helper; podman's own are podman's to remove. False: there was none."""
    path = _own_file()
    settings = _read(path)
    found = False
    if helper := settings.get("credHelpers", {}).get(registry) or settings.get("credsStore"):
        found = _from_helper(str(helper), registry) is not None
        if found:
            _helped(str(helper), "erase", _main_key(registry))
    written = settings.get("auths", {})
    for key in _keys(registry, ""):
        found |= written.pop(key, None) is not None
    if found:
        _write(path, settings)
    return found


def _files() -> Iterator[Path]:
    """docker's file first, then podman's: what somebody has named, what lives until a reboot, what stays."""
    yield _own_file()
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers/auth.json")
    yield Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser(), "containers/auth.json")


def _own_file() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser(), "config.json")


def _read(path: Path) -> dict[str, Any]:
    """Raises ImageError: not to be read, or no JSON object of objects."""
    try:
        settings = json.loads(path.read_bytes() or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not JSON: {error}"
        raise ImageError(f"cannot read passwords of registries from {path}: {why}") from None
    if not isinstance(settings, dict) or not all(
        isinstance(settings.get(name, {}), dict) for name in ("auths", "credHelpers")
    ):
        raise ImageError(f"cannot read passwords of registries from {path}: it is not as docker or podman write it")
    return settings


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    """Whole or not at all, and for nobody else's eyes; through a link to where the file really is."""
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(settings, file, indent="\t")
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise ImageError(f"cannot keep a password in {path}: {error.strerror}") from None


def _main_key(registry: str) -> str:
    return HUB_KEY if registry == DOCKER_HUB else registry


def _keys(registry: str, repository: str) -> Iterator[str]:
    """What an entry may be filed under: the longest part of the repository first, old spellings last."""
    parts = repository.split("/") if repository else []
    for length in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:length]])
    yield registry
    if registry == DOCKER_HUB:
        yield from (HUB_KEY, "index.docker.io", "registry-1.docker.io")
    for scheme in ("https", "http"):
        yield from (f"{scheme}://{registry}{end}" for end in ("", "/", "/v1/", "/v2/"))


def _from_entry(entry: Mapping[str, Any], path: Path) -> Login | None:
    tokens = {name: str(entry.get(key) or "") for name, key in (("identity_token", "identitytoken"),
                                                               ("registry_token", "registrytoken"))}  # fmt: skip
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if text := entry.get("auth"):
        try:
            user, _, password = base64.b64decode(str(text), validate=True).decode().partition(":")
        except ValueError:
            raise ImageError(f"cannot read passwords of registries from {path}: an entry is not base64") from None
    login = Login(user, password.rstrip("\0"), **tokens)
    return login if login != Login() else None


def _from_helper(helper: str, registry: str) -> Login | None:
    answer = _helped(helper, "get", _main_key(registry), or_none=True)
    if answer is None:
        return None
    try:
        user, secret = json.loads(answer)["Username"], json.loads(answer)["Secret"]
    except (ValueError, KeyError, TypeError):
        raise ImageError(f"docker-credential-{helper} get: its answer is not as docker's helpers'") from None
    return Login(identity_token=secret) if user == TOKEN else Login(user, secret)


def _helped(helper: str, act: str, said: str, *, or_none: bool = False) -> str | None:
    """What a helper answers; None, if allowed, when it has nothing to this name. Raises ImageError."""
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise ImageError(f"the credential helper {helper!r} is no name of a program docker-credential-NAME")
    try:
        done = subprocess.run([program, act], input=said, capture_output=True, text=True, timeout=HELPER_PATIENCE)
    except FileNotFoundError:
        raise ImageError(f"{_own_file()} names the helper {program}, which is not in PATH: install it, or remove "
                         "credsStore or credHelpers there") from None  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{program} {act}: {error}") from None
    if done.returncode == 0:
        return done.stdout
    complaint = (done.stdout.strip() or done.stderr.strip() or f"exit status {done.returncode}").splitlines()[0]
    if or_none and "not found" in complaint:
        return None
    raise ImageError(f"{program} {act}: {complaint}")
