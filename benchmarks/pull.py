"""A pull: an image of three layers, like Debian's with some packages, from docker-registry on a loopback to what a
container can be made of; ours, podman's and docker's, from the command's start to its exit.

The layers are made from this machine's own trees, as large compressed as such an image's, and kept nowhere. All of it
takes place in a corner of its own (tests/stage.py), where the registry and dockerd run, and is kept on a tmpfs: on a
disk, most of the time is the disk's, and ours waits for it, with blobs and layers, before it gives them their names.
What was pulled is removed between the rounds, which is not counted. The peak of memory is of one more pull, by what the
command waits for: with docker, the work is done by its daemon, so it has no such figure.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Goal, Report, apart, command_time, peak_memory, take_turns
from minicontainer.images.busybox import static_busybox
from minicontainer.images.documents import host_platform
from tests.stage import Stage, stage

ROUNDS = 7
OURS, PODMAN, DOCKER = "minicontainer pull", "podman pull", "docker pull"
REGISTRY = "127.0.0.1:5000"
NAME = f"{REGISTRY}/debian:like"
LAYERS = (
    (48, ("/usr/share/locale", "/usr/share/man", "/usr/lib/x86_64-linux-gnu", "/usr/bin")),
    (25, ("/usr/lib/python3.11", "/usr/lib/python3", "/usr/lib/gcc", "/usr/share/doc")),
    (6, ("/usr/share/perl", "/usr/share/perl5", "/usr/share/vim")),
)
"""Megabytes of each layer, compressed, and the trees that it is filled from, in equal parts where they suffice."""
WORK = "/run/work"
"""In the corner, whose /run is a tmpfs of its own."""
MOST_MEMORY = 100 * 10**6  # bytes
PATIENCE = 60  # s, until a daemon answers

Measured = Callable[[Sequence[str]], float]
"""What one run of a command took, or needed."""


def measure(rounds: int = ROUNDS) -> Report:
    """All in turns. Raises SystemExit: not root, or docker-registry is not installed."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: pull starts daemons in a corner of its own: run it as root")
    if not shutil.which("docker-registry"):
        raise SystemExit("benchmarks: pull wants docker-registry: apt install docker-registry")
    program = Path(sys.executable).with_name("minicontainer")
    missing = {name: "not installed" for name, there in ((PODMAN, "podman"), (DOCKER, "dockerd"))
               if not shutil.which(there, path=f"{os.environ.get('PATH', '')}:/usr/sbin")}  # fmt: skip
    with stage(f"benchmark-pull-{os.getpid()}") as place:
        place.path(WORK).mkdir()
        facts = apart(partial(_fill, place.path(WORK) / "registry"))
        subjects: dict[str, Callable[[], float]] = {OURS: partial(_ours, place, program)}
        with _registry(place), contextlib.ExitStack() as running:
            if PODMAN not in missing:
                subjects[PODMAN] = partial(_podman, place)
            if DOCKER not in missing:
                running.enter_context(_dockerd(place))
                subjects[DOCKER] = partial(_docker, place)
            series = take_turns(subjects, rounds, warm_up=1)
            peaks = {OURS: _ours(place, program, peak_memory)}
            if PODMAN not in missing:
                peaks[PODMAN] = _podman(place, peak_memory)
    notes = [facts]
    notes += [f"Peak of memory of {name}: {peak / 1e6:.0f} MB." for name, peak in peaks.items()]
    reached = "reached" if peaks[OURS] < MOST_MEMORY else "NOT reached"
    notes.append(f"The goal for ours is less than {MOST_MEMORY / 1e6:.0f} MB: {reached}.")
    goals = [Goal(OURS, 1.0, beside=name) for name in (PODMAN, DOCKER) if name not in missing]
    return Report(
        "pull", "A pull of three layers, from the command's start to its exit", "ms", series, Goal(OURS, 2800.0),
        missing, notes, goals,
    )  # fmt: skip


# -- each side's pull --------------------------------------------------------------------------------------------------


def _ours(place: Stage, program: Path, measured: Measured = command_time) -> float:
    command = [str(program), "--root", f"{WORK}/ours"]
    taken = measured(_line(place, *command, "pull", "-q", NAME))
    _run(place, *command, "run", "--rm", "--network", "none", NAME, "/bin/busybox", "true")  # it can be run
    shutil.rmtree(place.path(f"{WORK}/ours"))
    return taken


def _podman(place: Stage, measured: Measured = command_time) -> float:
    home = f"{WORK}/podman"
    command = ["podman", "--storage-driver=overlay", "--root", f"{home}/root", "--runroot", f"{home}/run"]
    taken = measured(_line(place, *command, "pull", "--quiet", "--tls-verify=false", NAME))
    _run(place, *command, "rmi", "--force", NAME)
    return taken


def _docker(place: Stage) -> float:
    command = ["docker", "--host", f"unix://{WORK}/docker/socket"]
    taken = command_time(_line(place, *command, "pull", "--quiet", NAME))
    _run(place, *command, "rmi", "--force", NAME)
    return taken


def _line(place: Stage, *command: str) -> list[str]:
    """With the whole path of its program, as posix_spawn(3) wants it."""
    program, *words = place.line(*command)
    return [shutil.which(program) or program, *words]


def _run(place: Stage, *command: str) -> None:
    done = place.run(*command)
    if done.returncode:
        raise SystemExit(f"benchmarks: {' '.join(command)}: {done.stderr.strip()}")


