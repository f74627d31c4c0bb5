"""System calls in writing: ``mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL)``, as strace(1) has them, and where in the
manual each is described.

Flags are written by the names that the kernel's headers give them. Those are in the modules of this package, so a name
that is missing here is missing there; what has no name is written in figures.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence

from minicontainer.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST = 300
"""Bytes of data that are shown; of a path or an option, all."""

# What each argument of a call is: "s" text, "d" a number, "@" a directory by file descriptor, "o" permissions in
# octal, "k" a signal, "&" a structure, "?" as its type has it, "!" in writing already; anything else is how the names
# of its flags begin (in capitals), or, with "=" in front, of its one value.
_SIGNATURES = {
    "mount": "s s s MS_ s",
    "umount2": "s MNT_,UMOUNT_",
    "unshare": "CLONE_",
    "setns": "d CLONE_NEW",
    "clone3": "& d",
    "open_tree": "@ s OPEN_TREE_,AT_",
    "move_mount": "@ s @ s MOVE_MOUNT_",
    "fsopen": "s FSOPEN_",
    "fsmount": "d FSMOUNT_ MOUNT_ATTR_",
    "fsconfig": "d =FSCONFIG_ s s d",
    "fspick": "@ s FSPICK_",
    "mount_setattr": "@ s AT_ & d",
    "openat": "@ s O_ o",
    "openat2": "@ s & d",
    "keyctl": "=KEYCTL_ ?",
    "seccomp": "=SECCOMP_SET_ SECCOMP_FILTER_FLAG_ &",
    "close_range": "d d CLOSE_RANGE_",
    "socket": "=AF_ SOCK_ d",
    "socketpair": "=AF_ SOCK_ d &",
    "ioctl": "d =SIOC,TIOC,NS_GET_,SECCOMP_IOCTL_ !",
    "landlock_create_ruleset": "& d LANDLOCK_CREATE_",
    "landlock_add_rule": "d =LANDLOCK_RULE_ & d",
    "prlimit64": "d d & &",
    "ioprio_set": "=IOPRIO_WHO_ d d",
    "bpf": "=BPF_ & d",
    "perf_event_open": "& d d d PERF_FLAG_",
    "pidfd_send_signal": "d k ? d",
    "kill": "d k",
    "mkdir": "s o", "mkdirat": "@ s o", "chmod": "s o", "fchmod": "d o", "umask": "o",
    "unlinkat": "@ s AT_REMOVEDIR", "symlinkat": "s @ s", "linkat": "@ s @ s d", "renameat": "@ s @ s",
    "fchownat": "@ s d d AT_", "fchmodat": "@ s o", "mknod": "s S_IF ?", "mknodat": "@ s S_IF ?",
    "memfd_create": "s MFD_",
}  # fmt: skip

_FIELDS = {
    "CloneArgs": {"flags": "CLONE_", "exit_signal": "k"},
    "OpenHow": {"flags": "O_", "mode": "o", "resolve": "RESOLVE_"},
    "MountAttr": {"attr_set": "MOUNT_ATTR_", "attr_clr": "MOUNT_ATTR_", "propagation": "MS_"},
}
"""Fields of structures, likewise; those that are not named here are numbers."""

_PAGES = {
    "posix_spawn": "posix_spawn(3)",
    "clone3": "clone(2)",
    "umount2": "umount(2)",
    "openat": "open(2)",
    "mkdirat": "mkdir(2)", "unlinkat": "unlink(2)", "symlinkat": "symlink(2)", "linkat": "link(2)",
    "renameat": "rename(2)", "mknodat": "mknod(2)", "fchmodat": "chmod(2)", "fchmod": "chmod(2)",
    "fchownat": "chown(2)", "fchown": "chown(2)", "lchown": "chown(2)", "fchdir": "chdir(2)",
    "pwrite64": "pwrite(2)", "prlimit64": "prlimit(2)", "nft": "nft(8)", "vfork+execve": "execve(2)",
}  # fmt: skip

_WRITTEN = (
    ("/uid_map", "user_namespaces(7)"), ("/gid_map", "user_namespaces(7)"), ("/setgroups", "user_namespaces(7)"),
    ("/timens_offsets", "time_namespaces(7)"), ("/proc/sys/", "proc_sys(5)"), ("/oom_score_adj", "proc(5)"),
    ("/attr/", "proc(5)"), ("/cgroup", "cgroups(7)"),
)  # fmt: skip
"""A part of a file's path → where the manual says what writing to it does."""


