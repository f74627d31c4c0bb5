# mutant: never gives back what it has taken
# loses: test_change
# diagnosis: the limit was to become 100663296\. memory\S+ says 33554432

# %%exercise memory.limit_memory
def limit_memory(group, limit, total=None):
    from minicontainer.linux.cgroups import read, write

    version, directory = group["memory"]
    total = limit if total is None else total
    if version == 2:
        files = {"memory.max": limit, "memory.swap.max": -1 if total == -1 else total - limit}
    else:
        files = {"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": total}
    first = next(iter(files))
    now = read(f"{directory}/{first}")
    if now != "max" and limit > int(now):
        return
    for file, value in files.items():
        if os.path.exists(f"{directory}/{file}"):
            write(f"{directory}/{file}", "max" if version == 2 and value == -1 else value)
