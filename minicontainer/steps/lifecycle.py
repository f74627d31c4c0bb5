"""Step 16, the engine: a runtime that is small enough to be read in a lesson, out of the other steps.

OCI runtime specification, runtime.md, "Lifecycle": create, start, state, kill, delete. What is between create and start
is the point of it: the container is there, with its namespaces and its files, and nothing of the image has run yet;
now whoever asked for it can give it a network, say.

    create ──▶ created ──start──▶ running ──▶ stopped ──delete──▶ (nothing)
                  └──────────────kill─────────────┘

A container is a directory that the caller names, and nothing that stays in memory:

    state.json   what is known: its bundle, the pid of its process 1, and when that was born. Not its status: that
                 changes without us, so it is asked of the kernel each time.
    exec.fifo    the gate. Process 1 waits there, with all its namespaces, until somebody opens the other end; it
                 then becomes the program. It is removed by then: a gate that is there is one that was never opened.

The full-grown one is `minicontainer.runtime`; podman and docker drive that. This one reads of config.json `root.path`,
`hostname` and of `process` `args`, `env` and `cwd`.
"""

from __future__ import annotations

import contextlib
import os
import select

from minicontainer.linux import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.steps import Steps

OCI_VERSION = "1.2.0"
GATE = "exec.fifo"


def create(directory: str, bundle: str, steps: Steps) -> None:
    """Make a container of the bundle, and leave its process 1 waiting at the gate. It is a child of the caller's.

    `directory` is the container's, and new; its last part is the container's id. Only from a process with a single
    thread. Raises OSError (FileExistsError: that id is taken), KeyError, ValueError (a config.json that is none); then
    nothing is left.
    """
    import json
    import shutil

    bundle = os.path.abspath(bundle)
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    os.mkdir(directory, 0o700)  # of two who want the same id, one is told that it is there
    pid = 0
    heard, told = os.pipe()
    try:
        os.mkfifo(f"{directory}/{GATE}", 0o600)
        gate = os.open(f"{directory}/{GATE}", os.O_PATH | os.O_CLOEXEC)  # its path is the host's: out of sight soon

        def main() -> int:
            os.close(heard)
            return _process_1(config, bundle, gate, told, steps)

        pid = steps.spawn_init(main)
        os.close(gate)
        os.close(told)
        told = -1
        with open(f"{directory}/state.json", "w", encoding="utf-8") as file:
            json.dump({"bundle": bundle, "pid": pid, "born": _born(pid)}, file)
        if (said := os.read(heard, 4096)) != b"waiting":  # end-of-file: it is dead
            raise OSError(f"process 1 has not come to the gate: {said.decode() or 'it was killed'}")
    except BaseException:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(directory)
        raise
    finally:
        os.close(heard)
        if told >= 0:
            os.close(told)


def start(directory: str) -> None:
    """Open the gate of a created container; returns when its program has taken the place of process 1.

    Raises ValueError: it is not waiting (any more). OSError: the program could not be executed, and the container has
    stopped.
    """
    pidfd = _held(directory, "created")
    try:
        # Not to wait in open(2): if process 1 dies in this moment, nobody will ever open the other end.
        line = os.open(f"{directory}/{GATE}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.unlink(f"{directory}/{GATE}")
            poll = select.poll()
            poll.register(line, select.POLLIN)
            poll.register(pidfd, select.POLLIN)
            heard = line in dict(poll.poll())
            # The other end is closed by execve(2): end-of-file is the good news.
            complaint = os.read(line, 4096).decode() if heard else "process 1 was killed"
        finally:
            os.close(line)
    finally:
        os.close(pidfd)
    if complaint:
        raise OSError(f"container {_id(directory)} does not start: {complaint}")


def state(directory: str) -> dict[str, Any]:
    """The state as runtime.md has it: ociVersion, id, status, pid (unless it has stopped) and bundle.

    Raises FileNotFoundError: there is no such container.
    """
    known = _known(directory)
    found = {"ociVersion": OCI_VERSION, "id": _id(directory), "status": "stopped", "bundle": known["bundle"]}
    if _is_alive(known["pid"], known["born"]):
        found["status"] = "created" if os.path.exists(f"{directory}/{GATE}") else "running"
        found["pid"] = known["pid"]
    return found


def kill(directory: str, number: int = signal.SIGTERM) -> None:
    """Send a signal to process 1. Raises ValueError: the container has stopped."""
    pidfd = _held(directory, "created", "running")
    try:
        signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def delete(directory: str) -> None:
    """Remove what is left of a stopped container. Raises ValueError: it has not stopped."""
    import shutil

    if (status := state(directory)["status"]) != "stopped":
        raise ValueError(f"container {_id(directory)} cannot be deleted: it is {status}; kill it first")
    shutil.rmtree(directory)


def _process_1(config: dict[str, Any], bundle: str, gate: int, told: int, steps: Steps) -> int:
    """From its birth to execve(2). Returns where that fails; whoever waits for us has been told why by then."""
    try:
        # Still the host's view of everything but the process numbers.
        os.setsid()
        root = os.path.join(bundle, config["root"]["path"])
        process = config["process"]
        steps.bring_up_loopback()
        steps.private_queues()
        steps.set_names(config.get("hostname") or os.uname().nodename)
        steps.make_private()
        steps.mount_proc_and_dev(root)
        steps.pivot(root)
        # Our own. What is left of the host's are open files, and they close as we execute.
        os.chdir(process.get("cwd", "/"))
        os.write(told, b"waiting")
        os.close(told)
        told = -1
        told = os.open(f"/proc/self/fd/{gate}", os.O_WRONLY | os.O_CLOEXEC)  # waits until somebody reads
        environment = dict(one.partition("=")[::2] for one in process.get("env", ()))
        os.execvpe(process["args"][0], process["args"], environment)
    except BaseException as error:
        if told >= 0:
            os.write(told, f"{type(error).__name__}: {error}".encode())
    return 1


def _id(directory: str) -> str:
    return os.path.basename(os.path.normpath(directory))


def _known(directory: str) -> dict[str, Any]:
    import json

    with open(f"{directory}/state.json", encoding="utf-8") as file:
        known: dict[str, Any] = json.load(file)
    return known


def _held(directory: str, *allowed: str) -> int:
    """A pidfd of process 1, if the container has one of these statuses. Raises ValueError.

    The process is looked at while it is held: another one may get its number, but never its pidfd.
    """
    known = _known(directory)
    pidfd = -1
    with contextlib.suppress(ProcessLookupError):  # then it has stopped
        pidfd = os.pidfd_open(known["pid"])
    if (status := state(directory)["status"]) not in allowed or pidfd < 0:
        if pidfd >= 0:
            os.close(pidfd)
        raise ValueError(f"container {_id(directory)} is {status}, not {' or '.join(allowed)}")
    return pidfd


def _is_alive(pid: int, born: int) -> bool:
    """Whether it is still that process, and not a zombie: who has ended has a number until somebody waits for it."""
    fields = _stat(pid)
    return fields[0] not in "ZX" and int(fields[19]) == born if fields else False


def _born(pid: int) -> int:
    """When a process was born, in clock ticks (10 ms) since boot. The number alone will be another's one day."""
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from field 3 on, the state; field 22 is when it was born. Nothing: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()  # the name, before it, can have blanks and brackets in it
    except (FileNotFoundError, ProcessLookupError):
        return []
