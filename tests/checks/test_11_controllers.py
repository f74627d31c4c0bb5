"""Lab 11, the other controllers: what the kernel lets a group do, what its files say, and what it has counted there.

The submission acts in the sandbox. Then a child of the examiner enters the group and tries: to open a device file, to
make one, to have children, to touch memory. What comes of it is the kernel's word and nobody else's.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Sequence

from labs.grading.checks import Wrong, check
from labs.grading.observed_group import ObservedGroup
from labs.grading.subject import Performed, Subject
from minicontainer.linux.cgroups import read

Rule = tuple[str, int | None, int | None, str]
Place = tuple[str, str, int, int]
"""How a device is called here, "c" or "b", and its numbers."""

NULL, ZERO, FULL, RANDOM = ("null", "c", 1, 3), ("zero", "c", 1, 5), ("full", "c", 1, 7), ("random", "c", 1, 8)
TTY, RAM = ("tty", "c", 5, 0), ("ram3", "b", 1, 3)
"""Every Linux has the first five. The last is a block device with the numbers of null, there or not."""

RATES = {
    "read_bps": ("blkio.throttle.read_bps_device", "rbps"),
    "write_bps": ("blkio.throttle.write_bps_device", "wbps"),
    "read_iops": ("blkio.throttle.read_iops_device", "riops"),
    "write_iops": ("blkio.throttle.write_iops_device", "wiops"),
}
"""The argument of limit_io → its file on v1, its key in v2's io.max."""


# allow_devices


@check("The devices of the rules, and no others", exercise="devices.allow_devices", points=1)
def test_only_these_devices(subject: Subject) -> None:
    """cgroup-v1/devices.rst: devices.deny, devices.allow; cgroup-v2.rst, "Device controller"; mknod(2)"""
    group = subject.group("devices")
    _allow(subject, group, [("c", 1, 3, "rwm"), ("c", 1, 5, "rwm")])
    tries = {
        "read null": True, "write null": True, "mknod null": True, "read zero": True, "write zero": True,
        "mknod zero": True, "read full": False, "read random": False, "write full": False, "mknod full": False,
        "mknod tty": False,
    }  # fmt: skip
    found = _try(subject, group, tries)
    if all(found.values()):
        raise Wrong(
            "the rules name two devices, and the group may use all: a new group may do whatever the one above it may. "
            "On v1 a rule for all devices goes into devices.deny first; on v2 a program is attached to the group"
        )
    if not any(found.values()):
        raise Wrong(
            "the group may use no device at all, not even those of the rules: on v1 each of them goes into "
            "devices.allow *after* everything was denied; on v2 the program returns 1 for what is allowed"
        )
    wrong = [what for what, allowed in tries.items() if found[what] != allowed]
    if any(tries[what] for what in wrong):
        raise Wrong(
            f"the rules name c 1:3 (null) and c 1:5 (zero), rwm, and the kernel refuses: {', '.join(wrong)}. Every rule "
            f"counts, not just the first or the last; on v1 each takes a write(2) of its own"
        )
    if wrong:
        raise Wrong(
            f"the rules name c 1:3 (null) and c 1:5 (zero), and no others; the group may also: {', '.join(wrong)}. What "
            f"no rule names is refused: reading, writing and making it"
        )


