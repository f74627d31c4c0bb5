# mutant: takes a wait status for an exit status
# loses: test_exit_status
# diagnosis: called exit\(42\), and reap\(\) made 0 of it: what waitpid\(\) returns is a wait status

# %%exercise pid.reap
def reap(child):
    import signal

    while True:
        number = signal.sigwait(set(range(1, 65)) - {9, 19, 32, 33})
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                return status
            if pid == 0:
                break
