"""What a user of the engine can do wrong, or meet."""

from __future__ import annotations

TOO_DEEP = "directories are nested too deep in there, some hundreds in one another; remove those first"
"""For what looks into each directory of a tree: it has as many of them open as it is deep."""


class EngineError(Exception):
    """One line that says what was tried, what is in the way, and what to do.

    `exit_code` is what the command returns.
    """

    def __init__(self, text: str, exit_code: int = 125) -> None:
        super().__init__(text)
        self.exit_code = exit_code
