"""Lab 16, the engine: containers that a submission's create, start, kill and delete make, seen from outside.

What `state` says is compared with what the kernel says of process 1. A process waits at the gate as long as the file
that it executes is still the interpreter's, and its root already the container's.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import time

from labs.grading.checks import Wrong, check, deadline
from labs.grading.observed import Observed
from labs.grading.subject import Call, Subject

SOON = deadline() / 2
"""Seconds. What is waited for takes some milliseconds; only a wrong answer makes us wait for all of this."""
STEPS = {"steps": True}
PLACES = ("mnt", "uts", "ipc", "net", "pid")
LOOP = "trap 'exit {}' {}; echo > /ready; while :; do sleep 0.05; done"
"""A program that has a handler for a signal, says so with a file, and then waits for it."""
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds. As fine as /proc/PID/stat is about when a process was born."""
LAST_PID = "/proc/sys/kernel/ns_last_pid"


# create


@check("A created container is complete, and nothing of it has run", exercise="lifecycle.create", points=2)
def test_created(subject: Subject) -> None:
    """OCI runtime-spec, runtime.md, "create"; /proc/PID/exe, root and ns of process 1, at the gate"""
    container = Container(subject, ["/bin/sh", "-c", "echo > /ran; exec sleep 600"])
    process = container.create()
    same = [kind for kind in PLACES if process.namespace(kind) == subject.sandbox.namespace(kind)]
    numbers = process.status("NSpid").split()
    subject.saw(f"NSpid {' '.join(numbers)}; namespaces of its own: {', '.join(k for k in PLACES if k not in same)}")
    if numbers[-1] != "1":
        raise Wrong(
            f"it is number {numbers[-1]} in its PID namespace, not process 1: steps.spawn_init(main) makes that"
        )
    if same:
        raise Wrong(f"process 1 shares these namespaces with the host: {', '.join(same)}; each has its step")
    if process.root() == subject.sandbox.root():
        raise Wrong("its root is still the host's: steps.pivot() comes before the gate, not after it")
    if subject.until(lambda: process.executable() != subject.sandbox.executable(), 0.1) or container.has("ran"):
        raise Wrong(
            "its program runs already: create is to leave process 1 waiting, so that somebody can still do something "
            "about the container (give it a network, say). open(2) of a fifo for writing waits until somebody reads"
        )
    host = process.uname().host
    subject.saw(f"it executes what its parent does, its root is the bundle's, its host name {host}")
    if host != container.hostname:
        raise Wrong(f'its host name is "{host}", and config.json says "{container.hostname}"')


@check("Of a container that cannot be created, nothing is left", exercise="lifecycle.create", points=1)
def test_not_created(subject: Subject) -> None:
    """OCI runtime-spec, runtime.md, "Lifecycle"; a name that is taken by a failure can never be used again"""
    Container(subject, ["/bin/true"]).create()
    broken = Container(subject, ["/bin/true"], root="nowhere")
    error = broken.refused("lifecycle.create", broken.directory, broken.bundle, STEPS)
    left = [child for child in broken.process.children() if child.alive]
    subject.saw(f"a bundle without its root: {error or 'no error'}; {len(left)} processes left")
    if error is None:
        raise Wrong(
            "config.json names a root that is not there, and create returned as if all was well: process 1 fails on its "
            "own, and somebody has to be told. A pipe between the two: what comes through it is the news, or its end"
        )
    if left:
        raise Wrong(f"create failed ({error}), and a process that it has made is still there")
    if broken.exists(broken.directory):
        raise Wrong(f"create failed ({error}), and the container's directory is still there: its id is taken for good")


# start


@check("The program takes the place of process 1, once", exercise="lifecycle.start", points=2)
def test_started(subject: Subject) -> None:
    """OCI runtime-spec, runtime.md, "start"; execve(2): the same process, another program; fifo(7)"""
    word = subject.name("word")
    container = Container(
        subject, ["/bin/sh", "-c", f"echo $WORD > /ran; exec sleep 600 # {word}"], env=[f"WORD={word}"]
    )
    process = container.create()
    container.do("lifecycle.start", container.directory)
    if not subject.until(lambda: container.has("ran") and container.text("ran") == word, SOON):
        raise Wrong(
            f"start has returned, and the program has not run as config.json says: process 1 executes "
            f"{' '.join(process.command)[:60]}, in state {process.state}"
        )
    subject.saw(f"pid {process.pid} before and after; it executes {' '.join(process.command)}")
    again = container.refused("lifecycle.start", container.directory)
    subject.saw(f"start once more: {again or 'no error'}")
    if again is None:
        raise Wrong(
            "a running container was started once more, and nobody was told: only what is created can be started"
        )
    if not process.alive:
        raise Wrong("the second start has ended the container")


