# mutant: sets memory first and memory with swap second, on the way up too
# on v2: nothing is lost: the two files do not depend on each other there
# loses: test_change
# diagnosis: on the way up the total is raised first, on the way down last

# %%exercise memory.limit_memory
def limit_memory(group, limit, total=None):
    from minicontainer.linux.cgroups import write

    version, directory = group["memory"]
    total = limit if total is None else total
    if version == 2:
        files = {"memory.max": limit, "memory.swap.max": -1 if total == -1 else total - limit}
    else:
        files = {"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": total}
    for file, value in files.items():
        if os.path.exists(f"{directory}/{file}"):
            write(f"{directory}/{file}", "max" if version == 2 and value == -1 else value)
