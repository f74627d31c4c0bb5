"""Step 11, devices: which device files a group may make, read and write, whatever their permissions say.

Documentation/admin-guide/cgroup-v1/devices.rst; cgroup-v2.rst, "Device controller". A device file is only a name for
two numbers, and root can make one for any disk with mknod(2): so the numbers are guarded, and not the name. v1 has
lists for that. v2 asks a BPF program at each open(2) and mknod(2), which we write here, instruction by instruction.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from minicontainer.linux.bpf import (
    BPF_CGROUP_DEVICE,
    BPF_DEVCG_ACC_MKNOD,
    BPF_DEVCG_ACC_READ,
    BPF_DEVCG_ACC_WRITE,
    BPF_DEVCG_DEV_BLOCK,
    BPF_DEVCG_DEV_CHAR,
    BPF_PROG_TYPE_CGROUP_DEVICE,
    bitwise_and,
    copy,
    jump_unless_equal,
    jump_unless_same,
    leave,
    load32,
    move,
    prog_attach,
    prog_detach,
    prog_load,
    prog_query,
    shift_right,
)
from minicontainer.steps.group import Group, LimitUnavailable, control

Rule = tuple[str, int | None, int | None, str]
"""A device that is allowed: "b", "c" or "a" (any type), major and minor number (None: any), and of "rwm" what may be
done: read, write, mknod."""

EVERY_CONTAINER: Sequence[Rule] = (
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 1, "rwm"),  # console
    ("c", 5, 2, "rwm"),  # ptmx
    ("c", 136, None, "rwm"),  # pts/*
)
"""The devices of `mount.mount_proc_and_dev`, and terminals."""

ALLOWED, REFUSED = 1, 0
RIGHTS = "device rules take CAP_SYS_ADMIN outside of any user namespace: run it as root, with all of root's rights"


def allow_devices(group: Group, rules: Sequence[Rule]) -> None:
    """Let the group use the devices of `rules`, and no others.

    Raises LimitUnavailable: EPERM (it takes root, outside of any user namespace), EINVAL.
    """
    version, directory = group["devices"]
    if version == 1:
        control(f"{directory}/devices.deny", "a", RIGHTS)
        for kind, major, minor, access in rules:
            numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
            control(f"{directory}/devices.allow", f"{kind} {numbers} {access}", "write it as in: c 1:3 rwm")
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened = [fd]
    try:
        opened += prog_query(fd, BPF_CGROUP_DEVICE)
        opened.append(prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, device_program(rules)))
        prog_attach(fd, opened[-1], BPF_CGROUP_DEVICE)
        for before in opened[1:-1]:  # they would all have to allow it; and at no moment shall there be none
            prog_detach(fd, before, BPF_CGROUP_DEVICE)
    except OSError as error:
        raise LimitUnavailable(error.errno, f"{error.strerror}; {RIGHTS}") from None
    finally:
        for one in opened:
            os.close(one)


def device_program(rules: Sequence[Rule]) -> list[bytes]:
    """The BPF program that answers, for each open(2) and mknod(2) of a device, ALLOWED or REFUSED in r0.

    The kernel puts the address of the question into r1: type and access, major, minor, 32 bits each.
    """
    question, kind, access, major, minor, rest = 1, 2, 3, 4, 5, 6
    program = [
        load32(kind, question, 0),
        bitwise_and(kind, 0xFFFF),
        load32(access, question, 0),
        shift_right(access, 16),
        load32(major, question, 4),
        load32(minor, question, 8),
    ]
    for which, first, second, what in rules:
        letters = {"m": BPF_DEVCG_ACC_MKNOD, "r": BPF_DEVCG_ACC_READ, "w": BPF_DEVCG_ACC_WRITE}
        mask = sum(letters[letter] for letter in set(what))
        answer = [move(0, ALLOWED), leave()]
        # From the last comparison to the first, since each jumps over all that comes after it.
        if second is not None:
            answer.insert(0, jump_unless_equal(minor, second, len(answer)))
        if first is not None:
            answer.insert(0, jump_unless_equal(major, first, len(answer)))
        answer[:0] = [copy(rest, access), bitwise_and(rest, mask), jump_unless_same(rest, access, len(answer))]
        if which != "a":
            number = {"b": BPF_DEVCG_DEV_BLOCK, "c": BPF_DEVCG_DEV_CHAR}[which]
            answer.insert(0, jump_unless_equal(kind, number, len(answer)))
        program += answer
    return [*program, move(0, REFUSED), leave()]


def read_rule(text: str) -> Rule:
    """A rule as `devices.allow` has it, and ``docker run --device-cgroup-rule``: ``c 1:3 rwm``, ``b 8:* r``.

    Raises LimitUnavailable: not one.
    """
    wrong = LimitUnavailable(errno.EINVAL, f'cannot understand the device rule "{text}": write it as in: c 1:3 rwm')
    if text == "a":
        return "a", None, None, "rwm"
    words = text.split()
    numbers = words[1].split(":") if len(words) == 3 else []
    if len(numbers) != 2 or words[0] not in ("a", "b", "c") or not words[2] or not set(words[2]) <= set("rwm"):
        raise wrong
    if not all(number == "*" or (number.isascii() and number.isdecimal() and len(number) < 10) for number in numbers):
        raise wrong
    major, minor = (None if number == "*" else int(number) for number in numbers)
    return words[0], major, minor, "".join(letter for letter in "rwm" if letter in words[2])
