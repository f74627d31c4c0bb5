"""Errands: what is done by a child of ours, as somebody else or where everything has other names.

The files of a rootless container belong to its users, so its own root has to look at them. And a path in a container
means what it means in there: its links lead where they lead for its programs, and these may change them while we look.
So whoever copies does not check paths from outside, but goes in (docker's CVE-2018-15664), and what he needs he has
brought: from then on nothing is imported, looked up in /proc or executed, for in there others say what a library is
(CVE-2019-14271).

    the caller      outside; has the other ends of pipes.
      └─ the child  in a mount namespace of its own, a copy of the container's, with the container's root as "/". No
                    device is one in there, whatever file it has become since we looked. It is in none of the
                    container's other namespaces, so no process in there can so much as name it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from minicontainer.engine.errors import TOO_DEEP, EngineError
from minicontainer.linux import (
    MS_NODEV,
    Namespace,
    birth_of,
    clone3,
    in_user_namespace,
    is_single_threaded,
    set_title,
)
from minicontainer.record import Record
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any


_PIPE = 1 << 20
"""Bytes that a pipe of ours holds, so that neither end waits for each piece of the other."""


class View(Record):
    """Which root is to be gone into: that of a process, or one that is put together of layers."""

    pid: int | None = None
    """Process 1 of a container that runs,"""
    birth: int | None = None
    """and when it was born."""
    lowers: tuple[str, ...] = ()
    """The directories below, the topmost first; all of them read-only if there is no `upper`."""
    upper: str = ""
    work: str = ""
    merged: str = ""
    """Where it is mounted, in a view of the child's own."""
    volumes: tuple[tuple[str, str, bool], ...] = ()
    """(source, destination, read-only)."""
    bare: bool = False
    """Without anything that is mounted in it."""


@contextlib.contextmanager
def errand(
    steps: Steps,
    act: Callable[[], Any],
    ours: Sequence[IO[bytes]] = (),
    *,
    mapped: bool = False,
    under_another_root: bool = False,
) -> Iterator[Callable[[], Any]]:
    """Let a child do `act` during the block, which is given what waits for its answer, something that JSON can say.

    `ours`: open files that are the caller's alone, such as ends of pipes; they are closed at the end of the block.
    `mapped`: of an ordinary user, as root of a user namespace with the ids that his containers have.
    `under_another_root`: the caller is on an errand himself. What goes wrong in the child is raised where it is waited
    for, at the latest at the end of the block: OSError, ValueError, EngineError.
    """
    if not under_another_root and not is_single_threaded():
        raise EngineError("this process has several threads: use the command, minicontainer")
    read, write = os.pipe2(os.O_CLOEXEC)

    def main() -> int:
        for fd in (read, *(file.fileno() for file in ours if not file.closed)):
            os.close(fd)
        if not under_another_root:  # for which /proc is asked
            set_title("minicontainer errand")
        _answer(write, act)
        return 0

    try:
        pid = _bear(steps, main, mapped and os.geteuid() != 0)
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    child = _Child(pid, read)
    try:
        try:
            yield child.result
        finally:  # before it is waited for: it may wait for the end of what it reads
            for file in ours:
                with contextlib.suppress(OSError):  # nobody may read any more what was still to be written
                    file.close()
        child.result()
    finally:
        child.close()


def do(steps: Steps, act: Callable[[], Any], *, mapped: bool = False) -> Any:
    """The same, when there is nothing to do meanwhile. Raises OSError, ValueError, EngineError."""
    with errand(steps, act, mapped=mapped) as result:
        return result()


