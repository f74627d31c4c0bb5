# %% [markdown]
# # Lab 11: the other controllers
#
# **You will learn** what else a control group can hold, mark and count: device files, disks, process numbers, packets,
# events; and how v2 asks a small program where v1 had a list.
#
# **You need** lab 09 (what a group is); of the kernel's documentation
# [devices](https://docs.kernel.org/admin-guide/cgroup-v1/devices.html),
# [blkio](https://docs.kernel.org/admin-guide/cgroup-v1/blkio-controller.html),
# [pids](https://docs.kernel.org/admin-guide/cgroup-v1/pids.html),
# [net_cls](https://docs.kernel.org/admin-guide/cgroup-v1/net_cls.html) for v1, and
# [cgroup-v2](https://docs.kernel.org/admin-guide/cgroup-v2.html);
# [perf_event_open(2)](https://man7.org/linux/man-pages/man2/perf_event_open.2.html). About 75 minutes, as root.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %%
from labs.notebook.session import engine, my_engine
from minicontainer.linux.cgroups import hierarchy_of, read
from minicontainer.runtime.limits import EVERYDAY, Limits
from minicontainer.steps.group import find_group

for controller in EVERYDAY:
    tree = hierarchy_of(controller)
    print(f"{controller:12}", f"v{tree.version} {tree.mountpoint}" if tree else "in no tree that is mounted here")

# %% [markdown]
# As in lab 09, your functions are handed a group, `version, directory = group["pids"]` is a controller of it, and what
# you write has to work on v1 and on v2.
#
# ## How many processes
#
# Process numbers are a resource of the whole machine, and a few letters of shell use them up: `:(){ :|:& };:`. The
# **pids** controller counts the processes and threads of a group. At the limit fork(2) fails with EAGAIN.

# %%
bomb = "i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; jobs | wc -l"
result = engine().run("busybox", ["sh", "-c", bomb], limits=Limits(pids=8), capture=True)
print(result.stdout, result.stderr)

# %% [markdown]
# ## Exercise 1: `limit_pids`
#
# ```
# limit_pids(group: Group, most: int) -> None
# ```
#
# Let the group have at most `most` processes and threads; -1 lifts the limit. The file is `pids.max`, on v1 and v2; its
# word for no limit is `max`.


# %%
# %%exercise pids.limit_pids
from minicontainer.linux.cgroups import write


def limit_pids(group, most):
    """Let the group have at most `most` processes and threads; -1: any number."""
    # SOLUTION BEGIN
    _, directory = group["pids"]
    write(f"{directory}/pids.max", "max" if most == -1 else most)
    # SOLUTION END


# %%
result = my_engine().run("busybox", ["sh", "-c", bomb], limits=Limits(pids=8), capture=True)
print(result.stdout, result.stderr)

# %% [markdown]
# ## How fast from the disk
#
# The controller is called **blkio** on v1 and **io** on v2 (`group["blkio"]` in both cases). It knows a disk by its two
# numbers, major and minor:

# %%
# !lsblk --nodeps --output NAME,MAJ:MIN,SIZE,TYPE

# %% [markdown]
# ## Exercise 2: `limit_io`
#
# ```
# limit_io(group: Group, device: str, **rates: int) -> None
# ```
#
# Hold the group to these rates on a disk, such as `"8:0"`. Of `rates`, a dictionary, each key is one of the four names
# below, each value so much a second; 0 lifts that limit. What is not named stays as it is.
#
# | | v1: a file for each, `8:0 1048576` | v2: `io.max`, `8:0 rbps=1048576` |
# |---|---|---|
# | `read_bps` (bytes) | `blkio.throttle.read_bps_device` | `rbps` |
# | `write_bps` | `blkio.throttle.write_bps_device` | `wbps` |
# | `read_iops` (operations) | `blkio.throttle.read_iops_device` | `riops` |
# | `write_iops` | `blkio.throttle.write_iops_device` | `wiops` |
# | none | 0 | the word `max` |
#
# (A limit of v1 holds what reaches the disk in the process's own name: reads, and writes with O_DIRECT. What lies in
# the page cache is written later by the kernel, in nobody's. v2 remembers whose pages they were.)


