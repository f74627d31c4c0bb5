"""What was asked of the kernel, by whom, in which order, and what it answered: for whoever wants to see how it is done.

    with recording(print): ...

While nobody records, this is not even imported, and costs nothing. While somebody does, `syscalls.syscall` and those
functions of `os`, `io`, `fcntl` and `signal` that change something are replaced by ones that write down what they
did; so a student's step is recorded like ours. Left out is what only looks (reading files, waiting, asking), closing,
and what the interpreter does for itself; strace(1) has that too.

**The children are recorded as well**, in namespaces of their own, behind a filter of system calls and with limits. So
what is written down is written into memory that all of them share, mmap(2) with MAP_SHARED: that takes no system call,
no file descriptor, and nothing that a container could refuse. It ends for each with execve(2).
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import fcntl
import io
import marshal
import mmap
import os
import signal
import struct
import subprocess
import sys
from _thread import get_ident
from collections.abc import Callable, Iterator
from time import time_ns

from minicontainer.linux import netlink, nftables, notation, syscalls
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

_REGIONS, _SIZE = 32, 1 << 19
"""For so many processes there is room for so many bytes each; what nobody writes to takes no memory."""

_HEAD = struct.Struct("QQ")
"""At the beginning of a region: the bytes that are written, and how many calls there was no room for."""

_LOOKS = {"capget", "fstatfs", "ioprio_get", "inotify_init1", "inotify_add_watch", "signalfd4", "setsockopt"}
"""System calls of `syscalls.call` that change nothing."""

_MEANS = {"socket", "openat2"}
"""Likewise, but in a step they show how it goes on."""

_ABLE = (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks)
_HERE = os.path.dirname(__file__)
_PACKAGE = os.path.dirname(_HERE)


class Call(Record):
    """One system call, or one message to the kernel."""

    process: str
    """Who made it: "the caller", "process 1" of a container, "a child"."""
    pid: int
    """Of that process, as its parent knows it."""
    step: str
    """In which step: ``uts.set_names``. Outside of all steps, which file of ours: ``runtime/birth.py``."""
    line: int
    """Of the cell, where the step is somebody's exercise; else 0."""
    name: str
    """``mount``; of a message ``RTM_NEWLINK``."""
    text: str
    """With its arguments, as strace(1) writes it: ``mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL)``."""
    result: int
    """What the kernel answered; an errno negative."""
    page: str
    """Where the manual describes it: ``mount(2)``."""
    began: int
    """In ns since the epoch."""
    took: int
    """In ns."""


Told = Callable[[list[Call]], object]


@contextlib.contextmanager
def recording(told: Told, step_of: Callable[[CodeType], str | None] = lambda code: None) -> Iterator[None]:
    """Record what the calling thread asks of the kernel until the end of the block, and what its new children do.

    `told` gets the calls at the end, in order. `step_of` says to which step a piece of code belongs. A block inside of
    another one records nothing anew, and tells what there is so far.
    """
    global _recorder
    if _recorder and not _recorder.in_child:
        try:
            yield
        finally:
            told(_recorder.taken())
        return
    _recorder = recorder = _Recorder(step_of)
    recorder.install()
    try:
        yield
    finally:
        if not recorder.in_child:
            recorder.remove()
            _recorder = None
            told(recorder.taken())
            recorder.memory.close()


_recorder: _Recorder | None = None


