"""What the examiner does for a submission, because nobody in a user namespace may: device rules, and counting events.

The kernel asks for rights outside of any user namespace before it takes a device rule, loads a BPF program or counts
the events of a group. So in the sandbox `linux.cgroups.write`, `linux.bpf` and `linux.events` send such a call over
the line (`inside.borrow`), and it is made here, with the same arguments, by the same functions.

What is asked for is a submission's word, and is held to this: it is about a control group below the sandbox's own; the
file is devices.allow or devices.deny; the program only compares and answers, and calls nothing in the kernel; the
events are the common ones. The kernel judges the rest, as it would have.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from labs.grading.sandbox import Sandbox
from minicontainer.linux.bpf import (
    BPF_CGROUP_DEVICE,
    BPF_PROG_TYPE_CGROUP_DEVICE,
    prog_attach,
    prog_detach,
    prog_load,
    prog_query,
)
from minicontainer.linux.cgroups import write
from minicontainer.linux.events import PERF_FLAG_PID_CGROUP, PERF_TYPE_HARDWARE, PERF_TYPE_SOFTWARE, perf_event_open
from minicontainer.steps.group import PARENT

MOST = 200 + 50 * (os.cpu_count() or 1)
"""Errands for one sandbox: counters take one for each processor."""
LONGEST = 4096
"""Instructions of a program."""
EVENT_TYPES, EVENT_KINDS, MOST_PROCESSORS = (PERF_TYPE_HARDWARE, PERF_TYPE_SOFTWARE), 16, 8192
"""Of perf_event_open(2): what the kernel or the processor counts by itself; no tracepoints, probes or raw events."""

DEVICE_FILES = ("devices.allow", "devices.deny")

_GROUP = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*){0,3}")
_RULE = re.compile(r"a|[abc] (\*|[0-9]{1,7}):(\*|[0-9]{1,7}) [rwm]{1,3}")
_ARITHMETIC = {operation << 4 | kind for operation in range(0xD) for kind in (0x4, 0x7, 0xC, 0xF)}
_JUMPS = {operation << 4 | kind for operation in range(0xE) for kind in (0x5, 0x6, 0xD, 0xE)} - {0x85, 0x8D, 0x86, 0x8E}
_LOADS = {0x61, 0x69, 0x71, 0x79}
_OPCODES = _ARITHMETIC | _JUMPS | _LOADS
"""What a program may consist of (Documentation/bpf/instruction-set.rst): no stores, and above all no calls, 0x85."""


def run(sandbox: Sandbox, request: Any) -> tuple[int, list[int]]:
    """Make the call; returns its errno (0: done), and file descriptors for the submission, which the caller closes."""
    sandbox.errands += 1
    try:
        if sandbox.errands > MOST:
            return errno.EDQUOT, []
        return 0, _made(sandbox, request)
    except OSError as error:
        return error.errno or errno.EINVAL, []
    except ValueError:
        return errno.EINVAL, []


def _made(sandbox: Sandbox, request: Any) -> list[int]:
    """JSON of any shape comes in. Raises ValueError, where it is none that we send ourselves; OSError."""
    match request:
        case {"call": "write", "group": str(name), "file": str(file), "value": str(rule)}:
            if file not in DEVICE_FILES or not _RULE.fullmatch(rule):
                raise ValueError
            write(f"{_directory(sandbox, name, 'devices')}/{file}", rule)
            return []
        case {"call": "program", "group": str(name), "code": str(code)}:
            _attach(_directory(sandbox, name, "devices"), bytes.fromhex(code))
            return []
        case {"call": "count", "group": str(name), "event": [int(kind), int(config)], "cpu": int(cpu)}:
            if kind not in EVENT_TYPES or not 0 <= config < EVENT_KINDS or not 0 <= cpu < MOST_PROCESSORS:
                raise ValueError
            fd = os.open(_directory(sandbox, name, "perf_event"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return [perf_event_open((kind, config), fd, cpu, PERF_FLAG_PID_CGROUP)]
            finally:
                os.close(fd)
    raise ValueError


def _directory(sandbox: Sandbox, name: str, controller: str) -> str:
    """The directory of a group that the submission has made, as we see it. There are no links in these trees."""
    if not _GROUP.fullmatch(name) or sandbox.group is None:
        raise ValueError
    return f"{sandbox.group[controller][1]}/{PARENT}/{name}"


def _attach(directory: str, code: bytes) -> None:
    """Load a program for the group, and let it take the place of those that are there."""
    instructions = [code[place : place + 8] for place in range(0, len(code), 8)]
    if not 0 < len(instructions) <= LONGEST or any(one[0] not in _OPCODES or len(one) != 8 for one in instructions):
        raise ValueError
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened = [group]
    try:
        before = prog_query(group, BPF_CGROUP_DEVICE)
        opened += before
        opened.append(prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, instructions))
        prog_attach(group, opened[-1], BPF_CGROUP_DEVICE)
        for old in before:
            prog_detach(group, old, BPF_CGROUP_DEVICE)
    finally:
        for fd in opened:
            os.close(fd)
