"""The runner of other people's suites: it reads what they print, lets nothing out, leaves nothing behind.

No suite is needed: the files that it runs here were written for this, and lie where those of a suite would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import needs_root, wait_until
from tests.conformance import tap
from tests.conformance.page import UNEXPLAINED, page, read_reasons, reason
from tests.conformance.place import BORROW
from tests.conformance.results import File, Results, summary, worse
from tests.conformance.suites import SUITES
from tests.conformance.tap import FAILED, OK, SKIPPED, Verdict

RUN = Path(__file__).with_name("run")
DEADLINE = 120  # s, for one run of the runner

Runner = Callable[..., subprocess.CompletedProcess[str]]


# What the suites print.


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("ok 1 - has expected hostname", Verdict(OK, "has expected hostname")),
        ("not ok 2 - has expected mounts", Verdict(FAILED, "has expected mounts")),
        ("ok 3 # SKIP no mount label", Verdict(SKIPPED, "", "no mount label")),
        ("ok 4 runc exec (cgroup v2) # skip test requires cgroups_v2", Verdict(SKIPPED, "runc exec (cgroup v2)", "test requires cgroups_v2")),
        ("ok 5 - start # 0.034s", Verdict(OK, "start")),
        ("ok 6 - net-device #SKIP dummy not available # 0.012s", Verdict(SKIPPED, "net-device", "dummy not available")),
        ("not ok 7 - written later # TODO", Verdict(SKIPPED, "written later")),
        ("ok 8 - start\r", Verdict(OK, "start")),
        ("ok", Verdict(OK, "")),
        ("not ok 9 - state of 1f0c2d5e-8a3b-4c6d-9e0f-123456789abc", Verdict(FAILED, "state of *")),
    ],
)  # fmt: skip
def test_an_assertion_is_read(line: str, verdict: Verdict) -> None:
    assert tap.parse(line) == ([verdict], None)


@pytest.mark.parametrize("line", ["  ok 1 - indented", "okay", "# ok 1 - a comment", "notok 1", "TAP version 13", ""])
def test_what_is_no_assertion_is_none(line: str) -> None:
    assert tap.parse(line) == ([], None)


def test_the_plan_may_stand_at_either_end() -> None:
    assert tap.parse("1..1\nok 1 - a")[1] == tap.parse("ok 1 - a\n1..1")[1] == 1


@pytest.mark.parametrize(
    ("text", "status", "failures"),
    [
        ("1..2\nok 1 - a\nok 2 - b", 0, []),
        ("1..2\nok 1 - a\nnot ok 2 - b", 1, ["b"]),
        ("1..3\nok 1 - a", 1, ["(assertion 2 of 3 is missing)", "(assertion 3 of 3 is missing)"]),
        ("1..1\nok 1 - a", 3, ["(ended with status 3)"]),
        ("1..0", 0, []),
        ("", 0, []),
        ("", 1, ["(ended before its plan, with status 1)"]),
        ("ok 1 - a", 0, ["(ended before its plan, with status 0)"]),
        ("1..2\nok 1 - a", None, ["(stopped after 7 s)", "(assertion 2 of 2 is missing)"]),
    ],
)
def test_what_a_file_owes_counts_against_it(text: str, status: int | None, failures: list[str]) -> None:
    assert [verdict.name for verdict in tap.judge(text, status, 7) if verdict.verdict == FAILED] == failures


# What is made of it.


def results(name: str, *files: File, suite: str = "crun") -> Results:
    """A run of a suite, invented."""
    return Results(suite, "1.27.1", name, f"{name} version 1", f"2026-01-0{len(files)} 00:00 +0000", "Linux", [], files)


OURS = results(
    "ours", File("start", 1, [Verdict(OK, "a"), Verdict(FAILED, "b"), Verdict(FAILED, "b"), Verdict(SKIPPED, "c")])
)
CRUN = results("crun", File("start", 1, [Verdict(OK, "a"), Verdict(OK, "b"), Verdict(FAILED, "b"), Verdict(OK, "c")]))


def test_worse_is_what_the_other_passes_and_we_fail() -> None:
    """The first of two assertions with one name; a skipped one is not worse."""
    assert list(worse(OURS, CRUN)) == [("start", "b", 0)]
    assert list(worse(CRUN, OURS)) == []


def test_what_a_file_that_broke_down_did_not_report_is_worse() -> None:
    broken = results("ours", File("start", 1, [Verdict(OK, "a"), Verdict(FAILED, "(stopped after 60 s)")]))
    assert list(worse(broken, CRUN)) == [("start", "b", 0), ("start", "c", 0)]
    elsewhere = results("ours", File("other", 1, [Verdict(FAILED, "x")]))
    assert list(worse(elsewhere, CRUN)) == []


def test_the_figures_stand_side_by_side() -> None:
    assert summary([OURS, CRUN]) == [
        ["", "ours", "crun"],
        ["clean files of 1", "0", "0"],
        ["assertions ok", "1", "3"],
        ["skipped", "1", "0"],
        ["not ok", "2", "1"],
    ]


def test_results_are_kept_whole(tmp_path: Path) -> None:
    OURS.write(tmp_path / "new" / "ours.json")
    assert Results.read(tmp_path / "new" / "ours.json")._replace(files=[]) == OURS._replace(files=[])
    assert Results.read(tmp_path / "new" / "ours.json").verdicts() == OURS.verdicts()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": [{}]}', '{"files": 3}'])
def test_what_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json: not the results of a run"):
        Results.read(tmp_path / "x.json")


def test_the_page_gives_each_failure_its_reason_or_says_that_there_is_none() -> None:
    written = page([CRUN, OURS], {"crun": {"start: b": "crun's own flag"}})
    assert "| start | b | ok | crun's own flag |" in written
    assert "| start | b | not ok | crun's own flag |" in written
    assert "- crun passes and ours does not: 1\n" in written
    assert "|  | ours | crun |\n|---|---:|---:|" in written
    assert UNEXPLAINED in page([CRUN, OURS], {})
    assert UNEXPLAINED not in written


def test_the_page_takes_the_latest_run_of_a_runtime() -> None:
    later = results("ours", *OURS.files, File("state", 1, [Verdict(OK, "x")]))
    assert "clean files of 2 | 1 |" in page([later, OURS], {})
    assert page([later, OURS], {}) == page([OURS, later], {})


def test_the_page_takes_another_build_of_a_reference_for_a_reference() -> None:
    assert "- crun-1.27.1 passes and ours does not: 1\n" in page([OURS, CRUN._replace(name="crun-1.27.1")], {})


def test_the_first_reason_that_fits_is_taken() -> None:
    reasons = {"start: help*": "text", "start: *": "else"}
    assert [reason(reasons, *what) for what in (("start", "help x"), ("start", "y"), ("state", "y"))] == [
        "text",
        "else",
        UNEXPLAINED,
    ]


def test_our_reasons_can_be_read() -> None:
    assert set(read_reasons()) <= set(SUITES)


# Where the files run.


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """A suite of one's own: `runner(name=script, …)` runs these files and gives what the command said."""
    checkout = tmp_path / "checkout"

    def run(*arguments: str, runtime: str = "floor", **scripts: str) -> subprocess.CompletedProcess[str]:
        for name, script in scripts.items():
            file = checkout / "validation" / name / f"{name}.t"
            file.parent.mkdir(parents=True)
            file.write_text(f"#!/bin/sh\n{textwrap.dedent(script)}")
            file.chmod(0o755)
        (checkout / "runtimetest").touch()
        (checkout / "rootfs-none.tar.gz").touch()
        return subprocess.run(
            [RUN, "runtime-tools", checkout, runtime, "--json", tmp_path / "found.json", "--logs", tmp_path / "logs", *arguments],
            capture_output=True, text=True, timeout=DEADLINE, check=False, env={**os.environ, BORROW: "no"},
        )  # fmt: skip

    yield run
    assert not abandoned()


