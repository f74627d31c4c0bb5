"""Sysctls in which distributions differ, and which decide what a process in a container can do to others.

proc_sys_fs(5), proc_sys_kernel(5). None of them has a namespace: what is open here is open in every container.
"""

from __future__ import annotations

from minicontainer.engine.host.finding import Finding, content
from minicontainer.engine.host.kernel import Kernel, build_with, named

SYSCTLS = (
    # what, sysctl, its least value where it is closed; what that means, and what it means where it is open
    ("links in sticky directories", "fs.protected_symlinks", 1,
     "followed by their owners only", "anybody's link in /tmp leads whoever follows it"),
    ("hard links", "fs.protected_hardlinks", 1,
     "to one's own files only", "anybody links to files of others, setuid ones too"),
    ("FIFOs in sticky directories", "fs.protected_fifos", 1,
     "opened by their owners only", "anybody's FIFO in /tmp takes what others write"),
    ("files in sticky directories", "fs.protected_regular", 1,
     "opened by their owners only", "anybody's file in /tmp takes what others write"),
    ("kernel log", "kernel.dmesg_restrict", 1,
     "for CAP_SYSLOG only", "everybody reads it, in containers too"),
    ("kernel addresses", "kernel.kptr_restrict", 1,
     "hidden in /proc", "root of a container reads them"),
    ("unprivileged BPF", "kernel.unprivileged_bpf_disabled", 1,
     "closed", "everybody loads programs into the kernel"),
    ("performance events", "kernel.perf_event_paranoid", 2,
     "of one's own processes only", "everybody measures what the kernel does"),
    ("ptrace (Yama)", "kernel.yama.ptrace_scope", 1,
     "of one's own children only", "a process reads the memory of others of the same user"),
)  # fmt: skip

MADE_BY = {"kernel.yama.ptrace_scope": "SECURITY_YAMA", "kernel.unprivileged_bpf_disabled": "BPF_SYSCALL"}
"""Sysctls that only some kernels have, and the option that brings them."""


def of_sysctls(kernel: Kernel) -> list[Finding]:
    """The findings about sysctls, and about what else is the same for all containers."""
    return [*(_sysctl(*line) for line in SYSCTLS), _core_dumps(), _vsyscall(kernel)]


def _sysctl(feature: str, name: str, least: int, closed: str, opened: str) -> Finding:
    value, option = content(f"/proc/sys/{name.replace('.', '/')}"), MADE_BY.get(name)
    options = named((option,)) if option else ()
    if not value.lstrip("-").isdecimal():
        mend = build_with((option,)) if option else "run a newer kernel"
        return Finding(feature, False, f"there is no {name}: {opened}", mend, options=options)
    works = int(value) >= least
    shows, mend = f"{name}={value}: {closed if works else opened}", f"as root: sysctl {name}={least}"
    return Finding(feature, works, shows, mend, options=options)


def _core_dumps() -> Finding:
    """A program that core_pattern names runs as root outside of every container, for a process inside."""
    pattern = content("/proc/sys/kernel/core_pattern")
    shows = f"core_pattern={pattern}: written where the process is"
    if pattern.startswith("|"):
        shows = f"{pattern[1:].split(' ')[0]} runs on the host for a process that crashes in a container"
    return Finding("core dumps", True, shows)


def _vsyscall(kernel: Kernel) -> Finding:
    """A page of code at the same address in every process is what an attacker jumps to."""
    page = next((line for line in content("/proc/self/maps").split("\n") if "[vsyscall]" in line), "")
    native = "LEGACY_VSYSCALL_NATIVE" in kernel.options
    shows = f"there, {page.split()[1]}" if page else "there is none"
    if native:
        shows = "native: code at a known address"
    return Finding("vsyscall page", not native, shows, "boot with vsyscall=none")
