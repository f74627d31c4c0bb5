# %% [markdown]
# # Lab 02: a tree of mounts of one's own
#
# **You will learn** what a mount namespace is, how mounts spread from one to another, and how the root of a whole
# tree of mounts is exchanged: so that what was chroot's weakness in lab 01 is gone.
#
# **The question:** in a container, `mount` shows a handful of lines, and root can mount what it likes. Why does the machine
# around it not notice, and what must have gone wrong where it does?
#
# **You need** [mount(2)](https://man7.org/linux/man-pages/man2/mount.2.html),
# [mount_namespaces(7)](https://man7.org/linux/man-pages/man7/mount_namespaces.7.html),
# [pivot_root(2)](https://man7.org/linux/man-pages/man2/pivot_root.2.html) with its NOTES,
# [umount2(2)](https://man7.org/linux/man-pages/man2/umount.2.html); about 90 minutes. It runs as root and as an
# ordinary user alike.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## What is mounted where?
#
# All that you see below `/` is put together of file systems, each **mounted** on a directory of another. The kernel
# tells a process what it sees in `/proc/PID/mountinfo`, a line for each mount:

# %%
# %%predict host
# In the mount table of a container: will your root file system be there? Your home directory? And in that of
# a process in a chroot?
# My prediction:

# %%
# !head -5 /proc/self/mountinfo

# %% [markdown]
# From the left: the mount's number, the number of the mount that it is mounted on, the device, the directory of the
# file system that is shown, the **mount point**, options, *optional fields* (we will need these), a dash, the file
# system's type, its source.
#
# Which list a process sees depends on its **mount namespace**. It was the first kind that Linux had, in 2.4.19
# (2002). Here are the trees of this notebook and of a container:

# %%
from labs.notebook import pictures
from labs.notebook.session import busybox_root, engine, jailed, my_engine

with engine().started("busybox", ["sleep", "60"]) as container:
    pictures.mounts("self", container, titles=["this notebook", "the container"])

# %% [markdown]
# The container does not merely look at another directory. In its tree, the host's root file system does not occur.
# Compare a process in a chroot, on the right: which of our mounts is its root directory in?

# %%
with jailed(busybox_root(), "/") as process:
    pictures.mounts("self", process, titles=["this notebook", "a process in a chroot"])

# %%
# %look_back host

# %% [markdown]
# (A process is shown only mounts that it can reach from its root directory: in a chroot often none. They are all
# still there, and `break_out` of lab 01 goes back to them.)
#
# ## The kernel at work
#
# `%%isolated` runs a cell in a new process, as root of throw-away namespaces, a mount namespace among them. (`%mounts` lists
# what has changed in this process since the beginning of the cell.)

# %%
# %%predict seen
# A tmpfs is mounted on /mnt in there. While it is there: what is in /mnt for the cell, and what for the
# notebook? And if the mount had been on a directory that only the cell has?
# My prediction:

# %%
# %%isolated
mount("tmpfs", "/mnt", "tmpfs", 0, "size=1m")
open("/mnt/hello", "w").close()
print("inside: ", os.listdir("/mnt"), os.path.ismount("/mnt"))
# %mounts

# %%
import os

print("outside:", os.path.ismount("/mnt"))

# %%
# %look_back seen

# %% [markdown]
# ### Shared mounts
#
# A new mount namespace begins as a copy of the old one. One would think that the two have nothing to do with each
# other from then on. Read what this child does, in a mount namespace of its *own*.

# %%
# %%predict shared
# A child calls unshare(CLONE_NEWNS) and then mounts a tmpfs on /mnt. Does its parent, in the old mount namespace, see it?
# And if the mounts of the machine are "shared", as systemd makes them?
# My prediction:

# %%
# %%isolated
mount(None, "/", None, MS_REC | MS_SHARED)  # what systemd does on most machines while they boot

child = os.fork()
if child == 0:
    unshare(CLONE_NEWNS)
    mount("tmpfs", "/mnt", "tmpfs")
    os._exit(0)
os.waitpid(child, 0)

print("the parent sees a mount on /mnt:", os.path.ismount("/mnt"))
with open("/proc/self/mountinfo") as mountinfo:
    print(*(line.partition(" - ")[0] for line in mountinfo if " /mnt " in line))

# %%
# %look_back shared

# %% [markdown]
# This is the **forgotten MS_PRIVATE**: the "container" has just mounted something on the "host". What if it goes on, and
# mounts its `/proc`, and its root file system, and tidies up after itself by unmounting? Here it is done to a sandbox that
# plays the host; nobody else is hurt.

