"""Step 2, the mount namespace: a tree of mounts of its own, with a root from which no ".." leads back.

mount_namespaces(7), pivot_root(2). What chroot could not do: here the host's root is not merely out of sight, it is not
mounted any more.
"""

from __future__ import annotations

import contextlib
import os

from minicontainer.linux import (
    AT_EMPTY_PATH,
    CLONE_NEWNS,
    MNT_DETACH,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    MS_STRICTATIME,
    OPEN_TREE_CLONE,
    mount,
    move_mount,
    open_tree,
    pivot_root,
    target_in,
    umount2,
    unshare,
)

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""What the OCI runtime specification wants in every /dev ("Default Devices"), /dev/console and /dev/ptmx apart."""


LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


def make_private() -> None:
    """Give the calling process a mount namespace of its own, from which no mount or unmount spreads to the host.

    The new namespace begins as a copy. Where the host's mounts are shared (systemd makes "/" so), the copies are peers
    of the originals, and what we mount would appear on the host too: hence private, and recursively, before any mount.

    Raises OSError: EPERM (needs CAP_SYS_ADMIN).
    """
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)


def pivot(new_root: str) -> None:
    """Make `new_root` the root of this mount namespace and detach the old root, with everything below it.

    Only in a mount namespace of one's own and private (`make_private`): elsewhere the host would lose its root.

    Raises OSError: EINVAL (the parent mount is shared), EPERM, ENOENT.
    """
    mount(new_root, new_root, None, MS_BIND | MS_REC)  # pivot_root wants a mount, not merely a directory (EBUSY)
    os.chdir(new_root)
    pivot_root(".", ".")  # the old root now lies over the new one: no directory in the image is needed to hold it
    umount2(".", MNT_DETACH)
    os.chdir("/")


def move_root(new_root: str) -> None:
    """As `pivot`, where the old root is the initramfs, which cannot be pivoted away from (pivot_root(2)).

    `new_root` is moved over "/", and we change our root to it. Below it, out of reach of every path, lies the old one:
    whoever gets CAP_SYS_CHROOT and a mount to move may dig for it, so this is for where the other cannot be had.
    Raises OSError.
    """
    os.chdir(new_root)
    too_revealing = _proc_and_sys(new_root)
    mount(
        new_root, new_root, None, MS_BIND | MS_REC
    )  # over where we are: what was mounted here first is still in reach
    for place in reversed(too_revealing):
        try:
            umount2(place, MNT_DETACH)
        except OSError:  # locked, in a user namespace: then it is covered
            mount("tmpfs", place, "tmpfs", 0, "size=0k")
    os.chdir(new_root)
    mount(".", "/", None, MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def _proc_and_sys(here: str) -> list[str]:
    """Where every proc and sysfs is mounted; those below the working directory, `here`, as seen from it.

    What lies under the new root stays mounted, and with a proc or sysfs that is fully visible there, a user namespace
    made inside may mount another, with nothing masked in it. That goes for the host's, and for the container's own,
    of which only the copies in the new root are going to be masked.
    """
    with open("/proc/self/mountinfo", "rb") as mountinfo:
        mounts = [line.split(b" - ") for line in mountinfo]
    places = [os.fsdecode(before.split()[4]) for before, after in mounts if after.split()[0] in (b"proc", b"sysfs")]
    return [place.removeprefix(f"{here.rstrip('/')}/") for place in places]


def mount_proc_and_dev(root: str) -> None:
    """Mount below `root` what programs expect there: /proc of this PID namespace, and a /dev that is ours alone.

    /proc shows the PID namespace of whoever mounts it, so the caller must be in the new one already. In a user
    namespace it can be mounted only as long as the host's own /proc can still be seen, so this comes before `pivot`;
    mknod(2) is not allowed there at all, so the devices are the host's, bound one by one.

    Raises OSError: EPERM, ENOENT.
    """
    with target_in(root, "proc") as target:
        mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    with target_in(root, "dev") as target:
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=64k")

    with target_in(root, "dev") as dev:  # new, empty and ours: no path in it leads anywhere else
        for name, fstype, flags, data in (
            ("pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"),
            ("shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m"),
            ("mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, None),
        ):
            os.mkdir(f"{dev}/{name}")
            mount(fstype, f"{dev}/{name}", fstype, flags, data)
    furnish_dev(root)


def furnish_dev(root: str) -> None:
    """See that /dev below `root` has what the OCI runtime specification wants there, whatever is mounted there.

    "Default Devices" and "Dev symbolic links". What is there already stays. Raises OSError: EPERM.
    """
    with target_in(root, "dev") as dev:
        for name in DEVICES:
            with contextlib.suppress(FileExistsError):
                place = os.open(f"{dev}/{name}", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
                mount(f"/dev/{name}", f"/proc/self/fd/{place}", None, MS_BIND)
                os.close(place)
        for name, target in LINKS.items():
            with contextlib.suppress(FileExistsError):
                os.symlink(target, f"{dev}/{name}")


def show_console(terminal: int) -> None:
    """Put the terminal that is open as `terminal` at /dev/console too; inside, after `pivot`.

    A mount by file descriptor, and on one: what lies at either path may have been put there by the image
    (CVE-2025-52565). Raises OSError: ELOOP (/dev/console is a link), EPERM.
    """
    place = os.open("/dev/console", os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC)
    copy = open_tree("", OPEN_TREE_CLONE | AT_EMPTY_PATH, terminal)
    move_mount(copy, "", place)
    os.close(copy)
    os.close(place)
