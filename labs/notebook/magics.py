"""The magics of the course's notebooks.

%%exercise STEP.FUNCTION   the cell is an answer: it is compiled, defined and kept, and not run in this process
%%apart                    the cell runs in a process of its own, as root of namespaces of its own
%check [NN]                what the kernel thinks of the answers so far
"""

from __future__ import annotations

import builtins
import json
import linecache
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.display import display

from labs.catalogue import NoSuchLab
from labs.notebook.results import Results
from labs.notebook.session import Stored, session
from minicontainer.steps import Steps

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

EVERYTHING = ["--user", "--map-root-user", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
"""unshare(1): whatever a cell does to itself in there, the host does not notice."""

PATIENCE = 60
"""Seconds that a cell under %%apart may take."""

_APART = """\
import json, os, sys, traceback
from minicontainer.steps.loading import Exercise, define, read_exercises
from pathlib import Path
functions, wrong = define(read_exercises([Path(sys.argv[1])]).values())
for error in wrong.values():
    print(error, file=sys.stderr)
namespace = {"__name__": "__main__"}
exec("from minicontainer.linux import *\\nimport os", namespace)
namespace |= json.loads(sys.argv[3])
namespace |= {name.rpartition(".")[2]: function for name, function in functions.items()}
import linecache
source = Path(sys.argv[2]).read_text()
linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")
try:
    exec(compile(source, "<cell>", "exec"), namespace)
except Exception as error:
    shown = error.__traceback__.tb_next or error.__traceback__
    traceback.print_exception(type(error), error, shown if not isinstance(error, SyntaxError) else None)
    sys.exit(1)
"""


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
        try:
            variables = json.dumps({name: self._shell.user_ns[name] for name in line.split()})
        except KeyError as error:
            raise UsageError(f"there is no variable {error.args[0]} here: run the cell that makes it first") from None
        except TypeError as error:
            raise UsageError(
                f"only texts, numbers and lists of them can be given to a cell under %%apart: {error}"
            ) from None
        if shutil.which("unshare") is None:
            raise UsageError("%%apart needs unshare(1) of util-linux: apt install util-linux")
        with tempfile.TemporaryDirectory(prefix="apart-") as directory:
            code = Path(directory, "cell.py")
            code.write_text(cell, encoding="utf-8")
            mine = session.write(Path(directory, "session.ipynb"))
            try:
                done = subprocess.run(
                    [
                        "unshare",
                        *EVERYTHING,
                        "--mount-proc",
                        sys.executable,
                        "-u",
                        "-c",
                        _APART,
                        str(mine),
                        str(code),
                        variables,
                    ],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=PATIENCE,
                )
            except subprocess.TimeoutExpired as error:
                sys.stdout.write(_text(error.stdout))
                sys.stderr.write(_text(error.stderr))
                print(f"the process was ended: it was not done after {PATIENCE} seconds", file=sys.stderr)
                return
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        if done.returncode < 0 or done.returncode > 1:
            print(f"the process ended with status {done.returncode}", file=sys.stderr)

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


def load(shell: InteractiveShell) -> None:
    """Give a notebook the magics, and the names that its cells use."""
    shell.register_magics(CourseMagics)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
