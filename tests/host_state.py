"""The host before and after: what a container engine can leave behind, read from the kernel, and compared.

Two fixtures watch every test without being asked: one around each test of the engine, one around the whole session. A
third, `host_unchanged`, is for a single act. All fail with the difference.

Other people use the machine meanwhile. So what is compared is what can be told to be ours: processes that descend from
this session, control groups of our name that hold nobody else's process, mounts below our directories or on top of
mounts that were there before. The namespaces, files and signals of this very process are compared to the last.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from labs.grading.pytest_plugin import EXAMINATION

GROUPS = "minicontainer"
PREFIXES = ("minicontainer", "labs")
STATE = (Path("/var/lib/minicontainer"), Path("/run/minicontainer"))
SYSCTL = Path("/proc/sys/kernel")
PR_SET_CHILD_SUBREAPER = 36
TICK = 0.01  # s; there is no event for "a mount has gone", so we look again
SLOWER = float(os.environ.get("LAB_PATIENCE", "1"))  # times every limit here, for machines that are emulated
PATIENCE = 5 * SLOWER  # s, for what the kernel does in the background: a group is empty some moments after a death

LONGEST = round(90 * SLOWER)  # s, for one test: a hang is a failure with a name, and not a session that never ends

OurPlaces = tuple[str, ...]


@dataclass(frozen=True)
class Host:
    """One look at the host. Every field is a set of lines, so that a difference can be read."""

    mounts: frozenset[str]
    links: frozenset[str]
    groups: frozenset[str]
    names: frozenset[str]
    processes: frozenset[str]
    state: frozenset[str]
    ourselves: frozenset[str]


def look(places: OurPlaces) -> Host:
    """The host as it is now; `places` are the directories below which we work."""
    return Host(
        mounts=_mounts(places),
        links=_links(),
        groups=_groups(),
        names=frozenset({f"{name} {(SYSCTL / name).read_text().strip()}" for name in ("hostname", "domainname")}),
        processes=frozenset(_descendants(os.getpid())),
        state=_state(),
        ourselves=_ourselves(),
    )


def difference(before: Host, after: Host) -> str:
    """What has come and what has gone, a line each; empty when nothing has changed."""
    lines = []
    for field in fields(Host):
        old, new = getattr(before, field.name), getattr(after, field.name)
        lines += [f"{field.name}: + {line}" for line in sorted(new - old)]
        if field.name not in ("groups", "processes"):  # what was somebody's, or was just ending, may go
            lines += [f"{field.name}: - {line}" for line in sorted(old - new)]
    return "\n".join(lines)


def difference_that_stays(before: Host, look_again: Callable[[], Host]) -> str:
    """The difference, once the kernel has had its time: what vanishes by itself was not left behind."""
    deadline = time.monotonic() + PATIENCE
    while True:
        bury_the_dead()
        text = difference(before, look_again())
        if not text or time.monotonic() > deadline:
            return text
        select.select([], [], [], TICK)


def bury_the_dead() -> None:
    """Wait for the orphans of killed commands, which are our children since we are the nearest subreaper."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _mounts(places: OurPlaces) -> frozenset[str]:
    """Mounts that could be ours, with their flags and propagation; ids and peer group numbers left out."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, point, options, *propagation = before.split()
        kinds = " ".join(sorted(word.partition(":")[0] for word in propagation)) or "private"
        found.append((point, f"{point} {root} {options} {kinds} {after}"))
    return frozenset(
        text
        for point, text in found
        if point.startswith(places)
        or any(place in text for place in places)
        or "minicontainer" in text
        or point.count("/") <= 3  # /, /proc, /dev/pts, /sys/fs/cgroup: where a lost mount namespace would show
    )


def _links() -> frozenset[str]:
    """Network devices with their flags; docker's and podman's come and go by themselves."""
    names = [name for _, name in socket.if_nameindex() if not name.startswith(("veth", "br-", "docker", "cni"))]
    return frozenset(f"{name} {Path(f'/sys/class/net/{name}/flags').read_text().strip()}" for name in names)


def _groups() -> frozenset[str]:
    """Our control groups in every mounted tree, those of other people's running containers left out."""
    found: set[str] = set()
    family = {str(os.getpid())} | {line.split()[0] for line in _descendants(os.getpid())}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] not in ("cgroup", "cgroup2"):
            continue
        for parent in Path(before.split()[4]).glob(f"{GROUPS}*"):
            with contextlib.suppress(OSError):  # gone while we look
                groups = [group for group in parent.iterdir() if group.is_dir()]
                foreign = {group for group in groups if _members(group) and not _members(group) & family}
                found |= {str(group) for group in groups if group not in foreign}
                if not groups or not foreign:
                    found.add(str(parent))
    return frozenset(found)


def _members(group: Path) -> set[str]:
    try:
        return set((group / "cgroup.procs").read_text().split())
    except OSError:
        return set()


