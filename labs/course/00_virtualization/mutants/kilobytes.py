# mutant: forgets that the kernel counts in kB
# loses: test_every_process
# diagnosis: units of 1024 bytes

# %%exercise measuring.memory_of
def memory_of(pid):
    """The bytes of memory that a process and all that descend from it take together."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        own = sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return own + sum(memory_of(int(child)) for child in children.read().split())
