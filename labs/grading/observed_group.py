"""A control group in the sandbox as the kernel shows it from outside: its files, its processes, what it forbids."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from labs.grading.checks import Wrong
from labs.grading.sandbox import Sandbox, Unavailable
from minicontainer.linux.cgroups import read
from minicontainer.steps.group import PARENT


class ObservedGroup:
    """A group below the sandbox's own. Its files are read in the host's trees, where nobody of the sandbox can."""

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        """`name` is its path below the sandbox's own parent group. Raises Unavailable: the sandbox has no groups."""
        if sandbox.group is None:
            raise Unavailable("the sandbox has no control groups: labs on control groups are graded as root")
        self._group = sandbox.group
        self.name = name

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
        """
        answer, told = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            number = errno.EIO
            try:
                with open(f"{self.directory(controller)}/cgroup.procs", "w") as procs:
                    procs.write("0")
                act()
                number = 0
            except OSError as error:
                number = error.errno or errno.EIO
            finally:
                os.write(told, bytes([number]))
                os._exit(0)
        os.close(told)
        with open(answer, "rb") as file:
            number = (file.read(1) or b"\xff")[0]
        os.waitpid(child, 0)
        if number in (0, errno.EPERM):
            return number == 0
        raise OSError(number, f"{act}: {os.strerror(number)}")
