"""What a user of the engine can do wrong, or meet."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class EngineError(Exception):
    """One line that says what was tried, what is in the way, and what to do.

    `exit_code` is what the command returns.
    """

    def __init__(self, text: str, exit_code: int = 125) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def did_you_mean(word: str, among: Iterable[str]) -> str:
    """``; did you mean "ps"?``, where one of `among` is like it; "" where none is."""
    import difflib  # when something is wrong anyway

    like = difflib.get_close_matches(word, [*among], 1, 0.6)
    return f'; did you mean "{like[0]}"?' if like else ""
