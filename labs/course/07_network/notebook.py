# %% [markdown]
# # Lab 07: ports of one's own, and a way in
#
# **The question:** how can two servers have port 8080 on one machine, and how does `docker exec` get into a container
# that has closed its doors?
#
# **You need** [network_namespaces(7)](https://man7.org/linux/man-pages/man7/network_namespaces.7.html),
# [netdevice(7)](https://man7.org/linux/man-pages/man7/netdevice.7.html),
# [setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html),
# [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html); about an hour. From the labs before: what a
# namespace is, and that unshare(2) moves the caller into a new one (03); that a PID namespace is for *children* (05).
#
# It runs as root, and as an ordinary user where user namespaces are allowed. Nothing here touches your machine's network.
#
# Run the cells from the top, one after the other: Shift-Enter. A cell that begins with `%%predict` asks what you expect:
# write it behind the colon *before* you go on. Nobody marks it.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## One port, two servers
#
# A port belongs to one program: whoever comes second is told EADDRINUSE. Here are two containers. In both, a web server
# wants port 8080, at every address.

# %%
# %%predict servers
# Will the second server start? If both do: which of them will answer at port 8080 of *this* machine?
# My prediction:

# %%
import os

from labs.notebook.membership import listeners, listening, members
from labs.notebook.session import engine, until

SERVER = ["httpd", "-f", "-p", "8080"]

with engine().started("busybox", SERVER) as first, engine().started("busybox", SERVER) as second:
    until(lambda: listening(first.pid) and listening(second.pid))
    listeners({"the first container": first.pid, "the second container": second.pid})
    print("8080 is taken out here:", any(one.endswith(":8080") for one in listening(os.getpid())))

# %%
# %look_back servers

# %% [markdown]
# Both have it, and out here the port is as free as it was. A port is no property of the machine.
# It is one of a **network namespace**, and so is all else that the network code of the kernel keeps:
#
# | in each network namespace for itself | shared by all |
# |---|---|
# | devices, each of which is in exactly one | the hardware, and the code |
# | addresses, routes, neighbours (ARP) | |
# | ports, of all protocols, and sockets of AF_UNIX with an abstract name | sockets of AF_UNIX with a *path*: those are files |
# | rules of the packet filter, what connection tracking remembers | |
# | the settings in `/proc/sys/net`, the figures in `/proc/net` | some settings that are not per namespace, and cannot be seen in one |
#
# A socket stays in the namespace in which it was *made*, wherever its process goes afterwards. Keep that in mind.
#
# ## What is in a new one?

# %%
# %%predict empty
# Which devices will be in a network namespace that is a moment old? Will 127.0.0.1 answer?
# My prediction:

# %%
# %%isolated
import socket

from labs.notebook.network import devices

print("before:", os.readlink("/proc/self/ns/net"))
unshare(CLONE_NEWNET)
print("after: ", os.readlink("/proc/self/ns/net"))
devices()
with socket.socket() as asks:
    print("connect to 127.0.0.1: errno", asks.connect_ex(("127.0.0.1", 8080)))
print("101 is", os.strerror(101) + ", 111 is", os.strerror(111))

# %%
# %look_back empty

# %% [markdown]
# One device, the loopback, and it is **switched off**, without an address. A UTS namespace begins as a copy of the one
# that was left; a network namespace begins *empty*. That a server answers itself at 127.0.0.1 goes without saying
# everywhere else, so whoever makes a network namespace must switch "lo" on. There is nobody else to do it.
#
# A device has flags, netdevice(7). To switch it on is to set one of them, `IFF_UP`, and leave the others as they are.
# The ioctls for that, SIOCGIFFLAGS and SIOCSIFFLAGS, have names here:
#
# | | |
# |---|---|
# | `interface_flags("lo")` | the flags of the device of this name in the caller's network namespace: a number, bits or-ed |
# | `set_interface_flags("lo", flags)` | sets all of them |
# | `IFF_UP` | the bit for "switched on" |
#
# And the addresses, 127.0.0.1/8 and ::1? The kernel gives them to the loopback by itself, as it comes up.
#
# ## Exercise 1: `bring_up_loopback`
#
# ```
# bring_up_loopback() -> None
# ```
#
# Give the process that calls it a network namespace of its own, and switch the loopback device in it on.
#
# - Which loopback is switched on, depends on where you are when you do it. The one that was left stays as it was.
# - Nothing else about the process changes. When the kernel refuses, the OSError goes on to the caller.
#
# Stuck? `%hint network.bring_up_loopback` has something to say, more than once.


