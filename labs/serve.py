"""Start JupyterLab on the notebooks: `python -m labs.serve`, which `make lab` calls.

In the foreground it prints the URL and runs until Ctrl-C. With --check it waits until the server answers, fetches the
list of notebooks through the server's own API, prints it with the URL, and stops the server again. Either way nothing
is left behind: the server is a child of this process, dies with it, and keeps its run-time files in a directory that
goes when it goes.
"""

import argparse
import contextlib
import errno
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
ADDRESS = "127.0.0.1"
PORT = 8888
START_SECONDS = 90.0
STOP_SECONDS = 20.0

# A machine without a network, or a student who was never asked, must not be shown Jupyter's news and updates.
OPTIONS = (
    "--ServerApp.open_browser=False",
    "--ServerApp.no_browser_open_file=True",
    "--ServerApp.allow_root=True",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)


class ServeError(Exception):
    """The notebooks cannot be served; the message is one line and says what to do."""


class Server:
    """A JupyterLab that answers.

    Attributes:
        pid: process id of the server.
        port: the TCP port it listens on, on 127.0.0.1 only.
        token: the secret that every request must carry; made by the server at its start.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, token: str) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port
        self.token = token

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return f"http://{ADDRESS}:{self.port}/lab?token={self.token}"

    def get(self, path: str, token: str | None = None, timeout: float = 30.0) -> tuple[int, bytes]:
        """GET `path` with the server's token, or another one, and return the HTTP status and the body.

        Raises:
            OSError: no answer within `timeout` seconds, or none that is HTTP.
        """
        # http.client and not urllib: nothing on the way to 127.0.0.1 may go through the proxy that http_proxy names.
        connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Authorization": f"token {token or self.token}"})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(f"GET {path}: {error!r}") from error
        finally:
            connection.close()

    def notebooks(self, timeout: float = 30.0) -> list[str]:
        """Names of the notebooks, in order, as the server's contents API tells them.

        Raises:
            ServeError: the server refused, or gave no answer within `timeout` seconds.
        """
        until = time.monotonic() + timeout
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError):  # it tells its port some moments before it listens
                    status, body = self.get("/api/contents/?type=directory&content=1", timeout=timeout)
                    break
                if time.monotonic() > until or self.process.poll() is not None:
                    raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
                select.select([], [], [], 0.05)
        except OSError as error:
            raise ServeError(f"JupyterLab started, and does not answer on port {self.port}: {error}") from error
        if status != http.client.OK:
            raise ServeError(f"JupyterLab refuses to list the notebooks: HTTP {status} {body[:200]!r}")
        return sorted(entry["name"] for entry in json.loads(body)["content"] if entry["type"] == "notebook")


@contextlib.contextmanager
def started(
    notebooks: Path = NOTEBOOKS,
    port: int = PORT,
    seconds: float = START_SECONDS,
    own_home: bool = False,
    address: str = ADDRESS,
) -> Iterator[Server]:
    """Run JupyterLab on the directory `notebooks` for as long as the `with` block lasts.

    Args:
        notebooks: the server's root directory.
        port: the port to take; when it is busy the server looks for another one near it.
        seconds: how long the server may need until it listens.
        own_home: give the server an empty home directory, as is done anyway where $HOME cannot be written to.
        address: the one to listen on. In a VM whose ports are forwarded it is 0.0.0.0, since what is forwarded arrives
            at the address of the VM's network card; else nobody but this host is to reach the server.

    Raises:
        ServeError: no such directory, or the server ended or was silent before it listened.
    """
    if not notebooks.is_dir():
        raise ServeError(f"no directory {notebooks}: `make notebooks` writes the course's, --notebooks names another")
    deadline = time.monotonic() + seconds
    options = [
        *OPTIONS,
        f"--ServerApp.ip={address}",
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={notebooks.resolve()}",
    ]
    with tempfile.TemporaryDirectory(prefix="minicontainer-lab-", ignore_cleanup_errors=True) as scratch:
        runtime = Path(scratch, "runtime")
        process = subprocess.Popen(
            # setpriv, because nobody else can see to it that the server ends when this process is killed.
            ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "jupyterlab", *options],
            env=_environment(Path(scratch, "home"), runtime, own_home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us: the server would ask "Shutdown this Jupyter server (y/[n])?" and wait.
            start_new_session=True,
        )
        try:
            listening, token = _wait_until_it_listens(process, runtime, deadline)
            yield Server(process, listening, token)
        finally:
            _stop(process)


def _environment(home: Path, runtime: Path, own_home: bool) -> dict[str, str]:
    """The server's environment, with a home directory that settings, history and signatures can be written to."""
    environment = os.environ | {"JUPYTER_RUNTIME_DIR": str(runtime)}
    # The token is to be the server's own; one out of the environment would be known to whoever set it.
    environment.pop("JUPYTER_TOKEN", None)
    if own_home or not os.access(environment.get("HOME", ""), os.W_OK | os.X_OK):
        home.mkdir()
        environment["HOME"] = str(home)
        for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            environment.pop(variable, None)
    return environment


