# mutant: sets shares, which count only while somebody else wants the processor
# loses: test_quota, test_change, test_throttled
# diagnosis: shares count only while others want the same processor

# %%exercise cpu.throttle
def throttle(group, quota, period=100_000, burst=0):
    from minicontainer.linux.cgroups import write

    version, directory = group["cpu"]
    if quota > 0:
        part = quota / period
        write(
            f"{directory}/{'cpu.weight' if version == 2 else 'cpu.shares'}",
            round(part * (100 if version == 2 else 1024)),
        )
