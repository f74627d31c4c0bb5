"""Attempts: what a confined process is let do is read off the deaths of a program that is ours for certain."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from labs.grading.attempts import KILLED, Attempts
from labs.grading.checks import Wrong
from labs.grading.classroom import Classrooms
from labs.grading.sandbox import Sandbox
from labs.grading.subject import Subject
from minicontainer.steps.seccomp import compile_filter

AT_FDCWD = -100
FORGED = """
def set_names(target):
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    if target == "program":
        import sys
        mount("/classroom/busybox/bin/busybox", sys.executable, None, MS_BIND)
    elif target == "library":
        import ctypes
        mount("tmpfs", os.path.dirname(ctypes.__file__), "tmpfs")
    else:
        os.posix_spawn = lambda *_: None
"""


def test_the_exit_status_is_the_kernels_answer(sandbox: Sandbox) -> None:
    subject = Subject(sandbox)
    there = subject.scratch()
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["symlinkat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    program = {"bytes": compile_filter(profile).hex()}
    process = subject.perform("seccomp.filter_syscalls", program)
    tries = Attempts(subject, process, [
        ("mkdirat", [AT_FDCWD, f"{there}/new", 0o700]),
        ("mkdirat", [AT_FDCWD, f"{there}/new", 0o700]),
        ("symlinkat", ["/", AT_FDCWD, f"{there}/link"]),
    ])  # fmt: skip
    assert tries.results == [0, errno.EEXIST, KILLED + signal.SIGSYS]
    assert subject.sandbox.listdir(there) == ["new"]
    assert tries.program.status("Seccomp") == "2"
    assert repr(tries) == "allowed, EEXIST, killed by signal 31"


def test_what_cannot_be_executed_is_told(sandbox: Sandbox) -> None:
    subject = Subject(sandbox)
    process = subject.perform("landlock.restrict_paths", {"/proc": "read"})
    with pytest.raises(Wrong, match=r"cannot execute any program: .*Permission denied"):
        Attempts(subject, process, [("openat", [AT_FDCWD, "/", os.O_RDONLY, 0])])


@pytest.mark.parametrize("target", ["program", "library", "call"])
def test_another_program_in_its_place_is_found_out(target: str, tmp_path: Path) -> None:
    sandbox = Sandbox(Classrooms(tmp_path).without({"uts"}), {"uts.set_names": FORGED})
    try:
        subject = Subject(sandbox, ["uts.set_names"])
        process = subject.perform("uts.set_names", target)
        with pytest.raises(Wrong, match=r"was replaced by another one|0 new children|does not live|has ended"):
            Attempts(subject, process, [("unshare", [0])])
    finally:
        sandbox.close()


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ('{"status": "running", "pid": 7}', {"status": "running", "pid": 7}),
        ('{"status": ["running"]}', None),
        ('{1: "a"}', None),
        ("{str(n): n for n in range(20)}", None),
        ("type('Sly', (dict,), {})(a=1)", None),
        ('[{"digest": "sha256:0", "size": 7}]', [{"digest": "sha256:0", "size": 7}]),
        ('[{"digest": ["sha256:0"]}]', None),
        ('[{"size": 7}] * 20', None),
    ],
)
def test_a_small_object_can_be_told_and_nothing_deeper(returned: str, told: object, tmp_path: Path) -> None:
    sandbox = Sandbox(Classrooms(tmp_path).without({"uts"}), {"uts.set_names": f"def set_names(): return {returned}"})
    try:
        assert Subject(sandbox).perform("uts.set_names").returned == told
    finally:
        sandbox.close()
