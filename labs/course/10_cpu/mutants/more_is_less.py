# mutant: takes shares for niceness, of which more is less
# loses: test_shares, test_measured
# diagnosis: it was to be|it was not shared 1:2:1

# %%exercise cpu.share_cpu
def share_cpu(group, shares):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    if version == 2:
        write(f"{directory}/cpu.weight", 100 * 1024 // shares)
    else:
        write(f"{directory}/cpu.shares", 1024 * 1024 // shares)
