# %% [markdown]
# # Lab 09: the incompressible resource
#
# **You will learn** what a control group is, how it bounds the memory of a container, swap included, and why the end
# of memory is somebody's death and not just a slower program.
#
# **You need** [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html); of the kernel's documentation,
# [Memory in cgroup-v2](https://docs.kernel.org/admin-guide/cgroup-v2.html#memory) and
# [the memory controller of v1](https://docs.kernel.org/admin-guide/cgroup-v1/memory.html); about 45 minutes. Control
# groups are for root to make: start Jupyter as root, in the course's virtual machine for instance.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## A group is a directory
#
# Namespaces decide what a process *sees*. How much it may *use* is decided by the **control group** it is in. A group
# is a directory: mkdir(2) makes it, writing a pid into its file `cgroup.procs` moves a process there (and whatever
# that starts later is born there), and each limit is another file.
#
# Linux has two versions of this. In **v1** (2008) each *controller*, `memory`, `cpu`, `pids` …, has a tree of
# directories of its own. In **v2** (2016) one tree is for all. New distributions have v2; machines with v1, or with
# both side by side, will be around for years, so what you write here works on both. Which one is this?

# %%
from labs.notebook.session import engine, my_engine
from minicontainer.linux.cgroups import fields, read
from minicontainer.runtime.limits import Limits
from minicontainer.steps.group import find_group

with engine().started("busybox", ["sleep", "60"], limits=Limits(memory=64 << 20)) as container:
    group = find_group(container.id)
    version, directory = group["memory"]
    print(f"version {version}: {directory}")
    print("processes:", read(f"{directory}/cgroup.procs").split(), " process 1 of the container:", container.pid)
    # !ls {directory}

# %% [markdown]
# That is how the steps of this course are handed a group: `version, directory = group["memory"]`. The rest is reading
# and writing files, for which `minicontainer.linux.cgroups` has `read(file)`, `write(file, value)` and, for files with
# a name and a number on each line, `fields(file)`. (Why not open() and print()? The kernel wants each value in *one*
# write(2), and answers to it with an errno.)
#
# ## What happens at the limit
#
# This container takes more and more memory, and we watch from outside what the kernel has charged to its group:

# %%
import time

import matplotlib.pyplot as plt

limit = 48 << 20
program = "x=; while :; do x=$x$(head -c 1000000 /dev/zero | tr '\\0' x); done"
times, used = [], []
with engine().started("busybox", ["sh", "-c", program], limits=Limits(memory=limit)) as container:
    version, directory = find_group(container.id)["memory"]
    usage = f"{directory}/{'memory.current' if version == 2 else 'memory.usage_in_bytes'}"
    events = f"{directory}/{'memory.events' if version == 2 else 'memory.oom_control'}"
    while fields(events)["oom_kill"] == 0:
        times.append(time.monotonic())
        used.append(int(read(usage)) / (1 << 20))
        time.sleep(0.002)
    print(read(events))

figure, axes = plt.subplots(figsize=(7, 3))
axes.plot([moment - times[0] for moment in times], used, label="charged to the group")
axes.axhline(limit / (1 << 20), linestyle="--", color="black", label="its limit")
axes.set_xlabel("seconds")
axes.set_ylabel("MiB")
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# Processor time is **compressible**: who gets less of it is slower. A page of memory is there or it is not. At the
# limit the kernel takes back what it can (pages of files, which can be read again), then what swap will take, and when
# that is not enough it kills a process of the group, with SIGKILL: **OOM**, out of memory. A shell tells it as 128 + 9:

# %%
greedy = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]  # a buffer of 64 MiB
result = engine().run("busybox", greedy, limits=Limits(memory=32 << 20), capture=True)
print("status", result.status, " killed for want of memory:", result.oom_killed)

# %% [markdown]
# The kernel keeps the count, as `oom_kill`. That is the only way to tell such a death from any other SIGKILL.
#
# ## Exercise 1: `limit_memory`
#
# ```
# limit_memory(group: Group, limit: int, total: int | None = None) -> None
# ```
#
# Hold the group to `limit` bytes of memory, and to `total` bytes of memory and swap *together*.
#
# - Without a `total` it is as much as `limit`: no swap at all. (Else a container that should be killed would work on
#   in swap, a thousand times slower, and wear the disk that everybody shares.)
# - -1 for either means none.
# - The limit can be changed later: lowered, raised and lifted.
#
# | | v1 | v2 |
# |---|---|---|
# | memory | `memory.limit_in_bytes` | `memory.max` |
# | swap | `memory.memsw.limit_in_bytes`: memory **and** swap | `memory.swap.max`: swap **alone** |
# | none | -1 | the word `max` |
#
# Two things to mind. Where the kernel does not account swap, the file is not there: then leave it. And v1 insists at
# every moment that memory and swap together may be at least as much as memory alone; what does that mean for the order
# of the two writes when a limit goes up, and when it goes down? Is there an order that is always right? (On v1 the
# limit of both together can be lifted for a moment.)


