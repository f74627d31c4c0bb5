"""Images made of containers, archives, directories and packages: commit, diff, export, import, image make and mount."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from minicontainer.engine import Engine
from minicontainer.linux import umount2
from tests.cli.tracing import every_call, needs_strace, signalled_at
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.netns import World
from tests.steps.apart import below
from tests.steps.trees import archive, entry

pytestmark = needs_root

WRITES = (
    "echo new >/new; rm /etc/passwd; mkdir -p /d/e; echo deep >/d/e/f; ln /new /d/again; chmod 4755 /new; chown 5:6 /d"
)


@pytest.fixture
def command(tmp_path: Path, images: Path) -> Command:
    """With a state directory of its own, to which the image is copied: what is made here is collected here."""
    root = tmp_path / "own"
    root.mkdir()
    for name in ("images", "layers"):
        shutil.copytree(images / name, root / name, symlinks=True)
    return Command(root)


def done(completed: subprocess.CompletedProcess[Any]) -> str:
    """What a command that succeeds has printed; it has nothing else to say."""
    assert (completed.returncode, completed.stderr) == (0, "" if isinstance(completed.stderr, str) else b"")
    return str(completed.stdout)


def refused(completed: subprocess.CompletedProcess[str], status: int = 125) -> str:
    """What one says that does not."""
    assert completed.returncode == status, completed
    return one_line(completed.stderr)


def inspected(command: Command, image: str) -> dict[str, Any]:
    [found] = json.loads(done(command("image", "inspect", image)))
    return dict(found)


def fed(command: Command, raw: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command with this as its input."""
    return subprocess.run(command.line(*words), input=raw, capture_output=True, timeout=DEADLINE)


def is_mounted(place: Path) -> bool:
    """os.path.ismount does not know a bind mount from within the same file system."""
    return bool(below(str(place).replace(" ", "\\040")))


def left(command: Command) -> tuple[list[str], list[str]]:
    """The blobs and layers that there are, those half made among them."""
    blobs = [*(command.root / "images/blobs/sha256").iterdir(), *(command.root / "images/ingest").iterdir()]
    layers = [path for path in (command.root / "layers").iterdir() if path.name != "lock"]
    return sorted(path.name for path in blobs), sorted(path.name for path in layers)


# commit, diff


