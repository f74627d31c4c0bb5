"""What every command that lists or shows something has: ``--format`` and ``--json``.

    --format '{{.Names}} {{.Status}}'   a line for each, by a template of Go's text/template, as docker takes it
    --format 'table {{.ID}}\\t{{.Image}}' likewise, in columns that have headings
    --format json                       a line of JSON for each
    --json                              one array of JSON

Of Go's language there is what people use: fields (also of fields), ``range``, ``if`` and ``else``, and docker's
functions json, join, lower, upper, title, split, len, index, println, eq, ne, not, slice. A field that is not there is
an error.
"""

from __future__ import annotations

import json

from minicontainer.engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Fields = Mapping[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Both of them."""
    parser.add_argument("--format", metavar="TEMPLATE", help="'{{.NAME}} …', 'table {{.NAME}}…' or json, as docker's")
    parser.add_argument("--json", action="store_true", help="for programs")


def show_list(
    arguments: argparse.Namespace,
    columns: Mapping[str, str],
    rows: Sequence[Fields],
    *,
    data: Callable[[], object] | None = None,
) -> None:
    """Print rows, as the options say: a table of `columns` (field → heading), unless they say something else.

    The rows may have fields that are no columns, for templates. `data` makes what --json prints, where that is not the
    rows. Raises EngineError: a template that is none.
    """
    if arguments.json:
        print(json.dumps(data() if data else rows, indent=2), flush=True)
    elif not arguments.format:
        print_table([tuple(columns.values()), *(tuple(str(row[field]) for field in columns) for row in rows)])
    else:
        _show(arguments.format, columns, rows)


def show_objects(arguments: argparse.Namespace, found: Sequence[Fields]) -> None:
    """Print everything of these, as ``inspect`` does: an array of JSON, unless --format says something else."""
    if arguments.json or not arguments.format:
        print(json.dumps(found, indent=2))
    else:
        _show(arguments.format, {}, found)


def _show(text: str, columns: Mapping[str, str], rows: Sequence[Fields]) -> None:
    if text == "json":
        for row in rows:
            print(json.dumps(row))
        return
    table = text == "table" or text.startswith("table ")
    if text == "table":
        print_table([tuple(columns.values()), *(tuple(str(row[field]) for field in columns) for row in rows)])
        return
    text = (text.removeprefix("table ").strip() if table else text).replace("\\t", "\t").replace("\\n", "\n")
    template = Template(text)
    lines = [template.fill(row) for row in rows]
    if not table:
        for line in lines:
            print(line)
        return
    cells = [tuple(line.split("\t")) for line in [template.headings(columns), *lines]]
    most = max(map(len, cells))
    print_table([row + ("",) * (most - len(row)) for row in cells])


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as what is in them, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class Template:
    """A template, taken apart once: `fill` puts an object's fields into it. Raises EngineError: it is none."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._parts, rest = self._block(_pieces(text), ())
        if rest:
            raise self._wrong("there is an {{end}} or {{else}} too many")

    def fill(self, item: Any) -> str:
        """The text for one object. Raises EngineError: a field that it does not have."""
        return self._filled(self._parts, item)

    def headings(self, columns: Mapping[str, str]) -> str:
        """The same with headings in the fields' place; a field that is no column has its own name."""
        out = []
        for kind, words, *_ in self._parts:
            if kind == "text":
                out.append(words)
            else:
                names = [word.strip("().") for word in _words(words) if word.strip("(").startswith(".")]
                name = (names or [""])[-1].rpartition(".")[2]
                out.append(columns.get(name, name.upper()))
        return "".join(out)

    def _block(self, pieces: list[tuple[bool, str]], ends: tuple[str, ...]) -> tuple[list[Any], list[tuple[bool, str]]]:
        """The parts up to one of `ends`, and the pieces from that on."""
        parts: list[Any] = []
        while pieces:
            (is_action, text), pieces = pieces[0], pieces[1:]
            verb = text.split()[0] if is_action and text.split() else ""
            if not is_action:
                parts.append(("text", text))
            elif verb in ("end", "else"):
                return parts, [(is_action, text), *pieces]
            elif verb in ("range", "if"):
                inner, pieces = self._block(pieces, ("end", "else"))
                otherwise: list[Any] = []
                if pieces and pieces[0][1].split()[0] == "else":
                    otherwise, pieces = self._block(pieces[1:], ("end",))
                if not pieces:
                    raise self._wrong(f"{{{{{verb}}}}} has no {{{{end}}}}")
                pieces = pieces[1:]
                parts.append((verb, text.split(None, 1)[1] if len(text.split()) > 1 else "", inner, otherwise))
            elif not verb:
                raise self._wrong("{{}} is empty")
            else:
                parts.append(("value", text))
        if ends:
            raise self._wrong("an {{end}} is missing")
        return parts, []

    def _filled(self, parts: list[Any], item: Any) -> str:
        out = []
        for kind, text, *blocks in parts:
            if kind == "text":
                out.append(text)
                continue
            value = self._piped(text, item)
            if kind == "value":
                out.append(_as_text(value))
            elif kind == "if":
                out.append(self._filled(blocks[0 if value else 1], item))
            else:
                several = list(value.values()) if isinstance(value, dict) else list(value or ())
                out += [self._filled(blocks[0], one) for one in several]
                if not several:
                    out.append(self._filled(blocks[1], item))
        return "".join(out)

    def _piped(self, text: str, item: Any) -> Any:
        """``.Names | upper``: each is the last argument of the next."""
        value, given = None, False
        for stage in _stages(_words(text)):
            value, given = self._call(stage, item, (value,) if given else ()), True
        return value

    def _call(self, words: list[str], item: Any, more: tuple[Any, ...]) -> Any:
        if not words:
            raise self._wrong("something is missing beside a |")
        if words[0] in _FUNCTIONS:
            values = [*(self._value(word, item) for word in words[1:]), *more]
            try:
                return _FUNCTIONS[words[0]](*values)
            except (TypeError, ValueError, LookupError, AttributeError):
                raise self._wrong(f"{words[0]} cannot be done with that") from None
        if len(words) > 1 or more:
            raise self._wrong(f'there is no function "{words[0]}"; there are {", ".join(_FUNCTIONS)}')
        return self._value(words[0], item)

    def _value(self, word: str, item: Any) -> Any:
        if word.startswith("("):
            return self._piped(word[1:-1], item)
        if word[0] in "\"'`":
            return word[1:-1]
        if word.lstrip("-").isdecimal():
            return int(word)
        if word in ("true", "false"):
            return word == "true"
        if not word.startswith("."):
            raise self._wrong(f'"{word}" is no field: write .{word}')
        value = item
        for name in filter(None, word.split(".")):
            if not isinstance(value, dict) or name not in value:
                there = f"; there are {', '.join(value)}" if isinstance(value, dict) and value else ""
                raise self._wrong(f'there is no field "{name}"{there}')
            value = value[name]
        return value

    def _wrong(self, what: str) -> EngineError:
        return EngineError(f'--format "{self._text}": {what}')


def _pieces(text: str) -> list[tuple[bool, str]]:
    """(whether it is what stood between {{ and }}, the text)."""
    found, rest = list[tuple[bool, str]](), text
    while True:
        before, opened, rest = rest.partition("{{")
        trimmed = rest.startswith("- ")
        if before:
            found.append((False, before.rstrip() if trimmed else before))
        if not opened:
            return found
        inside, closed, rest = rest.partition("}}")
        if not closed:
            raise EngineError(f'--format "{text}": a "{{{{" is never closed')
        if inside.endswith(" -"):
            inside, rest = inside[:-2], rest.lstrip()
        found.append((True, inside.removeprefix("- ").strip()))


def _words(text: str) -> list[str]:
    """Words, where what is quoted or in parentheses is one."""
    words, word, quote, depth = list[str](), "", "", 0
    for character in text + " ":
        if quote:
            word, quote = word + character, "" if character == quote else quote
        elif character in "\"'`":
            word, quote = word + character, character
        elif depth or character == "(":
            depth += {"(": 1, ")": -1}.get(character, 0)
            word += character
        elif character in " |":
            words += [word] if word else []
            words += ["|"] if character == "|" else []
            word = ""
        else:
            word += character
    if quote or depth:
        raise EngineError(f'--format: "{text}": a quotation mark or parenthesis is never closed')
    return words


def _stages(words: list[str]) -> list[list[str]]:
    stages: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    return stages


def _as_text(value: Any) -> str:
    """As Go prints it, where that can be read: true, [a b], map[k:v]."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<no value>"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(_as_text, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_as_text(one)}' for key, one in sorted(value.items()))}]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, dict) else value[key]
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": json.dumps,
    "join": lambda several, between: between.join(map(_as_text, several)),
    "lower": lambda text: _as_text(text).lower(),
    "upper": lambda text: _as_text(text).upper(),
    "title": lambda text: _as_text(text).title(),
    "split": lambda text, between: text.split(between),
    "len": len,
    "index": _index,
    "println": lambda *values: " ".join(map(_as_text, values)) + "\n",
    "eq": lambda one, *others: one in others,
    "ne": lambda one, other: one != other,
    "not": lambda value: not value,
    "slice": lambda value, *ends: value[slice(*ends)] if len(ends) == 2 else value[ends[0] :],
}
