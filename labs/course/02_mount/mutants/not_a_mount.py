# mutant: gives pivot_root a directory that is no mount
# loses: test_new_root, test_working_directory, test_old_root_is_gone, test_no_way_out, test_nothing_left_behind
# diagnosis: mount\.pivot: pivot_root\(.*: E(INVAL|BUSY)

# %%exercise mount.pivot
def pivot(new_root):
    os.chdir(new_root)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
