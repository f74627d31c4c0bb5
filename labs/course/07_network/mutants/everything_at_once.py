# mutant: joins every namespace there is, asked or not
# loses: test_no_more
# diagnosis: has left its own of the kind .*: the argument `namespaces` says which

# %%exercise network.join
def join(pid, namespaces):
    """Move the calling process into these namespaces of process `pid`."""
    pidfd = pidfd_open(pid)
    try:
        setns(
            pidfd,
            CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWPID | CLONE_NEWTIME,
        )
    finally:
        os.close(pidfd)
