# %% [markdown]
# # Lab 10: the compressible resource
#
# **You will learn** three ways to divide processors, by shares, by quota and by pinning, how they differ when nobody
# else wants the processor, and how a whole group is stopped without a signal.
#
# **You need** lab 09, in which groups are introduced; of the kernel's documentation,
# [CPU and Cpuset in cgroup-v2](https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu),
# [bandwidth control](https://docs.kernel.org/scheduler/sched-bwc.html) and
# [the freezer of v1](https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html); about 60 minutes, as root.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## Shares
#
# Whoever gets less of a processor is slower, and nobody dies of it: processor time is **compressible**. So it can be
# divided by *shares*. Here are three containers that are always busy, on one processor, with 1024, 2048 and 1024
# shares. (`cpuset_cpus` keeps them on that processor: they must compete.)

# %%
import contextlib
import os
import time

import matplotlib.pyplot as plt

from labs.notebook.session import engine, my_engine
from minicontainer.linux.cgroups import fields, read
from minicontainer.runtime.limits import Limits
from minicontainer.steps.group import find_group
from minicontainer.steps.usage import measure_group

BUSY = ["sh", "-c", "while :; do :; done"]


def used(containers, seconds):
    """The processor time that each of these containers uses in so many seconds, in seconds."""
    groups = [find_group(container.id) for container in containers]
    before = [measure_group(group).cpu for group in groups]
    time.sleep(seconds)
    return [(measure_group(group).cpu - old) / 1e6 for group, old in zip(groups, before, strict=True)]


def compete(engine, *shares):
    """What containers with these shares get of processor 0 in one second."""
    with contextlib.ExitStack() as stack:
        limits = [Limits(cpu_shares=each, cpuset_cpus="0") for each in shares]
        return used([stack.enter_context(engine.started("busybox", BUSY, limits=each)) for each in limits], 1)


three = compete(engine(), 1024, 2048, 1024)
alone = compete(engine(), 1024)

figure, axes = plt.subplots(figsize=(7, 2.6))
axes.barh(["1024", "2048", "1024", "1024, alone"], [*three, *alone], color=["#56b4e9"] * 3 + ["#d9d9d9"])
axes.invert_yaxis()
axes.set_xlabel("seconds of processor 0, in one second")
axes.set_ylabel("shares")
plt.tight_layout()
plt.show()

# %% [markdown]
# The last bar is the point: **shares bind only where there is competition.** Alone, a group has all there is, with
# however few shares. Nothing is wasted, and nothing is promised: the part depends on who else is there.
#
# ## Exercise 1: `share_cpu`
#
# ```
# share_cpu(group: Group, shares: int) -> None
# ```
#
# Let the group have processor time in proportion to its `shares`, of which 1024 are what everybody has.
#
# On v1 the file is `cpu.shares`, and 1024 is what it says in a new group. On v2 it is `cpu.weight`, from 1 to 10000, and
# 100 is what everybody has: convert, so that the proportions are kept to those who have set nothing. `version,
# directory = group["cpu"]`, and `write(file, value)` of `minicontainer.linux.cgroups`, as in lab 09.


# %%
# %%exercise cpu.share_cpu
from minicontainer.linux.cgroups import write


def share_cpu(group, shares):
    """Let the group have processor time in proportion to its `shares`; everybody has 1024."""
    # SOLUTION BEGIN
    version, directory = group["cpu"]
    if version == 2:
        weight = round(shares * 100 / 1024)
        write(f"{directory}/cpu.weight", min(max(weight, 1), 10_000))
    else:
        write(f"{directory}/cpu.shares", shares)
    # SOLUTION END


# %%
print([f"{seconds:.2f} s" for seconds in compete(my_engine(), 1024, 2048, 1024)])

# %% [markdown]
# ## A quota
#
# Who sells processor time wants another promise: *never more than this*, whether somebody else wants it or not. The
# group gets `quota` µs of processor time in every `period` µs; when they are used up, all of it waits for the next
# period. 50000 of 100000 are half a processor, 200000 of 100000 are two. The kernel counts the periods in which a group
# had to wait:

