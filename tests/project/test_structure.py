"""The house: imports point down, steps are reached through `Steps`, every public name says what it is."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.steps import Steps

ROOT = Path(__file__).parents[2]
HOUSE = ["record", "linux", "steps", "runtime", "images", "network", "engine", "cli", "panel"]
"""From the cellar up: a room may import from those before it."""
SUPPLIERS = {"images", "network"}
MODULES = sorted(
    path for part in ("minicontainer", "labs") for path in (ROOT / part).rglob("*.py") if "course" not in path.parts
)
OURS = [path for path in MODULES if path.is_relative_to(ROOT / "minicontainer")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path, *, at_start: bool = False) -> Iterator[str]:
    """The dotted names that a module imports; `at_start`: as it is imported itself, not later in a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    later += [  # is for type checkers alone
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    hidden = {id(inner) for node in later for inner in ast.walk(node)} if at_start else set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "minicontainer" and len(parts) > 1 and parts[1] in HOUSE else None


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    ours = path.relative_to(ROOT / "minicontainer").parts[0].removesuffix(".py")
    for dotted in imported(path):
        assert not dotted.startswith(("labs", "tests", "benchmarks")), dotted
        other = room(dotted)
        if ours in HOUSE and other:
            assert HOUSE.index(other) <= HOUSE.index(ours), f"{ours} imports {dotted}, which is above it"
            assert not (other != ours and {other, ours} <= SUPPLIERS), "the suppliers do not know each other"


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_the_engine_starts_with_the_standard_library_alone(path: Path) -> None:
    foreign = {dotted.split(".")[0] for dotted in imported(path, at_start=True)} - {"minicontainer"}
    assert foreign <= sys.stdlib_module_names


def test_the_labs_know_the_engine_and_not_the_tests() -> None:
    for path in MODULES:
        assert not any(dotted.split(".")[0] in ("tests", "benchmarks") for dotted in imported(path)), path


@pytest.mark.parametrize("path", [path for path in OURS if "steps" not in path.parts], ids=name_of)
def test_steps_are_reached_through_steps(path: Path) -> None:
    """A step that is imported by name could not be replaced by a student's.

    What is no mechanism of a container's birth may be: types, and the clean-up of what others left.
    """
    steps = set(Steps.names().values()) - {"remove_group"}
    for dotted in imported(path):
        if dotted.startswith("minicontainer.steps."):
            assert dotted.rpartition(".")[2] not in steps, dotted


STATE_OF_ISOLATION = {
    "setns", "unshare", "chroot", "pivot_root", "mount", "umount2", "move_mount", "mount_setattr", "open_tree", "fsopen",
    "fsmount", "capset", "seccomp",
}  # fmt: skip
"""Calls that change who sees what; capabilities(7), namespaces(7)."""


@pytest.mark.parametrize(
    "path", [path for path in OURS if not {"linux", "steps", "host"} & set(path.parts)], ids=name_of
)
def test_only_steps_change_what_a_process_sees(path: Path) -> None:
    """So that --explain shows all, and each can be a student's; the probing of the host tries calls, and undoes them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = {call.id for call in called if isinstance(call, ast.Name)}
    names |= {
        call.attr for call in called if isinstance(call, ast.Attribute) and ast.unparse(call.value) in ("os", "linux")
    }
    assert not names & STATE_OF_ISOLATION


def test_no_room_for_odds_and_ends() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "util", "helpers", "helper", "common", "misc"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_public_name_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_every_step_is_one_of_steps() -> None:
    """And every public function of a step module is a field of `Steps`, so that each of them can be somebody's own."""
    known = set(Steps.names())
    for path in sorted((ROOT / "minicontainer" / "steps").glob("*.py")):
        if path.stem in ("__init__", "loading"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        }
        spare = {  # what no container is made with: for `system repair`, for whoever looks, and for reading what was asked
            "find_group", "list_groups", "remove_empty_groups", "limits_of", "control", "all_or_nothing", "find_groups", "out_of_sight", "device_program", "read_rule", "compile_filter", "filter_flags",
        }  # fmt: skip
        assert {f"{path.stem}.{name}" for name in public - spare} <= known
