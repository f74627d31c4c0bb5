"""As an ordinary user, who may do nothing but make a user namespace."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_images import userland
from tests.cli.test_terminal import is_raw, terminal
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.host_state import HostUnchanged

pytestmark = needs_root  # to become somebody else

UID = 61234
"""Nobody: without an entry in /etc/passwd."""
CHECKOUT = Path(__file__).parents[2]


def reachable(tmp_path: Path, *arguments: str) -> tuple[list[str], list[str]]:
    """A command that makes a mount namespace in which an ordinary user can get at our code, and the command to run in it.

    The checkout may lie below a directory of mode 700, and so does tmp_path: both are bound to places of a tmpfs. And
    everybody may open /dev/net/tun, as on most machines.
    """
    (tmp_path / "state").mkdir(exist_ok=True)
    os.chown(tmp_path / "state", UID, UID)
    script = f"""
    mount --make-rprivate / && mount -t tmpfs -o mode=755 none /mnt && mkdir /mnt/code /mnt/state &&
    {{ [ ! -e /dev/net/tun ] || {{ mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun; }}; }} &&
    mount --bind {shlex.quote(str(CHECKOUT))} /mnt/code && mount --bind {shlex.quote(str(tmp_path / "state"))} /mnt/state &&
    for name in passwd subuid subgid; do [ ! -e {shlex.quote(str(tmp_path))}/$name ] || mount --bind {shlex.quote(str(tmp_path))}/$name /etc/$name; done &&
    cd / && exec "$@"
    """
    python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    if (CHECKOUT / ".venv/bin/python").exists():  # with what is installed beside it, where that can be got at
        python = "/mnt/code/.venv/bin/python"
    program = "import sys; sys.path.insert(0, '/mnt/code'); from minicontainer.cli import main; sys.exit(main())"
    command = [python, "-B", "-I", "-c", program, "--root", "/mnt/state/engine", *arguments]
    return ["unshare", "--mount", "sh", "-c", script, "sh"], command


def rootless(
    tmp_path: Path, *arguments: str, setpriv: tuple[str, ...] = (), **options: object
) -> subprocess.CompletedProcess[str]:
    """Run the command as an ordinary user."""
    prefix, command = reachable(tmp_path, *arguments)
    become = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--inh-caps=-all", *setpriv]
    return subprocess.run(
        [*prefix, *become, *command],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        **{"stdin": subprocess.DEVNULL, **options},
    )  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def ranges(tmp_path: Path) -> Path:
    """Give the user a name and 1000 subordinate ids."""
    if not all(shutil.which(name) for name in ("newuidmap", "newgidmap")):
        pytest.skip("newuidmap is not installed (package uidmap): there are no ranges to be had")
    (tmp_path / "passwd").write_text(Path("/etc/passwd").read_text() + f"student:x:{UID}:{UID}::/:/bin/sh\n")
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("student:700000:1000\n")
    return tmp_path


def left(tmp_path: Path) -> list[str]:
    """What is left of containers."""
    return [str(path) for place in ("containers", "names") for path in (tmp_path / "state/engine" / place).glob("*")]


def test_one_user(tmp_path: Path, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        script = "id -u; id -g; hostname; cat /proc/self/uid_map; touch /here && rm /here; ls /proc | grep -c '^[0-9]'"
        done = rootless(tmp_path, "run", "--rm", "--hostname", "alpha", "busybox", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.split("\n")
    assert lines[:3] == ["0", "0", "alpha"] and lines[3].split() == ["0", str(UID), "1"]
    assert left(tmp_path) == []


def test_every_namespace_is_its_own(tmp_path: Path) -> None:
    done = rootless(
        tmp_path,
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "for n in mnt uts ipc pid net user cgroup time; do readlink /proc/self/ns/$n; done",
    )
    inside = done.stdout.split()
    outside = {
        os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")
    }
    assert len(inside) == 8 and not set(inside) & outside


def test_many_users(ranges: Path, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        script = "cat /proc/self/uid_map; touch /file && chown 5:7 /file && stat -c %u:%g /file"
        done = rootless(ranges, "run", "--rm", "busybox", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [["0", str(UID), "1"], ["1", "700000", "1000"]]
    assert lines[2] == "5:7"
    assert left(ranges) == []


def test_what_its_other_users_wrote_can_be_removed(ranges: Path) -> None:
    script = "mkdir -m 700 /secret && echo x > /secret/file && chown -R 5:7 /secret && chmod 0 /secret"
    assert rootless(ranges, "run", "--name", "alpha", "busybox", "sh", "-c", script).returncode == 0
    [owner] = {path.lstat().st_uid for path in (ranges / "state/engine/containers").glob("*/upper/secret")}
    assert owner == 700004
    done = rootless(ranges, "rm", "alpha")
    assert (done.returncode, done.stdout, done.stderr) == (0, "alpha\n", "")
    assert left(ranges) == []


@pytest.mark.parametrize("options", [[], ["--no-init"]])
def test_a_terminal_can_be_left(tmp_path: Path, options: list[str]) -> None:
    """The terminal's other side is in process 1, or its monitor, and has to be fetched from there."""
    prefix, line = reachable(tmp_path)
    program = line[: line.index("--root")]
    become = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--inh-caps=-all"]
    command = Command(Path("/mnt/state/engine"), [*prefix, *become, *program])
    with terminal(command, "run", "-it", "--rm", "--name", "alpha", *options, "busybox", "sh") as window:
        window.expect("# ")
        window.type("\x10\x11")
        assert window.end() == 0
    with terminal(command, "attach", "alpha") as window:
        wait_until(lambda: is_raw(window.mode()), "the terminal is raw")
        window.type("exit $((6 * 7))\r")
        assert window.end() == 42
    assert left(tmp_path) == []