class _Recorder:
    """One recording, in the process that began it, and as a copy in each of its children."""

    def __init__(self, step_of: Callable[[CodeType], str | None]) -> None:
        self.memory = mmap.mmap(-1, _REGIONS * _SIZE)
        self.in_child = False
        self._step_of = step_of
        self._thread = get_ident()
        self._region, self._span = 0, _REGIONS  # ours is the first of a span; what is behind it is for our children
        self._base: list[FrameType] = []
        self._silent = False
        self._undo: list[tuple[Any, str, Any]] = []
        self._read = [_HEAD.size] * _REGIONS
        self._pids = {0: (os.getpid(), "the caller")}
        self._paths: dict[int, str] = {}

    # Listening

    def install(self) -> None:
        """Put ourselves in front of the functions."""
        self._replace(syscalls, "syscall", self._listening(syscalls.syscall))
        for module in (os, fcntl, signal, subprocess):
            for name, (call, shown, everywhere) in _WATCHED.items():
                where, _, function = name.partition(".")
                if where == module.__name__ and hasattr(module, function):
                    watched = self._watched(getattr(module, function), call, shown, everywhere)
                    self._replace(module, function, watched)
        self._replace(netlink.Netlink, "ask", self._asking(netlink.Netlink.ask))
        self._replace(nftables, "run", self._running(nftables.run))
        self._replace(os, "close", self._closing(os.close))
        self._replace(builtins, "open", self._opening(builtins.open))
        self._replace(io, "open", builtins.open)

    def remove(self) -> None:
        """Put everything back."""
        for place, name, original in reversed(self._undo):
            ours = getattr(place, name)
            setattr(place, name, original)
            if place is os:
                for able in _ABLE:
                    able.discard(ours)

    def _replace(self, place: Any, name: str, ours: Any) -> None:
        original = getattr(place, name)
        if place is os:
            for able in _ABLE:
                if original in able:  # as shutil wants to know it
                    able.add(ours)
        self._undo.append((place, name, original))
        setattr(place, name, ours)

    def _listening(self, syscall: Any) -> Callable[..., int]:
        """syscall(2) of the floor."""
        names = {numbers[syscalls._COLUMN[syscalls._MACHINE]]: name for name, numbers in syscalls._NUMBERS.items()}

        def listening(number: int, *arguments: Any) -> int:
            name, began = names[number], time_ns()
            result: int = syscall(number, *arguments)
            if name == "clone3" and result == 0:
                self._is_child()
                return result
            error = ctypes.get_errno() if result < 0 else 0
            looks = name in _LOOKS or (name == "prctl" and arguments[0] == 23)  # PR_CAPBSET_READ
            if get_ident() == self._thread and not looks and (name not in _MEANS or self._place()[2]):
                args = [_python(one) for one in arguments]
                child = self._bore() if name == "clone3" and result > 0 else 0
                self.note(name, notation.written(name, args), -error if error else result, began, child)
            ctypes.set_errno(error)
            return result

        return listening

    def _watched(
        self, function: Callable[..., Any], call: str, shown: Callable[..., Any], everywhere: bool
    ) -> Callable[..., Any]:
        """A function of Python's that makes a system call."""

        def watched(*args: Any, **options: Any) -> Any:
            if get_ident() != self._thread or not (everywhere or self._place()[2]):
                return function(*args, **options)
            began = time_ns()
            if call == "execve":  # from which nobody comes back
                length = self._length()
                self._note_python(call, shown, args, options, 0, began)
            try:
                result = function(*args, **options)
            except OSError as error:
                if call == "execve":
                    self._set_length(length)
                self._note_python(call, shown, args, options, -(error.errno or 0), began)
                raise
            if call == "fork" and result == 0:
                self._is_child()
                return result
            child = self._bore() if call == "fork" else 0
            answer = os.getpid() if call == "setsid" else result if isinstance(result, int) else 0
            self._note_python(call, shown, args, options, answer, began, child)
            return result

        return watched

    def _note_python(
        self, call: str, shown: Callable[..., Any], args: Any, options: Any, result: int, began: int, child: int = 0
    ) -> None:
        try:
            name, values = shown(*args, **options)
        except Exception:  # a call that Python will not have understood either
            name, values = call, args
        if name == "openat" and values[2] & (os.O_ACCMODE | os.O_CREAT | os.O_PATH | os.O_DIRECTORY) == 0:
            return  # to read it
        if name == "openat" and result >= 0:
            self._paths[result] = os.fsdecode(values[1])
        path = self._paths.get(values[0], "") if name == "write" else ""
        self.note(name, notation.written(name, values), result, began, child, path)

    def _opening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """open() of Python's, whose system calls are made where nobody can listen; here they are made with `os`."""

        def opening(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            writes = isinstance(mode, str) and set(mode) & set("wax+") and not isinstance(file, int)
            if not writes or get_ident() != self._thread or not self._place()[2]:
                return original(file, mode, *args, **options)
            opened = original(file, mode, *args, **{**options, "opener": options.get("opener") or _opener})
            return _Listened(opened, lambda data: _written_out(opened, data), self._paths)

        return opening

    def _closing(self, close: Callable[[int], None]) -> Callable[[int], None]:
        """Not told, but remembered: the number may be another file's next."""

        def closing(fd: int) -> None:
            self._paths.pop(fd, None)
            close(fd)

        return closing

    def _asking(self, ask: Callable[..., list[bytes]]) -> Callable[..., list[bytes]]:
        """Messages to the kernel: what each says in words, and not the bytes that are written to the socket."""

        def asking(line: Any, *requests: Any) -> list[bytes]:
            changes = [one for one in requests if not _request(one).startswith("RTM_GET")]
            if get_ident() != self._thread:
                return ask(line, *requests)
            began, failed = time_ns(), ""
            try:
                with self._silence():
                    return ask(line, *requests)
            except OSError as error:
                failed, number = error.strerror or "", error.errno or 0
                raise
            finally:
                for one in changes:
                    text = f"{_request(one)}: {one.told}"
                    self.note(_request(one), text, -number if one.told in failed else 0, began)

        return asking

    def _running(self, run: Callable[[str], None]) -> Callable[[str], None]:
        """A transaction of nftables, whose messages its library sends where nobody can listen: its commands."""

        def running(commands: str) -> None:
            began, result = time_ns(), 0
            try:
                with self._silence():
                    run(commands)
            except OSError as error:
                result = -(error.errno or 0)
                raise
            finally:
                for command in map(str.strip, commands.splitlines()):
                    if command and not command.startswith("#"):
                        self.note("nft", f"nft {command}", result, began)

        return running

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        """For what is told as a whole."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    # Who is who

    def _is_child(self) -> None:
        """We are a copy of the recorder in a child that was just born."""
        self._span //= 2
        self._region += self._span
        self.in_child = True
        frame: FrameType | None = sys._getframe(2)
        while frame:
            self._base.append(frame)
            frame = frame.f_back
        if self._span:
            self._append(("born", os.getpid()))

    def _bore(self) -> int:
        """The region of the child that was just born: half of what we have left."""
        self._span //= 2
        return self._region + self._span

    def _place(self) -> tuple[str, int, bool]:
        """The step that the caller is in, outermost, and its line if it is somebody's; else the file; whether a step.

        What was on the stack when a process was born is its parent's: process 1 is not all of `spawn_init`.
        """
        step, line, file, between = "", 0, "", False
        frame: FrameType | None = sys._getframe(2)
        while frame:
            code = frame.f_code
            if frame in self._base and between:
                break
            if found := self._step_of(code):
                step, line = found, line or (frame.f_lineno if code.co_filename.startswith("<") else 0)
            elif not code.co_filename.startswith(_HERE):
                between = True
                if not file and code.co_filename.startswith(_PACKAGE):
                    file = code.co_filename[len(_PACKAGE) + 1 :]
            frame = frame.f_back
        return step or file, line, bool(step)

    # The memory

    def note(self, name: str, text: str, result: int, began: int, child: int = 0, path: str = "") -> None:
        """Write a call down."""
        if self._span and get_ident() == self._thread and not self._silent:
            took = time_ns() - began
            step, line, _ = self._place()
            self._append((began, took, step, line, name, text, result, child, notation.page(name, path)))

    def _append(self, entry: tuple[Any, ...]) -> None:
        data = marshal.dumps(entry)
        start = self._region * _SIZE
        length, lost = _HEAD.unpack_from(self.memory, start)
        length = length or _HEAD.size
        if length + len(data) + 4 > _SIZE:
            _HEAD.pack_into(self.memory, start, length, lost + 1)
            return
        at = start + length
        self.memory[at : at + 4 + len(data)] = len(data).to_bytes(4, "little") + data
        _HEAD.pack_into(self.memory, start, length + 4 + len(data), lost)

    def _length(self) -> int:
        length: int = _HEAD.unpack_from(self.memory, self._region * _SIZE)[0]
        return length

    def _set_length(self, length: int) -> None:
        _HEAD.pack_into(self.memory, self._region * _SIZE, length, 0)

    def taken(self) -> list[Call]:
        """What has been written since this was asked last, by the time at which it began."""
        found: list[tuple[int, tuple[Any, ...]]] = []
        for region in range(_REGIONS):
            start, (length, lost) = region * _SIZE, _HEAD.unpack_from(self.memory, region * _SIZE)
            while self._read[region] < length:
                at = start + self._read[region]
                size = int.from_bytes(self.memory[at : at + 4], "little")
                found.append((region, marshal.loads(self.memory[at + 4 : at + 4 + size])))
                self._read[region] += 4 + size
            if lost:
                text = f"... and {lost} more, for which there was no room"
                found.append((region, (time_ns(), 0, "", 0, "...", text, 0, 0, "")))
        for region, entry in found:
            if entry[0] == "born":
                pid, _ = self._pids.get(region, (0, ""))
                self._pids[region] = (pid, "process 1" if entry[1] == 1 else "a child")
        for _, entry in found:
            if entry[0] != "born" and entry[7]:
                self._pids[entry[7]] = (entry[6], self._pids.get(entry[7], (0, "a child"))[1])
        calls = []
        for region, entry in found:
            if entry[0] != "born":
                began, took, step, line, name, text, result, _, page = entry
                pid, process = self._pids.get(region, (0, "a child"))
                calls.append(Call(process, pid, step, line, name, text, result, page, began, took))
        return sorted(calls, key=lambda call: call.began)


class _Listened:
    """A file that tells what is written to it, a call of write() at a time."""

    def __init__(self, file: Any, write: Callable[[Any], int], paths: dict[int, str]) -> None:
        self._file = file
        self._paths = paths
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Listened:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """As the file's own."""
        if not self._file.closed:
            self._paths.pop(self._file.fileno(), None)
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o666)


