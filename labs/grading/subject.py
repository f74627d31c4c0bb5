"""What a check is given: a submission in its sandbox, to start containers with, and to look at.

    container = subject.start(["sleep", "600"], hostname=subject.name("alpha"))  # with the submission's steps
    process = subject.perform("chroot.enter_chroot", root)                       # it calls that, then keeps still

Both return an `Observed`: what the kernel says of the process. That the functions returned at all is only the
submission's word.
"""

from __future__ import annotations

import os
import secrets
import select
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from labs.grading import errands
from labs.grading.checks import Late, Wrong, deadline, plain
from labs.grading.classroom import BUSYBOX, PLACE
from labs.grading.observed import Observed
from labs.grading.observed_group import ImitatedGroup, ObservedGroup
from labs.grading.sandbox import Line, Sandbox
from minicontainer.linux import Namespace

Call = tuple[str, Sequence[Any]]
"""A function, ``chroot.enter_chroot``, and its arguments: JSON, groups, and what `inside.Performer` makes of
{"returns": 3} (a function that does) and of a last {"keywords": {"read_bps": 1000}} (arguments by name)."""

CONTAINER = frozenset(Namespace) - {Namespace.USER}
"""The namespaces of a container in the sandbox that are its own, unless a check says otherwise."""


class Performed(Observed):
    """A process of the sandbox that has called functions of the submission and keeps still, or its container."""

    def __init__(self, sandbox: Sandbox, pid: int, what: str, line: Line, returned: object = None) -> None:
        super().__init__(sandbox, pid, what)
        self._line = line
        self.returned = returned
        """What the last function returned, if that was a number, a text, an object of such or a list of numbers or of
        such objects: the submission's word."""

    def then(self, function: str | Sequence[Call], *args: Any) -> None:
        """Let the same process call more. Raises Wrong, Late."""
        calls = _calls(function, args)
        self._line.send({"do": "call", "calls": calls})
        _, self.returned = _done(self._sandbox, self._line, _naming(calls))
        if not self.alive:
            raise Wrong(f"{self} has ended")