# %%
# %%predict forgotten
# A careless engine leaves out MS_PRIVATE, mounts an empty tmpfs over /usr/bin in "its own" mount namespace, and calls it a day.
# What can the host still run?
# My prediction:

# %%
# %%isolated
import shutil

mount(None, "/", None, MS_REC | MS_SHARED)
print("before: the host finds", shutil.which("ls", path="/usr/bin"))
if (child := os.fork()) == 0:
    unshare(CLONE_NEWNS)
    mount("tmpfs", "/usr/bin", "tmpfs")
    os._exit(0)
os.waitpid(child, 0)
print("after:  the host finds", shutil.which("ls", path="/usr/bin"))
umount2("/usr/bin", MNT_DETACH)

from minicontainer.steps.mount import make_private

if (child := os.fork()) == 0:
    make_private()  # the course's own: what you are about to write
    mount("tmpfs", "/usr/bin", "tmpfs")
    os._exit(0)
os.waitpid(child, 0)
print("closed: the host finds", shutil.which("ls", path="/usr/bin"))

# %%
# %look_back forgotten

# %% [markdown]
# Where a mount is **shared** (`shared:N` among the optional fields), its copy in the new namespace is its *peer*:
# what is mounted on one appears on all. That is handy for a USB stick, which everybody should see, and fatal for a
# container, which is about to mount a new `/proc`. A mount can also be **private** (nothing spreads, nothing
# arrives) or a **slave** (`master:N`: nothing spreads from here, but what is mounted there arrives here).
#
# ## Exercise 1: `make_private`
#
# ```
# make_private() -> None
# ```
#
# Give the calling process a mount namespace of its own, in which every mount is private. The mounts of the namespace
# that it left stay as they were: a whole machine depends on them.
#
# mount(2) changes the kind when it is called with the mount point and one of `MS_PRIVATE`, `MS_SHARED`, `MS_SLAVE`;
# the other arguments are `None`. It changes one mount. A further flag makes it go through all below.
# (`%hint mount.make_private`)


# %%
# %%exercise mount.make_private
def make_private() -> None:
    """Give the calling process a mount namespace of its own, from which no mount or unmount spreads."""
    # SOLUTION BEGIN
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # SOLUTION END


# %%
# %%isolated
mount(None, "/", None, MS_REC | MS_SHARED)
make_private()
with open("/proc/self/mountinfo") as mountinfo:
    print(*(line.partition(" - ")[0] for line in list(mountinfo)[:4]), sep="\n")

# %% [markdown]
# ## A new top of the tree
#
# pivot_root(2) exchanges what is mounted at the top of a mount namespace: the mount `new_root` comes to the top, and
# what was there is hung below it, at `put_old`. Then the old root can be detached, with all that is mounted below
# it, and is gone. Its conditions are many, and the manual page lists them; two catch everybody:
#
# - `new_root` must be a **mount point**. A directory can be made one: by mounting it on itself, with `MS_BIND`. (And
#   with what may be mounted below it: `MS_REC`.)
# - A file system that is in use cannot be unmounted, and you stand in it. `umount2(…, MNT_DETACH)` takes it out of
#   the tree at once, and frees it when nobody uses it any more.
#
# Where to hang the old root for that one moment? A directory in the image would do, and would have to be made and
# removed. The NOTES of the manual page describe a way without one.

# %%
# %%predict busy
# pivot_root takes a directory that is no mount point; then one that is. Then umount2(old, 0), while this process still
# stands in the old root. Which of the three fail? (EBUSY is among the answers, and EINVAL.)
# My prediction:

# %%
# %%isolated
mount("tmpfs", "/mnt", "tmpfs")
os.makedirs("/mnt/new/old")


def tried(what, *call):
    try:
        call[0](*call[1:])
        print(f"{what}: done")
    except OSError as error:
        print(f"{what}: {error.strerror}")


tried("a directory of the old root itself", pivot_root, "/usr", "/usr/bin")
tried("a directory of another file system", pivot_root, "/mnt/new", "/mnt/new/old")
mount("/mnt/new", "/mnt/new", None, MS_BIND)
os.chdir("/")  # of the old root
tried("the same, bound on itself         ", pivot_root, "/mnt/new", "/mnt/new/old")
tried("the old root, simply unmounted    ", umount2, "/old", 0)
tried("and detached                      ", umount2, "/old", MNT_DETACH)

