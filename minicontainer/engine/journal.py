"""A file of lines that grows at its end and goes at its front, as `linux.files.append` writes it; read by anybody.

A place in it stays what it is, so that a reader needs nothing but that, misses no line and gets none twice, as long as
he is not slower than what is kept. Then he goes on where the file begins by now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_MUCH = 1 << 18
"""Bytes at once; no line of ours is longer."""


class Journal:
    """Such a file, read from a place on."""

    def __init__(self, fd: int) -> None:
        """`fd` is ours from now on."""
        self._fd = fd
        self.place = 0
        """Where the next line begins, in bytes."""

    def fileno(self) -> int:
        """Of the open file."""
        return self._fd

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def to_the_end(self) -> None:
        """Pass over what is there already."""
        size = os.fstat(self._fd).st_size
        before = os.pread(self._fd, _MUCH, max(0, size - _MUCH))
        self.place = size - len(before) + before.rfind(b"\n") + 1

    def lines(self) -> Iterator[bytes]:
        """What has come since, without the newlines; `place` is behind each as it is handed out.

        A line that is not at its end yet waits for the next time.
        """
        while data := os.pread(self._fd, _MUCH, self.place):
            whole, newline, _ = data.rpartition(b"\n")
            # A file goes from its front on: what we have read is as it was, if its first byte still is.
            if data[0] == 0 or os.pread(self._fd, 1, self.place) == b"\0":
                self._to_what_is_left()
            elif newline:
                for line in whole.split(b"\n"):
                    self.place += len(line) + 1
                    yield line
            elif len(data) == _MUCH:
                self.place += _MUCH  # no line of ours
            else:
                return

    def _to_what_is_left(self) -> None:
        """To the first whole line behind the hole: a block of the file begins wherever it does."""
        try:
            self.place = os.lseek(self._fd, self.place, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but the hole
            self.place = os.fstat(self._fd).st_size
        while data := os.pread(self._fd, _MUCH, self.place):
            begins = data.find(b"\n") + 1
            self.place += begins or len(data)
            if begins:
                return
