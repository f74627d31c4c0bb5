"""What the tests of registries have: a store, registries that misbehave, Debian's own one, and a home without passwords."""

from __future__ import annotations

import contextlib
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from minicontainer.images.content import ContentStore
from minicontainer.images.endpoints import endpoints_of
from minicontainer.images.registry import Patience, Registry
from tests.command import DEADLINE
from tests.images.registry_server import OddRegistry
from tests.netns import World

QUICK = Patience(attempts=3, pause=0.001, longest=1.0, connect=5.0, silence=5.0)
"""No test waits for the sake of waiting."""


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory in which nobody has logged in anywhere, and an environment without proxies."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return home


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    """An empty one."""
    return ContentStore(str(tmp_path / "images"))


@pytest.fixture
def odd(world: World) -> Iterator[OddRegistry]:
    """A registry that asks nobody who he is."""
    with OddRegistry().serving() as registry:
        yield registry


@pytest.fixture
def clients() -> Iterator[Callable[..., list[Registry]]]:
    """Makes clients of a registry and its mirrors, whose connections are closed in the end."""
    made: list[Registry] = []

    def make(
        name: str, settings: dict[str, Any] | None = None, patience: Patience = QUICK, **options: Any
    ) -> list[Registry]:
        ca = options.pop("ca", "")
        found = [Registry(endpoint, patience, **options) for endpoint in endpoints_of(name, settings or {}, ca)]
        made.extend(found)
        return found

    yield make
    for registry in made:
        registry.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate that vouches for itself, for 127.0.0.1, and its key."""
    place = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=odd", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", place / "key.pem", "-out", place / "cert.pem"],
        check=True, capture_output=True, timeout=DEADLINE,
    )  # fmt: skip
    return str(place / "cert.pem"), str(place / "key.pem")


BCRYPT = "student:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
"""htpasswd(1) -B of the password "secret"."""


@dataclass
class DistributionRegistry:
    """Debian's docker-registry, on a loopback of the test's own."""

    directory: Path
    port: int = 5000
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def start(self, auth: str = "") -> None:
        """Ready when it returns. `auth`: lines for its configuration."""
        config = self.directory / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.directory}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.name}', secret: not-very}}\n{auth}"
        )
        log = (self.directory / "log").open("w")
        process = subprocess.Popen(["docker-registry", "serve", str(config)], text=True, stdout=log, stderr=log,
                                   env={"OTEL_TRACES_EXPORTER": "none", "PATH": "/usr/bin:/bin"})  # fmt: skip
        log.close()
        self.processes.append(process)
        import socket

        for _ in range(int(DEADLINE / 0.02)):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert process.poll() is None, (self.directory / "log").read_text()
            select.select([], [], [], 0.02)
        raise AssertionError("docker-registry does not answer")

    def skopeo(self, *words: str, login: str = "") -> str:
        """What skopeo says; it speaks plain http to this registry."""
        command = ["skopeo", "--insecure-policy", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """End it."""
        for process in self.processes:
            process.terminate()
            process.wait(DEADLINE)


@pytest.fixture
def distribution(world: World, tmp_path: Path) -> Iterator[DistributionRegistry]:
    """Not started yet."""
    assert shutil.which("docker-registry") and shutil.which("skopeo"), "apt install docker-registry skopeo"
    directory = tmp_path / "registry"
    directory.mkdir()
    registry = DistributionRegistry(directory)
    yield registry
    registry.close()