# %%
# %%exercise network.bring_up_loopback
def bring_up_loopback() -> None:
    """Give the calling process a network namespace of its own, and switch its loopback device on."""
    # SOLUTION BEGIN
    unshare(CLONE_NEWNET)
    set_interface_flags("lo", interface_flags("lo") | IFF_UP)
    # SOLUTION END


# %%
# %%isolated
import socket

from labs.notebook.network import devices

bring_up_loopback()
devices()
with socket.socket() as serves, socket.socket() as asks:
    serves.bind(("127.0.0.1", 8080))
    serves.listen()
    print("connect to 127.0.0.1: errno", asks.connect_ex(("127.0.0.1", 8080)))

# %% [markdown]
# ### A socket that remembers where it was made
#
# "A socket stays where it was made." The cell below makes a socket that listens, has a child, and leaves the namespace.

# %%
# %%predict socket
# Who reaches the socket afterwards, by 127.0.0.1: the process itself, which has it in its hand, or the child, which has
# stayed behind?
# My prediction:

# %%
# %%isolated
import socket

bring_up_loopback()  # so that there is a namespace to leave
server = socket.socket()
server.bind(("127.0.0.1", 8080))
server.listen()
child, go = os.pipe()
if os.fork() == 0:
    os.read(child, 1)
    with socket.socket() as asks:
        print("the child, who has stayed:    errno", asks.connect_ex(("127.0.0.1", 8080)), flush=True)
    os._exit(0)
bring_up_loopback()
with socket.socket() as asks:
    print("the process, which has left:  errno", asks.connect_ex(("127.0.0.1", 8080)), flush=True)
os.write(go, b"!")
ended = os.wait()

# %%
# %look_back socket

# %% [markdown]
# The child reaches it; the one who holds it does not. That is how an engine can do things *in* a namespace without moving
# there for good: a socket that was made inside remains a window to it. This project's network code holds such a socket
# for each container, and the checks of this lab ask the kernel through one.
#
# ### A breakout: names without a path
#
# A socket of the family AF_UNIX usually has a path, and whoever cannot see the file cannot connect. But its address may also
# begin with a byte 0. Then it is an **abstract** name (unix(7)): in no directory, and without an owner or a mode; the kernel
# looks it up in a table, and there is one such table for each *network* namespace.
#
# Until 2020, containerd's shim listened at such a name, `@/containerd-shim/….sock`, once for each container, outside of it
# and as root of the host. It did what it was told, by anybody whose uid was 0. `shim()` below is one like that: a process of
# the sandbox that runs a command for whoever is root. The sandbox stands for the host here, so the real one has nothing to
# fear. The container has its own mounts, processes, names and queues, and another root directory.

# %%
# %%predict abstract
# The container runs with `--network host`: every namespace is its own but this one. The shim's socket is in
# no directory, and the container sees none of the host's files. Can root of it have a command run outside?
# And with a network of its own?
# My prediction:

# %%
from labs.notebook.session import busybox_root

image = busybox_root()

# %%
# %%isolated image
import socket

from labs.notebook.network import shim
from minicontainer.steps.mount import make_private, pivot

NAME = "\0/containerd-shim/moby/4711/shim.sock"
OWN = [Namespace.UTS, Namespace.IPC, Namespace.PID]


