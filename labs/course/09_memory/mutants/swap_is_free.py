# mutant: forgets swap
# loses: test_no_swap, test_total
# diagnosis: goes on in swap, slowly|`total` is memory and swap together

# %%exercise memory.limit_memory
def limit_memory(group, limit, total=None):
    from minicontainer.linux.cgroups import write

    version, directory = group["memory"]
    file = "memory.max" if version == 2 else "memory.limit_in_bytes"
    write(f"{directory}/{file}", "max" if version == 2 and limit == -1 else limit)
