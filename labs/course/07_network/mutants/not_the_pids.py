# mutant: leaves CLONE_NEWPID out, since it does not change the caller
# loses: test_exec
# diagnosis: CLONE_NEWPID was left out

# %%exercise network.join
def join(pid, namespaces):
    """Move the calling process into these namespaces of process `pid`."""
    pidfd = pidfd_open(pid)
    try:
        setns(pidfd, flags(kind for kind in namespaces if kind is not Namespace.PID))
    finally:
        os.close(pidfd)
