# mutant: forgets memory
# loses: test_nodes
# diagnosis: was to take memory of node \d+ only, and cpuset\.mems says ""

# %%exercise cpu.pin
def pin(group, cpus=None, memory_nodes=None):
    from minicontainer.linux.cgroups import write

    _, directory = group["cpuset"]
    if cpus is not None:
        write(f"{directory}/cpuset.cpus", cpus)
