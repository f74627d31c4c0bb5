"""The options that limit a container, for ``run``, ``create`` and ``update``: docker's, where it has them."""

from __future__ import annotations

import argparse
import os
import stat

from minicontainer.engine.errors import EngineError
from minicontainer.runtime.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def whole(text: str) -> int:
    """A whole number, in ASCII digits: int() takes 1_0 and ٣ as well."""
    if not (text.isascii() and text.removeprefix("-").isdecimal()):
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number')
    return int(text)


def decimal(text: str) -> float:
    """Likewise, perhaps with a fraction: 0.5."""
    try:
        if text.isascii() and "_" not in text:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'"{text}" is no number')


_OPTIONS: tuple[tuple[str, str, str, Callable[[str], Any], str], ...] = (
    ("-m --memory", "memory", "SIZE", str, "over so many bytes (k, m, g) it is killed"),
    ("--memory-swap", "memory_swap", "SIZE", str, "memory and swap together; -1: any swap (as --memory: no swap)"),
    ("--memory-reservation", "memory_reservation", "SIZE", str, "what it is pushed back to when memory is short"),
    ("--memory-low", "memory_low", "SIZE", str, "v2: below it, pages are taken from others first"),
    ("--memory-min", "memory_min", "SIZE", str, "v2: below it, its pages are never taken"),
    ("--memory-high", "memory_high", "SIZE", str, "v2: above it, it is slowed down, and not killed"),
    ("--cpus", "cpus", "N", decimal, "so many processors' time: 0.5 is half of one"),
    ("--cpu-shares", "cpu_shares", "N", whole, "against 1024 of everybody, where a processor is wanted by several"),
    ("--cpu-quota", "cpu_quota", "US", whole, "µs of processor time in every period; -1: no limit"),
    ("--cpu-period", "cpu_period", "US", whole, "the period, in µs (100000)"),
    ("--cpu-burst", "cpu_burst", "US", whole, "so much unused quota may be saved, in µs"),
    ("--cpuset-cpus", "cpuset_cpus", "LIST", str, "run on these processors only: 0-2,7"),
    ("--cpuset-mems", "cpuset_mems", "LIST", str, "take memory of these NUMA nodes only"),
    ("--pids-limit", "pids", "N", whole, "so many processes and threads at most; -1: no limit"),
    ("--blkio-weight", "blkio_weight", "N", whole, "10 to 1000, where a disk is wanted by several"),
    ("--net-class", "net_class", "CLASS", str, "mark its packets, for tc and nft: 10:1 or a number"),
)
"""Option, field of Limits, its value's name, its type, what it does."""

_RATES = {
    "device-read-bps": "read_bps", "device-write-bps": "write_bps",
    "device-read-iops": "read_iops", "device-write-iops": "write_iops",
}  # fmt: skip

_SIZES = {"memory", "memory_swap", "memory_reservation", "memory_low", "memory_min", "memory_high"}


def add_options(parser: argparse.ArgumentParser, *, creating: bool) -> None:
    """The limits; `creating`: also those that cannot be changed any more."""
    add = parser.add_argument
    for names, field, metavar, kind, help in _OPTIONS:
        add(*names.split(), dest=field, metavar=metavar, type=kind, help=help)
    add("--cpu-idle", action="store_true", default=None, help="only the time that nobody else wants")
    for option in _RATES:
        unit = "bytes a second (k, m, g)" if option.endswith("bps") else "operations a second"
        add(f"--{option}", action="append", default=[], metavar="DEVICE:RATE", help=f"{unit} at most; 0: no limit")
    add("--hugetlb", action="append", default=[], metavar="PAGE=SIZE", help="huge pages: 2MB=64m")
    add("--rdma", action="append", default=[], metavar="DEVICE=HANDLES,OBJECTS", help="RDMA handles and objects")
    add("--misc", action="append", default=[], metavar="RESOURCE=N", help="what misc.capacity names")
    add("--net-prio", action="append", default=[], metavar="DEVICE=N", help="priority of its packets on a device")
    add("--unified", action="append", default=[], metavar="FILE=VALUE", help="write any file of cgroup v2")
    if creating:
        add("--oom-kill-disable", action="store_true", help="v1: wait for memory instead of being killed")
        add(
            "--device",
            action="append",
            default=[],
            metavar="FILE[:DIR][:rwm]",
            help="give it a device of the host, or those in DIR",
        )
        add("--device-cgroup-rule", action="append", default=[], metavar="RULE", help="allow devices: 'c 10:* rw'")
        add("--cgroup-parent", default="", metavar="GROUP", help="put it into this group of ours, beside others")


