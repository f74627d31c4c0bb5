# mutant: returns Python's negative number for a program that a signal ended
# loses: test_exit_status
# diagnosis: signal 9 ended the program, and reap\(\) made 247 of it

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
                return os.waitstatus_to_exitcode(status)
            if pid == 0:
                break
