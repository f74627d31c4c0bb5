"""Registries on the command line: what is printed, what is kept, what is left when something goes wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.images.content import ContentStore
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.images.registry_server import (
    Image,
    OddRegistry,
    change,
    cut,
    digest_of,
    fall_silent,
    make_image,
    status,
)  # fmt: skip
from tests.images.test_registry import incompressible, small
from tests.netns import World

pytestmark = needs_root
QUICKLY = ("--retry", "3", "--retry-delay", "0.001")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory in which nobody has logged in anywhere, and an environment without proxies."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HTTP_PROXY", "http_proxy",
                 "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def odd(world: World) -> Iterator[OddRegistry]:
    with OddRegistry().serving() as registry:
        yield registry


@pytest.fixture
def command(tmp_path: Path, home: Path) -> Command:
    """With a state directory that has nothing in it yet."""
    return Command(tmp_path / "own")


def tags(command: Command) -> dict[str, str]:
    """Name → digest, as the layout says it."""
    index = json.loads((command.root / "images/index.json").read_text())
    return {one["annotations"]["org.opencontainers.image.ref.name"]: one["digest"] for one in index["manifests"]}


def layers(command: Command) -> list[str]:
    """What is unpacked."""
    return sorted(path.name for path in (command.root / "layers").iterdir())


def diff_ids(image: Image) -> list[str]:
    """Of an image's layers."""
    config = json.loads(image.raw)["config"]["digest"]
    return [str(digest) for digest in json.loads(image.blobs[config])["rootfs"]["diff_ids"]]


def test_pull_prints_a_line_a_layer_and_unpacks_it(odd: OddRegistry, command: Command) -> None:
    image = make_image({"big": incompressible(1_234_000)}, {"etc/motd": b"hello\n"})
    odd.add("box", image, "1")
    done = command("pull", f"{odd.name}/box:1")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    *lines, name = done.stdout.splitlines()
    assert name == f"{odd.name}/box:1"
    assert re.fullmatch(
        rf"layer {image.layers[0]} 1\.2 MB", sorted(lines, key=len)[-1] if len(lines) == 2 else ""
    ) or sorted(lines) == sorted(
        f"layer {digest} {size}"
        for digest, size in zip(image.layers, ("1.2 MB", f"{len(image.blobs[image.layers[1]])} B"), strict=True)
    ), lines
    assert tags(command) == {f"{odd.name}/box:1": image.digest}
    first, second = (digest.partition(":")[2] for digest in diff_ids(image))
    assert layers(command) == sorted([first, second])
    assert (command.root / f"layers/{second}/diff/etc/motd").read_text() == "hello\n"
    again = command("pull", f"{odd.name}/box:1")
    assert sorted(again.stdout.splitlines()[:-1]) == sorted(line + ", there already" for line in lines)
    assert command("pull", "-q", f"{odd.name}/box:1").stdout == f"{odd.name}/box:1\n"


