"""Pulls from a registry that misbehaves, each time in another way; a real server, on a loopback of the test's own."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer.images.authentication import Login
from minicontainer.images.content import ContentStore
from minicontainer.images.documents import Descriptor, Platform
from minicontainer.images.endpoints import Endpoint, endpoints_of, read_settings
from minicontainer.images.errors import ImageError
from minicontainer.images.references import parse_reference
from minicontainer.images.registry import Registry
from minicontainer.images.transfer import Progress, pull, push
from tests.command import DEADLINE
from tests.images.conftest import QUICK
from tests.images.registry_server import (
    Image,
    OddRegistry,
    change,
    cut,
    fall_silent,
    hang_up,
    make_image,
    status,
)  # fmt: skip

Clients = Callable[..., list[Registry]]


class Watching(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.ended: dict[str, str] = {}

    def end(self, blob: Descriptor, how: str) -> None:
        self.ended[blob.digest] = how

    def remark(self, text: str) -> None:
        self.remarks.append(text)


def incompressible(size: int) -> bytes:
    """Bytes that stay as many."""
    import hashlib

    return b"".join(hashlib.sha512(number.to_bytes(4)).digest() for number in range(size // 64))


def small() -> Image:
    """Two layers."""
    return make_image({"a": b"one"}, {"b": b"two"})


def pulled(
    odd: OddRegistry, store: ContentStore, clients: Clients, name: str = "box:1", **options: object
) -> Descriptor:
    """Pull from the registry of the test."""
    return pull(parse_reference(f"{odd.name}/{name}"), store, clients(odd.name), **options)  # type: ignore[arg-type]


def test_a_pull_brings_all_and_asks_once(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = small()
    odd.add("box", image, "1")
    descriptor = pulled(odd, store, clients)
    assert (descriptor.digest, descriptor.size) == (image.digest, len(image.raw))
    assert store.tags()[f"{odd.name}/box:1"].digest == image.digest and not store.missing(descriptor)
    assert len(odd.seen) == 4
    pulled(odd, store, clients)
    assert len(odd.seen) == 5, "what is there is not fetched again"


def blob_requests(odd: OddRegistry, digest: str) -> list[str]:
    """The Range of each request for a blob."""
    return [one.headers.get("range", "") for one in odd.asked("GET", f"blobs/{digest}")]


def test_what_broke_off_goes_on_where_it_broke_off(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = make_image({"big": incompressible(300_000)})
    odd.add("box", image, "1")
    odd.fault(cut(100_000), f"blobs/{image.layers[0]}")
    odd.fault(cut(50_000), f"blobs/{image.layers[0]}")
    moved = list[int]()

    class Counting(Watching):
        def advance(self, blob: Descriptor, count: int) -> None:
            if blob.digest == image.layers[0]:
                moved.append(count)

    pulled(odd, store, clients, progress=Counting())
    assert blob_requests(odd, image.layers[0]) == ["", "bytes=100000-", "bytes=150000-"]
    assert sum(moved) == len(image.blobs[image.layers[0]])


@pytest.mark.parametrize("answer", ["all of it", "another part", "no such part"])
def test_a_registry_that_cannot_go_on_begins_again(
    odd: OddRegistry, store: ContentStore, clients: Clients, answer: str
) -> None:
    image = make_image({"big": incompressible(100_000)})
    odd.add("box", image, "1")
    odd.fault(cut(5_000), f"blobs/{image.layers[0]}")
    data = image.blobs[image.layers[0]]
    if answer == "all of it":
        odd.ranges = False
    elif answer == "another part":
        odd.fault(
            status(206, {"Content_Range": f"bytes 0-{len(data) - 1}/{len(data)}"}, data), f"blobs/{image.layers[0]}"
        )
    else:
        odd.fault(status(416), f"blobs/{image.layers[0]}")
    pulled(odd, store, clients)
    ranges = ["", "bytes=5000-"] if answer == "all of it" else ["", "bytes=5000-", ""]
    assert blob_requests(odd, image.layers[0]) == ranges


def test_a_pull_that_gives_up_leaves_no_image_and_the_next_one_goes_on(
    odd: OddRegistry, store: ContentStore, clients: Clients
) -> None:
    image = make_image({"big": incompressible(100_000)})
    odd.add("box", image, "1")
    odd.fault(cut(40_000), f"blobs/{image.layers[0]}")
    odd.fault(hang_up, f"blobs/{image.layers[0]}", times=2)
    with pytest.raises(ImageError, match=r"127.0.0.1:\d+ broke off: .*tried 3 times"):
        pulled(odd, store, clients)
    assert store.tags() == {} and not store.has(image.layers[0])
    before = len(odd.seen)
    pulled(odd, store, clients)
    assert blob_requests(odd, image.layers[0])[-1] == "bytes=40000-" and len(odd.seen) == before + 2
    assert store.read(Descriptor("", image.layers[0], len(image.blobs[image.layers[0]])))


def test_bytes_that_are_not_what_was_announced(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = make_image({"big": incompressible(100_000)})
    odd.add("box", image, "1")
    odd.fault(change(lambda body: b"x" + body[1:]), f"blobs/{image.layers[0]}")
    with pytest.raises(
        ImageError, match=rf"what came as blob {image.layers[0]} is sha256:.* damaged on its way, or forged"
    ):
        pulled(odd, store, clients)
    assert store.tags() == {} and not store.partial()
    odd.fault(change(lambda body: body + b"more"), f"blobs/{image.layers[0]}")
    with pytest.raises(ImageError, match=r"sends more than the \d+ bytes that the blob has by its manifest"):
        pulled(odd, store, clients)
    assert store.tags() == {}
    pulled(odd, store, clients)


def test_a_part_that_was_wrong_from_the_beginning_is_fetched_anew(
    odd: OddRegistry, store: ContentStore, clients: Clients
) -> None:
    image = make_image({"big": incompressible(100_000)})
    odd.add("box", image, "1")
    blob = Descriptor("", image.layers[0], len(image.blobs[image.layers[0]]))
    with pytest.raises(RuntimeError), store.ingest(blob) as writer:
        writer.write(b"not what it should be")
        raise RuntimeError
    pulled(odd, store, clients)
    assert blob_requests(odd, image.layers[0]) == ["bytes=21-", ""]


def test_manifests_are_verified_before_they_are_read(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = small()
    odd.add("box", image, "1")
    odd.fault(change(lambda body: body.replace(b"2", b"1", 1)), "manifests", times=2)
    with pytest.raises(ImageError, match=rf"sends another manifest than {image.digest}: its digest is sha256:"):
        pulled(odd, store, clients, f"box@{image.digest}")
    with pytest.raises(ImageError, match=rf"sends another manifest than {image.digest}: its digest is sha256:"):
        pulled(odd, store, clients)
    assert pulled(odd, store, clients, f"box@{image.digest}").digest == image.digest
    assert f"{odd.name}/box@{image.digest}" in store.tags()


@pytest.mark.parametrize(("answer", "said"), [
    (status(200, {"Content_Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, b'{"schemaVersion": 1}'),
     "docker's schema 1"),
    (status(200, {"Content_Type": "application/vnd.oci.image.manifest.v1+json"}, b"{" + b" " * (5 << 20) + b"}"),
     "sends a manifest of more than 4 MiB, which is refused"),
    (status(200, {"Content_Type": "text/html"}, b"<html>log in to the hotel's network</html>"), "is no JSON"),
    (status(200, {}, json.dumps({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).encode()),
     "both a manifest and an index"),
])  # fmt: skip
def test_documents_that_are_no_images(
    odd: OddRegistry, store: ContentStore, clients: Clients, answer: Callable[..., bool], said: str
) -> None:
    odd.fault(answer, "manifests")
    with pytest.raises(ImageError, match=said):
        pulled(odd, store, clients)
    assert store.tags() == {}


def test_a_busy_registry_is_asked_again(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    odd.add("box", small(), "1")
    odd.fault(status(429, {"Retry_After": "0"}), "manifests")
    odd.fault(status(503, {"Retry_After": "Thu, 01 Jan 2015 00:00:00 GMT"}), "manifests")
    odd.fault(hang_up, "blobs", times=2)
    pulled(odd, store, clients)
    odd.fault(
        status(500, body=b'{"errors": [{"code": "UNKNOWN", "message": "out of\\u001b[31m paper"}]}'),
        "manifests",
        times=9,
    )
    with pytest.raises(ImageError) as caught:
        pulled(odd, store, clients)
    assert str(caught.value).endswith("answers with HTTP status 500, UNKNOWN: out of\\x1b[31m paper; tried 3 times")
    odd.faults.clear()
    odd.fault(status(429, {"Retry_After": "3600"}), "manifests", times=9)
    before = len(odd.seen)
    with pytest.raises(ImageError, match=r"wants to be left alone for 3600 s"):
        pulled(odd, store, clients)
    assert len(odd.seen) == before + 1


def test_a_registry_that_asks_for_a_pause_gets_it(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    import time

    odd.add("box", small(), "1")
    odd.fault(status(429, {"Retry_After": "1"}), "manifests")
    begin = time.monotonic()
    pulled(odd, store, clients)
    assert time.monotonic() - begin >= 1


def test_silence_is_given_up(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = make_image({"big": incompressible(100_000)})
    odd.add("box", image, "1")
    odd.fault(fall_silent(30_000), f"blobs/{image.layers[0]}")
    registries = clients(odd.name, patience=QUICK.replace(silence=0.2))
    pull(parse_reference(f"{odd.name}/box:1"), store, registries)
    assert blob_requests(odd, image.layers[0]) == ["", "bytes=30000-"]


def test_nobody_there(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    with pytest.raises(ImageError, match=r"cannot reach 127.0.0.1:1: Connection refused; tried 3 times"):
        pull(parse_reference("127.0.0.1:1/box"), store, clients("127.0.0.1:1"))
    with pytest.raises(ImageError, match=r"cannot reach nowhere.invalid: no host of that name is known here"):
        pull(parse_reference("nowhere.invalid/box"), store, clients("nowhere.invalid"))


def test_what_is_not_there_and_what_is(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    odd.add("library/debian", small(), "12", "12-slim", "11", "latest")
    cases = {
        "library/debain": r"127.0.0.1:\d+ has no repository library/debain: NAME_UNKNOWN: repository name not known",
        "library/debian:12-slimm": r'has no tag "12-slimm" of library/debian; it has 12-slim, 11, 12, latest$',
        f"library/debian@sha256:{'0' * 64}": f"has nothing of the digest sha256:{'0' * 64} in library/debian",
    }
    for name, said in cases.items():
        with pytest.raises(ImageError, match=said):
            pulled(odd, store, clients, name)


def test_many_tags_come_in_pages_and_few_are_shown(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = small()
    odd.add("box", image, *(f"v{number}" for number in range(25)))
    odd.page = 10
    [registry] = clients(odd.name)
    assert sorted(registry.tags("box")) == sorted(f"v{number}" for number in range(25))
    with pytest.raises(ImageError, match=r"it has .* and 17 more$"):
        pulled(odd, store, clients)
    for number in range(25):
        odd.add(f"box{number:02}", image, "1")
    assert [*registry.repositories()] == ["box", *(f"box{number:02}" for number in range(25))]
    assert len(odd.asked("GET", "_catalog")) == 3


def test_pages_without_an_end(odd: OddRegistry, clients: Clients) -> None:
    again = {"Link": '</v2/_catalog?n=1000>; rel="next"'}
    odd.fault(status(200, again, b'{"repositories": ["a"]}'), "_catalog", times=99)
    [registry] = clients(odd.name)
    assert [*registry.repositories()] == ["a"]


def test_an_index_is_chosen_from_by_platform(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    ours, arm, old = (
        small(),
        make_image({"a": b"arm"}, architecture="arm64"),
        make_image({"a": b"v6"}, architecture="arm"),
    )
    odd.add_index("box", [
        (make_image({"x": b""}, architecture="unknown"), {"os": "unknown", "architecture": "unknown"}),
        (arm, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
        (old, {"os": "linux", "architecture": "arm", "variant": "v6"}),
        (ours, {"os": "linux", "architecture": "amd64"}),
    ], "1")  # fmt: skip
    assert pulled(odd, store, clients, platform=Platform("linux", "amd64")).digest == ours.digest
    assert pulled(odd, store, clients, platform=Platform("linux", "arm64")).digest == arm.digest
    assert pulled(odd, store, clients, platform=Platform("linux", "arm", "v6")).digest == old.digest
    with pytest.raises(
        ImageError,
        match=r"box:1 is not there for linux/s390x; it is for linux/amd64, linux/arm/v6, linux/arm64/v8: say which",
    ):
        pulled(odd, store, clients, platform=Platform("linux", "s390x"))


def test_an_image_for_another_machine(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    odd.add("box", make_image({"a": b""}, architecture="riscv64"), "1")
    with pytest.raises(ImageError, match=r"is for linux/riscv64, and not for linux/amd64; .* --platform linux/riscv64"):
        pulled(odd, store, clients, platform=Platform("linux", "amd64"))
    assert store.tags() == {}
    pulled(odd, store, clients, platform=Platform("linux", "riscv64"))


def test_docker_s_own_types(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = make_image({"a": b"one"}, docker=True)
    odd.add("box", image, "1")
    assert pulled(odd, store, clients).media_type == "application/vnd.docker.distribution.manifest.v2+json"


def test_redirects_lose_the_password_on_the_way(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = small()
    odd.auth = "basic"
    odd.add("box", image, "1")
    with OddRegistry().serving() as elsewhere:
        elsewhere.add("store", image)
        for digest in image.blobs:
            odd.fault(status(307, {"Location": f"{elsewhere.base}/v2/store/blobs/{digest}"}), f"blobs/{digest}")
        pull(parse_reference(f"{odd.name}/box:1"), store, clients(odd.name, login=Login("student", "secret")))
        assert len(elsewhere.seen) == 3 and not any("authorization" in one.headers for one in elsewhere.seen)
    assert all("authorization" in one.headers for one in odd.asked("GET", "blobs"))


def test_redirects_without_an_end(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    odd.fault(status(302, {"Location": "/v2/box/manifests/1"}), "manifests", times=99)
    with pytest.raises(ImageError, match=r"sends us from one place to another, 5 times"):
        pulled(odd, store, clients)
    assert len(odd.seen) == 5


def test_two_pulls_at_once_fetch_each_blob_once(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = make_image({"a": incompressible(200_000)}, {"b": incompressible(100_000)})
    odd.add("box", image, "1")
    found = list[str]()
    both = [threading.Thread(target=lambda: found.append(pulled(odd, store, clients).digest)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(DEADLINE)
    assert found == [image.digest] * 2
    assert not store.missing(store.tags()[f"{odd.name}/box:1"])
    for digest in image.blobs:
        assert len(odd.asked("GET", digest)) == 1, digest


def test_layers_are_unpacked_while_others_come_and_nothing_is_collected_meanwhile(
    odd: OddRegistry, store: ContentStore, clients: Clients
) -> None:
    image = make_image({"a": b"1"}, {"b": b"2"}, {"c": b"3"})
    odd.add("box", image, "1")
    unpacked, held = threading.Event(), list[bool]()

    def wait_for_the_first(handler: object) -> bool:
        assert unpacked.wait(DEADLINE), "the first layer is not unpacked before the last has come"
        return False

    odd.fault(wait_for_the_first, f"blobs/{image.layers[2]}")
    done = list[tuple[str, str]]()

    def unpack(layer: Descriptor, diff_id: str) -> None:
        assert store.has(layer.digest)
        with store.changing(patient=False) as alone:
            held.append(not alone)
        done.append((layer.digest, diff_id))
        unpacked.set()

    pulled(odd, store, clients, unpack=unpack)
    diff_ids = json.loads(image.blobs[json.loads(image.raw)["config"]["digest"]])["rootfs"]["diff_ids"]
    assert sorted(done) == sorted(zip(image.layers, diff_ids, strict=True)) and held == [True] * 3


def test_the_first_error_stops_the_others(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = make_image({"a": b"1"}, {"b": incompressible(100_000)})
    odd.add("box", image, "1")
    odd.fault(fall_silent(1000), f"blobs/{image.layers[1]}", times=9)

    def unpack(layer: Descriptor, diff_id: str) -> None:
        raise ImageError("no")

    with pytest.raises(ImageError, match=r"^no$"):
        pull(parse_reference(f"{odd.name}/box:1"), store, clients(odd.name, patience=QUICK.replace(silence=3600)),
             unpack=unpack)  # fmt: skip


def test_a_mirror_is_asked_first_and_the_registry_where_it_does_not_help(
    odd: OddRegistry, store: ContentStore, clients: Clients
) -> None:
    image, other = small(), small()
    odd.add("library/box", image, "1", "2")
    with OddRegistry().serving() as mirror:
        mirror.add("hub/library/box", other, "1")
        del mirror.blobs["hub/library/box", image.layers[1]]
        settings = {odd.name: {"mirrors": [f"{mirror.base}/hub", "127.0.0.1:1"]}}
        told = Watching()
        pull(parse_reference(f"{odd.name}/library/box:1"), store, clients(odd.name, settings), progress=told)
        assert [one.path for one in odd.seen] == [f"/v2/library/box/blobs/{image.layers[1]}"]
        assert [remark.split(": ")[0] for remark in told.remarks] == [
            f"{mirror.name} does not help", "127.0.0.1:1 does not help"
        ]  # fmt: skip
        pull(parse_reference(f"{odd.name}/library/box:2"), store, clients(odd.name, settings), progress=told)
        assert len(odd.asked("GET", "manifests")) == 1
        assert told.remarks[2].startswith(f"the mirror {mirror.name} does not help: {mirror.name} has no tag")
    assert set(store.tags()) == {f"{odd.name}/library/box:1", f"{odd.name}/library/box:2"}


def test_layers_that_registries_may_not_give_away(
    odd: OddRegistry, store: ContentStore, clients: Clients, certificate: tuple[str, str]
) -> None:
    image = make_image({"a": b"mine"}, {"b": b"theirs"})
    document = json.loads(image.raw)
    with OddRegistry().serving(certificate=certificate) as vendor:
        vendor.add("vendor", image)
        document["layers"][1] |= {
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "urls": ["http://127.0.0.1/not/safe", f"{vendor.base}/v2/vendor/blobs/{image.layers[1]}"],
        }
        altered = Image(json.dumps(document).encode(), dict(image.blobs), image.layers)
        del altered.blobs[image.layers[1]]
        odd.add("box", altered, "1")
        pull(
            parse_reference(f"{odd.name}/box:1"),
            store,
            clients(odd.name, ca=certificate[0], settings={odd.name: {"insecure": True}}),
        )
        assert len(vendor.seen) == 1 and not odd.asked("GET", image.layers[1])
    before = len(odd.seen)
    push(parse_reference(f"{odd.name}/box:1"), store, clients(odd.name)[0])
    assert not any(image.layers[1] in one.path for one in odd.seen[before:])


def test_https_and_who_vouches_for_it(
    world: object, store: ContentStore, clients: Clients, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    with OddRegistry().serving(certificate=certificate) as odd:
        odd.add("box", small(), "1")
        reference = parse_reference(f"{odd.name}/box:1")
        with pytest.raises(
            ImageError, match=r"cannot trust 127.0.0.1:\d+: .*self.signed certificate.*named with --ca FILE"
        ):
            pull(reference, store, [Registry(Endpoint(odd.name, odd.base), QUICK)])
        pull(reference, store, clients(odd.name, ca=certificate[0]))
        pull(reference, store, clients(odd.name, {odd.name: {"ca": certificate[0]}}))
        place = tmp_path / "certs.d" / odd.name
        place.mkdir(parents=True)
        (place / "ca.crt").write_text(Path(certificate[0]).read_text())
        monkeypatch.setattr("minicontainer.images.endpoints.CERTIFICATES", (str(tmp_path / "certs.d"),))
        pull(reference, store, clients(odd.name))
        with pytest.raises(ImageError, match=r"cannot take /nowhere to vouch for .*: No such file"):
            pull(reference, store, clients(odd.name, ca="/nowhere"))
        odd.fault(status(302, {"Location": "http://127.0.0.1/v2/"}), "manifests")
        with pytest.raises(ImageError, match=r"sends us from https://.* to http://127.0.0.1, which is not as safe"):
            pull(reference, store, clients(odd.name, ca=certificate[0]))


def test_a_registry_that_speaks_http_where_https_is_expected(odd: OddRegistry, store: ContentStore) -> None:
    with pytest.raises(ImageError, match=r"it speaks plain http; if it may, write insecure = true"):
        pull(parse_reference(f"{odd.name}/box:1"), store, [Registry(Endpoint(odd.name, f"https://{odd.name}"), QUICK)])


def test_a_proxy_from_the_environment(
    odd: OddRegistry, store: ContentStore, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry stands in for the proxy, which is asked for whole addresses."""
    odd.add("box", small(), "1")
    monkeypatch.setenv("http_proxy", f"http://me:pass@{odd.name}")
    settings = {"registry.invalid:80": {"insecure": True}}
    pull(parse_reference("registry.invalid:80/box:1"), store, clients("registry.invalid:80", settings))
    assert {one.headers["host"] for one in odd.seen} == {"registry.invalid:80"}
    assert {one.headers["proxy-authorization"] for one in odd.seen} == {"Basic bWU6cGFzcw=="}
    before = len(odd.seen)
    monkeypatch.setenv("no_proxy", "registry.invalid")
    with pytest.raises(ImageError, match=r"no host of that name"):
        pull(parse_reference("registry.invalid:80/box:1"), store, clients("registry.invalid:80", settings))
    monkeypatch.setenv("http_proxy", "socks5://nowhere")
    monkeypatch.delenv("no_proxy")
    with pytest.raises(ImageError, match='the environment names the proxy "socks5://nowhere": it must be http'):
        pull(parse_reference("registry.invalid:80/box:1"), store, clients("registry.invalid:80", settings))
    assert len(odd.seen) == before


