# mutant: has a child make the namespace, and ends it
# loses: test_own_cgroup_namespace, test_its_group_is_the_top, test_nothing_but_the_cgroup_namespace
# diagnosis: was not called|further up|no merit

# %%exercise cgroup.hide_cgroup_path
def hide_cgroup_path():
    """Give the calling process a cgroup namespace whose root is the group that it is in."""
    child = os.fork()
    if child == 0:
        unshare(CLONE_NEWCGROUP)
        os._exit(0)
    os.waitpid(child, 0)
