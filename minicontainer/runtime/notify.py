"""A program in a container tells the service manager outside that it is ready: sd_notify(3).

The manager's socket is a file of the host, which the container does not see. So it is given one of its own, in the
container's directory and bound to /run/notify inside, and what arrives there is told to the manager by us: that it is
READY, and nothing else, for it might say of other processes that they were the service. Its process 1 we name
ourselves. runc does the same, notify_socket.go.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

from minicontainer.runtime.spec import Mount, Spec

INSIDE = "/run/notify"
_SOCKET = "notify.sock"
_LONGEST = 1 << 16


def with_socket(spec: Spec, place: str) -> Spec:
    """The specification of a container that finds the socket below the directory `place`, which is made here."""
    os.mkdir(place, 0o755)
    mount = Mount(INSIDE, "bind", place, options=("bind", "nosuid", "noexec", "nodev", "ro"))
    env = (*spec.process.env, f"NOTIFY_SOCKET={INSIDE}/{_SOCKET}")
    return spec.replace(mounts=[*spec.mounts, mount], process=spec.process.replace(env=env))


def listen(place: str) -> socket.socket:
    """Open the container's socket, before its program can look for it. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    # A name of at most 108 bytes is all that unix(7) allows; through the directory's descriptor it is a short one.
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = f"/proc/self/fd/{directory}/{_SOCKET}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        listener.bind(name)
        os.chmod(name, 0o777)  # whoever the program is inside
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def pass_on(listener: socket.socket, manager: str, pid: int, pidfd: int) -> None:
    """Wait until the container says that it is ready, tell the manager, and that its process is `pid`.

    Returns then, or when the process has ended (`pidfd`). `manager` is an address as in $NOTIFY_SOCKET: a path, or a
    name after an @. Raises OSError: nobody listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.connect(f"\0{manager[1:]}" if manager.startswith("@") else manager)
        while True:
            readable, _, _ = select.select([listener.fileno(), pidfd], [], [])
            if listener.fileno() not in readable:
                return
            words = listener.recv(_LONGEST).split(b"\n")
            if ready := next((word for word in words if word.startswith(b"READY=")), None):
                line.send(ready + b"\n")
                line.send(f"MAINPID={pid}\n".encode())
                return
