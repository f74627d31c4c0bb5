# mutant: makes the new root a mount, and then still calls chroot
# loses: test_no_way_out
# diagnosis: break_out of lab 01 has led the process back to the old root

# %%exercise mount.pivot
def pivot(new_root):
    mount(new_root, new_root, None, MS_BIND | MS_REC)
    os.chroot(new_root)
    os.chdir("/")
