"""JSON documents that others wrote: what is expected at a place, and one line that names the place where it is not.

    config.json: linux.resources.memory.limit: "10 bananas" is no integer

There is no schema and no validator: whoever wants a value asks for it as what it must be, and what nobody asks for
passes, as the OCI runtime specification has it ("Extensibility"). A member that is null is one that is not there.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence

from minicontainer.runtime.errors import BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

LARGEST = 64 << 20
"""Bytes of a document that is read at all."""

INT32 = -(1 << 31), (1 << 31) - 1
INT64 = -(1 << 63), (1 << 63) - 1
UINT16 = 0, (1 << 16) - 1
UINT32 = 0, (1 << 32) - 1
UINT64 = 0, (1 << 64) - 1


def read(path: str, name: str) -> Value:
    """The document in the file `path`, which errors call `name`. Raises BundleError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):  # a FIFO would have us wait for somebody who writes
                raise BundleError(f"{named(name)}: is not a regular file")
            if about.st_size > LARGEST:
                raise BundleError(f"{named(name)}: has {about.st_size} bytes; {LARGEST} are the most that is read")
            parts = list[bytes]()
            while part := os.read(fd, max(about.st_size, 1 << 13)):
                parts.append(part)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BundleError(f"{named(path)}: {getattr(error, 'strerror', None) or error}") from None
    return parse(b"".join(parts), name)


def parse(data: bytes, name: str) -> Value:
    """The document whose text is `data`. Raises BundleError, with line and column where it is no JSON."""
    try:
        return Value(json.loads(data.decode(), parse_constant=_refuse), named(name))
    except json.JSONDecodeError as error:
        why = error.msg[:1].lower() + error.msg[1:].partition(" (")[0]
        where = f"line {error.lineno}, column {error.colno}"
        raise BundleError(f"{named(name)}: {where}: {why}") from None
    except UnicodeDecodeError as error:
        raise BundleError(f"{named(name)}: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise BundleError(f"{named(name)}: arrays and objects are nested too deeply") from None
    except ValueError as error:
        why = "a number has too many digits" if "digits" in str(error) else str(error)
        raise BundleError(f"{named(name)}: {why}") from None


def shown(value: object) -> str:
    """A value as an error tells it: in one line, and not all of a long one."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = json.dumps(value[:64] if isinstance(value, str) else value)
    whole = len(text) <= 60 and not (isinstance(value, str) and len(value) > 64)
    return text if whole else f"{text[:56]}..."


def named(path: str) -> str:
    """The name of a file likewise: as it is, if it can be printed."""
    return path if path.isprintable() and len(path) <= 4096 else shown(path)


def is_list(text: str) -> bool:
    """Whether it is a list of processors or memory nodes, such as ``0-2,7``; an empty one is."""
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        numerals = (first, last) if dash else (first,)
        if not all(numeral.isascii() and numeral.isdecimal() and len(numeral) < 6 for numeral in numerals):
            return False
        if dash and int(first) > int(last):
            return False
    return True


class Value:
    """A value and its place. What is asked for and is not that raises BundleError."""

    __slots__ = ("file", "path", "value")

    def __init__(self, value: Any, file: str, path: str = "") -> None:
        self.value = value
        self.file = file
        self.path = path

    def told(self, what: str) -> str:
        """A line that says something of this place."""
        return ": ".join(filter(None, (self.file, self.path, what)))

    def refuse(self, why: str) -> NoReturn:
        """Raise BundleError: it cannot be as it is."""
        raise BundleError(self.told(why))

    # The value itself

    def as_object(self) -> dict[str, Any]:
        """It is an object."""
        if type(self.value) is not dict:
            self.refuse(f"{shown(self.value)} is no object")
        return self.value

    def as_items(self) -> list[Value]:
        """It is an array: the values in it."""
        if type(self.value) is not list:
            self.refuse(f"{shown(self.value)} is no array")
        return [Value(item, self.file, f"{self.path}[{index}]") for index, item in enumerate(self.value)]

    def as_members(self) -> list[tuple[str, Value]]:
        """It is an object with whatever names: those that are not null, as (name, value)."""
        members = self.as_object().items()
        return [(name, Value(item, self.file, self._place(name))) for name, item in members if item is not None]

    def as_text(self, nul: bool = False) -> str:
        """It is a string that can be handed to the kernel; `nul`: one with NUL bytes will do, too."""
        text = self.value
        if type(text) is not str:
            self.refuse(f"{shown(text)} is no string")
        if not nul and "\0" in text:
            self.refuse(f"{shown(text)} has a NUL character in it")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                self.refuse(f"{shown(text)} has half a character in it, a lone surrogate")
        return text

    def as_path(self) -> str:
        """It is an absolute path."""
        text = self.as_text()
        if not text.startswith("/"):
            self.refuse(f"{shown(text)} is no absolute path")
        return text

    def as_choice(self, *choices: str) -> str:
        """It is one of these."""
        text = self.as_text()
        if text not in choices:
            self.refuse(f"{shown(text)} is none of {', '.join(choices)}")
        return text

    def as_numbers(self) -> str:
        """It is a list of processors or memory nodes, such as ``0-2,7``; returned without spaces."""
        text = self.as_text().replace(" ", "")
        if not is_list(text):
            self.refuse(f"{shown(text)} is no list of numbers such as 0-2,7")
        return text

    def as_integer(self, least: int, most: int) -> int:
        """It is an integer, and in this range."""
        number = self.value
        if type(number) is not int:
            self.refuse(f"{shown(number)} is no integer")
        if not least <= number <= most:
            self.refuse(f"{shown(number)} is not between {least} and {most}")
        return number

    def as_flag(self) -> bool:
        """It is true or false."""
        if type(self.value) is not bool:
            self.refuse(f"{shown(self.value)} is neither true nor false")
        return self.value

    # Members of an object

    def get(self, name: str) -> Value | None:
        """A member that need not be there."""
        item = self.as_object().get(name)
        return None if item is None else Value(item, self.file, self._place(name))

    def __getitem__(self, name: str) -> Value:
        """A member that must be there."""
        item = Value(self.as_object().get(name), self.file, self._place(name))
        if item.value is None:
            item.refuse("is missing")
        return item

    def text(self, name: str, default: str = "") -> str:
        """A string that need not be there."""
        found = self.get(name)
        return default if found is None else found.as_text()

    def texts(self, name: str) -> tuple[str, ...]:
        """An array of strings, empty if it is not there."""
        return tuple([item.as_text() for item in self.items(name)])

    def choices(self, name: str, choices: Sequence[str]) -> tuple[str, ...]:
        """An array of some of these strings, likewise."""
        return tuple([item.as_choice(*choices) for item in self.items(name)])

    def integer(self, name: str, least: int, most: int) -> int | None:
        """An integer that need not be there."""
        found = self.get(name)
        return None if found is None else found.as_integer(least, most)

    def flag(self, name: str) -> bool:
        """True or false, which it is if it is not there."""
        found = self.get(name)
        return False if found is None else found.as_flag()

    def items(self, name: str) -> list[Value]:
        """The values in an array, none if it is not there."""
        found = self.get(name)
        return [] if found is None else found.as_items()

    def members(self, name: str) -> list[tuple[str, Value]]:
        """The members of an object, likewise."""
        found = self.get(name)
        return [] if found is None else found.as_members()

    def _place(self, name: str) -> str:
        if not (name.replace("_", "").isalnum() and name.isascii() and len(name) <= 60):
            return f"{self.path}[{shown(name)}]"
        return f"{self.path}.{name}" if self.path else name


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
