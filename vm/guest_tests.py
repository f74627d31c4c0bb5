"""Run tests on a kernel other than this host's: Debian's cloud kernel under QEMU, with the control groups asked for.

    python -m vm.guest_tests [ARGUMENTS OF PYTEST]      (make test-v2 ARGS=…)

LAB_CGROUP=v2 (the default), v1 or hybrid says how the guest mounts its control groups. The checkout goes into the guest
as it is, uncommitted changes and all; pytest's output comes out while it is written, the JUnit report is
build/junit-VERSION.xml, and the exit status is pytest's. What the guest writes is thrown away, and it has no network.

Beside this file: root_disk.py makes the disk that it boots from, guest.sh is its first process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vm import root_disk
from vm.root_disk import Disk, Unavailable

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build"

SELECTION = (
    "tests/linux/test_cgroups.py", "tests/linux/test_namespaces.py", "tests/linux/test_syscalls.py",
    "tests/steps/test_group.py", "tests/steps/test_laws.py", "tests/steps/test_limits.py",
    "tests/steps/test_loading.py", "tests/steps/test_pid.py", "tests/steps/test_users.py",
    "tests/runtime/test_failures.py", "tests/runtime/test_isolation.py",
    "tests/checks/test_01_chroot.py", "tests/checks/test_02_mount.py", "tests/checks/test_03_uts.py",
    "tests/checks/test_05_pid.py", "tests/checks/test_09_memory.py", "tests/checks/test_10_cpu.py",
    "tests/checks/test_11_controllers.py", "tests/checks/test_00_virtualization.py", "tests/checks/test_07_network.py",
    "tests/checks/test_08_views.py",
    "tests/engine/test_resources.py", "tests/cli/test_resources.py", "tests/cli/test_bad_resources.py",
)  # fmt: skip
"""What is run unless the arguments name files: what depends on the kernel. Those that exist."""
NOT_ON_V1 = ("tests/runtime/test_failures.py", "tests/cli/test_bad_resources.py")
"""What takes half of the time, and meets the same controllers in the trees of v1 that the host has."""

WORLDS = ("v2", "v1", "hybrid")

LIMIT = 25 * 60  # s, for everything
BOOT = 90  # s, until pytest starts; 6 s with an idle machine and TCG
PROBE = 10  # s, for a kernel to come up and panic, which takes it 1 s where KVM works
MEMORY = 1280  # MiB
PROCESSORS = 2
LABS_DEADLINE = 100  # s, ten times the usual, since TCG is ten times as slow; tests of deadlines set their own
LAB_PATIENCE = 4  # times the limits of the tests: it is more than they need, and a hang has its name before LIMIT
SPARE_DISKS = {"disk": 128 << 20, "swap": 256 << 20}  # bytes; guest.sh gives them their names in the environment

QEMU = ["qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-smp", str(PROCESSORS)]
QEMU += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"]
KERNEL = "root=/dev/vda rw init=/usr/sbin/guest console=ttyS0 quiet panic=-1 swapaccount=1 cgroup_enable=memory"
"""The kernel's command line. Memory control groups are on by default in Debian's, and not in everybody's."""
ACCELERATORS = {"kvm": "kvm", "tcg": "tcg,thread=multi"}


@dataclass(frozen=True)
class Result:
    """What came out of the guest."""

    status: int
    report: bytes | None
    """JUnit XML; none where pytest ended before it had any tests, as it does after a wrong option."""


class DidNotBoot(Exception):
    """The guest ended, or its time did, before pytest was started. Such a guest gets a second chance."""


class Clock:
    """The time that is left for everything."""

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._start = time.monotonic()

    def left(self) -> float:
        """Seconds; 0 when it is over."""
        return max(0.0, self._start + self._limit - time.monotonic())


def say(text: str) -> None:
    """A line about what is going on, at once."""
    print(f"test-v2: {text}", flush=True)