def abandoned() -> list[Path]:
    """Groups of runs that are over. There may be others at this moment, and theirs are no fault of ours."""
    found = [path for tree in Path("/sys/fs/cgroup").iterdir() if tree.is_dir() for path in tree.glob("conformance-*")]
    return [path for path in found if not Path("/proc", path.name.removeprefix("conformance-")).exists()]


def verdicts(tmp_path: Path) -> dict[str, list[Verdict]]:
    """What the last run found, by file."""
    return {file.name: list(file.verdicts) for file in Results.read(tmp_path / "found.json").files}


@needs_root
def test_a_suite_is_run_and_kept(runner: Runner, tmp_path: Path) -> None:
    done = runner(
        "--write", str(tmp_path / "page.md"),
        good='echo 1..1; "$RUNTIME" || echo "ok 1 - the runtime failed"',
        bad="echo 1..2; echo ok 1 - a; echo not ok 2 - b; echo why it failed >&2; exit 1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert verdicts(tmp_path) == {
        "good": [Verdict(OK, "the runtime failed")],
        "bad": [Verdict(OK, "a"), Verdict(FAILED, "b")],
    }
    assert "clean files of 2      1" in done.stdout
    assert "      not ok: b" in done.stdout
    assert "| clean files of 2 | 1 |" in (tmp_path / "page.md").read_text()
    assert "why it failed" in (tmp_path / "logs" / "bad.txt").read_text()
    kept = json.loads((tmp_path / "found.json").read_text())
    assert (kept["name"], kept["suite"], kept["files"][0]["errors"]) == ("floor", "runtime-tools", "why it failed\n")


