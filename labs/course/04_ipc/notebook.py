# %% [markdown]
# # Lab 04: memory and messages of one's own
#
# **The question:** two processes exchange data without a file, a pipe or a socket: by nothing but a number that both
# know. What keeps a container from knowing the number?
#
# **You will learn** what System V IPC and POSIX message queues are, why neither chroot nor a mount namespace separates
# them, what an IPC namespace does, and three things that it does not do.
#
# **You need** [ipc_namespaces(7)](https://man7.org/linux/man-pages/man7/ipc_namespaces.7.html),
# [sysvipc(7)](https://man7.org/linux/man-pages/man7/sysvipc.7.html),
# [mq_overview(7)](https://man7.org/linux/man-pages/man7/mq_overview.7.html); about an hour. From the labs before: a
# namespace is left by unshare(2), and `/proc/PID/ns` tells who shares one (lab 03). Everything runs as root and as an
# ordinary user; where unprivileged user namespaces are switched off, only as root.
#
# Run the cells from the top, one after the other: Shift-Enter. Where there is a `%%predict`, write what you expect
# behind the colon and run it, *before* the experiment below it.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## A number that both know
#
# **IPC** is *inter-process communication*. (Lecture notes on containers that list a namespace called "PIC" mean this
# one.) The kernel has two old families of it whose objects live in no directory:
#
# | | named by | objects | in the kernel since |
# |---|---|---|---|
# | System V | a **key**, 32 bits | shared memory, semaphores, message queues | the beginnings of Linux; from Unix, 1983 |
# | POSIX | a **name**, `/letters` | message queues | 2.6.6 (2004) |
#
# (POSIX has shared memory and semaphores as well, but on Linux those are files in `/dev/shm`: what separates them is
# the mount namespace of lab 02.)
#
# Who wants to share memory asks shmget(2) for the segment with a key, and shmat(2) maps it. Python's library has no
# such functions, so the lab brings a few, each a system call or two:
#
# | `from labs.notebook.ipc import …` | |
# |---|---|
# | `share(0xBEEF, "text")` | make a segment with this key, write into it |
# | `look_up(0xBEEF)` | what stands in the segment with this key; `None`: there is none |
# | `post("letters", "text")`, `fetch("letters")` | the same for a POSIX queue: send, receive |
# | `with neighbour(function, …) as pid:` | a child process that has called the function, and keeps still |
#
# Here are two processes that have nothing in common but a key: the second one is in a root directory of its own
# (lab 01) and in a mount namespace of its own (lab 02). `%%isolated` lets the cell run in a sandbox, as always: your
# machine's segments are not touched.

# %%
# %%predict chroot
# A process writes into the segment 0xBEEF. Another one, which has chroot'ed into an empty directory, in a mount
# namespace of its own, asks for 0xBEEF. What does it read?
# My prediction:

# %%
# %%isolated
import tempfile

from labs.notebook.ipc import look_up, share

share(0xBEEF, "the key is under the mat")
if os.fork() == 0:
    unshare(CLONE_NEWNS)
    os.chroot(tempfile.mkdtemp())
    os.chdir("/")
    print("files in sight:", os.listdir("/"))
    print("behind 0xBEEF: ", look_up(0xBEEF))
    os._exit(0)
_ = os.wait()

# %%
# %look_back chroot

# %% [markdown]
# It sees no file at all, and reads the memory. The key is not looked up in any tree of files; it is looked up in a
# table in the kernel. There is one such table for each **IPC namespace**, and both processes are in the same.
#
# ## The kernel's table
#
# `/proc/sysvipc/shm` is that table as a text, of the namespace of whoever *opens* it; ipcs(1) prints the same. The
# queues have a file system, `mqueue`, that can be mounted. The next picture asks in the namespace of each process, by a
# program that goes there, and draws the answers.

# %%
# %%predict table
# A second process is started, which is told neither the key 0xBEEF nor the name of the queue. Which of the
# two can it find out?
# My prediction:

# %%
# %%isolated
from labs.notebook.ipc import neighbour, post, share

share(0xBEEF, "the key is under the mat")
post("letters", "dear neighbour")
os.system("cat /proc/sysvipc/shm | cut -c1-75")
with neighbour() as other:
    from labs.notebook import sides

    sides.objects({"we": os.getpid(), "the neighbour": other})

# %%
# %look_back table

# %% [markdown]
# One namespace, two objects, and two processes that can name both. Now the neighbour leaves. `leave()` is the course's
# own step; yours is about to follow.

# %%
# %%predict empty
# A new UTS namespace (lab 03) began as a copy of the old one. How does a new IPC namespace begin: with the segment and
# the queue, with copies of them, or with nothing?
# My prediction:

# %%
# %%isolated
from labs.notebook.ipc import neighbour, post, share
from minicontainer.steps.ipc import private_queues as leave

share(0xBEEF, "the key is under the mat")
post("letters", "dear neighbour")
with neighbour(leave) as other:
    from labs.notebook import sides

    sides.objects({"we": os.getpid(), "the neighbour": other})
    # %nsdiff {other}