def test_a_container_that_has_ended_becomes_an_image(command: Command) -> None:
    done(command("run", "--name", "c1", "busybox", "sh", "-c", WRITES))
    told = ["A /d", "A /d/again", "A /d/e", "A /d/e/f", "C /etc", "D /etc/passwd", "A /new"]
    assert done(command("diff", "c1")).splitlines() == told
    made = done(command("commit", "-m", "why", "-a", "me <me@here>", "c1", "mine:1")).strip()
    found = inspected(command, "mine:1")
    assert found["Id"] == made
    assert found["Author"] == "me <me@here>"
    assert found["Config"]["Cmd"] == ["sh", "-c", WRITES]
    base = inspected(command, "busybox")
    assert found["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    latest = json.loads(done(command("history", "--json", "mine:1")))[0]
    assert (latest["comment"], latest["created_by"]) == ("why", f"sh -c {WRITES}")
    look = "cat /new /d/e/f; ls /etc; stat -c '%a %u %g %h' /new /d"
    said = done(command("run", "--rm", "mine:1", "sh", "-c", look)).split("\n")
    assert said[:-1] == ["new", "deep", "group", "4755 0 0 2", "755 5 6 3"]
    assert done(command("diff", "c1")).splitlines() == told  # it lies on a frozen layer now, and has changed no less


def test_the_same_changes_are_the_same_layer(command: Command) -> None:
    done(command("run", "--name", "c1", "busybox", "sh", "-c", WRITES))
    first, second = (done(command("commit", "c1", f"mine:{n}")) for n in (1, 2))
    assert first != second  # they were made at different times
    one, other = (inspected(command, f"mine:{n}")["RootFS"]["Layers"] for n in (1, 2))
    assert one == other


def test_what_it_was_told_to_be_the_image_says(command: Command) -> None:
    words = ("-e", "A=b", "-u", "7:8", "-w", "/tmp", "--label", "k=v")
    done(command("create", "--name", "c1", *words, "busybox", "id"))
    done(command("commit", "c1", "mine"))
    config = inspected(command, "mine")["Config"]
    assert (config["User"], config["WorkingDir"], config["Cmd"], config["Entrypoint"]) == ("7:8", "/tmp", ["id"], None)
    assert "A=b" in config["Env"]
    assert config["Labels"] == {"k": "v"}
    assert done(command("run", "--rm", "mine")).startswith("uid=7 gid=8")


def test_how_to_see_whether_it_is_well_the_image_says_too(command: Command) -> None:
    words = ("--health-cmd", "test -e /well", "--health-interval", "1m30s", "--health-retries", "2")
    done(command("create", "--name", "c1", *words, "busybox", "id"))
    done(command("commit", "c1", "mine"))
    said = {"Test": ["CMD-SHELL", "test -e /well"], "Interval": 90_000_000_000, "Retries": 2}
    assert inspected(command, "mine")["Config"]["Healthcheck"] == said
    done(command("create", "--name", "c2", "--health-timeout", "5s", "mine"))
    done(command("commit", "c2", "other"))
    assert inspected(command, "other")["Config"]["Healthcheck"] == {**said, "Timeout": 5_000_000_000}
    assert "Healthcheck" not in inspected(command, "busybox")["Config"]


def test_nothing_written_is_no_layer(command: Command) -> None:
    done(command("create", "--name", "c1", "busybox", "true"))
    done(command("commit", "c1", "mine"))
    assert inspected(command, "mine")["RootFS"] == inspected(command, "busybox")["RootFS"]
    assert done(command("diff", "c1")) == ""


def test_changes_are_instructions(command: Command) -> None:
    done(command("create", "--name", "c1", "busybox", "true"))
    changes = ['CMD ["echo", "a b"]', "ENV A=1 B=\"two words\"", "ENV C three more", "LABEL k=v", "EXPOSE 80 53/udp",
               "USER 9", "WORKDIR /usr", "WORKDIR bin", 'VOLUME ["/data"]', "STOPSIGNAL SIGQUIT"]  # fmt: skip
    done(command("commit", *(word for change in changes for word in ("-c", change)), "c1", "mine"))
    config = inspected(command, "mine")["Config"]
    assert config["Cmd"] == ["echo", "a b"]
    assert {"A=1", "B=two words", "C=three more"} <= {*config["Env"]}
    assert config["Labels"]["k"] == "v"
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert (config["User"], config["WorkingDir"], config["Volumes"]) == ("9", "/usr/bin", {"/data": {}})
    assert config["StopSignal"] == "SIGQUIT"
    assert done(command("run", "--rm", "mine")) == "a b\n"
    done(command("commit", "-c", "ENTRYPOINT echo $0 shell", "c1", "other"))
    assert done(command("run", "--rm", "other")) == "/bin/sh shell\n"


@pytest.mark.parametrize("change", ("RUN rm -rf /", "CMD", "ENV nothing", "EXPOSE many", "LABEL =x", 'ENV "open', ""))
def test_what_is_no_change_makes_no_image(command: Command, change: str) -> None:
    done(command("run", "--name", "c1", "busybox", "touch", "/x"))
    before = left(command)[0]
    refused(command("commit", "-c", change, "c1", "mine"))
    assert left(command)[0] == before
    assert "mine" not in done(command("images"))


@pytest.mark.parametrize("name", ("Upper", "a b", "x@sha256:" + "0" * 64, "-x:", "a:b:c"))
def test_a_bad_name_makes_no_image(command: Command, name: str) -> None:
    done(command("run", "--name", "c1", "busybox", "touch", "/x"))
    before = left(command)[0]
    refused(command("commit", "--", "c1", name))
    assert left(command)[0] == before


def test_one_that_runs_goes_on(command: Command) -> None:
    script = "n=0; while :; do n=$((n+1)); echo $n >/n.new; mv /n.new /n; done"
    name = done(command("run", "-d", "--name", "c1", "busybox", "sh", "-c", script)).strip()
    try:
        pid = json.loads((command.root / "containers" / name / "state.json").read_text())["pid"]

        def count() -> int:
            return int(Path(f"/proc/{pid}/root/n").read_text() or 0)

        wait_until(lambda: os.path.exists(f"/proc/{pid}/root/n"), "it counts")
        for _ in range(10):  # names come and go while they are looked at
            assert {*done(command("diff", "c1")).splitlines()} <= {"A /n", "A /n.new"}
        before = count()
        completed = command("commit", "c1", "mine")
        assert completed.returncode == 0, completed.stderr
        after = count()
        wait_until(lambda: count() > after, "it goes on")
        counted = int(done(command("run", "--rm", "mine", "cat", "/n")))
        assert before <= counted <= after
        unpaused = command("commit", "--pause=false", "c1", "other")  # a file may come and go while it is looked at
        assert unpaused.returncode == 0 or "without --pause=false" in one_line(unpaused.stderr)
    finally:
        command("rm", "-f", "c1")


def test_one_that_runs_and_writes_nothing_need_not_stand_still(command: Command) -> None:
    done(command("run", "-d", "--name", "c1", "busybox", "sh", "-c", "echo x >/x; exec sleep 1000"))
    try:
        wait_until(lambda: "A /x" in done(command("diff", "c1")), "it has written")
        done(command("commit", "--pause=false", "c1", "mine"))
        assert done(command("run", "--rm", "mine", "cat", "/x")) == "x\n"
    finally:
        command("rm", "-f", "c1")


def test_an_image_of_a_snapshot(command: Command) -> None:
    done(command("run", "--name", "c1", "busybox", "sh", "-c", "echo then >/x; touch /y"))
    done(command("snapshot", "c1"))
    done(command("start", "-a", "c1"))
    assert fed(command, archive(entry("x", content=b"now\n")), "cp", "-", "c1:/").returncode == 0
    done(command("snapshot", "c1"))
    done(command("commit", "--snapshot", "snap0", "c1", "then"))
    done(command("commit", "c1", "now"))
    assert done(command("run", "--rm", "then", "cat", "/x")) == "then\n"
    assert done(command("run", "--rm", "now", "cat", "/x")) == "now\n"
    assert len(inspected(command, "now")["RootFS"]["Layers"]) == 2  # all that was written is one layer
    refused(command("commit", "--snapshot", "snap7", "c1", "never"), 1)
    assert [one for one in left(command)[1] if one.startswith(".")] == []


def test_others_unpack_the_same(command: Command, tmp_path: Path) -> None:
    """What we commit and save, skopeo copies and umoci unpacks: file by file what the container has."""
    assert shutil.which("skopeo") and shutil.which("umoci"), "apt install skopeo umoci"
    done(command("run", "--name", "c1", "busybox", "sh", "-c", f"{WRITES}; rm -r /usr; mkdir /usr; echo u >/usr/u"))
    done(command("commit", "c1", "mine"))
    done(command("save", "--format", "oci", "-o", tmp_path / "saved.tar", "mine"))
    (tmp_path / "layout").mkdir()
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"oci-archive:{tmp_path}/saved.tar",
                    f"oci:{tmp_path}/layout:mine"], check=True, timeout=DEADLINE)  # fmt: skip
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/layout:mine", tmp_path / "bundle"], check=True,
                   timeout=DEADLINE, capture_output=True)  # fmt: skip
    theirs = subprocess.run(
        ["tar", "-c", "-C", tmp_path / "bundle/rootfs", "."], capture_output=True, check=True
    ).stdout
    ours = command("export", "c1", text=False).stdout
    assert listed(ours) == listed(theirs)