def test_exit_codes_and_errors_are_the_same(tmp_path: Path, host_unchanged: HostUnchanged) -> None:
    for arguments, code in (
        (["sh", "-c", "exit 7"], 7),
        (["nope"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill -9 $$"], 137),
    ):
        with host_unchanged():
            done = rootless(tmp_path, "run", "--rm", "busybox", *arguments)
        assert done.returncode == code
        if code in (126, 127):
            one_line(done.stderr)
        assert left(tmp_path) == []


def test_orphans_signals_and_volumes(tmp_path: Path) -> None:
    (tmp_path / "state/mine").mkdir(parents=True)
    os.chown(tmp_path / "state/mine", UID, UID)
    script = "(true & true); echo x > /v/file; exec sh -c 'kill -15 $$'"
    done = rootless(tmp_path, "run", "--rm", "-v", "/mnt/state/mine:/v", "busybox", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (143, "")
    assert (tmp_path / "state/mine/file").stat().st_uid == UID
    done = rootless(tmp_path, "run", "--rm", "-v", "/mnt/state/mine:/v:ro", "busybox", "rm", "/v/file")
    assert done.returncode == 1 and "Read-only" in done.stderr


def test_a_limit_that_it_may_not_set_is_told(tmp_path: Path, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        done = rootless(tmp_path, "run", "--rm", "-m", "64m", "busybox", "true")
    assert done.returncode == 125 and "delegated" in one_line(done.stderr)
    assert left(tmp_path) == []


def test_a_source_that_it_may_not_look_at(tmp_path: Path, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        done = rootless(tmp_path, "run", "--rm", "-v", "/etc/shadow:/v", "busybox", "cat", "/v")
    assert done.returncode != 0 and "root:" not in done.stdout


def test_newuidmap_that_may_not_raise_itself(ranges: Path, host_unchanged: HostUnchanged) -> None:
    """no_new_privs, as in many sandboxes: its setuid bit does nothing. One line says who failed."""
    with host_unchanged():
        done = rootless(ranges, "run", "--rm", "busybox", "true", setpriv=("--no-new-privs",))
    assert done.returncode == 125 and "newuidmap" in one_line(done.stderr)
    assert left(ranges) == []


def test_a_home_that_does_not_exist(tmp_path: Path) -> None:
    """Without --root, HOME, XDG_DATA_HOME or an entry in /etc/passwd: one line, no traceback."""
    prefix, command = reachable(tmp_path, "ps")
    where = command.index("--root")
    del command[where : where + 2]
    become = ["env", "-i", "PATH=/usr/bin:/bin", "setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"]
    done = subprocess.run([*prefix, *become, *command], capture_output=True, text=True, timeout=DEADLINE)
    assert "Traceback" not in done.stderr
    if done.returncode != 0:
        one_line(done.stderr)


def test_check_says_that_it_will_be_rootless(tmp_path: Path) -> None:
    done = rootless(tmp_path, "check")
    assert f"uid {UID}: containers will be rootless" in done.stdout
    assert "a container starts" in done.stdout and done.returncode == 0, done.stdout


def test_repair_removes_what_its_other_users_wrote(ranges: Path) -> None:
    assert (
        rootless(
            ranges, "run", "--name", "alpha", "busybox", "sh", "-c", "mkdir -m 700 /s && touch /s/f && chown -R 5 /s"
        ).returncode
        == 0
    )
    [config] = (ranges / "state/engine/containers").glob("*/config.json")
    config.unlink()  # half removed
    done = rootless(ranges, "system", "repair")
    assert (done.returncode, done.stderr) == (0, "")
    assert left(ranges) == []


@pytest.mark.parametrize("with_ranges", [False, True])
def test_an_image_of_ones_own(tmp_path: Path, request: pytest.FixtureRequest, with_ranges: bool) -> None:
    """Unpacked as root of the user namespace that its containers have, and removed likewise."""
    if with_ranges:
        request.getfixturevalue("ranges")
    made = userland({"n": b"1", ".wh.tmp": b""}, Env=["PATH=/bin"], User="web" if with_ranges else "")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/x.tar").write_bytes(made.dockers("x:1"))
    done = rootless(tmp_path, "load", "-i", "/mnt/state/x.tar")
    assert (done.stdout, done.stderr) == ("Loaded image: x:1\n", "")
    script = "id -u; cat /n; ls -d /tmp /bin"
    done = rootless(tmp_path, "run", "--rm", "--network", "none", "x:1", "sh", "-c", script)
    assert done.stdout == f"{33 if with_ranges else 0}\n1/bin\n", done
    assert rootless(tmp_path, "system", "check").stdout == ""
    done = rootless(tmp_path, "rmi", "x:1")
    assert "Deleted" in done.stdout and done.stderr == ""
    assert [name for name in os.listdir(tmp_path / "state/engine/layers") if name != "lock"] == []
    assert left(tmp_path) == []
