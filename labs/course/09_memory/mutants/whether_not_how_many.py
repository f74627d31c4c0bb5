# mutant: says whether, and not how many
# loses: test_count
# diagnosis: has killed [2-4] processes of the group, and count_oom_kills\(\) returned 1

# %%exercise memory.count_oom_kills
def count_oom_kills(group):
    from minicontainer.linux.cgroups import fields

    version, directory = group["memory"]
    return int(fields(f"{directory}/{'memory.events' if version == 2 else 'memory.oom_control'}")["oom_kill"] > 0)
