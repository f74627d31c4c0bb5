# attack: leaves processes behind in the first check that rename the sandbox during all the next ones, and are hard to
#   end
# fails: between two checks everything in the sandbox is ended, and what is asked for has a new name in every check
# status: graded|timeout

# %%exercise uts.set_names
import os
import signal

from minicontainer.linux import sethostname

if not os.path.exists("/names") and os.fork() == 0:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        try:
            with open("/names") as names:
                sethostname(names.readline().strip())
        except OSError:
            pass


def set_names(host, domain=None):
    try:
        with open("/names", "x") as names:
            names.write(host)
    except FileExistsError:
        pass
