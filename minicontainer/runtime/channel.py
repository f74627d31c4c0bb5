"""The line between the process that starts a container and the container's process 1, while it is being born.

A pair of connected sockets that keep messages apart (unix(7), SOCK_SEQPACKET), close-on-exec: when the program has
replaced us, the other end reads end-of-file, and that is the good news.
"""

from __future__ import annotations

import fcntl
import json
import os

from minicontainer.linux import socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self


class Channel:
    """One end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def pair(cls, *, files: bool = False) -> tuple[Self, Self]:
        """Both ends. `files`: file descriptors will travel too.

        Python's socket module, which can do that, is then imported at once: later the host's files may be out of reach.
        """
        if files:
            import socket  # noqa: F401
        ours, theirs = socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """For poll(2)."""
        return self._fd

    def send(self, word: str, details: dict[str, Any] | None = None) -> None:
        """Send a word, with details if there are any. Raises BrokenPipeError: the other end is gone."""
        os.write(self._fd, (f"{word} {json.dumps(details)}" if details else word).encode())

    def receive(self) -> tuple[str, dict[str, Any]]:
        """Wait for a word and what came with it; ("", {}) when the other end is gone."""
        try:
            word, _, details = os.read(self._fd, 1 << 14).decode().partition(" ")
        except ConnectionResetError:
            return "", {}
        return word, json.loads(details) if details else {}

    def send_file(self, fd: int) -> None:
        """Send a file descriptor (SCM_RIGHTS)."""
        import socket

        with socket.socket(fileno=os.dup(self._fd)) as end:
            socket.send_fds(end, [b"file"], [fd])

    def receive_file(self) -> int:
        """Take the file descriptor that the other end sends. Raises EOFError: it sends something else, or is gone."""
        import socket

        with socket.socket(fileno=os.dup(self._fd)) as end:
            _, fds, _, _ = socket.recv_fds(end, 4, 1)
        if not fds:
            raise EOFError
        os.set_inheritable(fds[0], False)
        return fds[0]

    def move(self, least: int) -> None:
        """Let this end have another number, the lowest free one from `least` on."""
        moved = fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, least)
        os.close(self._fd)
        self._fd = moved

    def close(self) -> None:
        """Close this end; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
