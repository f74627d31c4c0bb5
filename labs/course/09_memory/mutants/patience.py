# mutant: lets processes at the limit wait for memory instead of having them killed
# on v2: nothing is lost: the kernel has no such switch there
# loses: test_killed, test_below
# diagnosis: oom_kill_disable 1

# %%exercise memory.limit_memory
def limit_memory(group, limit, total=None):
    from minicontainer.linux.cgroups import write

    version, directory = group["memory"]
    total = limit if total is None else total
    if version == 2:
        write(f"{directory}/memory.max", "max" if limit == -1 else limit)
        if os.path.exists(f"{directory}/memory.swap.max"):
            write(f"{directory}/memory.swap.max", "max" if total == -1 else total - limit)
        return
    write(f"{directory}/memory.oom_control", 1)
    both = f"{directory}/memory.memsw.limit_in_bytes"
    if os.path.exists(both):
        write(both, -1)
    write(f"{directory}/memory.limit_in_bytes", limit)
    if os.path.exists(both):
        write(both, total)
