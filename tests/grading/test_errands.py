"""Labs on control groups against those who want more than a grade: errands, traps in groups, and groups without end.

The examiner runs errands for a submission (`labs.grading.errands`), enters the groups that it has made
(`ObservedGroup.tried`), and has to remove them, whatever they have become. First each of these by itself, then a class
of lab 11: the files of ``hostile_groups/``, whose first lines say what they try, as in ``hostile/``, and honest people.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.grading import errands
from labs.grading.checks import Late, Wrong
from labs.grading.classroom import Classrooms
from labs.grading.observed_group import ObservedGroup
from labs.grading.sandbox import Sandbox, is_at_work, remove_forgotten_groups
from labs.grading.subject import Subject
from minicontainer.linux import bpf
from minicontainer.linux.cgroups import hierarchies, read
from minicontainer.steps.group import (
    PARENT,
    create_group,
    enter_group,
    find_group,
    list_groups,
    remove_empty_groups,
    remove_group,
)
from tests.command import needs_root
from tests.host_state import SLOWER, OurPlaces, difference_that_stays, look

pytestmark = needs_root

HERE = Path(__file__).parent
SOLUTION = HERE.parents[1] / "labs/course/11_controllers/notebook.py"
DEADLINE = 3 * SLOWER  # s, for one request in the class; honest ones take 10 ms
PROMPT = 5 * SLOWER  # s, in which whatever is in a sandbox has to be gone

ASK = """
import json, os, socket, sys
line = sys.modules["__main__"].Performer.current.line
def ask(request, text=None):
    line.send((text or json.dumps({"errand": request})).encode())
    data, fds, _, _ = socket.recv_fds(line, 1 << 16, 4)
    return json.loads(data)["errno"], fds
"""
"""For a submission: to send the examiner what no honest function sends."""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """One that may make groups, in which `uts.set_names` runs what a test says."""
    sandbox = Sandbox(
        Classrooms(tmp_path).without({"uts"}),
        {"uts.set_names": "def set_names(code): exec(code, globals())"},
        groups=True,
    )
    yield sandbox
    begin = time.monotonic()
    names = [one for one in list_groups() if one.startswith(f"labs-{os.getpid()}-")]
    sandbox.close()
    assert time.monotonic() - begin < PROMPT, f"it took {time.monotonic() - begin:.1f} s to end it"
    assert names and not [one for one in list_groups() if one.startswith(f"labs-{os.getpid()}-")]


def perform(sandbox: Sandbox, code: str) -> Any:
    """Let a performer run this code."""
    return Subject(sandbox).perform("uts.set_names", ASK + code)


def told(sandbox: Sandbox, code: str) -> str:
    """What the code raises."""
    with pytest.raises(Wrong) as raised:
        perform(sandbox, code)
    return str(raised.value)


def every_tree(sandbox: Sandbox, *below: str) -> list[str]:
    """The sandbox's directories, as the host sees them."""
    assert sandbox.group
    return ["/".join([directory, *below]) for directory in sandbox.group.directories]


# What is asked for

WRITE = {"call": "write", "group": "mine", "file": "devices.deny", "value": "a"}
PROGRAM = {"call": "program", "group": "mine", "code": (bpf.move(0, 1) + bpf.leave()).hex()}
COUNT = {"call": "count", "group": "mine", "event": [1, 2], "cpu": 0}

