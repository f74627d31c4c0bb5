# mutant: makes the second chroot, and steps into it
# loses: test_out, test_out_of_the_deep
# diagnosis: below the jail: a second chroot was made, and the process went into it

# %%exercise chroot.break_out
def break_out():
    os.mkdir("second")
    os.chroot("second")
    os.chdir("/")
    for _ in range(100):
        os.chdir("..")
    os.chroot(".")
