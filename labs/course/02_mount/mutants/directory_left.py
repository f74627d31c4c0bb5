# mutant: detaches the old root and leaves the directory where it hung
# loses: test_nothing_left_behind
# diagnosis: there is a directory old in the new root that was not there before

# %%exercise mount.pivot
def pivot(new_root):
    mount(new_root, new_root, None, MS_BIND | MS_REC)
    os.mkdir(f"{new_root}/old")
    pivot_root(new_root, f"{new_root}/old")
    os.chdir("/")
    umount2("/old", MNT_DETACH)
