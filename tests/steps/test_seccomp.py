"""`steps/seccomp.py`: what it compiles is what the profile says, and the kernel does what it says.

In three ways: a small machine for classic BPF here, against a straightforward reading of the profile; children of ours
on whom filters are put, and who make the calls; and the default profile, by name what it refuses and lets pass.
"""

from __future__ import annotations

import ast
import ctypes
import errno
import functools
import mmap
import operator
import os
import platform
import pty
import resource
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.linux import PR_SET_NO_NEW_PRIVS, prctl
from minicontainer.linux.numbers import numbers_of
from minicontainer.linux.seccomp import (
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_ARM,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    BPF_MAXINSNS,
    SECCOMP_FILTER_FLAG_LOG,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
    notif_addfd,
    notif_id_valid,
    notif_recv,
    notif_send,
)
from minicontainer.runtime.seccomp_default import PROFILE
from minicontainer.steps import seccomp
from minicontainer.steps.seccomp import compile_filter, filter_flags, filter_syscalls

Profile = Mapping[str, Any]

numbers = functools.cache(numbers_of)

MACHINE = platform.machine()
NATIVE = numbers_of(MACHINE)
HERE = {"x86_64": AUDIT_ARCH_X86_64, "aarch64": AUDIT_ARCH_AARCH64}[MACHINE]
KERNEL = "6.1.0-44-amd64"

on_x86_64 = pytest.mark.skipif(MACHINE != "x86_64", reason="i386 and x32 are of x86_64")
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, or the kernel would refuse it before the filter does"
)


def rule(
    names: str, action: str = "ERRNO", *args: tuple[int, str, int] | tuple[int, str, int, int], **more: Any
) -> dict[str, Any]:
    """An entry of `syscalls`."""
    conditions = [
        {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two[0] if two else 0}
        for index, op, value, *two in args
    ]
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", "args": conditions, **more}


def profile(*rules: Mapping[str, Any], default: str = "ALLOW", **more: Any) -> dict[str, Any]:
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(rules), **more}


# A machine for classic BPF


def ask(program: bytes, number: int, *args: int, arch: int = HERE) -> int:
    """What the program answers to a call."""
    packet = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *args, *[0] * (6 - len(args)))
    at, accumulator = 0, 0
    while True:
        code, yes, no, k = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", packet, k)
            case 0x54:
                accumulator &= k
            case 0x05:
                at += k
            case 0x15:
                at += yes if accumulator == k else no
            case 0x25:
                at += yes if accumulator > k else no
            case 0x35:
                at += yes if accumulator >= k else no
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"instruction {at - 1} has the code {code:#x}")


def check(program: bytes) -> None:
    """What the kernel wants before it takes a program: all jumps stay inside, and the end is an answer."""
    length = len(program) // 8
    assert 0 < length <= BPF_MAXINSNS and len(program) % 8 == 0
    for at in range(length):
        code, yes, no, k = struct.unpack_from("=HBBI", program, 8 * at)
        farthest = {0x05: k, 0x15: max(yes, no), 0x25: max(yes, no), 0x35: max(yes, no)}.get(code, 0)
        assert at + 1 + farthest < length or (code == 0x06 and at + 1 == length), at
        assert code != 0x20 or (k % 4 == 0 and k < 64), at


# The profile, read as it stands

COMPARE: dict[str, Callable[[int, int], bool]] = {
    "EQ": operator.eq, "NE": operator.ne, "LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge,
}  # fmt: skip
ANSWERS = {
    "KILL": 0, "KILL_THREAD": 0, "KILL_PROCESS": 0x80000000, "TRAP": 0x30000, "ERRNO": 0x50000, "TRACE": 0x7FF00000,
    "LOG": 0x7FFC0000, "ALLOW": 0x7FFF0000, "NOTIFY": 0x7FC00000,
}  # fmt: skip
RUN_ON = {
    "x86_64": {
        "X86_64": (AUDIT_ARCH_X86_64, "x86_64"),
        "X86": (AUDIT_ARCH_I386, "x86"),
        "X32": (AUDIT_ARCH_X86_64, "x32"),
    },
    "aarch64": {"AARCH64": (AUDIT_ARCH_AARCH64, "aarch64"), "ARM": (AUDIT_ARCH_ARM, "arm")},
}


def answer_of(entry: Mapping[str, Any], action: str = "action", number: str = "errnoRet") -> int:
    name = entry[action].removeprefix("SCMP_ACT_")
    return ANSWERS[name] | (entry.get(number, 1) if name in ("ERRNO", "TRACE") else 0)


def holds(arg: Mapping[str, Any], args: tuple[int, ...], wide: bool) -> bool:
    seen, value, op = args[arg["index"]], arg["value"], arg["op"].removeprefix("SCMP_CMP_")
    bits = 0xFFFFFFFFFFFFFFFF if wide else 0xFFFFFFFF
    if op == "MASKED_EQ":
        return seen & value & bits == arg["valueTwo"] & bits
    if op in ("EQ", "NE"):
        value &= bits
    return COMPARE[op](seen & bits, value)