class Subject:
    """A submission during one check."""

    BUSYBOX = BUSYBOX
    """The path in the sandbox of a static busybox."""
    IMAGE = f"{PLACE}/busybox"
    """The path in the sandbox of a read-only root file system with it."""

    def __init__(self, sandbox: Sandbox, exercises: Collection[str] = ()) -> None:
        """`exercises` are those that the submission has brought."""
        self._sandbox = sandbox
        self._exercises = exercises
        self.used = False
        self.evidence: list[str] = []

    @property
    def sandbox(self) -> Observed:
        """Process 1 of the sandbox: the parent, so to say, of the containers that are started in it."""
        return Observed(self._sandbox, self._sandbox.pid, "the sandbox")

    def name(self, prefix: str) -> str:
        """A name that nobody can know beforehand."""
        return f"{prefix}-{secrets.token_hex(4)}"

    def saw(self, text: str) -> None:
        """Note what the kernel showed: the evidence for whichever verdict comes."""
        self.evidence.append(plain(text))

    def scratch(self, *directories: str) -> str:
        """The path of a new directory in the sandbox, writable, in memory; with these directories in it, else empty."""
        path = f"/run/{self.name('scratch')}"
        self.perform(
            [("os.makedirs", [f"{path}/{directory}"]) for directory in directories] or [("os.makedirs", [path])]
        )
        return path

    @property
    def has_groups(self) -> bool:
        """Whether control groups can be made in the sandbox, for a lab that can do without."""
        return self._sandbox.group is not None and self._sandbox.makes_groups

    def group(self, *controllers: str, below: ObservedGroup | None = None) -> ObservedGroup:
        """A new control group in the sandbox with these controllers (v1 names), to be handed to the submission's steps.

        Made by the reference, which labs 09 to 11 are given. Raises Wrong; Unavailable: this host cannot.
        """
        name = self.name("group") if below is None else f"{below.name}/{self.name('group')}"
        self.perform("group.create_group", name, list(controllers))
        return ObservedGroup(self._sandbox, name)

    def group_or_imitation(self, controller: str, *files: str) -> ObservedGroup:
        """As `group`; where this kernel does not have the controller, a directory with such files, of v1, as if.

        What a submission writes there can be read like a control file, and nothing comes of it.
        """
        if self._sandbox.group is None or controller in self._sandbox.group:
            return self.group(controller)
        directory = self.scratch()
        self.perform([("os.open", [f"{directory}/{file}", os.O_CREAT | os.O_WRONLY, 0o600]) for file in files])
        return ImitatedGroup(self._sandbox, directory, controller)

    def observed_group(self, name: str) -> ObservedGroup:
        """The control group of a container that was started with ``group=name``."""
        return ObservedGroup(self._sandbox, name)

    def until(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Whether `condition` comes true within so many seconds (None: the deadline), if no file descriptor tells."""
        end = time.monotonic() + (deadline() if seconds is None else seconds)
        while not (true := condition()) and time.monotonic() < end:
            select.select([], [], [], 0.002)
        return true

    def start(
        self,
        args: Sequence[str],
        *,
        hostname: str | None = None,
        domainname: str | None = None,
        namespaces: Iterable[Namespace] | None = None,
        reaper: bool = True,
        image: str = "busybox",
        **fields: Any,
    ) -> Performed:
        """Start a container in the sandbox with the submission's steps; returns its process 1 once its program runs.

        `image` "busybox" gets a writable layer of its own; an absolute path is a root file system in the sandbox,
        used as it is.
        `fields` are other fields of a Spec, as far as they are JSON: clock_offsets, uid_mappings, …; limits, the fields
        of a Limits; group, the name of its control group (`subject.name`), for `observed_group`.
        Raises Wrong: it could not be started, and why. Late.
        """
        kinds = CONTAINER if namespaces is None else frozenset(namespaces)
        if Namespace.USER in kinds:
            whole = [(0, 0, self._sandbox.ids)]
            fields = {"uid_mappings": whole, "gid_mappings": whole, **fields}
        spec = {
            "args": list(args),
            "hostname": hostname or self.name("container"),
            "domainname": domainname,
            "namespaces": sorted(kind.proc_name for kind in kinds),
            "reaper": reaper,
            **fields,
        }
        request = {"do": "start", "image": image if image.startswith("/") else self.IMAGE, "spec": spec}
        performer, container = self._perform(request, "process 1 of the container", "the container's start")
        same = container.status("PPid") == str(performer.pid)
        if Namespace.PID in kinds and "pid.spawn_init" not in self._exercises:  # else it is for the check to find out
            same = same and container.status("NSpid").split()[len(performer.status("NSpid").split()) :] == ["1"]
        if not same:
            raise Wrong("the process that was reported is not the container's process 1: the code forged the report")
        return container

    def perform(self, function: str | Sequence[Call], *args: Any) -> Performed:
        """Let a fresh process in the sandbox call one function, or a sequence of them, and keep still to be looked at.

        The submission's functions; the reference's where it has none (never those of the lab under test); and those of
        ``linux.`` and ``os.``. Raises Wrong: a function raised something, with its line. Late.
        """
        calls = _calls(function, args)
        what = f"the process that called {_naming(calls)}"
        performer, process = self._perform({"do": "call", "calls": calls}, what, _naming(calls))
        if process.pid != performer.pid:
            raise Wrong(f"the process that was reported is not {what}: the code forged the report")
        return process

    def _perform(self, request: dict[str, Any], what: str, doing: str) -> tuple[Observed, Performed]:
        """The performer, who reports before it runs any code of the submission, and whom it reports at the end."""
        line = self._sandbox.ask(request)
        self.used = True
        message, pid = line.receive(deadline())
        if message.get("here") is not True:
            _refused(message, doing)
        performer = Observed(self._sandbox, pid, "the process that runs your code")
        pid, returned = _done(self._sandbox, line, doing)
        return performer, Performed(self._sandbox, pid, what, line, returned)


def _done(sandbox: Sandbox, line: Line, doing: str) -> tuple[int, object]:
    """Wait until it is done; returns the pid to look at, and what was returned. Raises Wrong, Late."""
    begun = asked = time.monotonic()
    until = begun + deadline()
    while True:
        try:
            # Whoever never stops asking always has something for us to receive, or just not yet.
            message, pid = line.receive(max(0.0, until - time.monotonic()))
            if "errand" in message and time.monotonic() > until:
                raise Late
        except Late:
            what = "an endless loop, or a wait for something that does not happen"
            if asked - begun > deadline() / 2:  # and it still asked late in its time
                what = "it asked for one device rule or counter after the other"
            raise Late(f"not done within {deadline():g} s: {what}") from None
        if "errand" not in message:
            break
        asked = time.monotonic()
        number, fds = errands.run(sandbox, message["errand"])
        try:
            line.reply({"errno": number}, fds)
        finally:
            for fd in fds:
                os.close(fd)
    if message.get("done") is not True:
        _refused(message, doing)
    return pid, message.get("returned")


def _refused(message: dict[str, Any], doing: str) -> NoReturn:
    """Raise Wrong with what the sandbox tells of the failure."""
    if isinstance(told := message.get("error"), str):
        raise Wrong(_diagnosis(message.get("step"), told))
    if isinstance(status := message.get("ended"), int):
        raise Wrong(f"{doing} did not come to an end: the process {_ending(status)}")
    raise Wrong("the sandbox sent something that is no answer: the code wrote to the sandbox's own line")


def _diagnosis(step: object, told: str) -> str:
    """What went wrong in a function of the submission, in words for its author."""
    told = told.removeprefix("BadExercise: ")
    step = step if isinstance(step, str) else told.partition(":")[0]
    if "NotImplementedError" in told:
        if "no cell begins with" in told or "still empty" in told:
            return plain(told.removeprefix("NotImplementedError: "))
        return plain(f"{step} is not written yet: it raises NotImplementedError")
    if told.startswith("the container's process 1 ended"):
        told += ": a step called os._exit, was killed, or used up the sandbox's memory"
    return plain(told if told.startswith((step, "the container")) else f"{step}: {told}")


def _ending(status: int) -> str:
    if status == -9:
        return "was killed (SIGKILL): it used too much memory, or killed itself"
    if status < 0:
        return f"was killed by signal {-status}"
    return f"called exit (status {status}) instead of returning"


def _calls(function: str | Sequence[Call], args: Sequence[Any]) -> list[Call]:
    calls = [(function, args)] if isinstance(function, str) else function
    return [(name, [one.argument if isinstance(one, ObservedGroup) else one for one in values])
            for name, values in calls]  # fmt: skip


def _naming(calls: Sequence[Call]) -> str:
    return " and ".join(name for name, _ in calls)
