# mutant: the right calls in the wrong order
# loses: test_outside_unchanged
# diagnosis: not shared any more: mount\(\) was called while .* unshare\(CLONE_NEWNS\) comes first

# %%exercise mount.make_private
def make_private():
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    unshare(CLONE_NEWNS)
