"""The content store: whole and verified, or not there; whoever is killed, and whoever does what at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minicontainer.images.content import ContentStore, digest_of
from minicontainer.images.documents import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, encode
from minicontainer.images.errors import ImageError

HELLO = b"hello, world\n" * 1000


def of(raw: bytes) -> Descriptor:
    return Descriptor(OCI_LAYER, digest_of(raw), len(raw))


def image(store: ContentStore, word: str) -> Descriptor:
    config = store.put(OCI_CONFIG, word.encode())
    return store.put(OCI_MANIFEST, encode(Manifest(config, ())))


def test_it_is_an_oci_layout(store: ContentStore) -> None:
    store.tag("docker.io/library/a:1", image(store, "a"))
    top = Path(store.directory)
    assert json.loads((top / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    [one] = json.loads((top / "index.json").read_text())["manifests"]
    assert one["annotations"] == {"org.opencontainers.image.ref.name": "docker.io/library/a:1"}
    assert (top / "blobs" / one["digest"].replace(":", "/")).stat().st_size == one["size"]


def test_what_was_interrupted_goes_on(store: ContentStore) -> None:
    with pytest.raises(ZeroDivisionError), store.ingest(of(HELLO)) as writer:
        writer.write(HELLO[:5000])
        1 / 0  # noqa: B018
    assert not store.has(of(HELLO).digest)
    with store.ingest(of(HELLO)) as writer:
        assert writer.offset == 5000
        writer.write(HELLO[5000:])
    assert store.read(of(HELLO)) == HELLO and os.listdir(f"{store.directory}/ingest") == []
    with store.ingest(of(HELLO)) as writer:
        assert writer.offset == len(HELLO)  # whole: there is nothing to be done


def test_what_is_too_short_is_kept_and_said(store: ContentStore) -> None:
    with pytest.raises(ImageError, match=r"ends after 100 of 13000 bytes.*goes on"), store.ingest(of(HELLO)) as writer:
        writer.write(HELLO[:100])
    with store.ingest(of(HELLO)) as writer:
        assert writer.offset == 100
        writer.restart()
        assert writer.offset == 0
        writer.write(HELLO)
    assert store.has(of(HELLO).digest)


@pytest.mark.parametrize(("wrong", "told"), [(HELLO[:-1] + b"x", "damaged on its way"), (HELLO + b"x", "longer than")])
def test_what_is_wrong_is_not_kept(store: ContentStore, wrong: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=told), store.ingest(of(HELLO)) as writer:
        writer.write(wrong)
    assert not store.has(of(HELLO).digest) and os.listdir(f"{store.directory}/ingest") == []


def test_a_part_that_is_wrong_is_found_at_the_end(store: ContentStore) -> None:
    """The disk may have lost what was written before the power failed."""
    store.prepare()
    Path(store.directory, "ingest", of(HELLO).digest[7:]).write_bytes(b"\0" * 5000)
    with pytest.raises(ImageError, match="damaged"), store.ingest(of(HELLO)) as writer:
        writer.write(HELLO[writer.offset :])
    with store.ingest(of(HELLO)) as writer:
        assert writer.offset == 0
        writer.write(HELLO)
    assert store.has(of(HELLO).digest)


def test_of_two_who_take_in_the_same_blob_one_writes(store: ContentStore) -> None:
    offsets: list[int] = []

    def second() -> None:
        with store.ingest(of(HELLO)) as writer:
            offsets.append(writer.offset)

    with store.ingest(of(HELLO)) as writer:
        other = threading.Thread(target=second)
        other.start()
        writer.write(HELLO)
        assert not offsets
    other.join(30)
    assert offsets == [len(HELLO)]


def test_one_that_is_put_into_its_place_between_our_look_and_our_opening(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is whole, and not begun anew."""
    data = b"x" * 1000
    blob = store.put(OCI_LAYER, data)
    exists, looks = os.path.exists, list[str]()

    def too_early(path: str) -> bool:
        if blob.digest.rpartition(":")[2] in path:
            looks.append(path)
        return len(looks) != 1 and exists(path)

    monkeypatch.setattr(os.path, "exists", too_early)
    with store.ingest(blob) as writer:
        assert writer.offset == len(data)
    monkeypatch.undo()
    assert len(looks) > 1 and os.listdir(f"{store.directory}/ingest") == []