def read(what: Profile, machine: str, arch: int, number: int, args: tuple[int, ...]) -> int:
    """The answer to a call: the first rule that fits; but those without conditions come first."""
    default = answer_of(what, "defaultAction", "defaultErrnoRet")
    mine = list(RUN_ON[machine])
    listed = [mine[0], *(name.removeprefix("SCMP_ARCH_") for name in what.get("architectures", []))]
    x32 = arch == AUDIT_ARCH_X86_64 and number >= 0x40000000
    ours = [name for name in mine if name in listed and RUN_ON[machine][name][0] == arch and (name == "X32") == x32]
    if not ours:
        return default if x32 and number == 0xFFFFFFFF else 0x80000000
    table = numbers(RUN_ON[machine][ours[0]][1])
    number -= 0x40000000 if x32 else 0
    wide = ours[0] in ("X86_64", "AARCH64")

    rules: list[tuple[str, list[Any], int]] = []
    for entry in what["syscalls"]:
        indexes = [arg["index"] for arg in entry["args"]]
        together = len(set(indexes)) == len(indexes)
        for conditions in [entry["args"]] if together else [[arg] for arg in entry["args"]]:
            rules += [(name, conditions, answer_of(entry)) for name in entry["names"]]
    known = [table[name] for name, _, _ in rules if name in table and table[name] < 0xF0000]
    rules = [one for one in rules if one[2] != default]
    for unconditional in (True, False):
        for name, conditions, answer in rules:
            if (
                table.get(name) == number
                and (not conditions) == unconditional
                and all(holds(arg, args, wide) for arg in conditions)
            ):
                return answer
            if ours[0] == "X86" and not unconditional:
                call, mask, which = MULTIPLEXED.get(name, ("", 0, 0))
                if call and table[call] == number and args[0] & mask == which:
                    return answer
    if known and number > max(known) and default & 0xFFFF0000 not in (0x7FF00000, 0x7FFC0000, 0x7FFF0000, 0x7FC00000):
        private = number in [table[name] for name, _, _ in rules if name in table]
        return default if private else SECCOMP_RET_ERRNO | errno.ENOSYS
    return default


MULTIPLEXED = {
    "socket": ("socketcall", 0xFFFFFFFF, 1),
    "accept": ("socketcall", 0xFFFFFFFF, 5),
    "shmget": ("ipc", 0xFFFF, 23),
}

NAMES = (
    "read write openat ioctl personality clone clone3 socket accept shmget socketcall ipc mmap2 readv execve setxattrat "
    "cacheflush breakpoint no_such_call"
).split()
EDGES = [
    0,
    1,
    2,
    5,
    23,
    0x10017,
    40,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**32 + 1,
    2**32 + 40,
    2**33,
    2**63,
    2**64 - 1,
]
VALUES = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)
ARGS = st.fixed_dictionaries({
    "index": st.integers(0, 5), "value": VALUES, "valueTwo": VALUES,
    "op": st.sampled_from(list(seccomp.OPERATORS)),
})  # fmt: skip


@st.composite
def answers(draw: st.DrawFn, action: str, number: str) -> dict[str, Any]:
    name = draw(st.sampled_from(list(seccomp.ACTIONS)))
    entry: dict[str, Any] = {action: name}
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") and draw(st.booleans()):
        entry[number] = draw(st.sampled_from([0, 1, 13, 38, 4095, 65535]))
    return entry


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5))
    return {"names": names, "args": draw(st.lists(ARGS, max_size=3)), **draw(answers("action", "errnoRet"))}


@st.composite
def profiles(draw: st.DrawFn) -> dict[str, Any]:
    architectures = draw(
        st.lists(st.sampled_from([*list(seccomp.ARCHITECTURES)[:5] * 4, *seccomp.ARCHITECTURES]), max_size=6)
    )
    syscalls = draw(st.lists(rules(), max_size=8))
    return {"architectures": architectures, "syscalls": syscalls, **draw(answers("defaultAction", "defaultErrnoRet"))}


QUESTIONS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(NAMES) | st.integers(0, 600) | st.sampled_from([0x3FFFFFFF, 0x80000000, 0xFFFFFFFF]),
        st.tuples(*[VALUES] * 6),
    ),
    min_size=5,
    max_size=30,
)


@given(profiles(), st.sampled_from(list(RUN_ON)), QUESTIONS)
@settings(max_examples=300)
def test_the_program_says_what_the_profile_says(
    what: dict[str, Any], machine: str, questions: list[tuple[int, int | str, tuple[int, ...]]]
) -> None:
    program = compile_filter(what, (), machine, KERNEL)
    check(program)
    architectures = [*RUN_ON[machine].values(), (0xC0000015, "x86_64")]
    for place, call, args in questions:
        arch, table = architectures[place % len(architectures)]
        number = numbers(table).get(call, 7) if isinstance(call, str) else call
        number |= 0x40000000 if table == "x32" else 0
        expected = read(what, machine, arch, number, args)
        assert hex(ask(program, number, *args, arch=arch)) == hex(expected), (table, call, args)


@given(st.lists(st.tuples(st.integers(0, 460), st.integers(1, 4000)), min_size=200, max_size=400))
@settings(max_examples=10)
def test_long_lists_are_still_found(pairs: list[tuple[int, int]]) -> None:
    """Jumps reach 255 instructions far; a search among hundreds of ranges reaches farther."""
    names = {number: name for name, number in numbers_of("x86_64").items()}
    wanted = {number: answer for number, answer in reversed(pairs) if number in names}
    what = profile(*(rule(names[number], errnoRet=answer) for number, answer in pairs if number in names))
    program = compile_filter(what, (), "x86_64")
    check(program)
    for number in range(480):
        expected = SECCOMP_RET_ERRNO | wanted[number] if number in wanted else SECCOMP_RET_ALLOW
        assert ask(program, number, arch=AUDIT_ARCH_X86_64) == expected


