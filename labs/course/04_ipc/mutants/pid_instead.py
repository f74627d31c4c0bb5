# mutant: reads the notes' "PIC" as PID: it is IPC, inter-process communication
# loses: test_own_namespace, test_segments, test_queues, test_outside_keeps_its_own, test_refused, test_nothing_else
# diagnosis: flag of this kind of namespace|both look it up in the same table|where both processes are|no merit then|does not even do it|of the kind pid_for_children

# %%exercise ipc.private_queues
def private_queues():
    unshare(CLONE_NEWPID)