def listed(raw: bytes) -> dict[str, tuple[object, ...]]:
    """What an archive says of each file, but for the times of directories, which nobody keeps in the same way."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for member in tar:
            name = os.path.normpath(member.name)
            if name in (".", "etc/hosts", "etc/hostname", "etc/resolv.conf"):
                continue
            content = tar.extractfile(member) if member.isreg() or member.islnk() else None
            found[name] = (
                "file" if content else member.type, oct(member.mode) if not member.issym() else "", member.uid, member.gid,
                "" if content else member.linkname, content.read() if content else b"",
            )  # fmt: skip
    return found


def test_a_container_on_a_directory_says_what_to_do(command: Command, busybox: str) -> None:
    Engine(command.root).create(busybox, ["true"], rootfs=True, name="c1")
    assert "minicontainer export c1 | minicontainer import - NAME" in refused(command("commit", "c1", "mine"))


def test_no_container_no_commit(command: Command) -> None:
    for words in (("commit", "nobody", "x"), ("diff", "nobody"), ("export", "nobody"), ("cp", "nobody:/x", "/tmp/x")):
        assert "nobody" in refused(command(*words), 1)


# export, import


def test_out_and_in_again(command: Command, tmp_path: Path) -> None:
    done(command("run", "--name", "c1", "busybox", "sh", "-c", WRITES))
    done(command("export", "-o", tmp_path / "root.tar", "c1"))
    raw = (tmp_path / "root.tar").read_bytes()
    assert command("export", "c1", text=False).stdout == raw  # twice the same
    made = done(command("import", "-m", "from there", "-c", "CMD cat /d/e/f", tmp_path / "root.tar", "again:1")).strip()
    found = inspected(command, "again:1")
    assert (found["Id"], len(found["RootFS"]["Layers"])) == (made, 1)
    assert done(command("run", "--rm", "again:1")) == "deep\n"
    done(command("create", "--name", "c2", "again:1"))
    ours = listed(command("export", "c2", text=False).stdout)
    assert ours == listed(raw)
    assert "d/e/f" in ours


def test_one_that_runs_is_exported_without_what_is_mounted(command: Command, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/secret").write_text("x")
    done(
        command(
            "run",
            "-d",
            "--name",
            "c1",
            "-v",
            f"{tmp_path}/volume:/mnt",
            "busybox",
            "sh",
            "-c",
            "touch /here; sleep 1000",
        )
    )
    try:
        wait_until(lambda: "here" in done(command("diff", "c1")), "it has written")
        names = [*listed(command("export", "c1", text=False).stdout)]
        assert {"here", "proc", "dev", "mnt"} <= {*names}
        assert not [name for name in names if name.startswith(("proc/", "dev/", "sys/", "mnt/"))]
    finally:
        command("rm", "-f", "c1")


@pytest.mark.parametrize("method", ("gz", "bz2", "xz", "zst", ""))
def test_archives_of_every_kind(command: Command, method: str) -> None:
    raw = archive(entry("hello", content=b"hi\n"), entry("d", "dir"))
    if method == "zst":
        pytest.importorskip("backports.zstd")
        from backports import zstd

        raw = zstd.compress(raw)
    elif method:
        raw = getattr(__import__({"gz": "gzip", "bz2": "bz2", "xz": "lzma"}[method]), "compress")(raw)  # noqa: B009
    made = fed(command, raw, "import", "-", "mine")
    assert made.returncode == 0, made.stderr
    done(command("create", "--name", "c1", "mine", "x"))
    assert [*listed(command("export", "c1", text=False).stdout)] == ["d", "hello"]


GOOD = archive(entry("hello", content=b"x" * 5000))


@pytest.mark.parametrize(
    "raw",
    (b"", b"no archive", GOOD[:3000], archive(entry("../up", content=b"x")), archive(entry("a", "symlink", linkname="/"),
     entry("a/x", content=b"y"))[:700], b"\x1f\x8bbroken gzip", b"BZh9broken", b"\xfd7zXZ\0broken", b"\x04\x22\x4d\x18lz4 "),
    ids=("empty", "none", "cut off", "leads out", "cut in the header", "gzip", "bzip2", "xz", "lz4"),
)  # fmt: skip
def test_what_is_no_archive_leaves_nothing(command: Command, raw: bytes) -> None:
    before = left(command)
    completed = fed(command, raw, "import", "-", "mine")
    assert completed.returncode == 125
    one_line(completed.stderr.decode())
    assert left(command) == before
    assert "mine" not in done(command("images"))


# image make


def test_a_directory_becomes_an_image(command: Command, tmp_path: Path) -> None:
    top = tmp_path / "tree"
    (top / "bin").mkdir(parents=True)
    (top / "bin/tool").write_text("#!/bin/x\n")
    os.chown(top / "bin/tool", 12, 34)
    os.symlink("tool", top / "bin/link")
    first = done(command("image", "make", "-c", "CMD /bin/tool", "dir", top, "mine:1")).strip()
    assert inspected(command, "mine:1")["Id"] == first
    done(command("image", "make", "dir", top, "mine:2"))
    one, other = (inspected(command, f"mine:{n}")["RootFS"]["Layers"] for n in (1, 2))
    assert one == other
    done(command("create", "--name", "c1", "mine:1"))
    found = listed(command("export", "c1", text=False).stdout)
    assert {*found} == {"bin", "bin/tool", "bin/link"}
    assert found["bin/tool"][2:4] == (12, 34)
    (top / ".wh.bin").write_text("")
    assert "would hide" in refused(command("image", "make", "dir", top, "mine:3"))
    assert "no directory" in refused(command("image", "make", "dir", tmp_path / "nope", "mine:3"))


def test_a_layout_becomes_an_image(command: Command, tmp_path: Path) -> None:
    done(command("save", "--format", "oci", "-o", tmp_path / "saved.tar", "busybox"))
    layout = tmp_path / "layout"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"oci-archive:{tmp_path}/saved.tar", f"oci:{layout}:v1"],
                   check=True, timeout=DEADLINE)  # fmt: skip
    for source in (f"{layout}:v1", f"{layout}"):
        done(command("image", "make", "oci", source, "mine"))
        assert inspected(command, "mine")["RootFS"]["Layers"] == inspected(command, "busybox")["RootFS"]["Layers"]
        done(command("rmi", "mine"))
    assert "v2" in refused(command("image", "make", "oci", f"{layout}:v2", "mine"))
    refused(command("image", "make", "oci", tmp_path, "mine"))
    before = left(command)
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"!")
    refused(command("image", "make", "oci", f"{layout}:v1", "mine"))
    assert left(command) == before


def test_busybox_under_another_name(command: Command) -> None:
    done(command("image", "make", "busybox", "mine:7"))
    assert inspected(command, "mine:7")["Id"] == inspected(command, "busybox")["Id"]


def test_what_can_be_made_is_said(command: Command) -> None:
    assert "busybox, debian, ubuntu" in refused(command("image", "make", "gentoo", "x"))
    assert "DIRECTORY NAME" in refused(command("image", "make", "dir", "x"))
    assert "--suite" in refused(command("image", "make", "ubuntu", "x"))
    assert "no builder" in refused(command("image", "make", "--builder", "rpm", "debian", "x"))
    assert "no name of a release" in refused(command("image", "make", "--suite=--x", "debian", "x"))


class BreaksOff:
    """A mirror that begins each answer, and goes away in the middle of it."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.asked = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client:
                client.recv(1 << 16)
                self.asked += 1
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n-----BEGIN PGP SIGNED MESSAGE-----\n")


