# mutant: joins the first of the namespaces, and returns
# loses: test_joined, test_exec, test_nothing_open
# diagnosis: is still outside of|is not in the container\'s namespaces|still open

# %%exercise network.join
def join(pid, namespaces):
    """Move the calling process into these namespaces of process `pid`."""
    for kind in namespaces:
        pidfd = pidfd_open(pid)
        setns(pidfd, kind.flag)
        return