def _wait_until_it_listens(process: subprocess.Popen[bytes], runtime: Path, deadline: float) -> tuple[int, str]:
    """Wait for the file in which the server tells its port and token; it is written when the port is open.

    The server logs something right after that: each piece of its log is a reason to look. The log's end is its own.
    """
    assert process.stdout is not None
    information = runtime / f"jpserver-{process.pid}.json"
    log = b""
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        # A second at most, in case that a version of the server logs nothing after it wrote the file.
        if poll.poll(min(left, 1.0) * 1000):
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                raise ServeError(f"JupyterLab ended before it listened{_last_line(log)}")
            log += piece
        # Not there, or not yet written to its end.
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            told = json.loads(information.read_text(encoding="utf-8"))
            return int(told["port"]), str(told["token"])
    raise ServeError(f"JupyterLab was not ready in time; give it longer with --timeout{_last_line(log)}")


def _last_line(log: bytes) -> str:
    """The last line of the server's log that is not blank, as the end of a message."""
    lines = [line for line in log.decode(errors="replace").splitlines() if line.strip()]
    return f"; its last words: {lines[-1].strip()}" if lines else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, which ends its kernels; kill it when it does not obey."""
    assert process.stdout is not None
    try:
        if process.poll() is None:
            _wait_until_it_ends(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _wait_until_it_ends(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, and wait for that STOP_SECONDS at most."""
    assert process.stdout is not None
    log, gone = process.stdout.fileno(), os.pidfd_open(process.pid)
    try:
        process.terminate()
        poll = select.poll()
        poll.register(gone, select.POLLIN)
        # What it still logs is read and dropped: a full pipe would stop it on its way out.
        poll.register(log, select.POLLIN)
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                if descriptor == log and not os.read(log, 65536):
                    poll.unregister(log)
    finally:
        os.close(gone)


def _run(server: Server) -> None:
    """Pass the server's log on until it ends.

    Raises:
        ServeError: it ended, and not because somebody shut it down from the browser.
    """
    assert server.process.stdout is not None
    for line in server.process.stdout:
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
    if status := server.process.wait():
        raise ServeError(f"JupyterLab ended with status {status}: its log is above")


def _check(server: Server, seconds: float) -> None:
    """Print what the server says that there is to open.

    Raises:
        ServeError: it does not answer within `seconds`, or has nothing.
    """
    names = server.notebooks(timeout=seconds)
    if not names:
        raise ServeError("JupyterLab answers, and finds no notebook: `make notebooks` writes the course's")
    for name in names:
        print(name)
    print(server.url)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End on SIGTERM and SIGHUP as on Ctrl-C: through the `with` block that stops the server."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: this process's) and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m labs.serve", description="Open the notebooks in JupyterLab.")
    parser.add_argument("--check", action="store_true", help="only see that they open: print their names and the URL")
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, metavar="DIR", help="open these, not the course's")
    parser.add_argument("--port", type=int, default=PORT, help="if busy, one near it is taken (default: %(default)s)")
    parser.add_argument("--address", default=ADDRESS, help="listen on this one (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=START_SECONDS, metavar="SECONDS", help="(default: %(default)g)"
    )
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with started(
            options.notebooks, options.port, options.timeout, own_home=options.check, address=options.address
        ) as server:
            if options.check:
                _check(server, options.timeout)
            else:
                print(f"The notebooks are at {server.url}\nCtrl-C ends the server.", flush=True)
                _run(server)
    except ServeError as error:
        print(f"labs.serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # The way to end it in the foreground; a check that was broken off has checked nothing.
        return 130 if options.check else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
