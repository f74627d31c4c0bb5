# mutant: "to be sure", changes the root directory to the parent of what was asked for
# loses: test_root_directory, test_working_directory
# diagnosis: and should be .*: chroot\(\) was given another one|outside of the new root directory

# %%exercise chroot.enter_chroot
def enter_chroot(root):
    os.chdir(root)
    os.chroot("..")
    os.chdir("/")
