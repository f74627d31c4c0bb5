# mutant: takes the first number of the file
# loses: test_count, test_own_count
# diagnosis: the one that is meant begins with oom_kill

# %%exercise memory.count_oom_kills
def count_oom_kills(group):
    from minicontainer.linux.cgroups import read

    version, directory = group["memory"]
    return int(read(f"{directory}/{'memory.events' if version == 2 else 'memory.oom_control'}").split()[1])
