# mutant: has no use for flags
# loses: test_answers
# diagnosis: the flags were not given to the kernel

# %%exercise seccomp.filter_syscalls
import ctypes

from minicontainer.linux.seccomp import SECCOMP_SET_MODE_FILTER, SockFprog
from minicontainer.linux.syscalls import call


def filter_syscalls(program, flags=0):
    buffer = ctypes.create_string_buffer(program, len(program))
    call("seccomp", SECCOMP_SET_MODE_FILTER, 0, SockFprog(len(program) // 8, ctypes.addressof(buffer)))
