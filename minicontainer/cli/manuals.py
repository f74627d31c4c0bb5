"""``completion`` and ``man``: scripts for shells and pages of the manual, both written from the parsers themselves.

So neither can say what is not so: an option that is added to a command is completed, and in its page, with the next
look. The scripts ask us for the names of containers, images and networks when a line is completed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from minicontainer.cli.arguments import COMMANDS, Parser, main_parser, parser_of
from minicontainer.cli.examples import EXAMPLES
from minicontainer.engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = {
    "CONTAINER": "containers", "NAME": "anything", "IMAGE": "images", "NETWORK": "networks", "SOURCE": "containers",
    "IMAGE|FILE": "images", "VOLUME": "volumes",
}  # fmt: skip
"""What is completed in the place of a word, by what the help calls it; anything else is a file."""

FROM_US = {
    "containers": "ps --all --format '{{.Names}}'",
    "images": "images --format '{{.Repository}}:{{.Tag}}'",
    "networks": "network ls --quiet",
    "volumes": "volume ls --quiet",
}
"""Kind of word → the command that prints them."""


# What there is


def described() -> Iterator[tuple[str, Parser]]:
    """Every command, also those of two words, with its parser."""
    from minicontainer.cli import images, networks, volumes

    for name in COMMANDS:
        yield name, parser_of(name)
    inner: dict[str, dict[str, Any]] = {
        "network": networks.COMMANDS, "volume": volumes.COMMANDS, "image": images.IMAGE_COMMANDS,
        "system": images.SYSTEM_COMMANDS,
    }  # fmt: skip
    for outer, several in inner.items():
        for name, (description, options, _) in several.items():
            parser = Parser(prog=f"minicontainer {outer} {name}", description=f"{description}.")
            options(parser)
            yield f"{outer} {name}", parser


def _visible(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _options(parser: Parser) -> list[argparse.Action]:
    return [action for action in _visible(parser) if action.option_strings]


def _words_of(parser: Parser) -> str:
    """What a command's words are: a kind, or the words themselves, where there are only so many."""
    for action in _visible(parser):
        if not action.option_strings:
            if action.choices:
                return " ".join(map(str, action.choices))
            return _kind(action)
    return "files"


def _kind(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else ""
    return KINDS.get(name.split("[")[0].split(":")[0], "files")


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


# completion


def completion_options(parser: Parser) -> None:
    """Of ``completion``."""
    parser.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help=", ".join(SHELLS))


def completion(arguments: argparse.Namespace) -> int:
    """``minicontainer completion``: to standard output."""
    print(SHELLS[arguments.shell](), end="")
    return 0


def _tables(quote: str) -> list[str]:
    """The lines of a ``case`` that bash and zsh both read: a command's options, those with a value, its words."""
    lines = []
    for name, parser in described():
        every = [text for action in _options(parser) for text in action.option_strings]
        valued = [text for action in _options(parser) if _takes_value(action) for text in action.option_strings]
        lines.append(f'    "{name}") options="{" ".join(every)}"; valued=" {" ".join(valued)} "; '
                     f'kind="{_words_of(parser)}" ;;')  # fmt: skip
    return lines


def _values() -> list[str]:
    """Likewise what an option's value is: ``COMMAND OPTION``."""
    lines = []
    for name, parser in described():
        for action in _options(parser):
            if _takes_value(action):
                kind = " ".join(map(str, action.choices)) if action.choices else _kind(action)
                if kind != "files":
                    keys = "|".join(f'"{name} {text}"' for text in action.option_strings)
                    lines.append(f'    {keys}) kind="{kind}" ;;')
    return lines


_FIND = """\
  local command= root= valued= options= kind= word= at=1 last=
  while (( at < {current} )); do
    word={word}
    case "$word" in
      --root) root={next}; (( at++ )) ;;
      --steps|--explain-to) (( at++ )) ;;
      -*) ;;
      *) command=$word; (( at++ )); break ;;
    esac
    (( at++ ))
  done
  case "$command" in
    network|volume|image|system) if (( at < {current} )); then command="$command {word}"; (( at++ )); fi ;;
  esac
  last={previous}
  case "$command" in
    "") options="{general}"; valued=" --root --steps --explain-to "; kind="{commands}" ;;
{tables}
  esac
  if [[ $valued == *" $last "* ]]; then
    options=
    kind=files
    case "$command $last" in
{values}
    esac
  fi
"""


