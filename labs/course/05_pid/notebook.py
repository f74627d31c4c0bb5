# %% [markdown]
# # Lab 05: to be number 1
#
# **You will learn** how a process can have two numbers at once, what the kernel expects of process 1, and why a
# container whose process 1 does not do it fills up with the dead and cannot be stopped politely.
#
# **The question:** `docker stop` takes ten seconds with some images, and no time at all with others. What is missing in
# the slow ones?
#
# **You need** [pid_namespaces(7)](https://man7.org/linux/man-pages/man7/pid_namespaces.7.html),
# [clone(2)](https://man7.org/linux/man-pages/man2/clone.2.html) (the part about clone3),
# [waitpid(2)](https://man7.org/linux/man-pages/man2/waitpid.2.html),
# [signal(7)](https://man7.org/linux/man-pages/man7/signal.7.html); fork and wait should be no news to you. About 90
# minutes. It runs as root and as an ordinary user alike.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## Two numbers
#
# Since Linux 2.6.24 (2008) process numbers are counted anew in each **PID namespace**. The namespaces are nested: a
# process has a number in its own and in every one around it, and is seen from all of these. The line `NSpid` of
# `/proc/PID/status` has them all, the outermost first.

# %%
# %%predict numbers
# A container runs `sleep 60 | cat`. How many processes will be seen of it from out here, and with how many
# numbers each? How many does `ps` show in there?
# My prediction:

# %%
from labs.notebook import pictures
from labs.notebook.session import engine, my_engine, until

with engine().started("busybox", ["sh", "-c", "sleep 60 | cat"]) as container:
    until(lambda: len(pictures.family(container)) == 4)
    # !grep -E '^(Name|Pid|NSpid)' /proc/{container.pid}/status
    pictures.processes(container)

# %% [markdown]
# From inside, the outside cannot be seen; the numbers begin at 1:

# %%
print(engine().run("busybox", ["ps", "-o", "pid,ppid,args"], capture=True).stdout)

# %%
# %look_back numbers

# %% [markdown]
# How does `ps` know? It reads `/proc`, and nothing else. That is a file system, and it shows the PID namespace **of
# whoever mounted it**. So there are two things to change, and the order of them matters. `--new pid` gives birth to the
# cell in a new PID namespace, with the mounts that there were; `--new pid,mnt` mounts a new `/proc` too.

# %%
# %%predict proc
# In a new PID namespace, but with the old /proc: what is os.getpid(), and which number does the link /proc/self show?
# My prediction:

# %%
# %%isolated --new pid
print("getpid() says", os.getpid(), "  and /proc/self leads to", os.readlink("/proc/self"))

# %%
# %%isolated --new pid,mnt
print("getpid() says", os.getpid(), "  and /proc/self leads to", os.readlink("/proc/self"))
print("processes to be seen:", [name for name in os.listdir("/proc") if name.isdecimal()])

# %%
# %look_back proc

# %% [markdown]
# An engine that mounts `/proc` before it forks shows the container all processes of the host. They cannot be signalled
# from in there, their numbers mean others; but their command lines can be read, passwords and all.

# %% [markdown]
# ### How to get in
#
# A process cannot change its own PID namespace: it would change its own number, and every program takes for granted
# that getpid() does not change. It can be **born** into a new one. There are two ways to ask for that:
#
# - unshare(CLONE_NEWPID), and then fork(): the caller stays, all children *from now on* are born into the new
#   namespace;
# - clone3() with CLONE_NEWPID among its flags: this one child is.
#
# The first has a catch.

# %%
# %%predict second
# A process calls unshare(CLONE_NEWPID) and then fork() twice; the first child ends before the second fork. Which number
# does getpid() tell the first child, and which one the second?
# My prediction:

# %%
# %%isolated
unshare(CLONE_NEWPID)
print("after unshare, the caller itself is still number", os.getpid())
for attempt in ("first", "second"):
    try:
        child = os.fork()
    except OSError as error:
        print(attempt, "fork:", error)
        break
    if child == 0:
        print(attempt, "child: I am number", os.getpid())
        os._exit(0)
    os.waitpid(child, 0)

