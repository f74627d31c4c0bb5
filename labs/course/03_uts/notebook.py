# %% [markdown]
# # Lab 03: a host name of one's own
#
# **You will learn** what a namespace is, how a process leaves one for a new one, and why the order of two system
# calls decides whether you name a container or rename a machine.
#
# **The question:** a container calls itself `alpha`, and the machine that it runs on does not notice. Where is that
# name kept?
#
# **You need** [unshare(2)](https://man7.org/linux/man-pages/man2/unshare.2.html),
# [sethostname(2)](https://man7.org/linux/man-pages/man2/sethostname.2.html),
# [uts_namespaces(7)](https://man7.org/linux/man-pages/man7/uts_namespaces.7.html); about 45 minutes. Nothing from
# labs 01 and 02 is assumed but that a container is a process, and that its system calls change only itself and its
# children.
#
# It runs as root in a virtual machine and as an ordinary user on a laptop alike, if the kernel lets users make user
# namespaces: `minicontainer check` tells.
#
# Run the cells from the top, one after the other: Shift-Enter. A cell that begins with `%%predict` asks what you expect:
# write it behind the colon *before* you go on. Nobody marks it.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## A machine has one name. Has it?
#
# uname(2) fills a structure that has been called `utsname` since the *Unix Time-sharing System*. Two of its fields
# can be set: the node name, which everybody calls **host name**, and the **domain name** of the old NIS.

# %%
# %%predict fields
# Which of its fields are the machine's, and the same for everybody on it? Which could a container have for
# itself?
# My prediction:

# %%
import os

os.uname()

# %% [markdown]
# The kernel used to keep one such structure for the whole machine. Since Linux 2.6.19 (2006) it keeps one for each
# **UTS namespace**, and each process belongs to exactly one of these. Which one? A namespace has no name. It is an
# object in the kernel, and `/proc/PID/ns/uts` is a link to it; the number in the brackets is its inode number.

# %%
# !readlink /proc/self/ns/uts /proc/1/ns/uts

# %%
# %look_back fields

# %% [markdown]
# (The second link, of process 1, cannot be read unless you are root.) The rule for reading these links is short:
# **two processes are in the same namespace exactly if the links are equal.**
#
# ## The kernel at work
#
# Here is a container, seen from outside. It runs `sleep`, and the engine tells us the pid of its process 1 *as the
# host counts*.

# %%
# %%predict alpha
# It was started with the host name "alpha". Of its eight namespaces, how many are others than this
# notebook's? What is the name of this machine while it runs?
# My prediction:

# %%
from labs.notebook.session import engine

with engine().started("busybox", ["sleep", "60"], hostname="alpha") as container:
    print("this notebook:  ", os.readlink("/proc/self/ns/uts"), os.uname().nodename)
    print("the container:  ", os.readlink(f"/proc/{container.pid}/ns/uts"))

# %% [markdown]
# And all of its namespaces beside our own. What is joined is the same object; what is apart is another one.

# %%
from labs.notebook import pictures

with engine().started("busybox", ["sleep", "60"], hostname="alpha") as container:
    pictures.namespaces(container)

# %% [markdown]
# `%nsdiff PROCESS` tells the same in words. (Without a process it compares this notebook with what it was when you
# opened it. That should stay dull for the whole course.)

# %%
with engine().started("busybox", ["sleep", "60"], hostname="alpha") as container:
    process = container.pid
    # %nsdiff {process}
# %nsdiff

# %% [markdown]
# The links are different, so the names can be different. Asking inside shows that they are, and that ours has not
# changed:

# %%
print(engine().run("busybox", ["uname", "-n"], hostname="alpha", capture=True).stdout, end="")
print(os.uname().nodename)

# %%
# %look_back alpha