def test_bars_on_a_terminal(odd: OddRegistry, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    image = small()
    odd.add("box", image, "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    colours = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    shown = on_a_terminal(command, "pull", f"{odd.name}/box:1")
    for digest in image.layers:
        assert digest[7:19] in shown
    assert "unpacked" in shown and "layer sha256" not in shown and colours.search(shown)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours.search(on_a_terminal(command, "pull", f"{odd.name}/box:1"))
    monkeypatch.setenv("TERM", "dumb")
    assert f"layer {image.layers[0]}" in on_a_terminal(command, "pull", f"{odd.name}/box:1")


def on_a_terminal(command: Command, *words: str) -> str:
    """What a command writes to a terminal."""
    ours, its = pty.openpty()
    with subprocess.Popen(command.line(*words), stdin=subprocess.DEVNULL, stdout=its, stderr=its) as process:
        os.close(its)
        shown = b""
        while select.select([ours], [], [], DEADLINE)[0]:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # EIO: nobody has the other end any more
                break
        assert process.wait(DEADLINE) == 0, shown
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize(("words", "said"), [
    (["pull", "{}/none:1"], "127.0.0.1:PORT has no repository none: NAME_UNKNOWN: repository name not known to registry"),
    (["pull", "{}/box:2"], '127.0.0.1:PORT has no tag "2" of box; it has 1, arm'),
    (["pull", "{}/box:1@sha256:ab"], '"127.0.0.1:PORT/box:1@sha256:ab" cannot be an image: a digest is sha256:'),
    (["pull", "{}/Box"], "a name is of a-z and 0-9"),
    (["pull", "{}/box:1\n\x1b[31m"], "cannot be an image"),
    (["pull", "{}/box:arm"], "box:arm is for linux/sparc, and not for linux/"),
    (["pull", "--platform", "linux/", "{}/box:1"], '"linux/" cannot be a platform'),
    (["pull", "--platform", "linux/mips", "{}/many:1"], "many:1 is not there for linux/mips; it is for linux/amd64, linux/sparc: say which with --platform"),
    (["pull", "127.0.0.1:1/box"], "cannot reach 127.0.0.1:1: Connection refused; tried 3 times"),
    (["pull", "nowhere.invalid/box"], "cannot reach nowhere.invalid: no host of that name is known here"),
    (["pull", "--ca", "/nowhere", "{}/box:1"], "cannot take /nowhere to vouch for 127.0.0.1:PORT: No such file or directory"),
    (["push", "{}/box:1"], "there is no image 127.0.0.1:PORT/box:1 here"),
    (["login", "box"], '"box" is no registry: write HOST[:PORT]'),
    (["login", "{}"], "login asks for a password at a terminal, and standard input is none: use --password-stdin"),
    (["login", "--password-stdin", "{}"], "--password-stdin wants --username as well"),
    (["login", "-u", "a:b", "--password-stdin", "{}"], "a registry wants a user, without a colon in its name, and a password"),
    (["logout", "{}"], "nobody is logged in to 127.0.0.1:PORT"),
    (["search", "debian"], "Docker Hub does not list its repositories"),
    (["search", "--list-tags", "{}/none"], "cannot list tags of 127.0.0.1:PORT: HTTP status 404, NAME_UNKNOWN"),
])  # fmt: skip
def test_errors_are_one_line(odd: OddRegistry, command: Command, words: list[str], said: str) -> None:
    arm = make_image({"a": b""}, architecture="sparc")
    odd.add("box", small(), "1")
    odd.add("box", arm, "arm")
    odd.add_index(
        "many",
        [(small(), {"os": "linux", "architecture": "amd64"}), (arm, {"os": "linux", "architecture": "sparc"})],
        "1",
    )
    words = [word.replace("{}", odd.name) for word in words]
    tries = QUICKLY if words[0] in ("pull", "push", "search") else ()
    done = command(words[0], *tries, *words[1:])
    assert done.returncode == 125 and done.stdout == ""
    assert said in one_line(done.stderr).replace(odd.name, "127.0.0.1:PORT"), done.stderr
    if (command.root / "images/index.json").exists():
        assert tags(command) == {}


def test_an_image_for_another_machine_when_that_is_wanted(odd: OddRegistry, command: Command) -> None:
    image = make_image({"a": b""}, architecture="sparc")
    odd.add("box", image, "1")
    assert command("pull", "-q", "--platform", "linux/sparc", f"{odd.name}/box:1").returncode == 0
    assert tags(command) == {f"{odd.name}/box:1": image.digest}


def test_a_registry_that_dies_in_the_middle(odd: OddRegistry, command: Command) -> None:
    image = make_image({"big": incompressible(400_000)}, {"b": b"2"})
    odd.add("box", image, "1")
    odd.fault(cut(150_000), f"blobs/{image.layers[0]}")
    odd.fault(status(503), f"blobs/{image.layers[0]}", times=2)
    done = command("pull", "-q", *QUICKLY, f"{odd.name}/box:1")
    assert done.returncode == 125
    assert one_line(done.stderr) == f"{odd.name} answers with HTTP status 503; tried 3 times"
    assert tags(command) == {} and not any(name.startswith(".") for name in layers(command))
    assert command("pull", "-q", f"{odd.name}/box:1").returncode == 0
    assert odd.asked("GET", f"blobs/{image.layers[0]}")[-1].headers["range"] == "bytes=150000-"


def test_bytes_that_were_changed_on_their_way(odd: OddRegistry, command: Command) -> None:
    image = small()
    odd.add("box", image, "1")
    odd.fault(change(lambda body: body[:-1] + b"?"), f"blobs/{image.layers[1]}")
    done = command("pull", "-q", f"{odd.name}/box:1")
    assert done.returncode == 125 and tags(command) == {}
    assert f"what came as blob {image.layers[1]} is sha256:" in one_line(done.stderr)
    assert command("pull", "-q", f"{odd.name}/box:1").returncode == 0


def test_an_image_that_contradicts_itself(odd: OddRegistry, command: Command) -> None:
    """Its blobs are what the manifest says, and what is in them is not what the configuration says."""
    image = small()
    document = json.loads(image.raw)
    config = json.loads(image.blobs[document["config"]["digest"]])
    config["rootfs"]["diff_ids"][1] = f"sha256:{'0' * 64}"
    altered = json.dumps(config).encode()
    document["config"] |= {"digest": digest_of(altered), "size": len(altered)}
    odd.add(
        "box", Image(json.dumps(document).encode(), {**image.blobs, digest_of(altered): altered}, image.layers), "1"
    )
    done = command("pull", "-q", f"{odd.name}/box:1")
    assert done.returncode == 125 and "the image contradicts itself" in one_line(done.stderr)
    assert tags(command) == {} and "0" * 64 not in layers(command)


def test_no_space_left(odd: OddRegistry, command: Command) -> None:
    image = make_image({"big": incompressible(600_000)})
    odd.add("box", image, "1")
    command.root.mkdir()
    line = " ".join(str(word) for word in command.line("pull", "-q", f"{odd.name}/box:1"))
    script = (f"mount -t tmpfs -o size=400k tmpfs {command.root}; {line}; echo $?; ls {command.root}/images/ingest;"
              f"mount -o remount,size=4m {command.root}; {line}; echo $?")  # fmt: skip
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=DEADLINE)
    said = one_line(done.stderr)
    assert said.startswith(
        f"cannot keep {odd.name}/box:1 in {command.root}/images: No space left on device; what has come"
    )
    assert done.stdout.splitlines() == ["125", image.layers[0][7:], f"{odd.name}/box:1", "0"]
    ranges = [one.headers.get("range", "") for one in odd.asked("GET", f"blobs/{image.layers[0]}")]
    assert ranges[0] == "" and ranges[-1].startswith("bytes=")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_a_pull_that_is_ended_in_the_middle(odd: OddRegistry, command: Command, number: int, code: int) -> None:
    image = make_image({"big": incompressible(400_000)}, {"b": b"2"})
    odd.add("box", image, "1")
    odd.fault(fall_silent(150_000), f"blobs/{image.layers[0]}")
    partial = command.root / "images/ingest" / image.layers[0][7:]
    with command.running("pull", "-q", f"{odd.name}/box:1") as process:
        wait_until(lambda: partial.exists() and partial.stat().st_size == 150_000, "a part has come")
        process.send_signal(number)
        assert process.wait(DEADLINE) == code
        assert process.stderr
        said = process.stderr.read()
    assert said == ("minicontainer: interrupted\n" if number == signal.SIGINT else "")
    assert tags(command) == {}
    assert command("pull", "-q", f"{odd.name}/box:1").returncode == 0
    assert odd.asked("GET", f"blobs/{image.layers[0]}")[-1].headers["range"] == "bytes=150000-"


def test_two_commands_pull_the_same_image_at_once(odd: OddRegistry, command: Command) -> None:
    image = make_image({"a": incompressible(300_000)}, {"b": incompressible(200_000)})
    odd.add("box", image, "1")
    with command.running("pull", f"{odd.name}/box:1") as one, command.running("pull", f"{odd.name}/box:1") as other:
        ended = [(process.communicate(timeout=DEADLINE)[1], process.returncode) for process in (one, other)]
        assert ended == [("", 0)] * 2
    for digest in image.blobs:
        assert len(odd.asked("GET", f"blobs/{digest}")) == 1
    assert layers(command) == sorted(digest.partition(":")[2] for digest in diff_ids(image))


def test_pull_from_a_mirror(odd: OddRegistry, command: Command) -> None:
    odd.add("library/box", small(), "latest")
    command.root.mkdir()
    (command.root / "registries.toml").write_text(f'["docker.io"]\nmirrors = ["{odd.name}"]\n')
    done = command("pull", "-q", "box")
    assert (done.returncode, done.stdout) == (0, "docker.io/library/box:latest\n"), done.stderr
    (command.root / "registries.toml").write_text('["docker.io"]\nmirror = "x"\n')
    done = command("pull", "-q", "box")
    assert done.returncode == 125 and "registries.toml: docker.io: mirror: there are mirrors (a list)" in one_line(
        done.stderr
    )


def test_push(odd: OddRegistry, command: Command) -> None:
    image = small()
    odd.add("box", image, "1")
    assert command("pull", "-q", f"{odd.name}/box:1").returncode == 0
    odd.manifests.clear()
    odd.blobs.pop(("box", image.layers[1]))
    done = command("push", f"{odd.name}/box:1")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert last == f"{odd.name}/box:1@{image.digest}" and odd.manifests["box", "1"][1] == image.raw
    sizes = [len(image.blobs[digest]) for digest in image.layers]
    assert sorted(lines) == sorted(
        [f"layer {image.layers[0]} {sizes[0]} B, there already", f"layer {image.layers[1]} {sizes[1]} B"]
    )


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_login_and_logout(odd: OddRegistry, command: Command, home: Path, auth: str) -> None:
    odd.auth = auth
    odd.add("box", small(), "1")
    refused = command("pull", "-q", f"{odd.name}/box:1")
    assert refused.returncode == 125 and f"log in with: minicontainer login {odd.name}" in one_line(refused.stderr)
    wrong = command("login", "-u", "student", "--password-stdin", odd.name, input="wrong\n", stdin=None)
    assert wrong.returncode == 125 and not (home / ".docker").exists()
    assert "refuses the password of student" in one_line(wrong.stderr) or "not allowed to" in wrong.stderr
    done = command("login", "-u", "student", "--password-stdin", odd.name, input="secret\n", stdin=None)
    file = home / ".docker/config.json"
    assert (done.returncode, done.stdout) == (0, f"Logged in to {odd.name} as student; kept in {file}\n"), done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and "secret" not in file.read_text()
    assert command("pull", "-q", f"{odd.name}/box:1").returncode == 0
    assert command("push", "-q", f"{odd.name}/box:1").returncode == 0
    assert command("logout", odd.name).stdout == f"Logged out of {odd.name}\n"
    assert command("pull", "-q", f"{odd.name}/box:1").returncode == 125


def test_search(odd: OddRegistry, command: Command) -> None:
    for name in ("team/debian", "team/debian-slim", "busybox"):
        odd.add(name, small(), "1", "2")
    odd.page = 1
    assert command("search", f"{odd.name}/deb").stdout == f"NAME\n{odd.name}/team/debian\n{odd.name}/team/debian-slim\n"
    assert command("search", "--limit", "1", odd.name).stdout == f"NAME\n{odd.name}/busybox\n"
    listed = command("search", "--list-tags", f"{odd.name}/busybox")
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["NAME", "TAG"],
        *([f"{odd.name}/busybox", tag] for tag in "12"),
    ]
    odd.fault(status(404), "_catalog", times=9)
    done = command("search", odd.name)
    assert (
        done.returncode == 125 and one_line(done.stderr) == f"cannot list repositories of {odd.name}: HTTP status 404"
    )