@pytest.fixture
def breaks_off(world: World) -> Iterator[BreaksOff]:
    mirror = BreaksOff()
    yield mirror
    mirror.socket.shutdown(socket.SHUT_RDWR)
    mirror.socket.close()


def test_a_mirror_that_breaks_off_leaves_nothing(command: Command, breaks_off: BreaksOff) -> None:
    before = left(command)
    said = refused(_made(command, "mmdebstrap", f"http://127.0.0.1:{breaks_off.port}/debian"))
    assert said.startswith("mmdebstrap has failed")
    assert breaks_off.asked
    assert left(command) == before
    assert "mine" not in done(command("images"))


@pytest.mark.parametrize("builder", ("mmdebstrap", "debootstrap"))
def test_a_mirror_that_is_not_there_leaves_nothing(command: Command, world: World, builder: str) -> None:
    before = left(command)
    assert refused(_made(command, builder, "http://127.0.0.1:9/debian")).startswith(f"{builder} has failed")
    assert left(command) == before


def _made(command: Command, builder: str, mirror: str) -> subprocess.CompletedProcess[str]:
    """What comes of a wish for Debian from this mirror, asked without a proxy."""
    assert shutil.which(builder), f"apt install {builder}"
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    words = ("image", "make", "--builder", builder, "--suite", "bookworm", "--mirror", mirror, "debian", "mine")
    return command(*words, env=environment, timeout=80)


