# mutant: takes `total` for what may be swapped
# loses: test_total
# diagnosis: `total` is memory and swap together

# %%exercise memory.limit_memory
def limit_memory(group, limit, total=None):
    from minicontainer.linux.cgroups import write

    version, directory = group["memory"]
    swap = 0 if total is None else total
    if version == 2:
        write(f"{directory}/memory.max", "max" if limit == -1 else limit)
        if os.path.exists(f"{directory}/memory.swap.max"):
            write(f"{directory}/memory.swap.max", "max" if swap == -1 else swap)
        return
    both = f"{directory}/memory.memsw.limit_in_bytes"
    if os.path.exists(both):
        write(both, -1)
    write(f"{directory}/memory.limit_in_bytes", limit)
    if os.path.exists(both):
        write(both, -1 if -1 in (limit, swap) else limit + swap)
