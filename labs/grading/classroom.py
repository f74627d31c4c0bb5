"""What is laid out in a sandbox for a submission to be run with: our package, without what is to be graded.

A submission must not find the reference of its own lab: not to import it, not to read it, not in the memory of its
parent. So the sandbox gets a copy of the package in which the step modules of the lab are *stubs*: their constants and
classes are there, their functions only say that the exercise is not written. Beside it lie the sandbox's own program
and a busybox.

    /classroom/inside.py        process 1 of the sandbox
    /classroom/minicontainer/   linux, steps (some of them stubs), runtime
    /classroom/busybox/         the root file system of the containers that are started in there
"""

from __future__ import annotations

import ast
import compileall
import os
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

import minicontainer
from labs.grading import inside
from minicontainer.images.busybox import static_busybox
from minicontainer.steps import Steps

PLACE = "/classroom"
"""Where it is in every sandbox."""
BUSYBOX = f"{PLACE}/busybox/bin/busybox"

HOST = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
"""What a sandbox sees of the host: programs and libraries, read-only. No home, no checkout, no submissions."""


class Exposed(Exception):
    """Something that submissions must not see lies where every sandbox can see it; the text says what to do."""


class Classrooms:
    """The classrooms of one run, in one temporary directory: one for each set of modules that are stubs."""

    def __init__(self, directory: Path | None = None) -> None:
        """`directory` is somebody else's, who removes it; without it, a temporary one is made when it is needed."""
        self._directory = directory
        self._owner = os.getpid() if directory is None else None
        self._made: dict[frozenset[str], Path] = {}

    @property
    def directory(self) -> Path:
        """Where they lie."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="labs-"))
        return self._directory

    def close(self) -> None:
        """Remove them; not in an examiner that was forked off, while others are still taught in them."""
        if self._owner == os.getpid() and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory, self._made = None, {}

    def without(self, modules: Collection[str]) -> Path:
        """The classroom in which these step modules ("uts", …) are stubs. Raises ImageError (no static busybox)."""
        key = frozenset(modules)
        if key not in self._made:
            self._made[key] = lay_out(self.directory / f"without-{'-'.join(sorted(key)) or 'nothing'}", key)
        return self._made[key]


def lay_out(place: Path, modules: Collection[str]) -> Path:
    """Make a classroom in the new directory `place`."""
    package = Path(minicontainer.__file__).parent
    copy = place / "minicontainer"
    copy.mkdir(parents=True)
    for module in package.glob("*.py"):
        shutil.copy2(module, copy)
    for part in ("linux", "steps", "runtime"):
        # With the compiled files: they stay valid, because their sources keep size and time of change.
        shutil.copytree(package / part, copy / part, ignore=shutil.ignore_patterns("*.pyc.*"))
    for step in modules:
        _replace_by_stub(copy / "steps", step)
    shutil.copy2(inside.__file__, place / "inside.py")
    compileall.compile_dir(place, quiet=2)

    (place / "busybox").mkdir()
    Steps().build_root(str(place / "busybox"), static_busybox())
    for directory, _, _ in os.walk(place):
        os.chmod(directory, 0o755)  # whatever our umask is: inside, we are somebody else
    return place


def interpreter() -> Path:
    """The Python that runs in the sandbox: the one that our virtual environment was made of."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def sights() -> list[str]:
    """The directories and files of the host that a sandbox sees."""
    places = [path for path in HOST if os.path.exists(path)]
    return places if interpreter().is_relative_to("/usr") else [*places, os.path.realpath(sys.base_prefix)]


def refuse_exposure(secrets: Collection[Path]) -> None:
    """Raise Exposed where one of these, or a copy of our package with the reference in it, can be seen in a sandbox."""
    checkout = Path(minicontainer.__file__).parents[1]
    for secret in (checkout, *secrets):
        for sight in map(Path, sights()):
            if secret.resolve().is_relative_to(sight.resolve()):
                raise Exposed(f"{secret} lies below {sight}, which every submission can read: move it elsewhere")
    for libraries in ("/usr/lib", "/usr/local/lib", f"{sys.base_prefix}/lib"):
        for found in Path(libraries).glob("python3*/*-packages/minicontainer/steps"):
            raise Exposed(f"{found} is a copy of the solutions that every submission can read: uninstall it there")


def refuse_changes() -> None:
    """Raise Exposed where a sandbox whose root is ourselves, as it is without root's rights, could change what it sees.

    Its mounts are read-only, but its root may mount them again, and then only the owner of the files says who writes.
    """
    for sight in sights():
        if os.access(sight, os.W_OK):
            raise Exposed(
                f"{sight} belongs to you, and so to every submission that you grade: grade as root, or make the "
                f"virtual environment with the system's Python"
            )


def _replace_by_stub(steps: Path, module: str) -> None:
    source = (steps / f"{module}.py").read_text(encoding="utf-8")
    (steps / f"{module}.py").write_text(stub(source, module), encoding="utf-8")
    for compiled in (steps / "__pycache__").glob(f"{module}.*.pyc"):
        compiled.unlink()


def stub(source: str, module: str) -> str:
    """The source of a step module, with its public functions emptied, and the private ones and every docstring gone."""
    tree = ast.parse(source)
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            if node.name.startswith("_"):
                continue
            name = f"{module}.{node.name}"
            missing = f"{name}: no cell begins with %%exercise {name}"
            node.body = ast.parse(f"raise NotImplementedError({missing!r})").body
        elif isinstance(node, ast.Expr):
            continue  # a docstring
        kept.append(node)
    tree.body = kept
    return ast.unparse(tree) + "\n"
