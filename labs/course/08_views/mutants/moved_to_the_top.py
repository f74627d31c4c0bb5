# mutant: moves the process to the root of the tree, where the path is "/", and so out of its limits
# loses: test_own_cgroup_namespace, test_its_group_is_the_top, test_nothing_but_the_cgroup_namespace
# diagnosis: was not called|is not in its .* group any more|further up|no merit

# %%exercise cgroup.hide_cgroup_path
def hide_cgroup_path():
    """Give the calling process a cgroup namespace whose root is the group that it is in."""
    for tree in ["", *os.listdir("/sys/fs/cgroup")]:
        try:
            with open(f"/sys/fs/cgroup/{tree}/cgroup.procs", "w") as procs:
                procs.write("0")
        except OSError:  # no tree, or one that does not let us
            pass
