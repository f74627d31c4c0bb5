# %% [markdown]
# # Lab 06: root inside, nobody outside
#
# **The question:** every namespace so far took root to make. How can somebody who is *not* root run a container in
# which they *are*, and why is that no hole?
#
# **You will learn** what a user namespace is, how a map says who is who, why it can be written from one side only and
# only once, what the capabilities of root inside are good for, and how rootless containers work.
#
# **You need** [user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html),
# [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html),
# [setresuid(2)](https://man7.org/linux/man-pages/man2/setresuid.2.html); about 90 minutes. From the labs before:
# unshare(2) (lab 03). As root you will see maps of a thousand ids, as an ordinary user maps of one; all cells work both
# ways. The checks take more ids than one: root, or a range of 65536 of yours in `/etc/subuid` and `/etc/subgid`.
#
# Run the cells from the top, one after the other: Shift-Enter. Where there is a `%%predict`, write what you expect
# behind the colon and run it, *before* the experiment below it.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## Who are you, after that?
#
# A user id is a number, and since 1971 there was one list of them for a machine. A **user namespace** (flag since Linux
# 2.6.23, usable since 3.8, 2013) makes the number a matter of where one stands. It is the one kind of namespace that an
# ordinary user may make.

# %%
# %%predict nobody
# A process calls unshare(CLONE_NEWUSER), and nothing else. What does getuid() say then: the same as before, 0, or
# something else? And who is it for the rest of the machine?
# My prediction:

# %%
# %%isolated
print("before:", os.getuid(), os.readlink("/proc/self/ns/user"))
unshare(CLONE_NEWUSER)
print("after: ", os.getuid(), os.readlink("/proc/self/ns/user"))
print("uid_map:", repr(open("/proc/self/uid_map").read()))

# %%
# %look_back nobody

# %% [markdown]
# 65534, whom `/etc/passwd` calls *nobody*. It is not an id that the process has; it is what the kernel says where it
# has no answer (`/proc/sys/kernel/overflowuid`). The process has kept its id, but in the new namespace there is no
# number for it, since nobody has said which.
#
# `newcomer()` is a process in that state, and here it is from both sides. The picture is made of what *we* read in its
# `/proc/PID`, and of what a program of ours reads there after having entered its namespace.

# %%
from labs.notebook import sides
from labs.notebook.users import newcomer, status

with newcomer() as other:
    sides.id_map(other)
    status(other)

# %% [markdown]
# Its `CapEff` is all zeros: it is nobody and can do nothing. And yet, for a moment it could do everything.
#
# ## Everything, over almost nothing

# %%
# %%predict capabilities
# Right after unshare(CLONE_NEWUSER), CapEff has every bit set. Which of these work then: (a) sethostname at once;
# (b) unshare(CLONE_NEWUTS), then sethostname; (c) an execve, and then (b) in the new program?
# My prediction:

# %%
# %%isolated
from labs.notebook.users import attempt


def effective():
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff"))


unshare(CLONE_NEWUSER)
print("capabilities after unshare:", effective())
attempt("(a) sethostname", sethostname, "mine")
attempt("(b) unshare(CLONE_NEWUTS)", unshare, CLONE_NEWUTS)
attempt("    sethostname", sethostname, "mine")
print("(c) after an execve:")
_ = os.system("grep CapEff /proc/self/status; unshare --uts hostname theirs 2>&1")

# %%
# %look_back capabilities

# %% [markdown]
# This is the whole idea, so slowly:
#
# 1. **Every other namespace is owned by a user namespace**: that of whoever made it.
# 2. A capability counts **over what one's own user namespace owns**, and over nothing else. The UTS namespace in (a)
#    was there before: owned by somebody above. The one in (b) was made after: its owner is the new user namespace.
# 3. The first process gets all capabilities, *in there*. execve(2) then computes them anew, by the old rule: uid 0 has
#    them all, everybody else none. Nobody is not 0. So somebody must become 0 before the first execve, and for that
#    there must *be* a 0.
#
# ## The map
#
# `/proc/PID/uid_map` says who is who: a line is *first id inside, first id outside, how many*. `0 100000 1000` makes
# the users 0 … 999 in there the users 100000 … 100999 out here. `gid_map` says the same of groups.