# %%
# %look_back second

# %% [markdown]
# A PID namespace lives as long as its process 1. When that has ended, nobody can be born there any more, and this
# caller can never fork again. An engine that starts containers in a row needs the second way.
#
# ## Exercise 1: `spawn_init`
#
# ```
# spawn_init(main: Callable[[], int], namespaces: Collection[Namespace] = (Namespace.PID,)) -> int
# ```
#
# Start `main` as process 1 of a new PID namespace, and return its number as the caller counts.
#
# - The new process is born into new namespaces of all kinds in `namespaces`; the caller stays where it is in each
#   respect.
# - What `main` returns is the exit status of the new process. It must never come back into the caller's code,
#   whatever happens in `main`.
# - The function does not wait for the new process.
#
# `clone3(flags)` returns twice, as fork does: 0 in the child, the child's number in the parent. `flags(namespaces)`
# makes the flags of such a collection. `os._exit(status)` ends a process at once. (`%hint pid.spawn_init`)


# %%
# %%exercise pid.spawn_init
def spawn_init(main, namespaces=(Namespace.PID,)):
    """Start `main` as process 1 of a new PID namespace and return its pid as the caller sees it."""
    # SOLUTION BEGIN
    pid = clone3(flags(namespaces))
    if pid == 0:
        status = 125
        try:
            status = main()
        finally:
            os._exit(status)
    return pid
    # SOLUTION END


# %%
# %%isolated
def main():
    print("the child:  I am number", os.getpid(), "and my parent is number", os.getppid())
    return 7


for _ in range(2):
    pid = spawn_init(main)
    _, status = os.waitpid(pid, 0)
    print("the parent: my child was number", pid, "and ended with", os.waitstatus_to_exitcode(status))

# %% [markdown]
# (Why is the parent number 0? Because 0 is what a process is told of one that it cannot see.)
#
# ## The duties of process 1
#
# **Orphans.** When a process ends, its children become children of process 1 of their PID namespace. When one of
# them ends, it is a **zombie** until its parent has waited for it: of the process only the number and the exit
# status are left, and numbers are limited. Here process 1 is `sleep`, which never waits for anybody:

# %%
# %%predict orphan
# Process 1 of a container is a plain `sleep`. Its shell has left an orphan behind, which ends after a tenth
# of a second. What is to be seen of the orphan a second later?
# My prediction:

# %%
with engine().started("busybox", ["sh", "-c", "(sleep 0.1 &); exec sleep 60"], reaper=False) as container:
    until(lambda: [process.state for process in pictures.family(container)] == ["S", "Z"])
    pictures.processes(container)

# %%
# %look_back orphan

# %% [markdown]
# How bad can that be? Here is the **zombie flood**: process 1 makes orphans that end at once, and waits for none. It runs
# in a sandbox, and its PID namespace is given few numbers, so nobody else goes short. (A namespace counts its own
# `pid_max` since Linux 6.14. Before, the numbers are everybody's, and the cell stops at three hundred dead.)

# %%
# %%predict flood
# All the dead are dead: no memory, no program, no open files. Can they keep a living process from being born?
# My prediction:

# %%
# %%isolated --new pid,mnt
import select

most = 300
try:
    with open("/proc/sys/kernel/pid_max", "w") as limit:
        limit.write("310")
        most = 1000
except OSError as error:
    print("this kernel has one limit for all:", error.strerror)

dead, refused = 0, ""
while dead < most and not refused:
    try:
        child = os.fork()
    except OSError as error:
        refused = f"{error.strerror} ({errno.errorcode[error.errno]})"
        continue
    if child == 0:
        os._exit(0)
    select.select([os.pidfd_open(child)], [], [])  # it has ended, and nobody waits for it
    dead += 1
    if dead == 3:
        init = os.getpid()
        # %pstree {init}
print(f"{dead} zombies; the next fork: {refused or 'would still succeed'}")

