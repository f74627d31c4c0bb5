"""What this machine can do for containers:

every feature yes or no, why, and how to mend it. LXC's word: lxc-checkconfig.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from pathlib import Path

from minicontainer.images.busybox import static_busybox
from minicontainer.images.errors import ImageError
from minicontainer.linux import Namespace, in_user_namespace
from minicontainer.linux.capabilities import capget
from minicontainer.linux.cgroups import CONTROLLERS, Hierarchy, hierarchies, hierarchy_of, missing, mountable
from minicontainer.record import Record
from minicontainer.runtime.users import subordinate_ids


class Finding(Record):
    """One feature."""

    feature: str
    works: bool
    shows: str
    """What was found, or why not."""
    mend: str = ""
    """What to do, where it does not work."""
    required: bool = True
    """Without it no container starts."""


def examine(root: str | None = None) -> list[Finding]:
    """Every finding about this machine, for this user. The last one is the proof: a container is started."""
    return [_python(), *_namespaces(), _privileges(), *_users(), _overlay(), _busybox(), *_cgroups(), _trial(root)]


def report(findings: list[Finding], *, as_json: bool = False) -> str:
    """The findings as a table for people, or as JSON."""
    if as_json:
        return json.dumps([finding.asdict() for finding in findings], indent=2)
    width = max(len(finding.feature) for finding in findings)
    lines = []
    for finding in findings:
        mark = "yes" if finding.works else "NO " if finding.required else "no "
        lines.append(f"{finding.feature.ljust(width)}  {mark}  {finding.shows}")
        if not finding.works and finding.mend:
            lines.append(f"{''.ljust(width)}       → {finding.mend}")
    return "\n".join(lines)


def _python() -> Finding:
    version = platform.python_version()
    return Finding("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _namespaces() -> list[Finding]:
    return [
        Finding(
            f"{kind.proc_name} namespace",
            kind.supported,
            kind.isolates if kind.supported else f"this kernel ({platform.release()}) has none",
            f"it came with Linux {kind.since}; the kernel must be built with {kind.kernel_option}",
            required=kind not in (Namespace.USER, Namespace.TIME, Namespace.CGROUP),
        )
        for kind in Namespace
    ]


def _privileges() -> Finding:
    if os.geteuid() == 0:
        mighty = "SYS_ADMIN" in capget()
        mend = "run it with that capability (in docker: --privileged), or as an ordinary user"
        return Finding("privileges", mighty, "root" if mighty else "root without CAP_SYS_ADMIN", mend)
    return Finding("privileges", True, f"uid {os.geteuid()}: containers will be rootless, in a user namespace")


def _users() -> list[Finding]:
    """What stands between an ordinary user and a user namespace differs from one distribution to another."""
    switches = {
        "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=10000"),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    }
    closed = [(file, mend) for file, (bad, mend) in switches.items() if _read(file) == bad]
    unprivileged = os.geteuid() != 0
    findings = [
        Finding(
            "user namespaces", not closed, f"closed by {closed[0][0]}" if closed else "open to every user",
            f"as root: {closed[0][1]}" if closed else "", required=unprivileged,
        )
    ]  # fmt: skip
    newuidmap = shutil.which("newuidmap")
    ranges = subordinate_ids("/etc/subuid", os.geteuid())
    shows = "newuidmap is missing" if not newuidmap else "no range for this user in /etc/subuid"
    mend = (
        "apt install uidmap"
        if not newuidmap
        else "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"
    )
    works = bool(newuidmap and (ranges or not unprivileged))
    shows = "newuidmap" + "".join(f", {count} ids from {first}" for first, count in ranges) if works else shows
    return [*findings, Finding("several users, rootless", works, shows, mend, required=False)]


def _overlay() -> Finding:
    works = "overlay" in _read("/proc/filesystems").split()
    return Finding(
        "overlayfs", works, "in the kernel" if works else "not in /proc/filesystems", "as root: modprobe overlay"
    )


def _busybox() -> Finding:
    try:
        return Finding("static busybox", True, static_busybox())
    except ImageError as error:
        return Finding("static busybox", False, str(error), "apt install busybox-static")


def _cgroups() -> list[Finding]:
    """Which of the three worlds this is, and for each controller the tree in which our groups would be."""
    trees = hierarchies()
    versions = frozenset(tree.version for tree in trees)
    second = next((tree.controllers for tree in trees if tree.version == 2), ())
    world = {frozenset(): "none is mounted", frozenset({1}): "v1", frozenset({2}): "v2"}.get(versions)
    world = world or f"hybrid: v1, and a v2 tree with {', '.join(second) or 'no controllers'}"
    if versions:
        psi = os.path.exists("/proc/pressure/cpu") and 2 in versions
        world += ", with pressure (PSI)" if psi else ""
    mend = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    if trees and not any(map(_ours, trees)):
        world += "; this user may make no groups in it"
        mend = "run as root, or have groups delegated to you: systemd-run --user --scope -p Delegate=yes"
    found = any(map(_ours, trees))
    return [
        Finding("control groups", found, world, mend, required=False),
        *(_controller(name, trees) for name in CONTROLLERS if name != "io"),
    ]


def _controller(name: str, trees: list[Hierarchy]) -> Finding:
    label, tree = f"  {name}", hierarchy_of(name, trees)
    if tree is not None:
        return Finding(label, _ours(tree), f"v{tree.version}, {tree.home()}", required=False)
    if mountable(name) and os.geteuid() == 0 and not in_user_namespace():
        return Finding(label, True, "v1, in no tree yet: mounted when it is needed", required=False)
    return Finding(label, False, missing(name), required=False)


def _ours(tree: Hierarchy) -> bool:
    """Whether this user may make groups in a tree."""
    return os.access(tree.home(), os.W_OK) and os.access(f"{tree.home()}/cgroup.procs", os.W_OK)


def _trial(root: str | None) -> Finding:
    import tempfile
    import time

    from minicontainer.engine.engine import Engine

    with tempfile.TemporaryDirectory(prefix="minicontainer-check-") as directory:
        try:
            begun = time.perf_counter()
            result = Engine(root or directory).run("busybox", ["hostname"], hostname="trial", capture=True)
            milliseconds = (time.perf_counter() - begun) * 1000
        except Exception as error:  # whatever it is, it is the finding
            return Finding("a container starts", False, str(error), "see the lines above")
    works = result == type(result)(0, "trial\n", "")
    return Finding(
        "a container starts", works, f"in {milliseconds:.0f} ms" if works else f"and answers {result}", "see above"
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
