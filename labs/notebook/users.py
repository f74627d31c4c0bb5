"""User namespaces in a lesson: processes in new ones, and their ids from both sides.

    with newcomer() as other: …           a process in a user namespace that nobody has written maps for
    with newcomer("mapped") as other: …   …whose maps were written; "root": that has also become root in it
    status(other)                         a table: who it is from outside, and from inside
    within(other, "print(os.getuid())")   a program, run by root of its user namespace
    ordinarily("print(os.getuid())")      a program, run by somebody who is not root
    run_rootless("busybox", ["id"])       a container of theirs

With `mine=True`, the functions of this session are used as far as there are any, and what the kernel refuses is told.
The process executes sleep(1) at last. `labs.notebook.sides` draws the maps.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs.notebook.shown import Table
from minicontainer.linux import CLONE_NEWUSER, pidfd_open, setns, unshare
from minicontainer.steps.user import IdMap

STAGES = ("alone", "mapped", "root")


@contextlib.contextmanager
def newcomer(stage: str = "alone", *, mine: bool = False) -> Iterator[int]:
    """The pid of a process in a new user namespace, while the block lasts. `stage` is one of STAGES.

    Root gives it a thousand ids and a hundred more; everybody else only themselves. Raises RuntimeError: a step failed.
    """
    from labs.notebook.session import session

    assert stage in STAGES
    with tempfile.TemporaryDirectory(prefix="newcomer-") as directory:
        submission = session.write(Path(directory, "session.ipynb")) if mine else Path("-")
        process = subprocess.Popen(
            [sys.executable, "-m", "labs.notebook.users", "newcomer", stage, str(submission)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        assert process.stdout and process.stdin and process.stderr
        try:
            said = process.stdout.readline()
            if not said.strip().isdigit():
                raise RuntimeError((process.stderr.read().strip().splitlines() or ["it said nothing"])[-1])
            yield int(said)
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()
            process.stderr.close()


def maps_for_us() -> tuple[list[IdMap], list[IdMap]]:
    """What we may give away: root, ids that are nobody's; another user, their own."""
    with open("/proc/self/uid_map") as lines:
        ours = sum(int(line.split()[2]) for line in lines)
    if os.geteuid() == 0 and ours > 400_000:
        return [(0, 100_000, 1000), (1000, 300_000, 100)], [(0, 200_000, 1000)]
    return [(0, os.geteuid(), 1)], [(0, os.getegid(), 1)]


@dataclass(frozen=True)
class Side:
    """A process from one side: the lines of its maps, and fields of /proc/PID/status, as whoever reads them is told."""

    uid_map: list[list[int]]
    gid_map: list[list[int]]
    setgroups: str
    status: dict[str, str]

    @classmethod
    def read(cls, pid: int) -> Side:
        """From where we are."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        wanted = ("Uid", "Gid", "Groups", "CapEff")
        told = {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}
        maps = [
            [
                [int(number) for number in line.split()]
                for line in Path(f"/proc/{pid}/{kind}_map").read_text().splitlines()
            ]
            for kind in ("uid", "gid")
        ]
        setgroups = Path(f"/proc/{pid}/setgroups").read_text().strip()
        return cls(maps[0], maps[1], setgroups, {name: told[name] for name in wanted})


def inside(pid: int) -> Side:
    """The same process, read by a program of ours that has entered its user namespace. Raises RuntimeError."""
    done = subprocess.run(
        [sys.executable, "-m", "labs.notebook.users", "inside", str(pid)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=_environment(),
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    return Side(**json.loads(done.stdout))


def within(pid: int, program: str) -> None:
    """Let root of the user namespace of a process run a program, and print what it says.

    It has `os` and `minicontainer.linux` at hand, and `attempt(text, function, …)`, which says what became of a call.
    """
    done = subprocess.run(
        [sys.executable, "-m", "labs.notebook.users", "within", str(pid), program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=_environment(),
    )
    print(done.stdout, end="")
    if done.returncode:
        print((done.stderr.strip().splitlines() or ["it said nothing"])[-1], file=sys.stderr)


def attempt(text: str, function: Callable[..., object], *args: object) -> None:
    """Call it, and print whether the kernel did it."""
    try:
        function(*args)
    except OSError as error:
        print(f"{text:52} {errno.errorcode.get(error.errno or 0, error.errno)}")
    else:
        print(f"{text:52} done")


ORDINARY = 54_321
"""An id that is nobody's, for root to be an ordinary user by."""


