# mutant: takes a mount namespace of one's own for the whole of it
# loses: test_all_private
# diagnosis: every mount is still shared, "/" first of all

# %%exercise mount.make_private
def make_private():
    unshare(CLONE_NEWNS)
