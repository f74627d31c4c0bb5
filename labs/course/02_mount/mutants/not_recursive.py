# mutant: makes "/" private and forgets what is mounted below
# loses: test_all_private
# diagnosis: "/" is private, and .* still shared: .* unless MS_REC

# %%exercise mount.make_private
def make_private():
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_PRIVATE)
