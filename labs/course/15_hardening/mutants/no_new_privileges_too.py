# mutant: sets no_new_privs for good measure
# loses: test_answers
# diagnosis: no_new_privs is set

# %%exercise seccomp.filter_syscalls
import ctypes

from minicontainer.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_SET_MODE_FILTER, SockFprog
from minicontainer.linux.syscalls import call


def filter_syscalls(program, flags=0):
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    buffer = ctypes.create_string_buffer(program, len(program))
    result = call("seccomp", SECCOMP_SET_MODE_FILTER, flags, SockFprog(len(program) // 8, ctypes.addressof(buffer)))
    return result if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER else None
