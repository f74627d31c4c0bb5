# mutant: writes -1, as files of other controllers want it
# loses: test_pids_lifted
# diagnosis: the file's is max

# %%exercise pids.limit_pids
from minicontainer.linux.cgroups import write


def limit_pids(group, most):
    _, directory = group["pids"]
    write(f"{directory}/pids.max", most)
