"""A control group in the sandbox as the kernel shows it from outside: its files, its processes, what it forbids."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable
from typing import Any

from labs.grading.checks import Late, Wrong, deadline
from labs.grading.observed import Observed
from labs.grading.sandbox import Sandbox, Unavailable
from minicontainer.linux.cgroups import read
from minicontainer.steps.group import PARENT


class ObservedGroup:
    """A group below the sandbox's own. Its files are read in the host's trees, where nobody of the sandbox can."""

    imitation = False

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        """`name` is its path below the sandbox's own parent group. Raises Unavailable: the sandbox has no groups."""
        if sandbox.group is None:
            raise Unavailable("the sandbox has no control groups: labs on control groups are graded as root")
        self._group = sandbox.group
        self.name = name

    @property
    def argument(self) -> dict[str, Any]:
        """What the performer makes the submission's argument of."""
        return {"group": self.name}

    def __repr__(self) -> str:
        return f"group {self.name}"

    def version(self, controller: str) -> int:
        """1 or 2: in which kind of tree a controller (its v1 name) is on this host."""
        return self._group[controller][0]

    def directory(self, controller: str) -> str:
        """Its directory for a controller, in the host's tree."""
        return f"{self._group[controller][1]}/{PARENT}/{self.name}"

    def read(self, controller: str, v1: str, v2: str | None = None) -> str:
        """A control file, by its name on v1 and (unless that is the same) on v2. Raises Wrong: the group is gone."""
        file = v1 if v2 is None or self.version(controller) == 1 else v2
        try:
            return read(f"{self.directory(controller)}/{file}").strip()
        except FileNotFoundError:
            raise Wrong(f"the {controller} group is gone, or has no {file}") from None
        except OSError as error:
            raise Wrong(f"{file} of the {controller} group cannot be read: {error.strerror}") from None

    def number(self, controller: str, v1: str, v2: str | None = None) -> int:
        """A control file that holds one number; "max" is -1, and so is v1's number for no limit, near 2**63."""
        text = self.read(controller, v1, v2)
        value = -1 if text == "max" else int(text)
        return -1 if value >= 1 << 60 else value

    def field(self, controller: str, key: str, v1: str, v2: str | None = None) -> int:
        """A number from a file with a name and a number on each line; 0 where it has no such name."""
        for line in self.read(controller, v1, v2).splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
        return 0

    def processes(self, controller: str) -> set[int]:
        """The pids, as we see them, of the processes in the group."""
        return set(map(int, self.read(controller, "cgroup.procs").split()))

    def lets(self, controller: str, act: Callable[[], object]) -> bool:
        """Whether the kernel lets a process of *ours* in the group do something. Raises OSError: another reason.

        Not a word of the submission's is needed for it: a child of the examiner enters the group, and tries.
        Raises Wrong, Late: the group does not take it, or does not let it go on.
        """
        number = self.tried(controller, act)
        if number in (0, errno.EPERM):
            return number == 0
        raise OSError(number, os.strerror(number))

    def tried(self, controller: str, act: Callable[[], object]) -> int:
        """The errno (0: none) of what a child of the examiner does in the group. Raises Wrong, Late as `lets`.

        A group that was frozen, or has no memory or processor time left, is a trap for whoever enters it: the child has
        its deadline, and what it says is nobody's word but ours.
        """
        answer, told = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            said = b""
            try:
                with contextlib.suppress(OSError), open(f"{self.directory(controller)}/cgroup.procs", "w") as procs:
                    procs.write("0")
                    procs.flush()
                    said = bytes([_errno_of(act)])
                os.write(told, said)
            finally:
                os._exit(0)
        os.close(told)
        try:
            if not select.select([answer], [], [], deadline())[0]:
                raise Late(f"a process that entered {self} did not come back within {deadline():g} s")
            said = os.read(answer, 1)
        finally:
            os.close(answer)
            os.kill(child, signal.SIGKILL)
            _bury(child)
        if not said:
            raise Wrong(f"no process can enter {self}, or live in it: it is gone, full, or without memory")
        return said[0]


class ImitatedGroup(ObservedGroup):
    """A directory in the sandbox that stands for the group of a controller, of v1, which this kernel does not have."""

    imitation = True

    def __init__(self, sandbox: Sandbox, directory: str, controller: str) -> None:
        super().__init__(sandbox, directory)
        self._seen = Observed(sandbox, sandbox.pid, "the sandbox")
        self._controller = controller

    @property
    def argument(self) -> dict[str, Any]:
        return {"group": self.name, "places": {self._controller: [1, self.name]}}

    def version(self, controller: str) -> int:
        """1: as those that this kernel might have."""
        return 1

    def directory(self, controller: str) -> str:
        """In the sandbox; the host does not have it."""
        return self.name

    def read(self, controller: str, v1: str, v2: str | None = None) -> str:
        """What was written there. Raises Wrong: it is no file any more."""
        try:
            return self._seen.read(f"{self.name}/{v1}").decode(errors="replace").strip()
        except OSError as error:
            raise Wrong(f"{v1} cannot be read any more: {error.strerror}") from None


def _bury(child: int) -> None:
    """Wait for a child of ours that was killed; but not for ever: in a frozen group of v1 nobody even dies."""
    pidfd = os.pidfd_open(child)
    try:
        if select.select([pidfd], [], [], deadline())[0]:
            os.waitpid(child, 0)
    finally:
        os.close(pidfd)


def _errno_of(act: Callable[[], object]) -> int:
    try:
        act()
    except OSError as error:
        return error.errno or errno.EIO
    except BaseException:
        return errno.EIO
    return 0
