"""The sandbox: one of our own containers, in which alone a submission's code runs. This is its outside.

All eight namespaces are its own. Its root is somebody else outside (an id that nobody has; rootless, the
caller), its "/" an empty file system in memory, its only network device "lo". Of the host it sees programs
and libraries, read-only, and the classroom. Where control groups can be made, they hold its memory, processor
time and processes; resource limits do in any case.

What comes out of it is believed only as far as the kernel vouches for it: see `Line.receive` and
`Sandbox.holds`.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

from labs.grading.checks import Late, Wrong, deadline, plain
from labs.grading.classroom import PLACE, interpreter, sights
from minicontainer.linux import PR_SET_PDEATHSIG, Namespace, in_user_namespace, prctl, thread_count
from minicontainer.linux.capabilities import capget, capset
from minicontainer.linux.cgroups import read
from minicontainer.runtime.birth import Running, start
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.limits import EVERYDAY, Limits
from minicontainer.runtime.spec import Mount, Process, Scratch, Spec
from minicontainer.runtime.users import rootless_maps
from minicontainer.steps import Steps
from minicontainer.steps.group import find_group, find_groups, list_groups, remove_group
from minicontainer.steps.pid import spawn_init
from minicontainer.steps.user import IdMap

MEMORY = 256 << 20
DISK = 64 << 20
LIMITS = Limits(memory=MEMORY, cpus=1.0, pids=128)
RLIMITS = {"AS": 1 << 30, "FSIZE": DISK, "NPROC": 128, "NOFILE": 1024, "CORE": 0, "CPU": 120}
"""What holds in any case: setrlimit(2); root of a user namespace cannot raise them again."""

FIRST_ID = 0x70000000
"""From here on a sandbox of root's has its users' ids outside: far above those of people, services and /etc/subuid."""
IDS = 1 << 16

COVERED = "/tmp"
"""Where the sandbox's root is built, in its own mount namespace only: a directory that every user may search."""

LARGEST = 1 << 16  # bytes of a message
NS_GET_PARENT = 0xB702  # ioctl_ns(2)
PR_GET_PDEATHSIG = 2  # prctl(2)

_numbers = itertools.count()


class Unavailable(Exception):
    """This host, or this user, cannot have a sandbox; the text says what to do."""


class Closable(Protocol):
    """What holds something of a sandbox open."""

    def close(self) -> None:
        """Let go of it."""


class Sandbox:
    """A running sandbox for the exercises of one submission. Close it."""

    def __init__(self, classroom: Path, exercises: Mapping[str, str], *, groups: bool = False) -> None:
        """Start it; with `groups` it may make control groups below its own. Raises Unavailable."""
        if thread_count() > 1:
            raise Unavailable("this process has several threads, and cannot start a sandbox: use the `labs` command")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        submission = os.memfd_create("submission", os.MFD_CLOEXEC)
        with theirs, open(submission, "wb") as file:
            file.write(json.dumps({"exercises": dict(exercises), "limits": RLIMITS, "groups": groups}).encode())
            file.flush()
            os.lseek(submission, 0, os.SEEK_SET)
            self._line = ours
            self._lines: list[Line] = []
            self.observed: WeakSet[Closable] = WeakSet()
            try:
                self._running, self.limited = _start(classroom, [theirs.fileno(), submission], groups)
            except BaseException:
                ours.close()
                raise
        self.makes_groups = groups
        self.classroom = classroom
        self.pid = self._running.pid
        self.group = self._running.group
        self.pidfd = self._running.pidfd
        self.ids = IDS if strangers() else 1
        self.errands = 0
        """How many calls the examiner has made for it."""
        try:
            self._greet()
            self._pid_namespace = os.stat(f"/proc/{self.pid}/ns/pid")
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        """Wait until its process 1 is ready: no code of the submission has been run yet, so what it says is true."""
        said = b""
        with contextlib.suppress(OSError):
            self._line.settimeout(deadline())
            said = self._line.recv(LARGEST)
        if said != b"{}":
            raise Unavailable(
                f"the sandbox's program did not start: {plain(said.decode(errors='replace')) or 'it is dead'}"
            )

    def ask(self, request: dict[str, Any]) -> Line:
        """Have a performer made for this request; the answers come on the line that is returned."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs:
            try:
                _send(self._line, request, [theirs.fileno()])
            except OSError:
                ours.close()
                raise self.dead() from None
        self._lines.append(Line(self, ours))
        return self._lines[-1]

    def hang_up(self) -> None:
        """Close all lines: their performers end, and the containers that they started."""
        while self._lines:
            self._lines.pop().close()

    def sweep(self) -> bool:
        """End everything in the sandbox but its process 1, and tidy up. False: it cannot be used any more."""
        self.hang_up()
        try:
            return self.ask({"do": "sweep"}).receive(deadline() / 4)[0].get("sound") is True
        except (Late, Wrong):
            return False
        finally:
            self.hang_up()

    def holds(self, pid: int) -> bool:
        """Whether a process is in the sandbox's PID namespace or in one below it. Its pidfd must be open already."""
        opened = list[int]()
        try:
            opened.append(os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC))
            while not os.path.samestat(os.fstat(opened[-1]), self._pid_namespace):
                opened.append(fcntl.ioctl(opened[-1], NS_GET_PARENT))
            return True
        except OSError:
            return False  # it has ended, or the next namespace up is not for us to see (EPERM): we are past our own
        finally:
            for fd in opened:
                os.close(fd)

    def dead(self) -> Wrong:
        """What to say when the sandbox has ended under the submission's hands."""
        return Wrong(
            f"the sandbox has ended: the code used up its {MEMORY >> 20} MiB of memory, or killed its process 1"
        )

    def close(self) -> None:
        """End the sandbox, whatever goes on in it, and everything that belongs to it."""
        self.hang_up()
        for observed in list(self.observed):
            observed.close()
        self._line.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        waited = bool(select.select([self.pidfd], [], [], 0.5)[0])
        try:
            if waited:
                self._running.wait()  # first, since the groups of a zombie are not quite gone
            if self._running.group:
                remove_group(self._running.group)  # with all that was made in it; what is frozen is thawed, and dies
        finally:
            if not waited:
                self._running.wait()
            os.close(self.pidfd)