# %%
# %look_back busy

# %% [markdown]
# (As root of the machine, and not of a sandbox, you would get EBUSY for the first: pivot_root asks whether it is *the same
# mount* before it asks whether it is a mount *point*. People look for a busy process then, and there is none.)
#
# ## Exercise 2: `pivot`
#
# ```
# pivot(new_root: str) -> None
# ```
#
# Make the directory `new_root` the root of the mount namespace; the calling process stands in it. Of the old root
# nothing is mounted any more. In `new_root` there is nothing that was not there before. You may rely on being in a
# private mount namespace. (`%hint mount.pivot`)


# %%
# %%exercise mount.pivot
def pivot(new_root: str) -> None:
    """Make `new_root` the root of this mount namespace, and detach the old root with everything below it."""
    # SOLUTION BEGIN
    mount(new_root, new_root, None, MS_BIND | MS_REC)
    os.chdir(new_root)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
    # SOLUTION END


# %% [markdown]
# To try it, here is what lab 01 ended with: `break_out`, against a root directory that was entered by your `pivot`.
# (A copy of the root file system, because `break_out` makes a directory.)

# %%
import shutil

from labs.notebook.session import new_directory

copy = shutil.copytree(busybox_root(), new_directory("copy"), symlinks=True, dirs_exist_ok=True)

# %%
# %%isolated copy
from minicontainer.steps.chroot import break_out

make_private()
pivot(copy)
print("after pivot:    ", sorted(os.listdir("/")))
break_out()
print("after break_out:", sorted(os.listdir("/")))

# %% [markdown]
# ## /proc and /dev
#
# In the new root there are two empty directories that programs need full: `ps` reads `/proc`, and a shell that is
# told `>/dev/null` makes an ordinary file of that name if there is none.
#
# **/proc** is a file system that the kernel makes up as it is read. It shows the PID namespace *of whoever mounted
# it*: a container needs one of its own.
#
# **/dev** of the host has every disk of the host in it. A container gets a new, empty one, on a tmpfs, and in it six
# devices. Making a device file (mknod(2)) is not allowed in a user namespace, so each is the host's, bound onto an
# empty file.

# %%
# %%predict devices
# Will a disk be in a container's /dev? How many entries will there be, and is its /dev/null the same device
# as yours, or a copy? (A device is two numbers: ls -l shows them where the size is otherwise.)
# My prediction:

# %%
# !ls -l /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty

# %%
print(engine().run("busybox", ["sh", "-c", "ls -l /dev; mount | head -5"], capture=True).stdout)

# %%
# %look_back devices

# %% [markdown]
# ## Exercise 3: `mount_proc_and_dev`
#
# ```
# mount_proc_and_dev(root: str) -> None
# ```
#
# `root` is a directory with empty directories `proc` and `dev`. Mount, below it,
#
# | where | what | with |
# |---|---|---|
# | `proc` | a new `proc` | nosuid, nodev, noexec |
# | `dev` | a new `tmpfs` | nosuid, mode 755 |
# | `dev/null`, `zero`, `full`, `random`, `urandom`, `tty` | the host's, bound | |
# | `dev/pts` | a new `devpts` | nosuid, noexec; data `newinstance,ptmxmode=0666,mode=620` |
# | `dev/shm` | a new `tmpfs` | nosuid, nodev, noexec; mode 1777 |
# | `dev/mqueue` (not checked: lab 04) | a new `mqueue` | nosuid, nodev, noexec |
#
# and make the links `dev/ptmx` → `pts/ptmx`, `dev/fd` → `/proc/self/fd`, `dev/stdin`, `stdout`, `stderr` →
# `/proc/self/fd/0`, `1`, `2`.
#
# `mount(source, target, fstype, flags, data)`: for a file system that has no device, any word does as its source; by
# custom it is the type's name. An empty file is made by opening it for writing. (`%hint mount.mount_proc_and_dev`)


