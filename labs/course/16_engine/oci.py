"""The five functions of lab 16 behind a command line, so that another program can drive them: podman, for instance.

    oci.py NOTEBOOK [options of podman's] create --bundle DIR --pid-file FILE ID | start ID | state ID | kill ID SIGNAL | delete ID

NOTEBOOK is a notebook or module with the exercises; what is not in there is the course's own. Containers are kept in
the directory that LAB_CONTAINERS names. What is called create, start, state, kill and delete in here is yours.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from minicontainer.runtime.substitute import load_steps


def main() -> int:
    """Do what podman asks for; what goes wrong is a line on stderr, and 1."""
    steps = load_steps(sys.argv[1])
    containers = os.environ.get("LAB_CONTAINERS", "/run/lab-16")
    parser = argparse.ArgumentParser(prog="mine")
    for option in ("--log", "--log-format", "--root", "--cgroup-manager"):
        parser.add_argument(option)
    parser.add_argument("--systemd-cgroup", action="store_true")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("create", "start", "state", "kill", "delete"):
        each = commands.add_parser(command)
        if command == "create":
            each.add_argument("--bundle", default=".")
            each.add_argument("--pid-file")
        if command == "delete":
            each.add_argument("--force", action="store_true")
        each.add_argument("id")
        if command == "kill":
            each.add_argument("signal", nargs="?", default="TERM")
    asked, _ = parser.parse_known_args(sys.argv[2:])
    directory = f"{containers}/{asked.id}"
    try:
        match asked.command:
            case "create":
                os.makedirs(containers, mode=0o700, exist_ok=True)
                steps.create(directory, asked.bundle, steps)
                if asked.pid_file:
                    Path(asked.pid_file).write_text(str(steps.state(directory)["pid"]))
            case "start":
                steps.start(directory)
            case "state":
                print(json.dumps(steps.state(directory)))
            case "kill":
                name = asked.signal.removeprefix("SIG")
                steps.kill(directory, int(name) if name.isdecimal() else int(signal.Signals[f"SIG{name}"]))
            case "delete":
                if os.path.exists(directory) or not asked.force:
                    steps.delete(directory)
    except (OSError, ValueError, KeyError) as error:
        print(f"mine: {asked.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
