# mutant: writes a mask, as taskset(1) takes it
# loses: test_pin, test_pin_running, test_nodes
# diagnosis: that is a mask|E(INVAL|ACCES|RANGE) \(

# %%exercise cpu.pin
def pin(group, cpus=None, memory_nodes=None):
    from minicontainer.linux.cgroups import write

    _, directory = group["cpuset"]
    for file, value in (("cpuset.cpus", cpus), ("cpuset.mems", memory_nodes)):
        if value is not None:
            write(f"{directory}/{file}", f"{1 << int(value):x}")
