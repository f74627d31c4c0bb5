"""Files by their names: renameat2(2), for what Python's `os` has no word for."""

from __future__ import annotations

import os

from minicontainer.linux.mount import AT_FDCWD, Path
from minicontainer.linux.syscalls import call

RENAME_EXCHANGE = 0x2


def exchange(one: Path, other: Path) -> None:
    """Let two files change their names, in one step: nobody ever finds one of the names missing.

    Raises OSError: ENOENT, EINVAL (this file system cannot).
    """
    call("renameat2", AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)


def put_in_place(finished: Path, name: Path) -> None:
    """What rename(2) does: whoever opens `name` finds what was there, or what is finished, and nothing in between.

    Where there is something to be replaced, without rename(2): ext4 takes that for the wish to have the new file on the
    disk at once ("auto_da_alloc" in its documentation), and who removes it again soon has to wait for the disk.
    """
    try:
        exchange(finished, name)
    except OSError:  # there is none yet; or a file system that cannot
        os.rename(finished, name)
    else:
        os.unlink(finished)
