"""The benchmarks run, measure what they say, and leave nothing behind. No time is asserted: they have goals instead."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import (
    calls,
    follow,
    grading,
    groups,
    memory,
    names,
    networks,
    podman_start,
    pull,
    shell_start,
    snapshots,
    stats,
    throughput,
    unpack,
    warm_start,
)
from benchmarks.measure import Goal, Report, Series, take_turns

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="the benchmarks that start containers want root")
compiler_only = pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="needs a C compiler")


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files, mounts and control groups are the same before and after."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = _mounts(), _groups()
    yield
    assert not list(tmp_path.glob("benchmark-*"))
    assert (_mounts(), _groups()) == before


@compiler_only
def test_the_c_program_compiles_without_a_warning(tmp_path: Path) -> None:
    assert os.access(warm_start.compile_start(tmp_path), os.X_OK)


@root_only
@compiler_only
def test_warm_start_measures_both_sides(nothing_left: None) -> None:
    report = warm_start.measure(rounds=1)
    assert {series.name for series in report.series} == {warm_start.C, warm_start.PYTHON}
    assert all(sample > 0 for series in report.series for sample in series.samples)


@root_only
@compiler_only
def test_groups_measures_every_kind_on_both_sides_and_names_the_others(nothing_left: None) -> None:
    report = groups.measure(rounds=1)
    measured = {series.name.rpartition(": ")[0] for series in report.series}
    assert measured | set(report.missing) == set(groups.KINDS)
    assert {series.name.rpartition(": ")[2] for series in report.series} == {"C", "Python"}


@root_only
def test_memory_is_that_of_every_helper(nothing_left: None) -> None:
    report = memory.measure(rounds=1, many=2)
    assert {memory.FIRST, memory.EACH, memory.KEEPER, memory.KEEPER_MANY} <= {series.name for series in report.series}
    assert all(0.1 < sample < 100 for series in report.series for sample in series.samples)


@root_only
def test_the_calls_for_a_group_are_noted_in_their_order(nothing_left: None) -> None:
    noted = calls.of_a_group()
    made = [path for _, what, path, _ in noted if what == "mkdir" and path.endswith(calls.HERE)]
    removed = [path for _, what, path, _ in noted if what == "rmdir" and path.endswith(calls.HERE)]
    joined = [path for when, _, path, _ in noted if when in ("clone", "join")]
    assert made
    assert sorted(made) == sorted(removed) == sorted(path.removesuffix("/tasks") for path in joined)
    assert [when for when, *_ in noted] == sorted(
        (when for when, *_ in noted), key=["before", "clone", "join", "after"].index
    )


@root_only
def test_stats_looks_at_containers_that_run(nothing_left: None) -> None:
    report = stats.measure(rounds=1, containers=2)
    assert report[stats.OURS].median > 0
    assert report[stats.COMMAND].median > report[stats.OURS].median


@root_only
def test_follow_measures_both_ways(nothing_left: None) -> None:
    report = follow.measure(rounds=3)
    assert report[follow.DIRECT].median > 0 and report[follow.FOLLOWED].median > 0
    assert len(report[follow.ADDED].samples) == 3


@root_only
@pytest.mark.skipif(not shutil.which("pigz"), reason="wants pigz")
def test_unpack_takes_the_same_layer_apart_in_each_way(nothing_left: None) -> None:
    before = set(os.listdir("/dev/shm"))
    report = unpack.measure(rounds=1, size=1 << 20)
    measured = {series.name for series in report.series}
    assert measured | set(report.missing) == {unpack.OURS, unpack.PEER, unpack.UMOCI, unpack.ALONE}
    assert not [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("benchmark-")]


@root_only
@pytest.mark.skipif(
    not shutil.which("podman") or not shutil.which("runc", path="/usr/bin:/usr/sbin"), reason="wants podman and runc"
)
def test_podman_start_measures_every_installed_runtime_and_names_the_others(nothing_left: None) -> None:
    report = podman_start.measure(rounds=1)
    measured = {series.name for series in report.series}
    assert measured | set(report.missing) == {podman_start.OURS, "with crun", podman_start.BESIDE}
    assert {podman_start.OURS, podman_start.BESIDE} <= measured


@root_only
@compiler_only
def test_networks_measures_both_sides_and_podman_or_says_why_not(nothing_left: None) -> None:
    report = networks.measure(rounds=1)
    ours = {networks.SHELL, networks.WITHOUT, networks.PYTHON, networks.C, networks.REMOVAL, networks.VETH}
    assert {series.name for series in report.series} | set(report.missing) == ours | {networks.PODMAN}
    assert ours <= {series.name for series in report.series}


@root_only
def test_names_are_answered_by_the_server_and_by_whom_it_asks(nothing_left: None) -> None:
    report = names.measure(rounds=2)
    assert [series.name for series in report.series] == [names.KNOWN, names.FORWARDED, names.ECHO]
    assert all(len(series.samples) == 2 for series in report.series)


@root_only
def test_throughput_goes_every_way_on_both_sides(nothing_left: None) -> None:
    report = throughput.measure(rounds=1)
    assert len(report.series) == 2 * len(throughput.WAYS)
    assert all(sample > 0 for series in report.series for sample in series.samples)


@root_only
def test_shell_start_measures_every_installed_peer_and_names_the_others(nothing_left: None) -> None:
    report = shell_start.measure(rounds=1)
    measured = {series.name for series in report.series}
    assert {shell_start.OURS, shell_start.FLOOR} <= measured
    assert measured | set(report.missing) == {shell_start.OURS, shell_start.FLOOR, *shell_start.PEERS}


@root_only
def test_a_peer_that_is_not_installed_is_said_to_be_missing(
    nothing_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_start, "PEERS", {"no-such-runtime": shell_start._oci})
    report = shell_start.measure(rounds=1)
    assert report.missing == {"no-such-runtime": "not installed"}


@root_only
def test_imports_are_shown_with_the_dearest_first(nothing_left: None) -> None:
    first, *lines = shell_start.imports(most=5).splitlines()
    assert "modules" in first
    own = [int(line.split()[0]) for line in lines]
    assert len(own) == 5
    assert own == sorted(own, reverse=True)


@root_only
def test_grading_measures_a_class_that_is_really_graded(nothing_left: None) -> None:
    report = grading.measure(rounds=1, students=2)
    assert report[grading.OURS].median > 0


def test_every_subject_has_its_turn_in_every_round() -> None:
    order: list[str] = []

    def subject(name: str) -> float:
        order.append(name)
        return 1.0

    series = take_turns({"a": lambda: subject("a"), "b": lambda: subject("b")}, rounds=2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert [len(taken.samples) for taken in series] == [2, 2]  # the warm-up does not count


def test_a_report_says_whether_the_goal_was_reached() -> None:
    slow, quick = Series("ours", (3.0, 4.0, 5.0)), Series("theirs", (2.0, 2.0, 2.0))
    report = Report("x", "X", "ms", [slow, quick], Goal("ours", 1.5, beside="theirs"))
    assert report.achieved() == 2.0
    assert "NOT reached" in report.verdict()
    assert Report("x", "X", "ms", [slow], Goal("ours", 4.0)).verdict().endswith(": reached")


def test_a_report_may_have_several_goals() -> None:
    ours, theirs = Series("ours", (3.0,)), Series("theirs", (2.0,))
    report = Report("x", "X", "ms", [ours, theirs], Goal("ours", 2.0), more_goals=[Goal("theirs", 2.0)])
    assert [goal["reached"] for goal in report.to_dict()["goals"]] == [False, True]
    assert report.verdict(report.goals[1]).endswith(": reached")


def test_the_command_writes_every_sample_and_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(rounds: int = 3) -> Report:
        return Report(
            "warm_start", "Title", "ms", [Series("ours", (1.0,) * rounds)], Goal("ours", 2.0), {"peer": "why"}
        )

    monkeypatch.setattr(command, "BENCHMARKS", {"warm_start": measured})
    monkeypatch.setattr(command, "PAGE", tmp_path / "docs" / "BENCHMARKS.md")
    assert command.main(["--rounds", "2", "--json", str(tmp_path / "figures.json"), "--write"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["benchmarks"][0]["series"] == {"ours": [1.0, 1.0]}
    assert figures["circumstances"]["kernel"]
    page = (tmp_path / "docs" / "BENCHMARKS.md").read_text()
    assert "| ours | 1.00 |" in page
    assert "peer: why" in page


def test_a_benchmark_that_cannot_run_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def impossible() -> Report:
        raise SystemExit("no compiler")

    def possible() -> Report:
        return Report("second", "Second", "ms", [Series("ours", (1.0,))], Goal("ours", 2.0))

    monkeypatch.setattr(command, "BENCHMARKS", {"first": impossible, "second": possible})
    assert command.main([]) == 1
    printed = capsys.readouterr().out
    assert "first: not measured: no compiler" in printed
    assert "Second" in printed


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def _groups() -> set[str]:
    """Other tests and programs may make groups meanwhile; those of the benchmarks say so in their names."""
    return {str(path) for path in Path("/sys/fs/cgroup").glob("**/benchmark*")}


@root_only
@pytest.mark.skipif(not shutil.which("docker-registry"), reason="apt install docker-registry")
def test_pull_measures_whoever_is_here(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "LAYERS", ((1, ("/usr/bin",)), (1, ("/usr/lib/python3.11", "/usr/lib/python3"))))
    report = pull.measure(rounds=1)
    assert {series.name for series in report.series} == {pull.OURS, pull.PODMAN, pull.DOCKER} - set(report.missing)
    assert report.notes[0].startswith("The image: 2 layers, ")


@root_only
def test_snapshots_measures_every_size_and_beside_it_what_is_installed(
    nothing_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SIZES", {"1 MB": 1, "2 MB": 2, "3 MB": 3})
    report = snapshots.measure(rounds=1)
    measured = {series.name for series in report.series}
    assert {f"{what} in process, {size}" for what in ("snapshot", "clone") for size in snapshots.SIZES} <= measured
    assert {name.partition(",")[0] for name in measured} | set(report.missing) >= {
        "podman commit",
        "lxc-snapshot",
        "lxc-copy -s",
    }
    assert all(sample > 0 for series in report.series for sample in series.samples)
    assert all(report.verdict(goal) for goal in report.goals)
