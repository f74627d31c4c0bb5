"""Who may start containers: root, and whether an ordinary user may too.

What stands between an ordinary user and a user namespace differs from one distribution to another, so root tries it as
somebody else; the switches only say why it fails.
"""

from __future__ import annotations

import os

from minicontainer.engine.host.finding import Finding, content
from minicontainer.engine.host.probing import attempt, be_root_of_a_new_user_namespace, become_ordinary
from minicontainer.linux import CLONE_NEWNS, mount
from minicontainer.linux.capabilities import capget
from minicontainer.runtime.users import subordinate_ids

SWITCHES = {
    "/proc/sys/user/max_user_namespaces": ("0", "user.max_user_namespaces=10000"),
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "kernel.unprivileged_userns_clone=1"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "kernel.apparmor_restrict_unprivileged_userns=0"),
}
"""Sysctls with the value that closes user namespaces, and what to set: Linux, Debian, Ubuntu."""

ENOUGH = 65536
"""Ids of a container's users, as most images take them for granted."""


def of_users() -> list[Finding]:
    """The findings about the caller, and about ordinary users."""
    return [_privileges(), _user_namespaces(), _several_users(os.geteuid())]


def _privileges() -> Finding:
    if os.geteuid() != 0:
        shows = f"uid {os.geteuid()}: containers will be rootless, in a user namespace"
        return Finding("privileges", True, shows, required=True)
    mighty = "SYS_ADMIN" in capget()
    mend = "run it with that capability (in docker: --privileged), or as an ordinary user"
    return Finding("privileges", mighty, "root" if mighty else "root without CAP_SYS_ADMIN", mend, required=True)


def _user_namespaces() -> Finding:
    error, said = attempt(_rootless)
    feature, required, options = "user namespaces", os.geteuid() != 0, ("CONFIG_USER_NS",)
    if error == 0:
        return Finding(feature, True, "open to every user, with mounts of their own", "", required, options)
    for file, (closing, setting) in SWITCHES.items():
        if content(file) == closing:
            return Finding(feature, False, f"closed by {file}", f"as root: sysctl {setting}", required, options)
    mend = (
        "look for a seccomp filter or a security module that refuses it (in docker: --security-opt seccomp=unconfined)"
    )
    return Finding(feature, False, said, mend, required, options)


def _rootless() -> None:
    """A user namespace alone does not prove much: Ubuntu lets everybody have one in which nothing is allowed."""
    become_ordinary()
    be_root_of_a_new_user_namespace(CLONE_NEWNS)
    mount("none", "/tmp", "tmpfs")


def _several_users(uid: int) -> Finding:
    """newuidmap(1), newgidmap(1), and ranges for this user in subuid(5) and subgid(5)."""
    import shutil

    feature = "several users, rootless"
    tools = {name: shutil.which(name) for name in ("newuidmap", "newgidmap")}
    if missing := [name for name, path in tools.items() if not path]:
        return Finding(feature, False, f"there is no {' and no '.join(missing)}", "apt install uidmap")
    if weak := [path for path in tools.values() if path and not _may_map(path)]:
        mend = f"as root: chmod u+s {' '.join(weak)}"
        return Finding(feature, False, f"{weak[0]} is neither setuid root nor has CAP_SETUID", mend)
    if uid == 0:
        return Finding(feature, True, "newuidmap and newgidmap; root itself needs no ranges")
    ranges = {file: subordinate_ids(file, uid) for file in ("/etc/subuid", "/etc/subgid")}
    if empty := [file for file, mine in ranges.items() if not mine]:
        mend = "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"
        return Finding(feature, False, f"no range for this user in {' and '.join(empty)}", mend)
    few = min(sum(count for _, count in mine) for mine in ranges.values())
    shows = "newuidmap" + "".join(f", {count} ids from {first}" for first, count in ranges["/etc/subuid"])
    return Finding(feature, True, shows + (f"; images may want {ENOUGH}" if few < ENOUGH else ""))


def _may_map(path: str) -> bool:
    """Whether the program gets the right to map ids when it is executed: setuid, or a capability of the file's."""
    import stat

    status = os.stat(path)
    if status.st_mode & stat.S_ISUID and status.st_uid == 0:
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False