def test_a_killed_maker_is_swept(command: Command, world: World) -> None:
    """Killed while its builder waits for a mirror that says nothing."""
    silent = socket.create_server(("127.0.0.1", 0))
    silent.settimeout(DEADLINE)
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/debian"
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    before = left(command)
    words = ("image", "make", "--builder", "mmdebstrap", "--suite", "bookworm", "--mirror", url, "debian", "mine")
    with command.running(*words, env=environment) as process:
        client, _ = silent.accept()
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)
        client.settimeout(DEADLINE)
        while client.recv(1 << 16):  # until its builder is gone, and with it whoever has asked
            pass
        client.close()
    silent.close()
    assert [name for name in left(command)[1] if name.startswith(".make.")]
    done(command("image", "prune"))
    assert left(command) == before


def test_debian_of_its_packages(command: Command) -> None:
    """The one test that asks the host's own mirror: for four packages, which are only unpacked."""
    words = ["image", "make", "--variant", "extract", "--include", "base-files,busybox-static", "debian", "mine:1"]
    made = command(*words, timeout=80)
    if made.returncode and "has failed" in made.stderr and ("download" in made.stderr or "fetch" in made.stderr):
        pytest.skip(f"no mirror answers here: {made.stderr.strip()}")
    image = done(made).strip()
    release = done(command("run", "--rm", "mine:1", "busybox", "cat", "/etc/debian_version"))
    assert release[0].isdigit() or "sid" in release
    words[-1] = "mine:2"
    assert (
        done(command(*words, env={**os.environ, "http_proxy": "http://127.0.0.1:1"})).strip() == image
    )  # as it was made