# %% [markdown]
# ### Leaving a namespace
#
# unshare(2) makes new namespaces, of the kinds that its flags name, and puts **the calling process** into them. A
# new UTS namespace begins as a *copy* of the one that was left: the same two names, but from now on nobody else's.
#
# A notebook must not do that to itself. So there is `%%isolated`: such a cell runs in a new process, as root of
# throw-away namespaces, where you may break what you like. The system calls are there under their own names, and
# `%nsdiff` compares this process as it was at the beginning of the cell with what it is now.

# %%
# %%predict copy
# unshare(CLONE_NEWUTS) is called, and nothing after it. Which of these change: the link /proc/self/ns/uts, the host
# name, the links of the other kinds?
# My prediction:

# %%
# %%isolated
name = os.uname().nodename
unshare(CLONE_NEWUTS)
# %nsdiff
print("the name before:", name, "  and after:", os.uname().nodename)

# %%
# %look_back copy

# %% [markdown]
# A new number and the old name: a copy. And now the order. Here are a parent and a child, three times. The child does
# one thing, the other, or both, and the parent looks at its own name afterwards.

# %%
# %%predict order
# What is the parent's name after a child has called (a) sethostname alone, (b) unshare and then sethostname,
# (c) sethostname and then unshare?
# My prediction:


# %%
# %%isolated
def try_it(*calls):
    sethostname("parent")
    child = os.fork()
    if child == 0:
        for call in calls:
            call()
        os._exit(0)
    os.waitpid(child, 0)
    return os.uname().nodename


def leave():
    unshare(CLONE_NEWUTS)


def rename():
    sethostname("child")


print("(a) the parent's name is", try_it(rename))
print("(b) the parent's name is", try_it(leave, rename))
print("(c) the parent's name is", try_it(rename, leave))

# %%
# %look_back order

# %% [markdown]
# (c) is the commonest mistake of this lab, and one that is not seen where it is made: *inside*, all is as it should be.
# The machine around it has another name. That is why the checks look from outside.
#
# The other way in: to be *born* there. clone(2) takes the same flags. With `--new`, a cell begins its life like that, as
# process 1 of a container does. `sandbox` is what is around it.

# %%
# %%isolated --new uts
sethostname("born-here")
print(os.uname().nodename)
# %nsdiff sandbox

# %% [markdown]
# ## Exercise: `set_names`
#
# ```
# set_names(host: str, domain: str | None = None) -> None
# ```
#
# Give the process that calls it a UTS namespace of its own, in which its host name is `host` and, unless `domain` is
# `None`, its NIS domain name is `domain`.
#
# - Afterwards, whoever was in the same namespace before still has the old names.
# - With `domain=None` the inherited domain name stays as it is.
# - Nothing else about the process changes: no other namespace.
# - When the kernel refuses, the `OSError` that the call raises goes on to the caller.
#
# If you are stuck: `%hint uts.set_names`, and once more for the next step.
#
# You have `unshare`, `sethostname`, `setdomainname` and the constants `CLONE_NEW…`, named as in the manual pages.
# What [the table in namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html) calls the flag of this
# kind of namespace, you will find there.


# %%
# %%exercise uts.set_names
def set_names(host: str, domain: str | None = None) -> None:
    """Give the calling process a UTS namespace of its own, with these names in it."""
    # SOLUTION BEGIN
    unshare(CLONE_NEWUTS)
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
    # SOLUTION END


# %% [markdown]
# Try it: the function takes the place of the course's own in a real container.

# %%
from labs.notebook.session import my_engine

print(my_engine().run("busybox", ["hostname"], hostname="alpha", capture=True).stdout, end="")

# %% [markdown]
# What has it asked of the kernel? Your calls, and nobody else's:

# %%
# %%isolated --explain
set_names("alpha")

# %% [markdown]
# And now ask the kernel. The checks start containers with your function in a sandbox, and look at them **from
# outside**: at `/proc/PID/ns`, at the names in the container's namespace and at those outside of it. What your code
# returns or prints is not asked for.

# %%
# %check 03

