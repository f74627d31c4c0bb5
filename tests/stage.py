"""A corner of this host in which somebody else's whole container engine may do what it does: podman, dockerd.

It has network, mount, PID, UTS, IPC and control group namespaces of its own, /run, /etc and /var/lib of its own, and of
the control groups only those of version 1, from a group of ours downwards: crun and runc refuse a mixture. Bridges, packet
filter rules, mounts, daemons and their groups are all made in there, and are gone with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from minicontainer.linux.cgroups import hierarchies
from tests.command import DEADLINE, end

MADE = """
set -e
mount --make-rprivate /
ip link set lo up
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm  # podman keeps its locks in there, for all of its stores, and whoever is killed may hold one
umount --recursive --lazy /sys/fs/cgroup
mount -t tmpfs none /sys/fs/cgroup
for tree in $TREES; do
    mkdir -p /sys/fs/cgroup/"${tree#name=}"
    mount -t cgroup -o "$tree" none /sys/fs/cgroup/"${tree#name=}"
done
for place in etc var/lib; do  # what they write there, they write into a layer of ours
    mkdir -p /run/layers/$place/upper /run/layers/$place/work
    mount -t overlay -o "lowerdir=/$place,upperdir=/run/layers/$place/upper,workdir=/run/layers/$place/work" none /$place
done
if test -c /dev/net/tun; then  # which an ordinary user's engine opens, and finds with mode 666 where udev is
    mount -t tmpfs none /dev/net
    mknod -m 666 /dev/net/tun c 10 200
fi
echo ready
exec env --ignore-signal=CHLD cat  # until its input ends, which ends all of us; and none whose parent has gone stays a zombie
"""

needs_v1 = pytest.mark.skipif(
    not any(tree.version == 1 for tree in hierarchies()),
    reason="the corner that engines get here has control groups of version 1, of which this host has none",
)

SYSTEMD = "/sys/fs/cgroup/systemd"

ENTERED = 'for group in $GROUPS_OF_STAGE; do echo $$ > "$group/cgroup.procs"; done; exec "$@"'


class Stage:
    """The corner, while it is there. What runs in it is a child of nsenter(1), which is a child of ours."""

    def __init__(self, name: str) -> None:
        self.groups: list[Path] = []
        trees = {",".join(tree.controllers): tree.home() for tree in hierarchies() if tree.version == 1}
        if os.path.ismount(SYSTEMD):
            trees["name=systemd"] = SYSTEMD  # containerd wants to see the tree that has no controller, too
        for home in map(Path, trees.values()):
            self.groups.append(group := home / name)
            group.mkdir()
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (group / file).exists():
                    (group / file).write_text((home / file).read_text())
        environment = {**os.environ, "TREES": " ".join(trees)}
        unshare = [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--fork",
            "--mount-proc",
            "sh",
            "-c",
            MADE,
        ]
        self._holder = subprocess.Popen(
            self._joined(unshare), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._env(environment)
        )
        assert self._holder.stdout
        assert select.select([self._holder.stdout], [], [], DEADLINE)[0] and self._holder.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        self.init = int(children[0])

    def line(self, *words: str | Path) -> list[str]:
        """The command line that runs a command in there."""
        return self._joined(["nsenter", f"--target={self.init}", "--all", "--", *map(str, words)])

    def run(
        self, *words: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there to its end."""
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "text": True,
            "timeout": DEADLINE,
        }
        return subprocess.run(
            self.line(*words), env=self._env({**os.environ, **(env or {})}), **{**settings, **options}
        )

    def start(self, *words: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Run a command in there beside us."""
        return subprocess.Popen(self.line(*words), text=True, env=self._env({**os.environ, **(env or {})}), **options)

    def path(self, path: str) -> Path:
        """A path in there, as one of ours."""
        return Path(f"/proc/{self.init}/root{path}")

    def processes(self) -> list[int]:
        """Everything that runs in there, in numbers of ours, without its process 1.

        Not the nsenter(1) that waits outside for each of our commands: whoever kills it gets its child for his own.
        """
        inside, pids, found = os.stat(f"/proc/{self.init}/ns/pid"), set[str](), []
        for file in self.groups[0].rglob("cgroup.procs"):
            with contextlib.suppress(OSError):  # the group is gone meanwhile
                pids |= set(file.read_text().split())
        for pid in pids - {str(self.init)}:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if os.path.samestat(os.stat(f"/proc/{pid}/ns/pid"), inside):
                    found.append(int(pid))
        return sorted(found)

    def named(self, word: str) -> list[int]:
        """Those whose command line has this word in it."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if word in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
        return found

    def close(self) -> None:
        """End all that runs in there, by the death of its process 1, and remove its groups."""
        end([self.init])
        self._holder.wait()
        assert self._holder.stdin and self._holder.stdout
        self._holder.stdin.close()
        self._holder.stdout.close()
        for top in self.groups:
            for directory, _, _ in os.walk(top, topdown=False):
                os.rmdir(directory)

    def _env(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {**environment, "GROUPS_OF_STAGE": " ".join(map(str, self.groups))}

    def _joined(self, words: list[str]) -> list[str]:
        return ["sh", "-c", ENTERED, "sh", *words]


@contextlib.contextmanager
def stage(name: str) -> Iterator[Stage]:
    """A stage, and its end."""
    made = Stage(name)
    try:
        yield made
    finally:
        made.close()