def _finding(**words: str) -> str:
    general = [text for action in _options(main_parser()) for text in action.option_strings]
    return _FIND.format(
        general=" ".join(general), commands=" ".join(COMMANDS), tables="\n".join(_tables('"')),
        values="\n".join(_values()), **words,
    )  # fmt: skip


def _asking(root: str) -> str:
    return "\n".join(
        f"    {kind}) words=$(minicontainer ${{root:+--root}} {root} {line} 2>/dev/null) ;;"
        for kind, line in FROM_US.items()
    )


def bash() -> str:
    """For bash(1), which splits words at colons: what it has before the last one is taken off the answers."""
    finding = _finding(
        current="COMP_CWORD", word="${COMP_WORDS[at]}", next="${COMP_WORDS[at+1]}",
        previous="${COMP_WORDS[COMP_CWORD-1]}",
    )  # fmt: skip
    return f"""\
# Written by: minicontainer completion bash
_minicontainer() {{
  local typed=${{COMP_LINE:0:COMP_POINT}}
  typed=${{typed##*[[:space:]]}}
{finding}
  COMPREPLY=()
  local words=
  if [[ $typed == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$typed"))
    return
  fi
  case "$kind" in
    files) COMPREPLY=($(compgen -f -- "$typed")); compopt -o filenames 2>/dev/null; return ;;
    anything) words="$(minicontainer ${{root:+--root}} $root {FROM_US["containers"]} 2>/dev/null)" ;;
{_asking("$root")}
    *) words=$kind ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$typed"))
  if [[ $typed == *:* && $COMP_WORDBREAKS == *:* ]]; then
    local before=${{typed%"${{typed##*:}}"}}
    COMPREPLY=("${{COMPREPLY[@]#"$before"}}")
  fi
}}
complete -F _minicontainer minicontainer
"""


def zsh() -> str:
    """For zsh(1): a function in one of the directories of fpath, or to be evaluated."""
    finding = _finding(
        current="(CURRENT - 1)", word="${words[at+1]}", next="${words[at+2]}", previous="${words[CURRENT-1]}"
    )
    return f"""\
#compdef minicontainer
# Written by: minicontainer completion zsh
_minicontainer() {{
{finding}
  local found=
  if [[ $PREFIX == -* ]]; then
    compadd -- ${{=options}}
    return
  fi
  case "$kind" in
    files) _files; return ;;
    anything) found="$(minicontainer ${{root:+--root}} $root {FROM_US["containers"]} 2>/dev/null)" ;;
{_asking("$root").replace("words=", "found=")}
    *) found=$kind ;;
  esac
  compadd -- ${{=found}}
}}
if [ "$funcstack[1]" = "_minicontainer" ]; then
  _minicontainer "$@"
else
  compdef _minicontainer minicontainer
fi
"""


def fish() -> str:
    """For fish(1)."""
    lines = ["# Written by: minicontainer completion fish", "complete -c minicontainer -f"]
    for kind, asked in FROM_US.items():
        asked = asked.replace("'", '"')
        lines += [f"function __minicontainer_{kind}", f"  minicontainer {asked} 2>/dev/null", "end"]
    for name, (description, _, _) in COMMANDS.items():
        lines.append(f"complete -c minicontainer -n __fish_use_subcommand -a {name} -d {_quoted(description)}")
    for action in _options(main_parser()):
        lines.append(f"complete -c minicontainer -n __fish_use_subcommand {_of_fish(action)}")
    for name, parser in described():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        begin = f"complete -c minicontainer -n '{seen}'"
        lines += [f"{begin} {_of_fish(action)}" for action in _options(parser)]
        words = _words_of(parser)
        if words == "files":
            lines.append(f"{begin} -F")
        else:
            words = "containers" if words == "anything" else words
            asked = f'"(__minicontainer_{words})"' if words in FROM_US else _quoted(words)
            lines.append(f"{begin} -a {asked}")
    return "\n".join(lines) + "\n"


