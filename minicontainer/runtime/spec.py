"""What a container is to be: the parts of the OCI runtime specification's config.json that we know, under its names.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md
"""

from __future__ import annotations

from collections.abc import Sequence

from minicontainer.linux import Namespace
from minicontainer.record import Record
from minicontainer.runtime.limits import Limits
from minicontainer.steps.user import IdMap

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Directory(Record):
    """A root file system that lies ready in a directory, and is used as it is."""

    path: str


class Overlay(Record):
    """A root file system of read-only layers, the topmost first, with a writable one on top, shown at `merged`."""

    lowers: Sequence[str]
    upper: str
    work: str
    merged: str


class Scratch(Record):
    """An empty root file system in memory, gone with the container; mounted, in its view only, at `path`."""

    path: str
    size: int
    """Bytes."""


class Mount(Record):
    """Something mounted in the container. Type "bind" takes `source` from the host; "cgroup" is the trees of control
    groups, as the container may see them; anything else is a file system."""

    destination: str
    type: str = "bind"
    source: str = ""
    readonly: bool = False
    data: str | None = None
    """The file system's own options, as in mount(8)'s -o: ``size=16m``."""


class Process(Record):
    """The program, and what it finds when it starts."""

    args: Sequence[str]
    env: Sequence[str] = (f"PATH={DEFAULT_PATH}", "HOME=/root")
    """``NAME=value``."""
    cwd: str = "/"
    terminal: bool = False
    """A terminal of its own, allocated inside; its master comes back from the start."""
    console_size: tuple[int, int] | None = None
    """Rows and columns of that terminal."""
    preserve_fds: Sequence[int] = ()
    """File descriptors of the caller that the program gets as 3, 4, …"""


class Spec(Record):
    """One container."""

    id: str
    root: Directory | Overlay | Scratch
    process: Process
    hostname: str
    domainname: str | None = None
    namespaces: frozenset[Namespace] = frozenset(Namespace) - {Namespace.USER}
    """Those that are new; the others stay the caller's. PID and MOUNT are nearly always among them."""
    uid_mappings: Sequence[IdMap] = ()
    gid_mappings: Sequence[IdMap] = ()
    mounts: Sequence[Mount] = ()
    limits: Limits = Limits()
    group: str | None = None
    """The name of its control group, which may have groups of ours above it: ``web/1f3a``; None is `id`."""
    controllers: Sequence[str] = ()
    """Controllers (v1 names) that its group has if it can, beside those that `limits` need."""
    clock_offsets: tuple[int, int] = (0, 0)
    """Seconds by which the monotonic and the boot-time clock are ahead of the host's."""
    reaper: bool = True
    """Process 1 is ours: it reaps, and passes signals on. Otherwise it is the program itself."""
    die_with_parent: bool = True
    """The container does not outlive the process that started it, however that one ends."""