def limits_of(arguments: argparse.Namespace) -> Limits:
    """The limits that the command line asks for. Raises EngineError: a value that cannot be understood."""
    given: dict[str, Any] = {}
    for _, field, _, _, _ in _OPTIONS:
        value = getattr(arguments, field)
        if value is not None:
            given[field] = size(value) if field in _SIZES else _class(value) if field == "net_class" else value
    if arguments.cpu_idle:
        given["cpu_idle"] = True
    rates = [
        _rate(text, name) for option, name in _RATES.items() for text in getattr(arguments, option.replace("-", "_"))
    ]
    collected = {
        "io_rates": tuple(rates),
        "huge_pages": tuple((page, size(most)) for page, most in _pairs(arguments.hugetlb, "--hugetlb 2MB=64m")),
        "rdma": tuple(map(_handles, _pairs(arguments.rdma, "--rdma mlx5_0=10,1000"))),
        "misc": tuple((name, _number(most)) for name, most in _pairs(arguments.misc, "--misc sev=1")),
        "net_priorities": tuple(map(_priority, _pairs(arguments.net_prio, "--net-prio eth0=5"))),
        "unified": tuple(_pairs(arguments.unified, "--unified memory.oom.group=1")),
    }
    given |= {name: value for name, value in collected.items() if value}
    if getattr(arguments, "oom_kill_disable", False):
        given["oom_kill_disable"] = True
    rules = [*getattr(arguments, "device_cgroup_rule", []), *(rule for _, _, rule in devices_of(arguments) if rule)]
    if rules:
        from minicontainer.steps.devices import read_rule

        given["devices"] = tuple(_understood(read_rule, rule) for rule in rules)
    return Limits(**given)


def devices_of(arguments: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Of each ``--device``: the file of the host, its path inside, and the rule that allows it, as for devices.allow.

    A user who is not root cannot make rules; to them a device is what its file's permissions say. Raises EngineError.
    """
    found = []
    for text in getattr(arguments, "device", []):
        source, *rest = text.split(":")
        access = rest.pop() if rest and rest[-1] and set(rest[-1]) <= set("rwm") else "rwm"
        destination = rest.pop(0) if rest else source
        if rest or not source.startswith("/") or not destination.startswith("/"):
            raise EngineError(f'cannot understand the device "{text}": write /dev/NAME, or /dev/NAME:/dev/OTHER:rwm')
        pairs = _below(source, destination) if os.path.isdir(source) else [(source, destination)]
        found += [(file, place, _rule(file, access) if os.geteuid() == 0 else "") for file, place in pairs]
    return found


def _below(source: str, destination: str) -> list[tuple[str, str]]:
    """The devices in a directory, and in those in it: /dev/snd, as docker takes it. Raises EngineError: none."""
    found = list[tuple[str, str]]()
    for directory, _, names in os.walk(source):
        for name in sorted(names):
            file = f"{directory}/{name}"
            if stat.S_IFMT(os.lstat(file).st_mode) in (stat.S_IFBLK, stat.S_IFCHR):
                found.append((file, f"{destination}{file.removeprefix(source)}"))
    if not found:
        raise EngineError(f"there is no device in the directory {source}; to show it as it is, use --volume")
    return found


def size(text: str) -> int:
    """Bytes, from ``64m``, ``2g``, ``1048576``, or -1. Raises EngineError."""
    if text == "-1":
        return -1
    factor = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:].lower())
    digits = text[:-1] if factor else text
    if not digits.isdecimal() or not digits.isascii():
        raise EngineError(f'cannot understand the size "{text}": write a number of bytes, or 64k, 64m, 2g')
    return int(digits) * (factor or 1)


def _rule(device: str, access: str) -> str:
    try:
        status = os.stat(device)
    except OSError as error:
        raise EngineError(f"there is no device {device} on this host: {error.strerror}") from None
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c" if stat.S_ISCHR(status.st_mode) else None
    if kind is None:
        raise EngineError(f"{device} is no device; to show a file or directory, use --volume")
    return f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} {access}"


def _rate(text: str, name: str) -> tuple[str, str, int]:
    """``/dev/vda:10m`` or ``254:0:10m``, the second as the kernel numbers disks."""
    device, _, rate = text.rpartition(":")
    number = size(rate) if name.endswith("bps") else _number(rate)
    if device.startswith("/"):
        kind, _, rest = _rule(device, "r").partition(" ")
        if kind != "b":
            raise EngineError(f"{device} is no disk: rates are for block devices, as lsblk shows them")
        device = rest.split(" ")[0]
    if not all(part.isdecimal() for part in device.split(":")) or device.count(":") != 1:
        raise EngineError(f'cannot understand "{text}": write a disk and its rate, such as /dev/vda:10m')
    return device, name, number


def _pairs(texts: list[str], example: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for name, _, value in pairs:
        if not name or not value:
            raise EngineError(f'cannot understand "{name}": write it as in: {example}')
    return [(name, value) for name, _, value in pairs]


def _handles(pair: tuple[str, str]) -> tuple[str, int, int]:
    handles, _, objects = pair[1].partition(",")
    return pair[0], _number(handles), _number(objects)


def _priority(pair: tuple[str, str]) -> tuple[str, int]:
    if (priority := _number(pair[1])) >= 1 << 32:  # the kernel would count from 0 again
        raise EngineError(f"there is no priority {priority}: give a number below 2^32")
    return pair[0], priority


def _number(text: str) -> int:
    if not (text.isdecimal() and text.isascii()):
        raise EngineError(f'"{text}" is no number')
    return int(text)


def _class(text: str) -> int:
    """``10:1``, hexadecimal as tc(8) has it, or a number."""
    try:
        major, colon, minor = text.partition(":")
        halves = (int(major, 16), int(minor, 16)) if colon else divmod(int(text, 0), 1 << 16)
    except ValueError:
        halves = (-1, -1)
    if not all(0 <= half < 1 << 16 for half in halves) or not text.isascii() or "_" in text:
        raise EngineError(f'cannot understand the class "{text}": write 10:1 (hexadecimal), or a number below 2^32')
    return halves[0] << 16 | halves[1]


def _understood(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except OSError as error:
        raise EngineError(error.strerror or str(error)) from None
