# %% [markdown]
# # Lab 01: another root directory
#
# **You will learn** what a root file system is, what chroot(2) changes and what it does not, and why root walks out
# of a chroot in five lines.
#
# **The question:** an image is a directory with files in it. What does it take for a program to believe that this
# directory is the whole world, and how far can the belief be trusted?
#
# **You need** [chroot(2)](https://man7.org/linux/man-pages/man2/chroot.2.html) with its NOTES,
# [path_resolution(7)](https://man7.org/linux/man-pages/man7/path_resolution.7.html),
# [symlink(7)](https://man7.org/linux/man-pages/man7/symlink.7.html); Python's `os`, `pathlib` and `shutil`; about 60
# minutes. It runs as root and as an ordinary user alike.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## Where does a path begin?
#
# The kernel keeps two directories for each process. An absolute path begins at its **root directory**, a relative
# one at its **working directory**. Both can be seen in /proc:

# %%
# %%predict two
# `ls` is told to list the links /proc/self/root and /proc/self/cwd. Whose are they, the notebook's or those
# of `ls`? Where do they lead?
# My prediction:

# %%
# !ls -l /proc/self/root /proc/self/cwd

# %%
# %look_back two

# %% [markdown]
# Every directory has an entry `..`, its parent. Only in a process's root directory, `..` is the directory itself;
# that is what makes it a root. The numbers in the next output are inode numbers: equal numbers (on one file system),
# the same directory.

# %%
# %%predict dotdot
# What is /../../.. ? And for a process whose root directory is /srv/box: which directory does it get for the same path?
# My prediction:

# %%
# !ls -di / /.. /../..

# %% [markdown]
# ## What does a program need?
#
# chroot(2) makes another directory the root directory of the calling process. All that a program finds by an
# absolute path must then be in *there*: a shell, the shell's libraries, the loader that loads the libraries.

# %%
# %%predict files
# How many files besides itself does /bin/ls need in order to start? How many does the smallest root file
# system have that a shell can live in?
# My prediction:

# %%
# !ldd /bin/ls

# %% [markdown]
# One program needs none of this. busybox is linked statically, and it is hundreds of programs in one file:
# which of them it is, it sees from the name it was called by.

# %%
from minicontainer.images.busybox import static_busybox

busybox = static_busybox()
# !ldd {busybox}
# !{busybox} --list-full | wc -l
# !{busybox} --list-full | head -4

# %% [markdown]
# So a root file system can be as small as this one. It is the image of which the course's engine makes its
# containers:

# %%
from labs.notebook import pictures
from labs.notebook.session import busybox_root, jailed

pictures.tree(busybox_root())

# %%
# %look_back files

# %% [markdown]
# ## The kernel at work
#
# chroot(1) calls chroot(2) and starts a program. Only root may; `unshare -r` makes us root of a user namespace,
# which is enough (lab 06 tells why), and is harmless when we are root already.

# %%
# !unshare -r /usr/sbin/chroot {busybox_root()} /bin/sh -c 'ls /; echo; ls -di / /..'

# %% [markdown]
# For that shell, there is nothing above. And yet nothing was moved or copied, and everybody else sees the directory
# where it was. Here is such a process from outside. Read the picture from the bottom: where does it stand, and how
# far does `..` lead it?

# %%
with jailed(busybox_root(), "/usr/bin") as process:
    pictures.way_up(process)

# %%
# %look_back dotdot

# %% [markdown]
# And its namespaces? (`jailed` made a user namespace so that this works without root too.)

# %%
# %%predict kinds
# Of the eight kinds of namespaces, how many has chroot(2) made anew for this process: mounts, processes,
# network, names…?
# My prediction:

# %%
with jailed(busybox_root(), "/") as process:
    jail = process
    # %nsdiff {jail}

# %%
# %look_back kinds

# %% [markdown]
# So whoever is in there sees the host's mounts, processes, network and name. Only paths begin elsewhere.
#
# ## Exercise 1: `build_root`
#
# ```
# build_root(root: str, busybox: str) -> None
# ```
#
# `root` is an empty directory, `busybox` the path of a static busybox. Make a root file system of it:
#
# - `bin/busybox` is a copy of the program, and can be executed;
# - every applet that `busybox --list-full` names has its place (`bin/sh`, `usr/bin/awk`…), and is a symbolic link to
#   busybox *that still leads there when `root` is the root directory*;
# - there are the directories `bin`, `dev`, `etc`, `proc`, `root`, `sbin`, `sys`, `tmp`, `usr/bin`, `usr/sbin`;
# - `tmp` has mode 1777, whatever the umask is;
# - `etc/passwd` has a line for root, who comes first in it.
#
# To run a program in Python and read what it prints: `subprocess.run([…], capture_output=True, text=True)`. If you are
# stuck: `%hint chroot.build_root`, and once more for the next step.

