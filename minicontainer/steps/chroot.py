"""Step 1, chroot: another directory becomes "/". Old (Unix, 1979), handy, and no prison: `break_out` shows why.

chroot(2): "This call changes an ingredient in the pathname resolution process and does nothing else."
"""

from __future__ import annotations

import os


def build_root(root: str, busybox: str) -> None:
    """Make of the empty directory `root` a root file system in which a shell can live.

    One statically linked program is enough, because busybox is what it is called: every applet is a symbolic link to
    it. Dynamically linked programs would need their libraries and their loader (``ldd``) in here as well.

    root: an existing directory. busybox: the path of a static busybox. Raises OSError (missing, not writable, full).
    """
    import shutil
    from pathlib import Path

    top = Path(root)
    for directory in ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var"):
        (top / directory).mkdir(parents=True, exist_ok=True)
    (top / "tmp").chmod(0o1777)  # everybody may write, only the owner may remove: sticky

    shutil.copy(busybox, top / "bin/busybox")  # a copy: a link to the host's file could be written through
    (top / "bin/busybox").chmod(0o755)
    for applet in _applets(busybox):
        link = top / applet
        if not link.is_symlink() and link.name != "busybox":
            link.symlink_to("/bin/busybox")  # absolute: "/" will be this directory when it is followed

    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (top / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")


def enter_chroot(root: str) -> None:
    """Make `root` the calling process's "/", and stand in it.

    Both halves are needed: chroot(2) does not move the working directory, and from one that is left outside, ".." goes
    on to the real root. Raises OSError: EPERM (needs CAP_SYS_CHROOT), ENOENT, ENOTDIR.
    """
    os.chroot(root)
    os.chdir("/")


def break_out() -> None:
    """Leave a chroot again, as its root user can: afterwards "/" is the real root.

    The kernel stops ".." only at the process's own root directory. So we make a *second* chroot, in a directory below
    us, and stay outside of it: our working directory is then above our root, and nothing stops ".." any more. Against
    `mount.pivot` this fails: there ".." arrives at the top of a tree of mounts in which the host's root is not to be
    found.

    Raises OSError: EPERM (needs CAP_SYS_CHROOT), EROFS (nowhere to make a directory).
    """
    jail = "second-chroot"
    os.mkdir(jail)
    try:
        os.chroot(jail)
    finally:
        os.rmdir(jail)  # its name can go: our root stays on it as an unnamed directory
    while not os.path.samestat(os.stat("."), os.stat("..")):
        os.chdir("..")
    os.chroot(".")


def _applets(busybox: str) -> list[str]:
    """Every applet of this busybox with its usual place: "bin/sh", "usr/bin/awk"…"""
    import subprocess

    return subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True).stdout.split()