# %%
with engine().started("busybox", BUSY, limits=Limits(cpus=0.25)) as container:
    _, directory = find_group(container.id)["cpu"]
    print(f"{used([container], 1)[0]:.2f} s of a processor in one second")
    print({name: value for name, value in fields(f"{directory}/cpu.stat").items() if name.startswith("nr_")})

# %% [markdown]
# ## Exercise 2: `throttle`
#
# ```
# throttle(group: Group, quota: int, period: int = 100_000, burst: int = 0) -> None
# ```
#
# Give the group `quota` µs in every `period` µs; a quota of -1 is none. Both can be changed later.
#
# | v1 | v2 |
# |---|---|
# | `cpu.cfs_quota_us`, -1: none, and `cpu.cfs_period_us` | `cpu.max`: both, with a blank between; `max`: none |
#
# On v1 no group is given more than the group above it has, in quota / period, and the kernel minds that after *each* of
# the two writes. With 60000 of 100000 in force, which of them may come first for 6000 of 10000? And on the way back? (Is
# there a quota that is never too much?)
#
# `burst` (Linux 5.14) are µs of unused quota that may be saved for later: `cpu.cfs_burst_us`, `cpu.max.burst`. Unless it
# is 0, write it last. It is not checked.


# %%
# %%exercise cpu.throttle
from minicontainer.linux.cgroups import write


def throttle(group, quota, period=100_000, burst=0):
    """Give the group `quota` µs of processor time in every `period` µs; a quota of -1 is none."""
    # SOLUTION BEGIN
    version, directory = group["cpu"]
    if version == 2:
        write(f"{directory}/cpu.max", f"{'max' if quota == -1 else quota} {period}")
    else:
        write(f"{directory}/cpu.cfs_quota_us", -1)
        write(f"{directory}/cpu.cfs_period_us", period)
        write(f"{directory}/cpu.cfs_quota_us", quota)
    if burst:
        write(f"{directory}/{'cpu.max.burst' if version == 2 else 'cpu.cfs_burst_us'}", burst)
    # SOLUTION END


# %%
with my_engine().started("busybox", BUSY, limits=Limits(cpus=0.5)) as container:
    print(f"{used([container], 1)[0]:.2f} s of a processor in one second")

# %% [markdown]
# ## Pinning
#
# The third way says *on which* processors at all: lists such as `0-2,7`, counted from 0. On machines with several nodes
# of memory (NUMA) one also says from which nodes, so that processors and memory are near each other.
#
# ## Exercise 3: `pin`
#
# ```
# pin(group: Group, cpus: str | None = None, memory_nodes: str | None = None) -> None
# ```
#
# Let the group run on the processors in the list `cpus` only, and take memory of the nodes in `memory_nodes` only. What
# is `None` stays as it is. The controller is `"cpuset"`, the files are `cpuset.cpus` and `cpuset.mems`, on v1 and v2.
#
# (sched_setaffinity(2) is no substitute: that is one process's own wish, which its children inherit and change.)


# %%
# %%exercise cpu.pin
from minicontainer.linux.cgroups import write


def pin(group, cpus=None, memory_nodes=None):
    """Let the group run on these processors, and take memory of these NUMA nodes only: lists such as "0-2,7"."""
    # SOLUTION BEGIN
    _, directory = group["cpuset"]
    if cpus is not None:
        write(f"{directory}/cpuset.cpus", cpus)
    if memory_nodes is not None:
        write(f"{directory}/cpuset.mems", memory_nodes)
    # SOLUTION END


# %%
for cpus in (None, "0"):
    with my_engine().started("busybox", ["sleep", "60"], limits=Limits(cpuset_cpus=cpus)) as container:
        print("may use", os.sched_getaffinity(container.pid))

# %% [markdown]
# ## Stopping a group
#
# A signal could stop each process of a container: SIGSTOP. But its parent is told, anybody may send SIGCONT, and who
# forks at the wrong moment escapes. The **freezer** stops a group as a whole, and no process of it can notice.
#
# Writing the file is only the *order*. Each process must first come to a place in the kernel where it can be left
# standing, and that may take a while. v1 says `FREEZING` until all have stopped and then `FROZEN`:


