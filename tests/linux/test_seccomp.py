"""`linux/seccomp.py` and `linux/numbers.py` against the kernel and its headers."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from minicontainer.linux import seccomp as linux
from minicontainer.linux import syscalls
from minicontainer.linux.numbers import numbers_of
from tests.command import needs_root

HEADERS = {"x86_64": "unistd_64.h", "x86": "unistd_32.h", "x32": "unistd_x32.h"}
ALLOW = linux.BPF_STMT(linux.BPF_RET_K, linux.SECCOMP_RET_ALLOW)


@pytest.mark.parametrize("architecture", HEADERS)
def test_the_numbers_are_those_of_the_headers(architecture: str) -> None:
    found = list(Path("/usr/include").glob(f"*/asm/{HEADERS[architecture]}"))
    if not found:
        pytest.skip(f"no asm/{HEADERS[architecture]} here (package linux-libc-dev, on x86)")
    defined = re.findall(r"#define __NR_(\w+)\s+\(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?\s*$", found[0].read_text(), re.M)
    assert len(defined) > 340
    ours = numbers_of(architecture)
    assert {name: ours.get(name) for name, _ in defined} == {name: int(number) for name, number in defined}


@pytest.mark.parametrize(("architecture", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_they_are_those_by_which_we_call(architecture: str, column: int) -> None:
    ours = numbers_of(architecture)
    assert {name: ours[name] for name in syscalls._NUMBERS} == {
        name: row[column] for name, row in syscalls._NUMBERS.items()
    }


@pytest.mark.parametrize("architecture", ["x86_64", "x32", "x86", "aarch64", "arm"])
def test_no_number_has_two_names(architecture: str) -> None:
    numbers = numbers_of(architecture).values()
    assert len(set(numbers)) == len(numbers) > 300


def test_an_architecture_that_we_do_not_know() -> None:
    with pytest.raises(KeyError):
        numbers_of("vax")


def test_constants_are_those_of_the_headers(tmp_path: Path) -> None:
    if not (compiler := shutil.which("cc")) or not Path("/usr/include/linux/seccomp.h").exists():
        pytest.skip("no C compiler, or no kernel headers (package linux-libc-dev)")
    names = [name for name in vars(linux) if name.startswith(("SECCOMP_", "AUDIT_ARCH_"))]
    program = "".join(f'printf("%llu ", (unsigned long long)(unsigned int){name});' for name in names)
    source = tmp_path / "constants.c"
    source.write_text(
        "#include <linux/seccomp.h>\n#include <linux/audit.h>\n#include <sys/ioctl.h>\n#include <stdio.h>\n"
        f"int main(void) {{ {program} return 0; }}\n"
    )
    subprocess.run([compiler, "-o", tmp_path / "constants", source], check=True, timeout=60)
    shown = subprocess.run([tmp_path / "constants"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert dict(zip(names, map(int, shown.split()), strict=True)) == {name: getattr(linux, name) for name in names}


def test_an_instruction_is_a_sock_filter() -> None:
    assert linux.BPF_JUMP(linux.BPF_JEQ_K, 0x12345678, 3, 4) == struct.pack("=HBBI", 0x15, 3, 4, 0x12345678)
    assert linux.BPF_STMT(linux.BPF_RET_K, 7) == struct.pack("=HBBI", 6, 0, 0, 7)


@pytest.mark.parametrize(
    "action", [name for name in vars(linux) if name.startswith("SECCOMP_RET_") and name[12:] != "DATA"]
)
def test_the_kernel_knows_every_action(action: str) -> None:
    assert linux.seccomp(linux.SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("=I", getattr(linux, action))) == 0


def test_an_action_that_there_is_not() -> None:
    with pytest.raises(OSError, match="seccomp") as caught:
        linux.seccomp(linux.SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("=I", 0x12340000))
    assert caught.value.errno == errno.EOPNOTSUPP


@needs_root  # or no_new_privs, which a test cannot take off again
@pytest.mark.parametrize(
    ("program", "flags"),
    [
        (b"", 0),
        (linux.BPF_STMT(linux.BPF_LD_W_ABS, linux.NR), 0),  # no answer at the end
        (linux.BPF_JUMP(linux.BPF_JEQ_K, 0, 1, 0) + ALLOW, 0),  # a jump over the end
        (linux.BPF_STMT(linux.BPF_LD_W_ABS, 64) + ALLOW, 0),  # past the packet
        (ALLOW * (linux.BPF_MAXINSNS + 1), 0),
        (ALLOW, 1 << 30),
    ],
)
def test_the_kernel_refuses_what_is_no_program(program: bytes, flags: int) -> None:
    with pytest.raises(OSError, match=r"seccomp\(1, .*EINVAL"):
        linux.seccomp(linux.SECCOMP_SET_MODE_FILTER, flags, program)


def test_without_rights_it_takes_no_new_privs() -> None:
    if os.geteuid():
        with pytest.raises(OSError, match="EACCES"):
            linux.seccomp(linux.SECCOMP_SET_MODE_FILTER, 0, ALLOW)
        return
    child = os.fork()
    if not child:
        seen = 255
        try:
            os.setuid(65534)
            seen = linux.seccomp(linux.SECCOMP_SET_MODE_FILTER, 0, ALLOW)
        except OSError as error:
            seen = error.errno or 255
        finally:
            os._exit(seen)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EACCES


@needs_root  # or no_new_privs, which a test cannot take off again
def test_what_does_not_wait_cannot_be_answered() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            listener = linux.seccomp(linux.SECCOMP_SET_MODE_FILTER, linux.SECCOMP_FILTER_FLAG_NEW_LISTENER, ALLOW)
            os.write(writing, b"%d\n" % listener)
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    pidfd = os.pidfd_open(child)
    try:
        listener = syscalls.call("pidfd_getfd", pidfd, int(os.read(reading, 16)), 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(pidfd)
    try:
        assert not linux.notif_id_valid(listener, 1)
        with pytest.raises(FileNotFoundError):
            linux.notif_send(listener, 1)
    finally:
        os.close(listener)
