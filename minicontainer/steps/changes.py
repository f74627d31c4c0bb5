"""What a container has changed, read from its layers alone: nothing is compared that is not there.

overlayfs.rst in the kernel's tree: what was written is in the upper directory; what was deleted is a whiteout there, or
hidden by a directory that is opaque. So the answer takes as long as there are changes, however large the image is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from minicontainer.steps.copying import _is_whiteout, _opened, _visible

ADDED, CHANGED, DELETED = "A", "C", "D"
"""In docker's letters."""


def changes(layers: Sequence[str], below: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """What is otherwise with the directories `layers` (the topmost first) over those in `below` than without them.

    (ADDED, CHANGED or DELETED, absolute path), a directory before what is in it, names in order. A directory counts as
    changed if something in it did. What was deleted is one line, however much was in it. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        over, under = (
            [stack.enter_context(_opened(one, None, os.O_DIRECTORY)) for one in some] for some in (layers, below)
        )
        yield from _changes(over, under, [], "")


def _changes(over: Sequence[int], under: Sequence[int], hidden: Sequence[int], path: str) -> Iterator[tuple[str, str]]:
    """In one directory: `over` is what the layers have of it; `under` what shines through from below; `hidden` what
    would, had it not been hidden."""
    before = under or hidden
    names = {name for directory in over for name in os.listdir(directory)}
    gone = _names(hidden) - names
    for name in sorted(names | gone, key=os.fsencode):
        where = f"{path}/{name}"
        if name in gone:
            yield DELETED, where
            continue
        if not (there := next(_looked_up(over, name), None)):
            continue  # of a container that runs: it has just vanished
        level, about = there
        was = next((status for _, status in _looked_up(before, name)), None)
        if was is not None and _is_whiteout(was):
            was = None
        if _is_whiteout(about):
            if was is not None:
                yield DELETED, where
            continue
        if not stat.S_ISDIR(about.st_mode):
            yield (ADDED if was is None else CHANGED), where
            continue
        with contextlib.ExitStack() as stack:
            visible, hides = _visible(name, over[level:], stack)
            lower, _ = _visible(name, before, stack) if was is not None and stat.S_ISDIR(was.st_mode) else ([], False)
            hides = hides or not under
            inner = [*_changes(visible, [] if hides else lower, lower if hides else [], where)]
            if was is None:
                yield ADDED, where
            elif inner or not stat.S_ISDIR(was.st_mode) or _differs(about, was):
                yield CHANGED, where
            yield from inner


def _looked_up(directories: Sequence[int], name: str) -> Iterator[tuple[int, os.stat_result]]:
    for level, directory in enumerate(directories):
        with contextlib.suppress(FileNotFoundError):
            yield level, os.stat(name, dir_fd=directory, follow_symlinks=False)


def _names(directories: Sequence[int]) -> set[str]:
    """What is seen in one directory of several layers: not what a whiteout in a higher one hides."""
    found, done = set[str](), set[str]()
    for directory in directories:
        for name in set(os.listdir(directory)) - done:
            done.add(name)
            if not _is_whiteout(os.stat(name, dir_fd=directory, follow_symlinks=False)):
                found.add(name)
    return found


def _differs(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether a directory itself was changed, and not merely copied up because of what is in it."""
    return (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns) != (
        other.st_mode,
        other.st_uid,
        other.st_gid,
        other.st_mtime_ns,
    )
