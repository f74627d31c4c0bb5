# mutant: forgets to close what it has opened
# loses: test_nothing_open
# diagnosis: has anon_inode:\[pidfd\]|still open

# %%exercise network.join
def join(pid, namespaces):
    """Move the calling process into these namespaces of process `pid`."""
    setns(pidfd_open(pid), flags(namespaces))