def _written_out(file: Any, data: Any) -> int:
    """At once and in one write(2): to the kernel's own files nothing else makes sense."""
    file.flush()
    if data:
        os.write(file.fileno(), data.encode(file.encoding) if isinstance(data, str) else data)
    return len(data)


def _request(request: Any) -> str:
    """``RTM_NEWLINK``; of connection tracking, whose numbers are others, what nfnetlink calls them all."""
    return _REQUESTS.get(request.type, "NFNL")


_REQUESTS = {value: name for name, value in vars(netlink).items() if name.startswith("RTM_")}


def _python(argument: Any) -> Any:
    """What was handed to C, as Python has it."""
    if hasattr(argument, "_obj"):  # of byref()
        return argument._obj
    return os.fsdecode(argument) if isinstance(argument, bytes) else argument


# Python's functions: the call that each makes, how its arguments are those of the call, and whether it is told of
# outside of steps too: those that change what a process is, not a file. Where a function takes a directory's file
# descriptor, it is the call with "at" at its end.


def _at(name: str, dir_fd: int | None, *rest: Any) -> tuple[str, tuple[Any, ...]]:
    return (name, rest) if dir_fd is None else (f"{name}at", (dir_fd, *rest))


def _removal(path: Any, *, dir_fd: int | None = None, flags: int = 0) -> tuple[str, tuple[Any, ...]]:
    return ("rmdir" if flags else "unlink", (path,)) if dir_fd is None else ("unlinkat", (dir_fd, path, flags))


