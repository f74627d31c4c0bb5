"""Process 1 of the sandbox: it forks a performer for each request, in which a submission's functions are run.

    the examiner ──(request, one end of a new line)──▶ process 1 ──fork──▶ performer ──▶ containers
        ◀──────────────────── the line: what was done, and who is to be looked at ──┘

This program is laid out in the classroom and runs there with nothing but the standard library. Everything in
here is in the hands of the submission: it is root, and can read and change every process of the sandbox, this
one too. So nothing that is said on a line is evidence. A line carries a pid as SCM_CREDENTIALS, which the
kernel checks (it can only be one of this sandbox) and translates; the examiner asks the kernel the rest.
"""

from __future__ import annotations

import os
import sys

HERE = os.path.dirname(__file__)
sys.path.insert(0, HERE)  # python -I does not look there by itself

import contextlib  # noqa: E402
import errno  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402
import time  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from minicontainer.runtime.spec import Directory, Overlay

LINE = 3
"""The examiner's socket: requests, each with one end of a new line."""
SUBMISSION = 4
"""A file with the submission: {"exercises": {name: source}, "limits": {"NPROC": 64, …}}."""

ROOT = "/sys/fs/cgroup"
LARGEST = 1 << 16  # bytes of a message
MOST_NAMESPACES = 128


def main() -> None:
    """Serve the examiner until it closes its end."""
    with open(SUBMISSION, "rb") as file:
        submission = json.load(file)
    for name, value in submission["limits"].items():
        number = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(number)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(number, (value, value))
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where no control group limits our memory: when the host's runs out, it is us who go first

    if submission["groups"]:
        step_down()
        borrow()
    restrain()

    # Imported once, before there is any code of the submission, so that each performer has it at hand.
    from minicontainer import linux
    from minicontainer.linux import notation
    from minicontainer.runtime import birth, errors, failure, spec  # noqa: F401
    from minicontainer.steps import Steps, loading  # noqa: F401

    for name in Steps.names():  # what a performer needs after a chroot, it could not import any more
        importlib.import_module(f"minicontainer.steps.{name.partition('.')[0]}")
    notation.name_flags_in_errors()

    # To a process 1, the kernel delivers a signal of its own children only if it has a handler. Python's for ^C is one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    deaths = linux.signalfd([signal.SIGCHLD])
    line = socket.socket(fileno=LINE)
    room = Room()
    performers: dict[int, socket.socket] = {}
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(deaths, select.POLLIN)
    line.send(b"{}")  # ready
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if deaths in ready:
            os.read(deaths, 128)
            bury(performers)
        if LINE in ready:
            data, fds, _, _ = socket.recv_fds(line, LARGEST, 1)
            if not data:
                return
            answers = socket.socket(fileno=fds[0])
            request = json.loads(data)
            if request["do"] == "sweep":
                kill_all(performers)
                answers.send(json.dumps({"sound": room.restore()}).encode())
                answers.close()
                continue
            try:
                pid = os.fork()
            except OSError as error:  # the limit is reached: a fork bomb is in here
                answers.send(
                    json.dumps({"error": f"no process can be started in the sandbox: {error.strerror}"}).encode()
                )
                answers.close()
                continue
            if pid == 0:
                os.setsid()
                line.close()
                os.close(deaths)
                for other in performers.values():
                    other.close()
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                Performer(submission["exercises"], answers).perform(request)
            performers[pid] = answers


def step_down() -> None:
    """Move ourselves into a group below our own in the v2 tree, if there is one: a group of v2 has either processes, or
    groups below it that controllers work in, and those are what the submission is to make."""
    for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(f"{place}/cgroup.controllers"):
            os.mkdir(f"{place}/sandbox")
            with open(f"{place}/sandbox/cgroup.procs", "w") as procs:
                procs.write("0")


