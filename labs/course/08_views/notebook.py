# %% [markdown]
# # Lab 08: what the host gives away
#
# **The question:** a container has its own files, names, processes, network. What can it still find out about the machine
# that it runs on, and what do the last two kinds of namespace do about that?
#
# **You need** [cgroup_namespaces(7)](https://man7.org/linux/man-pages/man7/cgroup_namespaces.7.html),
# [time_namespaces(7)](https://man7.org/linux/man-pages/man7/time_namespaces.7.html),
# [clock_gettime(2)](https://man7.org/linux/man-pages/man2/clock_gettime.2.html); about an hour. From the labs before:
# unshare(2), and setns(2) of lab 07.
#
# It runs as root. As an ordinary user you can do all of it but the pictures of control groups, in which you may have none:
# then both columns are the same. It takes Linux 5.6 or newer for the clocks; the first table says whether yours has them.
#
# Run the cells from the top, one after the other: Shift-Enter. A cell that begins with `%%predict` asks what you expect:
# write it behind the colon *before* you go on. Nobody marks it.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## Eight, not six
#
# Course notes on containers, also those that this course began with, list six kinds of namespaces. There are **eight**.
# The table is made of what this course's own code knows, and of what your kernel has:

# %%
# %%predict eight
# Write down those that you know, from the labs so far. Which two will be missing, and what could they be
# about?
# My prediction:

# %%
import os

from minicontainer.linux import Namespace

YEARS = {"mnt": 2002, "uts": 2006, "ipc": 2006, "pid": 2008, "net": 2009, "user": 2013, "cgroup": 2016, "time": 2020}
print(f"{'in /proc/PID/ns':16} {'flag':16} {'bit':>10}  {'usable since':18} what it is about")
for kind in Namespace:
    flag = {"mnt": "NEWNS"}.get(kind.proc_name, f"NEW{kind.proc_name.upper()}")
    since = f"Linux {kind.since} ({YEARS[kind.proc_name]})"
    print(f"{kind.proc_name:16} {'CLONE_' + flag:16} {kind.flag:#10x}  {since:18} {kind.isolates}")
lacking = [kind.proc_name for kind in Namespace if not kind.supported]
print(f"\n{os.uname().release} lacks:", ", ".join(lacking) or "none of them")

# %%
# %look_back eight

# %% [markdown]
# What older notes get wrong, line by line:
#
# | what they say | what is so |
# |---|---|
# | "six namespaces" | eight: **cgroup** since 4.6 (2016), **time** since 5.6 (2020) |
# | "PIC" | IPC: inter-process communication |
# | network: 2.6.24 | the *flag* came with 2.6.24; a network namespace that could be used was complete about 2.6.29 |
# | user: 2.6.23 | the flag; usable, and open to ordinary users, since 3.8 |
# | IPC: System V only | POSIX message queues joined it in 2.6.30 |
# | they isolate resources | they change what is *seen and named*. How *much* one may use, control groups say (labs 09 to 11) |
#
# And a curiosity: CLONE_NEWTIME is 0x80, in the place where clone(2) wants the signal that tells of a child's death. So
# clone(2) cannot make a time namespace: unshare(2) and clone3(2) can. The 32 bits of clone's flags are used up.
#
# ## Where am I? The control group's path
#
# Each container has a control group on the host, a directory in a tree. Its name is the container's id, and above it are
# those of whoever started it: a service, a user, Kubernetes' pod.

# %%
# %%predict path
# A container that has the host's cgroup namespace prints its own /proc/self/cgroup. Will it learn its id? Will it, if
# the namespace is its own?
# My prediction:

# %%
from labs.notebook.session import engine

SHOW = ["grep", "-e", "pids", "-e", "^0:", "/proc/self/cgroup"]
print("the host's cgroup namespace:")
print(engine().run("busybox", SHOW, shared=("cgroup",), capture=True).stdout)
print("one of its own:")
print(engine().run("busybox", SHOW, capture=True).stdout)

# %%
# %look_back path