@pytest.mark.parametrize(
    ("op", "value", "seen", "expected"),
    [
        ("EQ", 2**64 - 1, 2**32 - 1, True),  # -1, as it is written in a profile for all architectures
        ("MASKED_EQ", 2**64 - 1, 0, True),
        ("LT", 2**33, 7, True),
        ("LE", 2**33 + 1, 7, True),
        ("GT", 2**33, 2**32 - 1, False),
        ("GE", 2**33, 2**32 - 1, False),
        ("GE", 2**32 - 1, 2**32 - 1, True),
    ],
)
def test_architectures_of_32_bits_have_lower_halves_only(op: str, value: int, seen: int, expected: bool) -> None:
    what = profile(rule("getppid", "ERRNO", (0, op, value)), architectures=["SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    program = compile_filter(what, (), "x86_64")
    for arch, number in ((AUDIT_ARCH_I386, 64), (AUDIT_ARCH_X86_64, 0x40000000 | 110)):
        assert (ask(program, number, seen, arch=arch) != SECCOMP_RET_ALLOW) is expected


def test_the_second_names_of_i386_are_known() -> None:
    what = profile(rule("connect shmget", "ERRNO", (3, "EQ", 9)), architectures=["SCMP_ARCH_X86"])
    program = compile_filter(what, (), "x86_64")
    i386 = numbers("x86")
    asked = [
        ("socketcall", 3), ("socketcall", 2), ("ipc", 23), ("ipc", 0x10017), ("ipc", 24), ("connect", 0), ("shmget", 0)
    ]  # fmt: skip
    refused = [ask(program, i386[name], first, arch=AUDIT_ARCH_I386) != SECCOMP_RET_ALLOW for name, first in asked]
    assert refused == [True, False, True, True, False, False, False]


def test_it_decides_fast() -> None:
    """Whichever call: a search, not a list."""
    program = compile_filter(PROFILE, (), "x86_64", KERNEL)
    longest = 0
    for number in range(500):
        at, steps, accumulator = 0, 0, 0
        while (instruction := struct.unpack_from("=HBBI", program, 8 * at))[0] != 0x06:
            code, yes, no, k = instruction
            at, steps = at + 1, steps + 1
            if code == 0x20:
                accumulator = {0: number, 4: AUDIT_ARCH_X86_64}.get(k, 0)
            else:
                taken = {0x15: accumulator == k, 0x35: accumulator >= k, 0x25: accumulator > k}.get(code, False)
                at += k if code == 0x05 else (yes if taken else no) if code in (0x15, 0x25, 0x35) else 0
        longest = max(longest, steps)
    assert longest <= 40


def test_too_long_a_program_is_refused() -> None:
    several = [rule("read", "ERRNO", *((index, "GT", value) for index in range(6)), errnoRet=2) for value in range(200)]
    with pytest.raises(ValueError, match=r"^linux\.seccomp: makes a program of \d+ instructions, 4096 at most$"):
        compile_filter(profile(*several))


def test_the_same_profile_gives_the_same_program() -> None:
    assert compile_filter(PROFILE, ["CAP_CHOWN", "CAP_BPF"]) == compile_filter(PROFILE, iter(("BPF", "CHOWN")))


# Docker's form


@pytest.mark.parametrize(
    ("condition", "capabilities", "machine", "kernel", "applies"),
    [
        ({}, [], "x86_64", KERNEL, True),
        ({"includes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}}, ["CAP_BPF"], "x86_64", KERNEL, False),
        ({"includes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}}, ["CAP_BPF", "CAP_SYSLOG"], "x86_64", KERNEL, True),
        ({"excludes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}}, ["CAP_BPF"], "x86_64", KERNEL, False),
        ({"excludes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}}, ["CAP_CHOWN"], "x86_64", KERNEL, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, [], "x86_64", KERNEL, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, [], "aarch64", KERNEL, False),
        ({"excludes": {"arches": ["arm64"]}}, [], "aarch64", KERNEL, False),
        ({"includes": {"minKernel": "4.8"}}, [], "x86_64", "4.8.0", True),
        ({"includes": {"minKernel": "4.8"}}, [], "x86_64", "4.7.99", False),
        ({"includes": {"minKernel": "4.8"}}, [], "x86_64", "4.19-rc1", True),
        ({"includes": {"minKernel": "4.8"}}, [], "x86_64", "10.0", True),
        ({"excludes": {"minKernel": "4.8"}}, [], "x86_64", "6.1.0", False),
        ({"includes": None, "excludes": None, "args": None, "comment": "x"}, [], "x86_64", KERNEL, True),
        ({"includes": {"caps": ["CAP_BPF"]}, "excludes": {"minKernel": "7.0"}}, ["BPF"], "x86_64", KERNEL, True),
    ],
)
def test_a_rule_applies_under_its_conditions(
    condition: dict[str, Any], capabilities: list[str], machine: str, kernel: str, applies: bool
) -> None:
    program = compile_filter(profile({**rule("read"), **condition}), capabilities, machine, kernel)
    arch, table = next(iter(RUN_ON[machine].values()))
    assert (ask(program, numbers_of(table)["read"], arch=arch) != SECCOMP_RET_ALLOW) == applies


def test_the_map_says_which_architectures_there_are() -> None:
    entries = [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
    ]
    program = compile_filter(profile(archMap=entries), (), "x86_64")
    assert ask(program, 3, arch=AUDIT_ARCH_I386) == SECCOMP_RET_ALLOW
    assert (
        ask(program, 0x40000000, arch=AUDIT_ARCH_X86_64)
        == ask(program, 0, arch=AUDIT_ARCH_ARM)
        == SECCOMP_RET_KILL_PROCESS
    )


def test_a_single_name_is_a_name() -> None:
    """As Docker's profiles had it before `names`."""
    assert (
        ask(compile_filter(profile({"name": "read", "action": "SCMP_ACT_ERRNO"})), NATIVE["read"]) != SECCOMP_RET_ALLOW
    )


# What is wrong, and where

DEEP: list[tuple[Any, str]] = [
    ({"defaultAction": None}, "linux.seccomp.defaultAction: is missing, it is none of SCMP_ACT_KILL,"),
    ({"defaultAction": "ALLOW"}, 'linux.seccomp.defaultAction: "ALLOW" is none of SCMP_ACT_KILL, SCMP_ACT_KILL_THREAD,'),
    ({"defaultAction": 7}, "linux.seccomp.defaultAction: 7 is not a string"),
    ({"defaultErrnoRet": 1}, "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW has no errno"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536}, "linux.seccomp.defaultErrnoRet: 65536 is not a whole number from 0 to 65535"),
    ({"architectures": "SCMP_ARCH_X86"}, 'linux.seccomp.architectures: "SCMP_ARCH_X86" is not an array'),
    ({"architectures": ["SCMP_ARCH_X86", "VAX"]}, 'linux.seccomp.architectures[1]: "VAX" is none of SCMP_ARCH_X86_64,'),
    ({"architectures": [4]}, "linux.seccomp.architectures[0]: 4 is not a string"),
    ({"archMap": [{}]}, "linux.seccomp.archMap[0].architecture: is missing"),
    ({"archMap": [[]]}, "linux.seccomp.archMap[0]: [] is not an object"),
    ({"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["X"]}]}, 'linux.seccomp.archMap[0].subArchitectures[0]: "X" is'),
    ({"archMap": [{"architecture": "SCMP_ARCH_ARM"}], "architectures": []}, "linux.seccomp: has both architectures and archMap"),
    ({"syscalls": {}}, "linux.seccomp.syscalls: {} is not an array"),
    ({"syscalls": [3]}, "linux.seccomp.syscalls[0]: 3 is not an object"),
    ({"syscalls": [rule("read"), {"action": "SCMP_ACT_ALLOW"}]}, "linux.seccomp.syscalls[1].names: no system call is named"),
    ({"syscalls": [{**rule("read"), "names": [""]}]}, "linux.seccomp.syscalls[0].names: no system call is named"),
    ({"syscalls": [{**rule("read"), "names": ["a", None]}]}, "linux.seccomp.syscalls[0].names[1]: None is not a string"),
    ({"syscalls": [rule("read", "NO")]}, 'linux.seccomp.syscalls[0].action: "SCMP_ACT_NO" is none of'),
    ({"syscalls": [rule("read", "ALLOW", errnoRet=1)]}, "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW has no errno, only"),
    ({"syscalls": [rule("read", errnoRet=-1)]}, "linux.seccomp.syscalls[0].errnoRet: -1 is not a whole number"),
    ({"syscalls": [rule("read", errnoRet=True)]}, "linux.seccomp.syscalls[0].errnoRet: True is not a whole number"),
    ({"syscalls": [{**rule("read"), "args": [0]}]}, "linux.seccomp.syscalls[0].args[0]: 0 is not an object"),
    ({"syscalls": [rule("read", "ERRNO", (0, "EQ", 1), (6, "EQ", 1))]}, "linux.seccomp.syscalls[0].args[1].index: 6 is not a whole number from 0 to 5"),
    ({"syscalls": [{**rule("read"), "args": [{"op": "SCMP_CMP_EQ"}]}]}, "linux.seccomp.syscalls[0].args[0].index: is missing"),
    ({"syscalls": [rule("read"), rule("read", "ERRNO", (0, "IS", 1))]}, 'linux.seccomp.syscalls[1].args[0].op: "SCMP_CMP_IS" is none of SCMP_CMP_EQ,'),
    ({"syscalls": [{**rule("read"), "args": [{"index": 0}]}]}, "linux.seccomp.syscalls[0].args[0].op: is missing"),
    ({"syscalls": [rule("read", "ERRNO", (0, "EQ", 2**64))]}, f"linux.seccomp.syscalls[0].args[0].value: {2**64} is not a whole number"),
    ({"syscalls": [rule("read", "ERRNO", (0, "EQ", "1"))]}, 'linux.seccomp.syscalls[0].args[0].value: "1" is not a whole number'),  # type: ignore[arg-type]
    ({"syscalls": [rule("read", includes={"caps": "CAP_BPF"})]}, 'linux.seccomp.syscalls[0].includes.caps: "CAP_BPF" is not an array'),
    ({"syscalls": [rule("read", excludes=[])]}, "linux.seccomp.syscalls[0].excludes: [] is not an object"),
    ({"syscalls": [rule("read", includes={"minKernel": "new"})]}, 'linux.seccomp.syscalls[0].includes.minKernel: "new" is no version of Linux'),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), DEEP, ids=[message.partition(":")[0] for _, message in DEEP])
def test_what_is_wrong_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        compile_filter({**profile(), **change})
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_rule_that_does_not_apply_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"syscalls\[0\]\.args\[0\]\.op"):
        compile_filter(profile(rule("read", "ERRNO", (0, "IS", 1), includes={"caps": ["CAP_BPF"]})))


def test_a_machine_whose_numbers_nobody_wrote_down() -> None:
    with pytest.raises(ValueError, match="system calls on riscv64 are not known"):
        compile_filter(profile(), machine="riscv64")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**65) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("names action args index op value caps includes".split()), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from("defaultAction defaultErrnoRet architectures archMap syscalls flags".split()), JSON
    ),
    st.booleans(),
)
@settings(max_examples=100)
def test_nonsense_is_a_value_error(what: dict[str, Any], sound: bool) -> None:
    try:
        check(compile_filter(what | ({"defaultAction": "SCMP_ACT_ALLOW"} if sound else {})))
        filter_flags(what)
    except ValueError as error:
        assert str(error).startswith("linux.seccomp")


# Flags


@pytest.mark.parametrize(
    ("names", "rules", "flags"),
    [
        ([], [], 0),
        (["LOG", "SPEC_ALLOW"], [], SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        (["TSYNC"], [], SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH),
        ([], [rule("read", "NOTIFY")], SECCOMP_FILTER_FLAG_NEW_LISTENER),
        (["WAIT_KILLABLE_RECV"], [rule("read", "NOTIFY")], SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | SECCOMP_FILTER_FLAG_NEW_LISTENER),
        (["WAIT_KILLABLE_RECV"], [], 0),  # alone it is an error to the kernel
    ],
)  # fmt: skip
def test_flags(names: list[str], rules: list[dict[str, Any]], flags: int) -> None:
    what = profile(*rules, flags=[f"SECCOMP_FILTER_FLAG_{name}" for name in names])
    assert filter_flags(what) == flags
    listener = in_child(lambda: filter_syscalls(compile_filter(what), filter_flags(what)) is not None)
    assert listener is bool(flags & SECCOMP_FILTER_FLAG_NEW_LISTENER), "the kernel takes them"


def test_an_unknown_flag() -> None:
    with pytest.raises(ValueError, match=r'^linux\.seccomp\.flags\[1\]: "FAST" is none of SECCOMP_FILTER_FLAG_TSYNC,'):
        filter_flags(profile(flags=["SECCOMP_FILTER_FLAG_LOG", "FAST"]))


# On the real kernel


class Died(Exception):
    """The child was ended by a signal."""


def in_child(act: Callable[[], Any]) -> Any:
    """What `act` returns in a child process (a number, a text, a list …). Raises Died with the signal that ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if os.geteuid():
                prctl(PR_SET_NO_NEW_PRIVS, 1)
            os.write(writing, repr(act()).encode())
        except BaseException as error:
            os.write(writing, repr(f"failed: {error!r}").encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as shown:
        text = shown.read()
    status = os.waitid(os.P_PID, child, os.WEXITED)
    assert status
    if status.si_code != os.CLD_EXITED:
        raise Died(signal.Signals(status.si_status).name)
    return ast.literal_eval(text)


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def result(name: str | int, *args: int) -> int:
    """Make a system call; what it returned, or the negative errno."""
    number = NATIVE[name] if isinstance(name, str) else name
    returned: int = _syscall(
        ctypes.c_long(number), *(ctypes.c_ulong(arg) for arg in args), *[ctypes.c_ulong(0)] * (6 - len(args))
    )
    return returned if returned != -1 else -ctypes.get_errno()


def under(what: Profile, act: Callable[[], Any], capabilities: Iterator[str] | tuple[str, ...] = ()) -> Any:
    """`act` in a child with this filter."""
    program = compile_filter(what, capabilities)

    def filtered() -> Any:
        filter_syscalls(program, filter_flags(what) & ~SECCOMP_FILTER_FLAG_NEW_LISTENER)
        return act()

    return in_child(filtered)


@pytest.mark.parametrize("number", [0, 1, 77, 4095])
def test_errno(number: int) -> None:
    assert under(profile(rule("getppid", errnoRet=number)), lambda: result("getppid")) == -number


def test_errno_is_eperm_unless_it_is_said() -> None:
    assert under(profile(rule("getppid")), lambda: result("getppid")) == -errno.EPERM


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
def test_these_end_it_with_sigsys(action: str) -> None:
    with pytest.raises(Died, match="SIGSYS"):
        under(profile(rule("getppid", action)), lambda: result("getppid"))


def test_a_trap_can_be_caught() -> None:
    def act() -> list[int]:
        caught: list[int] = []
        signal.signal(signal.SIGSYS, lambda number, _: caught.append(number))
        result("getppid")
        return caught

    assert under(profile(rule("getppid", "TRAP")), act) == [signal.SIGSYS]


def test_nobody_traces() -> None:
    assert under(profile(rule("getppid", "TRACE", errnoRet=5)), lambda: result("getppid")) == -errno.ENOSYS


@pytest.mark.parametrize("action", ["LOG", "ALLOW"])
def test_these_let_it_pass(action: str) -> None:
    """Of what is refused otherwise."""
    parent = os.getpid()
    allowed = "write exit_group rt_sigaction rt_sigprocmask munmap mmap brk close futex"
    what = profile(rule(allowed, "ALLOW"), rule("getppid", action), default="ERRNO", defaultErrnoRet=99)
    assert under(what, lambda: [result("getppid"), result("getuid")]) == [parent, -99]


def test_nobody_listens() -> None:
    assert under(profile(rule("getppid", "NOTIFY")), lambda: result("getppid")) == -errno.ENOSYS


def test_a_supervisor_answers() -> None:
    """seccomp_unotify(2): with a value, an error, the call itself, and a file."""
    what = profile(rule("getppid", "NOTIFY"))
    ours, theirs = socket.socketpair()
    parent = os.getpid()

    def child() -> list[Any]:
        listener = filter_syscalls(compile_filter(what), filter_flags(what))
        assert listener is not None and not os.get_inheritable(listener)
        socket.send_fds(theirs, [b"x"], [listener])
        os.close(listener)
        theirs.close()
        ours.close()
        seen: list[Any] = [result("getppid", 2**40 + 7), result("getppid"), result("getppid")]
        fd = result("getppid")
        return [*seen, os.read(fd, 10)]

    def supervise() -> None:
        _, [listener], _, _ = socket.recv_fds(ours, 1, 1)
        reading, writing = os.pipe()
        os.write(writing, b"from above")
        try:
            number, pid, nr, arch, args = notif_recv(listener)
            assert (
                (nr, arch, args[0]) == (NATIVE["getppid"], HERE, 2**40 + 7) and pid and notif_id_valid(listener, number)
            )
            notif_send(listener, number, value=1234)
            notif_send(listener, notif_recv(listener)[0], error=errno.EXDEV)
            notif_send(listener, notif_recv(listener)[0], flags=SECCOMP_USER_NOTIF_FLAG_CONTINUE)
            number = notif_recv(listener)[0]
            notif_send(listener, number, value=notif_addfd(listener, number, reading))
            with pytest.raises(OSError) as caught:
                notif_send(listener, number)
            assert caught.value.errno in (errno.EINPROGRESS, errno.ENOENT), (
                "answered, and gone as soon as it has noticed"
            )
        finally:
            for fd in (listener, reading, writing):
                os.close(fd)

    # In a process of its own: the test itself has to read what the child says.
    supervisor = os.fork()
    if not supervisor:
        status = 1
        try:
            theirs.close()
            signal.alarm(30)
            supervise()
            status = 0
        finally:
            os._exit(status)
    with ours, theirs:
        assert in_child(child) == [1234, -errno.EXDEV, parent, b"from above"]
    assert os.waitpid(supervisor, 0)[1] == 0


OPERATORS = dict(zip(
    ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"),
    ("getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "gettid"), strict=True,
))  # fmt: skip


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 - 1, 2**63, 2**64 - 1])
def test_every_operator_compares_64_bits(value: int) -> None:
    """Each on a call of its own that takes no argument, so that the kernel itself does not care what it is."""
    mask = 0xFFFF0000FFFF0000
    what = profile(*(
        rule(name, "ERRNO", (3, op, mask, value & mask) if op == "MASKED_EQ" else (3, op, value), errnoRet=77)
        for op, name in OPERATORS.items()
    ))  # fmt: skip
    seen = sorted(
        {(value + more) % 2**64 for more in (-(2**32), -1, 0, 1, 2**16, 2**32)} | {0, 2**32 - 1, 2**32, 2**64 - 1}
    )
    answers = under(what, lambda: [[result(name, 0, 0, 0, arg) == -77 for name in OPERATORS.values()] for arg in seen])
    for arg, refused in zip(seen, answers, strict=True):
        expected = [arg & mask == value & mask if op == "MASKED_EQ" else COMPARE[op](arg, value) for op in OPERATORS]
        assert dict(zip(OPERATORS, refused, strict=True)) == dict(zip(OPERATORS, expected, strict=True)), hex(arg)


def test_all_conditions_must_hold() -> None:
    what = profile(rule("getppid", "ERRNO", (0, "EQ", 1), (1, "GT", 5), (5, "NE", 2**32), errnoRet=77))
    calls = [(1, 6, 0, 0, 0, 0), (1, 5, 0, 0, 0, 0), (2, 6, 0, 0, 0, 0), (1, 6, 0, 0, 0, 2**32)]
    assert under(what, lambda: [result("getppid", *args) == -77 for args in calls]) == [True, False, False, False]


def test_a_filter_is_for_good() -> None:
    """A second one cannot allow what the first forbids, and children have both."""

    def act() -> int:
        filter_syscalls(compile_filter(profile(rule("getppid", "ALLOW"), default="LOG")))
        child = os.fork()
        if not child:
            os._exit(-result("getppid"))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert under(profile(rule("getppid", errnoRet=77)), act) == 77


def test_tsync_binds_the_other_threads() -> None:
    what = profile(rule("getppid", errnoRet=77), flags=["SECCOMP_FILTER_FLAG_TSYNC"])

    def act() -> list[int]:
        loaded, seen = threading.Event(), []
        thread = threading.Thread(target=lambda: (loaded.wait(30), seen.append(result("getppid"))))
        thread.start()
        filter_syscalls(compile_filter(what), filter_flags(what))
        loaded.set()
        thread.join()
        return seen

    assert in_child(act) == [-77]


def test_what_is_newer_than_the_profile_does_not_exist() -> None:
    """ENOSYS, not EPERM: so that a C library takes the older way."""
    basics = "write exit_group rt_sigaction rt_sigprocmask munmap mmap brk close futex clone3"
    what = profile(rule(basics, "ALLOW"), default="ERRNO")
    assert under(what, lambda: [result("getppid"), result("cachestat"), result(9999)]) == [
        -errno.EPERM,
        -errno.ENOSYS,
        -errno.ENOSYS,
    ]


def int80(number: int, first: int = 0) -> int:
    """A system call of i386: ``int $0x80`` works from 64-bit code, too."""
    code = struct.pack("<BI", 0x53, 0)[:1]  # push rbx
    code += (
        b"\xbb" + struct.pack("<I", first) + b"\x31\xc9\x31\xd2\xb8" + struct.pack("<I", number) + b"\xcd\x80\x5b\xc3"
    )
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


@pytest.fixture
def i386() -> dict[str, int]:
    """The numbers of i386, where this kernel has its calls."""
    try:
        works = in_child(lambda: int80(20) == os.getpid())
    except Died:
        works = False
    if not works:
        pytest.skip("this kernel was built without CONFIG_IA32_EMULATION")
    return numbers_of("x86")


@on_x86_64
def test_calls_of_an_architecture_that_is_not_listed_end_the_process(i386: dict[str, int]) -> None:
    """Number 20 is getpid there and writev here: a list of numbers says nothing about it."""
    with pytest.raises(Died, match="SIGSYS"):
        under(profile(), lambda: int80(i386["getpid"]))


@on_x86_64
def test_those_of_one_that_is_listed_go_by_its_numbers(i386: dict[str, int]) -> None:
    what = profile(
        rule("getppid", errnoRet=77), rule("socket", errnoRet=78), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    )
    seen = under(
        what, lambda: [int80(i386["getppid"]), int80(i386["getpid"]) == os.getpid(), int80(i386["socketcall"], 1)]
    )
    assert seen == [-77, True, -78], "socketcall(SYS_SOCKET) is socket too"


@on_x86_64
def test_x32_is_an_architecture_of_its_own() -> None:
    with pytest.raises(Died, match="SIGSYS"):
        under(profile(), lambda: result(0x40000000 | NATIVE["getppid"]))
    what = profile(rule("getppid", errnoRet=77), architectures=["SCMP_ARCH_X32"])
    assert under(what, lambda: result(0x40000000 | NATIVE["getppid"])) == -77


# The default profile

BAD = 2**64 - 1
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
REFUSED: list[tuple[str, tuple[int, ...]]] = [
    ("add_key", (0, 0, 0, 0)), ("request_key", (0, 0, 0, 0)), ("keyctl", (9999,)),
    ("mount", (BAD, BAD, BAD, 0, 0)), ("umount2", (BAD, 0)), ("pivot_root", (BAD, BAD)), ("move_mount", (BAD, BAD, BAD, BAD, 0)),
    ("open_tree", (BAD, BAD, 0)), ("fsopen", (BAD, 0)), ("fsconfig", (BAD, 99)), ("fsmount", (BAD, 0, 0)), ("fspick", (BAD, BAD, 0)),
    ("mount_setattr", (BAD, BAD, 0, BAD, 0)), ("reboot", (0, 0, 0, 0)), ("unshare", (CLONE_NEWUSER | 0x40,)), ("setns", (BAD, 0)),
    ("clone", (CLONE_NEWUSER | CLONE_NEWNS | 0x200,)), ("bpf", (9999, 0, 0)), ("perf_event_open", (BAD, 0, 0, BAD, 0)),
    ("io_uring_setup", (0, BAD)), ("io_uring_enter", (BAD,)), ("io_uring_register", (BAD,)), ("userfaultfd", (BAD,)),
    ("init_module", (BAD, 0, BAD)), ("finit_module", (BAD, BAD, 0)), ("delete_module", (BAD, 0)), ("kexec_load", (0, 99, BAD, BAD)),
    ("kexec_file_load", (BAD, BAD, 0, 0, 0)), ("swapon", (BAD, 0)), ("swapoff", (BAD,)), ("acct", (BAD,)), ("settimeofday", (BAD, BAD)),
    ("clock_settime", (0, BAD)), ("quotactl", (BAD, BAD)), ("quotactl_fd", (BAD, BAD)), ("syslog", (99,)),
    ("open_by_handle_at", (BAD, BAD, 0)), ("sethostname", (BAD, 10)), ("setdomainname", (BAD, 10)), ("chroot", (BAD,)),
    ("kcmp", (BAD, BAD, 0, 0, 0)), ("pidfd_getfd", (BAD, BAD, 0)), ("process_madvise", (BAD, BAD, 1, 0, 0)), ("mbind", (1, 1, 99)),
    ("set_mempolicy", (99,)), ("migrate_pages", (0, BAD, BAD, BAD)), ("move_pages", (0, 1, BAD, BAD, BAD, 0)),
    ("fanotify_init", (BAD, BAD)), ("nfsservctl", ()), ("lookup_dcookie", (0, BAD, 0)),
]  # fmt: skip
REFUSED_X86: list[tuple[str, tuple[int, ...]]] = [
    ("iopl", (99,)), ("ioperm", (BAD, BAD, 1)), ("uselib", (BAD,)), ("ustat", (BAD, BAD)), ("sysfs", (99,)), ("_sysctl", (BAD,)),
]  # fmt: skip


@as_root
def test_the_default_refuses_what_leads_out() -> None:
    """Each with arguments with which it comes to nothing; without the filter, root is told something else than EPERM."""
    calls = REFUSED + (REFUSED_X86 if MACHINE == "x86_64" else [])
    without = in_child(lambda: [result(name, *args) for name, args in calls])
    assert [name for (name, _), seen in zip(calls, without, strict=True) if seen == -errno.EPERM] == []
    refused = under(PROFILE, lambda: [result(name, *args) for name, args in calls])
    assert {name: seen for (name, _), seen in zip(calls, refused, strict=True) if seen != -errno.EPERM} == {}


@as_root
def test_a_terminal_is_not_hung_up() -> None:
    def act() -> int:
        os.setsid()  # were it allowed, this would hang up no terminal
        return result("vhangup")

    assert under(PROFILE, act) == -errno.EPERM


def test_the_default_sends_the_c_library_from_clone3_to_clone() -> None:
    def act() -> list[int]:
        child = os.fork()
        if not child:
            os._exit(7)
        return [result("clone3", 0, 0), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

    assert under(PROFILE, act) == [-errno.ENOSYS, 7]


def test_the_default_lets_personalities_be_asked_for_and_few_be_had() -> None:
    values = [0xFFFFFFFF, 0, 8, 0x20000, 0x20008, 0x0400000, 0x0040000, 3]
    refused = under(PROFILE, lambda: [result("personality", value) == -errno.EPERM for value in values])
    assert refused == [False] * 5 + [True] * 3


def test_the_default_lets_debuggers_work() -> None:
    assert under(PROFILE, lambda: result("ptrace", 0)) == 0  # PTRACE_TRACEME
    old = compile_filter(PROFILE, kernel="4.7.0")
    assert ask(old, NATIVE["ptrace"]) == SECCOMP_RET_ERRNO | errno.EPERM
    assert ask(compile_filter(PROFILE, ["CAP_SYS_PTRACE"], kernel="4.7.0"), NATIVE["ptrace"]) == SECCOMP_RET_ALLOW


def test_the_default_knows_which_sockets_leave_the_container() -> None:
    def act() -> list[bool]:
        return [result("socket", family, 99) == -errno.EPERM for family in families]

    families = [
        socket.AF_UNIX,
        socket.AF_INET,
        socket.AF_INET6,
        socket.AF_NETLINK,
        socket.AF_PACKET,
        37,
        39,
        41,
        42,
        43,
        44,
        45,
        47,
    ]
    assert under(PROFILE, act) == [False] * len(families)
    families = [socket.AF_ALG, socket.AF_VSOCK, socket.AF_VSOCK | 2**32, socket.AF_ALG | 2**63]
    assert under(PROFILE, act) == [True] * len(families)


def test_the_default_types_nothing_into_a_terminal() -> None:
    manager, terminal = pty.openpty()
    TIOCSTI, TIOCLINUX, TIOCGWINSZ = 0x5412, 0x541C, 0x5413
    room = ctypes.create_string_buffer(b"x", 16)
    try:
        seen = under(PROFILE, lambda: [
            result("ioctl", terminal, number, ctypes.addressof(room)) for number in (TIOCSTI, TIOCSTI | 2**32, TIOCLINUX, TIOCGWINSZ)
        ])  # fmt: skip
    finally:
        os.close(manager)
        os.close(terminal)
    assert seen == [-errno.EIO, -errno.EIO, -errno.EIO, 0]


@as_root
def test_with_the_capability_comes_the_call() -> None:
    """Which then is the kernel's to judge."""

    def act() -> list[bool]:
        return [result(name, *args) == -errno.EPERM for name, args in REFUSED]

    allowed = {
        name for (name, _), refused in zip(REFUSED, under(PROFILE, act, ("CAP_SYS_ADMIN",)), strict=True) if not refused
    }
    assert allowed == set(
        "bpf clone fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree "
        "perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare".split()
    ) & set(NATIVE)


def test_the_default_is_newer_than_no_call_that_it_allows() -> None:
    program = compile_filter(PROFILE)
    assert ask(program, NATIVE["removexattrat"]) == SECCOMP_RET_ALLOW
    assert ask(program, NATIVE["listns"]) == ask(program, 5000) == SECCOMP_RET_ERRNO | errno.ENOSYS


@pytest.mark.parametrize("machine", RUN_ON)
def test_every_name_of_the_default_is_a_call_somewhere(machine: str) -> None:
    """A slip of the keyboard would be passed over."""
    known = {name for table in ("x86_64", "x32", "x86", "aarch64", "arm") for name in numbers_of(table)}
    named = {name for entry in PROFILE["syscalls"] for name in entry["names"]}  # type: ignore[attr-defined]
    assert named - known <= {"sync_file_range2", "umount", "stime"}
    program = compile_filter(PROFILE, (), machine, KERNEL)
    check(program)
    for arch, table in RUN_ON[machine].values():
        bit = 0x40000000 if table == "x32" else 0
        for name in ("read", "execve", "exit_group", "mprotect"):
            assert ask(program, numbers_of(table)[name] | bit, arch=arch) == SECCOMP_RET_ALLOW
        for name in ("mount", "keyctl", "unshare"):
            assert ask(program, numbers_of(table)[name] | bit, arch=arch) == SECCOMP_RET_ERRNO | errno.EPERM


def test_programs_run_under_the_default() -> None:
    """A shell with a pipe."""

    def act() -> int:
        child = os.fork()
        if not child:
            os.execv("/bin/sh", ["sh", "-c", "ls /proc/self | grep -q status && test $(id -u | wc -l) = 1"])
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert under(PROFILE, act) == 0
