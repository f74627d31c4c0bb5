# mutant: makes the mounts private where it is: on the host
# loses: test_own_namespace, test_outside_unchanged
# diagnosis: unshare\(CLONE_NEWNS\) was not called|mounts of the host are not shared any more

# %%exercise mount.make_private
def make_private():
    mount(None, "/", None, MS_REC | MS_PRIVATE)
