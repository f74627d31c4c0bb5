"""Wishes about resources that cannot be understood, or cannot be on any machine; what is not there, or does not run."""

from __future__ import annotations

import json

import pytest

from minicontainer.linux.cgroups import hierarchies
from tests.cli.conftest import Refused
from tests.cli.test_bad_resources import wishes
from tests.cli.test_resources import MIB
from tests.command import Command, needs_root

pytestmark = needs_root

NONSENSE = [
    ("--memory=10 bananas", '"10 bananas"', "64m"),
    ("--memory=", '""', "64m"),
    ("--memory=m", '"m"', "64m"),
    ("--memory=-5", '"-5"', "64m"),
    ("--memory=1.5g", '"1.5g"', "64m"),
    ("--memory=٣٢m", '"٣٢m"', "64m"),
    ("--memory=0", "0 bytes", "6m"),
    ("--memory=4m", "4194304 bytes", "6m"),
    ("--memory=99999999999999999999999", "99999999999999999999999", "more than any machine has"),
    ("--memory=18446744073776660480", "18446744073776660480", "more than any machine has"),  # 2**64 + 64 MiB
    ("--memory-reservation=99999999999g", "--memory-reservation", "more than any machine has"),
    ("--memory-reservation=-3", '"-3"', "64m"),
    ("--memory-swap=64m", "--memory-swap", "--memory"),
    ("--memory=64m --memory-swap=32m", "--memory-swap", "cannot be less than --memory"),
    ("--cpus=0", "0.0 processors", "0.5"),
    ("--cpus=-1", "-1.0 processors", "0.5"),
    ("--cpus=0.001", "0.001 processors", "0.5"),
    ("--cpus=nan", "nan processors", "0.5"),
    ("--cpus=9999", "9999 processors", "this host has"),
    ("--cpus=٣", '"٣"', "--cpus"),
    ("--cpus=1_0", '"1_0"', "--cpus"),
    ("--cpus=", '""', "--cpus"),
    ("--cpus=1 --cpu-quota=5000", "--cpus and --cpu-quota", "give one of them"),
    ("--cpu-quota=-7", "-7", "-1 is no limit"),
    ("--cpu-quota=5.5", '"5.5"', "--cpu-quota"),
    ("--cpu-period=0", "0 µs", "1000 to 1000000"),
    ("--cpu-period=-5", "-5 µs", "1000 to 1000000"),
    ("--cpu-period=9999999", "9999999 µs", "1000 to 1000000"),
    ("--cpu-burst=5000", "--cpu-burst", "--cpu-quota"),
    ("--cpus=1 --cpu-burst=-5", "-5 µs", "0 or more"),
    ("--cpu-shares=1", "1 CPU shares", "2 to 262144"),
    ("--cpu-shares=-1", "-1 CPU shares", "2 to 262144"),
    ("--cpu-shares=99999999999999999999", "CPU shares", "2 to 262144"),
    ("--cpu-idle --cpu-shares=5", "--cpu-idle", "leave out --cpu-shares"),
    ("--cpuset-cpus=x", '"x"', "0-2,7"),
    ("--cpuset-cpus=", '""', "0-2,7"),
    ("--cpuset-cpus=٠", '"٠"', "0-2,7"),
    ("--cpuset-cpus=0-", '"0-"', "0-2,7"),
    ("--pids-limit=0", "0 processes", "2"),
    ("--pids-limit=1", "1 processes", "2"),
    ("--pids-limit=-2", "-2 processes", "2"),
    ("--pids-limit=1_0", '"1_0"', "--pids-limit"),
    ("--pids-limit=many", '"many"', "--pids-limit"),
    ("--blkio-weight=5", "weight of 5", "10 to 1000"),
    ("--blkio-weight=1001", "weight of 1001", "10 to 1000"),
    ("--net-class=-1", '"-1"', "10:1"),
    ("--net-class=10:99999", '"10:99999"', "10:1"),
    ("--net-class=4294967296", '"4294967296"', "2^32"),
    ("--net-class=10:1:2", '"10:1:2"', "10:1"),
    ("--net-class=٣", '"٣"', "10:1"),
    ("--net-prio=lo", '"lo"', "--net-prio eth0=5"),
    ("--net-prio=lo=-1", '"-1"', "no number"),
    ("--net-prio=lo=4294967296", "4294967296", "2^32"),
    ("--hugetlb=2MB", '"2MB"', "--hugetlb 2MB=64m"),
    ("--hugetlb=2MB=x", '"x"', "64m"),
    ("--rdma=mlx5_0=1", '""', "no number"),
    ("--misc=sev", '"sev"', "--misc sev=1"),
    ("--unified=memory.oom.group", '"memory.oom.group"', "--unified memory.oom.group=1"),
    ("--device=dev", '"dev"', "/dev/NAME"),
    ("--device=/dev/null:/dev/x:rz", '"/dev/null:/dev/x:rz"', "rwm"),
    ("--device=/dev/nope", "/dev/nope", "no device"),
    ("--device=/etc/passwd", "/etc/passwd", "--volume"),
    ("--device=/dev/null:/etc/null", "/etc/null", "/dev/null:/dev/NAME"),
    ("--device-cgroup-rule=x", '"x"', "c 1:3 rwm"),
    ("--device-cgroup-rule=c 1:3 rwx", '"c 1:3 rwx"', "c 1:3 rwm"),
    ("--device-cgroup-rule=c ١:3 r", '"c ١:3 r"', "c 1:3 rwm"),
    ("--device-read-bps=/dev/null:1m", "/dev/null", "lsblk"),
    ("--device-read-bps=/dev/nope:1m", "/dev/nope", "no device"),
    ("--device-read-bps=/dev/null", '"/dev/null"', "64m"),
    ("--device-read-iops=8:0:-1", '"-1"', "no number"),
    ("--device-write-bps=8:1m", '"8:1m"', "/dev/vda:10m"),
    ("--cgroup-parent=..", '".."', "web/front"),
    ("--cgroup-parent=../minicontainer", '"../minicontainer"', "web/front"),
    ("--cgroup-parent=/../../x", '"../../x"', "web/front"),
    ("--cgroup-parent=web/../..", '"web/../.."', "web/front"),
    ("--cgroup-parent=web//front", '"web//front"', "web/front"),
    ("--cgroup-parent=cgroup.procs", '"cgroup.procs"', "web/front"),
    ("--cgroup-parent=web/cgroup.procs", '"web/cgroup.procs"', "web/front"),
    ("--cgroup-parent=a b", '"a b"', "letters"),
    ("--cgroup-parent=ä", '"ä"', "letters"),
    ("--cgroupns=both", "--cgroupns", "private"),
    ("--memory-share=1:1", "--memory-share", "--help"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "told", "advice"), NONSENSE, ids=[row[0] for row in NONSENSE])
