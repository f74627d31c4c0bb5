"""What `minicontainer check` says about one feature of this machine."""

from __future__ import annotations

from minicontainer.record import Record


class Finding(Record):
    """One feature: yes or no, why, and how to mend it. Its fields are the keys of the JSON, and stay what they are."""

    feature: str
    """What it is called, here and in a year: one name, one finding."""
    works: bool | None
    """None: it cannot be told, because to try it would change this machine (load a module, for instance)."""
    shows: str
    """What was found, or why not."""
    mend: str = ""
    """What to do, where it does not work."""
    required: bool = False
    """Without it no container starts."""
    options: tuple[str, ...] = ()
    """The kernel's options that bring it: ``CONFIG_VETH``."""
    heading: str = ""
    """What it is listed under."""


def content(path: str) -> str:
    """What a small file says, without its last newline; "" where it is not there, or not for us to read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
