"""A process of the sandbox as the kernel shows it from outside: /proc/PID, its namespaces, its tree of files.

Every reading is made while a pidfd holds the process: after it, the pidfd says whether the process still
lived, so that what was read cannot have been another's.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from labs.grading import files
from labs.grading.checks import Late, Wrong, deadline
from labs.grading.sandbox import Sandbox
from minicontainer.linux import Namespace, flags, pidfd_getfd, pidfd_open, pidfd_send_signal, setns

Told = TypeVar("Told")

COUNTER = "anon_inode:[perf_event]"
MUCH = 1 << 22  # bytes of a file in /proc: the mounts of a process, say
MANY = 1000  # processes


@dataclass(frozen=True)
class MountInfo:
    """A line of /proc/PID/mountinfo: proc_pid_mountinfo(5)."""

    id: int
    parent: int
    device: str
    root: str
    mountpoint: str
    options: list[str]
    """Of this mount: "ro", "nosuid"…"""
    propagation: str
    """"private", "shared:7", "master:7", "unbindable", or several of them with a blank between."""
    fstype: str
    source: str
    super_options: list[str]
    """Of the file system: "rw", "size=64k"…"""


@dataclass(frozen=True)
class Names:
    """The names of a UTS namespace."""

    host: str
    domain: str


class Observed:
    """A process of a sandbox, seen from outside."""

    pidfd = -1

    def __init__(self, sandbox: Sandbox, pid: int, what: str) -> None:
        """`what` is its name in diagnoses: "process 1 of the container". Raises Wrong: no trace of it."""
        self._sandbox = sandbox
        self._what = what
        self.pid = pid
        if pid <= 0:
            raise Wrong(f"{what} is not there")
        try:
            self.pidfd = pidfd_open(pid)
        except OSError:
            raise Wrong(f"{what} has ended") from None
        sandbox.observed.add(self)
        if not (sandbox.holds(pid) and self.alive) and not self._ended_inside():
            raise Wrong(f"{what} has ended")

    def close(self) -> None:
        """Let go of the process. The sandbox does it at its end, for those that somebody still remembers then."""
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self._what}, pid {self.pid}"

    # What it is

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a zombie has."""
        return not _readable(self.pidfd, 0)

    @property
    def gone(self) -> bool:
        """Whether it has ended and was waited for: no zombie is left of it."""
        return not self.alive and self._zombie() is None

    @property
    def state(self) -> str:
        """One letter: R runs, S sleeps, T stopped, Z zombie …, proc_pid_stat(5)."""
        if self.alive:
            return self.status("State")[:1]
        return "X" if self._zombie() is None else "Z"

    def namespace(self, kind: str | Namespace) -> str:
        """The namespace it is in, ``uts:[4026532571]``. `kind` is a name of /proc/PID/ns."""
        name = kind.proc_name if isinstance(kind, Namespace) else kind
        return self._while_alive(lambda: os.readlink(f"/proc/{self.pid}/ns/{name}"))

    def status(self, field: str) -> str:
        """A field of /proc/PID/status, such as "NSpid", "CapEff" or "State"; of a zombie too."""
        try:
            with open(f"/proc/{self.pid}/status", errors="surrogateescape") as file:
                lines = file.read(MUCH).splitlines()
            pidfd_send_signal(self.pidfd, 0)  # nobody has waited for it, so the number is still its own
        except (FileNotFoundError, ProcessLookupError):
            raise Wrong(f"{self._what} has ended") from None
        for line in lines:
            name, _, value = line.partition(":")
            if name == field:
                return value.strip()
        raise KeyError(field)

    def ids(self, kind: str) -> list[int]:
        """Who it is, in the sandbox's numbers: "Uid" or "Gid", the real, effective, saved and file system id; "Groups".

        -1: somebody whom the sandbox does not know.
        """
        ours = self._sandbox_map("uid" if kind == "Uid" else "gid")
        return [_translated(int(number), ours) for number in self.status(kind).split()]

    def id_map(self, kind: str) -> list[tuple[int, int, int]]:
        """The map of its user namespace, of "uid" or "gid": (first id inside, first id in the sandbox, how many)."""
        ours = self._sandbox_map(kind)
        lines = (tuple(map(int, line.split())) for line in self._proc(f"{kind}_map").splitlines())
        return [(inside, _translated(outside, ours), count) for inside, outside, count in lines]

    @property
    def setgroups(self) -> str:
        """Whether setgroups(2) is for its user namespace to use: "allow" or "deny"."""
        return self._proc("setgroups").strip()

    def sandbox_ids(self, uid: int, gid: int) -> tuple[int, int]:
        """A user and a group, as we see them, in the sandbox's numbers. -1: somebody whom it does not know."""
        return _translated(uid, self._sandbox_map("uid")), _translated(gid, self._sandbox_map("gid"))

    def _sandbox_map(self, kind: str) -> list[tuple[int, int, int]]:
        with open(f"/proc/{self._sandbox.pid}/{kind}_map") as lines:
            return [(int(inside), int(outside), int(count)) for inside, outside, count in map(str.split, lines)]

    @property
    def command(self) -> list[str]:
        """What it was started with: /proc/PID/cmdline."""
        return self._proc("cmdline").removesuffix("\0").split("\0")

    def mountinfo(self) -> list[MountInfo]:
        """The mounts that it sees, in the kernel's order."""
        return [_mount(line) for line in self._proc("mountinfo").splitlines()]

    def uname(self) -> Names:
        """The names of its UTS namespace, read from within that namespace."""
        kinds = [Namespace.UTS] if os.geteuid() == 0 else [Namespace.USER, Namespace.UTS]
        names = self._while_alive(lambda: _visiting(self.pidfd, kinds, _read_names))
        return Names(*names.split("\0"))

    def root(self) -> tuple[int, int]:
        """Its root directory, by what identifies it: (st_dev, st_ino)."""
        return self._identity("root")

    def cwd(self) -> tuple[int, int]:
        """Its working directory: (st_dev, st_ino)."""
        return self._identity("cwd")

    def executable(self) -> tuple[int, int]:
        """The file of the program that it executes: (st_dev, st_ino)."""
        return self._identity("exe")

    # Whom it knows

    @property
    def parent(self) -> Observed:
        """Its parent, as we see it. Raises Wrong: that is not in the sandbox."""
        return Observed(self._sandbox, int(self.status("PPid")), f"the parent of {self._what}")

    def children(self) -> list[Observed]:
        """Its children, in the kernel's order."""

        def read() -> list[int]:
            pids = []
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/children") as children:
                    pids += [int(pid) for pid in children.read(MUCH).split()]
            return pids

        found = []
        for pid in self._while_alive(read)[:MANY]:
            with contextlib.suppress(Wrong):  # it has ended in the meantime, or is a zombie
                child = Observed(self._sandbox, pid, f"a child of {self._what}")
                if child.status("PPid") == str(self.pid):
                    found.append(child)
        return found

    @property
    def program(self) -> Observed:
        """The program of a container: the first child of its process 1."""
        children = self.children()
        if not children:
            raise Wrong(f"{self._what} has no child: the container's program is not there")
        return children[0]

    def processes(self) -> list[Observed]:
        """Every process of its PID namespace, itself among them, as far as they descend from it."""
        namespace, found, next_ones = self.namespace("pid"), [self], self.children()
        while next_ones and len(found) < MANY:
            process = next_ones.pop(0)
            with contextlib.suppress(Wrong):
                if process.namespace("pid") == namespace:
                    found.append(process)
                    next_ones += process.children()
        return found

    # Its files

    def open(self, path: str) -> int:
        """A file descriptor for reading a file or directory that it sees; the caller closes it. Raises OSError."""
        with self._root() as root:
            return files.opened(root, path)

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """The first `limit` bytes of a file that it sees. Raises OSError: ENOENT, ELOOP; EINVAL: not a file."""
        with self._root() as root:
            return files.read(root, path, limit)

    def stat(self, path: str, follow: bool = True) -> os.stat_result:
        """What stat(2), or lstat(2), would tell it. Raises OSError."""
        with self._root() as root, files.place(root, path, follow) as place:
            return os.fstat(place)

    def readlink(self, path: str) -> str:
        """Where a symbolic link that it sees leads. Raises OSError: ENOENT; EINVAL: not a link."""
        with self._root() as root, files.place(root, path, follow=False) as place:
            return os.readlink("", dir_fd=place)

    def listdir(self, path: str) -> list[str]:
        """The names in a directory that it sees, sorted. Raises OSError."""
        with self._root() as root:
            return files.listed(root, path)

    def tree(self, path: str = "/") -> dict[str, os.stat_result]:
        """All that lies below a directory that it sees, by relative path, as lstat(2) tells it; no other mounts."""
        with self._root() as root:
            return files.tree(root, path)

    @contextlib.contextmanager
    def _root(self) -> Iterator[int]:
        root = self._while_alive(lambda: os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            yield root
        finally:
            os.close(root)

    def open_files(self) -> dict[int, str]:
        """What it has open, by file descriptor: ``/dev/null``, ``anon_inode:seccomp notify``…"""

        def read() -> dict[int, str]:
            found = {}
            for name in os.listdir(f"/proc/{self.pid}/fd"):
                with contextlib.suppress(OSError):  # it was closed in the meantime
                    found[int(name)] = os.readlink(f"/proc/{self.pid}/fd/{name}")
            return found

        return self._while_alive(read)

    def counters(self) -> dict[int, int]:
        """What every counter of perf_event_open(2) that it has open says now, by its file descriptor."""
        return self._while_alive(self._read_counters)

    def _read_counters(self) -> dict[int, int]:
        found = {}
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):  # it was closed, or is told to say more than a number
                if os.readlink(f"/proc/{self.pid}/fd/{name}") == COUNTER:
                    fd = pidfd_getfd(self.pidfd, int(name))
                    try:
                        if os.readlink(f"/proc/self/fd/{fd}") == COUNTER:  # still: of anything else, a read may wait
                            found[int(name)] = int.from_bytes(os.read(fd, 8), "little")
                    finally:
                        os.close(fd)
        return found

    # What is done to it

    def signal(self, number: int) -> None:
        """Send it a signal, from outside its PID namespace."""
        with contextlib.suppress(ProcessLookupError):
            pidfd_send_signal(self.pidfd, number)

    def ended(self, seconds: float | None = None) -> bool:
        """Whether it has ended, or does within so many seconds (None: within the deadline)."""
        return _readable(self.pidfd, deadline() if seconds is None else seconds)

    def exit_status(self, seconds: float | None = None) -> int:
        """How it ended, as the shell says it (128 + n: signal n). Raises Late; Wrong: somebody has waited for it.

        The kernel's word: of a process that nobody has waited for, /proc/PID/stat tells the exit code (field 52).
        """
        if not self.ended(seconds):
            raise Late(f"{self._what} did not end within {deadline() if seconds is None else seconds:g} s")
        fields = self._zombie()
        if fields is None:
            raise Wrong(f"{self._what} has ended, and somebody has waited for it: its exit status is lost")
        code = os.waitstatus_to_exitcode(int(fields[-1]))
        return code if code >= 0 else 128 - code

    def _ended_inside(self) -> bool:
        """Whether it is a zombie, which has no namespaces any more, but a parent in the sandbox."""
        fields = self._zombie()
        return fields is not None and self._sandbox.holds(int(fields[1])) and self._zombie() == fields

    def _zombie(self) -> list[str] | None:
        """The fields of /proc/PID/stat after the name, if the process has ended and is a zombie."""
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                fields = file.read(MUCH).rpartition(")")[2].split()
            # The number is still its own only if the pidfd still leads to a process: ESRCH once it was waited for.
            pidfd_send_signal(self.pidfd, 0)
        except (FileNotFoundError, ProcessLookupError):
            return None
        return fields if fields[0] == "Z" else None

    # How it is read

    def _while_alive(self, read: Callable[[], Told]) -> Told:
        """What `read` reads, if the process is alive after it: then it was this process's. Raises Wrong."""
        try:
            told = read()
        except (FileNotFoundError, ProcessLookupError):
            if not self.ended(min(0.5, deadline())):  # who dies lets go of memory and namespaces a moment before
                raise
            raise Wrong(f"{self._what} has ended") from None
        if not self.alive:
            raise Wrong(f"{self._what} has ended")
        return told

    def _proc(self, name: str) -> str:
        def read() -> str:
            with open(f"/proc/{self.pid}/{name}", errors="surrogateescape") as file:
                return file.read(MUCH)

        return self._while_alive(read)

    def _identity(self, name: str) -> tuple[int, int]:
        found = self._while_alive(lambda: os.stat(f"/proc/{self.pid}/{name}"))
        return found.st_dev, found.st_ino


