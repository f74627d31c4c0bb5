"""A network for whom may make none on the host: a program of the same user's carries the container's packets.

The program, pasta(1) or slirp4netns(1), opens a tap device in the container's network namespace, tun(4), and makes for
each connection that begins in there one of its own out here, as any program may. No right is needed on the host, and no
device is made there. It is slower than a bridge, and nobody outside sees the container's own address. Published ports
are sockets of the program's. (With udp and the host's own loopback, beware: the container's answers are lost by
slirp4netns, as it is kept from the loopback, and by Debian 12's pasta where the two ports are not the same.)

    the caller ──fork──▶ keeper ──▶ the program ──▶ tap device in the container
                          └ waits until process 1 has ended, then ends the program

Neither program can be told to end with a process, but each with a file: pasta when a link in the container's directory
is removed, through which it has found the namespace, slirp4netns when the keeper's end of a pipe is closed. So nothing
is left when the container ends, whoever was killed before; of a killed keeper's pasta, when the link goes: `release`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from minicontainer.linux.daemon import daemon
from minicontainer.network.errors import NetworkError
from minicontainer.network.wishes import USERSPACE, Port
from minicontainer.record import Record
from minicontainer.steps import Steps

PACKAGES = {"pasta": "passt", "slirp4netns": "slirp4netns"}

NAMESERVERS = {"pasta": "169.254.1.1", "slirp4netns": "10.0.2.3"}
"""The address at which a container reaches the host's resolver, wherever that listens, also on the host's loopback."""

TUN = "/dev/net/tun"

_PLACES = (*os.environ.get("PATH", "").split(":"), "/usr/local/bin", "/usr/bin", "/bin")
_LINK, _SOCKET = "pasta", "slirp4netns"
"""Files in the container's directory, as long as the program runs."""

_RESETTABLE = frozenset(map(int, signal.valid_signals())) - {signal.SIGKILL, signal.SIGSTOP}
"""Python ignores SIGPIPE; a pasta that inherits that does not start."""

_EVERY = ("0.0.0.0", "::")
_GUEST = "10.0.2.100"  # slirp4netns(1): what it gives the container, unless told otherwise
_LONGEST = 300  # characters of what a program says


def usable() -> str | None:
    """The program that can be used here: pasta, else slirp4netns, else None."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        return None
    return next((program for program in USERSPACE if _path(program)), None)


def check(program: str) -> str:
    """Where the program is. Raises NetworkError: it is not, or nobody would let it do its work."""
    path = _path(program)
    if program == "pasta" and os.geteuid() == 0:  # it gives up its rights before it opens the namespace
        raise NetworkError("--network pasta is for ordinary users: root has bridge, and slirp4netns")
    if path is None:
        raise NetworkError(
            f"--network {program}: {program} is not installed: install {PACKAGES[program]}, or use --network none"
        )
    if not os.path.exists(TUN):
        raise NetworkError(f"--network {program} needs {TUN}, which is not there: as root, modprobe tun")
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise NetworkError(f"--network {program} needs {TUN}, which this user may not open: as root, chmod 666 {TUN}")
    return path


class Userspace(Record):
    """Connects a container that is being born: `runtime.birth` calls it with the pid of its process 1."""

    program: str
    """One of USERSPACE."""
    directory: str
    """The container's own, where nobody else writes."""
    ports: tuple[Port, ...] = ()
    """To be published, each with its port of the host."""

    def __call__(self, pid: int, steps: Steps) -> None:
        """Start the program; returns when the container's network can be used. The caller must have a single thread.

        Raises NetworkError: what the program says, in one line; nothing is left of it then.
        """
        path = check(self.program)
        pidfd = os.pidfd_open(pid)
        hear, say = os.pipe2(os.O_CLOEXEC)
        try:
            daemon(lambda: self._keep(path, pid, pidfd, say), f"minicontainer {self.program}", [pidfd, say])
            os.close(say)
            say = -1
            said = b""
            while part := os.read(hear, 1 << 12):
                said += part
        finally:
            for fd in (pidfd, hear, say):
                if fd >= 0:
                    os.close(fd)
        if said != b"ready":
            words = said.decode(errors="replace") or "it was killed"
            raise NetworkError(f"--network {self.program}: {words}")

    # The keeper

    def _keep(self, path: str, pid: int, pidfd: int, say: int) -> None:
        """In a process of its own."""
        try:
            os.chdir(self.directory)  # the path of a socket has 107 bytes at most
            with (_pasta if self.program == "pasta" else _slirp4netns)(path, pid, self.ports):
                os.write(say, b"ready")
                os.close(say)
                select.select([pidfd], [], [])
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(say, (str(error) or type(error).__name__).encode()[:_LONGEST])


