# mutant: between its two writes, the old quota counts in the new period
# on v2: nothing is lost: both are one write there
# loses: test_change
# diagnosis: asked for 6000 µs of every 10000, and the kernel refused .*not between two writes either

# %%exercise cpu.throttle
def throttle(group, quota, period=100_000, burst=0):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    if version == 2:
        write(f"{directory}/cpu.max", f"{'max' if quota < 0 else quota} {period}")
    else:
        write(f"{directory}/cpu.cfs_period_us", period)
        write(f"{directory}/cpu.cfs_quota_us", quota)
