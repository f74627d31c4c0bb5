"""Where a registry is, and how it is reached: mirrors, http or https, certificates, proxies.

What a user has to say about registries is in ``registries.toml`` in the engine's state directory:

    ["docker.io"]
    mirrors = ["https://mirror.example/hub", "http://127.0.0.1:5000"]   # asked first, in this order

    ["10.0.0.5:5000"]
    insecure = true            # http; whoever is on the way can read passwords and change images' names

    ["registry.example"]
    ca = "/etc/ssl/example.pem"   # who may vouch for it, beside those that vouch for everybody
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from minicontainer.images.errors import ImageError
from minicontainer.images.references import DOCKER_HUB
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import urllib3

CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d")
"""HOST[:PORT]/*.crt there vouch for that registry; *.cert with *.key of the same name are what we show it."""
SETTINGS = {"mirrors": list, "insecure": bool, "ca": str}


class Endpoint(Record):
    """One place where a registry, or a mirror of it, answers."""

    name: str
    """As in references and where passwords are kept: HOST[:PORT]."""
    base: str
    """URL, without a slash at its end."""
    prefix: str = ""
    """What a mirror has before the names of repositories, with its slash."""
    authorities: tuple[str, ...] = ()
    """Files with certificates of who may vouch for it."""
    certificate: tuple[str, str] | None = None
    """Our own, with its key."""


def endpoints_of(registry: str, settings: Mapping[str, Any], ca: str = "") -> list[Endpoint]:
    """Where to ask for a registry's images: its mirrors in their order, then itself. Raises ImageError."""
    own = settings.get(registry, {})
    mirrors = [_endpoint(mirror, settings, ca) for mirror in own.get("mirrors", ())]
    return [*mirrors, _endpoint(registry, settings, ca)]


def read_settings(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The settings of a registries.toml; none if there is no such file. Raises ImageError."""
    import tomllib

    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {error}") from None
    for registry, own in settings.items():
        if not isinstance(own, dict) or any(
            isinstance(value, dict) for value in own.values()
        ):  # [docker.io]: two names
            raise ImageError(f'{path}: write settings below the name of a registry, with the quotes: ["docker.io"]')
        for key, value in own.items():
            if key not in SETTINGS or not isinstance(value, SETTINGS[key]):
                raise ImageError(f"{path}: {registry}: {key}: there are mirrors (a list), insecure (true), ca (a file)")
        if not all(isinstance(mirror, str) for mirror in own.get("mirrors", ())):
            raise ImageError(f"{path}: {registry}: mirrors are names or URLs, in quotes")
    return settings


def pool(endpoint: Endpoint, connections: int, connect: float, read: float) -> urllib3.PoolManager:
    """Connections to an endpoint, through a proxy if the environment names one. Seconds until a silence is an error."""
    import urllib3
    from urllib3.util import Timeout

    options: dict[str, Any] = {
        "maxsize": connections,
        "retries": False,
        "timeout": Timeout(connect=connect, read=read),
        "blocksize": 1 << 18,
    }
    if endpoint.base.startswith("https:"):
        options["ssl_context"] = _tls(endpoint)
    proxy = _proxy(endpoint.base)
    if not proxy:
        return urllib3.PoolManager(**options)
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f'the environment names the proxy "{proxy}": it must be http://HOST:PORT')
    if parts.username:
        from urllib.parse import unquote

        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=login)
    return urllib3.ProxyManager(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", **options)


def _endpoint(place: str, settings: Mapping[str, Any], ca: str) -> Endpoint:
    """From HOST[:PORT][/PREFIX], or such a URL."""
    scheme, separator, rest = place.partition("://")
    if not separator:
        scheme, rest = "", place
    name, _, prefix = rest.strip("/").partition("/")
    own = settings.get(name, {})
    authorities, certificate = _certificates(name)
    authorities += [file for file in (own.get("ca", ""), ca) if file]
    if not scheme:
        plain = own.get("insecure") or (is_loopback(name) and not authorities)
        scheme = "http" if plain else "https"
    if scheme not in ("http", "https") or not name:
        raise ImageError(f'"{place}" is no registry: write HOST, HOST:PORT or https://HOST:PORT')
    host = "registry-1.docker.io" if name == DOCKER_HUB else name
    prefix = f"{prefix}/" if prefix else ""
    return Endpoint(name, f"{scheme}://{host}", prefix, tuple(authorities), certificate)


def is_loopback(name: str) -> bool:
    """Whether HOST[:PORT] is this very machine, by its name: nobody else is on the way."""
    host = urlsplit(f"//{name}").hostname or ""
    return host in ("localhost", "::1") or host.endswith(".localhost") or _is_127(host)


def _is_127(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(part.isdigit() for part in parts)


def _certificates(name: str) -> tuple[list[str], tuple[str, str] | None]:
    for directory in CERTIFICATES:
        try:
            files = sorted(Path(directory, name).iterdir())
        except OSError:
            continue
        authorities = [str(file) for file in files if file.suffix == ".crt"]
        own = [(str(file), str(file.with_suffix(".key"))) for file in files if file.suffix == ".cert"]
        return authorities, own[0] if own else None
    return [], None


def _tls(endpoint: Endpoint) -> Any:
    import ssl

    context = ssl.create_default_context()
    for file in endpoint.authorities:
        try:
            context.load_verify_locations(file)
        except OSError as error:  # ssl.SSLError is one
            why = error.strerror if not isinstance(error, ssl.SSLError) else "no certificate in PEM form"
            raise ImageError(f"cannot take {file} to vouch for {endpoint.name}: {why}") from None
    if endpoint.certificate:
        try:
            context.load_cert_chain(*endpoint.certificate)
        except OSError as error:
            raise ImageError(f"cannot show {endpoint.name} our {endpoint.certificate[0]}: {error}") from None
    return context


def _proxy(url: str) -> str | None:
    """As HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say, in small letters too; this machine needs none."""
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    parts = urlsplit(url)
    proxies = getproxies_environment()
    if is_loopback(parts.netloc) or proxy_bypass_environment(parts.netloc):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")
