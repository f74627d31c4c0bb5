# mutant: unmounts the old root while it stands in it
# loses: test_new_root, test_working_directory, test_old_root_is_gone, test_no_way_out, test_nothing_left_behind
# diagnosis: mount\.pivot: umount2\(.*EBUSY

# %%exercise mount.pivot
def pivot(new_root):
    mount(new_root, new_root, None, MS_BIND | MS_REC)
    os.chdir(new_root)
    pivot_root(".", ".")
    umount2(".", 0)
    os.chdir("/")
