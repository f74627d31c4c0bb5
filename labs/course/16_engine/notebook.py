# %% [markdown]
# # Lab 16: the engine
#
# **You will learn** what is left to do when every mechanism is there: to put them in order, and to keep track of a
# process that does not depend on you. At the end of this lab you have written a container runtime.
#
# **You need** [the lifecycle](https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle) in the OCI
# runtime specification, [fifo(7)](https://man7.org/linux/man-pages/man7/fifo.7.html),
# [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html),
# [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html), labs 02, 03 and 05; about two hours.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## What podman and docker ask for
#
# An image is unpacked by one program, watched by another, and *run* by a third: runc, crun, or what you are about to
# write. The three agree on a **bundle**, a directory with a root file system and a `config.json`, and on five
# operations:
#
# ```
# create ──▶ created ──start──▶ running ──▶ stopped ──delete──▶ (nothing)
#               └──────────────kill─────────────┘
# ```
#
# Why are create and start two? In between, the container is there, with its namespaces and its files, and *nothing of
# the image has run yet*. That is when somebody gives it a network card, or looks whether it is what was asked for.
#
# This is what has to be there when `create` returns, here by the course's own engine. Yours will make five of them
# new: mount, UTS, IPC, PID, network.

# %%
from labs.notebook import pictures
from labs.notebook.session import engine

with engine().started("busybox", ["sleep", "60"]) as container:
    pictures.namespaces(container)

# %% [markdown]
# And here is a bundle. Our `config.json` is a small one; the specification has some hundred fields.

# %%
import json
from pathlib import Path

from labs.notebook.session import new_directory
from minicontainer.images.busybox import static_busybox
from minicontainer.steps import Steps

bundle, containers = new_directory("bundle"), new_directory("containers")
Steps().build_root(f"{bundle}/rootfs", static_busybox())
config = {
    "ociVersion": "1.2.0",
    "hostname": "mine",
    "root": {"path": "rootfs"},
    "process": {
        "args": ["sh", "-c", "echo this is $(hostname), my number is $$; exec sleep 60"],
        "env": ["PATH=/bin"],
        "cwd": "/",
    },
}
Path(bundle, "config.json").write_text(json.dumps(config, indent=2))
print(
    sorted(path.name for path in Path(bundle).iterdir()), sorted(path.name for path in Path(bundle, "rootfs").iterdir())
)

# %% [markdown]
# ## A process that waits
#
# A runtime is no server. `create` is a process that ends, `start` is another one, tomorrow perhaps; what waits between
# the two is the container's process 1, and what it waits *at* is a **named pipe**: open(2) of a fifo for writing
# returns when somebody opens it for reading, and not before.
#
# **Before you run it, decide:** in which order will these lines come?

# %%
# %%apart
import time

os.mkfifo("/tmp/gate")
print("before", flush=True)
if (child := os.fork()) == 0:
    line = os.open("/tmp/gate", os.O_WRONLY)
    print("the child is through", flush=True)
    os.write(line, b"hello")
    os._exit(0)
time.sleep(0.2)
print("the parent opens", flush=True)
line = os.open("/tmp/gate", os.O_RDONLY)
print(os.read(line, 100), os.read(line, 100))
os.waitpid(child, 0)
os.unlink("/tmp/gate")

# %% [markdown]
# The last `b''` is end-of-file: nobody has the other end open any more. Process 1 opens it *close-on-exec*, so
# execve(2) closes it, and for `start` the end-of-file is the good news. What cannot be executed is told before, over
# the same line.
#
# ## What is kept
#
# | file in the container's directory | |
# |---|---|
# | `state.json` | the bundle, the pid of process 1, and when that was born |
# | `exec.fifo` | the gate; removed by `start`, so one that is there was never opened |
#
# Not the status: that changes without us. It is **asked of the kernel**, each time. And a pid is a number that will be
# somebody else's one day, so `state.json` remembers too when the process was born, field 22 of `/proc/PID/stat`:

# %%
fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()  # the name before it may have blanks in it
print("state", fields[0], " born", fields[19], "ticks after the machine")