for _ in range(dead):
    os.waitpid(-1, 0)  # what an init does
print(f"and after waitpid for each, the next fork gives number {os.fork() or os._exit(0)}")

# %%
# %look_back flood

# %% [markdown]
# Two things close it: a process 1 that waits for everybody (you will write it), and a bound on the number of processes
# of the container (`pids.max`, lab 11), so that whoever does not wait fills his own house only.
#
# **Signals.** The kernel protects process 1: from its own namespace, it gets only signals that it has a handler for,
# and the same goes, SIGKILL and SIGSTOP excepted, for those from outside. So `SIGTERM` does not stop a container
# whose process 1 has not been written for it:

# %%
# %%predict term
# `sleep 60` in a shell is ended by kill at once. As process 1 of a container, with SIGTERM sent from outside?
# My prediction:

# %%
import os
import signal

import psutil

with engine().started("busybox", ["sleep", "60"], reaper=False) as container:
    os.kill(container.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs([psutil.Process(container.pid)], timeout=0.5)
    print("half a second after SIGTERM, still alive:", bool(alive))

# %%
# %look_back term still alive: {bool(alive)}

# %% [markdown]
# That is the answer to the question of this lab: `docker stop` sends SIGTERM, nothing happens, and after ten seconds it
# sends SIGKILL. The mask `SigCgt` in `/proc/PID/status` says which signals a process has handlers for.
#
# **Its death**: the parent of all orphans is gone then.

# %%
# %%predict death
# `sleep 60 | sleep 60` runs in a container, and SIGKILL is sent to its process 1 alone. What becomes of the
# two that sleep?
# My prediction:

# %%
with engine().started("busybox", ["sh", "-c", "sleep 60 | sleep 60"]) as container:
    until(lambda: len(pictures.family(container)) == 4)
    others = psutil.Process(container.pid).children(recursive=True)
    os.kill(container.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(others, timeout=5)
    print(f"{len(gone)} processes are gone, {len(alive)} alive")

# %%
# %look_back death

# %% [markdown]
# When process 1 ends, the kernel kills every process of the namespace, and nobody can be born in it any more.
#
# So between the kernel and the container's program there should be a process 1 that knows its duties. In our engine
# it is the process that you gave birth to with `spawn_init`: when all is set up, it forks the program, and then calls
#
# ## Exercise 2: `reap`
#
# ```
# reap(child: int) -> int
# ```
#
# The caller is process 1, and `child` is its child, the program. Until `child` has ended:
#
# - wait for **every** child that ends, the orphans too, and for all of them: several may have ended before you look;
# - send every signal that can be caught, `SIGCHLD` excepted, on to `child`.
#
# Return as soon as `child` has ended, even if others live. The result is the program's exit status or, if signal *n*
# ended it, 128 + *n*.
#
# When `reap` is called, **all signals are blocked** (sigprocmask(2)): they are kept, and none can hit the function
# by surprise. `signal.sigwait(numbers)` sleeps until one of these signals is pending, and takes it.
# `signal.valid_signals()` has all of them; `SIGKILL` and `SIGSTOP` cannot be waited for. `os.waitpid(-1,
# os.WNOHANG)` returns at once, with `(0, 0)` if nobody has ended, and raises `ChildProcessError` if there is no
# child. `os.waitstatus_to_exitcode` takes a wait status apart. (`%hint pid.reap`)

# %%
# %%exercise pid.reap
import signal


def reap(child: int) -> int:
    """Do the duties of process 1 until `child` has ended, and return its exit status."""
    # SOLUTION BEGIN
    expected = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    while True:
        received = signal.sigwait(expected)
        if received != signal.SIGCHLD:
            os.kill(child, received)
            continue
        pid, status = os.waitpid(-1, os.WNOHANG)
        while pid:
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            pid, status = os.waitpid(-1, os.WNOHANG)
    # SOLUTION END


# %% [markdown]
# (Look again at the inner loop of yours: can waitpid there ever find no child at all? `child` has not been waited
# for.)
#
# Both together, in the place of the course's own, in a real container:

# %%
result = my_engine().run("busybox", ["sh", "-c", "(sleep 0.1 &); sleep 0.3; ps -o pid,stat,args; exit 7"], capture=True)
print(result.stdout, "exit status", result.status)

# %% [markdown]
# And here is the whole birth of a container, from its beginning to the program, with the two processes that work on it:
# which step, when, with how many system calls. Find the line where the second one is born. What does the first do meanwhile?
# (As text: `%explain run --rm busybox true`.)

# %%
pictures.timeline(network="none")

# %% [markdown]
# ## What does the kernel think?
#
# The checks make orphans and kill them, stop your process 1 and let it go on, send it signals, and look **from
# outside**: at `NSpid`, `State`, the masks of pending signals in `/proc/PID/status`, at the exit code that the
# kernel has kept.

# %%
# %check 05

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 05 --subject notebooks/05-pid.ipynb
# minicontainer --steps notebooks/05-pid.ipynb run --rm busybox ps
# ```
#
# ## How production engines do it
#
# | | makes process 1 | does its duties |
# |---|---|---|
# | runc | `nsexec()` in `libcontainer/nsenter/nsexec.c`: unshare(2), and then `clone_parent()` once more, because only a child is in the new PID namespace | nobody: the container's program is process 1. Outside, `reap()` of `signals.go` waits for runc's own children |
# | crun | `libcrun_run_linux_container` in `src/libcrun/linux.c`: clone3(2) | nobody, likewise |
# | Docker `--init`, Podman `--init` | (the runtime) | tini: `reap_zombies` and `wait_and_forward_signal` in `src/tini.c`; Podman's is catatonit |
# | LXC | `lxc_spawn` in `src/lxc/start.c` | the container's own init; for `lxc-execute`, `src/lxc/cmd/lxc_init.c` |
# | yours | `spawn_init` | `reap` |
#
# Docker leaves the init out unless it is asked for, Podman too. LXC boots a system that has its own. Our engine has one
# unless it is told `--no-init`.
#
# ## What to take away
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | (always) | (always); `--pid host` shares it | CLONE_NEWPID, clone3(2) |
# | `lxc.signal.halt`, SIGPWR by default | `STOPSIGNAL`, SIGTERM by default; then SIGKILL | a signal without a handler does not reach process 1, but for SIGKILL and SIGSTOP from outside |
# | `lxc-execute` with its lxc-init | `--init` with tini | orphans become children of process 1: wait for them |
# | `lxc-ls -f`, column PID | `docker inspect -f '{{.State.Pid}}'` | NSpid in /proc/PID/status |
#
# - A PID namespace counts from 1. One is entered by being born; the processes in it have a number in every namespace
#   around it.
# - Process 1 is the parent of every orphan. It waits for whoever ends, or the dead stay.
# - One SIGCHLD may stand for any number of deaths. Signals say *that* something happened, never how often.
# - Process 1 is protected from signals without a handler; so somebody has to pass them on. Its end ends the
#   namespace.
#
# ## Going further
#
# Pages: [proc_pid_status(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html),
# [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html). To read: Biederman and Emelyanov, *PID namespaces in
# the 2.6.24 kernel* (LWN, 2007); Baumann and others, *A fork() in the road* (HotOS 2019), on what fork costs.
#
# Questions, without answers:
#
# 1. `docker run --init` puts a small program called tini into a container. Read its main loop: what does it do that
#    your `reap` does not?
# 2. A subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) inherits orphans without being process 1 of anything. Who uses
#    that on your machine?
# 3. The terminal's ^Z sends SIGTSTP to the program. Its parent gets SIGCHLD, since the program has *stopped*. Does
#    your `reap` take that for an end?
# 4. `/proc` in the container was mounted in lab 02. Mount it before the PID namespace is made: what does `ps` show?
# 5. How many processes can there be in a PID namespace? `/proc/sys/kernel/pid_max` has been counted per namespace
#    only since Linux 6.14; before that, a container full of zombies took the numbers from everybody.
