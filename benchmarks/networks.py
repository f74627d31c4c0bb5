"""Networks: a whole `run --rm` of `true`, with an overlay root, a bridge, limits of memory, processors and processes,
as a command; `Engine.run` with a bridge from a Python that is running already, against C that makes the same calls; and
the removal of a container that runs. All in a network namespace of its own, where a bridge is kept up all the time.

The C side is start.c, told by calls.py what to do for the control group; it connects the container as steps/bridge.py
does, and writes as many records. Beside the removal stands what it does not wait for: the kernel's removing a veth.
Podman is measured where it works in there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import calls
from benchmarks.measure import Driven, Goal, Report, Series, apart, command_time, take_turns
from benchmarks.shell_start import _hide_cgroup2
from benchmarks.throughput import wait_for_keeper
from benchmarks.warm_start import compile_start
from minicontainer.engine import Engine
from minicontainer.linux import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

ROUNDS = 40
BRIDGE = "yardstick0"
LIMITS = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"]
SHELL, WITHOUT, PODMAN = (
    "run --rm, bridge and limits",
    "run --rm, no network, limits",
    "podman run --rm, bridge and limits",
)
C, PYTHON = "C, the same calls, with a bridge", "Engine.run with a bridge"
REMOVAL, VETH = "removal of a running container", "removal of a veth alone"


def measure(rounds: int = ROUNDS) -> Report:
    """All in turns. Raises SystemExit: not root, no C compiler, or `minicontainer` is not installed."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: networks makes bridges, in a network namespace of its own: run it as root")
    program = Path(sys.executable).with_name("minicontainer")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        work = Path(directory)
        (work / "c").mkdir()
        answer = apart(partial(_rounds, str(program), compile_start(work), work, rounds))
    return Report(
        "networks",
        "Networks: a container on a bridge, from start to exit and removed",
        "ms",
        [Series(name, samples) for name, samples in answer["series"].items()],
        Goal(SHELL, 40.0),
        answer["missing"],
        more_goals=[Goal(PYTHON, 2.0, beside=C), Goal(REMOVAL, 1.0, beside=VETH)],
    )


def _rounds(program: str, compiled: Path, work: Path, rounds: int) -> dict[str, object]:
    """In a process of its own, whose network namespace and view of the control groups are its own."""
    _hide_cgroup2()
    unshare(CLONE_NEWNET | CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/run", "tmpfs", 0, "size=16m")  # podman writes there, whatever it is told
    _ip("link set lo up")
    _ip(f"link add {BRIDGE} type bridge")
    _ip(f"address add 10.99.0.1/16 dev {BRIDGE}")
    _ip(f"link set {BRIDGE} up")
    state = work / "state"
    ours = [program, "--root", str(state), "run", "--rm"]
    with (
        Driven([sys.executable, "-m", "benchmarks.networks", str(state)]) as python,
        _kept_up(program, state),
    ):
        group = calls.write(calls.of_a_group(), work / "calls")
        hardening = calls.of_hardening(state, work)
        [rootfs] = map(Path, Engine(state).image_layers("busybox"))
        with Driven([str(compiled), str(rootfs), str(work / "c"), str(hardening), str(group)]) as c:
            subjects: dict[str, Callable[[], float]] = {
                SHELL: partial(command_time, [*ours, "--network", "bridge", *LIMITS, "busybox", "true"]),
                WITHOUT: partial(command_time, [*ours, "--network", "none", *LIMITS, "busybox", "true"]),
                PYTHON: partial(python, "run"),
                C: partial(c, f"1 {BRIDGE}"),
                REMOVAL: partial(python, "remove"),
                VETH: _remove_veth,
            }
            missing = _with_podman(subjects, rootfs, work)
            series = take_turns(subjects, rounds)
    subprocess.run([program, "--root", str(state), "network", "prune"], check=True, stdout=subprocess.DEVNULL)
    wait_for_keeper(str(state))
    return {"series": {taken.name: taken.samples for taken in series}, "missing": missing}


@contextmanager
def _kept_up(program: str, state: Path) -> Iterator[None]:
    """A container that runs all the time, so that no bridge is made or removed meanwhile: neither does C's side."""
    command = [program, "--root", str(state)]
    quiet: dict[str, Any] = {"check": True, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    subprocess.run(
        [*command, "run", "-d", "--name", "keeper", "--network", "bridge", "busybox", "sleep", "3600"], **quiet
    )
    try:
        yield
    finally:
        subprocess.run([*command, "rm", "-f", "keeper"], **quiet)


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def _remove_veth() -> float:
    from minicontainer.steps.bridge import disconnect

    _ip(f"link add bench-a type veth peer name bench-b master {BRIDGE}")
    _ip("link set bench-a up")
    _ip("link set bench-b up")
    begin = time.perf_counter()
    disconnect("bench-a")
    return (time.perf_counter() - begin) * 1000


def _with_podman(subjects: dict[str, Callable[[], float]], rootfs: Path, work: Path) -> dict[str, str]:
    """Podman too, with storage and settings of its own, if it is here and works; else why not."""
    podman, crun = shutil.which("podman"), shutil.which("crun")
    if not podman or not crun:
        return {PODMAN: "not installed"}
    settings = work / "containers.conf"
    settings.write_text(
        "[containers]\n"
        'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'  # a host without CAP_SYS_RESOURCE
        f'[network]\nnetwork_config_dir = "{work}/podman-networks"\n[engine]\nevents_logger = "none"\n'
    )
    os.environ["CONTAINERS_CONF"] = str(settings)
    command = [
        podman, "--root", f"{work}/podman", "--runroot", f"{work}/podman-run", "--tmpdir", f"{work}/podman-tmp",
        "--cgroup-manager", "cgroupfs", "--runtime", crun, "run", "--rm", "--network", "podman",
        *LIMITS, "--log-driver", "none", "--rootfs", f"{rootfs}:O", "/bin/true",
    ]  # fmt: skip
    tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if tried.returncode != 0:
        return {PODMAN: f"does not work here: {tried.stderr.strip()[:200]}"}
    subjects[PODMAN] = partial(command_time, command)
    return {}


def drive(root: Path) -> None:
    """The Python side: for a line that says "run" a container, for one that says "remove" the end of one that runs."""
    from minicontainer.engine import Engine
    from minicontainer.network.wishes import Attachment

    engine = Engine(root)
    bridge = (Attachment("bridge"),)
    engine.run("busybox", ["/bin/true"], stdio=(None, None, None))  # makes the image
    for line in sys.stdin:
        if line.strip() == "run":
            begin = time.perf_counter()
            engine.run("busybox", ["/bin/true"], stdio=(None, None, None), networks=bridge)
        else:
            config = engine.run_detached("busybox", ["sleep", "600"], networks=bridge)
            begin = time.perf_counter()
            engine.remove(config, force=True)
        print(f"{(time.perf_counter() - begin) * 1000:.4f}", flush=True)


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
