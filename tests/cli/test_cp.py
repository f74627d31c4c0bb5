"""Files into containers and out of them: what goes where, who owns it, and that nobody is led anywhere else."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import select
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import DEADLINE, Command, needs_root, one_line
from tests.steps.trees import archive, entry

pytestmark = needs_root

SECRET = "of the host, and of nobody else"
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def container(command: Command, running: bool, *options: str, script: str = "sleep 1000") -> Iterator[str]:
    """One that runs, or one that never did; its name."""
    name = "c1" if running else "c0"
    how = ("run", "-d") if running else ("create",)
    made = command(*how, "--name", name, *options, "busybox", "sh", "-c", script)
    assert made.returncode == 0, made.stderr
    try:
        yield name
    finally:
        command("rm", "-f", name)


@pytest.fixture(params=(True, False), ids=("running", "stopped"))
def name(request: pytest.FixtureRequest, minicontainer: Command) -> Iterator[str]:
    """A container in either state."""
    with container(minicontainer, request.param) as name:
        yield name


def packed(command: Command, place: str, *options: str) -> dict[str, tarfile.TarInfo]:
    """What is at a place in a container, by its names in the archive."""
    done = subprocess.run(command.line("cp", *options, place, "-"), capture_output=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {member.name: member for member in tar}


def copied(command: Command, *words: str | Path) -> None:
    done = command("cp", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


def refused(command: Command, *words: str | Path, status: int = 1) -> str:
    done = command("cp", *words)
    assert (done.returncode, done.stdout) == (status, ""), done
    return one_line(done.stderr)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some files outside."""
    top = tmp_path / "tree"
    (top / "inner").mkdir(parents=True)
    (top / "inner/deep").write_text("deep")
    (top / "file").write_text("file")
    os.chown(top / "file", 11, 22)
    (top / "file").chmod(0o4640)
    os.utime(top / "file", ns=(5 * 10**9 + 7, 5 * 10**9 + 7))
    os.link(top / "file", top / "other name")
    (top / "link").symlink_to("/etc/passwd")
    os.setxattr(top / "file", "user.note", b"kept")
    return top


# What goes where: docker's table


