"""Lab 06, the user namespace: what the kernel says of `user.write_maps` and `user.become_root`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from labs.grading.attempts import Attempts
from labs.grading.checks import Wrong, check
from labs.grading.observed import Observed
from labs.grading.observed_users import give_maps
from labs.grading.sandbox import Unavailable
from labs.grading.subject import Call, Performed, Subject
from minicontainer.linux import CLONE_NEWUSER, PR_SET_DUMPABLE
from minicontainer.steps.user import IdMap

UNSHARE: Call = ("linux.unshare", [CLONE_NEWUSER])

# write_maps


@check("The uid map of the process is the one that was asked for", exercise="user.write_maps", points=2)
def test_uid_map(subject: Subject) -> None:
    """user_namespaces(7), "User and group ID mappings"; cat /proc/PID/uid_map"""
    _see_enough_ids(subject)
    uids, gids = _maps(), _maps()
    process, writer, refused = _written(subject, uids, gids)
    _compare(subject, process, writer, "uid", uids, gids, refused)


@check("So is its gid map", exercise="user.write_maps", points=1)
def test_gid_map(subject: Subject) -> None:
    """user_namespaces(7); cat /proc/PID/gid_map"""
    _see_enough_ids(subject)
    uids, gids = _maps(), _maps()
    process, writer, refused = _written(subject, uids, gids)
    _compare(subject, process, writer, "gid", gids, uids, refused)


@check("Root takes nothing away: setgroups(2) stays allowed", exercise="user.write_maps", points=1)
def test_groups_stay(subject: Subject) -> None:
    """user_namespaces(7), "Interaction with system calls that change process UIDs or GIDs"; /proc/PID/setgroups"""
    _see_enough_ids(subject)
    wanted = [_maps(), _maps()]
    process, _, refused = _written(subject, *wanted)
    said, maps = process.setgroups, [process.id_map(kind) for kind in ("uid", "gid")]
    subject.saw(f"/proc/PID/setgroups: {said}; uid_map: {_lines(maps[0])}; gid_map: {_lines(maps[1])}")
    if maps != wanted:
        told = f" ({refused})" if refused else ""
        kind = "gid" if maps[0] == wanted[0] else "uid"
        raise Wrong(f"the {kind} map is not what was asked for{told}: that setgroups is as it was is no merit then")
    if said != "allow":
        raise Wrong(
            f"/proc/PID/setgroups of the process says {said}, though whoever wrote the maps had CAP_SETGID outside: no "
            f"program in there can take or drop groups any more, su(1) and sshd(8) fail. Only who has not got that right "
            f"has to give setgroups up"
        )


@check("An ordinary user maps themselves, and nobody else", exercise="user.write_maps", points=2)
def test_ordinary_user(subject: Subject) -> None:
    """user_namespaces(7), "Defining user and group ID mappings: writing to uid_map and gid_map"; CVE-2014-8989"""
    _see_enough_ids(subject)
    uid, gid = (number + 1000 for number in secrets.SystemRandom().sample(range(50_000), 2))
    uids, gids = [(secrets.randbelow(1000), uid, 1)], [(secrets.randbelow(1000), gid, 1)]
    ordinary: list[Call] = [
        ("os.setgroups", [[]]),
        ("os.setresgid", [gid] * 3),
        ("os.setresuid", [uid] * 3),
        ("linux.prctl", [PR_SET_DUMPABLE, 1]),  # else what is in its /proc/PID is root's, since it has changed its id
    ]
    process, writer = subject.perform([*ordinary, UNSHARE]), subject.perform(ordinary)
    refused = _write(writer, process, uids, gids)
    seen = {kind: process.id_map(kind) for kind in ("uid", "gid")}
    subject.saw(
        f"written by uid {uid}, gid {gid}, without capabilities: uid_map {_lines(seen['uid'])}, gid_map "
        f"{_lines(seen['gid'])}, setgroups {process.setgroups}"
    )
    if seen["uid"] == uids and not seen["gid"] and process.setgroups == "allow":
        told = f"the kernel refused the gid map ({refused})" if refused else "there is no gid map"
        raise Wrong(
            f"{told}, and /proc/PID/setgroups says allow: an ordinary user may write a gid map only after having given up "
            f'setgroups(2) there, by "deny", since who can drop a group gets at files that are closed to that group. The '
            f"deny has to come before the map, and cannot come after it"
        )
    if process.setgroups == "deny" and not any(seen.values()) and refused:
        raise Wrong(f"setgroups was denied, and then a map was refused: {refused}")
    for kind, wanted in (("uid", uids), ("gid", gids)):
        _compare(subject, process, writer, kind, wanted, gids if kind == "uid" else uids, refused)
    if refused:
        raise Wrong(f"the maps are right, and yet: {refused}")


# become_root


@check("It is root inside, and outside whom the map says", exercise="user.become_root", points=1)
def test_ids(subject: Subject) -> None:
    """setresuid(2): the real, the effective and the saved id; /proc/PID/status: Uid, Gid"""
    _see_enough_ids(subject)
    process, uid, gid = _nobody(subject)
    process.then("user.become_root")
    uids, gids = process.ids("Uid"), process.ids("Gid")
    subject.saw(f"0 is {uid} outside, group 0 is {gid}; /proc/PID/status: Uid {_words(uids)}, Gid {_words(gids)}")
    for name, seen, wanted, others in (("uid", uids, uid, gids), ("gid", gids, gid, uids)):
        if set(seen) == {wanted}:
            continue
        if wanted in seen:
            raise Wrong(
                f"of its real, effective, saved and file system {name}, seen from outside, {_words(seen)}, not all are "
                f"{wanted}: a process that has changed one of them can change it back to another"
            )
        both = "neither has its gid" if gid not in others and uid not in others else f"only its {_other(name)} has"
        raise Wrong(
            f"its {name} has not changed: from outside it is {seen[0]}, and 0 inside would be {wanted} outside ({both}). A "
            f"map says who root is; it does not make anybody root"
        )


@check("What it executes has root's capabilities", exercise="user.become_root", points=1)
def test_capabilities(subject: Subject) -> None:
    """capabilities(7), "Transformation of capabilities during execve()"; /proc/PID/status: CapEff"""
    _see_enough_ids(subject)
    process, uid, _ = _nobody(subject)
    process.then("user.become_root")
    program = Attempts(subject, process, []).program
    who, effective, most = program.ids("Uid")[1], program.status("CapEff"), program.status("CapBnd")
    subject.saw(f"a program that it executes: Uid {who} outside (0 is {uid}), CapEff {effective}")
    if who != uid or int(effective, 16) != int(most, 16) or not int(most, 16):
        raise Wrong(
            f"a program that the process executes has the capabilities {effective}, and root would have {most}: the first "
            f"process of a user namespace has them all, but execve(2) leaves them to uid 0 only, and this one is "
            f"{who} outside, where 0 is {uid}"
        )


@check("The groups of before are left behind", exercise="user.become_root", points=1)
def test_groups(subject: Subject) -> None:
    """setgroups(2); /proc/PID/status: Groups"""
    _see_enough_ids(subject)
    before = [number + 2000 for number in secrets.SystemRandom().sample(range(5000), 2)]
    process, uid, _ = _nobody(subject, before)
    process.then("user.become_root")
    groups = process.ids("Groups")
    subject.saw(f"supplementary groups before: {_words(before)}; after become_root(): {_words(groups) or 'none'}")
    if uid not in process.ids("Uid"):
        raise Wrong("it has not become root at all: what its groups are is of no merit then")
    if groups:
        raise Wrong(
            f"the process is root, and still in the groups {_words(groups)} of whoever started it: what their members may "
            f"read outside, the container's root may read. There is a call that sets the list of groups, to none"
        )


@check("Where setgroups(2) is denied, it does without", exercise="user.become_root", points=1)
def test_groups_denied(subject: Subject) -> None:
    """user_namespaces(7): /proc/PID/setgroups"""
    _see_enough_ids(subject)
    process, uid, gid = _nobody(subject, groups=False)
    refused = ""
    try:
        process.then("user.become_root")
    except Wrong as told:
        refused = str(told)
    uids, gids = process.ids("Uid"), process.ids("Gid")
    subject.saw(
        f"/proc/PID/setgroups: {process.setgroups}; Uid {_words(uids)}, Gid {_words(gids)}; 0 is {uid} and {gid}"
    )
    if refused and uid not in uids:
        raise Wrong(
            f"/proc/self/setgroups says deny, as it does in every container of an ordinary user, and the process did not "
            f"become root: {refused}. A process can read whether it may call setgroups(2)"
        )
    if uid not in uids or gid not in gids:
        raise Wrong(
            f"the process has not become root where setgroups is denied: Uid {_words(uids)}, Gid {_words(gids)}"
        )


# What the checks are made of


def _see_enough_ids(subject: Subject) -> None:
    """A sandbox of an ordinary user without so many ids to give away has too few of them. Raises Unavailable."""
    if sum(count for _, _, count in subject.sandbox.id_map("uid")) < 1 << 16:
        raise Unavailable(
            f"this lab takes {1 << 16} users: grade as root, or get a range of so many ids in /etc/subuid and /etc/subgid"
        )


def _maps() -> list[IdMap]:
    """Three lines that nobody can know beforehand."""
    numbers = secrets.SystemRandom()
    return [
        (inside * 1000, outside * 1000 + numbers.randrange(500), numbers.randrange(1, 500))
        for inside, outside in enumerate(numbers.sample(range(4, 60), 3))
    ]


def _written(subject: Subject, uids: Sequence[IdMap], gids: Sequence[IdMap]) -> tuple[Performed, Performed, str]:
    """A process in a new user namespace, one outside of it who was to write its maps as root, and what it complained."""
    process, writer = subject.perform([UNSHARE]), subject.perform("os.getpid")
    return process, writer, _write(writer, process, uids, gids)


def _write(writer: Performed, process: Performed, uids: Sequence[IdMap], gids: Sequence[IdMap]) -> str:
    number = int(process.status("NSpid").split()[-1])
    try:
        writer.then("user.write_maps", number, [list(line) for line in uids], [list(line) for line in gids])
    except Wrong as told:
        if "not written yet" in str(told) or "no cell begins with" in str(told) or not writer.alive:
            raise
        return str(told)
    return ""


def _compare(
    subject: Subject,
    process: Observed,
    writer: Observed,
    kind: str,
    wanted: Sequence[IdMap],
    other: Sequence[IdMap],
    refused: str,
) -> None:
    """Raises Wrong: the map is another than was asked for, and by which mistake."""
    seen = process.id_map(kind)
    subject.saw(
        f"{kind}_map asked for: {_lines(wanted)}; the kernel's: {_lines(seen)}{'; ' + refused if refused else ''}"
    )
    if seen == wanted:
        return
    if not seen and writer.namespace("user") == process.namespace("user"):
        raise Wrong(
            f"{kind}_map is empty, and the process that was to write it has gone into the new user namespace, "
            f"{process.namespace('user')}, itself: that is the wrong side. In there it has no rights over the ids outside, "
            f"and the kernel lets it give none away (EPERM)"
        )
    if not seen and refused:
        raise Wrong(
            f"{kind}_map of the process is empty: {refused}. Is it /proc/PID/{kind}_map, of the process whose number you are "
            f"given? /proc/self is the one who writes, whose namespace has its map already"
        )
    if not seen:
        raise Wrong(
            f"{kind}_map of the process is empty: nothing was written to /proc/PID/{kind}_map, and nothing complained"
        )
    if seen == wanted[:1]:
        raise Wrong(
            f"{kind}_map has the first line only, {_lines(seen)}, of {len(wanted)}: a map is written once, by one write(2) "
            f"with all of its lines; whatever else comes is refused (EPERM). {refused}"
        )
    if seen == [(outside, inside, count) for inside, outside, count in wanted]:
        raise Wrong(
            f"{kind}_map has its columns exchanged: {_lines(seen)}. A line says first the id inside, then the one outside"
        )
    if seen == other:
        raise Wrong(f"{kind}_map is the other map, {_lines(other)}: uids and gids are mapped each by themselves")
    raise Wrong(f"{kind}_map was to be {_lines(wanted)} and is {_lines(seen)}")


def _nobody(subject: Subject, before: Sequence[int] = (), groups: bool = True) -> tuple[Performed, int, int]:
    """A process in a user namespace whose maps the examiner has written, before it is anybody there.

    Returns it, and who its users and groups 0 are outside.
    """
    process = subject.perform([("os.setgroups", [list(before)]), UNSHARE])
    (uid, gid) = (number + 10_000 for number in secrets.SystemRandom().sample(range(20_000), 2))
    give_maps(subject.sandbox, process, [(0, uid, 100)], [(0, gid, 100), (2000, 2000, 5000)], groups)
    return process, uid, gid


def _other(name: str) -> str:
    return "gid" if name == "uid" else "uid"


def _lines(lines: Sequence[IdMap]) -> str:
    return " / ".join(" ".join(map(str, line)) for line in lines) or "empty"


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
