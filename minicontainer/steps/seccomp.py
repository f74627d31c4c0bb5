"""Step 15, hardening: which system calls a process may make, whatever its rights.

seccomp(2); OCI runtime-spec, config-linux.md, "Seccomp". Every way out of a container leads through a system call, and
most of the kernel's 450 are made by no ordinary program. A profile names those that are allowed; `compile_filter`
makes the program of it that the kernel runs at each call, `filter_syscalls` puts it in force.

The names SCMP_… come from libseccomp, whose readings we keep, since profiles are written for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from minicontainer.linux.seccomp import (
    ARCH,
    ARGS,
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_ARM,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    BPF_AND_K,
    BPF_JA,
    BPF_JEQ_K,
    BPF_JGE_K,
    BPF_JGT_K,
    BPF_JUMP,
    BPF_LD_W_ABS,
    BPF_MAXINSNS,
    BPF_RET_K,
    BPF_STMT,
    NR,
    SECCOMP_FILTER_FLAG_LOG,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
    SECCOMP_SET_MODE_FILTER,
    SIZE,
    X32_SYSCALL_BIT,
    seccomp,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

Condition = tuple[int, str, int, int]
"""Of a rule: which argument, 0 to 5; SCMP_CMP_…; the value; and for SCMP_CMP_MASKED_EQ, where that is the mask, what is
left under it."""

Rule = tuple[list[str], list[Condition], int]
"""The calls' names, the conditions that must all hold, the kernel's answer then."""

ACTIONS = {
    "SCMP_ACT_KILL": SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": SECCOMP_RET_TRAP,
    "SCMP_ACT_ERRNO": SECCOMP_RET_ERRNO,
    "SCMP_ACT_NOTIFY": SECCOMP_RET_USER_NOTIF,
    "SCMP_ACT_TRACE": SECCOMP_RET_TRACE,
    "SCMP_ACT_LOG": SECCOMP_RET_LOG,
    "SCMP_ACT_ALLOW": SECCOMP_RET_ALLOW,
}

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    "SECCOMP_FILTER_FLAG_LOG": SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}

OPERATORS = {  # the jump that decides, and whether the condition holds where it says yes
    "SCMP_CMP_EQ": (BPF_JEQ_K, True),
    "SCMP_CMP_NE": (BPF_JEQ_K, False),
    "SCMP_CMP_GT": (BPF_JGT_K, True),
    "SCMP_CMP_LE": (BPF_JGT_K, False),
    "SCMP_CMP_GE": (BPF_JGE_K, True),
    "SCMP_CMP_LT": (BPF_JGE_K, False),
    "SCMP_CMP_MASKED_EQ": (BPF_JEQ_K, True),
}

ARCHITECTURES = {  # what the kernel calls it in seccomp_data, and we in linux/numbers.py; none: runs on other machines
    "SCMP_ARCH_X86_64": (AUDIT_ARCH_X86_64, "x86_64"),
    "SCMP_ARCH_X86": (AUDIT_ARCH_I386, "x86"),
    "SCMP_ARCH_X32": (AUDIT_ARCH_X86_64, "x32"),
    "SCMP_ARCH_AARCH64": (AUDIT_ARCH_AARCH64, "aarch64"),
    "SCMP_ARCH_ARM": (AUDIT_ARCH_ARM, "arm"),
    **dict.fromkeys(
        (f"SCMP_ARCH_{name}" for name in (
            "MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 RISCV64 "
            "LOONGARCH64 M68K SH SHEB"
        ).split()),
        (0, ""),
    ),
}  # fmt: skip

MACHINES = {  # what uname(2) says: the architectures that run there, its own first; and its name in Docker's profiles
    "x86_64": (("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"), "amd64"),
    "aarch64": (("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"), "arm64"),
}

_MULTIPLEXED = {
    name: ("socketcall", (0, "SCMP_CMP_EQ", number, 0))
    for number, name in enumerate(
        "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown "
        "setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg".split(), 1
    )
} | {
    name: ("ipc", (0, "SCMP_CMP_MASKED_EQ", 0xFFFF, number))  # the upper half is a version
    for number, name in (
        (1, "semop"), (2, "semget"), (3, "semctl"), (4, "semtimedop"), (11, "msgsnd"), (12, "msgrcv"), (13, "msgget"),
        (14, "msgctl"), (21, "shmat"), (22, "shmdt"), (23, "shmget"), (24, "shmctl"),
    )
}  # fmt: skip
"""On i386, socketcall(2) and ipc(2) do the work of these as well: their second name."""

_ARM_PRIVATE = 0xF0000
_ENOSYS = BPF_STMT(BPF_RET_K, SECCOMP_RET_ERRNO | 38)
_KILL = BPF_STMT(BPF_RET_K, SECCOMP_RET_KILL_PROCESS)
_PERMISSIVE = (SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_USER_NOTIF)
_EPERM = 1
_MAX_64 = 0xFFFFFFFFFFFFFFFF
_MAX_32 = 0xFFFFFFFF


def filter_syscalls(program: bytes, flags: int = 0) -> int | None:
    """Have the kernel ask `program` about every system call of the calling thread, from now on and for good.

    Whatever it forks or executes is bound as well, and a second filter can only forbid more. Where the program says
    SCMP_ACT_NOTIFY somebody else decides: with SECCOMP_FILTER_FLAG_NEW_LISTENER this returns the file descriptor,
    close-on-exec, at which they are asked, otherwise None.

    Raises OSError: EACCES (it takes no_new_privs, or CAP_SYS_ADMIN: else a set-user-ID program could be made to fail in
    the middle, with its rights), EINVAL (not a program, or a flag that this kernel does not have), EBUSY.
    """
    listener = seccomp(SECCOMP_SET_MODE_FILTER, flags, program)
    return listener if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER else None


def filter_flags(profile: Mapping[str, object]) -> int:
    """The flags for `filter_syscalls`: those that the profile names, and a listener where it has SCMP_ACT_NOTIFY.

    Raises ValueError: an unknown one.
    """
    flags = 0
    for place, name in enumerate(_strings(profile, "flags", WHERE)):
        flags |= _known(FLAGS, name, f"{WHERE}.flags[{place}]")
    actions = [profile.get("defaultAction"), *(rule.get("action") for _, rule in _objects(profile, "syscalls", WHERE))]
    if "SCMP_ACT_NOTIFY" in actions:
        return flags | SECCOMP_FILTER_FLAG_NEW_LISTENER
    return flags & ~SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV  # it is about who listens, and an error where nobody does


# From a profile to a program. Every piece of code below ends with an answer, whichever way one goes through it: so two
# of them are put together by a jump, and nothing has to come after them.


def compile_filter(
    profile: Mapping[str, object],
    capabilities: Iterable[str] = (),
    machine: str = os.uname().machine,
    kernel: str = os.uname().release,
) -> bytes:
    """The program, in classic BPF, for a profile: OCI's `linux.seccomp`, or Docker's form with its conditions.

    Docker's `includes` and `excludes` are decided by the container's capabilities ("CAP_SYS_ADMIN"…), the machine and
    the kernel's release. Calls of which we have never heard are passed over, as other runtimes do: a profile serves
    many kernels. The same arguments always give the same program, so it can be kept.

    Raises ValueError: what is wrong, and where in the profile: ``linux.seccomp.syscalls[3].args[0].op: …``.
    """
    if machine not in MACHINES:
        raise ValueError(f"{WHERE}: the numbers of system calls on {machine} are not known here")
    default = _answer(profile, "defaultAction", "defaultErrnoRet", WHERE)
    rules = list(_rules(profile, capabilities, machine, kernel))
    deciders = {name: _decide(name, rules, default) for name in _architectures(profile, machine)}

    # A call of an architecture that the profile does not have could be anything: its numbers are others.
    program = _KILL
    x32 = deciders.pop("SCMP_ARCH_X32", _if(BPF_JEQ_K, _MAX_32, BPF_STMT(BPF_RET_K, default), _KILL))
    for name, decide in reversed(deciders.items()):
        if name == "SCMP_ARCH_X86_64":  # -1, which has that bit too, is what a tracer makes of a call to be left out
            decide = _if(BPF_JGE_K, X32_SYSCALL_BIT, x32, decide)
        program = _if(BPF_JEQ_K, ARCHITECTURES[name][0], BPF_STMT(BPF_LD_W_ABS, NR) + decide, program)
    program = BPF_STMT(BPF_LD_W_ABS, ARCH) + program

    if len(program) > BPF_MAXINSNS * SIZE:
        raise ValueError(f"{WHERE}: makes a program of {len(program) // SIZE} instructions, {BPF_MAXINSNS} at most")
    return program


def _decide(architecture: str, rules: list[Rule], default: int) -> bytes:
    """The answer to the number in the accumulator: a binary search among the ranges that have the same answer.

    A rule without conditions comes before those with them, and else the first that fits decides. A rule that has the
    default action says nothing. All this as libseccomp and runc have it, and a number that is beyond all that the
    profile mentions as well: ENOSYS, because the profile is older than the call, and a program that is told so takes
    an older way, where EPERM would make it give up.
    """
    from minicontainer.linux.numbers import numbers_of

    numbers = numbers_of(ARCHITECTURES[architecture][1])
    base = X32_SYSCALL_BIT if architecture == "SCMP_ARCH_X32" else 0
    wide = architecture in ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
    always: dict[int, int] = {}
    sometimes: dict[int, list[tuple[list[Condition], int]]] = {}
    last = -1
    for names, conditions, answer in rules:
        for name in names:
            number = numbers.get(name, -1)
            if last < number < _ARM_PRIVATE:
                last = number
            if answer == default:
                continue
            if architecture == "SCMP_ARCH_X86" and name in _MULTIPLEXED:
                # What else the rule asks for lies in memory here, where no filter can look.
                other, which = _MULTIPLEXED[name]
                sometimes.setdefault(numbers[other], []).append(([which], answer))
            if number < 0:
                continue
            if conditions:
                sometimes.setdefault(number, []).append((conditions, answer))
            else:
                always.setdefault(number, answer)

    otherwise = BPF_STMT(BPF_RET_K, default)
    beyond = otherwise if last < 0 or default & ~0xFFFF in _PERMISSIVE else _ENOSYS
    starts = {number: _first_match(some, default, wide) for number, some in sometimes.items()}
    starts |= {number: BPF_STMT(BPF_RET_K, answer) for number, answer in always.items()}
    for number in (-1, last, *starts):
        starts.setdefault(number + 1, otherwise if number < last else beyond)
    code = b""
    ranges = []
    for number, following in sorted(starts.items()):
        if following != code:
            ranges.append((number + base, following))
            code = following
    return _search(ranges)


def _search(ranges: list[tuple[int, bytes]]) -> bytes:
    """Which of the ranges, each known by its first number and ended by the next, is the accumulator in?"""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    return _if(BPF_JGE_K, ranges[middle][0], _search(ranges[middle:]), _search(ranges[:middle]))


def _if(jump: int, value: int, yes: bytes, no: bytes) -> bytes:
    """Go on with `yes` or with `no`, as the accumulator compares with the value. A jump has 8 bits, BPF_JA has 32."""
    over = len(yes) // SIZE
    if over <= 255:
        return BPF_JUMP(jump, value, 0, over) + yes + no
    return BPF_JUMP(jump, value, 1, 0) + BPF_STMT(BPF_JA, over) + yes + no


def _first_match(rules: list[tuple[list[Condition], int]], default: int, wide: bool) -> bytes:
    """The answer of the first rule whose conditions all hold."""
    code = b""
    for conditions, answer in rules:
        rule = BPF_STMT(BPF_RET_K, answer)
        for condition in reversed(conditions):
            rule = _skip_unless(condition, len(rule) // SIZE, wide) + rule
        code += rule
    return code + BPF_STMT(BPF_RET_K, default)


def _skip_unless(condition: Condition, skip: int, wide: bool) -> bytes:
    """Leave out the next `skip` instructions unless the condition holds.

    An argument comes in two halves: the upper ones decide, unless they are equal. Architectures of 32 bits have no
    upper half, or none that their calls look at.
    """
    index, operator, value, two = condition
    jump, holds = OPERATORS[operator]
    mask = _MAX_64
    if operator == "SCMP_CMP_MASKED_EQ":
        mask, value = value, two
    if not wide and jump != BPF_JEQ_K and value > _MAX_32:  # never greater than that
        jump, value = BPF_JGT_K, _MAX_32
    yes, no = (0, skip) if holds else (skip, 0)

    lower = _load(index, 0, mask) + BPF_JUMP(jump, value & _MAX_32, yes, no)
    if not wide:
        return lower
    over = len(lower) // SIZE
    upper = _load(index, 1, mask)
    if jump != BPF_JEQ_K:
        upper += BPF_JUMP(BPF_JGT_K, value >> 32, 1 + over + yes, 0)
    return upper + BPF_JUMP(BPF_JEQ_K, value >> 32, 0, over + no) + lower


def _load(index: int, half: int, mask: int) -> bytes:
    """Half of an argument, 0 the lower, 1 the upper, into the accumulator, and of it what the mask has."""
    load = BPF_STMT(BPF_LD_W_ABS, ARGS + 8 * index + 4 * half)
    return load if mask == _MAX_64 else load + BPF_STMT(BPF_AND_K, mask >> 32 * half & _MAX_32)


# Reading a profile: everything that is wrong is found here, and by its place.

WHERE = "linux.seccomp"


def _rules(profile: Mapping[str, object], capabilities: Iterable[str], machine: str, kernel: str) -> Iterator[Rule]:
    """The rules that apply to this container, this machine and this kernel."""
    held = {f"CAP_{name.removeprefix('CAP_')}" for name in capabilities}
    for where, entry in _objects(profile, "syscalls", WHERE):
        names = _strings(entry, "names", where)
        if name := _string(entry, "name", where):  # Docker's, before there was `names`
            names.append(name)
        if not names or not all(names):
            raise ValueError(f"{where}.names: no system call is named")
        answer = _answer(entry, "action", "errnoRet", where)
        conditions = [_condition(arg, place) for place, arg in _objects(entry, "args", where)]
        includes = _asked(entry, "includes", held, machine, kernel, where)
        excludes = _asked(entry, "excludes", held, machine, kernel, where)
        if not all(includes) or any(excludes):
            continue
        if len({index for index, *_ in conditions}) == len(conditions):
            yield names, conditions, answer
        else:  # two conditions on one argument: libseccomp cannot join them, and runc makes a rule of each instead
            yield from ((names, [condition], answer) for condition in conditions)


def _condition(arg: Mapping[str, object], where: str) -> Condition:
    if arg.get("index") is None:
        raise ValueError(f"{where}.index: is missing")
    operator = _string(arg, "op", where)
    _known(OPERATORS, operator, f"{where}.op")
    index = _number(arg, "index", where, 5)
    return index, operator, _number(arg, "value", where, _MAX_64), _number(arg, "valueTwo", where, _MAX_64)


def _asked(entry: Mapping[str, object], key: str, held: set[str], machine: str, kernel: str, where: str) -> list[bool]:
    """Which of the conditions of Docker's `includes` or `excludes` hold."""
    what, where = _object(entry, key, where), f"{where}.{key}"
    answers = [f"CAP_{name.removeprefix('CAP_')}" in held for name in _strings(what, "caps", where)]
    if arches := _strings(what, "arches", where):
        answers.append(MACHINES[machine][1] in arches)
    if least := _string(what, "minKernel", where):
        wanted = least.split(".")
        if not all(part.isascii() and part.isdecimal() for part in wanted):
            raise ValueError(f"{where}.minKernel: {_shown(least)} is no version of Linux, as 4.8 is")
        answers.append(_version(kernel) >= [int(part) for part in wanted[:2]])
    return answers