# %% [markdown]
# The same file, of the same process, says different things to different readers:

# %%
from labs.notebook import hidden

with engine().started("busybox", ["sleep", "60"]) as container:
    hidden.group_paths(container)

# %% [markdown]
# A cgroup namespace does one thing: it has a **root**, and paths are shown from there. The root is
# the group in which the process was *at the moment* when it made the namespace.
#
# - It limits nothing and moves nothing. The group, its limits, its files on the host are the same as before.
# - So order matters: *first* into the group, *then* the namespace. Who does it the other way round has its maker's group for
#   the top, and reads `/minicontainer/5f3a…` again. Who is moved later, to a group beside the root, reads `/../other`.
# - It is of use when `/sys/fs/cgroup` is mounted in the container: what is shown there begins at the namespace's root too.
#   systemd in a container needs that: it takes the top of the tree for its own.
#
# Is the path a secret? Not a great one. But a container's id opens doors in other interfaces; a path below
# `/kubepods/besteffort/` tells what one is worth; and a container that was moved to another host (lab's end) must not see
# another path than before.
#
# ## Exercise 1: `hide_cgroup_path`
#
# ```
# hide_cgroup_path() -> None
# ```
#
# Give the process that calls it a cgroup namespace of its own, whose root is the group that the process is in. It stays in
# that group, and nothing else about it changes.
#
# Stuck? `%hint cgroup.hide_cgroup_path` has something to say.


# %%
# %%exercise cgroup.hide_cgroup_path
def hide_cgroup_path() -> None:
    """Give the calling process a cgroup namespace, whose root is the group that the process is in at this moment."""
    # SOLUTION BEGIN
    unshare(CLONE_NEWCGROUP)
    # SOLUTION END


# %%
# %%isolated
from pathlib import Path

print("before:", os.readlink("/proc/self/ns/cgroup"), Path("/proc/self/cgroup").read_text().split()[-1])
hide_cgroup_path()
print("after: ", os.readlink("/proc/self/ns/cgroup"), Path("/proc/self/cgroup").read_text().split()[-1])

# %%
from labs.notebook.session import my_engine

with my_engine().started("busybox", ["sleep", "60"]) as container:
    hidden.group_paths(container)

# %% [markdown]
# ## Since when? The clocks
#
# A container knows how long its host has been up, and with that, when the kernel was last replaced. Well, does it matter?
# It does when a container is *moved*: frozen, carried to another machine, thawed there (CRIU does it). Programs measure
# with a clock that never jumps, CLOCK_MONOTONIC. On the other machine, which was booted at another time, it would jump by
# months: forward, and all time limits run out at once; backwards, and some never do.
#
# Linux has many clocks. Three of them:
#
# | clock | counts from | goes on while the machine sleeps |
# |---|---|---|
# | CLOCK_REALTIME, the time of day | 1970 | yes |
# | CLOCK_MONOTONIC | some moment about the start of the machine | no |
# | CLOCK_BOOTTIME | the same moment | yes |

# %%
# %%predict clocks
# Which of the three could a container be given for itself, without harm to anybody? Which one not, and why?
# My prediction:

# %%
# %%isolated
import time
from pathlib import Path

for name in ("CLOCK_REALTIME", "CLOCK_MONOTONIC", "CLOCK_BOOTTIME"):
    print(f"{name:16} {time.clock_gettime(getattr(time, name)):18.2f} s")
print("/proc/uptime    ", Path("/proc/uptime").read_text().split()[0])
print("namespaces:     ", os.readlink("/proc/self/ns/time"), os.readlink("/proc/self/ns/time_for_children"))
print(Path("/proc/self/timens_offsets").read_text())

# %%
# %look_back clocks

# %% [markdown]
# A **time namespace** has two numbers: what is added to CLOCK_MONOTONIC and to CLOCK_BOOTTIME for those who are in it. The
# time of day has none. It is everybody's: files, certificates and logs of all machines are compared by it.
#
# The two numbers can be written to `/proc/PID/timens_offsets`, but only as long as **nobody is in the namespace**: a clock
# that never jumps must not be made to jump under somebody's feet.
#
# Now unshare(2) puts its caller into the new namespace, for all kinds but one (which one was that?).

