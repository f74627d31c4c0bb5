"""`labs.serve` starts a real JupyterLab, and leaves nothing of it behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from labs import serve

SECONDS = 120  # for what takes 3 s on an idle machine


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two notebooks and something else."""
    directory = tmp_path_factory.mktemp("notebooks")
    for name in ("03-uts.ipynb", "01-chroot.ipynb"):
        (directory / name).write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (directory / "figure.png").write_bytes(b"")
    return directory


@pytest.fixture(scope="module")
def busy() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server((serve.ADDRESS, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def server(notebooks: Path, busy: int) -> Iterator[serve.Server]:
    """A server that was asked to take the busy port."""
    with serve.started(notebooks, port=busy, own_home=True) as running:
        yield running
    assert not psutil.pid_exists(running.pid)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "labs.serve", *map(str, arguments)]


def environment(scratch: Path, **changes: str) -> dict[str, str]:
    """The environment for a `labs.serve` whose server can be told from all others by its temporary directory."""
    return os.environ | {"TMPDIR": str(scratch)} | changes


def servers(scratch: Path) -> list[psutil.Process]:
    """The running servers, and their kernels, that were started with `scratch` as their temporary directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("JUPYTER_RUNTIME_DIR", "").startswith(str(scratch)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_api_lists_the_notebooks_and_nothing_else(server: serve.Server) -> None:
    assert server.notebooks() == ["01-chroot.ipynb", "03-uts.ipynb"]


def test_the_lab_page_opens_with_the_url_that_is_printed(server: serve.Server) -> None:
    path = server.url.partition(f":{server.port}")[2]
    assert server.get(path)[0] == 200


def test_a_wrong_token_is_refused(server: serve.Server) -> None:
    status, body = server.get("/api/contents/", token="wrong")
    assert status == 403
    assert b"01-chroot" not in body


def test_a_busy_port_is_left_to_its_owner(server: serve.Server, busy: int) -> None:
    assert server.port != busy


def test_only_this_machine_can_connect(server: serve.Server) -> None:
    listening = {c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_other_users_cannot_read_the_token(server: serve.Server) -> None:
    assert server.token not in " ".join(psutil.Process(server.pid).cmdline())
    runtime = Path(psutil.Process(server.pid).environ()["JUPYTER_RUNTIME_DIR"])
    assert runtime.parent.stat().st_mode & 0o077 == 0


def test_check_prints_notebooks_and_url_and_leaves_nothing(notebooks: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command("--check", "--notebooks", notebooks),
        env=environment(tmp_path, HOME="/nonexistent"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    first, second, url = done.stdout.splitlines()
    assert [first, second] == ["01-chroot.ipynb", "03-uts.ipynb"]
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/lab\?token=(\w{32,})", url)
    assert found
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((serve.ADDRESS, int(found[1])), timeout=5)
    assert servers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_a_signal_and_ends_cleanly(notebooks: Path, tmp_path: Path, number: signal.Signals) -> None:
    running = foreground(notebooks, tmp_path)
    assert servers(tmp_path)
    running.send_signal(number)
    _, errors = running.communicate(timeout=SECONDS)
    assert running.returncode == 0, errors
    assert "Traceback" not in errors
    assert servers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_server_does_not_outlive_a_killed_parent(notebooks: Path, tmp_path: Path) -> None:
    running = foreground(notebooks, tmp_path)
    orphans = servers(tmp_path)
    assert orphans
    running.kill()
    running.communicate(timeout=SECONDS)
    _, alive = psutil.wait_procs(orphans, timeout=SECONDS)
    assert alive == []


def foreground(notebooks: Path, scratch: Path) -> subprocess.Popen[str]:
    """A `labs.serve` that has printed its URL, with a home directory that cannot be written to."""
    running = subprocess.Popen(
        command("--notebooks", notebooks),
        env=environment(scratch, HOME="/nonexistent"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert "http://127.0.0.1:" in running.stdout.readline()
    return running


def refusal(scratch: Path, *arguments: object) -> str:
    """The one line with which `labs.serve --check` refuses, having left nothing behind."""
    done = subprocess.run(
        command("--check", *arguments),
        env=environment(scratch),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert servers(scratch) == []
    assert list(scratch.iterdir()) == []
    (line,) = done.stderr.splitlines()
    return line


def test_a_missing_directory_is_named_with_what_to_do(tmp_path: Path) -> None:
    line = refusal(tmp_path, "--notebooks", "/nonexistent/notebooks")
    assert "/nonexistent/notebooks" in line
    assert "make notebooks" in line


def test_a_directory_without_notebooks_is_an_error(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert "make notebooks" in refusal(tmp_path, "--notebooks", tmp_path_factory.mktemp("empty"))


def test_a_server_that_is_not_ready_in_time_is_stopped(notebooks: Path, tmp_path: Path) -> None:
    assert "--timeout" in refusal(tmp_path, "--timeout", "0.01", "--notebooks", notebooks)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is run in the server's place, because it has the name of the program that starts the server."""
    program = tmp_path / "bin" / "setpriv"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program


def test_a_server_that_fails_is_quoted(notebooks: Path, stand_in: Path) -> None:
    stand_in.write_text("#!/bin/sh\necho first\necho 'no room on the disk'\nexit 3\n")
    message = "ended before it listened; its last words: no room on the disk"
    with pytest.raises(serve.ServeError, match=message), serve.started(notebooks):
        pytest.fail("it cannot have started")


def test_a_server_that_does_not_obey_is_killed(
    notebooks: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.write_text(
        """#!/bin/sh
        trap '' TERM
        mkdir -p "$JUPYTER_RUNTIME_DIR"
        echo '{"port": 9, "token": "secret"}' >"$JUPYTER_RUNTIME_DIR/jpserver-$$.json"
        echo ready
        exec sleep 600
        """
    )
    monkeypatch.setattr(serve, "STOP_SECONDS", 0.1)
    with serve.started(notebooks) as running:
        assert (running.port, running.token) == (9, "secret")
    assert running.process.returncode == -signal.SIGKILL
