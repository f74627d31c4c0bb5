# mutant: means the children, and forgets who makes them
# loses: test_most, test_bomb
# diagnosis: whoever makes (them|the others)

# %%exercise pids.limit_pids
from minicontainer.linux.cgroups import write


def limit_pids(group, most):
    _, directory = group["pids"]
    write(f"{directory}/pids.max", "max" if most == -1 else most + 1)
