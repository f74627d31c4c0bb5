"""Lab 15, hardening: what a process can still do, as the kernel has it in /proc and as its programs' attempts end.

The submission's functions confine a process; that executes a program of ours, which tries what containers were broken
out of with, and whose exit statuses are the kernel's answers (`labs.grading.attempts`).
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
from collections.abc import Mapping

from labs.grading.attempts import KILLED, Attempts, Call, told
from labs.grading.checks import Wrong, check
from labs.grading.classroom import PLACE, sights
from labs.grading.observed import MountInfo, Observed
from labs.grading.subject import Performed, Subject
from minicontainer.linux import CLONE_NEWUSER
from minicontainer.linux.capabilities import NAMES, mask_of, names_of
from minicontainer.linux.landlock import landlock_abi
from minicontainer.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER
from minicontainer.runtime.seccomp_default import PROFILE
from minicontainer.steps.seccomp import compile_filter

SLEEP = ["sleep", "600"]
SETS = {
    "bounding": "CapBnd",
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "ambient": "CapAmb",
}
"""The arguments of drop_capabilities in their order, and their lines in /proc/PID/status."""

AT_FDCWD = -100
PTRACE_SEIZE = 0x4206
KEYCTL_JOIN_SESSION_KEYRING = 1
AF_PACKET, SOCK_RAW = 17, 3
DISK = os.makedev(8, 0)
LISTENER = "anon_inode:seccomp notify"
ERRNOS = (errno.ENOTSUP, errno.EDOM, errno.EXDEV, errno.ENOSPC, errno.EILSEQ)
"""None of them is what the calls in question would fail with by themselves."""


# drop_capabilities


@check("The five sets are as they were asked for", exercise="capabilities.drop_capabilities", points=1)
def test_sets(subject: Subject) -> None:
    """capabilities(7), "Thread capability sets"; the lines CapInh to CapAmb of /proc/PID/status"""
    names = _shuffled(_held(subject))
    sets = {
        "bounding": names[:12],
        "effective": names[6:11],
        "permitted": names[3:16],
        "inheritable": names[4:9],
        "ambient": names[4:7],
    }
    process = subject.perform("capabilities.drop_capabilities", *sets.values())
    found = {name: int(process.status(line), 16) for name, line in SETS.items()}
    subject.saw("; ".join(f"{name}: asked for {mask_of(sets[name]):#x}, is {found[name]:#x}" for name in SETS))
    if found["bounding"] & ~mask_of(sets["bounding"]):
        raise Wrong(_bounding_left(found["bounding"] & ~mask_of(sets["bounding"])))
    for name, is_now in found.items():
        wanted = mask_of(sets[name])
        if is_now != wanted:
            extra, missing = names_of(is_now & ~wanted), names_of(wanted & ~is_now)
            raise Wrong(
                f"the {name} set ({SETS[name]}) is not what was asked for: it has {_list(extra)} too many, and "
                f"{_list(missing)} is missing. bounding and ambient are changed by prctl(2), one capability at a time, "
                f"the other three by one capset(2)"
            )


@check("A program that root executes has no more than that", exercise="capabilities.drop_capabilities", points=1)
def test_program(subject: Subject) -> None:
    """capabilities(7), "Capabilities and execution of programs by root": P'(permitted) = P(inheritable) | P(bounding)"""
    directory = subject.scratch()
    probes: dict[str, Call] = {
        "CAP_SYS_ADMIN": ("mount", ["none", directory, "tmpfs", 0, 0]),
        "CAP_SYS_CHROOT": ("chroot", ["/"]),
        "CAP_NET_RAW": ("socket", [AF_PACKET, SOCK_RAW, 0]),
        "CAP_SYS_PTRACE": ("ptrace", [PTRACE_SEIZE, 1, 0, 0]),
    }
    never: dict[str, Call] = {
        "the host's disk": ("mknodat", [AT_FDCWD, f"{directory}/disk", stat.S_IFBLK | 0o600, DISK]),
        "core_pattern": ("openat", [AT_FDCWD, "/proc/sys/kernel/core_pattern", os.O_WRONLY, 0]),
    }
    before = Attempts(subject, subject.perform("os.getpid"), list(probes.values()))
    chosen = _shuffled([name for name, result in zip(probes, before.results, strict=True) if result == 0])
    if len(chosen) < 3:
        raise RuntimeError(f"with every capability, this host refuses {', '.join(probes)}: {before}")
    keep = [*chosen[:2], "CAP_CHOWN", "CAP_KILL"]
    process = subject.perform("capabilities.drop_capabilities", keep, keep, keep, [], [])
    tries = Attempts(subject, process, [*probes.values(), *never.values()])
    results = dict(zip((*probes, *never), tries.results, strict=True))
    effective = int(tries.program.status("CapEff"), 16)
    subject.saw(f"kept {_list(keep)}; a program that was executed has CapEff {effective:016x}")
    subject.saw("; ".join(f"{name}: {told(result)}" for name, result in results.items()))
    if effective & ~mask_of(keep):
        raise Wrong(
            f"in the program that was executed, {_list(names_of(effective & ~mask_of(keep)))} is there again: what uid 0 "
            f"executes gets all of the bounding set, whatever the other sets were. "
            f"{_bounding_left(int(process.status('CapBnd'), 16) & ~mask_of(keep))}"
        )
    for name in chosen:
        if (results[name] == 0) != (name in keep):
            call = probes[name][0]
            raise Wrong(
                f"{name} was {'kept' if name in keep else 'dropped'}, and {call}(2) in a program that was executed: "
                f"{told(results[name])}; its effective set is {effective:#x}"
            )
    if not all(results[name] for name in never):
        raise Wrong("the host's disk can be opened, or the host's core_pattern written: no user namespace holds you")


