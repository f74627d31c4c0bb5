# %% [markdown]
# # Lab 15: what root can no longer do
#
# **You will learn** the four walls that stand behind the namespaces: capabilities, the filter of system calls,
# Landlock, and masked paths; what each one stops, what it does not, and how each is got wrong without anybody noticing.
#
# **You need** [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html),
# [seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html),
# [landlock(7)](https://man7.org/linux/man-pages/man7/landlock.7.html) and, of the OCI runtime specification,
# [Masked Paths](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#masked-paths). About 90
# minutes.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## How containers were left
#
# | the way out | went through | shut by |
# |---|---|---|
# | `mknod` of the host's disk, then read it | CAP_MKNOD, and no rule for devices | capabilities; lab 11 |
# | `mount` of what one should not see; `release_agent` (CVE-2022-0492) | CAP_SYS_ADMIN, in a user namespace of one's own too | capabilities, seccomp (`unshare`, `mount`) |
# | a write to `/proc/sys/kernel/core_pattern`: a program that the *host's* kernel starts, as root | /proc/sys | read-only and masked paths |
# | `open_by_handle_at`: files by number, below the root or not ("shocker", 2014) | CAP_DAC_READ_SEARCH | capabilities, seccomp |
# | `ptrace` of somebody with more rights | CAP_SYS_PTRACE | capabilities, the PID namespace |
# | `keyctl`: keys have no namespace | | seccomp |
# | a bug in a system call that no program of yours needs (CVE-2022-0185: `fsopen`) | the kernel's size | seccomp |
#
# **A word on where you are.** Your code runs, here in `%%apart` and where it is graded, as root of a *user namespace*
# (lab 06). All four walls work there as they do for the machine's root. But some of the ways out are shut already:
# `mknod` of a disk fails with EPERM and `core_pattern` with EACCES *with every capability that you see below*, since
# those count in your namespace only. A container of real root has no such net. What the capabilities of your namespace
# do open (`mount`, `chroot`, raw packets, tracing) is what the checks try.
#
# ## One: capabilities
#
# "Root" is some forty capabilities, and a process has five **sets** of them:

# %%
# %%apart
from minicontainer.linux.capabilities import names_of

with open("/proc/self/status") as status:
    for line in status:
        if line.startswith("Cap"):
            name, mask = line.split()
            print(name, mask, len(names_of(int(mask, 16))), "capabilities")

# %% [markdown]
# | set | means | changed by |
# |---|---|---|
# | effective | what the kernel looks at | capset(2), these three |
# | permitted | what may be put into the effective set | in one call |
# | inheritable | what a program may keep whose *file* says so | |
# | bounding | the most that any program executed from now on can get | prctl(2), PR_CAPBSET_DROP |
# | ambient | what an ordinary program of an ordinary user keeps | prctl(2), PR_CAP_AMBIENT_RAISE |
#
# What has a container of this course's engine left, beside you? (Which columns would you miss first?)

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from labs.notebook.session import engine
from minicontainer.linux.capabilities import NAMES


