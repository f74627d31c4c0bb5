"""Manifests, indexes, configurations: read with distrust."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.images.documents import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    encode,
    parse_platform,
    read_config,
    read_manifest,
)
from minicontainer.images.errors import ImageError

DIGEST = f"sha256:{'a' * 64}"
BLOB = {"mediaType": "x/y", "digest": DIGEST, "size": 3}
GOOD = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": BLOB, "layers": [BLOB, BLOB]}
CONFIG = {"architecture": "arm64", "os": "linux", "variant": "v8", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}


def raw(document: object) -> bytes:
    return json.dumps(document).encode()


def test_a_manifest() -> None:
    found = read_manifest(raw(GOOD), OCI_MANIFEST)
    assert found == Manifest(Descriptor("x/y", DIGEST, 3), (Descriptor("x/y", DIGEST, 3),) * 2)
    assert read_manifest(encode(found), OCI_MANIFEST) == found


@pytest.mark.parametrize("type", ["", "application/json", "application/octet-stream"])
def test_a_type_that_says_nothing_leaves_it_to_the_document(type: str) -> None:
    assert isinstance(read_manifest(raw(GOOD), type), Manifest)
    old = {key: value for key, value in GOOD.items() if key != "mediaType"}
    assert isinstance(read_manifest(raw(old), type), Manifest)


def test_an_index() -> None:
    one = {**BLOB, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}, "annotations": {"a": "b"}}
    found = read_manifest(raw({"schemaVersion": 2, "manifests": [one]}), OCI_INDEX)
    assert found == Index((Descriptor("x/y", DIGEST, 3, Platform("linux", "arm", "v7"), {"a": "b"}),))
    assert read_manifest(encode(found), OCI_INDEX) == found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"layers": [BLOB, {**BLOB, "size": "3"}]},
            r"the manifest: layers\[1\]\.size is a string, and not a whole number",
        ),
        ({"layers": [{**BLOB, "size": True}]}, r"layers\[0\]\.size is true or false"),
        ({"layers": [{**BLOB, "size": -1}]}, r"layers\[0\]\.size is -1"),
        ({"layers": [{**BLOB, "digest": "sha256:../../../etc/passwd"}]}, r"layers\[0\]\.digest is .*a digest is"),
        ({"config": {**BLOB, "digest": "md5:abc"}}, r"config\.digest is"),
        ({"config": None}, "config is missing"),
        ({"layers": None}, "layers"),
        ({"layers": {}}, "layers is an object, and not an array"),
        ({"layers": [7]}, r"layers\[0\] is a number, and not an object"),
        ({"config": {**BLOB, "mediaType": 7}}, r"config\.mediaType is a number"),
        ({"annotations": {"a": 1}}, r"annotations\.a is a number"),
        ({"annotations": {"a": "\ud800"}}, "half a character"),
        ({"schemaVersion": 1}, "schemaVersion 1"),
        ({"schemaVersion": "2"}, "schemaVersion is a string"),
        ({"mediaType": DOCKER_MANIFEST}, "one of them is wrong"),
        ({"manifests": [BLOB]}, "both a manifest and an index"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ImageError, match=told):
        read_manifest(raw({**GOOD, **change}), OCI_MANIFEST)


def test_a_document_cannot_be_taken_for_another() -> None:
    """CVE-2021-41190."""
    both = {"schemaVersion": 2, "manifests": [BLOB], "layers": [BLOB], "config": BLOB}
    for type in ("", OCI_INDEX, OCI_MANIFEST):
        with pytest.raises(ImageError, match="refused"):
            read_manifest(raw(both), type)
    with pytest.raises(ImageError, match="something else"):
        read_manifest(raw({"schemaVersion": 2, "mediaType": OCI_INDEX, "config": BLOB, "layers": []}), "")


def test_more_than_four_megabytes_are_refused() -> None:
    big = raw({**GOOD, "annotations": {"a": "x" * (5 << 20)}})
    with pytest.raises(ImageError, match="more than 4 MiB are not read"):
        read_manifest(big, OCI_MANIFEST)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"7" * 5000])
def test_what_is_no_document(text: bytes) -> None:
    with pytest.raises(ImageError):
        read_manifest(text, OCI_MANIFEST)
    with pytest.raises(ImageError):
        read_config(text)


def test_schema_1_is_refused() -> None:
    with pytest.raises(ImageError, match="schema 1"):
        read_manifest(raw({"schemaVersion": 1}), "application/vnd.docker.distribution.manifest.v1+prettyjws")


def test_a_configuration() -> None:
    settings = {
        "Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": None, "WorkingDir": "/w", "User": "u:g", "Labels": {"l": "m"},
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGQUIT",
    }  # fmt: skip
    history = [{"created_by": "FROM", "empty_layer": True}, {"created_by": "ADD", "comment": "c"}]
    found = read_config(raw({**CONFIG, "config": settings, "history": history}))
    assert (found.env, found.cmd, found.entrypoint, found.cwd, found.user) == (("A=b",), ("sh",), (), "/w", "u:g")
    assert (found.labels, found.exposed_ports, found.volumes, found.stop_signal) == (
        {"l": "m"},
        ("80/tcp",),
        ("/data",),
        "SIGQUIT",
    )
    assert [step.empty_layer for step in found.history] == [True, False]
    assert found.platform == Platform("linux", "arm64", "v8") and found.diff_ids == (DIGEST,)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:x/y"]}}, r"rootfs\.diff_ids\[0\]"),
        ({"rootfs": {"type": "tree", "diff_ids": []}}, r"rootfs\.type"),
        ({"rootfs": None}, "rootfs is missing"),
        ({"config": {"Env": "A=b"}}, r"config\.Env is a string, and not an array"),
        ({"config": {"Cmd": ["a\0b"]}}, r"config\.Cmd has a NUL"),
        ({"config": {"Labels": {"a": None}}}, r"config\.Labels\.a is null"),
        ({"config": []}, "config is an array"),
        ({"architecture": 7}, "architecture is a number"),
        ({"history": [{"empty_layer": 1}]}, r"history\[0\]\.empty_layer is a number"),
    ],
)
def test_a_configuration_that_is_wrong(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ImageError, match=told):
        read_config(raw({**CONFIG, **change}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*GOOD, *BLOB, *CONFIG, "manifests", "type", "diff_ids", "Env", "history"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(JSON, st.sampled_from(["", OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST]))
def test_anything_is_read_or_refused(document: object, type: str) -> None:
    base = document if isinstance(document, dict) else {"layers": document}
    for wanted in (document, {**GOOD, **base}, {**CONFIG, **base}):
        for read in (lambda text: read_manifest(text, type), read_config):
            try:
                read(json.dumps(wanted).encode())
            except ImageError as error:
                assert str(error).isprintable()


@pytest.mark.parametrize(
    ("made_for", "wanted", "serves"),
    [
        ("linux/amd64", "linux/amd64", True), ("linux/amd64", "linux/arm64", False), ("windows/amd64", "linux/amd64", False),
        ("linux/arm64/v8", "linux/arm64", True), ("linux/arm/v7", "linux/arm/v6", False), ("linux/x86_64", "amd64", True),
        ("linux/aarch64", "linux/arm64/v8", True), ("linux/arm", "linux/arm/v7", True),
    ],
)  # fmt: skip
def test_platforms(made_for: str, wanted: str, serves: bool) -> None:
    assert parse_platform(made_for).serves(parse_platform(wanted)) is serves


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/a/b/c", "lin ux/amd64", "../amd64"])
def test_odd_platforms(text: str) -> None:
    with pytest.raises(ImageError, match="OS/ARCHITECTURE"):
        parse_platform(text)
