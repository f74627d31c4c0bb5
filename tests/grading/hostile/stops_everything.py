# attack: stops every process of the sandbox, and its process 1 too, which only ptrace(2) can stop, so that it cannot
#   be ended
# fails: SIGKILL ends what is stopped or traced, and it comes from outside
# status: graded|timeout

# %%exercise uts.set_names
import ctypes
import os
import signal

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207

if os.fork() == 0:
    libc = ctypes.CDLL(None)
    libc.ptrace(PTRACE_SEIZE, 1, None, None)
    libc.ptrace(PTRACE_INTERRUPT, 1, None, None)
    os.kill(-1, signal.SIGSTOP)
    signal.pause()


def set_names(host, domain=None):
    os.kill(os.getpid(), signal.SIGSTOP)
