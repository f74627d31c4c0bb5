# mutant: makes the IPC namespace on the way
# loses: test_nothing_but_the_cgroup_namespace
# diagnosis: kind ipc: unshare\(\) was given more than one flag

# %%exercise cgroup.hide_cgroup_path
def hide_cgroup_path():
    """Give the calling process a cgroup namespace whose root is the group that it is in."""
    unshare(CLONE_NEWCGROUP | CLONE_NEWIPC)
