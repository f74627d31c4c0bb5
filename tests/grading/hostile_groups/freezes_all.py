# attack: puts itself, its parent and the sandbox's process 1 into a group below one that it freezes, before the check ends
# fails: whatever is frozen is thawed, from the outermost group inwards, once it was killed, and that by the examiner
# status: graded|timeout

# %%exercise pids.limit_pids
import os

from minicontainer.steps.group import create_group, enter_group, find_group


def limit_pids(group, most):
    below = create_group("cold/colder/coldest", ["freezer", "pids", "cpu"])
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc"))), key=lambda pid: pid == os.getpid()):
        enter_group(below, pid)
    version, directory = find_group("cold")["freezer"]
    with open(f"{directory}/{'freezer.state' if version == 1 else 'cgroup.freeze'}", "w") as state:
        state.write("FROZEN" if version == 1 else "1")


# %%exercise packets.tag_packets
def tag_packets(group, class_id):
    """In the background, while the check goes on."""
    if os.fork() == 0:
        limit_pids(None, 0)
        os._exit(0)