@check("Each device as its rule says: r, w, m", exercise="devices.allow_devices", points=0.5)
def test_access(subject: Subject) -> None:
    """cgroup-v1/devices.rst: access is a composition of r (read), w (write) and m (mknod)"""
    group = subject.group("devices")
    _allow(subject, group, [("c", 1, 5, "r"), ("c", 1, 3, "w"), ("c", 1, 7, "m"), ("c", 1, 8, "rw")])
    tries = {
        "read zero": True, "write zero": False, "mknod zero": False,
        "read null": False, "write null": True, "mknod null": False,
        "read full": False, "write full": False, "mknod full": True,
        "read random": True, "write random": True, "mknod random": False, "read and write random": True,
        "mknod tty": False,
    }  # fmt: skip
    found = _try(subject, group, tries)
    _must_know_these_rules(found)
    more = [what for what, allowed in tries.items() if found[what] and not allowed]
    less = [what for what, allowed in tries.items() if allowed and not found[what]]
    if more:
        raise Wrong(
            f"the rules were zero r, null w, full m, random rw; the group may also: {', '.join(more)}. A rule allows what "
            f"its letters say, and nothing more"
        )
    if less:
        raise Wrong(
            f"the rules were zero r, null w, full m, random rw; the kernel refuses: {', '.join(less)}. A rule is not for "
            f"whoever wants exactly its letters: it allows each of them, and all of them together"
        )


@check("Type, major and minor number are told apart", exercise="devices.allow_devices", points=1)
def test_type_and_numbers(subject: Subject) -> None:
    """mknod(2): "b" and "c" are counted apart; cgroup-v1/devices.rst: * is any number"""
    group = subject.group("devices")
    process = _allow(subject, group, [("b", 1, 3, "rwm"), ("c", 5, None, "rw")])
    tries = {"mknod ram3": True, "read null": False, "mknod null": False, "mknod tty": False}
    found = _try(subject, group, tries)
    _must_know_these_rules(found)
    if found["read null"] or found["mknod null"]:
        raise Wrong(
            "the rule was for the block device 1:3, and the group may use null, the character device 1:3: the kind, b "
            "or c, is a part of the rule"
        )
    if not found["mknod ram3"]:
        raise Wrong("the rule was for the block device 1:3, and the group may not make it")
    if found["mknod tty"]:
        raise Wrong("the rule was c 5:* rw, and the group may make tty, c 5:0: there was no m")
    process.then("devices.allow_devices", group, [("c", 1, None, "r"), ("b", None, None, "m")])
    tries = {"read null": True, "read zero": True, "read random": True, "write null": False, "mknod ram3": True,
             "mknod tty": False}  # fmt: skip
    found = _try(subject, group, tries)
    if wrong := [what for what, allowed in tries.items() if found[what] != allowed]:
        raise Wrong(
            f"the rules were c 1:* r and b *:* m (a number that is None is any); it is the other way round than it ought "
            f"to be with: {', '.join(wrong)}"
        )


@check("New rules take the place of the old ones", exercise="devices.allow_devices", points=0.5)
def test_new_rules(subject: Subject) -> None:
    """cgroup-v1/devices.rst: devices.list has what is allowed now; bpf(2), BPF_PROG_DETACH"""
    group = subject.group("devices")
    process = _allow(subject, group, [("c", 1, 5, "r")])
    before = _try(subject, group, {"read zero": True, "read random": False, "mknod tty": False})
    _must_know_these_rules(before)
    if before["read random"] or before["mknod tty"]:
        raise Wrong(
            "the rule was for zero alone, c 1:5 r, and the group may do more: that it can change is no merit then"
        )
    process.then("devices.allow_devices", group, [("c", 1, 8, "r")])
    after = _try(subject, group, {"read zero": False, "read random": True})
    if after["read zero"]:
        raise Wrong(
            "the first rules allowed zero, the second only random, and zero can still be read: what was allowed before "
            "is taken back first, so that the rules of the last call are all there are"
        )
    if not after["read random"]:
        raise Wrong(
            "the first rules allowed zero, the second random, and random cannot be read: when the first call had "
            "refused everything else, the second could allow nothing more"
        )


def _allow(subject: Subject, group: ObservedGroup, rules: Sequence[Rule]) -> Performed:
    subject.saw(f"rules: {', '.join(_written(rule) for rule in rules)}")
    try:
        return subject.perform("devices.allow_devices", group, rules)
    except Wrong as error:
        if any(word in str(error) for word in ("EPERM", "Operation not permitted")):
            raise Wrong(
                f"{error}. The kernel takes device rules from root outside of any user namespace only, and the sandbox "
                f"is in one. There, the examiner writes them for you, if you call write() of minicontainer.linux.cgroups "
                f"(and on v2 prog_load() and prog_attach() of minicontainer.linux.bpf) instead of open()"
            ) from None
        raise