# %%
# %%exercise io.limit_io
from minicontainer.linux.cgroups import write


def limit_io(group, device, **rates):
    """Hold the group to these rates on a disk: read_bps, write_bps, read_iops, write_iops; 0 lifts one."""
    # SOLUTION BEGIN
    version, directory = group["blkio"]
    for name, rate in rates.items():
        if version == 2:
            what, unit = name.split("_")
            write(f"{directory}/io.max", f"{device} {what[0]}{unit}={rate or 'max'}")
        else:
            write(f"{directory}/blkio.throttle.{name}_device", f"{device} {rate}")
    # SOLUTION END


# %% [markdown]
# ## Which devices
#
# A device file is a name for a kind (**b**lock or **c**haracter) and two numbers, and root can make one for any disk:

# %%
# !ls -l /dev/null /dev/zero /dev/tty

# %%
disk = "mknod /disk b 254 0 && echo made; head -c 4 /dev/zero | wc -c"
result = engine().run("busybox", ["sh", "-c", disk], capture=True)
print(result.stdout, result.stderr)

# %% [markdown]
# So it is not the name that has to be guarded but the numbers, and three things that may be done with them: **r**ead,
# **w**rite, **m**knod.
#
# **v1** has a list for each group. It begins with what the group above may do, all as a rule. Writing `a` to
# `devices.deny` takes everything away; each line written to `devices.allow`, such as `c 1:3 rwm` or `b 8:* r`, gives
# something back. One write(2), one rule.
#
# **v2** has no such file. There you attach a **program** to the group, and the kernel runs it at each open(2) and
# mknod(2) of a device: with 1 in register r0 at its end it is allowed, with 0 not. It is written for the kernel's own
# little machine, BPF. The kernel proves beforehand that it ends. Below, the beginning of it is there already
# (`QUESTION`: it has put kind, access, major and minor number of what is to be done into registers), and so is
# `attach`. For each rule you add instructions: comparisons that *jump over the rest of the rule* where it does not fit,
# and after them `move(0, 1), leave()`. After all rules stands `move(0, 0), leave()`.
#
# | instruction | what it does |
# |---|---|
# | `jump_unless_equal(register, number, skip)` | jumps over so many instructions, unless the register has this number |
# | `jump_unless_same(register, other, skip)` | the same, for two registers |
# | `copy(to, from)`, `bitwise_and(register, number)` | for the access: a bit each for m, r, w, several at a time |
# | `move(register, number)`, `leave()` | sets a register; ends the program |
#
# ## Exercise 3: `allow_devices`
#
# ```
# allow_devices(group: Group, rules: Sequence[tuple[str, int | None, int | None, str]]) -> None
# ```
#
# Let the group use the devices of `rules`, and no others; rules of an earlier call do not count any more. A rule is
# `("c", 1, 3, "rwm")`: kind, major, minor, and of r, w, m what is allowed. A number that is `None` is any number.
#
# The kernel takes device rules from root **outside of any user namespace** only, and your code will be graded inside of
# one. There the examiner does it for you, if you call `write` (and, in `attach`, `prog_load` and `prog_attach`). With
# `open` you would be told EPERM.
#
# (This machine has one version. Write the other too: on v2, `write` never meets `devices.deny`, and on v1 nobody asks
# your program.)

# %%
# %%exercise devices.allow_devices
from minicontainer.linux.bpf import (
    BPF_CGROUP_DEVICE,
    BPF_PROG_TYPE_CGROUP_DEVICE,
    bitwise_and,
    copy,
    jump_unless_equal,
    jump_unless_same,
    leave,
    load32,
    move,
    prog_attach,
    prog_detach,
    prog_load,
    prog_query,
    shift_right,
)
from minicontainer.linux.cgroups import write

