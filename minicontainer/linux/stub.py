"""The smallest program there can be: it executes another one. 258 bytes on x86_64, 280 on aarch64.

Between us and a container's program it stands in as somebody who has nothing to lose. Whoever executes a file keeps his
own until the new one is in its place, and the file may ask for it: a program ``#!/proc/self/exe``, or a link to there,
is the executable of whoever executes it. Executed by us that is the host's Python interpreter, now running in the
container, with the image's libraries, and there to be opened and written to (CVE-2019-5736). Executed by this program
it is 258 bytes in memory that nobody can write to and nobody else has.

It is made of two tables, an ELF header and a program header, and then the machine code, below as an assembler lists it:
bytes left, instructions right. It needs no stack of its own, no library, and three or four system calls. What it works
with is what the kernel puts on the stack of every new program (elf(5), the psABI's "Process Initialization"):

    [sp]       argc
    [sp+8]     argv[0]     the number of a file descriptor, the line, in octal digits: "11"
    [sp+16]    argv[1]     what to write to the line if it goes wrong, with FAULT at its beginning
    [sp+24]    argv[2]     path of the program
    [sp+32]    argv[3]…    the program's own argv[0] and so on, and a null pointer
               envp…       the environment, and a null pointer

Octal, because three bits are a digit: no division either way.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence

FAULT = b'error {"errno": "0000"'
"""How the message begins. For the zeros, the stub puts the errno, in octal."""

EXIT_STATUS = 126
"""Of a stub that could not execute the program: what the shell has for "found, and cannot be executed"."""

MFD_EXEC = 0x10
"""memfd_create(2), Linux 6.3: it shall be executable also where vm.memfd_noexec makes others not so."""

_X86_64 = """
                        ; The line: edi = digits of argv[0]
    48 8b 74 24 08              mov     rsi, [rsp + 8]
    31 ff                       xor     edi, edi
    0f b6 06            digit:  movzx   eax, byte ptr [rsi]
    83 e8 30                    sub     eax, 48             ; '0'
    83 f8 07                    cmp     eax, 7
    77 08                       ja      known               ; the NUL at the end, or no number at all
    48 ff c6                    inc     rsi
    8d 3c f8                    lea     edi, [rax + 8*rdi]
    eb ed                       jmp     digit
    85 ff               known:  test    edi, edi
    74 60                       jz      leave               ; 0 is never the line: we are somebody's /proc/self/exe
    89 fb                       mov     ebx, edi

                        ; fcntl(line, F_SETFD, FD_CLOEXEC): it outlived one execve, and shall not outlive the next
    be 02 00 00 00              mov     esi, 2
    ba 01 00 00 00              mov     edx, 1
    b8 48 00 00 00              mov     eax, 72
    0f 05                       syscall
    85 c0                       test    eax, eax
    75 1a                       jnz     failed

                        ; execve(argv[2], argv + 3, envp), which lies behind argv[argc], the null pointer
    48 8b 04 24                 mov     rax, [rsp]
    48 8b 7c 24 18              mov     rdi, [rsp + 24]
    48 8d 74 24 20              lea     rsi, [rsp + 32]
    48 8d 54 c4 10              lea     rdx, [rsp + 8*rax + 16]
    b8 3b 00 00 00              mov     eax, 59
    0f 05                       syscall

                        ; We are still here. The errno into the message, from its last digit, byte 20, on
    f7 d8               failed: neg     eax
    48 8b 74 24 10              mov     rsi, [rsp + 16]
    b9 14 00 00 00              mov     ecx, 20
    89 c2               octal:  mov     edx, eax
    83 e2 07                    and     edx, 7
    08 14 0e                    or      [rsi + rcx], dl     ; there is a '0'
    ff c9                       dec     ecx
    c1 e8 03                    shr     eax, 3
    75 f1                       jnz     octal

                        ; write(line, argv[1], argv[2] - argv[1] - 1): the strings lie one behind the other
    48 8b 54 24 18              mov     rdx, [rsp + 24]
    48 29 f2                    sub     rdx, rsi
    48 ff ca                    dec     rdx
    89 df                       mov     edi, ebx
    b8 01 00 00 00              mov     eax, 1
    0f 05                       syscall

                        ; exit_group(126)
    bf 7e 00 00 00      leave:  mov     edi, 126
    b8 e7 00 00 00              mov     eax, 231
    0f 05                       syscall
