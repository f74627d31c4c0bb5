"""The line between the process that starts a container and the container's process 1, while it is being born.

A pair of connected sockets that keep messages apart (unix(7), SOCK_SEQPACKET), close-on-exec: when the program has
replaced us, the other end reads end-of-file, and that is the good news.
"""

from __future__ import annotations

import contextlib
import errno
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

        Python's socket module, which can do that, and what it imports for it, is then imported at once: later the
        host's files may be out of reach.
        """
        if files:
            import array  # noqa: F401
            import socket  # noqa: F401
        ours, theirs = socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """For poll(2)."""
        return self._fd

    def send(self, word: str, details: dict[str, Any] | None = None) -> None:
        """Send a word, with details if there are any. Raises BrokenPipeError: the other end is gone."""
        os.write(self._fd, self.framed(word, details))

    def framed(self, word: str, details: dict[str, Any] | None = None) -> bytes:
        """What `send` sends, for whoever shall send it in our place."""
        return (f"{word} {json.dumps(details)}" if details else word).encode()

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
        self._fd = _moved(self._fd, least)

    def close(self) -> None:
        """Close this end; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Gate:
    """A named pipe at which process 1 waits until somebody opens the other end; from then on, the line to that one.

    The pipe's path is the host's, and will be out of sight: so it is held by a file descriptor (O_PATH), which can be
    opened in earnest through the container's /proc. Where it has none, through the host's, held likewise; only there,
    because a directory is a way to its parent: who is in the container before it is started, by exec, would find it in
    /proc/1/fd, and above it the host's root.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self._files: int | None = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def wait(self) -> None:
        """Return when the gate is open."""
        how = os.O_WRONLY | os.O_CLOEXEC
        if self._files is None:
            line = os.open(f"/proc/self/fd/{self._fd}", how)  # opening a pipe is waiting
            if not os.path.samestat(os.fstat(line), os.fstat(self._fd)):
                raise PermissionError(errno.EPERM, "/proc leads elsewhere: somebody in the container has changed it")
        else:
            line = os.open(str(self._fd), how, dir_fd=self._files)
            os.close(self._files)
        os.close(self._fd)
        self._fd = line

    def send(self, word: str, details: dict[str, Any] | None = None) -> None:
        """As `Channel.send`, a line each. Who opened the gate may be gone: then there is nobody to be told."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._fd, self.framed(word, details))

    def framed(self, word: str, details: dict[str, Any] | None = None) -> bytes:
        """As `Channel.framed`."""
        return (f"{word} {json.dumps(details)}\n" if details else f"{word}\n").encode()

    @property
    def held(self) -> list[int]:
        """Every file descriptor that it needs."""
        return [self._fd, *([] if self._files is None else [self._files])]

    def fileno(self) -> int:
        """The line, once the gate is open."""
        return self._fd

    def move(self, least: int) -> None:
        """As `Channel.move`; inside of the container."""
        self._fd = _moved(self._fd, least)
        assert self._files is not None
        if path_of(self._fd):
            os.close(self._files)
            self._files = None
        else:
            self._files = _moved(self._files, least)


def path_of(fd: int) -> str | None:
    """A path to an open file by its number; None where /proc is none that leads there, but something of the image's."""
    path = f"/proc/self/fd/{fd}"
    try:
        return path if os.path.samestat(os.stat(path), os.fstat(fd)) else None
    except OSError:
        return None


def _moved(fd: int, least: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
    os.close(fd)
    return moved
