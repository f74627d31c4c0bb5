# %% [markdown]
# # Lab 00: two kinds of virtualization
#
# **The question:** a virtual machine and a container both give a program "a machine of its own". What is the difference,
# and what does it cost?
#
# **You will learn** who runs which kernel, and to measure what is worth measuring: until a thing is *ready*, and with
# *all* that belongs to it.
#
# **You need** Python, a shell, and no knowledge of kernels; [uname(2)](https://man7.org/linux/man-pages/man2/uname.2.html),
# [proc_pid_smaps(5)](https://man7.org/linux/man-pages/man5/proc_pid_smaps.5.html); about an hour.
#
# It runs as root and as an ordinary user. For the virtual machine it takes QEMU (`apt install qemu-system-x86`) and a
# kernel in `/boot` that you may read; where that is missing, the lab shows a **recorded** run, and says so. (Any kernel for a
# PC will do: `apt-get download linux-image-cloud-amd64`, `dpkg -x` it somewhere, and set MINICONTAINER_LAB_KERNEL to the
# file `boot/vmlinuz-…` in there before you start Jupyter.)
#
# Run the cells from the top, one after the other: Shift-Enter. A cell that begins with `%%predict` asks what you expect:
# write it behind the colon *before* you go on. Nobody marks it.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## Two ways to pretend
#
# A **virtual machine** is a program that behaves like a computer: it has a processor, memory, a disk, a network card, all of
# them made of software. What runs on it is what would run on a computer: a kernel, and on that everything else. The program
# is called *hypervisor*, and the old books know two types:
#
# | | runs | for example | in truth |
# |---|---|---|---|
# | Type I, "bare metal" | on the hardware, and has no operating system under it | Xen, VMware ESXi, Hyper-V | they need drivers, so a privileged guest (Xen's dom0) or a small kernel of their own does that |
# | Type II, "hosted" | as a program of an operating system | VirtualBox, VMware Workstation, QEMU | with KVM, the *kernel* of the host becomes the hypervisor, and QEMU does the rest: it is both |
#
# What matters more than the type is the **accelerator**: whether the processor itself executes the guest's instructions
# (Intel VT-x, AMD-V, behind KVM), or a program translates them one by one (QEMU's TCG). The second is ten times as slow, and
# works everywhere. A figure on virtual machines without the accelerator's name is worth nothing.
#
# A **container** pretends nothing. It is processes of this machine, on this machine's kernel, to which that kernel shows
# less: other files, other processes, other names (labs 01 to 08), and lets them have less (09 to 11).
#
# ```
#    virtual machine                container              process
#    ┌─────────────────┐
#    │ your program    │            ┌────────────────┐
#    │ a kernel of its │            │ your program   │      your program
#    │ own             │            └────────────────┘
#    ├─────────────────┤               walls, made
#    │ a computer, made│               by the kernel
#    │ of software     │
#    ├─────────────────┴─────────────────────────────────────────────────────┐
#    │ the host's kernel                                                     │
#    └───────────────────────────────────────────────────────────────────────┘
# ```
#
# ## One kernel, or two?
#
# uname(2) asks the kernel under the one who asks. `boot_id` is a number that each kernel makes up when it starts.

# %%
# %%predict kernels
# `uname -r` and boot_id are asked for out here and in a container. Which of the two figures will differ?
# My prediction:

# %%
from labs.notebook.session import engine

ASK = "uname -r; cat /proc/sys/kernel/random/boot_id"
# !{ASK}
print("in a container:")
print(engine().run("busybox", ["sh", "-c", ASK], capture=True).stdout)

# %%
# %look_back kernels

# %% [markdown]
# It is the same kernel, and the same *start* of it. A container has none. So the container that "runs Debian 8" runs
# Debian 8's *files*, on the kernel of your host; and what is wrong with that kernel is wrong in every container.
#
# A container's process is nothing that would be hidden from us, either. Here it is among our own, from both sides:

# %%
with engine().started("busybox", ["sleep", "60"]) as container:
    process = container.pid
    # %pstree {process}

# %% [markdown]
# ## To measure is to decide what
#
# How long does it take to start a container? Engines are compared by that, and most such figures are wrong in one of three
# ways: the clock stops when the *command* has returned, and not when the thing is **ready**; it is another clock than it
# should be; or what was measured is not the same on both sides.
#
# So all of our three candidates shall do the same: start, ask **their** kernel for its release, and say so, in a line of
# their output:
#
# ```
# kernel 6.1.0-56-cloud-amd64
# ```
#
# Then they stay, so that one can look at them. As a process, that is