@check("A program that cannot be executed is an error of start", exercise="lifecycle.start", points=1)
def test_not_executed(subject: Subject) -> None:
    """execve(2) closes what is close-on-exec: so the other end of the gate reads end-of-file, or what went wrong"""
    good = Container(subject, ["/bin/sleep", "600"])
    good.create()
    good.do("lifecycle.start", good.directory)
    missing = Container(subject, [f"/bin/{subject.name('missing')}"])
    process = missing.create()
    error = missing.refused("lifecycle.start", missing.directory)
    subject.saw(f"a program that is not in the image: {error or 'no error'}")
    if error is None:
        raise Wrong(
            "the program is not in the image, and start returned as if it ran. Process 1 can still say so, over the "
            "gate that has just been opened"
        )
    if not process.ended(SOON):
        raise Wrong(f"start failed ({error}), and process 1 is still there, in state {process.state}")


# state


@check("The status is what the kernel says", exercise="lifecycle.state", points=1)
def test_state(subject: Subject) -> None:
    """OCI runtime-spec, runtime.md, "State"; proc_pid_stat(5): a zombie (Z) has ended, and has its number still"""
    container = Container(subject, ["/bin/sleep", "600"])
    process = container.create()
    pid = process.status("NSpid").split()[-2]
    container.must_be("created", pid)
    container.do("lifecycle.start", container.directory)
    container.must_be("running", pid)
    process.signal(signal.SIGKILL)
    if not process.ended(SOON):
        raise Wrong("process 1 does not die of SIGKILL")
    subject.saw(f"killed from outside; process 1 is now in state {process.state}")
    container.must_be("stopped", "")


# kill


@check("The signal reaches process 1", exercise="lifecycle.kill", points=1)
def test_killed(subject: Subject) -> None:
    """pidfd_send_signal(2); pid_namespaces(7): process 1 gets from outside what it has a handler for, and SIGKILL"""
    status = 1 + secrets.randbelow(60)
    number = secrets.choice([signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM])
    name = signal.Signals(number).name.removeprefix("SIG")
    container = Container(subject, ["/bin/sh", "-c", LOOP.format(status, name)])
    process = container.create()
    container.do("lifecycle.start", container.directory)
    if not subject.until(lambda: container.has("ready"), SOON):
        raise Wrong("its program does not run after start")
    container.do("lifecycle.kill", container.directory, int(number))
    if not process.ended(SOON):
        raise Wrong(f"kill({int(number)}) has returned, and process 1, which has a handler for SIG{name}, goes on")
    subject.saw(f"SIG{name}: process 1 ended with {process.exit_status()}, and was to end with {status}")
    if process.exit_status() != status:
        raise Wrong(f"SIG{name} was asked for; process 1 ended with {process.exit_status()}, so it got another signal")


@check("Another process with its number is left alone", exercise="lifecycle.kill", points=1)
def test_bystander(subject: Subject) -> None:
    """pidfd_open(2): a number is somebody else's one day, a pidfd never; proc_pid_stat(5), field 22: when it was born"""
    container = Container(subject, ["/bin/sleep", "600"])
    process = container.create()
    made = time.monotonic()
    container.do("lifecycle.start", container.directory)
    container.do("lifecycle.kill", container.directory, int(signal.SIGKILL))
    if not process.ended(SOON):
        raise Wrong("kill(9) has returned, and process 1 goes on")
    number = int(process.status("NSpid").split()[-2]) if process.state == "Z" else 0
    if not number:
        raise Wrong("somebody has waited for process 1, which is its parent's to do")
    subject.until(lambda: time.monotonic() > made + 3 * TICK)  # else even the kernel has both born in one moment
    container.do_all([
        ("os.waitpid", [number, 0]),
        ("os.open", [LAST_PID, os.O_WRONLY]),
        ("os.write", [{"result": 1}, {"bytes": str(number - 1).encode().hex()}]),
        ("os.posix_spawn", [Subject.BUSYBOX, ["busybox", "sleep", "600"], {}]),
    ])  # fmt: skip
    others = [child for child in container.process.children() if child.status("NSpid").split()[-1] == str(number)]
    if len(others) != 1:
        raise RuntimeError(f"no process could be made with the number {number}: does this kernel have {LAST_PID}?")
    error = container.refused("lifecycle.kill", container.directory, int(signal.SIGKILL))
    ended = others[0].ended(0.05)
    subject.saw(
        f"pid {number} is another's by now; kill: {error or 'no error'}; that one {'died' if ended else 'lives'}"
    )
    if ended:
        raise Wrong(
            f"process 1 had ended, its number {number} was given to somebody else, and kill has killed that one. Hold "
            f"the process (os.pidfd_open), look whether it is still the one that was born then, and signal what you hold"
        )
    if error is None:
        raise Wrong("the container has stopped, and kill returned as if it had reached somebody")


# delete