def bounding(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = int(next(line for line in lines if line.startswith("CapBnd")).split()[1], 16)
    return [mask >> number & 1 for number in range(len(NAMES))]


with engine().started("busybox", ["sleep", "60"]) as container:
    rows = [bounding("self"), bounding(container.pid)]
figure, axes = plt.subplots(figsize=(9.6, 2.4))
axes.pcolormesh(rows, cmap="Blues", vmin=0, vmax=1.4, edgecolors="white", linewidth=1)
axes.set_xticks([number + 0.5 for number in range(len(NAMES))], NAMES, rotation=90, size=6)
axes.set_yticks([0.5, 1.5], ["this notebook", "a container"])
axes.invert_yaxis()
plt.show()

# %% [markdown]
# **Before you run the next cell, decide:** this process empties its effective and its permitted set, and then executes a program.
# What does that one have?

# %%
# %%apart
import subprocess

from minicontainer.linux.capabilities import Capabilities, capget, capset

capset(Capabilities(effective=0, permitted=0, inheritable=0))
print(f"this process: {capget().effective:x}")
print(subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout, end="")

# %% [markdown]
# For uid 0 execve(2) computes anew: permitted = inheritable | **bounding**. So it is the bounding set that counts, and
# it takes CAP_SETPCAP to limit it.
#
# ## Exercise 1: `drop_capabilities`
#
# ```
# drop_capabilities(bounding, effective, permitted, inheritable, ambient) -> None
# ```
#
# Leave the calling process with these capabilities in its five sets, each a list of names such as `"CAP_CHOWN"`, and
# no others.
#
# - Drop *every* other number that this kernel has from the bounding set. `in_bounding_set(n)` is True, False or, beyond
#   the last one, None.
# - A name that cannot be had is left out, of every set: one that the kernel does not know (`mask_of` has no bit for it),
#   and one that this process has not got itself. A configuration serves many kernels, and less is always safe.
# - What order do `capbset_drop` and `capset` have to be in? And `cap_ambient_raise`, which takes a capability that is
#   permitted *and* inheritable?
#
# `mask_of(names)` makes a mask: bit n is capability number n. `capget()` says what you have, `capset(Capabilities(…))`
# changes it.

# %%
# %%exercise capabilities.drop_capabilities
from minicontainer.linux.capabilities import (
    Capabilities,
    cap_ambient_clear_all,
    cap_ambient_raise,
    capbset_drop,
    capget,
    capset,
    in_bounding_set,
    mask_of,
)


def drop_capabilities(bounding, effective, permitted, inheritable, ambient):
    """Leave the calling process with these capabilities in its five sets, and no others."""
    # SOLUTION BEGIN
    held, kept = capget(), mask_of(bounding)
    number = 0
    while (there := in_bounding_set(number)) is not None:
        if there and not kept >> number & 1:
            capbset_drop(number)
        if not there:
            kept &= ~(1 << number)
        number += 1
    may = mask_of(permitted) & held.permitted
    passed_on = mask_of(inheritable) & held.permitted & kept
    capset(Capabilities(effective=mask_of(effective) & may, permitted=may, inheritable=passed_on))
    cap_ambient_clear_all()
    for one in range(number):
        if mask_of(ambient) & may & passed_on & 1 << one:
            cap_ambient_raise(one)
    # SOLUTION END


# %%
# %%apart
import subprocess

drop_capabilities(["CAP_CHOWN"], ["CAP_CHOWN"], ["CAP_CHOWN"], [], [])
for command in (["grep", "Cap", "/proc/self/status"], ["mount", "-t", "tmpfs", "none", "/mnt"]):
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout + done.stderr, end="")

# %% [markdown]
# ## Two: the filter of system calls
#
# Every way out leads through a system call. With seccomp(2) a process hands the kernel a **program**, which is run at
# each of its calls and answers: let it, fail with this errno, kill. The language is the one of tcpdump(8): load 32 bits,
# compare, jump forward, return. The packet is `struct seccomp_data`: the call's number, the architecture, its six
# arguments. (Not what they *point* at: a filter sees an address, not a file name. Why would looking be no use?)
#
# The course's own compiler makes such a program of a profile in Docker's format; here is the whole of a small one:

# %%
import struct

from minicontainer.steps.seccomp import compile_filter

