# attack: makes of the groups that it is handed traps for whoever enters them to look: gone, frozen, threaded, without
#   processor time, and a counter's number that is a pipe on which nothing ever comes
# fails: whoever enters is a child with a deadline; only what the kernel calls a counter is read
# status: graded|timeout
# says: no process can enter|is gone|no counter open|did not come back

# %%exercise pids.limit_pids
import os


def limit_pids(group, most):
    for directory in group.directories:
        os.rmdir(directory)


# %%exercise events.count_events
def count_events(group, event):
    reading, _ = os.pipe()
    version, directory = group["perf_event"]
    if version == 2:
        with open(f"{directory}/cgroup.freeze", "w") as state:
            state.write("1")
    return [reading]


# %%exercise devices.allow_devices
def allow_devices(group, rules):
    version, directory = group["devices"]
    for file, value in (("cgroup.type", "threaded"), ("cgroup.freeze", "1"), ("cgroup.subtree_control", "+pids")):
        if os.path.exists(f"{directory}/{file}"):
            with open(f"{directory}/{file}", "w") as control:
                control.write(value)
    if version == 1:
        os.rmdir(directory)