def archive_of_packages(place: Path, suite: str, files: dict[str, str]) -> str:
    """A line of sources.list(5): a distribution's archive with one package, `basics`, of these files."""
    tree, pool = place / "tree", place / "pool"
    for name, text in {**files, "DEBIAN/control": BASICS}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    pool.mkdir()
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, pool / "basics.deb"], check=True, stdout=-3)
    package = (pool / "basics.deb").read_bytes()
    index = (
        f"{BASICS}Filename: pool/basics.deb\nSize: {len(package)}\nSHA256: {sha256(package).hexdigest()}\n\n".encode()
    )
    where = f"main/binary-{BASICS.partition('Architecture: ')[2].split()[0]}/Packages"
    listed = place / "dists" / suite / where
    listed.parent.mkdir(parents=True)
    listed.write_bytes(index)
    (place / "dists" / suite / "Release").write_text(
        f"Origin: Ubuntu\nCodename: {suite}\nComponents: main\nArchitectures: {where.split('-')[1].split('/')[0]}\n"
        f"Date: Thu, 26 Nov 2026 12:00:00 UTC\nSHA256:\n {sha256(index).hexdigest()} {len(index)} {where}\n"
    )
    return f"deb [trusted=yes] copy:{place} {suite} main"


BASICS = f"""Package: basics
Version: 1
Architecture: {subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True).stdout.strip()}
Maintainer: Nobody <nobody@example.org>
Essential: yes
Priority: required
Description: all that there is
"""


def test_ubuntu_of_an_archive_of_ours(command: Command, tmp_path: Path) -> None:
    """No archive of Ubuntu's is at hand; its packages come as Debian's do, from wherever the mirror is."""
    release = "NAME=Ubuntu\nVERSION_CODENAME=noble\n"
    mirror = archive_of_packages(tmp_path / "archive", "noble", {"usr/lib/os-release": release, "etc/motd": "Noble!\n"})
    words = ("image", "make", "--variant", "extract", "--include", "basics", "--suite", "noble", "--mirror", mirror)
    image = done(command(*words, "ubuntu", "mine:1", timeout=80)).strip()
    assert inspected(command, "mine:1")["Id"] == image
    created = done(command("create", "--name", "one", "mine:1", "true"))
    assert created
    for file, text in (("usr/lib/os-release", release), ("etc/motd", "Noble!\n")):
        done(command("cp", f"one:/{file}", str(tmp_path / "got")))
        assert (tmp_path / "got").read_text() == text
    assert "mmdebstrap" in done(command("history", "--no-trunc", "mine:1"))
    shutil.rmtree(tmp_path / "archive")
    assert done(command(*words, "ubuntu", "mine:2", timeout=80)).strip() == image, "it is made again, and was there"


# image mount


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "a place"
    place.mkdir()
    yield place
    while is_mounted(place):
        umount2(place)