class Line:
    """The examiner's end of the line to one performer. What comes over it is a submission's word."""

    def __init__(self, sandbox: Sandbox, end: socket.socket) -> None:
        self._sandbox = sandbox
        self._end = end

    def send(self, request: dict[str, Any]) -> None:
        """Ask for more. Raises Wrong: there is nobody any more."""
        try:
            _send(self._end, request)
        except OSError:
            raise Wrong("the process that ran your code has ended") from None

    def reply(self, message: dict[str, Any], fds: Collection[int] = ()) -> None:
        """Answer a request of the submission's. Raises Wrong: there is nobody any more."""
        try:
            _send(self._end, message, fds)
        except OSError:
            raise Wrong("the process that ran your code has ended, or asks and does not listen") from None

    def receive(self, seconds: float) -> tuple[dict[str, Any], int]:
        """The next message, and the pid that the kernel says comes with it. Raises Late, Wrong (nonsense, or dead)."""
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        poll.register(self._sandbox.pidfd, select.POLLIN)
        while not (ready := poll.poll(max(0.0, end - time.monotonic()) * 1000)):
            if time.monotonic() >= end:
                raise Late(
                    f"not done within {seconds:g} s: an endless loop, or a wait for something that does not happen"
                )
        if all(fd == self._sandbox.pidfd for fd, _ in ready):
            raise self._sandbox.dead()
        # Room for the credentials and nothing else: the kernel drops file descriptors that somebody sends along.
        data, ancillary, flags, _ = self._end.recvmsg(LARGEST, socket.CMSG_SPACE(struct.calcsize("iII")))
        if not data:
            raise self._sandbox.dead()
        pid = next(
            (
                struct.unpack("iII", value)[0]
                for level, kind, value in ancillary
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(value) == struct.calcsize("iII")
            ),
            0,
        )
        try:
            message = None if flags & socket.MSG_TRUNC else json.loads(data)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise Wrong("the sandbox sent something that is no answer: the code wrote to the sandbox's own line")
        return message, pid

    def close(self) -> None:
        """Hang up."""
        self._end.close()


def _send(end: socket.socket, message: dict[str, Any], fds: Collection[int] = ()) -> None:
    """Send it now or raise OSError: who does not read must not hold us up. (socket.send_fds() forgets its flags.)"""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([json.dumps(message).encode()], ancillary, socket.MSG_DONTWAIT)


def _start(classroom: Path, fds: list[int], groups: bool) -> tuple[Running, bool]:
    """Start the container; with control groups where they can be made. Returns whether they could."""
    steps = Steps().with_functions({"pid.spawn_init": _spawn_as_stranger}) if strangers() else Steps()
    if groups:  # of net_cls there is no tree before somebody needs it
        attempts = [LIMITS.replace(net_class=0), LIMITS]
    else:
        attempts = [LIMITS, Limits()] if os.geteuid() == 0 else [Limits()]
    while True:
        limits = attempts.pop(0)
        try:
            return start(_specification(classroom, fds, limits, groups), steps, (None, None, None)), bool(limits.memory)
        except StartError as error:
            if not attempts or error.step != "group.create_group":
                needed = "it takes root, or user namespaces open to this user"
                if groups and error.step == "group.create_group":
                    needed = "this lab takes control groups: root, or groups that were delegated to this user"
                raise Unavailable(f"a sandbox cannot be started here ({needed}): {plain(error)}") from None