def _readable(fd: int, seconds: float) -> bool:
    """Whether `fd` can be read from within so many seconds; a pidfd can be once the process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    end = time.monotonic() + seconds
    while not (ready := poll.poll(max(0.0, end - time.monotonic()) * 1000)) and time.monotonic() < end:
        pass
    return bool(ready)


def _translated(outside: int, lines: Sequence[tuple[int, int, int]]) -> int:
    found = (inside + outside - first for inside, first, count in lines if first <= outside < first + count)
    return next(found, -1)


def _mount(line: str) -> MountInfo:
    before, _, after = line.partition(" - ")
    fields, (fstype, source, options) = before.split(" "), after.split(" ")[:3]
    return MountInfo(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2],
        root=_unescaped(fields[3]),
        mountpoint=_unescaped(fields[4]),
        options=fields[5].split(","),
        propagation=" ".join(fields[6:]) or "private",
        fstype=fstype,
        source=_unescaped(source),
        super_options=options.split(","),
    )


def _unescaped(path: str) -> str:
    for escaped, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escaped, letter)
    return path


def _visiting(pidfd: int, kinds: Sequence[Namespace], read: Callable[[], str]) -> str:
    """What `read` returns in namespaces of another process. A child goes there: we ourselves never leave our own."""
    answer, told = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            setns(pidfd, flags(kinds))
            os.write(told, read().encode(errors="surrogateescape"))
        finally:
            os._exit(0)
    os.close(told)
    with open(answer, errors="surrogateescape") as file:
        text = file.read(MUCH)
    os.waitpid(child, 0)
    if not text:
        raise ProcessLookupError
    return text


def _read_names() -> str:
    with open("/proc/sys/kernel/hostname") as host, open("/proc/sys/kernel/domainname") as domain:
        return host.read().removesuffix("\n") + "\0" + domain.read().removesuffix("\n")  # NUL ends a name, "\n" may not
