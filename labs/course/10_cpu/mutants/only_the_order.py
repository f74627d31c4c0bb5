# mutant: gives the order to freeze, and does not wait
# loses: test_freeze_waits
# diagnosis: the group had the order to stop and had not stopped yet

# %%exercise freezer.freeze
def freeze(group):
    from minicontainer.linux.cgroups import write

    version, directory = group["freezer"]
    if version == 2:
        write(f"{directory}/cgroup.freeze", 1)
    else:
        write(f"{directory}/freezer.state", "FROZEN")
