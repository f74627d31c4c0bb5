# mutant: takes chdir for chroot
# loses: test_root_directory, test_no_namespace
# diagnosis: chroot\(\) was not called|no merit

# %%exercise chroot.enter_chroot
def enter_chroot(root):
    os.chdir(root)
