# mutant: thinks that chroot needs a mount namespace
# loses: test_no_namespace
# diagnosis: the process left its mnt namespace: that is for later labs

# %%exercise chroot.enter_chroot
def enter_chroot(root):
    unshare(CLONE_NEWNS)
    os.chroot(root)
    os.chdir("/")
