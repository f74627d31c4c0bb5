"""What a check is: a test function with a title, points, and the exercise that it is about.

    @check("The container has a UTS namespace of its own", exercise="uts.set_names", points=3)
    def test_own_namespace(subject: Subject) -> None:
        '''uts_namespaces(7); compare the links /proc/PID/ns/uts'''
        container = subject.start(["sleep", "600"])
        subject.saw(f"container {container.namespace('uts')}, sandbox {subject.sandbox.namespace('uts')}")
        if container.namespace("uts") == subject.sandbox.namespace("uts"):
            raise Wrong("the container shares its parent's UTS namespace: unshare(CLONE_NEWUTS) was not called")

The first line of its docstring tells a student who lost the points where to look. A check that returns gives
its points; `Wrong` says what is wrong; every other exception is the check's own fault, and gives nothing
either.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

Function = TypeVar("Function", bound=Callable[..., None])


class Wrong(Exception):
    """What the student did wrong, as the kernel shows it: one or two sentences that teach."""


class Late(Exception):
    """The student's code was not done within the deadline."""


@dataclass(frozen=True)
class Check:
    """What is said of a check, in its decorator and docstring."""

    name: str
    """Of the test function."""
    title: str
    exercise: str
    points: float
    """A lab's are ten together: whole ones and halves."""
    look_at: str
    """A manual page or a file of /proc that explains it."""


def check(title: str, *, exercise: str, points: float) -> Callable[[Function], Function]:
    """Declare a test function to be a check of `exercise`, such as ``uts.set_names``, worth `points`."""

    def declare(function: Function) -> Function:
        look_at = (inspect.getdoc(function) or "").partition("\n")[0]
        declared = Check(function.__name__, title, exercise, points, look_at)
        marked: Function = pytest.mark.check(declared)(function)
        return marked

    return declare


def deadline() -> float:
    """How many seconds a submission's code has for one request; LABS_DEADLINE sets it, for slow machines."""
    try:
        return max(0.1, float(os.environ["LABS_DEADLINE"]))
    except (KeyError, ValueError):
        return 10.0


def plain(text: object, limit: int = 2000) -> str:
    """`text` as text that can be written and shown anywhere: it may be a student's, and meant to harm.

    No control characters (a terminal obeys them), no halves of surrogate pairs (UTF-8 has none), no excess.
    """
    cut = str(text)[: limit + 1].encode("utf-8", "replace").decode()
    cut = cut if len(cut) <= limit else cut[: limit - 1] + "…"
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in cut)
