"""Unpacked layers: whole or not there, whatever happens meanwhile; and the same that umoci makes of the same image."""

from __future__ import annotations

import contextlib
import gzip
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from minicontainer.images.errors import ImageError
from minicontainer.images.unpack import sweep, unpack
from minicontainer.steps import Steps
from minicontainer.steps.overlay import stack
from minicontainer.steps.unpacking import Limits
from tests.command import DEADLINE, needs_root
from tests.images.layouts import Layout, digest_of
from tests.steps.apart import apart
from tests.steps.trees import archive, entry, tree_of

pytestmark = needs_root

TAR = archive(
    entry("d/", "dir"), entry("d/f", content=random.Random(2).randbytes(200_000)), entry("s", "symlink", linkname="d/f")
)
APPLY = Steps().apply_layer


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    (tmp_path / "layers").mkdir()
    return tmp_path / "layers"


@contextlib.contextmanager
def opened(blob: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(blob)
        file.seek(0)
        yield file.fileno()


def unpacked(layers: Path, tar: bytes, blob: bytes | None = None, **options: Any) -> Path:
    with opened(gzip.compress(tar) if blob is None else blob) as fd:
        return Path(
            unpack(str(layers), options.pop("diff_id", digest_of(tar)), fd, options.pop("apply", APPLY), **options)
        )


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress, bytes], ids=["gzip", "zstd", "none"])
@pytest.mark.parametrize("sync", [True, False])
def test_it_is_in_its_place(layers: Path, compress: Callable[[bytes], bytes], sync: bool) -> None:
    blob = compress(TAR)
    place = unpacked(layers, TAR, blob, digest=digest_of(blob), sync=sync)
    assert place == layers / digest_of(TAR).removeprefix("sha256:") / "diff"
    assert sorted(os.listdir(place)) == ["d", "s"] and len(os.listdir(layers)) == 1
    assert (place / "s").stat().st_size == 200_000


def test_what_is_there_is_not_unpacked_again(layers: Path) -> None:
    place = unpacked(layers, TAR)
    before = place.stat().st_ino
    assert unpacked(layers, TAR, b"nobody looks at this") == place and place.stat().st_ino == before


@pytest.mark.parametrize(
    "diff_id",
    ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha256:../../../../etc", "sha256:" + "0" * 60 + "/../", "md5:" + "0" * 64, "0" * 64, "sha256:" + "0" * 64 + "\n", "../x"],
)  # fmt: skip
def test_a_name_that_is_no_digest(layers: Path, diff_id: str) -> None:
    with pytest.raises(ImageError, match="no diff ID"):
        unpacked(layers, TAR, diff_id=diff_id)
    assert os.listdir(layers) == []


def failing(layer: Any, directory: str) -> None:
    APPLY(layer, directory)
    raise OSError(28, "No space left on device")