def _must_know_these_rules(found: dict[str, bool]) -> None:
    """Raise Wrong where the rules have changed nothing, or forbidden everything: then no detail of them is a merit."""
    if all(found.values()):
        raise Wrong("the group may do all of it, as if there were no rules")
    if not any(found.values()):
        raise Wrong("the group may do none of it, whatever the rules allow")


def _try(subject: Subject, group: ObservedGroup, tries: dict[str, bool]) -> dict[str, bool]:
    """Which of these the kernel lets a process of ours in the group do: "read null", "mknod ram3"."""
    devices = {device[0]: device for device in (NULL, ZERO, FULL, RANDOM, TTY, RAM)}
    with tempfile.TemporaryDirectory(prefix="devices-") as directory:
        found = {what: group.lets("devices", _act(what, devices[what.split()[-1]], directory)) for what in tries}
    subject.saw("; ".join(f"{what}: {'allowed' if allowed else 'EPERM'}" for what, allowed in found.items()))
    return found


def _act(what: str, device: Place, directory: str) -> Callable[[], object]:
    name, kind, major, minor = device
    if what.startswith("mknod"):
        place, mode = f"{directory}/{name}", (stat.S_IFBLK if kind == "b" else stat.S_IFCHR) | 0o600
        return lambda: (os.mknod(place, mode, os.makedev(major, minor)), os.unlink(place))
    mode = {"read": os.O_RDONLY, "write": os.O_WRONLY}.get(what.removesuffix(f" {name}"), os.O_RDWR)
    return lambda: os.close(os.open(f"/dev/{name}", mode | os.O_NOCTTY | os.O_CLOEXEC))


def _written(rule: Rule) -> str:
    kind, major, minor, access = rule
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor} {access}"


# limit_io


@check("The kernel holds the rates that were asked for", exercise="io.limit_io", points=1)
def test_rates(subject: Subject) -> None:
    """cgroup-v1/blkio-controller.rst: blkio.throttle.*; cgroup-v2.rst, "IO Interface Files": io.max"""
    disk = _disk()
    for rates in _distinct(1), _distinct(3):
        group = subject.group("blkio")
        subject.perform(_with_rates(group, disk, rates))
        found = _rates(subject, group, disk)
        for name, rate in rates.items():
            if found[name] != rate:
                raise Wrong(_why_not(group, disk, name, rate, found))
        if other := [name for name in found if found[name] and name not in rates]:
            raise Wrong(f"only {_told(rates)} was asked for, and there is a limit for {', '.join(other)} too")


@check("A later call changes what it names, and 0 lifts it", exercise="io.limit_io", points=0.5)
def test_rates_apart(subject: Subject) -> None:
    """cgroup-v1/blkio-controller.rst: "throttling rule … can be deleted by 0"; cgroup-v2.rst, io.max: the word max"""
    group, disk = subject.group("blkio"), _disk()
    first = {"read_bps": _rate(), "write_iops": _rate()}
    subject.perform(_with_rates(group, disk, first))
    found = _rates(subject, group, disk)
    if not any(found.values()):
        raise Wrong(f"there is no limit at all after {_told(first)} was asked for: that nothing is lost is no merit")
    second = {"write_bps": _rate()}
    subject.perform(_with_rates(group, disk, second))
    now = _rates(subject, group, disk)
    if lost := [name for name in found if found[name] and found[name] != now[name] and name not in second]:
        raise Wrong(
            f"a second call named only write_bps, and {', '.join(lost)} is not what it was: a rate that is not named "
            f"is left alone"
        )
    held = next(name for name in now if now[name])
    subject.perform(_with_rates(group, disk, {held: 0}))
    last = _rates(subject, group, disk)
    if last[held]:
        raise Wrong(f"{held} was to be lifted with 0, and {last[held]} a second is still the limit")


