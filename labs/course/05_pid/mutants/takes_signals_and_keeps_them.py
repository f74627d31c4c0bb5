# mutant: takes every signal, and sends none on
# loses: test_signals
# diagnosis: SIGHUP was sent to process 1 and did not reach the program: it was taken and not sent on

# %%exercise pid.reap
def reap(child):
    import signal

    while True:
        if signal.sigwait(set(range(1, 65)) - {9, 19, 32, 33}) != signal.SIGCHLD:
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if pid == 0:
                break