# %%
# %%predict start
# How many milliseconds, from the start of that shell until its line is there? And how many, if the same shell
# is process 1 of a container, with all that has to be made for it first? (The figures come further down, out
# of your own function.)
# My prediction:

# %%
from labs.notebook import machines

print(machines.process())

# %% [markdown]
# and the container's command has the same shell script at its end:

# %%
print(machines.container())

# %% [markdown]
# ## Exercise 1: `time_start`
#
# ```
# time_start(args: Sequence[str]) -> dict[str, int | str]
# ```
#
# Start the program `args` (the first is its name), and wait until it writes a line that begins with `kernel `, the release
# behind it. Leave it running, and return
#
# ```
# {"pid": 4711, "kernel": "6.1.0-56-cloud-amd64", "milliseconds": 1234}
# ```
#
# - Other lines may come before that one: a machine that boots has much to say. They may end with `"\r\n"`.
# - The milliseconds are a whole number, from before the program was started until that line was there, by a clock that
#   does not jump, and goes on while one waits.
# - If the program ends without that line, raise an error: who waits for ever measures nothing.
#
# Stuck? `%hint measuring.time_start` has something to say, more than once.


# %%
# %%exercise measuring.time_start
import subprocess
import time
from collections.abc import Sequence


def time_start(args: Sequence[str]) -> dict[str, int | str]:
    """Start a program, wait until it says "kernel RELEASE", leave it running: its pid, its kernel, the milliseconds."""
    # SOLUTION BEGIN
    begun = time.monotonic_ns()
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    for line in process.stdout:
        passed = time.monotonic_ns() - begun
        text = line.decode(errors="replace").strip()
        if text.startswith("kernel "):
            return {"pid": process.pid, "kernel": text.removeprefix("kernel "), "milliseconds": passed // 1_000_000}
    raise EOFError(f"{args[0]} has ended, and has not said which kernel it runs on")
    # SOLUTION END


# %%
# %%isolated
import time

SCRIPT = "echo booting; sleep 1; echo kernel 1.2.3; exec sleep 60"
begun = time.monotonic()
print(time_start(["sh", "-c", SCRIPT]))
print(f"from outside it was {time.monotonic() - begun:.3f} s")

# %% [markdown]
# ## How much memory is that?
#
# There are several answers, and they differ by factors. Here is a process that has 64 MiB, and three children that use the
# same 64 MiB, since fork(2) copies nothing before somebody writes.

# %%
# %%predict shared
# Four processes use the same 64 MiB. What will be the sum of their VmRSS, in MiB ("resident set size", what `ps` and `top`
# show)? And of their Pss?
# My prediction:

# %%
# %%isolated
import time

mine = b"x" * (64 << 20)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        time.sleep(60)
    children.append(child)


def field(pid, file, name):
    with open(f"/proc/{pid}/{file}") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


for name, file in (("VmSize", "status"), ("VmRSS", "status"), ("Pss", "smaps_rollup")):
    print(f"sum of {name:6} {sum(field(pid, file, name) for pid in [os.getpid(), *children]):8.1f} MiB")

# %%
# %look_back shared

# %% [markdown]
# VmSize counts addresses that were *reserved*, used or not. VmRSS counts pages that are there, for everybody who sees them.
# **Pss**, the proportional set size, counts of a page that *n* processes share the *n*th part for each: so it may be added
# up. The kernel keeps the sum for a process in `/proc/PID/smaps_rollup`.
#
# ## Exercise 2: `memory_of`
#
# ```
# memory_of(pid: int) -> int
# ```
#
# The bytes of memory that the process `pid` takes, and all that descend from it: children, their children, and so on. What
# several of them share counts once.
#
# The children of a process are listed in `/proc/PID/task/TID/children`, for each of its threads (`TID`) those that the thread
# has made.


# %%
# %%exercise measuring.memory_of
def memory_of(pid: int) -> int:
    """The bytes of memory that a process and all that descend from it take together."""
    # SOLUTION BEGIN
    with open(f"/proc/{pid}/smaps_rollup") as file:
        kibibytes = sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    children = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            children += [int(child) for child in file.read().split()]
    return kibibytes * 1024 + sum(memory_of(child) for child in children)
    # SOLUTION END


# %%
# %%isolated
import subprocess

CODE = "import os, time; x = b'x' * (32 << 20); os.fork(); os.fork(); print('here', flush=True); time.sleep(60)"
top = subprocess.Popen(["python3", "-c", CODE], stdout=subprocess.PIPE)
for _ in range(4):
    top.stdout.readline()  # all four are there
print(f"four processes with 32 MiB that they share: {memory_of(top.pid) / (1 << 20):.1f} MiB")

# %% [markdown]
# ## The comparison
#
# Now all three: the process, the container, the machine. The machine is a kernel with an initial file system of one
# program, busybox, and nothing else: the smallest that one can have. A distribution's boots ten times as long.

# %%
# %%predict three
# Order the three by start time, and by memory. How many times more does the container take than the process, and the
# machine than the container? Which kernels will be the same?
# My prediction:

# %%
from labs.notebook.comparison import compare

print("can a machine be started here?", machines.missing() or "yes")
compare()

# %%
# %look_back start

# %%
# %look_back three

# %% [markdown]
# That was measured by the course's functions. And by **yours**:

# %%
compare(mine=True)

# %% [markdown]
# Read the picture with care:
#
# - **The kernel.** Process and container have the host's; the machine has its own. (If your machine boots the host's own
#   kernel *file*, the names are the same. It is another kernel nevertheless, with another boot_id.)
# - **Start.** Most of the container's time is the start of Python, in which this engine is written. The kernel's part, eight
#   namespaces and some mounts, takes a few milliseconds. The machine's time is a boot: with KVM about a tenth of what TCG
#   takes. Which one it was, stands below the picture.
# - **Memory.** The container's is the engine's command and an init; the program is as small as the process. The machine holds
#   a second kernel with all its tables, and memory once used is not given back without further arrangements (ballooning).
# - **What is not in the picture.** The machine's wall is the thinner interface: some devices and few hundred sorts of exits,
#   where a container sees hundreds of system calls. That is what one pays for, and why clouds put containers of different
#   customers into different machines (Firecracker, Kata). Whether disk, network and processor are slower, and by how much,
#   is measured in lab 17.
#
# ## What does the kernel think?
#
# The checks let your functions measure programs whose delay and size nobody can know beforehand, and compare what you return
# with the kernel's word.

# %%
# %check 00

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 00 --subject notebooks/00-virtualization.ipynb
# ```
#
# ## How production engines do it
#
# | | starts | where |
# |---|---|---|
# | runc | a process with namespaces | `libcontainer/nsenter/nsexec.c`, and `(*Container).Start` in `libcontainer/container_linux.go` |
# | crun | likewise, in C throughout: several times as fast | `libcrun_run_linux_container` in `src/libcrun/linux.c` |
# | Kata Containers | a virtual machine for each pod, and in it a process with namespaces: both kinds at once | `src/runtime/virtcontainers`, the interface `Hypervisor` |
# | gVisor | a kernel written in Go, as a process: a third kind | `pkg/sentry` |
#
# ## What to take away
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | a container is a "system": init and all | a container is one program | there is no such thing: processes, in namespaces and control groups |
# | `lxc-info -n NAME` | `docker inspect`, `docker top` | /proc/PID |
#
# - A virtual machine has a kernel of its own. A container has none.
# - A figure needs a clock that does not jump, an end that is the same for all, and everything that belongs to it.
# - Name the accelerator.
#
# ## Going further
#
# Pages: [namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html),
# [time(7)](https://man7.org/linux/man-pages/man7/time.7.html), qemu(1). Papers: Popek and Goldberg, *Formal Requirements for
# Virtualizable Third Generation Architectures* (1974), where the two types are from; Felter and others, *An Updated
# Performance Comparison of Virtual Machines and Linux Containers* (2015); Agache and others, *Firecracker* (NSDI 2020).
#
# Questions, without answers:
#
# 1. Which instructions of the old PC could be executed in user mode without a trap, though they told of the machine's state?
#    What did VMware do about them before VT-x?
# 2. Start the container ten times, and look at the spread. Which of the ten is the figure that you would publish?
# 3. Two machines boot from the same file. Can the host keep one copy of their pages (KSM), as it does for two containers of
#    one image? What has been found out about others that way?
# 4. `docker run` on a Mac starts Linux containers. On which kernel?
