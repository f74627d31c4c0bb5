"""Debian's docker-registry, filled and emptied by skopeo, on a loopback of the test's own: both agree with us on every byte."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minicontainer.images.authentication import Login
from minicontainer.images.content import ContentStore
from minicontainer.images.documents import Manifest
from minicontainer.images.errors import ImageError
from minicontainer.images.references import parse_reference
from minicontainer.images.registry import Registry
from minicontainer.images.transfer import pull, push
from tests.images.conftest import BCRYPT, DistributionRegistry
from tests.images.registry_server import OddRegistry, digest_of, make_image
from tests.images.test_registry import Watching, incompressible
from tests.images.test_registry_push import keep

Clients = Callable[..., list[Registry]]
pytestmark = pytest.mark.skipif(
    not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="apt install docker-registry skopeo"
)


@pytest.fixture
def layout(tmp_path: Path) -> str:
    """An OCI layout with one image in it, for skopeo."""
    image = make_image({"etc/motd": b"hello"}, {"big": incompressible(300_000)}, {"etc/other": b"x"})
    place = tmp_path / "layout"
    (place / "blobs/sha256").mkdir(parents=True)
    for digest, data in {**image.blobs, image.digest: image.raw}.items():
        (place / "blobs" / digest.replace(":", "/")).write_bytes(data)
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": image.media_type, "digest": image.digest, "size": len(image.raw), "annotations": {"org.opencontainers.image.ref.name": "1"}}
    ]}))  # fmt: skip
    return f"oci:{place}:1"


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_skopeo_has_pushed_is_pulled_with_the_same_digests(
    distribution: DistributionRegistry, store: ContentStore, clients: Clients, layout: str, form: str
) -> None:
    distribution.start()
    distribution.skopeo(
        "copy", "--format", form, "--dest-tls-verify=false", layout, f"docker://{distribution.name}/team/box:1"
    )
    descriptor = pull(parse_reference(f"{distribution.name}/team/box:1"), store, clients(distribution.name))
    raw = distribution.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{distribution.name}/team/box:1")
    assert descriptor.digest == digest_of(raw.encode()) and ("docker" in descriptor.media_type) == (form == "v2s2")
    assert not store.missing(descriptor)
    manifest = store.manifest(descriptor)
    assert isinstance(manifest, Manifest) and len(manifest.layers) == 3
    by_digest = pull(
        parse_reference(f"{distribution.name}/team/box@{descriptor.digest}"), store, clients(distribution.name)
    )
    assert by_digest.digest == descriptor.digest
    with pytest.raises(ImageError, match=r'has no tag "2" of team/box; it has 1$'):
        pull(parse_reference(f"{distribution.name}/team/box:2"), store, clients(distribution.name))
    with pytest.raises(ImageError, match=r"has no repository team/xob: (NAME|MANIFEST)_UNKNOWN"):
        pull(parse_reference(f"{distribution.name}/team/xob:2"), store, clients(distribution.name))


def test_what_we_have_pushed_is_pulled_by_skopeo_with_the_same_digests(
    distribution: DistributionRegistry,
    store: ContentStore,
    clients: Clients,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minicontainer.images.registry.CHUNK", 100_000)  # several parts
    distribution.start()
    image = make_image({"a": b"base"}, {"big": incompressible(350_000)})
    keep(store, f"{distribution.name}/base:1", image)
    keep(store, f"{distribution.name}/own:1", image)
    push(parse_reference(f"{distribution.name}/base:1"), store, clients(distribution.name)[0])
    told = Watching()
    push(parse_reference(f"{distribution.name}/own:1"), store, clients(distribution.name)[0], progress=told)
    assert set(told.ended.values()) == {"mounted"}
    distribution.skopeo("copy", "--src-tls-verify=false", f"docker://{distribution.name}/own:1", f"dir:{tmp_path}/copy")
    assert (tmp_path / "copy/manifest.json").read_bytes() == image.raw
    for digest, data in image.blobs.items():
        assert (tmp_path / "copy" / digest.partition(":")[2]).read_bytes() == data
    told = Watching()
    push(parse_reference(f"{distribution.name}/own:1"), store, clients(distribution.name)[0], progress=told)
    assert set(told.ended.values()) == {"there already"}
    [registry] = clients(distribution.name)
    assert sorted(registry.repositories()) == ["base", "own"] and [*registry.tags("own")] == ["1"]


def test_a_registry_with_passwords(
    distribution: DistributionRegistry, store: ContentStore, clients: Clients, layout: str
) -> None:
    (distribution.directory / "htpasswd").write_text(f"{BCRYPT}\n")
    distribution.start(f"auth: {{htpasswd: {{realm: odd, path: {distribution.directory}/htpasswd}}}}\n")
    distribution.skopeo(
        "copy", "--dest-tls-verify=false", "--dest-creds=student:secret", layout, f"docker://{distribution.name}/box:1"
    )
    reference = parse_reference(f"{distribution.name}/box:1")
    with pytest.raises(
        ImageError, match=r"authentication required; we are nobody there, log in with: minicontainer login"
    ):
        pull(reference, store, clients(distribution.name))
    with pytest.raises(ImageError, match=r"we are not allowed to"):
        pull(reference, store, clients(distribution.name, login=Login("student", "wrong")))
    student = Login("student", "secret")
    descriptor = pull(reference, store, clients(distribution.name, login=student))
    store.tag(f"{distribution.name}/other:2", descriptor)
    push(parse_reference(f"{distribution.name}/other:2"), store, clients(distribution.name, login=student)[0])


class Realm(OddRegistry):
    """A server whose tokens Debian's registry accepts: JSON Web Tokens (RFC 7519), signed by openssl."""

    def __init__(self, directory: Path) -> None:
        super().__init__("token")
        self.key, self.certificate = directory / "realm.key", directory / "realm.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=realm",
             "-keyout", self.key, "-out", self.certificate], check=True, capture_output=True, timeout=30,
        )  # fmt: skip

    def signed(self, scopes: list[str], user: str) -> str:
        """A token for these scopes."""
        certificate = "".join(self.certificate.read_text().splitlines()[1:-1])
        access = [dict(zip(("type", "name", "actions"), scope.split(":"), strict=True)) for scope in scopes]
        claims: dict[str, Any] = {
            "iss": "realm", "sub": user, "aud": "registry", "exp": int(time.time()) + 300, "nbf": int(time.time()) - 60,
            "iat": int(time.time()), "jti": "1", "access": [{**one, "actions": one["actions"].split(",")} for one in access],
        }  # fmt: skip
        header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        text = ".".join(map(_base64, (json.dumps(header).encode(), json.dumps(claims).encode())))
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(),
                                   capture_output=True, check=True, timeout=30).stdout  # fmt: skip
        return f"{text}.{_base64(signature)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_a_registry_that_sends_us_for_tokens(
    distribution: DistributionRegistry, store: ContentStore, clients: Clients
) -> None:
    with Realm(distribution.directory).serving() as realm:

        def give(handler: Any) -> bool:
            known = handler.headers.get("Authorization") == "Basic " + base64.b64encode(b"student:secret").decode()
            if not known:
                return False  # which refuses him
            token = realm.signed(realm.seen[-1].query.get("scope", []), "student")
            handler.answer(200, json.dumps({"token": token}).encode())
            return True

        realm.fault(give, "^/token$", times=99)
        distribution.start(
            f"auth: {{token: {{realm: '{realm.base}/token', service: registry, issuer: realm, rootcertbundle: {realm.certificate}}}}}\n"
        )
        image = make_image({"a": b"base"}, {"b": b"own"})
        keep(store, f"{distribution.name}/base:1", image)
        keep(store, f"{distribution.name}/own:1", image)
        student = Login("student", "secret")
        push(parse_reference(f"{distribution.name}/base:1"), store, clients(distribution.name, login=student)[0])
        told = Watching()
        push(
            parse_reference(f"{distribution.name}/own:1"),
            store,
            clients(distribution.name, login=student)[0],
            progress=told,
        )
        assert set(told.ended.values()) == {"mounted"}, "the token is for both repositories"
        other = ContentStore(f"{store.directory}-other")
        pull(parse_reference(f"{distribution.name}/own:1"), other, clients(distribution.name, login=student))
        assert not other.missing(other.tags()[f"{distribution.name}/own:1"])
        with pytest.raises(ImageError, match=r"wants to know who we are: log in with: minicontainer login"):
            pull(parse_reference(f"{distribution.name}/own:1"), other, clients(distribution.name))
        [registry] = clients(distribution.name, login=student)
        registry.check()


def test_the_layers_that_come_are_what_tar_says(
    distribution: DistributionRegistry, store: ContentStore, clients: Clients, layout: str
) -> None:
    distribution.start()
    distribution.skopeo("copy", "--dest-tls-verify=false", layout, f"docker://{distribution.name}/box:1")
    descriptor = pull(parse_reference(f"{distribution.name}/box:1"), store, clients(distribution.name))
    manifest = store.manifest(descriptor)
    assert isinstance(manifest, Manifest)
    names = list[str]()
    for layer in manifest.layers:
        with open(store.open(layer.digest), "rb") as file, tarfile.open(fileobj=file) as tar:
            names += tar.getnames()
    assert names == ["etc/motd", "big", "etc/other"]
