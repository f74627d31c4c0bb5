# mutant: confuses CLONE_NEWCGROUP with CLONE_NEWNS: nothing is to be seen, it thinks, of what is not mounted
# loses: test_own_cgroup_namespace, test_its_group_is_the_top, test_nothing_but_the_cgroup_namespace
# diagnosis: CLONE_NEWCGROUP\) was not called|that one\'s root is further up|no merit

# %%exercise cgroup.hide_cgroup_path
def hide_cgroup_path():
    """Give the calling process a cgroup namespace whose root is the group that it is in."""
    unshare(CLONE_NEWNS)
