# attack: fills its group trees: hundreds of groups beside one another, and inside one another deeper than a path can name
# fails: they are removed a step at a time, by file descriptors; what each costs the kernel goes with it
# status: graded|timeout

# %%exercise pids.limit_pids
import glob
import os


def limit_pids(group, most):
    trees = [
        place for place in ("/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*")) if os.path.exists(f"{place}/cgroup.procs")
    ]
    for tree in trees:
        for number in range(200):
            os.makedirs(f"{tree}/minicontainer/tree-{number}", exist_ok=True)
    for tree in trees[:2]:
        os.chdir(f"{tree}/minicontainer")
        for _ in range(1200):
            os.mkdir("deeper")
            os.chdir("deeper")