# %%
# %%exercise memory.limit_memory
from minicontainer.linux.cgroups import write


def limit_memory(group, limit, total=None):
    """Hold the group to `limit` bytes of memory, and `total` bytes of memory and swap together; -1: no limit."""
    # SOLUTION BEGIN
    version, directory = group["memory"]
    if total is None:
        total = limit
    if version == 2:
        write(f"{directory}/memory.max", "max" if limit == -1 else limit)
        if os.path.exists(f"{directory}/memory.swap.max"):
            write(f"{directory}/memory.swap.max", "max" if total == -1 else total - limit)
        return
    both = f"{directory}/memory.memsw.limit_in_bytes"
    if os.path.exists(both):
        write(both, -1)
    write(f"{directory}/memory.limit_in_bytes", limit)
    if os.path.exists(both):
        write(both, total)
    # SOLUTION END


# %% [markdown]
# In the place of the course's own, in a real container:

# %%
print("32 MiB:", my_engine().run("busybox", greedy, limits=Limits(memory=32 << 20), capture=True).status)
print("96 MiB:", my_engine().run("busybox", greedy, limits=Limits(memory=96 << 20), capture=True).status)

# %% [markdown]
# ### Groups in groups
#
# A group can lie in another one. Nothing is *inherited* into its files, a new group says "no limit", and a number may
# even be larger than that of the group above. But **every limit on the way up binds**: the smallest is met first.
# `cgroup_parent` puts containers into a common group. Three containers that are to divide 400 MiB as 1:2:1 get a
# maximum of 100, 200 and 100 MiB each; memory is not lent to a neighbour and given back as processor time is (lab 10).
#
# ## Exercise 2: `count_oom_kills`
#
# ```
# count_oom_kills(group: Group) -> int
# ```
#
# How many processes of the group the kernel has killed for want of memory: the line `oom_kill` of `memory.oom_control`
# on v1, of `memory.events` on v2. The engine asks for it when a container has ended.


# %%
# %%exercise memory.count_oom_kills
from minicontainer.linux.cgroups import fields


def count_oom_kills(group):
    """Return how many processes of the group the kernel has killed for want of memory."""
    # SOLUTION BEGIN
    version, directory = group["memory"]
    file = "memory.events" if version == 2 else "memory.oom_control"
    return fields(f"{directory}/{file}")["oom_kill"]
    # SOLUTION END


# %%
small = Limits(memory=32 << 20)
for command in (greedy, ["sh", "-c", "kill -9 $$"]):
    result = my_engine().run("busybox", command, limits=small, capture=True)
    print(result.status, "killed for want of memory:", result.oom_killed)

# %% [markdown]
# ## What does the kernel think?
#
# The checks read the group's files **from outside**, and have processes take more than they may: in containers, in
# groups of groups, beside neighbours. What dies, and what the kernel has counted, is the verdict.

# %%
# %check 09

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 09 --subject notebooks/09-memory.ipynb
# minicontainer --steps notebooks/09-memory.ipynb run --rm --memory 32m busybox dd if=/dev/zero of=/dev/null bs=64M
# ```
#
# ## What to take away
#
# - A group is a directory, a limit is a file, and the kernel rounds to whole pages.
# - Memory is incompressible: at the limit something is given back, or somebody is killed. 137 is how it looks from
#   outside; `oom_kill` is how one knows.
# - A limit of memory without one of swap is none.
# - Every limit above a process binds it. Numbers are not inherited, bounds are.
#
# ## Going further
#
# 1. v2 has `memory.high` below `memory.max`: over it a group is slowed down and made to give back. Who would want
#    that, and what would `dd` above do then?
# 2. `memory.oom_control` of v1 takes a 1: at the limit processes wait instead of being killed. Try it with a container
#    that has one process. Why does v2 not have it any more?
# 3. Read a large file in a container with a small limit. `memory.stat` shows where the pages went; is anybody killed?
# 4. Lower a limit below what is in use. v1 answers EBUSY, v2 kills until it is kept. Which of them would you rather
#    explain to a customer? (`memory.reclaim`, Linux 5.19.)
# 5. Which process dies? `/proc/PID/oom_score`, and `oom_score_adj`, which has a say in it.