KIND, ACCESS, MAJOR, MINOR, WANTED = 2, 3, 4, 5, 6  # registers; r1 has the address of the question, r0 the answer
QUESTION = [
    load32(KIND, 1, 0),
    bitwise_and(KIND, 0xFFFF),
    load32(ACCESS, 1, 0),
    shift_right(ACCESS, 16),
    load32(MAJOR, 1, 4),
    load32(MINOR, 1, 8),
]
KINDS = {"b": 1, "c": 2}
LETTERS = {"m": 1, "r": 2, "w": 4}


def attach(directory, program):
    """Let the group of this v2 directory ask `program`, and none that it asked before."""
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    before = prog_query(group, BPF_CGROUP_DEVICE)
    loaded = prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, program)
    prog_attach(group, loaded, BPF_CGROUP_DEVICE)
    for old in before:
        prog_detach(group, old, BPF_CGROUP_DEVICE)
    for fd in (group, loaded, *before):
        os.close(fd)


def allow_devices(group, rules):
    """Let the group use the devices of `rules`, (kind, major, minor, access), and no others."""
    # SOLUTION BEGIN
    version, directory = group["devices"]
    if version == 1:
        write(f"{directory}/devices.deny", "a")
        for kind, major, minor, access in rules:
            numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
            write(f"{directory}/devices.allow", f"{kind} {numbers} {access}")
        return
    program = list(QUESTION)
    for kind, major, minor, access in rules:
        # From the end to the beginning, since each comparison jumps over all that comes after it.
        rule = [move(0, 1), leave()]
        if minor is not None:
            rule.insert(0, jump_unless_equal(MINOR, minor, len(rule)))
        if major is not None:
            rule.insert(0, jump_unless_equal(MAJOR, major, len(rule)))
        allowed = sum(LETTERS[letter] for letter in access)
        rule[:0] = [copy(WANTED, ACCESS), bitwise_and(WANTED, allowed), jump_unless_same(WANTED, ACCESS, len(rule))]
        if kind != "a":
            rule.insert(0, jump_unless_equal(KIND, KINDS[kind], len(rule)))
        program += rule
    attach(directory, [*program, move(0, 0), leave()])
    # SOLUTION END


# %%
result = my_engine().run("busybox", ["sh", "-c", disk], limits=Limits(devices=[]), capture=True)
print(result.stdout, result.stderr)

# %% [markdown]
# ## Whose packets
#
# A packet filter sees addresses and ports, and cannot tell which container sent something. **net_cls** marks every
# socket of a group with a *class*, a number of 32 bits, written `AAAA:BBBB` where tc(8) and nft(8) speak of it; nft calls
# it `meta cgroup`. Only v1 has it. On a v2 host it can be mounted beside, as this course's engine does.
#
# ## Exercise 4: `tag_packets`
#
# ```
# tag_packets(group: Group, class_id: int) -> None
# ```
#
# Mark what the group sends with the class `class_id`: 0x00100001 is `10:1`. The file is `net_cls.classid`, of
# `group["net_cls"]`. It takes a number in decimal, or in hexadecimal with `0x` before it.


# %%
# %%exercise packets.tag_packets
from minicontainer.linux.cgroups import write


def tag_packets(group, class_id):
    """Mark what the group's sockets send with a class, 0xAAAABBBB for AAAA:BBBB."""
    # SOLUTION BEGIN
    _, directory = group["net_cls"]
    write(f"{directory}/net_cls.classid", class_id)
    # SOLUTION END


# %%
with my_engine().started("busybox", ["sleep", "60"], limits=Limits(net_class=0x00100001)) as container:
    _, directory = find_group(container.id)["net_cls"]
    print(f"{int(read(f'{directory}/net_cls.classid')):#010x}")