def release(directory: str) -> None:
    """End what may still run for a container that has ended: its keeper was killed. Nothing, where nothing is."""
    for name in (_LINK, _SOCKET):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")


@contextlib.contextmanager
def _pasta(path: str, pid: int, ports: tuple[Port, ...]):  # type: ignore[no-untyped-def]
    """It goes into the background by itself when it is ready, into a PID namespace of its own."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_LINK)
    os.symlink(f"/proc/{pid}/ns/net", _LINK)
    try:
        published = {"tcp": list[str](), "udp": list[str]()}
        for port in ports:
            address = "" if port.address in _EVERY else f"{port.address}/"
            published[port.protocol].append(f"{address}{port.host_port}:{port.container_port}")
        forwards = [word for option, protocol in (("-t", "tcp"), ("-u", "udp"))
                    for one in published[protocol] or ["none"] for word in (option, one)]  # fmt: skip
        said = os.memfd_create("said")
        child = _spawn(
            [
                path, "--config-net", "--quiet", "--no-map-gw", "--dns-forward", NAMESERVERS["pasta"],
                *forwards, "-T", "none", "-U", "none", "--userns", f"/proc/{pid}/ns/user",
                "--netns", f"./{_LINK}",
            ],
            said,
        )  # fmt: skip
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise NetworkError(_last_words(said))
        os.close(said)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_LINK)


@contextlib.contextmanager
def _slirp4netns(path: str, pid: int, ports: tuple[Port, ...]):  # type: ignore[no-untyped-def]
    """It is a child of the keeper's, and hears of the end by a pipe."""
    release(".")
    said = os.memfd_create("said")
    ready, be_ready = os.pipe()
    end, hold = os.pipe()
    os.set_inheritable(be_ready, True)
    os.set_inheritable(end, True)
    child = _spawn(
        [
            path, "--configure", "--mtu", "65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp",
            "--ready-fd", str(be_ready), "--exit-fd", str(end), "--api-socket", _SOCKET,
            str(pid), "tap0",
        ],
        said,
    )  # fmt: skip
    os.close(be_ready)
    os.close(end)
    try:
        if os.read(ready, 1) != b"1":
            raise NetworkError(_last_words(said))
        for port in ports:
            _forward(port)
        yield
    finally:
        os.close(hold)
        os.waitpid(child, 0)
        release(".")


def _forward(port: Port) -> None:
    """Publish a port through slirp4netns's socket. Raises NetworkError."""
    import json
    import socket

    if ":" in port.address:
        raise NetworkError(f"cannot publish at {port.address}: slirp4netns publishes at addresses of IPv4 only")
    request = {"proto": port.protocol, "host_addr": port.address, "host_port": port.host_port,
               "guest_addr": _GUEST, "guest_port": port.container_port}  # fmt: skip
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(_SOCKET)
        line.sendall(json.dumps({"execute": "add_hostfwd", "arguments": request}).encode())
        line.shutdown(socket.SHUT_WR)
        answer = json.loads(line.makefile().read() or "{}")
    if "return" not in answer:
        raise NetworkError(f"cannot publish the port {port}: {answer.get('error', {}).get('desc', 'no answer')}")


# The keeper's own affairs


def _spawn(command: list[str], stderr: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, stderr, 2)]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
    return os.posix_spawn(command[0], command, environment, file_actions=actions, setsigmask=(), setsigdef=_RESETTABLE)


def _last_words(said: int) -> str:
    """The line in which a program has said why it ended."""
    size = os.lseek(said, 0, os.SEEK_END)
    lines = os.pread(said, min(size, 1 << 14), max(0, size - (1 << 14))).decode(errors="replace").splitlines()
    telling = [line.strip() for line in lines if line.strip() and "syslog" not in line]
    return telling[-1][:_LONGEST] if telling else "it ended without a word"


def _path(program: str) -> str | None:
    for place in _PLACES:
        if place.startswith("/") and os.access(f"{place}/{program}", os.X_OK):
            return f"{place}/{program}"
    return None