@needs_root
def test_the_floor_stands_beside_a_whole_run(runner: Runner) -> None:
    """It is run with the same files, unless a kept one is given or it is not wanted."""
    script = '"$RUNTIME" && echo "ok 1 - a" || echo "not ok 1 - a"; echo 1..1'
    beside = runner(runtime="/bin/true", file=script).stdout.splitlines()
    assert [line.split()[-2:] for line in beside[-5:-2]] == [["true", "floor"], ["1", "0"], ["1", "0"]]
    for option in (["--no-floor"], ["--only", "file"]):
        assert "floor" not in runner(*option, runtime="/bin/true").stdout


@needs_root
def test_only_what_is_asked_for_is_run(runner: Runner, tmp_path: Path) -> None:
    runner("--only", "st*", start="echo 1..1; echo ok 1 - a", kill="echo 1..1; echo ok 1 - a")
    assert list(verdicts(tmp_path)) == ["start"]


@needs_root
def test_files_see_a_host_of_their_own(runner: Runner, tmp_path: Path) -> None:
    """No network, no processes of others, no /run of others; a terminal; control groups of version 1 where there are any."""
    runner(
        place="""
        check() { name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi; }
        echo 1..8
        check "nothing but lo and eth0" sh -c '! tail -n +3 /proc/net/dev | grep -vE "lo:|eth0:"'
        check "loopback is up" sh -c 'grep -q "127.0.0.1" /proc/net/fib_trie'
        check "there is no route" test "$(wc -l </proc/net/route)" -le 1
        check "few processes" test "$(ls -d /proc/[0-9]* | wc -l)" -lt 12
        check "run is empty" test -z "$(ls /run)"
        check "a terminal" sh -c ': </dev/tty'
        check "one version of control groups" sh -c '! test -e /sys/fs/cgroup/unified'
        check "at the root of them" sh -c '! grep -v ":/$" /proc/self/cgroup | grep -v "^0:"'
        """
    )
    assert [verdict for verdict in verdicts(tmp_path)["place"] if verdict.verdict != OK] == []
    assert len(verdicts(tmp_path)["place"]) == 8