def test_nothing_of_it_is_imported_by_run(command: Command) -> None:
    """urllib3 and rich take longer to import than a container to start."""
    import sys

    code = "import sys; from minicontainer.cli.arguments import parse; parse(['run', 'busybox']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
    loaded = set(done.stdout.split())
    assert loaded and not {"urllib3", "rich", "http.client", "ssl", "minicontainer.cli.registry"} & loaded


def test_run_pulls_what_is_not_here(odd: OddRegistry, command: Command, minicontainer: Command) -> None:
    name = f"{odd.name}/box:1"
    assert minicontainer("run", "--rm", "busybox", "true").returncode == 0
    content = ContentStore(str(minicontainer.root / "images"))
    content.tag(name, content.tags()["docker.io/library/busybox:latest"])
    pushed = minicontainer("push", "-q", name)
    content.untag(name)
    assert pushed.returncode == 0, pushed.stderr
    done = command("run", "--rm", name, "echo", "pulled and run")
    assert (done.returncode, done.stdout) == (0, "pulled and run\n"), done.stderr
    assert re.fullmatch(rf"layer sha256:[0-9a-f]{{64}} [0-9.]+ [kM]B\n{name}\n", done.stderr)
    before = len(odd.seen)
    assert command("run", "--rm", name, "true").returncode == 0 and len(odd.seen) == before
    done = command("run", "--rm", "--pull", "never", f"{odd.name}/box:2", "true")
    assert done.returncode == 125 and "there is no image" in one_line(done.stderr)
    done = command("run", "--rm", f"{odd.name}/box:2", "true")
    assert done.returncode == 125 and 'has no tag "2" of box; it has 1' in one_line(done.stderr)


