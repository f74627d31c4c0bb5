# mutant: adds the children, and forgets theirs
# loses: test_every_process
# diagnosis: itself and its children, not theirs

# %%exercise measuring.memory_of
def memory_of(pid):
    """The bytes of memory that a process and all that descend from it take together."""

    def pss(pid):
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024

    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return pss(pid) + sum(pss(int(child)) for child in children.read().split())
