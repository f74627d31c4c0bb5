"""The one door to the kernel: `call("mount", ...)` makes that system call, or raises an OSError that says which call
failed.

Python has `os.fork` and `os.kill`, but no `pivot_root`, no `clone3` and (before 3.12) no `unshare`. syscall(2) of the C
library reaches them all by number. Numbers differ from one architecture to another for the older calls; those added
since Linux 5.1 have the same number everywhere. Sources: arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h in the kernel's tree; syscalls(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence

#                        x86_64  aarch64
_NUMBERS = {
    "ioctl":            (16,     29),
    "shmget":           (29,     194),
    "shmat":            (30,     196),
    "shmctl":           (31,     195),
    "shmdt":            (67,     197),
    "fallocate":        (285,    47),
    "socket":           (41,     198),
    "socketpair":       (53,     199),
    "setsockopt":       (54,     208),
    "mount":            (165,    40),
    "umount2":          (166,    39),
    "pivot_root":       (155,    41),
    "sethostname":      (170,    161),
    "setdomainname":    (171,    162),
    "fstatfs":          (138,    44),
    "personality":      (135,    92),
    "unshare":          (272,    97),
    "setns":            (308,    268),
    "prctl":            (157,    167),
    "capget":           (125,    90),
    "capset":           (126,    91),
    "mq_open":          (240,    180),
    "mq_unlink":        (241,    181),
    "mq_timedsend":     (242,    182),
    "mq_timedreceive":  (243,    183),
    "set_mempolicy":    (238,    237),
    "ioprio_set":       (251,    30),
    "ioprio_get":       (252,    31),
    "prlimit64":        (302,    261),
    "sched_setattr":    (314,    274),
    "keyctl":           (250,    219),
    "perf_event_open":  (298,    241),
    "renameat2":        (316,    276),
    "syncfs":           (306,    267),
    "seccomp":          (317,    277),
    "bpf":              (321,    280),
    "signalfd4":        (289,    74),
    "inotify_init1":    (294,    26),
    "inotify_add_watch": (254,   27),
    "pidfd_send_signal": (424,   424),
    "open_tree":        (428,    428),
    "move_mount":       (429,    429),
    "fsopen":           (430,    430),
    "fsconfig":         (431,    431),
    "fsmount":          (432,    432),
    "fspick":           (433,    433),
    "pidfd_open":       (434,    434),
    "clone3":           (435,    435),
    "close_range":      (436,    436),
    "openat2":          (437,    437),
    "pidfd_getfd":      (438,    438),
    "mount_setattr":    (442,    442),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445,   445),
    "landlock_restrict_self": (446, 446),
    "lsm_list_modules": (461, 461),
}  # fmt: skip

_COLUMN = {"x86_64": 0, "aarch64": 1}
_MACHINE = os.uname().machine

# PyDLL, not CDLL: the interpreter lock stays with us during the call. The child that clone3 makes is a copy of this
# thread alone; if the lock had been given away, nobody would be left in the child to give it back.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
# A pointer is as wide as a register: numbers go as they are.
_syscall.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 6]
_REGISTERS = (0,) * 6


def syscall(number: int, *given: object) -> int:
    """syscall(2), by the number of the call and arguments as C has them. `recording` listens here, when asked to."""
    result: int = _syscall(number, *given, *_REGISTERS[len(given) :])
    return result


Argument = (
    int
    | str
    | bytes
    | os.PathLike[str]
    | ctypes.Array[ctypes.c_char]
    | ctypes.Array[ctypes.c_int]
    | ctypes.Structure
    | None
)


def call(name: str, *args: Argument) -> int:
    """Make the system call `name` and return what the kernel returned (never negative).

    Numbers go as they are, text and paths as NUL-terminated strings, structures and buffers by address, None as NULL.
    The kernel knows how many of the six arguments a call has, and does not look at the others.

    Raises OSError with the errno; its text is the call as a C programmer would write it:
    ``pivot_root("/new", "/new"): EINVAL (Invalid argument)``.
    """
    while True:
        result = syscall(_number(name), *[arg if type(arg) is int else _as_c(arg) for arg in args])
        if result >= 0:
            return result
        if ctypes.get_errno() != errno.EINTR:  # a signal that Python has noted; the call is made again, as PEP 475 does
            raise failure(name, args, ctypes.get_errno())


def failure(name: str, args: tuple[Argument, ...], number: int) -> OSError:
    """The OSError (of the subclass that fits, such as PermissionError) for a failed call."""
    return OSError(number, f"{written(name, args)}: {errno.errorcode.get(number, number)} ({os.strerror(number)})")


def _in_figures(name: str, args: Sequence[Argument]) -> str:
    return f"{name}({', '.join(map(_shown, args))})"


written: Callable[[str, Sequence[Argument]], str] = _in_figures
"""How a failed call is written. `notation.name_flags_in_errors` puts another here, beforehand: nothing must be
imported where something fails, since that may be in a container already, among somebody else's files."""


class KernelTooOld(OSError):
    """This kernel or this machine has no such system call."""


def _number(name: str) -> int:
    try:
        return _NUMBERS[name][_COLUMN[_MACHINE]]
    except KeyError:
        raise KernelTooOld(errno.ENOSYS, f"{name}: its number on {_MACHINE} is not in {__name__}") from None


def _as_c(value: Argument) -> object:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, ctypes.Structure | ctypes.Array):
        return ctypes.byref(value)
    text = os.fsencode(value)
    if b"\0" in text:  # C would stop reading there, and the call would hit another file than the one that was named
        raise ValueError(f"embedded null byte in {value!r}")
    return text


def _shown(value: Argument) -> str:
    if isinstance(value, int):
        return str(value) if -1024 < value < 1024 else hex(value)
    if value is None:
        return "NULL"
    if isinstance(value, ctypes.Structure | ctypes.Array):
        return f"&{type(value).__name__.lower()}"
    return f'"{os.fsdecode(value)}"'
