# attack: leaves processes behind that are to outlive the sandbox: daemons, and some in namespaces of their own, deaf
#   to all signals
# fails: every one of them is in a PID namespace below the sandbox's, and the kernel ends these with its process 1
# status: graded|timeout

# %%exercise uts.set_names
import os
import signal

from minicontainer.linux import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, PR_SET_PDEATHSIG, prctl, unshare

for namespaces in (0, CLONE_NEWPID, CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS):
    if os.fork() == 0:
        unshare(namespaces)
        if os.fork() == 0:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, 0)
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            while True:
                signal.sigtimedwait([], 60)
        os._exit(0)


def set_names(host, domain=None):
    return host