def test_an_ordinary_user_pulls_and_runs(
    odd: OddRegistry, tmp_path: Path, minicontainer: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pulled is unpacked by the root of the user namespace that its container has."""
    import urllib3

    from tests.cli import test_rootless

    name = f"{odd.name}/box:1"
    assert minicontainer("run", "--rm", "busybox", "true").returncode == 0
    content = ContentStore(str(minicontainer.root / "images"))
    content.tag(name, content.tags()["docker.io/library/busybox:latest"])
    assert minicontainer("push", "-q", name).returncode == 0
    content.untag(name)
    packages = Path(urllib3.__file__).parents[1].relative_to(test_rootless.CHECKOUT)
    reachable = test_rootless.reachable

    def with_packages(*arguments: object) -> tuple[list[str], list[str]]:
        prefix, command = reachable(*arguments)  # type: ignore[arg-type]
        return prefix, [
            word.replace("import sys;", f"import sys; sys.path.append('/mnt/code/{packages}');") for word in command
        ]

    monkeypatch.setattr(test_rootless, "reachable", with_packages)
    place = tmp_path / "rootless"
    place.mkdir()
    done = test_rootless.rootless(place, "pull", "-q", name)
    assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
    done = test_rootless.rootless(place, "run", "--rm", name, "id", "-u")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_nobody_reads_what_is_printed(odd: OddRegistry, command: Command) -> None:
    odd.add("box", small(), "1")
    reading, writing = os.pipe()
    os.close(reading)
    done = command("pull", f"{odd.name}/box:1", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
