"""What a student expected, before the kernel showed how it is.

    %%predict parent
    The child renames itself. Which name does its parent see?
    My prediction: the old one

and, below the experiment, ``%look_back parent``. The notebook holds the prediction, in the cell's own text; so it is
there still when the session is not.
"""

from __future__ import annotations

from dataclasses import dataclass

MARK = "My prediction:"


@dataclass
class Prediction:
    """A question, and what was expected."""

    question: str
    answer: str
    first: str = ""
    """What was expected before the outcome was seen, if that was changed after it."""
    seen: bool = False


class Predictions:
    """Those of a session, by name."""

    def __init__(self) -> None:
        self._known: dict[str, Prediction] = {}

    def record(self, name: str, text: str) -> str:
        """Record what the cell says; returns what to tell about it. Raises ValueError (there is no such line)."""
        question, mark, answer = text.partition(MARK)
        if not mark:
            raise ValueError(f'the line that begins with "{MARK}" is missing: write your prediction behind that')
        question, answer = " ".join(question.split()), answer.strip()
        old = self._known.get(name)
        new = Prediction(question, answer)
        if old and old.seen:
            new.seen, new.first = True, old.first or old.answer or "nothing"
        self._known[name] = new
        if not answer:
            return (
                f"Nothing is predicted yet. Write a line behind “{MARK}” and run this cell again, before you go on: "
                "who has bet on it looks at the outcome with other eyes."
            )
        return f"Recorded. Below the experiment, %look_back {name} reminds you of it."

    def look_back(self, name: str, measured: str = "") -> str:
        """What was asked, expected and, if it is given, measured. Raises KeyError."""
        known = self._known[name]
        known.seen = True
        lines = [f"The question:  {known.question}"]
        if known.answer:
            lines.append(f"You predicted: {known.answer}")
        else:
            lines.append("You predicted: nothing, this time. Would you have known?")
        if known.first and known.first != known.answer:
            lines.append(f"Before you saw the outcome, that was: {known.first}")
        if measured:
            lines.append(f"The kernel:    {measured}")
        if known.answer:
            lines.append("If the two differ: which sentence above would you have to read otherwise?")
        return "\n".join(lines)

    def names(self) -> list[str]:
        """Those that there are, in their order."""
        return list(self._known)

    def forget(self) -> None:
        """As if the notebook had just been opened."""
        self._known.clear()