# %%
# %%predict unshare
# Can unshare(2) put its caller into a new time namespace, and the offsets still be written? Which of the two links below
# will change: "time", "time_for_children"?
# My prediction:

# %%
# %%isolated
print("before:    ", os.readlink("/proc/self/ns/time"), os.readlink("/proc/self/ns/time_for_children"))
unshare(CLONE_NEWTIME)
print("unshare(): ", os.readlink("/proc/self/ns/time"), os.readlink("/proc/self/ns/time_for_children"))

# %%
# %look_back unshare

# %% [markdown]
# As with PIDs: the new one is for *children*. Now nobody is in, and the offsets can be set. And then?

# %%
# %%predict written
# A process sets an offset of a million seconds, has a child that looks at the clock, and sets another one. What will the
# parent's clock say, what the child's? Will the second write succeed?
# My prediction:

# %%
# %%isolated
import time

unshare(CLONE_NEWTIME)
with open("/proc/self/timens_offsets", "w") as offsets:
    offsets.write("monotonic 1000000 0\n")
print(f"parent {time.monotonic():12.1f}", flush=True)
if os.fork() == 0:
    print(f"child  {time.monotonic():12.1f}", flush=True)
    os._exit(0)
os.wait()
try:
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write("monotonic 2000000 0\n")
except OSError as error:
    print("a second time:", error)

# %%
# %look_back written

# %% [markdown]
# The first one who goes in closes the door for writers. To go in oneself, there is setns(2), with the file
# `/proc/self/ns/time_for_children`. (It does so at once, if the process has a single thread; execve(2) does it too on newer
# kernels, which hides the mistake of having forgotten it.)
#
# ## Exercise 2: `offset_clocks`
#
# ```
# offset_clocks(monotonic: int = 0, boottime: int = 0,
#               monotonic_nanoseconds: int = 0, boottime_nanoseconds: int = 0) -> None
# ```
#
# Give the process that calls it a time namespace of its own, **and have it be in it**, in which the two clocks are so many
# seconds (and nanoseconds) ahead of the host's, or behind, if the seconds are negative.
#
# - With no offsets at all there is a namespace nevertheless.
# - A line of `timens_offsets` is the name of a clock, seconds, nanoseconds: `monotonic 86400 0`.
# - No clock can be moved below zero: the kernel says ERANGE, and the OSError goes on to the caller.
#
# Stuck? `%hint time.offset_clocks` has something to say, more than once.


# %%
# %%exercise time.offset_clocks
def offset_clocks(
    monotonic: int = 0, boottime: int = 0, monotonic_nanoseconds: int = 0, boottime_nanoseconds: int = 0
) -> None:
    """Give the calling process a time namespace whose clocks are so much ahead of the host's, or behind, if < 0."""
    # SOLUTION BEGIN
    unshare(CLONE_NEWTIME)
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write(f"monotonic {monotonic} {monotonic_nanoseconds}\nboottime {boottime} {boottime_nanoseconds}\n")
    namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWTIME)
    finally:
        os.close(namespace)
    # SOLUTION END


# %%
# %%isolated
from pathlib import Path

offset_clocks(monotonic=86400, boottime=365 * 86400)
print(os.readlink("/proc/self/ns/time"), os.readlink("/proc/self/ns/time_for_children"))
print(Path("/proc/self/timens_offsets").read_text())
print("/proc/uptime:", Path("/proc/uptime").read_text().split()[0], "s")

# %% [markdown]
# The course's function, and then yours: three clocks, out here and inside.

# %%
hidden.clocks(monotonic=20 * 86400, boottime=300 * 86400)

# %%
hidden.clocks(monotonic=20 * 86400, boottime=300 * 86400, mine=True)