@check("What cannot be had is left out, and the rest stands", exercise="capabilities.drop_capabilities", points=1)
def test_unknown(subject: Subject) -> None:
    """OCI runtime-spec, config.md, "capabilities": what cannot be granted is a warning, not an error"""
    held = _held(subject)
    missing = [f"CAP_{name}" for name in NAMES if f"CAP_{name}" not in (*held, "CAP_SETPCAP")]
    wish = [*_shuffled(held)[:5], *missing, "CAP_TO_FLY"]
    possible = mask_of(wish) & mask_of(held)
    subject.perform("capabilities.drop_capabilities", held, held, held, [], [])
    try:
        process = subject.perform("capabilities.drop_capabilities", wish, wish, wish, wish, wish)
    except Wrong as refused:
        raise Wrong(
            f"asked for {_list([*missing, 'CAP_TO_FLY'])}, which this process has not got, it failed: {refused}. A "
            f"configuration serves many kernels: what cannot be had is left out, and less is always safe"
        ) from None
    found = {name: int(process.status(line), 16) for name, line in SETS.items()}
    subject.saw(f"asked for {_list(wish)}; " + ", ".join(f"{name} {mask:#x}" for name, mask in found.items()))
    for name, mask in found.items():
        if mask != possible:
            raise Wrong(
                f"of {_list(wish)} this process can have {possible:#x}, and its {name} set is {mask:#x}: only what "
                f"cannot be had is to be left out"
            )


# filter_syscalls


