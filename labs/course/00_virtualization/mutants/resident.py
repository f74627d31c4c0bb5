# mutant: adds up RSS, in which everybody has what is shared for himself
# loses: test_shared
# diagnosis: were counted four times

# %%exercise measuring.memory_of
def memory_of(pid):
    """The bytes of memory that a process and all that descend from it take together."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        own = sum(int(line.split()[1]) for line in file if line.startswith("Rss:")) * 1024
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return own + sum(memory_of(int(child)) for child in children.read().split())
