"""`resolve`: what an image is made of, and nothing is believed before its digest is right."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer.steps.layout import DOCUMENT_LIMIT, resolve
from minicontainer.steps.unpacking import Refused
from tests.images.layouts import INDEX, MANIFEST, Layout, digest_of


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def names(layout: Layout, platform: str = "linux/amd64", tag: str = "tag") -> list[str]:
    return [one["digest"] for one in resolve(str(layout.directory), tag, platform)]


def test_configuration_then_layers_from_the_bottom_up(layout: Layout) -> None:
    layout.tag(layout.image([b"one", b"two"], bytes, ""))
    config, *layers = resolve(str(layout.directory), "tag")
    assert config["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert [one["digest"] for one in layers] == [digest_of(b"one"), digest_of(b"two")] and layers[0]["size"] == 3


@pytest.mark.parametrize("nested", [False, True])
def test_the_image_for_a_platform(layout: Layout, nested: bool) -> None:
    made = {}
    for platform in ("linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7", "windows/amd64"):
        parts = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        made[platform] = layout.image([platform.encode()], bytes, "", platform=parts)
    if nested:
        layout.tag(layout.document({"schemaVersion": 2, "manifests": list(made.values())}, INDEX))
    else:
        layout.tag(*made.values())
    for platform in made:
        assert names(layout, platform)[1] == digest_of(platform.encode())
    assert names(layout, "linux/arm")[1] == digest_of(b"linux/arm/v6")
    with pytest.raises(LookupError, match="is not for linux/riscv64, but for linux/amd64"):
        names(layout, "linux/riscv64")
    with pytest.raises(LookupError):
        names(layout, "linux/arm/v5")


def test_no_such_image(layout: Layout) -> None:
    layout.tag(layout.image([b"one"]))
    with pytest.raises(LookupError, match=r"no image 'other'.*there are: tag"):
        names(layout, tag="other")


def blob_of(layout: Layout, descriptor: dict[str, Any]) -> Path:
    return layout.directory / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")


def test_a_manifest_with_another_byte(layout: Layout) -> None:
    made = layout.image([b"one"])
    layout.tag(made)
    raw = blob_of(layout, made).read_bytes()
    blob_of(layout, made).write_bytes(raw.replace(b'"size": ', b'"size":\t', 1))
    with pytest.raises(Refused, match=r"has .* the digest"):
        names(layout)


@pytest.mark.parametrize("size", [0, 5, 10**9, -1, True, "7", None, 1.5])
def test_a_size_that_is_not_right(layout: Layout, size: Any) -> None:
    layout.tag({**layout.image([b"one"]), "size": size})
    with pytest.raises(Refused):
        names(layout)


@pytest.mark.parametrize("digest", ["sha256:../../../index.json", "sha256:" + "0" * 63 + "/", "", None, 5, "sha512:" + "0" * 128, "sha256:" + "F" * 64, ["sha256:" + "0" * 64]])  # fmt: skip
def test_a_digest_that_is_none(layout: Layout, digest: Any) -> None:
    layout.tag({**layout.image([b"one"]), "digest": digest})
    with pytest.raises(Refused, match="no descriptor"):
        names(layout)


def test_a_blob_that_is_missing(layout: Layout) -> None:
    made = layout.image([b"one"])
    layout.tag(made)
    blob_of(layout, made).unlink()
    with pytest.raises(FileNotFoundError):
        names(layout)


@pytest.mark.parametrize("other", ["layers", "config"])
def test_a_document_that_could_be_either(layout: Layout, other: str) -> None:
    document = json.loads(blob_of(layout, layout.image([b"one"])).read_bytes())
    layout.tag(layout.document({"manifests": [], other: document[other]}, MANIFEST))
    with pytest.raises(Refused, match="index and a manifest at once"):
        names(layout)


def test_indexes_in_one_another(layout: Layout) -> None:
    made = layout.image([b"one"])
    for depth in range(5):
        layout.tag(made)
        if depth < 4:
            assert names(layout)[1]
        made = layout.document({"manifests": [made]}, INDEX)
    layout.tag(made)
    with pytest.raises(Refused, match="more than 4 indexes"):
        names(layout)


def test_a_manifest_of_five_megabytes(layout: Layout) -> None:
    layout.tag(layout.document({"padding": "x" * (DOCUMENT_LIMIT + 1)}, MANIFEST))
    with pytest.raises(Refused, match="more than 4194304"):
        names(layout)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff\xfe", b"{}", b'{"config": {}}', b'{"config": null, "layers": []}', b'{"manifests": {}}', b'{"manifests": [5]}'])  # fmt: skip
def test_documents_that_make_no_sense(layout: Layout, raw: bytes) -> None:
    layout.tag(layout.blob(raw, MANIFEST))
    with pytest.raises((Refused, LookupError)):
        names(layout)
    (layout.directory / "index.json").write_bytes(raw)
    with pytest.raises((Refused, LookupError)):
        names(layout)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just("sha256:" + "0" * 64)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["manifests", "config", "layers", "digest", "size", "mediaType", "platform", "annotations", "os", "architecture"]), inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON)
def test_any_document_is_an_error_or_an_image(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    layout = Layout(tmp_path_factory.mktemp("any") / "layout")
    layout.tag(layout.document(document, MANIFEST))
    with contextlib.suppress(Refused, LookupError, FileNotFoundError):
        assert all(one["digest"] for one in resolve(str(layout.directory), "tag", "linux/amd64"))
    (layout.directory / "index.json").write_text(json.dumps(document))
    with pytest.raises((Refused, LookupError)):
        names(layout)