def page(name: str, path: str = "") -> str:
    """The manual page of a call, and for a write to `path`, one of the kernel's own files, of what that does.

    ``page("unshare")`` → ``unshare(2)``. Names in capitals are messages of netlink.
    """
    if name == "write":
        return next((page for part, page in _WRITTEN if part in path), "write(2)")
    if name.startswith(("RTM_", "IFLA_")):
        return "rtnetlink(7)"
    return _PAGES.get(name, f"{name}(2)")


def written(name: str, args: Sequence[Any]) -> str:
    """The call as text."""
    special = _SPECIAL.get(name)
    try:
        shown = special(*args) if special else _arguments(_SIGNATURES.get(name, ""), args)
    except Exception:  # arguments such as the call does not have: they are written as they are
        shown = [_one("?", value) for value in args]
    return f"{name}({', '.join(shown)})"


def name_flags_in_errors() -> None:
    """From now on, have ``unshare(CLONE_NEWUTS): EPERM`` in the errors of this process, not ``unshare(0x4000000)``.

    For whoever learns from them. The engine does without, so that it need not load this module.
    """
    syscalls.written = written


def text(value: Any) -> str:
    """A text in quotes, as C has it; NULL for None."""
    if value is None:
        return "NULL"
    data, longest = (value, LONGEST) if isinstance(value, bytes) else (os.fsencode(value), 1 << 16)
    shown = data[:longest].decode("utf-8", "backslashreplace")
    for character, escaped in ("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("\0", "\\0"):
        shown = shown.replace(character, escaped)
    shown = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in shown)
    return f'"{shown}"{"..." if len(data) > longest else ""}'


def flags(beginning: str, value: int) -> str:
    """``flags("MS_", 0x44000)`` → ``MS_REC|MS_PRIVATE``; 0 and what has no name in figures."""
    names = []
    known = _constants(beginning)
    if beginning.startswith("O_"):
        names.append(("O_RDONLY", "O_WRONLY", "O_RDWR", "0x3")[value & 3])
        value &= ~3
    for name, bits in known:
        if bits and value & bits == bits:
            names.append(name)
            value &= ~bits
    if value or not names:
        names.append(hex(value) if value else "0")
    return "|".join(names)


def _value(beginning: str, value: int) -> str:
    return next((name for name, number in _constants(beginning) if number == value), hex(value))


def _constants(beginning: str) -> list[tuple[str, int]]:
    """Every constant whose name begins so, the one with the most bits first, then by value.

    Looked for when it is needed: by then the module that makes the call, which has the names, is loaded.
    """
    if beginning not in _found:
        parts = tuple(beginning.split(","))
        ours = [module for name, module in list(sys.modules.items()) if name.startswith("minicontainer.")]
        places = [vars(os)] if beginning == "O_" else [vars(module) for module in ours]
        names: dict[str, int] = {}
        for place in places:
            names |= {name: value for name, value in place.items() if type(value) is int and name.startswith(parts)}
        names |= {name: value for name, value in _ELSEWHERE.items() if name.startswith(parts)}
        for name in ("O_ACCMODE", "O_LARGEFILE", "O_NDELAY", "O_FSYNC", "O_RSYNC", "AT_FDCWD", "MOUNT_ATTR__ATIME"):
            names.pop(name, None)
        _found[beginning] = sorted(names.items(), key=lambda item: (-item[1].bit_count(), item[1]))
    return _found[beginning]