def _specification(classroom: Path, fds: list[int], limits: Limits, groups: bool) -> Spec:
    uids, gids = _maps()
    seen = [Mount("/sys/fs/cgroup", "cgroup")] if groups else []
    return Spec(
        id=f"{group_prefix(os.getpid())}{next(_numbers)}",
        root=Scratch(COVERED, DISK),
        process=Process(
            args=[str(interpreter()), "-I", "-S", "-B", f"{PLACE}/inside.py"],
            env=("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"),
            preserve_fds=fds,
        ),
        hostname="sandbox",
        domainname="(none)",
        namespaces=frozenset(Namespace),
        uid_mappings=uids,
        gid_mappings=gids,
        mounts=[
            *(Mount(path, source=path, readonly=True) for path in sights()),
            Mount(PLACE, source=str(classroom), readonly=True),
            *seen,
        ],
        limits=limits,
        controllers=EVERYDAY if groups else (),
        reaper=False,
    )


def strangers() -> bool:
    """Whether the users of a sandbox can be others than we: for root of the host, who may give away any id."""
    return os.geteuid() == 0 and not in_user_namespace()


def _maps() -> tuple[list[IdMap], list[IdMap]]:
    if os.geteuid() != 0:
        uids, gids = rootless_maps()
        return list(uids), list(gids)
    if not strangers():
        return [(0, 0, 1)], [(0, 0, 1)]
    return [(0, _first_id(), IDS)], [(0, _first_id(), IDS)]


def _first_id() -> int:
    """Who the sandbox's root is outside. Sandboxes that run side by side are different users."""
    return FIRST_ID + os.getpid() % 0x1000 * IDS


def _spawn_as_stranger(main: Callable[[], int], namespaces: Collection[Namespace]) -> int:
    """`pid.spawn_init`, with the sandbox's user as the one who makes the namespaces.

    The kernel counts namespaces (/proc/sys/user/max_*_namespaces) for whoever made the user namespace they are in. If
    that were root, a submission that makes as many as it can would leave none for the others, or for the host.
    """
    ours, signal_at_death = capget(), ctypes.c_int()
    prctl(PR_GET_PDEATHSIG, ctypes.addressof(signal_at_death))
    try:
        os.seteuid(_first_id())
        capset(ours)  # where ordinary users may not make user namespaces (Ubuntu 24.04), we still may
        return spawn_init(main, namespaces)
    finally:
        os.seteuid(0)
        prctl(PR_SET_PDEATHSIG, signal_at_death.value)  # the kernel has forgotten it with the change of user


def group_prefix(pid: int) -> str:
    """How the names of the control groups begin that the process `pid` makes for its sandboxes."""
    return f"labs-{pid}-"


def remove_groups_of(pid: int) -> None:
    """Remove what a process that was killed could not: the control groups of its sandboxes."""
    for name in _groups():
        if name.startswith(group_prefix(pid)):
            remove_group(find_group(name))


def remove_forgotten_groups() -> None:
    """Remove the control groups of examiners that are not there any more: somebody killed them with SIGKILL.

    Only where nobody is in one, nor in any below: a number that nobody has here may be somebody's in another PID
    namespace.
    """
    names = [name for name in list_groups() if name.startswith("labs-") and not is_at_work(name)]
    found = find_groups(names)
    for top in (name for name in names if "/" not in name):
        ours = [name for name in names if name == top or name.startswith(f"{top}/")]
        directories = [directory for name in reversed(ours) for directory in found[name].directories]
        if not any(map(_has_processes, directories)):
            for directory in directories:
                with contextlib.suppress(OSError):
                    os.rmdir(directory)


def _has_processes(directory: str) -> bool:
    try:
        return bool(read(f"{directory}/cgroup.procs"))
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP  # v2: a threaded group; the one above it knows whom it has


def is_at_work(name: str) -> bool:
    """Whether a control group of this name may be of a sandbox that a living examiner has, or is about to have."""
    prefix, _, rest = name.partition("-")
    return prefix == "labs" and os.path.exists(f"/proc/{rest.partition('-')[0]}")


def _groups() -> list[str]:
    """The names of the control groups of all sandboxes there are."""
    return [name for name in list_groups() if name.startswith("labs-") and "/" not in name]
