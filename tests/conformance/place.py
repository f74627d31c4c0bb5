"""Where a suite runs: a corner of this host in which it may break everything, and from which nothing gets out.

A whole run has control groups of version 1 alone, below a group of its own in every hierarchy: crun refuses a host that
has both versions, and the cgroup tests of runtime-tools know the first only. In there, each test file gets mount, network, PID, UTS and IPC namespaces, /run, /dev, a scratch directory and a terminal of its own.
The end of the PID namespace is the end of every process that the file has started, containers and all.

Nothing of the host's is written to: its cgroup tree gains and loses one directory a hierarchy.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import stat
import sys
import tempfile
import time
import traceback
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from tests.conformance import kernel
from tests.conformance.suites import Run

GROUPS = "/sys/fs/cgroup"
UNMOUNTED = ("hugetlb", "net_cls", "net_prio", "perf_event")
"""Controllers that a host may have left out, and that some tests want."""
BORROW = "CONFORMANCE_BORROW"
"""A variable: "no" leaves them where they are. Whoever is killed with one mounted keeps it from everybody else."""
PATIENCE = 20  # s, for the kernel to let go of what has been killed
LOOK = 0.05  # s; there is no event for "a group is empty", so we look again
FURNISHING_FAILED = 125
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Ended(NamedTuple):
    """How a test file ended: its exit status (None: stopped, its time was up), what it printed, how long it took."""

    status: int | None
    output: str
    errors: str
    seconds: float


class View(NamedTuple):
    """What we have of the control groups: the root of each hierarchy, as a file descriptor, and our group in all."""

    staging: str
    """Where the hierarchies are mounted."""
    roots: Mapping[str, int]
    group: str
    borrowed: Sequence[str]
    """The controllers that the host had left out, and that we have mounted."""
    missing: Sequence[str]
    """What it cannot give."""

    def places(self) -> list[str]:
        """Our group in each hierarchy, as a path that holds in every mount and control group namespace."""
        return [f"/proc/{os.getpid()}/fd/{root}/{self.group}" for root in self.roots.values()]


def apart(work: Callable[[View], int]) -> int:
    """Do `work` in a process which has the private view of control groups; the exit status, what `work` returned.

    The caller itself stays where it is. Needs root. Two processes: the outer one makes the groups and removes them, the
    inner one is in them. A group that has been removed is gone only when no namespace is rooted in it any more.
    """

    def outer() -> int:
        with groups() as view:
            return in_child(lambda: work(seen(view)))

    return in_child(outer)


def in_child(work: Callable[[], int]) -> int:
    """Do `work` in a child process; its exit status is what `work` returned. SIGTERM is taken as SIGINT is."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            kernel.die_with_parent(signal.SIGKILL)
            status = work()
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    while True:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except KeyboardInterrupt:  # the child tidies up
            os.kill(child, signal.SIGTERM)


def interrupted(*_: object) -> None:
    """Go through every `finally` on the way out, and let no second signal disturb them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def groups() -> Iterator[View]:
    """In a mount namespace of its own: every hierarchy of version 1, with a group for us. None where there is none."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        names = [line.split(":", 2)[1].removeprefix("name=") for line in lines]
    known = [name for name in names if name]
    if not known:
        yield View("", {}, "", [], UNMOUNTED)
        return
    with tempfile.TemporaryDirectory(prefix="conformance-") as staging:
        kernel.mount("none", staging, "tmpfs")
        try:
            view = attach(staging, known)
            try:
                for place in view.places():
                    os.mkdir(place)
                    if not endowed(place):
                        view = view._replace(missing=[*view.missing, "real time (another run has it)"])
                yield view
            finally:
                remove(view)
        finally:
            kernel.detach(staging)


def endowed(group: str) -> bool:
    """Give a new group what its parent has of what a group begins without; whether real time was to be had as well."""
    for setting in ("cpuset.cpus", "cpuset.mems"):  # nobody may enter the group while these are empty
        if os.path.exists(f"{group}/{setting}"):
            write(f"{group}/{setting}", read(f"{group}/../{setting}"))
    try:
        for setting in ("cpu.rt_period_us", "cpu.rt_runtime_us"):  # not every kernel has them
            if os.path.exists(f"{group}/{setting}"):
                write(f"{group}/{setting}", read(f"{group}/../{setting}"))
    except OSError:
        return False
    return True


def attach(staging: str, known: Sequence[str]) -> View:
    """Mount below `staging` the hierarchies that the host has, and those controllers that have none, if they can be had.

    A hierarchy that nobody else has mounted goes when its last mount does.
    """
    roots: dict[str, int] = {}
    borrowed, missing = [], []
    free = [name for name in UNMOUNTED if not any(name in names.split(",") for names in known)]
    if os.environ.get(BORROW) == "no":
        free = []
    for name in (*known, *free):
        where = f"{staging}/{name}"
        os.mkdir(where)
        try:
            kernel.mount("cgroup", where, "cgroup", data="none,name=systemd" if name == "systemd" else name)
        except OSError:
            if name in known:
                raise
            missing.append(name)
            continue
        if name in free:
            borrowed.append(name)
        roots[name] = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    return View(staging, roots, f"conformance-{os.getpid()}", borrowed, missing)