@needs_root
def test_files_cannot_change_the_host(runner: Runner, tmp_path: Path) -> None:
    """Its devices, its host name, its mounts and our own control groups are as before."""

    def host() -> tuple[object, ...]:
        device, own = os.stat("/dev/null"), Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/harmed" in line]
        groups = [line for line in own if not line.startswith("0:") and "conformance" in line]
        return device.st_uid, device.st_gid, device.st_mode, os.uname(), mounts, groups

    before = host()
    runner(
        harm="""
        set -e
        chown 1000:1000 /dev/null
        chmod 600 /dev/null
        hostname somebody-else
        mkdir /run/harmed
        mount -t tmpfs none /run/harmed
        mkdir -p /sys/fs/cgroup/pids/left/behind /sys/fs/cgroup/left
        echo 1..1; echo ok 1 - done
        """
    )
    assert verdicts(tmp_path)["harm"] == [Verdict(OK, "done")]
    assert host() == before


@needs_root
def test_a_file_is_stopped_with_all_that_it_started(runner: Runner, tmp_path: Path) -> None:
    """A process in a session of its own, one that heeds no signal, and one that is frozen, where there is a freezer."""
    done = runner(
        "--limit", "1",
        hang="""
        echo 1..2; echo ok 1 - begun
        setsid sleep 54321 &
        (trap "" TERM INT HUP; while :; do sleep 54321; done) &
        if test -d /sys/fs/cgroup/freezer; then
            mkdir /sys/fs/cgroup/freezer/cold
            sleep 54321 & echo $! >/sys/fs/cgroup/freezer/cold/tasks
            echo FROZEN >/sys/fs/cgroup/freezer/cold/freezer.state
        fi
        wait
        """,
        next="echo 1..1; echo ok 1 - the next file is run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert verdicts(tmp_path) == {
        "hang": [
            Verdict(OK, "begun"),
            Verdict(FAILED, "(stopped after 1 s)"),
            Verdict(FAILED, "(assertion 2 of 2 is missing)"),
        ],
        "next": [Verdict(OK, "the next file is run")],
    }
    assert not sleepers("54321")


@needs_root
def test_what_a_file_leaves_ends_with_it(runner: Runner, tmp_path: Path) -> None:
    runner(leave="sleep 65432 & setsid sleep 65432 & echo 1..1; echo ok 1 - a")
    assert verdicts(tmp_path)["leave"] == [Verdict(OK, "a")]
    assert not sleepers("65432")


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process(number: signal.Signals, runner: Runner, tmp_path: Path) -> None:
    """After SIGTERM no group, either; what SIGKILL leaves is removed by the next run."""
    runner("--only", "fine", fine="echo 1..1; echo ok 1 - a", wait="sleep 76543")
    with subprocess.Popen(
        [RUN, "runtime-tools", tmp_path / "checkout", "floor", "--only", "wait"], stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, BORROW: "no"},
    ) as running:  # fmt: skip
        wait_until(lambda: sleepers("76543"), "the file sleeps")
        running.send_signal(number)
        assert running.wait(DEADLINE) == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: not sleepers("76543"), "the file has ended")
    if number == signal.SIGKILL:
        runner("--only", "fine")


def sleepers(seconds: str) -> str:
    """The processes that sleep so long."""
    return subprocess.run(["pgrep", "-fx", f"sleep {seconds}"], capture_output=True, text=True, check=False).stdout


@needs_root
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["runtime-tools", "/nowhere", "floor"], "/nowhere has no runtimetest"),
        (["runtime-tools", ".", "no-such-runtime"], "there is no program no-such-runtime"),
        (["compare", "/nowhere.json", "/nowhere.json"], "/nowhere.json"),
        (["page", "x.md", "/dev/null"], "not the results of a run"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments: list[str], says: str) -> None:
    done = subprocess.run([RUN, *arguments], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_compare_says_what_is_worse(tmp_path: Path) -> None:
    OURS.write(tmp_path / "ours.json")
    CRUN.write(tmp_path / "crun.json")
    for one, other, status, says in (
        ("ours", "crun", 1, "start: b"),
        ("crun", "ours", 0, "ours passes, crun does not: 0"),
    ):
        done = subprocess.run(
            [RUN, "compare", tmp_path / f"{one}.json", tmp_path / f"{other}.json"],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == status
        assert says in done.stdout