def main(arguments: Sequence[str], variables: Mapping[str, str] = os.environ) -> int:
    """Run the tests. Returns pytest's exit status, or 2 when it could not be run, after a line that says why."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # as on ^C: through every `finally`
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    world = variables.get("LAB_CGROUP") or WORLDS[0]
    report = REPORTS / f"junit-{world}.xml"
    try:
        if world not in WORLDS:
            raise Unavailable(f"LAB_CGROUP={world}: it is one of {', '.join(WORLDS)}")
        root_disk.require(["qemu-system-x86_64", "setpriv", "git"])
        report.unlink(missing_ok=True)
        result = run(world, arguments, root_disk.cache_directory(variables))
    except (Unavailable, DidNotBoot, OSError) as error:
        print(f"test-v2: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if result.report is not None:
        report.parent.mkdir(exist_ok=True)
        report.write_bytes(result.report)
    return result.status


def run(world: str, arguments: Sequence[str], cache: Path) -> Result:
    """Run the tests in a guest; a second one where the first does not come up."""
    with root_disk.alone(cache, say):
        clock = Clock()
        return guest(root(cache, clock), world, arguments, clock)


def guest(disk: Disk, world: str, arguments: Sequence[str], clock: Clock) -> Result:
    """As `run`, with the disk at hand. The files of a guest are in a directory beside it, which goes with the guest."""
    with tempfile.TemporaryDirectory(prefix="guest-", dir=disk.directory.parent) as temporary:
        work = Path(temporary)
        accelerator = probe(disk.kernel, work)
        pack(work / "checkout.tar", request(world, arguments))
        for name, size in SPARE_DISKS.items():
            with (work / name).open("wb") as file:
                file.truncate(size)
        command = machine(disk, work, accelerator)
        try:
            return watch(command, work, clock)
        except DidNotBoot as error:
            say(f"{error}; once more")
            return watch(command, work, clock)


def root(cache: Path, clock: Clock) -> Disk:
    """The root disk, out of the cache or made now. Other disks, and what killed processes have left there, go."""
    release = root_disk.suite()
    name = root_disk.key(release)
    for stale in cache.iterdir():
        if stale.is_dir() and stale.name != name:
            shutil.rmtree(stale)
    if disk := root_disk.find(cache, name):
        say(f"root disk: {disk.directory}")
        return disk
    say(f"root disk: building {release} in {cache} …")
    start = time.monotonic()
    disk = root_disk.build(cache, name, release, clock.left())
    say(f"root disk: built in {time.monotonic() - start:.0f} s")
    return disk


def probe(kernel: Path, work: Path, say: Callable[[str], None] = say) -> str:
    """The fastest accelerator on which a kernel comes up: that /dev/kvm can be opened does not say that it works.

    The kernel gets no root, so that when it is up with all its processors it panics, which ends QEMU.
    """
    console, words = work / "probe", "console=ttyS0 panic=-1"
    line = [*QEMU, "-accel", "kvm", "-m", "256", "-kernel", str(kernel), "-append", words]
    line += ["-serial", f"file:{console}"]
    reason = "there is no /dev/kvm that we may use"
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        start = time.monotonic()
        with started(line, work) as process:
            try:
                process.wait(PROBE)
                reason = root_disk.last_words(work / "errors", 1)
            except subprocess.TimeoutExpired:
                reason = f"a guest hangs: no answer within {PROBE} s"
        if process.returncode == 0 and b"Kernel panic" in console.read_bytes():
            say(f"accelerator: kvm, answers in {time.monotonic() - start:.1f} s")
            return "kvm"
    say(f"accelerator: tcg; kvm is no use here: {reason}")
    return "tcg"


def request(world: str, arguments: Sequence[str]) -> str:
    """What guest.sh reads: the world to make, the environment of the tests, and how to run them."""
    named = any(not word.startswith("-") and (ROOT / word.partition("::")[0]).exists() for word in arguments)
    left_out = NOT_ON_V1 if world == "v1" else ()
    selection = [] if named else [path for path in SELECTION if path not in left_out and (ROOT / path).exists()]
    pytest = ["python", "-m", "pytest", "-p", "no:cacheprovider", "--junit-xml=/run/junit.xml", *arguments, *selection]
    exports = f"LAB_CGROUP={world} LAB_PATIENCE={LAB_PATIENCE} LABS_DEADLINE={LABS_DEADLINE} PYTHONUNBUFFERED=1"
    return f"export {exports}\nrun_tests() {{\n    {shlex.join(pytest)}\n}}\n"


def pack(tar: Path, request: str) -> None:
    """Write the checkout as git sees it (tracked, and new without being ignored), and the request, to an archive.

    With their bytecode, if it is for the guest's Python: to compile takes the guest ten times as long as us.
    """
    tree = tar.with_suffix("")
    root_disk.copy_checkout(tree)
    (tree / "request").write_text(request)
    compiler = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(tree)]
    compiler += ["-p", "/minicontainer"]
    subprocess.run([*compiler, *[str(tree / part) for part in ("minicontainer", "labs")]], stdout=subprocess.DEVNULL)
    with tarfile.open(tar, "w") as archive:
        archive.add(tree, ".", filter=_owned_by_root)
    shutil.rmtree(tree)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def machine(disk: Disk, work: Path, accelerator: str) -> list[str]:
    """The command line of the guest. In `work` it finds checkout.tar and the spare disks, and leaves its results.

    The disks are, in this order, /dev/vda to vdd. Two ports of a virtio console take what the tests bring out, since a
    serial line is slow: the first is this command's standard output, the second the file of results.
    """
    line = [*QEMU, "-accel", ACCELERATORS[accelerator], "-m", str(MEMORY)]
    line += ["-kernel", str(disk.kernel), "-initrd", str(disk.initrd), "-append", KERNEL]
    line += ["-serial", f"file:{work / 'console'}", "-device", "virtio-serial-pci"]
    line += ["-chardev", "file,id=output,path=/dev/stdout", "-device", "virtserialport,nr=1,chardev=output"]
    line += [
        "-chardev",
        f"file,id=results,path={_value(work / 'results')}",
        "-device",
        "virtserialport,nr=2,chardev=results",
    ]
    for number, image in enumerate([disk.image, work / "checkout.tar", *[work / name for name in SPARE_DISKS]]):
        # snapshot=on: what the guest writes goes to a nameless temporary file.
        drive = f"if=none,id=disk{number},format=raw,cache=unsafe,snapshot=on,file={_value(image)}"
        line += ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}"]
    return line


def _value(path: Path) -> str:
    """A path within an option of QEMU's, where a comma is written twice."""
    return str(path).replace(",", ",,")


