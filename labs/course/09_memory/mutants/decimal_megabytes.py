# mutant: writes the limit in megabytes, as a disk's maker counts them
# loses: test_limit
# diagnosis: the number has been through another unit

# %%exercise memory.limit_memory
def limit_memory(group, limit, total=None):
    from minicontainer.linux.cgroups import write

    version, directory = group["memory"]
    total = limit if total is None else total

    def megabytes(size):
        if size == -1:
            return "max" if version == 2 else -1
        return f"{size // 1_000_000}M"

    if version == 2:
        write(f"{directory}/memory.max", megabytes(limit))
        if os.path.exists(f"{directory}/memory.swap.max"):
            write(f"{directory}/memory.swap.max", megabytes(-1 if total == -1 else total - limit))
        return
    both = f"{directory}/memory.memsw.limit_in_bytes"
    if os.path.exists(both):
        write(both, -1)
    write(f"{directory}/memory.limit_in_bytes", megabytes(limit))
    if os.path.exists(both):
        write(both, megabytes(total))
