"""Step 15, hardening: the label that a security module knows the program by.

apparmor(7), selinux(8), proc_pid_attr(5), OCI runtime specification, config.md, "apparmorProfile" and "selinuxLabel".
The label is asked for now and given by the next execve(2). Where it is written is a file below /proc, and so it is a
/proc that has been looked at: CVE-2019-16884 and CVE-2025-52881 had another one there, and containers without a label.
"""

from __future__ import annotations

import os

from minicontainer.linux import fstatfs
from minicontainer.linux.procfs import open_in_proc, open_proc, write_in_proc

SELINUX_MAGIC = 0xF97CFF8C


def label_exec(apparmor: str | None = None, selinux: str | None = None, proc: str | int = "/proc") -> list[str]:
    """Let the next program that this process executes run under this AppArmor profile, with this SELinux label.

    A label is recorded where its module is active. Where it is not, nobody would enforce it, and the specification
    leaves open what is to be done then: we go on, and return a sentence for each that was left out, to be logged.

    Raises OSError: EPERM (`proc` is no proc file system, or something is mounted in it), ENOENT (AppArmor has no such
    profile loaded), EACCES (the caller may not change to it), EINVAL (SELinux has no such label).
    """
    missing = []
    root = open_proc(proc)
    try:
        if apparmor:
            if _apparmor_is_active(root):
                write_in_proc(root, "self/attr/apparmor/exec", f"exec {apparmor}")
            elif apparmor != "unconfined":
                missing.append(f"the profile {apparmor} is not applied: AppArmor is not active on this host")
        if selinux:
            if _selinux_is_active():
                write_in_proc(root, "self/attr/exec", selinux)
            else:
                missing.append(f"the label {selinux} is not applied: SELinux is not active on this host")
    finally:
        os.close(root)
    return missing


def _apparmor_is_active(proc: int) -> bool:
    """The directory is there in every kernel that has it compiled in, and readable where it was switched on."""
    try:
        file = open_in_proc(proc, "self/attr/apparmor/current", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return bool(os.read(file, 1))
    except OSError:
        return False
    finally:
        os.close(file)


def _selinux_is_active() -> bool:
    """It is, where its file system is mounted, as is_selinux_enabled(3) has it. The host's: before `mount.pivot`."""
    try:
        directory = os.open("/sys/fs/selinux", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fstatfs(directory) == SELINUX_MAGIC
    finally:
        os.close(directory)
