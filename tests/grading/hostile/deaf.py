# attack: ignores and blocks every signal that can be, then waits for ever
# fails: nobody asks it to go; SIGKILL for the sandbox's process 1 ends it, and that signal can be neither ignored nor
#   blocked
# status: timeout
# says: endless loop

# %%exercise uts.set_names
import signal


def set_names(host, domain=None):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        signal.sigtimedwait([], 60)