def test_interruption_of_a_silent_registry(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = make_image({"big": incompressible(100_000)})
    odd.add("box", image, "1")
    registries = clients(odd.name, patience=QUICK.replace(silence=3600))
    half = threading.Event()

    class Waiting(Watching):
        def advance(self, blob: Descriptor, count: int) -> None:
            if blob.digest == image.layers[0] and count:
                half.set()

    odd.fault(fall_silent(30_000), f"blobs/{image.layers[0]}")

    def stop() -> None:
        assert half.wait(DEADLINE)
        registries[0].stop()

    other = threading.Thread(target=stop)
    other.start()
    with pytest.raises(ImageError, match=r"^interrupted$"):
        pull(parse_reference(f"{odd.name}/box:1"), store, registries, progress=Waiting())
    other.join(DEADLINE)
    pulled(odd, store, clients)
    assert blob_requests(odd, image.layers[0])[1].startswith("bytes=")


@pytest.mark.parametrize(("text", "said"), [
    ('here = 1\n', "write settings below the name of a registry"),
    ('[docker.io]\nmirrors = []\n', "write settings below the name of a registry"),
    ('["a.b"]\nmirror = ["x"]\n', "there are mirrors"),
    ('["a.b"]\nmirrors = [1]\n', "mirrors are names or URLs"),
    ('["a.b"]\ninsecure = "yes"\n', "insecure"),
    ('["a.b"\n', "cannot read"),
])  # fmt: skip
def test_settings_that_cannot_be_understood(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "registries.toml").write_text(text)
    with pytest.raises(ImageError, match=said):
        read_settings(tmp_path / "registries.toml")


@pytest.mark.parametrize(("registry", "base"), [
    ("docker.io", "https://registry-1.docker.io"), ("quay.io", "https://quay.io"), ("localhost:5000", "http://localhost:5000"),
    ("[::1]:5000", "http://[::1]:5000"), ("127.3.2.1", "http://127.3.2.1"), ("127.example.com", "https://127.example.com"),
    ("127.0.0.1.example.com", "https://127.0.0.1.example.com"), ("10.0.0.5:5000", "http://10.0.0.5:5000"),
    ("10.0.0.6:5000", "https://10.0.0.6:5000"),
])  # fmt: skip
def test_plain_http_for_this_machine_only_and_for_what_is_said_to_be_insecure(registry: str, base: str) -> None:
    [endpoint] = endpoints_of(registry, {"10.0.0.5:5000": {"insecure": True}})
    assert endpoint.base == base


def test_an_interrupt_that_only_another_thread_notices(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    """As one does that comes right before the main thread goes to sleep: nothing wakes that."""
    odd.add("box", small(), "1")
    [client] = clients(odd.name)
    stopped = threading.Event()
    stop, waited = client.stop, list[bool]()

    def stopping() -> None:
        stop()
        stopped.set()

    def unpack(layer: Descriptor, diff_id: str) -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        waited.append(stopped.wait(DEADLINE))

    client.stop = stopping  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        pull(parse_reference(f"{odd.name}/box:1"), store, [client], unpack=unpack)
    assert waited and all(waited)
