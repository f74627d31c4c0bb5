"""The proc file system as a door to the kernel: proc(5), proc_sys(5), opened by whoever has to be sure that it is one.

/proc is a path like any other. In a container, whoever made the image or shares a volume with it can have put something
else there, or something else on a file in it; a runtime that writes its settings through it writes where they want
(CVE-2019-16884, CVE-2025-52881). So the root of it is opened and looked at, and from there no step leads onto another
mount.
"""

from __future__ import annotations

import errno
import os

from minicontainer.linux.mount import PROC_SUPER_MAGIC, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, fstatfs, openat2

PROC_ROOT_INO = 1
RESOLVE_NO_XDEV = 0x01


def open_proc(proc: str | int = "/proc") -> int:
    """The root directory of a proc file system, by its path or a file descriptor of it, as a new descriptor (O_PATH).

    Raises OSError: EPERM (it is something else, or no more than a part of one), ENOENT, ENOTDIR (a link, a file).
    """
    if isinstance(proc, int):
        opened = os.dup(proc)
    else:
        opened = os.open(proc, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if fstatfs(opened) == PROC_SUPER_MAGIC and os.fstat(opened).st_ino == PROC_ROOT_INO:
        return opened
    os.close(opened)
    raise OSError(errno.EPERM, f"{proc} is not a proc file system: something has been put in its place")


def open_in_proc(proc: int, path: str, flags: int) -> int:
    """Open a file of the proc file system whose root `proc` is: ``self/attr/exec``, ``sys/net/ipv4/ip_forward``.

    "self" is whoever asks, also where this proc is of another PID namespace than the caller. Raises OSError: EPERM
    (something is mounted over it), ENOENT, EACCES, EROFS.
    """
    try:
        return openat2(proc, path, flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EPERM, f"/proc/{path}: something is mounted over it, or above it") from None
        raise OSError(error.errno, f"/proc/{path}: {os.strerror(error.errno or 0)}") from None


def write_in_proc(proc: int, path: str, text: str) -> None:
    """Write `text` into such a file, in one write(2), as the kernel wants it. Raises OSError."""
    file = open_in_proc(proc, path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    except OSError as error:
        raise OSError(error.errno, f'write(/proc/{path}, "{text}"): {error.strerror}') from None
    finally:
        os.close(file)


def sysctl_file(name: str) -> str:
    """The file below /proc/sys of a sysctl; sysctl(8).

    Either separator will do, and it is the first one that counts: where that is a dot, a slash stands for a dot.
    ``net.ipv4.conf.eno2/100.forwarding`` → ``net/ipv4/conf/eno2.100/forwarding``

    Raises ValueError: a name with an empty part, "." or "..", which would lead elsewhere (``net/../kernel/…``).
    """
    dot, slash = name.find("."), name.find("/")
    file = name if dot < 0 or 0 <= slash < dot else name.translate({ord("."): "/", ord("/"): "."})
    if {"", ".", ".."} & {*file.split("/")} or "\0" in name:
        raise ValueError(f'"{name}" is no name of a sysctl, such as net.ipv4.ip_forward')
    return file
