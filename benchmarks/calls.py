"""The engine's calls on control groups, written down while it makes them, for start.c to make the same.

A list of them kept by hand would be wrong after the next change of the engine; and which there are depends on the host.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from minicontainer.engine import Engine
from minicontainer.linux.capabilities import mask_of
from minicontainer.linux.stub import elf
from minicontainer.runtime import limits
from minicontainer.runtime.limits import EVERYDAY, Limits
from minicontainer.steps import Steps
from minicontainer.steps.group import Group, remove_group

PRECAUTION = Limits(devices=())
"""What the engine holds every container to, where it is root."""

HERE = "%"
"""Stands for what differs from start to start: the group's name in a path."""

Call = tuple[str, str, str, str]
"""When (before, clone, join, after: before init exists, when it is made, by init itself, after its end), what is done,
to which path, with which value."""


def of_a_group(
    wanted: Limits = PRECAUTION, controllers: Sequence[str] = EVERYDAY, found: Group | None = None
) -> list[Call]:
    """What the engine does for the control group of a container, from making to removing it; `found`: one that is there
    already, and stays."""
    name, calls = f"benchmark-calls-{os.getpid()}", list[Call]()
    steps = Steps()
    with _noted(calls, "before"):
        if found is None:
            group = steps.create_group(name, wanted.needed(), controllers)
            limits.apply(wanted, group, steps)
        else:
            group = found
    try:
        if group.unified:
            calls.append(("clone", "open", group.unified, ""))
        # What init does by itself; here, it would move us.
        calls += [("join", "write", f"{directory}/tasks", "0") for directory in group.part(1).directories]
        if found is None and "memory" in group:
            with _noted(calls, "after"):
                steps.count_oom_kills(group)
    finally:
        if found is None:
            removing = list[Call]()
            with _noted(removing, "after"):
                remove_group(group)
            calls += [call for call in removing if call[1] == "rmdir"]  # the rest is what EBUSY brings about
    return [(when, what, path.replace(name, HERE), value) for when, what, path, value in calls]


def of_hardening(root: Path, directory: Path) -> Path:
    """What the engine takes from a container unless asked otherwise, as start.c reads it; written into `directory`."""
    engine = Engine(root)
    config = engine.create("busybox", ["/bin/true"])
    spec = engine._spec(config)
    engine.remove(config)
    held, loaded = spec.process.capabilities, spec.filter
    assert held and loaded and spec.process.no_new_privileges
    program, stub = directory / "filter", directory / "stub"
    program.write_bytes(loaded[0])
    stub.write_bytes(elf(os.uname().machine))
    sets = [str(mask_of(names)) for names in (held.bounding, held.effective, held.permitted, held.inheritable)]
    calls = [("inside", "readonly", path, "") for path in spec.readonly_paths]
    calls += [("inside", "mask", path, "") for path in spec.masked_paths]
    calls += [("inside", "capabilities", "", " ".join(sets)), ("inside", "filter", str(program), str(loaded[1]))]
    return write([*calls, ("inside", "stub", str(stub), "")], directory / "hardening")


def files_read_by(function: Callable[[], object]) -> list[str]:
    """Every file that a function reads, as often as it does."""
    calls = list[Call]()
    with _noted(calls, "before"):
        function()
    return [path for _, what, path, _ in calls if what == "read"]


def write(calls: Sequence[Call], file: Path) -> Path:
    """Into a file as start.c reads it: a call on each line, its words separated by tabs."""
    file.write_text("".join("\t".join(call) + "\n" for call in calls))
    return file


def somebody() -> int:
    """A child that only waits to be killed."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid


@contextlib.contextmanager
def _noted(calls: list[Call], when: str) -> Iterator[None]:
    """Note what this process does to files meanwhile. Of a failed call, that it was tried; of rmdir(2), only success,
    and that it was tried on a group that holds others."""
    real = {name: getattr(os, name) for name in ("open", "read", "write", "mkdir", "rmdir", "access", "stat")}
    opened = dict[int, str]()

    def note(what: str, path: object, value: str = "") -> None:
        calls.append((when, what, os.fspath(path), value))  # type: ignore[call-overload]

    def plain(what: str) -> Callable[..., Any]:
        def call(path: object, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(path, int):
                note(what, path)
            return real[what](path, *args, **kwargs)

        return call

    def open_(path: str, flags: int, *args: Any, **kwargs: Any) -> int:
        fd: int = real["open"](path, flags, *args, **kwargs)
        opened[fd] = path
        if not flags & (os.O_WRONLY | os.O_DIRECTORY):
            note("read", path)
        return fd

    def write_(fd: int, data: bytes) -> int:
        note("write", opened[fd], data.decode())
        return int(real["write"](fd, data))

    def rmdir(path: str) -> None:
        try:
            real["rmdir"](path)
        except OSError as error:
            if error.errno == errno.EBUSY and "benchmark-" in path:
                raise  # one that a process has not left yet: tried again
            note("rmdir", path)
            raise
        note("rmdir", path)

    replaced = {
        "open": open_,
        "write": write_,
        "rmdir": rmdir,
        **{one: plain(one) for one in ("mkdir", "access", "stat")},
    }
    try:
        for name, function in replaced.items():
            setattr(os, name, function)
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)
