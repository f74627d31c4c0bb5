# mutant: pivots, and does not detach the old root
# loses: test_old_root_is_gone, test_nothing_left_behind
# diagnosis: mounts of the old root are still there, such as /old.* umount2\(\) with MNT_DETACH|there is a directory old

# %%exercise mount.pivot
def pivot(new_root):
    mount(new_root, new_root, None, MS_BIND | MS_REC)
    os.mkdir(f"{new_root}/old")
    os.chdir(new_root)
    pivot_root(".", "old")
    os.chdir("/")
