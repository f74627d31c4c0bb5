"""The stub: its code against an assembler, its numbers against the kernel's, and what it does, on this machine."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.linux import prctl, seccomp, stub
from minicontainer.linux.numbers import numbers_of

MACHINE = os.uname().machine
PR_SET_NO_NEW_PRIVS = 38
MESSAGE = b'error {"errno": "0000", "program": "it"}\n'


def run(
    path: str,
    args: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    message: bytes = MESSAGE,
    line: int = 0,
    before: Callable[[], object] = lambda: None,
) -> tuple[int, bytes, bytes]:
    """Execute the stub in a child: the wait status, what the program wrote, and what came over the line.

    `before` is done by the child at the last moment, `line` is the number that the line shall have.
    """
    file = stub.sealed(stub.elf(MACHINE), "test")
    (said, say), (out, write) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(write, 1)
            number = line or say
            os.dup2(say, number) if number != say else os.set_inheritable(say, True)
            before()
            os.execve(f"/proc/self/fd/{file}", stub.arguments(number, message, path, args), dict(environment or {}))
        finally:
            os._exit(99)
    for fd in (file, say, write):
        os.close(fd)
    with open(said, "rb") as line_, open(out, "rb") as output:
        told, written = line_.read(), output.read()
    return os.waitpid(pid, 0)[1], written, told


# What it is made of


@pytest.mark.parametrize("machine", stub.LISTINGS)
def test_the_listing_is_what_an_assembler_makes_of_it(machine: str, tmp_path: Path) -> None:
    """Left what is there, right what an assembler says to it: for each machine, with LLVM's, which knows them all."""
    if not (shutil.which("llvm-mc") and shutil.which("llvm-objcopy")):
        pytest.skip("llvm-mc is not installed (package llvm): nobody here can assemble for another machine")
    _, listing = stub.LISTINGS[machine]
    source = "\n".join(line[24:].split(";")[0].split("//")[0] for line in listing.splitlines())
    syntax = ".intel_syntax noprefix\n" if machine == "x86_64" else ""
    (tmp_path / "stub.s").write_text(syntax + source + "\n")
    subprocess.run(
        ["llvm-mc", f"-triple={machine}-linux-gnu", "-filetype=obj", "stub.s", "-o", "stub.o"], cwd=tmp_path, check=True
    )
    subprocess.run(
        ["llvm-objcopy", "-O", "binary", "--only-section=.text", "stub.o", "stub.bin"], cwd=tmp_path, check=True
    )
    assert (tmp_path / "stub.bin").read_bytes() == stub.code(machine)


@pytest.mark.parametrize("machine", stub.LISTINGS)
def test_its_system_calls_have_the_kernels_numbers(machine: str) -> None:
    """In the order in which they are made, from the table that filters are compiled with."""
    _, listing = stub.LISTINGS[machine]
    loaded = re.findall(r"mov +(?:eax, |w8, #)(\d+)", listing)
    known = numbers_of(machine)
    assert list(map(int, loaded)) == [known[name] for name in ("fcntl", "execve", "write", "exit_group")]


@pytest.mark.parametrize("machine", stub.LISTINGS)
def test_the_page_says_how_long_it_is(machine: str) -> None:
    size = len(stub.elf(machine))
    assert re.search(rf"\b{size} (bytes )?on {machine}", stub.__doc__ or "")


@pytest.mark.parametrize("machine", stub.LISTINGS)
def test_nothing_of_it_is_writable_and_executable(machine: str) -> None:
    file = stub.elf(machine)
    (start,), (size, count) = struct.unpack_from("<Q", file, 32), struct.unpack_from("<HH", file, 54)
    assert (start, size, count) == (64, 56, 1)
    kind, flags, offset, _, _, in_file, in_memory, align = struct.unpack_from("<IIQQQQQQ", file, start)
    assert (kind, flags, offset, in_file, in_memory) == (1, 5, 0, len(file), len(file))
    assert align >= os.sysconf("SC_PAGE_SIZE") and struct.unpack_from("<Q", file, 24)[0] % 4 == 0  # the entry


def test_a_machine_that_nobody_wrote_it_for() -> None:
    with pytest.raises(KeyError):
        stub.elf("vax")


# What it does


@settings(max_examples=25)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), min_size=0, max_size=12),
    st.dictionaries(st.sampled_from(["A", "B", "PATH", "ÄÖ"]), st.text("xyz= \n", max_size=9), max_size=4),
)
def test_the_program_gets_its_arguments_and_its_environment(args: list[str], environment: dict[str, str]) -> None:
    """Every one, also empty ones, also none of a kind."""
    status, out, told = run("/bin/sh", ["sh", "-c", "printf '%s\\0' \"$@\"", "sh", *args], environment)
    assert (status, told) == (0, b"")
    assert out == b"".join(os.fsencode(one) + b"\0" for one in args or [""])  # printf's %s without any
    assert run("/usr/bin/env", ["env", "-0"], environment)[1] == b"".join(
        os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items()
    )


