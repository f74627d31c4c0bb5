# attack: kills its parent, its group, process 1, and all that it may (-1), from the function and before, from the
#   cell
# fails: its PID namespace has only processes of its own sandbox in it; its process 1 is deaf to signals from inside
# status: graded|timeout

# %%exercise uts.set_names
import contextlib
import os
import signal


def kill_all():
    for pid in (os.getppid(), 1, -1, 0):
        for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.kill(pid, number)


if os.fork() == 0:
    kill_all()


def set_names(host, domain=None):
    kill_all()
