# mutant: ends when no child is left, and not when the program has ended
# loses: test_ends_with_the_program
# diagnosis: process 1 goes on, because another child still lives

# %%exercise pid.reap
def reap(child):
    import signal

    result = 0
    while True:
        number = signal.sigwait(set(range(1, 65)) - {9, 19, 32, 33})
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return result
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                result = code if code >= 0 else 128 - code
            if pid == 0:
                break
