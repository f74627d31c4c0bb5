"""Shell start: `minicontainer run --rm --network none busybox true` as a command, beside other commands of its kind.

The others are measured where they are installed, and said to be missing where not. They do not all do the same: crun
and runc find their bundle and root file system ready, and make a control group; bubblewrap and unshare make none, and
keep no record. Ours makes a name, a record and a writable layer, and removes them; a control group only for limits.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Goal, Report, Series, apart, command_time, take_turns
from minicontainer.engine import Engine
from minicontainer.linux import CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC, mount, umount2, unshare
from minicontainer.linux.cgroups import hierarchies

ROUNDS = 40
OURS = "minicontainer run"
FLOOR = "python -IS -c pass"


def measure(rounds: int = ROUNDS) -> Report:
    """All in turns. Raises SystemExit: not root, or `minicontainer` is not installed."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: shell_start compares with runtimes that want root: run it as root")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        root = Path(directory)
        ours = _our_command(root)
        command_time(ours)  # the first start makes the image, which is the root file system of all
        [rootfs] = map(Path, Engine(root / "state").image_layers("busybox"))
        commands: dict[str, Sequence[str]] = {OURS: ours, FLOOR: [sys.executable, "-IS", "-c", "pass"]}
        missing = {}
        for name, make in PEERS.items():
            program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
            if program is None:
                missing[name] = "not installed"
            else:
                commands[name] = make(program, rootfs, root)
        # The commands take turns in a process of their own, whose mount namespace can have the cgroups that crun wants.
        answer = apart(partial(_rounds, commands, rounds))
    return Report(
        "shell_start",
        "Shell start: a container for `true`, from the command's start to its exit",
        "ms",
        [Series(name, samples) for name, samples in answer["series"].items()],
        Goal(OURS, 30.0),
        missing | answer["missing"],
        answer["notes"],
    )


def imports(most: int = 15) -> str:
    """What `minicontainer run` imports, the dearest first: a table out of ``python -X importtime``."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        command = _our_command(Path(directory))
        command_time(command)
        launcher = Path(command[0])
        done = subprocess.run(
            [sys.executable, "-IS", "-X", "importtime", launcher, *command[1:]],
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    # import time:       176 |       1220 |   minicontainer.engine.store
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if line.count("|") == 2]
    modules = [(int(own), int(all_in), name.strip()) for own, all_in, name in rows if own.strip().isdigit()]
    total = sum(own for own, _, _ in modules)
    lines = [f"{len(modules)} modules, {total / 1000:.1f} ms while they are traced; the dearest by their own time, µs:"]
    lines += [f"{own:>8} {all_in:>8}  {name}" for own, all_in, name in sorted(modules, reverse=True)[:most]]
    return "\n".join(lines)


def _our_command(root: Path) -> list[str]:
    program = Path(sys.executable).with_name("minicontainer")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    return [str(program), "--root", str(root / "state"), "run", "--rm", "--network", "none", "busybox", "true"]


def _rounds(commands: dict[str, Sequence[str]], rounds: int) -> dict[str, object]:
    """In a process of its own: see which commands work here, then let them take turns."""
    notes, missing = [], {}
    if _hide_cgroup2():
        notes.append(
            "This host has both versions of cgroups. All of them saw only version 1, because crun refuses both."
        )
    for name, command in list(commands.items()):
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if tried.returncode != 0:
            if name == OURS:
                raise SystemExit(f"benchmarks: {' '.join(command)}: {tried.stderr.strip()}")
            missing[name] = f"does not work here: {(tried.stderr.strip() or f'exit status {tried.returncode}')[:200]}"
            del commands[name]
    series = take_turns({name: partial(command_time, command) for name, command in commands.items()}, rounds)
    return {"series": {taken.name: taken.samples for taken in series}, "missing": missing, "notes": notes}


def _hide_cgroup2() -> bool:
    """On a host with cgroups of both versions: let this process, in its own view of the mounts, see version 1 only."""
    found = hierarchies()
    if {hierarchy.version for hierarchy in found} != {1, 2}:
        return False
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    for hierarchy in found:
        if hierarchy.version == 2:
            umount2(hierarchy.mountpoint, MNT_DETACH)
    return True


# How each of the others is told to do it: (its program, the root file system, a directory to use) → the command.


def _oci(program: str, rootfs: Path, directory: Path) -> list[str]:
    name = Path(program).name
    bundle = directory / name
    bundle.mkdir()
    subprocess.run([program, "spec"], cwd=bundle, check=True)  # its own default configuration
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(args=["/bin/true"], terminal=False)
    config["root"] = {"path": str(rootfs), "readonly": True}
    (bundle / "config.json").write_text(json.dumps(config))
    return [
        program,
        "--root",
        str(directory / f"{name}-state"),
        "run",
        "--bundle",
        str(bundle),
        f"benchmark-{name}-{os.getpid()}",
    ]


def _bubblewrap(program: str, rootfs: Path, directory: Path) -> list[str]:
    return [program, "--unshare-all", "--ro-bind", str(rootfs), "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]


def _unshare(program: str, rootfs: Path, directory: Path) -> list[str]:
    namespaces = ["--pid", "--fork", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--time"]
    return [program, *namespaces, "--mount-proc", f"--root={rootfs}", "/bin/true"]


PEERS: dict[str, Callable[[str, Path, Path], list[str]]] = {
    "crun": _oci,
    "runc": _oci,
    "bwrap": _bubblewrap,
    "unshare": _unshare,
}
