"""``--explain``: every system call by which a command changes something, in order, with its page in the manual.

    process 1 of the container, pid 4243
      uts.set_names: Give the calling process a UTS namespace of its own in which it has the host name `host` and NIS…
        unshare(CLONE_NEWUTS) = 0                                               unshare(2)
        sethostname("alpha", 5) = 0                                             sethostname(2)

docs/EXPLAIN.md says what is shown, and what is not.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.linux.recording import Call, recording
from minicontainer.steps import Steps, step_of

COLUMN = 84
"""Where the pages begin, where the calls are not longer."""


def explained(arguments: argparse.Namespace) -> int:
    """Carry a command out, and explain it: when a container's program has been started, and at the end."""
    path = arguments.explain_to
    out = _output(path)
    printer = Printer(lambda text: _write(out, text))
    arguments.explain = printer.show
    try:
        with recording(printer.show, step_of):
            return int(arguments.act(arguments))
    finally:
        os.close(out)
        if printer.failure and printer.failure.errno != errno.EPIPE:  # as with `--explain … 2>&1 | head`
            what = f"--explain-to {path}" if path else "--explain"
            with contextlib.suppress(OSError):  # that may be full, too
                _write(2, f"minicontainer: {what} is incomplete: {printer.failure.strerror}\n")


def _output(path: str | None) -> int:
    try:
        if path is None:
            return os.dup(2)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EngineError(f"--explain-to {path}: {error.strerror}") from None


def _write(file: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(file, data) :]


class Printer:
    """Writes calls, a heading wherever another process or another step goes on."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self.failure: OSError | None = None
        """Why it writes nothing any more: the container that is explained goes on, whoever reads has gone."""
        self._process: tuple[str, int] | None = None
        self._step = ""
        self._told = set[str]()

    def show(self, calls: Sequence[Call]) -> None:
        """Write these calls; where two processes are at work at once, what belongs together of each stays together."""
        text = "".join(f"{line}\n" for call in _in_order(calls) for line in self._lines(call))
        if self.failure:
            return
        try:
            self._write(text)
        except OSError as error:
            self.failure = error

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
    Printer(sys.stdout.write).show(calls)