def borrow() -> None:
    """Let the examiner make the calls that no user of a user namespace may: see `labs.grading.errands`.

    Before the steps are imported, which take these functions by name. Where the kernel refuses, the examiner is asked.
    """
    from minicontainer.linux import bpf, cgroups, events

    refused = cgroups.write

    def write(file: str, value: object) -> None:
        try:
            refused(file, value)
        except OSError:
            name, _, control = file.rpartition("/")
            if control not in ("devices.allow", "devices.deny"):
                raise
            errand({"call": "write", "group": group_of(name), "file": control, "value": str(value)},
                   f'write({file}, "{value}")')  # fmt: skip

    def prog_load(prog_type: int, instructions: Sequence[bytes]) -> int:
        code = os.memfd_create("program", os.MFD_CLOEXEC)
        os.write(code, b"".join(instructions))
        return code

    def prog_attach(group: int, prog: int, attach_type: int, flags: int = bpf.BPF_F_ALLOW_MULTI) -> None:
        code = os.pread(prog, LARGEST // 4, 0)
        errand({"call": "program", "group": group_of(group), "code": code.hex()}, "bpf(BPF_PROG_ATTACH)")

    def perf_event_open(event: tuple[int, int], pid: int, cpu: int, flags: int = 0, group_fd: int = -1) -> int:
        if not flags & events.PERF_FLAG_PID_CGROUP:
            raise OSError(errno.EACCES, "perf_event_open: here, only for a control group (PERF_FLAG_PID_CGROUP)")
        request = {"call": "count", "group": group_of(pid), "event": list(event), "cpu": cpu}
        return errand(request, f"perf_event_open({event}, {pid}, {cpu})")[0]

    cgroups.write = write
    bpf.prog_load, bpf.prog_attach = prog_load, prog_attach
    bpf.prog_query, bpf.prog_detach = (lambda *_: []), (lambda *_: None)
    events.perf_event_open = perf_event_open


def group_of(directory: str | int) -> str:
    """The name of the control group with this directory, or file descriptor of one, below the sandbox's own."""
    path = os.readlink(f"/proc/self/fd/{directory}") if isinstance(directory, int) else directory
    return os.path.realpath(path).partition("/minicontainer/")[2]


def errand(request: dict[str, Any], call: str) -> list[int]:
    """Have the examiner make a call; returns the file descriptors that came of it. Raises OSError, as it would."""
    line = Performer.current.line
    line.send(json.dumps({"errand": request}).encode())
    data, fds, _, _ = socket.recv_fds(line, LARGEST, 4)
    number = json.loads(data)["errno"] if data else errno.EPIPE
    if number:
        raise OSError(number, f"{call}: {errno.errorcode.get(number, number)} ({os.strerror(number)})")
    return fds


def restrain() -> None:
    """Set how many namespaces of each kind a user of the sandbox may have, and give up the right to change that."""
    from minicontainer.linux import PR_CAPBSET_DROP, Namespace, prctl
    from minicontainer.linux.capabilities import NAMES, Capabilities, capget, capset

    for kind in Namespace:
        with (
            contextlib.suppress(FileNotFoundError),
            open(f"/proc/sys/user/max_{kind.proc_name}_namespaces", "w") as most,
        ):
            most.write(str(MOST_NAMESPACES))
    number, now = NAMES.index("SYS_RESOURCE"), capget()
    prctl(PR_CAPBSET_DROP, number)
    without = ~(1 << number)
    capset(Capabilities(now.effective & without, now.permitted & without, now.inheritable & without))


def bury(performers: dict[int, socket.socket]) -> None:
    """Wait for every child that has ended, and say so on the line of a performer."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            if line := performers.pop(pid, None):
                with contextlib.suppress(OSError):  # the examiner has hung up, which is why the performer has ended
                    line.send(json.dumps({"ended": os.waitstatus_to_exitcode(status)}).encode(), socket.MSG_DONTWAIT)
                line.close()


def kill_all(performers: dict[int, socket.socket]) -> None:
    """End every other process of the sandbox; a fork bomb too: the kernel lets no fork slip through kill(-1)."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    thaw_all()  # on v1, what is frozen does not even die
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    for line in performers.values():
        line.close()
    performers.clear()


def groups() -> list[str]:
    """The directories of all control groups that the submission has made, the innermost first."""
    if not os.path.isdir(ROOT):
        return []  # nothing is to be seen of them
    with os.scandir(ROOT) as entries:
        trees = [ROOT, *(entry.path for entry in entries if entry.is_dir())]
    made = [top for tree in trees if os.path.isdir(top := f"{tree}/minicontainer")]
    for directory in made:  # it grows meanwhile; not os.walk(), which calls itself: they may be thousands deep
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            made += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return made[::-1]


def thaw_all() -> None:
    """Let every group go on."""
    for directory in groups():
        with contextlib.suppress(OSError), open(f"{directory}/freezer.state", "w") as state:
            state.write("THAWED")


def remove_groups() -> bool:
    """Remove every group that the submission has made; whether all are gone.

    The dead leave their group some moments after they were waited for: rmdir(2) says EBUSY until then.
    """
    deadline = time.monotonic() + 2
    while made := groups():
        for directory in made:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        if time.monotonic() > deadline:
            return False
    return True


class Room:
    """What a submission can disarrange in the sandbox itself, when it forgets to make a namespace first."""

    def __init__(self) -> None:
        self.names = _names()
        self.mounts = _mounts().keys()
        self.share()

    def share(self) -> None:
        """Make all mounts shared, as on a host with systemd: whoever forgets to make theirs private, spreads them."""
        from minicontainer.linux import MS_REC, MS_SHARED, mount

        mount(None, "/", None, MS_REC | MS_SHARED)

    def restore(self) -> bool:
        """Put names back, take foreign mounts and groups away. False: what is ours is gone, or what is not stays."""
        from minicontainer.linux import MNT_DETACH, setdomainname, sethostname, umount2

        if not remove_groups():
            return False
        if _names() != self.names:
            sethostname(self.names[0])
            setdomainname(self.names[1])
        present = _mounts()
        for number in sorted(present.keys() - self.mounts, reverse=True):
            try:
                umount2(present[number], MNT_DETACH)
            except OSError:
                return False
        self.share()
        return self.mounts <= present.keys()


def _names() -> tuple[str, str]:
    with open("/proc/sys/kernel/hostname") as host, open("/proc/sys/kernel/domainname") as domain:
        return host.read().strip(), domain.read().strip()


def _mounts() -> dict[int, str]:
    """Mount id → mount point."""
    with open("/proc/self/mountinfo") as mountinfo:
        fields = [line.split() for line in mountinfo]
    return {int(field[0]): field[4].encode().decode("unicode_escape") for field in fields}


class Performer:
    """A process that runs the submission's functions once, and then keeps still to be looked at."""

    current: Performer
    """The one that this process is."""

    def __init__(self, exercises: dict[str, str], line: socket.socket) -> None:
        Performer.current = self
        self.line = line
        self.results: list[Any] = []
        """What the functions returned, in the order of the calls."""
        self.exercises = exercises
        self.functions: dict[str, Callable[..., Any]] = {}

    def perform(self, request: dict[str, Any] | None) -> NoReturn:
        """Do what is asked, tell who is to be looked at, and wait for more, until the examiner hangs up."""
        try:
            self.answer({"here": True}, os.getpid())
            self.define()  # from here on, this process is the submission's
            while request is not None:
                try:
                    pid = self.start(request) if request["do"] == "start" else self.call(request["calls"])
                    returned = self.results[-1] if self.results else None
                    self.answer({"done": True, "returned": returned if can_be_told(returned) else None}, pid)
                except BaseException as error:  # SystemExit and KeyboardInterrupt too: they are the submission's
                    self.answer(told(error), os.getpid())
                data = self.line.recv(LARGEST)
                request = json.loads(data) if data else None
        finally:
            os._exit(0)

    def define(self) -> None:
        """Run the cells. What is wrong with one is raised when its function is called."""
        from minicontainer.steps.loading import Exercise, define

        functions, wrong = define([Exercise(name, source) for name, source in self.exercises.items()])
        for name, function in functions.items():
            self.functions[name] = _unwritten(name) if is_empty(function) else function
        for name, error in wrong.items():
            self.functions[name] = _raising(error)

    def call(self, calls: list[tuple[str, list[Any]]]) -> int:
        """Call functions one after the other; the submission's, where it has them. Returns our pid.

        A last argument {"keywords": {"read_bps": 1000}} is arguments by name.
        """
        us = os.getpid()
        for name, args in calls:
            keywords: dict[str, Any] = {}
            if args and isinstance(args[-1], dict) and "keywords" in args[-1]:
                keywords = args.pop()["keywords"]
            self.results.append(self.function(name)(*map(self.argument, args), **keywords))
            if os.getpid() != us:
                os._exit(
                    70
                )  # a child that the function made, and should have kept to itself: it does not answer for us
        return us

    def start(self, request: dict[str, Any]) -> int:
        """Start a container with the submission's steps. Returns the pid of its process 1."""
        from minicontainer.linux import Namespace
        from minicontainer.runtime import birth
        from minicontainer.runtime.limits import Limits
        from minicontainer.runtime.spec import Process, Spec
        from minicontainer.steps import Steps

        fields = dict(request["spec"])
        args, namespaces = fields.pop("args"), fields.pop("namespaces")
        fields["limits"] = Limits(**fields.get("limits", {}))
        spec = Spec(
            id=str(os.getpid()),
            root=self.root(request["image"]),
            process=Process(args=args),
            namespaces=frozenset(map(Namespace.named, namespaces)),
            **fields,
        )
        mine = {name: function for name, function in self.functions.items() if name in Steps.names()}
        return birth.start(spec, Steps().with_functions(mine), stdio=(None, None, None)).pid

    def root(self, image: str) -> Overlay | Directory:
        """A root file system: a writable layer over an image of the classroom, or a directory as it is."""
        from minicontainer.runtime.spec import Directory, Overlay

        if not image.startswith(HERE):
            return Directory(image)
        layers = f"/run/containers/{os.getpid()}"
        for layer in ("upper", "work", "merged"):
            os.makedirs(f"{layers}/{layer}")
        return Overlay([image], f"{layers}/upper", f"{layers}/work", f"{layers}/merged")

    def function(self, name: str) -> Callable[..., Any]:
        """The submission's function of this name, or the reference; ``linux.…`` and ``os.…`` are what they say."""
        if name in self.functions:
            return self.functions[name]
        module, _, function = name.rpartition(".")
        home = {"linux": "minicontainer.linux", "os": "os"}.get(module, f"minicontainer.steps.{module}")
        found: Callable[..., Any] = getattr(importlib.import_module(home), function)
        return found

    def argument(self, value: Any) -> Any:
        """What JSON cannot say: {"returns": 3} is a function that returns 3, {"result": 0} what the first call
        returned, {"bytes": "00ff"} bytes, {"tuple": [1, 2]} a tuple, {"open": path, "mode": "rb"} an open file,
        {"dies": true} a function that kills the process, {"steps": true} our steps, {"namespaces": ["net"]} kinds of
        namespaces, {"group": "alpha"} the control group of this name; with {"places": …} too, one that is made up.
        """
        match value:
            case {"steps": True}:
                from minicontainer.steps import Steps

                return Steps()
            case {"namespaces": kinds}:
                from minicontainer.linux import Namespace

                return list(map(Namespace.named, kinds))
            case {"bytes": code}:
                return bytes.fromhex(code)
            case {"tuple": values}:
                return tuple(values)
            case {"open": path, "mode": mode}:
                return open(path, mode, buffering=0)
            case {"dies": True}:
                return lambda: os.kill(os.getpid(), signal.SIGKILL)
            case {"returns": returned}:
                return lambda: returned
            case {"result": number}:
                return self.results[number]
            case {"group": name, "places": places}:
                from minicontainer.steps.group import Group

                return Group(name, places)
            case {"group": name}:
                from minicontainer.steps.group import find_group

                return find_group(name)
        return value

    def answer(self, message: dict[str, Any], pid: int) -> None:
        """Send a message, and with it a pid as the kernel's credentials: unix(7), SCM_CREDENTIALS.

        Our own the kernel adds by itself. Whoever has no id yet, in a new user namespace, could not say who they are.
        """
        ucred = struct.pack("iII", pid, os.getuid(), os.getgid())
        named = [] if pid == os.getpid() else [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ucred)]
        self.line.sendmsg([json.dumps(message).encode()], named)