def _version(release: str) -> list[int]:
    """The first two numbers of a release: 6.1 of 6.1.0-44-amd64, and of 6.1-rc3."""
    digits = "".join(one if one in "0123456789" else " " for one in release)
    return [int(part) for part in digits.split()[:2]]


def _architectures(profile: Mapping[str, object], machine: str) -> list[str]:
    """Those of the profile that run on this machine; its own, which comes first, is always among them."""
    mine, _ = MACHINES[machine]
    named = _strings(profile, "architectures", WHERE)
    for place, name in enumerate(named):
        _known(ARCHITECTURES, name, f"{WHERE}.architectures[{place}]")
    for where, entry in _objects(profile, "archMap", WHERE):
        if "architectures" in profile:
            raise ValueError(f"{WHERE}: has both architectures and archMap, and one of them would be overlooked")
        own, others = _string(entry, "architecture", where), _strings(entry, "subArchitectures", where)
        _known(ARCHITECTURES, own, f"{where}.architecture")
        for place, name in enumerate(others):
            _known(ARCHITECTURES, name, f"{where}.subArchitectures[{place}]")
        if own == mine[0]:
            named = others
    return [name for name in mine if name == mine[0] or name in named]


def _answer(entry: Mapping[str, object], action: str, errno: str, where: str) -> int:
    """What the kernel is to answer: the action, with the errno."""
    name = _string(entry, action, where)
    answer = _known(ACTIONS, name, f"{where}.{action}")
    given = entry.get(errno) is not None
    if answer in (SECCOMP_RET_ERRNO, SECCOMP_RET_TRACE):
        return answer | (_number(entry, errno, where, 0xFFFF) if given else _EPERM)
    if given:
        raise ValueError(f"{where}.{errno}: {name} has no errno, only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have")
    return answer


