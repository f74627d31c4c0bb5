# mutant: takes the first child that ends for the program
# loses: test_orphans, test_many_at_once
# diagnosis: process 1 ended when an orphan did

# %%exercise pid.reap
def reap(child):
    import signal

    while True:
        number = signal.sigwait(set(range(1, 65)) - {9, 19, 32, 33})
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
