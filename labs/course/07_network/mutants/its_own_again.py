# mutant: joins the namespaces that it is in already
# loses: test_joined, test_no_more, test_exec, test_nothing_open
# diagnosis: joined none|no merit|is not in the container

# %%exercise network.join
def join(pid, namespaces):
    """Move the calling process into these namespaces of process `pid`."""
    pidfd = pidfd_open(os.getpid())
    try:
        for kind in namespaces:
            if kind is not Namespace.MOUNT and kind is not Namespace.USER:
                setns(pidfd, kind.flag)
    finally:
        os.close(pidfd)