def _of_fish(action: argparse.Action) -> str:
    parts = [f"-l {text[2:]}" if text.startswith("--") else f"-s {text[1:]}" for text in action.option_strings]
    if _takes_value(action):
        kind = _kind(action)
        if action.choices:
            parts.append(f"-x -a {_quoted(' '.join(map(str, action.choices)))}")
        elif kind in FROM_US:
            parts.append(f'-x -a "(__minicontainer_{kind})"')
        else:
            parts.append("-r -F")
    return " ".join([*parts, f"-d {_quoted((action.help or '') % _defaults(action))}"])


def _defaults(action: argparse.Action) -> dict[str, object]:
    return {"default": action.default, "prog": "minicontainer"}


def _quoted(text: str) -> str:
    """As fish(1) reads it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


# man


def man_options(parser: Parser) -> None:
    """Of ``man``."""
    parser.add_argument("--directory", metavar="DIR", help="every page there, as minicontainer.1, minicontainer-ps.1…")
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="its page (that of minicontainer itself)")


def man(arguments: argparse.Namespace) -> int:
    """``minicontainer man``: a page to standard output, for ``man -l -``, or all of them to a directory."""
    if not arguments.directory:
        topic = arguments.topic
        if topic is not None and topic not in COMMANDS:
            raise EngineError(f'man: there is no command "{topic}"; see: minicontainer --help')
        print(page("", main_parser()) if topic is None else page(topic, parser_of(topic)), end="")
        return 0
    pages = {"minicontainer": page("", main_parser())}
    pages |= {f"minicontainer-{name.replace(' ', '-')}": page(name, parser) for name, parser in described()}
    try:
        os.makedirs(arguments.directory, exist_ok=True)
        for name, text in pages.items():
            with open(f"{arguments.directory}/{name}.1", "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise EngineError(f"man: cannot write below {arguments.directory}: {error.strerror}") from None
    return 0


def page(name: str, parser: Parser) -> str:
    """The page of a command, in man(7)'s language; of "" that of all."""
    title = f"minicontainer-{name.replace(' ', '-')}" if name else "minicontainer"
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    lines = [
        f'.TH "{title.upper()}" "1" "" "minicontainer" "User Commands"',
        ".SH NAME", f"{_roff(title)} \\- {_roff((parser.description or '').rstrip('.'))}",
        ".SH SYNOPSIS", _roff(usage), ".SH OPTIONS",
    ]  # fmt: skip
    for action in _visible(parser):
        words = ", ".join(f"\\fB{_roff(text)}\\fR" for text in action.option_strings)
        value = action.metavar if isinstance(action.metavar, str) else "|".join(map(str, action.choices or ()))
        if _takes_value(action) or not words:
            words = f"{words} \\fI{_roff(value or action.dest.upper())}\\fR".strip()
        lines += [".TP", words, _roff((action.help or "") % _defaults(action))]
    if not name:
        lines.append(".SH COMMANDS")
        for command, (description, _, _) in COMMANDS.items():
            lines += [".TP", f"\\fBminicontainer\\-{_roff(command)}\\fR(1)", _roff(description)]
    elif parser.epilog:
        lines += [".SH DESCRIPTION", ".nf", *map(_roff, parser.epilog.splitlines()), ".fi"]
    if name in EXAMPLES:
        lines += [".SH EXAMPLES", ".nf", *(_roff(f"minicontainer {line}") for line in EXAMPLES[name]), ".fi"]
    lines += [".SH EXIT STATUS", "0; that of the program in the container; 125, 126, 127 as docker's: we could not, it",
              "cannot be executed, it is not there; 128 and the number of a signal; 1, where a container is in the",
              "wrong state or is not there."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    """Nothing in a text is an order: a hyphen, a backslash, a dot at the beginning of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