GROUPS = [
    "", ".", "..", "/", "../..", "mine/..", "mine/../..", "../mine", "mine/../mine", "/sys/fs/cgroup/devices", "mine//",
    "/mine", "mine/", "mine\0", "mine\n", "mine\n/..", "MINE", "mine/a/b/c/d", "m" * 5000, "\ud800", "mıne", "-mine", ".mine",
    "../../../docker", "../labs-1-0/minicontainer/mine", 7, None, True, [], ["mine"], {"mine": 1}, 1e308, float("nan"),
]  # fmt: skip
FILES = [
    "devices.list", "cgroup.procs", "tasks", "../devices.allow", "devices.allow/../cgroup.procs", "devices.allow\n",
    "devices.allow ", "memory.limit_in_bytes", "release_agent", "notify_on_release", "", None, 1, ["devices.allow"], {},
]  # fmt: skip
RULES = [
    "", "a\n", "a\na", "c 1:3 rwm\nc 1:5 rwm", "c 1:3 rwm\0", "c 1:3", "c 1:3 x", "c 1:3 rwmr", "c  1:3 r",
    "c -1:3 r", "c 1:3 r ", "d 1:3 r", "c 99999999:0 r", "c ١:٣ r", "c 1:\ud800 r", "a" * 60_000, None, 5, [], ["a"], {}, True,
]  # fmt: skip
CODES = [
    "", "z", "0", "95", "9500000000000", "95" * 9, "é", "\ud800", None, 7, [], {"a": 1},
    bpf.instruction(0x85, immediate=1).hex() + bpf.leave().hex(),  # call a helper
    bpf.instruction(0x85, src=1, immediate=-1).hex(),  # call itself
    bpf.instruction(0x8D).hex(),  # call what a register says
    (bpf.instruction(0x18) + bpf.instruction(0)).hex(),  # load 64 bits, or the address of a map
    bpf.instruction(0x7B, dst=10, offset=-8).hex(),  # store a register
    bpf.instruction(0x62, dst=10, offset=-8).hex(),  # store a number
    bpf.instruction(0xDB, dst=10, offset=-8).hex(),  # atomic
    bpf.instruction(0xE5).hex(),  # may_goto
    bpf.instruction(0x20).hex(), bpf.instruction(0x40).hex(),  # packets
    (bpf.move(0, 1) * errands.LONGEST + bpf.leave()).hex(),
]  # fmt: skip
EVENTS = [
    [], [1], [1, 2, 3], [2, 1], [3, 0], [4, 0], [5, 0], [6, 0], [-1, 0], [1, -1], [1, 16], [1, 1 << 64], [0, 10**4000], [1.0, 2],
    [1, 2.0], ["1", "2"], "12", {"0": 1, "1": 2}, None, 7, [None, None], [[1], [2]], [float("inf"), 0], [1, float("nan")],
]  # fmt: skip
CPUS = [-1, -2, 10**9, 1 << 31, 1 << 32, 10**4000, 0.0, "0", None, [], {}, float("nan"), float("inf")]

ODD: list[Any] = [
    None, 0, 1.5, "", "write", [], ["call"], {}, {"call": None}, {"call": []}, {"call": {}}, {"call": "write"}, {"call": "exec"},
    {"group": "mine"}, {"call": "count"}, {"call": "program"}, {"call": "bpf", "group": "mine"}, {**COUNT, "call": ["count"]},
    *({**request, "group": group} for request in (WRITE, PROGRAM, COUNT) for group in GROUPS),
    *({**WRITE, "file": file} for file in FILES), *({**WRITE, "value": rule} for rule in RULES),
    *({**PROGRAM, "code": code} for code in CODES),
    *({**COUNT, "event": event} for event in EVENTS), *({**COUNT, "cpu": cpu} for cpu in CPUS),
    {**COUNT, "call": "count\0"}, {**WRITE, "call": "WRITE"},
]  # fmt: skip


def test_no_odd_request_is_granted_or_raises_anything(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "MOST", 10_000)
    Subject(sandbox).perform("group.create_group", "mine", ["devices", "perf_event"])
    before = {directory: _listed(directory) for directory in every_tree(sandbox)}
    answers = [(request, errands.run(sandbox, request)) for request in ODD]
    assert [request for request, (number, _) in answers if number == 0] == []
    assert all(fds == [] for _, (_, fds) in answers)
    assert {directory: _listed(directory) for directory in before} == before
    number, fds = errands.run(sandbox, COUNT)
    for fd in fds:
        os.close(fd)
    assert (number, len(fds)) == (0, 1), "an honest one is granted"


def _listed(directory: str) -> dict[str, str]:
    """The control files of a group which a submission might want to change."""
    names = (
        "devices.list memory.limit_in_bytes memory.max pids.max cpu.max cpu.cfs_quota_us cgroup.subtree_control".split()
    )
    return {name: read(f"{directory}/{name}") for name in names if os.path.exists(f"{directory}/{name}")}


def test_what_is_sent_over_the_line_may_be_anything(sandbox: Sandbox) -> None:
    texts = ["[" * 30_000, "9" * 30_000, '{"errand": ' * 5000, '{"errand": NaN}', '{"errand"', "", "null", "[1]", '"errand"',
             '{"errand": {"call": "\\ud800", "group": "\\ud800"}}', '{"errand": 1e999}', '{"errand": ' + "9" * 5000 + "}"]  # fmt: skip
    for text in texts:
        said = told(sandbox, f"raise RuntimeError(ask(None, {text!r})[0] == {errno.EINVAL})")
        assert "RuntimeError: True" in said or "no answer" in said or "has ended" in said, f"{text[:40]}: {said}"
        sandbox.hang_up()
    assert perform(sandbox, "").alive


