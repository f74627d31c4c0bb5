# mutant: limits its user, and not the group
# loses: test_most, test_bomb, test_pids_lifted
# diagnosis: nothing was written to it|it counts a user, not a group|no merit then

# %%exercise pids.limit_pids
import resource


def limit_pids(group, most):
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard if most == -1 else min(most, hard), hard))
