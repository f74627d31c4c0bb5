"""What a user of the engine can do wrong, or meet."""

from __future__ import annotations


class EngineError(Exception):
    """One line that says what was tried, what is in the way, and what to do.

    `exit_code` is what the command returns.
    """

    def __init__(self, text: str, exit_code: int = 125) -> None:
        super().__init__(text)
        self.exit_code = exit_code
