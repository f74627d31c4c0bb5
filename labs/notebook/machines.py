"""A process, a container and a virtual machine, started and measured alike: lab 00.

    machines.compare()                 # by the course's own measuring steps
    machines.compare(mine=True)        # by this session's exercises

Each is a command that says "kernel RELEASE" when it is ready. The machine is QEMU with a Linux kernel that this host
has, and an initial file system of one busybox; it ends by itself after some minutes, if nobody ends it before. Where
there is no QEMU, or no kernel to boot, a recorded run takes its place, and the picture says so.

Run as a program (`python -m labs.notebook.machines`), this file measures, in a PID namespace of its own: with it all
ends that was started.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from labs.catalogue import COURSE

RECORD = COURSE / "00_virtualization" / "recorded.json"
"""A run of another day, on another machine: which, it says itself."""

QEMU = "qemu-system-x86_64"
MEMORY = 128  # MiB that the machine thinks it has
LIFE = 300  # s, after which it ends by itself
BOOT = 60  # s that a guest has until it is ready; emulated, on a busy host, it takes 3 to 10
PROBE = 6  # s; where KVM works a kernel is up within one
PATIENCE = 120  # s for all of it
ACCELERATORS = {"kvm": "KVM, the processor's help", "tcg": "TCG, emulated"}

INIT = f"""\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
/bin/busybox cat /proc/sys/kernel/random/boot_id
echo "kernel $(/bin/busybox uname -r)"
/bin/busybox sleep {LIFE}
/bin/busybox poweroff -f
"""
"""The first, and only, program of the machine."""

SAY = "cat /proc/sys/kernel/random/boot_id; echo kernel $(uname -r); exec sleep 600"


# What is to be started


def process() -> list[str]:
    """The command of a process: a shell."""
    return ["sh", "-c", SAY]


def container() -> list[str]:
    """The command of a container: the same shell, started by this project's engine."""
    from labs.notebook.session import lab_root

    command = [sys.executable, "-m", "minicontainer", "--root", str(lab_root()), "run", "--rm", "--network", "none"]
    return [*command, "busybox", "sh", "-c", SAY]


def machine(kernel: Path, initramfs: Path, accelerator: str) -> list[str]:
    """The command of a virtual machine, which talks over a serial line."""
    command = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"]
    command += ["-accel", accelerator, "-cpu", "max", "-smp", "1", "-m", str(MEMORY), "-serial", "stdio"]
    return [*command, "-kernel", str(kernel), "-initrd", str(initramfs), "-append", "console=ttyS0 quiet panic=-1"]


def find_kernel() -> Path | None:
    """A Linux kernel that we may read: the one MINICONTAINER_LAB_KERNEL names, or this host's, or the test guest's."""
    named = os.environ.get("MINICONTAINER_LAB_KERNEL")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "minicontainer", "vm")
    found = [Path(named)] if named else [*sorted(Path("/boot").glob("vmlinuz-*")), *sorted(cache.glob("*/kernel"))]
    return next((path for path in reversed(found) if path.is_file() and os.access(path, os.R_OK)), None)


def missing() -> str:
    """Why no machine can be started here; "" if one can."""
    if platform.machine() != "x86_64":
        return f"the machine is a PC, and this is {platform.machine()}"
    if shutil.which(QEMU) is None:
        return f"there is no {QEMU}: apt install qemu-system-x86"
    if find_kernel() is None:
        return "there is no kernel in /boot that you may read; MINICONTAINER_LAB_KERNEL can name one"
    return ""


@functools.cache
def accelerator() -> str:
    """ "kvm", if a kernel comes up with it, else "tcg": that /dev/kvm can be opened does not say that it works.

    The kernel gets no file system, so that when it is up it panics, and that ends QEMU.
    """
    kernel = find_kernel()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK) or kernel is None:
        return "tcg"
    command = machine(kernel, Path(), "kvm")
    command[command.index("-initrd") :] = ["-append", "console=ttyS0 panic=-1"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE)
    except subprocess.TimeoutExpired:
        return "tcg"
    return "kvm" if done.returncode == 0 and b"Kernel panic" in done.stdout else "tcg"


