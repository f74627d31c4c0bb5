# mutant: mounts an empty file system of queues over /dev/mqueue in a mount namespace: the names are in no directory
# loses: test_own_namespace, test_segments, test_queues, test_outside_keeps_its_own, test_refused, test_nothing_else
# diagnosis: the process that was to leave it is in it still|in the same table|in no directory that a mount could hide|no merit|does not even do it|of the kind mnt

# %%exercise ipc.private_queues
def private_queues():
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/dev/mqueue" if os.path.isdir("/dev/mqueue") else "/run", "tmpfs")