def _known(table: Mapping[str, T], name: str, where: str) -> T:
    if name not in table:
        raise ValueError(f"{where}: {_shown(name) if name else 'is missing, it'} is none of {', '.join(table)}")
    return table[name]


# Absent and null are the same.


def _objects(entry: Mapping[str, object], key: str, where: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each with its place."""
    for place, one in enumerate(_list(entry, key, where)):
        if not isinstance(one, Mapping):
            raise ValueError(f"{where}.{key}[{place}]: {_shown(one)} is not an object")
        yield f"{where}.{key}[{place}]", one


def _strings(entry: Mapping[str, object], key: str, where: str) -> list[str]:
    found = []
    for place, one in enumerate(_list(entry, key, where)):
        if not isinstance(one, str):
            raise ValueError(f"{where}.{key}[{place}]: {_shown(one)} is not a string")
        found.append(one)
    return found


def _list(entry: Mapping[str, object], key: str, where: str) -> Sequence[object]:
    value = entry.get(key)
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}.{key}: {_shown(value)} is not an array")
    return value


def _object(entry: Mapping[str, object], key: str, where: str) -> Mapping[str, object]:
    value = entry.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}.{key}: {_shown(value)} is not an object")
    return value


def _string(entry: Mapping[str, object], key: str, where: str) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where}.{key}: {_shown(value)} is not a string")
    return value


def _number(entry: Mapping[str, object], key: str, where: str, most: int) -> int:
    value = entry.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{where}.{key}: {_shown(value)} is not a whole number from 0 to {most}")
    return value


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = "".join(one if one.isprintable() else "?" for one in text[:61])
    return text if len(text) <= 60 else f"{text[:59]}…"
