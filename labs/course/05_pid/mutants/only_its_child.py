# mutant: waits for the program as any parent would, and is no init
# loses: test_orphans, test_many_at_once, test_signals
# diagnosis: stays a zombie: it was an orphan|one SIGCHLD was pending for all|it is blocked there, and pending for ever

# %%exercise pid.reap
def reap(child):
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