def attack():
    print("  what the container sees: ", *sorted(os.listdir("/"))[:4], "…")
    with socket.socket(socket.AF_UNIX) as asks:
        try:
            asks.connect(NAME)
        except OSError as error:
            print("  connect:", error.strerror)
            return
        asks.sendall(b"echo in `readlink /proc/self/ns/mnt`, with `ls /usr/bin | wc -l` programs in /usr/bin")
        print("  what the shim has done:  ", asks.recv(1000).decode().strip())


def contained(kinds):
    child = clone3(flags(kinds))  # this function comes back twice: in the caller, and with 0 in the child
    if child == 0:
        make_private()
        pivot(image)
        attack()
        os._exit(0)
    os.waitpid(child, 0)


print("the host is in", os.readlink("/proc/self/ns/mnt"))
with shim(NAME):
    with open("/proc/net/unix") as table:
        print(*(line.split()[-1] for line in table if "containerd" in line))
    print("--network host:")
    contained(OWN)
    print("a network of its own:")
    contained([*OWN, Namespace.NETWORK])

# %%
# %look_back abstract

# %% [markdown]
# That was **CVE-2020-15257**. The socket asked for the uid of the caller (SO_PEERCRED), and got a true answer: root in a
# container without a user namespace *is* root. Two things close it. The container gets a network namespace: then the name is
# in another table, and the kernel says that nobody listens. Or whoever listens takes a path: containerd 1.3.9 and 1.4.3 put
# their sockets into `/run/containerd/s`, where only those get who see that directory. Look what else listens on your machine:
# `grep @ /proc/net/unix`. (The session bus of a desktop used to be there; X11 still is.) Each of these is open to every
# container with `--network host`.
#
# ## The way in
#
# `docker exec`, `lxc-attach`, `nsenter`: a program is started *inside* a container that has been running for days. Here
# are this notebook, a container, and a program that `minicontainer exec` has started in it.

# %%
# %%predict exec
# In which of the eight rows will the program be where the container is, in which where the notebook is?
# My prediction:

# %%
from labs.notebook.membership import entered

with engine().started("busybox", ["sleep", "60"]) as container, entered(container, ["sleep", "55"]) as program:
    members({"this notebook": os.getpid(), "the container": container.pid, "exec in it": program})

# %%
# %look_back exec

# %% [markdown]
# In every row the program is where the container is. But it was not born there: its *parent* is the command `exec`, out
# here. It went there, with the third of the three calls that deal with namespaces:
#
# | call | what it does | who |
# |---|---|---|
# | clone(2) | makes namespaces, for a new child | `spawn_init`, lab 05 |
# | unshare(2) | makes namespaces, for the caller | all the labs so far |
# | **setns(2)** | makes nothing: moves the caller into a namespace that is there | today |
#
# `setns(fd, flags)` has two forms. The old one takes one open file of `/proc/PID/ns` and moves into that one namespace, so
# exec was a loop over seven files. It is full of traps: after the mount namespace, `/proc` is another one; the user
# namespace decides what one may do, so it has to come first, or last; and between two of the calls the number PID can go
# to somebody else. Since Linux 5.8 `fd` can be a **pidfd**, a file that stands for a *process*, and the flags, or-ed, say
# which of its namespaces are meant: all of them in one call, all or none.
#
# | | |
# |---|---|
# | `pidfd_open(pid)` | a file descriptor that stands for the process: close it with `os.close` |
# | `setns(pidfd, flags)` | moves the caller into those of its namespaces |
# | `Namespace.NETWORK.flag` | `CLONE_NEWNET`; `flags([Namespace.NETWORK, Namespace.UTS])` or-es several |
#
# Try to come in, and look around:

# %%
# %%isolated
from labs.notebook.network import place