def test_an_image_is_seen_and_not_written_to(command: Command, place: Path) -> None:
    done(command("run", "--name", "c1", "busybox", "sh", "-c", WRITES))
    done(command("commit", "c1", "mine"))
    done(command("rm", "c1"))
    for image, seen in (("busybox", False), ("mine", True)):  # one layer, and two
        assert done(command("image", "mount", image, place)) == f"{place}\n"
        assert (place / "bin/busybox").exists()
        assert (place / "new").exists() == seen
        with pytest.raises(OSError, match="Read-only"):
            (place / "x").touch()
        table = done(command("image", "mount")).splitlines()
        assert len(table) == 2 and table[1].startswith(image) and table[1].endswith(str(place))
        assert "already" in refused(command("image", "mount", "busybox", place))
        assert f"is used by the mount at {place}" in refused(command("rmi", image), 1)
        assert done(command("image", "unmount", place)) == f"{place}\n"
        assert not is_mounted(place)
    assert "no image is mounted" in refused(command("image", "unmount", place), 1)


def test_what_is_mounted_is_not_pruned(command: Command, place: Path) -> None:
    done(command("run", "--name", "c1", "busybox", "touch", "/new"))
    done(command("commit", "c1", "mine"))
    done(command("rm", "c1"))
    done(command("image", "mount", "mine", place))
    done(command("image", "prune", "-a"))
    assert (place / "new").exists()
    assert inspected(command, "mine")
    with (place / "new").open():
        assert "has a file of it open" in refused(command("image", "unmount", place), 1)
    done(command("image", "unmount", "--all"))
    assert not is_mounted(place)
    done(command("image", "prune", "-a"))
    assert left(command) == ([], [])


def test_what_is_mounted_no_more_is_forgotten(command: Command, place: Path) -> None:
    done(command("image", "mount", "busybox", place))
    umount2(place)  # as a restart of the machine does
    assert done(command("image", "mount")).count("\n") == 1
    assert "not mounted" in done(command("system", "repair"))
    assert done(command("system", "repair")) == ""
    done(command("image", "mount", "busybox", place))
    done(command("image", "unmount", place))


def test_mounts_that_cannot_be(command: Command, tmp_path: Path, place: Path) -> None:
    assert "no directory" in refused(command("image", "mount", "busybox", tmp_path / "nope"))
    refused(command("image", "mount", "--", "Nonsense", place))
    assert "say where" in refused(command("image", "mount", "busybox"))
    assert not is_mounted(place)


def test_an_export_that_nobody_reads_ends(command: Command) -> None:
    done(command("create", "--name", "c1", "busybox", "true"))
    with command.running("export", "c1", text=False) as process:
        assert process.stdout is not None
        process.stdout.read(512)
        process.stdout.close()
        process.wait(DEADLINE)


# Killed


@needs_strace
def test_a_commit_that_is_killed_has_been_or_not(command: Command, tmp_path: Path) -> None:
    """At each of its renames, forks, locks and removals: the image is there whole, or not at all; the container stays."""
    done(command("run", "--name", "c1", "busybox", "sh", "-c", "echo x >/x"))
    done(command("commit", "c1", "warm:1"))  # so that two layers are to be merged
    done(command("start", "-a", "c1"))
    line, kills = command.line("commit", "c1", "mine:1"), 0
    for call, when in list(every_call(line, ("rename", "renameat2", "clone3", "flock", "unlink"), tmp_path / "calls")):
        command("rmi", "-f", "mine:1")
        tracer = signalled_at(call, when, signal.SIGKILL, line)
        killed = subprocess.run(tracer, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)
        kills += killed.returncode in (-signal.SIGKILL, 137)
        assert command("system", "repair").returncode == 0
        there = "mine " in done(command("images"))
        assert command("run", "--rm", "mine:1", "cat", "/x").stdout == "x\n" if there else True, (call, when)
        assert "A /x" in done(command("diff", "c1"))
    assert kills >= 10, f"only {kills} kills: this tests nothing"
    done(command("rm", "c1"))
    command("rmi", "-f", "mine:1", "warm:1")
    done(command("image", "prune", "-a"))
    done(command("system", "repair"))
    assert left(command) == ([], [])
