# mutant: joins one after the other by /proc, the mounts first: behind them there is another /proc, or none
# loses: test_exec
# diagnosis: No such file or directory

# %%exercise network.join
def join(pid, namespaces):
    """Move the calling process into these namespaces of process `pid`."""
    for kind in namespaces:
        fd = os.open(f"/proc/{pid}/ns/{kind.proc_name}", os.O_RDONLY)
        try:
            setns(fd, kind.flag)
        finally:
            os.close(fd)