BLOB = gzip.compress(TAR)
FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "another diff ID": ({"diff_id": digest_of(b"")}, "contradicts itself"),
    "another digest": ({"digest": digest_of(b"")}, "fetch it again"),
    "cut off": ({"blob": BLOB[:-1000]}, "cut off"),
    "damaged": ({"blob": BLOB[:1000] + b"\0" * 100 + BLOB[1100:]}, r"corrupt|contradicts"),
    "a tar cut off": ({"blob": gzip.compress(TAR[:100_000])}, "cut off"),
    "no tar": ({"blob": b"<html>" * 1000}, "no tar"),
    "nothing": ({"blob": b""}, "cut off"),
    "xz": ({"blob": b"\xfd7zXZ\0" * 100}, "xz"),
    "too large": ({"size_limit": 1000}, "more than 1000 bytes"),
    "too many": ({"limits": Limits(entries=2)}, "more than 2 entries"),
    "an attack": ({"blob": archive(entry("../x"))}, "refused"),
    "no space": ({"apply": failing}, "No space left"),
    "a file for a directory": ({"blob": archive(entry("f"), entry("f/x"))}, "f/x"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_nothing_is_left_of_a_failure(layers: Path, failure: str) -> None:
    options, told = FAILURES[failure]
    with pytest.raises(ImageError, match=told) as error:
        unpacked(layers, TAR, **options)
    assert "\n" not in str(error.value) and "sha256:" in str(error.value)
    assert os.listdir(layers) == [] and sorted(os.listdir(layers.parent)) == ["layers"]
    unpacked(layers, TAR)


def test_what_follows_the_end_mark_belongs_to_the_digest(layers: Path) -> None:
    longer = TAR + b"whatever" * 1000
    assert unpacked(layers, longer).is_dir()
    with pytest.raises(ImageError, match="contradicts"):
        unpacked(layers, TAR, gzip.compress(longer))


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one, of a megabyte."""
    from minicontainer.linux import mount

    def act() -> tuple[str, list[str]]:
        mount("tmpfs", tmp_path, "tmpfs", 0, "size=1m")
        told = ""
        try:
            unpacked(tmp_path, archive(entry("f", content=random.Random(3).randbytes(2 << 20))))
        except ImageError as error:
            told = str(error)
        return told, os.listdir(tmp_path)

    told, left = apart(act)
    assert "No space left" in told and left == []


def _process(layers: str, tar: bytes, result: Any) -> None:
    result.put(str(unpacked(Path(layers), tar)))


def test_many_at_once(layers: Path) -> None:
    context = multiprocessing.get_context("fork")
    result = context.SimpleQueue()
    processes = [context.Process(target=_process, args=(str(layers), TAR, result)) for _ in range(6)]
    for process in processes:
        process.start()
    places = {result.get() for _ in processes}
    for process in processes:
        process.join(DEADLINE)
        assert process.exitcode == 0
    assert len(places) == 1 and os.listdir(layers) == [digest_of(TAR).removeprefix("sha256:")]


SLOW = """
import sys, os
sys.path.insert(0, sys.argv[1])
from minicontainer.images.unpack import unpack
from minicontainer.steps import Steps
def apply_layer(layer, directory):
    Steps().apply_layer(layer, directory)
    print("here", flush=True)
    sys.stdin.readline()
unpack(sys.argv[2], sys.argv[3], os.open(sys.argv[4], os.O_RDONLY), apply_layer)
"""


@pytest.fixture
def slow(layers: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Somebody who is unpacking, and goes on when told to."""
    (tmp_path / "blob").write_bytes(TAR)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(Path(__file__).parents[2]), str(layers), digest_of(TAR), str(tmp_path / "blob")], stdin=-1, stdout=-1, text=True
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "here\n"
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream
        with contextlib.suppress(BrokenPipeError):
            stream.close()


def test_what_a_killed_process_left_is_swept(layers: Path, slow: subprocess.Popen[str]) -> None:
    name = digest_of(TAR).removeprefix("sha256:")
    left = os.listdir(layers)
    assert len(left) == 1 and left[0].startswith(f".{name}.")
    assert sweep(str(layers)) == [], "it is alive"
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    assert os.listdir(layers) == left
    unpacked(layers, TAR)  # does not wait for the dead
    assert sorted(os.listdir(layers)) == sorted([*left, name])
    assert sweep(str(layers)) == left and os.listdir(layers) == [name]


def dying(at: str | int) -> None:
    """Let this process be killed when it has come so far: in the middle, by pieces; or at a call."""

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if isinstance(at, str):
        setattr(os, at, die)
        return
    real, left = os.write, [at]

    def write(fd: int, data: Any) -> int:
        left[0] -= 1
        return real(fd, data) if left[0] else die()  # type: ignore[return-value]

    os.write = write  # type: ignore[assignment]


@pytest.mark.parametrize("at", ["mkdir", "open", 1, 2, 3, 4, "utime", "rename", "listdir", "rmdir"])
@pytest.mark.parametrize("sync", [True, False])
def test_killed_anywhere_it_is_whole_or_not_there(layers: Path, at: str | int, sync: bool) -> None:
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), opened(gzip.compress(TAR)) as fd:
            dying(at)
            unpack(str(layers), digest_of(TAR), fd, APPLY, sync=sync)
        os._exit(0)
    os.waitpid(pid, 0)
    whole = layers / digest_of(TAR).removeprefix("sha256:")
    if whole.exists():
        alone = layers.parent / "alone"
        alone.mkdir()
        assert tree_of(whole / "diff") == tree_of(unpacked(alone, TAR))
    assert all(name.startswith(".") or name == whole.name for name in os.listdir(layers))
    sweep(str(layers))
    unpacked(layers, TAR)
    assert os.listdir(layers) == [whole.name]


