# mutant: sets what sounds like a limit: where the kernel pushes a group back to
# loses: test_limit, test_killed, test_no_swap, test_total, test_change, test_below
# diagnosis: the value went to another file, memory\.(soft_limit_in_bytes|high)|-1 is no limit

# %%exercise memory.limit_memory
def limit_memory(group, limit, total=None):
    from minicontainer.linux.cgroups import write

    version, directory = group["memory"]
    file = "memory.high" if version == 2 else "memory.soft_limit_in_bytes"
    write(f"{directory}/{file}", "max" if version == 2 and limit == -1 else limit)