def test_a_file(minicontainer: Command, name: str, tree: Path, tmp_path: Path) -> None:
    file = tree / "file"
    copied(minicontainer, file, f"{name}:/new")  # as a name that is not there
    copied(minicontainer, file, f"{name}:/tmp")  # into a directory
    copied(minicontainer, file, f"{name}:/tmp/")
    copied(minicontainer, tree / "inner/deep", f"{name}:new")  # over a file; "/" is where its paths begin
    assert {*packed(minicontainer, f"{name}:/tmp")} == {"tmp", "tmp/file"}
    copied(minicontainer, f"{name}:/new", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "deep"
    copied(minicontainer, f"{name}:/tmp/file", tmp_path)
    assert (tmp_path / "file").read_text() == "file"


def test_a_directory(minicontainer: Command, name: str, tree: Path, tmp_path: Path) -> None:
    copied(minicontainer, tree, f"{name}:/new")  # what is in it becomes what is in the new one
    copied(minicontainer, tree, f"{name}:/tmp")  # into one that is there
    copied(minicontainer, f"{tree}/.", f"{name}:/mnt2")
    copied(minicontainer, f"{tree}/inner/.", f"{name}:/tmp")  # what is in it, into one that is there
    names = {"file", "other name", "link", "inner", "inner/deep"}
    assert {*packed(minicontainer, f"{name}:/new/.")} == {".", *names}
    assert {*packed(minicontainer, f"{name}:/mnt2")} == {"mnt2", *(f"mnt2/{one}" for one in names)}
    assert {*packed(minicontainer, f"{name}:/tmp")} == {
        "tmp",
        "tmp/tree",
        "tmp/deep",
        *(f"tmp/tree/{one}" for one in names),
    }
    copied(minicontainer, f"{name}:/new", tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == sorted({*names} - {"inner/deep"})
    copied(minicontainer, f"{name}:/new", tmp_path / "back")
    assert (tmp_path / "back/new/inner/deep").read_text() == "deep"
    copied(minicontainer, f"{name}:/new/.", tmp_path / "back")
    assert os.path.samestat((tmp_path / "back/file").stat(), (tmp_path / "back/other name").stat())


def test_what_cannot_be(minicontainer: Command, name: str, tree: Path, tmp_path: Path) -> None:
    assert "there is no /nope" in refused(minicontainer, f"{name}:/nope", tmp_path / "x")
    assert "there is no " in refused(minicontainer, tree / "nope", f"{name}:/x")
    assert "there is no directory /nope/" in refused(minicontainer, tree / "file", f"{name}:/nope/")
    assert "there is no directory /no" in refused(minicontainer, tree / "file", f"{name}:/no/way")
    assert "no directory" in refused(minicontainer, f"{name}:/etc/passwd/.", tmp_path / "x")
    assert "over the file" in refused(minicontainer, tree, f"{name}:/etc/passwd")
    assert "no directory" in refused(minicontainer, tree / "file", f"{name}:/etc/passwd/")
    assert "over the file" in refused(minicontainer, f"{name}:/etc", tree / "file")
    assert "must be in a container" in refused(minicontainer, tree, tmp_path / "x", status=125)
    assert "say which file" in refused(minicontainer, f"{name}:", tmp_path / "x", status=125)
    assert [*packed(minicontainer, f"{name}:/tmp")] == ["tmp"]
    assert not (tmp_path / "x").exists()
    full = minicontainer.root / "nowhere"
    assert "there is no directory" in refused(minicontainer, f"{name}:/etc/passwd", full / "x" / "y")


def test_a_link_is_a_link_unless_it_is_to_be_followed(
    minicontainer: Command, name: str, tree: Path, tmp_path: Path
) -> None:
    copied(minicontainer, tree / "link", f"{name}:/link")
    assert packed(minicontainer, f"{name}:/link")["link"].linkname == "/etc/passwd"
    followed = packed(minicontainer, f"{name}:/link", "-L")["link"]
    assert followed.isreg() and followed.size == 71  # the container's /etc/passwd, not the host's
    copied(minicontainer, "-L", f"{name}:/link", tmp_path / "users")
    assert (tmp_path / "users").read_text().startswith("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534")
    (tree / "in").symlink_to("inner")
    copied(minicontainer, "-L", tree / "in", f"{name}:/in")
    assert {*packed(minicontainer, f"{name}:/in")} == {"in", "in/deep"}
    copied(minicontainer, tree / "file", f"{name}:/link")  # a link that is the target is followed, in there
    assert packed(minicontainer, f"{name}:/etc/passwd")["passwd"].size == 4
    assert "root" in Path("/etc/passwd").read_text()


# Who owns it


def test_owners_and_attributes(minicontainer: Command, name: str, tree: Path, tmp_path: Path) -> None:
    copied(minicontainer, tree / "file", f"{name}:/roots")
    copied(minicontainer, "-a", tree / "file", f"{name}:/theirs")
    roots, theirs = (packed(minicontainer, f"{name}:/{one}")[one] for one in ("roots", "theirs"))
    assert (roots.uid, roots.gid, oct(roots.mode), int(roots.mtime)) == (0, 0, "0o4640", 5)
    assert (theirs.uid, theirs.gid, oct(theirs.mode)) == (11, 22, "0o4640")
    copied(minicontainer, "-a", f"{name}:/theirs", tmp_path / "theirs")
    copied(minicontainer, f"{name}:/theirs", tmp_path / "mine")
    status = (tmp_path / "theirs").stat()
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (11, 22, 5 * 10**9 + 7)
    assert os.getxattr(tmp_path / "theirs", "user.note") == b"kept"
    assert ((tmp_path / "mine").stat().st_uid, (tmp_path / "mine").stat().st_gid) == (os.geteuid(), os.getegid())


def test_archives_as_streams(minicontainer: Command, name: str) -> None:
    raw = archive(entry("a/b", content=b"x" * 100, uid=7, gid=8), entry("a/c", "link", linkname="a/b"),
                  entry("l", "symlink", linkname="/etc"), entry("bin/tool", content=b"t"))  # fmt: skip
    done = subprocess.run(minicontainer.line("cp", "-", f"{name}:/"), input=raw, capture_output=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    found = packed(minicontainer, f"{name}:/a")
    assert (found["a/b"].uid, found["a/b"].gid, found["a/c"].islnk()) == (7, 8, True)
    assert packed(minicontainer, f"{name}:/bin/tool")
    linked = archive(entry("etc2", "symlink", linkname="etc"))
    for _ in range(2):  # a link in the place of one to a directory
        done = subprocess.run(
            minicontainer.line("cp", "-", f"{name}:/"), input=linked, capture_output=True, timeout=DEADLINE
        )
        assert (done.returncode, done.stderr) == (0, b"")
    through = archive(entry("etc2/new", content=b"n"))  # and a way that leads through one, in there
    assert subprocess.run(minicontainer.line("cp", "-", f"{name}:/"), input=through, timeout=DEADLINE).returncode == 0
    assert "new" in packed(minicontainer, f"{name}:/etc/new")
    for bad in (b"none", raw[:700], archive(entry("../../x", content=b"y")), b""):
        done = subprocess.run(
            minicontainer.line("cp", "-", f"{name}:/tmp"), input=bad, capture_output=True, timeout=DEADLINE
        )
        assert done.returncode == 1
        one_line(done.stderr.decode())
    done = subprocess.run(
        minicontainer.line("cp", "-", f"{name}:/etc/passwd"), input=raw, capture_output=True, timeout=DEADLINE
    )
    assert done.returncode == 1 and b"goes into a directory" in done.stderr


def test_devices_stay_where_they_are(minicontainer: Command, tmp_path: Path) -> None:
    with container(minicontainer, True) as name:
        done = minicontainer("cp", f"{name}:/dev", tmp_path / "dev")
        assert done.returncode == 0
        assert "a device" in done.stderr
        assert not [path for path in (tmp_path / "dev").rglob("*") if path.is_char_device() and not path.is_symlink()]
        names = packed(minicontainer, f"{name}:/.")
        assert "proc" in names and not [one for one in names if one.startswith(("proc/", "sys/"))]


def test_between_containers(minicontainer: Command, tree: Path) -> None:
    with container(minicontainer, True) as one, container(minicontainer, False) as other:
        copied(minicontainer, tree, f"{one}:/tree")
        copied(minicontainer, f"{one}:/tree", f"{other}:/there")
        copied(minicontainer, f"{other}:/there/inner", f"{one}:/")
        assert {*packed(minicontainer, f"{one}:/inner")} == {"inner", "inner/deep"}
        for name in (one, other):  # within one
            copied(minicontainer, "-a", f"{name}:/inner" if name == one else f"{name}:/there/inner", f"{name}:/etc")
            assert {*packed(minicontainer, f"{name}:/etc/inner")} == {"inner", "inner/deep"}
            assert "there is no /nope" in refused(minicontainer, f"{name}:/nope", f"{name}:/x")
        assert "there is no /nope" in refused(minicontainer, f"{one}:/nope", f"{other}:/x")
        assert "there is no directory" in refused(minicontainer, f"{one}:/tree", f"{other}:/no/where")


def test_volumes_are_seen(minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    for running in (True, False):
        with container(minicontainer, running, "-v", f"{tmp_path}/volume:/data") as name:
            (tmp_path / "in").write_text("x")
            copied(minicontainer, tmp_path / "in", f"{name}:/data/{running}")
            assert (tmp_path / f"volume/{running}").read_text() == "x"
    with container(minicontainer, False, "-v", f"{tmp_path}/volume:/data:ro") as name:
        assert "Read-only" in refused(minicontainer, tmp_path / "in", f"{name}:/data/x")


def test_a_file_that_is_mounted_is_written_to(minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "mounted").write_text("before, and longer")
    (tmp_path / "new").write_text("after")
    with container(minicontainer, True, "-v", f"{tmp_path}/mounted:/etc/motd") as name:
        copied(minicontainer, tmp_path / "new", f"{name}:/etc/motd")
    assert (tmp_path / "mounted").read_text() == "after"


def test_what_cannot_be_finished_leaves_nothing(minicontainer: Command, tmp_path: Path) -> None:
    """A target that is full, with a file that was there before: that stays what it was."""
    with container(minicontainer, True) as name:
        (tmp_path / "dir").mkdir()
        for one in range(8):
            (tmp_path / f"dir/{one}").write_bytes(os.urandom(20000))
        state = json.loads(next((minicontainer.root / "containers").glob("*/state.json")).read_text())
        script = "mkdir /small && mount -t tmpfs -o size=64k none /small && echo old >/small/old"
        subprocess.run(["nsenter", "-t", str(state["pid"]), "-m", "sh", "-c", script], check=True, timeout=DEADLINE)
        assert "No space left" in refused(minicontainer, tmp_path / "dir", f"{name}:/small/new")
        (tmp_path / "old").write_bytes(os.urandom(100000))
        assert "No space left" in refused(minicontainer, tmp_path / "old", f"{name}:/small/old")
        assert {*packed(minicontainer, f"{name}:/small")} == {"small", "small/old"}
        assert packed(minicontainer, f"{name}:/small/old")["old"].size == 4


# Somebody in there means harm


@contextlib.contextmanager
def exchanging(one: Path, other: Path) -> Iterator[None]:
    """A process that exchanges two names all the time, by the container's own root as we see it in /proc."""
    ready, started = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            rename = ctypes.CDLL(None).renameat2
            names, told = (os.fsencode(one), os.fsencode(other)), False
            while rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
                if not told:
                    told = bool(os.write(started, b"!"))
        os._exit(1)
    try:
        assert select.select([ready], [], [], DEADLINE)[0]
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "the attacker gave up"
        for fd in (ready, started):
            os.close(fd)


def naive(path: Path) -> str:
    """What is read by somebody outside who believes the path."""
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_link_that_is_exchanged_all_the_time_leads_nowhere(minicontainer: Command, tmp_path: Path) -> None:
    """CVE-2018-15664: /data is a directory, and then a link to a directory of the host's, and a directory again."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text(SECRET)
    (outside / "victim").write_text("untouched")
    script = f"mkdir /data; echo inside >/data/file; echo inside >/data/victim; ln -s {outside} /trap; touch /ready; sleep 1000"
    (tmp_path / "victim").write_text("overwritten")
    with container(minicontainer, True, script=script) as name:
        state = json.loads(next((minicontainer.root / "containers").glob("*/state.json")).read_text())
        root = Path(f"/proc/{state['pid']}/root")
        while not (root / "ready").exists():
            select.select([], [], [], 0.01)
        came = dict.fromkeys(("inside", "nothing"), 0)
        with exchanging(root / "data", root / "trap"):
            assert any(naive(root / "data/file") == SECRET for _ in range(100_000)), "from outside, it leads out"
            for number in range(25):
                target = tmp_path / f"got{number}"
                done = minicontainer("cp", *(("-L",) if number % 2 else ()), f"{name}:/data/file", target)
                came["inside" if done.returncode == 0 else "nothing"] += 1
                if done.returncode == 0:
                    assert target.read_text() == "inside\n"
                else:
                    assert SECRET not in one_line(done.stderr)
                done = minicontainer("cp", tmp_path / "victim", f"{name}:/data/victim")
                assert done.returncode in (0, 1)
                whole = subprocess.run(
                    minicontainer.line("cp", f"{name}:/data", "-"), capture_output=True, timeout=DEADLINE
                )
                assert SECRET.encode() not in whole.stdout
        assert all(came.values()), f"the attacker was never met, or always: {came}"
    assert (outside / "victim").read_text() == "untouched"
    assert sorted(path.name for path in outside.iterdir()) == ["file", "victim"]


def test_a_device_in_the_place_of_a_file_is_not_read(minicontainer: Command, tmp_path: Path) -> None:
    """/file is a file, and then a terminal-like device with something to read, and a file again."""
    with container(
        minicontainer, True, script="echo inside >/file; mknod /dev.zero c 1 5; touch /ready; sleep 1000"
    ) as name:
        state = json.loads(next((minicontainer.root / "containers").glob("*/state.json")).read_text())
        root = Path(f"/proc/{state['pid']}/root")
        while not (root / "ready").exists():
            select.select([], [], [], 0.01)
        with exchanging(root / "file", root / "dev.zero"):
            for number in range(20):
                done = subprocess.run(
                    minicontainer.line("cp", f"{name}:/file", "-"), capture_output=True, timeout=DEADLINE
                )
                assert done.returncode in (0, 1)
                if done.returncode == 0:
                    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
                        [member] = tar
                        content = tar.extractfile(member)
                        assert member.ischr() or (content and content.read() == b"inside\n"), number


def test_nothing_of_the_container_is_loaded(minicontainer: Command, tmp_path: Path) -> None:
    """CVE-2019-14271: whoever copies has everything that it needs; modules and libraries of the container's are not it.

    Every place where ours could be looked for in there has one that tells if it is loaded.
    """
    bomb = "import os\nos.open('/loaded', os.O_CREAT | os.O_WRONLY)\n"
    with container(minicontainer, True) as name:
        state = json.loads(next((minicontainer.root / "containers").glob("*/state.json")).read_text())
        root = Path(f"/proc/{state['pid']}/root")
        for place in [*sys.path, "/usr/lib/python3", str(Path(__file__).parents[2])]:
            if place.startswith("/") and not place.endswith(".zip"):
                directory = Path(f"{root}{place}")
                directory.mkdir(parents=True, exist_ok=True)
                for module in ("bz2", "lzma", "pwd", "encodings", "shutil", "tarfile", "minicontainer"):
                    (directory / f"{module}.py").write_text(bomb)
        (root / "lib/x86_64-linux-gnu").mkdir(parents=True, exist_ok=True)
        for library in ("libnss_files.so.2", "libc.so.6"):
            (root / "lib/x86_64-linux-gnu" / library).write_text("no library")
        copied(minicontainer, f"{name}:/etc/passwd", tmp_path / "users")
        copied(minicontainer, "-a", tmp_path / "users", f"{name}:/etc/shadow")
        refused(minicontainer, f"{name}:/etc/nope", tmp_path / "x")
        assert not (root / "loaded").exists()


def test_a_paused_container_can_be_copied_from(minicontainer: Command, tmp_path: Path) -> None:
    with container(minicontainer, True) as name:
        assert minicontainer("pause", name).returncode == 0
        copied(minicontainer, f"{name}:/etc/passwd", tmp_path / "users")
        assert minicontainer("unpause", name).returncode == 0
    assert (tmp_path / "users").exists()