with place() as somebody:  # a process with a network namespace of its own, as you have just made one
    pidfd = pidfd_open(somebody)
    print("it is in", os.readlink(f"/proc/{somebody}/ns/net"), "and we in", os.readlink("/proc/self/ns/net"))
    setns(pidfd, CLONE_NEWNET)
    print("it is in", os.readlink(f"/proc/{somebody}/ns/net"), "and we in", os.readlink("/proc/self/ns/net"))

# %% [markdown]
# ### One of them is different
#
# The cell below joins the PID namespace of another process, in which that one is number 1.

# %%
# %%predict number
# What will os.getpid() say after that? And what will a child say, that is born then?
# My prediction:

# %%
# %%isolated
ready, told = os.pipe()
somebody = clone3(CLONE_NEWPID)  # the init of a PID namespace
if somebody == 0:
    os.close(told)
    os.read(ready, 1)
    os._exit(0)
os.close(ready)
before = os.getpid()
setns(pidfd_open(somebody), CLONE_NEWPID)
print("we were number", before, "and are", os.getpid())
print("our own:", os.readlink("/proc/self/ns/pid"), "for children:", os.readlink("/proc/self/ns/pid_for_children"))
if os.fork() == 0:
    print("the child says that it is number", os.getpid(), flush=True)
    os._exit(0)
os.wait()
os.close(told)

# %%
# %look_back number

# %% [markdown]
# A process keeps its number for life. So setns(2), like unshare(2), says of CLONE_NEWPID only where its *children* are
# born, and every exec has two processes: the **joiner**, who goes in, and the program, its child.
#
# ## Exercise 2: `join`
#
# ```
# join(pid: int, namespaces: Collection[Namespace]) -> None
# ```
#
# Move the calling process into these namespaces of process `pid`, and into no others.
#
# - `namespaces` may come in any order, and may be one or all of them.
# - What you open, you close, also if setns() raises: an open way out of a container is one that somebody will find.
#
# Stuck? `%hint network.join` has something to say, more than once.


# %%
# %%exercise network.join
from collections.abc import Collection


def join(pid: int, namespaces: Collection[Namespace]) -> None:
    """Move the calling process into these namespaces of process `pid`."""
    # SOLUTION BEGIN
    pidfd = pidfd_open(pid)
    try:
        setns(pidfd, flags(namespaces))
    finally:
        os.close(pidfd)
    # SOLUTION END


# %% [markdown]
# First among ourselves. `place()` has its own network and nothing else; `ls` would not be at hand in a container without
# tools. Here it is, because we have stayed in our own mount namespace:

# %%
# %%isolated
from labs.notebook.network import devices, place

with place() as somebody:
    join(somebody, [Namespace.NETWORK])
    devices()
    print(sorted(os.listdir("/"))[:5], "…: still our own files")

# %% [markdown]
# That is how one debugs the network of a container that holds nothing but a single program: **its** network, **your**
# tools. `nsenter --net --target PID tcpdump` does it.
#
# And now in earnest: `minicontainer exec`, with **your** function in the place of the course's.

# %%
with (
    engine().started("busybox", ["sleep", "60"]) as container,
    entered(container, ["sleep", "55"], mine=True) as program,
):
    members({"this notebook": os.getpid(), "the container": container.pid, "exec, by your join": program})

# %% [markdown]
# ## What the kernel does, call by call
#
# `--explain` shows every call that the engine makes for it, with the page of the manual. Find setns(2): how many
# namespaces does it name? Which call comes right after it, and why must it?

# %%
# %%predict calls
# How many times will `exec` call setns(2), to get into all of a container's namespaces?
# My prediction:

# %%
import subprocess
import sys

from labs.notebook.session import lab_root