"""

_AARCH64 = """
                        ; The line: w19 = digits of argv[0]
    e9 07 40 f9                 ldr     x9, [sp, #8]
    13 00 80 52                 mov     w19, #0
    2a 15 40 38         digit:  ldrb    w10, [x9], #1
    4a c1 00 51                 sub     w10, w10, #48       ; '0'
    5f 1d 00 71                 cmp     w10, #7
    68 00 00 54                 b.hi    known               ; the NUL at the end, or no number at all
    53 0d 13 0b                 add     w19, w10, w19, lsl #3
    fb ff ff 17                 b       digit
    b3 03 00 34         known:  cbz     w19, leave          ; 0 is never the line: we are somebody's /proc/self/exe

                        ; fcntl(line, F_SETFD, FD_CLOEXEC): it outlived one execve, and shall not outlive the next
    e0 03 13 2a                 mov     w0, w19
    41 00 80 52                 mov     w1, #2
    22 00 80 52                 mov     w2, #1
    28 03 80 52                 mov     w8, #25
    01 00 00 d4                 svc     #0
    00 01 00 35                 cbnz    w0, failed

                        ; execve(argv[2], argv + 3, envp), which lies behind argv[argc], the null pointer
    e9 03 40 f9                 ldr     x9, [sp]
    e0 0f 40 f9                 ldr     x0, [sp, #24]
    e1 83 00 91                 add     x1, sp, #32
    e2 43 00 91                 add     x2, sp, #16
    42 0c 09 8b                 add     x2, x2, x9, lsl #3
    a8 1b 80 52                 mov     w8, #221
    01 00 00 d4                 svc     #0

                        ; We are still here. The errno into the message, from its last digit, byte 20, on
    e9 03 00 4b         failed: neg     w9, w0
    e1 0b 40 f9                 ldr     x1, [sp, #16]
    2a 50 00 91                 add     x10, x1, #20
    2b 09 00 12         octal:  and     w11, w9, #7
    4c 01 40 39                 ldrb    w12, [x10]
    8c 01 0b 2a                 orr     w12, w12, w11       ; there is a '0'
    4c f5 1f 38                 strb    w12, [x10], #-1
    29 7d 03 53                 lsr     w9, w9, #3
    69 ff ff 35                 cbnz    w9, octal

                        ; write(line, argv[1], argv[2] - argv[1] - 1): the strings lie one behind the other
    e2 0f 40 f9                 ldr     x2, [sp, #24]
    42 00 01 cb                 sub     x2, x2, x1
    42 04 00 d1                 sub     x2, x2, #1
    e0 03 13 2a                 mov     w0, w19
    08 08 80 52                 mov     w8, #64
    01 00 00 d4                 svc     #0

                        ; exit_group(126)
    c0 0f 80 52         leave:  mov     w0, #126
    c8 0b 80 52                 mov     w8, #94
    01 00 00 d4                 svc     #0
"""

LISTINGS = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""Machine → its number in an ELF header, and the code."""

_BASE = 0x400000
"""Where in memory it lies: where programs of a fixed address usually do."""
_LARGEST_PAGE = 0x10000
_ELF_HEADER, _PROGRAM_HEADER = 64, 56  # bytes


def code(machine: str) -> bytes:
    """The machine code. Raises KeyError: nobody has written it for such a machine."""
    _, listing = LISTINGS[machine]
    return bytes.fromhex("".join(line[:24] for line in listing.splitlines()))


def elf(machine: str) -> bytes:
    """The whole file: elf(5). Raises KeyError: nobody has written the code for such a machine."""
    number, _ = LISTINGS[machine]
    instructions = code(machine)
    headers = _ELF_HEADER + _PROGRAM_HEADER
    size = headers + len(instructions)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, the lowest byte first, version 1
        2,  # e_type: ET_EXEC, at a fixed address
        number,
        1,  # e_version
        _BASE + headers,  # e_entry: the first instruction
        _ELF_HEADER,  # e_phoff: the program header follows
        0,  # e_shoff: there are no sections, which only linkers and debuggers want
        0,  # e_flags
        _ELF_HEADER,
        _PROGRAM_HEADER,
        1,  # one of them
        0,
        0,
        0,
    )
    segment = struct.pack(
        "<IIQQQQQQ",
        1,  # p_type: PT_LOAD, map it
        1 | 4,  # p_flags: PF_X | PF_R, and nobody writes
        0,  # p_offset: the file from its beginning
        _BASE,
        _BASE,
        size,
        size,
        _LARGEST_PAGE,
    )
    return header + segment + instructions


def sealed(content: bytes, name: str) -> int:
    """A file in memory, executable, that nobody can write to any more, not even its owner; a descriptor of it.

    memfd_create(2), F_ADD_SEALS in fcntl(2). `name` is what /proc/PID/exe shows of it. Raises OSError: EACCES
    (vm.memfd_noexec is 2: no such file may be executable here), ENOSYS.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        file = os.memfd_create(name, flags | MFD_EXEC)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        file = os.memfd_create(name, flags)  # an older kernel: they all are
    try:
        os.write(file, content)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(file)
        raise
    return file


def arguments(line: int, message: bytes, path: str, args: Sequence[str]) -> list[str | bytes]:
    """The argv with which the stub executes `path` with `args`, and if it cannot, writes `message` to `line`.

    `message` begins with FAULT. It comes with the errno in it: `errno_of`.
    """
    assert line > 0 and message.startswith(FAULT)
    return [f"{line:o}", message, path, *args]


def errno_of(text: str) -> int:
    """The number that stands for those zeros: ``0015`` is 13, EACCES."""
    return int(text, 8)