def _open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> tuple[str, tuple[Any, ...]]:
    made = (mode,) if flags & os.O_CREAT else ()
    return "openat", (-100 if dir_fd is None else dir_fd, path, flags | os.O_CLOEXEC, *made)


def _chown(path: Any, uid: int, gid: int, **how: Any) -> tuple[str, tuple[Any, ...]]:
    if isinstance(path, int):
        return "fchown", (path, uid, gid)
    if how.get("dir_fd") is None and how.get("follow_symlinks", True):
        return "chown", (path, uid, gid)
    flags = 0 if how.get("follow_symlinks", True) else 0x100
    return "fchownat", (-100 if how.get("dir_fd") is None else how["dir_fd"], path, uid, gid, flags)


def _plainly(name: str) -> Callable[..., tuple[str, tuple[Any, ...]]]:
    return lambda *args: (name, args)


_FILES: dict[str, tuple[str, Callable[..., Any]]] = {
    "os.open": ("openat", _open),
    "os.write": ("write", lambda fd, data: ("write", (fd, bytes(data), len(data)))),
    "os.mkdir": ("mkdir", lambda path, mode=0o777, *, dir_fd=None: _at("mkdir", dir_fd, path, mode)),
    "os.rmdir": ("rmdir", lambda path, *, dir_fd=None: _removal(path, dir_fd=dir_fd, flags=0x200)),
    "os.unlink": ("unlink", _removal),
    "os.remove": ("unlink", _removal),
    "os.symlink": (
        "symlink",
        lambda source, target, *_, dir_fd=None: (
            ("symlink", (source, target)) if dir_fd is None else ("symlinkat", (source, dir_fd, target))
        ),
    ),
    "os.link": ("link", lambda source, target, **_: ("link", (source, target))),
    "os.rename": ("rename", lambda source, target, **_: ("rename", (source, target))),
    "os.chmod": ("chmod", lambda path, mode, **_: ("fchmod" if isinstance(path, int) else "chmod", (path, mode))),
    "os.fchmod": ("fchmod", _plainly("fchmod")),
    "os.chown": ("chown", _chown),
    "os.lchown": ("lchown", _plainly("lchown")),
    "os.fchown": ("fchown", _plainly("fchown")),
    "os.mknod": (
        "mknod",
        lambda path, mode=0o600, device=0, *, dir_fd=None: _at("mknod", dir_fd, path, mode & 0o170000, device),
    ),
    "os.setxattr": ("setxattr", lambda path, name, value, *_, **__: ("setxattr", (path, name, value, len(value)))),
    "os.umask": ("umask", _plainly("umask")),
    "os.memfd_create": ("memfd_create", lambda name, flags=1: ("memfd_create", (name, flags))),
    "fcntl.ioctl": ("ioctl", lambda fd, request, *args: ("ioctl", (fd, request & 0xFFFFFFFF, *_names_of(*args)))),
}
_PROCESSES: dict[str, tuple[str, Callable[..., Any]]] = {
    **{
        f"os.{name}": (name, _plainly(name))
        for name in (
            "setsid", "setpgid", "setuid", "setgid", "seteuid", "setegid", "setreuid", "setregid", "setresuid",
            "setresgid", "chroot", "chdir", "fchdir", "unshare", "setns", "kill", "pidfd_open",
        )
    },
    "os.setgroups": ("setgroups", lambda groups: ("setgroups", (len(groups), list(groups)))),
    "os.sched_setaffinity": ("sched_setaffinity", lambda pid, cpus: ("sched_setaffinity", (pid, sorted(cpus)))),
    "os.fork": ("fork", _plainly("fork")),
    "os.posix_spawn": ("posix_spawn", lambda path, args, env, **_: ("posix_spawn", (path, args, env))),
    "os.execve": ("execve", _plainly("execve")),
    "subprocess._fork_exec": ("vfork+execve", lambda args, *_: ("vfork+execve", (args[0], args))),
    "signal.pidfd_send_signal": (
        "pidfd_send_signal",
        lambda pidfd, number, *_: ("pidfd_send_signal", (pidfd, number, None, 0)),
    ),
}  # fmt: skip
_WATCHED = {
    **{name: (*entry, False) for name, entry in _FILES.items()},
    **{name: (*entry, True) for name, entry in _PROCESSES.items()},
}


def _names_of(argument: Any = 0, *_: Any) -> tuple[Any, ...]:
    """What an ioctl(2) is handed: of a ``struct ifreq``, whose 40 bytes they all are here, the device's name."""
    if isinstance(argument, bytes) and len(argument) == 40:
        name = argument[:16].rstrip(b"\0").decode()
        flags = int.from_bytes(argument[16:18], "little")
        return (f'{{ifr_name="{name}", ifr_flags={notation.flags("IFF_", flags)}}}',)
    return (argument,)