def test_the_groups_of_another_sandbox_are_out_of_reach(sandbox: Sandbox) -> None:
    other = Sandbox(sandbox.classroom, {}, groups=True)
    try:
        Subject(other).perform("group.create_group", "mine", ["devices", "perf_event"])
        assert other.group
        name = other.group.name
        ways = [f"../../{name}/minicontainer/mine", f"../{name}", name, f"{name}/minicontainer/mine", "mine"]
        requests = [{**request, "group": way} for request in (WRITE, COUNT) for way in ways]
        answers = [errands.run(sandbox, request) for request in requests]
        assert all(number in (errno.EINVAL, errno.ENOENT) and not fds for number, fds in answers)
        if other.group["devices"][0] == 1:
            assert read(f"{other.group['devices'][1]}/{PARENT}/mine/devices.list") == "a *:* rwm"
    finally:
        other.close()


def test_a_program_is_arithmetic_and_nothing_else(sandbox: Sandbox) -> None:
    """In a v2 group, where the kernel would take it: also on a host whose devices are in a tree of v1."""
    tree = next((tree for tree in hierarchies() if tree.version == 2), None)
    if tree is None:
        pytest.skip("this host has no v2 tree")
    group = f"{tree.home()}/errands-{os.getpid()}"
    os.mkdir(group)
    try:
        for code in (
            bytes.fromhex(code) for code in CODES if isinstance(code, str) and re.fullmatch("([0-9a-f]{2})*", code)
        ):
            with pytest.raises(ValueError):
                errands._attach(group, code)
        for _ in range(2):
            errands._attach(group, bpf.move(0, 1) + bpf.leave())
        fd = os.open(group, os.O_RDONLY)
        attached = bpf.prog_query(fd, bpf.BPF_CGROUP_DEVICE)
        for one in (fd, *attached):
            os.close(one)
        assert len(attached) == 1, "the second took the place of the first"
    finally:
        os.rmdir(group)


def test_there_is_an_end_of_errands(sandbox: Sandbox) -> None:
    Subject(sandbox).perform("group.create_group", "mine", ["perf_event"])
    said = told(
        sandbox,
        f"""
for number in range({2 * errands.MOST}):
    refused, fds = ask({COUNT!r})
    for fd in fds:
        os.close(fd)
    if refused:
        raise RuntimeError((number, refused))
""",
    )
    assert f"({errands.MOST}, {errno.EDQUOT})" in said
    ours = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
    assert not [link for link in ours if "perf" in link], "a counter was left open in the examiner"


