"""What can go wrong with a network."""

from __future__ import annotations

from minicontainer.runtime.errors import StartError


class NetworkError(StartError):
    """A network, an address or a port that is not to be had.

    The text is one line that says what was tried, what is in the way, and what to do.
    """

    def __init__(self, text: str, exit_code: int = 125) -> None:
        super().__init__(text, exit_code=exit_code)