@contextlib.contextmanager
def piped() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Both ends of a new pipe, as open files; closed at the end of the block, if they are not by then."""
    read, write = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # an ordinary user may have only so much of them
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE)
    source, sink = open(read, "rb", buffering=_PIPE), open(write, "wb", buffering=_PIPE)  # noqa: SIM115
    try:
        yield source, sink
    finally:
        for file in (source, sink):
            with contextlib.suppress(OSError):
                file.close()


class _Child:
    def __init__(self, pid: int, said: int) -> None:
        self._pid, self._said = pid, said
        self._text: bytes | None = None

    def result(self) -> Any:
        """Wait for it. Raises OSError, ValueError, EngineError."""
        if self._text is None:
            text = b""
            while more := os.read(self._said, 1 << 16):
                text += more
            self._text = text
            os.waitpid(self._pid, 0)
        if not self._text:
            raise EngineError("the process that was to do it was killed")
        answer = json.loads(self._text)
        if "error" in answer:
            raise EngineError(answer["error"], answer["exit_code"])
        if "refused" in answer:
            raise ValueError(answer["refused"])
        if "errno" in answer:
            raise OSError(answer["errno"], answer["text"])
        return answer["value"]

    def close(self) -> None:
        """It ends by itself when nobody reads what it writes; what it waits for comes to its end."""
        if self._text is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
        os.close(self._said)


def _answer(write: int, act: Callable[[], Any]) -> None:
    try:
        answer: dict[str, Any] = {"value": act()}
    except EngineError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    except OSError as error:
        text = error.strerror or str(error)
        answer = {"errno": error.errno or errno.EIO, "text": f"{error.filename!s}: {text}" if error.filename else text}
    except ValueError as error:  # TarError, Refused
        answer = {"refused": str(error)}
    except RecursionError:
        answer = {"error": TOO_DEEP, "exit_code": 125}
    except (ImportError, LookupError) as error:
        answer = {"error": f"{type(error).__name__}: {error}", "exit_code": 125}
    left = json.dumps(answer).encode()
    while left:
        left = left[os.write(write, left) :]


def _bear(steps: Steps, main: Callable[[], int], mapped: bool) -> int:
    """Start it, and give it its ids if it is to have such; returns its pid."""
    if not mapped:
        pid = clone3(0)
        if pid == 0:
            try:
                main()
            finally:
                os._exit(0)
        return pid
    from minicontainer.runtime.users import rootless_maps

    maps = rootless_maps(alone=not steps.is_ours("write_maps"))  # as `Engine` has it for containers
    _ = steps.become_root, steps.write_maps
    ready, tell = os.pipe2(os.O_CLOEXEC)

    def with_ids() -> int:
        os.close(tell)
        if not os.read(ready, 1):
            return 1
        steps.become_root()
        return main()

    try:
        pid = steps.spawn_init(with_ids, [Namespace.USER])
        try:
            steps.write_maps(pid, *maps)
            os.write(tell, b"x")
        except BaseException:
            os.close(tell)
            tell = -1
            os.waitpid(pid, 0)
            raise
    finally:
        os.close(ready)
        if tell >= 0:
            os.close(tell)
    return int(pid)


def bring(steps: Steps) -> None:
    """Have everything loaded that `enter` and whoever follows it need: while it is still ours that is loaded."""
    import shutil

    from minicontainer.linux import trees

    _ = shutil, trees, steps.join, steps.become_root, steps.make_private, steps.stack, steps.pick_up, steps.bind
    _ = steps.hide_process, steps.enter_chroot, steps.disarm, steps.become_user
    for codec in ("utf-8", "ascii", "latin-1"):
        "x".encode(codec)


def enter(steps: Steps, view: View) -> None:
    """Have the container's root as "/": in the child, for good. Raises OSError: ESRCH (it has ended), EPERM…"""
    bring(steps)
    steps.hide_process()
    if view.pid is not None:
        _enter_running(steps, view.pid, view.birth)
    else:
        _enter_layers(steps, view)
    if view.bare:
        _stand_in(steps.pick_up("/", False), steps)
    import_nothing()


def _enter_running(steps: Steps, pid: int, birth: int | None) -> None:
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kinds = [kind for kind in (Namespace.USER, Namespace.MOUNT) if kind.link(pid) != kind.link()]
    if birth is not None and birth_of(pid) != birth:
        raise ProcessLookupError(errno.ESRCH, "it has just ended")
    if Namespace.MOUNT not in kinds:
        raise OSError(errno.EPERM, "it has no mount namespace of its own")
    import_nothing()
    join_as_root(steps, pid, kinds)
    _stand_in(root, steps)
    steps.make_private()
    steps.disarm("/")


def join_as_root(steps: Steps, pid: int, kinds: Sequence[Namespace]) -> None:
    """Join USER and MOUNT of process 1 of a container, as far as they are among `kinds`, as root of its users."""
    if os.geteuid() == 0 and not in_user_namespace():
        steps.join(pid, kinds)  # at once: whoever is no longer the host's root may not look for it again
        if Namespace.USER in kinds:
            steps.become_user(0, 0)
        return
    for kind in kinds:  # the users first: who we are among them is looked up in our own /proc
        steps.join(pid, [kind])
        if kind is Namespace.USER:
            steps.become_root()


def _enter_layers(steps: Steps, view: View) -> None:
    steps.make_private()
    steps.stack(list(view.lowers), view.upper, view.work, view.merged)
    steps.disarm(view.merged)
    for source, destination, readonly in view.volumes:
        steps.bind(steps.pick_up(source), view.merged, destination, readonly, MS_NODEV)
    steps.enter_chroot(view.merged)


def _stand_in(directory: int, steps: Steps) -> None:
    """Have it as "/", and close it."""
    os.fchdir(directory)
    steps.enter_chroot(".")
    os.close(directory)


def import_nothing() -> None:
    """From here on a module that is not loaded is not found, wherever "/" is."""
    sys.meta_path.clear()
    sys.path.clear()
