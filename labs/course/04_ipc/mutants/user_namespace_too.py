# mutant: gets the right to do it from a new user namespace, in which the process is nobody
# loses: test_own_namespace, test_segments, test_queues, test_refused, test_nothing_else
# diagnosis: into a new user namespace \(CLONE_NEWUSER\)|by making a new user namespace|of the kind user

# %%exercise ipc.private_queues
def private_queues():
    unshare(CLONE_NEWUSER | CLONE_NEWIPC)
