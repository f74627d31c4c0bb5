"""The mount options of a configuration, as words, and what they mean as flags.

OCI runtime specification, config.md, "Linux mount options"; mount(8), "Filesystem-independent mount options".
"""

from __future__ import annotations

from collections.abc import Sequence

from minicontainer.linux import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_DIRSYNC,
    MS_I_VERSION,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SILENT,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_SYNCHRONOUS,
    MS_UNBINDABLE,
)
from minicontainer.record import Record

_ATIME = MS_NOATIME | MS_RELATIME | MS_STRICTATIME

# fmt: off
_SETS = {
    "bind": MS_BIND, "rbind": MS_BIND | MS_REC, "remount": MS_REMOUNT, "defaults": 0,
    "ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC, "nosymfollow": MS_NOSYMFOLLOW,
    "noatime": MS_NOATIME, "relatime": MS_RELATIME, "strictatime": MS_STRICTATIME, "nodiratime": MS_NODIRATIME,
    "sync": MS_SYNCHRONOUS, "dirsync": MS_DIRSYNC, "mand": MS_MANDLOCK, "lazytime": MS_LAZYTIME,
    "iversion": MS_I_VERSION, "silent": MS_SILENT,
}
_CLEARS = {
    "rw": MS_RDONLY, "suid": MS_NOSUID, "dev": MS_NODEV, "exec": MS_NOEXEC, "symfollow": MS_NOSYMFOLLOW,
    "atime": MS_NOATIME, "norelatime": MS_RELATIME, "nostrictatime": MS_STRICTATIME, "diratime": MS_NODIRATIME,
    "async": MS_SYNCHRONOUS, "nomand": MS_MANDLOCK, "nolazytime": MS_LAZYTIME,
    "noiversion": MS_I_VERSION, "loud": MS_SILENT,
}
_SETS_BELOW = {
    "rro": MOUNT_ATTR_RDONLY, "rnosuid": MOUNT_ATTR_NOSUID, "rnodev": MOUNT_ATTR_NODEV, "rnoexec": MOUNT_ATTR_NOEXEC,
    "rnosymfollow": MOUNT_ATTR_NOSYMFOLLOW, "rnodiratime": MOUNT_ATTR_NODIRATIME,
}
_CLEARS_BELOW = {
    "rrw": MOUNT_ATTR_RDONLY, "rsuid": MOUNT_ATTR_NOSUID, "rdev": MOUNT_ATTR_NODEV, "rexec": MOUNT_ATTR_NOEXEC,
    "rsymfollow": MOUNT_ATTR_NOSYMFOLLOW, "rdiratime": MOUNT_ATTR_NODIRATIME,
}
_ATIME_BELOW = {  # a choice of three; without the other two it is relatime
    "rnoatime": MOUNT_ATTR_NOATIME, "rstrictatime": MOUNT_ATTR_STRICTATIME, "rrelatime": 0,
    "ratime": 0, "rnostrictatime": 0, "rnorelatime": 0,
}
_PROPAGATION = {
    "private": MS_PRIVATE, "rprivate": MS_PRIVATE | MS_REC, "slave": MS_SLAVE, "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED, "rshared": MS_SHARED | MS_REC,
    "unbindable": MS_UNBINDABLE, "runbindable": MS_UNBINDABLE | MS_REC,
}
_OURS = ("tmpcopyup", "idmap", "ridmap")
# fmt: on

KNOWN = tuple(sorted({*_SETS, *_CLEARS, *_SETS_BELOW, *_CLEARS_BELOW, *_ATIME_BELOW, *_PROPAGATION, *_OURS}))
"""Every option that is not handed on to the file system (`features` lists them)."""

PROPAGATIONS = _PROPAGATION
"""Propagation types by name, as MS_*: a mount's own, and `rootfsPropagation`."""


class MountOptions(Record):
    """What a list of options asks for."""

    flags: int = 0
    """MS_* to be set; MS_BIND, MS_REC and MS_REMOUNT among them."""
    cleared: int = 0
    """MS_* to be cleared; not the same as not set: a bind mount has the flags of its source."""
    below: tuple[int, int] = (0, 0)
    """MOUNT_ATTR_* to be set and to be cleared for the mount and every mount below it."""
    propagation: tuple[int, ...] = ()
    """MS_PRIVATE, MS_SHARED…, some with MS_REC, one after the other."""
    copy_up: bool = False
    """A tmpfs begins with what the image has in its place."""
    idmap: bool = False
    """Owners are shown through a map."""
    idmap_below: bool = False
    """In every mount below as well."""
    data: str = ""
    """The file system's own options, with commas between them."""

    @property
    def bind(self) -> bool:
        """Whether it is a bind mount, whatever type it says."""
        return bool(self.flags & MS_BIND)


def parse_options(options: Sequence[str]) -> MountOptions:
    """What these options mean together. Where two of them contradict each other, the later one counts.

    Every string means something: what is not in the specification's table is the file system's own business.
    """
    flags = cleared = set_below = cleared_below = 0
    propagation, data = list[int](), list[str]()
    for option in options:
        if option in _SETS:
            flag = _SETS[option]
            if flag & _ATIME:
                flags &= ~_ATIME
            flags, cleared = flags | flag, cleared & ~flag
        elif option in _CLEARS:
            flag = _CLEARS[option]
            flags, cleared = flags & ~flag, cleared | flag
        elif option in _SETS_BELOW:
            flag = _SETS_BELOW[option]
            set_below, cleared_below = set_below | flag, cleared_below & ~flag
        elif option in _CLEARS_BELOW:
            flag = _CLEARS_BELOW[option]
            set_below, cleared_below = set_below & ~flag, cleared_below | flag
        elif option in _ATIME_BELOW:  # to be set, the field has to be cleared; mount_setattr(2)
            set_below = set_below & ~MOUNT_ATTR__ATIME | _ATIME_BELOW[option]
            cleared_below |= MOUNT_ATTR__ATIME
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        elif option not in _OURS:
            data.append(option)
    return MountOptions(
        flags=flags,
        cleared=cleared,
        below=(set_below, cleared_below),
        propagation=tuple(propagation),
        copy_up="tmpcopyup" in options,
        idmap="idmap" in options or "ridmap" in options,
        idmap_below="ridmap" in options,
        data=",".join(filter(None, data)),
    )
