"""The magics of the course's notebooks.

%%exercise STEP.FUNCTION   the cell is an answer: it is compiled, defined and kept, and not run in this process
%check [NN]                what the kernel thinks of the answers so far
%hint STEP.FUNCTION        one step towards an answer; again: the next one
%%predict NAME             the cell holds a question and what you expect; %look_back NAME, below the experiment
%%isolated [--new KINDS]   the cell runs in a process of its own, in a sandbox (%%apart is the same without options)
%nsdiff, %pstree, %mounts, %cgroup, %packets   look at processes and their surroundings, here and in a cell apart
%explain COMMAND           a minicontainer command, with every system call by which it changes something
%reset-lab                 leave the host as it was before the first notebook

What a cell has started and left behind is ended when it is done.
"""

from __future__ import annotations

import argparse
import builtins
import json
import linecache
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.display import display

from labs.catalogue import NoSuchLab, every
from labs.notebook import isolated, tidying, views
from labs.notebook.results import Results
from labs.notebook.session import Stored, lab_root, session
from minicontainer.linux import Namespace
from minicontainer.steps import Steps

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


@magics_class
class CourseMagics(Magics):
    """See the head of this file."""

    @cell_magic
    def exercise(self, line: str, cell: str) -> None:
        """%%exercise STEP.FUNCTION: keep this cell as the answer to an exercise."""
        name = line.strip()
        if name not in Steps.names():
            close = [known for known in Steps.names() if known.rpartition(".")[2] == name.rpartition(".")[2]]
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(f'there is no exercise "{name}"{hint}')
        function = name.rpartition(".")[2]
        filename = f"<exercise {name}>"
        linecache.cache[filename] = (len(cell), None, cell.splitlines(True), filename)
        namespace: dict[str, Any] = {"__name__": "exercises", "__builtins__": builtins}
        exec("from minicontainer.linux import *\nimport os", namespace)  # as where it is graded
        exec(compile(cell, filename, "exec"), namespace)
        defined = namespace.get(function)
        if not callable(defined):
            raise UsageError(f"the cell does not define a function {function}()")
        session.store(name, cell)
        self._shell.user_ns[function] = Stored(name, defined.__doc__)
        print(f"{name} is stored. What does the kernel think of it? %check")

    @cell_magic
    def apart(self, line: str, cell: str) -> None:
        """%%apart [VARIABLE…]: run this cell in a new process, root of new namespaces, with your exercises at hand.

        The variables named are given to it: copies, of texts and numbers.
        """
        self._isolated(cell, line.split())

    @cell_magic
    def isolated(self, line: str, cell: str) -> None:
        """%%isolated [--new uts,pid,…] [--explain] [VARIABLE…]: run this cell in a child, in a sandbox.

        Without --new it is root of the sandbox's namespaces: what it breaks there, nobody misses. With --new it is born
        into further ones, of these kinds, inside of the sandbox, as a container's process 1 is: `%nsdiff sandbox`. With
        --explain, each system call by which it changes something is listed. Output, pictures and errors come back here.
        """
        options = _Options(prog="%%isolated", add_help=False)
        options.add_argument("--new", default="")
        options.add_argument("--explain", action="store_true")
        options.add_argument("variables", nargs="*")
        told = options.parse_args(shlex.split(line))
        new = [name for name in told.new.replace(",", " ").split() if name]
        known = [kind.proc_name for kind in Namespace if kind.supported]
        if wrong := [name for name in new if name not in known]:
            raise UsageError(f'"{wrong[0]}" is no kind of namespace of this kernel; there are: {", ".join(known)}')
        self._isolated(cell, told.variables, new, explain=told.explain)

    def _isolated(self, cell: str, names: list[str], new: list[str] | None = None, *, explain: bool = False) -> None:
        try:
            variables = {name: self._shell.user_ns[name] for name in names}
            json.dumps(variables)
        except KeyError as error:
            raise UsageError(f"there is no variable {error.args[0]} here: run the cell that makes it first") from None
        except TypeError as error:
            raise UsageError(f"only texts, numbers and lists of them can be given to a cell apart: {error}") from None
        try:
            source: str = self._shell.transform_cell(cell)  # type: ignore[no-untyped-call]
            isolated.run(cell, source, variables, new or (), explain=explain)
        except isolated.NoSandbox as error:
            raise UsageError(str(error)) from None

    @cell_magic
    def predict(self, line: str, cell: str) -> None:
        """%%predict NAME: the cell is a question, and behind "My prediction:" what you expect. It is recorded."""
        if not line.strip():
            raise UsageError("%%predict needs a name, by which %look_back finds the prediction again")
        try:
            print(session.predictions.record(line.strip(), cell))
        except ValueError as error:
            raise UsageError(str(error)) from None

    @line_magic
    def look_back(self, line: str) -> None:
        """%look_back NAME [WHAT WAS MEASURED]: what you predicted, beside what there is to be seen now."""
        name, _, measured = line.strip().partition(" ")
        try:
            print(session.predictions.look_back(name, measured.strip()))
        except KeyError:
            there = ", ".join(session.predictions.names()) or "none: run the cell that begins with %%predict first"
            raise UsageError(f'there is no prediction "{name}"; there are: {there}') from None

    @line_magic
    def hint(self, line: str) -> None:
        """%hint STEP.FUNCTION: one step towards the answer; again: the next. %hint STEP.FUNCTION 1: the first again."""
        name, _, number = line.strip().partition(" ")
        hints = {exercise: steps for lab in every() for exercise, steps in lab.hints.items()}
        if name not in hints:
            there = [exercise for exercise in session.exercises if exercise in hints] or sorted(hints)
            raise UsageError(f'there are no hints for "{name}"; try: {", ".join(f"%hint {one}" for one in there)}')
        steps = hints[name]
        given = int(number) if number.isdecimal() else session.hints.get(name, 0) + 1
        if not 1 <= given <= len(steps):
            session.hints[name] = len(steps)
            print(
                f"These were all {len(steps)}; %hint {name} 1 tells the first again. What does the kernel say? %check"
            )
            return
        session.hints[name] = given
        more = f"  (%hint {name} again tells more)" if given < len(steps) else ""
        print(f"{given} of {len(steps)}: {steps[given - 1]}{more}")

    def _view(self, name: str, line: str) -> None:
        try:
            views.VIEWS[name](line)
        except views.Unclear as error:
            raise UsageError(f"%{name}: {error}") from None

    @line_magic
    def nsdiff(self, line: str) -> None:
        """%nsdiff [PROCESS [PROCESS]]: the namespaces of two processes, kind by kind."""
        self._view("nsdiff", line)

    @line_magic
    def pstree(self, line: str) -> None:
        """%pstree [PROCESS]: a process and its descendants, with their numbers in each PID namespace."""
        self._view("pstree", line)

    @line_magic
    def mounts(self, line: str) -> None:
        """%mounts [PROCESS [PROCESS]]: what is mounted where, or how two processes differ in that."""
        self._view("mounts", line)

    @line_magic
    def cgroup(self, line: str) -> None:
        """%cgroup [PROCESS]: the control groups of a process, and what stands in their files."""
        self._view("cgroup", line)

    @line_magic
    def packets(self, line: str) -> None:
        """%packets KIND [mine]: follow a packet; in a cell apart: what was heard on its devices."""
        self._view("packets", line)

    @line_magic
    def explain(self, line: str) -> None:
        """%explain COMMAND…: what `minicontainer --explain` tells of it, with the answers of this session as its steps.

        For instance: %explain run --rm busybox true
        """
        words = shlex.split(line)
        if not words:
            raise UsageError("%explain which command? For instance: %explain run --rm busybox true")
        with tempfile.TemporaryDirectory(prefix="explain-") as directory:
            told = Path(directory, "calls")
            steps = ["--steps", str(session.write(Path(directory, "session.ipynb")))] if session.exercises else []
            command = [sys.executable, "-m", "minicontainer", "--root", str(lab_root()), *steps, words[0]]
            done = subprocess.run(
                [*command, "--explain-to", str(told), *words[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=isolated.PATIENCE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            sys.stdout.write((told.read_text() if told.exists() else "") + done.stdout)
            sys.stderr.write(done.stderr)

    @line_magic("reset-lab")  # type: ignore[arg-type]
    def reset_lab(self, line: str) -> None:
        """%reset-lab: end the labs' containers, remove their files, forget answers, hints and predictions."""
        if line.strip():
            raise UsageError("%reset-lab takes nothing")
        gone = tidying.reset()
        session.forget()
        for name in [name for name, value in self._shell.user_ns.items() if isinstance(value, Stored)]:
            del self._shell.user_ns[name]
        for one in gone:
            print("gone:", one)
        print("This session knows no answers any more; your cells still have them. Begin again at the top.")

    @line_magic
    def check(self, line: str) -> None:
        """%check [NN]: run the checks of lab NN (by default: of the latest exercise) on this session's answers."""
        try:
            lab = session.lab(line.strip() or None)
        except NoSuchLab as error:
            raise UsageError(str(error)) from None
        if not any(name in session.exercises for name in lab.exercises):
            exercises = " or ".join(f"%%exercise {name}" for name in lab.exercises)
            raise UsageError(
                f"nothing to check yet in lab {lab.number}: run the cell that begins with {exercises} first"
            )
        results = run_checks(lab.number)
        display(results)  # type: ignore[no-untyped-call]
        if results.full:
            print("Full marks. The kernel agrees with you on every point.")

    @property
    def _shell(self) -> InteractiveShell:
        assert self.shell is not None
        return self.shell


def run_checks(number: str) -> Results:
    """The checks of lab `number` on this session's exercises, in another process. Raises UsageError."""
    with tempfile.TemporaryDirectory(prefix="check-") as directory:
        submission = session.write(Path(directory, "session.ipynb"))
        done = subprocess.run(
            [sys.executable, "-m", "labs", "check", number, "--subject", str(submission), "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    try:
        return Results(json.loads(done.stdout))
    except ValueError:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UsageError(f"the checks could not be run (exit status {done.returncode}): {last}") from None


class _Options(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def load(shell: InteractiveShell) -> None:
    """Give a notebook the magics, and see to it that nothing outlives its cell."""
    shell.register_magics(CourseMagics)
    if views.before is None:  # as the extension is loaded again, that would not be the beginning any more
        views.before = views.Before()
        tidying.mark()
        after: Callable[..., None] = _tidied
        shell.events.register("post_run_cell", after)


def _tidied(*_: object) -> None:
    for one in tidying.tidy():
        print(f"ended, because nothing outlives its cell: {one}")