# %% [markdown]
# ### A breakout, and what closes it
#
# In 2022 it was found (CVE-2022-0492) that whoever was root of a *new user and cgroup namespace* could mount the trees of
# control groups of version 1 afresh, and write the file `release_agent`: the name of a program that the **host's** kernel
# starts, as root, when a group becomes empty. The namespaces had opened a door to a file whose owner nobody had asked for.
# The kernel now asks for CAP_SYS_ADMIN in the *first* user namespace. Let us see that it does, in a throw-away namespace.
# (What we write is what the file says already: a kernel that lets us is found out, and nothing is changed.)

# %%
# %%predict agent
# Root of a new user and cgroup namespace: may it mount a tree of control groups? Will it find `release_agent`
# in there, and may it write it?
# My prediction:

# %%
# %%isolated
import tempfile

unshare(CLONE_NEWCGROUP)
with tempfile.TemporaryDirectory() as place:
    try:
        mount("cgroup", place, "cgroup", 0, "pids")
    except OSError as error:
        print("mount:", error)
    else:
        print("mounted; in it:", [name for name in os.listdir(place) if "release" in name])
        try:
            with open(f"{place}/release_agent", "r+") as agent:
                agent.write(agent.read().strip() + "\n")
            print("write: this kernel lets us. Update it.")
        except OSError as error:
            print("write:", error)
        umount2(place, MNT_DETACH)

# %%
# %look_back agent

# %% [markdown]
# Namespaces hide; what may be *done* is for capabilities to say, and for whoever drops them (lab 15). Docker refuses
# `mount` and `unshare` by its seccomp filter for just such surprises.
#
# ## What does the kernel think?

# %%
# %check 08

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 08 --subject notebooks/08-views.ipynb
# ```
#
# ## What to take away
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | `lxc.namespace.keep = cgroup` (not to have one) | `--cgroupns host`, `--cgroupns private` | unshare(CLONE_NEWCGROUP) |
# | `lxc.time.offset.boot`, `lxc.time.offset.monotonic` | (nothing yet) | unshare(CLONE_NEWTIME), timens_offsets |
# | | OCI: `linux.timeOffsets` | |
#
# - A cgroup namespace's root is where its maker was. First the group, then the namespace.
# - A time namespace is for children, so that its offsets can be set while nobody is in.
# - Both limit nothing.
#
# ### How others do it
#
# - **runc** puts its child into the group, and only then does the child call unshare(CLONE_NEWCGROUP): the stage
#   `STAGE_INIT` of `libcontainer/nsenter/nsexec.c`. The offsets are written from outside, to the child's
#   `/proc/PID/timens_offsets`: `update_timens_offsets` in the same file.
# - **LXC** has both since long: `lxc.time.offset.*` is read in `src/lxc/confile.c`. Docker uses cgroup namespaces by
#   default where the host is v2, and the host's where it is v1; time namespaces it does not offer.
# - This project's runtime: `minicontainer/runtime/birth.py`, `_enter_namespaces`: read the order of the calls there, now
#   that you know what each of them needs.
#
# ## Going further
#
# 1. `minicontainer run --cgroupns host` and `--timens host` leave them out. Which of the checks would fail?
# 2. `cat /proc/uptime` in your time namespace is moved; is `ps -o lstart`? And `dmesg`, `/proc/stat`'s `btime`? Why?
# 3. A program waits with clock_nanosleep(2) until an *absolute* moment of CLOCK_MONOTONIC. Whose moment does it mean, and
#    where would you look that up in the kernel? (`kernel/time/namespace.c`, `do_timens_ktime_to_host`.)
# 4. clock_gettime(2) makes no system call: it reads a page that the kernel shows every process (vdso(7)). How can two
#    processes read different times there?
# 5. Read the letters that came with the patches, on lore.kernel.org: *CGroup namespaces* (A. Kali, S. Hallyn, 2014 to
#    2016), *ns: Introduce Time Namespace* (A. Vagin, D. Safonov, 2018 to 2020). What did the reviewers object to?
