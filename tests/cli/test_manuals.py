"""Completion in real shells, and pages that a real formatter reads; both know every option of every parser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from minicontainer.cli.manuals import FROM_US, SHELLS, described
from tests.command import DEADLINE, Command, one_line

DRIVERS = {
    "bash": """
        source "$SCRIPT"
        COMP_LINE=$LINE; COMP_POINT=${#LINE}; read -ra COMP_WORDS <<<"$LINE"
        [[ $LINE == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _minicontainer
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    # What completes is called with its own function in the place of the builtin, which exists in a line editor alone.
    "zsh": """
        compdef() { : }; source "$SCRIPT"
        compadd() { shift; print -l -- "$@" }; _files() { print -l -- *(N) }
        words=(${=LINE}); [[ $LINE == *" " ]] && words+=("")
        CURRENT=${#words}; PREFIX=${words[CURRENT]}
        _minicontainer | while read -r one; do [[ $one == $PREFIX* ]] && print -r -- $one; done
        true
    """,
    "fish": 'source "$SCRIPT"; complete -C "$LINE"',
}
"""Shell → a program for it that prints what $LINE is completed to by $SCRIPT."""


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Each that is installed."""
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def completed(command: Command, shell: str, line: str, directory: Path) -> set[str]:
    script = directory / f"completion.{shell}"
    script.write_text(command("completion", shell).stdout)
    path = f"{Path(command.words[0]).parent}:{os.environ['PATH']}"
    words = [shell, "--norc" if shell == "bash" else "-f" if shell == "zsh" else "--no-config", "-c", DRIVERS[shell]]
    done = subprocess.run(
        words, env={**os.environ, "PATH": path, "SCRIPT": str(script), "LINE": line, "HOME": str(directory)},
        cwd=directory, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return {found.split("\t")[0] for found in done.stdout.splitlines() if found}


def test_commands_options_and_choices_are_completed(minicontainer: Command, shell: str, tmp_path: Path) -> None:
    def of(line: str) -> set[str]:
        return completed(minicontainer, shell, line, tmp_path)

    assert of("minicontainer pa") == {"pause"}
    assert of("minicontainer ps --no") == {"--no-trunc"}
    assert of("minicontainer completion ") == {*SHELLS}
    assert of("minicontainer network con") == {"connect"}
    assert of("minicontainer network ls --q") == {"--quiet"}
    assert of("minicontainer inspect --type im") == {"image"}
    (tmp_path / "some.tar").touch()
    assert of("minicontainer load --input so") == {"some.tar"}


@pytest.mark.parametrize("shell", ["bash", "zsh"], indirect=True)  # fish does not tell what was said before the command
def test_names_are_completed(minicontainer: Command, shell: str, tmp_path: Path) -> None:
    minicontainer("create", "--name", "alpha", "--network", "none", "busybox", "true")
    minicontainer("create", "--name", "beta", "--network", "none", "busybox", "true")

    def of(line: str) -> set[str]:
        return completed(minicontainer, shell, f"minicontainer --root {minicontainer.root} {line}", tmp_path)

    assert of("start ") == {"alpha", "beta"} and of("rm --force al") == {"alpha"}
    assert of("inspect be") == {"beta"}
    assert of("rmi bu") == {"busybox:latest"}
    # At a colon bash begins a new word.
    assert of("rmi busybox:la") == {"latest" if shell == "bash" else "busybox:latest"}
    minicontainer("volume", "create", "data")
    assert of("volume rm da") == {"data"} and of("volume pr") == {"prune"}
    assert "bridge" in of("network inspect ") and of("run --network br") == {"bridge"}


def test_scripts_have_no_mistakes_and_every_option(minicontainer: Command, tmp_path: Path) -> None:
    for shell in SHELLS:
        script = minicontainer("completion", shell).stdout
        for name, parser in described():
            for text in parser._option_string_actions:
                short = text.lstrip("-") if shell == "fish" else text
                assert re.search(rf"{name.split()[-1]}.* {re.escape(short)}\b|{re.escape(text)}\b", script), (
                    shell,
                    text,
                )
        if shutil.which(shell):
            file = tmp_path / shell
            file.write_text(script)
            subprocess.run([shell, "-n", file], check=True, timeout=DEADLINE)
    done = minicontainer("completion", "csh")
    assert done.returncode == 125 and "csh" in one_line(done.stderr)


def test_what_names_are_asked_by_is_a_command(minicontainer: Command) -> None:
    import shlex

    for line in FROM_US.values():
        assert minicontainer(*shlex.split(line)).returncode == 0, line


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_pages_of_the_manual(minicontainer: Command, tmp_path: Path) -> None:
    done = minicontainer("man", "--directory", tmp_path / "man1")
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "man1").iterdir())
    assert len(pages) == 1 + len([*described()])
    assert minicontainer("man", "ps").stdout == (tmp_path / "man1/minicontainer-ps.1").read_text()
    done_by = subprocess.run(
        ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", *pages], capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done_by.returncode, done_by.stderr) == (0, "")
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done_by.stdout)
    for words in ("minicontainer-ps", "--no-trunc", "EXAMPLES", "minicontainer network ls", "EXIT STATUS"):
        assert words in shown.replace("‐", "-").replace("−", "-"), words
    wrong = minicontainer("man", "teleport")
    assert wrong.returncode == 125 and "teleport" in one_line(wrong.stderr)