def _disk() -> str:
    """Major and minor number of a disk of this host, of those that hold data if there is one. Nothing will use it."""
    sizes = {}
    for name in os.listdir("/sys/block"):
        with contextlib.suppress(OSError):
            virtual = name.startswith(("loop", "ram", "zram", "sr", "fd"))
            sizes[read(f"/sys/block/{name}/dev")] = (not virtual and int(read(f"/sys/block/{name}/size")) > 0, name)
    if not sizes:
        raise RuntimeError("this host has no block device at all, not even a loop device: modprobe loop")
    return max(sizes, key=lambda device: sizes[device])


def _with_rates(group: ObservedGroup, disk: str, rates: dict[str, int]) -> list[tuple[str, list[object]]]:
    """A call with keywords."""
    return [("io.limit_io", [group, disk, {"keywords": rates}])]


def _distinct(count: int) -> dict[str, int]:
    """So many of the rates, chosen by lot, with values that nobody can know."""
    names = sorted(RATES, key=lambda _: secrets.token_hex(4))[:count]
    return {name: _rate() for name in names}


def _rate() -> int:
    return 100_003 + secrets.randbelow(100_000_000)


def _rates(subject: Subject, group: ObservedGroup, disk: str) -> dict[str, int]:
    """The limits that the kernel holds the group to on this disk; 0 is none."""
    found = dict.fromkeys(RATES, 0)
    if group.version("blkio") == 1:
        for name, (file, _) in RATES.items():
            for line in group.read("blkio", file).splitlines():
                device, rate = line.split()
                if device == disk:
                    found[name] = int(rate)
    else:
        for line in group.read("blkio", "io.max").splitlines():
            device, *pairs = line.split()
            said = dict(pair.split("=") for pair in pairs) if device == disk else {}
            for name, (_, key) in RATES.items():
                if said.get(key, "max") != "max":
                    found[name] = int(said[key])
    subject.saw(f"on {disk}: {_told({name: rate for name, rate in found.items() if rate}) or 'no limit'}")
    return found


