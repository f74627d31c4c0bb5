"""Joining namespaces that are there already, by the files that stand for them: nsenter(1), and OCI's `namespaces.path`.

setns(2), ioctl_ns(2). A file /proc/PID/ns/net, or one that such a file was mounted on (``ip netns add`` does that),
keeps its namespace alive and lets others in.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Collection, Mapping

from minicontainer.linux import CLONE_PARENT, Namespace, clone3, flags, setns

NS_GET_NSTYPE = 0xB703


def spawn_joined(main: Callable[[], int], namespaces: Collection[Namespace], joined: Mapping[Namespace, str]) -> int:
    """Start `main` in a child of the caller's, in the namespaces of these files and in new ones; returns its pid.

    The caller itself stays where it is: another child of it, the joiner, enters, bears the child as its own sibling
    (CLONE_PARENT), and is gone. One is born into a PID namespace, as one is into a new user namespace; and to join a
    network of the host's in the same breath, that has to come before.

    Raises OSError: ENOENT, EPERM, EINVAL (a file that is no such namespace).
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    joiner = clone3(0)
    if joiner == 0:
        try:
            _join_files(joined)
            pid = clone3(flags(namespaces) | CLONE_PARENT)
            if pid == 0:
                status = 125
                try:
                    os.close(write)  # the caller reads until nobody can write any more
                    status = main()
                finally:
                    os._exit(status)
            os.write(write, b"%d" % pid)
        except OSError as error:
            os.write(write, f"{error.errno} {error.strerror}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb", buffering=0) as answer:
        number, _, text = (answer.read() or b"").decode().partition(" ")
    os.waitpid(joiner, 0)
    if text or not number:
        raise OSError(int(number or errno.ECHILD), text or "the process that joins the namespaces was killed")
    return int(number)


def _join_files(joined: Mapping[Namespace, str]) -> None:
    """Enter the namespaces that these files stand for. PID takes effect for children born afterwards.

    All are opened first: behind a mount namespace other paths hold. Then those of the caller's own user namespace,
    then the user namespace, and what only its root may enter after it. Raises OSError.
    """
    opened = {kind: _open(kind, path) for kind, path in joined.items()}
    user = opened.pop(Namespace.USER, None)
    left = list(opened)
    for kind in sorted(opened, key=lambda kind: kind == Namespace.MOUNT):
        try:
            setns(opened[kind], kind.flag)
            left.remove(kind)
        except PermissionError:
            if user is None:
                raise
    if user is not None:
        setns(user, Namespace.USER.flag)
    for kind in left:
        setns(opened[kind], kind.flag)
    for fd in (*opened.values(), *([user] if user is not None else [])):
        os.close(fd)


def _open(kind: Namespace, path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, f"the {kind.proc_name} namespace {path}: {error.strerror}") from None
    try:
        found = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        found = 0
    if found != kind.flag:
        os.close(fd)
        raise OSError(errno.EINVAL, f"{path} is no {kind.proc_name} namespace")
    return fd