@check("The kernel asks the program about every call", exercise="seccomp.filter_syscalls", points=1)
def test_answers(subject: Subject) -> None:
    """seccomp(2); the lines Seccomp, Seccomp_filters and NoNewPrivs of /proc/PID/status"""
    calls = _shuffled(["mkdirat", "symlinkat", "mknodat", "linkat"])
    number = secrets.choice(ERRNOS)
    rules = [
        {"names": [calls[0]], "action": "SCMP_ACT_ERRNO", "errnoRet": number},
        {"names": [calls[1]], "action": "SCMP_ACT_KILL_PROCESS"},
    ]
    directory = subject.scratch()
    file = f"{directory}/file"
    subject.perform([("os.open", [file, os.O_CREAT | os.O_WRONLY, 0o600])])
    arguments: dict[str, list[int | str]] = {
        "mkdirat": [AT_FDCWD, f"{directory}/mkdirat", 0o700],
        "symlinkat": ["/", AT_FDCWD, f"{directory}/symlinkat"],
        "mknodat": [AT_FDCWD, f"{directory}/mknodat", stat.S_IFIFO | 0o600, 0],
        "linkat": [AT_FDCWD, file, AT_FDCWD, f"{directory}/linkat", 0],
    }
    process = subject.perform("seccomp.filter_syscalls", _program({**ALLOW, "syscalls": rules}))
    tries = Attempts(subject, process, [(name, arguments[name]) for name in calls])
    filters = int(tries.program.status("Seccomp_filters")) - int(subject.sandbox.status("Seccomp_filters"))
    subject.saw(
        f"{calls[0]} is to fail with {errno.errorcode[number]}, {calls[1]} to kill, {calls[2]} and {calls[3]} to "
        f"work; of a program that was executed: {tries}; Seccomp_filters: {filters} more than before"
    )
    made = [name for name in subject.sandbox.listdir(directory) if name != "file"]
    if not filters:
        raise Wrong(
            f"the process has no filter (Seccomp: {process.status('Seccomp')}), and {_list(sorted(made))} did their "
            f"work: the program was not given to the kernel, or not by the process that was to be filtered"
        )
    if tries.results != [number, KILLED + signal.SIGSYS, 0, 0] or sorted(made) != sorted(calls[2:]):
        raise Wrong(
            f"there is a filter, and its answers are not those of the program: {calls[0]} was to fail with "
            f"{errno.errorcode[number]}, {calls[1]} to kill (SIGSYS), the others to work; they ended with {tries}"
        )
    if process.status("NoNewPrivs") != subject.sandbox.status("NoNewPrivs"):
        raise Wrong(
            "no_new_privs is set: that makes set-user-ID programs powerless, which is for the configuration to say, "
            "and was not asked for. Who has CAP_SYS_ADMIN may load a filter without it"
        )
    rules[0] = {"names": [calls[0]], "action": "SCMP_ACT_NOTIFY"}
    asked = subject.perform(
        "seccomp.filter_syscalls", _program({**ALLOW, "syscalls": rules}), SECCOMP_FILTER_FLAG_NEW_LISTENER
    )
    listeners = [fd for fd, what in asked.open_files().items() if what == LISTENER]
    subject.saw(f"with SECCOMP_FILTER_FLAG_NEW_LISTENER: listeners {listeners}, returned {asked.returned}")
    if not listeners:
        raise Wrong(
            "with SECCOMP_FILTER_FLAG_NEW_LISTENER there is no listener among the process's open files: the flags were "
            "not given to the kernel"
        )
    if asked.returned not in listeners:
        raise Wrong(
            f"the listener is file descriptor {listeners[0]}, and {asked.returned!r} was returned: nobody finds it"
        )


@check("Known ways out are closed, with every capability", exercise="seccomp.filter_syscalls", points=1)
def test_escapes(subject: Subject) -> None:
    """minicontainer/runtime/seccomp_default.py, and which of its calls CVE-2022-0185 and CVE-2022-0492 took"""
    directory = subject.scratch()
    escapes: list[Call] = [
        ("unshare", [CLONE_NEWUSER]),  # CVE-2022-0185, and 0492: all capabilities, in a namespace of one's own
        ("mount", ["none", directory, "tmpfs", 0, 0]),
        ("keyctl", [KEYCTL_JOIN_SESSION_KEYRING, 0]),  # keys have no namespace
        ("fsopen", ["tmpfs", 0]),
    ]
    privileged: list[Call] = [
        ("open_by_handle_at", [AT_FDCWD, 0, 0]),  # "shocker": files by number, below the root or not
        ("bpf", [0, 0, 0]),
        ("init_module", [0, 0, ""]),
        ("kexec_load", [0, 0, 0, 0]),
        ("swapoff", [""]),
    ]
    before = Attempts(subject, subject.perform("os.getpid"), escapes)
    process = subject.perform("seccomp.filter_syscalls", _program(PROFILE))
    after = Attempts(subject, process, [*escapes, *privileged])
    names = [name for name, _ in (*escapes, *privileged)]
    subject.saw(f"{_list(names[: len(escapes)])}: before {before}, after {after}")
    if all(before.results):
        raise RuntimeError(f"without a filter, this host refuses {before}: nothing can be seen of one")
    for name, result in zip(names, after.results, strict=True):
        if result != errno.EPERM:
            raise Wrong(
                f"with the engine's own profile, {name}(2) ends with {told(result)}, and it was to be EPERM: the "
                f"program was not given to the kernel, or not all of it"
            )


