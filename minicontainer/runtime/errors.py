"""What can go wrong between a specification and a running program."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class StartError(Exception):
    """A container that could not be started; `str()` is one line: the step, the call, what the kernel said, what to do.

    exit_code is what docker and the shell use: 125 (the container), 126 (cannot be executed), 127 (not found).
    """

    def __init__(self, text: str, *, step: str | None = None, errno: int | None = None, exit_code: int = 125) -> None:
        super().__init__(text)
        self.step = step
        self.errno = errno
        self.exit_code = exit_code


class BundleError(Exception):
    """A bundle, its config.json or a container's id that no container can be made of; `str()` is one line.

    It names the file, the place in it and what stands there: ``config.json: process.cwd: "bin" is no absolute path``.
    """

    exit_code = 1
    """What runc and crun end with."""


class ProgramError(OSError):
    """The program cannot be executed; the errno is execve(2)'s, ENOENT when it is not in the container at all.

    What the kernel says is written in lower case, as Go has it: podman and docker look for these words in a runtime's
    error, and end with 126 and 127 for them.
    """

    @property
    def exit_code(self) -> int:
        """127 not found, 126 found and not executable: as the shell has it."""
        return 127 if self.errno == errno.ENOENT else 126

    @classmethod
    def not_found(cls, name: str, where: str) -> ProgramError:
        """The error for a program that nothing in the container has the name of."""
        return cls(errno.ENOENT, f"{name}: not found in {where}: {_said(errno.ENOENT)}")

    @classmethod
    def of_execve(cls, path: str, number: int) -> ProgramError:
        """The error for what is at `path`, and for which execve(2) has failed with this errno."""
        reason = _said(number)
        if number == errno.ENOENT:  # it is there: what is missing is what it needs to be executed
            reason = f"its interpreter, after #! or the dynamic loader, is not in the image: {reason}"
        return cls(errno.EACCES if number == errno.ENOENT else number, f"execve({path}): {reason}")


def _said(number: int) -> str:
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


class Interrupted(Exception):
    """A signal asked us to stop before the program had been started."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"interrupted by signal {number} before the program was started; nothing is left of the container"
        )
        self.number = number


class Refusal(Exception):
    """Something that cannot be done with a container as it is now: it is not there, it runs, it does not."""

    exit_code = 1


def did_you_mean(word: str, among: Iterable[str]) -> str:
    """``; did you mean "ps"?``, where one of `among` is like it; "" where none is."""
    import difflib  # when something is wrong anyway

    like = difflib.get_close_matches(word, [*among], 1, 0.6)
    return f'; did you mean "{like[0]}"?' if like else ""
