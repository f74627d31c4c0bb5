"""Files by their names: renameat2(2), for what Python's `os` has no word for."""

from __future__ import annotations

from minicontainer.linux.mount import AT_FDCWD, Path
from minicontainer.linux.syscalls import call

RENAME_EXCHANGE = 0x2


def exchange(one: Path, other: Path) -> None:
    """Let two files change their names, in one step: nobody ever finds one of the names missing.

    Raises OSError: ENOENT, EINVAL (this file system cannot).
    """
    call("renameat2", AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
