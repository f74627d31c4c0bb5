# mutant: limits the group above, and with it everybody in there
# loses: test_limit, test_killed, test_no_swap, test_total, test_change, test_below
# diagnosis: written one directory too high|was not this group's limit|80 MiB for the neighbour to itself|-1 is no limit

# %%exercise memory.limit_memory
def limit_memory(group, limit, total=None):
    from minicontainer.linux.cgroups import write

    version, directory = group["memory"]
    file = "memory.max" if version == 2 else "memory.limit_in_bytes"
    write(f"{os.path.dirname(directory)}/{file}", "max" if version == 2 and limit == -1 else limit)
