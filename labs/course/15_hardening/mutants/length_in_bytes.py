# mutant: tells the kernel the length in bytes
# loses: test_answers, test_escapes, test_refused
# diagnosis: EINVAL|EFAULT

# %%exercise seccomp.filter_syscalls
import ctypes

from minicontainer.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_SET_MODE_FILTER, SockFprog
from minicontainer.linux.syscalls import call


def filter_syscalls(program, flags=0):
    buffer = ctypes.create_string_buffer(program, len(program))
    result = call("seccomp", SECCOMP_SET_MODE_FILTER, flags, SockFprog(len(program), ctypes.addressof(buffer)))
    return result if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER else None