@check("A filter that was not loaded is an error", exercise="seccomp.filter_syscalls", points=1)
def test_refused(subject: Subject) -> None:
    """seccomp(2), EINVAL; a container that starts without the filter that it was to have looks as if it had one"""
    good = subject.perform("seccomp.filter_syscalls", _program(ALLOW))
    if good.status("Seccomp") != "2":
        raise Wrong(f"a good program was not loaded either: Seccomp: {good.status('Seccomp')} in /proc/PID/status")
    for what, program in (("one that has no end", compile_filter(ALLOW)[:8]), ("an empty one", b"")):
        try:
            process = subject.perform("seccomp.filter_syscalls", {"bytes": program.hex()})
        except Wrong as refused:
            subject.saw(f"{what}: {refused}")
        else:
            raise Wrong(
                f"the kernel does not take such a program ({what}), and the function returned as if it had: Seccomp: "
                f"{process.status('Seccomp')}. What fails has to be heard, else a container runs without its filter"
            )


# restrict_paths


@check("Only what a rule names can be opened", exercise="landlock.restrict_paths", points=1)
def test_beneath(subject: Subject) -> None:
    """landlock(7), landlock_add_rule(2): LANDLOCK_RULE_PATH_BENEATH; what no rule allows is refused, with EACCES"""
    landlock_abi()  # where this kernel has none, it is not the submission's fault
    directory = subject.scratch("open/deep", "shut")
    files = [f"{directory}/open/deep/file", f"{directory}/shut/file"]
    subject.perform([("os.open", [file, os.O_CREAT | os.O_WRONLY, 0o666]) for file in files])
    process = subject.perform("landlock.restrict_paths", {**_programs(), f"{directory}/open": "read"})
    reading = os.O_RDONLY
    calls: list[Call] = [
        ("openat", [AT_FDCWD, files[0], reading, 0]),
        ("openat", [AT_FDCWD, f"{directory}/open", reading | os.O_DIRECTORY, 0]),
        ("openat", [AT_FDCWD, files[1], reading, 0]),
        ("openat", [AT_FDCWD, f"{directory}/open/../shut/file", reading, 0]),
        ("openat", [AT_FDCWD, "/proc/1/environ", reading, 0]),
        ("openat", [AT_FDCWD, "/", reading | os.O_DIRECTORY, 0]),
        ("mount", ["none", f"{directory}/open", "tmpfs", 0, 0]),
    ]
    tries = Attempts(subject, process, calls)
    subject.saw(f"a file and a directory below the rule's path: {told(tries.results[0])}, {told(tries.results[1])}")
    subject.saw(f"beside it, through .., /proc/1/environ, /: {', '.join(map(told, tries.results[2:6]))}")
    if tries.results[2:6] != [errno.EACCES] * 4 or tries.results[6] != errno.EPERM:
        raise Wrong(
            f"what no rule names could be opened: beside the rule's path {told(tries.results[2])}, through .. "
            f"{told(tries.results[3])}, /proc/1/environ {told(tries.results[4])}, / {told(tries.results[5])}; mount(2) "
            f"{told(tries.results[6])}. A set of rules holds nobody before landlock_restrict_self(2)"
        )
    if any(tries.results[:2]):
        raise Wrong(
            f"with a rule that allows to read below {directory}/open, a file deep in there: {told(tries.results[0])}, the "
            f"directory itself: {told(tries.results[1])}. All rules belong into one set: several sets bind together"
        )


