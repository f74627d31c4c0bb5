"""Security modules: which are active, and what they do for a container.

A kernel has several compiled in, and boots with some of them (``lsm=`` on its command line). Labels of AppArmor and
SELinux are recorded where one of the two is active; Landlock is there for whoever asks.
"""

from __future__ import annotations

import errno
import os

from minicontainer.engine.host.finding import Finding, content
from minicontainer.engine.host.kernel import Kernel, build_with, named
from minicontainer.engine.host.probing import attempt, isolate
from minicontainer.linux import CLONE_NEWNS, PR_SET_NO_NEW_PRIVS, fstatfs, landlock, mount, prctl
from minicontainer.linux.syscalls import call

SECURITYFS, SELINUXFS, SELINUX_MAGIC = "/sys/kernel/security", "/sys/fs/selinux", 0xF97CFF8C

LSM_IDS = {
    100: "capability", 101: "selinux", 102: "smack", 103: "tomoyo", 104: "apparmor", 105: "yama", 106: "loadpin",
    107: "safesetid", 108: "lockdown", 109: "bpf", 110: "landlock", 111: "ima", 112: "evm", 113: "ipe",
}  # fmt: skip
"""LSM_ID_* of include/uapi/linux/lsm.h."""

LANDLOCK_KNOWS = (
    (1, "files"), (2, "renaming"), (3, "truncate"), (4, "TCP ports"), (5, "ioctl"), (6, "signals and sockets"),
)  # fmt: skip
"""What each ABI brought; landlock(7)."""


def of_security_modules(kernel: Kernel) -> list[Finding]:
    """The findings about security modules."""
    active = active_modules()
    return [_modules(active), _landlock(), _apparmor(kernel, active), _selinux(kernel)]


def active_modules() -> list[str] | None:
    """The security modules that are active, in their order; None where nobody tells."""
    listed = content(f"{SECURITYFS}/lsm")
    for act in (_list_modules, _list_by_mount):
        if not listed:
            error, said = attempt(act)
            listed = "" if error else said
    return listed.split(",") if listed else None


def _list_modules() -> str:
    """lsm_list_modules(2), Linux 6.8."""
    import ctypes

    ids, size = (ctypes.c_uint64 * 64)(), ctypes.c_uint32(64 * 8)
    count = call("lsm_list_modules", ctypes.addressof(ids), ctypes.addressof(size), 0)
    return ",".join(LSM_IDS.get(number, str(number)) for number in ids[:count])


def _list_by_mount() -> str:
    isolate(CLONE_NEWNS)
    mount("securityfs", SECURITYFS, "securityfs")
    with open(f"{SECURITYFS}/lsm") as file:
        return file.read().strip()


def _modules(active: list[str] | None) -> Finding:
    mend = "as root: mount -t securityfs securityfs /sys/kernel/security; or run Linux 6.8 or newer"
    shows = " ".join(active) if active is not None else f"nothing tells: {SECURITYFS} is not mounted"
    return Finding("security modules", None if active is None else True, shows, mend, options=named(("SECURITYFS",)))


def _landlock() -> Finding:
    feature, options = "Landlock", named(("SECURITY_LANDLOCK",))
    error, said = attempt(_landlock_abi)
    if error == 0:
        known = [what for abi, what in LANDLOCK_KNOWS if abi <= int(said)]
        return Finding(feature, True, f"ABI {said}: {', '.join(known)}", options=options)
    mend = {
        errno.ENOSYS: build_with(("SECURITY_LANDLOCK",)),
        errno.EOPNOTSUPP: "boot with landlock in front of the others in lsm=",
    }
    return Finding(feature, False, said, mend.get(error, "look for a seccomp filter that refuses it"), options=options)


def _landlock_abi() -> int:
    """Its number, once a set of rules is made and in force."""
    abi = landlock.landlock_abi()
    ruleset = landlock.landlock_create_ruleset(landlock.LandlockRulesetAttr(landlock.handled_fs(abi), 0, 0))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    landlock.landlock_restrict_self(ruleset)
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    except PermissionError:
        return abi
    raise RuntimeError("Landlock is there, and restricts nothing")


def _apparmor(kernel: Kernel, active: list[str] | None) -> Finding:
    import shutil

    feature, options = "AppArmor", named(("SECURITY_APPARMOR",))
    enabled = content("/sys/module/apparmor/parameters/enabled") == "Y"
    if enabled or "apparmor" in (active or ()):
        current = content("/proc/self/attr/apparmor/current") or content("/proc/self/attr/current") or "unknown"
        parser = shutil.which("apparmor_parser", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        tools = "" if parser else "; no apparmor_parser to load profiles with: apt install apparmor"
        return Finding(feature, True, f"active; we are {current}{tools}", options=options)
    return _not_active(kernel, feature, "apparmor", "SECURITY_APPARMOR")


def _selinux(kernel: Kernel) -> Finding:
    """As is_selinux_enabled(3) has it: its file system is mounted."""
    try:
        directory = os.open(SELINUXFS, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return _not_active(kernel, "SELinux", "selinux", "SECURITY_SELINUX")
    try:
        active = fstatfs(directory) == SELINUX_MAGIC
    finally:
        os.close(directory)
    if not active:
        return _not_active(kernel, "SELinux", "selinux", "SECURITY_SELINUX")
    mode = "enforcing" if content(f"{SELINUXFS}/enforce") == "1" else "permissive"
    shows = f"{mode}; we are {content('/proc/self/attr/current') or 'unknown'}".replace("\0", "")
    return Finding("SELinux", True, shows, options=named(("SECURITY_SELINUX",)))


def _not_active(kernel: Kernel, feature: str, module: str, option: str) -> Finding:
    """Most hosts have one of the two, or none: containers are hardened without."""
    if kernel.lacking((option,)):
        shows, mend = f"CONFIG_{option} not set; labels are left out", build_with((option,))
    else:
        shows = "not active; labels are left out" + (", though it is compiled in" if kernel.source else "")
        mend = f"boot with {module} in lsm=, and install a policy; seccomp, capabilities and Landlock hold without"
    return Finding(feature, False, shows, mend, options=named((option,)))