_found: dict[str, list[tuple[str, int]]] = {}
_ELSEWHERE = {
    "OPEN_TREE_CLOEXEC": os.O_CLOEXEC,
    "AT_REMOVEDIR": 0x200,
    "AT_SYMLINK_NOFOLLOW": 0x100,
    "S_IFCHR": 0o020000,
    "S_IFBLK": 0o060000,
    "S_IFIFO": 0o010000,
    "IFF_LOOPBACK": 0x8,
    "MFD_CLOEXEC": 1,
    "MFD_ALLOW_SEALING": 2,
}
"""Names that no module of ours has a use for."""


def _arguments(signature: str, args: Sequence[Any]) -> list[str]:
    kinds = signature.split()
    kinds += ["?"] * (len(args) - len(kinds))
    return [_one(kind, value) for kind, value in zip(kinds, args, strict=False)]


def _one(kind: str, value: Any) -> str:
    if kind == "!":
        return str(value)
    if isinstance(value, ctypes.Structure):
        return _structure(value)
    if isinstance(value, ctypes.Array):
        return f"[{', '.join(map(str, value))}]" if value and isinstance(value[0], int) else f"{{{len(value)} bytes}}"
    if not isinstance(value, int):
        return text(value) if value is None or isinstance(value, str | bytes | os.PathLike) else str(value)
    if kind == "@":
        return "AT_FDCWD" if value == -100 else str(value)
    if kind == "o":
        return f"0{value:o}" if value else "0"
    if kind == "k":
        return signal.Signals(value).name if value in signal.valid_signals() and value else str(value)
    if kind.startswith("="):
        return _value(kind[1:], value)
    if kind[0].isupper():
        return flags(kind, value)
    return str(value) if -(1 << 20) < value < 1 << 31 else hex(value)


def _structure(value: ctypes.Structure) -> str:
    """The fields that are not 0, and among them always the first."""
    kinds = _FIELDS.get(type(value).__name__, {})
    shown = []
    for field in value._fields_:
        content = getattr(value, field[0])
        if not isinstance(content, int | None):
            shown.append(f"{field[0]}=…")
        elif content or not shown:
            pointer = field[1] is ctypes.c_void_p
            shown.append(f"{field[0]}={'…' if pointer else _one(kinds.get(field[0], 'd'), content or 0)}")
    return f"{{{', '.join(shown)}}}"


def _prctl(option: int, *args: int) -> list[str]:
    name = _value("PR_", option)
    if name == "PR_SET_PDEATHSIG":
        return [name, _one("k", args[0])]
    if name == "PR_SET_DUMPABLE":
        return [name, ("SUID_DUMP_DISABLE", "SUID_DUMP_USER")[args[0]]]
    if name in ("PR_CAPBSET_DROP", "PR_CAPBSET_READ"):
        return [name, _capability(args[0])]
    if name == "PR_CAP_AMBIENT":
        what = _value("PR_CAP_AMBIENT_", args[0])
        return [name, what, *([_capability(args[1])] if args[1] else ["0"]), "0", "0"]
    if name in ("PR_SET_KEEPCAPS", "PR_SET_CHILD_SUBREAPER"):
        return [name, str(args[0])]
    return [name, *map(str, args)]


def _capset(header: ctypes.Structure, data: ctypes.Structure) -> list[str]:
    sets = {
        name: getattr(data, f"{name}0") | getattr(data, f"{name}1") << 32
        for name in ("effective", "permitted", "inheritable")
    }
    shown = (f"{name}={'|'.join(map(_capability, _bits(mask))) or '0'}" for name, mask in sets.items())
    return ["{version=3, pid=0}", f"{{{', '.join(shown)}}}"]


def _bits(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def _capability(number: int) -> str:
    module = sys.modules.get("minicontainer.linux.capabilities")
    names = module.NAMES if module else ()
    return f"CAP_{names[number]}" if number < len(names) else str(number)


def _executed(path: Any, args: Sequence[Any], environment: Any = None, *more: Any) -> list[str]:
    shown = [text(path), f"[{', '.join(map(text, args))}]"]
    return shown if environment is None else [*shown, f"{{{len(environment)} variables}}"]


_SPECIAL: dict[str, Callable[..., list[str]]] = {
    "prctl": _prctl,
    "capset": _capset,
    "execve": _executed,
    "posix_spawn": _executed,
    "vfork+execve": _executed,
}
