"""Step 8, continued, the time namespace: since when the machine has been up, as the container is to see it.

time_namespaces(7). Only the monotonic and the boot-time clock have offsets; the time of day is the host's. It is there
so that a container that was frozen and moved to another machine does not see its clocks jump.
"""

from __future__ import annotations

import errno
import os

from minicontainer.linux import CLONE_NEWTIME, setns, unshare


def offset_clocks(
    monotonic: int = 0, boottime: int = 0, monotonic_nanoseconds: int = 0, boottime_nanoseconds: int = 0
) -> None:
    """Give the calling process a time namespace whose clocks are so many seconds ahead of the host's (or behind, if <
    0).

    unshare(2) makes the namespace for children only, because offsets must be set while nobody is in it yet; then the
    process joins it itself. Raises OSError: EPERM (needs CAP_SYS_ADMIN and CAP_SYS_TIME), ERANGE (a clock below zero),
    EINVAL (a kernel older than 5.6, or without CONFIG_TIME_NS).
    """
    unshare(CLONE_NEWTIME)
    first, second = (monotonic, monotonic_nanoseconds), (boottime, boottime_nanoseconds)
    if any((*first, *second)):
        try:
            with open("/proc/self/timens_offsets", "w") as offsets:
                offsets.write("monotonic {} {}\nboottime {} {}\n".format(*first, *second))
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
            why = "a clock would be below zero, or further ahead than 146 years"
            raise OSError(errno.ERANGE, f"{why}: monotonic {monotonic} s, boottime {boottime} s") from None
    namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWTIME)
    finally:
        os.close(namespace)