# %%
# %look_back empty

# %% [markdown]
# With nothing. A name can be copied; what is shared with somebody cannot be copied and be the same thing. And what is
# made over there from now on is there alone.

# %%
# %%predict same
# A segment with the key 0xBEEF is there. The neighbour leaves, and makes one with the same key. An error?
# Whose text will each of the two read?
# My prediction:

# %%
# %%isolated
from labs.notebook.ipc import fetch, look_up, neighbour, post, share
from minicontainer.steps.ipc import private_queues as leave

share(0xBEEF, "ours")


def over_there():
    leave()
    print("there, at first:", look_up(0xBEEF))
    share(0xBEEF, "theirs")
    post("letters", "from over there")
    print("there, then:    ", look_up(0xBEEF), "/", fetch("letters"))


with neighbour(over_there):
    print("here:           ", look_up(0xBEEF), "/", fetch("letters"))

# %%
# %look_back same

# %% [markdown]
# When the last process of a namespace is gone, so are all of its objects. That is more than a comfort: on a machine
# without namespaces, a segment whose maker has crashed stays until somebody calls ipcrm(1), or the power goes.
#
# ## Exercise: `private_queues`
#
# ```
# private_queues() -> None
# ```
#
# Give the process that calls it an IPC namespace of its own.
#
# - Whoever was in the same namespace before keeps it, with all that is in it.
# - Nothing else about the process changes: no other namespace, no mount.
# - When the kernel refuses, the `OSError` goes on to the caller: a container that shares the host's memory because
#   nobody listened would be worse than none.
#
# It is short. The checks are about what it does *not* do. Stuck? `%hint ipc.private_queues`, as often as there are hints.


# %%
# %%exercise ipc.private_queues
def private_queues() -> None:
    """Give the calling process an IPC namespace of its own."""
    # SOLUTION BEGIN
    unshare(CLONE_NEWIPC)
    # SOLUTION END


# %% [markdown]
# Your function, drawn as above:

# %%
# %%isolated
from labs.notebook.ipc import neighbour, post, share

share(0xBEEF, "the key is under the mat")
post("letters", "dear neighbour")
with neighbour(private_queues) as other:
    from labs.notebook import sides

    sides.objects({"we": os.getpid(), "the neighbour": other})

# %% [markdown]
# And in a real container, in the place of the course's own step. The table there has a head and nothing below it:

# %%
from labs.notebook.session import my_engine

print(
    my_engine()
    .run("busybox", ["sh", "-c", "readlink /proc/self/ns/ipc; cut -c1-75 /proc/sysvipc/shm"], capture=True)
    .stdout
)
# !readlink /proc/self/ns/ipc

# %% [markdown]
# ## Breaking in, and what closes it
#
# ### 1. The container that shares the host's namespace
#
# `docker run --ipc=host` and LXC's `lxc.namespace.keep = ipc` leave the container in the host's IPC namespace. Some
# databases ask for it. The attacker does not even need the key: the table lists all of them, with ids.

# %%
# %%predict victim
# The victim's segment has permissions 0600, and attacker and victim are both root, as root in most containers is root
# outside. Does the attacker, who was told neither key nor id, get at the text?
# My prediction:

# %%
# %%isolated
import secrets

from labs.notebook.ipc import look_up, neighbour, share
from minicontainer.steps.ipc import private_queues as leave

key = secrets.randbelow(1 << 31)
share(key, "card 4929 1234, expires 11/29")


def attack():
    for line in list(open("/proc/sysvipc/shm"))[1:]:
        key, shmid, mode, size = line.split()[:4]
        print(f"  key {int(key):#x}, id {shmid}, mode {mode}, {size} bytes:", look_up(int(key)))


def attack_from_a_namespace_of_its_own():
    leave()
    print("  segments in the table:", len(list(open("/proc/sysvipc/shm"))) - 1)


print("with the host's IPC namespace:")
with neighbour(attack):
    pass
print("with one of its own:")
with neighbour(attack_from_a_namespace_of_its_own):
    pass

# %%
# %look_back victim

# %% [markdown]
# Mode 0600 means "its owner", and that is a user id. As long as root of the container is root of the host (lab 06 ends
# that), only the namespace is between them. **What closes it: an IPC namespace of its own**, which is why every engine
# makes one unless it is told otherwise.
#
# ### 2. The window: a file system that was mounted too early

# %%
# %%predict window
# A process mounts mqueue on /dev/mqueue, and *then* leaves the IPC namespace. Which queues does its /dev/mqueue list:
# those of the old namespace, or those of the new one? And can it read a message by the file there?
# My prediction:

# %%
# %%isolated
from labs.notebook.ipc import neighbour, post, show_queues
from minicontainer.steps.ipc import private_queues as leave

post("letters", "dear neighbour")


def too_early():
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/dev", "tmpfs")
    show_queues("/dev/mqueue")
    leave()
    print(open("/dev/mqueue/letters").read().strip())


with neighbour(too_early) as other:
    from labs.notebook import sides

    sides.objects({"we": os.getpid(), "the neighbour": other})

