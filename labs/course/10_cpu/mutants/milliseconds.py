# mutant: writes milliseconds
# loses: test_quota, test_change, test_throttled
# diagnosis: EINVAL .*a quota is at least 1000, a period 1000 to 1000000

# %%exercise cpu.throttle
def throttle(group, quota, period=100_000, burst=0):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    if version == 2:
        write(f"{directory}/cpu.max", f"{'max' if quota < 0 else quota // 1000} {period // 1000}")
    else:
        write(f"{directory}/cpu.cfs_period_us", period // 1000)
        write(f"{directory}/cpu.cfs_quota_us", quota // 1000)
