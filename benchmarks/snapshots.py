"""A snapshot and a clone of a container that has written 16 MB, 160 MB, 1.6 GB: real content, no holes.

Taking one exchanges two names, so the size does not matter; that is what the three sizes are to show, and the goal
holds for the largest. "In process" is the call, `Engine.snapshot` and `Engine.clone`, without the start of an
interpreter; "command" is `minicontainer snapshot` from its start to its exit. Podman and Docker have the easy case: a
container that has written one line, and the size is in its image. A commit writes a layer and an image, which can be
sent away: that is more than a snapshot. LXC copies, with rsync(1), for a snapshot of a root that is a directory; its
`lxc-copy -s` lays an overlay over it, and it must not be written to any more. A full clone copies, to show what the
others do not do.

All of it is kept on a tmpfs. On a disk it is the file system that is measured, and what was done to it before: an ext4
without a journal does not give an inode again for some seconds after it was deleted, and with as many deleted as here,
it takes 0.3 ms to find one; a clone needs ten.

Of a container that runs, the command stops it, looks at all that its processes hold, and gives it a new root.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import psutil

from benchmarks.measure import Goal, Report, Series, apart, command_time, take_turns
from minicontainer.engine import Engine
from minicontainer.engine.store import Config
from minicontainer.images.busybox import static_busybox
from minicontainer.linux import CLONE_NEWNS, MS_PRIVATE, MS_REC, files, mount, unshare
from minicontainer.linux.cgroups import hierarchies
from minicontainer.steps import Steps

ROUNDS = 20
SIZES = {"16 MB": 16, "160 MB": 160, "1.6 GB": 1600}
"""In MB of 10⁶ bytes."""
LIMIT = 2.0  # ms
NEEDED = 6 << 30  # bytes, of memory
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def measure(rounds: int = ROUNDS) -> Report:
    """All in turns. Raises SystemExit: not root, or no space."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: snapshots makes containers of root's: run it as root")
    if psutil.virtual_memory().available < NEEDED:
        raise SystemExit(f"benchmarks: snapshots writes into memory, and wants {NEEDED >> 30} GiB of it to be free")
    missing = {} if shutil.which("podman") else {"podman commit": "not installed"}
    if not all(map(shutil.which, ("lxc-snapshot", "lxc-copy", "lxc-destroy", "rsync"))):
        missing |= dict.fromkeys(("lxc-snapshot", "lxc-copy -s"), "lxc and rsync are not both installed")
    if not all(shutil.which(name, path=PATH) for name in ("docker", "dockerd", "containerd")):
        missing["docker commit"] = "docker, dockerd and containerd are not all installed"
    elif not any(tree.version == 1 for tree in hierarchies()):
        missing["docker commit"] = (
            "the corner that dockerd gets here has control groups of version 1, this host has none"
        )
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        answer = apart(partial(_rounds, Path(directory), missing, rounds))
    series = [Series(name, samples) for name, samples in answer.items()]
    largest = list(SIZES)[-1]
    return Report(
        "snapshots",
        "Snapshot and clone of a container, by what it has written",
        "ms",
        series,
        Goal(f"snapshot in process, {largest}", LIMIT),
        missing,
        more_goals=[
            Goal(f"clone in process, {largest}", LIMIT),
            Goal(f"snapshot in process, {largest}", 1.5, f"snapshot in process, {next(iter(SIZES))}"),
            Goal(f"clone in process, {largest}", 1.5, f"clone in process, {next(iter(SIZES))}"),
        ],
    )


def _rounds(directory: Path, missing: Mapping[str, str], rounds: int) -> dict[str, Sequence[float]]:
    """In a view of the mounts of our own: podman leaves some, and has a directory below /run."""
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("none", str(directory), "tmpfs", 0, "mode=711,size=6g")
    engine = Engine(directory / "state")
    subjects = dict[str, Callable[[], float]]()
    middle = list(SIZES)[len(SIZES) // 2]
    made = {size: _written(engine, f"c{number}", SIZES[size]) for number, size in enumerate(SIZES)}
    for size, config in made.items():
        subjects[f"snapshot in process, {size}"] = partial(_timed, engine, config, lambda one: engine.snapshot(one))
    for size, config in made.items():
        subjects[f"clone in process, {size}"] = partial(_timed, engine, config, lambda one: engine.clone(one))
    program = str(Path(sys.executable).with_name("minicontainer"))
    command = [program, "--root", engine.store.root, "snapshot"]
    subjects[f"snapshot, the command, {middle}"] = partial(
        _timed, engine, made[middle], lambda one: subprocess.run([*command, one.name], check=True, stdout=-3)
    )
    subjects[f"full clone in process, {next(iter(SIZES))}"] = partial(
        _timed, engine, made[next(iter(SIZES))], lambda one: engine.clone(one, full=True)
    )
    with _running(engine, SIZES[middle]) as running:
        subjects[f"snapshot of one that runs, the command, {middle}"] = partial(command_time, [*command, running.name])
        if "lxc-snapshot" not in missing:
            subjects |= {f"{name}, {middle}": act for name, act in _by_lxc(directory, SIZES[middle]).items()}
        if "podman commit" not in missing:
            subjects[f"podman commit, {middle} in its image"] = _committed(directory, SIZES[middle])
        with _docker(directory, SIZES[middle]) if "docker commit" not in missing else nullcontext() as docker:
            if docker:
                subjects[f"docker commit, {middle} in its image"] = docker
            os.sync()  # what was written for the sizes is on the disk, and not on its way there
            return {taken.name: taken.samples for taken in take_turns(subjects, rounds)}


def _timed(engine: Engine, config: Config, act: Callable[[Config], object]) -> float:
    """Milliseconds; afterwards everything is as before, and what was frozen is in the upper layer again."""
    begin = time.perf_counter()
    act(config)
    taken = (time.perf_counter() - begin) * 1000
    for layer in engine.store.config(config.id).layers:
        if layer not in config.layers:  # those of its image stay
            files.exchange(f"{engine.store.directory(config.id)}/upper", engine.store.layer(layer))
    engine.store.relayer(config.id, config.layers)
    for other, _ in engine.containers():
        if other.origin == config.id or other.name.startswith("c-"):
            engine.remove(other)
    engine.remove_snapshots(config, ["ALL"])
    engine.repair()
    return taken


def _written(engine: Engine, name: str, size: int) -> Config:
    """A container with so many MB in its upper layer, in files of 1 MB at most."""
    config = engine.create("busybox", ["true"], name=name)
    _fill(Path(engine.store.directory(config.id), "upper"), size)
    return config


def _fill(directory: Path, size: int) -> None:
    content = os.urandom(10**6)
    for number in range(size):
        place = directory / f"data/{number // 100}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}").write_bytes(number.to_bytes(8, "big") + content[8:])