def test_the_second_waits_for_the_first(layers: Path, slow: subprocess.Popen[str]) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.close(reading)
            # Nothing can be read of this blob: whoever did not wait would fail.
            assert unpacked(layers, TAR, b"no tar").is_dir()
            code = 0
        os._exit(code)
    os.close(writing)
    waiting = Path(f"/proc/{pid}/syscall")
    flock = {"x86_64": "73", "aarch64": "32"}[os.uname().machine]
    while waiting.read_text().split()[0] != flock:
        assert os.waitpid(pid, os.WNOHANG)[0] == 0, "it did not wait"
    assert slow.stdin
    slow.stdin.write("\n")
    slow.stdin.flush()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(reading)
    assert slow.wait(DEADLINE) == 0
    assert os.listdir(layers) == [digest_of(TAR).removeprefix("sha256:")]


def test_sweeping_leaves_what_is_whole(layers: Path) -> None:
    unpacked(layers, TAR)
    (layers / "snap-1").mkdir()
    assert sweep(str(layers)) == [] and len(os.listdir(layers)) == 2


# --- Agreement --------------------------------------------------------------------------------------------------------

BASE = archive(
    entry("./", "dir", mode=0o755, mtime=1),
    entry("./etc/", "dir", mtime=2),
    entry("./etc/passwd", content=b"root:x:0:0\n", pax_headers={"mtime": "5.25"}),
    entry("./etc/shadow", content=b"secret", mode=0o640, gid=42),
    entry("./bin/", "dir"),
    entry("./bin/su", content=b"\x7fELF", mode=0o4755),
    entry("./bin/ping", content=b"\x7fELF2", mode=0o755, pax_headers={"SCHILY.xattr.user.kind": "ping"}),
    entry("./bin/ping6", "link", linkname="./bin/ping"),
    entry("./lib", "symlink", linkname="usr/lib", uid=3, mtime=9),
    entry("./usr/", "dir"),
    entry("./usr/lib/", "dir", mode=0o2775, gid=50),
    entry("./usr/lib/libc.so", content=b"c" * 5000),
    entry("./usr/doc/", "dir"),
    entry("./usr/doc/a", content=b"a"),
    entry("./usr/doc/b", content=b"b"),
    entry("./tmp/", "dir", mode=0o1777),
    entry("./run/", "dir"),
    entry("./run/pipe", "fifo", mode=0o620, uid=7),
    entry("./dev/", "dir"),
    entry("./dev/null", "char", devmajor=1, devminor=3, mode=0o666),
    entry("./dev/sda", "block", devmajor=8, devminor=0, mode=0o660, gid=6),
    entry("./opt/", "dir"),
    entry("./opt/old/", "dir"),
    entry("./opt/old/x", content=b"x"),
    entry("./opt/" + "long-name-" * 20 + "/", "dir"),
    entry("./opt/" + "long-name-" * 20 + "/ü", content=b"long"),
)
CHANGED = archive(
    entry("etc/", "dir", mtime=20),
    entry("etc/passwd", content=b"root:x:0:0\nme:x:1:1\n", mode=0o600),
    entry("etc/.wh.shadow"),
    entry("bin/", "dir", mode=0o711),
    entry("bin/su", "symlink", linkname="/bin/busybox"),
    entry("usr/", "dir"),
    entry("usr/doc/", "dir", uid=12, mtime=30),
    entry("usr/doc/.wh..wh..opq"),
    entry("usr/doc/c", content=b"c"),
    entry("opt/", "dir"),
    entry("opt/.wh.old"),
    entry("dev/", "dir"),
    entry("dev/null", content=b"a file now"),
    entry("tmp", content=b"a file too"),
)
LAST = archive(
    entry("etc/", "dir", mtime=40),
    entry("etc/shadow", content=b"again", mode=0o600),
    entry("opt/", "dir", mtime=41),
    entry("opt/old/", "dir", mtime=42),
    entry("opt/old/y", content=b"y"),
    entry("tmp/", "dir", mode=0o1777, mtime=43),
    entry("bin/", "dir", mtime=44),
    entry("bin/su", content=b"su", mode=0o6755),
)
WITHIN = archive(
    entry("a", content=b"1"), entry("a/", "dir"), entry("a/b", content=b"2"), entry("c/", "dir"), entry("c/d"), entry("c", content=b"3"),
    entry("e", "symlink", linkname="a"), entry("e", content=b"4"), entry("g/", "dir"), entry("g/x"), entry("g", "symlink", linkname="a"),
)  # fmt: skip