@check("Each rule gives the rights that it says", exercise="landlock.restrict_paths", points=1)
def test_rights(subject: Subject) -> None:
    """landlock_create_ruleset(2): handled_access_fs is what is refused unless allowed; linux/landlock.py: FILE_RIGHTS"""
    landlock_abi()
    directory = subject.scratch("look", "work")
    files = [f"{directory}/look/file", f"{directory}/work/file", f"{directory}/alone"]
    subject.perform([("os.open", [file, os.O_CREAT | os.O_WRONLY, 0o666]) for file in files])
    only_reading = {**_programs(), f"{directory}/look": "read", files[2]: "read"}
    process = subject.perform("landlock.restrict_paths", only_reading)
    strict = Attempts(subject, process, [
        ("openat", [AT_FDCWD, files[2], os.O_RDONLY, 0]),
        ("openat", [AT_FDCWD, files[0], os.O_WRONLY, 0]),
        ("mkdirat", [AT_FDCWD, f"{directory}/look/new", 0o700]),
        ("openat", [AT_FDCWD, f"{directory}/secret", os.O_CREAT | os.O_WRONLY, 0o600]),
    ])  # fmt: skip
    subject.saw(
        f'rules with "read" alone: to read the file that has a rule of its own {told(strict.results[0])}; to write, '
        f"make a directory, and make a file elsewhere: {', '.join(map(told, strict.results[1:]))}"
    )
    if not all(strict.results[1:]):
        raise Wrong(
            f'rules that allow to "read", and somebody could write, or make something '
            f"({', '.join(map(told, strict.results[1:]))}): a right that the set does not *handle* is not refused to "
            f"anybody. It has to handle every right that the kernel knows, not those that some rule happens to allow"
        )
    if strict.results[0]:
        raise Wrong(f"a file that a rule names by itself could not be read: {told(strict.results[0])}")
    process = subject.perform("landlock.restrict_paths", {**only_reading, f"{directory}/work": ["read", "write"]})
    mixed = Attempts(subject, process, [
        ("openat", [AT_FDCWD, files[1], os.O_WRONLY, 0]),
        ("mkdirat", [AT_FDCWD, f"{directory}/work/new", 0o700]),
        ("openat", [AT_FDCWD, files[0], os.O_WRONLY, 0]),
        ("mkdirat", [AT_FDCWD, f"{directory}/look/new", 0o700]),
    ])  # fmt: skip
    subject.saw(f'"read" and "write" on one directory, "read" on the other: {mixed}')
    if mixed.results != [0, 0, errno.EACCES, errno.EACCES]:
        raise Wrong(
            f'"read" and "write" on one directory, "read" alone on another: to write and make a directory in the first '
            f"{told(mixed.results[0])}, {told(mixed.results[1])}; in the second {told(mixed.results[2])}, "
            f"{told(mixed.results[3])}. Each rule has the rights that stand beside its own path"
        )


# mask_paths


@check("A masked file reads as nothing, a directory is empty", exercise="masks.mask_paths", points=1)
def test_masked(subject: Subject) -> None:
    """OCI runtime-spec, config-linux.md, "Masked Paths"; the lines of /proc/PID/mountinfo"""
    bare = subject.start(SLEEP)
    directories, files = ["/proc/fs", "/proc/bus", "/proc/irq", "/proc/tty"], ["/proc/keys", "/proc/timer_list"]
    there = [path for path in [*directories, "/proc/kcore", *files] if _exists(bare, path)]
    paths = [
        *_shuffled([path for path in there if path in directories])[:2],
        *[path for path in there if path not in directories],
    ]
    container = subject.start(SLEEP, masked_paths=[f"/proc/{subject.name('missing')}", *paths])
    for path in paths:
        is_directory = path in directories
        mount = _mount_at(container, path)
        about = container.stat(path)
        subject.saw(f"{path}: {f'{mount.fstype}, {chr(44).join(mount.options)}' if mount else 'no mount'}")
        if mount is None:
            raise Wrong(f"{path} is not covered: nothing is mounted on it in the container's mountinfo")
        if not is_directory and not _is_null(about):
            raise Wrong(f"{path} is covered with something that is not the null device, {mount.root} of {mount.fstype}")
        if not is_directory:
            continue
        if not stat.S_ISDIR(about.st_mode) or container.listdir(path):
            raise Wrong(f"{path} is covered with something that is no empty directory: {mount.fstype} {mount.root}")
        if "ro" not in mount.options and "ro" not in mount.super_options:
            raise Wrong(
                f"the directory that covers {path} can be written to ({','.join(mount.options)}): whoever is root in "
                f"there puts what they like in its place, for programs that believe what is in /proc. MS_RDONLY"
            )


