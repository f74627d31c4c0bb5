"""The lab VM under QEMU alone: user-mode network, ports on this host's loopback, no root, nothing of the host changed.

A machine is a directory: its disk (a copy of the box's, with its snapshots in it), the key by which we enter, the
console's output, QEMU's process id and monitor. It is made under another name, and gets its own when it has been
through its first boot: what is interrupted before that leaves nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vm import guest_tests, root_disk
from vm.box import Box
from vm.root_disk import Unavailable

BOOT = 600  # s, until ssh answers; 20 to 40 without the processor's help
PROVISION = 1200  # s, for the course; half a minute where the box brings most of it
HALT = 120  # s, until a machine that was asked to is off
MONITOR = 300  # s, for an answer of QEMU's; it saves a snapshot of the memory meanwhile
PORTS = 50  # that are tried where the wanted one is taken
SPACE = 3 << 30  # bytes, beside the box's, that a new machine wants
FRESH = "fresh"
USER = "vagrant"
ADDRESS = "127.0.0.1"
CONSOLE_LINES = 8


@dataclass(frozen=True)
class Settings:
    """What a machine is started with. Memory and processors are for its life, since its snapshots depend on them."""

    processors: int
    memory: int
    """MiB"""
    ssh: int
    """The port of this host's that is forwarded to the guest's 22."""
    port: int
    """And the one to JupyterLab's."""


def wanted(variables: Mapping[str, str]) -> Settings:
    """LAB_CPUS, LAB_MEMORY and LAB_PORT, as the Vagrantfile has them.

    Raises:
        Unavailable: one is not a number.
    """
    found = {}
    for name, default in {"LAB_CPUS": 2, "LAB_MEMORY": 2048, "LAB_PORT": 8888}.items():
        text = variables.get(name) or str(default)
        if not text.isdecimal() or not int(text):
            raise Unavailable(f"{name}={text}: it is a number, such as {default}")
        found[name] = int(text)
    return Settings(found["LAB_CPUS"], found["LAB_MEMORY"], 0, found["LAB_PORT"])


def place(variables: Mapping[str, str]) -> Path:
    """Where the machine is kept: the XDG base directory specification's place for what should outlive a program."""
    home = variables.get("XDG_STATE_HOME") or Path(variables.get("HOME") or Path.home(), ".local", "state")
    return Path(home, "minicontainer", "vm")


def say(text: str) -> None:
    """A line about what is going on, at once."""
    print(f"vm: {text}", flush=True)