def test_whoever_never_stops_asking_is_late(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_DEADLINE", "0.5")
    begin = time.monotonic()
    with pytest.raises(Late, match="not done within"):
        perform(sandbox, "while True: ask(None)")
    assert time.monotonic() - begin < PROMPT


def test_whoever_does_not_listen_holds_nobody_up(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody reads fill the line, and the examiner does not wait for room in it."""
    monkeypatch.setenv("LABS_DEADLINE", "1")
    begin = time.monotonic()
    with pytest.raises((Late, Wrong)):
        perform(sandbox, "while True: line.send(b'{\"errand\": 1}')")
    assert time.monotonic() - begin < PROMPT


def test_an_errand_after_the_check_is_nobodys(sandbox: Sandbox) -> None:
    process = perform(
        sandbox, "if os.fork() == 0:\n    while True:\n        try: ask(None)\n        except KeyError: pass"
    )
    assert Subject(sandbox).until(lambda: len(process.children()) == 1)
    with contextlib.suppress(Wrong, Late):  # it may be the child that gets what was meant for its parent
        process.then("os.getpid")  # its answer comes between a thousand errands
    sandbox.hang_up()
    ran = sandbox.errands
    assert perform(sandbox, "").alive
    assert sandbox.errands == ran
    assert sandbox.sweep()


def test_two_performers_that_mix_up_their_lines_gain_nothing(sandbox: Sandbox) -> None:
    """One has stolen the other's line, and asks there: the answers go to whoever reads them, all in one sandbox."""
    Subject(sandbox).perform("group.create_group", "mine", ["perf_event"])
    first = perform(sandbox, "")
    inside = first.status("NSpid").split()[-1]
    thief = f"""
import ctypes
lines = [int(fd) for fd in os.listdir("/proc/{inside}/fd") if "socket" in os.readlink(f"/proc/{inside}/fd/{{fd}}")]
stolen = ctypes.CDLL(None).syscall(438, os.pidfd_open({inside}), lines[0], 0)
if stolen < 0: raise RuntimeError("not to be had")
other = socket.socket(fileno=stolen)
if os.fork() == 0:
    for _ in range(100):
        other.send(json.dumps({{"errand": {COUNT!r}}}).encode())
    other.send(b'{{"done": true, "returned": "forged"}}')
    os._exit(0)
"""
    second = perform(sandbox, thief)
    with contextlib.suppress(Wrong):
        first.then("os.getpid")
    assert second.alive and sandbox.errands <= 100
    assert first.counters().keys() | second.counters().keys() <= set(range(1024))
    sandbox.hang_up()
    assert sandbox.sweep() and perform(sandbox, "").alive


# What the examiner enters and reads


def group_of(sandbox: Sandbox, controller: str) -> ObservedGroup:
    """A group in there."""
    return Subject(sandbox).group(controller)


def test_a_group_that_is_a_trap_holds_nobody(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a v2 tree, whoever enters one can be frozen there; a group can be gone, or take no processes."""
    gone = group_of(sandbox, "pids")
    os.rmdir(gone.directory("pids"))
    with pytest.raises(Wrong, match="no process can enter"):
        gone.lets("pids", os.getpid)
    with pytest.raises(Wrong, match="gone"):
        gone.number("pids", "pids.max")
    group = group_of(sandbox, "perf_event")
    if group.version("perf_event") != 2:
        return
    place = f"from minicontainer.steps.group import find_group\nplace = find_group({group.name!r})['perf_event'][1]\n"
    monkeypatch.setenv("LABS_DEADLINE", "0.5")
    perform(sandbox, f"{place}open(f'{{place}}/cgroup.freeze', 'w').write('1')")
    begin = time.monotonic()
    with pytest.raises(Late, match="did not come back"):
        group.lets("perf_event", os.getpid)
    assert time.monotonic() - begin < PROMPT
    perform(sandbox, f"{place}open(f'{{place}}/cgroup.freeze', 'w').write('0')")
    perform(sandbox, f"{place}open(f'{{place}}/cgroup.type', 'w').write('threaded')")
    with pytest.raises(Wrong):
        group.lets("perf_event", os.getpid)
        group.processes("perf_event")


def test_where_a_controller_is_missing_a_directory_stands_in(sandbox: Sandbox) -> None:
    """A kernel without net_cls: what is written there is read with the care that any file of a submission takes."""
    assert sandbox.group
    sandbox.group = sandbox.group.replace(
        places={name: place for name, place in sandbox.group.places.items() if name != "net_cls"}
    )
    subject = Subject(sandbox)
    group = subject.group_or_imitation("net_cls", "net_cls.classid")
    assert group.imitation and group.version("net_cls") == 1
    subject.perform("packets.tag_packets", group, 0x100001)
    assert group.read("net_cls", "net_cls.classid") == str(0x100001)
    for trap in ("os.mkfifo(file)", "os.symlink('/dev/zero', file)", "pass"):
        perform(
            sandbox, f"file = {group.name!r} + '/net_cls.classid'\nif os.path.lexists(file): os.unlink(file)\n{trap}"
        )
        with pytest.raises(Wrong, match="cannot be read"):
            group.read("net_cls", "net_cls.classid")


def test_only_counters_are_read(sandbox: Sandbox) -> None:
    """A pipe that nobody writes to, under every number: a read of it would never come back."""
    process = perform(sandbox, "reading, _ = os.pipe()\nfor fd in range(50, 400): os.dup2(reading, fd)")
    assert process.counters() == {}


# What has to be removed


def tested_close(sandbox: Sandbox, sound: bool | None = None) -> None:
    """Sweep; then the fixture sees to it that closing is prompt, and leaves nothing."""
    begin = time.monotonic()
    swept = sandbox.sweep()
    assert time.monotonic() - begin < PROMPT
    assert sound is None or swept is sound


FREEZE = """
from minicontainer.steps.group import create_group, enter_group
from minicontainer.linux.cgroups import write
def freeze(group):
    version, directory = group["freezer"]
    write(f"{directory}/{'freezer.state' if version == 1 else 'cgroup.freeze'}", "FROZEN" if version == 1 else 1)
"""


@pytest.mark.parametrize("inner", ["above", "above/below", "above/below/lowest"])
def test_what_is_frozen_is_ended(sandbox: Sandbox, inner: str) -> None:
    code = f"""
create_group("above", ["freezer"])
group = create_group({inner!r}, ["freezer"])
if os.fork() == 0:
    os.setsid()
    while True: os.getpid()
enter_group(group, [int(pid) for pid in os.listdir("/proc") if pid.isdigit()][-1])
from minicontainer.steps.group import find_group
freeze(find_group("above"))
"""
    perform(sandbox, FREEZE + code)
    tested_close(sandbox, True)


def test_a_sandbox_that_is_frozen_itself_is_ended(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_DEADLINE", "1")
    code = """
group = create_group("above/below", ["freezer"])
for pid in (1, os.getpid()):
    enter_group(group, pid)
from minicontainer.steps.group import find_group
freeze(find_group("above"))
"""
    with pytest.raises((Late, Wrong)):
        perform(sandbox, FREEZE + code)
        perform(sandbox, "")
    tested_close(sandbox, False)


def test_a_forest_of_groups_is_cleared(sandbox: Sandbox) -> None:
    """Hundreds beside each other, and more inside one another than a path can name or Python can call itself."""
    code = """
import glob
trees = [place for place in ("/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*")) if os.path.exists(place + "/cgroup.procs")]
for tree in trees:
    os.makedirs(tree + "/minicontainer", exist_ok=True)
    for number in range(300):
        os.mkdir(f"{tree}/minicontainer/beside-{number}")
os.chdir(trees[0] + "/minicontainer")
for _ in range(1500):
    os.mkdir("inside")
    os.chdir("inside")
"""
    perform(sandbox, code)
    assert is_at_work(f"labs-{os.getpid()}-0") and not is_at_work("labs-0-0") and not is_at_work("mine-1-0")

    def ours() -> int:
        return sum(name.startswith(f"labs-{os.getpid()}-") for name in list_groups())

    before = ours()
    remove_empty_groups()  # somebody else tidies up at the same time: what is below a living sandbox is its own
    remove_forgotten_groups()
    assert ours() == before > 300
    tested_close(sandbox)


def test_what_a_killed_examiner_has_left_is_removed(sandbox: Sandbox) -> None:
    """Its groups, in all trees, unless somebody is in there: the number may be somebody's in another PID namespace."""
    left = create_group("labs-0-1/minicontainer/group", ["pids", "perf_event"])
    inhabited = create_group("labs-0-2/minicontainer/group", ["pids", "perf_event"])
    resident = subprocess.Popen(["sleep", "600"])
    try:
        enter_group(find_group("labs-0-2"), resident.pid)
        remove_forgotten_groups()
        assert not [directory for directory in left.directories if os.path.exists(directory)]
        assert all(map(os.path.exists, inhabited.directories))
    finally:
        resident.kill()
        resident.wait()
        remove_group(find_group("labs-0-2"))


# A class


def expected(attack: Path) -> dict[str, str]:
    """What the first lines of an attack say."""
    head = attack.read_text(encoding="utf-8").partition("\n\n")[0]
    said = dict(re.findall(r"^# (\w+): (.*(?:\n#   .*)*)$", head, re.MULTILINE))
    assert {"attack", "fails", "status"} <= said.keys(), f"{attack.name} does not say what it tries and why it fails"
    return said


ATTACKS = sorted((HERE / "hostile_groups").glob("*.py"))


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, our_places: OurPlaces) -> dict[str, dict[str, Any]]:
    """The rows of results.json by student. Nothing of the class is left on the host."""
    top = tmp_path_factory.mktemp("groups")
    folder = top / "submissions"
    folder.mkdir()
    for attack in ATTACKS:
        shutil.copy(attack, folder)
    for honest in ("alice", "zoe"):
        shutil.copy(SOLUTION, folder / f"{honest}.py")
    before, begin = look(our_places), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "labs", "grade", "11", str(folder), "--out", str(top / "grades")],
        env={**os.environ, "LABS_DEADLINE": str(DEADLINE)},
        capture_output=True,
        text=True,
        timeout=60 * DEADLINE,
    )
    seconds = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    left = difference_that_stays(before, lambda: look(our_places))
    assert not left, left
    assert seconds < 8 * DEADLINE * len(ATTACKS), f"{seconds:.0f} s"
    told = json.loads((top / "grades/results.json").read_text(encoding="utf-8"))
    return {row["student"]: row for row in told["submissions"]}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.stem)
def test_each_gets_what_it_deserves(graded: dict[str, dict[str, Any]], attack: Path) -> None:
    row, said = graded[attack.stem], expected(attack)
    words = "\n".join([row["reason"], *(check["diagnosis"] for check in row["checks"])])
    assert row["points"] in {int(number) for number in said.get("points", "0").split("|")}, words
    assert re.fullmatch(said["status"], row["status"]), words
    assert re.search(said.get("says", ""), words), words
    assert row["reason"]


@pytest.mark.parametrize("honest", ["alice", "zoe"])
def test_the_honest_keep_their_points(graded: dict[str, dict[str, Any]], honest: str) -> None:
    assert graded[honest]["points"] == graded[honest]["max"] > 0, graded[honest]