# %% [markdown]
# ## Exercise 1: `create`
#
# ```
# create(directory: str, bundle: str, steps: Steps) -> None
# ```
#
# Make a container of the bundle, and leave its process 1 waiting at the gate. `directory` is the container's: make it
# (`os.mkdir`: of two who want the same, one fails); its last part is the container's id.
#
# `steps` are the functions of labs 01 to 15, yours if you like, for you to put in order. Process 1 is made by
# `steps.spawn_init(main)`: `main` runs in a new PID namespace, whatever it returns is the exit status, and the pid is
# returned to you. In `main` come
#
# 1. `steps.bring_up_loopback()`, `steps.private_queues()`, `steps.set_names(hostname)`, `steps.make_private()`;
# 2. `steps.mount_proc_and_dev(root)`, `steps.pivot(root)`, the directory that the program is to begin in (`cwd`);
# 3. the news that all is well, to `create`, over a pipe;
# 4. the gate: `os.open(…, os.O_WRONLY | os.O_CLOEXEC)`. Its path is the host's, and out of sight after `pivot`. So hold
#    it by a file descriptor before (`O_PATH`), and open `/proc/self/fd/N`;
# 5. `os.execvpe(args[0], args, environment)`; `env` is a list of `NAME=value`.
#
# What goes wrong is told: before the gate over the pipe, after it over the gate. `create` returns when process 1 is at
# the gate, and raises otherwise, **leaving nothing**: no process (`os.kill`, `os.waitpid`), no directory
# (`shutil.rmtree`).


# %%
# %%exercise lifecycle.create
import json
import shutil
import signal


def create(directory, bundle, steps):
    """Make a container of the bundle, and leave its process 1 waiting at the gate, exec.fifo in `directory`."""
    # SOLUTION BEGIN
    with open(f"{bundle}/config.json") as file:
        config = json.load(file)
    os.mkdir(directory)
    heard, told = os.pipe()
    pid = 0

    def main():
        line = told
        try:
            root, process = os.path.join(bundle, config["root"]["path"]), config["process"]
            gate = os.open(f"{directory}/exec.fifo", os.O_PATH)
            steps.bring_up_loopback()
            steps.private_queues()
            steps.set_names(config["hostname"])
            steps.make_private()
            steps.mount_proc_and_dev(root)
            steps.pivot(root)
            os.chdir(process["cwd"])
            os.write(line, b"waiting")
            line = os.open(f"/proc/self/fd/{gate}", os.O_WRONLY | os.O_CLOEXEC)
            environment = dict(one.split("=", 1) for one in process["env"])
            os.execvpe(process["args"][0], process["args"], environment)
        except BaseException as error:
            os.write(line, str(error).encode())
        return 1

    try:
        os.mkfifo(f"{directory}/exec.fifo")
        pid = steps.spawn_init(main)
        os.close(told)
        with open(f"/proc/{pid}/stat") as stat:
            born = int(stat.read().rpartition(")")[2].split()[19])
        with open(f"{directory}/state.json", "w") as file:
            json.dump({"bundle": bundle, "pid": pid, "born": born}, file)
        if (said := os.read(heard, 4096)) != b"waiting":
            raise OSError(f"process 1 has not come to the gate: {said.decode()}")
    except BaseException:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(directory)
        raise
    finally:
        os.close(heard)
    # SOLUTION END


# %% [markdown]
# ## Exercise 2: `state`
#
# ```
# state(directory: str) -> dict
# ```
#
# What the specification calls the state: `ociVersion` ("1.2.0"), `id`, `status`, `bundle`, and `pid` unless the container
# has stopped. It is **created** as long as process 1 lives and the gate is there, **running** as long as it lives, and
# **stopped** otherwise. Whoever has ended but was not waited for is a *zombie*, state Z: it has its number still, and
# its directory in /proc. That is no life. Nor is it one if process 1's number belongs to another process by now.


# %%
# %%exercise lifecycle.state
import json


