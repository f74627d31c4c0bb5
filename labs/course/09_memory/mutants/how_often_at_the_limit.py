# mutant: counts how often the limit was met
# loses: test_count, test_own_count
# diagnosis: the kernel has killed [1-4]

# %%exercise memory.count_oom_kills
def count_oom_kills(group):
    from minicontainer.linux.cgroups import fields, read

    version, directory = group["memory"]
    if version == 2:
        return fields(f"{directory}/memory.events")["max"]
    return int(read(f"{directory}/memory.failcnt"))
