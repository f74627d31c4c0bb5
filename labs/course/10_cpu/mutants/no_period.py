# mutant: leaves the period at what it was
# loses: test_quota, test_change
# diagnosis: the period was left at what every group has

# %%exercise cpu.throttle
def throttle(group, quota, period=100_000, burst=0):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    if version == 2:
        write(f"{directory}/cpu.max", "max" if quota < 0 else quota)
    else:
        write(f"{directory}/cpu.cfs_quota_us", quota)