with engine().started("busybox", ["sleep", "60"]) as container:
    command = ["-m", "minicontainer", "--root", str(lab_root()), "--explain", "exec", container.name, "hostname"]
    told = subprocess.run([sys.executable, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
lines = [line for line in (told.stderr + told.stdout).splitlines() if line.strip()]
place = next(number for number, line in enumerate(lines) if "setns" in line)
print("\n".join(lines[max(0, place - 4) : place + 6]))

# %%
# %look_back calls

# %% [markdown]
# That is what the engine says of itself. strace(1) has it from the kernel, by ptrace(2). Do the two agree?

# %%
import shutil

if shutil.which("strace"):
    with engine().started("busybox", ["sleep", "60"]) as container:
        watched = [sys.executable, "-m", "minicontainer", "--root", str(lab_root()), "exec", container.name, "hostname"]
        command = ["strace", "-f", "-e", "trace=setns", *watched]
        heard = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print("\n".join(line for line in heard.stderr.splitlines() if "setns(" in line) or heard.stderr)
else:
    print("strace is not installed here: apt install strace")

# %% [markdown]
# ## What does the kernel think?
#
# The checks start containers with your functions and bind ports on both sides. They let a process join, look at its
# `/proc/PID/ns` and `/proc/PID/fd` from outside, and at what it starts.

# %%
# %check 07

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 07 --subject notebooks/07-network.ipynb
# minicontainer --steps notebooks/07-network.ipynb exec NAME sh
# ```
#
# ## What to take away
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | `lxc.net.0.type = empty` | `--network none` | unshare(CLONE_NEWNET), and IFF_UP on lo |
# | `lxc.net.0.type = none` | `--network host` | nothing at all |
# | `lxc.namespace.share.net = NAME` | `--network container:NAME` | setns(2) before the program starts |
# | `lxc-attach -n NAME` | `docker exec` | pidfd_open(2), setns(2), fork(2) |
# | `lxc-attach -n NAME -s NETWORK` | (`nsenter --net`) | setns(2) with one flag |
#
# - A new network namespace is empty: one device, switched off. Cables come in lab 12.
# - A socket belongs to the namespace in which it was made.
# - Namespaces are joined from outside. Nobody inside has to open, or is asked: who may, is a question of capabilities in
#   the user namespace that owns the other one.
#
# ### How others do it
#
# - **runc**: `loopback.initialize` in `libcontainer/network_linux.go` sets the device up, over netlink where you used an
#   ioctl. `join_namespaces` in `libcontainer/nsenter/nsexec.c` is exec's loop over files, in C, because it must run before
#   Go's runtime starts threads: setns(2) with CLONE_NEWUSER or CLONE_NEWNS fails in a process with several. (Python in a
#   notebook has them too, which is why there is `%%isolated`.)
# - **LXC**: `src/lxc/attach.c`, `__prepare_namespaces_pidfd`: finds which namespaces differ, and joins them all by one
#   pidfd, as you do; `__prepare_namespaces_nsfd` is the loop for kernels before 5.8.
# - Kubernetes keeps a process that does nothing, `pause`, in each pod: it holds the network namespace, and the pod's
#   containers come and go in it. What `place()` is here.
#
# ## Going further
#
# 1. The course's own: `minicontainer/steps/network.py`, and for the case that there is no process but only a *file* of a
#    namespace, `joining.py`. Why does `_join_files` there open all files before it joins the first?
# 2. A network namespace can outlive every process: `ip netns add` mounts its file somewhere (ip-netns(8)). What becomes
#    of a veth whose other end is in a namespace when that dies? And of a physical card?
# 3. A container has a server that listens on a socket with an abstract name (unix(7)); another one has its socket in a
#    directory that both mount. Which of the two can be reached from the other container? And a socket that was handed over
#    by SCM_RIGHTS?
# 4. Whoever joins a container holds files of the host open for a moment, and is seen in the container's `/proc`. What could
#    a process in there do with `/proc/PID/fd` of the joiner? (CVE-2019-5736, CVE-2024-21626; the step `hide_process`.)
# 5. Papers: E. W. Biederman, *Multiple instances of the global Linux namespaces* (OLS 2006); P. Menage, *Adding generic
#    process containers to the Linux kernel* (OLS 2007).
