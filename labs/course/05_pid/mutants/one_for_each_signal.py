# mutant: one waitpid for one SIGCHLD
# loses: test_many_at_once
# diagnosis: one SIGCHLD was pending for all

# %%exercise pid.reap
def reap(child):
    import signal

    while True:
        number = signal.sigwait(set(range(1, 65)) - {9, 19, 32, 33})
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