# %%
# %%predict map
# The newcomer's maps are written, and nothing else is done. Who is it now, seen from inside? And from
# outside?
# My prediction:

# %%
with newcomer("mapped") as other:
    sides.id_map(other)

# %% [markdown]
# There are numbers now, and the process is none of them: it is still who it was. **A map gives nobody an id. It says
# what ids mean.** Then it takes 0:

# %%
with newcomer("root") as other:
    sides.id_map(other)
    status(other)

# %%
# %look_back map

# %% [markdown]
# ### Who may write it
#
# A map that anybody could write would be the end of users: `0 0 1`, and I am you. So the kernel asks a lot:
#
# - it is written **once**, by one write(2) with all of its lines;
# - by somebody **above**: who has CAP_SETUID (CAP_SETGID) in the *parent* namespace may map any id that exists there;
# - or, without any right, by the owner, and then it is one line with **one id: their own**;
# - and in that second case the gid map is refused until `/proc/PID/setgroups` says `deny`. Why that?
#
# Below, an ordinary user tries it all, one after the other (if you are root: user 54321). The question first.

# %%
# %%predict setgroups
# A file has mode 0604 (rw----r--): its owner may read and write, its *group* nothing, all others may read. You are in
# that group. Can you read it? And if you could drop the group?
# My prediction:

# %%
from labs.notebook.users import ordinarily

ordinarily("""
import signal

ready, told = os.pipe()
pid = os.fork()
if pid == 0:
    unshare(CLONE_NEWUSER)
    os.write(told, b"!")
    signal.pause()
os.read(ready, 1)


def write(file, text):
    with open(f"/proc/{pid}/{file}", "w") as opened:
        opened.write(text)


us = os.getuid()
for file, text in (
    ("uid_map", f"0 {us} 2"),  # one more than our own
    ("uid_map", f"0 {us} 1"),
    ("gid_map", f"0 {os.getgid()} 1"),
    ("setgroups", "deny"),
    ("gid_map", f"0 {os.getgid()} 1"),
    ("uid_map", f"1 {us} 1"),  # on second thoughts
    ("setgroups", "allow"),
):
    attempt(f"{file:9}  {text}", write, file, text)
os.kill(pid, signal.SIGKILL)
""")

# %%
# %look_back setgroups  A member of the group cannot read it, everybody else can: whoever can leave the group, gets in

# %% [markdown]
# In the first year of user namespaces that was the hole (CVE-2014-8989): be root in one's own namespace, call
# setgroups(2) to be in no group, read what one's group had been locked out of. Since Linux 3.19 an ordinary user gives
# up setgroups(2) first. The order is not a matter of taste: after the map, the `deny` is refused as well.
#
# ## Exercise 1: `write_maps`
#
# ```
# write_maps(pid: int, uids: Sequence[tuple[int, int, int]], gids: Sequence[tuple[int, int, int]]) -> None
# ```
#
# Process `pid` is in a new user namespace. You are not: you are its parent, outside. Say who its ids are: each tuple is
# a line, *(first inside, first outside, how many)*.
#
# - Root writes any lines, and takes nothing away: setgroups(2) stays allowed in there.
# - An ordinary user (`os.geteuid()` is not 0) maps one id, their own, and has to give up what is asked for it.
#
# A step further, for later: a user with a range in `/etc/subuid` may have more than one id, by the setuid programs
# newuidmap(1) and newgidmap(1). The course's own step calls them; yours need not. Stuck? `%hint user.write_maps`.


# %%
# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    """Say who the ids inside the user namespace of process `pid` are outside."""
    # SOLUTION BEGIN
    if os.geteuid() != 0:
        with open(f"/proc/{pid}/setgroups", "w") as file:
            file.write("deny")
    for kind, lines in (("uid", uids), ("gid", gids)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in lines))
    # SOLUTION END


# %% [markdown]
# Your function writes the maps of this one:

# %%
with newcomer("mapped", mine=True) as other:
    sides.id_map(other)

# %% [markdown]
# ## From the wrong side
#
# It is tempting to let the process write its own map: it has every capability, after all.

# %%
# %%predict inside
# A process in a new user namespace, with all capabilities in there, writes its own uid_map: first "0 0 1", 0 being who
# made it; or, in a second attempt, "0 0 1" and "1 1 1". Which one does the kernel take?
# My prediction:

