"""``--explain``: every system call by which a command changes something, in order, with its page in the manual.

    process 1 of the container, pid 4243
      uts.set_names: Give the calling process a UTS namespace of its own in which it has the host name `host` and NIS…
        unshare(CLONE_NEWUTS) = 0                                               unshare(2)
        sethostname("alpha", 5) = 0                                             sethostname(2)

docs/EXPLAIN.md says what is shown, and what is not.
"""

from __future__ import annotations

import argparse
import errno
import inspect
import os
import sys
from collections.abc import Iterator, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.linux.recording import Call, recording
from minicontainer.steps import Steps, step_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

COLUMN = 84
"""Where the pages begin, where the calls are not longer."""


def explained(arguments: argparse.Namespace) -> int:
    """Carry a command out, and explain it: when a container's program has been started, and at the end."""
    with _output(arguments.explain_to) as out:
        printer = Printer(out)
        arguments.explain = printer.show
        with recording(printer.show, step_of):
            return int(arguments.act(arguments))


def _output(path: str | None) -> TextIO:
    try:
        if path is None:
            return open(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
        return open(path, "w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise EngineError(f"--explain-to {path}: {error.strerror}") from None


class Printer:
    """Writes calls, a heading wherever another process or another step goes on."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._process: tuple[str, int] | None = None
        self._step = ""
        self._told = set[str]()

    def show(self, calls: Sequence[Call]) -> None:
        """Write these calls; where two processes are at work at once, what belongs together of each stays together."""
        for call in _in_order(calls):
            for line in self._lines(call):
                print(line, file=self._out)
        self._out.flush()

    def _lines(self, call: Call) -> Iterator[str]:
        if (call.process, call.pid) != self._process:
            self._process, self._step = (call.process, call.pid), ""
            yield f"{call.process}{' of the container' if call.process == 'process 1' else ''}, pid {call.pid or '?'}"
        if call.step != self._step:
            self._step = call.step
            yield f"  {_heading(call, call.step in self._told)}"
            self._told.add(call.step)
        shown = f"    {call.text} = {_answer(call.result)}"
        line = f"   line {call.line}" if call.line else ""
        yield f"{shown:<{COLUMN}}  {call.page}{line}"


def _in_order(calls: Sequence[Call]) -> list[Call]:
    """Each process's calls in their order, its steps as wholes, by when they began."""
    begun: dict[int, tuple[str, int]] = {}
    keyed = []
    for call in calls:
        step, began = begun.get(call.pid, ("", 0))
        if call.step != step:
            began = call.began
        begun[call.pid] = call.step, began
        keyed.append((began, call))
    return [call for _, call in sorted(keyed, key=lambda pair: (pair[0], pair[1].pid, pair[1].began))]


def _heading(call: Call, again: bool) -> str:
    """The step and, the first time, the first sentence of what it says of itself; or the file of ours."""
    if call.step not in Steps.names():
        return call.step
    if call.line:
        return f"{call.step}, yours"
    if again:
        return call.step
    step = getattr(Steps, Steps.names()[call.step])
    sentence, end, _ = " ".join((inspect.getdoc(step) or "").split()).partition(". ")
    return f"{call.step}: {sentence}{end.strip() or ''}" if sentence else call.step


def _answer(result: int) -> str:
    if result >= 0:
        return str(result)
    return f"-1 {errno.errorcode.get(-result, -result)} ({os.strerror(-result)})"


def show(calls: Sequence[Call]) -> None:
    """Write calls to standard output: what ``Engine(explain=show)`` is for in a notebook."""
    Printer(sys.stdout).show(calls)