# %%
# %%exercise mount.mount_proc_and_dev
def mount_proc_and_dev(root: str) -> None:
    """Mount below `root` what programs expect there: a /proc of this PID namespace, and a /dev that is ours alone."""
    # SOLUTION BEGIN
    careful = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", f"{root}/proc", "proc", careful)
    mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        open(f"{root}/dev/{name}", "w").close()
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{root}/dev/{name}")
    mount("devpts", f"{root}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    mount("shm", f"{root}/dev/shm", "tmpfs", careful, "mode=1777")
    mount("mqueue", f"{root}/dev/mqueue", "mqueue", careful)
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    os.symlink("/proc/self/fd", f"{root}/dev/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{root}/dev/{name}")
    # SOLUTION END


# %% [markdown]
# All three together, in the place of the course's own, in a real container:

# %%
print(my_engine().run("busybox", ["sh", "-c", "mount; ps; echo hello >/dev/null"], capture=True).stdout)

# %% [markdown]
# ## What does the kernel think?
#
# The checks look at each function alone, **from outside**: at `/proc/PID/mountinfo`, `/proc/PID/ns/mnt`, at what `/`
# of the process is. And break_out of lab 01 is let loose on your `pivot`.

# %%
# %check 02

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 02 --subject notebooks/02-mount.ipynb
# minicontainer --steps notebooks/02-mount.ipynb run --rm busybox mount
# ```
#
# ## How production engines do it
#
# | engine | mounts that do not spread | the top exchanged | /dev |
# |---|---|---|---|
# | runc | `prepareRoot` in `libcontainer/rootfs_linux.go`: MS_SLAVE, MS_REC, and then the bind that makes a mount point | `pivotRoot`, same file: `pivot_root(".", ".")`, with thanks to LXC in a comment | `createDevices`, `setupDevSymlinks`, same file |
# | crun | in `src/libcrun/linux.c`, as `rootfsPropagation` asks | `do_pivot` in `src/libcrun/linux.c`: `pivot_root(".", ".")` | `src/libcrun/linux.c` |
# | LXC | `src/lxc/conf.c`: MS_SLAVE, MS_REC; `turn_into_dependent_mounts` | `lxc_pivot_root` in `src/lxc/conf.c` | `mount_autodev`, `lxc_fill_autodev`, `lxc_setup_dev_symlinks` |
# | yours | `make_private`: MS_PRIVATE | `pivot` | `mount_proc_and_dev` |
#
# They take *slave* where you took *private*: what the host unmounts must go away in the container too, or a disk that
# somebody wants to pull out stays busy in a hundred containers. A volume's `rprivate`, `rslave`, `rshared` in
# `docker run -v` are these kinds. And where pivot_root cannot be had (an initramfs), runc has `msMoveRoot`, which moves the
# mount onto `/` and calls chroot; read the comment in it on what that leaves open.
#
# ## What to take away
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | `lxc.rootfs.path = dir:/…` | the image, layers stacked | pivot_root(2) |
# | `lxc.mount.auto = proc:mixed` | (always) | mount(2) of type proc, nosuid, nodev, noexec |
# | `lxc.autodev = 1` | (always); `--device` | mknod(2) where one may, bind mounts where not |
# | `lxc.mount.entry = /a b none bind 0 0` | `-v /a:/b` | mount(2) with MS_BIND |
# | `lxc.rootfs.options` | `-v /a:/b:rslave` | MS_SLAVE: `master:N` in mountinfo |
#
# - A mount namespace is a tree of mounts; processes in different ones see different trees. A new one is a copy.
# - Copies of *shared* mounts are peers. An engine makes its mounts private first and mounts afterwards; the other
#   way round it mounts on the host.
# - chroot moves a process within the tree, pivot_root exchanges the top of the tree. With the old root detached
#   there is no directory left that `..` could lead to.
# - The flag is called `CLONE_NEWNS`, "new namespace", without saying of what: in 2002 nobody expected that there
#   would be others.
#
# ## Going further
#
# Pages: [path_resolution(7)](https://man7.org/linux/man-pages/man7/path_resolution.7.html),
# [open_tree(2)](https://man7.org/linux/man-pages/man2/open_tree.2.html); in the kernel's tree,
# `Documentation/filesystems/sharedsubtree.rst`. To read: Viro and Pai, *Shared-Subtree Concept, Implementation and
# Applications in Linux* (Linux Symposium 2006); Kerrisk, *Mount namespaces and shared subtrees* (LWN, 2016).
#
# Questions, without answers:
#
# 1. In `pivot`, leave out `umount2`, and have `break_out` try again. Where does the process arrive, and why?
# 2. pivot_root refuses when the parent mount of the new or the old root is shared. What would happen on the host if
#    it did not?
# 3. `mount("/dev", …, MS_BIND)` would be one line. Which files of it would you not like to see in a container that
#    runs as root?
# 4. Mount options such as *read-only* belong to a mount, not to the file system. Bind a directory twice, once
#    read-only, and find both in mountinfo. Since which version does mount_setattr(2) do it in one step, and for all
#    below?
