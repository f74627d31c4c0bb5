"""Archives of images: docker's, old and new, and the specification's; written and read, by us and by skopeo."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer.images.archives import load, save
from minicontainer.images.content import ContentStore
from minicontainer.images.errors import ImageError
from minicontainer.images.images import Image, Images
from tests.images.made import Made, digest_of, tar_of

MADE = Made([{"etc/": b"", "etc/a": b"a" * 3000}, {"etc/b": b"b"}], {"Env": ["A=b"]})
COMPRESSED = Made([{"a": b"a" * 3000}], compress=True)

needs_skopeo = pytest.mark.skipif(
    not shutil.which("skopeo"), reason="skopeo is not installed: what is written is read by it"
)


@pytest.fixture
def images(store: ContentStore, tmp_path: Path) -> Images:
    return Images(store, str(tmp_path / "layers"), shutil.rmtree)


def taken(images: Images, archive: bytes) -> list[list[str]]:
    """What was loaded, by its names; unpacking is not the matter here."""
    return [[name.familiar for name in one.names] for one in load(images, io.BytesIO(archive), lambda image: None)]


def written(images: Images, *names: str, docker: bool = True) -> bytes:
    file = io.BytesIO()
    save([images.find(name) for name in names], images.content, file, docker=docker)
    return file.getvalue()


@pytest.mark.parametrize("made", [MADE, COMPRESSED])
def test_an_archive_of_a_layout(images: Images, made: Made) -> None:
    assert taken(images, made.layout("example.org/x:1")) == [["example.org/x:1"]]
    image = images.find("example.org/x:1")
    assert image.id == made.id and image.descriptor.digest == digest_of(made.manifest)
    assert set(images.content.blobs()) == {digest_of(raw) for raw in made.blobs().values()}


@pytest.mark.parametrize("twice", [False, True])
def test_an_archive_of_an_old_docker(images: Images, twice: bool) -> None:
    made = Made([{"a": b"a"}, {"b": b"b"}, {"a": b"a"}])
    assert taken(images, made.dockers("x:1", "me/y:2", twice=twice)) == [["x:1", "me/y:2"]]
    image = images.find("x:1")
    assert image.id == made.id and [layer.digest for layer in image.manifest.layers] == [
        digest_of(tar) for tar in made.tars
    ]
    assert images.find("me/y:2").descriptor == image.descriptor


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_compressed_archive(images: Images, compress: Callable[[bytes], bytes]) -> None:
    assert taken(images, compress(MADE.dockers("x:1"))) == [["x:1"]]


@pytest.mark.parametrize("name", [None, "latest", "1.2"])
def test_without_a_name_it_is_known_by_its_id(images: Images, name: str | None) -> None:
    """A tag alone, as the specification would have it, is no name."""
    assert taken(images, MADE.layout(name)) == [[]]
    assert images.find(MADE.id).names == () and images.find(MADE.id[7:15]).id == MADE.id


@pytest.mark.parametrize("docker", [True, False])
def test_what_is_written_is_read_again_with_all_its_names(images: Images, tmp_path: Path, docker: bool) -> None:
    taken(images, MADE.dockers("x:1", "y:2"))
    taken(images, COMPRESSED.layout("z:3"))
    archive = written(images, "x:1", "z:3", "y:2", docker=docker)
    assert archive == written(images, "x:1", "z:3", "y:2", docker=docker)
    other = Images(ContentStore(str(tmp_path / "other")), str(tmp_path / "other-layers"), shutil.rmtree)
    assert taken(other, archive) == [["x:1", "y:2"], ["z:3"]]
    assert {name: one.digest for name, one in other.content.tags().items()} == {
        name: one.digest for name, one in images.content.tags().items()
    }


@needs_skopeo
@pytest.mark.parametrize("made", [MADE, COMPRESSED], ids=["plain", "gzip"])
def test_skopeo_reads_what_we_write(images: Images, tmp_path: Path, made: Made) -> None:
    taken(images, made.layout("example.org/x:1"))
    (tmp_path / "ours.tar").write_bytes(written(images, "example.org/x:1"))
    raw = skopeo("inspect", "--raw", f"oci-archive:{tmp_path}/ours.tar:example.org/x:1")
    assert digest_of(raw) == images.find("example.org/x:1").descriptor.digest
    skopeo("copy", f"docker-archive:{tmp_path}/ours.tar:example.org/x:1", f"dir:{tmp_path}/out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["config"]["digest"] == made.id


@needs_skopeo
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_we_read_what_skopeo_writes(images: Images, tmp_path: Path, kind: str) -> None:
    (tmp_path / "in.tar").write_bytes(MADE.layout("example.org/x:1"))
    skopeo("copy", f"oci-archive:{tmp_path}/in.tar", f"{kind}:{tmp_path}/out.tar:example.org/x:2")
    assert taken(images, (tmp_path / "out.tar").read_bytes()) == [["example.org/x:2"]]
    image = images.find("example.org/x:2")
    assert (image.id, image.config.diff_ids) == (MADE.id, tuple(map(digest_of, MADE.tars)))
    if kind == "oci-archive":
        raw = skopeo("inspect", "--raw", f"oci-archive:{tmp_path}/out.tar")
        assert image.descriptor.digest == digest_of(raw)


def skopeo(*words: str) -> bytes:
    return subprocess.run(["skopeo", *words], capture_output=True, check=True, timeout=60).stdout


# What is wrong


@pytest.mark.parametrize(
    "make", [MADE.layout, lambda name: MADE.dockers(name), lambda name: gzip.compress(MADE.layout(name))]
)
def test_wherever_an_archive_ends_no_image_is_half_there_and_a_retry_goes_on(
    images: Images, make: Callable[[str], bytes]
) -> None:
    archive = make("x:1")
    end = len(archive.rstrip(b"\0"))
    for length in range(0, end - 16, max(1, end // 40)):  # not in the last bytes: they are the sum of a gzip stream
        with pytest.raises(ImageError):
            taken(images, archive[:length])
        assert images.content.descriptors() == []
    assert taken(images, archive) == [["x:1"]]
    assert images.find("x:1").id == MADE.id


def test_what_came_before_it_was_cut_off_is_used(images: Images) -> None:
    made = Made([{"a": os.urandom(300_000)}])
    archive, layer = made.layout("x:1"), digest_of(made.layers[0])
    cut = archive.index(made.layers[0]) + 200_000
    with pytest.raises(ImageError):
        taken(images, archive[:cut])
    assert os.stat(f"{images.content.directory}/ingest/{layer[7:]}").st_size >= 100_000
    assert taken(images, archive) == [["x:1"]] and os.listdir(f"{images.content.directory}/ingest") == []


def test_a_flipped_bit_in_any_blob(images: Images) -> None:
    archive = MADE.layout("x:1")
    for raw in MADE.blobs().values():
        at = archive.index(raw) + len(raw) // 2
        with pytest.raises(ImageError, match="damaged on its way"):
            taken(images, archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :])
        assert images.content.descriptors() == []


def test_a_configuration_that_is_not_what_its_name_says(images: Images) -> None:
    with pytest.raises(ImageError, match="damaged"):
        taken(images, MADE.dockers("x:1").replace(b'"A=b"', b'"A=c"'))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "neither"),
        ({"README": b"x"}, "neither"),
        ({"manifest.json": b"{"}, "not as docker writes it"),
        ({"manifest.json": b"7"}, "not as docker writes it"),
        ({"manifest.json": b"[7]"}, "not as docker writes it"),
        ({"manifest.json": b"[]"}, "no image"),
        ({"manifest.json": b'[{"Config": "a", "Layers": []}]'}, "not whole: a,"),
        ({"manifest.json": b'[{"Config": "a", "Layers": []}]', "a": "b", "b": "a"}, "not whole"),
        ({"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}, "not whole"),
        ({"manifest.json": b'[{"Config": "a", "Layers": [], "RepoTags": ["A b"]}]', "a": b"{}"}, "cannot be an image"),
        ({"manifest.json": b"[" + b" " * (5 << 20) + b"]"}, "more than 4 MiB"),
        ({"index.json": b'{"schemaVersion": 2, "manifests": []}'}, "no image"),
        ({"index.json": b"[]"}, "not an object"),
        ({"blobs/sha256/../../x": b"", "x": b""}, "neither"),
        ({"blobs/sha256/abc": b""}, "no digest"),
        ({f"blobs/sha256/{'a' * 64}": b""}, "damaged on its way"),
    ],
)  # fmt: skip
def test_odd_archives(images: Images, files: dict[str, bytes], told: str) -> None:
    with pytest.raises(ImageError, match=told) as raised:
        taken(images, tar_of(files))
    assert str(raised.value).isprintable() and images.content.descriptors() == []


@pytest.mark.parametrize("raw", [b"", b"hello", b"\0" * 4096, b"\x1f\x8b" + b"x" * 600, os.urandom(2048)])
def test_what_is_no_archive(images: Images, raw: bytes) -> None:
    with pytest.raises(ImageError):
        taken(images, raw)


def test_layers_and_configuration_that_do_not_fit(images: Images) -> None:
    other = Made([{"a": b"a"}])
    archive = tar_of(
        {"manifest.json": json.dumps([{"Config": "c", "Layers": ["l"]}]).encode(), "c": MADE.config, "l": other.tars[0]}
    )
    with pytest.raises(ImageError, match="1 layers of c, which speaks of 2"):
        taken(images, archive)


def test_a_member_never_becomes_a_file_of_its_name(images: Images, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("../escaped", "/escaped", f"{tmp_path}/escaped", "blobs/../../escaped"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(ImageError):
        taken(images, buffer.getvalue())
    assert not list(tmp_path.rglob("*escaped*")) and not os.path.exists("/escaped")


def test_of_several_platforms_the_one_of_this_machine(images: Images) -> None:
    from minicontainer.images.documents import host_platform
    from tests.images.made import INDEX, MANIFEST, descriptor

    ours, other = host_platform(), "s390x"
    mine, theirs = Made([{"a": b"a"}], architecture=ours.architecture), Made([{"a": b"b"}], architecture=other)
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        descriptor(made.manifest, MANIFEST, platform={"os": "linux", "architecture": name})
        for made, name in ((theirs, other), (mine, ours.architecture))
    ]}).encode()  # fmt: skip
    top = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [descriptor(index, INDEX, annotations={"org.opencontainers.image.ref.name": "x:1"})],
        }
    )
    archive = tar_of(
        {"index.json": top.encode(), f"blobs/sha256/{digest_of(index)[7:]}": index, **mine.blobs(), **theirs.blobs()}
    )
    assert taken(images, archive) == [["x:1"]]
    assert images.find("x:1").id == mine.id

    def nothing(image: Image) -> None:
        pass

    from minicontainer.images.documents import Platform

    [one] = load(images, io.BytesIO(archive), nothing, Platform("linux", other))
    assert one.image.id == theirs.id
