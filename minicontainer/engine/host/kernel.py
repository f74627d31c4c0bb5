"""The kernel itself: how old, configured how, and which of its parts are modules.

Its configuration is in /proc/config.gz where it was built to tell (CONFIG_IKCONFIG_PROC), and distributions lay it in
/boot. Where neither can be read, everything is found out by trying, with one exception: a part that may be a module is
left alone, because the kernel would load it to answer, and a check changes nothing.
"""

from __future__ import annotations

import os

from minicontainer.engine.host.finding import Finding, content
from minicontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PLACES = ("/proc/config.gz", "/boot/config-{release}", "/lib/modules/{release}/config")
MODULES = "/lib/modules/{release}"
LOADED, LOADABLE, LOCKED = "/sys/module", "/proc/modules", "/proc/sys/kernel/modules_disabled"

HERE = "here"
AT_FIRST_USE = "a module, which the kernel loads at first use"
NO_MODULE = "a module that is not loaded, and cannot be"
ABSENT = "absent"
UNTOLD = "untold"


class Kernel(Record):
    """What a kernel says of how it was built."""

    release: str
    """``uname -r``"""
    source: str
    """The file with its configuration; "" where none can be read."""
    options: dict[str, str]
    """``VETH`` → "y" (built in), "m" (a module) or a value. What is switched off is not in it."""
    builtin: bytes
    """/lib/modules/…/modules.builtin: the modules that are no files, because they were built in."""
    modules: bytes
    """/lib/modules/…/modules.dep: those that can be loaded."""
    loadable: bool
    """Whether this kernel loads modules at all, at this time."""

    def whereabouts(self, option: str, module: str) -> str:
        """Where a part of the kernel is: HERE (to try it loads nothing), AT_FIRST_USE, NO_MODULE, ABSENT, UNTOLD."""
        built = self.options.get(option)
        if built == "y" or os.path.exists(f"{LOADED}/{module}"):
            return HERE
        if self.source and built is None:
            return ABSENT
        file = f"/{module}.ko".encode()
        if file in self.builtin:
            return HERE
        if file in self.modules:
            return AT_FIRST_USE if self.loadable else NO_MODULE
        if built:
            return NO_MODULE
        return UNTOLD if self.loadable and not self.modules else HERE  # there is nothing that could be loaded

    def lacking(self, options: Iterable[str]) -> list[str]:
        """Those of these options that are switched off; nothing is known where there is no configuration."""
        return [option for option in options if self.source and option not in self.options]


def read_kernel() -> Kernel:
    """The kernel that runs."""
    release = os.uname().release
    source, options = _configuration(release)
    place = MODULES.format(release=release)
    loadable = os.path.exists(LOADABLE) and content(LOCKED) in ("", "0")
    return Kernel(
        release, source, options, _bytes(f"{place}/modules.builtin"), _bytes(f"{place}/modules.dep"), loadable
    )


def named(options: Iterable[str]) -> tuple[str, ...]:
    """Options by the names that the configuration writes: ``CONFIG_VETH``."""
    return tuple(f"CONFIG_{option}" for option in options)


def configured(
    kernel: Kernel, feature: str, options: tuple[str, ...], witnesses: tuple[str, ...] = (), *, mend: str = "",
) -> Finding:  # fmt: skip
    """What hangs on options alone: they tell, or else the files that are there if they are set."""
    if kernel.source:
        off = kernel.lacking(options)
        works: bool | None = not off
        shows = f"{', '.join(named(off))} not set" if off else f"set: {', '.join(options)}"
    elif witnesses:
        off = [file for file in witnesses if not os.path.exists(file)]
        works, shows = not off, f"there is no {off[0]}" if off else f"there is {' and '.join(witnesses)}"
    else:
        works, shows = None, "the kernel's configuration cannot be read, and nothing else tells"
        mend = mend or _READABLE
    return Finding(feature, works, shows, mend or build_with(off if kernel.source else options), options=named(options))


def build_with(options: Iterable[str]) -> str:
    """How to mend a kernel that lacks options."""
    return f"run a kernel that is built with {', '.join(named(options))}"


def of_kernel(kernel: Kernel) -> list[Finding]:
    """The findings about the kernel as a whole."""
    import platform
    import sys

    machine = os.uname().machine
    modules = "its parts are built in, or modules that it loads at first use"
    if not kernel.loadable:
        modules = "it loads none: what is not built in, or loaded by now, is not there"
    elif not kernel.modules:
        modules = f"{MODULES.format(release=kernel.release)} has none: what is not built in, or loaded, may be missing"
    return [
        Finding(
            "Linux", machine in ("x86_64", "aarch64"), f"{kernel.release}, {machine}",
            "use a machine with x86_64 or aarch64: for others we have no numbers of system calls", required=True,
        ),
        Finding(
            "kernel configuration", bool(kernel.source),
            f"{kernel.source}, {len(kernel.options)} options" if kernel.source else "it cannot be read: trying tells",
            _READABLE, options=named(("IKCONFIG", "IKCONFIG_PROC")),
        ),
        Finding(
            "modules", (kernel.loadable and bool(kernel.modules)) or not os.path.exists(LOADABLE), modules,
            "install the modules of the kernel that runs, or reboot into the kernel whose modules are installed",
            options=named(("MODULES",)),
        ),
        configured(kernel, "System V IPC", ("SYSVIPC",), ("/proc/sysvipc",)),
        configured(kernel, "POSIX message queues", ("POSIX_MQUEUE",), ("/proc/sys/fs/mqueue",)),
        Finding(
            "Python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer", True,
        ),
    ]  # fmt: skip


def of_checkpoints(kernel: Kernel) -> list[Finding]:
    """What CRIU needs, to write a running container down and wake it up again."""
    import shutil

    criu = shutil.which("criu", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return [
        configured(
            kernel, "checkpoint/restore", ("CHECKPOINT_RESTORE", "FHANDLE", "EVENTFD", "EPOLL"),
            ("/proc/self/map_files", "/proc/sys/kernel/ns_last_pid"),
        ),
        configured(kernel, "sockets' state", ("UNIX_DIAG", "INET_DIAG", "PACKET_DIAG", "NETLINK_DIAG")),
        Finding("CRIU", bool(criu), criu or "there is no criu on this machine", "install it: apt install criu"),
    ]  # fmt: skip


_READABLE = "as root: modprobe configs; or read /boot/config-* as root, or use a kernel with CONFIG_IKCONFIG_PROC"


def _configuration(release: str) -> tuple[str, dict[str, str]]:
    for place in PLACES:
        path = place.format(release=release)
        data = _bytes(path)
        if data[:2] == b"\x1f\x8b":
            import zlib

            try:
                data = zlib.decompress(data, 31)  # 31: with gzip's header
            except zlib.error:
                continue
        lines = data.decode(errors="replace").split("\n")
        options = dict(line[7:].split("=", 1) for line in lines if line.startswith("CONFIG_") and "=" in line)
        if options:
            return path, options
    return "", {}


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
