# mutant: pins the process that calls it, whose children inherit that
# loses: test_pin, test_pin_running, test_nodes
# diagnosis: that was sched_setaffinity\(2\)|it was to run on processor \d+ only|was to take memory of node

# %%exercise cpu.pin
def pin(group, cpus=None, memory_nodes=None):
    if cpus is not None:
        os.sched_setaffinity(0, {int(cpus)})
