# mutant: the root directory of lab 01 for the root of a tree of mounts
# loses: test_old_root_is_gone, test_no_way_out
# diagnosis: That was chroot\(\); pivot_root\(\) exchanges|break_out of lab 01 has led the process back

# %%exercise mount.pivot
def pivot(new_root):
    os.chroot(new_root)
    os.chdir("/")