# %%
# %%exercise chroot.build_root
import shutil
import subprocess
from pathlib import Path


def build_root(root: str, busybox: str) -> None:
    """Make of the empty directory `root` a root file system in which a shell can live."""
    # SOLUTION BEGIN
    top = Path(root)
    for directory in ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"):
        (top / directory).mkdir(parents=True)
    (top / "tmp").chmod(0o1777)
    shutil.copy(busybox, top / "bin/busybox")
    (top / "bin/busybox").chmod(0o755)
    applets = subprocess.run([busybox, "--list-full"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if not (top / applet).exists():
            (top / applet).symlink_to("/bin/busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    # SOLUTION END


# %% [markdown]
# An exercise is kept, and not run in the notebook. `%%isolated` runs a cell in a new process, as root of throw-away
# namespaces, with your functions and with the variables that you name:

# %%
from labs.notebook.session import new_directory

mine = new_directory("root")

# %%
# %%isolated mine busybox
build_root(mine, busybox)

# %%
# !unshare -r /usr/sbin/chroot {mine} /bin/sh -c 'ls -l /bin/sh; ls -ld /tmp; whoami'

# %% [markdown]
# ## What chroot does not do
#
# Its manual page says that the call "does not change the current working directory". What follows from that?

# %%
# %%predict outside
# A process stands in /usr and calls chroot("/srv/box"), and nothing else. What does it see in "."? And in ".."?
# My prediction:

# %%
# %%isolated mine
os.chdir("/usr")
os.chroot(mine)
print("the root directory has:    ", sorted(os.listdir("/"))[:6])
print("the working directory has: ", sorted(os.listdir("."))[:6])
print("and one further up there is", sorted(os.listdir(".."))[:6])

# %%
# %look_back outside

# %% [markdown]
# The process has a new root directory and stands outside of it. From there, `..` never meets the root directory, so
# nothing stops it. Here is such a process from outside:

# %%
with jailed(mine, "/usr/bin", inside=False) as process:
    pictures.way_up(process)

# %% [markdown]
# Keep this in mind for exercise 3.
#
# ## Exercise 2: `enter_chroot`
#
# ```
# enter_chroot(root: str) -> None
# ```
#
# Make `root` the calling process's root directory, and its working directory too. `os.chroot` and `os.chdir` make
# the two system calls of these names. Nothing else about the process changes; an `OSError` goes on to the caller.
# (`%hint chroot.enter_chroot`)


# %%
# %%exercise chroot.enter_chroot
def enter_chroot(root: str) -> None:
    """Make `root` the calling process's "/", and stand in it."""
    # SOLUTION BEGIN
    os.chroot(root)
    os.chdir("/")
    # SOLUTION END


# %%
# %%isolated mine
enter_chroot(mine)
print(os.getcwd(), sorted(os.listdir(".")), os.path.samefile("/", "/.."))

# %% [markdown]
# ## Exercise 3: `break_out`
#
# ```
# break_out() -> None
# ```
#
# The calling process is root, and is in a chroot: properly, with its working directory inside. Afterwards its root
# directory is the real one again.
#
# You know all that is needed. `..` stops in the root directory of the process, and only there. A process has *one*
# root directory. And you have seen a process that stood outside of its own. How far up the real root is, you do not
# know: what tells you that you have arrived? (`%hint chroot.break_out`)


# %%
# %%exercise chroot.break_out
def break_out() -> None:
    """Leave a chroot: afterwards "/" is the real root directory."""
    # SOLUTION BEGIN
    os.mkdir("second-chroot")
    os.chroot("second-chroot")
    while not os.path.samefile(".", ".."):
        os.chdir("..")
    os.chroot(".")
    # SOLUTION END


# %%
# %%isolated mine
enter_chroot(mine)
print("inside: ", sorted(os.listdir("/")))
break_out()
print("outside:", sorted(os.listdir("/")))

# %% [markdown]
# ## What would close it?
#
# Three ideas, and whether they hold. Who is not root cannot call chroot at all; so somebody takes the capability away.
# Then somebody else comes along with a directory that was open before.

# %%
# %%predict closed
# Without CAP_SYS_CHROOT in the jail, break_out fails. A process that holds a file descriptor of "/" from before: does it
# get out all the same?
# My prediction:

# %%
# %%isolated mine
from minicontainer.steps.capabilities import drop_capabilities
from minicontainer.steps.chroot import break_out, enter_chroot

before = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
enter_chroot(mine)
os.makedirs("/tmp", exist_ok=True)  # in the jail
os.chdir("/tmp")
kept = ["CAP_CHOWN"]
drop_capabilities(kept, kept, kept, [], [])  # all the others are gone
try:
    break_out()
    print("break_out: out")
except OSError as error:
    print("break_out:", error)
os.fchdir(before)
print("after fchdir, the process stands in", sorted(os.listdir("."))[:6])

# %%
# %look_back closed

# %% [markdown]
# Without the capability the *root directory* cannot be changed any more; but a descriptor is not found by a path, and
# leads to where it always has led. So an engine closes what it does not need, and hands nothing on by accident: that is
# what `O_CLOEXEC` is for. What closes the door itself is that there is nothing behind it: lab 02.
#
# ## What does the kernel think?
#
# The checks run your functions in a sandbox, and then look **from outside**: at the tree on the disk, at
# `/proc/PID/root` and `/proc/PID/cwd`. What your code returns or prints is not asked for.

# %%
# %check 01

# %% [markdown]
# The same from a shell (save the notebook first): `labs check 01 --subject notebooks/01-chroot.ipynb`
#
# ## How production engines do it
#
# None of them relies on chroot, and all of them have it:
#
# | engine | where | when |
# |---|---|---|
# | runc | `msMoveRoot` and `chroot` in `libcontainer/rootfs_linux.go` | only with `--no-pivot`, on an initramfs, where pivot_root is refused |
# | crun | `move_root` in `src/libcrun/linux.c` | likewise |
# | LXC | `lxc_chroot` in `src/lxc/conf.c` | where the old root is an initramfs |
# | yours | `enter_chroot` | in this lab |
#
# runc and crun *move* the container's mount onto `/` first, so that the old root is covered. What could still be reached is
# told in a long comment above `msMoveRoot`. And a file descriptor left open was all it took in CVE-2024-21626: runc
# leaked one of the host's directories, and a working directory of `/proc/self/fd/7` was outside.
#
# ## What to take away
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | a template, `/var/lib/lxc/NAME/rootfs` | an image, its layers stacked | a directory |
# | `chroot rootfs passwd`, to set a password before the first start | `RUN`, while an image is built | chroot(2), path_resolution(7) |
#
# - A root file system is a directory with what programs expect. There is nothing else to it; an *image* is one,
#   packed.
# - chroot(2) "changes an ingredient in the pathname resolution process and does nothing else": not the working
#   directory, not the files that are open, not which processes, users or networks there are.
# - It is no prison, and was never meant to be one. It came with Version 7 Unix in 1979, to build and test systems in
#   a directory. Whoever is root in it makes another one and is out.
#
# The mistake cannot be mended in chroot, because the old root directory is still *there*: the tree of mounts has it
# at its top, and `..` finds it. In the next lab the tree of mounts itself is exchanged, and your `break_out` will be
# tried on it.
#
# ## Going further
#
# Pages: [openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html), RESOLVE_IN_ROOT: a root directory for a single
# path. To read: Kamp and Watson, *Jails: Confining the omnipotent root* (SANE 2000), which begins with what chroot lacks.
#
# Questions, without answers:
#
# 1. Does `break_out` need the capability CAP_SYS_CHROOT? Drop it before (capabilities(7)), and see which of its
#    calls fails.
# 2. Somebody keeps a file descriptor of a directory outside open while entering the chroot. Write a `break_out` of
#    two calls. (That is why fchdir(2) matters, and why engines close what they do not need.)
# 3. FreeBSD's jail and Linux's pivot_root answer the same question in different ways. What does a jail forbid that
#    chroot allows?
# 4. `ldd` lists what a dynamically linked program needs. Put `/bin/ls` of your host into `mine`, with all of that,
#    and run it there.
