"""`minicontainer/importing.py`: a shorter way to the same modules, and never to others."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import minicontainer

IMPORT = """
import json, sys
sys.path.append({checkout!r})
from minicontainer import importing
importing.shorten()
import {module} as module
shown = {{name: str(getattr(module, name, None)) for name in ("value", "__file__", "__cached__", "__package__", "__path__")}}
try:
    module.fail()
except ZeroDivisionError as error:
    shown["raised in"] = error.__traceback__.tb_next.tb_frame.f_code.co_filename
except AttributeError:
    pass
print(json.dumps({{"loader": type(module.__loader__).__module__, **shown}}))
"""
OURS = "minicontainer.importing"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A checkout with a module of its own in it, `subject`, compiled."""
    package = tmp_path / "minicontainer"
    package.mkdir()
    for name in ("__init__.py", "importing.py"):
        shutil.copy(Path(minicontainer.__path__[0], name), package)
    (package / "subject.py").write_text("value = 1\n\n\ndef fail():\n    1 / 0\n")
    py_compile.compile(str(package / "subject.py"), dfile="elsewhere.py")
    return package


def imported(package: Path, module: str = "minicontainer.subject") -> dict[str, Any]:
    program = IMPORT.format(checkout=str(package.parent), module=module)
    done = subprocess.run([sys.executable, "-ISB", "-c", program], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_module_is_as_it_would_be_without(package: Path) -> None:
    source = str(package / "subject.py")
    assert imported(package) == {
        "loader": OURS,
        "value": "1",
        "__file__": source,
        "__cached__": importlib.util.cache_from_source(source),
        "__package__": "minicontainer",
        "__path__": "None",
        "raised in": source,
    }


def test_so_is_a_package(package: Path) -> None:
    inner = package / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("value = 3\n")
    py_compile.compile(str(inner / "__init__.py"))
    found = imported(package, "minicontainer.inner")
    assert (found["loader"], found["value"], found["__path__"]) == (OURS, "3", str([str(inner)]))
    assert found["__package__"] == "minicontainer.inner"


@pytest.mark.parametrize("text", ["value = 22\n", "value = 2\n\n\ndef fail():\n    1 / 0\n"], ids=["longer", "later"])
def test_what_was_changed_since_it_was_compiled_is_taken_from_the_source(package: Path, text: str) -> None:
    source = package / "subject.py"
    before = source.stat()
    source.write_text(text)
    os.utime(
        source, ns=(before.st_atime_ns, before.st_mtime_ns + (2_000_000_000 if len(text) == before.st_size else 0))
    )
    found = imported(package)
    assert (found["loader"], found["value"]) == ("_frozen_importlib_external", text.split()[2])


@pytest.mark.parametrize("how", ["missing", "by hash", "another Python's"])
def test_what_is_compiled_otherwise_is_for_python_to_find(package: Path, how: str) -> None:
    source = str(package / "subject.py")
    compiled = Path(importlib.util.cache_from_source(source))
    if how == "missing":
        compiled.unlink()
    elif how == "by hash":
        py_compile.compile(source, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    else:
        compiled.write_bytes(b"\0\0\r\n" + compiled.read_bytes()[4:])
    found = imported(package)
    assert (found["loader"], found["value"]) == ("_frozen_importlib_external", "1")


def test_what_is_nowhere_is_missing_as_ever(package: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        imported(package, "minicontainer.nowhere")
    assert "ModuleNotFoundError: No module named 'minicontainer.nowhere'" in failed.value.stderr