# %% [markdown]
# ## What happens in there
#
# **perf_event** has no files. perf_event_open(2) makes a counter for an event (page faults, context switches, on real
# hardware cycles …) and returns a file descriptor; a read(2) of 8 bytes gives the count. With the flag
# `PERF_FLAG_PID_CGROUP`, the argument `pid` is not a process but *a file descriptor of a group's directory*, and `cpu`
# must be one processor: of a group, each processor is counted apart.

# %%
import os

import matplotlib.pyplot as plt

from minicontainer.steps.events import EVENTS, count_events, events_counted

with engine().started("busybox", ["sh", "-c", "while :; do ls >/dev/null; done"], limits=Limits(pids=64)) as container:
    counters = count_events(find_group(container.id), "page-faults")
    counts = []
    for _ in range(10):
        # !sleep 0.1
        counts.append(events_counted(counters))
    for counter in counters:
        os.close(counter)
print(f"{counts[-1]} page faults on {len(counters)} processors; other events: {', '.join(EVENTS)}")

figure, axes = plt.subplots(figsize=(7, 2.5))
axes.plot([0.1 * (number + 1) for number in range(10)], counts, marker="o")
axes.set_xlabel("seconds")
axes.set_ylabel("page faults in the group")
plt.show()

# %% [markdown]
# ## Exercise 5: `count_events`
#
# ```
# count_events(group: Group, event: str) -> list[int]
# ```
#
# Count an event from now on, in the group and nowhere else; return the file descriptors, one for each processor that is
# switched on. `EVENTS[event]` is its type and number. `perf_event_open(EVENTS[event], fd, cpu, PERF_FLAG_PID_CGROUP)`
# makes one counter. Of the processors, `/proc/stat` has a line each (`cpu0`, `cpu1` …), below one for all together.


# %%
# %%exercise events.count_events
from minicontainer.linux.cgroups import read
from minicontainer.linux.events import PERF_FLAG_PID_CGROUP, perf_event_open
from minicontainer.steps.events import EVENTS


def count_events(group, event):
    """Count an event of EVENTS in the group from now on; return a file descriptor for each processor."""
    # SOLUTION BEGIN
    _, directory = group["perf_event"]
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    words = [line.split()[0] for line in read("/proc/stat").splitlines() if line.startswith("cpu")]
    counters = [perf_event_open(EVENTS[event], fd, int(word[3:]), PERF_FLAG_PID_CGROUP) for word in words[1:]]
    os.close(fd)
    return counters
    # SOLUTION END


# %% [markdown]
# ## What does the kernel think?
#
# The checks hand your functions a group in a sandbox. Then a process from *outside* enters that group and tries: to
# open and make device files, to fork for ever, to touch memory, and sleep; and the counters that your process holds
# open are read from outside too.

# %%
# %check 11

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 11 --subject notebooks/11-controllers.ipynb
# minicontainer --steps notebooks/11-controllers.ipynb run --rm --pids-limit 8 busybox sh -c 'sleep 1 & sleep 1 & ps'
# ```
#
# ## What to take away
#
# - A device is a kind and two numbers. Whoever guards names guards nothing.
# - v1 keeps lists in the kernel; v2 lets you bring the decision along, as a program that provably ends.
# - Processes are a resource as well; the bound is at their birth.
# - net_cls limits nothing. It marks, and others decide.
# - A group is a good unit to *count* in: it has no one process that could leave, or be missed.
#
# ## Going further
#
# 1. Move a process with ten children into a group with `pids.max` 5. What happens? And at the next fork?
# 2. `cat devices.list` of a container's group. Which line is for `docker exec -t`?
# 3. v2 runs the programs of all groups above as well, and all must say 1. Why is that the right way round?
# 4. `nft add rule inet t output meta cgroup 0x00100001 counter` in a network namespace: whose packets does it count
#    when a container has a network namespace of its own?
# 5. Write to a file in a group with `write_bps` on v1, without O_DIRECT, and time it. Where did the limit go?
# 6. Count `cpu-migrations` of a container that is pinned to one processor (lab 10), and of one that is not.
