# mutant: counts for the whole host
# loses: test_count, test_own_count
# diagnosis: nobody was killed in a new group|and count_oom_kills\(\) returned (\d+) and \1

# %%exercise memory.count_oom_kills
def count_oom_kills(group):
    from minicontainer.linux.cgroups import fields

    return fields("/proc/vmstat")["oom_kill"]
