"""Files of docker's with a line for each value: ``--env-file`` and ``--label-file``."""

from __future__ import annotations

import os

from minicontainer.engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def environment_of(paths: Sequence[str]) -> list[str]:
    """``NAME=VALUE`` of all lines, in order. Of a NAME alone it is our own value, and nothing if we have none.

    Raises EngineError: a file cannot be read, or a line of it is none.
    """
    found = []
    for line in _lines(paths, "--env-file"):
        if "=" in line:
            found.append(line)
        elif line in os.environ:
            found.append(f"{line}={os.environ[line]}")
    return found


def labels_of(paths: Sequence[str]) -> list[str]:
    """``NAME=VALUE``, or NAME, of all lines. Raises EngineError."""
    return _lines(paths, "--label-file")


def _lines(paths: Sequence[str], option: str) -> list[str]:
    found = []
    for path in paths:
        try:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read()
        except OSError as error:
            raise EngineError(f"{option} {path}: cannot read it: {error.strerror}") from None
        except UnicodeDecodeError:
            raise EngineError(f"{option} {path}: it is not UTF-8 text") from None
        for number, line in enumerate(text.split("\n"), 1):
            line = line.lstrip().removesuffix("\r")
            if not line or line.startswith("#"):
                continue
            name = line.partition("=")[0]
            if not name or "\0" in line or any(character.isspace() for character in name):
                raise EngineError(f'{option} {path}, line {number}: "{name}" cannot be a name: write NAME=VALUE')
            found.append(line)
    return found
