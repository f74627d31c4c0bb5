"""A shorter way for a command to import its hundred modules, a third of which is Python looking for them.

For each module, Python asks the disk ten things: whether the directory has changed, which of five suffixes a file there
has, whether it is a terminal… What a start of ours imports is known to lie in two directories, and to have been
compiled, by `make setup` and by the distribution. Here two questions are left: when was the source written, and what
does the compiled file say? If that is not of this very source, or whatever else is not as expected, the module is
Python's to find, as any other: nothing can be imported in this way that would not be imported without.
"""

import os
import sys

# What importlib.machinery is made of. Importing that takes longer than what is spared here.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader
from _imp import _fix_co_filename  # type: ignore[attr-defined]
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, ModuleType

_PLACES = (os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__)))
"""Where packages and modules of no package are: the standard library, then ours."""

_COMPILED = f".{sys.implementation.cache_tag}.pyc"


def shorten() -> None:
    """From now on, import in this way what can be. (Built-in and frozen modules come first: they are in no file.)"""
    sys.meta_path.insert(2, _Finder)


class _Finder:
    """What sys.meta_path asks: importlib.abc.MetaPathFinder."""

    @staticmethod
    def find_spec(name: str, path: "Iterable[str] | None", target: "ModuleType | None" = None) -> ModuleSpec | None:
        """The module with its code, or None: it is another's to find."""
        last = name.rpartition(".")[2]
        for place in path or _PLACES:
            if "-packages" in place:  # somebody else's, where a file of machine code goes before one of Python's
                return None
            for directory, stem in ((place, last), (f"{place}/{last}", "__init__")):
                source, compiled = f"{directory}/{stem}.py", f"{directory}/__pycache__/{stem}{_COMPILED}"
                try:
                    code = _code(os.stat(source), compiled)
                except OSError:
                    continue
                if code is None:
                    return None
                _fix_co_filename(code, source)
                spec = ModuleSpec(name, _Loader(name, source, code), origin=source, is_package=stem == "__init__")
                spec.has_location, spec.cached = True, compiled
                if spec.submodule_search_locations is not None:
                    spec.submodule_search_locations.append(directory)
                return spec
        return None


class _Loader(SourceFileLoader):
    """One that has the code already."""

    def __init__(self, name: str, source: str, code: "CodeType") -> None:
        super().__init__(name, source)
        self._code = code

    def get_code(self, fullname: str) -> "CodeType":
        """For whoever executes the module."""
        return self._code


def _code(source: os.stat_result, compiled: str) -> "CodeType | None":
    """The code in a compiled file, unless it is of another source, or another Python's: PEP 552. Raises OSError."""
    file = os.open(compiled, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)
    flags, written, size = (int.from_bytes(content[at : at + 4], "little") for at in (4, 8, 12))
    stale = flags or written != int(source.st_mtime) & 0xFFFF_FFFF or size != source.st_size & 0xFFFF_FFFF
    return None if stale or content[:4] != MAGIC_NUMBER else loads(memoryview(content)[16:])