# %%
# %%isolated
from labs.notebook.users import attempt


def write(text):
    with open("/proc/self/uid_map", "w") as file:
        file.write(text)


for text in ("0 0 1\n1 1 1", "0 0 1"):
    if os.fork() == 0:
        unshare(CLONE_NEWUSER)
        attempt(f"from inside: {text!r}", write, text)
        os._exit(0)
    _ = os.wait()

# %%
# %look_back inside

# %% [markdown]
# Only itself. From inside, a process has no right over any id outside, and the kernel lets it name the one that it is.
# (That is what `unshare --map-root-user` does, and what made the sandbox of this very cell.) For more, somebody outside
# has to do it, and the two have to wait for each other: the child until the map is there, the parent until there is a
# namespace to map. Engines have a pipe for that, or let clone(2) make child and namespace in one.
#
# ## Exercise 2: `become_root`
#
# ```
# become_root() -> None
# ```
#
# The calling process is in its user namespace, and the maps are written. Make it root there: user 0 and group 0, with
# all of its ids (real, effective, saved), and in none of the groups that it was in.
#
# - setgroups(2) may be denied in this namespace. `/proc/self/setgroups` says so; then become root all the same.
# - `os` has `setresuid`, `setresgid`, `setgroups`.


# %%
# %%exercise user.become_root
def become_root():
    """Take uid 0 and gid 0 of the user namespace that the caller is in."""
    # SOLUTION BEGIN
    with open("/proc/self/setgroups") as file:
        if file.read().strip() == "allow":
            os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # SOLUTION END


# %%
with newcomer("root", mine=True) as other:
    sides.id_map(other)
    status(other)

# %% [markdown]
# `CapEff` again, after an execve: full. And `Uid` from outside: no one.
#
# ## What root inside can do, and what not

# %%
# %%predict root
# Root of a user namespace, uid 0 inside. Which are done: read /etc/shadow · send process 1 a signal · mount a tmpfs in
# a mount namespace of its own · chown a file on that to user 500, to user 2000000 · make the device file of a disk?
# My prediction:

# %%
from labs.notebook.users import within

with newcomer("root") as other:
    within(
        other,
        """
attempt("read /etc/shadow", open, "/etc/shadow")
attempt("kill(1, 0): may I send process 1 a signal?", os.kill, 1, 0)
attempt("sethostname, in the UTS namespace of before", sethostname, "mine")
unshare(CLONE_NEWUTS | CLONE_NEWNS)
attempt("sethostname, in a UTS namespace of its own", sethostname, "mine")
attempt("mount a tmpfs, in a mount namespace of its own", mount, "tmpfs", "/mnt", "tmpfs")
attempt("chown a file on it to 500", os.chown, "/mnt", 500, 0)
attempt("chown a file on it to 2000000", os.chown, "/mnt", 2_000_000, 0)
attempt("make the device file of a disk on it", os.mknod, "/mnt/disk", 0o60600, os.makedev(8, 0))
attempt("take more processor time than others: nice -5", os.setpriority, os.PRIO_PROCESS, 0, -5)
""",
    )

# %%
# %look_back root

# %% [markdown]
# Three kinds of refusal: the file belongs to a user who has no number in here; the namespace is owned by somebody else;
# and what concerns the whole machine (devices, processor, clock, modules) belongs to the *first* user namespace, whatever
# one is root of. (As an ordinary user you have mapped one id, so already 500 is refused: EINVAL, there is no such id.)
#
# ### The breakout that this closes
#
# Until here, root in the container was root outside. Then a directory that both share is enough: in the container, make
# a copy of a shell that belongs to root, with the setuid bit; outside, as anybody, start it.

# %%
# %%predict setuid
# Somebody who is root inside puts a file there, mode 4755, into a directory that everybody may write. Outside, to whom
# does it belong: (a) without a user namespace (then root inside is root), (b) with one? What is started with it?
# My prediction:

# %%
import os
import tempfile