@check("It is the null device, or it is an error", exercise="masks.mask_paths", points=1)
def test_null_device(subject: Subject) -> None:
    """CVE-2025-31133: /dev/null that the image had made a link; null(4): character device 1:3"""
    target = f"{subject.scratch()}/instead"
    covered = "/proc/uptime"
    honest = subject.perform([("mount.make_private", []), ("masks.mask_paths", [[covered]])])
    if not _is_null(honest.stat(covered)):
        raise Wrong(f"with a good /dev/null, {covered} is not covered with it either")
    process = subject.perform([
        ("mount.make_private", []),
        ("os.open", [target, os.O_CREAT | os.O_WRONLY, 0o666]),
        ("linux.mount", ["tmpfs", "/dev", "tmpfs"]),
        ("os.symlink", [target, "/dev/null"]),
    ])  # fmt: skip
    try:
        process.then("masks.mask_paths", [covered])
    except Wrong as refused:
        subject.saw(f"with a /dev/null that is a link to a file: {refused}")
        told_so = True
    else:
        subject.saw("with a /dev/null that is a link to a file, it returned as if all was well")
        told_so = False
    mount = _mount_at(process, covered)
    if mount is not None and not _is_null(process.stat(covered)):
        raise Wrong(
            f"/dev/null was a link, to {target}, and that is what {covered} was covered with: who made the image chose "
            f"what the host mounts. Open /dev/null with O_PATH | O_NOFOLLOW, look with fstat(2) whether it is the "
            f"character device 1:3, and mount what you have looked at: /proc/self/fd/N"
        )
    if mount is None and not told_so:
        raise Wrong(
            f"/dev/null was not the null device, {covered} is not covered, and nobody was told: raise an OSError"
        )


# How it is looked at

ALLOW = {"defaultAction": "SCMP_ACT_ALLOW"}


def _program(profile: Mapping[str, object]) -> dict[str, str]:
    return {"bytes": compile_filter(profile).hex()}


def _programs() -> dict[str, str]:
    """The rules without which nothing can be executed in a sandbox."""
    return {path: "read execute" for path in (*sights(), PLACE) if os.path.isdir(path) or path == PLACE}


def _held(subject: Subject) -> list[str]:
    """What can be had in the sandbox; without what it takes to change it."""
    held = names_of(int(subject.sandbox.status("CapPrm"), 16) & int(subject.sandbox.status("CapBnd"), 16))
    return [name for name in held if name != "CAP_SETPCAP"]


def _shuffled(names: list[str]) -> list[str]:
    return secrets.SystemRandom().sample(names, len(names))


def _bounding_left(mask: int) -> str:
    return (
        f"the bounding set still has {_list(names_of(mask))}: it is limited with prctl(PR_CAPBSET_DROP), one after the "
        f"other, for every number that the kernel has"
    )


def _list(names: list[str]) -> str:
    if len(names) > 6:
        return f"{', '.join(names[:5])} and {len(names) - 5} more"
    return ", ".join(names) or "none"


def _mount_at(process: Observed, path: str) -> MountInfo | None:
    """The uppermost mount at exactly this place."""
    found = [mount for mount in process.mountinfo() if mount.mountpoint == path]
    return found[-1] if found else None


def _is_null(about: os.stat_result) -> bool:
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == os.makedev(1, 3)


def _exists(process: Performed, path: str) -> bool:
    try:
        process.stat(path)
    except OSError:
        return False
    return True