@contextmanager
def _running(engine: Engine, size: int) -> Iterator[Config]:
    config = _written(engine, "running", size)
    engine.store._write(config.replace(args=("sleep", "1000000")))
    config = engine.store.find("running")
    engine.start_detached(config)
    try:
        yield config
    finally:
        engine.remove(config, force=True, snapshots=True)


def _by_lxc(directory: Path, size: int) -> dict[str, Callable[[], float]]:
    """LXC's, of a container with a directory for its root; what they make is removed again, unmeasured."""
    place = directory / "lxc"
    rootfs = place / "base/rootfs"
    rootfs.mkdir(parents=True)
    Steps().build_root(str(rootfs), static_busybox())
    _fill(rootfs, size)
    (place / "base/config").write_text(f"lxc.uts.name = base\nlxc.rootfs.path = dir:{rootfs}\nlxc.net.0.type = empty\n")

    def timed(act: Sequence[str], undo: Sequence[str]) -> float:
        begin = time.perf_counter()
        _ran(act)
        taken = (time.perf_counter() - begin) * 1000
        _ran(undo)
        return taken

    base, clone = ("-P", str(place), "-n", "base"), ("-P", str(place), "-n", "copy")
    snapshot = ["lxc-snapshot", *base], ["lxc-snapshot", *base, "-d", "snap0"]
    return {
        "lxc-snapshot": partial(timed, *snapshot),
        "lxc-copy -s": partial(
            timed, ["lxc-copy", *base, "-N", "copy", "-s", "-B", "overlayfs"], ["lxc-destroy", *clone]
        ),
    }


def _committed(directory: Path, size: int) -> Callable[[], float]:
    """A commit by podman, whose image is removed again, unmeasured."""
    mount("none", "/run", "tmpfs")
    rootfs = _image(directory, size)
    podman = [shutil.which("podman") or "podman", "--storage-driver=overlay", f"--root={directory}/podman"]
    podman += [f"--{name}=/run/{name}" for name in ("runroot", "tmpdir")]
    return _commit(podman, rootfs, directory / "line", "--quiet")


@contextmanager
def _docker(directory: Path, size: int) -> Iterator[Callable[[], float]]:
    """Likewise by a dockerd of our own, in a corner of its own."""
    from tests.stage import stage

    home = "/run/docker"
    with stage(f"benchmark-{os.getpid()}") as place:
        place.path(home).mkdir()
        daemon = [shutil.which("dockerd", path=PATH) or "dockerd", f"--host=unix://{home}/socket", "--bridge=none"]
        daemon += [f"--data-root={directory}/docker", f"--exec-root={home}/exec", f"--pidfile={home}/pid"]
        daemon += ["--exec-opt=native.cgroupdriver=cgroupfs", "--iptables=false"]
        with (directory / "log").open("w") as log, place.start(*daemon, stdout=log, stderr=log) as process:
            client = [shutil.which("docker") or "docker", f"--host=unix://{place.path(home)}/socket"]
            while subprocess.run([*client, "version"], capture_output=True).returncode:
                if process.poll() is not None:
                    raise SystemExit(f"benchmarks: dockerd: {(directory / 'log').read_text()[-500:]}")
                select.select([], [], [], 0.05)
            try:
                yield _commit(client, _image(directory, size), directory / "line")
            finally:
                place.run("kill", place.path(f"{home}/pid").read_text())
                process.wait()


def _image(directory: Path, size: int) -> Path:
    """The files of an image with so many MB in it."""
    rootfs = directory / "rootfs"
    Steps().build_root(str(rootfs), static_busybox())
    _fill(rootfs, size)
    return rootfs


def _commit(engine: Sequence[str], rootfs: Path, line: Path, *options: str) -> Callable[[], float]:
    """What measures a commit of a container that has written one line, and removes its image, unmeasured."""
    with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
        _ran([*engine, "import", "-", "box"], stdin=tar.stdout)
    shutil.rmtree(rootfs)
    _ran([*engine, "create", "--name=one", "--network=none", "box", "true"])
    line.write_text("one line\n")
    _ran([*engine, "cp", str(line), "one:/line"])

    def commit() -> float:
        taken = command_time([*engine, "commit", *options, "--pause=false", "one", "kept"])
        _ran([*engine, "rmi", "kept"])
        return taken

    return commit


def _ran(command: Sequence[str], **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **{"stdin": subprocess.DEVNULL, **options})  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"benchmarks: {' '.join(command)}: {done.stderr.strip()}")
