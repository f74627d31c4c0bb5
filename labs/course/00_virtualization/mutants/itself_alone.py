# mutant: measures one process, and takes it for the container
# loses: test_every_process, test_shared
# diagnosis: that is the process itself alone|take .* together

# %%exercise measuring.memory_of
def memory_of(pid):
    """The bytes of memory that a process and all that descend from it take together."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        own = sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
    return own
