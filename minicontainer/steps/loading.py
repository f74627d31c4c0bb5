"""Reading somebody's own steps out of a notebook or a Python file.

An **exercise** is a cell whose first line is ``%%exercise uts.set_names`` and that defines ``set_names``; in a ``.py``
file a block that begins with ``# %%exercise uts.set_names`` and goes on to the next line that begins with ``# %%``.
Nothing else of the file is run, and notebook metadata, which editors drop, is never asked. Where a name comes twice,
the last counts.
"""

from __future__ import annotations

import builtins
import json
import os
import stat
from collections.abc import Callable, Iterable

from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

MARKER = "%%exercise"
LARGEST = 4 << 20  # bytes; a notebook of this course has some ten thousand


class BadSubmission(Exception):
    """A file from which no exercise can be read. The text says which file and what is wrong with it."""


class BadExercise(Exception):
    """An exercise that cannot be used: it does not compile, fails as it is run, or does not define its function."""


class Exercise(Record):
    """One exercise as its author left it."""

    name: str
    """Such as ``uts.set_names``."""
    source: str
    """The text of the cell, without its first line."""
    times: int = 1
    """How often the name was found; this is the last."""


def read_exercises(paths: Iterable[Path], *, follow: bool = True) -> dict[str, Exercise]:
    """The exercises in these notebooks and modules, by name. Runs nothing. Raises BadSubmission.

    `follow=False` refuses a symbolic link, which among other people's files may lead to something that is not theirs.
    """
    found: dict[str, Exercise] = {}
    for path in paths:
        for cell in _cells(path, follow):
            first, _, rest = cell.lstrip("\n").partition("\n")
            words = first.removeprefix("# ").split()
            if words[:1] == [MARKER] and len(words) == 2:
                times = found[words[1]].times + 1 if words[1] in found else 1
                found[words[1]] = Exercise(words[1], rest, times)
    return found


def define(exercises: Iterable[Exercise]) -> tuple[dict[str, Callable[..., object]], dict[str, BadExercise]]:
    """Run the cells, all in one namespace as in a notebook, and return the functions, and what went wrong, by name.

    **This runs somebody else's code**: only ever where it can do no harm, or for its own author.
    """
    import linecache

    functions: dict[str, Callable[..., object]] = {}
    wrong: dict[str, BadExercise] = {}
    namespace: dict[str, object] = {"__name__": "exercises", "__builtins__": builtins}
    exec("from minicontainer.linux import *\nimport os", namespace)  # what every exercise may use without asking
    for exercise in exercises:
        function = exercise.name.rpartition(".")[2]
        filename = f"<exercise {exercise.name}>"
        source = f"\n{exercise.source}"  # the first line of the cell is the marker: so line numbers are the cell's
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
        namespace.pop(function, None)
        try:
            exec(compile(source, filename, "exec"), namespace)
        except BaseException as error:  # SystemExit too: whatever the cell does at its top level is its own mistake
            wrong[exercise.name] = BadExercise(f"{exercise.name}: the cell failed: {_told(error, filename)}")
            continue
        if callable(defined := namespace.get(function)):
            functions[exercise.name] = defined
        else:
            wrong[exercise.name] = BadExercise(f"{exercise.name}: the cell does not define a function {function}()")
    return functions, wrong


def files_of(path: Path) -> list[Path]:
    """The notebooks and modules that `path` stands for: itself, or those directly in the directory, sorted by name."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in (".ipynb", ".py") and file.is_file())
    return [path]


def _cells(path: Path, follow: bool) -> list[str]:
    text = _text(path, follow)
    if path.suffix == ".py":
        blocks: list[list[str]] = [[]]
        for line in text.split("\n"):  # not splitlines(): that cuts at characters too that Python takes for a blank
            if line.startswith("# %%"):
                blocks.append([])
            blocks[-1].append(line)
        return ["\n".join(block) for block in blocks]
    try:
        cells = json.loads(text)["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
        return [source if isinstance(source, str) else "".join(source) for source in sources]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadSubmission(f"{path.name} is not a notebook: {type(error).__name__}: {error}") from None


def _text(path: Path, follow: bool) -> str:
    if not follow and path.is_symlink():
        raise BadSubmission(f"{path.name} is a symbolic link: the file itself is wanted")
    extra = os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)  # a named pipe that nobody writes to: we do not wait
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | extra)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadSubmission(f"{path.name} is not a file")
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise BadSubmission(f"{path.name} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise BadSubmission(f"{path.name} is larger than {LARGEST >> 20} MiB: clear its outputs")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadSubmission(f"{path.name} is not UTF-8 text (byte {error.start}): save it again as UTF-8") from None


def _told(error: BaseException, filename: str) -> str:
    """One line: what, and in which line of the cell."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # the text of somebody else's exception is somebody else's code
        message = "(its text cannot be had)"
    where = f" (line {line} of the cell)" if line else ""
    return f"{type(error).__name__}: {message}{where}"
