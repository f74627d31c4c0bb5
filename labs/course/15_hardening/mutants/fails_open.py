# mutant: goes on where there is no filter
# loses: test_refused
# diagnosis: What fails has to be heard

# %%exercise seccomp.filter_syscalls
import contextlib
import ctypes

from minicontainer.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_SET_MODE_FILTER, SockFprog
from minicontainer.linux.syscalls import call


def filter_syscalls(program, flags=0):
    buffer = ctypes.create_string_buffer(program, len(program))
    prog = SockFprog(len(program) // 8, ctypes.addressof(buffer))
    with contextlib.suppress(OSError):  # an old kernel perhaps
        result = call("seccomp", SECCOMP_SET_MODE_FILTER, flags, prog)
        return result if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER else None