def state(directory):
    """Return ociVersion, id, status, bundle, and pid unless the container has stopped."""
    # SOLUTION BEGIN
    with open(f"{directory}/state.json") as file:
        known = json.load(file)
    found = {"ociVersion": "1.2.0", "id": os.path.basename(directory), "status": "stopped", "bundle": known["bundle"]}
    try:
        with open(f"/proc/{known['pid']}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return found
    if fields[0] not in "ZX" and int(fields[19]) == known["born"]:
        found["status"] = "created" if os.path.exists(f"{directory}/exec.fifo") else "running"
        found["pid"] = known["pid"]
    return found
    # SOLUTION END


# %% [markdown]
# A cell under `%%apart` is a process of its own, and all that it has started ends with it. What does that leave of the
# container's directory?

# %%
# %%apart bundle containers
from minicontainer.steps import Steps

create(f"{containers}/second", bundle, Steps())
print(state(f"{containers}/second"))
print(os.listdir(f"{containers}/second"))

# %% [markdown]
# ## Exercise 3: `start`
#
# ```
# start(directory: str) -> None
# ```
#
# Open the gate of a container that is *created*; any other is refused (raise ValueError). Return when the program has
# taken the place of process 1, and raise an OSError if it could not.
#
# - Remove the gate, so that the container is not "created" any more.
# - If process 1 dies in this very moment, nobody will ever open the other end, and an ordinary open waits for ever.
#   `O_NONBLOCK` opens at once, and then poll(2) waits for the gate *or* for process 1's end: a pidfd
#   (`os.pidfd_open`) can be read from when its process has ended.


# %%
# %%exercise lifecycle.start
import select


def start(directory):
    """Open the gate of a created container; return when its program has taken the place of process 1."""
    # SOLUTION BEGIN
    found = state(directory)
    if found["status"] != "created":
        raise ValueError(f"{directory} is {found['status']}, not created")
    process = os.pidfd_open(found["pid"])
    line = os.open(f"{directory}/exec.fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.unlink(f"{directory}/exec.fifo")
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(process, select.POLLIN)
    heard = line in dict(poll.poll())
    complaint = os.read(line, 4096).decode() if heard else "process 1 was killed"
    os.close(line)
    os.close(process)
    if complaint:
        raise OSError(complaint)
    # SOLUTION END


# %%
# %%apart bundle containers
from minicontainer.steps import Steps

create(f"{containers}/third", bundle, Steps())
pid = state(f"{containers}/third")["pid"]
print("created:", os.readlink(f"/proc/{pid}/exe"))
start(f"{containers}/third")
print("running:", os.readlink(f"/proc/{pid}/exe"), state(f"{containers}/third")["status"])

# %% [markdown]
# ## Exercise 4: `kill`
#
# ```
# kill(directory: str, number: int = 15) -> None
# ```
#
# Send a signal to process 1. A container that has stopped is refused (ValueError). Between your look at a number and
# your `os.kill`, the process can end and the number be another's. So hold the process *first*, look at it, and signal
# what you hold: `signal.pidfd_send_signal`.


# %%
# %%exercise lifecycle.kill
import signal


def kill(directory, number=signal.SIGTERM):
    """Send a signal to process 1 of a container that is created or running."""
    # SOLUTION BEGIN
    if "pid" not in (found := state(directory)):
        raise ValueError(f"{directory} has stopped")
    process = os.pidfd_open(found["pid"])
    try:
        if "pid" not in state(directory):
            raise ValueError(f"{directory} has stopped")
        signal.pidfd_send_signal(process, number)
    finally:
        os.close(process)
    # SOLUTION END


# %% [markdown]
# ## Exercise 5: `delete`
#
# ```
# delete(directory: str) -> None
# ```
#
# Remove what is left of a container that has stopped. Any other is refused (ValueError), and nothing changes: what
# would become of a process that nobody knows any more?


# %%
# %%exercise lifecycle.delete
import shutil


def delete(directory):
    """Remove what is left of a stopped container."""
    # SOLUTION BEGIN
    if state(directory)["status"] != "stopped":
        raise ValueError(f"{directory} has not stopped")
    shutil.rmtree(directory)
    # SOLUTION END


# %% [markdown]
# The whole life:

# %%
# %%apart bundle containers
from minicontainer.steps import Steps

mine = f"{containers}/whole"
create(mine, bundle, Steps())
print(state(mine)["status"])
start(mine)
print(state(mine)["status"])
try:
    delete(mine)
except ValueError as error:
    print("delete:", error)
kill(mine, 9)
while state(mine)["status"] != "stopped":
    pass
print(state(mine)["status"])
delete(mine)
print("whole" in os.listdir(containers))

# %% [markdown]
# ## What does the kernel think?
#
# The checks look at process 1 from outside: which file it executes and what its root is before and after `start`, how
# it ended and with what, and who has its number now.

# %%
# %check 16

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 16 --subject notebooks/16-engine.ipynb
# ```
#
# ## What to take away
#
# - A container is a process that was arranged well, and a directory that says which one.
# - What can be asked of the kernel is not written down; what is written down is looked at again before it is used.
# - A pid is a number, a pidfd is a process.
# - Failing is half of the work: whoever waits must be told, and nothing may be left.
#
# ## Going further
#
# 1. The course's own is `minicontainer/steps/lifecycle.py`, and the full-grown one `minicontainer/runtime/`: which of
#    its steps does yours not have? Add the hardening of lab 15, in the order of `runtime/confinement.py`.
# 2. `labs/course/16_engine/oci.py` puts a command line before your five functions, as podman expects one. Give podman a
#    script that executes it with your notebook, and a root file system: `podman --runtime … run --rm --network=none
#    --rootfs …`. (`tests/labs/test_engine_by_podman.py` does so.) What in its config.json do you miss first?
# 3. `kill -9` your `create` at every line. After which of them is something left that nobody knows?
# 4. Two processes of one tick of the clock (10 ms) are born "at the same time". Since Linux 6.9 a pidfd has an inode
#    number that is never used again: fstat(2). What would you write into `state.json`?
# 5. runc copies itself into memory before it enters a container (CVE-2019-5736). Which file does `/proc/1/exe` lead to
#    while your container is *created*, and who in there could open it?
