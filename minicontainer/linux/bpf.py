"""BPF programs for control groups: bpf(2), include/uapi/linux/bpf.h, Documentation/bpf/instruction-set.rst.

A BPF program is machine code of a small machine that the kernel has inside: eleven registers of 64 bits, instructions
of eight bytes. Before the kernel takes one, it proves that the program ends and reads nothing that it may not.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from minicontainer.linux.syscalls import call

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16

BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

# What a program for BPF_CGROUP_DEVICE is asked with, struct bpf_cgroup_dev_ctx: three numbers of 32 bits. Of the first,
# the lower half is the type, the upper half the access.
BPF_DEVCG_DEV_BLOCK = 1
BPF_DEVCG_DEV_CHAR = 2
BPF_DEVCG_ACC_MKNOD = 1
BPF_DEVCG_ACC_READ = 2
BPF_DEVCG_ACC_WRITE = 4

_MOST = 64  # programs that are attached to one group


def instruction(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """``struct bpf_insn``: eight bytes."""
    return struct.pack("<BBhi", opcode, src << 4 | dst, offset, immediate)


# The instructions that we need, by the names that bpftool prints them with; r0 to r10 are numbers.


def load32(dst: int, src: int, offset: int) -> bytes:
    """``dst = *(u32 *)(src + offset)``"""
    return instruction(0x61, dst, src, offset)


def move(dst: int, value: int) -> bytes:
    """``dst = value``"""
    return instruction(0xB7, dst, immediate=value)


def copy(dst: int, src: int) -> bytes:
    """``dst = src``"""
    return instruction(0xBF, dst, src)


def bitwise_and(dst: int, value: int) -> bytes:
    """``dst &= value``, 32 bits"""
    return instruction(0x54, dst, immediate=value)


def shift_right(dst: int, bits: int) -> bytes:
    """``dst >>= bits``, 32 bits"""
    return instruction(0x74, dst, immediate=bits)


def jump_unless_equal(dst: int, value: int, skip: int) -> bytes:
    """``if (dst != value) skip so many instructions``"""
    return instruction(0x55, dst, offset=skip, immediate=value)


def jump_unless_same(dst: int, src: int, skip: int) -> bytes:
    """``if (dst != src) skip so many instructions``"""
    return instruction(0x5D, dst, src, skip)


def leave() -> bytes:
    """``return r0``"""
    return instruction(0x95)


class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32), ("insn_cnt", ctypes.c_uint32), ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64), ("log_level", ctypes.c_uint32), ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64), ("kern_version", ctypes.c_uint32), ("prog_flags", ctypes.c_uint32),
    ]  # fmt: skip


class _Attach(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("target_fd", "attach_bpf_fd", "attach_type", "attach_flags")]


class _Query(ctypes.Structure):
    _fields_ = [
        ("target_fd", ctypes.c_uint32), ("attach_type", ctypes.c_uint32), ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32), ("prog_ids", ctypes.c_uint64), ("prog_cnt", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    ]  # fmt: skip


class _Id(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("prog_id", "next_id", "open_flags")]


def prog_load(prog_type: int, instructions: Sequence[bytes]) -> int:
    """Give the kernel a program; returns a file descriptor of it.

    Raises OSError: EPERM (needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, outside of any user namespace), EACCES
    and EINVAL (the kernel could not prove it harmless).
    """
    code, terms = ctypes.create_string_buffer(b"".join(instructions)), ctypes.create_string_buffer(b"MIT")
    return _bpf(
        BPF_PROG_LOAD,
        _Load(prog_type=prog_type, insn_cnt=len(instructions), insns=ctypes.addressof(code),
              license=ctypes.addressof(terms)),
    )  # fmt: skip


def prog_attach(group: int, prog: int, attach_type: int, flags: int = BPF_F_ALLOW_MULTI) -> None:
    """Have a group, a file descriptor of its v2 directory, ask `prog` too. Raises OSError: EPERM, EINVAL."""
    _bpf(BPF_PROG_ATTACH, _Attach(target_fd=group, attach_bpf_fd=prog, attach_type=attach_type, attach_flags=flags))


def prog_detach(group: int, prog: int, attach_type: int) -> None:
    """Undo `prog_attach`."""
    _bpf(BPF_PROG_DETACH, _Attach(target_fd=group, attach_bpf_fd=prog, attach_type=attach_type))


def prog_query(group: int, attach_type: int) -> list[int]:
    """File descriptors of the programs that are attached to a group itself; the caller closes them."""
    ids = (ctypes.c_int * _MOST)()
    query = _Query(target_fd=group, attach_type=attach_type, prog_ids=ctypes.addressof(ids), prog_cnt=_MOST)
    _bpf(BPF_PROG_QUERY, query)
    return [_bpf(BPF_PROG_GET_FD_BY_ID, _Id(prog_id=number)) for number in ids[: query.prog_cnt]]


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    result = call("bpf", command, attributes, ctypes.sizeof(attributes))
    if command in (BPF_PROG_LOAD, BPF_PROG_GET_FD_BY_ID):
        os.set_inheritable(result, False)
    return result
