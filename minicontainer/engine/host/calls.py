"""System calls that are younger than containers: each is made, because a kernel may have it and a filter refuse it."""

from __future__ import annotations

import os

from minicontainer.engine.host.finding import Finding
from minicontainer.engine.host.probing import attempt, isolate
from minicontainer.linux import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    CLONE_NEWNS,
    CLONE_NEWUTS,
    CLOSE_RANGE_CLOEXEC,
    FSCONFIG_CMD_CREATE,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
    MountAttr,
    clone3,
    close_range,
    fsconfig,
    fsmount,
    fsopen,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    pidfd_getfd,
    pidfd_open,
    pidfd_send_signal,
    setns,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def of_calls() -> list[Finding]:
    """The findings about system calls."""
    return [_call(name, since, required, why, act) for name, since, required, why, act in _CALLS]


def _call(name: str, since: str, required: bool, why: str, act: Callable[[], object]) -> Finding:
    error, said = attempt(act)
    mend = (
        f"run Linux {since} or newer, and no seccomp filter that refuses it (docker: --security-opt seccomp=unconfined)"
    )
    return Finding(name, error == 0, why if error == 0 else said, mend, required)


def _clone3() -> None:
    pid = clone3(0)
    if pid == 0:
        os._exit(7)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 7:
        raise ChildProcessError(f"clone3: the child ended with status {status}")


def _openat2() -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.close(openat2(root, "proc/../..", os.O_PATH, resolve=RESOLVE_IN_ROOT))


def _close_range() -> None:
    fd = os.dup(1)
    close_range(fd, fd, CLOSE_RANGE_CLOEXEC)
    close_range(fd, fd)


def _pidfd() -> None:
    pid = os.fork()
    if pid == 0:
        os.read(os.pipe()[0], 1)  # for ever, until the signal comes
    pidfd = pidfd_open(pid)
    pidfd_send_signal(pidfd, 9)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)


def _pidfd_getfd() -> None:
    pidfd_getfd(pidfd_open(os.getpid()), 1)


def _setns() -> None:
    isolate(CLONE_NEWUTS)
    setns(pidfd_open(os.getpid()), CLONE_NEWUTS)


def _descriptors() -> None:
    isolate(CLONE_NEWNS)
    move_mount(open_tree("/proc", OPEN_TREE_CLONE | AT_RECURSIVE), "/proc")


def _contexts() -> None:
    isolate(CLONE_NEWNS)
    context = fsopen("tmpfs")
    fsconfig(context, FSCONFIG_CMD_CREATE)
    move_mount(fsmount(context, MOUNT_ATTR_NODEV), "/tmp")


def _mount_setattr() -> None:
    isolate(CLONE_NEWNS)
    tree = open_tree("/proc", OPEN_TREE_CLONE | AT_RECURSIVE)
    mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, MountAttr(attr_set=MOUNT_ATTR_RDONLY))


def _events() -> None:
    import select
    import signal

    from minicontainer.linux import signalfd

    select.epoll()
    os.eventfd(0)
    signalfd([signal.SIGCHLD])


_CALLS: tuple[tuple[str, str, bool, str, Callable[[], object]], ...] = (
    ("clone3", "5.3", True, "processes are born into namespaces and groups", _clone3),
    ("openat2", "5.6", True, "links in an image lead nowhere outside", _openat2),
    ("close_range", "5.9", True, "no file of ours is left open in a container", _close_range),
    ("pidfd", "5.4", True, "signals and ends of a process, whoever has its number later", _pidfd),
    ("pidfd_getfd", "5.6", False, "files of another process", _pidfd_getfd),
    ("setns with a pidfd", "5.8", False, "all namespaces of a process joined at once", _setns),
    ("open_tree, move_mount", "5.2", True, "mounts held by file descriptor, not by path", _descriptors),
    (
        "fsopen, fsconfig, fsmount",
        "5.2",
        True,
        "new mounts, with the kernel's own words where one is refused",
        _contexts,
    ),
    ("mount_setattr", "5.12", True, "attributes of all mounts below one, in one step", _mount_setattr),
    ("epoll, eventfd, signalfd", "2.6.27", False, "waiting for many things at once", _events),
)
