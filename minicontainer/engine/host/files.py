"""File systems that a container is furnished with: each is mounted once, in a mount namespace that nobody else sees."""

from __future__ import annotations

import os

from minicontainer.engine.host.finding import Finding, content
from minicontainer.engine.host.kernel import ABSENT, AT_FIRST_USE, HERE, UNTOLD, Kernel, build_with, named
from minicontainer.engine.host.probing import attempt, be_root_of_a_new_user_namespace, become_ordinary, isolate
from minicontainer.linux import (
    AT_EMPTY_PATH,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    MOUNT_ATTR_IDMAP,
    OPEN_TREE_CLONE,
    MountAttr,
    in_user_namespace,
    mount,
    mount_setattr,
    open_tree,
)
from minicontainer.linux.capabilities import capget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DESK = "/tmp"
"""Where the probes mount."""


def of_files(kernel: Kernel, root: str) -> list[Finding]:
    """The findings about file systems; `root` is where containers' files are to lie."""
    overlay = "layers: what a container writes lies over its image"
    return [
        _filesystem(kernel, "overlayfs", "overlay", ("OVERLAY_FS",), _overlay, overlay, required=True),
        _filesystem(
            kernel, "overlayfs, rootless", "overlay", ("OVERLAY_FS", "USER_NS"), _overlay_rootless,
            "the same by an ordinary user (Linux 5.11, userxattr)",
        ),
        _filesystem(kernel, "proc", "proc", ("PROC_FS",), _proc, "a PID namespace shows its processes", required=True),
        _filesystem(kernel, "sysfs", "sysfs", ("SYSFS",), _sysfs, "a network namespace shows its own devices"),
        _filesystem(kernel, "tmpfs", "tmpfs", ("TMPFS",), _tmpfs, "/dev, /dev/shm, /run", required=True),
        _filesystem(
            kernel, "tmpfs with attributes", "tmpfs", ("TMPFS_XATTR", "TMPFS_POSIX_ACL"), _tmpfs_attributes,
            "extended attributes: layers keep file capabilities",
        ),
        _filesystem(
            kernel, "devpts", "devpts", ("UNIX98_PTYS",), _devpts, "terminals of a container's own", required=True,
        ),
        _filesystem(kernel, "mqueue", "mqueue", ("POSIX_MQUEUE",), _mqueue, "POSIX message queues to be seen"),
        _idmapped(root),
        _fuse(kernel),
    ]  # fmt: skip


def _filesystem(
    kernel: Kernel, feature: str, fstype: str, options: tuple[str, ...], act: Callable[[], object], why: str, *,
    required: bool = False,
) -> Finding:  # fmt: skip
    where = HERE if fstype in content("/proc/filesystems").split() else kernel.whereabouts(options[0], fstype)
    if where == HERE:
        error, said = attempt(act)
        mend = "look for a seccomp filter, a security module or missing rights (in docker: --privileged)"
        if off := kernel.lacking(options):
            mend = build_with(off)
        return Finding(feature, error == 0, why if error == 0 else said, mend, required, named(options))
    return elsewhere(where, feature, f"{fstype} is not in /proc/filesystems", fstype, options, required=required)


def elsewhere(
    where: str, feature: str, missing: str, module: str, options: tuple[str, ...], *, required: bool = False
) -> Finding:
    """The finding about a part of the kernel that is not there now, by its whereabouts."""
    if where == AT_FIRST_USE:
        return Finding(feature, True, f"{module}: {where}", "", required, named(options))
    if where == UNTOLD:
        shows, mend = f"{missing}, and a probe might load it", f"as root: modprobe {module}, and check again"
        return Finding(feature, False if required else None, shows, mend, required, named(options))
    if where == ABSENT:
        shows = f"{missing}: {named(options)[0]} not set"
        return Finding(feature, False, shows, build_with(options), required, named(options))
    mend = f"install the modules of the kernel that runs; then, as root: modprobe {module}"
    return Finding(feature, False, f"{missing}: {where}", mend, required, named(options))


def _overlay(options: str = "") -> None:
    isolate(CLONE_NEWNS)
    mount("none", DESK, "tmpfs")
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{DESK}/{name}")
    directories = f"lowerdir={DESK}/lower,upperdir={DESK}/upper,workdir={DESK}/work"
    mount("overlay", f"{DESK}/merged", "overlay", 0, directories + options)
    with open(f"{DESK}/merged/file", "w"):
        pass
    os.stat(f"{DESK}/upper/file")


