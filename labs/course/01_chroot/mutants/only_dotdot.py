# mutant: goes up as it would anywhere
# loses: test_out, test_out_of_the_deep
# diagnosis: is still the jail, .*: "\.\." stops at the root directory of the process

# %%exercise chroot.break_out
def break_out():
    for _ in range(100):
        os.chdir("..")
    os.chroot(".")
