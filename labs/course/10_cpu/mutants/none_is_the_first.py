# mutant: fills in what was left out
# loses: test_nodes
# diagnosis: no processors were given, and cpuset\.cpus, which was empty, says "0"

# %%exercise cpu.pin
def pin(group, cpus=None, memory_nodes=None):
    from minicontainer.linux.cgroups import write

    _, directory = group["cpuset"]
    write(f"{directory}/cpuset.cpus", cpus or "0")
    write(f"{directory}/cpuset.mems", memory_nodes or "0")
