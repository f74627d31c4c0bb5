# mutant: gives each group a quota, in the same ratio
# loses: test_shares, test_measured
# diagnosis: it is as in a new group|they were made to wait, though the processor was free

# %%exercise cpu.share_cpu
def share_cpu(group, shares):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    quota = shares * 10
    if version == 2:
        write(f"{directory}/cpu.max", f"{quota} 100000")
    else:
        write(f"{directory}/cpu.cfs_quota_us", quota)
