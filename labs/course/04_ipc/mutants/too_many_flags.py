# mutant: unshares whatever sounds like privacy
# loses: test_nothing_else
# diagnosis: of the kind mnt, uts: unshare\(\) was given another flag than CLONE_NEWIPC, or more

# %%exercise ipc.private_queues
def private_queues():
    unshare(CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWUTS)