# %%
# %look_back window

# %% [markdown]
# A mounted mqueue belongs to the namespace in which it was mounted, for good. The process is outside, and the mount is
# a window back in: it lists the others' queues, tells how full they are (`QSIZE`), and whoever may write there can
# remove one with `rm`. (To *receive*, mq_open(3) would be needed, and that looks in the new namespace.) **What closes
# it: the order.** First the namespace, then the mount. In this course's engine, `private_queues` comes before
# `mount_proc_and_dev`; the same is true of `/proc` and the PID namespace (lab 05).
#
# ### 3. What was in hand before

# %%
# %%predict hand
# A process has mapped the segment 0xBEEF (shmat) and leaves the IPC namespace *afterwards*. Can it still read the memory?
# Can it look the key up?
# My prediction:

# %%
# %%isolated
from labs.notebook.ipc import look_up, neighbour, share
from minicontainer.steps.ipc import private_queues as leave

share(0xBEEF, "the key is under the mat", keep=True)


def with_it_in_hand():
    leave()
    print("looked up:", look_up(0xBEEF))
    place = next(line for line in open("/proc/self/maps") if "/SYSV" in line)
    begin = int(place.partition("-")[0], 16)
    with open("/proc/self/mem", "rb") as memory:
        memory.seek(begin)
        print("in memory:", memory.read(24))


with neighbour(with_it_in_hand) as other:
    from labs.notebook import sides

    sides.objects({"we": os.getpid(), "the neighbour": other})

# %%
# %look_back hand

# %% [markdown]
# The same memory, still shared, and the kernel counts it: "mapped 2×". **A namespace decides what names mean. It takes
# nothing away that is in hand already**: memory, open files, a working directory. What closes it is execve(2), which
# gives the process new memory, and closing file descriptors; an engine does both before the container's program runs.
#
# ## What does the kernel think?
#
# The checks leave a segment and a queue of *theirs* on either side, under names that nobody can know, and look for them
# on the other side, from outside of your process.

# %%
# %check 04

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 04 --subject notebooks/04-ipc.ipynb
# minicontainer --steps notebooks/04-ipc.ipynb run --rm busybox cat /proc/sysvipc/shm
# ```
#
# ## How production engines do it
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | `lxc.namespace.clone = ipc` | (by default: `--ipc=private`) | `CLONE_NEWIPC` to clone(2) or unshare(2) |
# | `lxc.namespace.keep = ipc` | `--ipc=host` | no flag |
# | `lxc.namespace.share.ipc = NAME` | `--ipc=container:NAME`, which needs `--ipc=shareable` there | setns(2) with `/proc/PID/ns/ipc` |
# | `lxc.mount.entry = mqueue dev/mqueue mqueue` | (always) | mount(2) of mqueue, after that |
#
# - **runc** makes one number of all kinds (the table is in `libcontainer/configs/namespaces_syscall.go`), and
#   `libcontainer/nsenter/nsexec.c`, stage 1, gives it to unshare(2): `try_unshare(config.cloneflags, …)`, after the user
#   namespace, which has a call of its own. The mqueue of `/dev/mqueue` is mounted later, in
#   `libcontainer/rootfs_linux.go` (`mountToRootfs`), so it is the new one.
# - **crun** does it in `src/libcrun/linux.c` (`libcrun_run_linux_container`, and `init_container` in the child), LXC in
#   `src/lxc/start.c` (`lxc_spawn`).
# - A **pod** of Kubernetes is several containers in *one* IPC namespace, that of its pause container: so that they can
#   do what this lab's first cell did.
# - `kernel.shmmax`, `kernel.msgmnb` and `fs.mqueue.*` exist once for each IPC namespace: that is why
#   `docker run --sysctl kernel.shmmax=…` is allowed, and refused together with `--ipc=host`.
#
# ## What to take away
#
# - Keys and names of IPC are looked up in the IPC namespace: System V since 2.6.19 (2006); POSIX queues joined it in
#   2.6.30 (2009).
# - It begins empty, and its objects end with its last process.
# - Only what is *looked up* is separated. What a process had in hand before, it keeps; what was mounted before shows
#   the old namespace.
#
# ## Going further
#
# ipc_namespaces(7) · svipc(7), now sysvipc(7) · `ipc/namespace.c` and `ipc/mqueue.c` of the kernel: the first has 250 lines · the paper
# that began it: E. W. Biederman, *Multiple Instances of the Global Linux Namespaces*, Ottawa Linux Symposium 2006.
#
# 1. An abstract Unix socket has a name and no file, too. In which namespace is *that* name looked up? Find out with two
#    cells under `%%isolated --new …`.
# 2. semop(2) can ask the kernel to undo what a dead process did (`SEM_UNDO`). What ought to happen to such an undo list
#    when the process unshares its IPC namespace, and what does unshare(2) say of `CLONE_SYSVSEM`?
# 3. Shared memory of System V is memory without a file and, after IPC_RMID, without a key. Whose control group (lab 09)
#    is it counted in, if the maker is in one and the users are in others?