@check("Only what has stopped is deleted, and then all of it", exercise="lifecycle.delete", points=1)
def test_deleted(subject: Subject) -> None:
    """OCI runtime-spec, runtime.md, "delete": not stopped is an error; state of what was deleted is one too"""
    container = Container(subject, ["/bin/sleep", "600"])
    process = container.create()
    for status in ("created", "running"):
        error = container.refused("lifecycle.delete", container.directory)
        there, died = container.exists(container.directory), process.ended(0 if error else 0.5)
        subject.saw(f"delete while it is {status}: {error or 'no error'}")
        if error is None or not there or died:
            raise Wrong(
                f"the container is {status}, and delete {'returned' if error is None else 'failed'}; its process 1 is "
                f"{'dead' if died else 'alive'}, its directory {'there' if there else 'gone'}: nobody could find "
                f"it any more. It is to be refused, and to change nothing"
            )
        if status == "created":
            container.do("lifecycle.start", container.directory)
    process.signal(signal.SIGKILL)
    if not process.ended(SOON):
        raise Wrong("process 1 does not die of SIGKILL")
    container.do("lifecycle.delete", container.directory)
    if container.exists(container.directory):
        raise Wrong("it has stopped and was deleted, and its directory is still there: its id is taken for good")
    subject.saw("stopped and deleted: its directory is gone")


# How it is looked at


class Container:
    """A bundle in the sandbox, and the container that a submission makes of it. One process calls everything."""

    def __init__(
        self, subject: Subject, args: list[str], *, root: str = "rootfs", env: list[str] | None = None
    ) -> None:
        self.subject = subject
        self.hostname = subject.name("host")
        self.bundle = subject.scratch()
        self.directory = f"{subject.scratch('containers')}/containers/{subject.name('c')}"
        self.rootfs = f"{self.bundle}/rootfs"
        config = {
            "ociVersion": "1.2.0",
            "hostname": self.hostname,
            "root": {"path": root},
            "process": {"args": args, "env": ["PATH=/bin", *(env or ())], "cwd": "/"},
        }
        self.process = subject.perform([
            ("chroot.build_root", [self.rootfs, Subject.BUSYBOX]),
            ("os.open", [f"{self.bundle}/config.json", os.O_CREAT | os.O_WRONLY, 0o600]),
            ("os.write", [{"result": 1}, {"bytes": json.dumps(config).encode().hex()}]),
            ("os.close", [{"result": 1}]),
        ])  # fmt: skip
        """Who calls the submission's functions, and is the parent of process 1."""

    def create(self) -> Observed:
        """Create it; returns its process 1. Raises Wrong: there is none."""
        self.do("lifecycle.create", self.directory, self.bundle, STEPS)
        children = [child for child in self.process.children() if child.alive]
        if len(children) != 1:
            raise Wrong(
                f"after create, the process that called it has {len(children)} living children, and process 1 of the "
                f"container should be the only one"
            )
        return children[0]

    def do(self, function: str, *args: object) -> None:
        """Let the submission's function be called. Raises Wrong: it raised something."""
        self.process.then(function, *args)

    def do_all(self, calls: list[Call]) -> None:
        """Let several be called, by the same process; {"result": 1} is what the second of these returned."""
        self.process.then(calls)

    def refused(self, function: str, *args: object) -> str | None:
        """What a function says that is expected to raise something; None where it does not."""
        try:
            self.process.then(function, *args)
        except Wrong as error:
            return str(error)
        return None

    def must_be(self, status: str, pid: str) -> None:
        """Compare what `state` returns. Raises Wrong."""
        self.do("lifecycle.state", self.directory)
        said = self.process.returned
        self.subject.saw(f"{status}: state returned {json.dumps(said)}")
        if not isinstance(said, dict):
            raise Wrong(f"state returned {said!r}; it is to be a dictionary: ociVersion, id, status, pid, bundle")
        if said.get("status") != status:
            zombie = status == "stopped" and "Z" in [child.state for child in self.process.children()]
            why = (
                "process 1 has ended, and is a zombie: it has its number, and its directory in /proc, until its parent "
                "waits for it. The third field of /proc/PID/stat says so"
                if zombie
                else "a container is created as long as process 1 waits at the gate, then running as long as it lives"
            )
            raise Wrong(f'the container is {status}, and state says "{said.get("status")}": {why}')
        expected = {"id": os.path.basename(self.directory), "bundle": self.bundle}
        if pid:
            expected["pid"] = pid
        for key, value in expected.items():
            if str(said.get(key)) != value:
                raise Wrong(f"of a container that is {status}, state says {key} {said.get(key)!r}; it is {value}")
        if not str(said.get("ociVersion")).startswith("1."):
            raise Wrong(f"state says ociVersion {said.get('ociVersion')!r}; the specification has 1.2.0")

    def exists(self, path: str) -> bool:
        """Whether there is something at a path of the sandbox."""
        try:
            self.subject.sandbox.stat(path, follow=False)
        except OSError:
            return False
        return True

    def has(self, name: str) -> bool:
        """Whether the container has made this file in its root."""
        return self.exists(f"{self.rootfs}/{name}")

    def text(self, name: str) -> str:
        """What is in it."""
        return self.subject.sandbox.read(f"{self.rootfs}/{name}").decode(errors="replace").strip()
