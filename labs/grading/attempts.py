"""What the kernel lets a confined process do: a program of ours is executed by it, tries, and tells with its death.

Filters, capabilities and rules of Landlock go on with fork(2) and execve(2). So the process that a submission has
confined executes an interpreter, which forks a child for each attempt, and the child's exit status is the errno (0: it
was let). The kernel vouches for it all: whose child that is, what it executes (/proc/PID/exe), what with, and how it
ended. No code of the submission runs in there any more.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence

from labs.grading.checks import Wrong, plain
from labs.grading.classroom import PLACE, interpreter, sights
from labs.grading.observed import Observed
from labs.grading.subject import Performed, Subject
from minicontainer.linux.numbers import numbers_of

Call = tuple[str, Sequence[int | str]]
"""A system call by name, and its arguments; a text goes as a pointer to it."""

KILLED = 128
"""An attempt that ended with KILLED + n was killed by signal n; others with their errno, or 0."""

_TRIES = """\
import ctypes, json, os, signal, sys
from ctypes import c_char_p, c_long
syscall = ctypes.CDLL(None, use_errno=True).syscall
for number, arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        values = [c_char_p(one.encode()) if isinstance(one, str) else c_long(one) for one in arguments]
        refused = syscall(c_long(number), *values) == -1
        os._exit(ctypes.get_errno() if refused else 0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # one after the other; how it ended is the examiner's to read
while True:
    signal.pause()
"""


class Attempts:
    """A program that a process of a submission has executed, and what became of its attempts."""

    def __init__(self, subject: Subject, process: Performed, calls: Sequence[Call]) -> None:
        """Let it try. Raises Wrong: nothing can be executed there, or it is not our program that was; Late."""
        numbers = numbers_of(os.uname().machine)
        wanted = json.dumps([[numbers[name], list(arguments)] for name, arguments in calls])
        command = [str(interpreter()), "-I", "-S", "-B", "-c", _TRIES, wanted]
        before = {child.pid for child in process.children()}
        try:
            process.then("os.posix_spawn", command[0], command, {})
        except Wrong as refused:
            raise Wrong(f"afterwards, the process cannot execute any program: {refused}") from None
        self.program = _only([child for child in process.children() if child.pid not in before])
        """The one that makes the attempts, alive; `status` of it tells what it has left."""
        self._see_that_it_is_ours(subject, command)
        self.results: list[int] = []
        """Of each call: its errno, 0, or KILLED and a signal."""
        if not subject.until(lambda: self._has_tried(len(calls))):
            raise Wrong(f"{len(calls)} processes were to be started, and {len(self.results)} came to an end")

    def _has_tried(self, many: int) -> bool:
        if not self.program.alive:
            raise Wrong(
                "a program that the process executes does not live: what a program needs to start is refused it"
            )
        children = self.program.children()
        ended = [child for child in children if not child.alive]
        if len(ended) == many:
            self.results = [child.exit_status(0) for child in ended]
        return len(ended) == many

    def _see_that_it_is_ours(self, subject: Subject, command: list[str]) -> None:
        """The program, its text, and that nothing was mounted over what it is made of.

        posix_spawn(3) returns when the child has new memory, a moment before its /proc/PID/cmdline is there.
        """
        here, there = os.stat(command[0]), self.program.executable()
        covers = [
            mount.mountpoint
            for mount in self.program.mountinfo()
            if any(mount.mountpoint.startswith(f"{sight}/") for sight in (*sights(), PLACE))
        ]
        if (
            there != (here.st_dev, here.st_ino)
            or covers
            or not subject.until(lambda: self.program.command == command, 2)
        ):
            raise Wrong("the program that was to try was replaced by another one")

    def __repr__(self) -> str:
        return ", ".join(map(told, self.results))


def told(result: int) -> str:
    """A result in a word: "allowed", "EPERM", "killed by signal 31"."""
    if result > KILLED:
        return f"killed by signal {result - KILLED}"
    return errno.errorcode.get(result, str(result)) if result else "allowed"


def _only(children: list[Observed]) -> Observed:
    if len(children) != 1:
        raise Wrong(plain(f"the process was to execute one program, and has {len(children)} new children"))
    return children[0]
