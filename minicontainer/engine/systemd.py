"""A distribution's own init as process 1: what systemd wants to find in a container, and how that ends.

https://systemd.io/CONTAINER_INTERFACE says it, and podman's --systemd how others do it: file systems in memory at
/run, /run/lock and /tmp; control groups in which it may make its own; ``container=`` in the environment, by which it
knows not to look for hardware; a terminal at /dev/console, at which it has people log in. It is asked to halt by
SIGRTMIN+3, and shuts down by reboot(2), which in a PID namespace ends process 1 by a signal: SIGHUP for a restart,
SIGINT for a halt.
"""

from __future__ import annotations

import os

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config
from minicontainer.linux import signal
from minicontainer.linux.capabilities import grantable
from minicontainer.linux.cgroups import SYSTEMD, hierarchies
from minicontainer.runtime.spec import MANAGED, Mount, Spec
from minicontainer.steps.group import Group

HALT = "SIGRTMIN+3"
"""systemd(1), "SIGNALS": starts halt.target."""

REBOOTED, HALTED = 128 + signal.SIGHUP, 128 + signal.SIGINT
"""reboot(2), "Behavior inside PID namespaces"."""

_IN_MEMORY = (("/run", "mode=755"), ("/run/lock", "mode=1777"), ("/tmp", "mode=1777"))


def prepared(config: Config) -> Config:
    """The container as one whose process 1 is systemd: that itself, and asked to halt in its own way."""
    added = config.rights.added
    if "SYS_BOOT" not in (*added, *config.rights.dropped) and grantable(["SYS_BOOT"]):
        added = (*added, "SYS_BOOT")  # reboot(2) is held to the container's own PID namespace
    return config.replace(
        systemd=True,
        reaper=False,
        stop_signal=config.stop_signal or HALT,
        rights=config.rights.replace(added=added),
    )


def booting(spec: Spec) -> Spec:
    """The specification with what systemd wants mounted, but where its user has something else. Raises EngineError."""
    trees = hierarchies(named=True)
    if any(tree.version == 1 for tree in trees):
        tree = next((tree for tree in trees if SYSTEMD in tree.controllers), None)
        if tree is None or not os.access(tree.home(), os.W_OK):
            raise EngineError(
                "systemd wants control groups of its own, in a tree without controllers, and "
                + ("none is mounted here: mkdir /sys/fs/cgroup/systemd; mount -t cgroup -o none,name=systemd systemd "
                   "/sys/fs/cgroup/systemd" if tree is None else f"nobody but root may make any in {tree.home()}")
            )  # fmt: skip
    taken = {mount.destination.rstrip("/") for mount in spec.mounts}
    mounts = [
        Mount(place, "tmpfs", "tmpfs", options=("nosuid", "nodev", "tmpcopyup", mode))
        for place, mode in _IN_MEMORY
        if place not in taken
    ]
    if "/sys/fs/cgroup" not in taken:
        mounts.append(Mount("/sys/fs/cgroup", "cgroup", readonly=True, data=MANAGED))
    sysfs = [mount for mount in spec.mounts if mount.destination == "/sys"]
    others = [mount for mount in spec.mounts if mount.destination != "/sys"]
    said = {text.partition("=")[0] for text in spec.process.env}
    who = ("container=minicontainer", f"container_uuid={spec.id:0<32}")  # the second becomes its machine-id(5)
    env = (*spec.process.env, *(text for text in who if text.partition("=")[0] not in said))
    return spec.replace(
        process=spec.process.replace(env=env),
        mounts=[*sysfs, *mounts, *others],
        controllers=(*spec.controllers, SYSTEMD),
    )


def group_of(group: Group, pid: int) -> Group:
    """The group of a container as others can enter it: on v2, where a group with controllers for those below it takes
    no processes, that is the one into which systemd has moved itself, process `pid`."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        paths = [line[3:].rstrip("\n") for line in file if line.startswith("0::")]
    inner = paths[0].partition(f"/{group.name}")[2] if paths else ""
    return Group(group.name, {
        controller: (version, directory + inner if version == 2 else directory)
        for controller, (version, directory) in group.places.items()
    })  # fmt: skip


def status_of(status: int) -> int:
    """The exit status of a container: 0, where systemd has come to its end by itself."""
    return 0 if status == HALTED else status
