"""The tar format: what others write is read, what we write is read by others, and what is damaged is refused."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.linux import tar
from tests.steps.trees import archive, entry

LONG = "/".join(["directory-with-a-rather-long-name"] * 9) + "/fïle"
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def content_of(one: tar.Entry) -> bytes:
    data = bytearray(one.size)
    for offset, part in one.content():
        data[offset : offset + len(part)] = part
    return bytes(data)


def read(raw: bytes, piece: int = 1000) -> list[tuple[Any, ...]]:
    """What is in an archive that comes in pieces of such a size, the contents too."""
    pieces = (raw[at : at + piece] for at in range(0, len(raw), piece))
    return [
        (one.name, one.kind, one.mode, one.uid, one.gid, one.mtime, one.link, one.major, one.minor, dict(one.xattrs), content_of(one))
        for one in tar.read(pieces)
    ]  # fmt: skip


# --- What others write ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("piece", [1, 511, 512, 513, 1 << 20])
def test_every_kind_in_every_format(format: int, piece: int) -> None:
    raw = archive(
        entry("d/", "dir", mode=0o1777),
        entry("d/f", content=b"x" * 1300, mode=0o4755, uid=1000, gid=2000),
        entry("d/empty"),
        entry("d/l", "link", linkname="d/f"),
        entry("d/s", "symlink", linkname="../f"),
        entry("null", "char", devmajor=1, devminor=3),
        entry("sda", "block", devmajor=8, devminor=0),
        entry("pipe", "fifo"),
        format=format,
    )
    found = read(raw, piece)
    assert [(one[0].rstrip("/"), one[1]) for one in found] == [("d", "5"), ("d/f", "0"), ("d/empty", "0"), ("d/l", "1"), ("d/s", "2"), ("null", "3"), ("sda", "4"), ("pipe", "6")]  # fmt: skip
    assert found[0][2] == 0o1777 and found[1][2:6] == (0o4755, 1000, 2000, 10**18) and found[1][10] == b"x" * 1300
    assert found[3][6] == "d/f" and found[4][6] == "../f" and found[5][7:9] == (1, 3) and found[6][7:9] == (8, 0)


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_long_names_and_large_numbers(format: str) -> None:
    raw = archive(
        entry(LONG, content=b"1", uid=2**31, gid=2**31 + 1),
        entry("s", "symlink", linkname=LONG + "2"),
        entry("n" * 250, "link", linkname=LONG),
        entry("old", mtime=-5),
        format=FORMATS[format],
    )
    found = read(raw)
    assert [one[0] for one in found] == [LONG, "s", "n" * 250, "old"]
    assert found[0][3:5] == (2**31, 2**31 + 1) and found[1][6] == LONG + "2" and found[2][6] == LONG
    assert found[3][5] == -5 * 10**9


def test_a_name_in_two_parts() -> None:
    name = "a" * 120 + "/" + "b" * 90
    assert read(archive(entry(name), format=tarfile.USTAR_FORMAT))[0][0] == name


@pytest.mark.parametrize(("text", "time"), [("1.5", 15 * 10**8), ("-1.5", -15 * 10**8), ("12.000000001", 12 * 10**9 + 1), ("7", 7 * 10**9), ("0.1234567891", 123456789)])  # fmt: skip
def test_fractions_of_seconds(text: str, time: int) -> None:
    assert read(archive(entry("f", pax_headers={"mtime": text})))[0][5] == time


def test_extended_attributes_of_any_bytes() -> None:
    raw = b"\0\1\xff\n= value\n"
    info, content = entry(
        "f", pax_headers={"SCHILY.xattr.user.x": raw.decode("utf-8", "surrogateescape"), "SCHILY.xattr.user.empty": ""}
    )
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as file:
        file.addfile(info, io.BytesIO(content))
    ours = io.BytesIO()
    writer = tar.Writer(ours)
    writer.add(tar.Entry("f", xattrs={"user.x": raw, "user.empty": b""}))
    writer.close()
    assert read(ours.getvalue())[0][9] == {"user.x": raw, "user.empty": b""}


def test_a_header_for_all() -> None:
    raw = archive(
        entry("a"), entry("b", pax_headers={"uid": "7"}), pax_headers={"uid": "70000000", "comment": "by git"}
    )
    assert [one[3] for one in read(raw)] == [70000000, 7]


@pytest.mark.parametrize("key", ["path", "linkpath", "size", "GNU.sparse.name"])
def test_what_no_header_for_all_may_say(key: str) -> None:
    with pytest.raises(tar.TarError, match="the same"):
        read(archive(entry("a"), pax_headers={key: "1"}))


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=pax", "--sparse-version=0.0"], ["--format=pax", "--sparse-version=0.1"], ["--format=pax", "--sparse-version=1.0"]], ids=["old", "0.0", "0.1", "1.0"])  # fmt: skip
def test_files_with_holes_of_gnu_tar(tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "holes"
    with file.open("wb") as out:
        for number in range(60):  # more than fit into one header
            out.seek(number * 100_000)
            out.write(os.urandom(5000))
        out.truncate(7_000_000)
    (tmp_path / "next").write_bytes(b"there")
    raw = subprocess.run(
        ["tar", "-C", str(tmp_path), "--sparse", *options, "-cf", "-", "holes", "next"], capture_output=True, check=True
    ).stdout
    assert len(raw) < 2_000_000, "GNU tar has not noticed the holes"
    for piece in (700, 1 << 20):
        found = read(raw, piece)
        assert [(one[0], one[10]) for one in found] == [("holes", file.read_bytes()), ("next", b"there")]

    fd = os.open(tmp_path / "copy", os.O_WRONLY | os.O_CREAT)
    for one in tar.read([raw]):
        if one.name == "holes":
            one.write_to(fd)
    os.close(fd)
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks < 2_000_000 // 512, "the holes were filled"


def test_the_kinds_of_old() -> None:
    raw = bytearray(archive(entry("d/x", mode=0o755), entry("f", content=b"1"), format=tarfile.USTAR_FORMAT))
    raw[0:4] = b"d/\0\0"
    for at, letter in ((0, 0), (512, ord("7"))):
        raw[at + 156] = letter
        raw[at + 148 : at + 156] = b" " * 8
        raw[at + 148 : at + 155] = b"%06o\0" % sum(raw[at : at + 512])
    assert [(one[0], one[1]) for one in read(bytes(raw))] == [("d/", "5"), ("f", "0")]


def test_signed_checksums() -> None:
    raw = bytearray(archive(entry("fï"), format=tarfile.USTAR_FORMAT))
    raw[148:156] = b" " * 8
    raw[148:155] = b"%06o\0" % sum(byte - 256 if byte > 127 else byte for byte in raw[:512])
    assert read(bytes(raw))[0][0] == "fï"


# --- What we write ----------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=150).filter(lambda name: name not in (".", ".."))  # fmt: skip
ENTRIES = st.builds(
    dict,
    name=NAMES,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.one_of(st.integers(-(10**19), 10**20), st.integers(0, 10**10).map((10**9).__mul__)),
    xattrs=st.dictionaries(
        st.sampled_from(["user.a", "user.b.ü", "security.capability"]), st.binary(max_size=300), max_size=2
    ),
    content=st.binary(max_size=2000),
)


@settings(max_examples=200)
@given(st.lists(ENTRIES, max_size=4), st.integers(1, 3000))
def test_what_we_write_is_read_by_us_and_by_python(entries: list[dict[str, Any]], piece: int) -> None:
    out = io.BytesIO()
    writer = tar.Writer(out)
    for one in entries:
        data = one["content"]
        fields = {key: value for key, value in one.items() if key != "content"}
        with file_of(data) as fd:
            writer.add(tar.Entry(**fields, size=len(data)), fd)
    writer.close()
    found = read(out.getvalue(), piece)
    assert [(one[0], one[2], one[3], one[4], one[5], one[9], one[10]) for one in found] == [
        (one["name"], one["mode"], one["uid"], one["gid"], one["mtime"], one["xattrs"], one["content"])
        for one in entries
    ]
    with tarfile.open(fileobj=io.BytesIO(out.getvalue()), encoding="utf-8", errors="surrogateescape") as theirs:
        members = theirs.getmembers()
        assert [(one.name, one.mode, one.uid, one.gid, theirs.extractfile(one).read()) for one in members] == [  # type: ignore[union-attr]
            (one["name"].rstrip("/"), one["mode"], one["uid"], one["gid"], one["content"]) for one in entries
        ]


@contextlib.contextmanager
def file_of(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("content")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    yield fd
    os.close(fd)


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    with file_of(b"123") as fd, pytest.raises(tar.TarError, match="shorter"):
        tar.Writer(io.BytesIO()).add(tar.Entry("f", size=4), fd)


def test_an_attribute_that_cannot_be_named() -> None:
    with pytest.raises(tar.TarError, match=r"user\.a=b"):
        tar.Writer(io.BytesIO()).add(tar.Entry("f", xattrs={"user.a=b": b""}))


# --- What is damaged --------------------------------------------------------------------------------------------------

SAMPLE = archive(
    entry("d/", "dir"),
    entry(LONG, content=b"x" * 700, pax_headers={"SCHILY.xattr.user.x": "y", "mtime": "1.5"}),
    entry("l", "link", linkname=LONG),
    pax_headers={"gid": "5"},
)


def test_an_archive_cut_off_anywhere() -> None:
    end = len(SAMPLE.rstrip(b"\0"))
    end += -end % 512
    for length in [*range(0, end + 1, 64), *range(0, end + 512, 512)]:
        with pytest.raises(tar.TarError, match="cut off"):
            read(SAMPLE[:length])
    assert read(SAMPLE[: end + 512]) == read(SAMPLE[: end + 1024]) == read(SAMPLE)


def test_nothing_follows_half_of_the_end_mark() -> None:
    end = len(SAMPLE.rstrip(b"\0"))
    end += -end % 512
    with pytest.raises(tar.TarError, match="end mark"):
        read(SAMPLE[: end + 512] + SAMPLE[:512])


@pytest.mark.parametrize("at", [0, 100, 124, 156, 345])
def test_a_header_with_another_byte_in_it(at: int) -> None:
    raw = bytearray(archive(entry("f"), format=tarfile.USTAR_FORMAT))
    raw[at] ^= 1
    with pytest.raises(tar.TarError, match="checksum"):
        read(bytes(raw))


@pytest.mark.parametrize("raw", [b"hello" * 200, b"\x7fELF" + bytes(1020), os.urandom(2048), b"\x1f\x8b" + bytes(1022)])
def test_what_is_no_tar(raw: bytes) -> None:
    with pytest.raises(tar.TarError, match="no tar"):
        read(raw)


@pytest.mark.parametrize(
    "records",
    [b"5 a=\n" * 3 + b"9", b"0 a=b\n", b"-6 a=b\n", b"6 a=b", b"99 a=b\n", b"5 ab\n", b"6 =ab\n", b"6  a=b\n", b"+6 a=b\n", b"6 a=bX", b"9999999999 a=b\n", b"12 path=a\0b\n", b"9 size=x\n", b"11 mtime=1e5\n", b"10 mtime=-\n", b"14 SCHILY.xattr.=a\n", b"23 SCHILY.xattr.a\0b=cd\n", b"9 uid=-1\n"],
)  # fmt: skip
def test_pax_headers_that_make_no_sense(records: bytes) -> None:
    raw = archive(entry("x", content=records), entry("f"), format=tarfile.USTAR_FORMAT)
    with pytest.raises(tar.TarError):
        read(_kind(raw, b"x"))


def _kind(raw: bytes, kind: bytes) -> bytes:
    """The same with another letter in the first header."""
    block = raw[:148] + b" " * 8 + kind + raw[157:512]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:] + raw[512:]


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_have_a_limit(kind: bytes) -> None:
    size = tar.HEADERS_LIMIT + 1
    info, _ = entry("x", size=size)
    raw = info.tobuf(tarfile.USTAR_FORMAT) + b"7 a=bc\n" * 200
    with pytest.raises(tar.TarError, match="more than"):
        read(_kind(raw, kind))


def test_many_headers_before_one_entry_have_the_same_limit() -> None:
    one = _kind(archive(entry("x", content=b"a" * 100_000), format=tarfile.USTAR_FORMAT)[: 512 + 100_352], b"L")
    with pytest.raises(tar.TarError, match="more than"):
        read(one * 12)


def test_many_headers_for_all_have_the_same_limit() -> None:
    raw = b""
    for number in range(12):
        line = tar._record(b"key%d" % number, b"v" * 100_000)
        raw += _kind(
            archive(entry("x", content=line), format=tarfile.USTAR_FORMAT)[: 512 + len(line) + -len(line) % 512], b"g"
        )
    with pytest.raises(tar.TarError, match="more than"):
        read(raw)


@pytest.mark.parametrize("kind", [b"M", b"V", b"N", b"8", b"z", b"\xff"])
def test_kinds_that_are_not_known(kind: bytes) -> None:
    with pytest.raises(tar.TarError, match="kind"):
        read(_kind(archive(entry("x"), format=tarfile.USTAR_FORMAT), kind))


@pytest.mark.parametrize("kind", ["link", "symlink", "dir", "fifo", "char"])
def test_only_files_have_content(kind: str) -> None:
    """As Go has it, which has made the digests: else one would see entries where the other sees content."""
    info, _ = entry("x", kind, linkname="y", size=512)
    raw = info.tobuf(tarfile.USTAR_FORMAT) + archive(entry("f"))
    assert [one[0].rstrip("/") for one in read(raw)] == ["x", "f"]


@pytest.mark.parametrize("numbers", ["5,3,1,1", "0,10,5,10", "0,99", "0", "x", "0,5,5,6", "0,-5"])
def test_parts_of_files_that_do_not_fit(numbers: str) -> None:
    headers = {"GNU.sparse.map": numbers, "GNU.sparse.size": "20", "GNU.sparse.name": "f"}
    with pytest.raises(tar.TarError):
        read(archive(entry("f", content=b"0123456789", pax_headers=headers)))


@settings(max_examples=300)
@given(st.data())
def test_whatever_is_damaged_is_an_error_or_an_entry(data: st.DataObject) -> None:
    raw = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    # With the sums put right, for else it would be noticed at once.
    for at in range(0, 3072, 512):
        if raw[at + 257 : at + 262] == b"ustar":
            raw[at + 148 : at + 156] = b" " * 8
            raw[at + 148 : at + 155] = b"%06o\0" % sum(raw[at : at + 512])
    with contextlib.suppress(tar.TarError):
        read(bytes(raw), data.draw(st.integers(1, 2000)))


@settings(max_examples=100)
@given(st.binary(max_size=2000))
def test_any_bytes_are_an_error_or_an_archive(raw: bytes) -> None:
    with contextlib.suppress(tar.TarError):
        read(raw)


def test_content_that_nobody_wants_is_passed_over() -> None:
    raw = archive(entry("a", content=os.urandom(5000)), entry("b", content=b"b"), entry("c"))

    def pieces() -> Iterator[bytes]:
        at = 0
        while at < len(raw):
            step = random.Random(at).randrange(1, 900)
            yield raw[at : at + step]
            at += step

    assert [one.name for one in tar.read(pieces())] == ["a", "b", "c"]
    found = []
    for one in tar.read(io.BytesIO(raw)):
        content = one.content()
        found.append(len(next(content)[1]) if one.size else 0)  # some of it, and no more
    assert found == [5000, 1, 0]