def _overlay_rootless() -> None:
    become_ordinary()
    be_root_of_a_new_user_namespace()
    _overlay(",userxattr")


def _proc() -> str | None:
    """Only a process *in* the new PID namespace can mount its proc."""
    isolate(CLONE_NEWNS | CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        number = 1
        try:
            mount("proc", DESK, "proc")
            number = 0 if os.readlink(f"{DESK}/self") == "1" else 1
        except OSError as error:
            number = error.errno or 1
        finally:
            os._exit(number)
    _, status = os.waitpid(pid, 0)
    if number := os.waitstatus_to_exitcode(status):
        raise OSError(
            number, f"mount(proc) in a new PID namespace: {os.strerror(number)}; something may cover a part of /proc"
        )
    return None


def _sysfs() -> None:
    isolate(CLONE_NEWNS | CLONE_NEWNET)
    mount("sysfs", DESK, "sysfs")


def _tmpfs() -> None:
    isolate(CLONE_NEWNS)
    mount("none", DESK, "tmpfs", 0, "size=64k,mode=755")


def _tmpfs_attributes() -> None:
    _tmpfs()
    with open(f"{DESK}/file", "w"):
        pass
    os.setxattr(f"{DESK}/file", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))


def _devpts() -> None:
    isolate(CLONE_NEWNS)
    mount("devpts", DESK, "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    os.open(f"{DESK}/ptmx", os.O_RDWR | os.O_NOCTTY)


def _mqueue() -> None:
    isolate(CLONE_NEWNS | CLONE_NEWIPC)
    mount("mqueue", DESK, "mqueue")


def _idmapped(root: str) -> Finding:
    """Root's volumes lie anywhere, above all where containers do; others have but the tmpfs of their own namespaces."""
    mighty = "SYS_ADMIN" in capget() and not in_user_namespace()
    place = next(filter(os.path.isdir, (root, os.path.dirname(root), "/"))) if mighty else DESK

    def act() -> None:
        isolate(CLONE_NEWNS)
        if not mighty:
            mount("none", DESK, "tmpfs")
        tree = open_tree(place, OPEN_TREE_CLONE)
        mount_setattr(tree, "", AT_EMPTY_PATH, MountAttr(attr_set=MOUNT_ATTR_IDMAP, userns_fd=_mapped_namespace()))

    error, said = attempt(act)
    where = f"on the file system of {place}" if mighty else "on a tmpfs"
    mend = "run Linux 5.12 (tmpfs: 6.3, overlayfs: 5.19) or newer, with containers on ext4, xfs or btrfs"
    return Finding("idmapped mounts", error == 0, where if error == 0 else said, mend)


def _mapped_namespace() -> int:
    """A file descriptor of a user namespace whose ids are mapped; who made it may be gone."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            be_root_of_a_new_user_namespace()
            os.write(tell, b"x")
            os.read(os.pipe()[0], 1)  # for ever; it is killed
        finally:
            os._exit(1)
    os.close(tell)
    if not os.read(told, 1):
        raise OSError(1, "there is no user namespace to map ids with")
    try:
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _fuse(kernel: Kernel) -> Finding:
    """lxcfs shows a container its own /proc/meminfo by it, and fuse-overlayfs stacks layers for old kernels."""
    feature, options = "FUSE", ("FUSE_FS",)
    where = HERE if "fuse" in content("/proc/filesystems").split() else kernel.whereabouts("FUSE_FS", "fuse")
    if where != HERE:
        return elsewhere(where, feature, "fuse is not in /proc/filesystems", "fuse", options)
    return device_file(feature, "/dev/fuse", "for lxcfs and fuse-overlayfs", "c 10 229", options)


def device_file(feature: str, file: str, why: str, node: str, options: tuple[str, ...]) -> Finding:
    """The finding about a device that a user opens by its file."""
    if os.access(file, os.R_OK | os.W_OK):
        return Finding(feature, True, f"{file}: {why}", options=named(options))
    if os.path.exists(file):
        return Finding(
            feature, False, f"{file} is not for this user", f"as root: chmod 666 {file}", options=named(options)
        )
    mend = f"as root: mkdir -p {os.path.dirname(file)} && mknod -m 666 {file} {node}"
    return Finding(feature, False, f"there is no {file}", mend, options=named(options))
