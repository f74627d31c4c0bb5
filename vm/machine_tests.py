"""`make test-vm`: a whole life of the lab's machine, from the box to its end, and the course's tests in it.

    python -m vm.machine_tests        (LAB_VM=qemu or vagrant: with that alone)

Where Vagrant and libvirt are installed and we are root, a machine is Vagrant's: a real `vagrant up` beside a libvirtd
in namespaces of its own (vm/libvirt.sh), so that this host's forwarding and firewall stay as they are. Then two are
QEMU's alone, with control groups of either version. It ends with the first thing that is wrong, and after LIMIT.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from vm import box, commands, guest_tests, qemu, vagrant_machine
from vm.box import Box
from vm.commands import Machine
from vm.root_disk import ROOT, Unavailable

LIMIT = 30 * 60  # s
NOTEBOOK = "03-uts.ipynb"
CELLS = 300  # s, for the answer of one
UNITS = ("tests/linux/test_cgroups.py", "tests/linux/test_namespaces.py", "tests/steps/test_limits.py")
CHECKS = ("tests/checks/test_03_uts.py", "tests/checks/test_09_memory.py", "tests/checks/test_11_controllers.py")
SELECTIONS = {"v2": [*UNITS, "tests/checks"], "v1": [*UNITS, *CHECKS]}
"""What is run in the machines of QEMU's."""
VAGRANT = ("vagrant", "libvirtd", "virtlogd", "virsh", "dnsmasq")


class Wrong(Exception):
    """Something is not as it should be."""


