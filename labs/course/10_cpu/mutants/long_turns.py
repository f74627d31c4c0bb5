# mutant: gives the right part of a processor, in turns of its own length
# loses: test_quota
# diagnosis: the part of a processor is right, but in longer or shorter turns

# %%exercise cpu.throttle
def throttle(group, quota, period=100_000, burst=0):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    if quota > 0:
        quota = quota * 100_000 // period
    if version == 2:
        write(f"{directory}/cpu.max", f"{'max' if quota < 0 else quota} 100000")
    else:
        write(f"{directory}/cpu.cfs_quota_us", quota)
