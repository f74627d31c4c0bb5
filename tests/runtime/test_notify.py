"""sd_notify(3) through the runtime: what the manager outside is told, and by whom."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import needs_root
from tests.runtime.test_lifecycle import DEADLINE, RUNTIME, Runtime

pytestmark = needs_root

TELL = """
import os, socket, sys
line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
line.connect(os.environ["NOTIFY_SOCKET"])
for words in sys.argv[1:]:
    line.send(words.encode())
sys.stdin.read()
os.execv("/bin/sleep", ["sleep", "600"])
"""


@pytest.fixture
def service(tmp_path: Path, busybox: str) -> Iterator[Runtime]:
    """A bundle with the host's Python in it, which can send a datagram."""
    runtime = Runtime(tmp_path, busybox)
    for name in ("lib", "lib64"):
        os.symlink(f"usr/{name}", runtime.bundle / "rootfs" / name)
    runtime.config["mounts"].append(
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}
    )
    yield runtime
    with contextlib.suppress(AssertionError):
        runtime.ok("delete", "--force", "c")
    assert not runtime.root.exists() or not os.listdir(runtime.root)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "manager"))
        listener.settimeout(DEADLINE)
        yield listener


def environment(manager: socket.socket) -> dict[str, str]:
    return os.environ | {"NOTIFY_SOCKET": manager.getsockname()}


def says(service: Runtime, *words: str) -> None:
    service.write("/usr/bin/python3", "-ISc", TELL, *words)


def test_start_returns_when_the_program_is_ready_and_names_its_process(
    service: Runtime, manager: socket.socket
) -> None:
    says(service, "STATUS=warming up", "MAINPID=1\nREADY=1")
    with open(os.devnull, "r+b") as null:
        created = service(
            "create", "--bundle", service.bundle, "c",
            env=environment(manager), capture_output=False, stdout=null, stderr=null,
        )  # fmt: skip
    assert created.returncode == 0 and not select.select([manager], [], [], 0)[0]
    service.ok("start", "c", env=environment(manager))
    pid = service.state()["pid"]
    assert [manager.recv(100), manager.recv(100)] == [b"READY=1\n", f"MAINPID={pid}\n".encode()]
    assert not select.select([manager], [], [], 0)[0], "what it says of others is not passed on"


def test_run_passes_it_on_while_it_stays(service: Runtime, manager: socket.socket) -> None:
    says(service, "READY=1")
    with subprocess.Popen(
        [RUNTIME, "--root", service.root, "run", "--bundle", service.bundle, "c"],
        env=environment(manager), stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert manager.recv(100) == b"READY=1\n"
        assert manager.recv(100) == f"MAINPID={service.state()['pid']}\n".encode()
        service.ok("kill", "c", "KILL")
        assert process.wait(DEADLINE) == 128 + signal.SIGKILL


def test_a_program_that_ends_before_it_is_ready(service: Runtime, manager: socket.socket) -> None:
    service.write("sh", "-c", "exit 3")
    with open(os.devnull, "r+b") as null:
        done = service(
            "run", "--detach", "--bundle", service.bundle, "c",
            env=environment(manager), capture_output=False, stdout=null, stderr=null,
        )  # fmt: skip
    assert done.returncode == 0 and service.until("stopped")
    assert not select.select([manager], [], [], 0)[0], "nobody was ready"


def test_without_a_manager_there_is_no_socket(service: Runtime) -> None:
    service.write("sh", "-c", "echo $NOTIFY_SOCKET; ls /run/notify")
    environ = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    done = service("run", "--bundle", service.bundle, "c", env=environ)
    assert done.stdout == "\n" and "No such file" in done.stderr


def test_a_manager_that_nobody_is_stops_nothing(service: Runtime, tmp_path: Path) -> None:
    service.write("sleep", "600")
    with open(tmp_path / "out", "w+") as out:
        done = service(
            "run", "--detach", "--bundle", service.bundle, "c",
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "nobody")}, capture_output=False, stdout=out, stderr=out,
        )  # fmt: skip
        out.seek(0)
        said = out.read()
    assert done.returncode == 0 and service.state()["status"] == "running"
    assert f"warning: NOTIFY_SOCKET {tmp_path}/nobody is not told that it is ready: No such file" in said


def test_a_program_that_is_not_there_leaves_nothing(service: Runtime, manager: socket.socket) -> None:
    service.write("/nowhere")
    done = service("run", "--bundle", service.bundle, "c", env=environment(manager))
    assert done.returncode == 1 and "/nowhere" in done.stderr and not os.listdir(service.root)