def test_a_digest_with_slashes_is_no_file_name(store: ContentStore) -> None:
    for digest in ("sha256:../../../etc/passwd", "sha256:" + "a" * 62 + "/x", "../x", ""):
        for act in (store.has, store.open, lambda text: store.read(Descriptor("", text, 1))):
            with pytest.raises(ImageError, match="no digest"):
                act(digest)


def test_a_blob_that_changed_is_not_believed(store: ContentStore) -> None:
    one = image(store, "a")
    file = Path(store.path(one.digest))
    raw = bytearray(file.read_bytes())
    raw[10] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ImageError, match="damaged"):
        store.read(one)
    file.write_bytes(raw + b" ")
    with pytest.raises(ImageError, match="damaged"):
        store.read(one)
    file.unlink()
    with pytest.raises(ImageError, match="missing"):
        store.read(one)
    with pytest.raises(ImageError, match="more than 4 MiB"):
        store.read(one.replace(size=5 << 20))


def test_names(store: ContentStore) -> None:
    a, b = image(store, "a"), image(store, "b")
    store.tag("x:1", a)
    store.tag("x:2", a)
    store.tag("x:1", b)
    assert {name: one.digest for name, one in store.tags().items()} == {"x:1": b.digest, "x:2": a.digest}
    store.tag("x:2", b)
    assert [one.annotations for one in store.descriptors() if one.digest == a.digest] == [{}]  # it lost its last name
    store.tag("x:3", a)
    assert len(store.descriptors()) == 3  # and has one again
    store.untag("x:3", keep=True)
    store.untag("x:1")
    store.untag("x:2")
    store.untag("x:2")
    assert [one.digest for one in store.descriptors()] == [a.digest]
    store.drop(a.digest)
    assert store.descriptors() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"manifests": 7}', '{"manifests": [{"digest": "sha256:x"}]}'])
def test_an_index_that_is_damaged(store: ContentStore, text: str) -> None:
    store.prepare()
    Path(store.directory, "index.json").write_text(text)
    with pytest.raises(ImageError):
        store.tags()
    with pytest.raises(ImageError):
        store.tag("x:1", Descriptor(OCI_MANIFEST, digest_of(b""), 0))
    assert Path(store.directory, "index.json").read_text() == text  # nobody has made it worse


def test_many_name_at_the_same_time(store: ContentStore) -> None:
    """Eight processes, each ten names: none is lost."""
    one = image(store, "a")
    program = f"""
import sys
from minicontainer.images.content import ContentStore
from minicontainer.images.documents import Descriptor
store = ContentStore({store.directory!r})
for number in range(10):
    with store.sharing():
        store.tag(f"x:{{sys.argv[1]}}-{{number}}", Descriptor({one.media_type!r}, {one.digest!r}, {one.size}))
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for number in range(8)]
    assert [process.wait(60) for process in processes] == [0] * 8
    assert set(store.tags()) == {f"x:{a}-{b}" for a in range(8) for b in range(10)}


def test_who_removes_waits_for_those_who_add(store: ContentStore) -> None:
    with store.sharing(), store.sharing(), store.changing(patient=False) as alone:
        assert not alone
    with store.changing(patient=False) as alone:
        assert alone
        adding, added = threading.Event(), threading.Event()

        def add() -> None:
            adding.set()
            with store.sharing():
                added.set()

        other = threading.Thread(target=add)
        other.start()
        adding.wait(30)
        assert not added.is_set()
    other.join(30)
    assert added.is_set()


def test_collecting(store: ContentStore) -> None:
    a, b = image(store, "a"), image(store, "b")
    kept = {part.digest for part in store.parts(a)}
    with store.changing():
        number, size = store.collect(kept)
    assert (number, set(store.blobs())) == (2, kept) and size > b.size