def by_umoci(layout: Layout, to: Path) -> dict[str, Any]:
    subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{layout.directory}:tag", str(to)], check=True, capture_output=True
    )
    return tree_of(to)


def by_us(layout: Layout, layers: Path, tars: Sequence[bytes]) -> dict[str, Any]:
    """The tree of the layers on one another, as a container sees it."""
    _, *blobs = Steps().resolve(str(layout.directory), "tag", "linux/amd64")
    lowers = []
    for tar, blob in zip(tars, blobs, strict=True):
        fd = os.open(layout.directory / "blobs/sha256" / blob["digest"].removeprefix("sha256:"), os.O_RDONLY)
        lowers.append(unpack(str(layers), digest_of(tar), fd, APPLY, digest=blob["digest"]))
        os.close(fd)

    def act() -> dict[str, Any]:
        target = layers / "target"
        target.mkdir()
        stack(lowers[::-1], "", "", str(target))
        return tree_of(target)

    return apart(act)


@pytest.mark.parametrize("suffix", ["", "+gzip", "+zstd"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_umoci_makes_the_same_of_it(layers: Path, tmp_path: Path, count: int, suffix: str) -> None:
    """Mode, owner, time, attributes, content, links: all that a container sees of it."""
    tars = [BASE, CHANGED, LAST][:count]
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image(tars, {"": bytes, "+gzip": gzip.compress, "+zstd": zstd.compress}[suffix], suffix))
    ours = by_us(layout, layers, tars)
    if suffix == "+zstd":  # which this umoci has not learned: it is given the same as gzip
        shutil.rmtree(tmp_path / "layout")
        layout = Layout(tmp_path / "layout")
        layout.tag(layout.image(tars))
    theirs = by_umoci(layout, tmp_path / "umoci")
    for tree in (ours, theirs):
        del tree["."]  # with us that of the topmost layer, which need not say anything of it; a container has its own
    assert ours == theirs


def test_umoci_agrees_on_entries_that_take_the_place_of_others(layers: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image([WITHIN]))
    ours, theirs = by_us(layout, layers, [WITHIN]), by_umoci(layout, tmp_path / "umoci")
    ours.pop("."), theirs.pop(".")
    assert ours == theirs


def test_skopeo_takes_what_we_pack(layers: Path, tmp_path: Path) -> None:
    """Its digests are the ones that we know."""
    from minicontainer.images.compression import LayerWriter

    place = unpacked(layers, BASE)
    with tempfile.TemporaryFile() as file, LayerWriter(file.fileno()) as layer:
        Steps().pack_layer(str(place), layer)
        file_copy = os.dup(file.fileno())
    with open(file_copy, "rb") as file:
        file.seek(0)
        blob = file.read()
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image([gzip.decompress(blob)], lambda _: blob))
    assert layer.diff_id == digest_of(gzip.decompress(blob)) and layer.digest == digest_of(blob)
    subprocess.run(["skopeo", "copy", "-q", f"oci:{layout.directory}:tag", f"oci:{tmp_path}/copy:tag"], check=True)
    assert sorted(os.listdir(tmp_path / "copy/blobs/sha256")) == sorted(os.listdir(layout.directory / "blobs/sha256"))
    assert by_umoci(layout, tmp_path / "umoci") == tree_of(place)
