# mutant: takes the list of processors for how many there are to be
# loses: test_pin, test_pin_running
# diagnosis: was taken for how many; it is a list of which

# %%exercise cpu.pin
def pin(group, cpus=None, memory_nodes=None):
    from minicontainer.linux.cgroups import write

    _, directory = group["cpuset"]
    if cpus is not None:
        write(f"{directory}/cpuset.cpus", f"0-{int(cpus) - 1}")
    if memory_nodes is not None:
        write(f"{directory}/cpuset.mems", memory_nodes)
