# mutant: slave instead of private
# loses: test_all_private
# diagnosis: of kind slave \(master:N in mountinfo\)

# %%exercise mount.make_private
def make_private():
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_SLAVE)
