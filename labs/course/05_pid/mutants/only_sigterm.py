# mutant: passes on the one signal that everybody thinks of
# loses: test_signals
# diagnosis: SIGHUP was sent to process 1 and did not reach the program: it is blocked there

# %%exercise pid.reap
def reap(child):
    import signal

    while True:
        if signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGTERM:
            os.kill(child, signal.SIGTERM)
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