def test_what_cannot_be_is_refused_with_what_would_work(refused: Refused, options: str, told: str, advice: str) -> None:
    words = options.split(" --")
    text = refused(125, "run", "--rm", words[0], *(f"--{word}" for word in words[1:]), "busybox", "true")
    assert told in text and advice in text


@pytest.mark.parametrize(
    "value", ["../memory.max", "/etc/passwd", "a/b", "cgroup.procs", "cgroup.subtree_control", ".."]
)
def test_only_limits_can_be_written_through_unified(refused: Refused, value: str) -> None:
    text = refused(125, "run", "--rm", f"--unified={value}=1", "busybox", "true")
    if any(tree.version == 2 for tree in hierarchies()):
        assert value in text
    else:
        assert "only v1 trees" in text


# Shares of memory


@pytest.mark.parametrize(
    ("share", "memory", "told"),
    [
        ("1:1:1", "300m", "3 shares, for 2 containers"),
        ("1", "300m", "1 shares, for 2 containers"),
        ("1:0", "300m", "1:2:1"),
        ("1:-1", "300m", "1:2:1"),
        ("1:x", "300m", "1:2:1"),
        ("1:٣", "300m", "1:2:1"),
        ("1:", "300m", "1:2:1"),
        ("1:1.5", "300m", "1:2:1"),
        ("1:1", "8m", "at least 6m"),
        ("1:1", "-1", "at least 6m"),
        ("1:1", "0", "at least 6m"),
        ("1:100000000", "300m", "1:2:1"),
        ("1:10000", "300m", "at least 6m"),
        ("1:1", "lots", "size"),
        ("1:1", "", "--memory"),
    ],
)
def test_shares_that_cannot_be_change_nothing(
    refused: Refused, minicontainer: Command, share: str, memory: str, told: str
) -> None:
    for name in ("alpha", "beta"):
        minicontainer("create", "--name", name, "-m", "64m", "busybox", "true")
    pool = ["--memory", memory] if memory else []
    assert told in refused(125, "update", *pool, f"--memory-share={share}", "alpha", "beta")
    assert wishes(minicontainer, "alpha")["memory"] == wishes(minicontainer, "beta")["memory"] == 64 * MIB
    minicontainer("rm", "alpha", "beta")


# What is not there, or does not run


@pytest.mark.parametrize("command", ["pause", "unpause", "freeze", "unfreeze"])
def test_what_does_not_run_cannot_be_stopped(refused: Refused, minicontainer: Command, command: str) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert "minicontainer start alpha" in refused(1, command, "alpha")
    minicontainer("start", "-a", "alpha")
    assert "does not run" in refused(1, command, "alpha")
    minicontainer("rm", "alpha")


@pytest.mark.parametrize(
    "arguments",
    [
        ["update", "--memory", "64m", "nope"], ["pause", "nope"], ["unpause", "nope"], ["freeze", "nope"],
        ["unfreeze", "nope"], ["stats", "--no-stream", "nope"], ["cgroup", "count", "nope"],
        ["update", "--memory", "64m", "../containers"], ["pause", ""],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_name_of_nothing(refused: Refused, arguments: list[str]) -> None:
    text = refused(1, *arguments)
    assert f'"{arguments[-1]}"' in text and "minicontainer ps -a" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cgroup"], "what"),
        (["cgroup", "forest"], "tree"),
        (["cgroup", "count"], "minicontainer cgroup count c1"),
        (["cgroup", "count", "alpha", "--event", "nonsense"], "cpu-clock"),
        (["cgroup", "count", "alpha", "--seconds", "x"], "--seconds"),
        (["cgroup", "count", "alpha", "--seconds=-1"], "positive"),
        (["cgroup", "count", "alpha", "--seconds", "nan"], "positive"),
        (["cgroup", "count", "alpha", "--seconds", "inf"], "positive"),
        (["pause"], "CONTAINER"),
        (["stats", "--nonsense"], "--help"),
        (["update", "--oom-kill-disable", "alpha"], "--help"),
        (["update", "--device", "/dev/null", "alpha"], "--help"),
    ],
)
def test_words_that_are_missing_or_wrong(
    refused: Refused, minicontainer: Command, arguments: list[str], told: str
) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert told in refused(125, *arguments)
    minicontainer("rm", "alpha")


def test_events_of_what_does_not_run(refused: Refused, minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    assert "minicontainer start alpha" in refused(1, "cgroup", "count", "alpha")
    assert json.loads(minicontainer("stats", "--json", "alpha").stdout) == []
    minicontainer("rm", "alpha")