def ordinarily(program: str) -> None:
    """Let an ordinary user run a program, and print what it says. It has at hand what `within` gives."""
    done = subprocess.run(
        [*_becoming(), sys.executable, "-m", "labs.notebook.users", "ordinarily", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        env=_environment(),
    )
    print(done.stdout, end="")
    if done.returncode:
        print((done.stderr.strip().splitlines() or ["it said nothing"])[-1], file=sys.stderr)


def _becoming() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]


def run_rootless(image: str, args: Sequence[str]) -> None:
    """Run a container as an ordinary user, with the session's answers as its steps, and print what it says."""
    from labs.notebook.session import session

    with tempfile.TemporaryDirectory(prefix="rootless-") as directory:
        os.chmod(directory, 0o755)
        root = Path(directory, "root")
        root.mkdir()
        steps = ["--steps", str(session.write(Path(directory, "session.ipynb")))] if session.exercises else []
        if os.geteuid() == 0:
            os.chown(root, ORDINARY, ORDINARY)
        command = [sys.executable, "-m", "minicontainer", "--root", str(root), *steps]
        done = subprocess.run(
            [*_becoming(), *command, "run", "--rm", "--network", "none", image, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env={**_environment(), "HOME": directory, "XDG_RUNTIME_DIR": str(root)},
        )
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)


def status(pid: int) -> None:
    """Show who a process is, from outside and from inside."""
    here, there = Side.read(pid), inside(pid)
    rows = [
        (name, here.status[name] or "none", there.status[name] or "none") for name in ("Uid", "Gid", "Groups", "CapEff")
    ]
    rows.append(("setgroups(2)", here.setgroups, there.setgroups))
    Table(
        f"process {pid}, in {os.readlink(f'/proc/{pid}/ns/user')}",
        ("/proc/PID/status", "read by us", "read by somebody inside"),
        rows,
        "Uid and Gid: real, effective, saved, file system. CapEff: a bit for each capability, over its own namespace",
    ).show()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def main(arguments: Sequence[str]) -> None:
    """In a process of our own."""
    match arguments:
        case ["inside", pid]:
            from dataclasses import asdict

            if os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user"):
                setns(pidfd_open(int(pid)), CLONE_NEWUSER)
            print(json.dumps(asdict(Side.read(int(pid)))))
        case ["within", pid, program]:
            setns(pidfd_open(int(pid)), CLONE_NEWUSER)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            _run(program)
        case ["ordinarily", program]:
            _run(program)
        case ["newcomer", stage, submission]:
            _newcomer(stage, submission)


def _run(program: str) -> None:
    from minicontainer import linux

    exec(compile(program, "<program>", "exec"), {**vars(linux), "os": os, "attempt": attempt})


def _newcomer(stage: str, submission: str) -> None:
    """Make the process, do to it what the stage says, tell its number, and wait until standard input ends."""
    from minicontainer.steps import Steps
    from minicontainer.steps.loading import define, read_exercises

    steps = Steps()
    if submission != "-":
        functions, wrong = define(read_exercises([Path(submission)]).values())
        if wrong:
            raise SystemExit(str(next(iter(wrong.values()))))
        steps = steps.with_functions(functions)
    mapped, tell = os.pipe()
    there, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        for fd in (tell, there):
            os.close(fd)
        _child(steps, stage, mapped, say)
    for fd in (mapped, say):
        os.close(fd)
    try:
        _hear(there)
        if stage != "alone":
            steps.write_maps(pid, *maps_for_us())
            os.write(tell, b"!")
        while _hear(there):  # until it executes a program, at which its end is closed
            pass
        print(pid, flush=True)
        sys.stdin.read()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _child(steps: object, stage: str, mapped: int, say: int) -> None:
    from minicontainer.steps import Steps

    assert isinstance(steps, Steps)
    try:
        unshare(CLONE_NEWUSER)
        os.write(say, b".")
        if stage != "alone" and os.read(mapped, 1):
            if stage == "root":
                steps.become_root()
            os.write(say, b".")
        os.execvp("sleep", ["sleep", "600"])
    except BaseException as error:
        os.write(say, f"{type(error).__name__}: {error}".encode())
        os._exit(1)


def _hear(there: int) -> bytes:
    said = os.read(there, 1000)
    if complaint := said.lstrip(b"."):
        raise SystemExit(complaint.decode(errors="replace"))
    return said


if __name__ == "__main__":
    main(sys.argv[1:])