@pytest.mark.parametrize("line", [0, 7, 8, 63, 64, 511, 512, 1023])
def test_the_line_is_closed_in_the_program_and_the_files_that_it_gets_are_not(line: int) -> None:
    status, out, told = run("/bin/ls", ["ls", "-l", "/proc/self/fd"], line=line)
    assert (status, told) == (0, b"")
    assert "memfd" not in out.decode()
    numbers = [int(one.split(" -> ")[0].split()[-1]) for one in out.decode().splitlines()[1:]]
    assert line not in numbers or line == 0


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("missing", errno.ENOENT), ("data", errno.ENOEXEC), ("forbidden", errno.EACCES), (".", errno.EACCES),
        ("ring", errno.ELOOP), ("data/x", errno.ENOTDIR), ("x" * 300, errno.ENAMETOOLONG), ("open", errno.ETXTBSY),
        ("orphan", errno.ENOENT),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told_in_the_message_and_it_ends(tmp_path: Path, what: str, number: int) -> None:
    (tmp_path / "data").write_bytes(b"nonsense")
    (tmp_path / "orphan").write_bytes(b"#!/missing\n")
    (tmp_path / "forbidden").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "ring").symlink_to("ring")
    shutil.copy("/bin/true", tmp_path / "open")
    for name in ("data", "orphan"):
        (tmp_path / name).chmod(0o755)
    with open(tmp_path / "open", "r+b"):
        status, out, told = run(f"{tmp_path}/{what}", ["x", "y"])
    assert (os.waitstatus_to_exitcode(status), out) == (stub.EXIT_STATUS, b"")
    assert told == MESSAGE.replace(b"0000", b"%04o" % number)
    said = re.search(rb'"errno": "(\d+)"', told)
    assert said and stub.errno_of(said[1].decode()) == number


@pytest.mark.parametrize("message", [b"error " + stub.FAULT[6:] + b"}", MESSAGE[:-1] + b" " * 5000 + b"\n"])
def test_a_message_of_any_length_is_written_whole(message: bytes) -> None:
    _, _, told = run("/nowhere", [], message=message)
    assert told == message.replace(b"0000", b"0002")


def only(*allowed: str, refusal: int) -> Callable[[], None]:
    """A filter: these system calls; `refusal` for all others."""
    known = numbers_of(MACHINE)
    program = [seccomp.BPF_STMT(seccomp.BPF_LD_W_ABS, seccomp.NR)]
    for name in allowed:
        program.append(seccomp.BPF_JUMP(seccomp.BPF_JEQ_K, known[name], 0, 1))
        program.append(seccomp.BPF_STMT(seccomp.BPF_RET_K, seccomp.SECCOMP_RET_ALLOW))
    program.append(seccomp.BPF_STMT(seccomp.BPF_RET_K, refusal))

    def load() -> None:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp.seccomp(seccomp.SECCOMP_SET_MODE_FILTER, 0, b"".join(program))

    return load


def test_four_system_calls_are_all_that_it_makes() -> None:
    """Whatever else it called, it would be killed for; it comes to its own end."""
    calls = only("fcntl", "execve", "write", "exit_group", refusal=seccomp.SECCOMP_RET_KILL_PROCESS)
    status, _, told = run("/nowhere", [], before=calls)
    assert os.waitstatus_to_exitcode(status) == stub.EXIT_STATUS
    assert told == MESSAGE.replace(b"0000", b"0002")


@pytest.mark.parametrize("number", [1, 8, 38, 133, 511, 512, 4095])
def test_an_errno_that_a_filter_has_made_up(number: int) -> None:
    """fcntl(2) refused: then the program would get the line, and is not executed."""
    refused = only("execve", "write", "exit_group", refusal=seccomp.SECCOMP_RET_ERRNO | number)
    status, out, told = run("/bin/echo", ["echo", "started"], before=refused)
    assert (os.waitstatus_to_exitcode(status), out) == (stub.EXIT_STATUS, b"")
    assert told == MESSAGE.replace(b"0000", b"%04o" % number)


@pytest.mark.parametrize("args", [["stub"], ["/proc/self/exe", "/x"], ["0", "m", "/bin/echo", "echo", "started"], [""], ["-1", "a", "b"]])  # fmt: skip
def test_executed_by_somebody_else_it_ends_without_a_word(args: list[str]) -> None:
    """As the #! of somebody who was executed by it."""
    file = stub.sealed(stub.elf(MACHINE), "test")
    try:
        done = subprocess.run(
            args, executable=f"/proc/self/fd/{file}", pass_fds=[file], capture_output=True, timeout=30
        )
    finally:
        os.close(file)
    assert (done.returncode, done.stdout, done.stderr) == (stub.EXIT_STATUS, b"", b"")


def test_it_is_its_own_proc_self_exe_and_that_is_sealed() -> None:
    """What the attacker of CVE-2019-5736 finds there, while it is executed and afterwards, for all that root may."""
    file = stub.sealed(stub.elf(MACHINE), "test")
    again = os.open(f"/proc/self/fd/{file}", os.O_RDWR)
    try:
        for act in (
            lambda: os.write(again, b"x"),
            lambda: os.truncate(again, 0),
            lambda: os.truncate(again, 1 << 20),
            lambda: os.posix_fallocate(again, 0, 1 << 20),
        ):
            with pytest.raises(PermissionError):
                act()
        assert os.pread(again, 4096, 0) == stub.elf(MACHINE)
        assert stat.S_IMODE(os.fstat(file).st_mode) & 0o111
    finally:
        os.close(again)
        os.close(file)


def test_signals_stay_as_they_are() -> None:
    """Blocked ones, ignored ones: execve(2) keeps both, however often."""

    def before() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    _, out, _ = run("/bin/cat", ["cat", "/proc/self/status"], before=before)
    masks = dict(re.findall(r"Sig(Blk|Ign):\t(\w+)", out.decode()))
    assert int(masks["Blk"], 16) == 1 << signal.SIGUSR1 - 1
    assert int(masks["Ign"], 16) >> signal.SIGUSR2 - 1 & 1 and not int(masks["Ign"], 16) >> signal.SIGPIPE - 1 & 1


def test_nothing_is_left_of_a_stub_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(stub.fcntl, "F_ADD_SEALS", -1)
    with pytest.raises(OSError, match="Invalid argument"):
        stub.sealed(b"x", "test")
    assert os.listdir("/proc/self/fd") == before
