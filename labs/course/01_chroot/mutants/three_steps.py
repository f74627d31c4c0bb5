# mutant: goes up as far as was enough in the first try
# loses: test_out_of_the_deep
# diagnosis: the way up ended half-way, in .*: how many "\.\." are needed depends on how deep the jail lies

# %%exercise chroot.break_out
def break_out():
    os.mkdir("second")
    os.chroot("second")
    for _ in range(3):
        os.chdir("..")
    os.chroot(".")
