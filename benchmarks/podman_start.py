"""Under podman: `podman run --rm --network none` of `true`, from the command's start to its exit, with each runtime.

Everything but the runtime is the same: podman's storage, its monitor conmon, a control group for each. What podman
itself needs is most of it, so the differences say more than the ratios. It starts the runtime three times for one
container, to create, to start and to delete it: each time an interpreter has to start, which a program in C or Go has
not.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from glob import glob
from pathlib import Path

from benchmarks.measure import Goal, Report, Series, apart, command_time, take_turns
from minicontainer.images.busybox import static_busybox
from minicontainer.linux import CLONE_NEWNS, MNT_DETACH, MS_BIND, MS_MOVE, MS_PRIVATE, MS_REC, mount, umount2, unshare
from minicontainer.linux.cgroups import hierarchies
from minicontainer.steps import Steps

ROUNDS = 20
OURS, BESIDE = "with minicontainer-runtime", "with runc"
CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
"""


def measure(rounds: int = ROUNDS) -> Report:
    """All in turns. Raises SystemExit: not root, or podman, runc or `minicontainer-runtime` is not installed."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: podman_start starts containers of root's podman: run it as root")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    runtimes = {OURS: str(Path(sys.executable).with_name("minicontainer-runtime"))}
    runtimes |= {f"with {name}": shutil.which(name, path=path) or "" for name in ("crun", "runc")}
    missing = {name: "not installed" for name, program in runtimes.items() if not os.access(program, os.X_OK)}
    for name in (OURS, BESIDE):
        if name in missing or not shutil.which("podman"):
            raise SystemExit("benchmarks: podman_start wants podman, runc and minicontainer-runtime (make setup)")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        programs = {name: program for name, program in runtimes.items() if name not in missing}
        answer = apart(partial(_rounds, Path(directory), programs, rounds))
    return Report(
        "podman_start",
        "Under podman: `podman run --rm --network none` of `true`, from the command's start to its exit",
        "ms",
        [Series(name, samples) for name, samples in answer.items()],
        Goal(OURS, 1.0, BESIDE),
        missing,
    )


def _rounds(directory: Path, runtimes: dict[str, str], rounds: int) -> dict[str, Sequence[float]]:
    """In a view of the mounts of our own: podman leaves some, and has a directory below /run."""
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("none", "/run", "tmpfs")
    _see_version_1()
    (directory / "containers.conf").write_text(CONF)
    os.environ["CONTAINERS_CONF"] = f"{directory}/containers.conf"
    Steps().build_root(str(directory / "rootfs"), static_busybox())
    group = f"benchmark-{os.getpid()}"
    podman = [shutil.which("podman") or "podman", "--storage-driver=overlay"]
    podman += [f"--{name}=/run/{name}" for name in ("root", "runroot", "tmpdir")]
    commands = {
        name: [*podman, f"--runtime={program}", "run", "--rm", "--network=none", f"--cgroup-parent=/{group}",
               "--rootfs", f"{directory}/rootfs", "true"]
        for name, program in runtimes.items()
    }  # fmt: skip
    try:
        for name, command in commands.items():
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"benchmarks: podman {name}: {done.stderr.strip()}")
        series = take_turns({name: partial(command_time, command) for name, command in commands.items()}, rounds)
        return {taken.name: taken.samples for taken in series}
    finally:
        for top in glob(f"/sys/fs/cgroup/*/{group}"):
            for below, _, _ in os.walk(top, topdown=False):
                _remove(below)


def _see_version_1() -> None:
    """Let /sys/fs/cgroup have the trees of version 1 alone: crun refuses both, runc makes directories where v2 was."""
    trees = [tree.mountpoint for tree in hierarchies() if tree.version == 1]
    trees += filter(os.path.ismount, ["/sys/fs/cgroup/systemd"])
    mount("none", "/mnt", "tmpfs")
    for tree in trees:
        place = f"/mnt/{Path(tree).name}"
        os.mkdir(place)
        mount(tree, place, None, MS_BIND)
    umount2("/sys/fs/cgroup", MNT_DETACH)
    mount("/mnt", "/sys/fs/cgroup", None, MS_MOVE)


def _remove(group: str) -> None:
    """Its last process, a monitor that podman no longer waits for, may be just about to end."""
    while Path(group, "cgroup.procs").read_text():
        select.select([], [], [], 0.01)
    os.rmdir(group)
