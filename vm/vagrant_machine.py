"""The lab VM under Vagrant: what `labs vm` does where Vagrant is installed, over python-vagrant."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vm.qemu import ADDRESS, FRESH, Settings, free_port, say
from vm.root_disk import ROOT, Unavailable


class Machine:
    """The one machine of a directory with a Vagrantfile; as vm.qemu.Machine."""

    def __init__(self, root: Path = ROOT) -> None:
        import vagrant

        self.root = root
        self._port = Path(os.environ.get("VAGRANT_DOTFILE_PATH") or root / ".vagrant", "lab-port")
        # Of a machine that is up, what LAB_PORT would say now counts for nothing.
        with contextlib.suppress(OSError):
            os.environ["LAB_PORT"] = self._port.read_text()
        untyped: Any = vagrant.Vagrant
        self._vagrant: Any = untyped(str(root))
        self._loud: Any = untyped(str(root), quiet_stdout=False, quiet_stderr=False)

    def exists(self) -> bool:
        """Whether it has been made, and not destroyed since."""
        return self._state() != "not_created"

    def running(self) -> bool:
        """Whether it is on."""
        return self._state() == "running"

    def status(self) -> str:
        """One line."""
        state = self._state().replace("_", " ")
        if state == "not created":
            return state
        return f"{state}, of Vagrant's; snapshots: {', '.join(self.snapshots()) or 'none'}"

    def up(self, settings: Settings, world: str = "") -> None:
        """Make the machine if there is none, start it, and wait until the notebooks are served."""
        if self.running():
            say(f"it is up already: {self.url()}")
            return
        existed = self.exists()
        port = free_port(settings.port)
        if port != settings.port:
            say(f"port {settings.port} of {ADDRESS} is taken: it is {port}")
        os.environ["LAB_PORT"] = str(port)
        if world:
            os.environ["LAB_CGROUP"] = world
        done = False
        try:
            with _refusals("up"):
                # Without a terminal, progress would be a line each percent.
                self._loud._call_vagrant_command(["up", *([] if sys.stdout.isatty() else ["--no-tty"])])
            self._port.parent.mkdir(exist_ok=True)
            self._port.write_text(str(port))
            done = True
        finally:
            if not done and not existed:
                say("what was made of it goes again")
                with contextlib.suppress(subprocess.CalledProcessError):
                    self._loud.destroy()
        say(f"JupyterLab: {self.url()}")

    def halt(self) -> None:
        """Turn it off."""
        self._exists()
        with _refusals("halt"):
            self._loud.halt()

    def destroy(self) -> None:
        """Turn it off at once and remove it."""
        with _refusals("destroy"):
            self._loud.destroy()
        self._port.unlink(missing_ok=True)

    def snapshot(self, name: str) -> None:
        """Keep it as it is now under that name; an older one of that name goes."""
        self._running()
        with _refusals("snapshot save"):
            if name in self.snapshots():
                self._vagrant.snapshot_delete(name)
            self._vagrant.snapshot_save(name)

    def restore(self, name: str = FRESH) -> None:
        """Go back to a snapshot."""
        self._exists()
        if name not in self.snapshots():
            raise Unavailable(f"no snapshot {name}; there are: {', '.join(self.snapshots()) or 'none'}")
        with _refusals("snapshot restore"):
            self._loud._call_vagrant_command(["snapshot", "restore", "--no-provision", name])

    def snapshots(self) -> list[str]:
        """The names of the snapshots."""
        with _refusals("snapshot list"):
            listed = self._vagrant.snapshot_list()
        # "==> default: " comes first in some versions, and a sentence instead of an empty list.
        return [name for name in listed if name and " " not in name.strip() and not name.startswith("==>")]

    def ssh(self, words: Sequence[str], terminal: bool = False) -> int:
        """Run a command in it, or a login shell; returns its exit status."""
        import shlex

        self._running()
        more = ["-c", shlex.join(words)] if words else []
        return subprocess.run(["vagrant", "ssh", *more], cwd=self.root).returncode

    def url(self) -> str:
        """Where its notebooks are, seen from this host."""
        self._running()
        with _refusals("ssh"):
            told = self._vagrant.ssh(command="sudo lab-url 120")
        port = self._port.read_text() if self._port.exists() else "8888"
        return str(told).strip().replace(":8888/", f":{port}/")

    def _state(self) -> str:
        with _refusals("status"):
            return str(self._vagrant.status()[0].state)

    def _exists(self) -> None:
        if not self.exists():
            raise Unavailable("there is no machine: `labs vm up` makes one")

    def _running(self) -> None:
        self._exists()
        if not self.running():
            raise Unavailable("the machine is off: `labs vm up` starts it")


def installed() -> bool:
    """Whether Vagrant is, and something that it can make machines with."""
    if shutil.which("vagrant") is None:
        return False
    if shutil.which("VBoxManage") or shutil.which("prlctl") or shutil.which("vmrun"):
        return True
    return Path("/run/libvirt/libvirt-sock").exists()


@contextlib.contextmanager
def _refusals(command: str) -> Iterator[Any]:
    try:
        yield None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.output or b"") if isinstance(error.stderr or error.output, bytes) else b""
        words = said.decode(errors="replace").strip().splitlines()[-2:]
        raise Unavailable(
            f"`vagrant {command}` failed: {' / '.join(words) or 'see above'}; LAB_VM=qemu does without Vagrant"
        ) from error
