# %% [markdown]
# # Lab 03: a host name of one's own
#
# **You will learn** what a namespace is, how a process leaves one for a new one, and why the order of two system
# calls decides whether you name a container or rename a machine.
#
# **You need** [unshare(2)](https://man7.org/linux/man-pages/man2/unshare.2.html),
# [sethostname(2)](https://man7.org/linux/man-pages/man2/sethostname.2.html),
# [uts_namespaces(7)](https://man7.org/linux/man-pages/man7/uts_namespaces.7.html); about 30 minutes. Nothing from
# labs 01 and 02 is assumed but that a container is a process, and that its system calls change only itself and its
# children.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## A machine has one name. Has it?
#
# uname(2) fills a structure that has been called `utsname` since the *Unix Time-sharing System*. Two of its fields
# can be set: the node name, which everybody calls **host name**, and the **domain name** of the old NIS. In Python:

# %%
import os

os.uname()

# %% [markdown]
# The kernel used to keep one such structure for the whole machine. Since Linux 2.6.19 (2006) it keeps one for each
# **UTS namespace**, and each process belongs to exactly one of these. Which one? A namespace has no name. It is an
# object in the kernel, and `/proc/PID/ns/uts` is a link to it; the number in the brackets is its inode number.

# %%
# !readlink /proc/self/ns/uts /proc/1/ns/uts

# %% [markdown]
# (The second link, of process 1, cannot be read unless you are root.) The rule for reading these links is short:
# **two processes are in the same namespace exactly if the links are equal.**
#
# ## The kernel at work
#
# Here is a container, seen from outside. It runs `sleep`, and the engine tells us the pid of its process 1 *as the
# host counts*.

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
# The links are different, so the names can be different. Asking inside shows that they are, and that ours has not
# changed:

# %%
print(engine().run("busybox", ["uname", "-n"], hostname="alpha", capture=True).stdout, end="")
print(os.uname().nodename)

# %% [markdown]
# ### Leaving a namespace
#
# unshare(2) makes new namespaces, of the kinds that its flags name, and puts **the calling process** into them. A
# new UTS namespace begins as a *copy* of the one that was left: the same two names, but from now on nobody else's.
#
# A notebook must not do that to itself. So there is `%%apart`: such a cell runs in a new process, as root of
# throw-away namespaces, where you may break what you like. The system calls are there under their own names.

# %%
# %%apart
print("before:", os.readlink("/proc/self/ns/uts"), os.uname().nodename)
unshare(CLONE_NEWUTS)
print("after: ", os.readlink("/proc/self/ns/uts"), os.uname().nodename)

# %% [markdown]
# A new number and the old name: a copy.
#
# **Before you go on, decide:** what would the cell below print for the parent, if the child called `sethostname`
# *without* `unshare`? What if it called `sethostname` first and `unshare` second? Try both.

# %%
# %%apart
child = os.fork()
if child == 0:
    unshare(CLONE_NEWUTS)
    sethostname("child")
    print("child: ", os.uname().nodename)
    os._exit(0)
os.waitpid(child, 0)
print("parent:", os.uname().nodename)

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
# ## What to take away
#
# - A namespace wraps one thing that used to be global. A process has, for each kind, exactly one; its children
#   inherit it.
# - Make it your own *first*, change it *then*. That is the order for every namespace in this course; only what
#   "first" looks like differs.
# - There is no list of namespaces. One exists as long as a process is in it, or somebody holds its file in
#   `/proc/PID/ns` open (or mounted): that is how another process can come in later, with setns(2).
#
# Linux learned its namespaces one at a time: mount in 2.4.19 (2002, which is why its flag is called just
# `CLONE_NEWNS`: nobody thought that there would be others), UTS and IPC in 2.6.19 (2006), PID in 2.6.24 (2008),
# network in 2.6.24 with its flag and complete by about 2.6.29, user usable since 3.8 (2013), cgroup in 4.6 (2016),
# time in 5.6 (2020). Older notes count six; today there are **eight**.
#
# ## Going further
#
# 1. Start a container that sleeps, and join only its UTS namespace from a shell: `nsenter --target PID --uts
#    hostname`. Which of its files does nsenter(1) open, and which system call does it make with it?
# 2. A host name is 64 bytes long at most. What does the kernel answer to 65? What does your function do then, and is
#    the process in the old namespace or in a new one?
# 3. `unshare(CLONE_NEWUTS)` needs CAP_SYS_ADMIN, and yet `%%apart` worked without your being root. Which namespace
#    made that possible? (Lab 06.)
# 4. The container has a new host name, and `ping alpha` does not find it. Why should it? What else would have to
#    know?