profile = {"defaultAction": "SCMP_ACT_ALLOW",
           "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}  # fmt: skip
small = compile_filter(profile)
names = {0x20: "load", 0x15: "jump if ==", 0x35: "jump if >=", 0x06: "return"}
for place in range(0, len(small), 8):
    code, yes, no, k = struct.unpack("=HBBI", small[place : place + 8])
    print(
        f"{place // 8:3} {names.get(code, hex(code)):12} {k:#10x}",
        f"yes +{yes} no +{no}" if "jump" in names.get(code, "") else "",
    )

# %% [markdown]
# The first thing that it looks at is the architecture. Without that, a program for i386 has other numbers for the same
# calls, and walks through.
#
# ## Exercise 2: `filter_syscalls`
#
# ```
# filter_syscalls(program: bytes, flags: int = 0) -> int | None
# ```
#
# Have the kernel ask `program` about every system call of the calling process, from now on. It goes on with everything
# that is forked and executed, and nobody can take it back.
#
# The call is `call("seccomp", SECCOMP_SET_MODE_FILTER, flags, prog)`, with `prog = SockFprog(length, address)`: a
# ``struct sock_fprog``. The length is a number of *instructions*, of 8 bytes each. For the address:
# `buffer = ctypes.create_string_buffer(program, len(program))` and `ctypes.addressof(buffer)`.
#
# - With `SECCOMP_FILTER_FLAG_NEW_LISTENER` among the flags the kernel returns a file descriptor, where somebody else is
#   asked about calls (`SCMP_ACT_NOTIFY`): return it. Else return None.
# - What the kernel does not take is an error, and the error goes on to the caller. Think of the container that starts
#   without its filter.
# - It takes CAP_SYS_ADMIN, or `no_new_privs`. To set that is not for you but for whoever calls: it makes sudo powerless.

# %%
# %%exercise seccomp.filter_syscalls
import ctypes

from minicontainer.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_SET_MODE_FILTER, SockFprog
from minicontainer.linux.syscalls import call


def filter_syscalls(program, flags=0):
    """Have the kernel ask `program` about every system call, from now on; return the listener, if there is one."""
    # SOLUTION BEGIN
    buffer = ctypes.create_string_buffer(program, len(program))
    result = call("seccomp", SECCOMP_SET_MODE_FILTER, flags, SockFprog(len(program) // 8, ctypes.addressof(buffer)))
    return result if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER else None
    # SOLUTION END


# %%
program = small.hex()

# %%
# %%apart program
import subprocess

filter_syscalls(bytes.fromhex(program))
print(subprocess.run(["mkdir", "/tmp/new"], capture_output=True, text=True).stderr, end="")
print(subprocess.run(["grep", "Seccomp", "/proc/self/status"], capture_output=True, text=True).stdout, end="")

# %% [markdown]
# ## Three: Landlock
#
# The first two walls do not know files. Permissions do, but they are about users. With **Landlock** (Linux 5.13) a
# process says which paths it will ever need, and for what. No privilege is needed to give something up.
#
# 1. `landlock_create_ruleset(LandlockRulesetAttr(rights, 0, 0))`: a set of rules, a file descriptor. `rights` are those
#    that the set **handles**: refused, unless a rule allows them. What it does not handle stays as free as it was.
# 2. `landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, LandlockPathBeneathAttr(rights, fd))`: allows rights on what
#    `fd` is (opened with `O_PATH`), and on all that lies below.
# 3. `landlock_restrict_self(ruleset)`: from now on. Several sets bind *together*, and there is no way back.
#
# A newer kernel has more rights: `handled_fs(landlock_abi())` are all that this one knows.
#
# ## Exercise 3: `restrict_paths`
#
# ```
# restrict_paths(rules: dict[str, str | list[str]]) -> int
# ```
#
# Give up every right over files except those in `rules`: `{"/usr": "read execute", "/tmp": ["read", "write"]}`. A rule
# is a path, and words: `RIGHTS[word]` are the kernel's rights. Return the ABI.
#
# - A path may be a file. On what is no directory only `FILE_RIGHTS` can be allowed; others, such as to read a
#   directory, the kernel refuses with EINVAL.
# - A right in a rule that this kernel does not handle is EINVAL too.
# - Which rights must the set handle, so that `{"/usr": "read"}` alone forbids to *write*, everywhere?

# %%
# %%exercise landlock.restrict_paths
import stat

from minicontainer.linux.landlock import (
    FILE_RIGHTS,
    LANDLOCK_RULE_PATH_BENEATH,
    LandlockPathBeneathAttr,
    LandlockRulesetAttr,
    handled_fs,
    landlock_abi,
    landlock_add_rule,
    landlock_create_ruleset,
    landlock_restrict_self,
)
from minicontainer.steps.landlock import RIGHTS


def restrict_paths(rules):
    """Give up every right over files except those in `rules`, a mapping from paths to words of RIGHTS."""
    # SOLUTION BEGIN
    abi = landlock_abi()
    ruleset = landlock_create_ruleset(LandlockRulesetAttr(handled_fs(abi), 0, 0))
    for path, words in rules.items():
        rights = 0
        for word in words.split() if isinstance(words, str) else words:
            rights |= RIGHTS[word] & handled_fs(abi)
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= FILE_RIGHTS
        landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, LandlockPathBeneathAttr(rights, place))
        os.close(place)
    landlock_restrict_self(ruleset)
    os.close(ruleset)
    return abi
    # SOLUTION END


# %%
# %%apart
restrict_paths({"/usr": "read", "/tmp": "read write"})
for path, mode in (("/usr/bin/env", "rb"), ("/etc/passwd", "rb"), ("/tmp/landlock", "w"), ("/usr/new", "w")):
    try:
        open(path, mode).close()
        print(path, "opened")
    except OSError as error:
        print(path, error.strerror)
os.unlink("/tmp/landlock")

# %% [markdown]
# ## Four: masks
#
# /proc and /sys are not namespaced all through. `/proc/kcore` is the memory of the machine, `/proc/keys` its keys. A
# runtime **masks** such paths: it mounts something empty over them, after it has changed its root, as the last of all
# mounts. It is one line, and runc had it wrong until November 2025 (CVE-2025-31133): it mounted `/dev/null` *by name*,
# and the image had made `/dev/null` a link to `/proc/sys/kernel/core_pattern`. The "mask" was then the host's file, open
# for writing.
#
# ## Exercise 4: `mask_paths`
#
# ```
# mask_paths(paths: list[str]) -> None
# ```
#
# Cover each of these paths of the calling process's mount namespace: a directory with an empty tmpfs that nobody can
# write to (`MS_RDONLY`), anything else with the null device (`MS_BIND`). What is not there is no error.
#
# - What you mount as the null device *is* the null device, character device 1:3, or nothing is mounted and an OSError
#   is raised. Open it once, `O_PATH | O_NOFOLLOW`; look at what you have opened, with `os.fstat`; mount that:
#   `/proc/self/fd/N` is a path to what you have open, whatever its name says by now.

# %%
# %%exercise masks.mask_paths
import errno
import stat


def mask_paths(paths):
    """Cover directories with an empty one, read-only, and anything else with the null device."""
    # SOLUTION BEGIN
    null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    about = os.fstat(null)
    if not stat.S_ISCHR(about.st_mode) or about.st_rdev != os.makedev(1, 3):
        raise OSError(errno.EPERM, "/dev/null is not the null device")
    for path in paths:
        try:
            place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(os.fstat(place).st_mode):
            flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
            mount("tmpfs", f"/proc/self/fd/{place}", "tmpfs", flags, "size=0k")
        else:
            mount(f"/proc/self/fd/{null}", f"/proc/self/fd/{place}", None, MS_BIND)
        os.close(place)
    os.close(null)
    # SOLUTION END


# %%
# %%apart
from pathlib import Path

print(len(Path("/proc/uptime").read_bytes()), "bytes,", len(os.listdir("/proc/fs")), "names")
mask_paths(["/proc/uptime", "/proc/fs", "/proc/not-there"])
print(len(Path("/proc/uptime").read_bytes()), "bytes,", len(os.listdir("/proc/fs")), "names")

# %% [markdown]
# ## What does the kernel think?
#
# Your functions confine a process. It then executes a program of the examiner's, which tries the ways out one by one,
# each in a child whose exit status is the errno. /proc/PID/status and mountinfo are read from outside.

# %%
# %check 15

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 15 --subject notebooks/15-hardening.ipynb
# minicontainer --steps notebooks/15-hardening.ipynb run --rm busybox grep -e Cap -e Seccomp /proc/self/status
# ```
#
# ## What to take away
#
# - Root is a number; what it may do is in five sets, and for uid 0 the bounding set decides.
# - A filter goes by the call, Landlock by the path, capabilities by the privilege. None sees what the others see.
# - A list of what is allowed is a wall, a list of what is forbidden a fence: the kernel grows.
# - Every one of these fails *open* when it is forgotten: nothing in the container looks different. So what was not
#   applied must be an error, and what was applied must be looked at from outside.
# - Check what you hold, not what you named.
#
# ## Going further
#
# 1. Load a filter twice with different answers for one call. Which wins? ("Precedence", seccomp(2).)
# 2. What happens without the look at the architecture? `int 0x80` from a 64-bit program makes i386 calls.
# 3. With `SCMP_ACT_NOTIFY`, somebody reads the path out of the caller's memory, finds it harmless, and lets the kernel
#    go on. Why is that no protection?
# 4. The real `restrict_paths` of this course knows TCP ports too. Add them (ABI 4).
# 5. Order them: user, no_new_privs, bounding set, capset, filter, Landlock, execve. Which pairs cannot be swapped?
#    `minicontainer/runtime/confinement.py` has our answer.