def seen(view: View) -> View:
    """Move this process into the groups, and let it see them, and nothing else, as /sys/fs/cgroup."""
    kernel.unshare(kernel.CLONE_NEWNS)
    for place in view.places():
        write(f"{place}/cgroup.procs", str(os.getpid()))
    if view.roots:
        kernel.unshare(kernel.CLONE_NEWCGROUP)
        kernel.detach(GROUPS)
        kernel.mount("cgroup", GROUPS, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, "mode=755")
        for name in view.roots:
            os.mkdir(f"{GROUPS}/{name}")
            kernel.mount(f"{view.staging}/{name}/{view.group}", f"{GROUPS}/{name}", flags=kernel.MS_BIND)
        kernel.detach(view.staging)  # in this namespace; the descriptors still lead there
    return view


def remove(view: View) -> None:
    """Remove our groups with all that tests have left in them, and give back what we have borrowed."""
    for root, place in zip(view.roots.values(), view.places(), strict=True):
        for path in (place, *abandoned(root)):
            thaw(path)
            empty(path)
            eventually(partial(gone, path))
    for name in view.borrowed:  # such a hierarchy stays for good if its last mount goes before its last group has
        eventually(partial(returnable, name, view.roots[name]))
    for root in view.roots.values():
        os.close(root)


def abandoned(root: int) -> list[str]:
    """Groups of runs that were killed."""
    found = [(name, name.removeprefix("conformance-")) for name in os.listdir(root) if name.startswith("conformance-")]
    return [f"/proc/{os.getpid()}/fd/{root}/{name}" for name, pid in found if not os.path.exists(f"/proc/{pid}")]


def returnable(controller: str, root: int) -> bool:
    """Whether a hierarchy has lost its last group, or others have groups there: then the last of them gives it back."""
    with os.scandir(root) as entries:
        return any(entry.is_dir() for entry in entries) or groups_of(controller) <= 1


def gone(group: str) -> bool:
    """Remove a group; whether that was possible."""
    with contextlib.suppress(OSError):
        os.rmdir(group)
    return not os.path.exists(group)


def groups_of(controller: str) -> int:
    """How many groups the hierarchy of a controller has, those included that are removed and not yet gone."""
    with open("/proc/cgroups", encoding="utf-8") as lines:
        return next((int(line.split()[2]) for line in lines if line.split()[0] == controller), 0)


def eventually(happened: Callable[[], bool]) -> bool:
    """Wait, within reason, until something has happened that the kernel does in its own time; whether it has."""
    for _ in range(round(PATIENCE / LOOK)):
        if happened():
            return True
        time.sleep(LOOK)
    return happened()


def empty(group: str) -> None:
    """Remove the groups below `group`, the lowest first. Their processes must be dead, or about to be."""

    def emptied() -> bool:
        left = [path for path, _, _ in os.walk(group, topdown=False) if path != group and not gone(path)]
        return not left

    eventually(emptied)


def thaw(group: str) -> None:
    """Let frozen processes go on, in this group and below it, so that they can die."""
    for path, _, names in os.walk(group):
        if "freezer.state" in names:
            with contextlib.suppress(OSError):
                write(f"{path}/freezer.state", "THAWED")


def run(view: View, what: Run, limit: float) -> Ended:
    """Run one test file to its end, or to its end after `limit` seconds, and remove whatever it has left behind."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        os.chmod(scratch, 0o755)  # containers that run as somebody else find their bundle through it
        output, errors = f"{scratch}/output", f"{scratch}/errors"
        os.mkdir(f"{scratch}/work")
        start = time.monotonic()
        first, tells = first_process(what, f"{scratch}/work", output, errors)
        try:
            status = heard(tells, limit)
            seconds = time.monotonic() - start
        finally:
            os.close(tells)
            end(view, first)
        for place in view.places():
            empty(place)
        return Ended(status, text_of(output), text_of(errors), seconds)


def first_process(what: Run, scratch: str, output: str, errors: str) -> tuple[int, int]:
    """Start the process that is number 1 in the file's PID namespace: its pid, and where it tells how the file ended."""
    tells, told = os.pipe()
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY)
    kernel.unshare(kernel.CLONE_NEWPID)  # for the children of this process only
    try:
        child = os.fork()
        if child == 0:
            try:
                kernel.die_with_parent(signal.SIGKILL)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)  # to which the first process is deaf
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                furnish(scratch)
                os.write(told, bytes([attend(what, scratch, output, errors)]))
            except BaseException:
                with open(errors, "a", encoding="utf-8") as file:
                    traceback.print_exc(file=file)
            finally:
                os._exit(0)
    finally:
        kernel.setns(ours, kernel.CLONE_NEWPID)
        os.close(ours)
        os.close(told)
    return child, tells