def told(error: BaseException) -> dict[str, Any]:
    """An exception as a message."""
    from minicontainer.runtime.errors import StartError
    from minicontainer.runtime.failure import describe

    if isinstance(error, StartError):
        return {"error": str(error)[:4000], "step": None}
    message = describe(error)
    return {"error": message["error"][:4000], "step": message["step"]}


def can_be_told(value: Any) -> bool:
    """Whether what a function returned goes into a message: a number, a text, or not too many of them, as the members
    of an object; a list of not too many numbers, or of such objects."""
    if type(value) is dict:
        return len(value) < 20 and all(type(key) is str and type(one) in (int, str) for key, one in value.items())
    if type(value) is list:
        objects = len(value) < 20 and all(type(one) is dict and can_be_told(one) for one in value)
        return objects or (len(value) < 1000 and all(type(one) is int for one in value))
    return type(value) in (int, bool, str)


def is_empty(function: Callable[..., Any]) -> bool:
    """Whether a function does nothing, as in the notebook that was handed out: a docstring, ``pass``, ``...``."""
    code, nothing = getattr(function, "__code__", None), (lambda: None).__code__
    return code is not None and not code.co_names and code.co_code[::2] == nothing.co_code[::2]


def _unwritten(name: str) -> Callable[..., Any]:
    return _raising(NotImplementedError(f"{name}: the function is still empty"))


def _raising(error: Exception) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> None:
        raise error

    return refuse


if __name__ == "__main__":
    try:
        main()
    except Exception as failed:
        socket.socket(fileno=LINE).send(json.dumps({"error": f"{type(failed).__name__}: {failed}"}).encode())
