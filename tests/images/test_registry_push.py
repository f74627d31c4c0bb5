"""Pushes to a registry that misbehaves: uploads that break off, places that move, blobs that are there already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer.images.authentication import Login
from minicontainer.images.content import ContentStore
from minicontainer.images.documents import Descriptor
from minicontainer.images.errors import ImageError
from minicontainer.images.references import parse_reference
from minicontainer.images.registry import Registry
from minicontainer.images.transfer import Progress, push
from tests.images.registry_server import INDEX, Image, OddRegistry, cut, forget, hang_up, make_image, status
from tests.images.test_registry import Clients, Watching, incompressible, small


def keep(store: ContentStore, name: str, image: Image) -> Descriptor:
    """Have an image in the store."""
    for digest, data in image.blobs.items():
        with store.ingest(Descriptor("", digest, len(data))) as writer:
            writer.write(data[writer.offset :])
    descriptor = store.put(image.media_type, image.raw)
    store.tag(parse_reference(name).canonical, descriptor)
    return descriptor


def pushed(
    odd: OddRegistry, store: ContentStore, clients: Clients, name: str = "box:1", **options: object
) -> Descriptor:
    """Push to the registry of the test."""
    return push(parse_reference(f"{odd.name}/{name}"), store, clients(odd.name)[0], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_push_brings_what_is_not_there(
    odd: OddRegistry, store: ContentStore, clients: Clients, absolute: bool
) -> None:
    odd.absolute = absolute
    image = small()
    keep(store, f"{odd.name}/box:1", image)
    odd.blobs["box", image.layers[0]] = image.blobs[image.layers[0]]
    told = Watching()
    pushed(odd, store, clients, progress=told)
    assert {digest for _, digest in odd.blobs} == set(image.blobs)
    assert odd.manifests["box", "1"] == (image.media_type, image.raw)
    assert len(odd.asked("HEAD", "blobs")) == 3 and len(odd.asked("PUT", "uploads")) == 2
    assert told.ended[image.layers[0]] == "there already" and told.ended[image.layers[1]] == "pushed"
    assert odd.seen[-1].path == "/v2/box/manifests/1", "the manifest goes last"


def test_a_large_blob_goes_in_parts_and_on_where_it_broke_off(
    odd: OddRegistry, store: ContentStore, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minicontainer.images.registry.CHUNK", 100_000)
    image = make_image({"big": incompressible(450_000)})
    size = len(image.blobs[image.layers[0]])
    keep(store, f"{odd.name}/box:1", image)
    odd.fault(lambda handler: False, "uploads", "PATCH")  # the first part arrives
    odd.fault(cut(130_000), "uploads", "PATCH")
    moved = list[int]()

    class Counting(Progress):
        def advance(self, blob: Descriptor, count: int) -> None:
            if blob.digest == image.layers[0]:
                moved.append(count)

    pushed(odd, store, clients, progress=Counting())
    begins = [int(one.headers["content-range"].split("-")[0]) for one in odd.asked("PATCH", "uploads")]
    assert begins[:2] == [0, 100_000] and 130_000 <= begins[2] < 200_000, begins
    assert odd.blobs["box", image.layers[0]] == image.blobs[image.layers[0]] and sum(moved) == size
    assert len(odd.asked("POST", "uploads")) == 2, "one for the configuration, one for the layer"


@pytest.mark.parametrize("lost", ["upload", "answer"])
def test_an_upload_that_is_not_known_any_more(
    odd: OddRegistry, store: ContentStore, clients: Clients, lost: str
) -> None:
    image = small()
    keep(store, f"{odd.name}/box:1", image)

    def lose(handler: object) -> bool:
        if lost == "upload":
            odd.uploads.clear()
        else:
            odd.blobs["box", image.layers[0]] = image.blobs[image.layers[0]]
            odd.blobs["box", image.layers[1]] = image.blobs[image.layers[1]]
        return hang_up(handler)  # type: ignore[arg-type]

    odd.fault(lose, "uploads", "PUT")
    pushed(odd, store, clients, parallel=1)
    assert odd.manifests["box", "1"][1] == image.raw
    assert len(odd.asked("POST", "uploads")) == (4 if lost == "upload" else 2)


def test_a_blob_is_mounted_from_a_repository_that_has_it(
    odd: OddRegistry, store: ContentStore, clients: Clients
) -> None:
    base, own = make_image({"a": b"base"}), make_image({"a": b"base"}, {"b": b"own"})
    odd.auth = "token"
    odd.add("base", base, "1")
    keep(store, f"{odd.name}/base:1", base)
    keep(store, f"{odd.name}/own:1", own)
    told = Watching()
    [registry] = clients(odd.name, login=Login("student", "secret"))
    push(parse_reference(f"{odd.name}/own:1"), store, registry, progress=told)
    assert told.ended[own.layers[0]] == "mounted" and told.ended[own.layers[1]] == "pushed"
    assert ["repository:own:pull,push", "repository:base:pull"] in [
        one.query["scope"] for one in odd.asked("GET", "token")
    ]


def test_where_a_blob_cannot_be_mounted_it_is_sent(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    image = small()
    keep(store, f"{odd.name}/base:1", image)
    keep(store, f"{odd.name}/own:1", image)
    pushed(odd, store, clients, "own:1")
    assert len(odd.asked("POST", "uploads")) == 3 == len(odd.asked("PUT", "uploads"))


def test_a_push_of_an_index_brings_its_images_first(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    one, other = small(), make_image({"a": b"arm"}, architecture="arm64")
    for image in (one, other):
        odd.add_index(
            "from",
            [(one, {"os": "linux", "architecture": "amd64"}), (other, {"os": "linux", "architecture": "arm64"})],
            "1",
        )
        keep(store, f"{odd.name}/kept:{image.digest[-8:]}", image)
    raw = odd.manifests["from", "1"][1]
    index = store.put(INDEX, raw)
    store.tag(f"{odd.name}/to:1", index)
    pushed(odd, store, clients, "to:1")
    assert odd.manifests["to", "1"] == (INDEX, raw)
    assert {image.digest for image in (one, other)} <= {
        name for repository, name in odd.manifests if repository == "to"
    }
    Path(store.path(other.digest)).unlink()
    with pytest.raises(ImageError, match=rf"names an image for linux/arm64 that is not here: {other.digest}"):
        pushed(odd, store, clients, "to:1")


def test_a_push_that_is_refused(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    with pytest.raises(
        ImageError, match=r"there is no image 127.0.0.1:\d+/box:1 here; to give one that name: minicontainer tag"
    ):
        pushed(odd, store, clients)
    keep(store, f"{odd.name}/box:1", small())
    odd.fault(status(403, body=b'{"errors": [{"code": "DENIED", "message": "read only"}]}'), "uploads", "POST", times=9)
    with pytest.raises(ImageError, match=r"cannot push to box in 127.0.0.1:\d+: HTTP status 403, DENIED: read only"):
        pushed(odd, store, clients)
    odd.faults.clear()
    odd.fault(status(413), "manifests", "PUT")
    with pytest.raises(ImageError, match=r"cannot push box:1 to 127.0.0.1:\d+: HTTP status 413"):
        pushed(odd, store, clients)
    odd.fault(status(201, {"Docker_Content_Digest": f"sha256:{'0' * 64}"}), "manifests", "PUT")
    with pytest.raises(ImageError, match=r"has taken box:1 for sha256:0000"):
        pushed(odd, store, clients)


def test_a_token_that_ends_in_the_middle_of_a_push(
    odd: OddRegistry, store: ContentStore, clients: Callable[..., list[Registry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minicontainer.images.registry.CHUNK", 100_000)
    image = make_image({"big": incompressible(250_000)})
    odd.auth = "token"
    keep(store, f"{odd.name}/box:1", image)
    odd.fault(lambda handler: False, "uploads", "PATCH")
    odd.fault(forget, "uploads", "PATCH")
    [registry] = clients(odd.name, login=Login("student", "secret"))
    push(parse_reference(f"{odd.name}/box:1"), store, registry)
    assert odd.blobs["box", image.layers[0]] == image.blobs[image.layers[0]]
    assert odd.manifests["box", "1"][1] == image.raw
