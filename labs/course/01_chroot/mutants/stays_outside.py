# mutant: forgets the working directory
# loses: test_working_directory
# diagnosis: the working directory is .*, outside .* chdir\("/"\) must follow

# %%exercise chroot.enter_chroot
def enter_chroot(root):
    os.chroot(root)