# %%
def state(group):
    """What the freezer says."""
    version, directory = group["freezer"]
    return read(f"{directory}/{'cgroup.events' if version == 2 else 'freezer.state'}")


paused = engine()
with paused.started("busybox", BUSY) as container:
    paused.pause(paused.store.find(container.id))
    print(state(find_group(container.id)))
    print(f"{used([container], 0.3)[0]:.3f} s used while frozen")
    paused.unpause(paused.store.find(container.id))
    print(f"{used([container], 0.3)[0]:.3f} s used afterwards")

# %% [markdown]
# ## Exercises 4 and 5: `freeze` and `thaw`
#
# ```
# freeze(group: Group) -> None
# thaw(group: Group) -> None
# ```
#
# Stop every process of the group, and **return when all have stopped**; let the group go on. The controller is
# `"freezer"`.
#
# | | v1 | v2 |
# |---|---|---|
# | the order | `freezer.state`: `FROZEN`, `THAWED` | `cgroup.freeze`: 1, 0 |
# | it is so | `freezer.state` says `FROZEN` | `cgroup.events` has a line `frozen 1` |
#
# v1 does not tell when it is so: look again, with a short sleep between. (v2 does, poll(2) on `cgroup.events`; looking
# again is good enough here.)


# %%
# %%exercise freezer.freeze
import time

from minicontainer.linux.cgroups import read, write


def freeze(group):
    """Stop every process of the group, and return when all have stopped."""
    # SOLUTION BEGIN
    version, directory = group["freezer"]
    if version == 2:
        write(f"{directory}/cgroup.freeze", 1)
        file, stopped = "cgroup.events", "frozen 1"
    else:
        write(f"{directory}/freezer.state", "FROZEN")
        file, stopped = "freezer.state", "FROZEN"
    while stopped not in read(f"{directory}/{file}"):
        time.sleep(0.001)
    # SOLUTION END


# %%
# %%exercise freezer.thaw
from minicontainer.linux.cgroups import write


def thaw(group):
    """Let the group go on where it was."""
    # SOLUTION BEGIN
    version, directory = group["freezer"]
    if version == 2:
        write(f"{directory}/cgroup.freeze", 0)
    else:
        write(f"{directory}/freezer.state", "THAWED")
    # SOLUTION END


# %%
mine = my_engine()
with mine.started("busybox", BUSY) as container:
    mine.pause(mine.store.find(container.id))
    print(state(find_group(container.id)), f"{used([container], 0.3)[0]:.3f} s used while frozen")
    mine.unpause(mine.store.find(container.id))
    print(f"{used([container], 0.3)[0]:.3f} s used afterwards")

# %% [markdown]
# ## What does the kernel think?
#
# The checks start busy containers with your functions and read **from outside**: the groups' files, what each has used,
# on which processors its processes may run, and what the freezer says at the moment when `freeze` has returned, of a
# container that cannot stop at once. (How would you make one?)

# %%
# %check 10

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 10 --subject notebooks/10-cpu.ipynb
# minicontainer --steps notebooks/10-cpu.ipynb run --rm --cpus 0.5 busybox sh -c 'time dd if=/dev/zero of=/dev/null count=3000000'
# ```
#
# ## What to take away
#
# - Shares count while there is competition, a quota counts always, pinning says where.
# - Over its quota a group waits, and `nr_throttled` says how often. Nobody is killed: compare lab 09.
# - A program in a container with half a processor still sees all processors, and may start a thread for each.
# - An order to the kernel is not yet the deed. Whoever needs the deed waits for it.
#
# ## Going further
#
# 1. A container with a quota of 10 ms in 100 ms answers a request that needs 15 ms of processor time. After how long?
#    What does a shorter period change, and what does `burst`?
# 2. Two groups with equal shares, one with one busy process in it, one with ten. What does each *process* get? And
#    without groups?
# 3. On v1, kill -9 a frozen process. When does it die? And on v2?
# 4. `cpu.idle` (Linux 5.15) makes a group that runs only when nobody else wants to. How is that less than the smallest
#    weight?
# 5. Freeze a container that holds a lock on a file which others want. What is the difference between compressible and
#    harmless?