def _why_not(group: ObservedGroup, disk: str, name: str, rate: int, found: dict[str, int]) -> str:
    """Why the kernel does not hold this rate."""
    file, key = RATES[name]
    where = file if group.version("blkio") == 1 else f"{key} in io.max"
    asked = f"{name} {rate} was asked for on {disk}"
    for other, value in found.items():
        if value == rate:
            return f"{asked}, and became {other}: {where} is for {name}"
    if not found[name]:
        return (
            f"{asked}, and {where} has no limit for it: each rate has a {'file' if where == file else 'key'} of its own"
        )
    for factor, unit in ((8, "bits"), (1000, "kilobytes"), (1024, "kilobytes")):
        if found[name] in (rate * factor, rate // factor):
            return (
                f"{asked}, and {where} says {found[name]}: rates are in bytes a second, not in {unit}, or in operations"
            )
    return f"{asked}, and {where} says {found[name]}"


def _told(rates: dict[str, int]) -> str:
    return ", ".join(f"{name} {rate}" for name, rate in rates.items())


# limit_pids


@check("The kernel holds the number that was asked for", exercise="pids.limit_pids", points=1)
def test_most(subject: Subject) -> None:
    """cgroup-v1/pids.rst, cgroup-v2.rst, "PID": pids.max"""
    group = subject.group("pids")
    process: Performed | None = None
    for most in 100 + secrets.randbelow(1000), 5 + secrets.randbelow(50), 2000 + secrets.randbelow(1000):
        if process is None:
            process = subject.perform("pids.limit_pids", group, most)
        else:
            process.then("pids.limit_pids", group, most)
        _must_be_most(subject, group, most)


@check("A fork bomb stops there", exercise="pids.limit_pids", points=1)
def test_bomb(subject: Subject) -> None:
    """fork(2), EAGAIN; pids.current: processes and threads in the group and below it"""
    group = subject.group("pids")
    most = 4 + secrets.randbelow(8)
    subject.perform("pids.limit_pids", group, most)
    there, refused = _bomb(group, most + 8)
    subject.saw(f"pids.max was to be {most}; a process that forks for ever came to {there} in the group"
                f"{', then fork(2) failed with EAGAIN' if refused else ''}")  # fmt: skip
    if not refused:
        raise Wrong(
            f"a process of the group was to be refused a fork at {most}, and went on to {there}: pids.max of this group "
            f"says {group.read('pids', 'pids.max')}. (RLIMIT_NPROC is another thing: it counts a user, not a group)"
        )
    if there != most:
        raise Wrong(f"{most} processes were to be allowed, and there are {there}: whoever makes the others counts too")


@check("-1 lifts the limit", exercise="pids.limit_pids", points=0.5)
def test_pids_lifted(subject: Subject) -> None:
    """cgroup-v1/pids.rst: the word max"""
    group = subject.group("pids")
    process = subject.perform("pids.limit_pids", group, 17)
    if group.number("pids", "pids.max") == -1:
        raise Wrong("there was no limit after 17 was asked for: that -1 lifts it is no merit then")
    try:
        process.then("pids.limit_pids", group, -1)
    except Wrong as error:
        raise Wrong(f"{error}: -1 is this function's word for no limit; the file's is max") from None
    said = group.read("pids", "pids.max")
    subject.saw(f"after 17, -1 was asked for: pids.max says {said}")
    if said != "max":
        raise Wrong(f"-1 is no limit, and pids.max says {said}: the file has the word max for that")


def _must_be_most(subject: Subject, group: ObservedGroup, most: int) -> None:
    said = group.read("pids", "pids.max")
    subject.saw(f"{most} was asked for: pids.max says {said}")
    if said == "max":
        raise Wrong(
            f"{most} was asked for, and pids.max of the group says max, as at its birth: nothing was written to it"
        )
    if said != str(most):
        raise Wrong(
            f"{most} was asked for, and pids.max says {said}: it is the number of all, whoever makes them included"
        )


def _bomb(group: ObservedGroup, enough: int) -> tuple[int, bool]:
    """How many processes there came to be in the group, and whether the kernel put an end to it; `enough` are enough."""
    count = mmap.mmap(-1, mmap.PAGESIZE)
    waiting, going = os.pipe2(os.O_CLOEXEC)

    def explode() -> None:
        os.close(going)
        for children in range(enough):
            count[0] = children + 1  # we ourselves, and so many children
            child = os.fork()
            if child == 0:
                os.read(waiting, 1)  # until the examiner closes its end
                os._exit(0)

    try:
        refused = group.tried("pids", explode) == errno.EAGAIN
    finally:
        os.close(going)
        os.close(waiting)
    return count[0], refused


# tag_packets


@check("What the group sends bears its class", exercise="packets.tag_packets", points=0.5)
def test_class(subject: Subject) -> None:
    """cgroup-v1/net_cls.rst: net_cls.classid is 0xAAAABBBB, read and written; tc(8), HANDLES"""
    group = subject.group_or_imitation("net_cls", "net_cls.classid")
    if group.imitation:
        subject.saw("this kernel has no net_cls: a directory with a file of that name stands in for the group")
    digits = int(
        f"{10 + secrets.randbelow(90)}00{10 + secrets.randbelow(90)}", 16
    )  # decimal ones, to be mistaken for it
    for wanted in digits, 0xFFFFFFFF, 0xAB0001 + secrets.randbelow(0x1000):
        if group.imitation:
            group = subject.group_or_imitation("net_cls", "net_cls.classid")
        subject.perform("packets.tag_packets", group, wanted)
        major, minor = wanted >> 16, wanted & 0xFFFF
        try:
            found = int(group.read("net_cls", "net_cls.classid") or "0", 0)
        except ValueError:
            raise Wrong(
                "what was written to net_cls.classid is not a number, in decimal or with 0x before it"
            ) from None
        subject.saw(f"{wanted:#010x} ({major:x}:{minor:x}) was asked for; net_cls.classid says {found:#010x}")
        if found != wanted:
            raise Wrong(_why_no_class(wanted, found))


def _why_no_class(wanted: int, found: int) -> str:
    asked = f"the class {wanted:#010x} was asked for, and net_cls.classid is {found:#010x}"
    if not found:
        return f"{asked}: nothing has been written to it, or 0"
    if found in (wanted & 0xFFFF, wanted >> 16):
        return f"{asked}: that is only one half of it; the file has both, 0xAAAABBBB for AAAA:BBBB"
    if found == (wanted & 0xFFFF) << 16 | wanted >> 16:
        return f"{asked}: its halves have changed places; the first number of AAAA:BBBB is the upper half"
    if str(found) == f"{wanted:x}" or f"{found:x}" == str(wanted):
        return f"{asked}: hexadecimal digits were taken for decimal ones, or the other way round. The file is written in " \
               f"decimal, or with 0x before it"  # fmt: skip
    return asked


# count_events


@check("What happens in the group is counted, and nothing else", exercise="events.count_events", points=1)
def test_counted_in_the_group(subject: Subject) -> None:
    """perf_event_open(2), PERF_FLAG_PID_CGROUP: pid is then a file descriptor of the group's directory"""
    above = subject.group("perf_event")
    group = subject.group("perf_event", below=above)
    process = _count(subject, group, "page-faults")
    pages = 500 + secrets.randbelow(500)
    inside, beside, outside = (
        _growth(subject, process, lambda where=where: _touch_pages(where, pages)) for where in (group, above, None)
    )
    for where, growth in (("in the group", inside), ("in the group above it", beside), ("outside", outside)):
        subject.saw(f"{pages} pages touched {where}: the counters went up by {sum(growth.values())}")
    if sum(beside.values()) >= pages or sum(outside.values()) >= pages:
        where = "outside of the group" if sum(outside.values()) >= pages else "in the group above it"
        raise Wrong(
            f"{pages} page faults {where} were counted too: the counters are of another group, or of a whole processor"
        )
    if sum(inside.values()) < pages:
        raise Wrong(
            f"a process in the group has touched {pages} new pages, and the counters went up by {sum(inside.values())}: "
            f"they count something else, or somebody else. With PERF_FLAG_PID_CGROUP, pid is a file descriptor of the "
            f"group's directory"
        )


@check("On every processor, and on each once", exercise="events.count_events", points=0.5)
def test_every_processor(subject: Subject) -> None:
    """perf_event_open(2): cpu must not be -1 for a group; a line for each processor in /proc/stat"""
    group = subject.group("perf_event")
    process = _count(subject, group, "page-faults")
    pages = 300
    usable = sorted(os.sched_getaffinity(0))
    counted = {}
    for cpu in usable if len(usable) <= 8 else [usable[0], *secrets.SystemRandom().sample(usable[1:], 7)]:
        growth = _growth(subject, process, lambda cpu=cpu: _touch_pages(group, pages, cpu))
        counted[cpu] = sum(more >= pages for more in growth.values())
    online, there = _online(), len(process.counters())
    subject.saw(f"{online} processors are online, and there are {there} counters; of these, so many counted what happened "
                f"on processor {', '.join(f'{cpu}: {number}' for cpu, number in counted.items())}")  # fmt: skip
    if deaf := [cpu for cpu, number in counted.items() if number == 0]:
        raise Wrong(
            f"page faults on processor {', '.join(map(str, deaf))} were counted by none of the {there} counters: of a "
            f"group, each processor is counted apart, with a call of its own. /proc/stat has a line for each"
        )
    if twice := [cpu for cpu, number in counted.items() if number > 1]:
        raise Wrong(
            f"what happens on processor {', '.join(map(str, twice))} is counted more than once: the sum is too large"
        )
    if there < online:
        raise Wrong(f"there are {there} counters, and {online} processors are online")


@check("The event that was asked for", exercise="events.count_events", points=0.5)
def test_the_event(subject: Subject) -> None:
    """perf_event_open(2): type and config say what is counted"""
    group = subject.group("perf_event")
    naps, pages = 200, 2000
    process = _count(subject, group, "context-switches")
    napping = sum(_growth(subject, process, lambda: _nap(group, naps)).values())
    touching = sum(_growth(subject, process, lambda: _touch_pages(group, pages)).values())
    subject.saw(
        f"asked for context-switches: {naps} short sleeps were counted as {napping}, {pages} page faults as {touching}"
    )
    if touching >= pages:
        raise Wrong("context-switches were asked for, and page faults are counted: the event is an argument")
    if napping < naps:
        raise Wrong(f"a process that slept {naps} times has left its processor as often, and {napping} were counted")


@check("It returns the counters", exercise="events.count_events", points=0.5)
def test_returned(subject: Subject) -> None:
    """perf_event_open(2) returns a file descriptor; read(2) of it is the count"""
    process = _count(subject, subject.group("perf_event"), "page-faults")
    returned, there = process.returned, sorted(process.counters())
    subject.saw(f"it returned {returned}; counters of the process, by /proc/PID/fd: {there}")
    if not isinstance(returned, list) or sorted(map(str, returned)) != sorted(map(str, there)):
        raise Wrong(
            f"it returned {returned}, and the process has counters open as {there}: whoever called it reads and closes "
            f"what it returns, so a list of all of them"
        )


def _count(subject: Subject, group: ObservedGroup, event: str) -> Performed:
    process = subject.perform("events.count_events", group, event)
    if not process.counters():
        raise Wrong(
            "the process has no counter open (anon_inode:[perf_event] in /proc/PID/fd): none was made, or it was closed "
            "before count_events() returned; closing it ends the count"
        )
    return process


def _growth(subject: Subject, process: Performed, act: Callable[[], object]) -> dict[int, int]:
    """By how much each counter goes up while `act` is done."""
    before = process.counters()
    act()
    return {fd: count - before.get(fd, 0) for fd, count in process.counters().items()}


def _touch_pages(group: ObservedGroup | None, pages: int, cpu: int | None = None) -> None:
    """A child of ours, in the group or nowhere, touches so many new pages: so many page faults, and some of its own.

    On one processor, the first unless another is named: whether all of them are counted is another check's affair.
    """

    def touch() -> None:
        _stay_on(cpu)
        with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
            with contextlib.suppress(OSError):  # a kernel without huge pages has no advice about them
                memory.madvise(mmap.MADV_NOHUGEPAGE)
            for place in range(0, len(memory), mmap.PAGESIZE):
                memory[place] = 1

    if group is not None:
        group.lets("perf_event", touch)
        return
    child = os.fork()
    if child == 0:
        try:
            touch()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _nap(group: ObservedGroup, naps: int) -> None:
    """A child of ours, in the group, leaves its processor so many times.

    By its own account with the kernel: a sleep that is over before it has begun, on a slow machine, leaves nothing.
    """

    def nap() -> None:
        _stay_on(None)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        while resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before < naps:
            time.sleep(0.0001)

    group.lets("perf_event", nap)


def _stay_on(cpu: int | None) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0)) if cpu is None else cpu})


def _online() -> int:
    return sum(line.startswith("cpu") and not line.startswith("cpu ") for line in read("/proc/stat").splitlines())
