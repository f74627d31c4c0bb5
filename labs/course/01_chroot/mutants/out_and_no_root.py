# mutant: arrives at the real root, and does not make it "/"
# loses: test_out, test_out_of_the_deep
# diagnosis: the working directory is the real root, but "/" is not: .* One more chroot

# %%exercise chroot.break_out
def break_out():
    os.mkdir("second")
    os.chroot("second")
    for _ in range(100):
        os.chdir("..")
