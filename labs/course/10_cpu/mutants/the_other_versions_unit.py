# mutant: takes the unit of one version for that of the other
# loses: test_shares
# diagnosis: the ratio is right among the three, but 1024 shares are what everybody has

# %%exercise cpu.share_cpu
def share_cpu(group, shares):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    if version == 2:
        write(f"{directory}/cpu.weight", min(shares, 10_000))
    else:
        write(f"{directory}/cpu.shares", round(shares * 100 / 1024))
