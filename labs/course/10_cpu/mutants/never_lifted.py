# mutant: takes "no quota" for "nothing to do"
# loses: test_change
# diagnosis: a quota of -1 is none, and the kernel still has 60000

# %%exercise cpu.throttle
def throttle(group, quota, period=100_000, burst=0):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    if quota < 0:
        return
    if version == 2:
        write(f"{directory}/cpu.max", f"{quota} {period}")
    else:
        write(f"{directory}/cpu.cfs_quota_us", -1)
        write(f"{directory}/cpu.cfs_period_us", period)
        write(f"{directory}/cpu.cfs_quota_us", quota)
