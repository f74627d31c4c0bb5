"""System call filters: seccomp(2), seccomp_unotify(2), include/uapi/linux/seccomp.h, filter.h and audit.h.

A filter is a program in classic BPF, the language that tcpdump(8) has for packets: one number is at hand, the
accumulator, and each instruction loads it, changes it, jumps forward by what it is, or ends with an answer. The packet
is here a ``struct seccomp_data``: the system call that somebody is about to make.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from minicontainer.linux.syscalls import call, failure

SECCOMP_SET_MODE_STRICT = 0
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_GET_NOTIF_SIZES = 3

SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 16
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32

# The answers. Where a thread has several filters, the one that stands first here wins.
SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_DATA = 0x0000FFFF  # of ERRNO the errno, of TRACE what the tracer is told

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_AARCH64 = 0xC00000B7
AUDIT_ARCH_ARM = 0x40000028

X32_SYSCALL_BIT = 0x40000000
"""In the number of a call, where AUDIT_ARCH_X86_64 alone does not tell x32 from x86_64."""

# struct seccomp_data, 64 bytes: where its parts are, for BPF_LD_W_ABS. An argument has 64 bits, the accumulator 32; on
# the machines that we know the lower half comes first.
NR, ARCH, INSTRUCTION_POINTER, ARGS = 0, 4, 8, 16

# Codes of instructions: class | size | mode, class | operation | source.
BPF_LD_W_ABS = 0x20  # accumulator = the 32 bits at k of the packet
BPF_AND_K = 0x54  # accumulator &= k
BPF_JA = 0x05  # skip k instructions
BPF_JEQ_K = 0x15  # accumulator == k?
BPF_JGT_K = 0x25  # accumulator > k?
BPF_JGE_K = 0x35  # accumulator >= k?
BPF_RET_K = 0x06  # the answer is k

BPF_MAXINSNS = 4096
SIZE = 8
"""Of an instruction, in bytes."""

_pack = struct.Struct("=HBBI").pack


def BPF_STMT(code: int, k: int) -> bytes:
    """``struct sock_filter``: an instruction after which the next one follows."""
    return _pack(code, 0, 0, k)


def BPF_JUMP(code: int, k: int, jt: int, jf: int) -> bytes:
    """``struct sock_filter``: skip `jt` instructions where the answer is yes, `jf` where it is no; 255 at most."""
    return _pack(code, jt, jf, k)


class SockFprog(ctypes.Structure):
    """``struct sock_fprog``: a program by its length, in instructions, and its address."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def seccomp(operation: int, flags: int, args: bytes | None) -> int:
    """seccomp(2); for SECCOMP_SET_MODE_FILTER, `args` is the program. Returns 0, or a listener's file descriptor.

    Raises OSError: EACCES (it takes no_new_privs, or CAP_SYS_ADMIN in the caller's user namespace), EINVAL (the kernel
    found the program not to be one, or does not know a flag), EBUSY (there is a listener already), ENOMEM (more than
    32768 instructions in all of the thread's filters), ESRCH (TSYNC: a thread that has another filter).
    """
    if args is None:
        return call("seccomp", operation, flags, None)
    if operation != SECCOMP_SET_MODE_FILTER:
        return call("seccomp", operation, flags, ctypes.create_string_buffer(args, len(args)))
    code = ctypes.create_string_buffer(args, len(args))
    program = SockFprog(len(args) // SIZE, ctypes.addressof(code))
    result = call("seccomp", operation, flags, program)
    if result and not flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:  # TSYNC without TSYNC_ESRCH names the thread
        raise failure("seccomp", (operation, flags, program), errno.ESRCH)
    return result


# The supervisor's side of SECCOMP_RET_USER_NOTIF. Structures are little-endian on every machine that we know.

SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103

SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
SECCOMP_ADDFD_FLAG_SETFD = 1
SECCOMP_ADDFD_FLAG_SEND = 2

Notification = tuple[int, int, int, int, tuple[int, ...]]
"""What waits for an answer: its id, the thread (0: not in our pid namespace), the call's number, AUDIT_ARCH, and six
arguments. What they point at lies in that thread's memory, and another thread may change it meanwhile."""


def notif_recv(listener: int) -> Notification:
    """Wait for a call that a filter hands to us. Raises OSError: ENOENT (its thread is gone, or was interrupted)."""
    buffer = ctypes.create_string_buffer(80)
    call("ioctl", listener, SECCOMP_IOCTL_NOTIF_RECV, buffer)
    number, pid, _flags, nr, arch, _pointer, *args = struct.unpack("=QIIiIQ6Q", buffer)
    return number, pid, nr, arch, tuple(args)


def notif_send(listener: int, number: int, value: int = 0, error: int = 0, flags: int = 0) -> None:
    """Answer: the call returns `value`, or fails with the errno `error`.

    With SECCOMP_USER_NOTIF_FLAG_CONTINUE the kernel makes the call after all, with what its arguments *then* point at:
    no way to enforce anything. Raises OSError: ENOENT (it does not wait any more), EINPROGRESS (answered already).
    """
    answer = struct.pack("=QqiI", number, value, -error, flags)
    call("ioctl", listener, SECCOMP_IOCTL_NOTIF_SEND, ctypes.create_string_buffer(answer, len(answer)))


def notif_id_valid(listener: int, number: int) -> bool:
    """Whether it still waits: ask after opening anything by its pid, which another process may have got meanwhile."""
    try:
        call("ioctl", listener, SECCOMP_IOCTL_NOTIF_ID_VALID, ctypes.create_string_buffer(struct.pack("=Q", number), 8))
    except FileNotFoundError:
        return False
    return True


def notif_addfd(listener: int, number: int, fd: int, at: int | None = None, close_on_exec: bool = False) -> int:
    """Open in who waits what we have open as `fd`; returns its number there, which is `at` where one is given."""
    flags = 0 if at is None else SECCOMP_ADDFD_FLAG_SETFD
    what = struct.pack("=QIIII", number, flags, fd, at or 0, os.O_CLOEXEC if close_on_exec else 0)
    return call("ioctl", listener, SECCOMP_IOCTL_NOTIF_ADDFD, ctypes.create_string_buffer(what, len(what)))
