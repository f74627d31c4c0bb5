# mutant: does everything right in a child process, whose namespaces are not its parent's
# loses: test_own_namespace, test_segments, test_queues, test_outside_keeps_its_own, test_refused, test_nothing_else
# diagnosis: or was called in another process|both look it up in the same table|where both processes are|no merit then|does not even do it

# %%exercise ipc.private_queues
def private_queues():
    pid = os.fork()
    if pid == 0:
        unshare(CLONE_NEWIPC)
        os._exit(0)
    os.waitpid(pid, 0)
