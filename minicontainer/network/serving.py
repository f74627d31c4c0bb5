"""The name server of a network: started with the network's first container, ended when the network is taken down.

Whoever starts it binds its sockets, so questions wait there from the first moment, and nobody has to wait for a Python
to start. The server holds a lock (flock(2)) that it inherits with them: as long as it is held, the process whose number
is in the file is the server; killed, it lets go of it, and whoever connects the next container starts another.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import sys
from _socket import AF_INET, AF_INET6, SO_REUSEADDR, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Socket

import minicontainer
from minicontainer.network.errors import NetworkError
from minicontainer.network.store import Network, Records

PORT = 53

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from minicontainer.network.dns import main; main(sys.argv[2])"

_NOBODYS_CHILD = '"$@" </dev/null >/dev/null 2>&1 & echo $!'
"""A shell script: its own child's number goes to the file of the lock, and it itself goes."""


def serves(network: Network) -> bool:
    """Whether a network has a name server: where the host is its gateway, and has an address to be asked at."""
    return network.driver == "bridge" and any(network.gateways)


def start(records: Records, network: Network) -> None:
    """See to it that a network's server runs. The network is made, and the caller holds the lock of `records`.

    Raises NetworkError: somebody else listens there.
    """
    lock = os.open(_lock(records, network), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_APPEND, 0o644)
    sockets: list[Socket] = []
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # it runs
        os.ftruncate(lock, 0)
        for gateway in filter(None, network.gateways):
            sockets += [_bound(gateway, SOCK_DGRAM), _bound(gateway, SOCK_STREAM)]
        _spawn(records, network, lock, sockets)
    finally:
        for one in sockets:
            one.close()
        os.close(lock)


def stop(records: Records, network: Network) -> None:
    """End a network's server, and wait until it has ended; none is as good."""
    with contextlib.suppress(FileNotFoundError):
        lock = os.open(_lock(records, network), os.O_RDONLY | os.O_CLOEXEC)
        try:
            pidfd = _holder(lock)
            if pidfd is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], 10)
                os.close(pidfd)
        finally:
            os.close(lock)


def runs(records: Records, network: Network) -> bool:
    """Whether a network's server is there."""
    try:
        lock = os.open(_lock(records, network), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return _is_held(lock)
    finally:
        os.close(lock)


def _lock(records: Records, network: Network) -> str:
    return f"{records.directory(network.name)}/server"


def _holder(lock: int) -> int | None:
    """The server, as a pidfd."""
    if not _is_held(lock):
        return None
    try:
        pidfd = os.pidfd_open(int(os.pread(lock, 32, 0)))
    except (ValueError, ProcessLookupError):
        return None
    if _is_held(lock):  # still: so the number was its own when we asked
        return pidfd
    os.close(pidfd)
    return None


def _is_held(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _bound(address: str, kind: int) -> Socket:
    made = Socket(AF_INET6 if ":" in address else AF_INET, kind | SOCK_CLOEXEC)
    try:
        made.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # connections of an earlier server may still be closing
        made.bind((address, PORT))
        if kind == SOCK_STREAM:
            made.listen(64)
    except OSError as error:
        made.close()
        if error.errno != errno.EADDRINUSE:
            raise
        kind_name = "udp" if kind == SOCK_DGRAM else "tcp"
        raise NetworkError(
            f"cannot answer names at {address}:{PORT}/{kind_name}: another server of this host listens there; let it "
            f"listen at its own addresses only (who it is: ss -lnp sport = :{PORT})"
        ) from None
    return made


def _spawn(records: Records, network: Network, lock: int, sockets: list[Socket]) -> None:
    """Start the server, in a session of its own and nobody's child. Also from a process with threads."""
    import json

    words = {
        "directory": records.directory(network.name),
        "gateways": [gateway for gateway in network.gateways if gateway],
        "subnets": list(network.subnets),
        "forwards": not network.internal,
        "sockets": [one.fileno() for one in sockets],
        "lock": lock,
    }
    package = os.path.dirname(minicontainer.__path__[0])
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, package, json.dumps(words)]
    for fd in (lock, *(one.fileno() for one in sockets)):
        os.set_inheritable(fd, True)
    shell = os.posix_spawn(
        "/bin/sh", ["sh", "-c", _NOBODYS_CHILD, "sh", *command], {},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, lock, 1),
                      (os.POSIX_SPAWN_DUP2, 0, 2)],
        setsid=True, setsigmask=[], setsigdef=[signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD],
    )  # fmt: skip
    os.waitpid(shell, 0)