class Machine:
    """The one machine of `place`.

    Every method raises `Unavailable` with one line when it cannot do what it is for.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.directory = place / "lab"

    # --- Its life ---

    def up(self, box: Box | None, settings: Settings, world: str = "") -> None:
        """Make the machine if there is none, start it, and wait until the notebooks are served.

        Args:
            box: what a new machine is copied from; asked for only then.
            settings: for a new one; of an existing one the port alone.
            world: v1 or v2, for control groups of that version; "" leaves them.
        """
        with self._alone():
            if self.running():
                say(f"it is up already: {self.url()}")
                return
            if self.directory.is_dir():
                self._start_again(replace(self.settings(), port=settings.port), world)
            elif box is None:
                raise Unavailable("there is no machine yet, and no box to make it of")
            else:
                self._make(box, settings, world)
            say(f"JupyterLab: {self.url()}")

    def exists(self) -> bool:
        """Whether it has been made, and not destroyed since."""
        return self.directory.is_dir()

    def running(self) -> bool:
        """Whether its QEMU runs."""
        return self._process() is not None

    def status(self) -> str:
        """One line."""
        if not self.exists():
            return "not created"
        if not self.running():
            return "halted"
        told = self.settings()
        return (
            f"running, {told.processors} processors, {told.memory} MiB; "
            f"ssh {ADDRESS}:{told.ssh}, JupyterLab {ADDRESS}:{told.port}; "
            f"snapshots: {', '.join(self.snapshots()) or 'none'}"
        )

    def halt(self) -> None:
        """Turn it off as its button would; after HALT seconds as its plug would."""
        with self._alone():
            self._exists()
            if not self.running():
                say("it is off already")
                return
            self._off(self.directory)
            say("off")

    def destroy(self) -> None:
        """Turn it off at once and remove it, with its snapshots and all that was done in it."""
        with self._alone():
            existed = False
            for directory in (self.directory, self._unfinished):
                existed |= directory.is_dir()
                self._kill(directory)
                shutil.rmtree(directory, ignore_errors=True)
            say("gone" if existed else "there is none")

    def snapshot(self, name: str) -> None:
        """Keep disk and memory as they are now under that name; an older one of that name goes."""
        with self._alone():
            self._running()
            self._order(self.directory, f"savevm {_name(name)}")

    def restore(self, name: str) -> None:
        """Go back to a snapshot; a machine that is off is started with it."""
        with self._alone():
            self._exists()
            if name not in self.snapshots():
                raise Unavailable(f"no snapshot {name}; there are: {', '.join(self.snapshots()) or 'none'}")
            if self.running():
                self._order(self.directory, f"loadvm {_name(name)}")
            else:
                self._start(self.directory, self.settings(), ["-loadvm", _name(name)])
            self._wait(self.directory)
            # Its clock was restored, too.
            self._quietly(self.directory, f"sudo date --set=@{time.time():.0f}")

    def snapshots(self) -> list[str]:
        """The names of the snapshots, oldest first."""
        listed = subprocess.run(
            ["qemu-img", "snapshot", "-l", "-U", str(self.directory / "disk.qcow2")],
            capture_output=True, text=True,
        )  # fmt: skip
        return [line.split()[1] for line in listed.stdout.splitlines()[2:] if len(line.split()) > 2]

    # --- In it ---

    def ssh(self, words: Sequence[str], terminal: bool = False) -> int:
        """Run a command in it, or a login shell; returns its exit status."""
        self._running()
        line = self.ssh_line(self.directory, terminal)
        return subprocess.run([*line, *([shlex.join(words)] if words else [])]).returncode

    def url(self) -> str:
        """Where its notebooks are, seen from this host."""
        self._running()
        told = self._quietly(self.directory, "sudo lab-url 120")
        return told.strip().replace(":8888/", f":{self.settings().port}/")

    def ssh_line(self, directory: Path, terminal: bool = False) -> list[str]:
        """The command line of ssh up to the command."""
        settings = self._settings(directory)
        options = {
            "BatchMode": "yes", "IdentitiesOnly": "yes", "StrictHostKeyChecking": "accept-new", "HostKeyAlias": "lab",
            "UserKnownHostsFile": str(directory / "known_hosts"), "ConnectTimeout": "10", "LogLevel": "ERROR",
            "ServerAliveInterval": "15", "ServerAliveCountMax": "8", "ControlPath": "none",
        }  # fmt: skip
        line = ["ssh", "-F", "none", "-i", str(directory / "key"), "-p", str(settings.ssh)]
        for name, value in options.items():
            line += ["-o", f'{name}="{value}"' if " " in value else f"{name}={value}"]
        return [*line, *(["-t"] if terminal else []), f"{USER}@{ADDRESS}"]

    # --- How it is made ---

    @property
    def _unfinished(self) -> Path:
        return self.place / "lab.unfinished"

    def _make(self, box: Box, settings: Settings, world: str) -> None:
        box.check()
        root_disk.require(["qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen", "git", "tar", "setpriv"])
        root_disk.want_space(self.place, SPACE + box.disk.stat().st_size)
        directory = self._unfinished
        self._kill(directory)  # what a process that was killed has left
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        try:
            copied = subprocess.run(
                ["cp", "--reflink=auto", str(box.disk), str(directory / "disk.qcow2")], capture_output=True, text=True
            )
            if copied.returncode:
                raise Unavailable(f"the box's disk cannot be copied: {copied.stderr.strip()}")
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(directory / "key")]
            subprocess.run(key, check=True, stdin=subprocess.DEVNULL)
            (directory / "accelerator").write_text(self._accelerator(box, directory))
            self._start(directory, settings)
            self._wait(directory)
            self._bring_course(directory)
            if world:
                self._choose(directory, world)
            self._order(directory, f"savevm {FRESH}")
            say(f"saved the snapshot {FRESH}; `labs vm restore {FRESH}` goes back to it")
            directory.rename(self.directory)
        finally:
            if directory.is_dir():
                self._kill(directory)
                shutil.rmtree(directory, ignore_errors=True)

    def _start_again(self, settings: Settings, world: str) -> None:
        self._start(self.directory, settings)
        try:
            self._wait(self.directory)
            if world:
                self._choose(self.directory, world)
        except BaseException:
            self._kill(self.directory)
            raise

    def _accelerator(self, box: Box, directory: Path) -> str:
        kernel = box.directory / "kernel"
        if not kernel.exists():
            say("accelerator: tcg; the box has no kernel beside it to try kvm with")
            return "tcg"
        return guest_tests.probe(kernel, directory, say)

    def _start(self, directory: Path, settings: Settings, more: Sequence[str] = ()) -> None:
        """Start QEMU, with ports that are free."""
        port = free_port(settings.port)
        if port != settings.port:
            say(f"port {settings.port} of {ADDRESS} is taken: it is {port}")
        settings = replace(settings, port=port, ssh=free_port(0))
        accelerator = (directory / "accelerator").read_text()
        forwards = f"hostfwd=tcp:{ADDRESS}:{settings.ssh}-:22,hostfwd=tcp:{ADDRESS}:{settings.port}-:8888"
        line = [
            "qemu-system-x86_64",
            "-name",
            "lab",
            "-machine",
            "q35",
            "-cpu",
            "max",
            "-smp",
            str(settings.processors),
        ]
        line += ["-m", str(settings.memory), "-accel", guest_tests.ACCELERATORS[accelerator]]
        line += ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "file:console"]
        line += ["-drive", "if=none,id=disk,format=qcow2,file=disk.qcow2", "-device", "virtio-blk-pci,drive=disk"]
        line += [
            "-netdev",
            f"user,id=net,{forwards}",
            "-device",
            "virtio-net-pci,netdev=net",
            "-device",
            "virtio-rng-pci",
        ]
        line += ["-fw_cfg", "name=opt/minicontainer/key,file=key.pub", "-qmp", "unix:monitor,server=on,wait=off"]
        line += ["-pidfile", "pid", "-daemonize", *more]
        for stale in ("console", "monitor", "pid"):
            (directory / stale).unlink(missing_ok=True)
        # In its directory, since the name of a socket has 107 bytes at most.
        started = subprocess.run(line, cwd=directory, env=root_disk.environment(), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        if started.returncode:
            self._kill(directory)
            raise Unavailable(f"QEMU does not start: {started.stderr.strip().splitlines()[-1:] or ['it says nothing']}")
        (directory / "settings.json").write_text(json.dumps(asdict(settings)))
        say(f"started: {accelerator}, {settings.processors} processors, {settings.memory} MiB")

    def _wait(self, directory: Path) -> None:
        """Until ssh answers. A guest that does not in time is turned off by whoever called."""
        limit = BOOT
        begin = time.monotonic()
        shown = begin
        line = [*self.ssh_line(directory), "true"]
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if (
                    subprocess.run(
                        line, stdin=subprocess.DEVNULL, capture_output=True, timeout=min(30, 1 + limit)
                    ).returncode
                    == 0
                ):
                    break
            if (guest := self._process(directory)) is None:
                raise Unavailable(f"the machine went off while it booted: {last_lines(directory)}")
            if time.monotonic() - begin > limit:
                raise Unavailable(f"the machine does not answer within {limit:.0f} s: {last_lines(directory)}")
            if time.monotonic() - shown > 15:
                shown = time.monotonic()
                say(f"booting, {shown - begin:.0f} s: {last_lines(directory, 1)}")
            watch = os.pidfd_open(guest)
            select.select([watch], [], [], 1)
            os.close(watch)
        say(f"answers after {time.monotonic() - begin:.0f} s")

    def _bring_course(self, directory: Path) -> None:
        """The checkout as it is goes to /vagrant, where Vagrant's goes, and is installed from there."""
        with tempfile.TemporaryDirectory(prefix="course-", dir=directory) as temporary:
            tree = Path(temporary, "course")
            root_disk.copy_checkout(tree)
            pack = subprocess.Popen(["tar", "-C", str(tree), "-czf", "-", "."], stdout=subprocess.PIPE)
            with pack:
                unpack = "sudo rm -rf /vagrant && sudo mkdir /vagrant && sudo tar -xz --no-same-owner -C /vagrant"
                self._quietly(directory, unpack, stdin=pack.stdout)
        self._aloud(directory, "sudo sh /vagrant/vm/provision.sh --lab", PROVISION)

    def _choose(self, directory: Path, world: str) -> None:
        """Control groups of another version: another command line for the kernel, and a reboot where that is new."""
        if self._quietly(directory, f"sudo sh /vagrant/vm/provision.sh --cgroup {shlex.quote(world)}"):
            before = self._quietly(directory, "cat /proc/sys/kernel/random/boot_id")
            say(f"control groups {world}: booting again")
            with contextlib.suppress(Unavailable):  # ssh may end before it hears of its success
                self._quietly(directory, "sudo systemctl reboot")
            until = time.monotonic() + BOOT
            while True:
                self._wait(directory)
                with contextlib.suppress(Unavailable):
                    if self._quietly(directory, "cat /proc/sys/kernel/random/boot_id") != before:
                        return
                if time.monotonic() > until:
                    raise Unavailable(f"the machine does not boot again within {BOOT} s: {last_lines(directory)}")
                select.select([], [], [], 1)

    # --- Talking to it ---

    def _quietly(self, directory: Path, command: str, stdin: Any = subprocess.DEVNULL) -> str:
        """Run a command in it; returns what it printed."""
        line = [*self.ssh_line(directory), command]
        try:
            done = subprocess.run(line, stdin=stdin, capture_output=True, text=True, timeout=PROVISION)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"no end of `{command}` within {PROVISION} s: {last_lines(directory)}") from None
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()[-2:]
            raise Unavailable(f"in the machine `{command}` failed: {' / '.join(words) or done.returncode}")
        return done.stdout

    def _aloud(self, directory: Path, command: str, limit: float) -> None:
        """Run a command in it, and show what it prints."""
        line = [*self.ssh_line(directory), command]
        timer = ["timeout", "--foreground", "--kill-after=10", str(limit)]
        with subprocess.Popen(
            [*timer, *line], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout
            last = ""
            for last in process.stdout:
                say(last.rstrip())
        if process.returncode == 124:
            raise Unavailable(f"no end of `{command}` within {limit:.0f} s: {last_lines(directory)}")
        if process.returncode:
            raise Unavailable(f"in the machine `{command}` failed: {last.strip() or process.returncode}")

    def _monitor(self, directory: Path, command: str, **arguments: str) -> Any:
        """Give QEMU a command of its machine protocol (QMP) and return its answer."""
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(MONITOR)
                connection.connect(f"/proc/self/fd/{place}/monitor")
                with connection.makefile("rw") as stream:
                    stream.readline()  # its greeting
                    for name, words in (("qmp_capabilities", {}), (command, arguments)):
                        stream.write(json.dumps({"execute": name, "arguments": words}) + "\n")
                        stream.flush()
                        while not {"return", "error"} & set(answer := json.loads(stream.readline() or '{"error": {}}')):
                            pass  # events
        except (OSError, ValueError) as error:
            raise Unavailable(f"QEMU does not answer: {error}") from error
        finally:
            os.close(place)
        if "error" in answer:
            raise Unavailable(f"QEMU refuses {command}: {answer['error'].get('desc', 'it has ended')}")
        return answer["return"]

    def _order(self, directory: Path, command: str) -> None:
        """A command of QEMU's monitor for people, which answers with nothing or with what went wrong."""
        if said := str(self._monitor(directory, "human-monitor-command", **{"command-line": command})).strip():
            raise Unavailable(f"QEMU refuses `{command}`: {said}")

    def _off(self, directory: Path) -> None:
        guest = self._process(directory)
        if guest is None:
            return
        watch = os.pidfd_open(guest)
        try:
            self._monitor(directory, "system_powerdown")
            if not select.select([watch], [], [], HALT)[0]:
                say(f"it is not off within {HALT} s, and is now unplugged: {last_lines(directory)}")
                self._kill(directory)
        finally:
            os.close(watch)

    def _process(self, directory: Path | None = None) -> int | None:
        """The process id of its QEMU while that runs; another process that has the number by now is none."""
        directory = directory or self.directory
        with contextlib.suppress(OSError, ValueError):
            pid = int((directory / "pid").read_text())
            same = os.path.samefile(f"/proc/{pid}/exe", shutil.which("qemu-system-x86_64") or "")
            if same and b"name=opt/minicontainer/key" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def _kill(self, directory: Path) -> None:
        guest = self._process(directory)
        if guest is not None:
            watch = os.pidfd_open(guest)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(watch, signal.SIGKILL)
            select.select([watch], [], [], HALT)
            os.close(watch)

    # --- What it is ---

    def settings(self) -> Settings:
        """What it was started with."""
        return self._settings(self.directory)

    def _settings(self, directory: Path) -> Settings:
        try:
            return Settings(**json.loads((directory / "settings.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise Unavailable(f"{directory} is no machine: {error}; `labs vm destroy` removes it") from error

    def _exists(self) -> None:
        if not self.exists():
            raise Unavailable("there is no machine: `labs vm up` makes one")

    def _running(self) -> None:
        self._exists()
        if not self.running():
            raise Unavailable("the machine is off: `labs vm up` starts it")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other command changes the machine meanwhile."""
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            lock = (self.place / "lock").open("w")
        except OSError as error:
            raise Unavailable(f"no place for the machine: {error}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Unavailable("another `labs vm` is at work on the machine; wait for its end") from None
            yield


def free_port(wanted: int) -> int:
    """That port of 127.0.0.1's, or the next that is free; 0 for any.

    Raises:
        Unavailable: all that were tried are taken.
    """
    for port in range(wanted, wanted + PORTS) if wanted else [0]:
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind((ADDRESS, port))
            return int(candidate.getsockname()[1])
    raise Unavailable(f"ports {wanted} to {wanted + PORTS - 1} of {ADDRESS} are all taken; LAB_PORT names another")


def last_lines(directory: Path, count: int = CONSOLE_LINES) -> str:
    """The end of what came over the machine's console, without what is for a terminal."""
    with contextlib.suppress(OSError):
        text = (directory / "console").read_bytes()[-8000:].decode(errors="replace")
        text = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
        if lines := [line.strip() for line in text.splitlines() if line.strip()]:
            return " / ".join(lines[-count:])
    return "its console says nothing"


def _name(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum() or name.isdecimal():
        raise Unavailable(f"a snapshot's name has letters, digits, - and _, and a letter among them: {name!r}")
    return name
