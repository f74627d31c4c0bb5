"""`labs vm`: the lab's machine, over Vagrant where it is installed and can make machines, else over QEMU alone.

LAB_VM=vagrant or qemu chooses; a machine that exists stays what it is. LAB_CPUS, LAB_MEMORY, LAB_PORT and LAB_CGROUP
are as in the Vagrantfile. LAB_BOX is a box that vm/build-box made: its directory, or a file in it. Without it one is
built, and kept.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path

from vm import box, guest_tests, qemu, vagrant_machine
from vm.box import Box
from vm.root_disk import Unavailable

FAILED, USAGE, INTERRUPTED = 1, 2, 130

Machine = qemu.Machine | vagrant_machine.Machine


def main(arguments: Sequence[str], variables: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns its exit status: 1 after a line that says why it could not be done."""
    parser = argparse.ArgumentParser(
        prog="labs vm", description="The lab's virtual machine.", epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="make it, start it, and print where the notebooks are")
    ssh = commands.add_parser("ssh", help="a shell in it, or a command")
    ssh.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("status", help="say how it is")
    commands.add_parser("halt", help="turn it off")
    commands.add_parser("destroy", help="remove it, with all that was done in it")
    for command, text in {"snapshot": "keep it as it is now", "restore": "go back to a snapshot"}.items():
        named = commands.add_parser(command, help=text)
        named.add_argument("name", nargs="?", default=qemu.FRESH if command == "restore" else "mine", metavar="NAME",
                           help="(default: %(default)s)")  # fmt: skip
    test = commands.add_parser("test", help="run the checks of all labs in it, or what pytest is told")
    test.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGUMENTS OF PYTEST")
    commands.add_parser("open", help="open the notebooks in a browser")
    told = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as on ^C: through every `finally`
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return carry_out(told, choose(variables), variables)
    except (Unavailable, OSError) as error:
        print(f"labs vm: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("labs vm: interrupted", file=sys.stderr)
        return INTERRUPTED


def choose(variables: Mapping[str, str]) -> Machine:
    """The machine that exists, or the one that would be made.

    Raises:
        Unavailable: LAB_VM names what is not there.
    """
    named = variables.get("LAB_VM", "")
    under_qemu = qemu.Machine(qemu.place(variables))
    if named not in ("", "qemu", "vagrant"):
        raise Unavailable(f"LAB_VM={named}: it is qemu or vagrant")
    if named == "qemu" or (not named and (under_qemu.exists() or not vagrant_machine.installed())):
        return under_qemu
    return vagrant_machine.Machine()


def carry_out(told: argparse.Namespace, machine: Machine, variables: Mapping[str, str]) -> int:
    """What the command line asks for, of that machine."""
    match told.command:
        case "up":
            up(machine, variables)
        case "status":
            print(machine.status())
            return 0 if machine.running() else FAILED
        case "halt":
            machine.halt()
        case "destroy":
            machine.destroy()
        case "snapshot":
            machine.snapshot(told.name)
            qemu.say(f"saved the snapshot {told.name}; `labs vm restore {told.name}` goes back to it")
        case "restore":
            machine.restore(told.name)
            qemu.say(f"as it was at the snapshot {told.name}; JupyterLab: {machine.url()}")
        case "ssh":
            return machine.ssh(_command(told.words), terminal=sys.stdin.isatty())
        case "test":
            return machine.ssh(test_command(_command(told.words)))
        case "open":
            url = machine.url()
            print(url)
            if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin":
                webbrowser.open(url)
    return 0


def up(machine: Machine, variables: Mapping[str, str]) -> None:
    """Make and start it."""
    world = variables.get("LAB_CGROUP", "")
    if world not in ("", "v1", "v2"):
        raise Unavailable(f"LAB_CGROUP={world}: it is v1 or v2")
    settings = qemu.wanted(variables)
    if isinstance(machine, vagrant_machine.Machine):
        machine.up(settings, world)
        return
    source = None if machine.exists() else given_box(variables) or box.cached(variables)
    machine.up(source, settings, world)


def given_box(variables: Mapping[str, str]) -> Box | None:
    """The box that LAB_BOX names, by its directory or a file in it, as to the Vagrantfile."""
    given = variables.get("LAB_BOX")
    if not given:
        return None
    path = Path(given).absolute()
    return Box(path if path.is_dir() else path.parent)


def test_command(words: Sequence[str]) -> list[str]:
    """How pytest is run in the machine: as root, with patience for a machine without the processor's help."""
    patience = [f"LABS_DEADLINE={guest_tests.LABS_DEADLINE}", f"LAB_PATIENCE={guest_tests.LAB_PATIENCE}"]
    command = ["sudo", "env", "-C", "/opt/minicontainer", "LANG=C.UTF-8", "HOME=/root", *patience]
    command += [".venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    return [*command, *(words or ["tests/checks"])]


def _command(words: Sequence[str]) -> list[str]:
    return list(words[1:] if words[:1] == ["--"] else words)
