# mutant: adds up VmSize, the addresses that were reserved
# loses: test_every_process, test_shared
# diagnosis: bytes were returned, and

# %%exercise measuring.memory_of
def memory_of(pid):
    """The bytes of memory that a process and all that descend from it take together."""
    with open(f"/proc/{pid}/status") as file:
        own = sum(int(line.split()[1]) for line in file if line.startswith("VmSize:")) * 1024
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return own + sum(memory_of(int(child)) for child in children.read().split())