def heard(tells: int, limit: float) -> int | None:
    """How the file ended: its exit status, or None when it has not in time."""
    if not select.select([tells], [], [], limit)[0]:
        return None
    return (os.read(tells, 1) or bytes([FURNISHING_FAILED]))[0]


def end(view: View, first: int) -> None:
    """End process 1, and with it everything in its PID namespace.

    It can be waited for when all the others are gone; and one that is frozen does not take even a SIGKILL.
    """
    handle = os.pidfd_open(first)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while not select.select([handle], [], [], LOOK)[0]:
            for place in view.places():
                thaw(place)
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {first} does not end {PATIENCE} s after SIGKILL")
        os.waitpid(first, 0)
    finally:
        os.close(handle)


def furnish(scratch: str) -> None:
    """Namespaces of its own for the calling process, and the directories that tests and runtimes write to."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
    kernel.furnish_network()
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("tmpfs", "/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    kernel.mount("tmpfs", scratch, "tmpfs", 0, "mode=755")
    os.mkdir(f"{scratch}/dev")
    copy_devices("/dev", f"{scratch}/dev")
    kernel.mount(f"{scratch}/dev", "/dev", flags=kernel.MS_BIND | kernel.MS_REC)
    # As most hosts have it, and a runtime must cope with that; no other namespace is among these peers.
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SHARED)


def copy_devices(source: str, target: str) -> None:
    """A /dev of one's own: the same devices, but files of our own, so that their owners and modes are not the host's."""
    kernel.mount("tmpfs", target, "tmpfs", kernel.MS_NOSUID, "mode=755")
    for path, directories, names in os.walk(source):
        below = target + path.removeprefix(source)
        links = [name for name in directories if os.path.islink(f"{path}/{name}")]  # /dev/fd is one
        directories[:] = [name for name in directories if name not in links and not os.path.ismount(f"{path}/{name}")]
        for name in directories:
            os.makedirs(f"{below}/{name}", exist_ok=True)
        for name in (*links, *names):
            found = os.lstat(f"{path}/{name}")
            if stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(f"{path}/{name}"), f"{below}/{name}")
            elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
                os.mknod(f"{below}/{name}", found.st_mode, found.st_rdev)
                os.chmod(f"{below}/{name}", stat.S_IMODE(found.st_mode))
                os.chown(f"{below}/{name}", found.st_uid, found.st_gid)
    for name, kind, data in (
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=620,gid=5"),
        ("shm", "tmpfs", "mode=1777"),
    ):
        os.makedirs(f"{target}/{name}", exist_ok=True)
        kernel.mount(kind, f"{target}/{name}", kind, kernel.MS_NOSUID | kernel.MS_NOEXEC, data)
    os.makedirs(f"{target}/mqueue", exist_ok=True)
    kernel.mount("mqueue", f"{target}/mqueue", "mqueue")


def attend(what: Run, scratch: str, output: str, errors: str) -> int:
    """As process 1: run the file on a terminal, keep what it prints, bury the dead; the file's exit status."""
    terminal, slave = pty.openpty()
    tty.setraw(slave)  # what is printed arrives as it was printed
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    err = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.close(os.open(os.ttyname(slave), os.O_RDWR))  # the first terminal that is opened controls the session
            for number, fd in enumerate((slave, slave if what.terminal_output else out, err)):
                os.dup2(fd, number)
            os.chdir(what.directory or scratch)
            directory = f"{scratch}/tmp"
            os.mkdir(directory)
            environment = {"PATH": SEARCH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "xterm", "TMPDIR": directory}
            os.execvpe(what.arguments[0], list(what.arguments), {**environment, **what.environment})
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(126)
    os.close(slave)
    ended = None
    while ended is None:
        drain(terminal, out if what.terminal_output else None, LOOK)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                ended = os.waitstatus_to_exitcode(status)
    drain(terminal, out if what.terminal_output else None, 0)
    return ended if ended >= 0 else 128 - ended


def drain(terminal: int, out: int | None, seconds: float) -> None:
    """Read what the terminal has to say, waiting at most so long for it to begin, and copy it to `out`."""
    while select.select([terminal], [], [], seconds)[0]:
        try:
            heard = os.read(terminal, 1 << 16)
        except OSError:  # EIO: nobody has the other side open any more
            time.sleep(seconds)
            return
        if out is not None:
            os.write(out, heard)
        seconds = 0


def text_of(path: str) -> str:
    """The text in a file, if there is one."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def read(path: str) -> str:
    """One setting of a group."""
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def write(path: str, value: str) -> None:
    """One setting of a group, in one write(2), as cgroup files want it."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