leave = "open(place, 'w').close(); os.chmod(place, 0o4755)"
with tempfile.TemporaryDirectory(prefix="shared-") as shared:
    os.chmod(shared, 0o1777)
    exec(leave, {"os": os, "place": f"{shared}/without"})  # as we are: without a user namespace
    with newcomer("root") as other:
        within(other, f"place = {shared + '/with'!r}; {leave}")
    for name in ("without", "with"):
        found = os.stat(f"{shared}/{name}")
        print(f"{name:8} a user namespace: mode {found.st_mode & 0o7777:o}, owner {found.st_uid}")

# %%
# %look_back setuid

# %% [markdown]
# With a range of ids, whoever starts `with` becomes user 100000: nobody. (If you are an ordinary user, both belong to
# you, and the one that you can harm is you.) That is why user namespaces are called the strongest wall of a container,
# and why engines that run as root have a switch for them.
#
# ### Rootless
#
# And this is a whole container, started by somebody who is not root: if you are, then by user 54321, who owns nothing.
# Your two functions are the steps in it.

# %%
# %%predict rootless
# What will `id` say in there, and the uid map? Of the other namespaces, which did this user need a right for?
# My prediction:

# %%
from labs.notebook.users import run_rootless

run_rootless("busybox", ["sh", "-c", "id; echo uid_map: $(cat /proc/self/uid_map); hostname"])

# %%
# %look_back rootless

# %% [markdown]
# ## What does the kernel think?
#
# The checks make up maps that nobody can know beforehand, let your function write them, and read `/proc/PID` from outside
# the sandbox. For `become_root` they write the maps themselves, so each exercise is looked at by itself.

# %%
# %check 06

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 06 --subject notebooks/06-user.ipynb
# minicontainer --steps notebooks/06-user.ipynb run --rm busybox id     # as an ordinary user
# ```
#
# ## How production engines do it
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | `lxc.idmap = u 0 100000 65536` | `"userns-remap": "default"` in daemon.json | `0 100000 65536` in `/proc/PID/uid_map` |
# | `lxc.idmap = g 0 100000 65536` | (the same) | `gid_map`, by who has CAP_SETGID |
# | unprivileged container: `lxc-create` as a user | rootless mode: `dockerd-rootless.sh` | unshare(2) needs no right; newuidmap(1) writes the map |
# | `/etc/subuid`, `/etc/subgid` | the same files | knows nothing of them |
# | `lxc.mount.entry = … idmap=` | (Podman: `-v …:idmap`) | mount_setattr(2), MOUNT_ATTR_IDMAP, since 5.12 |
#
# - **runc** has the parent write: `update_uidmap`, `update_gidmap` and `update_setgroups` in
#   `libcontainer/nsenter/nsexec.c`, in stage 0 while stage 1 waits on a socket; `try_mapping_tool` there calls newuidmap.
#   The child then calls `setresuid(0, 0, 0)`, as you did.
# - **crun**: `libcrun_set_usernamespace` in `src/libcrun/linux.c`; **LXC**: `lxc_map_ids` in
#   `src/lxc/idmap_utils.c` (before LXC 6 in `conf.c`).
# - Debian and Ubuntu let ordinary users make user namespaces; Ubuntu 24.04 only for programs with an AppArmor profile
#   that says so (`kernel.apparmor_restrict_unprivileged_userns`); some servers set `user.max_user_namespaces` to 0. Each
#   of these is because *being root of a namespace* lets one reach kernel code that one could not reach before.
#
# ## What to take away
#
# - A user namespace is where ids and capabilities count. It owns the other namespaces that are made in it.
# - Map from outside, once; then become 0; then execute. In another order, one of the three is refused or is in vain.
# - Root inside is root over what its namespace owns. Over all else it is whom the map says.
#
# ## Going further
#
# user_namespaces(7) · `kernel/user_namespace.c`: `map_write` is the list of conditions above, in their order, with the
# reasons as comments · M. Kerrisk, *Namespaces in operation, part 5: User namespaces*, LWN.net 2013.
#
# 1. Two containers of the same user have the same map. What can root of the one do to processes of the other, if they
#    meet (a shared directory, a shared PID namespace)? What would have to be different?
# 2. An image is unpacked by root: its files belong to 0 outside. In a container with `0 100000 65536`, whose are they?
#    Find three ways that engines have taken out of that, and what each costs.
# 3. User namespaces can be nested, 32 deep. Root of the inner one maps an id for a third: which ids outside can that be,
#    and who is asked?