# %% [markdown]
# The same from a shell, and an engine that runs with your function (save the notebook first):
#
# ```
# labs check 03 --subject notebooks/03-uts.ipynb
# minicontainer --steps notebooks/03-uts.ipynb run --rm --hostname alpha busybox hostname
# ```
#
# ## How production engines do it
#
# Two lines of code, so one would think that all write the same two. What differs is *who* calls them, and when.
#
# | engine | leaves the old namespace | sets the name |
# |---|---|---|
# | runc | `nsexec()` in `libcontainer/nsenter/nsexec.c`: `try_unshare(config.cloneflags, …)`, in C, before the Go runtime has threads | `(*linuxStandardInit).Init` in `libcontainer/standard_init_linux.go`: `unix.Sethostname`, `unix.Setdomainname` |
# | crun | `libcrun_run_linux_container` in `src/libcrun/linux.c`: clone3(2), clone(2) where that is missing | `libcrun_set_hostname`, `libcrun_set_domainname`, same file |
# | LXC | `lxc_spawn` in `src/lxc/start.c` | `setup_utsname` in `src/lxc/conf.c` |
# | yours | `set_names` | `set_names` |
#
# runc's reason for the C part is one that you have met: a process with threads (this notebook, any Go program) must not
# change its namespaces. Part of them would be left behind.
#
# ## What to take away
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | `lxc.uts.name = alpha` | `--hostname alpha` | CLONE_NEWUTS; sethostname(2) |
# | – | `--domainname example.org` | setdomainname(2): the NIS domain, and not the one of DNS |
# | `lxc.namespace.share.uts = NAME` | `--uts host` | the flag is left out; or setns(2) |
#
# - A namespace wraps one thing that used to be global. A process has, for each kind, exactly one; its children
#   inherit it.
# - Make it your own *first*, change it *then*. That is the order for every namespace in this course; only what
#   "first" looks like differs.
# - There is no list of namespaces. One exists as long as a process is in it, or somebody holds its file in
#   `/proc/PID/ns` open (or mounted): that is how another process can come in later, with setns(2).
#
# Linux learned its namespaces one at a time. Older notes count six, and one of them as "PIC"; today there are **eight**:
#
# | kind | flag | since Linux | lab |
# |---|---|---|---|
# | mount | `CLONE_NEWNS`: "new namespace", as if there would never be another | 2.4.19 (2002) | 02 |
# | UTS | `CLONE_NEWUTS` | 2.6.19 (2006) | 03 |
# | IPC | `CLONE_NEWIPC` | 2.6.19; POSIX queues since 2.6.30 | 04 |
# | PID | `CLONE_NEWPID` | 2.6.24 (2008) | 05 |
# | user | `CLONE_NEWUSER` | the flag in 2.6.23; of use to everybody since 3.8 (2013) | 06 |
# | network | `CLONE_NEWNET` | the flag in 2.6.24; complete by about 2.6.29 (2009) | 07 |
# | cgroup | `CLONE_NEWCGROUP` | 4.6 (2016) | 08 |
# | time | `CLONE_NEWTIME` | 5.6 (2020) | 08 |
#
# ## Going further
#
# Pages: [namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html),
# [setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html),
# [nsenter(1)](https://man7.org/linux/man-pages/man1/nsenter.1.html). Papers: Biederman, *Multiple Instances of the Global
# Linux Namespaces* (Linux Symposium 2006), which proposes all of this; Pike and others, *The Use of Name Spaces in Plan 9*
# (1992), from where the idea is.
#
# Questions, without answers:
#
# 1. Start a container that sleeps, and join only its UTS namespace from a shell: `nsenter --target PID --uts
#    hostname`. Which of its files does nsenter(1) open, and which system call does it make with it?
# 2. A host name is 64 bytes long at most. What does the kernel answer to 65? What does your function do then, and is
#    the process in the old namespace or in a new one?
# 3. `unshare(CLONE_NEWUTS)` needs CAP_SYS_ADMIN, and yet `%%isolated` worked without your being root. Which namespace
#    made that possible? (Lab 06.)
# 4. The container has a new host name, and `ping alpha` does not find it. Why should it? What else would have to
#    know?