def say(text: str) -> None:
    """A line about what is going on, at once."""
    print(f"test-vm: {text}", flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what comes, and how long it took."""
    say(f"{what} …")
    begin = time.monotonic()
    yield
    say(f"{what}: all right, {time.monotonic() - begin:.0f} s")


def demand(truth: bool, what: str) -> None:
    """Raises `Wrong` unless it is so."""
    if not truth:
        raise Wrong(what)


def life(machine: Machine, variables: Mapping[str, str], tests: list[str], notebook: bool) -> None:
    """Everything that a machine is for, once."""
    try:
        with step("up"):
            commands.up(machine, variables)
        with step("a second up says that it is up"):
            commands.up(machine, variables)
        world = variables.get("LAB_CGROUP") or "v2"
        with step(f"control groups are {world}"):
            kind = {"v2": "cgroup2fs", "v1": "tmpfs"}[world]
            demand(machine.ssh(["sh", "-c", f"test $(stat -fc %T /sys/fs/cgroup) = {kind}"]) == 0, f"not {kind}")
        with step("a second provisioning changes nothing"):
            find = "find /opt /srv /etc /usr/local -name __pycache__ -prune -o -newer /root/mark -print"
            changed = f"touch /root/mark; sh /vagrant/vm/provision.sh --lab && {find}"
            demand(machine.ssh(["sudo", "sh", "-c", f"! ({changed}) | grep '^/'"]) == 0, "it changed these files")
        if notebook:
            with step(f"{NOTEBOOK} through the forwarded port"):
                execute(machine.url(), NOTEBOOK)
        with step("snapshot and restore"):
            machine.snapshot("mine")
            demand(machine.ssh(["sudo", "rm", "-rf", "/opt/minicontainer"]) == 0, "it cannot be broken")
            machine.restore("mine")
            demand(machine.ssh(["test", "-e", "/opt/minicontainer/Makefile"]) == 0, "what was removed is not back")
        with step(f"the tests in it: {' '.join(tests)}"):
            demand(machine.ssh(commands.test_command(tests)) == 0, "tests failed in the machine: see above")
        with step("halt"):
            machine.halt()
            demand(not machine.running(), "it runs")
    finally:
        with step("destroy"):
            machine.destroy()
            demand(not machine.exists(), "there is a machine left")


def execute(url: str, notebook: str) -> None:
    """Run the cells of a notebook through the server's own API, and have each come to its end.

    Its exercises are empty, and cells that show what they lack are to fail: only that the kernel answers every cell is
    demanded, and that the first one with output has some.

    Raises:
        Wrong: there was no answer.
    """
    where = urlsplit(url)
    token = parse_qs(where.query)["token"][0]

    def ask(method: str, path: str, body: object = None) -> dict[str, object]:
        deadline = time.monotonic() + CELLS
        while True:
            connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
            try:
                headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                answer = connection.getresponse()
                text = answer.read()
                demand(answer.status < 300, f"{method} {path}: HTTP {answer.status} {text[:200]!r}")
                return dict(json.loads(text)) if text else {}
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise Wrong(f"{method} {path}: {error!r}") from error
                time.sleep(1)  # it tells its address some moments before it listens
            finally:
                connection.close()

    content = ask("GET", f"/api/contents/{notebook}")["content"]
    assert isinstance(content, dict)
    cells = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    demand(bool(cells), f"{notebook} has no code")
    kernel = ask("POST", "/api/kernels", {"name": "python3"})["id"]
    try:
        client = [sys.executable, "-m", "vm.notebook_client", f"{where.hostname}:{where.port}", token, str(kernel)]
        done = subprocess.run(client, input=json.dumps(cells), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
        demand(done.returncode == 0, f"the notebook's kernel: {done.stderr.strip().splitlines()[-1:]}")
        say(done.stdout.strip())
    finally:
        ask("DELETE", f"/api/kernels/{kernel}")


def with_vagrant(source: Box, variables: Mapping[str, str]) -> None:
    """`life` in namespaces in which there is a libvirtd, as another process of this program."""
    with tempfile.TemporaryDirectory(prefix="test-vm-") as temporary:
        own = {
            "VAGRANT_HOME": f"{temporary}/home", "VAGRANT_DOTFILE_PATH": f"{temporary}/dot", "HOME": temporary,
            "VAGRANT_DEFAULT_PROVIDER": "libvirt", "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1",
            "LAB_DRIVER": accelerated(source), "LAB_BOX": str(source.vagrant),
        }  # fmt: skip
        (Path(temporary) / "home").mkdir()
        namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inner = [
            "sh",
            str(ROOT / "vm" / "libvirt.sh"),
            temporary,
            sys.executable,
            "-m",
            "vm.machine_tests",
            "--vagrant",
        ]
        environment = {**variables, **own}
        done = subprocess.run([*namespaces, *inner], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
        demand(done.returncode == 0, "see above")


def accelerated(source: Box) -> str:
    """libvirt's word for the accelerator that answers."""
    with tempfile.TemporaryDirectory(prefix="probe-") as temporary:
        found = guest_tests.probe(source.directory / "kernel", Path(temporary), say)
    return "kvm" if found == "kvm" else "qemu"


def main(arguments: list[str], variables: Mapping[str, str] = os.environ) -> int:
    """Run it. Returns 0 if all is as it should be, 1 if something is not, 2 where it cannot be found out here."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # as on ^C: through every `finally`
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(LIMIT)
    named = variables.get("LAB_VM", "")
    try:
        if arguments == ["--vagrant"]:
            life(vagrant_machine.Machine(), {**variables, "LAB_VM": "vagrant"}, ["tests/checks/test_03_uts.py"], True)
            return 0
        with step("the box"):
            source = commands.given_box(variables) or box.cached(variables)
        missing = [tool for tool in VAGRANT if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None]
        if named != "qemu" and not missing and os.geteuid() == 0:
            say("a machine of Vagrant's, over a libvirtd of our own")
            with_vagrant(source, variables)
        elif named == "vagrant":
            raise Unavailable(f"LAB_VM=vagrant: it wants root, and {' and '.join(missing) or 'we are not'}")
        else:
            why = "LAB_VM=qemu" if named else f"no {', '.join(missing)}" if missing else "that wants root"
            say(f"no machine of Vagrant's: {why}")
        for world, tests in SELECTIONS.items() if named != "vagrant" else ():
            with tempfile.TemporaryDirectory(prefix="test-vm-") as temporary:
                say(f"a machine of QEMU's, with control groups {world}")
                chosen = {**variables, "LAB_CGROUP": "v1" if world == "v1" else "", "LAB_BOX": str(source.directory)}
                life(qemu.Machine(Path(temporary)), chosen, list(tests), notebook=world == "v2")
    except (Wrong, Unavailable, OSError, subprocess.SubprocessError) as error:
        print(f"test-vm: {error}", file=sys.stderr)
        return 1 if isinstance(error, Wrong) else 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    say("all of it is all right")
    return 0


def _too_late(*_: object) -> None:
    raise Wrong(f"all {LIMIT // 60} minutes are over")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