def _descendants(pid: int) -> Iterator[str]:
    """Every living process below `pid`."""
    for child in children(pid):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            if stat[0] not in "ZX":
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield f"{child} {command}"
        yield from _descendants(child)


def children(pid: int) -> list[int]:
    """The children of a process, of whichever of its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def _state() -> frozenset[str]:
    """The engine's default places, which no test may touch."""
    return frozenset(
        f"{path} {path.lstat().st_mtime_ns}"
        for top in STATE
        for path in [top, *(top.glob("*") if top.is_dir() else [])]
        if path.exists()
    )


def _ourselves() -> frozenset[str]:
    """What belongs to this process alone, and what an engine used in it might change."""
    lines = [os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")]
    lines += [f"cwd {os.getcwd()}", f"root {os.readlink('/proc/self/root')}"]
    lines.append(f"blocked signals {sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))}")
    for fd in set(os.listdir("/proc/self/fd")) - {"0", "1", "2"}:  # pytest exchanges these
        with contextlib.suppress(OSError):  # the one that lists them
            lines.append(f"file {fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return frozenset(lines)


class HostUnchanged:
    """A context manager: the host is the same after the block as before it."""

    def __init__(self, places: OurPlaces) -> None:
        self._places = places

    def __call__(self) -> contextlib.AbstractContextManager[None]:
        return self._watch()

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        before = look(self._places)
        yield
        left = difference_that_stays(before, lambda: look(self._places))
        assert not left, f"the host is not as it was:\n{left}"


@pytest.fixture(scope="session")
def our_places(tmp_path_factory: pytest.TempPathFactory) -> OurPlaces:
    """The directories below which this session works."""
    return (str(tmp_path_factory.getbasetemp()), tempfile.gettempdir() + "/minicontainer")


@pytest.fixture
def host_unchanged(our_places: OurPlaces) -> HostUnchanged:
    """``with host_unchanged(): act()`` fails with the difference when the act leaves a trace."""
    return HostUnchanged(our_places)


@pytest.fixture
def leaves_no_trace(our_places: OurPlaces) -> Iterator[None]:
    """Around every test of the engine (conftest.py sees to it): nothing is left, not even a file descriptor.

    Meanwhile this process is the subreaper: whose parent was killed becomes a child of ours, and cannot hide. A test
    that hangs is ended, by a signal and not by a thread, since a process with threads may not start containers.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = look(our_places)
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(LONGEST)
    try:
        yield
        signal.alarm(0)
        left = difference_that_stays(before, lambda: look(our_places))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    if left:
        pytest.fail(f"the test left the host changed:\n{left}", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def session_leaves_no_trace(request: pytest.FixtureRequest, our_places: OurPlaces) -> Iterator[None]:
    """The whole session: as `leaves_no_trace`, and packet filter rules, temporary files, and processes by their name.

    Temporary files go to a directory of this session's own, so that nobody else's are counted.
    """
    directory = Path(tempfile.mkdtemp(prefix="mct-"))
    directory.chmod(0o711)  # tests that become an ordinary user have files in there
    kept = {name: os.environ.get(name) for name in ("TMPDIR",)}
    os.environ["TMPDIR"], tempfile.tempdir = str(directory), str(directory)
    before, tables, named = look(our_places), _tables(), _named()
    yield
    request.config.stash[EXAMINATION].close()  # the graders' sandbox, which would stay until after the last fixture
    tempfile.tempdir = None
    for name, value in kept.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})

    left = [difference_that_stays(before, lambda: look(our_places))]
    left += [f"rules: + {table}" for table in sorted(_tables() - tables)]
    left += [f"processes: + {process}" for process in sorted(_named() - named)]
    left += [f"files: + {file}" for file in sorted(directory.iterdir()) if file.name.startswith(PREFIXES)]
    shutil.rmtree(directory, ignore_errors=True)
    if text := "\n".join(filter(None, left)):
        pytest.fail(f"the session left the host changed:\n{text}", pytrace=False)


def _too_late(number: int, frame: object) -> None:
    raise TimeoutError(f"the test has not come to its end for {LONGEST} s")


def _tables() -> frozenset[str]:
    """The tables of nftables(8); none where there is no nft or we may not look."""
    if not (nft := shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin")):
        return frozenset()
    listed = subprocess.run([nft, "-j", "list", "ruleset"], capture_output=True, text=True)
    entries = json.loads(listed.stdout or "{}").get("nftables", []) if listed.returncode == 0 else []
    return frozenset(json.dumps(entry, sort_keys=True) for entry in entries if "metainfo" not in entry)


def _named() -> frozenset[str]:
    """Processes that run the sandbox's or the zygote's program, and that have lost whoever started them."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == "1" and ("minicontainer" in command or "inside.py" in command):
                found.add(f"{process.name} {command}")
    return frozenset(found)