# -- the registry and docker's daemon ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _registry(place: Stage) -> Iterator[None]:
    place.path(f"{WORK}/registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: '{REGISTRY}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {WORK}/registry}}}}\n"
    )
    answers = ["curl", "-sf", f"http://{REGISTRY}/v2/"]
    with _daemon(place, "registry", ["docker-registry", "serve", f"{WORK}/registry.yml"], answers):
        yield


@contextlib.contextmanager
def _dockerd(place: Stage) -> Iterator[None]:
    home = f"{WORK}/docker"
    place.path(home).mkdir()
    settings: dict[str, Any] = {
        "hosts": [f"unix://{home}/socket"], "data-root": f"{home}/data", "exec-root": f"{home}/exec",
        "pidfile": f"{home}/pid", "bip": "10.99.0.1/24", "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "storage-driver": "overlay2", "insecure-registries": [REGISTRY],
    }  # fmt: skip
    place.path(f"{home}/daemon.json").write_text(json.dumps(settings))
    program = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "dockerd"
    answers = ["docker", "--host", f"unix://{home}/socket", "version"]
    with _daemon(place, "docker", [program, f"--config-file={home}/daemon.json"], answers):
        yield


@contextlib.contextmanager
def _daemon(place: Stage, name: str, command: list[str], answers: list[str]) -> Iterator[None]:
    """It runs until the end of the block, and answers from the beginning."""
    log = place.path(f"{WORK}/{name}.log")
    with log.open("w") as file:
        process = place.start(*command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + PATIENCE
        while place.run(*answers).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"benchmarks: {command[0]} does not answer: {log.read_text()[-1000:]}")
            select.select([], [], [], 0.05)
        yield
    finally:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in children:  # nsenter(1) waits for it
            os.kill(int(pid), signal.SIGTERM)
        process.wait(PATIENCE)


# -- what is in it -----------------------------------------------------------------------------------------------------


def _fill(root: Path) -> str:
    """Write the image into the storage of a docker-registry that is to come; in words, what it is."""
    store = root / "docker/registry/v2"
    layers, diff_ids, files, plain = [], [], 0, 0
    for number, (size, trees) in enumerate(LAYERS):
        blob, diff_id, entries, length = _layer(size * 10**6, trees, with_busybox=number == 0)
        layers.append(_put(store, blob, "application/vnd.docker.image.rootfs.diff.tar.gzip"))
        diff_ids.append(diff_id)
        files, plain = files + entries, plain + length
    config = json.dumps({
        "os": "linux", "architecture": host_platform().architecture,
        "config": {"Cmd": ["/bin/busybox", "sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }).encode()  # fmt: skip
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": media_type, "layers": layers,
        "config": _put(store, config, "application/vnd.docker.container.image.v1+json"),
    }).encode()  # fmt: skip
    digest = str(_put(store, manifest, media_type)["digest"])
    manifests = store / "repositories/debian/_manifests"
    for link in (
        manifests / "revisions" / digest.replace(":", "/") / "link", manifests / "tags/like/current/link",
        manifests / "tags/like/index" / digest.replace(":", "/") / "link",
    ):  # fmt: skip
        link.parent.mkdir(parents=True)
        link.write_text(digest)
    compressed = sum(int(str(layer["size"])) for layer in layers)
    size = f"{compressed / 1e6:.0f} MB compressed, {plain / 1e6:.0f} MB in {files} entries"
    return f"The image: {len(layers)} layers, {size}."


def _put(store: Path, data: bytes, media_type: str) -> dict[str, object]:
    """Keep a blob, for the one repository; its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    blob = store / f"blobs/sha256/{digest[:2]}/{digest}/data"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link = store / f"repositories/debian/_layers/sha256/{digest}/link"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.write_text(f"sha256:{digest}")
    return {"mediaType": media_type, "size": len(data), "digest": f"sha256:{digest}"}


def _layer(size: int, trees: tuple[str, ...], *, with_busybox: bool) -> tuple[bytes, str, int, int]:
    """The compressed layer, its diff ID, its entries, and its bytes before."""
    blob, hash, entries, length = io.BytesIO(), hashlib.sha256(), 0, 0

    class Out:
        def write(self, data: bytes) -> int:
            nonlocal length
            hash.update(data)
            length += len(data)
            return packed.write(data)

    there = [tree for tree in trees if os.path.isdir(tree)]
    with gzip.GzipFile(fileobj=blob, mode="wb", compresslevel=6, mtime=0) as packed, tarfile.open(
        fileobj=Out(), mode="w|", format=tarfile.GNU_FORMAT  # type: ignore[call-overload]
    ) as tar:  # fmt: skip
        if with_busybox:
            tar.add(static_busybox(), "bin/busybox")
            for name in ("sh", "true"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for number, tree in enumerate(there, 1):
            budget = size * number // len(there)
            for path in _below(tree):
                if blob.tell() > budget:
                    break
                tar.add(path, path.lstrip("/"), recursive=False)
                entries += 1
    return blob.getvalue(), f"sha256:{hash.hexdigest()}", entries, length


def _below(tree: str) -> Iterator[str]:
    """Directories, files of up to 4 MB and links, in a fixed order."""
    for directory, names, files in os.walk(tree):
        names.sort()
        yield directory
        for name in sorted(files):
            path = f"{directory}/{name}"
            if os.path.islink(path) or (os.path.isfile(path) and os.path.getsize(path) < 4 << 20):
                yield path