def write_initramfs(path: Path, busybox: Path) -> Path:
    """An initial file system for a kernel: busybox, and a script that it runs first. cpio(5), the format "newc"."""
    entries = [
        ("bin", stat.S_IFDIR | 0o755, b""),
        ("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        ("init", stat.S_IFREG | 0o755, INIT.encode()),
        ("TRAILER!!!", 0, b""),
    ]
    with path.open("wb") as archive:
        for number, (name, mode, data) in enumerate(entries, 1):
            fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
            archive.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
            archive.write(bytes(-archive.tell() % 4) + data)
            archive.write(bytes(-archive.tell() % 4))
    return path


# Measuring


def measured(mine: bool = False) -> dict[str, Any]:
    """What each takes, measured now, by a program of ours. Raises RuntimeError: a measuring step failed, and why.

    {"process": {"kernel", "milliseconds", "memory", "processes": [[name, bytes], …]}, "container": …, "machine": …,
    "accelerator": "tcg"}; "machine" may be a recorded run, which has "recorded": when and where, and why it is one.
    """
    from labs.notebook.session import busybox_root, session

    reason = missing()
    with tempfile.TemporaryDirectory(prefix="machines-") as directory:
        work = Path(directory)
        commands: dict[str, Sequence[str]] = {"process": process(), "container": container()}
        kind = "" if reason else accelerator()
        kernel = find_kernel()
        if not reason and kernel:
            initramfs = write_initramfs(work / "initramfs", Path(busybox_root(), "bin", "busybox"))
            commands["machine"] = machine(kernel, initramfs, kind)
        (work / "commands.json").write_text(json.dumps(commands))
        exercises = str(session.write(work / "session.ipynb")) if mine else "-"
        found = _program(exercises, str(work / "commands.json"))
    if reason:
        recorded = json.loads(RECORD.read_text(encoding="utf-8"))
        found["machine"] = {**recorded["machine"], "recorded": f"{recorded['recorded']}; here, {reason}"}
        kind = recorded["accelerator"]
    return {**found, "accelerator": kind}


def _program(*words: str) -> dict[str, Any]:
    """What `main` has measured, in a PID namespace of its own; an ordinary user's needs a user namespace too."""
    command = ["unshare", *(["--user", "--map-root-user"] if os.geteuid() else []), "--mount", "--pid", "--fork"]
    done = subprocess.run(
        [*command, "--kill-child", "--mount-proc", sys.executable, "-m", "labs.notebook.machines", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "the program that was to measure has failed").splitlines()[-1])
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main(exercises: str, commands: str) -> dict[str, Any]:
    """Start each, measure it, and end it."""
    from minicontainer.steps import Steps
    from minicontainer.steps.loading import define, read_exercises

    functions = define(read_exercises([Path(exercises)]).values())[0] if exercises != "-" else {}
    steps = Steps().with_functions({name: one for name, one in functions.items() if name in Steps.names()})
    found = {}
    for name, command in json.loads(Path(commands).read_text()).items():
        signal.alarm(BOOT)  # it would end us, and with us all that runs in here
        told = dict(steps.time_start(command))
        pid = int(told.pop("pid"))
        _settle(pid)
        found[name] = {**told, "memory": steps.memory_of(pid), "processes": list(_processes(pid))}
        _end(pid)
        signal.alarm(0)
    return found


def _processes(pid: int) -> Iterator[tuple[str, int]]:
    """The name of each process of the tree, and its part of the memory: for the picture."""
    taken = [
        line.split()[1] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if "Pss:" in line[:4]
    ]
    title = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    yield "minicontainer init" if title.startswith("minicontainer init") else name, 1024 * sum(map(int, taken))
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            yield from _processes(int(child))


def _settle(pid: int) -> None:
    """Wait until its memory stays the same for a moment: who has said that it is ready may yet execute a program."""
    before, same, until = -1, 0, time.monotonic() + 3
    while same < 4 and time.monotonic() < until:
        now = sum(size for _, size in _processes(pid))
        same, before = same + 1 if now == before else 0, now
        select.select([], [], [], 0.03)


def _end(pid: int) -> None:
    """End it so that it can tidy up: the engine's command removes its container."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    if not select.select([pidfd], [], [], 10)[0]:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pidfd)


def record(found: Mapping[str, Any], where: str) -> None:
    """Keep a run for those who have no QEMU: `python -m labs.notebook.machines record WHERE`."""
    told = {"recorded": f"recorded {time.strftime('%Y-%m-%d')}, {where}", "accelerator": found["accelerator"]}
    RECORD.write_text(json.dumps({**told, "machine": found["machine"]}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(measured(), " ".join(sys.argv[2:]))
    else:
        print(json.dumps(main(*sys.argv[1:])))