@contextlib.contextmanager
def started(line: Sequence[str], work: Path) -> Iterator[subprocess.Popen[bytes]]:
    """QEMU, which is gone at the end of the block, and also when we are killed. What it says goes to `errors`."""
    with (work / "errors").open("wb") as errors:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *line],
            env={**root_disk.environment(), "TMPDIR": str(work)},
            cwd=work,  # where it would dump core, as it does on some hosts with KVM
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def watch(command: Sequence[str], work: Path, clock: Clock) -> Result:
    """Run the guest to its end, and print what its tests print, while they do.

    Raises:
        DidNotBoot: it did not come to its tests.
        Unavailable: it did, and not to their end.
    """
    begin = time.monotonic()
    booting = min(BOOT, clock.left())
    with started(command, work) as process, selectors.DefaultSelector() as selector:
        assert process.stdout
        selector.register(process.stdout, selectors.EVENT_READ)
        heading = b""  # guest.sh writes a line about the guest right before the tests begin
        while not heading.endswith(b"\n"):
            if not selector.select(begin + booting - time.monotonic()):
                raise DidNotBoot(f"the guest has not come to its tests within {booting:.0f} s: {_console(work)}")
            if not (byte := os.read(process.stdout.fileno(), 1)):
                raise DidNotBoot(f"the guest ended before its tests: {_console(work)}")
            heading += byte
        say(f"guest: {heading.decode().strip()}; up in {time.monotonic() - begin:.1f} s")
        while True:
            left = clock.left()
            if not left or not selector.select(left):
                raise Unavailable(f"the guest was killed in the midst of its tests: all {LIMIT // 60} minutes are over")
            if not (output := os.read(process.stdout.fileno(), 1 << 16)):
                break
            sys.stdout.buffer.write(output)
            sys.stdout.flush()
    return unpacked(work)


def unpacked(work: Path) -> Result:
    """What the guest has left in the file of results.

    Raises:
        Unavailable: nothing that can be read: it ended in the midst of its tests.
    """
    try:
        with tarfile.open(work / "results") as archive:
            files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
            contents = {name: file.read() for name, file in files.items() if file}
        return Result(int(contents["status"]), contents.get("junit.xml"))
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise Unavailable(f"the guest ended in the midst of its tests: {_console(work)}") from error


def _console(work: Path) -> str:
    """The end of what the guest's kernel and QEMU said."""
    said = [root_disk.last_words(work / name, 8) for name in ("console", "errors") if (work / name).exists()]
    return " / ".join(words for words in said if words != root_disk.SILENCE) or root_disk.SILENCE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
