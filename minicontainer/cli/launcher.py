"""Write the commands of a virtual environment, `minicontainer` and `minicontainer-runtime`: they start in half the time
of pip's.

    python -I minicontainer/cli/launcher.py .venv/bin

The script that pip generates starts the interpreter in full: `site` reads every .pth file in site-packages, and runs
what other packages left in them, before our first line; the script itself imports `re`. That is 17 ms where the bare
interpreter needs 7.5, and a whole `minicontainer run` is to take no more than 30. The command written here starts it
with -I (nothing from the environment or the current directory) and -S (no `site`), 8 ms in all, and puts on sys.path
what `site` would have: this checkout and, for the imports that come later, such as rich for a table on a terminal,
site-packages, whose .pth files stay unread. A ^C from here on waits until main() can say something better than where
the imports were interrupted.

Run as a file, by `make setup`: as a module it would import the command line, which is not needed here.
"""

import os
import shlex
import sys
import sysconfig
from pathlib import Path

# Linux before 5.1 cuts a #! line after 127 bytes, and no version lets the interpreter's path have a space in it.
SHEBANG_LIMIT = 127

SCRIPT = """\
# Written by minicontainer/cli/launcher.py, which says why.
import _signal
import sys

_signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])
sys.path += {paths!r}

from minicontainer.start import {function}

{function}()
"""

COMMANDS = {"minicontainer": "start", "minicontainer-runtime": "start_runtime"}
"""Command → the function of `start` that it calls."""


def first_lines(interpreter: str) -> str:
    """The line, or lines, that make the kernel run the rest of the file with `interpreter -IS`."""
    shebang = f"#!{interpreter} -IS\n"
    if len(os.fsencode(shebang)) <= SHEBANG_LIMIT and not any(character.isspace() for character in interpreter):
        return shebang
    # /bin/sh reads a command, ''exec' …', that never returns; Python reads a string, and goes on after it.
    return f"#!/bin/sh\n'''exec' {shlex.quote(interpreter)} -IS \"$0\" \"$@\"\n' '''\n"


def write(command: Path, function: str, interpreter: str, paths: list[str]) -> None:
    """Write the launcher to `command`, all at once, so that nobody runs half of it.

    Args:
        command: the file to write.
        function: of `minicontainer.start`.
        interpreter: absolute path of the virtual environment's python.
        paths: what the launcher adds to sys.path, behind the standard library.
    """
    unfinished = command.with_name(f".{command.name}.{os.getpid()}")
    unfinished.write_text(first_lines(interpreter) + SCRIPT.format(paths=paths, function=function), encoding="utf-8")
    unfinished.chmod(0o755)
    unfinished.replace(command)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    for name, function in COMMANDS.items():
        write(
            Path(sys.argv[1], name),
            function,
            sys.executable,
            [str(Path(__file__).resolve().parents[2]), sysconfig.get_path("purelib")],
        )
