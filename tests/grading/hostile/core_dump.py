# attack: dumps core, in all its processes, and with a large memory, on the host's disk
# fails: RLIMIT_CORE is 0, and the working directory is in the sandbox
# status: graded|timeout
# says: killed|ended

# %%exercise uts.set_names
import os
import signal


def set_names(host, domain=None):
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    hoard = b"x" * (32 << 20)
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    os.abort()
    return hoard
