"""Keys that are for us and not for the program at whose terminal they are typed: those that leave it.

docker's notation: ``ctrl-p,ctrl-q``, ``ctrl-a,q``, ``x``. A program whose own key begins them gets it after `PATIENCE`.
"""

from __future__ import annotations

import time

PATIENCE = 0.5
"""Seconds that each key may take after the one before it; then what was typed is passed on."""

_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
"""The key that with Ctrl is 0, 1, … 31: ascii(7)."""


def read_keys(text: str) -> bytes:
    """What these keys send. "" are no keys: then nothing leaves. Raises ValueError: they cannot be understood."""
    keys = b""
    for word in text.split(",") if text else ():
        key = word.lower().removeprefix("ctrl-")
        if len(word) == 1 and word.isascii() and word.isprintable():
            keys += word.encode()
        elif word != key and len(word) == 6 and key in _CONTROL:
            keys += bytes([_CONTROL.index(key)])
        else:
            raise ValueError(f'cannot understand the key "{word}" of "{text}": write them as in ctrl-p,ctrl-q')
    return keys


class Leaving:
    """What is typed, watched for the keys that leave."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""
        self._until = 0.0
        self.left = False
        """They were typed."""

    def pass_on(self, data: bytes) -> bytes:
        """What of it, and of what was held back, is for the program now. All before the keys, once they are typed."""
        if not self._keys:
            return data
        passed = self.overdue()
        for number in range(len(data)):
            self._held += data[number : number + 1]
            while not self._keys.startswith(self._held):
                passed, self._held = passed + self._held[:1], self._held[1:]
            if self._held == self._keys:
                self.left, self._held = True, b""
                return passed
        self._until = time.monotonic() + PATIENCE
        return passed

    def overdue(self) -> bytes:
        """What has been held back for too long."""
        return self.flush() if self._held and time.monotonic() >= self._until else b""

    def flush(self) -> bytes:
        """All that is held back: nothing more will be typed."""
        passed, self._held = self._held, b""
        return passed

    def timeout(self) -> int | None:
        """Milliseconds until something is overdue, for poll(2); None: nothing is held back."""
        return max(0, int((self._until - time.monotonic()) * 1000) + 1) if self._held else None
